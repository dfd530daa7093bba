"""A model's shape as vLLM's memory sees it: its layers' KV cache, the budget of a GPU, the overhead beside both.

Pure arithmetic over registry facts; the accounting of blocks is kv_cache's, the bytes of a checkpoint weights'. Whether
it suits a GPU is judged in feasibility; how fast it runs belongs to engine_model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from gateway.domain.kv_cache import KvLayout
from gateway.domain.kv_groups import DEFAULT_RULES, KvRules, Paging
from gateway.domain.kv_layers import (
    Keeps,
    KvLayer,
    KvLayers,
    attention_token_bytes,
    index_token_bytes,
    latent_token_bytes,
    pipeline_stages,
)
from gateway.domain.records import ModelShape
from gateway.domain.weights import BYTES_PER_PARAM as BYTES_PER_PARAM
from gateway.domain.weights import number_format as number_format
from gateway.domain.weights import weights_bytes as weights_bytes
from gateway.domain.weights import weights_bytes_as as weights_bytes_as

GIB = 2**30
DEFAULT_BLOCK = 16
SPARSE_BLOCK = 64
"""Tokens of a block where a sparse indexer's kernels read the cache."""


def kv_bytes_per_token(shape: ModelShape, *, kv_dtype: str = "auto") -> int | None:
    """KV bytes that one token adds while every layer still keeps it: all layers × bytes per layer.

    None where a needed field is unknown (see `missing_kv_fields`).
    """
    layout = kv_layout(shape, kv_dtype=kv_dtype)
    return None if layout is None else sum(kind.count * kind.layer.token_bytes for kind in layout.layers)


def kv_bytes_per_token_past_window(shape: ModelShape, *, kv_dtype: str = "auto") -> int | None:
    """KV bytes that one more token adds beyond the window: only layers with full attention still grow."""
    layout = kv_layout(shape, kv_dtype=kv_dtype)
    if layout is None:
        return None
    return sum(kind.count * kind.layer.token_bytes for kind in layout.layers if kind.layer.span is None)


def kv_blocks_per_request(
    shape: ModelShape,
    *,
    context: int,
    block: int,
    max_batched_tokens: int,
    batches_in_flight: int,
    kv_dtype: str = "auto",
) -> KvNeed | None:
    """What vLLM sets aside for one request of `context` tokens on one GPU; None for an unknown shape."""
    layout = kv_layout(shape, kv_dtype=kv_dtype)
    if layout is None:
        return None
    paging = Paging(block, max_batched_tokens, batches_in_flight)
    return KvNeed(layout.blocks_per_request(context, paging), layout.block_bytes(paging))


@dataclass(frozen=True, slots=True)
class KvNeed:
    blocks: int
    block_bytes: int
    """Bytes of one block: `block` tokens in every layer of a group."""

    @property
    def total_bytes(self) -> int:
        return self.blocks * self.block_bytes


