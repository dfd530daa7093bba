"""What was used, by day, organisation, key and model: for organisations their own, for overseers all of it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey
from gateway.api.refusals import refusals
from gateway.api.schemas import Amount
from gateway.domain.accounts import Caller
from gateway.errors import InvalidRequest, PermissionDenied
from gateway.spreadsheet import BOM, table_rows
from gateway.use_by_day import UsageRow

router = APIRouter(prefix="/api/usage", tags=["usage"], dependencies=[RequireKey, DescribeKey])

MAX_DAYS = 400
_COLUMNS = tuple(field.name for field in fields(UsageRow))


class UsageRowOut(BaseModel):
    """One key's use of one model on one day, by the day on which calls began. One row a provenance and kind of cost."""

    day: str = Field(json_schema_extra={"format": "date"})
    organisation: str | None
    key: str | None = Field(description="Id of the key; null for the admin key or where none is asked for.")
    model: str
    provenance: str | None
    calls: int = Field(description="Calls that have ended, however they did.")
    failed_calls: int
    prompt_tokens: int = Field(description="Of the calls where somebody counted them.")
    completion_tokens: int
    cached_tokens: int
    charged_tokens: int = Field(description="What counts against token limits and budgets.")
    calls_charged_by_estimate: int = Field(description="Calls whose prompt nobody counted, charged at its estimate.")
    cost: Amount | None = Field(description="null where it is unknown.")
    currency: str | None
    cost_basis: Literal["api_price", "gpu_time", "gpu_time_provisional", "unknown"] | None
    calls_without_cost: int = Field(description="Calls whose cost is unknown; they are in no sum of money.")
    estimated_cost: Amount | None = Field(
        description="What budgets are charged with, beside `cost`, for calls of hosted APIs that nobody counted: an "
        "estimate, no bill. null where there are none."
    )


class UsageOut(BaseModel):
    since: str = Field(json_schema_extra={"format": "date"})
    until: str = Field(json_schema_extra={"format": "date"}, description="The last day, included.")
    time_zone: Literal["UTC"]
    data: list[UsageRowOut]


@router.get(
    "",
    summary="What was used by day, organisation, key and model",
    response_model=UsageOut,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
        **refusals(503),
    },
)
async def get_usage(
    services: Gateway,
    caller: CheckedCaller,
    since: Annotated[date | None, Query(description="First day of UTC; by default the month's.")] = None,
    until: Annotated[date | None, Query(description="Last day of UTC, included; by default today.")] = None,
    organisation: Annotated[str | None, Query(description="Only this one's.")] = None,
    key: Annotated[str | None, Query(description="Only this key's, by its id.")] = None,
    model: Annotated[str | None, Query(description="Only this model's.")] = None,
    format: Annotated[  # noqa: A002  the query's name
        Literal["json", "csv"], Query(description="csv: a table for spreadsheets.")
    ] = "json",
) -> Response:
    """An organisation's key sees its own organisation's use; operators, auditors and admins see everybody's."""
    first, last = span_of_days(since, until)
    used = services.accounts.usage(
        first,
        last,
        organisation=visible_organisation(caller, organisation),
        key=key,
        model=model,
    )
    rows = [row async for row in used]
    if format == "csv":
        name = f"usage-{first}-{last}.csv"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(_as_csv(rows), media_type="text/csv; charset=utf-8", headers=headers)
    body: dict[str, Any] = {"since": first, "until": last, "time_zone": "UTC", "data": rows}
    return Response(json.dumps(body, default=_plain), media_type="application/json")


def _plain(value: Any) -> Any:
    """What JSON has no form for. Sums may be larger than any integer that faster encoders write."""
    return asdict(value) if isinstance(value, UsageRow) else str(value)


def span_of_days(since: date | None, until: date | None) -> tuple[date, date]:
    """The days that are asked for; the month so far where nothing says. Raises InvalidRequest."""
    last = until or datetime.now(UTC).date()
    first = since or last.replace(day=1)
    if first > last:
        raise InvalidRequest(f"'since' ({first}) must not be after 'until' ({last})", param="since")
    if (last - first).days >= MAX_DAYS or last == date.max:
        raise InvalidRequest(f"ask for at most {MAX_DAYS} days at a time", param="since")
    return first, last


def visible_organisation(caller: Caller, asked: str | None) -> str | None:
    """Whose records are to be read; None: everybody's. Raises PermissionDenied for another's."""
    own = caller.own_only
    if own is not None and asked not in (None, own):
        raise PermissionDenied(
            f"This key belongs to '{own}' and sees its use alone.", param="organisation", code="role_required"
        )
    return own or asked


def _as_csv(rows: list[UsageRow]) -> bytes:
    cells = ([getattr(row, name) for name in _COLUMNS] for row in rows)
    return BOM + table_rows([_COLUMNS, *([_cell(value) for value in row] for row in cells)])


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, int) else str(value)
