"""How long one step of an engine takes at least: bytes over bandwidth against operations over peak.

The formulas of docs/measurement.md, for dense models and mixtures, full and windowed attention, MLA. `build_roofline`
says what to expect, `build_bound` what no engine can beat. How requests are put together into a step belongs to
engine_model, what a whole answer takes to ceilings, how much memory it takes to memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gateway.domain.kv_cache import KvLayout
from gateway.domain.memory import kv_layout, missing_kv_fields, number_format, weights_bytes, weights_bytes_as
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
BITS = {"fp32": 16, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "int4": 4, "awq": 4, "nvfp4": 4, "mxfp4": 4}
"""Bits of the fastest unit that could multiply weights of a format; the table has no rate of its own for 32 bits."""
LEAST_FORMAT = "2 bits"
"""Weights of so few bits that no format in use has fewer: what a refutation takes where none is named."""
EIGHT_BIT_UNITS = ("fp8", "int8", "nvfp4", "mxfp4")
"""Formats that an engine is expected to multiply in 8 bits where the GPU can; int4 and awq are unpacked to 16."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one step does for one request: `new_tokens` are computed on top of `past_tokens` in its cache."""

    new_tokens: int
    past_tokens: int
    samples: bool = True
    """Whether the output head is needed, i.e. the last new token is the last one known."""


@dataclass(frozen=True, slots=True)
class CacheReads:
    """What one token's attention reads of a request's cache."""

    full_layers: int
    local_layers: int
    window: int
    """Tokens that a local layer sees at most."""
    token_bytes: int
    """Bytes of one token in one layer, all GPUs together."""
    state_bytes: int = 0
    """Bytes of the constant states of linear layers, read by every step."""

    def read_bytes(self, past_tokens: int) -> int:
        """Bytes that a request with so many cached tokens reads in one step."""
        tokens = self.full_layers * past_tokens + self.local_layers * min(past_tokens, self.window)
        return self.token_bytes * tokens + self.state_bytes


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
    attention_width: float
    """heads × head_dim: multiply-adds of one score; the latent's width a head where MLA gives no head_dim."""
    cache: CacheReads
    kv: KvLayout
    even_router: bool = True
    """Whether tokens choose their experts evenly, which is expected; a bound counts those of one token only."""

    def step_seconds(self, batch: Iterable[Work]) -> float:
        """Time of one step over `batch`; 0 for an empty one."""
        works = tuple(batch)
        tokens = sum(work.new_tokens for work in works)
        if tokens == 0:
            return 0.0
        return max(self._read_bytes(works, tokens) / self.bytes_per_s, self._flops(works) / self.flops_per_s)

    def weights_read_bytes(self, tokens: int) -> float:
        """Bytes of weights that `tokens` tokens in one step touch: E × (1 - (1 - k/E)^tokens) experts a layer.

        Nothing makes tokens choose different experts, so of a bound they touch no more than k together.
        """
        if self.experts == 0:
            return self.dense_read_bytes
        if not self.even_router:
            return self.dense_read_bytes + (self.experts_per_token if tokens else 0) * self.expert_bytes
        touched = self.experts * (1.0 - (1.0 - self.experts_per_token / self.experts) ** tokens)
        return self.dense_read_bytes + touched * self.expert_bytes

    def request_flops(self, work: Work) -> float:
        """Operations of one request in one step: its tokens through the layers, its attention, its sampled token."""
        flops = 2.0 * self.body_params * work.new_tokens + 4.0 * self.attention_width * self._pairs(work)
        return flops + (2.0 * self.head_params if work.samples else 0.0)

    def _read_bytes(self, works: tuple[Work, ...], tokens: int) -> float:
        return self.weights_read_bytes(tokens) + sum(self.cache.read_bytes(work.past_tokens) for work in works)

    def _flops(self, works: tuple[Work, ...]) -> float:
        return sum(self.request_flops(work) for work in works)

    def _pairs(self, work: Work) -> float:
        """Query-key pairs under the causal mask, summed over layers; T²/2 a layer for a fresh prompt of T."""
        pairs = self.cache.full_layers * causal_pairs(work.new_tokens, work.past_tokens, None)
        return pairs + self.cache.local_layers * causal_pairs(work.new_tokens, work.past_tokens, self.cache.window)


def causal_pairs(new_tokens: int, past_tokens: int, window: int | None) -> float:
    """Query-key pairs in one layer for `new_tokens` queries after `past_tokens`, each seeing `window` at most."""
    end = past_tokens + new_tokens
    if window == 0:
        return 0.0
    if window is None or end <= window:
        return (end * end - past_tokens * past_tokens) / 2.0
    inside = max(0, window - past_tokens)
    grown = (window * window - past_tokens * past_tokens) / 2.0 if inside else 0.0
    return grown + float(new_tokens - inside) * window


