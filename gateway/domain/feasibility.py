"""Does a model fit a GPU at this context and concurrency? The predicted column: configuration only, nothing measured.

vLLM's own budget (share of the memory - weights - overhead = KV cache) over the byte counts of `memory`, with every
step said in words. What a running engine resolved and what a load showed stand beside this and come from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.domain.memory import (
    GIB,
    ByteRange,
    KvLayout,
    Paging,
    default_batched_tokens,
    kv_budget_bytes,
    kv_layout,
    missing_kv_fields,
    number_format,
    overhead_bytes,
    splits_over,
    weights_bytes,
    weights_bytes_as,
)
from gateway.domain.records import Confidence, Gpu, Model, ModelShape, ServingKind, Sourced

KV_DTYPE_BYTES = 2
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
    kv_dtype_bytes: int = KV_DTYPE_BYTES


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
    max_concurrency: int | None = None
    """Requests of full length at once, with the published weights and the likely overhead."""
    min_gpus: int | None = None
    """Smallest tensor-parallel size, a power of two, on which the published weights fit as asked."""


@dataclass(frozen=True, slots=True)
class _Question:
    """All that the arithmetic needs, every field known."""

    model: Model
    shape: ModelShape
    gpu: Gpu
    context: int
    concurrency: int
    inputs: EstimateInputs
    weights: int
    overhead: ByteRange

    def layout(self, tensor_parallel: int = 1) -> KvLayout:
        layout = kv_layout(self.shape, tensor_parallel=tensor_parallel, dtype_bytes=self.inputs.kv_dtype_bytes)
        assert layout is not None
        return layout

    def kv_available(self, weights: int, overhead: int, tensor_parallel: int = 1) -> int:
        share = -(-weights // tensor_parallel)
        return kv_budget_bytes(self.gpu.memory_bytes, self.inputs.gpu_memory_utilization, share, overhead)

    def blocks(self, weights: int, overhead: int, tensor_parallel: int = 1) -> int:
        available = self.kv_available(weights, overhead, tensor_parallel)
        return self.layout(tensor_parallel).blocks_in(available, self.inputs.paging)

    def concurrency_held(self, weights: int, overhead: int, tensor_parallel: int = 1) -> int:
        """Requests of full length at once."""
        need = self.layout(tensor_parallel).blocks_per_request(self.context, self.inputs.paging)
        return self.blocks(weights, overhead, tensor_parallel) // need

    def context_held(self, weights: int, concurrency: int) -> int:
        """Longest context at this many requests at once, with the likely overhead, up to the model's own."""
        blocks = self.blocks(weights, self.overhead.likely) // concurrency
        limit = self.shape.context or self.context
        return self.layout().longest_context(blocks, self.inputs.paging, limit=limit)

    def fits(self, weights: int, overhead: int | None = None, tensor_parallel: int = 1) -> bool:
        guess = self.overhead.likely if overhead is None else overhead
        return self.concurrency_held(weights, guess, tensor_parallel) >= self.concurrency


@dataclass(frozen=True, slots=True)
class _Finding:
    verdict: Verdict
    weights: int
    """Bytes of the weights with which the verdict holds."""
    quantised_to: str | None
    sentence: str


def estimate(
    model: Model, gpu: Gpu, *, context: int, concurrency: int = 1, gpu_memory_utilization: float = 0.92
) -> Estimate:
    """Predict whether `model` serves `concurrency` requests of `context` tokens at once on one `gpu`.

    Missing or senseless facts of the model give verdict unknown, with reasons that name the fields.
    Raises ValueError for a context or concurrency below 1 or a utilization outside (0, 1].
    """
    _require_sensible(context, concurrency, gpu_memory_utilization)
    paging = Paging(max_batched_tokens=default_batched_tokens(f"{gpu.id} {gpu.name}", gpu.memory_bytes))
    inputs = EstimateInputs(gpu_memory_utilization, paging)
    shape, weights, obstacle = model.shape, weights_bytes(model), _obstacle(model)
    overhead = None if shape is None else overhead_bytes(shape, paging)
    if obstacle is not None or shape is None or weights is None or overhead is None:
        reasons = (obstacle or "Unknown: facts are missing.",)
        return Estimate(Verdict.UNKNOWN, gpu.id, context, concurrency, inputs, reasons, weights_bytes=weights)
    question = _Question(
        model=model,
        shape=shape,
        gpu=gpu,
        context=min(context, shape.context or context),
        concurrency=concurrency,
        inputs=inputs,
        weights=weights,
        overhead=overhead,
    )
    return _answer(question, asked_context=context)


