"""Whether a model's facts can be true together: heads that divide, parts within their whole, counts that add up.

A shape that cannot exist gives no figure, only the reason. What follows from a sound shape belongs to memory and
weights; facts that are merely missing, to those who need them.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.records import ModelShape

TOLERANCE = 0.20
"""By how much, of what the layers add up to, the parameters may differ from it."""
_GATED, _PLAIN = 3, 2
"""Matrices of a feed-forward layer with a gate and of one without."""
_WITHOUT_GATE = ("Starcoder2", "GPT", "Falcon", "Nemotron", "OPT", "Bloom", "Phi", "MPT")
"""How the names of architectures begin whose feed-forward layers have no gate; all candidates' have one."""


@dataclass(frozen=True, slots=True)
class CountedParams:
    """Parameters as layer arithmetic gives them: lower with tied embeddings where nobody said, higher without."""

    low: int
    high: int


def contradictions(shape: ModelShape, *, architecture: str | None = None) -> tuple[str, ...]:
    """What cannot be true in this shape, each as a clause with the figures; empty for a sound or a sparse one."""
    found = [*_out_of_range(shape)]
    if found:
        return tuple(found)
    found += _parts_beyond_their_whole(shape)
    if shape.heads and shape.kv_heads and shape.mla is None and shape.heads % shape.kv_heads:
        found.append(f"heads ({shape.heads}) is no multiple of kv_heads ({shape.kv_heads})")
    if shape.sliding_window is not None and shape.attention_chunk is not None:
        found.append("sliding_window and attention_chunk are both given; vLLM serves no model with both")
    counted = None if found else count_params(shape, architecture=architecture)
    if counted is not None and shape.params is not None:
        low, high = counted.low * (1 - TOLERANCE), counted.high * (1 + TOLERANCE)
        if not low <= shape.params <= high:
            found.append(
                f"params ({shape.params:,}) differs by more than {TOLERANCE:.0%} from the {counted.low:,} to "
                f"{counted.high:,} that the layers add up to"
            )
    return tuple(found)


def count_params(shape: ModelShape, *, architecture: str | None = None) -> CountedParams | None:
    """Embeddings, attention, feed-forward layers and experts added up; None where a needed size is unknown.

    Norms and biases are left out: they are far below the tolerance.
    """
    layers, hidden, vocab = shape.layers, shape.hidden, shape.vocab
    attention, known_vision = attention_params(shape), shape.vision is None or shape.vision.params is not None
    if not layers or not hidden or not vocab or attention is None or shape.linear is not None or not known_vision:
        return None
    feed_forward = _feed_forward(shape, _PLAIN if (architecture or "").startswith(_WITHOUT_GATE) else _GATED)
    if feed_forward is None:
        return None
    low, high = (1, 1) if shape.tied_embeddings else (2, 2) if shape.tied_embeddings is False else (1, 2)
    rest = layers * attention + feed_forward + ((shape.vision.params or 0) if shape.vision is not None else 0)
    return CountedParams(rest + low * vocab * hidden, rest + high * vocab * hidden)


def attention_params(shape: ModelShape) -> int | None:
    """Parameters of the projections of one attention layer; None where a needed size is unknown."""
    hidden, heads, key = shape.hidden, shape.heads, shape.head_dim
    if not hidden or not heads or not key:
        return None
    value = shape.v_head_dim or key
    if shape.mla is None:
        if not shape.kv_heads:
            return None
        return hidden * (heads * key + shape.kv_heads * (key + value) + heads * value)
    mla = shape.mla
    query = key + mla.qk_rope_head_dim
    queries = hidden * heads * query
    if mla.q_lora_rank:
        queries = mla.q_lora_rank * (hidden + heads * query)
    return (
        queries + hidden * mla_latent_width(shape) + mla.kv_lora_rank * heads * (key + value) + heads * value * hidden
    )


def mla_latent_width(shape: ModelShape) -> int:
    """Elements of one token's latent."""
    return 0 if shape.mla is None else shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim


def _feed_forward(shape: ModelShape, matrices: int) -> int | None:
    """Of all layers; None where a needed size is unknown."""
    layers, hidden, ffn, moe = shape.layers or 0, shape.hidden or 0, shape.ffn, shape.moe
    if moe is None:
        return layers * matrices * hidden * ffn if ffn else None
    if not moe.expert_ffn or (moe.dense_layers and not ffn):
        return None
    expert = _GATED * hidden * moe.expert_ffn
    sparse = layers - moe.dense_layers
    routed = sparse * ((moe.experts + moe.shared_experts) * expert + moe.experts * hidden)
    return routed + moe.dense_layers * matrices * hidden * (ffn or 0)


def _out_of_range(shape: ModelShape) -> list[str]:
    """Sizes below 1, and counts below 0, with their names."""
    sizes: dict[str, int | None] = {
        name: getattr(shape, name)
        for name in (
            *("params", "active_params", "layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "v_head_dim"),
            *("vocab", "context", "sliding_window", "attention_chunk"),
        )
    }
    counts: dict[str, int | None] = {"global_layers": shape.global_layers}
    if shape.mla is not None:
        sizes |= {
            "mla.kv_lora_rank": shape.mla.kv_lora_rank,
            "mla.q_lora_rank": shape.mla.q_lora_rank,
            "mla.index_head_dim": shape.mla.index_head_dim,
        }
        counts["mla.qk_rope_head_dim"] = shape.mla.qk_rope_head_dim
    if shape.moe is not None:
        moe = shape.moe
        sizes |= {
            "moe.experts": moe.experts,
            "moe.experts_per_token": moe.experts_per_token,
            "moe.expert_ffn": moe.expert_ffn,
        }
        counts |= {"moe.shared_experts": moe.shared_experts, "moe.dense_layers": moe.dense_layers}
    if shape.linear is not None:
        sizes |= {"linear.layers": shape.linear.layers, "linear.state_bytes": shape.linear.state_bytes}
    if shape.vision is not None:
        sizes["vision.params"] = shape.vision.params
    found = [f"{name} must be at least 1, got {value:,}" for name, value in sizes.items() if _below(value, 1)]
    return found + [f"{name} must be at least 0, got {value:,}" for name, value in counts.items() if _below(value, 0)]


def _below(value: int | None, least: int) -> bool:
    return value is not None and value < least


def _parts_beyond_their_whole(shape: ModelShape) -> list[str]:
    moe, linear, vision = shape.moe, shape.linear, shape.vision
    pairs: list[tuple[str, int | None, str, int | None]] = [
        ("active_params", shape.active_params, "params", shape.params),
        ("global_layers", shape.global_layers, "layers", shape.layers),
    ]
    if shape.mla is None:
        pairs.append(("kv_heads", shape.kv_heads, "heads", shape.heads))
    if moe is not None:
        pairs.append(("moe.experts_per_token", moe.experts_per_token, "moe.experts", moe.experts))
        pairs.append(("moe.dense_layers", moe.dense_layers, "layers", shape.layers))
    if linear is not None:
        pairs.append(("linear.layers", linear.layers, "layers", shape.layers))
        both = None if shape.global_layers is None else shape.global_layers + linear.layers
        pairs.append(("global_layers and linear.layers together", both, "layers", shape.layers))
    if vision is not None:
        pairs.append(("vision.params", vision.params, "params", shape.params))
    return [
        f"{part} ({amount:,}) is more than {whole} ({limit:,})"
        for part, amount, whole, limit in pairs
        if amount is not None and limit is not None and amount > limit
    ]
