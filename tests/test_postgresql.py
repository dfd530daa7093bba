"""What holds on PostgreSQL only: exact columns, limits, a server that crashes or stands still, one gateway's lock."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from urllib.parse import quote

import asyncpg
import pytest
from databases import ScratchPostgres
from guards import HANG_S
from test_store import IMPATIENT, comparison, ended, opened

from gateway.domain.records import Cost
from gateway.errors import StartRefused, Unavailable
from gateway.postgresql import GATEWAY_LOCK
from gateway.settings import DatabaseLimits
from gateway.store import RowRefused, Store, upgrade

T = TypeVar("T")
AMOUNTS = ("0.00012340", "12345678901234567890.123456789012345678901234567890", "0.000000000000000001", "0.00", "7")
MOMENTS = (
    datetime(2026, 3, 1, 23, 59, 59, 999999, UTC),
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(9999, 12, 30, 1, 2, 3, 4, UTC),
)


@asynccontextmanager
async def opened_store(url: str, limits: DatabaseLimits = IMPATIENT) -> AsyncIterator[Store]:
    store = await Store.open(url, limits)
    try:
        yield store
    finally:
        await store.close()


async def insist(act: Callable[[], Awaitable[T]], error: type[Exception]) -> T:
    """Do it until it does not fail in this way: a busy machine may take longer than the test's limits."""
    async with asyncio.timeout(HANG_S):
        while True:
            with suppress(error):
                return await act()


async def refusal_of(url: str) -> str:
    with pytest.raises(StartRefused) as refused:
        await Store.open(url, IMPATIENT)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- values -------------------------------------------------------------------------------------------------


async def test_money_is_numeric_and_exact_to_the_last_digit(postgres: ScratchPostgres) -> None:
    made = [ended(opened(n), cost=Cost(Decimal(text), "KRW", "api_price")) for n, text in enumerate(AMOUNTS)]
    async with opened_store(postgres.url) as store:
        await store.upsert_calls(made)
        assert await store.list_calls() == made[::-1]
    rows = await postgres.rows("SELECT cost_amount, pg_typeof(cost_amount)::text AS type FROM calls ORDER BY id")
    assert [(f"{row['cost_amount']:f}", row["type"]) for row in rows] == [(text, "numeric") for text in AMOUNTS]
    (total,) = await postgres.rows("SELECT sum(cost_amount) AS amount FROM calls")
    assert total["amount"] == Decimal("12345678901234567897.123580189012345679901234567890")


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_moments_are_utc_to_the_microsecond_whatever_the_servers_time_zone(
    postgres: ScratchPostgres, moment: datetime
) -> None:
    (name,) = (row["name"] for row in await postgres.rows("SELECT current_database() AS name"))
    await postgres.execute(f"ALTER DATABASE {name} SET timezone TO 'Asia/Seoul'")
    async with opened_store(postgres.url) as store:
        await store.upsert_calls([opened(started_at=moment)])
        assert await store.get_call("call-000001") == opened(started_at=moment)
    (row,) = await postgres.rows("SELECT extract(epoch FROM started_at)::numeric AS s FROM calls")
    assert row["s"] == Decimal((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)).scaleb(-6)


async def test_texts_of_a_comparison_are_kept_to_the_letter(postgres: ScratchPostgres) -> None:
    odd = {"z": "nul \0 and \u2028", "a": 1.0, "digits": 0.1, "long": 2**60, "z2": ["\x7f", None, True]}
    made = comparison(1, odd)
    made = replace(made, sides=tuple(replace(side, finish_reason="st\0p") for side in made.sides))
    async with opened_store(postgres.url) as store:
        await store.save_comparison(made)
        found = await store.get_comparison(made.id)
    assert found is not None
    assert repr(found.messages) == repr(made.messages), "the order of fields and the kind of numbers too"
    assert [side.finish_reason for side in found.sides] == ["st?p", "st?p"]


@pytest.mark.parametrize(
    "changes", [{"model": "nul \0"}, {"client_retry": 2**40}, {"endpoint": 7}, {"run_id": "\ud800"}], ids=repr
)
async def test_refused_values_leave_the_others_of_their_transaction_to_be_written_alone(
    postgres: ScratchPostgres, changes: dict[str, object]
) -> None:
    async with opened_store(postgres.url) as store:
        with pytest.raises(RowRefused):
            await store.upsert_calls([opened(1), opened(2, **changes), opened(3)])
        assert await store.list_calls() == []
        await store.upsert_calls([opened(1), opened(3)])
        assert await store.list_calls() == [opened(3), opened(1)]


async def test_a_text_too_long_for_its_index_is_refused_for_good(postgres: ScratchPostgres) -> None:
    endless = "".join(f"{number:x}" for number in range(20_000))
    async with opened_store(postgres.url) as store:
        with pytest.raises(RowRefused, match="index"):
            await store.upsert_calls([opened(model=endless)])