def kv_layout(
    shape: ModelShape,
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    kv_dtype: str = "auto",
    rules: KvRules | None = None,
) -> KvLayout | None:
    """This model's layers as vLLM's cache sees them; None where a needed field is unknown (see `missing_kv_fields`).

    Raises ValueError for a KV dtype that is unknown or does not go with the attention.
    """
    if missing_kv_fields(shape) or shape.layers is None:
        return None
    full, local, linear = layers_by_kind(shape)
    mla, state = shape.mla, None if shape.linear is None else shape.linear.state_bytes
    return _layout(
        _Cut(
            full=full,
            local=local,
            linear=linear,
            span=(shape.sliding_window or shape.attention_chunk) if local else None,
            is_chunk=shape.attention_chunk is not None,
            latent=0 if mla is None else mla.kv_lora_rank + mla.qk_rope_head_dim,
            index=0 if mla is None else mla.index_head_dim or 0,
            kv_heads=0 if mla is not None else max(1, (shape.kv_heads or 0) // tensor_parallel),
            key=shape.head_dim or 0,
            value=shape.v_head_dim or shape.head_dim or 0,
            state_bytes=_cdiv(state or 0, tensor_parallel),
            stages=pipeline_parallel,
            kv_dtype=kv_dtype,
            rules=rules or DEFAULT_RULES,
        )
    )


def layers_by_kind(shape: ModelShape) -> tuple[int, int, int]:
    """Layers with full attention, with a window or chunk, and with a state. Needs all that the KV cache needs."""
    layers, linear = shape.layers or 0, 0 if shape.linear is None else shape.linear.layers
    if shape.sliding_window is None and shape.attention_chunk is None:
        return layers - linear, 0, linear
    full = shape.global_layers or 0
    return full, layers - linear - full, linear


def missing_kv_fields(shape: ModelShape) -> tuple[str, ...]:
    """Fields without which, or with whose values, the KV cache cannot be computed."""
    full_or_local = shape.linear is None or shape.linear.layers != shape.layers
    needed: dict[str, int | None] = {"layers": shape.layers}
    if shape.mla is not None:
        needed |= {"mla.kv_lora_rank": shape.mla.kv_lora_rank}
    elif full_or_local:
        needed |= {"kv_heads": shape.kv_heads, "head_dim": shape.head_dim}
    if shape.linear is not None:
        needed |= {"linear.layers": shape.linear.layers, "linear.state_bytes": shape.linear.state_bytes}
    missing = [name for name, value in needed.items() if not _positive(value)]
    if shape.mla is not None and shape.mla.qk_rope_head_dim < 0:
        missing.append("mla.qk_rope_head_dim")
    return (*missing, *_missing_local_fields(shape))


def _missing_local_fields(shape: ModelShape) -> list[str]:
    layers = (shape.layers or 0) - (0 if shape.linear is None else shape.linear.layers)
    spans = {"sliding_window": shape.sliding_window, "attention_chunk": shape.attention_chunk}
    missing = [name for name, value in spans.items() if value is not None and value <= 0]
    if any(value is not None for value in spans.values()):
        if shape.global_layers is None or not 0 <= shape.global_layers <= layers:
            missing.append("global_layers")
    elif shape.global_layers is not None and 0 <= shape.global_layers < layers:
        missing.append("sliding_window or attention_chunk")
    return missing


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes as a range, low <= likely <= high; negative where a budget is overdrawn."""

    low: int
    likely: int
    high: int


def requested_bytes(memory_bytes: int, gpu_memory_utilization: float) -> int:
    """What vLLM takes of a GPU's memory in all, rounded up as it does."""
    return ceil(memory_bytes * gpu_memory_utilization)


def kv_budget_bytes(memory_bytes: int, gpu_memory_utilization: float, weights: int, overhead: int) -> int:
    """vLLM's KV budget on one GPU: utilization × memory - weights - overhead; negative when overdrawn."""
    return requested_bytes(memory_bytes, gpu_memory_utilization) - weights - overhead


OVERHEAD_BEFORE_ACTIVATIONS = ByteRange(GIB, 5 * GIB // 2, 4 * GIB)
"""Libraries, allocator and CUDA graphs: a guess."""


def activation_bytes(shape: ModelShape, paging: Paging) -> int | None:
    """The guessed activation peak of a full step; None where heads, head_dim and hidden are unknown.

    2 × max_batched_tokens × heads × head_dim × c with c = 11 for dense models and 22 for mixtures. The hidden size
    stands in for heads × head_dim where these are unknown.
    """
    width = (shape.heads or 0) * (shape.head_dim or 0) or shape.hidden or 0
    if width <= 0:
        return None
    return 2 * paging.max_batched_tokens * width * (11 if shape.is_dense else 22)


def overhead_bytes(shape: ModelShape, paging: Paging) -> ByteRange | None:
    """What one GPU needs beside weights and KV cache: a guess, to be replaced by what a started engine says.

    1, 2.5 or 4 GiB for libraries, allocator and CUDA graphs, plus the activation peak of a full step.
    """
    activations = activation_bytes(shape, paging)
    if activations is None:
        return None
    rest = OVERHEAD_BEFORE_ACTIVATIONS
    return ByteRange(rest.low + activations, rest.likely + activations, rest.high + activations)


def splits_over(shape: ModelShape, size: int) -> bool:
    """Whether vLLM can cut this model over `size` GPUs: heads evenly, KV heads evenly or repeated evenly."""
    if (shape.heads or 0) % size:
        return False
    if shape.mla is not None or not shape.kv_heads:
        return True
    return shape.kv_heads % size == 0 or size % shape.kv_heads == 0


def default_batched_tokens(gpu_name: str, memory_bytes: int) -> int:
    """vLLM's server default of max_num_batched_tokens for a device of this name and size."""
    if memory_bytes >= 160 * GIB:
        return 16384
    return 2048 if "a100" in gpu_name.lower() or memory_bytes < 70 * GIB else 8192


def default_block(shape: ModelShape) -> int:
    """Tokens of a block on a GPU unless somebody says otherwise; some kernels for latents want 32 or 64."""
    return SPARSE_BLOCK if shape.mla is not None and shape.mla.index_head_dim else DEFAULT_BLOCK


def default_batches_in_flight(pipeline_parallel: int) -> int:
    """vLLM's max_concurrent_batches on a GPU: asynchronous scheduling adds one to the pipeline's stages."""
    return pipeline_parallel + 1


# --- layers of a shape --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cut:
    """All that the layers' description depends on."""

    full: int
    local: int
    linear: int
    span: int | None
    is_chunk: bool
    latent: int
    index: int
    kv_heads: int
    key: int
    value: int
    state_bytes: int
    stages: int
    kv_dtype: str
    rules: KvRules


@lru_cache(maxsize=4096)
def _layout(cut: _Cut) -> KvLayout:
    kinds: list[tuple[KvLayer, tuple[int, ...]]] = []
    full, local, linear = _counts_by_stage(cut)
    if cut.latent:
        width = latent_token_bytes(cut.latent, kv_dtype=cut.kv_dtype, sparse=cut.index > 0)
        kinds.append((KvLayer(Keeps.LATENT, width), full))
        if cut.index:
            kinds.append((KvLayer(Keeps.LATENT, index_token_bytes(cut.index)), full))
    elif cut.full or cut.local:
        width = attention_token_bytes(kv_heads=cut.kv_heads, key=cut.key, value=cut.value, kv_dtype=cut.kv_dtype)
        kinds.append((KvLayer(Keeps.FULL, width), full))
        kinds.append((KvLayer(Keeps.CHUNK if cut.is_chunk else Keeps.WINDOW, width, span=cut.span), local))
    kinds.append((KvLayer(Keeps.STATE, state_bytes=cut.state_bytes), linear))
    return KvLayout(tuple(KvLayers(layer, counts) for layer, counts in kinds if sum(counts)), cut.rules)


def _counts_by_stage(cut: _Cut) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """How many full, local and state layers each pipeline stage has.

    Only counts are known: full layers are taken to stand at even distances, the last of each stretch, as in the usual
    patterns (three local, one global), and state layers likewise among the rest.
    """
    if cut.stages == 1:
        return (cut.full,), (cut.local,), (cut.linear,)
    total = cut.full + cut.local + cut.linear
    full = _spread(cut.full, total)
    rest = [at for at in range(total) if at not in full]
    linear = {rest[at] for at in _spread(cut.linear, len(rest))}
    counts: list[tuple[int, int, int]] = []
    start = 0
    for layers in pipeline_stages(total, cut.stages):
        stage = range(start, start + layers)
        of_full, of_linear = sum(at in full for at in stage), sum(at in linear for at in stage)
        counts.append((of_full, layers - of_full - of_linear, of_linear))
        start += layers
    of_full_layers, of_local, of_state = zip(*counts, strict=True)
    return of_full_layers, of_local, of_state


def _spread(count: int, places: int) -> set[int]:
    """`count` of so many places, evenly, the last place of each stretch."""
    return {_cdiv((nth + 1) * places, count) - 1 for nth in range(count)}


def _positive(value: int | None) -> bool:
    return value is not None and value > 0


def _cdiv(value: int, by: int) -> int:
    return -(-value // by)
