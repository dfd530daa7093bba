"""Everything that is kept, behind one door: every SQL statement, for SQLite or PostgreSQL by URL.

Callers make ids and moments; the store inserts them as they are. What a caller may retry is raised as
`Unavailable`, a row that the database will never take as `RowRefused`. Queues, retries and the spool belong in
`recorder`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.database import (
    FileLock,
    connect,
    database_url,
    first_line,
    lock_of,
    migrate,
    refusing_to_start,
    sqlite_path,
)
from gateway.database import upgrade as upgrade
from gateway.domain.records import Call, CallOpened
from gateway.errors import Unavailable
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
    """The open database. One gateway per SQLite file; `close` it when done."""

    def __init__(self, engine: AsyncEngine, path: Path | None, lock: FileLock | None) -> None:
        self._engine = engine
        self._path = path
        self._lock = lock
        self._inode = path.stat().st_ino if path else None
        insert = (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(calls)
        ignoring = insert.on_conflict_do_nothing(index_elements=["id"])
        replaced = {column.name: insert.excluded[column.name] for column in calls.columns if not column.primary_key}
        replacing = insert.on_conflict_do_update(index_elements=["id"], set_=replaced)
        self._insert_opened = _Bulk(ignoring, OPENED_COLUMNS, engine.dialect)
        self._upsert_call = _Bulk(replacing, CALL_COLUMNS, engine.dialect)

    @classmethod
    async def open(cls, text: str, *, busy_timeout_s: float = 5.0) -> Self:
        """Open the database at a URL and bring a SQLite file's schema up to date.

        Raises StartRefused when another gateway holds the file, when the schema is newer than this code, when a
        PostgreSQL schema is older (`simsa db upgrade` is a step of its own there), or when nothing can be opened.
        `busy_timeout_s` is how long one statement waits for another connection's lock.
        """
        url = database_url(text)
        lock = lock_of(url)
        try:
            with refusing_to_start(url):
                engine = connect(url, busy_timeout_s)
                try:
                    await migrate(engine, may_upgrade=engine.dialect.name == "sqlite")
                    return cls(engine, sqlite_path(url), lock)
                except BaseException:
                    await engine.dispose()
                    raise
        except BaseException:
            if lock:
                lock.release()
            raise

    async def close(self) -> None:
        await self._engine.dispose()
        if self._lock:
            self._lock.release()

    def make_durable(self) -> None:
        """Put what was committed on the disk, which synchronous=NORMAL leaves to SQLite's checkpoints.

        Blocks: not on the event loop. Touches only the write-ahead log: closing a descriptor of the database file
        itself would drop SQLite's own locks on it. PostgreSQL does this at each commit.
        """
        if self._path is None:
            return
        try:
            fd = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # a checkpoint has moved everything into the database file and synced that
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, with foreign errors translated: Unavailable may be retried, RowRefused not."""
        await self._look_for_file()
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (IntegrityError, DataError, OverflowError, ValueError) as error:
            raise RowRefused(first_line(error)) from error
        except DBAPIError as error:
            # On SQLite a value of a type that cannot be bound; on PostgreSQL a missing table, which can be mended.
            refused = isinstance(error, ProgrammingError) and self._engine.dialect.name == "sqlite"
            raise (RowRefused(first_line(error)) if refused else self._unavailable(first_line(error))) from error
        except StatementError as error:
            raise RowRefused(first_line(error)) from error
        except (SQLAlchemyError, OSError) as error:
            raise self._unavailable(first_line(error)) from error

    async def _look_for_file(self) -> None:
        """Notice that the SQLite file was removed or replaced, which open connections would never tell us."""
        if self._path is None:
            return
        try:
            inode = self._path.stat().st_ino
        except OSError as error:
            raise self._unavailable("the file is gone; put it back, or restart to begin a new one") from error
        if inode != self._inode:
            await self._engine.dispose()
            self._inode = inode

    def _unavailable(self, why: str) -> Unavailable:
        message = f"database {self._engine.url.render_as_string(hide_password=True)}: {why}"
        return Unavailable(message, code="database_unavailable", retry_after_s=1)

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction for the statements of a subject with a module of its own, errors translated as here."""
        return self._transaction()

    # --- calls ----------------------------------------------------------------------------------------------

    async def upsert_calls(self, records: Sequence[Call | CallOpened]) -> None:
        """Write calls in one transaction, any number of times, in any order: the same rows result.

        CallOpened makes an open row and never touches one that exists; Call replaces whatever is there.
        """
        opened = [record for record in records if type(record) is CallOpened]
        ended = [record for record in records if type(record) is Call]
        async with self._transaction() as connection:
            for starts in slices(opened, ROWS_AT_ONCE):
                await self._insert_opened.execute(connection, [opened_row(record) for record in starts])
            for ends in slices(ended, ROWS_AT_ONCE):
                await self._upsert_call.execute(connection, [call_row(record) for record in ends])

    async def list_open_ids(self) -> list[str]:
        """Ids of calls that have not ended. Before the first call of a new process: those its predecessor left."""
        async with self._transaction() as connection:
            rows = await connection.execute(sa.select(calls.c.id).where(calls.c.status == OPEN))
            return list(rows.scalars())

    async def mark_interrupted(self, ids: Sequence[str], ended_at: datetime) -> int:
        """Turn open calls among `ids` into interrupted ones; finished calls stay as they are. How many turned."""
        turned = 0
        async with self._transaction() as connection:
            for some in slices(ids, IDS_AT_ONCE):
                statement = sa.update(calls).where(calls.c.id.in_(some), calls.c.status == OPEN)
                result = await connection.execute(statement.values(interrupted_columns(ended_at)))
                turned += result.rowcount
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
        row = {c.name: getattr(comparison, c.name) for c in comparisons.columns}
        content = {
            "comparison_id": comparison.id,
            "messages": comparison.messages,
            "outputs": [side.output for side in comparison.sides],
        }
        async with self._transaction() as connection:
            await connection.execute(sa.insert(comparisons).values(row))
            if comparison.messages is not None:
                await connection.execute(sa.insert(comparison_contents).values(content))
            if comparison.sides:
                await connection.execute(sa.insert(comparison_sides), _side_rows(comparison))

    async def get_comparisons(self, ids: Sequence[str]) -> dict[str, Comparison]:
        """Those of `ids` that exist, by id."""
        async with self._transaction() as connection:
            found = await _load(connection, _comparisons().where(comparisons.c.id.in_(ids)))
        return {comparison.id: comparison for comparison in found}

    async def get_comparison(self, comparison_id: str) -> Comparison | None:
        async with self._transaction() as connection:
            found = await _load(connection, _comparisons().where(comparisons.c.id == comparison_id))
        return found[0] if found else None

    async def list_comparisons(self, limit: int = 100, before: str | None = None) -> list[Comparison]:
        """Newest first. `before` is the last id of the page before."""
        statement = _comparisons().order_by(comparisons.c.created_at.desc(), comparisons.c.id.desc())
        if before is not None:
            statement = statement.where(_is_older(comparisons, comparisons.c.created_at, before))
        async with self._transaction() as connection:
            return await _load(connection, statement.limit(limit))

    async def iter_comparisons(self, *, page: int = 100) -> AsyncIterator[Comparison]:
        """Every comparison, newest first, `page` at a time in memory and no transaction held between pages."""
        before: str | None = None
        while found := await self.list_comparisons(page, before):
            for comparison in found:
                yield comparison
            before = found[-1].id


# --- statements ---------------------------------------------------------------------------------------------


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


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
            "finish_reason": side.finish_reason,
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
