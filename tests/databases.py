"""A database for one test, of either kind, and what an outsider can do to it: look, write, lock it, take it away.

A test that takes the fixture `database` (conftest.py) runs once on each kind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Protocol

import asyncpg
from postgres import Cluster

import gateway.rounds.tables
import gateway.server  # noqa: F401  with it every module that has tables
from gateway.tables import metadata

Row = dict[str, Any]


class ScratchDatabase(Protocol):
    """A database with the newest schema and no rows, which only this test uses."""

    kind: str
    url: str
    """For SIMSA_DATABASE_URL."""
    locked_words: str
    """How its driver says that a statement waited too long for another program."""
    gone_words: str
    """How it is said that there is no database now: a regular expression."""

    async def rows(self, statement: str) -> list[Row]:
        """What another program reads."""

    async def execute(self, statement: str) -> None:
        """What another program writes."""

    async def empty(self) -> None:
        """Remove every row."""

    def locked(self) -> Any:
        """Another program holds the calls until the (asynchronous) block ends."""

    def gone(self) -> Any:
        """There is no database until the (asynchronous) block ends."""


class ScratchSqlite:
    kind = "sqlite"
    locked_words = "locked"
    gone_words = "gone"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    async def rows(self, statement: str) -> list[Row]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as other:
            other.row_factory = sqlite3.Row
            return [dict(row) for row in other.execute(statement)]

    async def execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute(statement)

    async def empty(self) -> None:
        for table in reversed(metadata.sorted_tables):
            await self.execute(f"DELETE FROM {table.name}")

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")

    @asynccontextmanager
    async def gone(self) -> AsyncIterator[None]:
        away = self.path.with_name("away.db")
        self.path.rename(away)
        yield
        away.rename(self.path)


class ScratchPostgres:
    kind = "postgresql"
    locked_words = "statement timeout"
    gone_words = "No such file|refused|closed|terminating"

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.url = cluster.url(name)

    async def rows(self, statement: str) -> list[Row]:
        async with self._session() as other:
            return [dict(row) for row in await other.fetch(statement)]

    async def execute(self, statement: str) -> None:
        async with self._session() as other:
            await other.execute(statement)

    async def empty(self) -> None:
        await self.execute("TRUNCATE " + ", ".join(table.name for table in metadata.sorted_tables))

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        async with self._session() as other, other.transaction():
            await other.execute("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE")
            yield

    @asynccontextmanager
    async def gone(self) -> AsyncIterator[None]:
        self.cluster.crash()
        try:
            yield
        finally:
            self.cluster.start()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        session = await asyncpg.connect(self.url)
        try:
            yield session
        finally:
            await session.close()
