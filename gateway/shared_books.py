"""The books that several gateways keep together in Redis: each hold, check and settlement is one script there.

A call's hold is one round trip before it; what it took follows after its end, in batches that count once however often
they are sent. What a key spent is what the database says, with the calls whose records are not written yet: Redis keeps
these one by one until it is told that they are. Of which it is told and knows nothing, the database knows more; then,
and where Redis began anew, it is asked again when the key calls next. While Redis is away each gateway counts by
itself, within its share of every limit. How the scripts agree with `domain.limits` is shown in
tests/test_shared_books.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import structlog

from gateway.alone_books import ASK_AGAIN_S, AloneBooks, read_spent
from gateway.books import KeySpent, Minutes, Price, Refused, Spent, SpentBefore, Use
from gateway.domain.accounts import TOKENS, Budget, Limits, Period
from gateway.domain.limits import Amount, Hold, Obstacle, Refusal, period_end_s, wanted_of
from gateway.redis_link import LinkDown, RedisLink, ScriptFailed

NANO = 10**9
"""Money is counted in whole billionths of its unit."""
_MOST = 2**62
_NO_RUN = "unknown"
_OF_SEEDING = frozenset({b"seeded", b"doubts"})
ENTRIES_AT_ONCE = 250
MOST_UNSETTLED = 200_000
"""Beyond it the oldest are given up, and the database is asked about their keys."""
TIDY_S = 300.0
"""How often holds are let go of that came to Redis after their call had given them up."""
ALONE_KEPT_S = 120.0
"""After so long without it, what a gateway counted alone is of no minute any more."""


@dataclass(frozen=True, slots=True)
class _Places:
    """The keys in Redis of one API key at one moment."""

    window: str
    holds: str
    unwritten: str
    day: str
    month: str

    @property
    def of_hold(self) -> tuple[str, str, str, str]:
        return self.window, self.holds, self.day, self.month


@dataclass(slots=True)
class _Ticket:
    """How a hold is found again."""

    number: int
    """Of this gateway's holds; 0 where it is none of Redis's."""
    places: _Places
    second: str = ""
    """By Redis's clock; "" where its answer did not come."""
    minutes: Minutes | None = None
    alone: AloneBooks | None = None
    """By whom it was taken while Redis was away."""


