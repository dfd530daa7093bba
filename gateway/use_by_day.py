"""What was used and spent, summed up by day while calls are written: the tables, and what a call adds to them.

`use_by_day` has a row a key and model, `spent_by_day` one a run and replica. How sums change is `day_sums`; who may
read what is the `api`'s question, limits are `limits`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.day_sums import DayChange, Place, SummedTable
from gateway.domain.records import CallStatus
from gateway.tables import OPEN, Money, Total, calls, cost_of, interrupted_columns, metadata

ROWS_AT_ONCE = 200
"""Read before the event loop gets its turn."""
_FAILED = frozenset({CallStatus.ERROR.value, CallStatus.TRUNCATED.value, CallStatus.INTERRUPTED.value})
_UNKNOWN = "unknown"
"""The basis of a cost that is not known."""
Sums = list[int | Decimal]
"""Values of a table's sums, in their order."""


use_by_day = sa.Table(
    "use_by_day",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),  # of UTC, on which the calls began
    *(
        # "" where a call has none: NULL is not equal to NULL in a key
        sa.Column(name, sa.Text, primary_key=True)
        for name in ("organisation", "key", "model", "provenance", "currency", "cost_basis")
    ),
    *(
        sa.Column(name, Total, nullable=False)
        for name in (
            "calls",
            "failed_calls",
            "prompt_tokens",
            "completion_tokens",
            "cached_tokens",
            "charged_tokens",
            "calls_charged_by_estimate",
            "calls_without_cost",
        )
    ),
    sa.Column("cost", Money, nullable=False),
    sa.Column("estimated_cost", Money, nullable=False),
)
spent_by_day = sa.Table(
    "spent_by_day",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    *(
        sa.Column(name, sa.Text, primary_key=True)
        for name in ("run_id", "replica", "organisation", "model", "provenance", "currency", "cost_basis")
    ),
    *(
        sa.Column(name, Total, nullable=False)
        for name in ("calls", "calls_without_cost", "prompt_tokens", "completion_tokens", "cached_tokens")
    ),
    sa.Column("cost", Money, nullable=False),
)
_SPENT_SUMS = tuple(column.name for column in spent_by_day.columns if not column.primary_key)
_USE = SummedTable(use_by_day, 10)
_SPENT = SummedTable(spent_by_day, 6)
COUNTED = tuple(
    calls.c[name]
    for name in (
        "id",
        "started_at",
        "run_id",
        "organisation",
        "key",
        "model",
        "provenance",
        "cost_currency",
        "cost_basis",
        "cost_reason",
        "settled_cost",
        "settled_currency",
        "status",
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
        "charged_tokens",
        "cost_amount",
        "estimated_cost",
        "prompt_estimate",
        "ended_at",
        "dispatched_at",
        "replica",
        "gpu",
        "gpus",
    )
)
"""What must be read of a call to count it, to no longer count it, and to find its windows."""
# One parameter for all ids: some hundred cost more than the answer, and each number of them is a statement of its own.
_IS_NAMED = {
    "sqlite": calls.c.id.in_(sa.select(sa.column("value")).select_from(sa.func.json_each(sa.bindparam("ids")))),
    "postgresql": calls.c.id == sa.any_(sa.bindparam("ids", type_=postgresql.ARRAY(sa.Text))),
}
_ENDED = {kind: sa.select(*COUNTED).where(named, calls.c.status != OPEN) for kind, named in _IS_NAMED.items()}
_STILL_OPEN = {kind: sa.select(*COUNTED).where(named, calls.c.status == OPEN) for kind, named in _IS_NAMED.items()}


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one key used of one model on one day of UTC, by the day on which calls began.

    One row a provenance, currency and basis of cost: figures that differ in these are not of one kind.
    """

    day: date
    organisation: str | None
    key: str | None
    """None: the admin key, or a gateway that asked for none."""
    model: str
    provenance: str | None
    calls: int
    """Calls that have ended, however they did."""
    failed_calls: int
    prompt_tokens: int
    """Of the calls that somebody counted; so are the other two."""
    completion_tokens: int
    cached_tokens: int
    charged_tokens: int
    """What counts against limits and budgets."""
    calls_charged_by_estimate: int
    """Calls with no count of their prompt that are charged for it all the same."""
    cost: Decimal | None
    """None where the basis is unknown."""
    currency: str | None
    cost_basis: str | None
    calls_without_cost: int
    """Calls that are in neither sum of money."""
    estimated_cost: Decimal | None
    """Of calls whose cost is unknown and that are charged by an estimate, beside `cost`; None where there are none."""


class Change:
    """How the sums change by what is written in one transaction."""

    def __init__(self) -> None:
        self._use = DayChange(_USE)
        self._spent = DayChange(_SPENT)

    def add(self, row: Mapping[Any, Any]) -> None:
        """Count a call that has ended."""
        place, share = place_of(row), share_of(row)
        self._use.add(place, share)
        self._spent.add(*_spent(row, place, share))

    def take_back(self, row: Mapping[Any, Any]) -> None:
        """No longer count what a call said before."""
        place, share = place_of(row), share_of(row)
        self._use.take_back(place, share)
        self._spent.take_back(*_spent(row, place, share))

    async def write(self, connection: AsyncConnection) -> None:
        """Take over into the tables. One at a time: nobody else writes calls."""
        await self._use.write(connection)
        await self._spent.write(connection)


def _named(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, Any]:
    """The parameter of the two statements above."""
    return {"ids": json.dumps(list(ids)) if connection.dialect.name == "sqlite" else ids}


async def forget_ended(connection: AsyncConnection, ids: Sequence[str], change: Change) -> list[sa.RowMapping]:
    """Take what those of `ids` that have ended already are counted with out of the sums: they are written anew.

    Returns what they said before.
    """
    rows = (await connection.execute(_ENDED[connection.dialect.name], _named(connection, ids))).mappings().all()
    for row in rows:
        change.take_back(row)
    return list(rows)


async def add_interrupted(connection: AsyncConnection, ids: Sequence[str], change: Change) -> None:
    """Count those of `ids` that are still open as what they are about to become; see `interrupted_columns`."""
    for row in (await connection.execute(_STILL_OPEN[connection.dialect.name], _named(connection, ids))).mappings():
        end = interrupted_columns(row["started_at"])
        change.add({**row, **end, "charged_tokens": row["prompt_estimate"]})


async def read_day(connection: AsyncConnection, day: date, **wanted: str | None) -> list[UsageRow]:
    """The sums of one day; `wanted`: only those with these values, where they are not None."""
    return await read_days(connection, day, day, **wanted)


async def read_days(connection: AsyncConnection, first: date, last: date, **wanted: str | None) -> list[UsageRow]:
    """The same of several days, from the first to the last."""
    of_days = use_by_day.c.day == first if first == last else use_by_day.c.day.between(first, last)
    statement = sa.select(use_by_day).where(of_days).order_by(*_USE.key)
    for name, value in wanted.items():
        if value is not None:
            statement = statement.where(use_by_day.c[name] == value)
    found: list[UsageRow] = []
    for some in (await connection.execute(statement)).mappings().partitions(ROWS_AT_ONCE):
        found += [_usage_row(row) for row in some if row["calls"]]
        await asyncio.sleep(0)
    return found


async def ended_among(connection: AsyncConnection, ids: Sequence[str]) -> frozenset[str]:
    """Those of these calls that have ended, and are in the sums."""
    if not ids:
        return frozenset()
    statement = sa.select(calls.c.id).where(_IS_NAMED[connection.dialect.name], calls.c.status != OPEN)
    return frozenset((await connection.execute(statement, _named(connection, ids))).scalars())


GROUPS = {
    "model": use_by_day.c.model,
    "organisation": use_by_day.c.organisation,
    "day": use_by_day.c.day,
    "run": spent_by_day.c.run_id,
    "replica": spent_by_day.c.replica,
}
"""What spending can be grouped by, and the column that says it."""


async def read_spent(
    connection: AsyncConnection, first: date, last: date, *, by: str, **wanted: str | None
) -> AsyncIterator[tuple[Any, ...]]:
    """A row a day and place: group, model, provenance, basis, currency, calls, calls without cost, prompt, completion
    and cached tokens, cost. "" stands for none. `wanted`: only those with these values, where they are not None.
    """
    column = GROUPS[by]
    table = column.table
    places = (column.label("in_group"), *(table.c[name] for name in ("model", "provenance", "cost_basis", "currency")))
    statement = sa.select(*places, *(table.c[name] for name in _SPENT_SUMS)).where(
        table.c.day >= first, table.c.day <= last
    )
    for name, value in wanted.items():
        if value is not None:
            statement = statement.where(table.c[name] == value)
    if by == "run":
        statement = statement.where(column != "")
    for some in (await connection.execute(statement)).partitions(ROWS_AT_ONCE):
        for row in some:
            if row[5]:
                yield tuple(row)
        await asyncio.sleep(0)


def place_of(row: Mapping[Any, Any]) -> Place:
    """Where a call's row is summed up."""
    moment: datetime = row["started_at"]
    cost = cost_of(row)
    return (
        (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).date(),
        row["organisation"] or "",
        row["key"] or "",
        row["model"],
        row["provenance"] or "",
        cost.currency or "",
        cost.basis or "",
    )


