"""Does a model fit a GPU at this context and concurrency? The predicted column: configuration only, nothing measured.

vLLM's own budget (share of the memory - weights - overhead = KV cache) over the byte counts of `memory`; what is said
beside the verdict comes from `fit_reasons`. What a running engine resolved and what a load showed come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gateway.domain.derivation import Step, derive
from gateway.domain.fit_case import build_case, planned_weights
from gateway.domain.fit_reasons import caveats, confidence_of, figure_reasons, gib_words, gpu_words, load_words
from gateway.domain.kv_groups import Paging
from gateway.domain.memory import ByteRange, splits_over
from gateway.domain.memory_case import MemoryCase
from gateway.domain.records import Confidence, Gpu, Model
from gateway.domain.serving_plan import ServingPlan, require_sensible
from gateway.domain.weights import weights_bytes_as

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
    case = build_case(model, gpu, context=context, concurrency=concurrency, plan=plan, paging=inputs.paging)
    if isinstance(case, str):
        return Estimate(
            Verdict.UNKNOWN,
            gpu.id,
            context,
            concurrency,
            inputs,
            (case,),
            gpus=plan.gpus,
            weights_bytes=planned_weights(model, plan),
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
    paging = plan.paging(gpu, model.shape)
    return build_case(model, gpu, context=context, concurrency=concurrency, plan=plan, paging=paging)


def _require_sensible(context: int, concurrency: int) -> None:
    if context < 1:
        raise ValueError(f"context: expected at least 1 token, got {context}")
    if concurrency < 1:
        raise ValueError(f"concurrency: expected at least 1 request, got {concurrency}")


def _answer(case: MemoryCase, inputs: EstimateInputs, *, asked_context: int) -> Estimate:
    layout, paging, overhead, weights = case.layout, case.paging, case.overhead, case.weights
    blocks = case.blocks(weights, overhead.likely)
    finding = _judge(case)
    confidence, doubts = confidence_of(case)
    return Estimate(
        verdict=finding.verdict,
        gpu=case.gpu.id,
        context=case.context,
        concurrency=case.concurrency,
        inputs=inputs,
        reasons=(
            finding.sentence,
            *_range_reasons(case, finding),
            *figure_reasons(case),
            *caveats(case, asked_context),
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
    load, on = load_words(case.concurrency, case.context), gpu_words(case)
    if case.fits(case.weights):
        return _Finding(Verdict.FITS, case.weights, None, f"Fits {on}: {load}.")
    smaller = _quantised_sizes(case)
    for name, size in smaller:
        if case.fits(size):
            sentence = f"Fits {on} only with {name} weights of {gib_words(size)}: {load}."
            return _Finding(Verdict.FITS_QUANTISED, size, name, sentence)
    shortest = min(SHORTEST_USEFUL_CONTEXT, case.shape.context or SHORTEST_USEFUL_CONTEXT)
    for quantised_to, size in [(None, case.weights), *smaller]:
        held = case.context_held(size, case.concurrency)
        if held >= shortest:
            bits = f" and {quantised_to} weights of {gib_words(size)}" if quantised_to else ""
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
        reasons.append(f"With {gib_words(overhead.high)} of overhead, the high {guess}, it would not fit: {settled_by}")
    if finding.verdict is not Verdict.FITS and case.fits(case.weights, overhead.low):
        reasons.append(
            f"With {gib_words(overhead.low)} of overhead, the low {guess}, it would fit as published: {settled_by}"
        )
    return reasons


def _min_gpus(case: MemoryCase) -> int | None:
    for size in TENSOR_PARALLEL_SIZES:
        cut = splits_over(case.shape, size) and not (case.shape.ffn or 0) % size
        if cut and case.over(size).fits(case.weights):
            return size * case.plan.pipeline_parallel
    return None
