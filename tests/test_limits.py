"""The arithmetic of limits: no minute, day or month gets more than its limit but by what calls took unreserved."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.accounts import TOKENS, Budget, Limits, Period
from gateway.domain.charges import (
    BYTES_PER_TOKEN,
    MEDIA_BYTES_PER_TOKEN,
    MEDIA_TOKENS,
    MOST_CHOICES,
    MOST_PROMPTS,
    MOST_TOKENS,
    charged_tokens,
    estimate_prompt_tokens,
    estimated_cost,
    reserved_completion_tokens,
    reserved_cost,
)
from gateway.domain.cost import api_cost
from gateway.domain.limits import Account, Hold, Obstacle, Refusal, SlidingMinute, period_end_s, retry_after_s
from gateway.domain.records import ApiPrice, CallStatus, Cost, Model, Serving, ServingKind, Usage

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp()
GAPS = st.floats(0, 200, allow_nan=False)


@dataclass
class Taken:
    """One admitted call of a scenario."""

    at_s: float
    hold: Hold
    actual: int
    ends: int
    """The step at which it is settled."""
    overrun: int = field(init=False)

    def __post_init__(self) -> None:
        self.overrun = max(0, self.actual - self.hold.tokens)


STEPS = st.lists(st.tuples(GAPS, st.integers(0, 50), st.integers(0, 90), st.integers(0, 4)), max_size=40)
"""(seconds since the step before, tokens reserved, tokens taken, steps that the call lasts)"""


def play(account: Account, steps: Sequence[tuple[float, int, int, int]]) -> tuple[list[Taken], int]:
    """Every call that was let in, and the most that could be spent beyond the limit at the last that was."""
    now_s, taken, open_calls = 1000.0, [], []
    overrun = 0
    for number, (gap_s, reserved, actual, lasts) in enumerate(steps):
        now_s += gap_s
        for call in [call for call in open_calls if call.ends <= number]:
            account.settle(call.hold, call.actual, None, now_s=now_s)
            open_calls.remove(call)
        hold = Hold(reserved, None)
        if account.hold(hold, now_s, NOON) is None:
            call = Taken(now_s, hold, actual, number + lasts)
            taken.append(call)
            open_calls.append(call)
            overrun = sum(call.overrun for call in open_calls)
    for call in open_calls:
        account.settle(call.hold, call.actual, None, now_s=now_s)
    return taken, overrun


@given(STEPS, st.integers(1, 120))
def test_spent_is_within_the_budget_plus_what_calls_in_flight_took_unreserved(
    steps: list[tuple[float, int, int, int]], limit: int
) -> None:
    account = Account(Limits(budgets=(Budget(Period.DAY, TOKENS, Decimal(limit)),)), NOON)
    taken, overrun = play(account, steps)
    assert account.day.spent_tokens == sum(call.actual for call in taken)
    assert account.day.spent_tokens <= limit + overrun
    assert account.day.held_tokens == 0
    assert account.in_flight == 0


@given(STEPS, st.integers(1, 120))
def test_no_sixty_seconds_have_more_than_the_tokens_of_a_minute_plus_what_calls_took_unreserved(
    steps: list[tuple[float, int, int, int]], limit: int
) -> None:
    taken, _ = play(Account(Limits(tokens_per_min=limit), NOON), steps)
    for first in taken:
        within = [call for call in taken if first.at_s <= call.at_s < first.at_s + 60]
        assert sum(min(call.actual, call.hold.tokens) for call in within) <= limit
        assert sum(call.actual for call in within) <= limit + sum(call.overrun for call in within)


@given(st.lists(GAPS, max_size=60), st.integers(1, 8))
def test_no_sixty_seconds_have_more_than_the_requests_of_a_minute(gaps: list[float], limit: int) -> None:
    taken, _ = play(Account(Limits(requests_per_min=limit), NOON), [(gap, 0, 0, 0) for gap in gaps])
    for first in taken:
        assert sum(first.at_s <= call.at_s < first.at_s + 60 for call in taken) <= limit


@given(STEPS, st.integers(1, 4))
def test_calls_at_a_time_never_exceed_their_limit(steps: list[tuple[float, int, int, int]], limit: int) -> None:
    account = Account(Limits(concurrent=limit), NOON)
    most = 0
    taken: list[Taken] = []
    for number, (_, reserved, actual, lasts) in enumerate(steps):
        for call in [call for call in taken if call.ends <= number and call.hold.is_open]:
            account.settle(call.hold, call.actual, None, now_s=1000.0)
        hold = Hold(reserved, None)
        if account.hold(hold, 1000.0, NOON) is None:
            taken.append(Taken(1000.0, hold, actual, number + lasts))
        most = max(most, sum(call.hold.is_open for call in taken))
        assert account.in_flight == sum(call.hold.is_open for call in taken)
    assert most <= limit


@given(STEPS, st.integers(1, 60), st.integers(1, 6))
def test_a_refused_request_passes_after_the_wait_that_it_was_told(
    steps: list[tuple[float, int, int, int]], tokens: int, requests: int
) -> None:
    account = Account(Limits(tokens_per_min=tokens, requests_per_min=requests), NOON)
    now_s = 1000.0
    for gap_s, reserved, actual, _ in steps:
        now_s += gap_s
        hold = Hold(reserved, None)
        refusal = account.hold(hold, now_s, NOON)
        if refusal is None:
            account.settle(hold, actual, None, now_s=now_s)
        elif refusal.obstacle is not Obstacle.TOO_LARGE:
            assert 0 < refusal.wait_s <= 61
            now_s += refusal.wait_s
            again = account.hold(hold, now_s, NOON)
            if again is not None:  # the other limit may stand in the way for longer; then twice is enough
                assert again.obstacle is not refusal.obstacle
                now_s += again.wait_s
                assert account.hold(hold, now_s, NOON) is None
            account.settle(hold, actual, None, now_s=now_s)


@given(st.lists(st.tuples(GAPS, st.integers(0, 1000)), max_size=50))
def test_the_window_is_the_sum_of_its_last_sixty_one_slots(amounts: list[tuple[float, int]]) -> None:
    minute, seen, now_s = SlidingMinute(), [], 500.0
    for gap_s, amount in amounts:
        now_s += gap_s
        minute.advance(now_s)
        minute.add(amount)
        seen.append((int(now_s), amount))
        assert minute.total == sum(a for slot, a in seen if slot > int(now_s) - 61)
        assert (minute.reset_s(now_s) > 0) == (minute.total > 0)


def test_a_call_that_is_larger_than_the_whole_minute_can_never_pass() -> None:
    account = Account(Limits(tokens_per_min=100), NOON)
    refusal = account.hold(Hold(101, None), 1000.0, NOON)
    assert refusal is not None
    assert refusal.obstacle is Obstacle.TOO_LARGE


def budgeted(*budgets: Budget) -> Account:
    return Account(Limits(budgets=budgets), NOON)


def refused(account: Account, hold: Hold, wall_s: float = NOON) -> Refusal:
    refusal = account.hold(hold, 1000.0, wall_s)
    assert refusal is not None
    return refusal


def test_budget_that_is_only_reserved_is_waited_for_and_one_that_is_spent_is_not() -> None:
    account = budgeted(Budget(Period.DAY, TOKENS, Decimal(100)))
    first = Hold(80, None)
    assert account.hold(first, 1000.0, NOON) is None
    assert refused(account, Hold(30, None)).obstacle is Obstacle.RESERVED
    account.settle(first, 80, None, now_s=1000.0)
    refusal = refused(account, Hold(30, None))
    assert (refusal.obstacle, refusal.left) == (Obstacle.BUDGET, 20)
    assert account.hold(Hold(20, None), 1000.0, NOON) is None


def test_day_and_month_begin_anew_in_utc_and_a_call_counts_where_it_began() -> None:
    account = budgeted(Budget(Period.DAY, TOKENS, Decimal(100)), Budget(Period.MONTH, "KRW", Decimal(50)))
    over_midnight = Hold(100, ("KRW", Decimal(50)))
    assert account.hold(over_midnight, 1000.0, NOON) is None
    assert refused(account, Hold(1, None)).obstacle is Obstacle.RESERVED
    april = datetime(2026, 4, 1, tzinfo=UTC).timestamp()
    assert refused(account, Hold(1, None), april - 0.001).obstacle is Obstacle.RESERVED
    assert account.hold(Hold(100, ("KRW", Decimal(50))), 1000.0, april) is None
    account.settle(over_midnight, 90, ("KRW", Decimal(45)), now_s=1000.0)
    assert (account.day.spent_tokens, account.day.spent_money) == (0, {}), "March's call is not April's"
    assert (account.month.held_tokens, account.month.held_money) == (100, {"KRW": 50})


def test_money_is_counted_a_currency_and_an_unknown_cost_blocks_nothing_and_is_counted() -> None:
    account = budgeted(Budget(Period.DAY, "KRW", Decimal("0.3")))
    for cost in (("KRW", Decimal("0.1")), ("KRW", Decimal("0.1")), ("USD", Decimal(1000)), None):
        hold = Hold(10**6, None)
        assert account.hold(hold, 1000.0, NOON) is None
        account.settle(hold, 10**6, cost, now_s=1000.0, is_unpriced=cost is None)
    assert account.day.spent_money["KRW"] == Decimal("0.2")
    assert account.day.unpriced == 1
    assert refused(account, Hold(1, ("KRW", Decimal("0.11")))).obstacle is Obstacle.BUDGET
    assert account.hold(Hold(1, ("KRW", Decimal("0.1"))), 1000.0, NOON) is None


def test_a_call_is_settled_once() -> None:
    account, hold = budgeted(), Hold(5, None)
    assert account.hold(hold, 1000.0, NOON) is None
    account.settle(hold, 5, None, now_s=1000.0)
    with pytest.raises(ValueError, match="once"):
        account.settle(hold, 5, None, now_s=1000.0)


@given(st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1)))  # noqa: DTZ001
def test_periods_end_at_the_next_midnight_or_first_of_month_of_utc(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    assert period_end_s(Period.DAY, moment.timestamp()) == (midnight + timedelta(days=1)).timestamp()
    assert period_end_s(Period.MONTH, moment.timestamp()) == next_month.timestamp()


@given(st.floats(-10, 10**9))
def test_retry_after_is_what_clients_heed(wait_s: float) -> None:
    seconds = retry_after_s(wait_s)
    assert 1 <= seconds <= 120
    assert seconds >= min(wait_s, 120)


# --- what a call is held and charged with -------------------------------------------------------------------


def part(letters: str, *, name: str = "url", kind: str = "image/png") -> str:
    """A content part with media, as clients write it."""
    return json.dumps({"type": "image_url", "image_url": {name: f"data:{kind};base64,{letters}"}})


@pytest.mark.parametrize(
    "picture",
    [
        part("A" * 300_000),
        part("A" * 300_000).replace('": "', '":"'),
        part("/9j/" * 75_000).replace("/", "\\/"),
        part("AAAA," * 60_000, kind="video/jpeg"),
        part("A" * 300_000, name="file_data"),
        part("A" * 300_000, name="image_url"),
    ],
)
def test_prompt_is_estimated_from_its_bytes_and_media_do_not_count_by_theirs(picture: str) -> None:
    assert estimate_prompt_tokens("안녕하세요".encode()) == 5
    assert MEDIA_TOKENS <= estimate_prompt_tokens(picture.encode()) < MEDIA_TOKENS + 50
    large = part("A" * 3_000_000).encode()
    assert estimate_prompt_tokens(large) == pytest.approx(3_000_000 / MEDIA_BYTES_PER_TOKEN, abs=50)


WORDS = "hello world " * 10_000


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"content": "x;base64," + WORDS}),
        json.dumps({"content": "data:x;base64," + "A" * len(WORDS)}),
        json.dumps({"text": "data:x;base64," + "A" * len(WORDS)}),
        json.dumps({"content": '"url":"data:x;base64,' + "A" * len(WORDS)}),
        json.dumps({"url": "data:x;base64," + WORDS}),
        json.dumps({"url": "data:x;base64,AAAA", "content": WORDS}),
        json.dumps({"url": "data:x;base64," + "안녕" * 20_000}, ensure_ascii=False),
        ";base64," * 15_000,
    ],
)
def test_text_is_no_cheaper_for_standing_behind_the_sign_of_media(body: str) -> None:
    assert estimate_prompt_tokens(body.encode()) >= len(body.encode()) // BYTES_PER_TOKEN


PIECES = st.sampled_from([";base64,", '"', "data:", '"url":', '"data:x', "A" * 50, " ", "가", "\\", "x;base64,AA"])


@given(st.lists(PIECES, max_size=60).map("".join))
def test_estimate_is_between_the_floor_and_the_bytes_of_a_request(body: str) -> None:
    raw = body.encode()
    signs = raw.count(b";base64,")
    estimate = estimate_prompt_tokens(raw)
    assert len(raw) // MEDIA_BYTES_PER_TOKEN <= estimate <= len(raw) // BYTES_PER_TOKEN + 1 + MEDIA_TOKENS * signs


@given(st.text("abc ,.가나", max_size=200), st.integers(0, 5))
def test_media_add_their_own_estimate_to_that_of_the_text(text: str, pictures: int) -> None:
    plain = json.dumps({"content": text})
    body = plain + part("QUJD") * pictures
    frames = len(part("")) * pictures
    expected = (len(plain) + frames) / BYTES_PER_TOKEN + MEDIA_TOKENS * pictures
    assert estimate_prompt_tokens(body.encode()) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    "body",
    [
        b";base64," * 500_000,
        b'"url":"data:x;base64,A",' * 200_000,
        b'"url":"data:x;base64,' + b"A" * 4_000_000,
        b'"url"' + b" " * 4_000_000 + b';base64,"',
    ],
)
def test_no_body_makes_the_estimate_slow(body: bytes) -> None:
    began_s = time.process_time()
    estimate_prompt_tokens(body)
    assert time.process_time() - began_s < 0.25


def test_answers_are_reserved_by_the_request_or_by_the_keys_default() -> None:
    assert reserved_completion_tokens(None, 1, 1024) == 1024
    assert reserved_completion_tokens(16, 3, 1024) == 48
    assert reserved_completion_tokens(-5, 1, 1024) == 0


@given(st.one_of(st.none(), st.integers(max_value=MOST_TOKENS)), st.integers(1, 2**53))
def test_the_greatest_reservation_and_sums_of_many_fit_into_what_databases_keep(
    max_tokens: int | None, default: int
) -> None:
    most = reserved_completion_tokens(max_tokens, MOST_CHOICES * MOST_PROMPTS, default)
    assert 0 <= most * 10_000 < 2**63


def test_money_is_reserved_where_tokens_have_a_price() -> None:
    price = ApiPrice("KRW", Decimal(1000), Decimal(2000))
    hosted = Model("m", Serving(ServingKind.OPENAI_API, "m"), price=price)
    assert reserved_cost(hosted, 1_000_000, 500_000) == ("KRW", Decimal(2000))
    assert reserved_cost(Model("m", Serving(ServingKind.VLLM, "m"), price=price), 10, 10) is None
    assert reserved_cost(Model("m", Serving(ServingKind.OPENAI_API, "m")), 10, 10) is None


@pytest.mark.parametrize(
    ("status", "usage", "reached", "charged"),
    [
        (CallStatus.OK, Usage(12, 8, source="engine"), True, 20),
        (CallStatus.OK, Usage(), True, 100 + 1024),
        (CallStatus.CANCELLED, Usage(None, 3, source="counted"), True, 103),
        (CallStatus.CANCELLED, Usage(), True, 100),
        (CallStatus.CANCELLED, Usage(), False, 0),
        (CallStatus.TRUNCATED, Usage(None, 3, source="counted"), True, 103),
        (CallStatus.ERROR, Usage(), True, 0),
        (CallStatus.ERROR, Usage(None, 5, source="counted"), True, 105),
        (CallStatus.ERROR, Usage(), False, 0),
    ],
)
def test_call_is_charged_what_was_counted_and_the_estimate_for_what_was_not(
    status: CallStatus, usage: Usage, reached: bool, charged: int
) -> None:
    assert charged == sum(
        charged_tokens(status, usage, reached_engine=reached, prompt_estimate=100, reserved_completion=1024)
    )


PRICE = ApiPrice("KRW", Decimal(1000), Decimal(2000))
HOSTED = Model("m", Serving(ServingKind.OPENAI_API, "m"), price=PRICE)


@given(st.integers(0, 10**6), st.one_of(st.none(), st.integers(0, 10**6)), st.one_of(st.none(), st.integers(0, 10**6)))
def test_a_served_call_is_charged_in_money_once_by_its_cost_or_by_an_estimate(
    estimate: int, prompt: int | None, completion: int | None
) -> None:
    usage = Usage(prompt, completion)
    cost = api_cost(PRICE, usage)
    charged = charged_tokens(
        CallStatus.CANCELLED, usage, reached_engine=True, prompt_estimate=estimate, reserved_completion=7
    )
    estimated = estimated_cost(HOSTED, cost, charged)
    assert (cost.amount is None) or (estimated is None)
    if cost.amount is None and any(charged):
        assert estimated == (charged[0] * 1000 + charged[1] * 2000) / Decimal(1_000_000)


def test_nothing_is_estimated_where_there_is_no_price_or_no_charge() -> None:
    unknown = Cost(None, "KRW", "unknown", "the number of prompt tokens is unknown")
    assert estimated_cost(Model("m", Serving(ServingKind.VLLM, "m"), price=PRICE), unknown, (5, 5)) is None
    assert estimated_cost(Model("m", Serving(ServingKind.OPENAI_API, "m")), unknown, (5, 5)) is None
    assert estimated_cost(HOSTED, unknown, (0, 0)) is None
    assert estimated_cost(HOSTED, Cost(None, None, "unknown", "no engine was reached"), (5, 5)) is None
