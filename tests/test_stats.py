"""Percentiles against numpy, intervals against exact rational binomials."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from gateway.domain.stats import P99_LEAST_N, percentile, percentile_interval, summarise

SPANS = st.floats(min_value=-1e9, max_value=1e9)
SAMPLES = st.lists(SPANS, min_size=1, max_size=60)
PERCENTAGES = st.integers(0, 100)


def exact_at_most(n: int, p: Fraction, k: int) -> Fraction:
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


def exact_ranks(n: int, p: Fraction, tail: Fraction) -> tuple[int, int] | None:
    """Ranks of the interval's ends by the definition, tried one by one."""
    lower = [rank for rank in range(1, n + 1) if exact_at_most(n, p, rank - 1) <= tail]
    upper = [rank for rank in range(1, n + 1) if 1 - exact_at_most(n, p, rank - 1) <= tail]
    return (max(lower), min(upper)) if lower and upper else None


@given(SAMPLES, PERCENTAGES)
def test_percentile_is_numpys_linear_one(values: list[float], q: int) -> None:
    assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)), rel=1e-12, abs=1e-6)


@given(SAMPLES, PERCENTAGES, PERCENTAGES)
def test_percentile_grows_with_q_and_stays_among_the_values(values: list[float], q: int, other: int) -> None:
    low, high = percentile(values, min(q, other)), percentile(values, max(q, other))
    assert min(values) <= low <= high <= max(values)


@given(SAMPLES, PERCENTAGES)
def test_order_of_the_values_does_not_matter(values: list[float], q: int) -> None:
    assert percentile(values[::-1], q) == percentile(values, q)


def test_percentile_interpolates_between_the_two_closest_ranks() -> None:
    assert percentile([10.0, 20.0, 30.0, 40.0], 50) == 25.0
    assert percentile([10.0, 20.0, 30.0, 40.0], 90) == pytest.approx(37.0)


@given(
    st.integers(1, 40),
    st.sampled_from([1, 5, 25, 50, 90, 95, 99]),
    st.sampled_from([Fraction(1, 2), Fraction(3, 4), Fraction(9, 10), Fraction(19, 20), Fraction(99, 100)]),
)
def test_interval_ranks_are_those_of_the_exact_binomial(n: int, q: int, confidence: Fraction) -> None:
    ranks = exact_ranks(n, Fraction(q, 100), (1 - confidence) / 2)
    interval = percentile_interval([float(rank) for rank in range(1, n + 1)], q, float(confidence))
    if ranks is None:
        assert interval is None
    else:
        assert interval is not None
        assert (interval.low, interval.high) == ranks


@given(st.integers(1, 40), st.sampled_from([10, 50, 90, 95]), st.sampled_from([0.5, 0.8, 0.95]))
def test_coverage_is_exact_and_at_least_the_confidence(n: int, q: int, confidence: float) -> None:
    interval = percentile_interval([float(rank) for rank in range(1, n + 1)], q, confidence)
    if interval is None:
        return
    p = Fraction(q, 100)
    exact = exact_at_most(n, p, int(interval.high) - 1) - exact_at_most(n, p, int(interval.low) - 1)
    assert interval.coverage == pytest.approx(float(exact), abs=1e-10)
    assert interval.coverage >= confidence - 1e-10


def test_textbook_interval_of_a_median() -> None:
    """n = 20: ranks 6 and 15, coverage 1 - 2 × P(B <= 5) = 0.9586."""
    interval = percentile_interval([float(rank) for rank in range(1, 21)], 50)
    assert interval is not None
    assert (interval.low, interval.high) == (6.0, 15.0)
    assert interval.coverage == pytest.approx(0.9586, abs=5e-5)


def test_interval_of_many_values_stays_exact() -> None:
    """At n = 100,000 the ranks are within one of the normal approximation's."""
    n = 100_000
    interval = percentile_interval(range(1, n + 1), 50)
    assert interval is not None
    assert interval.low == pytest.approx(n / 2 - 1.96 * math.sqrt(n) / 2, abs=2)
    assert 0.95 <= interval.coverage < 0.953


@pytest.mark.parametrize("q", [50, 90, 95, 99])
def test_ranks_of_millions_of_values_are_those_of_an_independent_binomial(q: int) -> None:
    n = 3_000_000
    interval = percentile_interval(np.arange(1, n + 1, dtype=np.float64), q, is_ascending=True)
    assert interval is not None
    below, above = binom.ppf([0.025, 0.975], n, q / 100)
    assert interval.low == pytest.approx(below, abs=1)
    assert interval.high == pytest.approx(above + 1, abs=1)
    exact = binom.cdf(interval.high - 1, n, q / 100) - binom.cdf(interval.low - 1, n, q / 100)
    assert interval.coverage == pytest.approx(exact, abs=1e-9)


def test_values_that_are_sorted_already_say_the_same() -> None:
    values = np.random.default_rng(1).lognormal(size=2000)
    assert summarise(np.sort(values), is_ascending=True) == summarise(values)


def test_too_few_values_give_no_interval() -> None:
    assert percentile_interval([1.0, 2.0, 3.0], 50) is None
    assert percentile_interval([float(i) for i in range(300)], 99) is None


def test_summary_of_known_values() -> None:
    summary = summarise([float(i) for i in range(1, 101)])
    assert (summary.n, summary.min, summary.mean, summary.max) == (100, 1.0, 50.5, 100.0)
    assert summary.p50 == 50.5
    assert summary.p90 == pytest.approx(90.1)
    assert summary.p95 == pytest.approx(95.05)
    assert summary.p50_interval is not None
    assert summary.p50_interval.low < 50.5 < summary.p50_interval.high


def test_p99_is_shown_from_500_values_on() -> None:
    few = summarise([float(i) for i in range(P99_LEAST_N - 1)])
    enough = summarise([float(i) for i in range(P99_LEAST_N)])
    assert few.p99 is None
    assert few.p99_interval is None
    assert enough.p99 == pytest.approx(494.01)
    assert enough.p99_interval is not None


def test_summary_of_nothing_is_unknown_not_zero() -> None:
    summary = summarise([])
    assert summary.n == 0
    assert summary.p50 is None
    assert summary.mean is None


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_values_without_an_order_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        percentile(values, 50)


@pytest.mark.parametrize("q", [-1, 101, math.nan])
def test_percentage_outside_its_range_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="percentage"):
        percentile([1.0], q)


@pytest.mark.parametrize(("q", "confidence"), [(0, 0.95), (100, 0.95), (50, 0), (50, 1)])
def test_interval_without_meaning_is_refused(q: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="between"):
        percentile_interval([1.0, 2.0], q, confidence)