class SharedBooks:
    """See `Books`. `run` settles until cancelled; `flush` settles what is left."""

    def __init__(
        self,
        link: RedisLink,
        known: SpentBefore,
        *,
        now: Callable[[], float],
        wall: Callable[[], float] = time.time,
        redis_now: Callable[[], float] | None = None,
    ) -> None:
        """`known`: what the database knows of a key's use.

        `redis_now`: seconds to count minutes by in place of Redis's own clock.
        """
        self._link = link
        self._known = known
        self._now = now
        self._wall = wall
        self._redis_now = redis_now
        self._numbers = 0
        self._open: dict[str, set[int]] = {}
        """Numbers of holds that Redis may have and is to keep, by where they are kept."""
        self._unwritten: dict[str, str] = {}
        """Key of each call that ended here and whose record is not in the database."""
        self._batch = 0
        self._unsent: deque[_Entry] = deque()
        self._doubts: dict[_Places, None] = {}
        """Of keys of which the database knows more than Redis will be told."""
        self._sent: list[_Entry] = []
        """The batch of that number, until Redis has said that it has it."""
        self._spent: dict[str, _Entry] = {}
        """By call, those of both that are spent and that Redis has not said to have."""
        self._sending = asyncio.Lock()
        self._some = asyncio.Event()
        self._seeding: dict[str, asyncio.Lock] = {}
        self._unknown_until_s: dict[str, float] = {}
        """By key: what it spent could not be read."""
        self._run: str | None = link.server_run
        self._tidy_at_s = now() + TIDY_S
        self._alone: AloneBooks | None = None
        self._last_alone: AloneBooks | None = None
        self._last_alone_s = 0.0
        self.given_up = 0
        """Entries that were dropped."""
        self._log = structlog.get_logger("simsa.limits")
        link.on_up.append(self._go_together)
        link.on_down.append(self._go_alone)
        if not link.is_up:
            self._go_alone()

    @property
    def is_shared(self) -> bool:
        """False while this gateway counts alone."""
        return self._alone is None

    @property
    def is_untidy(self) -> bool:
        """Whether Redis may hold for this gateway what no call of it needs."""
        return self._alone is None and self._now() >= self._tidy_at_s

    # --- holding --------------------------------------------------------------------------------------------

    async def hold(self, key: str, limits: Limits, hold: Hold) -> Refused | None:
        if self._alone is not None:
            return await self._hold_alone(self._alone, key, limits, hold)
        self._numbers += 1
        ticket = hold.ticket = _Ticket(self._numbers, self._places(key))
        self._open.setdefault(ticket.places.holds, set()).add(ticket.number)
        try:
            found = await self._ask("hold", key, limits, [hold], 1, ticket)
        except LinkDown:
            self._let_go(ticket, hold)
            return await self._hold_alone(self._fallback(), key, limits, hold)
        except BaseException:
            self._let_go(ticket, hold)
            raise
        ticket.second, ticket.minutes = str(found.second), found.minutes
        if found.refused is not None:
            self._close(ticket.places, ticket.number)
        return found.refused

    async def _hold_alone(self, alone: AloneBooks, key: str, limits: Limits, hold: Hold) -> Refused | None:
        hold.ticket = _Ticket(0, self._places(key), alone=alone)
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

    def settle(self, key: str, hold: Hold, tokens: int, price: Price | None, *, is_unpriced: bool, call: str) -> None:
        if not hold.is_open:
            raise ValueError("a call is settled once")
        ticket = hold.ticket
        assert isinstance(ticket, _Ticket), "only what was held is settled"
        if not (tokens or price or is_unpriced):
            call = ""
        if call:
            self._unwritten[call] = key
        if ticket.alone is not None:  # Redis hears of it when the database has it
            ticket.alone.settle(key, hold, tokens, price, is_unpriced=is_unpriced, call=call)
            return
        hold.is_open = False
        entry = _Entry("spent", ticket.places, ticket.number, ticket.second, hold.tokens, call)
        entry.tokens, entry.price, entry.unpriced = tokens, price, int(is_unpriced)
        if call:
            self._spent[call] = entry
        self._note(entry)

    def written(self, key: str, call: str, *, is_left: bool = False) -> None:
        """A call's record is in the database. `is_left`: it is an earlier process's, of which nothing is known here."""
        if self._unwritten.pop(call, None) is None and not is_left:
            return
        entry = self._spent.pop(call, None)
        if entry is not None:
            entry.call = ""  # if it is sent from now on, ledgers may have been seeded with it
        self._note(_Entry("written", self._places(key), call=call))

    def correct(self, key: str, began_on: date, charged: Mapping[str, Decimal], without_cost: int) -> None:
        places = self._places(key)
        if self._alone is not None:
            self._alone.correct(key, began_on, charged, without_cost)
            self._doubt(places)
            return
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        if began_on.replace(day=1) != today.replace(day=1):
            return
        if began_on != today:
            places = replace(places, day="")
        self._note(_Entry("corrected", places, unpriced=without_cost))
        for price in charged.items():
            self._note(_Entry("corrected", places, price=price))

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
            await self._link.evaluate("release", [holds], [gateway, ""])

    async def leave(self) -> bool:
        """Hand in what is left and hold nothing any more, before this gateway goes. False where Redis does not answer:
        then another lets go of it."""
        if not await self.flush():
            return False
        try:
            await self._tidy()
        except LinkDown:
            return False
        return True

    # --- settling -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hand in what was spent, as it comes."""
        while True:
            pause_s = None if self._alone is not None else max(0.0, self._tidy_at_s - self._now())
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._some.wait()
            try:
                await self._send_some()
                if self.is_untidy:
                    await self._tidy()
            except LinkDown:
                await asyncio.sleep(0.2)

    async def flush(self) -> bool:
        """Hand in what is left; False where Redis does not answer."""
        try:
            while self._sent or self._unsent or self._doubts:
                await self._send_some()
        except LinkDown as error:
            self._log.error("what was spent last is not in Redis; the database has it", why=str(error))
            return False
        return True

    def _note(self, entry: _Entry) -> None:
        self._unsent.append(entry)
        if len(self._unsent) > MOST_UNSETTLED:
            self._give_up([self._unsent.popleft()])
        self._some.set()

    def _doubt(self, places: _Places) -> None:
        """Have the database asked again before the key's next call."""
        self._doubts[places] = None
        self._some.set()

    def _give_up(self, entries: Sequence[_Entry]) -> None:
        self.given_up += len(entries)
        for entry in entries:
            self._forget(entry)
            if entry.says_something:
                self._doubt(entry.places)

    async def _send_some(self) -> None:
        """One batch. What is in it is fixed with its number: sent again, it counts once, and nothing comes along."""
        async with self._sending:
            if not self._sent and (self._unsent or self._doubts):
                self._batch += 1
                self._sent = [self._unsent.popleft() for _ in range(min(ENTRIES_AT_ONCE, len(self._unsent)))]
                self._sent += [_Entry("written", places) for places in self._doubts]
                self._doubts.clear()
            if self._sent:
                await self._send()
                self._sent = []
            if not self._unsent and not self._doubts:
                self._some.clear()

    async def _send(self) -> None:
        arguments: list[str | int] = [self._batch]
        for entry in self._sent:
            arguments += entry.arguments(self._link.id)
        try:
            await self._link.evaluate("settle", [f"{self._link.prefix}:settled:{self._link.id}"], arguments)
        except ScriptFailed as error:
            self._log.error("a batch of what was spent is given up; the database is asked instead", why=str(error))
            self._give_up(self._sent)
        else:
            for entry in self._sent:
                self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        """Redis has it, or will never have it."""
        if entry.what == "spent":
            self._close(entry.places, entry.hold)
            if self._spent.get(entry.call) is entry:
                del self._spent[entry.call]

    def _close(self, places: _Places, number: int) -> None:
        numbers = self._open.get(places.holds)
        if numbers is not None:
            numbers.discard(number)
            if not numbers:
                del self._open[places.holds]

    def _let_go(self, ticket: _Ticket, hold: Hold) -> None:
        """Whether it is held nobody knows: where it is, it will not be."""
        self._note(_Entry("spent", ticket.places, ticket.number, held_tokens=hold.tokens))

    async def _tidy(self) -> None:
        """Let go of what Redis holds for this gateway and no call of it needs: it came late, or from an older state of
        Redis than was known. Raises LinkDown."""
        for holds in await self._link.scan("k:*:holds"):
            await self._link.evaluate("release", [holds], [self._link.id, self._numbers, *self._open.get(holds, ())])
        self._tidy_at_s = self._now() + TIDY_S

    # --- together and alone ---------------------------------------------------------------------------------

    def _go_alone(self) -> None:
        if self._alone is None:
            self._alone = self._kept_alone()
            for entry in (*self._sent, *self._unsent):
                if entry.what == "corrected":  # later than now ledgers may have been seeded with it
                    entry.what = "written"

    def _go_together(self) -> None:
        self._alone = None
        if self._link.server_run != self._run:  # its state may be an older one
            self._run = self._link.server_run
            self._tidy_at_s = self._now()
        self._some.set()

    def _fallback(self) -> AloneBooks:
        """What counts while Redis is away; also for one call whose answer did not come."""
        return self._alone or self._kept_alone()

    def _kept_alone(self) -> AloneBooks:
        """The books of the last minute, where there are some: who goes alone again and again has one minute too."""
        kept, now_s = self._last_alone, self._now()
        if kept is None or now_s - self._last_alone_s > ALONE_KEPT_S or kept.gateways != self._link.live:
            kept = AloneBooks(self._link.live, self._known, now=self._now, wall=self._wall)
        self._last_alone, self._last_alone_s = kept, now_s
        return kept

    # --- scripts --------------------------------------------------------------------------------------------

    def _places(self, key: str) -> _Places:
        base, today = f"{self._link.prefix}:k:{key}", datetime.fromtimestamp(self._wall(), UTC)
        ledgers = f"{base}:d:{today:%Y-%m-%d}", f"{base}:m:{today:%Y-%m}"
        return _Places(f"{base}:window", f"{base}:holds", f"{base}:unwritten", *ledgers)

    async def _ask(
        self, mode: str, key: str, limits: Limits, holds: Sequence[Hold], at_once: int, ticket: _Ticket | None
    ) -> _Found:
        places = ticket.places if ticket is not None else self._places(key)
        for _ in range(3):
            arguments = self._arguments(mode, limits, holds, at_once, ticket)
            answer = await self._link.evaluate("hold", places.of_hold, arguments)
            if answer[0] != b"unseeded":
                return _found(answer, limits, self._wall())
            await self._seed(key, places)
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
            self._link.server_run or _NO_RUN,
            "" if ticket is None else f"{self._link.id}.{ticket.number}",
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

    async def _seed(self, key: str, places: _Places) -> None:
        """See to it that the key's ledgers are those of this run of the server. Raises LinkDown."""
        run = self._link.server_run or _NO_RUN
        async with self._seeding.setdefault(key, asyncio.Lock()):
            for is_last in (False, False, True):
                day, month, unwritten = await self._link.read((places.day, places.month, places.unwritten))
                if day.get(b"seeded", b"").decode() == month.get(b"seeded", b"").decode() == run:
                    break
                calls = [call.decode() for call in unwritten]
                spent = await self._read(key, calls)
                known = [call for call in calls if call in spent.written]
                values = [_fields(one) for one in (spent.day, spent.month)]
                arguments: list[str | int] = [run, month.get(b"doubts", b"0").decode(), int(is_last)]
                arguments += [len(calls), *calls]
                arguments += [len(known), *known, len(values[0]), *values[0], *values[1]]
                if await self._link.evaluate("seed", [places.day, places.month, places.unwritten], arguments):
                    break
            else:
                raise LinkDown("what the key spent changes while it is read")
        self._seeding.pop(key, None)

    async def _read(self, key: str, calls: Sequence[str]) -> KeySpent:
        """What the database knows. Raises LinkDown where it does not tell."""
        if self._now() < self._unknown_until_s.get(key, 0.0):
            raise LinkDown("what the key spent was not known a moment ago")
        spent = await read_spent(key, self._known, self._wall(), calls)
        if spent is None:
            self._unknown_until_s[key] = self._now() + ASK_AGAIN_S
            raise LinkDown("what the key spent is not known while the database is away")
        self._unknown_until_s.pop(key, None)
        return spent


