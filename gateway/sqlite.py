"""What is SQLite's own about being the database: one file, one process, a write-ahead log to be synced.

`database` decides which kind of database a URL names; statements are in `store`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.file_lock import FileLock
from gateway.settings import DatabaseLimits


class SqliteDatabase:
    """One file and the lock beside it, or a database in memory, which nobody else can see."""

    upgrades_at_start = True

    def __init__(self, url: URL, limits: DatabaseLimits, **engine: Any) -> None:
        """Raise StartRefused when another process holds the file."""
        in_memory = url.database in (None, "", ":memory:")
        self._path = None if in_memory else Path(str(url.database))
        self._lock = None if self._path is None else _lock_beside(self._path)
        self._inode: int | None = None
        self.engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), **engine)

        @sa.event.listens_for(self.engine.sync_engine, "connect")
        def prepare(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {int(limits.statement_s * 1000)}")
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.close()

    async def hold(self) -> None:
        """Nothing more to take: the lock came with the file's name."""

    def begin_migration(self, connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver itself begins no transaction before DDL

    async def check(self) -> None:
        """Notice that the file was removed or replaced, which open connections would never tell us."""
        if self._path is None:
            return
        try:
            inode = self._path.stat().st_ino
        except OSError as error:
            raise FileNotFoundError("the file is gone; put it back, or restart to begin a new one") from error
        if self._inode is not None and inode != self._inode:
            await self.engine.dispose()
        self._inode = inode

    def doubt(self) -> None:
        """A failure says nothing about the lock: it is on another file."""

    def refuses(self, error: DBAPIError) -> bool:
        return isinstance(error, IntegrityError | DataError | ProgrammingError)  # the last: a type it cannot bind

    def make_durable(self) -> None:
        """Sync the write-ahead log, which synchronous=NORMAL leaves to SQLite's checkpoints.

        Touches only that log: closing a descriptor of the database file itself would drop SQLite's own locks on it.
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

    async def close(self) -> None:
        await self.engine.dispose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class SqliteForReading(SqliteDatabase):
    """The same file for a look beside the gateway that has it: no lock, no writing, and it makes no file."""

    def __init__(self, url: URL, limits: DatabaseLimits, **engine: Any) -> None:
        """Raise FileNotFoundError where there is no such file."""
        path = Path(str(url.database)).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        self._path, self._lock, self._inode = None, None, None
        name = f"file:{quote(str(path))}"
        address = URL.create("sqlite+aiosqlite", database=name, query={"mode": "ro", "uri": "true"})
        self.engine = create_async_engine(address, connect_args={"timeout": limits.statement_s}, **engine)


def _lock_beside(path: Path) -> FileLock:
    return FileLock(
        path.with_name(path.name + ".lock"),
        refusal=f"{path} is in use by another simsa process: one SQLite file serves one gateway; "
        "stop the other one, or give this one its own SIMSA_DATA_DIR",
    )
