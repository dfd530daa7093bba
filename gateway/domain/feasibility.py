"""Does a model fit a GPU at this context and concurrency? The predicted column: configuration only, nothing measured.

vLLM's own budget (share of the memory - weights - overhead = KV cache) over the byte counts of `memory`, with every
step said in words. What a running engine resolved and what a load showed stand beside this and come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gateway.domain.derivation import Step as Step
from gateway.domain.derivation import derive
from gateway.domain.kv_cache import KV_DTYPES
from gateway.domain.memory import (
    GIB,
    ByteRange,
    KvRefused,
    Paging,
    missing_kv_fields,
    number_format,
    overhead_bytes,
    splits_over,
    weights_bytes,
    weights_bytes_as,
)
from gateway.domain.memory_case import MemoryCase, layout_under
from gateway.domain.records import Confidence, Gpu, Model, ModelShape, ServingKind, Sourced
from gateway.domain.serving_plan import ServingPlan as ServingPlan
from gateway.domain.serving_plan import require_sensible
from gateway.domain.shapes import contradictions

SHORTEST_USEFUL_CONTEXT = 2048
"""A context below this many tokens does not count as fitting with a short context."""
TENSOR_PARALLEL_SIZES = (1, 2, 4, 8, 16, 32, 64)
QUANTISED_FORMATS = ("fp8", "int4")


class Verdict(StrEnum):
    FITS = "fits"
    FITS_QUANTISED = "fits_quantised"
    """Not as published, but with its weights in 8 or 4 bits."""
    FITS_SHORT_CONTEXT = "fits_short_context"
    """Only with less context than asked, at the concurrency asked."""
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class EstimateInputs:
    """The settings that the arithmetic assumed."""

    gpu_memory_utilization: float
    paging: Paging
    plan: ServingPlan


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted verdict for one model on one GPU type, with its figures and its reasons.

    The verdict uses the likely overhead, which is a guess. None = could not be computed; the reasons say why.
    """

    verdict: Verdict
    gpu: str
    context: int
    """Tokens of one request, prompt and answer; the model's own maximum where more was asked."""
    concurrency: int
    inputs: EstimateInputs
    reasons: tuple[str, ...]
    """Plain English sentences with the figures."""
    gpus: int = 1
    confidence: Confidence | None = None
    """The lowest among the facts used; a fact without a source counts as low."""
    weights_bytes: int | None = None
    quantised_to: str | None = None
    """The number format with which the verdict holds, where it is not the published one."""
    kv_bytes_per_request: int | None = None
    """In vLLM's blocks and groups."""
    kv_bytes_per_request_plain: int | None = None
    """Summed layer by layer: less than what vLLM reserves for a hybrid model."""
    overhead_bytes: ByteRange | None = None
    """Activations, CUDA graphs, allocator and libraries. A guess, not a measurement."""
    kv_available_bytes: ByteRange | None = None
    headroom_bytes: ByteRange | None = None
    """KV available - concurrency × KV per request, with the published weights."""
    max_context_one_request: int | None = None
    max_context_at_concurrency: int | None = None
    """The longest with which all the requests asked for run at once, with the weights of the verdict."""
    max_concurrency: int | None = None
    """Requests of full length at once, with the published weights and the likely overhead."""
    min_gpus: int | None = None
    """Smallest tensor-parallel size, a power of two, on which the weights fit as asked."""
    num_gpu_blocks: int | None = None
    blocks_per_request: int | None = None
    kv_cache_max_concurrency: float | None = None
    """As vLLM's label of this name: a fraction, and with the block that no request gets."""
    kv_tokens: int | None = None
    """As vLLM's label `kv_cache_size_tokens` with `context` as its max_model_len."""
    case: MemoryCase | None = None
    """All inputs of the arithmetic, where it could be done."""

    @property
    def overhead_is_measured(self) -> bool:
        """Whether engines on this type of GPU showed the overhead; else it is a guess."""
        return self.inputs.plan.overhead_bytes is not None

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every intermediate figure with its formula and its source, in the order of the arithmetic."""
        return () if self.case is None else derive(self.case)


@dataclass(frozen=True, slots=True)
class _Finding:
    verdict: Verdict
    weights: int
    """Bytes of the weights with which the verdict holds."""
    quantised_to: str | None
    sentence: str


def estimate(
    model: Model, gpu: Gpu, *, context: int, concurrency: int = 1, plan: ServingPlan | None = None
) -> Estimate:
    """Predict whether `model` serves `concurrency` requests of `context` tokens at once on GPUs of this type.

    Missing, senseless or contradictory facts of the model, and plans that vLLM does not start with, give verdict
    unknown, with reasons that name them. Raises ValueError for a context or concurrency below 1 or a plan with such
    numbers.
    """
    plan = plan or ServingPlan()
    _require_sensible(context, concurrency)
    require_sensible(plan)
    inputs = EstimateInputs(plan.gpu_memory_utilization, plan.paging(gpu, model.shape), plan)
    case = _case(model, gpu, context, concurrency, inputs)
    if isinstance(case, str):
        return Estimate(
            Verdict.UNKNOWN,
            gpu.id,
            context,
            concurrency,
            inputs,
            (case,),
            gpus=plan.gpus,
            weights_bytes=_weights(model, plan),
        )
    return _answer(case, inputs, asked_context=context)


def memory_case(
    model: Model, gpu: Gpu, *, context: int, concurrency: int = 1, plan: ServingPlan | None = None
) -> MemoryCase | str:
    """What `estimate` computes with, or its one sentence on why it cannot: for whoever needs only what is left over.

    Raises ValueError as it does.
    """
    plan = plan or ServingPlan()
    _require_sensible(context, concurrency)
    require_sensible(plan)
    inputs = EstimateInputs(plan.gpu_memory_utilization, plan.paging(gpu, model.shape), plan)
    return _case(model, gpu, context, concurrency, inputs)


def _require_sensible(context: int, concurrency: int) -> None:
    if context < 1:
        raise ValueError(f"context: expected at least 1 token, got {context}")
    if concurrency < 1:
        raise ValueError(f"concurrency: expected at least 1 request, got {concurrency}")


def _case(model: Model, gpu: Gpu, context: int, concurrency: int, inputs: EstimateInputs) -> MemoryCase | str:
    """All that the arithmetic needs, or one sentence that says why there is no estimate."""
    plan, paging = inputs.plan, inputs.paging
    shape, weights = model.shape, _weights(model, plan)
    obstacle = _obstacle(model, plan)
    overhead = plan.overhead_bytes or (None if shape is None else overhead_bytes(shape, paging))
    if obstacle is not None or shape is None or weights is None or overhead is None:
        return obstacle or "Unknown: facts are missing."
    length = min(context, shape.context or context)
    try:
        layout = layout_under(shape, plan)
        assert layout is not None
        return MemoryCase(
            model=model,
            shape=shape,
            gpu=gpu,
            context=length,
            concurrency=concurrency,
            plan=plan,
            paging=paging,
            weights=weights,
            overhead=overhead,
            layout=layout,
            blocks_per_request=layout.blocks_per_request(length, paging),
            stage_block_bytes=layout.stage_block_bytes(paging),
        )
    except KvRefused as refusal:
        return f"Unknown: vLLM would not start: {refusal}."
    except ValueError as error:
        return f"Unknown: {error}."


def _weights(model: Model, plan: ServingPlan) -> int | None:
    """Bytes of all weights in the plan's number format; the published ones where that is theirs."""
    asked = plan.quantisation
    if asked is None or number_format(asked) == number_format(model.weights.dtype):
        return weights_bytes(model)
    return None if model.shape is None else weights_bytes_as(model.shape, asked)


