"""Opening a database by its URL, and bringing its schema from one step to the next.

Nothing here reads or writes a row; that is `store`. What the two kinds of database do each in their own way is in
`sqlite` and `postgresql`; the steps themselves are in `migrations/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.errors import StartRefused
from gateway.postgresql import PostgresqlDatabase, PostgresqlForReading
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
        """Begin a transaction in which nobody else changes the schema, and no gateway relies on it."""

    async def check(self) -> None:
        """Before each transaction: still ours, still there? Raises OSError with the reason where it is not."""

    def doubt(self) -> None:
        """A transaction failed for a reason that may concern the hold."""

    def refuses(self, error: DBAPIError) -> bool:
        """True when the database will not take these values now or later."""

    def make_durable(self) -> None:
        """Put what was committed on the disk. Blocks: not on the event loop."""

    async def close(self) -> None: ...


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
    """The database at a URL, held by this process, with the schema of this version.

    Raises StartRefused when another gateway has it, when the schema is newer than this code, when a PostgreSQL
    schema is older (`simsa db upgrade` is a step of its own there), or when nothing can be opened.
    """
    url = _parse(text)
    database = _make(url, limits)
    try:
        with _refusing_to_start(url):
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
    cannot write (see `SqliteForReading`), or when the schema is another version's.
    """
    url = _parse(text)
    with _refusing_to_start(url):
        database = _make(url, limits, _FOR_READING)
    try:
        with _refusing_to_start(url):
            await _migrate(database, may_upgrade=False)
        return database
    except BaseException:
        await database.close()
        raise


async def upgrade(text: str, limits: DatabaseLimits = DatabaseLimits()) -> None:  # noqa: B008 - it is frozen
    """Bring the schema to this version's. Raises StartRefused while a gateway has the database.

    Two at once take turns on PostgreSQL, where a step may take as long as it takes.
    """
    url = _parse(text)
    is_file = url.get_backend_name() == "sqlite"  # there the limit is on waiting, never on working
    database = _make(url, limits if is_file else replace(limits, statement_s=0))
    try:
        with _refusing_to_start(url):
            await _migrate(database, may_upgrade=True)
    finally:
        await database.close()


def migrations() -> Config:
    """Alembic's configuration; a connection goes into `attributes["connection"]` before a command is run."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


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


@contextmanager
def _refusing_to_start(url: URL) -> Iterator[None]:
    """Turn what the driver says while opening into a refusal to start."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        shown = url.render_as_string(hide_password=True)
        raise StartRefused(f"SIMSA_DATABASE_URL: database {shown} cannot be opened: {first_line(error)}") from error


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# --- the schema ---------------------------------------------------------------------------------------------


async def _migrate(database: Database, *, may_upgrade: bool) -> None:
    async with database.engine.connect() as connection:
        await connection.run_sync(_migrate_on, database.begin_migration if may_upgrade else None)


def _migrate_on(connection: Connection, begin: Callable[[Connection], None] | None) -> None:
    """Upgrade in one transaction, tables and version together; refuse where it is due and there is no `begin`."""
    config = migrations()
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    if current == script.get_current_head():
        return
    shown = connection.engine.url.set(drivername=connection.dialect.name).render_as_string(hide_password=True)
    if current is not None and current not in {step.revision for step in script.walk_revisions()}:
        raise StartRefused(
            f"database {shown} has schema {current}, which this version of simsa does not know: "
            "it was written by a newer one; install that version, or point SIMSA_DATABASE_URL at another database"
        )
    if begin is None:
        found = f"has schema {current}, older than this version" if current else "has no tables yet"
        raise StartRefused(f"database {shown} {found}: run `simsa db upgrade`")
    begin(connection)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")  # reads the version again, which another process may have moved meanwhile
    connection.commit()
