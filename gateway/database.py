"""Opening a database: the lock on a SQLite file, the connection's settings, and the schema's steps.

Nothing here reads or writes a row; that is `store`. The steps themselves are in `migrations/`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.errors import StartRefused

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


class FileLock:
    """An exclusive hold on a file for as long as this process lives, `release` or kill -9, whichever is first."""

    def __init__(self, path: Path, *, refusal: str) -> None:
        """Raise StartRefused: with `refusal` when another process holds it, with the reason when it cannot be made."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartRefused(f"{path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            held = isinstance(error, BlockingIOError)
            raise StartRefused(refusal if held else f"{path} cannot be locked: {error.strerror}") from error

    def release(self) -> None:
        os.close(self._fd)


def database_url(text: str) -> URL:
    """The URL with the driver that we use. Raises StartRefused for a URL of nothing we know."""
    try:
        url = make_url(text)
        return url.set(drivername=_DRIVERS[url.get_backend_name()])
    except (ArgumentError, KeyError) as error:
        raise StartRefused(
            "SIMSA_DATABASE_URL: expected sqlite:///path/to/file.db or postgresql://user@host/name"
        ) from error


async def upgrade(text: str) -> None:
    """Bring the schema to this version's. Raises StartRefused when a gateway holds the SQLite file."""
    url = database_url(text)
    lock = lock_of(url)
    try:
        with refusing_to_start(url):
            engine = connect(url, busy_timeout_s=5.0)
            try:
                await migrate(engine, may_upgrade=True)
            finally:
                await engine.dispose()
    finally:
        if lock:
            lock.release()


def migrations() -> Config:
    """Alembic's configuration; a connection goes into `attributes["connection"]` before a command is run."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


async def migrate(engine: AsyncEngine, *, may_upgrade: bool) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(_migrate_on, may_upgrade)


def _migrate_on(connection: Connection, may_upgrade: bool) -> None:
    """Upgrade in one transaction, tables and version together."""
    config = migrations()
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    if current == script.get_current_head():
        return
    shown = connection.engine.url.render_as_string(hide_password=True)
    if current is not None and current not in {step.revision for step in script.walk_revisions()}:
        raise StartRefused(
            f"database {shown} has schema {current}, which this version of simsa does not know: "
            "it was written by a newer one; install that version, or point SIMSA_DATABASE_URL at another database"
        )
    if not may_upgrade:
        raise StartRefused(f"database {shown} has schema {current}, older than this version: run `simsa db upgrade`")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver itself begins no transaction before DDL
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()


def connect(url: URL, busy_timeout_s: float) -> AsyncEngine:
    """An engine, not yet connected. JSON goes through msgspec: Decimals as strings, enums as values."""
    engine = create_async_engine(url, json_serializer=_to_json, json_deserializer=msgspec.json.decode)
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine.sync_engine, "connect")
        def prepare(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout_s * 1000)}")
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.close()

    return engine


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite URL; None for other databases and for one in memory."""
    in_memory = url.database in (None, "", ":memory:")
    return None if url.get_backend_name() != "sqlite" or in_memory else Path(str(url.database))


def lock_of(url: URL) -> FileLock | None:
    """The hold on a SQLite file, None for databases that many may share. Raises StartRefused; see FileLock."""
    path = sqlite_path(url)
    if path is None:
        return None
    return FileLock(
        path.with_name(path.name + ".lock"),
        refusal=f"{path} is in use by another simsa process: one SQLite file serves one gateway; "
        "stop the other one, or give this one its own SIMSA_DATA_DIR",
    )


@contextmanager
def refusing_to_start(url: URL) -> Iterator[None]:
    """Turn what the driver says while opening into a refusal to start."""
    try:
        yield
    except (SQLAlchemyError, OSError, ImportError) as error:
        shown = url.render_as_string(hide_password=True)
        raise StartRefused(f"database {shown} cannot be opened: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What the driver itself said, without SQLAlchemy's statement and link."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).partition("\n")[0]


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
