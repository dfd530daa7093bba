"""Sums by day that change in the transaction which writes what they are made of, by the difference to what was before.

So however often something is written, it counts once, and reading a month costs a few rows a day. Which tables there
are, and what is added up in them, is `use_by_day`'s and `gpu_days`' subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

Place = tuple[Any, ...]
"""Values of a table's key: what is added up has them in common."""
Share = Sequence[int | Decimal]
"""Values of a table's sums, in their order."""
PLACES_AT_ONCE = 100
"""Read and written before the event loop gets its turn; their keys are well below what one statement may carry."""
_EXACT = Context(prec=60)


class SummedTable:
    """A table whose key is a place, its day first, and whose last columns are sums; others are the place's facts."""

    def __init__(self, table: sa.Table, sums: int) -> None:
        """`sums`: how many columns are sums. They are added up in Python: SQLite's own numbers are binary."""
        columns = list(table.columns)
        self.key = tuple(table.primary_key.columns)
        self.sums = columns[-sums:]
        self.names = [column.name for column in columns]
        read = sa.select(*self.key, *self.sums)
        # SQLite finds the days by the key, and looks for the places among their rows.
        of_days = read.where(self.key[0].in_(sa.bindparam("days", expanding=True)))
        self.at_places = of_days.where(sa.tuple_(*self.key).in_(sa.bindparam("places", expanding=True)))
        self.upserts = {kind: self._upsert(of.insert(table)) for kind, of in _DIALECTS}

    def _upsert(self, insert: sqlite.Insert | postgresql.Insert) -> sa.Insert:
        replaced = {column.name: insert.excluded[column.name] for column in self.sums}
        upsert: sa.Insert = insert.on_conflict_do_update(index_elements=list(self.key), set_=replaced)
        return upsert


_DIALECTS = (("sqlite", sqlite), ("postgresql", postgresql))


class DayChange:
    """How one table's sums change by what is written in one transaction."""

    def __init__(self, table: SummedTable) -> None:
        self._table = table
        self._changes: dict[Place, list[int | Decimal]] = {}
        self._facts: dict[Place, Sequence[Any]] = {}

    def add(self, place: Place, share: Share, facts: Sequence[Any] = ()) -> None:
        """Count it. `facts`: the columns between key and sums."""
        change = self._changes.get(place)
        self._changes[place] = list(share) if change is None else _added(change, share)
        self._facts[place] = facts

    def take_back(self, place: Place, share: Share, facts: Sequence[Any] = ()) -> None:
        """No longer count it."""
        self.add(place, [-each if isinstance(each, int) else each.copy_negate() for each in share], facts)

    async def write(self, connection: AsyncConnection) -> None:
        """Take over into the table. One at a time: nobody else writes what it is made of."""
        table = self._table
        places = [place for place, change in self._changes.items() if any(change)]
        for start in range(0, len(places), PLACES_AT_ONCE):
            some = places[start : start + PLACES_AT_ONCE]
            sums = {place: self._changes[place] for place in some}
            days = {place[0] for place in some}
            for row in await connection.execute(table.at_places, {"days": sorted(days), "places": some}):
                place = tuple(row[: len(table.key)])
                sums[place] = _added(sums[place], row[len(table.key) :])
            rows = [dict(zip(table.names, (*p, *self._facts[p], *sums[p]), strict=True)) for p in some]
            await connection.execute(table.upserts[connection.dialect.name], rows)
            await asyncio.sleep(0)


def _added(old: Share, new: Share) -> list[int | Decimal]:
    return [_EXACT.add(a, b) if isinstance(a, Decimal) else a + b for a, b in zip(old, new, strict=True)]
