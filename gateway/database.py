"""Opening a database by its URL, and bringing its schema from one step to the next.

Nothing here reads or writes a row; that is `store`. What the two kinds of database do each in their own way is in
`sqlite` and `postgresql`; the steps themselves are in `migrations/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.errors import StartRefused
from gateway.postgresql import PostgresqlDatabase, PostgresqlForReading
from gateway.schema_steps import MAY_RUN, Fit, Schema, fit_of, left_behind, read_schema, step_up, steps
from gateway.schema_steps import migrations as migrations
from gateway.settings import DatabaseLimits
from gateway.sqlite import SqliteDatabase, SqliteForReading


class Database(Protocol):
    """An engine, and what this kind of database needs beside it. `close` it when done."""

    engine: AsyncEngine
    upgrades_at_start: bool
    """A gateway may bring the schema up to date when it starts; else that is `simsa db upgrade`'s."""

    number: int | None
    """By which the gateways of a database know each other; None where there is one."""

    async def hold(self) -> None:
        """Become the gateway of this database, or one of them. Raises StartRefused where it has one alone."""

    async def take_duty(self) -> bool:
        """Whether this gateway does what only one may do; asked again and again. Raises OSError."""

    def begin_migration(self, connection: Connection) -> None:
        """Begin a transaction in which nobody else changes the schema, and no gateway has the database to itself."""

    def shut_out(self, connection: Connection, codes: Collection[str]) -> None:
        """Until this transaction ends no gateway with code of these revisions goes to work; none may be at it."""

    def begin_alone(self, connection: Connection) -> None:
        """Begin a transaction in which nobody else changes the schema, and no gateway has the database at all."""

    def begin_reading(self, connection: Connection) -> None:
        """Begin a transaction that sees the database at one moment, whoever writes meanwhile."""

    async def check(self) -> None:
        """Before each transaction: still ours, still there? Raises OSError with the reason where it is not."""

    def doubt(self) -> None:
        """A transaction failed for a reason that may concern the hold."""

    def refuses(self, error: DBAPIError) -> bool:
        """True when the database will not take these values now or later."""

    def make_durable(self) -> None:
        """Put what was committed on the disk. Blocks: not on the event loop."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What became of a schema."""

    before: str | None
    """None where there were no tables."""
    after: str | None


_KINDS: dict[str, Callable[..., Database]] = {
    "sqlite": SqliteDatabase,
    "postgresql": PostgresqlDatabase,
    "postgres": PostgresqlDatabase,
}
_FOR_READING: dict[str, Callable[..., Database]] = {
    "sqlite": SqliteForReading,
    "postgresql": PostgresqlForReading,
    "postgres": PostgresqlForReading,
}


async def open_database(text: str, limits: DatabaseLimits) -> Database:
    """The database at a URL, held by this process, with a schema that this version may run on.

    Raises StartRefused when another gateway has it, when the schema is too new for this code, when a PostgreSQL
    schema is older (`simsa db upgrade` is a step of its own there), or when nothing can be opened.
    """
    url = _parse(text)
    database = _make(url, limits)
    try:
        with _refusing(url, "opened"):
            await database.hold()
            await _migrate(database, may_upgrade=database.upgrades_at_start)
            await database.check()
        return database
    except BaseException:
        await database.close()
        raise


async def open_for_reading(text: str, limits: DatabaseLimits) -> Database:
    """The database at a URL for a look, beside the gateway that may have it: not held, and no row is written.

    Raises StartRefused when it cannot be opened, when looking at a SQLite file could leave its gateway files that it
    cannot write (see `SqliteForReading`), or when this version may not run on the schema.
    """
    url = _parse(text)
    with _refusing(url, "opened"):
        database = _make(url, limits, _FOR_READING)
    try:
        with _refusing(url, "opened"):
            await _migrate(database, may_upgrade=False)
        return database
    except BaseException:
        await database.close()
        raise


async def upgrade(text: str, limits: DatabaseLimits = DatabaseLimits()) -> Upgraded:  # noqa: B008 - it is frozen
    """Bring the schema to this version's, unless it is a newer one that this version may run on. Returns what it did.

    Raises StartRefused while a gateway has the database to itself, or one is at work whose code may not run on the
    new schema. Two at once take turns on PostgreSQL, where a step may take as long as it takes.
    """
    url = _parse(text)
    database = _make(url, _unhurried(url, limits))
    try:
        with _refusing(url, "upgraded"):
            return await _migrate(database, may_upgrade=True)
    finally:
        await database.close()


