"""The store against real databases of both kinds: rows that round-trip, writes that may be repeated, one gateway."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from databases import ScratchDatabase
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import create_async_engine

import gateway.app  # noqa: F401  so that every table is known, whichever module describes it
from gateway.database import migrations
from gateway.domain.records import Call, CallOpened, CallStatus, Cost, Provenance, Timing, Usage
from gateway.errors import StartRefused, Unavailable
from gateway.settings import DatabaseLimits
from gateway.store import Comparison, RowRefused, Side, Store, upgrade
from gateway.tables import Moment, Money, call_from_row, call_row, metadata

T = TypeVar("T")
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def opened(number: int = 1, **changes: object) -> CallOpened:
    facts = CallOpened(
        id=f"call-{number:06d}",
        request_id=f"request-{number}",
        started_at=NOON + timedelta(seconds=number),
        model="exaone",
        endpoint="/v1/chat/completions",
        streamed=True,
        client_retry=0,
        organisation="acme",
        key="key-1",
        prompt_estimate=11,
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def ended(start: CallOpened, **changes: object) -> Call:
    call = Call(
        opened=start,
        ended_at=start.started_at + timedelta(seconds=2, microseconds=7),
        status=CallStatus.OK,
        http_status=200,
        replica="exaone/0",
        provenance=Provenance.SIMULATED,
        attempts=2,
        error_type=None,
        error_code=None,
        error_message=None,
        finish_reason="stop",
        usage=Usage(12, 34, 0, None, "engine"),
        timing=Timing(0.0, 0.1, None, 1 / 3, 2.0000001, 0.0002, 33, 1, "assumed"),
        cost=Cost(Decimal("0.00012340"), "KRW", "api_price"),
        charged_tokens=46,
    )
    return replace(call, **changes)  # type: ignore[arg-type]


def comparison(number: int, messages: object = "질문") -> Comparison:
    side = Side(
        model="exaone",
        status="ok",
        call_id="call-1",
        finish_reason="stop",
        error=None,
        facts={"cost": {"amount": "0.10", "currency": "KRW"}, "timing": {"ttft_s": 0.25}},
        output={"content": "답변 하나", "reasoning": None},
    )
    failed = Side(
        model="kanana",
        status="error",
        call_id=None,
        finish_reason=None,
        error={"code": "upstream_error"},
        facts={},
        output=None,
    )
    return Comparison(
        id=f"cmp-{number:04d}",
        created_at=NOON + timedelta(seconds=number // 2),
        schedule="sequential",
        params={"temperature": 0.5, "seed": None},
        messages=[{"role": "user", "content": messages}],
        sides=(side, failed),
        timing_comparable=False,
        timing_reason="shared a GPU",
        summary={"fastest": "exaone"},
    )


def url_of(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


IMPATIENT = DatabaseLimits(connections=2, statement_s=0.5)


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[Store]:
    store = await Store.open(database.url)
    yield store
    await store.close()


@pytest.fixture
async def impatient_store(database: ScratchDatabase) -> AsyncIterator[Store]:
    """One whose statements wait half a second, which on a busy machine is too short for any other test."""
    store = await Store.open(database.url, IMPATIENT)
    yield store
    await store.close()


# --- calls --------------------------------------------------------------------------------------------------


async def test_a_call_comes_back_field_for_field(store: Store) -> None:
    call = ended(opened(comparison_id="cmp-1", run_id="run-1"), error_message="널 \u0001 줄\n바꿈")
    await store.upsert_calls([call])
    assert await store.get_call(call.opened.id) == call


async def test_an_opened_call_is_an_open_row(store: Store) -> None:
    await store.upsert_calls([opened()])
    assert await store.get_call("call-000001") == opened()
    assert await store.list_orphans() == ["call-000001"]


async def test_a_late_opened_record_never_overwrites_the_end(store: Store) -> None:
    call = ended(opened())
    await store.upsert_calls([call])
    await store.upsert_calls([opened()])
    await store.upsert_calls([call, opened()])
    assert await store.list_calls() == [call]


async def test_an_unknown_call_is_none(store: Store) -> None:
    assert await store.get_call("nobody") is None


async def test_only_open_calls_become_interrupted(store: Store) -> None:
    done = ended(opened(1))
    await store.upsert_calls([done, opened(2)])
    assert await store.mark_interrupted(["call-000001", "call-000002", "unknown"], NOON) == 1
    assert await store.get_call("call-000001") == done
    found = await store.get_call("call-000002")
    assert isinstance(found, Call)
    assert (found.status, found.ended_at) == (CallStatus.INTERRUPTED, NOON)
    assert (found.cost.amount, found.usage.prompt_tokens, found.provenance) == (None, None, Provenance.UNKNOWN)


async def test_a_real_end_replaces_an_interruption(store: Store) -> None:
    await store.upsert_calls([opened()])
    await store.mark_interrupted(["call-000001"], NOON)
    await store.upsert_calls([ended(opened())])
    assert await store.get_call("call-000001") == ended(opened())


async def test_calls_are_listed_newest_first_by_pages_and_filters(store: Store) -> None:
    made = [opened(n, started_at=NOON + timedelta(seconds=n // 3), run_id=f"run-{n % 2}") for n in range(10)]
    await store.upsert_calls([*made[:5], *(ended(start) for start in made[5:])])
    first = await store.list_calls(limit=4)
    rest = await store.list_calls(before="call-000006", limit=100)
    assert [_id(call) for call in first + rest] == [start.id for start in reversed(made)]
    assert [_id(call) for call in await store.list_calls(run_id="run-1", status="open")] == [
        "call-000003",
        "call-000001",
    ]
    since, until = NOON + timedelta(seconds=1), NOON + timedelta(seconds=2)
    assert len(await store.list_calls(since=since, until=until, model="exaone")) == 3
    assert await store.list_calls(model="other") == []


def _id(call: Call | CallOpened) -> str:
    return call.opened.id if isinstance(call, Call) else call.id


async def test_a_value_that_the_database_cannot_hold_is_refused_for_good(store: Store) -> None:
    with pytest.raises(RowRefused):
        await store.upsert_calls([ended(opened(), usage=Usage(prompt_tokens=2**70))])
    with pytest.raises(RowRefused, match="aware"):
        await store.upsert_calls([ended(opened(), ended_at=datetime(2026, 1, 1))])  # noqa: DTZ001
    with pytest.raises(RowRefused):
        await store.upsert_calls([opened(model={"not": "text"})])
    assert await store.list_calls() == []


async def test_moments_are_kept_in_utc(store: Store) -> None:
    seoul = timezone(timedelta(hours=9))
    await store.upsert_calls([opened(started_at=NOON.astimezone(seoul))])
    found = await store.get_call("call-000001")
    assert isinstance(found, CallOpened)
    assert (found.started_at, found.started_at.tzinfo) == (NOON, UTC)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_money_round_trips_digit_for_digit(amount: Decimal) -> None:
    dialect = sqlite.dialect()
    kept = Money().process_bind_param(amount, dialect)
    back = Money().process_result_value(kept, dialect)
    assert back is not None
    assert back.as_tuple() == amount.as_tuple()


@given(st.lists(st.datetimes(timezones=st.timezones()), min_size=2, max_size=2))
def test_moments_sort_as_their_texts_do(moments: list[datetime]) -> None:
    dialect = sqlite.dialect()
    try:
        texts = [Moment().process_bind_param(moment, dialect) for moment in moments]
    except OverflowError:  # the first or last day of the calendar, moved to UTC
        return
    earlier, later = moments[0].astimezone(UTC), moments[1].astimezone(UTC)
    assert (texts[0] < texts[1]) == (earlier < later)
    assert Moment().process_result_value(texts[0], dialect) == earlier


def test_a_row_and_its_call_are_the_same_facts() -> None:
    call = ended(opened())
    assert call_from_row(call_row(call)) == call
    where_it_is_open = "gateway"  # the store's own, and over with the call
    assert {*call_row(call), where_it_is_open} == {column.name for column in metadata.tables["calls"].columns}


# --- comparisons --------------------------------------------------------------------------------------------


async def test_a_comparison_comes_back_with_its_texts(store: Store) -> None:
    await store.save_comparison(comparison(1))
    assert await store.get_comparison("cmp-0001") == comparison(1)
    assert await store.get_comparison("cmp-9999") is None


async def test_a_comparison_survives_the_removal_of_its_texts(store: Store, database: ScratchDatabase) -> None:
    await store.save_comparison(comparison(1))
    await database.execute("DELETE FROM comparison_contents")
    found = await store.get_comparison("cmp-0001")
    assert found is not None
    assert (found.messages, [side.output for side in found.sides]) == (None, [None, None])
    assert found.sides[0].facts == comparison(1).sides[0].facts


async def test_a_comparison_id_is_used_once(store: Store) -> None:
    await store.save_comparison(comparison(1))
    with pytest.raises(RowRefused):
        await store.save_comparison(comparison(1, "다른 질문"))
    assert await store.get_comparison("cmp-0001") == comparison(1)


async def test_comparisons_are_listed_newest_first_and_exported_whole(store: Store) -> None:
    for number in range(7):
        await store.save_comparison(comparison(number))
    newest = [comparison(number) for number in reversed(range(7))]
    assert await store.list_comparisons(3) == newest[:3]
    assert await store.list_comparisons(10, before="cmp-0004") == newest[3:]
    assert [found async for found in store.iter_comparisons(page=2)] == newest


# --- who may have it ----------------------------------------------------------------------------------------

OPEN_IT = """
import asyncio, sys
from gateway.errors import StartRefused
from gateway.store import Store
try:
    asyncio.run(Store.open(sys.argv[1]))
