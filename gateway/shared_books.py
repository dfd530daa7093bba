"""The books that several gateways keep together in Redis: each hold, check and settlement is one script there.

A call's hold is one round trip before it; what it took follows after its end, in batches that count once however often
they are sent. While Redis is away each gateway counts by itself, within its share of every limit, and hands in later
what was spent meanwhile. What Redis has lost is read from the database again, key by key, when a key calls next. How
the scripts agree with `domain.limits` is shown in tests/test_shared_books.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import structlog

from gateway.alone_books import ASK_AGAIN_S, AloneBooks, KeyUsage, read_spent
from gateway.books import Minutes, OwnBooks, Price, Refused, Spent, Use
from gateway.domain.accounts import TOKENS, Budget, Limits, Period
from gateway.domain.limits import Amount, Hold, Obstacle, Refusal, period_end_s, wanted_of
from gateway.redis_link import LinkDown, RedisLink

NANO = 10**9
"""Money is counted in whole billionths of its unit."""
_MOST = 2**62
_OF_SEEDING = frozenset({b"seeded", b"generation"})
ENTRIES_AT_ONCE = 250
MOST_UNSETTLED = 200_000
"""Beyond it the oldest are given up: after a long time without Redis the database knows better."""
ALONE_KEPT_S = 120.0
"""After so long without it, what a gateway counted alone is of no minute any more."""


@dataclass(frozen=True, slots=True)
class _Places:
    """The keys in Redis of one API key at one moment."""

    window: str
    holds: str
    day: str
    month: str

    @property
    def all(self) -> tuple[str, str, str, str]:
        return self.window, self.holds, self.day, self.month


@dataclass(slots=True)
class _Ticket:
    """How a hold is found again."""

    id: str
    places: _Places
    second: str = ""
    """By Redis's clock; "" where its answer did not come."""
    stamp: str = ""
    """What the key's ledgers were seeded as, or the server run alone."""
    minutes: Minutes | None = None
    alone: AloneBooks | None = None
    """By whom it was taken while Redis was away."""


