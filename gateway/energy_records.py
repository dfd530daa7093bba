"""What GPUs' energy counters showed, by replica and minute of UTC, in the database: table and statements.

A row belongs to one who read, a process until its clock is set back, which alone writes it and writes it whole: writing
it again changes nothing. One gateway has a database at a time, so rows of several who read followed each other, and add
up. Collecting what to write is `energy_watch`'s part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gateway.domain.energy import SUMMED, Metered
from gateway.domain.records import Provenance
from gateway.store import Store
from gateway.tables import Moment, metadata

_KIND = ("replica", "model", "provenance")

energy_minutes = sa.Table(
    "energy_minutes",
    metadata,
    *(sa.Column(name, sa.Text, primary_key=True) for name in _KIND),
    sa.Column("minute_at", Moment, primary_key=True),
    sa.Column("seen_by", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, nullable=False, index=True),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in SUMMED),
    sa.Column("reason", sa.Text),
)


@dataclass(frozen=True, slots=True)
class EnergyRow:
    """What one process saw of one replica's counters in one minute."""

    replica: str
    model: str
    provenance: Provenance
    minute_at: datetime
    seen_by: str
    metered: Metered


@dataclass(frozen=True, slots=True)
class EnergySum:
    """A replica's energy on one day of UTC."""

    day: date
    replica: str
    model: str
    provenance: str
    metered: Metered


class EnergyRecords:
    """Energy as it is stored. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._transaction = store.transaction

    async def save(self, rows: Sequence[EnergyRow]) -> None:
        """Write them in one transaction, any number of times: the same rows result."""
        if not rows:
            return
        async with self._transaction() as connection:
            await connection.execute(_UPSERT[connection.dialect.name], [_columns(row) for row in rows])

    async def sums(self, first: date, last: date, *, model: str | None = None) -> list[EnergySum]:
        """What was read on these days, a row a day, replica, model and provenance."""
        table = energy_minutes.c
        of_kind = (table.day, *(table[name] for name in _KIND))
        reason = sa.func.max(table.reason).label("reason")
        statement = (
            sa.select(*of_kind, *(sa.func.sum(table[name]).label(name) for name in SUMMED), reason)
            .where(table.day >= first, table.day <= last)
            .group_by(*of_kind)
            .order_by(*of_kind)
        )
        if model is not None:
            statement = statement.where(table.model == model)
        async with self._transaction() as connection:
            return [_sum(row) for row in (await connection.execute(statement)).mappings()]


def _upsert(insert: sqlite.Insert | postgresql.Insert) -> sa.Insert:
    key = [column.name for column in energy_minutes.primary_key.columns]
    replaced = {name: insert.excluded[name] for name in (*SUMMED, "reason")}
    upsert: sa.Insert = insert.on_conflict_do_update(index_elements=key, set_=replaced)
    return upsert


_UPSERT = {kind: _upsert(of.insert(energy_minutes)) for kind, of in (("sqlite", sqlite), ("postgresql", postgresql))}


def _columns(row: EnergyRow) -> dict[str, Any]:
    facts = {"replica": row.replica, "model": row.model, "provenance": row.provenance.value, "seen_by": row.seen_by}
    figures = {name: getattr(row.metered, name) for name in (*SUMMED, "reason")}
    return {**facts, "minute_at": row.minute_at, "day": row.minute_at.date(), **figures}


def _sum(row: Any) -> EnergySum:
    found = Metered(**{name: int(row[name]) for name in SUMMED}, reason=row["reason"])
    return EnergySum(row["day"], row["replica"], row["model"], row["provenance"], found)
