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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from gateway.alone_books import ASK_AGAIN_S, AloneBooks, read_spent
from gateway.books import KeySpent, Minutes, Price, Refused, Spent, SpentBefore, Use
from gateway.counted import amount_of, clamped, nano, whole
from gateway.domain.accounts import TOKENS, Budget, Limits, Period
from gateway.domain.limits import Amount, Hold, Obstacle, Refusal, period_end_s, wanted_of
from gateway.handing_in import Entry, HandingIn, Places
from gateway.redis_link import LinkDown, RedisLink

_NO_RUN = "unknown"
_OF_SEEDING = frozenset({b"seeded", b"doubts"})
KEYS_AT_ONCE = 500
MONTH_KEPT_S = 40 * 86400
SEED_S = 2.0
"""How long it may take to read and to seed a key: after a time without the database many calls are unwritten."""
TIDY_S = 300.0
"""How often holds are let go of that came to Redis after their call had given them up."""
ALONE_KEPT_S = 120.0
"""After so long without it, what a gateway counted alone is of no minute any more."""


@dataclass(slots=True)
class _Ticket:
    """How a hold is found again."""

    number: int
    """Of this gateway's holds; 0 where it is none of Redis's."""
    places: Places
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
        self._out = HandingIn(link)
        self._unwritten: dict[str, str] = {}
        """Key of each call that ended here and whose record is not in the database."""
        self._seeding: dict[str, asyncio.Lock] = {}
        self._unknown_until_s: dict[str, float] = {}
        """By key: what it spent could not be read."""
        self._run: str | None = link.server_run
        self._tidy_at_s = now() + TIDY_S
        self._doubts = self._doubted = 0
        """How often all keys were to be read again, and how often of that they are."""
        self._alone: AloneBooks | None = None
        self._last_alone: AloneBooks | None = None
        self._last_alone_s = 0.0
        link.on_up.append(self._go_together)
        link.on_down.append(self._go_alone)
        if not link.is_up:
            self._go_alone()

    @property
    def is_shared(self) -> bool:
        """False while this gateway counts alone."""
        return self._alone is None

    @property
    def doubts_all(self) -> bool:
        """Whether every key is to be read again."""
        return self._doubted < self._doubts

    @property
    def is_untidy(self) -> bool:
        """Whether Redis may hold for this gateway what no call of it needs."""
        return self._alone is None and self._now() >= self._tidy_at_s

    # --- holding --------------------------------------------------------------------------------------------

    async def hold(self, key: str, limits: Limits, hold: Hold) -> Refused | None:
        if self._alone is not None:
            return await self._hold_alone(self._alone, key, limits, hold)
        places = self._places(key)
        ticket = hold.ticket = _Ticket(self._out.begin_hold(places), places)
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
            self._out.end_hold(places, ticket.number)
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
        entry = Entry("spent", ticket.places, ticket.number, ticket.second, hold.tokens, call)
        entry.tokens, entry.price, entry.unpriced = tokens, price, int(is_unpriced)
        self._out.note(entry)

    def written(self, key: str, call: str, *, is_left: bool = False) -> None:
        """A call's record is in the database. `is_left`: it is an earlier process's, of which nothing is known here."""
        if self._unwritten.pop(call, None) is not None or is_left:
            self._out.note_written(self._places(key), call)

    def correct(self, key: str, began_on: date, charged: Mapping[str, Decimal], without_cost: int) -> None:
        places = self._places(key)
        if self._alone is not None:
            self._alone.correct(key, began_on, charged, without_cost)
            self._out.doubt(places)
            return
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        if began_on.replace(day=1) != today.replace(day=1):
            return
        if began_on != today:
            places = replace(places, day="")
        entries = [Entry("corrected", places, price=price) for price in charged.items()]
        entries = entries or [Entry("corrected", places)]
        entries[0].unpriced = without_cost
        for entry in entries:
            self._out.note(entry)

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

    def doubt(self, key: str) -> None:
        """The database has changed what it says of this key: read it again before its next call."""
        self._out.doubt(self._places(key))

    def doubt_all(self) -> None:
        """It may have changed of any: somebody is gone who would have told."""
        self._doubts += 1
        self._out.some.set()

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
                    await self._out.some.wait()
            try:
                await self._out.send_some()
                if self.doubts_all and self._alone is None:
                    await self._doubt_all_now()
                if self.is_untidy:
                    await self._tidy()
            except LinkDown:
                await asyncio.sleep(0.2)
                if self.doubts_all:
                    self._out.some.set()

    async def flush(self) -> bool:
        """Hand in what is left; False where Redis does not answer."""
        return await self._out.flush()

    def _let_go(self, ticket: _Ticket, hold: Hold) -> None:
        """Whether it is held nobody knows: where it is, it will not be."""
        self._out.note(Entry("spent", ticket.places, ticket.number, held_tokens=hold.tokens))

    async def _tidy(self) -> None:
        """Let go of what Redis holds for this gateway and no call of it needs: it came late, or from an older state of
        Redis than was known. Raises LinkDown."""
        for holds in await self._link.scan("k:*:holds"):
            out = self._out
            await self._link.evaluate("release", [holds], [self._link.id, out.last_hold, *out.open_holds(holds)])
        self._tidy_at_s = self._now() + TIDY_S

    async def _doubt_all_now(self) -> None:
        doubts = self._doubts
        months = await self._link.scan(f"k:*:m:{datetime.fromtimestamp(self._wall(), UTC):%Y-%m}")
        for first in range(0, len(months), KEYS_AT_ONCE):
            await self._link.evaluate("doubt", months[first : first + KEYS_AT_ONCE], [])
        self._doubted = doubts

    # --- together and alone ---------------------------------------------------------------------------------

    def _go_alone(self) -> None:
        if self._alone is None:
            self._alone = self._kept_alone()
            self._out.doubt_corrections()

    def _go_together(self) -> None:
        self._alone = None
        if self._link.server_run != self._run:  # its state may be an older one
            self._run = self._link.server_run
            self._tidy_at_s = self._now()
        self._out.some.set()

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

    def _places(self, key: str) -> Places:
        base, today = f"{self._link.prefix}:k:{key}", datetime.fromtimestamp(self._wall(), UTC)
        ledgers = f"{base}:d:{today:%Y-%m-%d}", f"{base}:m:{today:%Y-%m}"
        return Places(f"{base}:window", f"{base}:holds", f"{base}:unwritten", *ledgers)

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
            clamped(sum(hold.tokens for hold in holds)),
            "" if cost is None else cost[0],
            "" if cost is None else nano(cost[1]),
            *("" if limit is None else limit for limit in (limits.requests_per_min, limits.tokens_per_min)),
            "" if limits.concurrent is None else limits.concurrent,
            *(value for budget in budgets for value in _budget_arguments(budget, charged)),
        ]

    async def _seed(self, key: str, places: Places) -> None:
        """See to it that the key's ledgers are those of this run of the server. Raises LinkDown."""
        run = self._link.server_run or _NO_RUN
        async with self._seeding.setdefault(key, asyncio.Lock()):
            for is_last in (False, False, True):
                if self._now() < self._unknown_until_s.get(key, 0.0):
                    raise LinkDown("what the key spent was not known a moment ago")
                kept = (places.day, places.month, places.unwritten)
                day, month, unwritten = await self._link.read(kept, timeout_s=SEED_S)
                if day.get(b"seeded", b"").decode() == month.get(b"seeded", b"").decode() == run:
                    break
                if not month:  # so that who doubts all keys from here on finds this one
                    await self._link.make(places.month, "doubts", "0", for_s=MONTH_KEPT_S)
                calls = {call.decode(): facts.decode() for call, facts in unwritten.items()}
                spent = await self._read(key, list(calls))
                known = [call for call in calls if call in spent.written]
                values = [_fields(one) for one in (spent.day, spent.month)]
                arguments: list[str | int] = [run, month.get(b"doubts", b"0").decode(), int(is_last)]
                arguments += [len(calls), *(part for each in calls.items() for part in each)]
                arguments += [len(known), *known, len(values[0]), *values[0], *values[1]]
                if await self._link.evaluate("seed", kept, arguments, timeout_s=SEED_S):
                    break
            else:
                raise LinkDown("what the key spent changes while it is read")
        self._seeding.pop(key, None)

    async def _read(self, key: str, calls: Sequence[str]) -> KeySpent:
        """What the database knows. Raises LinkDown where it does not tell."""
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


