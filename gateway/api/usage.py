"""What was used, by day, organisation, key and model: for organisations their own, for overseers all of it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from gateway.api.day_queries import (
    AS_TABLE,
    Format,
    OfModel,
    OfOrganisation,
    Since,
    Until,
    as_table,
    span_of_days,
    visible_organisation,
)
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey
from gateway.api.refusals import refusals
from gateway.api.schemas import Amount
from gateway.use_by_day import UsageRow

router = APIRouter(prefix="/api/usage", tags=["usage"], dependencies=[RequireKey, DescribeKey])

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
    responses={**AS_TABLE, **refusals(503)},
)
async def get_usage(
    services: Gateway,
    caller: CheckedCaller,
    since: Since = None,
    until: Until = None,
    organisation: OfOrganisation = None,
    key: Annotated[str | None, Query(description="Only this key's, by its id.")] = None,
    model: OfModel = None,
    format: Format = "json",  # noqa: A002  the query's name
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
        cells = ([_cell(getattr(row, name)) for name in _COLUMNS] for row in rows)
        return as_table("usage", first, last, _COLUMNS, cells)
    body: dict[str, Any] = {"since": first, "until": last, "time_zone": "UTC", "data": rows}
    return Response(json.dumps(body, default=_plain), media_type="application/json")


def _plain(value: Any) -> Any:
    """What JSON has no form for. Sums may be larger than any integer that faster encoders write."""
    return asdict(value) if isinstance(value, UsageRow) else str(value)


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, int) else str(value)