@dataclass(frozen=True, slots=True)
class _Found:
    refused: Refused | None
    minutes: Minutes
    second: int


@dataclass(slots=True)
class _Entry:
    """What became of a hold or of a record; see lua/settle.lua. `written` without a call: ask the database again."""

    what: str
    """spent | written | corrected."""
    places: _Places
    hold: int = 0
    """Its number; 0 = without one."""
    second: str = ""
    held_tokens: int = 0
    call: str = ""
    tokens: int = 0
    price: Price | None = None
    unpriced: int = 0

    @property
    def says_something(self) -> bool:
        """Whether Redis lacks a sum without it."""
        return bool(self.call) or self.what == "corrected"

    def arguments(self, gateway: str) -> list[str | int]:
        places = self.places
        return [
            self.what,
            *(places.window, places.holds, places.unwritten, places.day, places.month),
            f"{gateway}.{self.hold}" if self.hold else "",
            self.second,
            _clamped(self.held_tokens),
            self.call,
            _clamped(self.tokens),
            self.unpriced,
            "" if self.price is None else self.price[0],
            0 if self.price is None else _nano(self.price[1]),
        ]


def _found(answer: Sequence[Any], limits: Limits, wall_s: float) -> _Found:
    what, budget_number, spent, wait_s, requests, requests_reset_s, tokens, tokens_reset_s, second = answer
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
    return _Found(refused, minutes, second)


def _budget_arguments(budget: Budget, charged: Sequence[Hold]) -> tuple[str, str, int, int]:
    unit, wanted = budget.unit, wanted_of(budget.unit, charged)
    return "d" if budget.period is Period.DAY else "m", unit, _whole(unit, budget.amount), _whole(unit, wanted)


def _whole(unit: str, amount: Amount) -> int:
    """As Redis counts it: tokens, or billionths of a currency."""
    return _clamped(int(amount)) if unit == TOKENS else _nano(Decimal(amount))


def _fields(spent: Spent) -> list[str | int]:
    amounts: dict[str, int] = {"unpriced": spent.unpriced}
    amounts |= {f"s:{unit}": _whole(unit, amount) for unit, amount in spent.spent.items()}
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
