"""Load runs over HTTP: hand one in, list, read, compare, report, and withdraw one that should not have counted.

Figures are measured and worked out by `loadtests`; here they are kept and shown. Reading is for those who oversee,
handing in for those who run the gateway, as a run speaks to claims.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from gateway.api.bodies import read_json
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, Services, require_roles
from gateway.api.refusals import refusals
from gateway.api.schemas import Asked, body_of
from gateway.asgi import read_body
from gateway.domain.accounts import OVERSEEING, Role
from gateway.errors import Conflict, InvalidRequest, NotFound, Unavailable
from gateway.load_run_checks import (
    Document,
    KeptRun,
    as_checked,
    borne_out,
    checked,
    run_ids_through_gateway,
    why_not_kept,
)
from gateway.load_runs import RunDiffers, read_document
from loadtests.cells import Run
from loadtests.differences import compare_runs
from loadtests.exports import run_json, table_csv
from loadtests.report import POLICY, render_report

router = APIRouter(prefix="/api/load-runs", tags=["load runs"], dependencies=[RequireKey, DescribeKey])
MAY_READ = require_roles(OVERSEEING)
MAY_KEEP = require_roles(frozenset({Role.OPERATOR, Role.ADMIN}))
MOST_COMPARED = 10
RECORDS_WITHIN_S = 10.0
OTHERS_TRIES, OTHERS_WAIT_S = 5, 0.5
"""How long records of other gateways are waited for: twice as long as they keep them together by default, and more."""
"""How long handing in waits for the calls of the run to be in the database."""
ReportLanguage = Literal["ko", "en"]
Table = Literal["cells", "repeats", "objectives", "timeline"]
"""Verdicts on claims are the gateway's own, in `GET /api/claims`."""


class LoadRunOut(BaseModel):
    id: str
    sha256: str = Field(description="Of the run as JSON: of the file run.json that its report has.")
    name: str
    state: str = Field(description="complete, stopped or failed.")
    model: str
    provenance: str = Field(description="Of all its answers; mixed where they differ.")
    gpu: str | None
    gpus: int | None = Field(description="Of all replicas together; null where it is not known.")
    began_at: datetime
    ended_at: datetime | None
    kept_at: datetime
    kept_by: str | None = Field(description="The key that handed it in; null is the admin key.")
    organisation: str | None
    withdrawn_at: datetime | None = Field(description="Since then the run speaks to no claim.")
    withdrawn_by: str | None
    withdrawn_why: str | None


class LoadRunDetail(LoadRunOut):
    findings: dict[str, Any] = Field(
        description="The run without its timelines. Each repeat through the gateway has the check gateway_records: "
        "whether the gateway's own records bear it out."
    )


class LoadRunList(BaseModel):
    data: list[LoadRunOut]


class LoadRunRequest(Asked):
    """A run and what its curves are drawn from, as `simsa loadtest run` left them."""

    run: dict[str, Any] = Field(description="The file run.json.")
    spreads: dict[str, dict[str, list[float]]] = Field({}, description="The file spreads.json.")


class WithdrawRequest(Asked):
    why: str = Field(min_length=1, max_length=1000, description="For those who read the run later.")


class DifferenceOut(BaseModel):
    """One figure of one cell in both runs. ratio = after / before, with Welch's 95 % interval over repeats."""

    cell: str
    door: str
    metric: str
    before: float
    after: float
    ratio: float | None
    low: float | None
    high: float | None
    repeats: tuple[int, int]
    says: str = Field(description="higher, lower, not_distinguishable, too_few_repeats, fell_to_0 or rose_from_0.")


class NotComparedOut(BaseModel):
    cell: str | None = Field(description="null: all of the two runs.")
    why: str


class DifferencesOut(BaseModel):
    before: str
    after: str
    differences: list[DifferenceOut]
    not_compared: list[NotComparedOut]


HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {}}, "description": "a page"}}
CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}, "description": "a table"}}


@router.post(
    "",
    summary="Hand in a load run",
    status_code=201,
    response_model=LoadRunOut,
    responses={200: {"model": LoadRunOut, "description": "it is kept already"}, **refusals(409, 413, 503)},
    openapi_extra=body_of(LoadRunRequest),
    dependencies=[MAY_KEEP],
)
async def keep_run(request: Request, response: Response, services: Gateway, caller: CheckedCaller) -> KeptRun:
    """It is stored before it is answered. The same run again is answered as it stands, and looked up once more; one
    that was stopped may come again after it went on; one that is complete stands. What it counts as answered through
    this gateway is looked up in the records: a repeat that they do not bear out settles no claim, nor does what went
    past the gateway."""
    raw = await read_body(request.scope, request.receive, services.settings.max_body_bytes)
    document = await asyncio.to_thread(_document, raw, datetime.now(UTC))
    if not await services.recorder.drain(RECORDS_WITHIN_S):
        raise Unavailable("Calls of the run may still be on their way into the database.", retry_after_s=5)
    findings = await _looked_up(services, document.run)
    try:
        kept, is_new = await services.load_runs.keep(document, findings, caller, datetime.now(UTC))
    except RunDiffers as error:
        raise Conflict(f"{error}.", param="run") from error
    await asyncio.to_thread(services.store.make_durable)
    response.status_code = 201 if is_new else 200
    return kept


async def _looked_up(services: Services, run: Run) -> Run:
    """The run with what the records say of it; those of other gateways may come a moment later."""
    names = run_ids_through_gateway(run)
    tries = OTHERS_TRIES if services.settings.is_one_of_several else 1
    for left in reversed(range(tries)):
        recorded = await services.load_runs.recorded(run.model, names)
        findings = await asyncio.to_thread(checked, run, recorded)
        if left and borne_out(findings) < len(names):
            await asyncio.sleep(OTHERS_WAIT_S)
        else:
            break
    return findings


@router.get(
    "", summary="Load runs, newest first", response_model=LoadRunList, responses=refusals(503), dependencies=[MAY_READ]
)
async def list_runs(
    services: Gateway,
    model: Annotated[str | None, Query(description="Only this one's.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Runs at most.")] = 100,
) -> dict[str, Any]:
    return {"data": await services.load_runs.newest(limit, model=model)}


@router.get(
    "/report",
    summary="One report of several runs, side by side",
    response_class=Response,
    responses={**HTML, **refusals(404, 503)},
    dependencies=[MAY_READ],
)
async def report_runs(
    services: Gateway,
    run: Annotated[list[str], Query(min_length=1, max_length=MOST_COMPARED, description="Ids, each once.")],
    language: Annotated[ReportLanguage, Query()] = "ko",
) -> Response:
    """As `simsa loadtest report` writes it: one page that fetches and runs nothing."""
    if len(set(run)) < len(run):
        raise InvalidRequest("'run' names a run twice", param="run")
    documents = [await _shown(services, name) for name in run]
    page = await services.long_work.run(lambda: _page([unpack() for unpack in documents], language))
    headers = {"content-security-policy": POLICY, "content-language": language}
    return Response(page, media_type="text/html; charset=utf-8", headers=headers)


@router.get(
    "/{run_id}",
    summary="What a load run showed",
    response_model=LoadRunDetail,
    responses=refusals(404, 503),
    dependencies=[MAY_READ],
)
async def get_run(run_id: str, services: Gateway) -> Response:
    kept, findings = await _found(services, run_id)
    head = LoadRunOut.model_validate(kept, from_attributes=True).model_dump(mode="json")
    whole = await asyncio.to_thread(msgspec.json.encode, {**head, "findings": findings})
    return Response(whole, media_type="application/json")