def build_roofline(model: Model, gpu: Gpu, *, efficiency: Efficiency = EXPECTED) -> Roofline:
    """The roofline of `model`, as published, on one `gpu`.

    Where the embedding's size (hidden, vocab) is unknown, it counts as read and used by every token: a step then
    comes out slightly too long. Raises ValueError that names every missing fact when the model's shape or the GPU's
    speed is not known.
    """
    missing = missing_facts(model, gpu)
    shape, weights, flops = model.shape, weights_bytes(model), expected_flops(gpu, model.weights.dtype)
    if missing or shape is None or weights is None or flops is None:
        raise _unknown(model, gpu, missing)
    return _roofline(
        shape,
        bytes_per_s=gpu.bandwidth_bytes_per_s * efficiency.bandwidth,
        flops_per_s=flops * efficiency.flops,
        bytes_per_param=weights / (shape.params or 1),
        attention_width=_attention_width(shape),
        kv_dtype_bytes=2,
    )


def expect_roofline(model: Model, gpu: Gpu, *, gpus: int, weights_format: str, kv_dtype_bytes: float) -> Roofline:
    """What to expect of `model` in a number format on `gpus` GPUs that share all work evenly, at `EXPECTED`.

    Raises ValueError that names every missing fact.
    """
    missing = missing_facts(model, gpu)
    shape, flops = model.shape, expected_flops(gpu, weights_format)
    weights = published_or_as(model, weights_format)
    if missing or shape is None or weights is None or flops is None:
        raise _unknown(model, gpu, missing or (f"the size of weights in {weights_format}",))
    return _roofline(
        shape,
        bytes_per_s=gpus * gpu.bandwidth_bytes_per_s * EXPECTED.bandwidth,
        flops_per_s=gpus * flops * EXPECTED.flops,
        bytes_per_param=weights / (shape.params or 1),
        attention_width=_attention_width(shape),
        kv_dtype_bytes=kv_dtype_bytes,
    )


def build_bound(model: Model, gpu: Gpu, *, gpus: int, weights_format: str, kv_dtype_bytes: float) -> Roofline:
    """What no engine can beat: the least that must be read and computed, at the full speed of `gpus` GPUs.

    Communication takes no time, the embedding and the output head are quantised like the rest, weights of few bits are
    multiplied by the fastest unit there could be, all tokens choose the same experts, an image encoder is not read,
    what a sparse indexer leaves out and what a chunk holds is not read. Raises ValueError that names every missing
    fact: a bound guesses nothing.
    """
    missing = missing_bound_facts(model, gpu)
    shape, flops = model.shape, flops_at_best(gpu, weights_format)
    least = least_weights_bytes(model, weights_format)
    if missing or shape is None or flops is None or least is None:
        raise _unknown(model, gpu, missing or (f"bytes per parameter in {weights_format}",))
    bound = _roofline(
        _without_vision(shape),
        bytes_per_s=gpus * gpu.bandwidth_bytes_per_s * PEAK.bandwidth,
        flops_per_s=gpus * flops * PEAK.flops,
        bytes_per_param=least / (shape.params or 1),
        attention_width=_least_attention_width(shape),
        kv_dtype_bytes=kv_dtype_bytes,
    )
    bound = replace(bound, even_router=False)
    if shape.mla is None or shape.mla.index_head_dim is None:
        return bound
    return replace(bound, attention_width=0.0, cache=replace(bound.cache, full_layers=0))


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
        f"{gpu.id}.bf16_flops": expected_flops(gpu, model.weights.dtype),
    }
    missing = [name for name, value in wanted.items() if not value]
    return tuple(dict.fromkeys((*missing, *missing_kv_fields(shape))))


def missing_bound_facts(model: Model, gpu: Gpu) -> tuple[str, ...]:
    """Facts without which nothing can be refuted: those of an expectation, and the size of what a step need not read.

    A mixture by its parameters needs its experts too, and a model that takes images the size of its encoder.
    """
    shape, missing = model.shape, missing_facts(model, gpu)
    if shape is None:
        return missing
    wanted: dict[str, object] = {"hidden": shape.hidden, "vocab": shape.vocab}
    if shape.active_params is None or shape.active_params != shape.params:
        wanted |= {"active_params": shape.active_params, "moe": shape.moe}
    if shape.vision is not None or "vision" in model.capabilities:
        wanted["vision.params"] = shape.vision and shape.vision.params
    return tuple(dict.fromkeys((*missing, *(name for name, value in wanted.items() if not value))))