def _require_sensible(context: int, concurrency: int, gpu_memory_utilization: float) -> None:
    if context < 1:
        raise ValueError(f"context: expected at least 1 token, got {context}")
    if concurrency < 1:
        raise ValueError(f"concurrency: expected at least 1 request, got {concurrency}")
    if not 0 < gpu_memory_utilization <= 1:
        raise ValueError(f"gpu_memory_utilization: expected above 0 and up to 1, got {gpu_memory_utilization}")


def _obstacle(model: Model) -> str | None:
    """Why no estimate can be made, in one sentence; None when it can."""
    unpublished = model.weights.repo is None and model.weights.size_bytes is None
    if unpublished and model.serving.kind is not ServingKind.VLLM:
        return "There are no public weights, so nothing can be said about a GPU of one's own."
    if model.shape is None:
        return "Unknown: the model's shape (layers, kv_heads, head_dim) is not in the registry."
    missing = list(missing_kv_fields(model.shape))
    if weights_bytes(model) is None:
        known = number_format(model.weights.dtype) is not None
        missing.append("weights.size_bytes or params" if known else f"weights.dtype ({model.weights.dtype!r})")
    if overhead_bytes(model.shape, Paging()) is None:
        missing.append("heads and head_dim, or hidden")
    if model.shape.context is not None and model.shape.context < 1:
        missing.append("context")
    if not missing:
        return None
    return f"Unknown: the registry has no usable value for {', '.join(missing)}."


def _answer(question: _Question, *, asked_context: int) -> Estimate:
    layout, paging, overhead = question.layout(), question.inputs.paging, question.overhead
    per_request = layout.blocks_per_request(question.context, paging) * layout.block_bytes(paging)
    available = ByteRange(
        *(question.kv_available(question.weights, o) for o in (overhead.high, overhead.likely, overhead.low))
    )
    needed = question.concurrency * per_request
    finding = _judge(question)
    confidence, doubts = _confidence(question)
    return Estimate(
        verdict=finding.verdict,
        gpu=question.gpu.id,
        context=question.context,
        concurrency=question.concurrency,
        inputs=question.inputs,
        reasons=(
            finding.sentence,
            *_range_reasons(question, finding),
            *_figure_reasons(question, per_request),
            *_caveats(question, asked_context),
            *doubts,
        ),
        confidence=confidence,
        weights_bytes=question.weights,
        quantised_to=finding.quantised_to,
        kv_bytes_per_request=per_request,
        kv_bytes_per_request_plain=layout.plain_bytes(question.context),
        overhead_bytes=overhead,
        kv_available_bytes=available,
        headroom_bytes=ByteRange(available.low - needed, available.likely - needed, available.high - needed),
        max_context_one_request=question.context_held(question.weights, 1),
        max_concurrency=question.concurrency_held(question.weights, overhead.likely),
        min_gpus=_min_gpus(question),
    )


def _judge(question: _Question) -> _Finding:
    """Try as published, then quantised, then with less context, and say what was found."""
    load, on = _load(question.concurrency, question.context), f"one {question.gpu.name}"
    if question.fits(question.weights):
        return _Finding(Verdict.FITS, question.weights, None, f"Fits {on}: {load}.")
    smaller = _quantised_sizes(question)
    for name, size in smaller:
        if question.fits(size):
            sentence = f"Fits {on} only with {name} weights of {_gib(size)}: {load}."
            return _Finding(Verdict.FITS_QUANTISED, size, name, sentence)
    shortest = min(SHORTEST_USEFUL_CONTEXT, question.shape.context or SHORTEST_USEFUL_CONTEXT)
    for quantised_to, size in [(None, question.weights), *smaller]:
        held = question.context_held(size, question.concurrency)
        if held >= shortest:
            bits = f" and {quantised_to} weights of {_gib(size)}" if quantised_to else ""
            sentence = f"Fits {on} only with at most {held:,} tokens a request{bits}, not with the {load} asked."
            return _Finding(Verdict.FITS_SHORT_CONTEXT, size, quantised_to, sentence)
    tried = " or ".join([*(name for name, _ in smaller), f"{shortest:,} tokens a request"])
    return _Finding(Verdict.NO, question.weights, None, f"Does not fit {on}: {load}, nor with {tried}.")


