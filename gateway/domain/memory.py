"""How many bytes a checkpoint and its KV cache take on a GPU, counted the way vLLM counts them.

Pure arithmetic over registry facts: weights by number format, KV cache by attention kind, blocks by layer groups, a
guess at the overhead. Whether it suits a GPU is judged in feasibility; how fast it runs belongs to engine_model.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from gateway.domain.records import Model, ModelShape

GIB = 2**30

BYTES_PER_PARAM: dict[str, Fraction] = {
    "fp32": Fraction(4),
    "bf16": Fraction(2),
    "fp16": Fraction(2),
    "fp8": Fraction(1),
    "int8": Fraction(1),
    "int4": Fraction(1, 2) + Fraction(2, 128),
    "awq": Fraction(1, 2) + Fraction(5, 2) / 128,
    "nvfp4": Fraction(9, 16),
    "mxfp4": Fraction(17, 32),
}
"""Bytes per parameter. int4 is in groups of 128 with a 16-bit scale each, awq has 4-bit zero points as well;
the few scales of fp8 and int8 are not counted."""

_ALIASES = {
    "float32": "fp32",
    "float": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
    "gptq": "int4",
}
_UNQUANTISED = {"fp32", "bf16", "fp16"}


def number_format(dtype: str) -> str | None:
    """The key of BYTES_PER_PARAM that a checkpoint's dtype name means; None for a name not known here."""
    name = dtype.lower().removeprefix("torch.")
    name = _ALIASES.get(name, name)
    return name if name in BYTES_PER_PARAM else None


def weights_bytes(model: Model) -> int | None:
    """Bytes of the weights on the device: the published size, else parameters × bytes per parameter.

    All experts of a mixture are resident. None where neither size nor parameter count and dtype are known.
    """
    if _positive(model.weights.size_bytes):
        return model.weights.size_bytes
    if model.shape is None:
        return None
    return weights_bytes_as(model.shape, model.weights.dtype)


def weights_bytes_as(shape: ModelShape, dtype: str) -> int | None:
    """Bytes of the weights if they were stored as `dtype`.

    Quantised checkpoints usually leave the embedding and the output head in 16 bits, so these are counted at
    2 bytes where their size is known: once if tied, twice if not or if nobody said.
    """
    name = number_format(dtype)
    if name is None or shape.params is None or shape.params <= 0:
        return None
    kept = 0 if name in _UNQUANTISED else min(shape.params, _embedding_params(shape))
    return ceil((shape.params - kept) * BYTES_PER_PARAM[name] + kept * 2)


def kv_bytes_per_token(shape: ModelShape, *, dtype_bytes: int = 2) -> int | None:
    """KV bytes that one token adds while every layer still keeps it: all layers × bytes per layer.

    None where a needed field is unknown (see `missing_kv_fields`).
    """
    layout = kv_layout(shape, dtype_bytes=dtype_bytes)
    return None if layout is None else layout.token_bytes * (layout.full_layers + layout.window_layers)


def kv_bytes_per_token_past_window(shape: ModelShape, *, dtype_bytes: int = 2) -> int | None:
    """KV bytes that one more token adds beyond the window: only layers with full attention still grow."""
    layout = kv_layout(shape, dtype_bytes=dtype_bytes)
    return None if layout is None else layout.token_bytes * layout.full_layers


def kv_blocks_per_request(
    shape: ModelShape,
    *,
    context: int,
    block: int,
    max_batched_tokens: int,
    batches_in_flight: int,
    dtype_bytes: int = 2,
) -> KvNeed | None:
    """What vLLM sets aside for one request of `context` tokens on one GPU; None for an unknown shape."""
    layout = kv_layout(shape, dtype_bytes=dtype_bytes)
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


@dataclass(frozen=True, slots=True)
class Paging:
    """The engine settings that decide how many blocks a request takes."""

    block: int = 16
    """Tokens in a block."""
    max_batched_tokens: int = 8192
    """vLLM's max_num_batched_tokens: most tokens in one step."""
    batches_in_flight: int = 2
    """2 with asynchronous scheduling (the default on one GPU), the pipeline's size with one, 1 on the CPU."""

    @property
    def tokens_in_flight(self) -> int:
        return self.max_batched_tokens * self.batches_in_flight


