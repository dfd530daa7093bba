"""What a call costs: exact prices, and GPU time that adds up to the time the GPU was busy."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.cost import SharedTime, api_cost, cost_per_mtok, gpu_time_cost
from gateway.domain.records import ApiPrice, Confidence, GpuPrice, Sourced, Usage

SOLAR = ApiPrice("USD", Decimal("0.15"), Decimal("0.60"), Decimal("0.015"))
HCX = ApiPrice("KRW", Decimal(1250), Decimal(5000))
H100 = GpuPrice(Decimal("2.95"), "USD", "list_median", "any", date(2026, 9, 1), Sourced("list", Confidence.MEDIUM))

PRICES = st.decimals(min_value=0, max_value=100_000, places=6)
TOKENS = st.integers(0, 10_000_000)
SCHEDULES = st.lists(
    st.tuples(st.floats(0, 1000, allow_subnormal=False), st.floats(0, 100, allow_subnormal=False)), max_size=40
)


def counted(prompt: int | None, completion: int | None, cached: int | None = 0) -> Usage:
    return Usage(prompt, completion, cached, source="engine")


def replay(calls: list[tuple[float, float]]) -> list[float]:
    """Shares of calls given as (start, duration), with their events in the order of time."""
    shared = SharedTime()
    marks: dict[int, float] = {}
    shares: dict[int, float] = {}
    events = [(start, 0, i) for i, (start, _) in enumerate(calls)]
    events += [(start + length, 1, i) for i, (start, length) in enumerate(calls)]
    for now, is_end, i in sorted(events):
        if is_end:
            shares[i] = shared.leave(now, marks[i])
        else:
            marks[i] = shared.enter(now)
    assert shared.in_flight == 0
    return [shares[i] for i in range(len(calls))]


def busy_seconds(calls: list[tuple[float, float]]) -> float:
    """Length of the union of the calls' spans."""
    total, reached = 0.0, -math.inf
    for start, end in sorted((start, start + length) for start, length in calls):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def test_api_price_is_charged_on_uncached_cached_and_completion_tokens() -> None:
    cost = api_cost(SOLAR, counted(1_000_000, 500_000, 400_000))
    assert (cost.amount, cost.currency, cost.basis) == (Decimal("0.396"), "USD", "api_price")
    assert cost.reason is None


def test_one_token_costs_its_exact_fraction() -> None:
    assert api_cost(HCX, counted(1, 1)).amount == Decimal("0.00625")


@given(PRICES, PRICES, PRICES, TOKENS, TOKENS, TOKENS)
def test_api_cost_is_exact(inward: Decimal, out: Decimal, cached_in: Decimal, hit: int, miss: int, made: int) -> None:
    cost = api_cost(ApiPrice("USD", inward, out, cached_in), counted(hit + miss, made, hit))
    expected = (miss * Fraction(inward) + hit * Fraction(cached_in) + made * Fraction(out)) / 1_000_000
    assert cost.amount is not None
    assert Fraction(cost.amount) == expected


def test_cached_tokens_without_a_price_cost_the_input_price_and_say_so() -> None:
    cost = api_cost(HCX, counted(1000, 0, 600))
    assert cost.amount == Decimal("1.25")
    assert cost.reason is not None
    assert "input price" in cost.reason


def test_unknown_cached_share_is_charged_in_full_and_says_so() -> None:
    cost = api_cost(SOLAR, counted(1_000_000, 0, None))
    assert cost.amount == Decimal("0.15")
    assert cost.reason is not None
    assert "cached tokens is unknown" in cost.reason


def test_counts_that_are_not_the_engines_are_marked() -> None:
    cost = api_cost(HCX, Usage(10, 10, 0, source="counted"))
    assert cost.reason is not None
    assert "counted" in cost.reason