class SharedBooks:
    """See `Books`. `run` settles until cancelled; `flush` settles what is left."""

    def __init__(
        self,
        link: RedisLink,
        usage: KeyUsage,
        *,
        now: Callable[[], float],
        wall: Callable[[], float] = time.time,
        redis_now: Callable[[], float] | None = None,
    ) -> None:
        """`usage`: what the database knows of a key's use from one day to another.

        `redis_now`: seconds to count minutes by in place of Redis's own clock.
        """
        self._link = link
        self._usage = usage
        self._now = now
        self._wall = wall
        self._redis_now = redis_now
        self._numbers = 0
        self._batch = 0
        self._unsettled: deque[_Entry] = deque()
        self._sent: list[_Entry] = []
        """The batch of that number, until Redis has said that it has it."""
        self._sending = asyncio.Lock()
        self._some = asyncio.Event()
        self._seeding: dict[str, asyncio.Lock] = {}
        self._unknown_until_s: dict[str, float] = {}
        """By key: what it spent could not be read."""
        self._alone: AloneBooks | None = None
        self._last_alone: AloneBooks | None = None
        self._last_alone_s = 0.0
        self.given_up = 0
        """Settlements that were dropped."""
        self._log = structlog.get_logger("simsa.limits")
        link.on_up.append(self._go_together)
        link.on_down.append(self._go_alone)
        if not link.is_up:
            self._go_alone()

    @property
    def is_shared(self) -> bool:
        """False while this gateway counts alone."""
        return self._alone is None

    # --- holding --------------------------------------------------------------------------------------------

    async def hold(self, key: str, limits: Limits, hold: Hold) -> Refused | None:
        if self._alone is not None:
            return await self._hold_alone(self._alone, key, limits, hold)
        self._numbers += 1
        ticket = _Ticket(f"{self._link.id}.{self._numbers}", self._places(key))
        hold.ticket = ticket
        try:
            found = await self._ask("hold", key, limits, [hold], 1, ticket)
        except LinkDown:
            self._let_go(ticket, hold)
            return await self._hold_alone(self._fallback(), key, limits, hold)
        except BaseException:
            self._let_go(ticket, hold)
            raise
        ticket.second, ticket.stamp = str(found.second), found.stamp
        ticket.minutes = found.minutes
        return found.refused

    async def _hold_alone(self, alone: AloneBooks, key: str, limits: Limits, hold: Hold) -> Refused | None:
        hold.ticket = _Ticket("", self._places(key), stamp=self._link.server_run or "", alone=alone)
        return await alone.hold(key, limits, hold)

    async def look(self, key: str, limits: Limits, holds: Sequence[Hold], at_once: int) -> Refused | None:
        if self._alone is None:
            try:
                return (await self._ask("look", key, limits, holds, at_once, None)).refused
            except LinkDown:
                pass
        return await self._fallback().look(key, limits, holds, at_once)

    async def count_request(self, key: str, limits: Limits) -> Refused | None:
        if self._alone is None:
            try:
                return (await self._ask("count", key, limits, [Hold(0, None)], 1, None)).refused
            except LinkDown:
                pass
        return await self._fallback().count_request(key, limits)

    def settle(self, key: str, hold: Hold, tokens: int, price: Price | None, *, is_unpriced: bool) -> None:
        if not hold.is_open:
            raise ValueError("a call is settled once")
        ticket = hold.ticket
        assert isinstance(ticket, _Ticket), "only what was held is settled"
        if ticket.alone is not None:
            ticket.alone.settle(key, hold, tokens, price, is_unpriced=is_unpriced)
            self._note(_Entry(ticket.places, "", "", None, tokens, price, is_unpriced, ticket.stamp))
            return
        hold.is_open = False
        self._note(_Entry(ticket.places, ticket.id, ticket.second, hold, tokens, price, is_unpriced, ticket.stamp))

    def correct(self, key: str, began_on: date, charged: Mapping[str, Decimal], without_cost: int) -> None:
        if self._alone is not None:
            self._alone.correct(key, began_on, charged, without_cost)
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        if began_on.replace(day=1) != today.replace(day=1):
            return
        places = self._places(key)
        if began_on != today:
            places = replace(places, day="")
        run = self._link.server_run or ""
        self._note(_Entry(places, "", "", None, 0, None, without_cost, run))
        for price in charged.items():
            self._note(_Entry(places, "", "", None, 0, price, 0, run))

    def minutes(self, key: str, hold: Hold) -> Minutes | None:
        ticket = hold.ticket
        if not isinstance(ticket, _Ticket):
            return None
        return ticket.minutes if ticket.alone is None else ticket.alone.minutes(key, hold)

    async def use(self, key: str) -> Use | None:
        places = self._places(key)
        try:
            await self._seed(key, places)
            day, month, holds = await self._link.read((places.day, places.month, places.holds))
        except LinkDown:
            return await self._fallback().use(key)
        if not holds and _is_untouched(day) and _is_untouched(month):
            return None
        return Use(_spent(day), _spent(month), len(holds))

    async def release(self, gateway: str) -> None:
        """Let go of what a gateway that is gone holds. Raises LinkDown."""
        for holds in await self._link.scan("k:*:holds"):
            await self._link.evaluate("release", [holds], [gateway])

    # --- settling -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hand in what was spent, as it comes."""
        while True:
            await self._some.wait()
            try:
                await self._send_some()
            except LinkDown:
                await asyncio.sleep(0.2)

    async def flush(self) -> bool:
        """Hand in what is left; False where Redis does not answer."""
        try:
            while self._sent or self._unsettled:
                await self._send_some()
        except LinkDown as error:
            self._log.error("what was spent last is not in Redis; the database has it", why=str(error))
            return False
        return True

    def _note(self, entry: _Entry) -> None:
        self._unsettled.append(entry)
        if len(self._unsettled) > MOST_UNSETTLED:
            self._unsettled.popleft()
            self.given_up += 1
        self._some.set()

    async def _send_some(self) -> None:
        """One batch. What is in it is fixed with its number: sent again, it counts once, and nothing comes along."""
        async with self._sending:
            if not self._sent and self._unsettled:
                self._batch += 1
                self._sent = [self._unsettled.popleft() for _ in range(min(ENTRIES_AT_ONCE, len(self._unsettled)))]
            if self._sent:
                arguments: list[str | int] = [self._batch]
                for entry in self._sent:
                    arguments += entry.arguments()
                await self._link.evaluate("settle", [f"{self._link.prefix}:settled:{self._link.id}"], arguments)
                self._sent = []
            if not self._unsettled:
                self._some.clear()

    def _let_go(self, ticket: _Ticket, hold: Hold) -> None:
        """Whether it is held nobody knows: where it is, it will not be."""
        self._note(_Entry(ticket.places, ticket.id, "", hold, 0, None, 0, ""))

    # --- together and alone ---------------------------------------------------------------------------------

    def _go_alone(self) -> None:
        if self._alone is None:
            self._alone = self._kept_alone()

    def _go_together(self) -> None:
        self._alone = None

    def _fallback(self) -> AloneBooks:
        """What counts while Redis is away; also for one call whose answer did not come."""
        return self._alone or self._kept_alone()

    def _kept_alone(self) -> AloneBooks:
        """The books of the last minute, where there are some: who goes alone again and again has one minute too."""
        kept, now_s = self._last_alone, self._now()
        if kept is None or now_s - self._last_alone_s > ALONE_KEPT_S or kept.gateways != self._link.live:
            kept = AloneBooks(self._link.live, self._usage, now=self._now, wall=self._wall)
        self._last_alone, self._last_alone_s = kept, now_s
        return kept

    # --- scripts --------------------------------------------------------------------------------------------

    def _places(self, key: str) -> _Places:
        base, today = f"{self._link.prefix}:k:{key}", datetime.fromtimestamp(self._wall(), UTC)
        return _Places(f"{base}:window", f"{base}:holds", f"{base}:d:{today:%Y-%m-%d}", f"{base}:m:{today:%Y-%m}")

    async def _ask(
        self, mode: str, key: str, limits: Limits, holds: Sequence[Hold], at_once: int, ticket: _Ticket | None
    ) -> _Found:
        places = ticket.places if ticket is not None else self._places(key)
        for attempt in (1, 2, 3):
            arguments = self._arguments(mode, limits, holds, at_once, ticket)
            answer = await self._link.evaluate("hold", places.all, arguments)
            if answer[0] != b"unseeded":
                return _found(answer, limits, self._wall())
            await self._seed(key, places, is_needed=attempt == 1)
        raise LinkDown("Redis forgets what it is told")

    def _arguments(
        self, mode: str, limits: Limits, holds: Sequence[Hold], at_once: int, ticket: _Ticket | None
    ) -> list[str | int]:
        charged = [hold for hold in holds if not hold.is_free]
        cost = holds[0].cost if ticket is not None else None
        budgets = limits.budgets if charged else ()
        return [
            "" if self._redis_now is None else f"{self._redis_now():.6f}",
            mode,
            self._link.server_run or "",
            "" if ticket is None else ticket.id,
            self._link.id,
            len(holds),
            at_once,
            _clamped(sum(hold.tokens for hold in holds)),
            "" if cost is None else cost[0],
            "" if cost is None else _nano(cost[1]),
            *("" if limit is None else limit for limit in (limits.requests_per_min, limits.tokens_per_min)),
            "" if limits.concurrent is None else limits.concurrent,
            *(value for budget in budgets for value in _budget_arguments(budget, charged)),
        ]

    async def _seed(self, key: str, places: _Places, *, is_needed: bool = False) -> None:
        """See to it that the key's ledgers are those of this run of the server. Raises LinkDown."""
        async with self._seeding.setdefault(key, asyncio.Lock()):
            if not is_needed:
                (month,) = await self._link.read((places.month,))
                if month.get(b"seeded", b"").decode().rpartition(":")[0] == (self._link.server_run or ""):
                    return
            if self._now() < self._unknown_until_s.get(key, 0.0):
                raise LinkDown("what the key spent was not known a moment ago")
            books = OwnBooks(now=self._now, wall=self._wall)
            if not await read_spent(books, key, self._usage, self._wall()):
                self._unknown_until_s[key] = self._now() + ASK_AGAIN_S
                raise LinkDown("what the key spent is not known while the database is away")
            self._unknown_until_s.pop(key, None)
            account = books.account(key)
            values = [_fields(ledger.spent_tokens, ledger.spent_money, ledger.unpriced) for ledger in account.ledgers]
            arguments: list[str | int] = [self._link.server_run or "", len(values[0]), *values[0], *values[1]]
            await self._link.evaluate("seed", [places.day, places.month], arguments)
        self._seeding.pop(key, None)


