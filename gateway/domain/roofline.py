"""How long one step of an engine takes at least: bytes over bandwidth against operations over peak.

The formulas of docs/measurement.md, for dense models and mixtures, full and windowed attention, MLA. With
`EXPECTED` efficiencies they say what to expect, with `PEAK` what no engine can beat. How requests are put
together into a step belongs to engine_model; how much memory they take belongs to memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.domain.memory import KvLayout, kv_layout, missing_kv_fields, number_format, weights_bytes
from gateway.domain.records import Gpu, Model, ModelShape

MATRICES_PER_EXPERT = 3
"""Gate, up and down projection of a gated feed-forward layer."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the data sheet's bandwidth and operations that an engine reaches."""

    bandwidth: float
    flops: float


PEAK = Efficiency(bandwidth=1.0, flops=1.0)
EXPECTED = Efficiency(bandwidth=0.8, flops=0.5)


@dataclass(frozen=True, slots=True)
class Work:
    """What one step does for one request: `new_tokens` are computed on top of `past_tokens` in its cache."""

    new_tokens: int
    past_tokens: int
    samples: bool = True
    """Whether the output head is needed, i.e. the last new token is the last one known."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """One model on one GPU, as the numbers that a step's time depends on."""

    bytes_per_s: float
    flops_per_s: float
    dense_read_bytes: float
    """Weights that every step reads, whatever the batch: all but experts and an untied input embedding."""
    expert_bytes: float
    """Bytes of one routed expert, summed over all layers that have it; 0 for a dense model."""
    experts: int
    experts_per_token: int
    body_params: int
    """Active parameters without input embedding and output head."""
    head_params: int
    attention_width: int
    """heads × head_dim: multiply-adds of one score; the latent's width a head where MLA gives no head_dim."""
    kv: KvLayout

    def step_seconds(self, batch: Iterable[Work]) -> float:
        """Time of one step over `batch`; 0 for an empty one."""
        works = tuple(batch)
        tokens = sum(work.new_tokens for work in works)
        if tokens == 0:
            return 0.0
        return max(self._read_bytes(works, tokens) / self.bytes_per_s, self._flops(works) / self.flops_per_s)

    def weights_read_bytes(self, tokens: int) -> float:
        """Bytes of weights that `tokens` tokens in one step touch: E × (1 - (1 - k/E)^tokens) experts a layer."""
        if self.experts == 0:
            return self.dense_read_bytes
        touched = self.experts * (1.0 - (1.0 - self.experts_per_token / self.experts) ** tokens)
        return self.dense_read_bytes + touched * self.expert_bytes

    def _read_bytes(self, works: tuple[Work, ...], tokens: int) -> float:
        return self.weights_read_bytes(tokens) + self.kv.token_bytes * sum(self._cached(work) for work in works)

    def _cached(self, work: Work) -> int:
        """Cached tokens that a request's attention reads, summed over layers."""
        windowed = work.past_tokens if self.kv.window is None else min(work.past_tokens, self.kv.window)
        return self.kv.full_layers * work.past_tokens + self.kv.window_layers * windowed

    def _flops(self, works: tuple[Work, ...]) -> float:
        total = 0.0
        for work in works:
            total += 2.0 * self.body_params * work.new_tokens
            total += 4.0 * self.attention_width * self._pairs(work)
            total += 2.0 * self.head_params if work.samples else 0.0
        return total

    def _pairs(self, work: Work) -> float:
        """Query-key pairs under the causal mask, summed over layers; T²/2 a layer for a fresh prompt of T."""
        pairs = self.kv.full_layers * causal_pairs(work.new_tokens, work.past_tokens, None)
        return pairs + self.kv.window_layers * causal_pairs(work.new_tokens, work.past_tokens, self.kv.window)


