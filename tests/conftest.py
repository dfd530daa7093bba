"""What all tests share: the event loop that production runs on, a database of each kind, and no deadlines."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import uvloop
from databases import ScratchDatabase, ScratchPostgres, ScratchSqlite
from fresh_sqlite import put_fresh_sqlite
from postgres import INSTALL, Cluster, NotInstalled
from redis_server import INSTALL as INSTALL_REDIS
from redis_server import RedisServer

from gateway.store import upgrade

TEMPLATE = "simsa_template"
NUMBERS = count(1)
LONGEST_FIRST = (
    "test_whole_round.py",
    "test_review_accessibility.py",
    "test_chair_accessibility.py",
    "test_blind_wire.py",
    "test_up.py",
    "test_settlements.py",
    "test_openapi.py",
    "test_process.py",
    "test_workers.py",
    "test_several_gateways.py",
    "test_outages.py",
    "test_faults.py",
    "test_floods.py",
    "test_gauges.py",
    "test_load_worker.py",
    "test_load_faults.py",
    "test_load_hosts.py",
    "test_load_campaign.py",
    "test_load_names.py",
    "test_shared_books.py",
    "test_workloads.py",
    "test_upgrades.py",
)
"""Files of few long tests. Begun at the end, one of them would keep one core waiting for the other."""

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; `make test` keeps this order (`--no-loadscope-reorder`)."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: no collection of garbage looks at its millions of objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server for the whole session (about a second), with a template of the newest schema."""
    try:
        cluster = Cluster()
    except NotInstalled as error:
        if os.environ.get("SIMSA_TEST_POSTGRES") == "required":
            pytest.fail(str(error))
        pytest.skip(str(error))
    try:
        asyncio.run(create_database(cluster, TEMPLATE, template="template0"))
        asyncio.run(upgrade(cluster.url(TEMPLATE)))
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def postgres(cluster: Cluster) -> Iterator[ScratchPostgres]:
    """A database on the server, for tests of what only PostgreSQL does."""
    name = f"simsa_{next(NUMBERS)}"
    asyncio.run(create_database(cluster, name, template=TEMPLATE))
    yield ScratchPostgres(cluster, name)
    asyncio.run(administer(cluster, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def empty_postgres(cluster: Cluster) -> Iterator[ScratchPostgres]:
    """The same, before anybody made a table in it."""
    name = f"simsa_{next(NUMBERS)}"
    asyncio.run(create_database(cluster, name, template="template0"))
    yield ScratchPostgres(cluster, name)
    asyncio.run(administer(cluster, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis server of the test's own."""
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture
def sqlite_file(tmp_path: Path) -> ScratchSqlite:
    """Where a gateway keeps its file when it is told nothing; see `running_gateway`."""
    return ScratchSqlite(asyncio.run(put_fresh_sqlite(tmp_path / "data")))


@pytest.fixture
def empty_sqlite_file(tmp_path: Path) -> ScratchSqlite:
    return ScratchSqlite(tmp_path / "empty.db")


@pytest.fixture(params=["empty_sqlite_file", "empty_postgres"], ids=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest) -> ScratchDatabase:
    """One test, two databases in which there is no table yet."""
    found: ScratchDatabase = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["sqlite_file", "postgres"], ids=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> ScratchDatabase:
    """One test, two databases."""
    found: ScratchDatabase = request.getfixturevalue(request.param)
    return found


async def create_database(cluster: Cluster, name: str, *, template: str) -> None:
    await administer(cluster, f"CREATE DATABASE {name} TEMPLATE {template}")


async def administer(cluster: Cluster, statement: str) -> None:
    session = await asyncpg.connect(cluster.url("postgres"))
    try:
        await session.execute(statement)
    finally:
        await session.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for name, install in (("PostgreSQL", INSTALL), ("Redis", INSTALL_REDIS)):
        missed = sum(f"{name} is not installed" in str(report.longrepr) for report in skipped)
        if missed:
            terminalreporter.section(f"NOT TESTED WITH {name.upper()}", sep="!", red=True, bold=True)
            terminalreporter.line(f"{missed} tests need {name}, which is not on this machine: {install}")
