"""The predicted column of one running engine: the registry's facts with the settings that the engine itself resolved.

So a difference between this and what the engine says is one of facts and not of settings. All of it goes through
`predict`; the columns beside it belong in `columns`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.domain.engine_facts import ResolvedEngine
from gateway.domain.kv_cache import KvLayout
from gateway.domain.kv_groups import KvRefused, KvRules, Paging
from gateway.domain.memory import (
    ByteRange,
    default_batched_tokens,
    kv_budget_bytes,
    kv_layout,
    missing_kv_fields,
    number_format,
    overhead_bytes,
    weights_bytes,
)
from gateway.domain.records import Gpu, Model, ModelShape

DEFAULT_UTILIZATION = 0.92
DEFAULT_BLOCK = 16
CPU_BLOCK = 128
"""Tokens of a block where vLLM chooses it on a CPU."""
UNNAMED_BATCHED_TOKENS = 2048
"""What an engine is taken to process in a step where nobody says on which GPU it runs."""
_BATCHED_TOKENS = "--max-num-batched-tokens"

Number = int | float


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure as a range, low <= likely <= high; all three the same where it is exact."""

    low: Number
    likely: Number
    high: Number

    @property
    def is_exact(self) -> bool:
        return self.low == self.high


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the registry's facts give with an engine's own settings, of one GPU. None = unknown; `obstacle` says why."""

    weights_bytes: int | None = None
    requested_bytes: int | None = None
    """What vLLM asks the GPU for: utilization × memory."""
    overhead: ByteRange | None = None
    kv_bytes: ByteRange | None = None
    blocks: Spread | None = None
    kv_tokens: Spread | None = None
    max_concurrency: Spread | None = None
    blocks_per_request: int | None = None
    context: int | None = None
    """Tokens of a request of full length: the engine's limit, else the model's."""
    resolved_kv_bytes: int | None = None
    """The engine's blocks × the bytes of one: the cache that it made."""
    resolved_kv_tokens: int | None = None
    """What this arithmetic makes of the engine's own number of blocks."""
    paging: Paging | None = None
    dtype: str | None = None
    """The model's own number format, which its cache has too unless the engine is told otherwise."""
    obstacle: str | None = None
    assumptions: tuple[str, ...] = ()


