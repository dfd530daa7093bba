"""Which moments a load means: counts, rates, shares, users."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from loadtests.arrivals import (
    TracePoint,
    duration_s,
    moments,
    read_trace,
    share,
    think_times,
    user_spans,
    users_at,
)
from loadtests.plan import Arrivals, Closed, Open, Rate, Users

RATES = st.floats(0.0, 50.0).map(lambda rate: round(rate, 2))
SPANS = st.builds(Rate, RATES, RATES, st.floats(0.5, 20.0))
LOADS = st.builds(
    Open, st.sampled_from([Arrivals.POISSON, Arrivals.CONSTANT]), st.lists(SPANS, min_size=1, max_size=4).map(tuple)
)
SEEDS = st.integers(0, 2**32)


def poisson(*rates: Rate) -> Open:
    return Open(Arrivals.POISSON, rates)


def constant(*rates: Rate) -> Open:
    return Open(Arrivals.CONSTANT, rates)


@given(LOADS, SEEDS)
def test_moments_ascend_within_the_load_and_are_the_same_for_the_same_seed(load: Open, seed: int) -> None:
    found = moments(load, seed)
    assert (np.diff(found) >= 0).all()
    assert not len(found) or (found[0] >= 0 and found[-1] <= duration_s(load) + 1e-9)
    assert np.array_equal(found, moments(load, seed))


@given(LOADS, SEEDS, st.integers(1, 7))
def test_every_moment_belongs_to_exactly_one_worker(load: Open, seed: int, workers: int) -> None:
    whole = moments(load, seed)
    shares = [share(whole, worker, workers) for worker in range(workers)]
    numbers = np.concatenate([part.numbers for part in shares])
    assert sorted(numbers.tolist()) == list(range(len(whole)))
    assert np.array_equal(np.concatenate([part.moments for part in shares]), whole[numbers])


@given(st.integers(1, 200), st.integers(1, 60))
def test_a_constant_rate_has_exactly_its_count_at_equal_gaps_from_second_0_on(rate: int, for_s: int) -> None:
    found = moments(constant(Rate(rate, rate, for_s)), 1)
    assert len(found) == rate * for_s
    assert found[0] == 0
    assert np.allclose(np.diff(found), 1 / rate)


def test_a_constant_ramp_comes_when_the_sum_of_its_rate_says() -> None:
    found = moments(constant(Rate(0, 10, 10)), 1)
    assert len(found) == 50
    assert np.allclose(found, np.sqrt(2 * np.arange(50))), "the rate is t, its sum is t^2 / 2"


def test_a_pause_between_two_spans_is_empty() -> None:
    found = moments(constant(Rate(5, 5, 2), Rate(0, 0, 3), Rate(5, 5, 2)), 1)
    assert len(found) == 20
    assert not ((found > 2 - 0.2 + 1e-9) & (found < 5 - 1e-9)).any()
    assert found[10] == 5


def test_poisson_gaps_are_exponential() -> None:
    found = moments(poisson(Rate(40, 40, 500)), 3)
    assert abs(len(found) - 20_000) < 4 * np.sqrt(20_000)
    assert scipy_stats.kstest(np.diff(found), "expon", args=(0, 1 / 40)).pvalue > 0.01


def test_poisson_counts_vary_as_much_as_their_mean() -> None:
    counts = np.histogram(moments(poisson(Rate(20, 20, 2000)), 5), bins=2000, range=(0, 2000))[0]
    assert counts.mean() == pytest.approx(20, rel=0.02)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.1)


def test_a_poisson_ramp_is_thin_where_its_rate_is_low() -> None:
    found = moments(poisson(Rate(0, 40, 500)), 8)
    assert abs(len(found) - 10_000) < 4 * np.sqrt(10_000)
    # Of a ramp from 0, the square of the place is even.
    assert scipy_stats.kstest((found / 500) ** 2, "uniform").pvalue > 0.01


def test_seeds_give_other_moments() -> None:
    load = poisson(Rate(10, 10, 10))
    assert not np.array_equal(moments(load, 1)[:20], moments(load, 2)[:20])


def test_a_trace_begins_at_its_first_request_and_runs_at_its_speed() -> None:
    points = read_trace(b'{"at_s": 12.5, "input_tokens": 7}\n\n{"at_s": 10.5}\n{"at_s": 14.5, "output_tokens": 3}\n')
    assert points == [TracePoint(10.5), TracePoint(12.5, 7), TracePoint(14.5, None, 3)], "in the order of time"
    load = Open(Arrivals.TRACE, speed=2.0)
    assert moments(load, 1, points).tolist() == [0.0, 1.0, 2.0]
    assert duration_s(load, points) == 2.0
    assert not len(moments(load, 1, []))


def test_a_line_that_is_no_point_of_a_trace_is_named() -> None:
    with pytest.raises(ValueError, match="line 2 of the trace"):
        read_trace(b'{"at_s": 1}\n{"at": 2}\n')


def test_steady_users_are_there_from_begin_to_end() -> None:
    assert [[tuple(span) for span in spans] for spans in user_spans(Closed((Users(3, 3, 60),)))] == [[(0, 60)]] * 3


@given(st.lists(st.builds(Users, st.integers(0, 12), st.integers(0, 12), st.floats(1, 30)), min_size=1, max_size=4))
def test_as_many_users_are_there_as_the_line_says_rounded(spans: list[Users]) -> None:
    load = Closed(tuple(spans))
    at_s = 0.0
    for users in spans:
        for part in (0.123, 0.5001, 0.877):
            line = users.begin + (users.end - users.begin) * part
            assert abs(users_at(load, at_s + users.for_s * part) - line) <= 0.5 + 1e-6
        at_s += users.for_s


def test_a_user_who_comes_back_has_two_spans() -> None:
    spans = user_spans(Closed((Users(2, 2, 10), Users(1, 1, 10), Users(2, 2, 10))))
    assert [tuple(span) for span in spans[0]] == [(0, 30)]
    assert [tuple(span) for span in spans[1]] == [(0, 10), (20, 30)]


def test_think_times_are_each_users_own_and_have_the_mean_that_was_asked_for() -> None:
    load = Closed((Users(2, 2, 10),), think_s=3.0)
    drawn = np.array(
        [[next(times) for _ in range(4000)] for times in (think_times(load, 1, 0), think_times(load, 1, 1))]
    )
    assert drawn.mean() == pytest.approx(3.0, rel=0.05)
    assert not np.array_equal(drawn[0], drawn[1])
    assert [next(think_times(load, 1, 0)) for _ in range(2)] == [drawn[0][0]] * 2
    assert next(think_times(Closed(load.users), 1, 0)) == 0.0
