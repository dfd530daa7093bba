"""Minutes that are old: days are closed, their rows removed, and nothing of what they cost is lost or changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import structlog
from databases import ScratchDatabase
from test_settlements import DAY, NOON, at, call, everything, no_price, presence, price, settle_all, some_load

from gateway.accounts import Accounts
from gateway.cost_sums import CostSums
from gateway.domain.engine_facts import ObservedLoad
from gateway.domain.records import Call, Cost
from gateway.engine_records import EngineRecords, LoadRow
from gateway.kept_minutes import KeptMinutes
from gateway.retention import Retention
from gateway.settings import Settings
from gateway.settlements import Settlements
from gateway.store import Store

SETTINGS = Settings(settled_minutes_keep_days=30, engine_loads_keep_days=10)
TOMORROW = DAY + timedelta(days=1)
MIDNIGHT = 12 * 3600
"""Seconds after noon."""


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[Store]:
    store = await Store.open(database.url)
    yield store
    await store.close()


def retention_at(store: Store, now: datetime, **more: Any) -> Retention:
    return Retention(
        minutes=KeptMinutes(store), engine_records=EngineRecords(store), settings=SETTINGS, now=lambda: now, **more
    )


async def horizon_of(database: ScratchDatabase) -> str:
    (row,) = await database.rows("SELECT open_since FROM settlement_horizon")
    return str(row["open_since"])[:10]


def recorded(now: datetime) -> Call:
    """A call of an hour that nobody pays for by the hour: it shows that records of that time are kept here."""
    elsewhere = call(9998, 0, 1, replica="hosted/0", gpu=None, gpus=None, cost=Cost(Decimal("0.5"), "KRW", "api_price"))
    return replace(elsewhere, opened=replace(elsewhere.opened, id=f"recorded-{now:%Y%m%d}", started_at=now))


async def remove_old(store: Store, now: datetime) -> None:
    """After enough ticks of a clock that is right."""
    await store.upsert_calls([recorded(now)])
    for _ in range(6):
        await retention_at(store, now).remove_old()


async def count(database: ScratchDatabase, *tables: str) -> list[int]:
    return [len(await database.rows(f"SELECT * FROM {table}")) for table in tables]


async def answers(store: Store, last: date = TOMORROW) -> list[Any]:
    """Everything that costs are told from."""
    sums = CostSums(store)
    spent = [await sums.spent(DAY, last, by=by) for by in ("model", "organisation", "day", "run", "replica")]
    used = [row async for row in Accounts(store).usage(DAY, last)]
    return [*spent, used, await sums.gpu_time(DAY, last), await sums.unattributed(DAY, last)]


async def is_whole(store: Store, last: date = TOMORROW) -> bool:
    """Settled calls, idle time and busy time of no settled call are the GPUs' money, exactly."""
    sums = CostSums(store)
    gpu_time = await sums.gpu_time(DAY, last)
    settled = [row.cost for row in await sums.spent(DAY, last, by="replica") if row.basis == "gpu_time"]
    idle = [row.idle for row in gpu_time]
    busy = [row.cost for row in await sums.unattributed(DAY, last)]
    money = sum((row.money for row in gpu_time if row.money is not None), Decimal(0))
    return sum((each for each in (*settled, *idle, *busy) if each is not None), Decimal(0)) == money > 0


async def settled_load(store: Store) -> list[Call]:
    """Two replicas of which one has no price in the second half of a call's minutes."""
    load = some_load(4)
    await store.upsert_calls(load)
    await Settlements(store).note_presences([(presence(-30, 600), at(-30))])
    settlements = Settlements(store)
    for number, key in enumerate(await settlements.list_due(at(10_000))):
        await settlements.settle(key, no_price if number % 4 == 3 else price)
    return load


async def test_answers_are_the_same_after_the_minutes_were_removed(store: Store, database: ScratchDatabase) -> None:
    await settled_load(store)
    before = await answers(store)
    assert await CostSums(store).unattributed(DAY, DAY) != []
    assert await is_whole(store)
    await remove_old(store, NOON + timedelta(days=20))
    assert min(await count(database, "settled_windows", "call_shares", "refused_windows", "replica_presences")) > 0
    await remove_old(store, NOON + timedelta(days=40))
    tables = ("settled_windows", "call_shares", "refused_windows", "unsettled_windows", "replica_presences")
    assert await count(database, *tables) == [0] * len(tables)
    assert await answers(store) == before
    assert await is_whole(store)


