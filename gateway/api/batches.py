"""Batches of comparisons over HTTP: order, watch, read what they say, export, cancel."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from gateway.access import permit_route
from gateway.api.batch_schemas import BatchList, BatchOut, BatchRequest, StatisticsOut
from gateway.api.bodies import read_json
from gateway.api.comparisons import hidden_batches, permit_reading
from gateway.api.deps import AskedPriority, CheckedCaller, DescribeKey, Gateway, RequireKey, Services
from gateway.api.files import FILE, send_file
from gateway.api.refusals import refusals
from gateway.api.schemas import body_of
from gateway.batch_report import batch_object, export_csv, export_lines, export_statistics_csv, read_statistics
from gateway.batch_store import Batch
from gateway.comparison import ROUTE
from gateway.domain.accounts import Caller
from gateway.errors import NotFound, Unavailable

router = APIRouter(prefix="/api/comparisons/batches", tags=["comparisons"], dependencies=[RequireKey, DescribeKey])

_EXPORTS = {
    "jsonl": (export_lines, "application/x-ndjson; charset=utf-8", "jsonl"),
    "csv": (export_csv, "text/csv; charset=utf-8", "csv"),
    "statistics_csv": (export_statistics_csv, "text/csv; charset=utf-8", "statistics.csv"),
}


@router.post(
    "",
    summary="Ask a set of prompts of several models, in the background",
    status_code=201,
    response_model=BatchOut,
    responses={
        200: {"model": BatchOut, "description": "it exists, and goes on"},
        **refusals(404, 409, 413, 503),
    },
    openapi_extra=body_of(BatchRequest),
)
async def create_batch(
    request: Request, response: Response, services: Gateway, caller: CheckedCaller, priority: AskedPriority
) -> Any:
    """Every prompt is one comparison, asked after the one before it; a restart goes on where it was.

    The same `name` with the same content is the same batch: it is answered with 200 and, where it is over, resumed.
    What cannot be asked at all (an unknown model, a parameter that one of them refuses) fails the whole. The order is
    one request of this key. What is asked counts as its calls, in the class of batches or a lower one that
    `x-simsa-priority` names. Nothing is asked of any model while one of them is away or the key's minute does not take
    all sides: `waiting_for` says so. Over a budget, with limits that could never take a comparison, or when the key
    ends, the batch is cancelled with the reason, and may be resumed.
    """
    permit_route(caller, ROUTE)
    if services.is_draining:
        raise Unavailable("The gateway is shutting down.", code="draining", retry_after_s=2)
    asked = await read_json(request, services, BatchRequest)
    await services.dispatcher.limiter.count_request(caller)
    batch, is_new = await services.batches.create(await asyncio.to_thread(asked.order), caller, priority)
    response.status_code = 201 if is_new else 200
    return await _shown(services, batch)


@router.get("", summary="Batches, newest first", response_model=BatchList, responses=refusals(503))
async def list_batches(
    services: Gateway,
    caller: CheckedCaller,
    limit: Annotated[int, Query(ge=1, le=100, description="Batches at most.")] = 20,
) -> dict[str, Any]:
    """An organisation's key sees its own organisation's; operators, auditors and admins see all."""
    permit_reading(caller)
    hidden = await hidden_batches(services, caller)
    found = await services.batches.store.newest(limit, organisation=caller.own_only, without=hidden)
    return {"data": [await _shown(services, batch) for batch in found]}


@router.get("/{batch_id}", summary="How far a batch is", response_model=BatchOut, responses=refusals(404, 503))
async def get_batch(batch_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    return await _shown(services, await _found(services, batch_id, caller))


@router.get(
    "/{batch_id}/statistics",
    summary="What a batch says: figures per model, differences per pair",
    response_model=StatisticsOut,
    responses=refusals(404, 503),
)
async def get_statistics(batch_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Of what is done by now. Every n counts prompts; repeats of one prompt enter by their median.

    Timings enter only from comparisons whose timings are comparable; what is left out is counted by its reason.
    """
    batch = await _found(services, batch_id, caller)
    statistics = await read_statistics(batch, services.store)
    return {"batch": await _shown(services, batch), **statistics}


@router.get(
    "/{batch_id}/export",
    summary="A batch as a file",
    response_class=StreamingResponse,
    responses={**FILE, **refusals(404, 503)},
)
async def export_batch(
    batch_id: str,
    services: Gateway,
    caller: CheckedCaller,
    format: Annotated[  # noqa: A002  the query's name
        Literal["jsonl", "csv", "statistics_csv"],
        Query(description="jsonl: everything, the statistics last. csv: one row a side. statistics_csv: the figures."),
    ] = "jsonl",
) -> StreamingResponse:
    batch = await _found(services, batch_id, caller)
    write, kind, suffix = _EXPORTS[format]
    pieces = write(batch, services.batches.store, services.store)
    return await send_file(pieces, name=f"batch-{batch.id}.{suffix}", kind=kind)


@router.post(
    "/{batch_id}/resume",
    summary="Take a batch that is over up again",
    response_model=BatchOut,
    responses=refusals(404, 503),
)
async def resume_batch(batch_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """What is pending is asked, and once more what failed by something that passes: an engine away or busy, a limit.

    It goes on with the rights and limits of this key; where the operator resumes an organisation's, with those of the
    batch's own while that is in force. One that runs, or has nothing to go on with, is answered as it is. After a
    restart of the gateway batches go on by themselves.
    """
    permit_route(caller, ROUTE)
    batch = await _found(services, batch_id, caller)
    return await _shown(services, await services.batches.resume(batch, caller))


@router.delete("/{batch_id}", summary="Cancel a batch", response_model=BatchOut, responses=refusals(404, 503))
async def cancel_batch(batch_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Nothing more is asked; the comparison under way ends. What is stored stays, and can be read and exported."""
    permit_route(caller, ROUTE)
    batch = await _found(services, batch_id, caller)
    return await _shown(services, await services.batches.cancel(batch))


async def _found(services: Services, batch_id: str, caller: Caller) -> Batch:
    """Somebody else's is as good as none."""
    permit_reading(caller)
    batch = await services.batches.store.get(batch_id)
    is_theirs = batch is not None and caller.own_only in (None, batch.organisation)
    if batch is None or not is_theirs or batch.id in await hidden_batches(services, caller):
        raise NotFound(f"There is no batch '{batch_id[:128]}'. See GET /api/comparisons/batches.")
    return batch


async def _shown(services: Services, batch: Batch) -> dict[str, Any]:
    progress = await services.batches.store.progress(batch.id)
    return batch_object(batch, progress, services.batches.waiting_for(batch.id))
