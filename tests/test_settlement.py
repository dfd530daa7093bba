"""What a replica's minute costs: calls and idle time add up to the GPU money, to the last digit, whatever the load."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.settlement import (
    NANOS,
    WINDOW_US,
    CallSpan,
    Span,
    WeightCell,
    WindowCost,
    _tokens_in,
    fit_prompt_weight,
    money_between,
    settle_window,
    union,
    windows_of,
)

H100 = Decimal("2.95")
SECOND = 1_000_000
START = 29_000_000 * WINDOW_US
PRICES = st.decimals(min_value=0, max_value=100_000, places=4)
MOMENTS = st.integers(START, START + 5 * WINDOW_US)
TOKENS = st.none() | st.integers(0, 200_000)


@st.composite
def call_spans(draw: st.DrawFn, number: int) -> CallSpan:
    """Short and long, without length, ending before they begin (a clock set back), with and without tokens."""
    begin = draw(MOMENTS)
    length = draw(st.sampled_from([0, 1, 999, -5]) | st.integers(0, 3 * WINDOW_US))
    first = draw(st.none() | st.integers(begin - 10, begin + max(0, length) + 10))
    return CallSpan(f"call-{number:03d}", begin, begin + length, first, draw(TOKENS), draw(TOKENS))


@st.composite
def schedules(draw: st.DrawFn) -> list[CallSpan]:
    return [draw(call_spans(number)) for number in range(draw(st.integers(0, 12)))]


@st.composite
def presences(draw: st.DrawFn) -> list[Span]:
    return [Span(begin, begin + draw(st.integers(0, 2 * WINDOW_US))) for begin in draw(st.lists(MOMENTS, max_size=3))]


def windows(calls: list[CallSpan], present: list[Span]) -> list[int]:
    """All that the schedule touches, and one that it does not."""
    spans = [Span(call.dispatched_us, call.ended_us) for call in calls] + present
    return sorted({w for span in spans for w in windows_of(span.begin_us, span.end_us)} | {START - WINDOW_US})


def settled(
    calls: list[CallSpan], present: list[Span], price: Decimal = H100, gpus: int = 1, weight: str = "0.25"
) -> list[WindowCost]:
    return [
        settle_window(w, present=present, calls=calls, per_hour=price, gpus=gpus, weight=Decimal(weight))
        for w in windows(calls, present)
    ]


def paid(calls: list[CallSpan], present: list[Span]) -> list[Span]:
    return union([*present, *(Span(call.dispatched_us, call.ended_us) for call in calls)])


# --- everything adds up -------------------------------------------------------------------------------------


@given(schedules(), presences(), PRICES, st.integers(1, 16), st.sampled_from(["0", "0.25", "1", "3.3"]))
def test_the_calls_and_idle_time_cost_what_the_gpus_cost(
    calls: list[CallSpan], present: list[Span], price: Decimal, gpus: int, weight: str
) -> None:
    found = settled(calls, present, price, gpus, weight)
    shared = sum((Decimal(share) for window in found for share in window.shares.values()), Decimal(0))
    idle = sum((Decimal(window.idle_nanos) for window in found), Decimal(0))
    meter = sum(money_between(price, gpus, span.begin_us, span.end_us) for span in paid(calls, present))
    assert shared + idle == Decimal(meter)
    for window in found:
        assert sum(window.shares.values()) == window.busy_nanos
        assert window.busy_nanos + window.idle_nanos == window.money_nanos
        assert min([window.idle_nanos, *window.shares.values()]) >= 0
    time_us = sum(span.end_us - span.begin_us for span in paid(calls, present))
    exact = Fraction(price) * gpus * NANOS * time_us / 3_600_000_000
    assert abs(meter - exact) < 1 + len(paid(calls, present))


@given(st.lists(st.tuples(schedules(), presences(), st.integers(1, 8)), min_size=2, max_size=4))
def test_several_replicas_together_cost_the_sum_of_their_gpus(
    replicas: list[tuple[list[CallSpan], list[Span], int]],
) -> None:
    whole = sum(
        money_between(H100, gpus, span.begin_us, span.end_us)
        for calls, present, gpus in replicas
        for span in paid(calls, present)
    )
    parts = sum(
        sum(window.shares.values()) + window.idle_nanos
        for calls, present, gpus in replicas
        for window in settled(calls, present, gpus=gpus)
    )
    assert parts == whole


@given(schedules(), presences(), st.randoms(use_true_random=False))
def test_the_order_of_the_calls_changes_nothing(
    calls: list[CallSpan], present: list[Span], order: random.Random
) -> None:
    shuffled = order.sample(calls, len(calls))
    assert settled(shuffled, present) == settled(calls, present)


@given(PRICES, st.integers(1, 16), st.lists(MOMENTS, min_size=2, max_size=6))
def test_a_span_costs_the_same_however_it_is_cut(price: Decimal, gpus: int, cuts: list[int]) -> None:
    cuts = sorted(cuts)
    pieces = [money_between(price, gpus, a, b) for a, b in pairwise(cuts)]
    assert sum(pieces) == money_between(price, gpus, cuts[0], cuts[-1])


def test_an_hour_costs_the_hourly_price_to_the_last_digit_from_any_moment() -> None:
    hour = 60 * WINDOW_US
    for begin in (START, START + 1, START + 123_456_789):
        assert money_between(H100, 1, begin, begin + hour) == 2_950_000_000
        assert money_between(Decimal("3912.5"), 8, begin, begin + hour) == 31_300 * NANOS


# --- who pays what ------------------------------------------------------------------------------------------


def call(number: int, begin_s: float, end_s: float, **facts: object) -> CallSpan:
    times = {name: START + int(s * SECOND) for name, s in (("dispatched_us", begin_s), ("ended_us", end_s))}
    return CallSpan(id=f"call-{number}", **times, **facts)  # type: ignore[arg-type]


MINUTE = [Span(START, START + WINDOW_US)]


def test_a_call_alone_pays_its_time_and_the_rest_is_idle() -> None:
    (_, found) = settled([call(1, 0, 15, uncached_prompt_tokens=10, completion_tokens=5)], MINUTE, Decimal(360))
    assert (found.money_nanos, found.idle_nanos) == (6 * NANOS, 4_500_000_000)
    assert found.shares == {"call-1": 1_500_000_000}


def test_a_replica_that_nobody_calls_is_all_idle() -> None:
    (_, found) = settled([], MINUTE, Decimal(360))
    assert (found.idle_nanos, found.busy_nanos, found.shares) == (6 * NANOS, 0, {})


def test_fifty_streams_at_once_pay_for_one_gpu_and_by_their_tokens() -> None:
    calls = [call(n, 0, 60, uncached_prompt_tokens=0, completion_tokens=100 + 100 * (n == 0)) for n in range(50)]
    (_, found) = settled(calls, MINUTE, Decimal(306))
    assert sum(found.shares.values()) == found.money_nanos == 5_100_000_000
    assert (found.shares["call-0"], found.shares["call-1"]) == (200_000_000, 100_000_000)


def test_it_is_no_product_of_duration_and_price() -> None:
    """Same duration, four times the tokens: four times the cost."""
    calls = [
        call(1, 0, 60, uncached_prompt_tokens=400, completion_tokens=100),
        call(2, 0, 60, uncached_prompt_tokens=0, completion_tokens=50),
    ]
    (_, found) = settled(calls, MINUTE, Decimal(360))
    assert found.shares == {"call-1": 4_800_000_000, "call-2": 1_200_000_000}


def test_calls_that_nobody_counted_pay_by_time_in_flight_and_the_others_by_tokens() -> None:
    calls = [
        call(1, 0, 30),
        call(2, 0, 30, uncached_prompt_tokens=0, completion_tokens=30),
        call(3, 0, 30, uncached_prompt_tokens=0, completion_tokens=10),
    ]
    (_, found) = settled(calls, MINUTE, Decimal(720))
    assert found.shares == {"call-1": 2_000_000_000, "call-2": 3_000_000_000, "call-3": 1_000_000_000}


def test_a_window_in_which_no_token_came_is_shared_by_time() -> None:
    first = START + 70 * SECOND
    calls = [
        call(1, 0, 80, first_token_us=first, uncached_prompt_tokens=9, completion_tokens=9),
        call(2, 30, 60, uncached_prompt_tokens=0, completion_tokens=0),
    ]
    found = settled(calls, MINUTE, Decimal(360))[1]
    assert found.shares == {"call-1": 4_500_000_000, "call-2": 1_500_000_000}


def test_a_spanning_call_brings_its_prompt_to_the_window_of_its_first_token_and_its_answer_to_each() -> None:
    long = call(1, 0, 180, first_token_us=START + 60 * SECOND, uncached_prompt_tokens=400, completion_tokens=200)
    others = [call(n, 60 * n, 60 * n + 60, uncached_prompt_tokens=0, completion_tokens=100) for n in (1, 2)]
    others = [CallSpan(f"other-{n}", c.dispatched_us, c.ended_us, None, 0, 100) for n, c in enumerate(others)]
    before, second, third = settled([long, *others], [], Decimal(360))[1:]
    assert before.shares == {"call-1": 6 * NANOS}
    assert second.shares == {"call-1": 4 * NANOS, "other-0": 2 * NANOS}
    assert third.shares == {"call-1": 3 * NANOS, "other-1": 3 * NANOS}


def test_what_rounding_leaves_goes_to_the_largest_remainder_then_to_the_lower_id() -> None:
    calls = [call(n, 0, 60, uncached_prompt_tokens=0, completion_tokens=1) for n in range(3)]
    (_, found) = settled(calls, MINUTE, Decimal(60))
    assert found.shares == {"call-0": 333_333_334, "call-1": 333_333_333, "call-2": 333_333_333}


def test_a_call_without_length_costs_nothing_and_stands_in_one_window() -> None:
    found = settled([call(1, 60, 60, uncached_prompt_tokens=5, completion_tokens=5)], [])
    assert [window.shares for window in found] == [{}, {"call-1": 0}]


def test_a_call_that_ends_on_the_border_touches_one_window() -> None:
    assert list(windows_of(START, START + WINDOW_US)) == [START]
    assert list(windows_of(START - 1, START + 1)) == [START - WINDOW_US, START]


def test_senseless_numbers_are_refused() -> None:
    good = call(1, 0, 1)
    for price, calls, weight, word in (
        (Decimal(-1), [good], "0.25", "per_hour"),
        (Decimal("NaN"), [good], "0.25", "per_hour"),
        (H100, [good, good], "0.25", "each id once"),
        (H100, [good], "-1", "weight"),
        (H100, [call(1, 0, 1, uncached_prompt_tokens=-3)], "0.25", "token counts"),
    ):
        with pytest.raises(ValueError, match=word):
            settle_window(START, present=[], calls=calls, per_hour=price, gpus=1, weight=Decimal(weight))
    with pytest.raises(ValueError, match="gpus"):
        money_between(H100, 0, 0, 1)
    with pytest.raises(ValueError, match="not before"):
        money_between(H100, 1, 1, 0)


# --- the weight of a prompt token ---------------------------------------------------------------------------


LOADS = [(1000, 100), (4000, 100), (1000, 800), (8000, 50), (200, 2000)]


@given(st.floats(1e-6, 1e-3), st.floats(0.01, 2.0))
def test_an_exact_load_gives_its_own_weight(completion_s: float, weight: float) -> None:
    cells = [WeightCell(p, c, completion_s * (weight * p + c)) for p, c in LOADS]
    fitted = fit_prompt_weight(cells)
    assert fitted.basis == "fitted"
    assert float(fitted.value) == pytest.approx(weight, rel=1e-3, abs=1e-5)
    assert fitted.r_squared == pytest.approx(1)
    assert fitted.standard_error == pytest.approx(0, abs=1e-6)


def test_the_standard_error_is_what_repeated_measuring_shows() -> None:
    draws = random.Random(7)
    fits = []
    for _ in range(2000):
        cells = [WeightCell(p, c, 1e-3 * (0.1 * p + c) + draws.gauss(0, 0.01)) for p, c in LOADS]
        fits.append(fit_prompt_weight(cells))
    mean = sum(float(fit.value) for fit in fits) / len(fits)
    spread = (sum((float(fit.value) - mean) ** 2 for fit in fits) / (len(fits) - 1)) ** 0.5
    errors = [fit.standard_error for fit in fits if fit.standard_error is not None]
    root_mean_square = (sum(error**2 for error in errors) / len(errors)) ** 0.5
    assert mean == pytest.approx(0.1, rel=0.02)
    assert root_mean_square == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([], "fewer than"),
        ([WeightCell(1, 1, 1)] * 3, "fewer than"),
        ([WeightCell(n, 2 * n, n) for n in range(1, 6)], "one proportion"),
        ([WeightCell(0, n, n) for n in range(1, 6)], "one proportion"),
        ([WeightCell(p, c, max(0, c - 0.01 * p)) for p, c in LOADS], "takes time"),
        ([WeightCell(p, c, 1.0) for p, c in LOADS], "takes time"),
    ],
)
def test_a_weight_that_no_load_tells_is_assumed_with_the_reason(cells: list[WeightCell], words: str) -> None:
    weight = fit_prompt_weight(cells)
    assert (weight.value, weight.basis, weight.r_squared) == (Decimal("0.25"), "assumed", None)
    assert weight.reason is not None
    assert words in weight.reason


def test_a_load_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="cells"):
        fit_prompt_weight([WeightCell(1, 1, -1)])


@given(schedules(), st.decimals(min_value=0, max_value=4, places=6))
def test_calls_share_by_the_tokens_that_fractions_say(calls: list[CallSpan], weight: Decimal) -> None:
    """The arithmetic with fractions is the plain reading of the rule; whole numbers must say the same."""
    for window_us in windows(calls, []):
        here = [call for call in calls if window_us in windows_of(call.dispatched_us, call.ended_us)]
        window = Span(window_us, window_us + WINDOW_US)
        for call in here:
            assert _tokens_in(call, window, weight.as_integer_ratio()) == tokens_by_fractions(call, window, weight)


def tokens_by_fractions(call: CallSpan, window: Span, weight: Decimal) -> int:
    def part(begin_us: int, end_us: int) -> Fraction:
        if begin_us == end_us:
            return Fraction(window.begin_us <= begin_us < window.end_us)
        inside = min(end_us, window.end_us) - max(begin_us, window.begin_us)
        return Fraction(max(0, inside), end_us - begin_us)

    prompt = Fraction(weight) * (call.uncached_prompt_tokens or 0)
    completion = call.completion_tokens or 0
    begin_us, end_us = call.dispatched_us, max(call.dispatched_us, call.ended_us)
    if call.first_token_us is None:
        return floor(10**6 * (prompt + completion) * part(begin_us, end_us))
    first_us = min(max(begin_us, call.first_token_us), max(begin_us, end_us - 1))
    in_first = prompt if window.begin_us <= first_us < window.end_us else 0
    return floor(10**6 * (in_first + completion * part(first_us, end_us)))


def test_long_arithmetic_rests_now_and_then_and_says_the_same() -> None:
    calls = [CallSpan(f"{n:04d}", START + n, START + 9_000 + n, START + n, n, n) for n in range(250)]
    rests: list[int] = []
    asked = {"present": [], "per_hour": H100, "gpus": 1}
    rested = settle_window(START, calls=calls, rest=lambda: rests.append(1), **asked)  # type: ignore[arg-type]
    assert rested == settle_window(START, calls=calls, **asked)  # type: ignore[arg-type]
    assert len(rests) >= 6
