"""Limits that several gateways count together in a real Redis, held against the arithmetic of the one gateway.

The one gateway's books are the oracle: whatever is asked of both in whatever order, both say the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from itertools import count
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from guards import HANG_S
from hypothesis import HealthCheck, given, settings
from redis.asyncio import Redis
from redis_server import RedisServer

from gateway.background import end_all
from gateway.books import KeySpent, OwnBooks, Refused, Spent, Use
from gateway.domain.accounts import Budget, Limits, Period
from gateway.domain.limits import Hold, Obstacle
from gateway.errors import Unavailable
from gateway.redis_link import LinkDown, Peer, RedisLink, ScriptFailed
from gateway.shared_books import SharedBooks

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
    """What the database knows of the key's use, in place of one."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[date, int, Mapping[str, Decimal], int]] = {}
        """Day, tokens, money and 1 where the cost is unknown, of each call that has ended there."""
        self.asked = 0
        self.is_away = False
        self.before_it_looks: Callable[[], Awaitable[None]] | None = None
        self.after_it_looked: Callable[[], Awaitable[None]] | None = None
        """What happens once while it is asked."""

    def write(
        self,
        call: str,
        tokens: int,
        money: Mapping[str, Decimal] | None = None,
        *,
        day: date | None = None,
        unpriced: int = 0,
    ) -> None:
        self.calls[call] = day or NOON.date(), tokens, money or {}, unpriced

    async def __call__(self, key: str, today: date, calls: Sequence[str]) -> KeySpent:
        assert key == KEY
        self.asked += 1
        if self.is_away:
            raise Unavailable("the database is away")
        await asyncio.sleep(0)
        happening, self.before_it_looks = self.before_it_looks, None
        if happening is not None:
            await happening()
        of_day = [one for one in self.calls.values() if one[0] == today]
        of_month = [one for one in self.calls.values() if one[0].replace(day=1) == today.replace(day=1)]
        found = KeySpent(sum_of(of_day), sum_of(of_month), frozenset(call for call in calls if call in self.calls))
        happening, self.after_it_looked = self.after_it_looked, None
        if happening is not None:
            await happening()
        return found


def sum_of(calls: Sequence[tuple[date, int, Mapping[str, Decimal], int]]) -> Spent:
    amounts: dict[str, Any] = {"tokens": sum(tokens for _, tokens, _, _ in calls)}
    for _, _, money, _ in calls:
        for currency, amount in money.items():
            amounts[currency] = amounts.get(currency, Decimal(0)) + amount
    return Spent(amounts, {"tokens": 0}, sum(unpriced for *_, unpriced in calls))


CALLS = (f"call-{number}" for number in count())


