"""Settlement in real databases of both kinds: the same rows and sums whatever was recorded when, how often, and
whatever was killed in between."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from alembic import command
from databases import Row, ScratchDatabase
from test_store import on_schema, steps_on

from gateway.accounts import Accounts
from gateway.cost_sums import CostSums
from gateway.domain.cost import PriceInForce
from gateway.domain.records import (
    Call,
    CallOpened,
    CallStatus,
    Confidence,
    Cost,
    GpuPrice,
    Provenance,
    Sourced,
    Timing,
    Usage,
)
from gateway.domain.settlement import WeightCell, fit_prompt_weight, microseconds, money_between
from gateway.errors import Unavailable
from gateway.settled_shares import WindowKey
from gateway.settlements import Presence, SettledChange, Settlements
from gateway.store import Store, upgrade

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
DAY = NOON.date()
LATER = NOON + timedelta(days=2)
MEDIAN = GpuPrice(
    Decimal("2.95"), "USD", "list_median", "public lists", date(2026, 11, 23), Sourced("LISTS", Confidence.MEDIUM)
)
SUMS = ("use_by_day", "spent_by_day", "gpu_days")
TABLES = ("settled_windows", "call_shares", "unsettled_windows", "refused_windows", *SUMS)


def price(_gpu: str, _on: date) -> PriceInForce:
    return PriceInForce(MEDIAN)


def no_price(gpu: str, _on: date) -> PriceInForce:
    return PriceInForce(None, f"the registry has no hourly price for {gpu}")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def call(number: int, begin_s: float, end_s: float, **changes: Any) -> Call:
    """A call from one second after noon to another, counted unless told otherwise."""
    opened = CallOpened(
        id=f"call-{number:04d}",
        request_id=f"request-{number}",
        started_at=at(begin_s - 0.5),
        model="exaone",
        endpoint="chat_completions",
        streamed=True,
        organisation="acme" if number % 2 else "globex",
        key=f"key-{number % 3}",
        run_id="run-1" if number % 2 else None,
    )
    made = Call(
        opened=opened,
        ended_at=at(end_s),
        status=CallStatus.OK,
        http_status=200,
        replica="exaone/0",
        provenance=Provenance.SIMULATED,
        attempts=1,
        error_type=None,
        error_code=None,
        error_message=None,
        finish_reason="stop",
        usage=Usage(100 * number + 8, 10 * number + 1, 8, None, "engine"),
        timing=Timing(ttft_s=0.5 + (end_s - begin_s) / 4),
        cost=Cost(Decimal("0.01"), "USD", "gpu_time_provisional"),
        charged_tokens=5,
        dispatched_at=at(begin_s),
        gpu="h100-sxm",
        gpus=1,
    )
    return replace(made, **changes)


def presence(begin_s: float, end_s: float, **changes: Any) -> Presence:
    seen = Presence("up-1", "exaone/0", "h100-sxm", 1, "exaone", Provenance.SIMULATED, at(begin_s), at(end_s))
    return replace(seen, **changes)


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[Store]:
    store = await Store.open(database.url)
    yield store
    await store.close()


async def settle_all(store: Store, find_price: Any = price, before: datetime = LATER) -> list[SettledChange]:
    settlements = Settlements(store)
    changes: list[SettledChange] = []
    while due := await settlements.list_due(before):
        for key in due:
            changes += await settlements.settle(key, find_price)
    return changes


async def everything(database: ScratchDatabase) -> dict[str, list[Row]]:
    """All rows that settlement writes, and the calls' settled costs, without what is no longer counted."""
    found = {table: await database.rows(f"SELECT * FROM {table}") for table in TABLES}
    for table, count in zip(SUMS, ("calls", "calls", "windows"), strict=True):
        found[table] = [row for row in found[table] if int(row[count])]
    found["calls"] = await database.rows("SELECT id, settled_cost, settled_currency FROM calls")
    return {name: sorted(map(_plain, rows), key=str) for name, rows in found.items()}


def _plain(row: Row) -> Row:
    """Exact numbers without the form that they were kept in."""
    exact = {"cost", "settled_cost", "price_per_hour", "weight"}
    return {k: Decimal(v).normalize() if k in exact and v is not None else str(v) for k, v in row.items()}


