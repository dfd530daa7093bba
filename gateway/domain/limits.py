"""The arithmetic of a key's limits: a sliding minute, calls at a time, and budgets of a day and a month.

Plain numbers and no clock: monotonic seconds count minutes, epoch seconds tell which day of UTC it is. A call is held
with what it may take before it starts and settled with what it took; whatever the order, what is settled stays
within the limit plus what the calls in flight took beyond their reservation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from math import ceil

from gateway.domain.accounts import TOKENS, Budget, Limits, Period

WINDOW_S = 60
_SLOTS = WINDOW_S + 1
_DAY_S = 86_400
Amount = int | Decimal


class SlidingMinute:
    """Amounts of the last 60 to 61 seconds, in slots of one second: never less than what the last 60 s really had."""

    __slots__ = ("_amounts", "_newest", "total")

    def __init__(self) -> None:
        self._amounts = [0] * _SLOTS
        self._newest = 0
        self.total = 0
        """As of the last `advance`."""

    def advance(self, now_s: float) -> None:
        """Let go of what is older than the window."""
        now = int(now_s)
        gap = now - self._newest
        if gap <= 0:
            return
        if gap >= _SLOTS:
            self._amounts = [0] * _SLOTS
            self.total = 0
        elif self.total:
            for slot in range(self._newest + 1, now + 1):
                self.total -= self._amounts[slot % _SLOTS]
                self._amounts[slot % _SLOTS] = 0
        self._newest = now

    def add(self, amount: int) -> int:
        """Count `amount` in the present second; returns its slot, for `correct`."""
        self._amounts[self._newest % _SLOTS] += amount
        self.total += amount
        return self._newest

    def correct(self, slot: int, difference: int) -> None:
        """Change what was counted in `slot`, unless that has left the window."""
        if self._newest - slot < _SLOTS:
            self._amounts[slot % _SLOTS] += difference
            self.total += difference

    def wait_s(self, excess: int, now_s: float) -> float:
        """Seconds until at least `excess` of the present total has left the window."""
        freed = 0
        for slot in range(self._newest - WINDOW_S, self._newest + 1):
            freed += self._amounts[slot % _SLOTS]
            if freed >= excess:
                return slot + _SLOTS - now_s
        return self._newest + _SLOTS - now_s

    def reset_s(self, now_s: float) -> float:
        """Seconds until the window is empty; 0 when it is."""
        for slot in range(self._newest, self._newest - _SLOTS, -1):
            if self._amounts[slot % _SLOTS]:
                return slot + _SLOTS - now_s
        return 0.0


class Ledger:
    """What was spent and is held in the present day or month: tokens, and money by currency."""

    __slots__ = ("_period", "ends_s", "held_money", "held_tokens", "spent_money", "spent_tokens", "unpriced")

    def __init__(self, period: Period, wall_s: float) -> None:
        self._period = period
        self.spent_tokens = self.held_tokens = 0
        self.spent_money: dict[str, Decimal] = {}
        self.held_money: dict[str, Decimal] = {}
        self.unpriced = 0
        """Calls whose cost is unknown: they are in no sum of money and block nothing."""
        self.ends_s = period_end_s(period, wall_s)

    def roll(self, wall_s: float) -> None:
        """Begin anew when the period is over. A clock that is set back changes nothing."""
        if wall_s >= self.ends_s:
            self.spent_tokens = self.held_tokens = self.unpriced = 0
            self.spent_money, self.held_money = {}, {}
            self.ends_s = period_end_s(self._period, wall_s)

    def hold(self, currency: str, amount: Decimal) -> None:
        self.held_money[currency] = self.held_money.get(currency, 0) + amount

    def spend(self, currency: str, amount: Decimal) -> None:
        self.spent_money[currency] = self.spent_money.get(currency, 0) + amount

    def spent(self, unit: str) -> Amount:
        """Of "tokens" or a currency."""
        return self.spent_tokens if unit == TOKENS else self.spent_money.get(unit, 0)

    def held(self, unit: str) -> Amount:
        return self.held_tokens if unit == TOKENS else self.held_money.get(unit, 0)


class Obstacle(Enum):
    """Which limit stands in the way."""

    CONCURRENT = "concurrent"
    REQUESTS = "requests"
    TOKENS = "tokens"
    TOO_LARGE = "too_large"
    """More tokens than the key may ever use in a minute."""
    TOO_MANY = "too_many"
    """More calls together than the key may ever make in a minute, or have at a time."""
    RESERVED = "reserved"
    """The rest of a budget is held by calls in flight; what they do not take comes back."""
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Refusal:
    obstacle: Obstacle
    wait_s: float
    """Seconds after which the same request may pass."""
    budget: Budget | None = None
    left: Amount = 0
    """Of the budget."""


class Hold:
    """What one call holds of its key's limits until it is settled."""

    __slots__ = ("cost", "day_ends_s", "is_free", "is_open", "month_ends_s", "slot", "ticket", "tokens")

    def __init__(self, tokens: int, cost: tuple[str, Decimal] | None, *, is_free: bool = False) -> None:
        """`is_free`: it takes nothing of a budget whatever becomes of it, so none that is used up stands in its way."""
        self.is_free = is_free
        self.tokens = tokens
        self.cost = cost
        """(currency, amount), where a price is known beforehand."""
        self.slot = 0
        self.day_ends_s = self.month_ends_s = 0.0
        self.is_open = True
        self.ticket: object = None
        """What books outside this process know it by."""