class Gateway:
    """One gateway's side of the books."""

    def __init__(self, link: RedisLink, books: SharedBooks, known: Known) -> None:
        self.link = link
        self.books = books
        self.known = known

    def end(self, hold: Hold, tokens: int, price: tuple[str, Decimal] | None = None) -> str:
        """A call is over; its record waits. Its id."""
        call = next(CALLS)
        self.books.settle(KEY, hold, tokens, price, is_unpriced=False, call=call)
        return call

    async def settled(self, hold: Hold, tokens: int, price: tuple[str, Decimal] | None = None) -> str:
        call = self.end(hold, tokens, price)
        await self.books.flush()
        return call

    def write(self, call: str, tokens: int) -> None:
        """The call's record is in the database, and the gateway knows it."""
        self.known.write(call, tokens)
        self.books.written(KEY, call)

    async def doubt(self) -> None:
        """The database is to be asked again about the key."""
        self.books.written(KEY, "a call that nobody knows", is_left=True)
        await self.books.flush()

    async def use(self) -> Use:
        await self.books.flush()
        use = await self.books.use(KEY)
        assert use is not None
        return use

    async def spent(self) -> int:
        """Tokens of the month."""
        return int((await self.use()).month.spent["tokens"])


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
    known = known or Known()
    books = SharedBooks(link, known, now=clock, wall=clock, redis_now=clock)
    tasks = [asyncio.create_task(work()) for work in ((link.run, link.listen, books.run) if runs else ())]
    try:
        yield Gateway(link, books, known)
    finally:
        await end_all(tasks)
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
        st.tuples(st.just("doubt"), st.none(), st.none(), st.none()),
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
    known = Known()
    open_holds: list[tuple[Hold, Hold]] = []
    begun: dict[Hold, tuple[date, SharedBooks]] = {}
    prefix = f"t{next(RUNS)}"
    async with (
        gateway(server, clock, known, prefix=prefix) as one,
        gateway(server, clock, known, prefix=prefix) as other,
    ):
        for number, (kind, first, cost, more) in enumerate(steps):
            shared = (one, other)[number % 2].books
            if kind == "hold":
                pair = Hold(first, cost, is_free=more), Hold(first, cost, is_free=more)
                told = await own.hold(KEY, limits, pair[0]), await shared.hold(KEY, limits, pair[1])
                assert plain(told[0]) == plain(told[1])
                if told[0] is None:
                    open_holds.append(pair)
                    begun[pair[0]] = datetime.fromtimestamp(clock.now_s, UTC).date(), shared
                    minutes = [books.minutes(KEY, hold) for books, hold in zip((own, shared), pair, strict=True)]
                    assert [(m.requests, m.tokens) for m in minutes if m] == [
                        (minutes[0].requests, minutes[0].tokens)
                    ] * 2
            elif kind == "settle" and open_holds:
                pair = open_holds.pop(number % len(open_holds))
                call = next(CALLS)
                began, shared = begun.pop(pair[0])
                own.settle(KEY, pair[0], first, cost, is_unpriced=more, call=call)
                shared.settle(KEY, pair[1], first, cost, is_unpriced=more, call=call)
                if number % 3:  # its record is written, before or after Redis has heard of its end, or not yet
                    if number % 3 == 1:
                        await shared.flush()
                    known.write(call, first, dict([cost] if cost else []), day=began, unpriced=int(more))
                    shared.written(KEY, call)
                await shared.flush()
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
                day = datetime.fromtimestamp(clock.now_s, UTC).date() - timedelta(days=first)
                own.correct(KEY, day, {"USD": cost}, more)
                known.write(next(CALLS), 0, {"USD": cost}, day=day, unpriced=more)
                shared.correct(KEY, day, {"USD": cost}, more)
                await shared.flush()
            elif kind == "doubt":
                await (one, other)[number % 2].doubt()
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
            a.end(hold, 5)
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
        known.write("the dead one's", 33)
        await a.books.release(b.link.id)
        await a.link.forget(b.link.id)
        hold = await held(a.books, Limits(concurrent=1))
        assert hold is not None
        use = await a.books.use(KEY)
        assert use is not None
        assert (use.in_flight, use.day.spent["tokens"], use.day.held["tokens"]) == (1, 33, 10)


async def test_a_hold_of_nothing_is_let_go_of_too(redis: RedisServer) -> None:
    async with gateway(redis, Clock()) as a:
        async with gateway(redis, Clock()) as b:
            assert await b.books.hold(KEY, Limits(), Hold(0, ("USD", Decimal(0)))) is None
        await a.books.release(b.link.id)
        assert a.link.is_up
        use = await a.books.use(KEY)
        assert use is None or use.in_flight == 0


async def test_a_call_in_flight_counts_though_another_gateway_died_meanwhile(redis: RedisServer) -> None:
    known = Known()
    async with gateway(redis, Clock(), known) as a:
        stream = await held(a.books, Limits())
        assert stream is not None
        async with gateway(redis, Clock(), known) as b:
            assert await held(b.books, Limits()) is not None
        known.write("the dead one's", 5)
        await a.books.release(b.link.id)
        assert await held(a.books, Limits()) is not None
        await a.settled(stream, 100)
        assert await a.spent() == 105