async def test_commits_are_durable_whatever_the_servers_default_is(postgres: ScratchPostgres) -> None:
    (name,) = (row["name"] for row in await postgres.rows("SELECT current_database() AS name"))
    await postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit TO off")
    async with opened_store(postgres.url) as store:
        await store.upsert_calls([opened()])
        store.make_durable()
        async with store._engine.connect() as connection:
            assert (await connection.exec_driver_sql("SHOW synchronous_commit")).scalar() == "on"


# --- addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_a_url_may_be_spelled_as_others_spell_it(postgres: ScratchPostgres, scheme: str) -> None:
    url = f"{postgres.url.replace('postgresql', scheme, 1)}&sslmode=disable"
    async with opened_store(url) as store:
        assert await store.list_calls() == []


async def test_a_password_may_have_any_character(postgres: ScratchPostgres) -> None:
    password = "p@ss/w:rd?#%25 +&'\"비밀"
    quoted = password.replace("'", "''")
    await postgres.execute(f"CREATE ROLE keyed LOGIN SUPERUSER PASSWORD '{quoted}'")
    try:
        url = postgres.url.replace("simsa@", f"keyed:{quote(password, safe='')}@")
        async with opened_store(url) as store:
            assert await store.list_calls() == []
        assert "password authentication failed" in await refusal_of(url.replace("keyed:", "keyed:x"))
    finally:
        await postgres.execute("DROP ROLE keyed")


async def test_a_database_that_cannot_be_opened_is_refused_in_one_line_without_its_password(
    postgres: ScratchPostgres, unused_tcp_port: int
) -> None:
    nobody = f"postgresql://simsa:canary@127.0.0.1:{unused_tcp_port}/simsa"
    where = postgres.url.partition("?")[2]
    for url, words in (
        (nobody, "refused"),
        (f"postgresql://simsa:canary@/nowhere?{where}", 'database "nowhere" does not exist'),
        (f"postgresql://nobody-7:canary@/postgres?{where}", 'role "nobody-7" does not exist'),
        (f"{postgres.url}&sslmode=perhaps", "sslmode"),
        (f"{postgres.url}&work_mem=much", "work_mem"),
    ):
        refusal = await refusal_of(url)
        assert words in refusal.lower(), refusal
        assert "SIMSA_DATABASE_URL" in refusal
        assert "canary" not in refusal


async def test_a_database_without_tables_is_refused_with_what_to_run(empty_postgres: ScratchPostgres) -> None:
    assert "has no tables yet: run `simsa db upgrade`" in await refusal_of(empty_postgres.url)


# --- limits -------------------------------------------------------------------------------------------------


async def test_more_statements_than_connections_wait_their_turn_and_then_give_up(postgres: ScratchPostgres) -> None:
    limits = DatabaseLimits(connections=2, connect_s=0.2, statement_s=20)
    async with opened_store(postgres.url, limits) as store:
        async with postgres.locked():
            waiting = [asyncio.create_task(store.list_calls()) for _ in range(3)]
            done, stuck = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            (refused,) = done
            assert isinstance(refused.exception(), Unavailable)
            (row,) = await postgres.rows(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'simsa % pid %'"
                " AND datname = current_database()"
            )
            assert row["count"] == 3, "two of the pool, one for the lock"
        assert [await task for task in stuck] == [[], []]


async def test_a_reader_who_leaves_frees_his_connection(postgres: ScratchPostgres) -> None:
    limits = DatabaseLimits(connections=1, connect_s=5, statement_s=20)
    async with opened_store(postgres.url, limits) as store:
        async with postgres.locked():
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(store.list_calls(), 0.05)
        assert await store.list_calls() == []


async def test_a_server_that_stands_still_is_unavailable_and_stops_nobody_for_long(postgres: ScratchPostgres) -> None:
    limits = DatabaseLimits(connections=2, connect_s=0.5, statement_s=0.5)
    async with asyncio.timeout(60):
        async with opened_store(postgres.url, limits) as store:
            await store.upsert_calls([opened(1)])
            postgres.cluster.freeze()
            try:
                for _ in range(2):
                    with pytest.raises(Unavailable, match="in time"):
                        await store.upsert_calls([opened(2)])
            finally:
                postgres.cluster.thaw()
            await insist(lambda: store.upsert_calls([opened(2)]), Unavailable)
            assert await store.list_orphans() == ["call-000001", "call-000002"]
            postgres.cluster.freeze()
        postgres.cluster.thaw()


# --- one gateway --------------------------------------------------------------------------------------------