def _found(answer: Sequence[Any], limits: Limits, wall_s: float) -> _Found:
    what, budget_number, spent, wait_s, requests, requests_reset_s, tokens, tokens_reset_s, second = answer
    minutes = Minutes(limits, int(requests), float(requests_reset_s), int(tokens), float(tokens_reset_s))
    refused = None
    if what:
        refusal = Refusal(Obstacle(what.decode()), float(wait_s))
        if budget_number:
            budget = limits.budgets[budget_number - 1]
            left = budget.amount - amount_of(budget.unit, spent)
            if refusal.obstacle is Obstacle.BUDGET:
                left = max(Decimal(0), left)
                refusal = replace(refusal, wait_s=period_end_s(budget.period, wall_s) - wall_s)
            refusal = replace(refusal, budget=budget, left=left)
        refused = Refused(refusal, minutes)
    return _Found(refused, minutes, second)


def _budget_arguments(budget: Budget, charged: Sequence[Hold]) -> tuple[str, str, int, int]:
    unit, wanted = budget.unit, wanted_of(budget.unit, charged)
    return "d" if budget.period is Period.DAY else "m", unit, whole(unit, budget.amount), whole(unit, wanted)


def _fields(spent: Spent) -> list[str | int]:
    amounts: dict[str, int] = {"unpriced": spent.unpriced}
    amounts |= {f"s:{unit}": whole(unit, amount) for unit, amount in spent.spent.items()}
    return [part for pair in amounts.items() for part in pair]


def _is_untouched(fields: Mapping[bytes, bytes]) -> bool:
    return all(name in _OF_SEEDING or not int(value) for name, value in fields.items())


def _spent(fields: Mapping[bytes, bytes]) -> Spent:
    found: dict[str, dict[str, Amount]] = {"s": {TOKENS: 0}, "h": {TOKENS: 0}}
    for name, value in fields.items():
        kind, _, unit = name.decode().partition(":")
        if unit:
            found[kind][unit] = amount_of(unit, value)
    return Spent(found["s"], found["h"], int(fields.get(b"unpriced", 0)))