@pytest.mark.parametrize(("usage", "word"), [(counted(None, 5), "prompt"), (counted(5, None), "completion")])
def test_unknown_tokens_give_no_amount(usage: Usage, word: str) -> None:
    cost = api_cost(SOLAR, usage)
    assert (cost.amount, cost.basis) == (None, "unknown")
    assert cost.reason is not None
    assert word in cost.reason


def test_more_cached_tokens_than_prompt_give_no_amount() -> None:
    assert api_cost(SOLAR, counted(5, 5, 6)).amount is None


def test_unknown_prices_give_no_amount() -> None:
    for cost in (api_cost(None, counted(5, 5)), gpu_time_cost(None, 1, 3.0), gpu_time_cost(H100, 1, None)):
        assert (cost.amount, cost.basis) == (None, "unknown")
        assert cost.reason


def test_gpu_time_is_charged_by_the_hour() -> None:
    cost = gpu_time_cost(H100, 4, 900.0)
    assert (cost.amount, cost.currency, cost.basis) == (Decimal("2.95"), "USD", "gpu_time_provisional")


def test_a_call_alone_gets_its_whole_duration() -> None:
    assert replay([(10.0, 4.0)]) == [4.0]


def test_fifty_streams_at_once_bill_one_gpu_once() -> None:
    assert replay([(0.0, 60.0)] * 50) == pytest.approx([1.2] * 50)


def test_overlapping_calls_share_only_their_overlap() -> None:
    assert replay([(0.0, 10.0), (5.0, 10.0)]) == pytest.approx([7.5, 7.5])


@given(SCHEDULES)
def test_shares_add_up_to_the_busy_time(calls: list[tuple[float, float]]) -> None:
    assert math.fsum(replay(calls)) == pytest.approx(busy_seconds(calls), abs=1e-9)


@given(SCHEDULES)
def test_no_call_gets_more_than_its_duration(calls: list[tuple[float, float]]) -> None:
    for share, (_, length) in zip(replay(calls), calls, strict=True):
        assert -1e-9 <= share <= length + 1e-9


def test_time_that_runs_backwards_is_refused() -> None:
    shared = SharedTime()
    shared.enter(5.0)
    for now in (4.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="not before"):
            shared.enter(now)


def test_leaving_without_entering_is_refused() -> None:
    with pytest.raises(ValueError, match="not entered"):
        SharedTime().leave(1.0, 0.0)


def test_cost_per_million_tokens_of_a_gpu_hour() -> None:
    """2.95 USD an hour at 2,500 tokens a second: 9 million tokens an hour."""
    assert cost_per_mtok(Decimal("2.95"), 1, 2500.0) == pytest.approx(Decimal("0.3277777777777777777777777778"))
    assert cost_per_mtok(Decimal(9), 2, 2500.0, 0.5) == Decimal(4)


@given(st.integers(1, 16), st.floats(1, 1e6), st.floats(0.01, 1))
def test_idle_time_is_never_free(gpus: int, tokens_per_s: float, utilisation: float) -> None:
    busy = cost_per_mtok(Decimal("2.95"), gpus, tokens_per_s)
    assert cost_per_mtok(Decimal("2.95"), gpus, tokens_per_s, utilisation) >= busy > 0


def test_senseless_numbers_are_refused_with_their_name() -> None:
    with pytest.raises(ValueError, match="prompt_tokens"):
        api_cost(SOLAR, counted(-1, 0))
    with pytest.raises(ValueError, match="output_per_mtok"):
        api_cost(ApiPrice("USD", Decimal(1), Decimal("NaN")), counted(1, 1))
    with pytest.raises(ValueError, match="shared_s"):
        gpu_time_cost(H100, 1, math.nan)
    with pytest.raises(ValueError, match="gpus"):
        gpu_time_cost(H100, 0, 1.0)
    with pytest.raises(ValueError, match="tokens_per_s"):
        cost_per_mtok(Decimal(1), 1, 0.0)
    with pytest.raises(ValueError, match="utilisation"):
        cost_per_mtok(Decimal(1), 1, 1.0, math.nan)
