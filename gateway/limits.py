"""What each key has used and holds right now: reserve before a call, settle after it, refuse with the reason between.

In memory, on the event loop, without waiting: a reservation checks and takes in one step. What was spent before this
process began is read from the calls at the start. The arithmetic is `domain.limits`, the estimates `domain.charges`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from math import ceil

from gateway.asgi import RawHeaders
from gateway.domain.accounts import TOKENS, Budget, Caller, Limits
from gateway.domain.charges import (
    charged_tokens,
    estimated_cost,
    reserved_completion_tokens,
    reserved_cost,
)
from gateway.domain.limits import Account, Amount, Hold, Ledger, Obstacle, Refusal, SlidingMinute, retry_after_s
from gateway.domain.records import Call, CallStatus, Cost, Model, Usage
from gateway.endpoints import Endpoint
from gateway.errors import QuotaExhausted, RateLimited, SimsaError
from gateway.request_body import RequestBody
from gateway.use_by_day import UsageRow

_NAMES = (b"x-ratelimit-limit-", b"x-ratelimit-remaining-", b"x-ratelimit-reset-")
_OF_REQUESTS = (_NAMES[0] + b"requests", _NAMES[1] + b"requests", _NAMES[2] + b"requests")
_OF_TOKENS = (_NAMES[0] + b"tokens", _NAMES[1] + b"tokens", _NAMES[2] + b"tokens")


class Reservation:
    """What one call holds of its key's limits, until it is settled."""

    __slots__ = ("account", "completion", "hold", "model", "prompt_estimate")

    def __init__(
        self, account: Account, hold: Hold, model: Model, prompt_estimate: int = 0, completion: int = 0
    ) -> None:
        self.account = account
        self.hold = hold
        self.model = model
        self.prompt_estimate = prompt_estimate
        self.completion = completion

    def charge(
        self, status: CallStatus, usage: Usage, cost: Cost, *, reached_engine: bool
    ) -> tuple[int, Decimal | None]:
        """(tokens, money where the cost is unknown) that the call is charged with, now that it has ended."""
        charged = charged_tokens(
            status,
            usage,
            reached_engine=reached_engine,
            prompt_estimate=self.prompt_estimate,
            reserved_completion=self.completion,
        )
        return sum(charged), estimated_cost(self.model, cost, charged)


