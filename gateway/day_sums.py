"""Sums by day that change in the transaction which writes what they are made of, by the difference to what was before.

So however often something is written, it counts once, and reading a month costs a few rows a day. Which tables there
are, and what is added up in them, is `use_by_day`'s and `gpu_days`' subject.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import date
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
        # Each place by its whole key. For a list of places SQLite would read all rows, PostgreSQL all rows of what the
        # places have in common, such as a day.
        self._at_places = {kind: self._read(table, kind) for kind in ("sqlite", "postgresql")}
        self.upserts = {kind: self._upsert(of.insert(table)) for kind, of in _DIALECTS}

    def _read(self, table: sa.Table, kind: str) -> sa.Select[Any]:
        named = sa.bindparam("places", type_=sa.Text)
        if kind == "sqlite":
            place = sa.func.json_each(named).table_valued("value", name="place")
            values: list[sa.ColumnElement[Any]] = [
                sa.func.json_extract(place.c.value, f"$[{at}]") for at in range(len(self.key))
            ]
        else:
            place = sa.func.json_array_elements(sa.cast(named, sa.JSON)).table_valued("value", name="place")
            texts = (place.c.value.op("->>")(sa.literal(at, sa.Integer)) for at in range(len(self.key)))
            values = [sa.cast(text, column.type) for text, column in zip(texts, self.key, strict=True)]
        is_at = (column == value for column, value in zip(self.key, values, strict=True))
        return sa.select(*self.key, *self.sums).select_from(place.join(table, sa.and_(*is_at)))

    async def rows_at(self, connection: AsyncConnection, places: Sequence[Place]) -> Sequence[sa.Row[Any]]:
        """Key and sums of those places that have a row."""
        named = {"places": json.dumps(places, default=date.isoformat)}
        rows: Sequence[sa.Row[Any]] = (await connection.execute(self._at_places[connection.dialect.name], named)).all()
        return rows

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
            for row in await table.rows_at(connection, some):
                place = tuple(row[: len(table.key)])
                sums[place] = _added(sums[place], row[len(table.key) :])
            rows = [dict(zip(table.names, (*p, *self._facts[p], *sums[p]), strict=True)) for p in some]
            await connection.execute(table.upserts[connection.dialect.name], rows)
            await asyncio.sleep(0)


def _added(old: Share, new: Share) -> list[int | Decimal]:
    return [_EXACT.add(a, b) if isinstance(a, Decimal) else a + b for a, b in zip(old, new, strict=True)]
