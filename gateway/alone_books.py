"""One gateway's books while it cannot count together with the others: an equal share of each limit and budget.

What a budget has left is what the database says that the key has not spent; of that, too, this gateway gives its share
only. When that is needed, and what is handed in afterwards, is `shared_books`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import structlog

from gateway.books import Minutes, OwnBooks, Price, Refused, Use
from gateway.domain.accounts import TOKENS, Limits, Period
from gateway.domain.limits import Amount, Hold, Ledger
from gateway.errors import Unavailable
from gateway.store import RowRefused
from gateway.use_by_day import UsageRow

KeyUsage = Callable[[str, date, date], AsyncIterable[UsageRow]]
"""What the database knows of a key's use from one day to another."""
_DATABASE_PATIENCE_S = 2.0
ASK_AGAIN_S = 15.0
"""How long nobody waits again for a database that did not tell what a key spent."""


class AloneBooks:
    """A gateway's own books while Redis is away: an equal share of every limit, and of what a budget has left."""

    def __init__(
        self,
        gateways: int,
        usage: KeyUsage,
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`gateways`: how many there are, this one included; otherwise as `SharedBooks`."""
        self._own = OwnBooks(now=now, wall=wall)
        self.gateways = gateways
        self._now = now
        self._usage = usage
        self._wall = wall
        self._spent_before: dict[str, tuple[date, Mapping[str, Amount], Mapping[str, Amount]]] = {}
        self._reading: dict[str, asyncio.Lock] = {}
        self._unknown_until_s: dict[str, float] = {}

    async def hold(self, key: str, limits: Limits, hold: Hold) -> Refused | None:
        return await self._own.hold(key, await self._share_of(key, limits), hold)

    async def look(self, key: str, limits: Limits, holds: Sequence[Hold], at_once: int) -> Refused | None:
        return await self._own.look(key, await self._share_of(key, limits), holds, at_once)

    async def count_request(self, key: str, limits: Limits) -> Refused | None:
        return await self._own.count_request(key, await self._share_of(key, limits))

    def settle(self, key: str, hold: Hold, tokens: int, price: Price | None, *, is_unpriced: bool) -> None:
        self._own.settle(key, hold, tokens, price, is_unpriced=is_unpriced)

    def correct(self, key: str, began_on: date, charged: Mapping[str, Decimal], without_cost: int) -> None:
        self._own.correct(key, began_on, charged, without_cost)

    def minutes(self, key: str, hold: Hold) -> Minutes | None:
        return self._own.minutes(key, hold)

    async def use(self, key: str) -> Use | None:
        return await self._own.use(key)

    async def _share_of(self, key: str, limits: Limits) -> Limits:
        today, now_s = datetime.fromtimestamp(self._wall(), UTC).date(), self._now()
        async with self._reading.setdefault(key, asyncio.Lock()):
            known = self._spent_before.get(key)
            if known is None and now_s >= self._unknown_until_s.get(key, 0.0):
                if await read_spent(self._own, key, self._usage, self._wall()):
                    known = self._spent_before[key] = self._of_now(key, today)
                else:
                    self._unknown_until_s[key] = now_s + ASK_AGAIN_S
            elif known is not None and known[0] != today:  # of a day or month that is over nothing counts
                known = self._spent_before[key] = self._of_now(key, today)
        known = known or self._of_now(key, today)
        _, day_before, month_before = known
        shares = []
        for budget in limits.budgets:
            before = Decimal((day_before if budget.period is Period.DAY else month_before).get(budget.unit, 0))
            left = max(Decimal(0), budget.amount - before)
            shares.append(replace(budget, amount=before + left / self.gateways))
        return replace(
            limits,
            requests_per_min=self._part(limits.requests_per_min),
            tokens_per_min=self._part(limits.tokens_per_min),
            concurrent=self._part(limits.concurrent),
            budgets=tuple(shares),
        )

    def _of_now(self, key: str, today: date) -> tuple[date, Mapping[str, Amount], Mapping[str, Amount]]:
        account = self._own.account(key)
        for ledger in account.ledgers:
            ledger.roll(self._wall())
        return today, _spent_in(account.day), _spent_in(account.month)

    def _part(self, limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // self.gateways) if limit else 0


def _spent_in(ledger: Ledger) -> Mapping[str, Amount]:
    spent: dict[str, Amount] = {TOKENS: ledger.spent_tokens}
    return {**spent, **ledger.spent_money}


async def read_spent(books: OwnBooks, key: str, usage: KeyUsage, wall_s: float) -> bool:
    """Take over what the database knows of this month, whole or not at all: then False."""
    today = datetime.fromtimestamp(wall_s, UTC).date()
    try:
        async with asyncio.timeout(_DATABASE_PATIENCE_S):
            rows = [row async for row in usage(key, today.replace(day=1), today)]
    except (Unavailable, RowRefused, TimeoutError) as error:
        structlog.get_logger("simsa.limits").error(
            "what a key spent this month is not known: its budgets have more left than they should",
            key=key,
            why=str(error),
        )
        return False
    for row in rows:
        books.note_spent(key, row)
    return True
