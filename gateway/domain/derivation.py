"""Every intermediate figure of an estimate, in the order of the arithmetic, with its formula and where it came from.

For whoever wants to check a verdict with a pocket calculator. Nothing is computed here that the verdict does not use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.domain.kv_layers import Keeps
from gateway.domain.memory import activation_bytes, requested_bytes
from gateway.domain.memory_case import MemoryCase
from gateway.domain.records import Sourced
from gateway.domain.serving_plan import GPU_MEMORY_UTILIZATION
from gateway.domain.weights import number_format

COMPUTED = "computed"
GUESS = "a guess"
MEASURED = "measured on this GPU type (calibration)"
DEFAULT = "vLLM's default"
ASKED = "asked"
RULE = "vLLM 0.32's rule"


@dataclass(frozen=True, slots=True)
class Step:
    """One figure on the way to a verdict."""

    name: str
    value: int | float | str
    unit: str
    formula: str
    """In words and names of other steps; empty for an input."""
    source: str
    """Where an input came from; "computed" for what follows from steps above."""


def derive(case: MemoryCase) -> tuple[Step, ...]:
    return (
        *_budget(case),
        *_cache(case),
        *_results(case),
    )


def sourced_in_words(fact: Sourced | None, table: str = "registry") -> str:
    if fact is None:
        return f"{table}, without a source (confidence low)"
    return f"{table}: {fact.source} (confidence {fact.confidence.value})"


def _budget(case: MemoryCase) -> Iterator[Step]:
    plan, gpu = case.plan, case.gpu
    share = plan.gpu_memory_utilization
    yield Step("memory", gpu.memory_bytes, "B", "", sourced_in_words(gpu.sourced, "accelerator table"))
    yield Step("gpu_memory_utilization", share, "", "", DEFAULT if share == GPU_MEMORY_UTILIZATION else ASKED)
    requested = requested_bytes(gpu.memory_bytes, share)
    yield Step("requested", requested, "B", "ceil(memory × gpu_memory_utilization)", COMPUTED)
    yield from _weights(case)
    overhead = case.overhead
    if plan.overhead_bytes is None:
        activations = activation_bytes(case.shape, case.paging) or 0
        factor = 11 if case.shape.is_dense else 22
        width = "heads × head_dim" if case.shape.heads and case.shape.head_dim else "hidden"
        yield Step("activation_peak", activations, "B", f"2 × max_batched_tokens × {width} × {factor}", GUESS)
    how = "activation_peak + 1, 2.5 or 4 GiB" if plan.overhead_bytes is None else ""
    source = GUESS if plan.overhead_bytes is None else MEASURED
    for name, size in (("low", overhead.low), ("likely", overhead.likely), ("high", overhead.high)):
        yield Step(f"overhead_{name}", size, "B", how, source)
    left = "requested - weights_per_gpu" if plan.gpus > 1 else "requested - weights"
    for name, size in (("low", overhead.high), ("likely", overhead.likely), ("high", overhead.low)):
        stage = case.poorest_stage(case.weights, size)
        available = case.kv_available(case.weights, size)[stage]
        yield Step(f"kv_budget_{name}", available, "B", f"{left} - overhead of {size:,} B", COMPUTED)


def _weights(case: MemoryCase) -> Iterator[Step]:
    weights, shape, plan = case.model.weights, case.shape, case.plan
    name = plan.quantisation or weights.dtype
    is_published = plan.quantisation is None or number_format(plan.quantisation) == number_format(weights.dtype)
    if is_published and weights.size_bytes:
        yield Step("weights", case.weights, "B", "", sourced_in_words(weights.sourced))
    else:
        yield Step("params", shape.params or 0, "", "", sourced_in_words(shape.facts.get("params")))
        if is_published:
            yield Step("weights_format", name, "", "", sourced_in_words(weights.sourced))
        else:
            yield Step("weights_format", name, "", "", ASKED)
        formula = "params × bytes per parameter of the format, what stays in 16 bits at 2"
        yield Step("weights", case.weights, "B", formula, COMPUTED)
    if plan.gpus > 1:
        yield Step("tensor_parallel", plan.tensor_parallel, "GPUs", "", ASKED)
        yield Step("pipeline_parallel", plan.pipeline_parallel, "stages", "", ASKED)
        stage = case.poorest_stage(case.weights, case.overhead.likely)
        formula = "cut parts ÷ tensor_parallel + parts that are whole on each GPU"
        if plan.pipeline_parallel > 1:
            formula += f", of stage {stage + 1}, which has least room"
        yield Step("weights_per_gpu", case.stage_weights(case.weights)[stage], "B", formula, COMPUTED)


def _cache(case: MemoryCase) -> Iterator[Step]:
    plan, paging, layout, shape = case.plan, case.paging, case.layout, case.shape
    yield Step("context", case.context, "tokens", "", ASKED)
    block = layout.effective_block(paging)
    yield Step("block", paging.block, "tokens", "", DEFAULT if plan.block is None else ASKED)
    if block != paging.block:
        formula = "block grown until one page of attention holds a state"
        yield Step("aligned_block", block, "tokens", formula, RULE)
    yield Step("kv_dtype", plan.kv_dtype, "", "", DEFAULT if plan.kv_dtype == "auto" else ASKED)
    for kind in layout.layers:
        layer, count = kind.layer, kind.count
        yield Step(f"{layer.keeps.value}_layers", count, "layers", "", sourced_in_words(shape.facts.get("layers")))
        if layer.keeps is Keeps.STATE:
            source = sourced_in_words(shape.facts.get("linear"))
            yield Step("state_bytes", layer.state_bytes, "B", "", source)
            continue
        if layer.span is not None:
            field = "sliding_window" if layer.keeps is Keeps.WINDOW else "attention_chunk"
            yield Step(field, layer.span, "tokens", "", sourced_in_words(shape.facts.get(field)))
        yield Step(
            f"{layer.keeps.value}_token_bytes", layer.token_bytes, "B", _token_formula(case, layer.keeps), COMPUTED
        )
    if layout.window is not None:
        batches = DEFAULT if plan.batches_in_flight is None else ASKED
        yield Step("batches_in_flight", paging.batches_in_flight, "", "", batches)
    batched = f"{DEFAULT} for this GPU" if plan.max_batched_tokens is None else ASKED
    yield Step("max_batched_tokens", paging.max_batched_tokens, "tokens", "", batched)
    groups = layout.groups(paging)
    told = "; ".join(f"{g.layers} {g.layer.keeps.value} layers, blocks of {g.block} tokens" for g in groups)
    yield Step("kv_groups", len(groups), "groups", told, RULE)
    yield Step("block_bytes", max(case.stage_block_bytes), "B", "bytes of a block in the largest group", COMPUTED)


def _token_formula(case: MemoryCase, keeps: Keeps) -> str:
    """How the bytes of a token in one layer come about; the heads are those on one GPU."""
    shape = case.shape
    if keeps is Keeps.LATENT:
        return "(mla.kv_lora_rank + mla.qk_rope_head_dim) × bytes of kv_dtype, or an indexer's key"
    heads = max(1, (shape.kv_heads or 0) // case.plan.tensor_parallel)
    sizes = f"{shape.head_dim} + {shape.v_head_dim or shape.head_dim}"
    return f"{heads} KV heads × ({sizes}) × bytes of kv_dtype"


def _results(case: MemoryCase) -> Iterator[Step]:
    layout, paging, need = case.layout, case.paging, case.blocks_per_request
    blocks = case.blocks(case.weights, case.overhead.likely)
    yield Step("num_gpu_blocks", blocks, "blocks", "kv_budget_likely // block_bytes", COMPUTED)
    parts = " + ".join(
        str(group.blocks_per_request(case.context, paging, layout.rules.state_pages)) for group in layout.groups(paging)
    )
    yield Step("blocks_per_request", need, "blocks", f"one number a group: {parts}", COMPUTED)
    concurrency = layout.max_concurrency(blocks, case.context, paging)
    yield Step("kv_cache_max_concurrency", concurrency, "requests", "num_gpu_blocks ÷ blocks_per_request", COMPUTED)
    tokens = layout.kv_tokens(blocks, case.context, paging)
    yield Step("kv_cache_size_tokens", tokens, "tokens", "int(kv_cache_max_concurrency × context)", COMPUTED)
    held = case.requests_held(case.weights, case.overhead.likely)
    formula = "(num_gpu_blocks - 1) // blocks_per_request: one block is vLLM's own"
    yield Step("requests_at_once", held, "requests", formula, COMPUTED)
    per_request = need * max(case.stage_block_bytes)
    yield Step("kv_bytes_per_request", per_request, "B", "blocks_per_request × block_bytes", COMPUTED)
    plain = layout.plain_bytes(case.context)
    yield Step("kv_bytes_per_request_plain", plain, "B", "the sum over layers, without blocks and groups", COMPUTED)
    headroom = case.headroom(case.weights, case.overhead.likely)
    formula = f"kv_budget_likely - ({case.concurrency} × blocks_per_request + 1) × block_bytes"
    yield Step("headroom", headroom, "B", formula, COMPUTED)
