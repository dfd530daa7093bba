"""Models × GPUs × number formats: for each cell the predicted verdict, how fast at most, and what a token would cost.

Whether a cell fits is `feasibility`'s answer and how long a step takes is `roofline`'s; here they are asked for every
cell, with one load and one definition of each figure. Everything is predicted. How a matrix is shown belongs elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from gateway.domain.cost import cost_per_mtok
from gateway.domain.feasibility import Estimate, estimate
from gateway.domain.kv_groups import Paging
from gateway.domain.kv_layers import KV_DTYPES, Keeps
from gateway.domain.memory import (
    BYTES_PER_PARAM,
    ByteRange,
    default_batched_tokens,
    kv_layout,
    missing_kv_fields,
    number_format,
    overhead_bytes,
    weights_bytes,
)
from gateway.domain.records import Gpu, Model, ServingKind
from gateway.domain.roofline import Roofline, Work, build_bound, expect_roofline, missing_bound_facts, missing_facts
from gateway.domain.serving_plan import ServingPlan
from gateway.domain.shapes import contradictions

PUBLISHED = "published"
QUANTISATIONS = (PUBLISHED, "bf16", "fp8", "int8", "int4", "awq", "nvfp4", "mxfp4")
"""The checkpoint as it is published, or the same model with its weights in another number format."""
DEFAULT_QUANTISATIONS = (PUBLISHED, "fp8", "int8", "int4", "nvfp4")

_SIXTEEN_BITS = frozenset({"fp32", "bf16", "fp16"})
_INTEGER_WEIGHTS = frozenset({"int4", "awq"})
"""GPTQ and AWQ: 4-bit weights are widened to 16 bits before they are multiplied, on every GPU."""
_FLOAT_4 = frozenset({"nvfp4", "mxfp4"})
NOTHING_MEASURED: Mapping[str, ByteRange] = MappingProxyType({})
_PLAIN_KV_BYTES = 2
"""An element of the KV cache where no other format is asked for."""


class Units(StrEnum):
    """What a GPU multiplies a number format with."""

    NATIVE = "native"
    """Units of the format itself, whose speed the registry has."""
    WEIGHT_ONLY = "weight_only"
    """None: smaller weights are read faster, and multiplied in 16 bits. The ceiling allows for units nonetheless."""
    UNLISTED = "unlisted"
    """Perhaps some; the registry has no figure for them. The ceiling allows for the fastest that the width permits, the
    expectation counts on the units that are listed."""


class Gap(StrEnum):
    """Why nothing can be said about a model, as a word that can be put in any language."""

    NO_WEIGHTS = "no_weights"
    NO_SHAPE = "no_shape"
    FACTS = "facts"
    """Some facts are missing or cannot be right; they are named."""
    CONTRADICTORY = "contradictory"
    """The facts contradict each other."""
    PLAN = "plan"
    """vLLM would not start this model on so many GPUs, or with this KV cache."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a cell has no verdict: the kind, the facts by name, and the sentence of the estimate."""

    gap: Gap
    facts: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class MatrixLoad:
    """The load that every cell is judged at."""

    context: int
    """Tokens of one request, prompt and answer."""
    concurrency: int = 1
    gpus: int = 1
    """GPUs that share the model by tensor parallelism."""
    kv_dtype: str = "auto"
    """vLLM's --kv-cache-dtype."""

    @property
    def has_own_plan(self) -> bool:
        return self.gpus != 1 or self.kv_dtype != "auto"