@asynccontextmanager
async def alone_with(text: str, limits: DatabaseLimits, *, doing: str) -> AsyncIterator[AsyncConnection]:
    """A transaction beside which no gateway has the database, kept where the block ends well and on the disk then.

    `doing`: what a refusal says cannot be done, e.g. "restored". Raises StartRefused.
    """
    url = _parse(text)
    with _refusing(url, doing):
        database = _make(url, _unhurried(url, limits))
    try:
        with _refusing(url, doing):
            async with database.engine.connect() as connection:
                await connection.run_sync(database.begin_alone)
                yield connection
                await connection.commit()
                await asyncio.to_thread(database.make_durable)
    finally:
        await database.close()


@asynccontextmanager
async def one_moment_of(text: str, limits: DatabaseLimits, *, doing: str) -> AsyncIterator[AsyncConnection]:
    """A transaction that reads the database as it is now, beside the gateways that have it, whatever its schema.

    Raises StartRefused; see `open_for_reading`.
    """
    url = _parse(text)
    with _refusing(url, doing):
        database = _make(url, _unhurried(url, limits), _FOR_READING)
    try:
        with _refusing(url, doing):
            async with database.engine.connect() as connection:
                await connection.run_sync(database.begin_reading)
                yield connection
    finally:
        await database.close()


def first_line(error: Exception) -> str:
    """What the driver itself said, without SQLAlchemy's statement and link."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    silence = "no answer in time" if isinstance(cause, TimeoutError) else type(cause).__name__
    return str(cause).partition("\n")[0] or silence


# --- opening ------------------------------------------------------------------------------------------------


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
        _KINDS[url.get_backend_name()]
    except (ArgumentError, KeyError) as error:
        raise StartRefused(
            "SIMSA_DATABASE_URL: expected sqlite:///path/to/file.db or postgresql://user@host/name"
        ) from error
    return url.set(drivername=url.get_backend_name())


def _make(url: URL, limits: DatabaseLimits, kinds: Mapping[str, Callable[..., Database]] = _KINDS) -> Database:
    """Not yet connected. JSON goes through msgspec: Decimals as strings, enums as values."""
    make = kinds[url.get_backend_name()]
    return make(url, limits, json_serializer=_to_json, json_deserializer=msgspec.json.decode)


def _unhurried(url: URL, limits: DatabaseLimits) -> DatabaseLimits:
    """For work that takes as long as it takes. SQLite's limit is on waiting for others, never on working."""
    return limits if url.get_backend_name() == "sqlite" else replace(limits, statement_s=0)


@contextmanager
def _refusing(url: URL, doing: str) -> Iterator[None]:
    """Turn what the driver says into a refusal."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        shown = url.render_as_string(hide_password=True)
        raise StartRefused(f"SIMSA_DATABASE_URL: database {shown} cannot be {doing}: {first_line(error)}") from error


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# --- the schema ---------------------------------------------------------------------------------------------


async def _migrate(database: Database, *, may_upgrade: bool) -> Upgraded:
    async with database.engine.connect() as connection:
        return await connection.run_sync(_migrate_on, database, may_upgrade)


def _migrate_on(connection: Connection, database: Database, may_upgrade: bool) -> Upgraded:
    """Upgrade in one transaction, tables and version together; refuse where it is due and not ours to do."""
    schema = usable_schema(connection)
    connection.rollback()
    if fit_of(schema) in MAY_RUN:
        return Upgraded(schema.revision, schema.revision)
    if not may_upgrade:
        found = f"has schema {schema.revision}, older than this version" if schema.revision else "has no tables yet"
        raise StartRefused(f"database {shown_url(connection)} {found}: run `simsa db upgrade`")
    database.begin_migration(connection)
    schema = usable_schema(connection)  # which another process may have moved meanwhile
    if fit_of(schema) not in MAY_RUN:
        database.shut_out(connection, left_behind(schema))
        step_up(connection)
    after = read_schema(connection)
    connection.commit()
    return Upgraded(schema.revision, after.revision)


def usable_schema(connection: Connection) -> Schema:
    """The schema, where this version knows it or may run on it. Raises StartRefused."""
    schema = read_schema(connection)
    if fit_of(schema) is not Fit.TOO_NEW:
        return schema
    oldest = schema.oldest_code
    since = "" if oldest is None else f" (schema {oldest} or newer; this one's is {steps()[-1]})"
    raise StartRefused(
        f"database {shown_url(connection)} has schema {schema.revision}, which this version of simsa may not use: "
        f"it was written by a newer one; install that version{since}, or point SIMSA_DATABASE_URL at another database"
    )


def shown_url(connection: Connection) -> str:
    """The database's URL as messages show it."""
    url = connection.engine.url.set(drivername=connection.dialect.name)
    return url.render_as_string(hide_password=True)
