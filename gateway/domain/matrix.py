"""Models × GPUs × number formats: for each cell the predicted verdict, how fast at most, and what a token would cost.

Whether a cell fits is `feasibility`'s answer and how fast it goes is `decoding`'s; here they are asked for every cell,
with one load and one definition of each figure. Everything is predicted. How a matrix is shown belongs elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from gateway.domain.decoding import Decoding, DecodingPace, decode_at, decoding_pace
from gateway.domain.feasibility import Estimate, estimate
from gateway.domain.kv_groups import Paging
from gateway.domain.kv_layers import KV_DTYPES
from gateway.domain.memory import (
    BYTES_PER_PARAM,
    ByteRange,
    default_batched_tokens,
    missing_kv_fields,
    number_format,
    overhead_bytes,
    weights_bytes,
)
from gateway.domain.records import Gpu, Model, ServingKind
from gateway.domain.roofline import missing_facts
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
        pace = (
            decoding_pace(variant, gpu, gpus=load.gpus, kv_dtype=load.kv_dtype, context=found.context)
            if why is None
            else None
        )
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


def _with_speed(bare: Cell, gpu: Gpu, load: MatrixLoad, pace: DecodingPace) -> Cell:
    held = bare.estimate.max_concurrency or load.concurrency
    full = min(held, max(load.concurrency, most_sequences(gpu)))
    asked, cost_reason = decode_at(pace, gpu, gpus=load.gpus, requests=load.concurrency)
    return replace(
        bare,
        asked=asked,
        full=decode_at(pace, gpu, gpus=load.gpus, requests=full)[0],
        cost_reason=cost_reason,
        ceiling_reason=pace.why_no_bound,
    )


assert set(QUANTISATIONS) - {PUBLISHED} <= set(BYTES_PER_PARAM)
