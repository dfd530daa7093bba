"""Running engines: what each resolved at start, and predicted, resolved and observed side by side."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.api.deps import DescribeKey, Gateway, RequireKey, Services, require_roles
from gateway.api.refusals import refusals
from gateway.domain.accounts import OVERSEEING
from gateway.domain.engine_facts import ObservedLoad
from gateway.engine_records import EngineReport, OwnCalls, sum_up_calls
from gateway.errors import InvalidRequest, NotFound
from gateway.evidence import engine_columns
from gateway.load_run_checks import run_ids_through_gateway, span_of
from gateway.replica_state import ReplicaState

router = APIRouter(prefix="/api", tags=["feasibility"], dependencies=[RequireKey, DescribeKey])
MOST_REPORTS = 1000


class CellOut(BaseModel):
    value: float | str | None = Field(description="null where it is unknown: the reason says why.")
    low: float | None = Field(description="Where the figure is a range; `value` is the likely one then.")
    high: float | None
    applies: bool = Field(description="false where this column can say nothing of the figure: nothing is missing.")
    reason: str = Field(description="Where the figure is from, or why there is none.")


class ColumnRowOut(BaseModel):
    figure: str
    unit: str
    predicted: CellOut = Field(description="The registry's facts with the engine's own settings.")
    resolved: CellOut = Field(description="What the engine says that it settled at start.")
    observed: CellOut = Field(description="What looks at the engine showed.")
    difference: float | None = Field(description="resolved - predicted; null where either is unknown.")
    reason: str = Field(description="Why they differ, in a sentence.")


class FitOut(BaseModel):
    settled: bool | None = Field(description="true: real weights started and stood a saturating load. null: open.")
    reason: str


class LoadOut(BaseModel):
    """What looks at the engine showed; peaks are of the looks. null: the engine reports no such thing."""

    looks: int
    first_look: datetime
    last_look: datetime
    peak_running: int | None
    peak_waiting: int | None
    peak_kv_usage: float | None
    peak_own_calls: int | None = Field(description="Calls of this gateway in flight at a look.")
    looks_waiting: int
    preemptions: int | None
    prefix_queries: int | None
    prefix_hits: int | None
    prompt_tokens: int | None
    generation_tokens: int | None
    restarts: int


class OwnCallsOut(BaseModel):
    """The gateway's own calls that this replica answered in the run or span, from their records."""

    n: int | None = Field(description="null where they are too many to be counted here.")
    most_at_once: int | None
    reason: str | None


class RangeOut(BaseModel):
    low: float
    likely: float
    high: float


class CalibrationOut(BaseModel):
    """The overhead that started engines showed on this type of GPU: lowest, median, highest."""

    gpu: str
    overhead_gib: RangeOut
    spread_gib: float
    n: int
    engine_versions: list[str]
    first: str = Field(json_schema_extra={"format": "date"})
    last: str = Field(json_schema_extra={"format": "date"})


class EngineColumnsOut(BaseModel):
    model: str
    replica: str
    report: str | None = Field(description="Id of what the engine resolved; see /api/engines.")
    engine_version: str | None
    gpu: str | None = Field(description="What the registry says; the engine does not.")
    gpus: int
    provenance: str
    provenance_reason: str
    notes: list[str]
    fits: FitOut
    rows: list[ColumnRowOut]
    load: LoadOut | None
    load_saturated: bool | None
    load_reason: str | None = Field(description="Why the engine's metrics cannot be read, where that is so.")
    own_calls: OwnCallsOut | None = Field(description="Where a run or a span was asked for.")
    calibration: CalibrationOut | None = Field(description="null while no engine on this type of GPU taught anything.")
    calibration_problem: str | None


class ColumnsOut(BaseModel):
    load_of: str = Field(description="since_connected, run or span: what the observed column covers.")
    since: datetime | None
    until: datetime | None
    data: list[EngineColumnsOut]


class EngineReportOut(BaseModel):
    """One configuration that one replica showed."""

    id: str
    model: str
    replica: str
    gpu: str | None
    gpus: int
    provenance: str
    provenance_reason: str
    first_seen: datetime
    last_seen: datetime
    is_current: bool = Field(description="Whether a live replica shows it now.")
    version: str | None
    root: str | None
    owned_by: str | None
    max_model_len: int | None
    num_gpu_blocks: int | None
    block_size: int | None
    kv_cache_size_tokens: int | None
    kv_cache_max_concurrency: float | None
    gpu_memory_utilization: float | None
    cache_dtype: str | None
    enable_prefix_caching: bool | None
    sliding_window: int | None
    kv_cache_memory_bytes: int | None
    num_gpu_blocks_override: int | None
    engines: int = Field(description="Engines behind the address that describe their cache.")
    labels: dict[str, str] = Field(description="Every label of vllm:cache_config_info, as it was said.")


class EngineReportsOut(BaseModel):
    data: list[EngineReportOut]


