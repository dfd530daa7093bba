"""Does a model fit a GPU, how fast at most, at what cost: predicted from registry facts, one cell or a whole matrix."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.access import permit_roles
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, Services
from gateway.api.refusals import refusals
from gateway.api.schemas import Amount
from gateway.domain.accounts import CALLING, OVERSEEING
from gateway.domain.feasibility import estimate
from gateway.domain.kv_layers import KV_DTYPES
from gateway.domain.matrix import NOTHING_MEASURED, PUBLISHED, QUANTISATIONS, Cell, Matrix, MatrixLoad, build_matrix
from gateway.domain.memory import ByteRange
from gateway.domain.records import Gpu, Model, Registry
from gateway.domain.serving_plan import ServingPlan
from gateway.errors import InvalidRequest, NotFound
from gateway.evidence import feasibility_summary
from gateway.long_work import give_way
from gateway.matrix_answer import matrix_csv, matrix_object
from gateway.matrix_page import POLICY, feasibility_page
from gateway.matrix_words.fields import Language

router = APIRouter(prefix="/api/feasibility", tags=["feasibility"], dependencies=[RequireKey, DescribeKey])

MAX_TOKENS = 100_000_000
MAX_REQUESTS = 1_000_000
"""Far beyond every engine; beyond them arithmetic would leave the range of floats."""
MAX_CELLS = 5_000
"""Some four seconds of a core, page included, one such answer at a time: see `long_work`."""
MAX_GPUS = 64
MAX_NAMES = 200
EVERY = "all"

Quantisation = Literal["published", "bf16", "fp8", "int8", "int4", "awq", "nvfp4", "mxfp4", "all"]
Format = Literal["json", "csv", "html"]
_MEDIA_TYPES: Mapping[Format, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
}


class GibRange(BaseModel):
    """GiB with the low, the likely and the high value."""

    low: float
    likely: float
    high: float


class CostRangeOut(BaseModel):
    low: Amount
    high: Amount
    currency: str


class DecodingOut(BaseModel):
    """Output tokens per second of all requests together; see `definitions`."""

    requests: int
    ceiling_tokens_per_s: float | None = Field(description="null: see ceiling_reason.")
    expected_tokens_per_s: float
    cost_per_mtok: CostRangeOut | None = Field(description="null: see cost_reason.")


class FeasibilityRow(BaseModel):
    """One predicted verdict. The fields from `quantisation` on come with a matrix only."""

    model_config = ConfigDict(extra="allow")

    model: str
    verdict: Literal["fits", "fits_quantised", "fits_short_context", "no", "unknown"]
    gpu: str
    gpus: int
    context: int = Field(description="Tokens of a request, prompt and answer.")
    concurrency: int
    headroom_gib: GibRange | None
    weights_gib: float | None
    kv_gib_per_request: float | None
    overhead_gib: GibRange | None = Field(description="A guess, or measured: see overhead_basis.")
    overhead_basis: Literal["guess", "measured"] | None = Field(
        None, description="measured: as engines with real weights showed it on this type of GPU; null with no overhead."
    )
    max_context_one_request: int | None
    max_context_at_concurrency: int | None = Field(description="With the weights of the verdict.")
    max_concurrency: int | None
    min_gpus: int | None
    quantised_to: str | None
    confidence: Literal["high", "medium", "low"] | None
    reasons: list[str]
    quantisation: str | None = None
    number_format: str | None = None
    units: Literal["native", "weight_only", "unlisted"] | None = None
    is_borderline: bool | None = None
    missing_facts: list[str] | None = None
    asked: DecodingOut | None = Field(None, description="null: see speed_reason.")
    full: DecodingOut | None = None
    speed_reason: str | None = None
    ceiling_reason: str | None = None
    cost_reason: str | None = None


class FeasibilityOut(BaseModel):
    """The fields from `registry_sha256` on come with a matrix only."""

    basis: Literal["predicted"]
    data: list[FeasibilityRow]
    registry_sha256: str | None = None
    as_of: str | None = None
    context: int | None = None
    concurrency: int | None = None
    tensor_parallel: int | None = None
    kv_dtype: str | None = None
    quantisations: list[str] | None = None
    gpus: list[str] | None = None
    definitions: dict[str, str] | None = Field(None, description="What each figure means, with its unit.")
    assumptions: list[str] | None = None


@router.get(
    "",
    summary="Predicted: does a model fit a GPU, how fast at most, at what cost",
    response_model=FeasibilityOut,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}, "text/html": {"schema": {"type": "string"}}}},
        **refusals(404, 503),
    },
)
async def feasibility(
    services: Gateway,
    caller: CheckedCaller,
    model: Annotated[
        list[str] | None, Query(max_length=MAX_NAMES, description="Only these; every candidate where it is left out.")
    ] = None,
    gpu: Annotated[
        list[str] | None,
        Query(
            max_length=MAX_NAMES,
            description="Ids of the registry, or all; SIMSA_FEASIBILITY_GPU where left out. Several make a matrix.",
        ),
    ] = None,
    quantisation: Annotated[
        list[Quantisation] | None,
        Query(max_length=MAX_NAMES, description="Number formats of the weights, or all. Naming one makes a matrix."),
    ] = None,
    context: Annotated[
        int | None,
        Query(ge=1, le=MAX_TOKENS, description="Tokens of a request; SIMSA_FEASIBILITY_CONTEXT where left out."),
    ] = None,
    concurrency: Annotated[int, Query(ge=1, le=MAX_REQUESTS, description="Requests at a time.")] = 1,
    gpus: Annotated[int, Query(ge=1, le=MAX_GPUS, description="GPUs that share each model by tensor parallelism.")] = 1,
    kv_dtype: Annotated[
        str, Query(max_length=64, description="Format of the KV cache, as vLLM's --kv-cache-dtype.")
    ] = "auto",
    calibrated: Annotated[
        bool,
        Query(description="Take the overhead that engines showed on a type of GPU, where any did."),
    ] = True,
    format: Annotated[  # noqa: A002  the query's name
        Format, Query(description="csv: a table for spreadsheets; html: a heat map to be read. Both are of the matrix.")
    ] = "json",
    lang: Annotated[Language, Query(description="Language of the html page.")] = "ko",
) -> Any:
    """Registry facts in, verdict and reasons out; a prediction, nothing measured. Without `model`: every candidate.

    A matrix (several types of GPU, a quantisation, several GPUs together, a KV cache format, or a format other than
    JSON) also has the speed's ceiling and expectation,
    the cost, definitions and assumptions. Speeds and costs are of decoding at the load that stands beside them.
    """
    permit_roles(caller, CALLING | OVERSEEING)
    registry = services.registry.current
    columns = _gpus(registry, gpu or [services.settings.feasibility_gpu])
    models = _models(registry, model)
    if kv_dtype not in KV_DTYPES:
        known = ", ".join(sorted(KV_DTYPES))
        raise InvalidRequest(f"There is no KV cache format '{kv_dtype}': known are {known}", param="kv_dtype")
    load = MatrixLoad(context or services.settings.feasibility_context, concurrency, gpus, kv_dtype)
    measured = _measured_overheads(services, columns) if calibrated else NOTHING_MEASURED
    if quantisation is None and len(columns) == 1 and format == "json" and not load.has_own_plan:
        return _json(await asyncio.to_thread(_one_gpu, models, registry, columns[0], load, measured))
    formats = _formats(quantisation)
    cells = len(models) * len(columns) * len(formats)
    if cells > MAX_CELLS:
        raise InvalidRequest(
            f"{len(models)} models × {len(columns)} GPUs × {len(formats)} quantisations are {cells:,} cells, more than "
            f"{MAX_CELLS:,}: name fewer of them",
            param="model",
        )
    today = datetime.now(UTC).date()
    names = tuple(model.id for model in models), tuple(gpu.id for gpu in columns)
    body = await services.long_work.answer(
        (registry.sha256, tuple(sorted(measured.items())), *names, formats, load, format, lang, today),
        lambda: _matrix_body(_matrix(models, columns, formats, load, measured), registry, format, lang, today),
    )
    return Response(body, media_type=_MEDIA_TYPES[format], headers=_headers(format, lang))


def _measured_overheads(services: Services, gpus: list[Gpu]) -> Mapping[str, ByteRange]:
    found = {gpu.id: services.calibration.calibrated_overhead(gpu.id) for gpu in gpus}
    return {name: overhead for name, overhead in found.items() if overhead is not None}


def _one_gpu(
    models: list[Model], registry: Registry, gpu: Gpu, load: MatrixLoad, measured: Mapping[str, ByteRange]
) -> dict[str, Any]:
    rows, plan = [], ServingPlan(overhead_bytes=measured.get(gpu.id))
    for candidate in models:
        found = estimate(candidate, gpu, context=load.context, concurrency=load.concurrency, plan=plan)
        rows.append({"model": candidate.id, **feasibility_summary(found)})
    return {"basis": "predicted", "data": rows}


def _matrix(
    models: list[Model], gpus: list[Gpu], formats: tuple[str, ...], load: MatrixLoad, measured: Mapping[str, ByteRange]
) -> Matrix:
    """Model by model, so that the event loop gets its turns in between."""
    cells: dict[tuple[str, str, str], Cell] = {}
    for model in models:
        cells |= build_matrix([model], gpus, formats, load, measured_overheads=measured).cells
        give_way()
    return replace(build_matrix([], gpus, formats, load), models=tuple(models), cells=cells)


def _matrix_body(matrix: Matrix, registry: Registry, form: Format, language: Language, today: date) -> bytes:
    match form:
        case "json":
            return msgspec.json.encode(matrix_object(matrix, registry))
        case "csv":
            return matrix_csv(matrix, registry)
        case "html":
            return feasibility_page(matrix, registry, language=language, on=today).encode()


def _headers(form: Format, language: Language) -> dict[str, str]:
    match form:
        case "json":
            return {}
        case "csv":
            return {"content-disposition": 'attachment; filename="feasibility.csv"'}
        case "html":
            return {"content-security-policy": POLICY, "content-language": language}


def _json(value: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _formats(names: list[Quantisation] | None) -> tuple[str, ...]:
    if names is None:
        return (PUBLISHED,)
    return QUANTISATIONS if EVERY in names else tuple(dict.fromkeys(names))


def _gpus(registry: Registry, names: list[str]) -> list[Gpu]:
    if EVERY in names:
        return list(registry.gpus.values())
    for name in names:
        if name not in registry.gpus:
            known = ", ".join(sorted(registry.gpus))
            raise InvalidRequest(f"There is no GPU '{name[:128]}': known are {known}", param="gpu")
    return [registry.gpus[name] for name in dict.fromkeys(names)]


def _models(registry: Registry, names: list[str] | None) -> list[Model]:
    if names is None:
        return list(registry.models.values())
    for name in names:
        if name not in registry.models:
            raise NotFound(f"There is no model '{name[:128]}'. See GET /api/models.", param="model")
    return [registry.models[name] for name in dict.fromkeys(names)]