@dataclass(frozen=True, slots=True)
class _Found:
    refused: Refused | None
    minutes: Minutes
    second: int
    stamp: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """What became of one hold, or what was spent without one."""

    places: _Places
    hold_id: str
    second: str
    held: Hold | None
    tokens: int
    price: Price | None
    unpriced: int
    stamp: str
    """See `_Ticket.stamp`: it counts in no ledger that was seeded otherwise since."""

    def arguments(self) -> list[str | int]:
        held = self.held.cost if self.held is not None else None
        pairs = [*(("", "") if one is None else (one[0], str(_nano(one[1]))) for one in (held, self.price))]
        return [
            *self.places.all,
            self.hold_id,
            self.second,
            0 if self.held is None else _clamped(self.held.tokens),
            _clamped(self.tokens),
            int(self.unpriced),
            "|".join(part for pair in pairs for part in pair),
            self.stamp,
        ]


def _found(answer: Sequence[Any], limits: Limits, wall_s: float) -> _Found:
    what, budget_number, spent, wait_s, requests, requests_reset_s, tokens, tokens_reset_s, second, seeded = answer
    minutes = Minutes(limits, int(requests), float(requests_reset_s), int(tokens), float(tokens_reset_s))
    refused = None
    if what:
        refusal = Refusal(Obstacle(what.decode()), float(wait_s))
        if budget_number:
            budget = limits.budgets[budget_number - 1]
            left = budget.amount - _amount(budget.unit, spent)
            if refusal.obstacle is Obstacle.BUDGET:
                left = max(Decimal(0), left)
                refusal = replace(refusal, wait_s=period_end_s(budget.period, wall_s) - wall_s)
            refusal = replace(refusal, budget=budget, left=left)
        refused = Refused(refusal, minutes)
    return _Found(refused, minutes, second, seeded.decode())