async def test_a_record_that_comes_again_after_its_minutes_were_removed_changes_nothing(
    store: Store, database: ScratchDatabase
) -> None:
    load = await settled_load(store)
    await remove_old(store, NOON + timedelta(days=40))
    before, rows = await answers(store), await everything(database)
    await store.upsert_calls(load)
    await Settlements(store).note_presences([(presence(-30, 600), at(-30))])
    assert await settle_all(store) == []
    assert await everything(database) == rows
    assert await answers(store) == before


async def test_a_record_that_is_new_after_its_minutes_were_removed_stays_provisional(
    store: Store, database: ScratchDatabase
) -> None:
    await settled_load(store)
    await remove_old(store, NOON + timedelta(days=40))
    late = call(77, 20, 50)
    await store.upsert_calls([late])
    assert await settle_all(store) == []
    found = await store.get_call("call-0077")
    assert isinstance(found, Call)
    assert found.cost == Cost(Decimal("0.01"), "USD", "gpu_time_provisional")
    assert await count(database, "call_shares") == [0]
    assert await is_whole(store)


async def test_a_correction_after_its_minutes_were_removed_leaves_what_a_call_cost(store: Store) -> None:
    await store.upsert_calls([call(1, 10, 70)])
    await settle_all(store)
    before = await store.get_call("call-0001")
    await remove_old(store, NOON + timedelta(days=40))
    for changes in ({"gpu": "h200"}, {"gpu": None, "gpus": None}, {"ended_at": NOON + timedelta(days=40)}):
        await store.upsert_calls([call(1, 10, 70, **{**changes, "dispatched_at": at(5)})])
        assert await settle_all(store, before=NOON + timedelta(days=50)) == []
        found = await store.get_call("call-0001")
        assert isinstance(found, Call)
        assert isinstance(before, Call)
        if changes.get("gpu", "") is not None:
            assert found.cost == before.cost
        assert await is_whole(store)


async def test_a_correction_into_open_time_leaves_what_a_call_cost_however_often_it_is_written(store: Store) -> None:
    await store.upsert_calls([call(1, 10, 70)])
    await settle_all(store)
    before = await store.get_call("call-0001")
    assert isinstance(before, Call)
    await remove_old(store, NOON + timedelta(days=40))
    late = NOON + timedelta(days=39)
    for gpu in ("h100-sxm", "h100-sxm", "h200"):
        fix = call(1, 10, 70, dispatched_at=late, ended_at=late + timedelta(seconds=20), gpu=gpu)
        await store.upsert_calls([fix])
        assert await settle_all(store, before=NOON + timedelta(days=50)) == []
        found = await store.get_call("call-0001")
        assert isinstance(found, Call)
        assert found.cost == before.cost
        assert await is_whole(store, (NOON + timedelta(days=50)).date())


async def test_a_call_over_the_horizon_keeps_all_its_shares(store: Store, database: ScratchDatabase) -> None:
    """The horizon is a midnight; the call has a closed minute and an open one, which another call opens again."""
    over = call(1, MIDNIGHT - 30, MIDNIGHT + 30)
    await store.upsert_calls([over])
    await settle_all(store)
    await remove_old(store, datetime.combine(TOMORROW, NOON.timetz()) + timedelta(days=30))
    assert await count(database, "call_shares", "settled_windows") == [2, 2]
    await store.upsert_calls([over, call(2, MIDNIGHT + 10, MIDNIGHT + 50)])
    await settle_all(store)
    first = await store.get_call("call-0001")
    assert isinstance(first, Call)
    assert first.cost.basis == "gpu_time"
    assert first.cost.amount is not None
    assert Decimal("0.0245") < first.cost.amount < Decimal("0.0492")
    assert await is_whole(store)


async def test_a_new_call_over_the_horizon_is_busy_time_of_no_settled_call(
    store: Store, database: ScratchDatabase
) -> None:
    await store.upsert_calls([call(1, MIDNIGHT - 60, MIDNIGHT - 30), call(2, MIDNIGHT + 40, MIDNIGHT + 50)])
    await settle_all(store)
    await remove_old(store, datetime.combine(TOMORROW, NOON.timetz()) + timedelta(days=30))
    await store.upsert_calls([call(3, MIDNIGHT - 20, MIDNIGHT + 20)])
    await settle_all(store)
    found = await store.get_call("call-0003")
    assert isinstance(found, Call)
    assert found.cost.basis == "gpu_time_provisional"
    (row,) = await CostSums(store).unattributed(DAY, TOMORROW)
    assert row.day == TOMORROW
    assert row.cost > 0
    assert await is_whole(store)


