"""Where it is written down what each key has used and holds right now: in this process, or shared by several gateways.

`OwnBooks` are the one gateway's: in memory, on the event loop, a check and its hold in one step. Those that several
gateways share are `shared_books`. What a call may take at most, and what a refusal says, is `limits`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from gateway.domain.accounts import TOKENS, Limits
from gateway.domain.limits import Account, Amount, Hold, Ledger, Refusal
from gateway.use_by_day import UsageRow

Price = tuple[str, Decimal]
"""Currency and amount."""


class Minutes(NamedTuple):
    """How full a key's minute is, for the headers of an answer."""

    limits: Limits
    requests: int
    requests_reset_s: float
    tokens: int
    tokens_reset_s: float


class Refused(NamedTuple):
    """Why a call may not be made now, and how full its key's minute is."""

    refusal: Refusal
    minutes: Minutes


@dataclass(frozen=True, slots=True)
class Spent:
    """What a key spent in a day or month so far, with what its calls in flight hold."""

    spent: Mapping[str, Amount]
    """By unit: tokens, and money by currency."""
    held: Mapping[str, Amount]
    unpriced: int
    """Calls whose cost is unknown: they are in no sum of money and block nothing."""


@dataclass(frozen=True, slots=True)
class Use:
    """How far a key has used what it may."""

    day: Spent
    month: Spent
    in_flight: int


@dataclass(frozen=True, slots=True)
class KeySpent:
    """What the database knows of a key's use at one moment."""

    day: Spent
    month: Spent
    """This day among it; nothing is held."""
    written: frozenset[str]
    """Of the calls that were asked about those that have ended there, and are in the sums."""


SpentBefore = Callable[[str, date, Sequence[str]], Awaitable[KeySpent]]
"""What the database knows of a key's use up to today (of UTC), and of calls. Raises Unavailable."""


class Books(Protocol):
    """Holds before a call, settles after it. A hold is settled once; by whom it was taken stands in it."""

    async def hold(self, key: str, limits: Limits, hold: Hold) -> Refused | None:
        """Hold everything for one call, or nothing: then why."""

    async def look(self, key: str, limits: Limits, holds: Sequence[Hold], at_once: int) -> Refused | None:
        """Why these calls may not all be made now, `at_once` of them at a time; nothing is held."""

    async def count_request(self, key: str, limits: Limits) -> Refused | None:
        """Count a request that is no call among those of the key's minute. Else why not."""

    def settle(self, key: str, hold: Hold, tokens: int, price: Price | None, *, is_unpriced: bool, call: str) -> None:
        """Replace what the call holds by what it took, in the minute, day and month in which it began.

        `call`: its id, by which its record is known; "" where there is none.
        """

    def correct(self, key: str, began_on: date, charged: Mapping[str, Decimal], without_cost: int) -> None:
        """Take over by how much the charges of calls that began on a day of UTC changed when they were settled."""

    def minutes(self, key: str, hold: Hold) -> Minutes | None:
        """As of now, or of when it was held; None where it is not known."""

    async def use(self, key: str) -> Use | None:
        """None where the key has called nothing since it was made."""


class OwnBooks:
    """The accounts of all keys, in memory."""

    def __init__(self, *, now: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        """`now`: monotonic seconds, for minutes. `wall`: epoch seconds, for days and months of UTC."""
        self._now = now
        self._wall = wall
        self._accounts: dict[str, Account] = {}

    async def restore(self, used: AsyncIterable[UsageRow]) -> None:
        """Take over what earlier processes spent since the month began. Before the first call."""
        async for row in used:
            if row.key is not None:
                self.note_spent(row.key, row)

    def note_before(self, key: str, before: KeySpent) -> None:
        """Add what was spent before anything was counted here."""
        account = self.account(key)
        _add(account.day, before.day)
        _add(account.month, before.month)

    def note_spent(self, key: str, row: UsageRow) -> None:
        """Add what was spent on one day of this month."""
        account = self.account(key)
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        for ledger in (account.day, account.month) if row.day == today else (account.month,):
            _add(ledger, spent_in((row,)))

    async def hold(self, key: str, limits: Limits, hold: Hold) -> Refused | None:
        account, now_s = self.account(key, limits), self._now()
        refusal = account.hold(hold, now_s, self._wall())
        return None if refusal is None else Refused(refusal, _minutes(account, now_s))

    async def look(self, key: str, limits: Limits, holds: Sequence[Hold], at_once: int) -> Refused | None:
        account, now_s = self.account(key, limits), self._now()
        refusal = account.refusal(holds, at_once, now_s, self._wall())
        return None if refusal is None else Refused(refusal, _minutes(account, now_s))

    async def count_request(self, key: str, limits: Limits) -> Refused | None:
        account, now_s = self.account(key, limits), self._now()
        refusal = account.count_request(now_s)
        return None if refusal is None else Refused(refusal, _minutes(account, now_s))

    def settle(self, key: str, hold: Hold, tokens: int, price: Price | None, *, is_unpriced: bool, call: str) -> None:
        self.account(key).settle(hold, tokens, price, now_s=self._now(), is_unpriced=is_unpriced)

    def correct(self, key: str, began_on: date, charged: Mapping[str, Decimal], without_cost: int) -> None:
        account = self._accounts.get(key)
        if account is None:
            return
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        is_present = (began_on == today, began_on.replace(day=1) == today.replace(day=1))
        for ledger, counts in zip(self._rolled(account), is_present, strict=True):
            if counts:
                ledger.unpriced += without_cost
                for currency, amount in charged.items():
                    ledger.spend(currency, amount)

    def minutes(self, key: str, hold: Hold) -> Minutes | None:
        return _minutes(self.account(key), self._now())

    async def use(self, key: str) -> Use | None:
        account = self._accounts.get(key)
        if account is None:
            return None
        day, month = map(_spent, self._rolled(account))
        return Use(day, month, account.in_flight)

    def account(self, key: str, limits: Limits | None = None) -> Account:
        """The key's, with the limits that it has now where they are given."""
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(Limits(), self._wall())
        if limits is not None:
            account.limits = limits
        return account

    def _rolled(self, account: Account) -> tuple[Ledger, Ledger]:
        for ledger in (account.day, account.month):
            ledger.roll(self._wall())
        return account.day, account.month


def spent_in(rows: Iterable[UsageRow]) -> Spent:
    """What limits and budgets count of these rows."""
    amounts: dict[str, Amount] = {TOKENS: 0}
    unpriced = 0
    for row in rows:
        amounts[TOKENS] += row.charged_tokens
        unpriced += row.calls_without_cost
        for amount in (row.cost, row.estimated_cost):
            if amount is not None and row.currency is not None:
                amounts[row.currency] = amounts.get(row.currency, Decimal(0)) + amount
    return Spent(amounts, {TOKENS: 0}, unpriced)


def _add(ledger: Ledger, before: Spent) -> None:
    ledger.unpriced += before.unpriced
    for unit, amount in before.spent.items():
        if unit == TOKENS:
            ledger.spent_tokens += int(amount)
        else:
            ledger.spend(unit, Decimal(amount))


def _minutes(account: Account, now_s: float) -> Minutes:
    requests, tokens = account.requests, account.tokens
    requests.advance(now_s)
    tokens.advance(now_s)
    return Minutes(account.limits, requests.total, requests.reset_s(now_s), tokens.total, tokens.reset_s(now_s))


def _spent(ledger: Ledger) -> Spent:
    return Spent(
        {TOKENS: ledger.spent_tokens, **ledger.spent_money},
        {TOKENS: ledger.held_tokens, **ledger.held_money},
        ledger.unpriced,
    )
