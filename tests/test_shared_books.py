"""Limits that several gateways count together in a real Redis, held against the arithmetic of the one gateway.

The one gateway's books are the oracle: whatever is asked of both in whatever order, both say the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from guards import HANG_S
from hypothesis import HealthCheck, given, settings
from redis.asyncio import Redis
from redis_server import RedisServer

from gateway.books import OwnBooks, Refused, Use
from gateway.domain.accounts import Budget, Limits, Period
from gateway.domain.limits import Hold, Obstacle
from gateway.errors import Unavailable
from gateway.redis_link import LinkDown, Peer, RedisLink
from gateway.shared_books import SharedBooks
from gateway.use_by_day import UsageRow

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
KEY = "key-1"


@pytest.fixture(scope="module")
def lasting_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.remove()


class Clock:
    def __init__(self) -> None:
        self.now_s = NOON.timestamp()

    def __call__(self) -> float:
        return self.now_s


class Known:
    """What the database knows of keys' use, in place of one."""

    def __init__(self) -> None:
        self.rows: list[UsageRow] = []
        self.asked = 0
        self.is_away = False

    async def __call__(self, key: str, first: date, last: date) -> AsyncIterator[UsageRow]:
        self.asked += 1
        if self.is_away:
            raise Unavailable("the database is away")
        for row in self.rows:
            if row.key == key and first <= row.day <= last:
                yield row


def used(day: date, tokens: int, money: str | None = None, *, unpriced: int = 0) -> UsageRow:
    amounts: dict[str, Any] = dict.fromkeys(UsageRow.__dataclass_fields__, 0)
    return UsageRow(
        **{
            **amounts,
            "day": day,
            "organisation": "acme",
            "key": KEY,
            "model": "m",
            "provenance": "simulated",
            "charged_tokens": tokens,
            "cost": None if money is None else Decimal(money),
            "currency": None if money is None else "USD",
            "estimated_cost": None,
            "calls_without_cost": unpriced,
        }
    )


class Gateway:
    """One gateway's side of the books."""

    def __init__(self, link: RedisLink, books: SharedBooks) -> None:
        self.link = link
        self.books = books

    async def settled(self, hold: Hold, tokens: int, price: tuple[str, Decimal] | None = None) -> None:
        self.books.settle(KEY, hold, tokens, price, is_unpriced=False)
        await self.books.flush()


@asynccontextmanager
async def gateway(
    server: RedisServer,
    clock: Clock,
    known: Known | None = None,
    *,
    prefix: str = "t",
    runs: bool = False,
    assumed: int = 1,
) -> AsyncIterator[Gateway]:
    link = RedisLink(
        server.url, prefix=prefix, timeout_s=HANG_S if not runs and assumed == 1 else 0.5, connections=4, describe=said
    )
    link.assumed = assumed
    await link.start()
    books = SharedBooks(link, known or Known(), now=clock, wall=clock, redis_now=clock)
    tasks = [asyncio.create_task(work()) for work in ((link.run, link.listen, books.run) if runs else ())]
    try:
        yield Gateway(link, books)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await link.close()


def said(gateway_id: str) -> Peer:
    return Peer(id=gateway_id, version="0", registry="r", host="h", since=NOON.isoformat())


async def until(condition: Any) -> None:
    async with asyncio.timeout(HANG_S):
        while not condition():
            await asyncio.sleep(0.01)


# --- the oracle ---------------------------------------------------------------------------------------------

MONEY = st.decimals(min_value=0, max_value=5, places=9)
BUDGETS = st.lists(
    st.one_of(
        st.builds(Budget, st.sampled_from(Period), st.just("tokens"), st.integers(0, 400).map(Decimal)),
        st.builds(Budget, st.sampled_from(Period), st.sampled_from(["USD", "KRW"]), MONEY),
    ),
    max_size=3,
).map(tuple)
LIMITS = st.builds(
    Limits,
    requests_per_min=st.none() | st.integers(1, 6),
    tokens_per_min=st.none() | st.integers(1, 300),
    concurrent=st.none() | st.integers(1, 3),
    budgets=BUDGETS,
)
COST = st.none() | st.tuples(st.sampled_from(["USD", "KRW"]), MONEY)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.integers(0, 150), COST, st.booleans()),
        st.tuples(st.just("settle"), st.integers(0, 200), COST, st.booleans()),
        st.tuples(st.just("wait"), st.floats(0, 70), st.none(), st.none()),
        st.tuples(st.just("look"), st.integers(0, 150), COST, st.integers(1, 4)),
        st.tuples(st.just("count"), st.none(), st.none(), st.none()),
        st.tuples(st.just("correct"), st.integers(0, 1), MONEY, st.integers(0, 2)),
        st.tuples(st.just("midnight"), st.none(), st.none(), st.none()),
    ),
    max_size=25,
)
RUNS = iter(range(10**9))


