"""Everything that is kept, behind one door: every SQL statement, for SQLite or PostgreSQL by URL.

Callers make ids and moments; the store inserts them as they are. What a caller may retry is raised as
`Unavailable`, a row that the database will never take as `RowRefused`. Queues, retries and the spool belong in
`recorder`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.database import Database, first_line, open_database, open_for_reading
from gateway.database import upgrade as upgrade
from gateway.domain.records import Call, CallOpened
from gateway.errors import DatabaseUnavailable
from gateway.postgresql import ALIVE, LIVING, SUMS_LOCK
from gateway.settings import DatabaseLimits
from gateway.settled_shares import Reopening, open_since
from gateway.tables import (
    CALL_COLUMNS,
    OPEN,
    OPENED_COLUMNS,
    call_from_row,
    call_row,
    calls,
    comparison_contents,
    comparison_sides,
    comparisons,
    interrupted_columns,
    opened_row,
)
from gateway.use_by_day import Change, add_interrupted, forget_ended

ROWS_AT_ONCE = 100
"""Rows handed over before the event loop gets its turn: about a millisecond of converting."""
IDS_AT_ONCE = 500


T = TypeVar("T")


class RowRefused(Exception):
    """The database will not take these values now or later; a retry is no use."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a stored comparison. `output` is None where nothing came or the texts were removed."""

    model: str
    status: str
    call_id: str | None
    finish_reason: str | None
    error: Any
    facts: Any
    """usage, timing, cost, feasibility, provenance: any JSON-able mapping; Decimals are kept as strings."""
    output: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt and what each side made of it. `messages` is None once the texts were removed."""

    id: str
    created_at: datetime
    schedule: str
    params: Any
    messages: Any
    sides: tuple[Side, ...]
    timing_comparable: bool | None = None
    timing_reason: str | None = None
    summary: Any = None
    organisation: str | None = None
    """Whose it is; None: the operator's own."""
    batch_id: str | None = None
    """The batch that it was made for, where it was."""
    batch_item: int | None = None
    """The number of that batch's item. The item names the comparison that counts: it may have been asked again."""