async def test_calls_that_begin_together_all_count(redis: RedisServer) -> None:
    """The first calls of a key, at two gateways at once, all of which find that its use was not read yet."""
    known = Known()
    known.write("before", 7)
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        for _ in range(2):  # the second time connections are open and scripts are there
            both = [one for _ in range(10) for one in (a, b)]
            holds = await asyncio.gather(*(held(one.books, Limits()) for one in both))
            for one, hold in zip(both, holds, strict=True):
                assert hold is not None
                one.end(hold, 100)
            await b.books.flush()
            await a.doubt()
        assert await a.spent() == 7 + 40 * 100


async def test_a_key_that_is_read_again_loses_no_call_and_counts_none_twice(redis: RedisServer) -> None:
    """Calls in flight, unwritten, written and untold, and told, when another gateway finds more in the database."""
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        holds = [hold for _ in range(4) if (hold := await held(a.books, Limits())) is not None]
        unwritten, untold, told = [await a.settled(hold, 10 ** (n + 1)) for n, hold in enumerate(holds[:3])]
        known.write(untold, 100)
        a.write(told, 1000)
        await a.books.flush()
        known.write("nobody knows it", 1)
        await b.doubt()
        assert await b.spent() == 1111
        assert known.asked == 2
        a.books.written(KEY, untold)
        a.write(unwritten, 10)
        await a.settled(holds[3], 10_000)
        assert await a.spent() == 11_111


async def test_a_call_that_ends_while_a_key_is_read_counts_once(redis: RedisServer) -> None:
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        hold = await held(a.books, Limits())
        assert hold is not None
        await b.doubt()

        async def ends() -> None:
            known.write(await a.settled(hold, 10), 10)

        known.before_it_looks = ends
        assert await b.spent() == 10
        assert known.asked == 3


async def test_a_record_that_is_written_after_the_database_looked_counts_once(redis: RedisServer) -> None:
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        hold = await held(a.books, Limits())
        assert hold is not None
        call = await a.settled(hold, 100)
        await b.doubt()

        async def is_written() -> None:
            a.write(call, 100)
            await a.books.flush()

        known.after_it_looked = is_written
        assert await b.spent() == 100
        await b.doubt()
        assert await a.spent() == 100


async def test_a_correction_that_comes_after_the_database_looked_counts_once(redis: RedisServer) -> None:
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        assert await held(a.books, Limits()) is not None
        await b.doubt()

        async def is_corrected() -> None:
            known.write("settled", 0, {"USD": Decimal(4)})
            a.books.correct(KEY, NOON.date(), {"USD": Decimal(4)}, 0)
            await a.books.flush()

        known.after_it_looked = is_corrected
        assert (await b.use()).month.spent["USD"] == 4
        assert (await a.use()).month.spent["USD"] == 4


async def test_a_record_that_a_reading_has_seen_is_no_reason_for_another(redis: RedisServer) -> None:
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        hold = await held(a.books, Limits())
        assert hold is not None
        call = await a.settled(hold, 100)
        known.write(call, 100)
        await b.doubt()
        assert await b.spent() == 100
        asked = known.asked
        a.books.written(KEY, call)
        assert await a.spent() == await b.spent() == 100
        assert known.asked == asked


async def test_what_changed_in_the_database_untold_is_read_when_somebody_is_gone(redis: RedisServer) -> None:
    known = Known()
    async with gateway(redis, Clock(), known, runs=True) as a:
        assert await held(a.books, Limits()) is not None
        known.write("by somebody who was cut off", 5000)
        assert await a.spent() == 0
        a.books.doubt_all()
        await until(lambda: not a.books.doubts_all)
        assert await a.spent() == 5000


async def test_a_call_that_was_ended_by_others_and_ends_after_all_counts_once(redis: RedisServer) -> None:
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        hold = await held(a.books, Limits())
        assert hold is not None
        call = next(CALLS)
        known.write(call, 7)  # as interrupted, at its estimate
        await b.doubt()
        assert await b.spent() == 7
        a.books.settle(KEY, hold, 100, None, is_unpriced=False, call=call)
        await a.books.flush()
        a.write(call, 100)
        a.books.doubt(KEY)
        assert await a.spent() == await b.spent() == 100