def _obstacle(model: Model, plan: ServingPlan) -> str | None:
    """Why no estimate can be made, in one sentence; None when it can."""
    unpublished = model.weights.repo is None and model.weights.size_bytes is None
    if unpublished and model.serving.kind is not ServingKind.VLLM:
        return "There are no public weights, so nothing can be said about a GPU of one's own."
    if model.shape is None:
        return "Unknown: the model's shape (layers, kv_heads, head_dim) is not in the registry."
    missing = _missing(model, model.shape, plan)
    if missing:
        return f"Unknown: the registry has no usable value for {', '.join(missing)}."
    wrong = contradictions(model.shape, architecture=model.weights.architecture)
    if wrong:
        return f"Unknown: the registry's facts contradict each other or cannot be: {'; '.join(wrong)}."
    return _unservable(model.shape, plan)


def _missing(model: Model, shape: ModelShape, plan: ServingPlan) -> list[str]:
    missing = list(missing_kv_fields(shape))
    if plan.quantisation is not None and number_format(plan.quantisation) is None:
        missing.append(f"the format asked for ({plan.quantisation!r})")
    elif _weights(model, plan) is None:
        known = plan.quantisation is not None or number_format(model.weights.dtype) is not None
        missing.append("weights.size_bytes or params" if known else f"weights.dtype ({model.weights.dtype!r})")
    if plan.overhead_bytes is None and overhead_bytes(shape, Paging()) is None:
        missing.append("heads and head_dim, or hidden")
    if shape.context is not None and shape.context < 1:
        missing.append("context")
    return missing


