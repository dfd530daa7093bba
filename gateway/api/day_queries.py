"""What routes that answer by days of UTC are asked with: the span, whose records, and as JSON or a table.

What is summed up over the days belongs to the routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from fastapi import Query, Response

from gateway.domain.accounts import Caller
from gateway.errors import InvalidRequest, PermissionDenied
from gateway.spreadsheet import BOM, table_rows

MAX_DAYS = 400
Since = Annotated[date | None, Query(description="First day of UTC; by default the month's.")]
Until = Annotated[date | None, Query(description="Last day of UTC, included; by default today.")]
OfOrganisation = Annotated[str | None, Query(description="Only this one's.")]
OfModel = Annotated[str | None, Query(description="Only this model's.")]
Format = Annotated[Literal["json", "csv"], Query(description="csv: a table for spreadsheets.")]
AS_TABLE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
"""For OpenAPI: the answer may be a table."""


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


def as_table(name: str, first: date, last: date, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
    """A file of rows for spreadsheets, named by what it holds and its days."""
    headers = {"content-disposition": f'attachment; filename="{name}-{first}-{last}.csv"'}
    body = BOM + table_rows([columns, *rows])
    return Response(body, media_type="text/csv; charset=utf-8", headers=headers)