@dataclass(frozen=True, slots=True)
class CostRange:
    """Money per million output tokens, over all listed prices of the GPU."""

    low: Decimal
    high: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """Output tokens per second while `requests` requests, each with its whole context in cache, get their next token.

    No prefill in between: requests ÷ time of one decode step. The ceiling is `build_bound`'s, which no engine beats at
    this context; the expectation `expect_roofline`'s, with 0.8 of the bandwidth and 0.5 of the operations.
    """

    requests: int
    ceiling_tokens_per_s: float | None
    """None where a fact is unknown that a bound needs; see `Cell.ceiling_reason`."""
    expected_tokens_per_s: float
    cost_per_mtok: CostRange | None
    """At the expected rate, kept up all the time; None has its reason in `Cell.cost_reason`."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one GPU type in one number format. Everything in it is predicted."""

    model_id: str
    gpu_id: str
    quantisation: str
    number_format: str | None
    """The format counted; None where the published one is not known here."""
    units: Units
    estimate: Estimate
    unknown: Unknown | None = None
    """Why there is no verdict; None where there is one."""
    asked: Decoding | None = None
    """At the concurrency asked for."""
    full: Decoding | None = None
    """At the most requests that memory holds, and vLLM's default takes at once."""
    speed_reason: str | None = None
    """Why `asked` and `full` are None."""
    speed_facts: tuple[str, ...] = ()
    """The facts that a speed would need and the registry lacks, where that is why."""
    ceiling_reason: str | None = None
    """Why there is a speed to expect and no ceiling."""
    cost_reason: str | None = None
    """Why there is no cost."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.model_id, self.gpu_id, self.quantisation

    @property
    def is_borderline(self) -> bool:
        """Whether the verdict hangs on the guessed overhead: room at one end of it, none at the other."""
        room = self.estimate.headroom_bytes
        return room is not None and room.low < 0 <= room.high


@dataclass(frozen=True, slots=True)
class Matrix:
    """All cells, with what they were asked for. `cells` has every combination exactly once."""

    models: tuple[Model, ...]
    gpus: tuple[Gpu, ...]
    quantisations: tuple[str, ...]
    load: MatrixLoad
    cells: Mapping[tuple[str, str, str], Cell]

    def cell(self, model: Model, gpu: Gpu, quantisation: str) -> Cell:
        return self.cells[model.id, gpu.id, quantisation]

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells.values())


def build_matrix(
    models: Iterable[Model],
    gpus: Iterable[Gpu],
    quantisations: Iterable[str],
    load: MatrixLoad,
    *,
    measured_overheads: Mapping[str, ByteRange] = NOTHING_MEASURED,
) -> Matrix:
    """Every cell of models × GPUs × quantisations; what is named twice counts once.

    `measured_overheads`, by GPU id, stand in the place of the guess.
    Raises ValueError for a quantisation that is not in QUANTISATIONS, an unknown KV dtype, and a load below 1.
    """
    columns = {gpu.id: gpu for gpu in gpus}
    rows = {model.id: model for model in models}
    formats = tuple(dict.fromkeys(quantisations))
    unheard = [name for name in formats if name not in QUANTISATIONS]
    if unheard:
        raise ValueError(f"quantisation: expected {', '.join(QUANTISATIONS)}, got '{unheard[0]}'")
    if load.kv_dtype not in KV_DTYPES:
        raise ValueError(f"kv_dtype: expected {', '.join(sorted(KV_DTYPES))}, got '{load.kv_dtype}'")
    cells: dict[tuple[str, str, str], Cell] = {}
    for model in rows.values():
        for quantisation in formats:
            row = _row(model, tuple(columns.values()), quantisation, load, measured_overheads)
            cells |= {cell.key: cell for cell in row}
    return Matrix(tuple(rows.values()), tuple(columns.values()), formats, load, cells)


def model_in(model: Model, quantisation: str) -> Model:
    """The model with its weights in this number format; as it is where that is the published one."""
    if quantisation == PUBLISHED or number_format(model.weights.dtype) == quantisation:
        return model
    weights = replace(model.weights, dtype=quantisation, size_bytes=None, group_size=None, unquantised_params=None)
    return replace(model, weights=weights)


def predict(
    model: Model, gpu: Gpu, quantisation: str, load: MatrixLoad, *, measured_overhead: ByteRange | None = None
) -> Estimate:
    """The estimate of one cell: the only place that asks for one."""
    plan = ServingPlan(
        quantisation=None if quantisation == PUBLISHED else quantisation,
        tensor_parallel=load.gpus,
        kv_dtype=load.kv_dtype,
        overhead_bytes=measured_overhead,
    )
    return estimate(model, gpu, context=load.context, concurrency=load.concurrency, plan=plan)


def units_of(format_name: str | None, gpu: Gpu) -> Units:
    """What `gpu` multiplies weights of this format with; the formats are those of BYTES_PER_PARAM."""
    if format_name is None or format_name in _SIXTEEN_BITS:
        return Units.NATIVE
    if format_name not in _INTEGER_WEIGHTS and gpu.bf16_flops is None:
        return Units.UNLISTED
    if format_name == "fp8":
        return Units.NATIVE if gpu.fp8_flops else Units.WEIGHT_ONLY
    if format_name in _INTEGER_WEIGHTS or (format_name in _FLOAT_4 and not gpu.fp8_flops):
        return Units.WEIGHT_ONLY
    return Units.UNLISTED


def why_unknown(variant: Model, found: Estimate) -> Unknown:
    """What leaves `found` without a verdict. `variant` has its weights in the format that was asked for."""
    sentence, shape = found.reasons[0], variant.shape
    if variant.weights.repo is None and not variant.weights.size_bytes and variant.serving.kind is not ServingKind.VLLM:
        return Unknown(Gap.NO_WEIGHTS, (), sentence)
    if shape is None:
        return Unknown(Gap.NO_SHAPE, (), sentence)
    facts = list(missing_kv_fields(shape))
    if weights_bytes(variant) is None:
        facts.append("params" if number_format(variant.weights.dtype) else "weights.dtype")
    if not found.overhead_is_measured and overhead_bytes(shape, Paging()) is None:
        facts.append("heads, head_dim" if "head_dim" not in facts else "heads")
    if shape.context is not None and shape.context < 1:
        facts.append("context")
    if facts:
        return Unknown(Gap.FACTS, tuple(dict.fromkeys(facts)), sentence)
    is_contradictory = contradictions(shape, architecture=variant.weights.architecture)
    return Unknown(Gap.CONTRADICTORY if is_contradictory else Gap.PLAN, (), sentence)


def most_sequences(gpu: Gpu) -> int:
    """vLLM's server default of max_num_seqs on this GPU: it goes with that of max_num_batched_tokens."""
    return 256 if default_batched_tokens(f"{gpu.id} {gpu.name}", gpu.memory_bytes) <= 2048 else 1024