def _unservable(shape: ModelShape, plan: ServingPlan) -> str | None:
    """Why vLLM does not start this model under this plan, whatever the memory."""
    size, stages = plan.tensor_parallel, plan.pipeline_parallel
    if plan.kv_dtype not in KV_DTYPES:
        return f"Unknown: kv_dtype {plan.kv_dtype!r} is not known; known are {', '.join(sorted(KV_DTYPES))}."
    if not splits_over(shape, size):
        heads = f"{shape.heads} heads" + (f" and {shape.kv_heads} KV heads" if shape.mla is None else "")
        return f"Unknown: vLLM cannot cut {heads} over {size} GPUs."
    if shape.ffn and shape.ffn % size:
        return f"Unknown: vLLM cannot cut feed-forward layers of {shape.ffn:,} over {size} GPUs."
    if stages > (shape.layers or 0):
        return f"Unknown: {shape.layers} layers cannot be cut into {stages} pipeline stages."
    if plan.expert_parallel and shape.moe is None:
        return "Unknown: expert parallelism was asked for, but the model has no experts."
    return None


def _answer(case: MemoryCase, inputs: EstimateInputs, *, asked_context: int) -> Estimate:
    layout, paging, overhead, weights = case.layout, case.paging, case.overhead, case.weights
    blocks = case.blocks(weights, overhead.likely)
    finding = _judge(case)
    confidence, doubts = _confidence(case)
    return Estimate(
        verdict=finding.verdict,
        gpu=case.gpu.id,
        context=case.context,
        concurrency=case.concurrency,
        inputs=inputs,
        reasons=(
            finding.sentence,
            *_range_reasons(case, finding),
            *_figure_reasons(case),
            *_caveats(case, asked_context),
            *doubts,
        ),
        gpus=case.plan.gpus,
        confidence=confidence,
        weights_bytes=weights,
        quantised_to=finding.quantised_to,
        kv_bytes_per_request=case.blocks_per_request * max(case.stage_block_bytes),
        kv_bytes_per_request_plain=layout.plain_bytes(case.context),
        overhead_bytes=overhead,
        kv_available_bytes=_over(overhead, lambda size: _poorest(case, size)),
        headroom_bytes=_over(overhead, lambda size: case.headroom(weights, size)),
        max_context_one_request=case.context_held(weights, 1),
        max_context_at_concurrency=case.context_held(finding.weights, case.concurrency),
        max_concurrency=case.requests_held(weights, overhead.likely),
        min_gpus=_min_gpus(case),
        num_gpu_blocks=blocks,
        blocks_per_request=case.blocks_per_request,
        kv_cache_max_concurrency=layout.max_concurrency(blocks, case.context, paging),
        kv_tokens=layout.kv_tokens(blocks, case.context, paging),
        case=case,
    )


def _over(overhead: ByteRange, left: Callable[[int], int]) -> ByteRange:
    """What is left, as a range: the highest overhead leaves least."""
    return ByteRange(left(overhead.high), left(overhead.likely), left(overhead.low))


