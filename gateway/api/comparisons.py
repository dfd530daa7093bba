"""Comparisons over HTTP: ask, list, read back, export.

A comparison is answered by a response that runs it itself, beside a watcher for the client leaving, so that nobody
computes for a reader who is gone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.access import permit_roles, permit_route
from gateway.api.bodies import read_json
from gateway.api.deps import AskedPriority, AskedRun, CheckedCaller, DescribeKey, Gateway, RequireKey, Services
from gateway.api.files import FILE, send_file
from gateway.api.refusals import refusals
from gateway.api.schemas import ComparisonOut, ComparisonPage, ComparisonRequest, body_of
from gateway.asgi import JSON
from gateway.comparison import COMPARISON_FINISHED, ROUTE, ComparisonEvent
from gateway.comparison_export import csv_head, csv_rows, json_line
from gateway.comparison_object import comparison_object
from gateway.domain.accounts import CALLING, OVERSEEING, Caller
from gateway.downstream import departure_of
from gateway.errors import NotFound, Unavailable
from gateway.rounds.life import OPERATING
from gateway.store import Comparison

router = APIRouter(prefix="/api/comparisons", tags=["comparisons"], dependencies=[RequireKey, DescribeKey])

Events = AsyncGenerator[ComparisonEvent, None]


@router.post(
    "",
    summary="Ask several models the same question",
    response_model=ComparisonOut,
    responses={
        200: {"content": {"text/event-stream": {}}},
        **refusals(404, 413, 503),
    },
    openapi_extra=body_of(ComparisonRequest),
)
async def create_comparison(
    request: Request, services: Gateway, caller: CheckedCaller, priority: AskedPriority, run: AskedRun
) -> Response:
    """Every side is an ordinary call; one that fails ends with its own error and the others go on.

    The answer is 200 also where sides failed: see `status` and `error` of each. A model that does not exist or that
    nothing can serve, or that the key may not call, fails the whole request before anything is asked. Each side counts
    as a call of the key: one that is over its limits fails alone; where none could be asked the answer is 429. With
    `stream: true` the events are
    `side.started`, `side.delta`, `side.finished` (each with `side`, the position in `models`) and
    `comparison.finished` with the whole object. Leaving ends all sides.
    """
    permit_route(caller, ROUTE)
    if services.is_draining:
        raise Unavailable("The gateway is shutting down.", code="draining", retry_after_s=2)
    asked = await read_json(request, services, ComparisonRequest)
    events = await services.comparisons.run(
        asked.question(), request.state.request_id, caller, priority, run_id=run, headers=request.scope["headers"]
    )
    return _Answer(events, _write_stream if asked.stream else _write_whole)


@router.get(
    "",
    summary="Stored comparisons, newest first",
    response_model=ComparisonPage,
    responses=refusals(404, 503),
)
async def list_comparisons(
    services: Gateway,
    caller: CheckedCaller,
    limit: Annotated[int, Query(ge=1, le=100, description="Comparisons a page.")] = 20,
    before: Annotated[str | None, Query(description="`next_before` of the page before.")] = None,
) -> dict[str, Any]:
    """An organisation's key sees its own organisation's; operators, auditors and admins see all."""
    permit_reading(caller)
    hidden = await hidden_batches(services, caller)
    if before is not None and not _is_visible(await services.store.get_comparison(before), caller, hidden):
        raise _no_comparison(before, param="before")
    found = await services.store.list_comparisons(
        limit + 1, before, organisation=caller.own_only, without_batches=hidden
    )
    page = found[:limit]
    return {
        "data": [comparison_object(comparison) for comparison in page],
        "next_before": page[-1].id if len(found) > limit else None,
    }


@router.get(
    "/export",
    summary="Every stored comparison as a file",
    response_class=StreamingResponse,
    responses={**FILE, **refusals(503)},
)
async def export_comparisons(
    services: Gateway,
    caller: CheckedCaller,
    format: Annotated[  # noqa: A002  the query's name
        Literal["jsonl", "csv"], Query(description="jsonl: one object a line. csv: one row a side, for spreadsheets.")
    ] = "jsonl",
) -> StreamingResponse:
    permit_reading(caller)
    if format == "csv":
        pieces, kind = _export(services, caller, csv_rows, csv_head()), "text/csv; charset=utf-8"
    else:
        pieces, kind = _export(services, caller, json_line), "application/x-ndjson; charset=utf-8"
    return await send_file(pieces, name=f"comparisons.{format}", kind=kind)


@router.get(
    "/{comparison_id}",
    summary="One stored comparison",
    response_model=ComparisonOut,
    responses=refusals(404, 503),
)
async def get_comparison(comparison_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    permit_reading(caller)
    found = await services.store.get_comparison(comparison_id)
    if found is None or not _is_visible(found, caller, await hidden_batches(services, caller)):
        raise _no_comparison(comparison_id)
    return comparison_object(found)


def permit_reading(caller: Caller) -> None:
    """Raise PermissionDenied for those who must not see which model said what, reviewers say, or who cannot compare."""
    permit_roles(caller, CALLING | OVERSEEING)
    if not caller.has_any(OVERSEEING):
        permit_route(caller, ROUTE)


async def hidden_batches(services: Services, caller: Caller) -> frozenset[str]:
    """Batches that are not there for the caller: the answers of rounds before the reveal are for who has them made."""
    return frozenset() if caller.has_any(OPERATING) else await services.rounds.store.hidden_batches()


def _is_visible(comparison: Comparison | None, caller: Caller, hidden: Collection[str]) -> bool:
    """Whether it is there for the caller; somebody else's is as good as none."""
    if comparison is None or comparison.batch_id in hidden:
        return False
    return caller.own_only in (None, comparison.organisation)


def _no_comparison(comparison_id: str, param: str | None = None) -> NotFound:
    return NotFound(f"There is no comparison '{comparison_id[:128]}'. See GET /api/comparisons.", param=param)


# --- answers ------------------------------------------------------------------------------------------------


class _Answer(Response):
    """Runs the comparison while it answers; the client leaving ends every side at once."""

    def __init__(self, events: Events, write: Callable[[Events, Send], Coroutine[Any, Any, None]]) -> None:
        super().__init__()
        self._events = events
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await departure_of(scope).ends(self._write(self._events, send))


async def _write_stream(events: Events, send: Send) -> None:
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with aclosing(events):
        async for name, data in events:
            body = b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))
            await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _write_whole(events: Events, send: Send) -> None:
    whole = b""
    async with aclosing(events):
        async for name, data in events:
            if name == COMPARISON_FINISHED:
                whole = msgspec.json.encode(data)
    headers = [JSON, (b"content-length", b"%d" % len(whole))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": whole})


async def _export(
    services: Services, caller: Caller, write: Callable[[dict[str, Any]], bytes], head: bytes = b""
) -> AsyncGenerator[bytes, None]:
    """The head comes with the first comparison, so that nothing is sent before the database has answered."""
    comparison: Comparison
    hidden = await hidden_batches(services, caller)
    async for comparison in services.store.iter_comparisons(organisation=caller.own_only, without_batches=hidden):
        yield head + write(comparison_object(comparison))
        head = b""
    if head:
        yield head