async def test_what_was_written_before_redis_heard_of_it_counts_once(redis: RedisServer) -> None:
    """The record of a call may be written, and read by another gateway, while its settlement still waits."""
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        hold = await held(a.books, Limits())
        assert hold is not None
        call = a.end(hold, 8)
        a.write(call, 8)
        await b.doubt()
        assert await b.spent() == 8
        assert await a.spent() == 8


async def test_what_was_spent_before_redis_knew_the_key_is_read_from_the_database_once(redis: RedisServer) -> None:
    known = Known()
    known.write("today's", 60, {"USD": Decimal("0.5")})
    known.write("another", 30, {"USD": Decimal("0.25")}, day=NOON.date() - timedelta(days=3), unpriced=2)
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


async def test_what_was_spent_alone_counts_once_the_database_has_it(redis: RedisServer) -> None:
    known = Known()
    async with gateway(redis, Clock(), known, runs=True) as a, gateway(redis, Clock(), known) as other:
        assert await held(a.books, Limits()) is not None
        redis.freeze()
        hold = await held(a.books, Limits())
        assert hold is not None, "a server that stands still keeps nobody waiting for longer than its time"
        call = a.end(hold, 7)
        redis.thaw()
        await until(lambda: a.books.is_shared)
        assert await other.spent() == 0
        a.write(call, 7)
        assert await a.spent() == await other.spent() == 7


@pytest.mark.parametrize("is_read_meanwhile", [False, True])
async def test_who_was_cut_off_has_its_calls_counted_once(redis: RedisServer, is_read_meanwhile: bool) -> None:
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known) as b:
        assert await held(b.books, Limits()) is not None
        a.link._down(OSError("cut off"))
        hold = await held(a.books, Limits())
        assert hold is not None
        assert not a.books.is_shared
        call = a.end(hold, 100)
        known.write(call, 100)
        if is_read_meanwhile:
            await b.doubt()
            assert await b.spent() == 100
        a.books.written(KEY, call)
        await a.link._beat()
        assert a.books.is_shared
        assert await a.spent() == await b.spent() == 100


@pytest.mark.parametrize("is_lost", [False, True], ids=["its file is kept", "its file is lost"])
async def test_after_a_restart_of_redis_no_call_is_counted_twice_or_forgotten(
    redis: RedisServer, is_lost: bool
) -> None:
    async with gateway(redis, Clock(), runs=True) as a:
        holds = [hold for _ in range(3) if (hold := await held(a.books, Limits())) is not None]
        first = await a.settled(holds[0], 20)
        redis.lose() if is_lost else redis.stop()
        await until(lambda: not a.link.is_up)
        hold = await held(a.books, Limits())
        assert hold is not None
        alone = a.end(hold, 7)
        a.write(first, 20)
        redis.start()
        await until(lambda: a.books.is_shared)
        assert await a.spent() == 20
        across = a.end(holds[1], 300)
        assert await a.spent() == 320
        a.write(alone, 7)
        a.write(across, 300)
        assert await a.spent() == 327
        a.write(a.end(holds[2], 1000), 1000)
        assert await a.spent() == 1327


async def test_an_older_state_of_redis_keeps_no_place_taken_and_forgets_no_call(redis: RedisServer) -> None:
    limits = Limits(concurrent=3)
    async with gateway(redis, Clock(), runs=True) as a:
        holds = [hold for _ in range(3) if (hold := await held(a.books, limits)) is not None]
        kept = redis.keep()
        written, unwritten = [await a.settled(hold, 5) for hold in holds[:2]]
        a.write(written, 5)
        await a.books.flush()
        redis.go_back(kept)
        await until(lambda: not a.link.is_up)
        redis.start()
        await until(lambda: a.books.is_shared and not a.books.is_untidy)
        use = await a.use()
        assert (use.in_flight, use.day.held["tokens"], use.day.spent["tokens"]) == (1, 10, 5)
        assert await held(a.books, limits) is not None
        a.write(unwritten, 5)
        assert await a.spent() == 10