async def test_days_are_not_closed_before_their_minutes_are_settled(store: Store, database: ScratchDatabase) -> None:
    await store.upsert_calls([call(1, 10, 70)])
    await remove_old(store, NOON + timedelta(days=400))
    assert await count(database, "unsettled_windows", "call_shares") == [2, 2]
    assert len(await settle_all(store)) == 1
    kept, now = KeptMinutes(store), NOON + timedelta(days=43)
    await store.upsert_calls([recorded(now)])
    horizons = [await kept.close(now, timedelta(days=30)) for _ in range(10)]
    assert horizons == sorted(horizons)
    assert horizons[-1] == (now - timedelta(days=30)).replace(hour=0)
    assert await kept.close(NOON, timedelta(days=30)) == horizons[-1]


async def test_a_wrong_clock_at_a_tick_closes_nothing_of_the_newest_days(
    store: Store, database: ScratchDatabase
) -> None:
    """Nothing was recorded at that time: the clock was never there while calls or replicas were seen."""
    await store.upsert_calls([call(1, 10, 70)])
    await settle_all(store)
    await retention_at(store, NOON + timedelta(days=200)).remove_old()
    assert await horizon_of(database) == "2026-10-28"  # thirty days before what was recorded last
    later = NOON + timedelta(days=1)
    late = call(2, 10, 70, dispatched_at=later, ended_at=later + timedelta(seconds=60))
    await store.upsert_calls([late])
    assert len(await settle_all(store, before=NOON + timedelta(days=2))) == 1


async def test_a_wrong_clock_whose_records_came_closes_a_few_days_a_tick(
    store: Store, database: ScratchDatabase
) -> None:
    await store.upsert_calls([call(1, 10, 70), recorded(NOON + timedelta(days=200))])
    await settle_all(store)
    await retention_at(store, NOON + timedelta(days=200)).remove_old()
    assert await horizon_of(database) == "2026-11-30"
    await retention_at(store, NOON + timedelta(days=200)).remove_old()
    assert await horizon_of(database) == "2026-12-03"


async def test_it_is_told_as_an_error_where_the_present_is_closed(store: Store) -> None:
    await store.upsert_calls([call(1, 10, 70)])
    await settle_all(store)
    await remove_old(store, NOON + timedelta(days=200))
    with structlog.testing.capture_logs() as told:
        await retention_at(store, NOON + timedelta(days=1)).remove_old()
    (line,) = [each for each in told if each["log_level"] == "error"]
    assert line["event"].startswith("nothing is settled")


class RemovingAfterDays:
    """A store whose old minutes are removed just after sums of days were read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.removed = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self._store.transaction() as connection:
            self._execute, self.dialect = connection.execute, connection.dialect
            yield self

    async def execute(self, statement: Any) -> Any:
        found = await self._execute(statement)
        if "gpu_days" in str(statement):
            self.removed = await KeptMinutes(self._store).remove_some(NOON + timedelta(days=40))
        return found


async def test_minutes_that_are_removed_while_sums_are_read_are_counted_once(store: Store) -> None:
    await settled_load(store)
    before = await CostSums(store).unattributed(DAY, TOMORROW)
    removing = RemovingAfterDays(store)
    assert await CostSums(removing).unattributed(DAY, TOMORROW) == before != []  # type: ignore[arg-type]
    assert removing.removed > 0
    assert await CostSums(store).unattributed(DAY, TOMORROW) == before


async def test_old_minutes_are_removed_soon_after_the_start_and_then_every_hour(store: Store) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await retention_at(store, NOON, wait=wait).run()
    assert waits == [60, 3600, 3600]


async def test_a_replica_that_is_up_for_longer_than_minutes_are_kept_is_still_paid(
    store: Store, database: ScratchDatabase
) -> None:
    settlements, now = Settlements(store), NOON + timedelta(days=40)
    await settlements.note_presences([(presence(0, 60), at(0))])
    await settle_all(store)
    await settlements.note_presences([(replace(presence(0, 0), until=now), now - timedelta(seconds=60))])
    await remove_old(store, now)
    await settle_all(store, before=now + timedelta(days=1))
    assert await count(database, "replica_presences") == [1]
    (row,) = await CostSums(store).gpu_time(now.date(), now.date())
    assert row.paid_s == 60


async def test_old_looks_at_engines_are_removed_and_newer_ones_stay(store: Store) -> None:
    records = EngineRecords(store)
    moments = [NOON - timedelta(days=days) for days in (30, 11, 9, 0)]
    loads = [LoadRow("report", "me", moment, 60, ObservedLoad(1, moment, moment)) for moment in moments]
    await records.save([], loads)
    await remove_old(store, NOON)
    seen = await records.observed("report")
    assert seen is not None
    assert (seen.looks, seen.first_look) == (2, moments[2])
