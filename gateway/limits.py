"""What a key may still use: reserve before a call, settle after it, refuse with the reason between.

Where it is written down, and by how many gateways, is `books`' matter. The arithmetic is `domain.limits`, the estimates
are `domain.charges`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import ceil

from gateway.asgi import RawHeaders
from gateway.books import Books, Minutes, Refused
from gateway.domain.accounts import TOKENS, Budget, Caller, Limits
from gateway.domain.charges import (
    charged_tokens,
    estimated_cost,
    reserved_completion_tokens,
    reserved_cost,
)
from gateway.domain.limits import Amount, Hold, Obstacle, Refusal, retry_after_s
from gateway.domain.records import Call, CallStatus, Cost, Model, Usage
from gateway.endpoints import Endpoint
from gateway.errors import QuotaExhausted, RateLimited, SimsaError
from gateway.request_body import RequestBody

_NAMES = (b"x-ratelimit-limit-", b"x-ratelimit-remaining-", b"x-ratelimit-reset-")
_OF_REQUESTS = (_NAMES[0] + b"requests", _NAMES[1] + b"requests", _NAMES[2] + b"requests")
_OF_TOKENS = (_NAMES[0] + b"tokens", _NAMES[1] + b"tokens", _NAMES[2] + b"tokens")


class Reservation:
    """What one call holds of its key's limits, until it is settled."""

    __slots__ = ("completion", "hold", "key", "model", "prompt_estimate")

    def __init__(self, key: str, hold: Hold, model: Model, prompt_estimate: int = 0, completion: int = 0) -> None:
        self.key = key
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
    """Reserves and settles in `books`."""

    def __init__(self, books: Books) -> None:
        self.books = books

    async def reserve(self, caller: Caller, model: Model, endpoint: Endpoint, body: RequestBody) -> Reservation | None:
        """Hold what the call may take. None for callers without a key, who have no limits.

        Raises RateLimited where waiting helps, QuotaExhausted where a budget is used up.
        """
        if caller.key is None:
            return None
        reservation = _wanted(caller.key, caller.limits, model, endpoint, body)
        await self._take(reservation, caller.limits)
        return reservation

    async def reserve_free(self, caller: Caller, model: Model) -> Reservation | None:
        """Hold a request that generates nothing: one of its minute, one at a time, no tokens. Else as `reserve`."""
        if caller.key is None:
            return None
        reservation = Reservation(caller.key, Hold(0, None, is_free=True), model)
        await self._take(reservation, caller.limits)
        return reservation

    async def check(self, caller: Caller, model: Model, endpoint: Endpoint, body: RequestBody) -> None:
        """Raise what `reserve` would raise now, and hold nothing."""
        if caller.key is None:
            return
        hold = _wanted(caller.key, caller.limits, model, endpoint, body).hold
        refused = await self.books.look(caller.key, caller.limits, (hold,), 1)
        if refused is not None:
            raise _refused(refused, hold)

    async def count_request(self, caller: Caller) -> None:
        """Count a request that is no call among those of its key's minute. Raises RateLimited where that is full."""
        if caller.key is None:
            return
        refused = await self.books.count_request(caller.key, caller.limits)
        if refused is not None:
            raise _refused(refused, Hold(0, None))

    async def check_together(
        self, caller: Caller, endpoint: Endpoint, asked: Sequence[tuple[Model, RequestBody]], *, at_once: int
    ) -> None:
        """Raise what `reserve` would if all these calls were one; hold nothing. `at_once`: how many at a time.

        RateLimited without `retry_after_s` where they can never pass together.
        """
        if caller.key is None:
            return
        holds = [_wanted(caller.key, caller.limits, model, endpoint, body).hold for model, body in asked]
        refused = await self.books.look(caller.key, caller.limits, holds, at_once)
        if refused is not None:
            raise _refused(refused, _together(holds, refused.refusal.budget))

    def settle(self, reservation: Reservation | None, call: Call | None) -> None:
        """Replace what was held by what the call took. Exactly once counts; `call` None: nothing became of it."""
        if reservation is None or not reservation.hold.is_open:
            return
        key, hold = reservation.key, reservation.hold
        if call is None:
            self.books.settle(key, hold, 0, None, is_unpriced=False, call="")
            return
        currency = call.cost.currency
        amount = call.cost.amount if call.cost.amount is not None else call.estimated_cost
        priced = (currency, amount) if amount is not None and currency is not None else None
        tokens, call_id = call.charged_tokens or 0, call.opened.id
        self.books.settle(key, hold, tokens, priced, is_unpriced=priced is None, call=call_id)

    def headers(self, reservation: Reservation | None) -> RawHeaders:
        """x-ratelimit-* for an answer; nothing where the key's minute is not limited."""
        minutes = self.books.minutes(reservation.key, reservation.hold) if reservation is not None else None
        return [] if minutes is None else _limit_headers(minutes)

    async def _take(self, reservation: Reservation, limits: Limits) -> None:
        refused = await self.books.hold(reservation.key, limits, reservation.hold)
        if refused is not None:
            raise _refused(refused, reservation.hold)


def _wanted(key: str, limits: Limits, model: Model, endpoint: Endpoint, body: RequestBody) -> Reservation:
    """What a call may take at most; nothing is held yet."""
    if not endpoint.is_computed:
        return Reservation(key, Hold(0, None, is_free=True), model)
    prompt = body.prompt_estimate
    answers = body.choices * body.prompts if endpoint.generates else 0
    completion = reserved_completion_tokens(body.max_tokens, answers, limits.default_max_tokens)
    hold = Hold(prompt + completion, reserved_cost(model, prompt, completion))
    return Reservation(key, hold, model, prompt, completion)


def _together(holds: Sequence[Hold], budget: Budget | None) -> Hold:
    """One hold of as much as all of them, its money in the budget's currency."""
    amounts = [hold.cost[1] for hold in holds if budget is not None and hold.cost and hold.cost[0] == budget.unit]
    cost = (budget.unit, sum(amounts, Decimal(0))) if budget is not None and amounts else None
    return Hold(sum(hold.tokens for hold in holds), cost)


def _limit_headers(minutes: Minutes) -> RawHeaders:
    limits = minutes.limits
    headers: RawHeaders = []
    if limits.requests_per_min is not None:
        headers += _headers_of(_OF_REQUESTS, limits.requests_per_min, minutes.requests, minutes.requests_reset_s)
    if limits.tokens_per_min is not None:
        headers += _headers_of(_OF_TOKENS, limits.tokens_per_min, minutes.tokens, minutes.tokens_reset_s)
    return headers


def _headers_of(names: tuple[bytes, bytes, bytes], limit: int, used: int, reset_s: float) -> RawHeaders:
    return [(names[0], b"%d" % limit), (names[1], b"%d" % max(0, limit - used)), (names[2], b"%ds" % ceil(reset_s))]


def _refused(refused: Refused, hold: Hold) -> SimsaError:
    """The refusal as the caller is told it."""
    refusal, limits = refused.refusal, refused.minutes.limits
    obstacle = refusal.obstacle
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
    shown = [(name.decode(), value.decode()) for name, value in _limit_headers(refused.minutes)]
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
