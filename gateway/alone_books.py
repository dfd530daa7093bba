"""One gateway's books while it cannot count together with the others: an equal share of each limit and budget.

What a budget has left is what the database says that the key has not spent; of that, too, this gateway gives its share
only. When that is needed, and how it counts afterwards, is `shared_books`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal

import structlog

from gateway.books import KeySpent, Minutes, OwnBooks, Price, Refused, SpentBefore, Use
from gateway.domain.accounts import Limits, Period
from gateway.domain.limits import Amount, Hold
from gateway.errors import Unavailable
from gateway.store import RowRefused

_DATABASE_PATIENCE_S = 2.0
ASK_AGAIN_S = 15.0
"""How long nobody waits again for a database that did not tell what a key spent."""


class AloneBooks:
    """A gateway's own books while Redis is away: an equal share of every limit, and of what a budget has left."""

    def __init__(
        self,
        gateways: int,
        known: SpentBefore,
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`gateways`: how many there are, this one included; otherwise as `SharedBooks`."""
        self._own = OwnBooks(now=now, wall=wall)
        self.gateways = gateways
        self._now = now
        self._known = known
        self._wall = wall
        self._before: dict[str, _Before] = {}
        self._reading: dict[str, asyncio.Lock] = {}
        self._unknown_until_s: dict[str, float] = {}

    async def hold(self, key: str, limits: Limits, hold: Hold) -> Refused | None:
        return await self._own.hold(key, await self._share_of(key, limits), hold)

    async def look(self, key: str, limits: Limits, holds: Sequence[Hold], at_once: int) -> Refused | None:
        return await self._own.look(key, await self._share_of(key, limits), holds, at_once)

    async def count_request(self, key: str, limits: Limits) -> Refused | None:
        return await self._own.count_request(key, await self._share_of(key, limits))

    def settle(self, key: str, hold: Hold, tokens: int, price: Price | None, *, is_unpriced: bool, call: str) -> None:
        self._own.settle(key, hold, tokens, price, is_unpriced=is_unpriced, call=call)

    def correct(self, key: str, began_on: date, charged: Mapping[str, Decimal], without_cost: int) -> None:
        self._own.correct(key, began_on, charged, without_cost)

    def minutes(self, key: str, hold: Hold) -> Minutes | None:
        return self._own.minutes(key, hold)

    async def use(self, key: str) -> Use | None:
        return await self._own.use(key)

    async def _share_of(self, key: str, limits: Limits) -> Limits:
        before = (await self._before_of(key)).on(datetime.fromtimestamp(self._wall(), UTC).date())
        shares = []
        for budget in limits.budgets:
            spent = Decimal(before[budget.period].get(budget.unit, 0))
            left = max(Decimal(0), budget.amount - spent)
            shares.append(replace(budget, amount=spent + left / self.gateways))
        return replace(
            limits,
            requests_per_min=self._part(limits.requests_per_min),
            tokens_per_min=self._part(limits.tokens_per_min),
            concurrent=self._part(limits.concurrent),
            budgets=tuple(shares),
        )

    async def _before_of(self, key: str) -> _Before:
        """What the key had spent before this gateway counted alone; nothing for as long as the database does not tell.

        It does not grow with what is spent here, or shares would be given of it again and again. What it tells late may
        have some of that in it: then a little less is given than could be.
        """
        now_s = self._now()
        async with self._reading.setdefault(key, asyncio.Lock()):
            before = self._before.get(key)
            if before is None and now_s >= self._unknown_until_s.get(key, 0.0):
                spent = await read_spent(key, self._known, self._wall())
                if spent is not None:
                    self._own.note_before(key, spent)
                    today = datetime.fromtimestamp(self._wall(), UTC).date()
                    before = self._before[key] = _Before(today, spent.day.spent, spent.month.spent)
                else:
                    self._unknown_until_s[key] = now_s + ASK_AGAIN_S
        return before or _NOTHING

    def _part(self, limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // self.gateways) if limit else 0


@dataclass(frozen=True, slots=True)
class _Before:
    """What was spent before, as of a day."""

    as_of: date
    day: Mapping[str, Amount]
    month: Mapping[str, Amount]

    def on(self, today: date) -> dict[Period, Mapping[str, Amount]]:
        """What of it counts today: nothing of a day or month that is over."""
        is_same_month = self.as_of.replace(day=1) == today.replace(day=1)
        return {
            Period.DAY: self.day if self.as_of == today else {},
            Period.MONTH: self.month if is_same_month else {},
        }


_NOTHING = _Before(date.min, {}, {})


async def read_spent(key: str, known: SpentBefore, wall_s: float, calls: Sequence[str] = ()) -> KeySpent | None:
    """What the database knows of a key's use, and of these calls; None where it does not tell in time."""
    today = datetime.fromtimestamp(wall_s, UTC).date()
    try:
        async with asyncio.timeout(_DATABASE_PATIENCE_S):
            return await known(key, today, calls)
    except (Unavailable, RowRefused, TimeoutError) as error:
        structlog.get_logger("simsa.limits").error(
            "what a key spent this month is not known: its budgets have more left than they should",
            key=key,
            why=str(error),
        )
        return None