class _Bulk:
    """An insert of many calls, compiled once, that hands the driver plain tuples.

    The statement is the one that SQLAlchemy would send each time, at about half the time on the event loop.
    """

    def __init__(self, statement: sa.Insert, columns: Sequence[str], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(columns))
        self._sql = str(compiled)
        self._pick = itemgetter(*(compiled.positiontup or ()))
        converters = {name: calls.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in columns}
        self._converters = [(name, convert) for name, convert in converters.items() if convert is not None]

    async def execute(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            for name, convert in self._converters:
                row[name] = convert(row[name])
        await connection.exec_driver_sql(self._sql, [self._pick(row) for row in rows])


class Store:
    """The open database. One gateway per database; `close` it when done."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engine = database.engine
        self._call_writing = asyncio.Lock()
        dialect = self._engine.dialect
        insert = (sqlite if dialect.name == "sqlite" else postgresql).insert(calls)
        ignoring = insert.on_conflict_do_nothing(index_elements=["id"])
        replaced = {column.name: insert.excluded[column.name] for column in calls.columns if not column.primary_key}
        replacing = insert.on_conflict_do_update(index_elements=["id"], set_=replaced)
        self._insert_opened = _Bulk(ignoring, OPENED_COLUMNS, dialect)
        self._upsert_call = _Bulk(replacing, CALL_COLUMNS, dialect)

    @classmethod
    async def open(cls, text: str, limits: DatabaseLimits = DatabaseLimits()) -> Self:  # noqa: B008 - it is frozen
        """The store at a URL. Raises StartRefused; see `open_database`."""
        return cls(await open_database(text, limits))

    @classmethod
    async def open_for_reading(cls, text: str, limits: DatabaseLimits = DatabaseLimits()) -> Self:  # noqa: B008 - frozen
        """The store at a URL, beside its gateway and without writing. Raises StartRefused; see `open_for_reading`."""
        return cls(await open_for_reading(text, limits))

    async def close(self) -> None:
        await self._database.close()

    def make_durable(self) -> None:
        """Put what was committed on the disk. Blocks: not on the event loop."""
        self._database.make_durable()

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction for statements that stand in a module of their own, e.g. `accounts`. See `_transaction`."""
        return self._transaction()

    @asynccontextmanager
    async def writing_calls(self) -> AsyncIterator[AsyncConnection]:
        """A transaction for whoever writes calls and the sums made of them, which are read, added to and written back:
        one at a time, of all gateways. See `_transaction`."""
        async with self._call_writing, self._transaction() as connection:
            if self._database.number is not None:
                await connection.exec_driver_sql("SELECT pg_advisory_xact_lock({}, {})".format(*SUMS_LOCK))
            yield connection

    @property
    def number(self) -> int | None:
        """By which other gateways know this one; None where there is one."""
        return self._database.number

    async def living(self) -> frozenset[int]:
        """The numbers of the gateways that serve the database together."""
        async with self._transaction() as connection:
            return frozenset((await connection.execute(sa.text(LIVING).bindparams(alive=ALIVE))).scalars())

    async def has_duty(self) -> bool:
        """Whether this gateway, of those that serve the database, does what only one may do. Raises Unavailable."""
        try:
            await self._database.check()
            return await self._database.take_duty()
        except (OSError, SQLAlchemyError) as error:
            raise self._unavailable(error) from error

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, with foreign errors translated: Unavailable may be retried, RowRefused not."""
        try:
            await self._database.check()
            async with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            if self._database.refuses(error):
                raise RowRefused(first_line(error)) from error
            raise self._unavailable(error) from error
        except (StatementError, OverflowError, ValueError) as error:
            raise RowRefused(first_line(error)) from error
        except (SQLAlchemyError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> DatabaseUnavailable:
        self._database.doubt()
        url = self._engine.url.set(drivername=self._engine.dialect.name)
        return DatabaseUnavailable(f"database {url.render_as_string(hide_password=True)}: {first_line(error)}")

    # --- calls ----------------------------------------------------------------------------------------------

    async def upsert_calls(self, records: Sequence[Call | CallOpened], *, are_left: bool = False) -> list[str]:
        """Write calls in one transaction, any number of times, in any order: the same rows result, and the same sums.

        CallOpened makes an open row and never touches one that exists; Call replaces whatever is there. `are_left`:
        they are an earlier process's, so that nobody is there to end them. Returns the ids of those that had ended
        already.
        """
        had_ended: list[str] = []
        number = None if are_left else self._database.number
        opened = [record for record in records if type(record) is CallOpened]
        ended = list({record.opened.id: record for record in records if type(record) is Call}.values())
        change = Change()
        async with self.writing_calls() as connection:
            reopening = Reopening(await open_since(connection))
            for some in slices(ended, IDS_AT_ONCE):
                for before in await forget_ended(connection, [record.opened.id for record in some], change):
                    reopening.replace(before)
                    had_ended.append(before["id"])
            for starts in slices(opened, ROWS_AT_ONCE):
                rows = [{**opened_row(record), "gateway": number} for record in starts]
                await self._insert_opened.execute(connection, rows)
            for ends in slices(ended, ROWS_AT_ONCE):
                rows = [call_row(record) for record in ends]
                for row in rows:
                    reopening.write_down(row)
                    change.add(row)
                await self._upsert_call.execute(connection, rows)
            await change.write(connection)
            await reopening.write(connection)
        return had_ended

    async def list_orphans(self, spare: Collection[int] = ()) -> list[str]:
        """Ids of calls that have not ended and will not: those of gateways that are gone, and not to be spared.

        Of the one gateway of a database: all that have not ended, before its own first call.
        """
        statement = sa.select(calls.c.id).where(calls.c.status == OPEN)
        if self._database.number is not None:
            living = sa.text(LIVING).bindparams(alive=ALIVE).columns(sa.column("number", sa.BigInteger)).subquery()
            is_known = sa.exists().where(living.c.number == calls.c.gateway)
            is_spared = calls.c.gateway.in_(spare)
            statement = statement.where(sa.or_(calls.c.gateway.is_(None), ~(is_known | is_spared)))
        async with self._transaction() as connection:
            return list((await connection.execute(statement)).scalars())

    async def mark_interrupted(self, ids: Sequence[str], ended_at: datetime) -> int:
        """Turn open calls among `ids` into interrupted ones; finished calls stay as they are. How many turned."""
        turned = 0
        change = Change()
        async with self.writing_calls() as connection:
            for some in slices(ids, IDS_AT_ONCE):
                await add_interrupted(connection, some, change)
                statement = sa.update(calls).where(calls.c.id.in_(some), calls.c.status == OPEN)
                result = await connection.execute(statement.values(interrupted_columns(ended_at)))
                turned += result.rowcount
            await change.write(connection)
        return turned

    async def get_call(self, call_id: str) -> Call | CallOpened | None:
        """The call, CallOpened while it has not ended, None where there is none."""
        async with self._transaction() as connection:
            row = (await connection.execute(sa.select(calls).where(calls.c.id == call_id))).mappings().first()
        return None if row is None else call_from_row(dict(row))

    async def list_calls(
        self,
        *,
        limit: int = 100,
        before: str | None = None,
        model: str | None = None,
        status: str | None = None,
        comparison_id: str | None = None,
        run_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Call | CallOpened]:
        """Newest first. `before` is the last id of the page before; `since` <= started_at < `until`."""
        statement = sa.select(calls).order_by(calls.c.started_at.desc(), calls.c.id.desc()).limit(limit)
        wanted = {"model": model, "status": status, "comparison_id": comparison_id, "run_id": run_id}
        for name, value in wanted.items():
            if value is not None:
                statement = statement.where(calls.c[name] == value)
        if since is not None:
            statement = statement.where(calls.c.started_at >= since)
        if until is not None:
            statement = statement.where(calls.c.started_at < until)
        if before is not None:
            statement = statement.where(_is_older(calls, calls.c.started_at, before))
        async with self._transaction() as connection:
            return [call_from_row(dict(row)) for row in (await connection.execute(statement)).mappings()]

    # --- comparisons ----------------------------------------------------------------------------------------

    async def save_comparison(self, comparison: Comparison) -> None:
        """Keep a comparison with its texts. An id that exists already is refused (RowRefused)."""
        async with self._transaction() as connection:
            await insert_comparison(connection, comparison)

    async def get_comparisons(self, ids: Sequence[str]) -> dict[str, Comparison]:
        """Those of `ids` that exist, by id."""
        async with self._transaction() as connection:
            found = await _load(connection, _comparisons().where(comparisons.c.id.in_(ids)))
        return {comparison.id: comparison for comparison in found}

    async def get_comparison(self, comparison_id: str) -> Comparison | None:
        async with self._transaction() as connection:
            found = await _load(connection, _comparisons().where(comparisons.c.id == comparison_id))
        return found[0] if found else None

    async def list_comparisons(
        self,
        limit: int = 100,
        before: str | None = None,
        *,
        organisation: str | None = None,
        without_batches: Collection[str] = (),
    ) -> list[Comparison]:
        """Newest first. `before` is the last id of the page before; `organisation`: only its own."""
        statement = _comparisons().order_by(comparisons.c.created_at.desc(), comparisons.c.id.desc())
        if organisation is not None:
            statement = statement.where(comparisons.c.organisation == organisation)
        if without_batches:
            batch = comparisons.c.batch_id
            statement = statement.where(batch.is_(None) | batch.not_in(list(without_batches)))
        if before is not None:
            statement = statement.where(_is_older(comparisons, comparisons.c.created_at, before))
        async with self._transaction() as connection:
            return await _load(connection, statement.limit(limit))

    async def iter_comparisons(
        self, *, page: int = 100, organisation: str | None = None, without_batches: Collection[str] = ()
    ) -> AsyncIterator[Comparison]:
        """Every comparison (of an organisation), newest first, `page` at a time in memory and no transaction held
        between pages."""
        before: str | None = None
        of: dict[str, Any] = {"organisation": organisation, "without_batches": without_batches}
        while found := await self.list_comparisons(page, before, **of):
            for comparison in found:
                yield comparison
            before = found[-1].id


# --- statements ---------------------------------------------------------------------------------------------


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


async def insert_comparison(connection: AsyncConnection, comparison: Comparison) -> None:
    """Keep a comparison in a transaction that keeps more than it."""
    row = {c.name: getattr(comparison, c.name) for c in comparisons.columns}
    content = {
        "comparison_id": comparison.id,
        "messages": comparison.messages,
        "outputs": [side.output for side in comparison.sides],
    }
    await connection.execute(sa.insert(comparisons).values(row))
    if comparison.messages is not None:
        await connection.execute(sa.insert(comparison_contents).values(content))
    if comparison.sides:
        await connection.execute(sa.insert(comparison_sides), _side_rows(comparison))


def _is_older(table: sa.Table, moment: sa.Column[datetime], than: str) -> sa.ColumnElement[bool]:
    """Rows that stand after the row `than` when the newest comes first."""
    mark = sa.select(moment).where(table.c.id == than).scalar_subquery()
    return sa.or_(moment < mark, sa.and_(moment == mark, table.c.id < than))


def _comparisons() -> sa.Select[Any]:
    texts = (comparison_contents.c.messages, comparison_contents.c.outputs)
    return sa.select(comparisons, *texts).outerjoin(comparison_contents)


def _side_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "comparison_id": comparison.id,
            "position": position,
            "model": side.model,
            "call_id": side.call_id,
            "status": side.status,
            "finish_reason": side.finish_reason and side.finish_reason.replace("\0", "?"),  # an engine's own word
            "error": side.error,
            "facts": side.facts,
        }
        for position, side in enumerate(comparison.sides)
    ]


async def _load(connection: AsyncConnection, statement: sa.Select[Any]) -> list[Comparison]:
    rows = (await connection.execute(statement)).mappings().all()
    sides = sa.select(comparison_sides).order_by(comparison_sides.c.position)
    found: dict[str, list[Any]] = {row["id"]: [] for row in rows}
    for side in (await connection.execute(sides.where(comparison_sides.c.comparison_id.in_(found)))).mappings():
        found[side["comparison_id"]].append(side)
    return [_comparison(row, found[row["id"]]) for row in rows]


def _comparison(row: Any, sides: Sequence[Any]) -> Comparison:
    outputs = row["outputs"] or [None] * len(sides)
    return Comparison(
        sides=tuple(
            Side(**{name: side[name] for name in Side.__slots__ if name != "output"}, output=outputs[side["position"]])
            for side in sides
        ),
        **{name: row[name] for name in Comparison.__slots__ if name != "sides"},
    )
