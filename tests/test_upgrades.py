"""From one schema to the next with rows in it, there and back, and with gateways of two versions at work meanwhile."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from clients import RawClient
from databases import ScratchDatabase, ScratchPostgres
from engines import ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from next_versions import NEXT, OURS, NextVersion
from old_databases import (
    HEAD,
    Tables,
    as_known_at,
    everything_told,
    make_old,
    tables_of,
    unknown_at,
    written,
)
from processes_under_test import run_simsa
from review_rounds import ENTRIES, REVIEWERS, SECTIONS, item_id, put_round
from reviewer_clients import ReviewerClient
from test_postgresql import END_HOLDER, IMPATIENT, insist, opened_store, until_unavailable
from test_store import ended, opened

from gateway.domain.hash_chain import verify_chain
from gateway.errors import StartRefused, Unavailable
from gateway.going_back import go_back
from gateway.postgresql import CODE_LOCKS
from gateway.rounds.chain import chained
from gateway.schema_steps import migrations, oldest_code_after, steps, tables_at
from gateway.settings import DatabaseLimits
from gateway.store import Store, upgrade

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 4}
STEPS = {step.revision: step for step in ScriptDirectory.from_config(migrations()).walk_revisions()}
LIMITS, SHARED = DatabaseLimits(), DatabaseLimits(is_shared=True)


# --- rows, there and back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", steps())
async def test_rows_of_every_earlier_schema_mean_the_same_after_the_upgrade(
    empty_database: ScratchDatabase, tmp_path: Path, revision: str
) -> None:
    expected = await written(tmp_path, revision)
    assert unknown_at(revision, expected.tables) == [], "a gateway of that time could have written all of it"
    await make_old(empty_database.url, revision, expected.tables)
    await upgrade(empty_database.url)
    assert comparable(await tables_of(empty_database.url, tmp_path)) == comparable(expected.tables)
    async with opened_store(empty_database.url, LIMITS) as store:
        assert await everything_told(store) == expected.told


async def test_going_back_step_by_step_loses_nothing_but_what_the_schema_has_no_place_for(
    empty_database: ScratchDatabase, tmp_path: Path
) -> None:
    before = (await written(tmp_path, HEAD)).tables
    await make_old(empty_database.url, HEAD, before)
    for revision in reversed(steps()[:-1]):
        await go_back(empty_database.url, revision, LIMITS, accept_loss=True)
        assert await tables_of(empty_database.url, tmp_path) == as_known_at(revision, before)
    await upgrade(empty_database.url)
    first = steps()[0]
    assert as_known_at(first, await tables_of(empty_database.url, tmp_path)) == as_known_at(first, before)
    async with opened_store(empty_database.url, LIMITS) as store:
        assert len((await everything_told(store))["calls"]) == len(before["calls"])


async def test_going_back_says_what_would_be_lost_and_loses_it_only_if_told(
    empty_sqlite_file: ScratchDatabase, tmp_path: Path
) -> None:
    before = (await written(tmp_path, HEAD)).tables
    await make_old(empty_sqlite_file.url, HEAD, before)
    settings = {"database_url": empty_sqlite_file.url, "data_dir": tmp_path / "data"}
    refused = await run_simsa("db", "downgrade", "0010", **settings)
    assert refused.code == 2
    votes = sum(1 for row in before["round_votes"] if row["shown"] is not None)
    for words in (f"round_votes.shown ({votes} values)", "load_runs (1 rows)", "back the database up", "--accept-loss"):
        assert words in refused.error_line
    assert await tables_of(empty_sqlite_file.url, tmp_path) == before
    done = await run_simsa("db", "downgrade", "0010", "--accept-loss", **settings)
    assert (done.code, done.err) == (0, "")
    assert "round_votes.shown" in done.out
    assert await tables_of(empty_sqlite_file.url, tmp_path) == as_known_at("0010", before)


async def test_going_back_with_nothing_to_lose_needs_no_word(database: ScratchDatabase) -> None:
    done = await go_back(database.url, "0009", LIMITS, accept_loss=False)
    assert (done.before, done.after, done.lost) == (HEAD, "0009", [])


@pytest.mark.parametrize(("revision", "words"), [("9999", "expected one from 0001"), ("base", "got 'base'")])
async def test_a_schema_that_is_none_is_not_gone_back_to(database: ScratchDatabase, revision: str, words: str) -> None:
    with pytest.raises(StartRefused, match=words):
        await go_back(database.url, revision, LIMITS, accept_loss=True)


async def test_nobody_goes_back_while_a_gateway_has_the_database(database: ScratchDatabase) -> None:
    async with opened_store(database.url, LIMITS):
        with pytest.raises(StartRefused, match="in use"):
            await go_back(database.url, "0009", LIMITS, accept_loss=True)


def comparable(tables: Tables) -> dict[str, list[Mapping[str, Any]]]:
    """Without sums of nothing any more, and without under which prices windows were refused, which no row tells."""
    counted = {"use_by_day": "calls", "spent_by_day": "calls", "gpu_days": "windows"}
    found = {name: [row for row in rows if row.get(counted.get(name, "")) != "0"] for name, rows in tables.items()}
    return found | {"refused_windows": [row | {"refused_under": ""} for row in found["refused_windows"]]}


# --- what a step promises -----------------------------------------------------------------------------------


def test_steps_are_numbered_and_say_which_code_may_run_after_them() -> None:
    assert list(steps()) == [f"{number:04d}" for number in range(1, len(steps()) + 1)]
    since = [oldest_code_after(STEPS[revision]) for revision in steps() if revision >= "0014"]
    assert all(hasattr(STEPS[revision].module, "oldest_code") for revision in steps() if revision >= "0014")
    assert set(since) <= set(steps())
    assert since == sorted(since), "what may not run after one step may not run after the next"
    assert all(code <= revision for code, revision in zip(since, steps()[13:], strict=True))


@pytest.mark.parametrize("revision", [revision for revision in steps() if revision > "0014"])
def test_a_step_after_which_older_code_may_run_only_adds(revision: str) -> None:
    before = steps()[steps().index(revision) - 1]
    if oldest_code_after(STEPS[revision]) == oldest_code_after(STEPS[before]):
        now = tables_at(revision)
        for table, columns in tables_at(before).items():
            assert {*columns} <= {*now.get(table, ())}, f"{table}: expand first, contract when no gateway needs it"


# --- two versions at once -----------------------------------------------------------------------------------


async def test_a_gateway_records_and_takes_votes_while_the_schema_is_brought_further(
    tmp_path: Path, postgres: ScratchPostgres
) -> None:
    following = NextVersion(tmp_path, oldest_code=OURS)
    votes = [item_id(REVIEWERS[0], number) for number in range(3)]
    async with serving(tmp_path, postgres) as gateway:
        put = await put_round(gateway.services.store, trained=True)
        async with ReviewerClient(gateway.url) as reviewer:
            await reviewer.enter(await put.token())
            await asks(gateway)
            assert (await reviewer.save(votes[0], {"choice": "a"}, base=0)).status == 200
            await following.take_step(postgres.url)
            await asks(gateway)
            assert (await reviewer.save(votes[1], {"choice": "b"}, base=0)).status == 200
            await postgres.execute(END_HOLDER)  # it takes its lock again, and finds the newer schema
            await insist(lambda: gateway.services.store.list_calls(), Unavailable)
            await asks(gateway)
            assert (await reviewer.save(votes[2], {"choice": "tie"}, base=0)).status == 200
        assert len(await gateway.calls(3)) == 3
    async with serving(tmp_path, postgres) as again:
        await asks(again)
        assert len(await again.calls(4)) == 4
        kept = await again.services.rounds.store.votes(put.id)
        assert [vote.number for vote in kept] == [1, 2, 3]
        assert verify_chain([chained(vote) for vote in kept], round_id=put.id) is None
    (row,) = await postgres.rows("SELECT count(*) AS found FROM calls WHERE next_fact IS NULL")
    assert row["found"] == 4


async def test_older_code_starts_looks_and_upgrades_nothing_on_a_newer_schema(
    database: ScratchDatabase, tmp_path: Path
) -> None:
    await NextVersion(tmp_path, oldest_code=OURS).take_step(database.url)
    await upgrade(database.url)
    for begin in (Store.open, Store.open_for_reading):
        store = await begin(database.url)
        assert await store.list_calls() == []
        await store.close()
    (row,) = await database.rows("SELECT version_num FROM alembic_version")
    assert row["version_num"] == NEXT


async def test_code_that_a_newer_schema_does_not_serve_is_refused_in_one_line(
    database: ScratchDatabase, tmp_path: Path
) -> None:
    await NextVersion(tmp_path, oldest_code=NEXT).take_step(database.url)
    for begin in (Store.open, Store.open_for_reading, upgrade):
        with pytest.raises(
            StartRefused, match=rf"schema {NEXT}.*\(schema {NEXT} or newer; this one's is {OURS}\)"
        ) as no:
            await begin(database.url)
        assert "\n" not in str(no.value)


async def test_a_running_gateway_writes_nothing_once_a_schema_does_not_serve_it(
    tmp_path: Path, postgres: ScratchPostgres
) -> None:
    store = await Store.open(postgres.url)
    await NextVersion(tmp_path, oldest_code=NEXT).take_step(postgres.url)
    await postgres.execute(END_HOLDER)
    await until_unavailable(store, f"changed from {OURS} to {NEXT} meanwhile: restart this gateway")
    with pytest.raises(Unavailable, match="restart this gateway"):
        await store.upsert_calls([ended(opened())])
    await store.close()
    assert await postgres.rows("SELECT id FROM calls") == []


async def test_the_next_version_takes_a_step_beside_gateways_unless_they_could_not_go_on(
    tmp_path: Path, postgres: ScratchPostgres
) -> None:
    adding, breaking = (NextVersion(tmp_path, oldest_code=code) for code in (OURS, NEXT))
    async with opened_store(postgres.url, SHARED) as one, opened_store(postgres.url, SHARED) as other:
        refused = await breaking.run("db", "upgrade", database_url=postgres.url)
        assert refused.code == 2
        assert f"a simsa gateway whose code (schema {OURS}) may not run after this upgrade" in refused.error_line
        assert await revision_of(postgres) == OURS
        taken = await adding.run("db", "upgrade", database_url=postgres.url)
        assert json.loads(taken.out) == {"before": OURS, "after": NEXT}
        assert await revision_of(postgres) == NEXT
        await one.upsert_calls([opened(1), ended(opened(2))])
        async with opened_store(postgres.url, SHARED) as restarted:
            await restarted.upsert_calls([ended(opened(3))])
            assert [len(await store.list_calls()) for store in (one, other, restarted)] == [3, 3, 3]


async def test_a_step_that_takes_something_away_is_taken_once_no_gateway_needs_it(
    tmp_path: Path, postgres: ScratchPostgres
) -> None:
    breaking = NextVersion(tmp_path, oldest_code=NEXT)
    assert (await breaking.run("db", "upgrade", database_url=postgres.url)).code == 0
    assert await revision_of(postgres) == NEXT
    with pytest.raises(StartRefused, match=f"install that version .schema {NEXT} or newer"):
        async with opened_store(postgres.url, SHARED):
            pass


async def test_a_gateway_that_shares_the_database_does_not_begin_under_a_step_that_takes_something_away(
    tmp_path: Path, postgres: ScratchPostgres
) -> None:
    session = await asyncpg.connect(postgres.url)
    try:
        await session.execute("SELECT pg_advisory_lock($1, $2)", CODE_LOCKS, int(OURS))
        with pytest.raises(StartRefused, match="its schema is being changed: wait until `simsa db upgrade` has ended"):
            async with opened_store(postgres.url, IMPATIENT):
                pass
    finally:
        await session.close()


@asynccontextmanager
async def serving(directory: Path, postgres: ScratchPostgres) -> AsyncIterator[RunningGateway]:
    async with ScriptedEngine() as engine:
        models = [*ENTRIES, entry("m", engine.url)]
        async with running_gateway(directory, models, sections=SECTIONS, database_url=postgres.url) as gateway:
            await gateway.until_live("m")
            yield gateway


async def asks(gateway: RunningGateway) -> None:
    async with RawClient(gateway.url) as client:
        assert (await client.request("POST", CHAT, body=ASK)).status == 200


async def revision_of(postgres: ScratchPostgres) -> str:
    (row,) = await postgres.rows("SELECT version_num FROM alembic_version")
    return str(row["version_num"])
