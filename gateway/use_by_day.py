"""What was used, summed up by day while calls are written: their table, and the statements that keep it true.

The sums change in the transaction that writes the calls they are made of, by the difference between what a call says
now and what it said before. So however often a call is written, it counts once, and reading a month costs a few rows
a key instead of all of its calls. Who may read what is the `api`'s question, limits are `limits`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeDecorator, TypeEngine

from gateway.domain.records import CallStatus
from gateway.tables import OPEN, Money, calls, cost_of, interrupted_columns, metadata

_DIGITS = 60
_FAILED = frozenset({CallStatus.ERROR.value, CallStatus.TRUNCATED.value, CallStatus.INTERRUPTED.value})
_UNKNOWN = "unknown"
"""The basis of a cost that is not known."""
Place = tuple[date, str, str, str, str, str, str]
"""Values of the table's key: what calls have in common that are summed up together."""
Sums = list[int | Decimal]
"""Values of the table's other columns, in their order."""


class Total(TypeDecorator[int]):
    """A sum of whole numbers, however large: NUMERIC, or text on SQLite. Added up in Python."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(sa.Numeric() if dialect.name == "postgresql" else sa.Text())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return Decimal(value) if dialect.name == "postgresql" else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


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
_KEY = tuple(use_by_day.primary_key.columns)
_SUMS = tuple(column for column in use_by_day.columns if not column.primary_key)
_NAMES = tuple(column.name for column in (*_KEY, *_SUMS))
COUNTED = tuple(
    calls.c[name]
    for name in (
        "id",
        "started_at",
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
_AT_PLACES = sa.select(use_by_day).where(sa.tuple_(*_KEY).in_(sa.bindparam("places", expanding=True)))


def _upsert(insert: sqlite.Insert | postgresql.Insert) -> sa.Insert:
    replaced = {column.name: insert.excluded[column.name] for column in _SUMS}
    upsert: sa.Insert = insert.on_conflict_do_update(index_elements=list(_KEY), set_=replaced)
    return upsert


_UPSERTS = {kind: _upsert(of.insert(use_by_day)) for kind, of in (("sqlite", sqlite), ("postgresql", postgresql))}


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
        self._shares: dict[Place, list[Sums]] = {}

    def add(self, row: Mapping[Any, Any]) -> None:
        """Count a call that has ended."""
        self._shares.setdefault(place_of(row), []).append(share_of(row))

    def take_back(self, row: Mapping[Any, Any]) -> None:
        """No longer count what a call said before."""
        with localcontext(prec=_DIGITS):
            self._shares.setdefault(place_of(row), []).append([-each for each in share_of(row)])

    async def write(self, connection: AsyncConnection) -> None:
        """Take over into the table. One at a time: nobody else writes calls."""
        if not self._shares:
            return
        for row in await connection.execute(_AT_PLACES, {"places": list(self._shares)}):
            place, present = row[: len(_KEY)], row[len(_KEY) :]
            self._shares[tuple(place)].append(list(present))
        rows = []
        with localcontext(prec=_DIGITS):
            for place, shares in self._shares.items():
                sums = [sum(column) for column in zip(*shares, strict=True)]
                rows.append(dict(zip(_NAMES, (*place, *sums), strict=True)))
        await connection.execute(_UPSERTS[connection.dialect.name], rows)


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
    statement = sa.select(use_by_day).where(use_by_day.c.day == day).order_by(*_KEY)
    for name, value in wanted.items():
        if value is not None:
            statement = statement.where(use_by_day.c[name] == value)
    rows = (await connection.execute(statement)).mappings()
    return [_usage_row(row) for row in rows if row["calls"]]


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


def _usage_row(row: Mapping[Any, Any]) -> UsageRow:
    facts = dict(row)
    for name in ("organisation", "key", "provenance", "currency", "cost_basis"):
        facts[name] = facts[name] or None
    if facts["cost_basis"] in (None, _UNKNOWN):
        facts["cost"] = None
    facts["estimated_cost"] = facts["estimated_cost"] or None
    return UsageRow(**facts)