async def test_another_run_of_redis_is_noticed_though_nobody_asked_it_meanwhile(redis: RedisServer) -> None:
    """Connections that nobody uses are made anew in silence."""
    known = Known()
    async with gateway(redis, Clock(), known, runs=True) as a, gateway(redis, Clock(), known, runs=True) as b:
        holds = [hold for one in (a, b) if (hold := await held(one.books, Limits())) is not None]
        kept, before = redis.keep(), a.link.server_run
        for one, hold in zip((a, b), holds, strict=True):
            one.write(await one.settled(hold, 50), 50)
            await one.books.flush()
        redis.go_back(kept)
        redis.start()
        await until(lambda: {one.link.server_run for one in (a, b)} & {before} == set())
        await until(lambda: all(one.books.is_shared and not one.books.is_untidy for one in (a, b)))
        assert await a.spent() == await b.spent() == 100
        assert (await a.use()).in_flight == 0


async def test_a_hold_that_comes_late_is_let_go_of(redis: RedisServer) -> None:
    limits = Limits(concurrent=1)
    async with gateway(redis, Clock()) as a, gateway(redis, Clock()) as b:
        ask, late = a.link.evaluate, []

        async def not_yet(name: str, *arguments: Any, **options: Any) -> Any:
            if name == "hold" and not late:
                late.append((name, *arguments))
                raise LinkDown("no answer in time")
            return await ask(name, *arguments, **options)

        await a.books.use(KEY)
        a.link.evaluate = not_yet  # type: ignore[method-assign]
        hold = await held(a.books, limits)
        assert hold is not None, "counted alone"
        await a.settled(hold, 1)
        await ask(*late[0])
        assert await held(b.books, limits) is None
        assert await a.books.leave()
        assert await held(b.books, limits) is not None


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
    known.write("before", 90)
    limits = Limits(budgets=(Budget(Period.MONTH, "tokens", Decimal(95)),))
    async with gateway(redis, clock, known) as a:
        known.is_away = True
        assert await held(a.books, limits) is not None, "nobody is turned away for it"
        known.is_away = False
        clock.now_s += 60
        assert await held(a.books, limits) is None


async def test_without_redis_and_the_database_a_gateway_gives_its_share_once(redis: RedisServer) -> None:
    limits, clock, known = Limits(budgets=(Budget(Period.MONTH, "tokens", Decimal(1000)),)), Clock(), Known()
    known.is_away = True
    redis.stop()
    async with gateway(redis, clock, known, assumed=4) as a:
        given = 0
        while (hold := await held(a.books, limits, tokens=50)) is not None:
            known.write(a.end(hold, 50), 50)
            given += 50
            clock.now_s += 1
        assert given == 250
        known.is_away = False
        clock.now_s += 60
        assert await held(a.books, limits, tokens=50) is None


async def test_sums_that_are_too_large_for_redis_stop_nobody(redis: RedisServer) -> None:
    async with gateway(redis, Clock()) as a:
        holds = [Hold(10, ("KRW", Decimal(4 * 10**9))) for _ in range(3)]
        for hold in holds:
            assert await a.books.hold(KEY, Limits(), hold) is None
        assert a.link.is_up
        for hold in holds:
            await a.settled(hold, 1)
        use = await a.use()
        assert (use.in_flight, {unit for unit, amount in use.month.held.items() if amount}) == (0, set())


async def test_a_mistake_in_one_request_is_not_taken_for_a_dead_redis(redis: RedisServer) -> None:
    async with gateway(redis, Clock()) as a:
        with pytest.raises(ScriptFailed):
            await a.link.evaluate("settle", ["k"], ["no number"])
        assert a.link.is_up
        assert a.books.is_shared