def _poorest(case: MemoryCase, overhead: int) -> int:
    return case.kv_available(case.weights, overhead)[case.poorest_stage(case.weights, overhead)]


def _judge(case: MemoryCase) -> _Finding:
    """Try as published, then quantised, then with less context, and say what was found."""
    load, on = _load(case.concurrency, case.context), _where(case)
    if case.fits(case.weights):
        return _Finding(Verdict.FITS, case.weights, None, f"Fits {on}: {load}.")
    smaller = _quantised_sizes(case)
    for name, size in smaller:
        if case.fits(size):
            sentence = f"Fits {on} only with {name} weights of {_gib(size)}: {load}."
            return _Finding(Verdict.FITS_QUANTISED, size, name, sentence)
    shortest = min(SHORTEST_USEFUL_CONTEXT, case.shape.context or SHORTEST_USEFUL_CONTEXT)
    for quantised_to, size in [(None, case.weights), *smaller]:
        held = case.context_held(size, case.concurrency)
        if held >= shortest:
            bits = f" and {quantised_to} weights of {_gib(size)}" if quantised_to else ""
            sentence = f"Fits {on} only with at most {held:,} tokens a request{bits}, not with the {load} asked."
            return _Finding(Verdict.FITS_SHORT_CONTEXT, size, quantised_to, sentence)
    tried = " or ".join([*(name for name, _ in smaller), f"{shortest:,} tokens a request"])
    return _Finding(Verdict.NO, case.weights, None, f"Does not fit {on}: {load}, nor with {tried}.")


def _quantised_sizes(case: MemoryCase) -> list[tuple[str, int]]:
    """Number formats smaller than what is published, with the bytes of the weights in each."""
    sizes = [(name, weights_bytes_as(case.shape, name)) for name in QUANTISED_FORMATS]
    return [(name, size) for name, size in sizes if size is not None and size < case.weights]


def _range_reasons(case: MemoryCase, finding: _Finding) -> list[str]:
    """Whether the verdict would change at the ends of the guessed overhead."""
    overhead, reasons = case.overhead, []
    settled_by = "only starting the engine settles it."
    guess = "guess" if case.plan.overhead_bytes is None else "one measured"
    holds = finding.verdict in (Verdict.FITS, Verdict.FITS_QUANTISED)
    if holds and not case.fits(finding.weights, overhead.high):
        reasons.append(f"With {_gib(overhead.high)} of overhead, the high {guess}, it would not fit: {settled_by}")
    if finding.verdict is not Verdict.FITS and case.fits(case.weights, overhead.low):
        reasons.append(
            f"With {_gib(overhead.low)} of overhead, the low {guess}, it would fit as published: {settled_by}"
        )
    return reasons


def _figure_reasons(case: MemoryCase) -> list[str]:
    layout, overhead, plan = case.layout, case.overhead, case.plan
    stage = case.poorest_stage(case.weights, overhead.likely)
    available = case.kv_available(case.weights, overhead.likely)[stage]
    at_once = case.requests_held(case.weights, overhead.likely)
    own = case.stage_weights(case.weights)[stage]
    published = "the published" if plan.quantisation is None else f"{plan.quantisation}"
    reasons = [
        f"Budget: {plan.gpu_memory_utilization:g} × {_gib(case.gpu.memory_bytes)} of memory - weights "
        f"{_gib(own)}{f' of {_gib(case.weights)}' if plan.gpus > 1 else ''} - overhead {_gib(overhead.likely)} = "
        f"{_gib(available)} for the KV cache{' on each GPU' if plan.gpus > 1 else ''}.",
        _overhead_reason(case),
        f"KV cache: {_gib(case.blocks_per_request * max(case.stage_block_bytes))} a request, in blocks of "
        f"{layout.effective_block(case.paging)} tokens; with {published} weights there is room for "
        f"{_load(at_once, case.context)}.",
    ]
    if layout.window is not None:
        kind = "chunk" if case.shape.attention_chunk is not None else "window"
        reasons.append(
            f"{layout.window_layers} of {case.shape.layers} layers keep a {kind} of {layout.window:,} tokens "
            f"and up to {case.paging.tokens_in_flight:,} in flight; summed layer by layer, without vLLM's groups, "
            f"a request would take {_gib(layout.plain_bytes(case.context))}."
        )
        if not plan.hybrid_kv:
            reasons.append("vLLM charges these layers as full attention here: its hybrid manager is off for them.")
    return reasons