def some_load(seed: int) -> list[Call]:
    """Thirty calls over five minutes: short, long, overlapping, without length, without tokens, on two replicas."""
    draws = random.Random(seed)
    calls = []
    for number in range(30):
        begin = draws.uniform(0, 240)
        length = draws.choice([0.0, 0.2, 3.0, 70.0, 130.0])
        changes: dict[str, Any] = {"replica": draws.choice(["exaone/0", "exaone/1"])}
        if number % 7 == 0:
            changes["usage"] = Usage()
            changes["status"] = CallStatus.CANCELLED
        if number % 5 == 0:
            changes["timing"] = Timing()
        calls.append(call(number, round(begin, 6), round(begin + length, 6), **changes))
    return calls


# --- adding up ----------------------------------------------------------------------------------------------


async def test_calls_and_idle_time_add_up_to_the_gpu_money(store: Store, database: ScratchDatabase) -> None:
    load = some_load(1)
    await store.upsert_calls(load)
    seen = [presence(-30, 600), presence(0, 500.5, id="up-2", replica="exaone/1")]
    await Settlements(store).note_presences([(one, one.since) for one in seen])
    await settle_all(store)
    rows = await database.rows("SELECT * FROM settled_windows")
    paid = sum(money_between(MEDIAN.per_hour, 1, microseconds(s.since), microseconds(s.until)) for s in seen)
    assert sum(int(row["money_nanos"]) for row in rows) == paid
    costs = [found.cost for one in load if isinstance(found := await store.get_call(one.opened.id), Call)]
    assert {(cost.basis, cost.currency) for cost in costs} == {("gpu_time", "USD")}
    settled = sum((cost.amount for cost in costs if cost.amount is not None), Decimal(0))
    idle = Decimal(sum(int(row["idle_nanos"]) for row in rows)).scaleb(-9)
    assert settled + idle == Decimal(paid).scaleb(-9)
    used = [row async for row in Accounts(store).usage(DAY, DAY)]
    assert sum((row.cost for row in used if row.cost is not None), Decimal(0)) == settled
    assert {row.cost_basis for row in used} == {"gpu_time"}
    assert sum(row.calls for row in used) == len(load)


async def test_a_replica_that_nobody_calls_is_settled_as_idle(store: Store, database: ScratchDatabase) -> None:
    await Settlements(store).note_presences([(presence(30, 90), at(30))])
    await settle_all(store)
    rows = await database.rows("SELECT * FROM settled_windows ORDER BY window_at")
    assert [(row["paid_us"], row["busy_us"], row["calls"]) for row in rows] == [(30_000_000, 0, 0)] * 2
    assert sum(row["idle_nanos"] for row in rows) == sum(row["money_nanos"] for row in rows) == 49_166_667
    assert rows[0]["price_tier"] == "list_median"
    assert str(rows[0]["price_on"]) == "2026-11-23"


async def test_time_that_is_seen_later_opens_its_windows_again(store: Store, database: ScratchDatabase) -> None:
    settlements = Settlements(store)
    await settlements.note_presences([(presence(0, 10), at(0))])
    await settle_all(store)
    await settlements.note_presences([(presence(0, 130), at(10))])
    await settle_all(store)
    rows = await database.rows("SELECT paid_us FROM settled_windows ORDER BY window_at")
    assert [row["paid_us"] for row in rows] == [60_000_000, 60_000_000, 10_000_000]


async def test_a_window_waits_until_its_records_can_be_expected(store: Store) -> None:
    await store.upsert_calls([call(1, 10, 20)])
    assert await Settlements(store).list_due(at(59.9)) == []
    assert await Settlements(store).list_due(at(60)) == [WindowKey("exaone/0", "h100-sxm", 1, NOON)]


async def test_a_call_is_provisional_until_its_last_window_is_settled(store: Store) -> None:
    await store.upsert_calls([call(1, 10, 70)])
    assert await settle_all(store, before=at(60)) == []
    provisional = await store.get_call("call-0001")
    assert isinstance(provisional, Call)
    assert provisional.cost.basis == "gpu_time_provisional"
    (change,) = await settle_all(store)
    settled = await store.get_call("call-0001")
    assert isinstance(settled, Call)
    assert settled.cost == Cost(change.amount, "USD", "gpu_time")
    assert change.amount == Decimal(60 * 2.95 / 3600).quantize(Decimal("1e-9"))