class Limiter:
    """All keys' accounts. One per gateway process."""

    def __init__(self, *, now: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        """`now`: monotonic seconds, for minutes. `wall`: epoch seconds, for days and months of UTC."""
        self._now = now
        self._wall = wall
        self._accounts: dict[str, Account] = {}

    async def restore(self, used: AsyncIterable[UsageRow]) -> None:
        """Take over what earlier processes spent since the month began. Before the first call."""
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        async for row in used:
            if row.key is None:
                continue
            account = self._account(row.key)
            for ledger in (account.day, account.month) if row.day == today else (account.month,):
                ledger.spent_tokens += row.charged_tokens
                ledger.unpriced += row.calls_without_cost
                for amount in (row.cost, row.estimated_cost):
                    if amount is not None and row.currency is not None:
                        ledger.spend(row.currency, amount)

    def reserve(self, caller: Caller, model: Model, endpoint: Endpoint, body: RequestBody) -> Reservation | None:
        """Hold what the call may take. None for callers without a key, who have no limits.

        Raises RateLimited where waiting helps, QuotaExhausted where a budget is used up.
        """
        account = self._account_of(caller)
        if account is None:
            return None
        reservation = _wanted(account, model, endpoint, body)
        self._take(reservation)
        return reservation

    def reserve_free(self, caller: Caller, model: Model) -> Reservation | None:
        """Hold a request that generates nothing: one of its minute, one at a time, no tokens. Else as `reserve`."""
        account = self._account_of(caller)
        if account is None:
            return None
        reservation = Reservation(account, Hold(0, None, is_free=True), model)
        self._take(reservation)
        return reservation

    def check(self, caller: Caller, model: Model, endpoint: Endpoint, body: RequestBody) -> None:
        """Raise what `reserve` would raise now, and hold nothing."""
        account = self._account_of(caller)
        if account is None:
            return
        hold, now_s = _wanted(account, model, endpoint, body).hold, self._now()
        refusal = account.refusal((hold,), 1, now_s, self._wall())
        if refusal is not None:
            raise _refused(refusal, account, hold, now_s)

    def count_request(self, caller: Caller) -> None:
        """Count a request that is no call among those of its key's minute. Raises RateLimited where that is full."""
        account = self._account_of(caller)
        if account is None:
            return
        now_s = self._now()
        refusal = account.count_request(now_s)
        if refusal is not None:
            raise _refused(refusal, account, Hold(0, None), now_s)

    def check_together(
        self, caller: Caller, endpoint: Endpoint, asked: Sequence[tuple[Model, RequestBody]], *, at_once: int
    ) -> None:
        """Raise what `reserve` would if all these calls were one; hold nothing. `at_once`: how many at a time.

        RateLimited without `retry_after_s` where they can never pass together.
        """
        account = self._account_of(caller)
        if account is None:
            return
        holds = [_wanted(account, model, endpoint, body).hold for model, body in asked]
        now_s = self._now()
        refusal = account.refusal(holds, at_once, now_s, self._wall())
        if refusal is not None:
            raise _refused(refusal, account, _together(holds, refusal.budget), now_s)

    def settle(self, reservation: Reservation | None, call: Call | None) -> None:
        """Replace what was held by what the call took. Exactly once counts; `call` None: nothing became of it."""
        if reservation is None or not reservation.hold.is_open:
            return
        hold, now_s = reservation.hold, self._now()
        if call is None:
            reservation.account.settle(hold, 0, None, now_s=now_s)
            return
        currency = call.cost.currency
        amount = call.cost.amount if call.cost.amount is not None else call.estimated_cost
        priced = (currency, amount) if amount is not None and currency is not None else None
        tokens = call.charged_tokens or 0
        reservation.account.settle(hold, tokens, priced, now_s=now_s, is_unpriced=priced is None)

    def correct(self, key: str, began_on: date, charged: Mapping[str, Decimal], without_cost: int) -> None:
        """Take over by how much the charges of calls that began on a day of UTC changed when they were settled."""
        ledgers = self.ledgers(key)
        if ledgers is None:
            return
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        for ledger, is_present in zip(
            ledgers, (began_on == today, began_on.replace(day=1) == today.replace(day=1)), strict=True
        ):
            if is_present:
                ledger.unpriced += without_cost
                for currency, amount in charged.items():
                    ledger.spend(currency, amount)

    def headers(self, reservation: Reservation | None) -> RawHeaders:
        """x-ratelimit-* for an answer; nothing where the key's minute is not limited."""
        if reservation is None:
            return []
        limits = reservation.account.limits
        if limits.requests_per_min is None and limits.tokens_per_min is None:
            return []
        return _limit_headers(reservation.account, self._now())

    def ledgers(self, key: str) -> tuple[Ledger, Ledger] | None:
        """The key's present day and month; None where it has called nothing since it was made."""
        account = self._accounts.get(key)
        if account is None:
            return None
        for ledger in (account.day, account.month):
            ledger.roll(self._wall())
        return account.day, account.month

    def in_flight(self, key: str) -> int:
        account = self._accounts.get(key)
        return account.in_flight if account is not None else 0

    def _take(self, reservation: Reservation) -> None:
        now_s = self._now()
        refusal = reservation.account.hold(reservation.hold, now_s, self._wall())
        if refusal is not None:
            raise _refused(refusal, reservation.account, reservation.hold, now_s)

    def _account_of(self, caller: Caller) -> Account | None:
        """The caller's account, with the limits that its key has now. None without a key."""
        if caller.key is None:
            return None
        account = self._account(caller.key)
        account.limits = caller.limits
        return account

    def _account(self, key: str) -> Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(Limits(), self._wall())
        return account


def _wanted(account: Account, model: Model, endpoint: Endpoint, body: RequestBody) -> Reservation:
    """What a call may take at most; nothing is held yet."""
    if not endpoint.is_computed:
        return Reservation(account, Hold(0, None, is_free=True), model)
    prompt = body.prompt_estimate
    answers = body.choices * body.prompts if endpoint.generates else 0
    completion = reserved_completion_tokens(body.max_tokens, answers, account.limits.default_max_tokens)
    hold = Hold(prompt + completion, reserved_cost(model, prompt, completion))
    return Reservation(account, hold, model, prompt, completion)


def _together(holds: Sequence[Hold], budget: Budget | None) -> Hold:
    """One hold of as much as all of them, its money in the budget's currency."""
    amounts = [hold.cost[1] for hold in holds if budget is not None and hold.cost and hold.cost[0] == budget.unit]
    cost = (budget.unit, sum(amounts, Decimal(0))) if budget is not None and amounts else None
    return Hold(sum(hold.tokens for hold in holds), cost)


def _limit_headers(account: Account, now_s: float) -> RawHeaders:
    limits = account.limits
    headers: RawHeaders = []
    if limits.requests_per_min is not None:
        headers += _minute_headers(_OF_REQUESTS, limits.requests_per_min, account.requests, now_s)
    if limits.tokens_per_min is not None:
        headers += _minute_headers(_OF_TOKENS, limits.tokens_per_min, account.tokens, now_s)
    return headers


def _minute_headers(names: tuple[bytes, bytes, bytes], limit: int, minute: SlidingMinute, now_s: float) -> RawHeaders:
    minute.advance(now_s)
    return [
        (names[0], b"%d" % limit),
        (names[1], b"%d" % max(0, limit - minute.total)),
        (names[2], b"%ds" % ceil(minute.reset_s(now_s))),
    ]


def _refused(refusal: Refusal, account: Account, hold: Hold, now_s: float) -> SimsaError:
    """The refusal as the caller is told it."""
    limits, obstacle = account.limits, refusal.obstacle
    if obstacle is Obstacle.BUDGET:
        return QuotaExhausted(_budget_words(refusal, hold), param="max_tokens" if refusal.left > 0 else None)
    words, param = "", None
    match obstacle:
        case Obstacle.REQUESTS:
            words = f"This key's limit of {limits.requests_per_min:,} requests a minute is reached."
        case Obstacle.TOKENS:
            words = (
                f"This key's limit of {limits.tokens_per_min:,} tokens a minute is reached: this request may take "
                f"{hold.tokens:,}, prompt and answer."
            )
        case Obstacle.TOO_LARGE:
            param = "max_tokens"
            words = (
                f"This request may take {hold.tokens:,} tokens, prompt and answer, more than this key's whole limit of "
                f"{limits.tokens_per_min:,} a minute: send less, or a smaller 'max_tokens'."
            )
        case Obstacle.TOO_MANY:
            words = (
                "This asks more calls of the key than it may ever make: "
                f"{_shown(limits.requests_per_min)} a minute, {_shown(limits.concurrent)} at a time. Ask fewer models, "
                "or one after the other."
            )
        case Obstacle.CONCURRENT:
            words = f"This key may have {limits.concurrent:,} calls at a time, and has: wait for one to end."
        case Obstacle.RESERVED:
            assert refusal.budget is not None
            words = f"{_budget_name(refusal.budget)} is reserved to its end by calls in flight: wait for one to end."
    is_hopeless = obstacle in (Obstacle.TOO_LARGE, Obstacle.TOO_MANY)
    wait_s = None if is_hopeless else retry_after_s(refusal.wait_s)
    shown = [(name.decode(), value.decode()) for name, value in _limit_headers(account, now_s)]
    return RateLimited(words, retry_after_s=wait_s, limit_headers=shown, param=param)


def _shown(limit: int | None) -> str:
    return "any number" if limit is None else f"{limit:,}"


def _budget_words(refusal: Refusal, hold: Hold) -> str:
    budget = refusal.budget
    assert budget is not None
    if refusal.left <= 0:
        return f"{_budget_name(budget)} is used up; it begins anew with the next {budget.period} of UTC."
    wanted: Amount = hold.tokens if budget.unit == TOKENS or hold.cost is None else hold.cost[1]
    return (
        f"{_budget_name(budget)} has {refusal.left:,} left, and this request may take {wanted:,}: send a smaller "
        f"'max_tokens', or wait for the next {budget.period} of UTC."
    )


def _budget_name(budget: Budget) -> str:
    return f"This key's budget of {budget.amount:,} {budget.unit} a {budget.period}"
