"""What keeps settlement going: when a replica's time is paid for, and that each settled amount is counted once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from databases import ScratchDatabase, ScratchSqlite
from test_settlements import DAY, MEDIAN, NOON, at, call

from gateway.accounts import Accounts
from gateway.books import OwnBooks
from gateway.domain.cost import prices_fingerprint
from gateway.domain.records import Cost, Gpu, Model, Provenance, Registry, Replica, Serving, ServingKind
from gateway.replica_state import ReplicaState
from gateway.settings import Settings
from gateway.settlements import Settlements
from gateway.settler import WINDOWS_AT_ONCE, Settler
from gateway.store import Store
from gateway.telemetry import Telemetry
from gateway.upstream import parse_origin

GPU = Gpu("h100-sxm", "H100", 80, 3.35e12, None, None, None, MEDIAN.sourced, (MEDIAN,))
REGISTRY = Registry({}, {}, {"h100-sxm": GPU}, (), {}, None, "")
MODEL = Model("exaone", Serving(ServingKind.VLLM, "exaone"))


def state(number: int = 0, *, model: Model = MODEL, gpu: str | None = "h100-sxm") -> ReplicaState:
    replica = Replica(f"exaone/{number}", "exaone", f"http://127.0.0.1:{8101 + number}", gpu=gpu)
    return ReplicaState(replica, model, parse_origin(replica.url), (), provenance=Provenance.REAL)


class Stage:
    """A settler whose clock and fleet a test moves by hand."""

    def __init__(self, store: Store) -> None:
        self.states: list[ReplicaState] = []
        self.now = NOON
        self.telemetry = Telemetry()
        self.registry = REGISTRY
        self.settler = self.begin(store)

    def begin(self, store: Store, **more: Any) -> Settler:
        return Settler(
            fleet=self,  # type: ignore[arg-type]
            settlements=Settlements(store),
            telemetry=self.telemetry,
            settings=Settings(settle_after_s=60),
            registry=lambda: self.registry,
            now=lambda: self.now,
            **more,
        )

    async def look_at(self, seconds: float) -> None:
        self.now = at(seconds)
        await self.settler.note_presences()

    def up(self, one: ReplicaState, seconds: float) -> None:
        one.is_up, one.up_since = True, at(seconds)

    def down(self, one: ReplicaState, seconds: float) -> None:
        one.is_up, one.down_since = False, at(seconds)


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[Store]:
    store = await Store.open(database.url)
    yield store
    await store.close()


async def spans(database: ScratchDatabase) -> list[tuple[str, float, float]]:
    rows = await database.rows("SELECT * FROM replica_presences ORDER BY replica, since")
    return [(row["replica"], _seconds(row["since"]), _seconds(row["until"])) for row in rows]


def _seconds(moment: datetime | str) -> float:
    aware = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return (aware.astimezone(UTC) - NOON).total_seconds()


async def test_time_is_paid_from_when_a_replica_was_seen_up_until_it_was_seen_to_go(
    store: Store, database: ScratchDatabase
) -> None:
    stage, one = Stage(store), state()
    stage.states = [one, state(1)]
    await stage.look_at(0)
    stage.up(one, 3)
    await stage.look_at(5)
    await stage.look_at(10)
    assert await spans(database) == [("exaone/0", 3, 10)]
    stage.down(one, 12)
    await stage.look_at(15)
    stage.up(one, 31)
    await stage.look_at(35)
    assert await spans(database) == [("exaone/0", 3, 12), ("exaone/0", 31, 35)]


async def test_a_replica_that_went_and_came_between_two_looks_is_two_presences(
    store: Store, database: ScratchDatabase
) -> None:
    stage, one = Stage(store), state()
    stage.states = [one]
    stage.up(one, 0)
    await stage.look_at(5)
    stage.down(one, 6)
    stage.up(one, 8)
    await stage.look_at(10)
    assert await spans(database) == [("exaone/0", 0, 6), ("exaone/0", 8, 10)]


async def test_a_replica_that_leaves_the_registry_is_paid_until_it_was_last_seen(
    store: Store, database: ScratchDatabase
) -> None:
    stage, one = Stage(store), state()
    stage.states = [one]
    stage.up(one, 0)
    await stage.look_at(5)
    stage.states = []
    await stage.look_at(10)
    await stage.look_at(15)
    assert await spans(database) == [("exaone/0", 0, 5)]


async def test_a_replica_that_is_described_otherwise_goes_on_without_a_gap(
    store: Store, database: ScratchDatabase
) -> None:
    stage, one = Stage(store), state()
    stage.states = [one]
    stage.up(one, 0)
    await stage.look_at(5)
    one.replica = replace(one.replica, gpus=2)
    await stage.look_at(10)
    rows = await database.rows("SELECT gpus, since, until FROM replica_presences ORDER BY since")
    assert [(row["gpus"], _seconds(row["since"]), _seconds(row["until"])) for row in rows] == [(1, 0, 10), (2, 10, 10)]


async def test_hosted_apis_and_unknown_gpus_are_not_paid_by_the_hour(store: Store, database: ScratchDatabase) -> None:
    hosted = Model("exaone", Serving(ServingKind.OPENAI_API, "exaone"))
    stage = Stage(store)
    stage.states = [state(0, model=hosted), state(1, gpu=None)]
    for one in stage.states:
        stage.up(one, 0)
    await stage.look_at(5)
    assert await spans(database) == []


async def test_what_a_killed_gateway_saw_last_is_paid_and_no_more(store: Store, database: ScratchDatabase) -> None:
    stage, one = Stage(store), state()
    stage.states = [one]
    stage.up(one, 0)
    await stage.look_at(5)
    later = Stage(store)  # nothing was said at the end
    later.states = [again := state()]
    later.up(again, 300)
    await later.look_at(305)
    assert await spans(database) == [("exaone/0", 0, 5), ("exaone/0", 300, 305)]


async def test_while_the_database_is_away_presences_wait(tmp_path: Path, sqlite_file: ScratchSqlite) -> None:
    store = await Store.open(sqlite_file.url)
    stage, one = Stage(store), state()
    stage.states = [one]
    stage.up(one, 0)
    await stage.look_at(5)
    async with sqlite_file.gone():
        await stage.look_at(10)
        await stage.look_at(40)
        stage.down(one, 70)
        await stage.look_at(75)
        await stage.settler.settle_due()
    await stage.look_at(80)
    assert await spans(sqlite_file) == [("exaone/0", 0, 70)]
    stage.now = at(1000)
    assert await stage.settler.settle_due() == 2
    rows = await sqlite_file.rows("SELECT paid_us FROM settled_windows ORDER BY window_at")
    assert [row["paid_us"] for row in rows] == [60_000_000, 10_000_000]
    await store.close()


async def test_windows_are_settled_after_the_grace_period_and_their_costs_counted_once(store: Store) -> None:
    stage = Stage(store)
    await store.upsert_calls([call(1, 0, 30), call(2, 10, 30)])
    stage.now = at(119)
    assert await stage.settler.settle_due() == 0
    stage.now = at(120)
    assert await stage.settler.settle_due() == 1
    whole = 0.024583333
    assert counted(stage.telemetry) == pytest.approx(whole, abs=1e-12)
    await store.upsert_calls([call(1, 0, 30)])  # again
    assert await stage.settler.settle_due() == 1
    assert counted(stage.telemetry) == pytest.approx(whole, abs=1e-12)
    await store.upsert_calls([call(2, 10, 20)])  # a correction: less for one, more for the other
    await store.upsert_calls([call(3, 40, 50)])
    await stage.settler.settle_due()
    assert counted(stage.telemetry) == pytest.approx(40 * 2.95 / 3600, abs=1e-8)
    after_a_restart = Stage(store)
    after_a_restart.now = at(10**6)
    await store.upsert_calls([call(n, 0, 30) for n in (1,)])
    assert await after_a_restart.settler.settle_due() == 1
    assert counted(after_a_restart.telemetry) == 0


def counted(telemetry: Telemetry) -> float:
    text = telemetry.render().decode()
    lines = [line for line in text.splitlines() if line.startswith("simsa_cost_total{") and '"gpu_time"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_counter_never_goes_back() -> None:
    telemetry = Telemetry()
    for amount, shown in (("5", 5), ("-2", 5), ("-1", 5), ("4", 6)):
        telemetry.count_settled("exaone", "USD", Decimal(amount))
        assert counted(telemetry) == shown


async def test_a_replica_that_gets_another_name_or_its_gpu_later_pays_no_hour_twice(
    store: Store, database: ScratchDatabase
) -> None:
    stage, renamed, named_later = Stage(store), state(), state(1, gpu=None)
    stage.states = [renamed, named_later]
    for one in stage.states:
        stage.up(one, 0)
    for second in range(0, 3601, 50):
        await stage.look_at(second)
    renamed.replica = replace(renamed.replica, id="exaone/9")
    named_later.replica = replace(named_later.replica, gpu="h100-sxm")
    await stage.look_at(3610)
    await stage.look_at(3620)
    assert await spans(database) == [("exaone/0", 0, 3610), ("exaone/1", 3610, 3620), ("exaone/9", 3610, 3620)]


async def test_a_replica_that_takes_the_name_of_another_begins_where_its_own_name_ends(
    store: Store, database: ScratchDatabase
) -> None:
    stage, first, second = Stage(store), state(), state(1)
    stage.states = [first, second]
    for one in stage.states:
        stage.up(one, 0)
    await stage.look_at(0)
    stage.down(first, 20)
    await stage.look_at(30)
    stage.states = [second]
    second.replica = replace(second.replica, id="exaone/0")
    await stage.look_at(60)
    await stage.look_at(65)
    assert await spans(database) == [("exaone/0", 0, 20), ("exaone/0", 60, 65), ("exaone/1", 0, 60)]


@pytest.mark.parametrize("jump_s", [30 * 86_400, -3600])
async def test_a_clock_that_is_set_or_a_machine_that_slept_pays_no_time_that_nobody_saw(
    store: Store, database: ScratchDatabase, jump_s: int
) -> None:
    stage, one = Stage(store), state()
    stage.states = [one]
    stage.up(one, 0)
    await stage.look_at(5)
    await stage.look_at(5 + jump_s)
    await stage.look_at(10 + jump_s)
    assert sorted(await spans(database)) == sorted([("exaone/0", 0, 5), ("exaone/0", 5 + jump_s, 10 + jump_s)])


async def test_windows_that_the_database_refuses_keep_no_other_waiting(
    store: Store,
) -> None:
    stage = Stage(store)
    refused = [call(n, n * 60, n * 60 + 5, gpus=-1) for n in range(120)]
    await store.upsert_calls([*refused, call(500, 9000, 9010)])
    stage.now = at(20_000)
    with structlog.testing.capture_logs() as told:
        assert await stage.settler.settle_due() == 1
        assert await stage.settler.settle_due() == 0
    assert len([line for line in told if line["event"] == "a window cannot be settled"]) == len(refused)


async def test_a_pass_settles_one_batch_so_that_looks_come_between(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.settler.BATCH_S", 3600.0)  # however slow the machine
    stage = Stage(store)
    await store.upsert_calls([call(n, n * 60, n * 60 + 5) for n in range(WINDOWS_AT_ONCE + 3)])
    stage.now = at(20_000)
    assert [await stage.settler.settle_due() for _ in range(3)] == [WINDOWS_AT_ONCE, 3, 0]


async def test_a_keys_ledgers_agree_with_what_usage_says_after_a_settlement(store: Store) -> None:
    stage = Stage(store)
    books = OwnBooks(now=lambda: 0.0, wall=stage.now.timestamp)
    calls = [call(1, 0, 30), call(2, 10, 30), call(4, 5, 10, cost=Cost(None, None, "unknown", "no price"))]
    await store.upsert_calls(calls)
    await books.restore(Accounts(store).usage(DAY, DAY))
    settler = stage.begin(store, charge=books.correct)
    stage.now = at(1000)
    assert await settler.settle_due() == 1
    await store.upsert_calls([call(2, 10, 20)])
    assert await settler.settle_due() == 1
    anew = OwnBooks(now=lambda: 0.0, wall=NOON.timestamp)
    await anew.restore(Accounts(store).usage(DAY, DAY))
    for key in ("key-1", "key-2"):
        known, read = await books.use(key), await anew.use(key)
        assert known is not None
        assert known == read
        assert known.day.spent["USD"] > 0


UNPRICED = replace(REGISTRY, gpus={"h100-sxm": replace(GPU, prices=())})


async def refused(database: ScratchDatabase) -> list[tuple[str, str]]:
    rows = await database.rows("SELECT reason, refused_under FROM refused_windows")
    return [(row["reason"], row["refused_under"]) for row in rows]


async def test_windows_without_a_price_are_settled_once_one_is_in_the_registry_and_not_tried_before(
    store: Store, database: ScratchDatabase
) -> None:
    stage = Stage(store)
    stage.registry = UNPRICED
    await store.upsert_calls([call(n, n * 60, n * 60 + 5) for n in range(5)])
    stage.now = at(20_000)
    assert [await stage.settler.settle_due() for _ in range(3)] == [5, 0, 0]
    assert await refused(database) == [("the registry has no hourly price for h100-sxm", mark_of(UNPRICED))] * 5
    stage.registry = replace(UNPRICED, sha256="another file, the same prices")
    assert await stage.settler.settle_due() == 0
    stage.registry = REGISTRY
    assert [await stage.settler.settle_due() for _ in range(2)] == [5, 0]
    assert await refused(database) == []
    assert counted(stage.telemetry) == pytest.approx(5 * 5 * 2.95 / 3600, abs=1e-8)
    (usage,) = {row.cost_basis async for row in Accounts(store).usage(DAY, DAY)}
    assert usage == "gpu_time"


async def test_windows_that_were_refused_keep_none_of_now_waiting_once_they_have_a_price(
    store: Store, database: ScratchDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.settler.BATCH_S", 3600.0)  # however slow the machine
    stage = Stage(store)
    stage.registry = UNPRICED
    await store.upsert_calls([call(n, n * 60, n * 60 + 5) for n in range(WINDOWS_AT_ONCE + 60)])
    stage.now = at(20_000)
    assert [await stage.settler.settle_due() for _ in range(2)] == [WINDOWS_AT_ONCE, 60]
    stage.registry = REGISTRY
    await store.upsert_calls([call(500, 19_000, 19_005)])
    assert await stage.settler.settle_due() == WINDOWS_AT_ONCE
    begins = [
        _seconds(row["window_at"])
        for row in await database.rows(
            "SELECT window_at FROM settled_windows WHERE currency IS NOT NULL ORDER BY window_at"
        )
    ]
    assert begins[-1] == 18_960
    assert begins[0] >= 60 * 60
    assert [await stage.settler.settle_due() for _ in range(2)] == [61, 0]


async def test_windows_that_still_have_no_price_are_not_settled_again(store: Store, database: ScratchDatabase) -> None:
    stage = Stage(store)
    stage.registry = replace(REGISTRY, gpus={})
    await store.upsert_calls([call(n, n * 60, n * 60 + 5) for n in range(5)])
    stage.now = at(20_000)
    assert await stage.settler.settle_due() == 5
    stage.registry = UNPRICED
    assert await stage.settler.settle_due() == 0
    assert await refused(database) == [("the registry has no hourly price for h100-sxm", mark_of(UNPRICED))] * 5


def mark_of(registry: Registry) -> str:
    return prices_fingerprint(registry.gpus.get("h100-sxm"))


async def test_a_price_that_came_while_the_gateway_was_down_settles_what_was_refused(
    store: Store, database: ScratchDatabase
) -> None:
    before, after = Stage(store), Stage(store)
    before.registry = replace(REGISTRY, gpus={})
    await store.upsert_calls([call(1, 0, 30)])
    before.now = after.now = at(1000)
    assert await before.settler.settle_due() == 1
    assert await refused(database) == [("the registry does not know the GPU 'h100-sxm'", "")]
    assert await after.settler.settle_due() == 1
    assert counted(after.telemetry) > 0


async def test_a_late_record_of_a_refused_window_is_looked_at_at_once(store: Store, database: ScratchDatabase) -> None:
    stage = Stage(store)
    stage.registry = UNPRICED
    await store.upsert_calls([call(1, 0, 30)])
    stage.now = at(1000)
    assert await stage.settler.settle_due() == 1
    await store.upsert_calls([call(2, 10, 20)])
    assert [await stage.settler.settle_due() for _ in range(2)] == [1, 0]
    rows = await database.rows("SELECT calls FROM settled_windows")
    assert ([row["calls"] for row in rows], len(await refused(database))) == ([2], 1)


async def test_a_window_that_the_database_refused_is_tried_again_with_other_prices(
    store: Store, database: ScratchDatabase
) -> None:
    stage = Stage(store)
    too_dear = replace(GPU, prices=(replace(MEDIAN, per_hour=Decimal(10) ** 15),))
    stage.registry = replace(REGISTRY, gpus={"h100-sxm": too_dear})
    await store.upsert_calls([call(1, 0, 30)])
    stage.now = at(1000)
    assert [await stage.settler.settle_due() for _ in range(2)] == [0, 0]
    assert len(await refused(database)) == 1
    stage.registry = REGISTRY
    assert await stage.settler.settle_due() == 1
    assert await refused(database) == []