def causal_pairs(new_tokens: int, past_tokens: int, window: int | None) -> float:
    """Query-key pairs in one layer for `new_tokens` queries after `past_tokens`, each seeing `window` at most."""
    end = past_tokens + new_tokens
    if window is None or end <= window:
        return (end * end - past_tokens * past_tokens) / 2.0
    inside = max(0, window - past_tokens)
    grown = (window * window - past_tokens * past_tokens) / 2.0 if inside else 0.0
    return grown + float(new_tokens - inside) * window


def build_roofline(model: Model, gpu: Gpu, *, efficiency: Efficiency = EXPECTED) -> Roofline:
    """The roofline of `model` on one `gpu`.

    Where the embedding's size (hidden, vocab) is unknown, it counts as read and used by every token: a step then
    comes out slightly too long. Raises ValueError that names every missing fact when the model's shape or the GPU's
    speed is not known.
    """
    missing = missing_facts(model, gpu)
    shape, weights, flops = model.shape, weights_bytes(model), _flops_per_s(model, gpu)
    if missing or shape is None or weights is None or flops is None:
        raise ValueError(f"the speed of {model.id} on {gpu.id} cannot be computed: unknown {', '.join(missing)}")
    layout = kv_layout(shape)
    assert layout is not None
    params, vocab_params = shape.params or 0, (shape.vocab or 0) * (shape.hidden or 0)
    active = shape.active_params or params
    expert_params = _routed_expert_params(shape)
    bytes_per_param = weights / params
    moe = shape.moe
    routed = 0.0 if moe is None else moe.experts * expert_params
    return Roofline(
        bytes_per_s=gpu.bandwidth_bytes_per_s * efficiency.bandwidth,
        flops_per_s=flops * efficiency.flops,
        dense_read_bytes=(params - routed - (0 if shape.tied_embeddings else vocab_params)) * bytes_per_param,
        expert_bytes=expert_params * bytes_per_param,
        experts=0 if moe is None else moe.experts,
        experts_per_token=0 if moe is None else moe.experts_per_token,
        body_params=max(0, active - vocab_params * (1 if shape.tied_embeddings else 2)),
        head_params=vocab_params,
        attention_width=_attention_width(shape),
        kv=layout,
    )


def missing_facts(model: Model, gpu: Gpu) -> tuple[str, ...]:
    """Facts without which nothing can be said about the speed of `model` on `gpu`, by field name."""
    shape = model.shape
    if shape is None:
        return ("shape",)
    wanted: dict[str, object] = {
        "params": shape.params,
        "active_params": shape.active_params if shape.moe is not None else shape.params,
        "heads": shape.heads,
        "weights.dtype or size_bytes": weights_bytes(model),
        f"{gpu.id}.bf16_flops": _flops_per_s(model, gpu),
    }
    missing = [name for name, value in wanted.items() if not value]
    return tuple(dict.fromkeys((*missing, *missing_kv_fields(shape))))


def _flops_per_s(model: Model, gpu: Gpu) -> float | None:
    """Peak for the weights' number format: 8-bit floats use the FP8 units where there are any."""
    if number_format(model.weights.dtype) == "fp8" and gpu.fp8_flops:
        return gpu.fp8_flops
    return gpu.bf16_flops


def _routed_expert_params(shape: ModelShape) -> float:
    """Parameters of one routed expert summed over its layers.

    params - active_params are the experts a token leaves out, so (params - active) / (E - k); from the
    feed-forward sizes where every expert is used.
    """
    moe = shape.moe
    if moe is None or shape.params is None or shape.active_params is None:
        return 0.0
    if moe.experts > moe.experts_per_token:
        return (shape.params - shape.active_params) / (moe.experts - moe.experts_per_token)
    layers = (shape.layers or 0) - moe.dense_layers
    return float(MATRICES_PER_EXPERT * (shape.hidden or 0) * (moe.expert_ffn or 0) * layers)


def _attention_width(shape: ModelShape) -> int:
    if shape.mla is not None and shape.head_dim is None:
        return (shape.heads or 0) * (shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim)
    return (shape.heads or 0) * (shape.head_dim or 0)