@dataclass(frozen=True, slots=True)
class KvLayout:
    """vLLM's grouping of a model's attention layers, on one GPU of a tensor-parallel set.

    Layers of one kind are cut into groups of `group_layers`; each group has its own block table, short groups
    are padded. So a hybrid model reserves more than the plain sum over its layers.
    """

    full_layers: int
    window_layers: int
    window: int | None
    group_layers: int
    token_bytes: int
    """KV bytes of one token in one layer on this GPU."""

    def block_bytes(self, paging: Paging) -> int:
        return paging.block * self.token_bytes * self.group_layers

    def blocks_in(self, kv_bytes: int, paging: Paging) -> int:
        """Blocks that `kv_bytes` of memory hold; 0 when there is none left."""
        return max(0, kv_bytes) // self.block_bytes(paging)

    def blocks_per_request(self, context: int, paging: Paging) -> int:
        """Blocks for one request of `context` tokens, all groups together. Grows with `context`.

        A window of w keeps w - 1 tokens and those in flight, and a block more as it may start within one.
        """
        full = _cdiv(self.full_layers, self.group_layers) * _cdiv(context, paging.block)
        if self.window is None or not self.window_layers:
            return full
        resident = min(self.window - 1 + paging.tokens_in_flight, context)
        groups = _cdiv(self.window_layers, self.group_layers)
        return full + groups * (_cdiv(resident, paging.block) + 1)

    def plain_bytes(self, context: int) -> int:
        """KV bytes of one request summed layer by layer, without blocks, groups or tokens in flight."""
        windowed = context if self.window is None else min(self.window, context)
        return self.token_bytes * (self.full_layers * context + self.window_layers * windowed)

    def longest_context(self, blocks: int, paging: Paging, *, limit: int) -> int:
        """Most tokens, up to `limit`, of a request that `blocks` blocks can hold; 0 when none fits."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks_per_request(middle, paging) <= blocks:
                low = middle
            else:
                high = middle - 1
        return low


def kv_layout(shape: ModelShape, *, tensor_parallel: int = 1, dtype_bytes: int = 2) -> KvLayout | None:
    """How vLLM groups this model's layers; None where a needed field is unknown (see `missing_kv_fields`)."""
    if missing_kv_fields(shape) or shape.layers is None:
        return None
    full = shape.layers if shape.sliding_window is None else shape.global_layers or 0
    window_layers = shape.layers - full
    return KvLayout(
        full_layers=full,
        window_layers=window_layers,
        window=shape.sliding_window if window_layers else None,
        group_layers=_group_layers(full, window_layers),
        token_bytes=_token_bytes_per_layer(shape, tensor_parallel) * dtype_bytes,
    )


def missing_kv_fields(shape: ModelShape) -> tuple[str, ...]:
    """Fields without which, or with whose values, the KV cache cannot be computed."""
    needed: dict[str, int | None] = {"layers": shape.layers}
    if shape.mla is None:
        needed |= {"kv_heads": shape.kv_heads, "head_dim": shape.head_dim}
    else:
        needed |= {"mla.kv_lora_rank": shape.mla.kv_lora_rank}
    missing = [name for name, value in needed.items() if not _positive(value)]
    if shape.mla is not None and shape.mla.qk_rope_head_dim < 0:
        missing.append("mla.qk_rope_head_dim")
    if shape.sliding_window is not None:
        if shape.sliding_window <= 0:
            missing.append("sliding_window")
        if shape.global_layers is None or not 0 <= shape.global_layers <= (shape.layers or 0):
            missing.append("global_layers")
    return tuple(missing)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes as a range, low <= likely <= high; negative where a budget is overdrawn."""

    low: int
    likely: int
    high: int


def kv_budget_bytes(memory_bytes: int, gpu_memory_utilization: float, weights: int, overhead: int) -> int:
    """vLLM's KV budget on one GPU: utilization × memory - weights - overhead; negative when overdrawn."""
    return int(memory_bytes * gpu_memory_utilization) - weights - overhead


def overhead_bytes(shape: ModelShape, paging: Paging) -> ByteRange | None:
    """What one GPU needs beside weights and KV cache: a guess, to be replaced by what a started engine says.

    1, 2.5 or 4 GiB for libraries, allocator and CUDA graphs, plus the activation peak of a full step,
    2 × max_batched_tokens × heads × head_dim × c with c = 11 for dense models and 22 for mixtures. The hidden size
    stands in for heads × head_dim where these are unknown; None where that is unknown too.
    """
    width = (shape.heads or 0) * (shape.head_dim or 0) or shape.hidden or 0
    if width <= 0:
        return None
    activations = 2 * paging.max_batched_tokens * width * (11 if shape.is_dense else 22)
    return ByteRange(GIB + activations, 5 * GIB // 2 + activations, 4 * GIB + activations)


def splits_over(shape: ModelShape, size: int) -> bool:
    """Whether vLLM can cut this model over `size` GPUs: heads evenly, KV heads evenly or repeated evenly."""
    if (shape.heads or 0) % size:
        return False
    if shape.mla is not None or not shape.kv_heads:
        return True
    return shape.kv_heads % size == 0 or size % shape.kv_heads == 0


def default_batched_tokens(gpu_name: str, memory_bytes: int) -> int:
    """vLLM's server default of max_num_batched_tokens for a device of this name and size."""
    if "a100" in gpu_name.lower() or memory_bytes < 70 * GIB:
        return 2048
    return 16384 if memory_bytes >= 160 * GIB else 8192


def _token_bytes_per_layer(shape: ModelShape, tensor_parallel: int) -> int:
    """KV elements of one token in one layer on one GPU.

    KV heads are spread over the GPUs and repeated when there are more GPUs than heads; each has the MLA latent
    whole.
    """
    if shape.mla is not None:
        return shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim
    return _cdiv(shape.kv_heads or 0, tensor_parallel) * 2 * (shape.head_dim or 0)


def _group_layers(full: int, window: int) -> int:
    """vLLM 0.32's group size: the smaller kind's count, or the larger where that is below 1.25 × as many."""
    counts = [count for count in (full, window) if count]
    smallest, largest = min(counts), max(counts)
    return largest if 4 * largest < 5 * smallest else smallest


def _embedding_params(shape: ModelShape) -> int:
    if not _positive(shape.vocab) or not _positive(shape.hidden):
        return 0
    copies = 1 if shape.tied_embeddings else 2
    return copies * (shape.vocab or 0) * (shape.hidden or 0)


def _positive(value: int | None) -> bool:
    return value is not None and value > 0


def _cdiv(value: int, by: int) -> int:
    return -(-value // by)