async def test_what_cannot_be_written_down_in_redis_is_read_from_the_database(redis: RedisServer) -> None:
    async with gateway(redis, Clock()) as a:
        hold = await held(a.books, Limits())
        assert hold is not None
        evaluate = a.link.evaluate

        async def refuses(name: str, *arguments: Any, **options: Any) -> Any:
            if name == "settle" and len(refused) < 2:
                refused.append(name)
                raise ScriptFailed("a mistake")
            return await evaluate(name, *arguments, **options)

        refused: list[str] = []
        other = await held(a.books, Limits())
        assert other is not None
        a.known.write("of somebody else", 500)
        a.books.doubt(KEY)
        a.link.evaluate = refuses  # type: ignore[method-assign]
        a.end(other, 0)
        call = await a.settled(hold, 9)
        a.write(call, 9)
        assert await a.spent() == 509


async def test_a_budget_begins_anew_at_midnight_also_without_redis(redis: RedisServer) -> None:
    known, clock = Known(), Clock()
    known.write("before", 90)
    limits = Limits(budgets=(Budget(Period.DAY, "tokens", Decimal(100)),))
    async with gateway(redis, clock, known, runs=True) as a, gateway(redis, clock, known, runs=True) as b:
        await until(lambda: a.link.live == b.link.live == 2)
        redis.stop()
        await until(lambda: not a.link.is_up)
        assert await held(a.books, limits, tokens=6) is None, "5 of the 10 that are left"
        clock.now_s += 86_400
        assert await held(a.books, limits, tokens=51) is None, "its half of a new day"
        assert await held(a.books, limits, tokens=50) is not None


async def test_an_empty_redis_makes_nobody_the_only_gateway(redis: RedisServer) -> None:
    async with gateway(redis, Clock(), runs=True) as a, gateway(redis, Clock()):
        await until(lambda: a.link.live == 2)
        redis.lose()
        await until(lambda: not a.link.is_up)
        redis.start()
        await until(lambda: a.link.is_up)
        assert a.link.live == 2


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
            await end_all(tasks)


def test_obstacles_of_the_script_are_those_of_the_domain() -> None:
    script = files("gateway").joinpath("lua", "hold.lua").read_text()
    told = {name.value for name in Obstacle if f"'{name.value}'" in script}
    assert told == {name.value for name in Obstacle}


@pytest.mark.parametrize("turns", range(24))
async def test_who_is_cancelled_while_redis_is_asked_is_cancelled(redis: RedisServer, turns: int) -> None:
    """Whenever it happens: what the client library waits by forgets it at some moments (Python 3.11)."""
    async with gateway(redis, Clock()) as a:
        await a.link.recall("warm")
        asked = asyncio.create_task(a.link.recall("nothing"))
        for _ in range(turns):
            await asyncio.sleep(0)
        if asked.cancel():
            await asyncio.wait({asked})
            assert asked.cancelled()


async def test_who_is_cancelled_while_the_news_are_subscribed_to_is_cancelled(redis: RedisServer) -> None:
    """One cancelling is enough at whatever moment: the handshake is waited for by what forgets it."""
    async with gateway(redis, Clock()) as a:
        for turns in range(40):
            listening = asyncio.create_task(a.link.listen())
            for _ in range(turns):
                await asyncio.sleep(0)
            listening.cancel()
            _, left = await asyncio.wait({listening}, timeout=HANG_S)
            await end_all(left, again_s=0.1)
            assert not left, f"forgotten after {turns} turns"


async def test_what_changed_while_a_key_was_first_read_is_read_again(redis: RedisServer) -> None:
    """Redis knows nothing of the key yet: whoever doubts all keys must find it all the same."""
    known = Known()
    async with gateway(redis, Clock(), known) as a, gateway(redis, Clock(), known, runs=True) as b:

        async def come_and_go() -> None:
            known.write("by somebody who was cut off", 5000)
            b.books.doubt_all()
            await until(lambda: not b.books.doubts_all)

        known.after_it_looked = come_and_go
        assert await held(a.books, Limits()) is not None
        assert await a.spent() == await b.spent() == 5000
