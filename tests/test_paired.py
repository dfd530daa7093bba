"""Paired statistics: what enters, what is left out and counted, and figures against independent definitions."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.paired import METRICS, BatchStatistics, Observation, PairedFigure, batch_statistics, sign_test
from gateway.domain.records import Cost, Provenance, Timing, Usage

SPANS = st.floats(0.001, 1000)


def seen(model: str, prompt: str, value: float | None = 1.0, repeat: int = 1, **changes: object) -> Observation:
    fields: dict[str, object] = {
        "failure": None,
        "provenance": Provenance.REAL,
        "usage": Usage(10, 20, None, None, "engine"),
        "timing": Timing(ttft_s=value, tpot_s=value, e2e_s=value),
        "cost": Cost(Decimal("0.5"), "KRW", "api_price"),
        "finish_reason": "stop",
    }
    return Observation(prompt, repeat, model, **{**fields, **changes})  # type: ignore[arg-type]


def pair(statistics: BatchStatistics, metric: str = "ttft_s") -> PairedFigure:
    (only,) = statistics.pairs
    return only.figures[metric]


# --- the figures --------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(0, 40))
def test_sign_test_is_the_exact_binomial_one(lower: int, upper: int) -> None:
    n = lower + upper
    if n == 0:
        assert sign_test(lower, upper) is None
        return
    tail = sum(math.comb(n, k) for k in range(min(lower, upper) + 1))
    assert sign_test(lower, upper) == pytest.approx(float(min(Fraction(1), Fraction(2 * tail, 2**n))), rel=1e-9)


@given(st.lists(st.tuples(SPANS, SPANS), min_size=1, max_size=40))
def test_difference_is_the_median_of_the_prompts_own_and_swapping_turns_it_around(
    values: list[tuple[float, float]],
) -> None:
    observed = [
        seen(name, f"p{n}", value) for n, both in enumerate(values) for name, value in zip("ab", both, strict=True)
    ]
    figure = pair(batch_statistics(["a", "b"], observed))
    assert figure.n == len(values)
    assert figure.difference == pytest.approx(median([a - b for a, b in values]), rel=1e-9, abs=1e-12)
    assert figure.ratio == pytest.approx(median([a / b for a, b in values]), rel=1e-9)
    assert figure.first_lower + figure.equal + figure.second_lower == figure.n
    turned = pair(batch_statistics(["b", "a"], observed))
    assert turned.difference == pytest.approx(-figure.difference, rel=1e-9, abs=1e-12)
    assert (turned.first_lower, turned.second_lower) == (figure.second_lower, figure.first_lower)
    assert turned.p_value == figure.p_value
    interval = figure.difference_interval
    assert (interval is None) == (len(values) < 6), "below six prompts no 95 % interval exists"
    if interval is not None:
        assert interval.low <= figure.difference + 1e-12
        assert figure.difference - 1e-12 <= interval.high
        assert interval.coverage >= 0.95


@given(st.lists(SPANS, min_size=1, max_size=12), st.integers(1, 5))
def test_asking_again_does_not_make_more_prompts(values: list[float], repeats: int) -> None:
    observed = [
        seen(name, f"p{n}", value, repeat)
        for n, value in enumerate(values)
        for name in "ab"
        for repeat in range(1, repeats + 1)
    ]
    statistics = batch_statistics(["a", "b"], observed)
    figure = statistics.models[0].figures["ttft_s"]
    assert (figure.summary.n, figure.answers) == (len(values), len(values) * repeats)
    assert figure.summary.p50 == pytest.approx(median(values))
    assert pair(statistics).n == len(values)
    assert pair(statistics).difference == 0
    assert pair(statistics).p_value is None


def test_order_of_the_observations_does_not_matter() -> None:
    observed = [seen(name, f"p{n}", n + 1.5 * (name == "a")) for n in range(1, 9) for name in "ab"]
    assert batch_statistics(["a", "b"], observed) == batch_statistics(["a", "b"], observed[::-1])


# --- what may not be counted --------------------------------------------------------------------------------


def test_timings_that_are_not_comparable_are_left_out_and_counted_but_tokens_and_prices_are_not() -> None:
    shared = "a and b shared the host h at the same time"
    observed = [seen(name, f"p{n}", incomparable=shared if n < 3 else None) for n in range(10) for name in "ab"]
    statistics = batch_statistics(["a", "b"], observed)
    assert (pair(statistics).n, pair(statistics).excluded) == (7, {shared: 3})
    assert statistics.models[0].figures["ttft_s"].excluded == {shared: 3}
    assert pair(statistics, "completion_tokens").n == 10
    assert pair(statistics, "cost").n == 10


def test_gpu_time_is_a_timing_and_left_out_with_these() -> None:
    gpu = Cost(Decimal("0.1"), "USD", "gpu_time_provisional")
    observed = [seen(name, f"p{n}", cost=gpu, incomparable="why") for n in range(2) for name in "ab"]
    statistics = batch_statistics(["a", "b"], observed)
    assert pair(statistics, "cost").excluded == {"why": 2}
    assert statistics.models[0].spent == {"USD": Decimal("0.2")}


def test_costs_in_two_currencies_are_not_subtracted() -> None:
    dollars = Cost(Decimal("0.1"), "USD", "api_price")
    observed = [seen("a", "p"), seen("b", "p", cost=dollars)]
    figure = pair(batch_statistics(["a", "b"], observed), "cost")
    assert (figure.n, figure.difference, figure.excluded) == (0, None, {"in different units": 1})


def test_a_failed_answer_is_counted_by_its_code_and_enters_nothing() -> None:
    unknown = Cost(None, None, "unknown")
    failed = seen("a", "p1", failure="upstream_busy", usage=Usage(), timing=Timing(), cost=unknown)
    statistics = batch_statistics(["a", "b"], [failed, seen("b", "p1"), seen("a", "p2"), seen("b", "p2")])
    first, second = statistics.models
    assert (first.asked, first.answered, first.failures) == (2, 1, {"upstream_busy": 1})
    assert (second.asked, second.answered, second.failures) == (2, 2, {})
    for name in METRICS:
        assert pair(statistics, name).n == 1
        assert pair(statistics, name).excluded == {"no complete answer": 1}


def test_an_unknown_cost_is_in_no_sum_and_is_counted() -> None:
    unknown = Cost(None, "KRW", "unknown", "the number of prompt tokens is unknown")
    statistics = batch_statistics(["a"], [seen("a", "p1"), seen("a", "p2", cost=unknown)])
    (model,) = statistics.models
    assert (model.spent, model.cost_unknown) == ({"KRW": Decimal("0.5")}, 1)
    assert model.figures["cost"].excluded == {"the number of prompt tokens is unknown": 1}
    assert model.figures["cost"].unit == "KRW by api_price"


def test_provenance_is_named_only_where_all_answers_share_it() -> None:
    mixed = [seen("a", "p1"), seen("a", "p2", provenance=Provenance.SIMULATED)]
    assert batch_statistics(["a"], mixed).models[0].provenance is None
    assert batch_statistics(["a"], mixed[:1]).models[0].provenance is Provenance.REAL


def test_nothing_seen_is_nothing_said() -> None:
    statistics = batch_statistics(["a", "b"], [])
    assert statistics.models[0].asked == 0
    assert pair(statistics).n == 0
    assert pair(statistics).difference is None