async def test_a_price_that_nobody_knows_gives_no_money_and_a_reason(store: Store, database: ScratchDatabase) -> None:
    await store.upsert_calls([call(1, 10, 20, cost=Cost(None, None, "unknown", "no price"))])
    assert await settle_all(store, no_price) == []
    (row,) = await database.rows("SELECT * FROM settled_windows")
    assert (row["money_nanos"], row["idle_nanos"], row["currency"]) == (None, None, None)
    assert row["reason"] == "the registry has no hourly price for h100-sxm"
    found = await store.get_call("call-0001")
    assert isinstance(found, Call)
    assert (found.cost.amount, found.cost.basis) == (None, "unknown")
    (used,) = [row async for row in Accounts(store).usage(DAY, DAY)]
    assert (used.cost, used.calls_without_cost) == (None, 1)


async def test_what_is_not_paid_by_the_hour_has_no_windows(store: Store) -> None:
    hosted = call(1, 0, 5, gpu=None, gpus=None, cost=Cost(Decimal("0.5"), "KRW", "api_price"))
    unreached = call(2, 0, 5, replica=None, dispatched_at=None)
    set_clock = call(3, 0, 86_400 * 365)
    await store.upsert_calls([hosted, unreached, set_clock])
    assert await Settlements(store).list_due(at(10**9)) == []
    assert await store.get_call("call-0001") == hosted


# --- again, late, in any order, killed ----------------------------------------------------------------------


async def test_settling_and_recording_again_changes_nothing(store: Store, database: ScratchDatabase) -> None:
    load = some_load(2)
    await store.upsert_calls(load)
    await Settlements(store).note_presences([(presence(0, 400), at(0))])
    await settle_all(store)
    before = await everything(database)
    for _ in range(2):
        await store.upsert_calls(load)
        await Settlements(store).note_presences([(presence(0, 400), at(0))])
        assert await settle_all(store) == []
        assert await everything(database) == before


async def test_a_late_record_opens_its_windows_again(store: Store, database: ScratchDatabase) -> None:
    early, late = call(1, 10, 50), call(2, 20, 40)
    await store.upsert_calls([early])
    (alone,) = await settle_all(store)
    await store.upsert_calls([late])
    changes = await settle_all(store)
    assert len(await database.rows("SELECT * FROM settled_windows")) == 1
    costs = [found.cost.amount for n in (1, 2) if isinstance(found := await store.get_call(f"call-000{n}"), Call)]
    assert sum(c.amount for c in (alone, *changes)) == sum(c for c in costs if c is not None) == alone.amount


async def test_a_record_that_says_something_else_leaves_the_windows_that_it_leaves(
    store: Store, database: ScratchDatabase
) -> None:
    await store.upsert_calls([call(1, 10, 130), call(2, 10, 130)])
    await settle_all(store)
    await store.upsert_calls([call(1, 10, 50, replica="exaone/1"), call(2, 10, 50)])
    await settle_all(store)
    after = await everything(database)
    await database.empty()
    await store.upsert_calls([call(1, 10, 50, replica="exaone/1"), call(2, 10, 50)])
    await settle_all(store)
    assert await everything(database) == after


@pytest.mark.parametrize("seed", range(6))
async def test_any_order_of_records_replays_and_settlements_gives_the_same_rows(
    store: Store, database: ScratchDatabase, seed: int
) -> None:
    load, draws = some_load(seed), random.Random(seed)
    seen = [presence(0, 300), presence(100, 400, id="up-2", replica="exaone/1")]
    settlements = Settlements(store)
    counted: dict[str, Decimal] = {}

    def count(changes: list[SettledChange]) -> None:
        for change in changes:
            counted[change.currency] = counted.get(change.currency, Decimal(0)) + change.amount

    await store.upsert_calls(load)
    await settlements.note_presences([(one, one.since) for one in seen])
    await settle_all(store)
    at_once = await everything(database)
    await database.empty()

    steps: list[Callable[[], Awaitable[Any]]] = []
    for _ in range(3):  # every record up to three times
        shuffled = draws.sample(load, len(load))
        for start in range(0, len(load), 7):
            some = shuffled[start : start + 7]
            steps.append(lambda some=some: store.upsert_calls([*some, *(one.opened for one in some)]))
        for one in seen:
            half = replace(one, until=one.since + (one.until - one.since) / 2)
            steps.append(lambda half=half: settlements.note_presences([(half, half.since)]))
    draws.shuffle(steps)
    for step in steps:
        await step()
        for key in draws.sample(due := await settlements.list_due(LATER), min(len(due), 4)):
            count(await settlements.settle(key, price))
            if draws.random() < 0.3:
                count(await settlements.settle(key, price))
    for one in seen:
        await settlements.note_presences([(one, one.since)])
    count(await settle_all(store))
    assert await everything(database) == at_once
    whole = sum((row["settled_cost"] for row in at_once["calls"] if row["settled_cost"]), Decimal(0))
    assert counted == {"USD": whole}