ModelQuery = Annotated[str | None, Query(description="Only this one's; every model's where it is left out.")]


@router.get(
    "/feasibility/columns",
    summary="Predicted, resolved and observed of every live replica",
    response_model=ColumnsOut,
    responses=refusals(404, 503),
    dependencies=[require_roles(OVERSEEING)],
)
async def get_columns(
    services: Gateway,
    model: ModelQuery = None,
    run: Annotated[
        str | None,
        Query(
            description="Observe the time of a kept load run, or of the calls with this run id, from what is stored."
        ),
    ] = None,
    since: Annotated[datetime | None, Query(description="Observe from this moment on, with its offset.")] = None,
    until: Annotated[datetime | None, Query(description="And up to this one.")] = None,
) -> dict[str, Any]:
    """The three columns with their differences and reasons. Without run and span: what was seen since each replica came
    into use; else, to the minute, what is stored. Nothing of a stand-in or a simulated engine feeds a verdict or the
    calibration."""
    if model is not None and model not in services.registry.current.models:
        raise NotFound(f"There is no model '{model[:128]}'. See GET /api/models.", param="model")
    begin, end = _moment(since, "since"), _moment(until, "until")
    if begin is not None and end is not None and begin > end:
        raise InvalidRequest("'since' must not be after 'until'", param="since")
    states = [s for s in services.fleet.all_states() if s.is_up and not s.is_remote and model in (None, s.model.id)]
    if run is None and begin is None and end is None:
        found = [{**_columns(services, state, state.observed), "own_calls": None} for state in states]
        return {"load_of": "since_connected", "since": None, "until": None, "data": found}
    kept = None if run is None else await services.load_runs.found(run)
    run_ids = None if run is None else [run] if kept is None else run_ids_through_gateway(kept[1])
    calls = await services.engine_records.own_calls(run_ids=run_ids, model=model, since=begin, until=end)
    own = None if calls is None else await asyncio.to_thread(sum_up_calls, calls)
    if kept is not None and begin is None and end is None:
        begin, end = span_of(kept[1]) or (None, None)
    elif run is not None:
        begin, end = _span_of_run(run, own, begin, end)
    await services.engine_diary.flush()
    found = []
    for state in states:
        load = None
        if state.report_id is not None:
            load = await services.engine_records.observed(state.report_id, since=begin, until=end)
        found.append({**_columns(services, state, load), "own_calls": _own_calls(own, state)})
    return {"load_of": "span" if run is None else "run", "since": begin, "until": end, "data": found}


@router.get(
    "/engines",
    summary="What engines resolved at start, and when each configuration was seen",
    response_model=EngineReportsOut,
    responses=refusals(503),
    dependencies=[require_roles(OVERSEEING)],
)
async def list_engines(services: Gateway, model: ModelQuery = None) -> dict[str, Any]:
    """The last seen first: one entry for each distinct configuration that a replica showed, live or not."""
    await services.engine_diary.flush()
    current = {state.report_id for state in services.fleet.all_states() if state.is_up}
    reports = await services.engine_records.list_reports(model=model, limit=MOST_REPORTS)
    return {"data": [_report(report, is_current=report.id in current) for report in reports]}


def _columns(services: Services, state: ReplicaState, load: ObservedLoad | None) -> dict[str, Any]:
    return engine_columns(state, services.registry.current, services.calibration, load)


def _report(report: EngineReport, *, is_current: bool) -> dict[str, Any]:
    names = [name for name in EngineReportOut.model_fields if name not in ("is_current", "labels")]
    facts = {name: getattr(report, name, getattr(report.resolved, name, None)) for name in names}
    return facts | {
        "provenance": report.provenance.value,
        "is_current": is_current,
        "labels": dict(report.resolved.labels),
    }


def _moment(moment: datetime | None, name: str) -> datetime | None:
    if moment is None:
        return None
    try:
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidRequest(f"'{name}' lies outside the years 1 to 9999", param=name) from error
    raise InvalidRequest(f"'{name}' names no moment without its offset: write e.g. 2026-11-28T09:00:00Z", param=name)


def _span_of_run(
    run: str, own: OwnCalls | None, begin: datetime | None, end: datetime | None
) -> tuple[datetime | None, datetime | None]:
    if own is None:
        if begin is None or end is None:
            raise InvalidRequest("The run has too many calls to find its time here: give 'since' and 'until'.")
        return begin, end
    if own.first is None:
        raise NotFound(f"No call of a run '{run[:128]}' is known here.", param="run")
    return own.first, own.last


def _own_calls(own: OwnCalls | None, state: ReplicaState) -> dict[str, Any]:
    if own is None:
        return {"n": None, "most_at_once": None, "reason": "there are too many calls to count them here"}
    n, most = own.by_replica.get(state.replica.id, (0, 0))
    return {"n": n, "most_at_once": most, "reason": None}