def _budget_arguments(budget: Budget, charged: Sequence[Hold]) -> tuple[str, str, int, int]:
    unit, wanted = budget.unit, wanted_of(budget.unit, charged)
    return "d" if budget.period is Period.DAY else "m", unit, _whole(unit, budget.amount), _whole(unit, wanted)


def _whole(unit: str, amount: Amount) -> int:
    """As Redis counts it: tokens, or billionths of a currency."""
    return _clamped(int(amount)) if unit == TOKENS else _nano(Decimal(amount))


def _fields(tokens: int, money: Mapping[str, Decimal], unpriced: int) -> list[str | int]:
    amounts = {"s:tokens": _clamped(tokens), "unpriced": unpriced}
    amounts |= {f"s:{currency}": _nano(amount) for currency, amount in money.items()}
    return [part for pair in amounts.items() for part in pair]


def _is_untouched(fields: Mapping[bytes, bytes]) -> bool:
    return all(name in _OF_SEEDING or not int(value) for name, value in fields.items())


def _spent(fields: Mapping[bytes, bytes]) -> Spent:
    found: dict[str, dict[str, Amount]] = {"s": {TOKENS: 0}, "h": {TOKENS: 0}}
    for name, value in fields.items():
        kind, _, unit = name.decode().partition(":")
        if unit:
            found[kind][unit] = _amount(unit, value)
    return Spent(found["s"], found["h"], int(fields.get(b"unpriced", 0)))


def _amount(unit: str, value: bytes) -> Amount:
    return int(value) if unit == TOKENS else Decimal(int(value)) / NANO


def _nano(amount: Decimal) -> int:
    return _clamped(int((amount * NANO).to_integral_value(ROUND_HALF_EVEN)))


def _clamped(amount: int) -> int:
    """As far as Redis counts."""
    return max(-_MOST, min(_MOST, amount))