async def test_a_settlement_that_breaks_off_leaves_nothing_behind_and_is_done_again(
    store: Store, database: ScratchDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever statement the process or the connection dies at, the transaction is whole or was never."""
    await store.upsert_calls(some_load(3))
    await Settlements(store).note_presences([(presence(0, 400), at(0))])
    before = await everything(database)
    (first, *_) = await Settlements(store).list_due(LATER)
    broken = 0
    for at_statement in range(1, 30):
        dying = _DiesAt(store, at_statement)
        try:
            await Settlements(dying).settle(first, price)  # type: ignore[arg-type]
        except Unavailable:
            broken += 1
            assert await everything(database) == before
        else:
            break
    assert broken >= 8
    await settle_all(store)
    after = await everything(database)
    await database.empty()
    await store.upsert_calls(some_load(3))
    await Settlements(store).note_presences([(presence(0, 400), at(0))])
    await settle_all(store)
    assert await everything(database) == after


class _DiesAt:
    """A store whose connection breaks at a statement."""

    def __init__(self, store: Store, at_statement: int) -> None:
        self._store = store
        self._left = at_statement

    def writing_calls(self) -> Any:
        return _Dying(self._store.writing_calls(), self._left)

    def transaction(self) -> Any:
        return _Dying(self._store.transaction(), self._left)


class _Dying:
    def __init__(self, real: Any, left: int) -> None:
        self._real = real
        self._left = left

    async def __aenter__(self) -> Any:
        self._connection = await self._real.__aenter__()
        return self

    async def __aexit__(self, *what: Any) -> Any:
        return await self._real.__aexit__(*what)

    @property
    def dialect(self) -> Any:
        return self._connection.dialect

    async def execute(self, *arguments: Any) -> Any:
        self._left -= 1
        if self._left <= 0:
            raise OSError("the connection is gone")
        return await self._connection.execute(*arguments)


# --- weights ------------------------------------------------------------------------------------------------


async def test_a_measured_weight_counts_from_its_measuring_on_and_is_kept_with_the_window(
    store: Store, database: ScratchDatabase
) -> None:
    settlements = Settlements(store)
    cells = [WeightCell(p, c, 0.001 * (0.1 * p + c)) for p, c in ((1000, 10), (10, 1000), (500, 500), (2000, 100))]
    fitted, simulated = fit_prompt_weight(cells), Provenance.SIMULATED
    await settlements.keep_weight("exaone", "h100-sxm", fitted, provenance=simulated, at=at(100), source="run-7")
    with pytest.raises(ValueError, match="assumed"):
        await settlements.keep_weight(
            "exaone", "h100-sxm", fit_prompt_weight([]), provenance=Provenance.SIMULATED, at=at(0), source="run-7"
        )
    other = replace(fitted, value=Decimal(3))
    await settlements.keep_weight("exaone", "h100-sxm", other, provenance=Provenance.REAL, at=at(0), source="run-7")
    load = [call(1, 0, 30), call(2, 0, 30), call(3, 70, 90)]
    await store.upsert_calls(load)
    await settle_all(store)
    rows = await database.rows("SELECT weight, weight_basis FROM settled_windows ORDER BY window_at")
    assert [(Decimal(row["weight"]), row["weight_basis"]) for row in rows] == [
        (Decimal("0.25"), "assumed"),
        (Decimal("0.1"), "fitted"),
    ]
    await settlements.keep_weight("exaone", "h100-sxm", other, provenance=simulated, at=at(1), source="run-8")
    before = await everything(database)
    await store.upsert_calls(load)
    await settle_all(store)
    assert await everything(database) == before


async def test_a_window_keeps_the_price_that_it_was_settled_with(store: Store, database: ScratchDatabase) -> None:
    await store.upsert_calls([call(1, 0, 30)])
    await settle_all(store)
    before = await everything(database)

    def dearer(_gpu: str, _on: date) -> PriceInForce:
        return PriceInForce(replace(MEDIAN, per_hour=Decimal(99), currency="KRW"))

    await store.upsert_calls([call(1, 0, 30)])
    await settle_all(store, dearer)
    assert await everything(database) == before


async def test_a_call_that_is_rewritten_with_fewer_windows_has_the_cost_of_those(store: Store) -> None:
    await store.upsert_calls([call(1, 0, 90)])
    await settle_all(store)
    await store.upsert_calls([call(1, 0, 60)])
    await settle_all(store)
    found = await store.get_call("call-0001")
    assert isinstance(found, Call)
    assert found.cost.amount == Decimal(60 * 2.95 / 3600).quantize(Decimal("1e-9"), rounding="ROUND_DOWN")


async def test_a_call_that_moves_to_a_gpu_without_price_keeps_no_settled_cost(store: Store) -> None:
    def find_price(gpu: str, on: date) -> PriceInForce:
        return price(gpu, on) if gpu == "h100-sxm" else no_price(gpu, on)

    await store.upsert_calls([call(1, 0, 30)])
    await settle_all(store)
    await store.upsert_calls([call(1, 0, 30, gpu="h200")])
    (change,) = await settle_all(store, find_price)
    found = await store.get_call("call-0001")
    assert isinstance(found, Call)
    assert found.cost.basis == "gpu_time_provisional"
    assert change.amount == -Decimal("0.024583333")
    (used,) = [row async for row in Accounts(store).usage(DAY, DAY)]
    assert (used.cost, used.cost_basis) == (Decimal("0.01"), "gpu_time_provisional")


async def test_a_settlement_says_what_it_charges_each_key_beyond_what_was_known(store: Store) -> None:
    unknown = Cost(None, None, "unknown", "no price")
    await store.upsert_calls([call(1, 0, 30), call(2, 40, 50, cost=unknown)])
    told = {change.key: change for change in await settle_all(store)}
    assert told["key-1"].charged == {"USD": told["key-1"].amount - Decimal("0.01")}
    assert told["key-2"].charged == {"USD": told["key-2"].amount}
    assert [told[key].without_cost for key in ("key-1", "key-2")] == [0, -1]
    assert {change.began_on for change in told.values()} == {call(1, 0, 30).opened.started_at.date()}


async def test_busy_money_of_calls_without_a_settled_cost_is_a_sum_of_its_own(store: Store) -> None:
    def find_price(gpu: str, on: date) -> PriceInForce:
        return no_price(gpu, on) if next(turns) else price(gpu, on)

    turns = iter([False, True])
    await store.upsert_calls([call(1, 0, 90), call(2, 10, 40)])
    await settle_all(store, find_price)
    sums = CostSums(store)
    (row,) = await sums.unattributed(DAY, DAY)
    (gpu_time,) = [each for each in await sums.gpu_time(DAY, DAY, model="exaone") if each.currency is not None]
    settled = [each.cost for each in await sums.spent(DAY, DAY, by="model") if each.basis == "gpu_time"]
    assert (row.replica, row.currency, row.day) == ("exaone/0", "USD", DAY)
    assert row.cost > 0
    assert gpu_time.idle is not None
    assert sum((cost for cost in settled if cost is not None), row.cost + gpu_time.idle) == gpu_time.money
    assert await sums.unattributed(DAY, DAY, model="another") == []
    assert await sums.unattributed(date.min, date.min) == []


async def test_sums_of_days_are_made_of_what_was_settled_before_there_were_any(
    store: Store, database: ScratchDatabase
) -> None:
    """The step of the schema that makes them says the same as settling does."""
    await store.upsert_calls([*some_load(5), call(50, 0, 30, gpu="h200"), call(51, 0, 9, gpu=None, gpus=None)])
    await Settlements(store).note_presences([(presence(-30, 600), at(-30))])
    await settle_all(store, lambda gpu, on: price(gpu, on) if gpu == "h100-sxm" else no_price(gpu, on))
    before = await everything(database)
    await store.close()
    await on_schema(database.url, lambda connection: command.downgrade(steps_on(connection), "0006"))
    await upgrade(database.url)
    after = await everything(database)
    assert {row["refused_under"] for row in after["refused_windows"]} == {"before 0007"}
    for rows in (before, after):
        for row in rows["refused_windows"]:
            del row["refused_under"]
    assert after == before