# --- one row ------------------------------------------------------------------------------------------------


def _row(
    model: Model, gpus: Sequence[Gpu], quantisation: str, load: MatrixLoad, overheads: Mapping[str, ByteRange]
) -> Iterator[Cell]:
    variant = model_in(model, quantisation)
    format_name = number_format(variant.weights.dtype)
    for gpu in gpus:
        found = predict(model, gpu, quantisation, load, measured_overhead=overheads.get(gpu.id))
        bare = Cell(model.id, gpu.id, quantisation, format_name, units_of(format_name, gpu), found)
        why = _why_no_speed(bare, load)
        pace = _pace(variant, gpu, load, context=found.context) if why is None else None
        yield _without_speed(bare, variant, gpu, why) if pace is None else _with_speed(bare, gpu, load, pace)


def _why_no_speed(bare: Cell, load: MatrixLoad) -> str | None:
    held = bare.estimate.max_concurrency
    if held is None:
        return "There is no speed without a verdict."
    return (
        "It does not fit as asked in this number format, so it has no speed here." if held < load.concurrency else None
    )


def _without_speed(bare: Cell, variant: Model, gpu: Gpu, why: str | None) -> Cell:
    if bare.estimate.max_concurrency is None:
        return replace(bare, unknown=why_unknown(variant, bare.estimate), speed_reason=why, cost_reason=why)
    if why is not None:
        return replace(bare, speed_reason=why, cost_reason=why)
    missing = missing_facts(variant, gpu)
    why = f"The speed cannot be computed: unknown {', '.join(missing)}."
    return replace(bare, speed_reason=why, speed_facts=missing, cost_reason=why)


def _with_speed(bare: Cell, gpu: Gpu, load: MatrixLoad, pace: _Pace) -> Cell:
    held = bare.estimate.max_concurrency or load.concurrency
    full = min(held, max(load.concurrency, most_sequences(gpu)))
    asked, cost_reason = _decoding(pace, gpu, load, load.concurrency)
    return replace(
        bare,
        asked=asked,
        full=_decoding(pace, gpu, load, full)[0],
        cost_reason=cost_reason,
        ceiling_reason=pace.why_no_bound,
    )