def plain(refused: Refused | None) -> Any:
    """A refusal without the last digits of its waits: scripts tell millionths."""
    if refused is None:
        return None
    refusal, minutes = refused
    waits = [round(wait, 3) for wait in (refusal.wait_s, minutes.requests_reset_s, minutes.tokens_reset_s)]
    return refusal.obstacle, refusal.budget, refusal.left, minutes.requests, minutes.tokens, waits


def plain_use(use: Use | None) -> Any:
    """Amounts that are not 0: what was never touched and what came back to nothing are alike."""
    if use is None:
        return None
    periods = [
        ({name: Decimal(one) for name, one in part.items() if one}, period.unpriced)
        for period in (use.day, use.month)
        for part in (period.spent, period.held)
    ]
    return periods, use.in_flight


@given(LIMITS, STEPS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_asked_both_books_say_the_same(
    lasting_redis: RedisServer, limits: Limits, steps: list[Any]
) -> None:
    asyncio.run(compared(lasting_redis, limits, steps))


async def compared(server: RedisServer, limits: Limits, steps: list[Any]) -> None:
    clock = Clock()
    own = OwnBooks(now=clock, wall=clock)
    open_holds: list[tuple[Hold, Hold]] = []
    prefix = f"t{next(RUNS)}"
    async with gateway(server, clock, prefix=prefix) as one, gateway(server, clock, prefix=prefix) as other:
        for number, (kind, first, cost, more) in enumerate(steps):
            shared = (one, other)[number % 2].books
            if kind == "hold":
                pair = Hold(first, cost, is_free=more), Hold(first, cost, is_free=more)
                told = await own.hold(KEY, limits, pair[0]), await shared.hold(KEY, limits, pair[1])
                assert plain(told[0]) == plain(told[1])
                if told[0] is None:
                    open_holds.append(pair)
                    minutes = [books.minutes(KEY, hold) for books, hold in zip((own, shared), pair, strict=True)]
                    assert [(m.requests, m.tokens) for m in minutes if m] == [
                        (minutes[0].requests, minutes[0].tokens)
                    ] * 2
            elif kind == "settle" and open_holds:
                pair = open_holds.pop(number % len(open_holds))
                own.settle(KEY, pair[0], first, cost, is_unpriced=more)
                (one, other)[number % 2].books.settle(KEY, pair[1], first, cost, is_unpriced=more)
                await (one, other)[number % 2].books.flush()
            elif kind == "wait":
                clock.now_s += first
            elif kind == "midnight":
                clock.now_s = (clock.now_s // 86400 + 1) * 86400
            elif kind == "look":
                asked = [[Hold(first, cost) for _ in range(more)] for _ in range(2)]
                told = await own.look(KEY, limits, asked[0], more), await shared.look(KEY, limits, asked[1], more)
                assert plain(told[0]) == plain(told[1])
            elif kind == "count":
                told = await own.count_request(KEY, limits), await shared.count_request(KEY, limits)
                assert plain(told[0]) == plain(told[1])
            elif kind == "correct" and await own.use(KEY) is not None:
                await shared.use(KEY)  # what is corrected before Redis knows the key, the database tells it later
                began_on = datetime.fromtimestamp(clock.now_s, UTC).date() - timedelta(days=first)
                own.correct(KEY, began_on, {"USD": cost}, more)
                shared.correct(KEY, began_on, {"USD": cost}, more)
                await shared.flush()
        if await own.use(KEY) is not None and await one.books.use(KEY) is not None:
            assert plain_use(await own.use(KEY)) == plain_use(await one.books.use(KEY))


# --- together -----------------------------------------------------------------------------------------------


async def held(books: SharedBooks, limits: Limits, tokens: int = 10) -> Hold | None:
    hold = Hold(tokens, ("USD", Decimal("0.5")))
    return hold if await books.hold(KEY, limits, hold) is None else None


async def test_a_limit_is_one_over_all_gateways(redis: RedisServer) -> None:
    clock, limits = Clock(), Limits(requests_per_min=10)
    async with gateway(redis, clock) as a, gateway(redis, clock) as b, gateway(redis, clock) as c:
        asked = [held(books, limits) for _ in range(10) for books in (a.books, b.books, c.books)]
        passed = [one for one in await asyncio.gather(*asked) if one is not None]
        assert len(passed) == 10
        use = await b.books.use(KEY)
        assert use is not None
        assert (use.in_flight, use.day.held["tokens"], use.day.held["USD"]) == (10, 100, Decimal("5.0"))


async def test_a_call_costs_one_round_trip_before_it_and_none_of_its_own_after_it(redis: RedisServer) -> None:
    async with gateway(redis, Clock()) as a:
        await held(a.books, Limits())  # ledgers are read, scripts are loaded
        asked = 0
        evaluate = a.link.evaluate

        async def counted(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            return await evaluate(*arguments)

        a.link.evaluate = counted  # type: ignore[method-assign]
        holds = [await held(a.books, Limits()) for _ in range(20)]
        assert asked == 20
        for hold in holds:
            assert hold is not None
            a.books.settle(KEY, hold, 5, None, is_unpriced=False)
        await a.books.flush()
        assert asked == 21


async def test_a_batch_that_is_sent_again_counts_once(redis: RedisServer) -> None:
    async with gateway(redis, Clock()) as a:
        hold = await held(a.books, Limits())
        assert hold is not None
        evaluate = a.link.evaluate

        async def answer_lost(name: str, *arguments: Any) -> Any:
            found = await evaluate(name, *arguments)
            if name == "settle" and not lost:
                lost.append(name)
                raise LinkDown("the answer is lost")
            return found

        lost: list[str] = []
        a.link.evaluate = answer_lost  # type: ignore[method-assign]
        await a.settled(hold, 7, ("USD", Decimal("0.25")))
        await a.books.flush()
        use = await a.books.use(KEY)
        assert lost
        assert use is not None
        assert (use.month.spent["tokens"], use.month.spent["USD"], use.in_flight) == (7, Decimal("0.25"), 0)


async def test_what_is_spent_while_a_batch_is_sent_again_counts_too(redis: RedisServer) -> None:
    async with gateway(redis, Clock()) as a:
        holds = [await held(a.books, Limits()) for _ in range(2)]
        evaluate = a.link.evaluate

        async def answer_lost(name: str, *arguments: Any) -> Any:
            found = await evaluate(name, *arguments)
            if name == "settle" and not lost:
                lost.append(name)
                raise LinkDown("the answer is lost")
            return found

        lost: list[str] = []
        a.link.evaluate = answer_lost  # type: ignore[method-assign]
        for hold in holds:
            assert hold is not None
            await a.settled(hold, 7)  # the second one is noted before the first one's batch goes out again
        use = await a.books.use(KEY)
        assert lost
        assert use is not None
        assert (use.month.spent["tokens"], use.in_flight) == (14, 0)


async def test_what_a_dead_gateway_held_is_let_go_of_and_its_ledgers_are_read_anew(redis: RedisServer) -> None:
    clock, known = Clock(), Known()
    async with gateway(redis, clock, known) as a:
        async with gateway(redis, clock, known) as b:
            assert await held(b.books, Limits(concurrent=1)) is not None
        assert await held(a.books, Limits(concurrent=1)) is None
        known.rows = [used(NOON.date(), 33)]  # the dead one's call, as the records have it
        await a.books.release(b.link.id)
        await a.link.forget(b.link.id)
        hold = await held(a.books, Limits(concurrent=1))
        assert hold is not None
        use = await a.books.use(KEY)
        assert use is not None
        assert (use.in_flight, use.day.spent["tokens"], use.day.held["tokens"]) == (1, 33, 10)


async def test_what_was_spent_before_redis_knew_the_key_is_read_from_the_database_once(redis: RedisServer) -> None:
    known = Known()
    known.rows = [used(NOON.date(), 60, "0.5"), used(NOON.date() - timedelta(days=3), 30, "0.25", unpriced=2)]
    limits = Limits(budgets=(Budget(Period.MONTH, "tokens", Decimal(100)),))
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        assert await held(a.books, limits) is not None
        assert await held(b.books, limits) is None
        use = await b.books.use(KEY)
        assert use is not None
        assert (use.day.spent["tokens"], use.month.spent["tokens"]) == (60, 90)
        assert (use.month.spent["USD"], use.month.unpriced) == (Decimal("0.75"), 2)
        assert known.asked == 1


# --- while Redis is away ------------------------------------------------------------------------------------


async def passed(gateways: Sequence[Gateway], limits: Limits, n: int) -> list[tuple[Gateway, Hold]]:
    found = []
    for _ in range(n):
        for one in gateways:
            hold = await held(one.books, limits)
            if hold is not None:
                found.append((one, hold))
    return found


async def test_while_redis_is_away_each_gateway_has_its_share_and_no_more(redis: RedisServer) -> None:
    clock, limits = Clock(), Limits(requests_per_min=9, budgets=(Budget(Period.DAY, "USD", Decimal("2.5")),))
    async with (
        gateway(redis, clock, runs=True) as a,
        gateway(redis, clock, runs=True) as b,
        gateway(redis, clock, runs=True) as c,
    ):
        trio = (a, b, c)
        await until(lambda: all(one.link.live == 3 for one in trio))
        redis.stop()
        await until(lambda: not any(one.link.is_up for one in trio))
        assert not any(one.books.is_shared for one in trio)
        # 9 requests a minute are 3 each; 2.5 USD are 0.83 each, and a call holds 0.5
        assert len(await passed(trio, limits, 5)) == 3
        assert len(await passed(trio, Limits(requests_per_min=9), 5)) == 9 - 3


async def test_what_was_spent_alone_is_handed_in_when_the_same_server_answers_again(redis: RedisServer) -> None:
    async with gateway(redis, Clock(), runs=True) as a:
        assert await held(a.books, Limits()) is not None
        redis.freeze()
        hold = await held(a.books, Limits())
        assert hold is not None, "a server that stands still keeps nobody waiting for longer than its time"
        a.books.settle(KEY, hold, 7, None, is_unpriced=False)
        redis.thaw()
        await until(lambda: a.books.is_shared)
        await a.books.flush()
        use = await a.books.use(KEY)
        assert use is not None
        assert (use.month.spent["tokens"], use.in_flight) == (7, 1)


@pytest.mark.parametrize("is_lost", [False, True], ids=["its file is kept", "its file is lost"])
async def test_after_a_restart_of_redis_no_call_is_counted_twice_or_forgotten(
    redis: RedisServer, is_lost: bool
) -> None:
    known = Known()
    async with gateway(redis, Clock(), known, runs=True) as a:
        hold = await held(a.books, Limits())
        assert hold is not None
        await a.settled(hold, 20)
        redis.lose() if is_lost else redis.stop()
        await until(lambda: not a.link.is_up)
        hold = await held(a.books, Limits())
        assert hold is not None
        a.books.settle(KEY, hold, 7, None, is_unpriced=False)
        known.rows = [used(NOON.date(), 27)]  # both calls are recorded by now
        redis.start()
        await until(lambda: a.books.is_shared)
        await a.books.flush()
        use = await a.books.use(KEY)
        assert use is not None
        assert use.month.spent["tokens"] == 27


async def test_a_key_may_not_be_called_more_often_than_it_may_because_redis_was_away_for_a_moment(
    redis: RedisServer,
) -> None:
    limits = Limits(concurrent=1)
    async with gateway(redis, Clock(), runs=True) as a:
        first = await held(a.books, limits)
        assert first is not None
        redis.freeze()
        await until(lambda: not a.link.is_up)
        redis.thaw()
        await until(lambda: a.books.is_shared)
        assert await held(a.books, limits) is None
        await a.settled(first, 1)
        assert await held(a.books, limits) is not None


async def long_silent(server: RedisServer, *gateways: Gateway) -> None:
    """As if these had last spoken a minute ago."""
    async with Redis.from_url(server.url) as outside:
        for one in gateways:
            told = msgspec.json.decode(await outside.hget("t:gateways", one.link.id), type=Peer)
            old = msgspec.structs.replace(told, at_s=told.at_s - 60)
            await outside.hset("t:gateways", one.link.id, msgspec.json.encode(old))


async def test_who_says_nothing_has_no_share_any_more(redis: RedisServer) -> None:
    async with gateway(redis, Clock(), runs=True) as a, gateway(redis, Clock()) as silent:
        a.link._up_since_s -= 60  # it has been there for long
        await until(lambda: a.link.live == 2)
        await long_silent(redis, silent)
        await until(lambda: list(a.link.silent) == [silent.link.id])
        assert list(a.link.peers) == [a.link.id]


async def test_nobody_is_taken_for_silent_because_redis_was_away(redis: RedisServer) -> None:
    async with gateway(redis, Clock(), runs=True) as a, gateway(redis, Clock()) as other:
        a.link._up_since_s -= 60
        await until(lambda: a.link.live == 2)
        redis.stop()
        await until(lambda: not a.link.is_up)
        redis.start()
        await long_silent(redis, other)
        await until(lambda: a.link.is_up)
        assert (a.link.live, a.link.silent) == (2, {})


async def test_what_the_database_does_not_tell_is_not_taken_for_nothing(redis: RedisServer) -> None:
    known, clock = Known(), Clock()
    known.rows = [used(NOON.date(), 90)]
    limits = Limits(budgets=(Budget(Period.MONTH, "tokens", Decimal(95)),))
    async with gateway(redis, clock, known) as a:
        known.is_away = True
        assert await held(a.books, limits) is not None, "nobody is turned away for it"
        known.is_away = False
        clock.now_s += 60
        assert await held(a.books, limits) is None


async def test_what_was_held_before_a_key_was_read_anew_is_not_added_to_what_the_database_said(
    redis: RedisServer,
) -> None:
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        hold = await held(a.books, Limits())
        assert hold is not None
        assert await held(b.books, Limits()) is not None
        await a.books.release(b.link.id)
        known.rows = [used(NOON.date(), 8)]  # the call of `hold`, recorded before it is settled here
        assert await held(a.books, Limits()) is not None
        await a.settled(hold, 8)
        use = await a.books.use(KEY)
        assert use is not None
        assert use.month.spent["tokens"] == 8


async def test_a_budget_begins_anew_at_midnight_also_without_redis(redis: RedisServer) -> None:
    known, clock = Known(), Clock()
    known.rows = [used(NOON.date(), 90)]
    limits = Limits(budgets=(Budget(Period.DAY, "tokens", Decimal(100)),))
    async with gateway(redis, clock, known, runs=True) as a, gateway(redis, clock, known, runs=True) as b:
        await until(lambda: a.link.live == b.link.live == 2)
        redis.stop()
        await until(lambda: not a.link.is_up)
        assert await held(a.books, limits, tokens=6) is None, "5 of the 10 that are left"
        clock.now_s += 86_400
        assert await held(a.books, limits, tokens=51) is None, "its half of a new day"
        assert await held(a.books, limits, tokens=50) is not None


async def test_a_gateway_that_begins_without_redis_shares_with_as_many_as_it_was_told_of(redis: RedisServer) -> None:
    redis.stop()
    async with gateway(redis, Clock(), assumed=3) as a:
        assert len(await passed([a], Limits(requests_per_min=9), 5)) == 3


async def test_news_reach_the_others_and_not_who_told_them(redis: RedisServer) -> None:
    heard: list[str] = []
    async with gateway(redis, Clock()) as a, gateway(redis, Clock()) as b:
        for name, one in (("a", a), ("b", b)):
            one.link.hear("keys", lambda name=name: heard.append(name))
        tasks = [asyncio.create_task(one.link.listen()) for one in (a, b)]
        try:
            await until(lambda: sorted(heard) == ["a", "b"])  # each looks once when it begins to listen
            await a.link.tell("keys")
            await until(lambda: len(heard) == 3)
            assert heard[2] == "b"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def test_obstacles_of_the_script_are_those_of_the_domain() -> None:
    script = files("gateway").joinpath("lua", "hold.lua").read_text()
    told = {name.value for name in Obstacle if f"'{name.value}'" in script}
    assert told == {name.value for name in Obstacle}