def _quantised_sizes(question: _Question) -> list[tuple[str, int]]:
    """Number formats smaller than what is published, with the bytes of the weights in each."""
    sizes = [(name, weights_bytes_as(question.shape, name)) for name in QUANTISED_FORMATS]
    return [(name, size) for name, size in sizes if size is not None and size < question.weights]


def _range_reasons(question: _Question, finding: _Finding) -> list[str]:
    """Whether the verdict would change at the ends of the guessed overhead."""
    overhead, reasons = question.overhead, []
    settled_by = "only starting the engine settles it."
    holds = finding.verdict in (Verdict.FITS, Verdict.FITS_QUANTISED)
    if holds and not question.fits(finding.weights, overhead.high):
        reasons.append(f"With {_gib(overhead.high)} of overhead, the high guess, it would not fit: {settled_by}")
    if finding.verdict is not Verdict.FITS and question.fits(question.weights, overhead.low):
        reasons.append(f"With {_gib(overhead.low)} of overhead, the low guess, it would fit as published: {settled_by}")
    return reasons


def _figure_reasons(question: _Question, per_request: int) -> list[str]:
    layout, inputs, overhead = question.layout(), question.inputs, question.overhead
    available = question.kv_available(question.weights, overhead.likely)
    at_once = question.concurrency_held(question.weights, overhead.likely)
    reasons = [
        f"Budget: {inputs.gpu_memory_utilization:g} × {_gib(question.gpu.memory_bytes)} of memory - weights "
        f"{_gib(question.weights)} - overhead {_gib(overhead.likely)} = {_gib(available)} for the KV cache.",
        f"The overhead is a guess between {_gib(overhead.low)} and {_gib(overhead.high)}.",
        f"KV cache: {_gib(per_request)} a request, in blocks of {inputs.paging.block} tokens; with the published "
        f"weights there is room for {_load(at_once, question.context)}.",
    ]
    if layout.window is not None:
        reasons.append(
            f"{layout.window_layers} of {question.shape.layers} layers keep a window of {layout.window:,} tokens "
            f"and up to {inputs.paging.tokens_in_flight:,} in flight; summed layer by layer, without vLLM's groups, "
            f"a request would take {_gib(layout.plain_bytes(question.context))}."
        )
    return reasons


def _caveats(question: _Question, asked_context: int) -> list[str]:
    model, reasons = question.model, []
    if asked_context > question.context:
        reasons.append(f"{asked_context:,} tokens were asked for; the model takes {question.context:,} at most.")
    if question.shape.context is None:
        reasons.append("The model's own context limit is unknown; the asked context was taken as its limit.")
    if question.shape.params is None:
        reasons.append("Quantised weights were not tried: the parameter count is unknown.")
    if "vision" in model.capabilities:
        reasons.append("The memory peak of the image encoder is not included.")
    if not model.is_servable:
        why = f" ({model.serving.reason})" if model.serving.reason else ""
        reasons.append(f"By size only: no supported engine serves this model{why}.")
    return reasons


def _min_gpus(question: _Question) -> int | None:
    for size in TENSOR_PARALLEL_SIZES:
        if splits_over(question.shape, size) and question.fits(question.weights, tensor_parallel=size):
            return size
    return None


def _confidence(question: _Question) -> tuple[Confidence, list[str]]:
    """The lowest confidence among the facts used, and a sentence that names the low ones."""
    facts = _facts_used(question)
    ranks = {name: fact.confidence if fact is not None else Confidence.LOW for name, fact in facts.items()}
    order = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)
    lowest = min(ranks.values(), key=order.index)
    low = [name for name, confidence in ranks.items() if confidence is Confidence.LOW]
    return lowest, [f"Low confidence or no source: {', '.join(low)}."] if low else []


def _facts_used(question: _Question) -> dict[str, Sourced | None]:
    shape, weights = question.shape, question.model.weights
    names = ["layers"]
    names += ["kv_heads", "head_dim"] if shape.mla is None else ["mla"]
    names += ["heads", "head_dim"] if shape.heads and shape.head_dim else ["hidden"]
    names += ["sliding_window", "global_layers"] if shape.sliding_window is not None else []
    names += ["context"] if shape.context is not None else []
    facts: dict[str, Sourced | None] = {"gpu": question.gpu.sourced}
    if weights.size_bytes:
        facts["weights.size_bytes"] = weights.sourced
    else:
        names.append("params")
    return facts | {name: shape.facts.get(name) for name in names}


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"


def _load(concurrency: int, context: int) -> str:
    plural = "request" if concurrency == 1 else "requests"
    return f"{concurrency:,} {plural} of {context:,} tokens"
