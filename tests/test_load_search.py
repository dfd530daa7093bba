"""The search for the highest load that holds: it finds it within its tolerance, and says when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.plan import Search
from loadtests.search import LEAST_RATE, LoadSearch


def search(over: str = "rate", begin: float = 1.0, most: float = 1000.0, tolerance: float = 0.1) -> LoadSearch:
    return LoadSearch(Search("knee", over, begin, most, tolerance=tolerance))


def run(one: LoadSearch, holds: Callable[[float], bool | None]) -> list[float]:
    tried = []
    while (level := one.next_level()) is not None:
        tried.append(level)
        one.tell(level, holds(level))
    return tried


def test_it_doubles_then_bisects() -> None:
    one = search()
    assert run(one, lambda rate: rate <= 11) == [1, 2, 4, 8, 16, 12, 10, 11]
    assert (one.ended, one.highest_met, one.lowest_failed) == ("found", 11, 12)


@given(st.floats(0.05, 5000), st.floats(0.01, 100), st.floats(0.02, 0.5))
def test_the_knee_lies_within_the_tolerance_of_what_is_found(knee: float, begin: float, tolerance: float) -> None:
    one = search(begin=begin, most=10_000, tolerance=tolerance)
    tried = run(one, lambda rate: rate <= knee)
    assert len(tried) == len(set(tried))
    assert len(tried) <= 40 + log2(10_000 / begin)
    if one.ended == "found":
        assert one.highest_met is not None
        assert one.lowest_failed is not None
        assert one.highest_met <= knee < one.lowest_failed
        assert one.lowest_failed <= one.highest_met * (1 + tolerance) * 1.001
    else:
        assert one.ended == "below_begin"
        assert knee < max(begin / 64, LEAST_RATE) * 1.001


@given(st.integers(1, 500), st.integers(1, 50))
def test_users_are_whole_and_the_knee_is_exact_when_small(knee: int, begin: int) -> None:
    one = search("users", begin=begin, most=1000, tolerance=0.1)
    tried = run(one, lambda users: users <= knee)
    assert all(level == int(level) and level >= 1 for level in tried)
    if one.ended == "found":
        assert one.highest_met is not None
        assert one.highest_met <= knee
        assert knee <= max(one.highest_met * 1.1, one.highest_met + 1)


def test_what_holds_up_to_the_plans_limit_says_so() -> None:
    one = search(most=10)
    assert run(one, lambda rate: True) == [1, 2, 4, 8, 10]
    assert (one.ended, one.highest_met) == ("at_most", 10)


def test_what_never_holds_says_so() -> None:
    one = search("users", begin=4, most=8)
    assert run(one, lambda users: False) == [4, 2, 1]
    assert one.ended == "below_begin"


def test_a_level_that_cannot_be_measured_ends_it() -> None:
    one = search()
    one.tell(1.0, True)
    one.tell(2.0, None, "client_cpu: the busiest took 80%")
    assert one.next_level() is None
    assert (one.ended, one.why) == ("invalid", "client_cpu: the busiest took 80%")


@pytest.mark.parametrize("stop_after", range(1, 8))
def test_it_goes_on_from_where_it_stopped(stop_after: int) -> None:
    whole = search()
    told = [(rate, rate <= 11) for rate in run(whole, lambda rate: rate <= 11)]
    again = search()
    for rate, met in told[:stop_after]:
        again.tell(rate, met)
    assert run(again, lambda rate: rate <= 11) == [rate for rate, _ in told[stop_after:]]