except StartRefused as refusal:
    print(refusal)
    sys.exit(2)
"""


async def test_a_second_process_on_the_same_database_is_refused_with_the_reason(
    store: Store, database: ScratchDatabase
) -> None:
    done = subprocess.run([sys.executable, "-c", OPEN_IT, database.url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "in use by another simsa process" in done.stdout
    assert {"sqlite": "SIMSA_DATA_DIR", "postgresql": "same SIMSA_REDIS_URL"}[database.kind] in done.stdout


async def test_upgrade_is_refused_while_a_gateway_has_the_database(store: Store, database: ScratchDatabase) -> None:
    await database.execute("DELETE FROM alembic_version")
    with pytest.raises(StartRefused, match="in use"):
        await upgrade(database.url)


async def test_a_closed_store_leaves_the_database_to_the_next(database: ScratchDatabase) -> None:
    for number in range(2):
        store = await Store.open(database.url)
        await store.upsert_calls([opened(number)])
        await store.close()
    store = await Store.open(database.url)
    assert len(await store.list_calls()) == 2
    await store.close()


# --- schema -------------------------------------------------------------------------------------------------


async def test_a_database_in_memory_works_for_trying_things(tmp_path: Path) -> None:
    store = await Store.open("sqlite+aiosqlite:///:memory:")
    await store.upsert_calls([opened()])
    assert len(await store.list_calls()) == 1
    await store.close()


async def test_a_schema_newer_than_the_code_is_refused(database: ScratchDatabase) -> None:
    await database.execute("UPDATE alembic_version SET version_num = '9999'")
    await database.execute("UPDATE oldest_code SET revision = '9999'")
    for begin in (Store.open, upgrade):
        with pytest.raises(StartRefused, match=r"9999.*newer"):
            await begin(database.url)


async def test_a_file_that_is_no_database_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "simsa.db").write_bytes(b"this is not a database, " * 100)
    with pytest.raises(StartRefused, match=re.escape(str(tmp_path / "simsa.db"))):
        await Store.open(url_of(tmp_path / "simsa.db"))


async def test_a_directory_that_cannot_be_made_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartRefused, match=r"file/simsa\.db"):
        await Store.open(url_of(tmp_path / "file" / "simsa.db"))


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name", ""])
async def test_a_url_of_an_unknown_database_is_refused_with_what_would_be_right(url: str) -> None:
    with pytest.raises(StartRefused, match="SIMSA_DATABASE_URL: expected sqlite:///"):
        await Store.open(url)


async def test_a_sqlite_url_may_leave_the_driver_out(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'simsa.db'}")
    assert await store.list_calls() == []
    await store.close()


async def test_a_locked_database_is_unavailable_until_it_is_free(
    impatient_store: Store, database: ScratchDatabase
) -> None:
    async with database.locked():
        with pytest.raises(Unavailable, match=database.locked_words):
            await impatient_store.upsert_calls([opened()])
    await impatient_store.upsert_calls([opened()])
    assert len(await impatient_store.list_calls()) == 1


async def test_a_database_that_is_gone_is_unavailable_until_it_is_back(store: Store, database: ScratchDatabase) -> None:
    await store.upsert_calls([opened(1)])
    async with database.gone():
        with pytest.raises(Unavailable, match=database.gone_words):
            await store.upsert_calls([opened(2)])
    await store.upsert_calls([opened(2)])
    assert len(await store.list_calls()) == 2


async def on_schema(url: str, act: Callable[[sa.Connection], T]) -> T:
    """What `act` makes of a connection whose changes are kept."""
    engine = create_async_engine(url.replace("://", {"s": "+aiosqlite://", "p": "+asyncpg://"}[url[0]], 1))
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(act)
    finally:
        await engine.dispose()


def steps_on(connection: sa.Connection) -> Config:
    config = migrations()
    config.attributes["connection"] = connection
    return config


REVISIONS = [step.revision for step in ScriptDirectory.from_config(migrations()).walk_revisions()]


async def test_the_steps_from_nothing_lead_to_the_tables_and_back(empty_database: ScratchDatabase) -> None:
    def there_and_back(connection: sa.Connection) -> list[str]:
        command.upgrade(steps_on(connection), "head")
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        command.downgrade(steps_on(connection), "base")
        return sa.inspect(connection).get_table_names()

    assert await on_schema(empty_database.url, there_and_back) == ["alembic_version"]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_every_earlier_schema_is_brought_up_to_date(empty_database: ScratchDatabase, revision: str) -> None:
    url = empty_database.url
    await on_schema(url, lambda connection: command.upgrade(steps_on(connection), revision))
    await upgrade(url)
    await upgrade(url)
    found = await on_schema(url, lambda it: compare_metadata(MigrationContext.configure(it), metadata))
    assert found == []
    store = await Store.open(url)
    await store.upsert_calls([opened()])
    assert await store.list_orphans() == ["call-000001"]
    await store.close()