@dataclass(frozen=True, slots=True)
class _Pace:
    """How fast decoding goes: what to expect and what no engine beats, for the last token of each request."""

    expected: Roofline
    bound: Roofline | None
    why_no_bound: str | None
    work: Work

    def ceiling(self, requests: int) -> float | None:
        return None if self.bound is None else self._tokens_per_s(self.bound, requests)

    def expectation(self, requests: int) -> float:
        return self._tokens_per_s(self.expected, requests)

    def _tokens_per_s(self, roofline: Roofline, requests: int) -> float:
        """As `Roofline.step_seconds` of so many equal works, without going through them one by one."""
        cache = roofline.cache.read_bytes(self.work.past_tokens)
        read_s = (roofline.weights_read_bytes(requests) + requests * cache) / roofline.bytes_per_s
        return requests / max(read_s, requests * roofline.request_flops(self.work) / roofline.flops_per_s)


def _pace(variant: Model, gpu: Gpu, load: MatrixLoad, *, context: int) -> _Pace | None:
    """For requests of `context` tokens; None where facts are missing that an expectation needs."""
    if missing_facts(variant, gpu):
        return None
    expected = expect_roofline(
        variant, gpu, gpus=load.gpus, weights_format=variant.weights.dtype, kv_dtype_bytes=_PLAIN_KV_BYTES
    )
    bound, why = _bound(variant, gpu, load)
    return _Pace(
        expected=_with_cache(expected, variant, load),
        bound=None if bound is None else _with_cache(bound, variant, load),
        why_no_bound=why,
        work=Work(new_tokens=1, past_tokens=context - 1),
    )


def _bound(variant: Model, gpu: Gpu, load: MatrixLoad) -> tuple[Roofline | None, str | None]:
    """What no engine beats, or why that is not known."""
    missing = missing_bound_facts(variant, gpu)
    if number_format(variant.weights.dtype) is None:
        missing = (*missing, "weights.dtype")
    if missing:
        return None, f"The ceiling cannot be computed: unknown {', '.join(missing)}."
    bound = build_bound(
        variant, gpu, gpus=load.gpus, weights_format=variant.weights.dtype, kv_dtype_bytes=_PLAIN_KV_BYTES
    )
    return bound, None


def _with_cache(roofline: Roofline, variant: Model, load: MatrixLoad) -> Roofline:
    """The same with the KV cache in the format asked for, its scales included."""
    shape = variant.shape
    layout = None if load.kv_dtype == "auto" or shape is None else kv_layout(shape, kv_dtype=load.kv_dtype)
    if layout is None:
        return roofline
    sizes = [each.layer.token_bytes for each in layout.layers if each.layer.keeps is not Keeps.STATE]
    return replace(roofline, cache=replace(roofline.cache, token_bytes=max(sizes, default=0)), kv=layout)


def _decoding(pace: _Pace, gpu: Gpu, load: MatrixLoad, requests: int) -> tuple[Decoding, str | None]:
    expected = pace.expectation(requests)
    cost, reason = _cost_range(gpu, load.gpus, expected)
    return Decoding(requests, pace.ceiling(requests), expected, cost), reason


def _cost_range(gpu: Gpu, gpus: int, tokens_per_s: float) -> tuple[CostRange | None, str | None]:
    """Lowest and highest over the listed prices, or why there is none."""
    currencies = sorted({price.currency for price in gpu.prices})
    if not currencies:
        return None, f"The registry has no hourly price for {gpu.id}."
    if len(currencies) > 1:
        return None, f"{gpu.id} is priced in {' and '.join(currencies)}, and no exchange rate is applied."
    costs = [cost_per_mtok(price.per_hour, gpus, tokens_per_s) for price in gpu.prices]
    return CostRange(min(costs), max(costs), currencies[0]), None


assert set(QUANTISATIONS) - {PUBLISHED} <= set(BYTES_PER_PARAM)
