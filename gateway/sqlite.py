"""What is SQLite's own about being the database: one file, one process, a write-ahead log to be synced.

`database` decides which kind of database a URL names; statements are in `store`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.file_lock import FileLock, is_locked
from gateway.settings import DatabaseLimits


class SqliteDatabase:
    """One file and the lock beside it, or a database in memory, which nobody else can see."""

    upgrades_at_start = True
    number: int | None = None
    """There is one gateway."""

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

    async def take_duty(self) -> bool:
        """A file has one gateway."""
        return True

    def begin_migration(self, connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver itself begins no transaction before DDL

    def shut_out(self, connection: Connection, codes: Collection[str]) -> None:
        """Nobody more to shut out: the lock beside the file lets no gateway in."""

    def begin_alone(self, connection: Connection) -> None:
        self.begin_migration(connection)

    def begin_reading(self, connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")  # the driver itself begins none for what is only read

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
    """The same file for a look beside the gateway that may have it: no lock is held and no row is written.

    Where no gateway has the file and no write-ahead log is left, it is taken for unchanging and nothing is made beside
    it. Else SQLite needs its -wal and -shm files and makes those that are missing, which a gateway of another user
    could not write: only the file's owner is let in then.
    """

    def __init__(self, url: URL, limits: DatabaseLimits, **engine: Any) -> None:
        """Raise FileNotFoundError where there is no such file, PermissionError where looking could make one."""
        named = Path(str(url.database))
        path = named.resolve()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        self._path, self._lock, self._inode = None, None, None
        query = {"mode": "ro", "uri": "true"}
        if _is_at_rest(path, named):
            query["immutable"] = "1"
        elif (owner := path.stat().st_uid) != os.geteuid():
            raise PermissionError(
                f"it is in use, and another user's look could leave files that its gateway cannot write; look as its "
                f"owner (uid {owner})"
            )
        address = URL.create("sqlite+aiosqlite", database=f"file:{quote(str(path))}", query=query)
        self.engine = create_async_engine(address, connect_args={"timeout": limits.statement_s}, **engine)


def _is_at_rest(path: Path, named: Path) -> bool:
    """No gateway has the file, by whichever name, and all that was committed is in it."""
    is_in_use = any(is_locked(_lock_path(each)) for each in {path, named})
    return not is_in_use and not path.with_name(f"{path.name}-wal").exists()


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _lock_beside(path: Path) -> FileLock:
    return FileLock(
        _lock_path(path),
        refusal=f"{path} is in use by another simsa process: one SQLite file serves one gateway; "
        "stop the other one, or give this one its own SIMSA_DATA_DIR",
    )