def _overhead_reason(case: MemoryCase) -> str:
    overhead = case.overhead
    if case.plan.overhead_bytes is None:
        return f"The overhead is a guess between {_gib(overhead.low)} and {_gib(overhead.high)}."
    return (
        f"The overhead was measured on this GPU type: {_gib(overhead.low)} to {_gib(overhead.high)}, "
        f"likely {_gib(overhead.likely)}."
    )


def _caveats(case: MemoryCase, asked_context: int) -> list[str]:
    model, reasons = case.model, []
    if asked_context > case.context:
        reasons.append(f"{asked_context:,} tokens were asked for; the model takes {case.context:,} at most.")
    if case.shape.context is None:
        reasons.append("The model's own context limit is unknown; the asked context was taken as its limit.")
    if plan_cut := _cut_caveat(case):
        reasons.append(plan_cut)
    if case.shape.params is None:
        reasons.append("Quantised weights were not tried: the parameter count is unknown.")
    if "vision" in model.capabilities:
        reasons.append("The memory peak of the image encoder is not included.")
    if not model.is_servable:
        why = f" ({model.serving.reason.rstrip('.')})" if model.serving.reason else ""
        reasons.append(f"By size only: no supported engine serves this model{why}.")
    return reasons


def _cut_caveat(case: MemoryCase) -> str | None:
    known = case.shape.hidden and case.shape.vocab and case.shape.layers
    if case.plan.gpus == 1 or known:
        return None
    return "Weights were cut evenly over the GPUs: hidden and vocab, which tell what is whole on each, are unknown."


def _min_gpus(case: MemoryCase) -> int | None:
    for size in TENSOR_PARALLEL_SIZES:
        cut = splits_over(case.shape, size) and not (case.shape.ffn or 0) % size
        if cut and case.over(size).fits(case.weights):
            return size * case.plan.pipeline_parallel
    return None


def _confidence(case: MemoryCase) -> tuple[Confidence, list[str]]:
    """The lowest confidence among the facts used, and a sentence that names the low ones."""
    facts = _facts_used(case)
    ranks = {name: fact.confidence if fact is not None else Confidence.LOW for name, fact in facts.items()}
    order = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)
    lowest = min(ranks.values(), key=order.index)
    low = [name for name, confidence in ranks.items() if confidence is Confidence.LOW]
    return lowest, [f"Low confidence or no source: {', '.join(low)}."] if low else []


def _facts_used(case: MemoryCase) -> dict[str, Sourced | None]:
    shape, weights = case.shape, case.model.weights
    names = ["layers"]
    names += ["kv_heads", "head_dim"] if shape.mla is None else ["mla"]
    names += ["heads", "head_dim"] if shape.heads and shape.head_dim else ["hidden"]
    names += ["sliding_window", "global_layers"] if shape.sliding_window is not None else []
    names += ["attention_chunk", "global_layers"] if shape.attention_chunk is not None else []
    names += ["linear"] if shape.linear is not None else []
    names += ["v_head_dim"] if shape.mla is None and shape.v_head_dim is not None else []
    names += ["context"] if shape.context is not None else []
    facts: dict[str, Sourced | None] = {"gpu": case.gpu.sourced}
    if weights.size_bytes and case.plan.quantisation is None:
        facts["weights.size_bytes"] = weights.sourced
    else:
        names.append("params")
    return facts | {name: shape.facts.get(name) for name in names}


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"


def _where(case: MemoryCase) -> str:
    return f"one {case.gpu.name}" if case.plan.gpus == 1 else f"{case.plan.gpus} {case.gpu.name}"


def _load(concurrency: int, context: int) -> str:
    plural = "request" if concurrency == 1 else "requests"
    return f"{concurrency:,} {plural} of {context:,} tokens"