@router.get(
    "/{run_id}/run.json",
    summary="A load run whole, as it was handed in",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}, "description": "the run"}, **refusals(404, 503)},
    dependencies=[MAY_READ],
)
async def export_run(run_id: str, services: Gateway) -> Response:
    content = await _content(services, run_id)
    whole = await services.long_work.run(lambda: run_json(read_document(content).run))
    return Response(whole, media_type="application/json")


@router.get(
    "/{run_id}/tables/{name}",
    summary="One of a load run's tables as CSV",
    response_class=Response,
    responses={**CSV, **refusals(404, 503)},
    dependencies=[MAY_READ],
)
async def export_table(run_id: str, name: Table, services: Gateway) -> Response:
    """With a byte order mark for spreadsheets. Of invalid cells there are no figures in it."""
    unpack = await _shown(services, run_id)
    rows = await services.long_work.run(lambda: table_csv(unpack().run, name))
    headers = {"content-disposition": f'attachment; filename="{run_id}-{name}.csv"'}
    return Response(rows, media_type="text/csv; charset=utf-8", headers=headers)


@router.get(
    "/{run_id}/differences/{other_id}",
    summary="Two load runs compared, with what may be said of the difference",
    response_model=DifferencesOut,
    responses=refusals(404, 503),
    dependencies=[MAY_READ],
)
async def compare(run_id: str, other_id: str, services: Gateway) -> dict[str, Any]:
    """Cell by cell where both are valid and alike; the repeat is the unit. Same workload, hardware and provenance."""
    (_, before), (_, after) = await _found(services, run_id), await _found(services, other_id)
    found, refused = await services.long_work.run(lambda: compare_runs(before, after))
    differences, not_compared = [one._asdict() for one in found], [one._asdict() for one in refused]
    return {"before": run_id, "after": other_id, "differences": differences, "not_compared": not_compared}


@router.post(
    "/{run_id}/withdraw",
    summary="Take a load run out of the evidence",
    response_model=LoadRunOut,
    responses=refusals(404, 413, 503),
    openapi_extra=body_of(WithdrawRequest),
    dependencies=[MAY_KEEP],
)
async def withdraw_run(run_id: str, request: Request, services: Gateway, caller: CheckedCaller) -> KeptRun:
    """It stays to be read, with who withdrew it and why. There is no way back; a second time changes nothing."""
    asked = await read_json(request, services, WithdrawRequest)
    await _found(services, run_id)
    await services.load_runs.withdraw(run_id, caller.key, asked.why, datetime.now(UTC))
    await asyncio.to_thread(services.store.make_durable)
    return (await _found(services, run_id))[0]


# --- small parts --------------------------------------------------------------------------------------------


def _document(raw: bytes, now: datetime) -> Document:
    try:
        document = msgspec.json.decode(raw, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"This is no load run: {error}") from error
    why = why_not_kept(document, now)
    if why is not None:
        raise InvalidRequest(f"This load run cannot be kept: {why}.", param="run")
    return document


def _page(documents: Sequence[Document], language: ReportLanguage) -> bytes:
    drawn = [one for document in documents for one in document.distributions]
    return render_report([one.run for one in documents], language=language, distributions=drawn).encode()


async def _found(services: Services, run_id: str) -> tuple[KeptRun, Run]:
    found = await services.load_runs.found(run_id)
    if found is None:
        raise _unknown(run_id)
    return found


async def _shown(services: Services, run_id: str) -> Callable[[], Document]:
    """What makes the document that is shown, for a thread."""
    kept, findings = await _found(services, run_id)
    content = await _content(services, run_id)
    return lambda: as_checked(read_document(content), findings, kept)


async def _content(services: Services, run_id: str) -> bytes:
    content = await services.load_runs.document(run_id)
    if content is None:
        raise _unknown(run_id)
    return content


def _unknown(run_id: str) -> NotFound:
    return NotFound(f"There is no load run '{run_id[:128]}'. See GET /api/load-runs.")