def least_weights_bytes(model: Model, weights_format: str) -> int | None:
    """Least bytes of the weights in a format: embeddings quantised too, or the published files where smaller."""
    shape = model.shape
    if weights_format == LEAST_FORMAT:
        return None if shape is None or not shape.params else -(-shape.params // 4)
    size = None if shape is None else weights_bytes_as(replace(shape, vocab=None), weights_format)
    is_published = number_format(model.weights.dtype) == number_format(weights_format)
    published = model.weights.size_bytes if is_published else None
    if size is None or not published or published <= 0:
        return size or published
    return min(size, published)


def published_or_as(model: Model, weights_format: str) -> int | None:
    """Bytes of the weights as published where that is the format, else what they would take in it."""
    if number_format(model.weights.dtype) == number_format(weights_format):
        return weights_bytes(model)
    return None if model.shape is None else weights_bytes_as(model.shape, weights_format)


def least_cache_bytes(model: Model, context: int, *, kv_dtype_bytes: float) -> int:
    """Least bytes of the cache of one request of `context` tokens, without blocks; 0 where the shape does not say."""
    shape = model.shape
    if shape is None or missing_kv_fields(shape) or (shape.mla is not None and shape.mla.index_head_dim is not None):
        return 0
    return _cache_reads(shape, kv_dtype_bytes).read_bytes(context)


def expected_flops(gpu: Gpu, weights_format: str) -> float | None:
    """Operations a second on the data sheet for weights of a format: 8-bit units where the GPU has any, else 16."""
    if number_format(weights_format) in EIGHT_BIT_UNITS and gpu.fp8_flops:
        return gpu.fp8_flops
    return gpu.bf16_flops


def flops_at_best(gpu: Gpu, weights_format: str) -> float | None:
    """Operations a second that weights of a format can reach at best: twice as many for each halving of the bits.

    The data sheets in use give no rate for 8-bit integers and for 4 bits; no unit there is gains more than that.
    """
    bits = 2 if weights_format == LEAST_FORMAT else BITS.get(number_format(weights_format) or "")
    if bits is None or gpu.bf16_flops is None:
        return None
    return max(gpu.bf16_flops * 16 / bits, 0.0 if bits == 16 else (gpu.fp8_flops or 0.0) * 8 / bits)


def _unknown(model: Model, gpu: Gpu, missing: tuple[str, ...]) -> ValueError:
    return ValueError(f"the speed of {model.id} on {gpu.id} cannot be computed: unknown {', '.join(missing)}")


def _roofline(
    shape: ModelShape,
    *,
    bytes_per_s: float,
    flops_per_s: float,
    bytes_per_param: float,
    attention_width: float,
    kv_dtype_bytes: float,
) -> Roofline:
    layout = kv_layout(shape, kv_dtype="fp8" if kv_dtype_bytes == 1 else "auto")
    assert layout is not None
    params, vocab_params = shape.params or 0, (shape.vocab or 0) * (shape.hidden or 0)
    active = shape.active_params or params
    expert_params = _routed_expert_params(shape)
    moe = shape.moe
    routed = 0.0 if moe is None else moe.experts * expert_params
    unread = 0 if shape.tied_embeddings else vocab_params
    return Roofline(
        bytes_per_s=bytes_per_s,
        flops_per_s=flops_per_s,
        dense_read_bytes=max(0.0, params - routed - unread) * bytes_per_param,
        expert_bytes=expert_params * bytes_per_param,
        experts=0 if moe is None else moe.experts,
        experts_per_token=0 if moe is None else moe.experts_per_token,
        body_params=max(0, active - vocab_params * (1 if shape.tied_embeddings else 2)),
        head_params=vocab_params,
        attention_width=attention_width,
        cache=_cache_reads(shape, kv_dtype_bytes),
        kv=layout,
    )


def _without_vision(shape: ModelShape) -> ModelShape:
    """The part that reads and writes text."""
    if shape.vision is None or shape.vision.params is None:
        return shape
    params, active = (shape.params or 0) - shape.vision.params, (shape.active_params or 0) - shape.vision.params
    return replace(shape, params=params, active_params=active)


def _cache_reads(shape: ModelShape, dtype_bytes: float) -> CacheReads:
    """Layers by what they see. A layer that attends within chunks counts as reading nothing, which is the least."""
    layers, linear = shape.layers or 0, shape.linear
    has_local = shape.sliding_window is not None or shape.attention_chunk is not None
    others = linear.layers if linear is not None else 0
    full = layers - others if not has_local else shape.global_layers or 0
    if shape.mla is not None:
        elements = shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim
    else:
        elements = (shape.kv_heads or 0) * ((shape.head_dim or 0) + (shape.v_head_dim or shape.head_dim or 0))
    return CacheReads(
        full_layers=full,
        local_layers=max(0, layers - others - full),
        window=shape.sliding_window or 0,
        token_bytes=int(elements * dtype_bytes),
        state_bytes=0 if linear is None else linear.layers * (linear.state_bytes or 0),
    )


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


def _attention_width(shape: ModelShape) -> float:
    if shape.mla is not None and shape.head_dim is None:
        return (shape.heads or 0) * (shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim)
    return _least_attention_width(shape)


def _least_attention_width(shape: ModelShape) -> float:
    """Mean of key and value width over all heads; 0 where MLA does not say how wide a head is."""
    head_dim = shape.head_dim or 0
    return (shape.heads or 0) * (head_dim + (shape.v_head_dim or head_dim)) / 2