class Account:
    """One key's use of its limits. `limits` may be replaced at any time; what was used stays."""

    __slots__ = ("day", "in_flight", "limits", "month", "requests", "tokens")

    def __init__(self, limits: Limits, wall_s: float) -> None:
        self.limits = limits
        self.in_flight = 0
        self.requests = SlidingMinute()
        self.tokens = SlidingMinute()
        self.day = Ledger(Period.DAY, wall_s)
        self.month = Ledger(Period.MONTH, wall_s)

    @property
    def ledgers(self) -> tuple[Ledger, Ledger]:
        """Of the day and of the month."""
        return self.day, self.month

    def hold(self, hold: Hold, now_s: float, wall_s: float) -> Refusal | None:
        """Hold everything for one call, or nothing: then why; see `refusal`."""
        refusal = self.refusal((hold,), 1, now_s, wall_s)
        if refusal is not None:
            return refusal
        self.in_flight += 1
        self.requests.add(1)
        hold.slot = self.tokens.add(hold.tokens)
        hold.day_ends_s, hold.month_ends_s = self.day.ends_s, self.month.ends_s
        for ledger in (self.day, self.month):
            ledger.held_tokens += hold.tokens
            if hold.cost is not None:
                ledger.hold(*hold.cost)
        return None

    def count_request(self, now_s: float) -> Refusal | None:
        """Count a request that is no call: it takes no tokens and is over at once. Else why not."""
        self.requests.advance(now_s)
        refusal = self._too_many_requests(1, now_s)
        if refusal is None:
            self.requests.add(1)
        return refusal

    def settle(
        self, hold: Hold, tokens: int, cost: tuple[str, Decimal] | None, *, now_s: float, is_unpriced: bool = False
    ) -> None:
        """Replace what the call holds by what it took, in the minute, day and month in which it began. Once."""
        if not hold.is_open:
            raise ValueError("a call is settled once")
        hold.is_open = False
        self.in_flight -= 1
        self.tokens.advance(now_s)
        self.tokens.correct(hold.slot, tokens - hold.tokens)
        for ledger, ends_s in ((self.day, hold.day_ends_s), (self.month, hold.month_ends_s)):
            if ledger.ends_s != ends_s:
                continue  # it began in a period that is over
            ledger.held_tokens -= hold.tokens
            ledger.spent_tokens += tokens
            if hold.cost is not None:
                ledger.hold(hold.cost[0], -hold.cost[1])
            if cost is not None:
                ledger.spend(*cost)
            ledger.unpriced += is_unpriced

    def refusal(self, holds: Sequence[Hold], at_once: int, now_s: float, wall_s: float) -> Refusal | None:
        """Why these calls may not all be made now, `at_once` of them at a time; nothing is held.

        Budgets are looked at first: waiting helps least with them.
        """
        self.requests.advance(now_s)
        self.tokens.advance(now_s)
        self.day.roll(wall_s)
        self.month.roll(wall_s)
        limits = self.limits
        charged = [hold for hold in holds if not hold.is_free]
        for budget in limits.budgets if charged else ():
            refusal = self._over_budget(budget, charged, wall_s)
            if refusal is not None:
                return refusal
        most = limits.tokens_per_min
        if most is not None and (excess := self.tokens.total + (wanted := _tokens(holds)) - most) > 0:
            if wanted > most:
                return Refusal(Obstacle.TOO_LARGE, 0.0)
            return Refusal(Obstacle.TOKENS, self.tokens.wait_s(excess, now_s))
        too_many = self._too_many_requests(len(holds), now_s)
        if too_many is not None:
            return too_many
        if limits.concurrent is not None and self.in_flight + at_once > limits.concurrent:
            return Refusal(Obstacle.TOO_MANY if at_once > limits.concurrent else Obstacle.CONCURRENT, 1.0)
        return None

    def _too_many_requests(self, count: int, now_s: float) -> Refusal | None:
        most = self.limits.requests_per_min
        if most is None or (excess := self.requests.total + count - most) <= 0:
            return None
        if count > most:
            return Refusal(Obstacle.TOO_MANY, 0.0)
        return Refusal(Obstacle.REQUESTS, self.requests.wait_s(excess, now_s))

    def _over_budget(self, budget: Budget, holds: Sequence[Hold], wall_s: float) -> Refusal | None:
        ledger = self.day if budget.period is Period.DAY else self.month
        unit = budget.unit
        wanted = wanted_of(unit, holds)
        left = budget.amount - ledger.spent(unit)
        if left > 0 and wanted + ledger.held(unit) <= left:
            return None
        if left > 0 and wanted <= left:
            return Refusal(Obstacle.RESERVED, 1.0, budget, left)
        return Refusal(Obstacle.BUDGET, ledger.ends_s - wall_s, budget, max(Decimal(0), left))


def wanted_of(unit: str, holds: Sequence[Hold]) -> Amount:
    """What calls want of a budget of this unit, together."""
    if unit == TOKENS:
        return _tokens(holds)
    wanted: Amount = 0
    for hold in holds:
        if hold.cost is not None and hold.cost[0] == unit:
            wanted += hold.cost[1]
    return wanted


def _tokens(holds: Sequence[Hold]) -> int:
    return holds[0].tokens if len(holds) == 1 else sum(hold.tokens for hold in holds)


def period_end_s(period: Period, wall_s: float) -> float:
    """The epoch second at which the UTC day or month that contains `wall_s` is over."""
    if period is Period.DAY:
        return (int(wall_s // _DAY_S) + 1) * float(_DAY_S)
    moment = datetime.fromtimestamp(wall_s, UTC)
    year, month = (moment.year + 1, 1) if moment.month == 12 else (moment.year, moment.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()


def retry_after_s(wait_s: float) -> int:
    """Whole seconds for Retry-After: not less than the wait, and 1 to 120, past which clients give up."""
    return min(120, max(1, ceil(wait_s)))