HOLD = """
import asyncio, sys
from gateway.store import Store

async def main():
    store = await Store.open(sys.argv[1])
    print("open", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
OF_THE_LOCK = (
    f"FROM pg_locks WHERE locktype = 'advisory' AND classid = {GATEWAY_LOCK[0]} AND objid = {GATEWAY_LOCK[1]}"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
END_HOLDER = f"SELECT pg_terminate_backend(pid) {OF_THE_LOCK} AND granted"


async def until_locks(database: ScratchPostgres, holds: Callable[[list[int], list[int]], bool]) -> None:
    """Wait until the sessions that have the gateway's lock, and those that wait for it, are such that `holds`."""
    async with asyncio.timeout(HANG_S):
        while True:
            rows = await database.rows(f"SELECT pid, granted {OF_THE_LOCK}")
            granted, waiting = (
                [row["pid"] for row in rows if row["granted"] is is_granted] for is_granted in (True, False)
            )
            if holds(granted, waiting):
                return


async def until_unavailable(store: Store, words: str) -> None:
    """Read until that fails: that its session was ended reaches the store a moment later."""

    async def read_on() -> None:
        while True:
            await store.list_calls()

    with pytest.raises(Unavailable, match=words):
        await asyncio.wait_for(read_on(), HANG_S)


async def test_a_killed_gateway_leaves_the_database_to_the_next_at_once(postgres: ScratchPostgres) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, postgres.url], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "open\n"
        assert f"pid {victim.pid}" in await refusal_of(postgres.url)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    store = await insist(lambda: Store.open(postgres.url), StartRefused)
    assert await store.list_calls() == []
    await store.close()


async def test_an_idle_gateway_takes_its_lock_again_when_the_server_is_back(postgres: ScratchPostgres) -> None:
    async with opened_store(postgres.url) as store:
        async with postgres.gone():
            pass
        await until_locks(postgres, lambda granted, _: len(granted) == 1)
        assert "in use by another simsa process" in await refusal_of(postgres.url)
        assert await store.list_calls() == []


async def test_a_gateway_whose_database_another_has_taken_writes_nothing_until_it_is_free(
    postgres: ScratchPostgres,
) -> None:
    async with opened_store(postgres.url) as first:
        await first.upsert_calls([opened(1)])
        opening = asyncio.create_task(Store.open(postgres.url))
        await until_locks(postgres, lambda _, waiting: len(waiting) == 1)
        await postgres.execute(END_HOLDER)
        second = await opening
        await until_unavailable(first, "in use by another simsa process")
        with pytest.raises(Unavailable, match="in use by another simsa process"):
            await first.upsert_calls([ended(opened(1))])
        assert await second.mark_interrupted(await second.list_orphans(), ended(opened(1)).ended_at) == 1
        await second.close()
        await insist(lambda: first.upsert_calls([ended(opened(1))]), Unavailable)
        assert await first.list_calls() == [ended(opened(1))], "the real end replaces the interruption"


async def test_a_gateway_writes_no_row_into_a_schema_that_was_changed_behind_its_back(
    postgres: ScratchPostgres,
) -> None:
    async with opened_store(postgres.url) as store:
        await postgres.execute("UPDATE alembic_version SET version_num = '9999'")
        await postgres.execute("UPDATE oldest_code SET revision = '9999'")
        await postgres.execute(END_HOLDER)
        await until_unavailable(store, "9999 meanwhile: restart this gateway")
        with pytest.raises(Unavailable, match="9999 meanwhile: restart this gateway"):
            await store.upsert_calls([opened()])
    assert await postgres.rows("SELECT id FROM calls") == []


async def test_gateways_of_two_databases_on_one_server_do_not_meet(
    postgres: ScratchPostgres, empty_postgres: ScratchPostgres
) -> None:
    await upgrade(empty_postgres.url)
    async with opened_store(postgres.url), opened_store(empty_postgres.url) as other:
        assert await other.list_calls() == []


# --- schema -------------------------------------------------------------------------------------------------


async def test_upgrades_at_the_same_time_take_turns(empty_postgres: ScratchPostgres) -> None:
    await asyncio.gather(*(upgrade(empty_postgres.url) for _ in range(8)))
    async with opened_store(empty_postgres.url) as store:
        assert await store.list_calls() == []


async def test_an_upgrade_waits_longer_than_a_statement_may_take(empty_postgres: ScratchPostgres) -> None:
    other = await asyncpg.connect(empty_postgres.url)
    try:
        await other.execute("SELECT pg_advisory_lock($1, 2)", GATEWAY_LOCK[0])
        waiting = asyncio.create_task(upgrade(empty_postgres.url, IMPATIENT))
        done, _ = await asyncio.wait([waiting], timeout=2 * IMPATIENT.statement_s)
        assert not done
    finally:
        await other.close()
    await asyncio.wait_for(waiting, HANG_S)
    (row,) = await empty_postgres.rows("SELECT count(*) FROM alembic_version")
    assert row["count"] == 1