def predict(model: Model, gpu: Gpu | None, resolved: ResolvedEngine | None, *, gpus: int = 1) -> Predicted:
    """The whole prediction for this engine in one place; settings that it does not say are vLLM's defaults, and told.

    `gpus`: how many the registry says it runs on, taken as tensor parallelism.
    """
    said = resolved or ResolvedEngine()
    paging, assumptions = _paging(model, gpu, said)
    shape, context = model.shape, said.max_model_len or (model.shape.context if model.shape else None)
    whole = weights_bytes(model)
    weights = None if whole is None else -(-whole // gpus)
    overhead = None if shape is None else overhead_bytes(shape, paging)
    requested = None if gpu is None else int(gpu.memory_bytes * (said.gpu_memory_utilization or DEFAULT_UTILIZATION))
    kv_bytes = _kv_bytes(gpu, said, weights, overhead)
    layout = _layout(shape, said, gpus)
    if gpus > 1:
        assumptions = (*assumptions, f"Its {gpus} GPUs are taken as tensor parallelism; the engine does not say.")
    known = Predicted(
        weights_bytes=weights,
        requested_bytes=requested,
        overhead=overhead,
        kv_bytes=kv_bytes,
        context=context,
        paging=paging,
        dtype=None if shape is None else shape.dtype,
        assumptions=assumptions,
    )
    if isinstance(layout, str) or context is None or context < 1:
        return replace(known, obstacle=layout if isinstance(layout, str) else "no context length is known")
    return _with_blocks(known, layout, paging, said, context)


def _with_blocks(known: Predicted, layout: KvLayout, paging: Paging, said: ResolvedEngine, context: int) -> Predicted:
    try:
        need, block_bytes = layout.blocks_per_request(context, paging), layout.block_bytes(paging)
    except KvRefused as refusal:
        return replace(known, obstacle=f"vLLM would not start: {refusal}")
    blocks = None
    if said.num_gpu_blocks_override is not None:
        blocks = Spread(*[said.num_gpu_blocks_override] * 3)
    elif known.kv_bytes is not None:
        sizes = (known.kv_bytes.low, known.kv_bytes.likely, known.kv_bytes.high)
        blocks = Spread(*(layout.blocks_in(size, paging) for size in sizes))
    made = said.num_gpu_blocks
    return replace(
        known,
        blocks=blocks,
        blocks_per_request=need,
        max_concurrency=None if blocks is None else each_of(blocks, lambda count: count / need),
        kv_tokens=None if blocks is None else each_of(blocks, lambda count: _tokens(int(count), need, context)),
        resolved_kv_bytes=None if made is None else made * block_bytes,
        resolved_kv_tokens=None if made is None else _tokens(made, need, context),
        obstacle=None if blocks is not None else "neither the GPU nor the size of the cache is known",
    )


def _tokens(blocks: int, need: int, context: int) -> int:
    """vLLM's KV tokens: requests of full length at once × their length."""
    return int(blocks / need * context)


def _paging(model: Model, gpu: Gpu | None, said: ResolvedEngine) -> tuple[Paging, tuple[str, ...]]:
    notes: list[str] = []
    given = _argument(model.serving.args, _BATCHED_TOKENS)
    if given is not None:
        tokens, source = given, "the registry's serving arguments"
    elif gpu is not None:
        tokens, source = default_batched_tokens(f"{gpu.id} {gpu.name}", gpu.memory_bytes), f"vLLM's default on {gpu.id}"
    else:
        tokens, source = UNNAMED_BATCHED_TOKENS, "no GPU is named"
    batches = 1 if gpu is None else 2
    notes.append(f"{tokens:,} tokens a step ({source}), {batches} in flight: the engine says neither.")
    if said.block_size is None:
        notes.append(f"A block of {DEFAULT_BLOCK} tokens, vLLM's default on GPUs: the engine does not say.")
    return Paging(said.block_size or DEFAULT_BLOCK, tokens, batches), tuple(notes)


def _argument(args: tuple[str, ...], name: str) -> int | None:
    for word, following in zip(args, [*args[1:], ""], strict=False):
        value = following if word == name else word.removeprefix(f"{name}=") if word.startswith(f"{name}=") else ""
        if value.isascii() and value.isdigit() and int(value) > 0:
            return int(value)
    return None


def _kv_bytes(
    gpu: Gpu | None, said: ResolvedEngine, weights: int | None, overhead: ByteRange | None
) -> ByteRange | None:
    if said.kv_cache_memory_bytes is not None:
        return ByteRange(*[said.kv_cache_memory_bytes] * 3)
    if gpu is None or weights is None or overhead is None:
        return None
    share = said.gpu_memory_utilization or DEFAULT_UTILIZATION
    guesses = (overhead.high, overhead.likely, overhead.low)
    return ByteRange(*(kv_budget_bytes(gpu.memory_bytes, share, weights, guess) for guess in guesses))


def _layout(shape: ModelShape | None, said: ResolvedEngine, gpus: int) -> KvLayout | str:
    """How vLLM lays out the cache; or why that is not known here, in words."""
    if shape is None:
        return "the registry has no shape of the model"
    if missing := missing_kv_fields(shape):
        return f"the registry has no usable value for {', '.join(missing)}"
    kv_dtype = said.cache_dtype or "auto"
    if kv_dtype == "auto" and number_format(shape.dtype) == "fp32":
        return "a KV cache in 32 bits, as of a model that computes in them, is not counted here"
    rules = KvRules(state_pages=1 if said.enable_prefix_caching is False else 2)
    try:
        layout = kv_layout(shape, tensor_parallel=gpus, kv_dtype=kv_dtype, rules=rules)
    except ValueError as error:
        return str(error)
    return layout or "the model's layers cannot be laid out"


def overhead_of(predicted: Predicted, engine: ResolvedEngine) -> int | str:
    """Requested - weights - KV cache, of one GPU; or why that cannot be said."""
    if engine.kv_cache_memory_bytes is not None:
        return "The cache's memory was given with --kv-cache-memory-bytes, so it tells nothing of the overhead."
    if engine.num_gpu_blocks_override is not None:
        return "The number of blocks was given with --num-gpu-blocks-override, so it tells nothing of the overhead."
    if predicted.requested_bytes is None or engine.gpu_memory_utilization is None:
        return "The GPU's memory or the share of it that vLLM may take is not known."
    if predicted.weights_bytes is None:
        return "The size of the weights is not known."
    if predicted.resolved_kv_bytes is None:
        return "The size of the KV cache that the engine made is not known."
    return predicted.requested_bytes - predicted.weights_bytes - predicted.resolved_kv_bytes


def each_of(spread: Spread, change: Callable[[Number], Number]) -> Spread:
    """The same change of all three."""
    return Spread(change(spread.low), change(spread.likely), change(spread.high))