def share_of(row: Mapping[Any, Any]) -> Sums:
    """What a call's row adds to the sums."""
    prompt, charged = row["prompt_tokens"], row["charged_tokens"] or 0
    cost, estimate = cost_of(row).amount, row["estimated_cost"]
    return [
        1,
        int(row["status"] in _FAILED),
        prompt or 0,
        row["completion_tokens"] or 0,
        row["cached_tokens"] or 0,
        charged,
        int(prompt is None and charged > 0),
        int(cost is None and estimate is None),
        cost or Decimal(0),
        estimate or Decimal(0),
    ]


def _spent(row: Mapping[Any, Any], place: Place, share: Sums) -> tuple[Place, Sums]:
    """Where else, and with what, a call's row is summed up, from its place and share in the other sums."""
    day, organisation, _, model, provenance, currency, basis = place
    count, _, prompt, completion, cached, *_, cost, _ = share
    is_unknown = cost_of(row).amount is None
    at = (day, row["run_id"] or "", row["replica"] or "", organisation, model, provenance, currency, basis)
    return at, [count, int(is_unknown), prompt, completion, cached, cost]


def _usage_row(row: Mapping[Any, Any]) -> UsageRow:
    facts = dict(row)
    for name in ("organisation", "key", "provenance", "currency", "cost_basis"):
        facts[name] = facts[name] or None
    if facts["cost_basis"] in (None, _UNKNOWN):
        facts["cost"] = None
    facts["estimated_cost"] = facts["estimated_cost"] or None
    return UsageRow(**facts)
