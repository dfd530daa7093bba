"""Paired statistics: what enters, what is left out and counted, and figures against independent definitions."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.observations import METRICS, BatchAnswers, Observation
from gateway.domain.paired import BatchStatistics, PairedFigure, batch_statistics, sign_test, summed_up
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


CELLS = st.dictionaries(
    st.tuples(st.integers(0, 8), st.integers(1, 4), st.sampled_from("ab")), st.none() | SPANS, min_size=1, max_size=40
)


@given(CELLS)
def test_figures_are_those_of_the_plain_definition_whatever_is_missing(
    cells: dict[tuple[int, int, str], float | None],
) -> None:
    observed = [seen(model, f"p{prompt}", value, repeat) for (prompt, repeat, model), value in cells.items()]
    statistics = batch_statistics(["a", "b"], observed)
    own: dict[int, list[float]] = {}
    differences: dict[int, list[float]] = {}
    missing = 0
    for (prompt, repeat, model), value in cells.items():
        if model == "a" and value is not None:
            own.setdefault(prompt, []).append(value)
        if model == "a" and (other := (prompt, repeat, "b")) in cells:
            beside = cells[other]
            if value is None or beside is None:
                missing += 1
            else:
                differences.setdefault(prompt, []).append(value - beside)
    figure = statistics.models[0].figures["ttft_s"]
    assert (figure.summary.n, figure.answers) == (len(own), sum(map(len, own.values())))
    if own:
        assert figure.summary.p50 == pytest.approx(median(median(values) for values in own.values()))
    paired = pair(statistics)
    assert (paired.n, sum(paired.excluded.values())) == (len(differences), missing)
    if differences:
        medians = [median(values) for values in differences.values()]
        assert paired.difference == pytest.approx(median(medians), abs=1e-9)
        assert (paired.first_lower, paired.second_lower) == (sum(d < 0 for d in medians), sum(d > 0 for d in medians))


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


def test_answers_of_another_provenance_are_left_out_and_counted_and_never_pooled() -> None:
    simulated = Provenance.SIMULATED
    mixed = [seen(name, f"p{n}", 1.0) for n in range(6) for name in "ab"]
    mixed += [seen(name, f"p{n}", 100.0, provenance=simulated) for n in range(6, 10) for name in "ab"]
    statistics = batch_statistics(["a", "b"], mixed)
    first, _ = statistics.models
    assert (first.provenance, first.asked, first.answered) == (Provenance.REAL, 10, 10)
    for name in METRICS:
        assert first.figures[name].excluded == {"simulated, not real": 4}
        assert (pair(statistics, name).n, pair(statistics, name).excluded) == (6, {"simulated, not real": 4})
    assert first.figures["ttft_s"].summary.max == 1.0
    mostly_simulated = batch_statistics(["a"], mixed[10:]).models[0]
    assert (mostly_simulated.provenance, mostly_simulated.figures["cost"].excluded) == (
        simulated,
        {"real, not simulated": 1},
    )


def test_of_as_many_real_answers_as_others_the_real_ones_count() -> None:
    mixed = [seen("a", "p1", provenance=Provenance.SIMULATED), seen("a", "p2")]
    assert batch_statistics(["a"], mixed).models[0].provenance is Provenance.REAL
    assert batch_statistics(["a"], []).models[0].provenance is None


def test_failure_of_another_provenance_is_a_failure() -> None:
    failed = seen("a", "p2", failure="upstream_error", provenance=Provenance.UNKNOWN)
    (model,) = batch_statistics(["a"], [seen("a", "p1"), failed]).models
    assert model.figures["ttft_s"].excluded == {"no complete answer": 1}


def test_the_unit_is_that_of_most_costs_and_the_others_are_counted() -> None:
    costs = [Cost(Decimal("0.1"), "USD" if n < 3 else "KRW", "api_price") for n in range(8)]
    observed = [seen(name, f"p{n}", cost=cost) for n, cost in enumerate(costs) for name in "ab"]
    for order in (observed, observed[::-1]):
        statistics = batch_statistics(["a", "b"], order)
        for figure in (pair(statistics, "cost"), statistics.models[0].figures["cost"]):
            assert figure.unit == "KRW by api_price"
            assert figure.excluded == {"in USD by api_price, not in KRW by api_price": 3}
        assert pair(statistics, "cost").n == 5


def test_of_equally_frequent_units_the_first_by_name_counts_whatever_strings_hash_to() -> None:
    code = """
from decimal import Decimal
from test_paired import seen
from gateway.domain.paired import batch_statistics
from gateway.domain.records import Cost
costs = [Cost(Decimal("0.1"), "USD" if n < 4 else "KRW", "api_price") for n in range(8)]
observed = [seen(model, f"p{n}", cost=cost) for n, cost in enumerate(costs) for model in "ab"]
print(batch_statistics(["a", "b"], observed).pairs[0].figures["cost"])
"""
    told = set()
    for hash_seed in "0123":
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        told.add(ran.stdout)
    (only,) = told
    assert "unit='KRW by api_price', n=4" in only


def test_what_was_asked_again_counts_for_its_money_alone() -> None:
    answers = BatchAnswers(["a"])
    answers.add(seen("a", "p1"))
    answers.add_asked_again("a", Cost(Decimal("0.25"), "KRW", "api_price"), is_answered=True)
    answers.add_asked_again("a", Cost(None, None, "unknown", "no engine was reached"), is_answered=False)
    answers.add_asked_again("a", Cost(None, None, "unknown", "no price"), is_answered=True)
    (model,) = summed_up(answers).models
    assert (model.asked, model.answered, model.asked_again) == (1, 1, 3)
    assert (model.spent, model.cost_unknown) == ({"KRW": Decimal("0.75")}, 1)
    assert model.figures["cost"].summary.n == 1


def test_nothing_seen_is_nothing_said() -> None:
    statistics = batch_statistics(["a", "b"], [])
    assert statistics.models[0].asked == 0
    assert pair(statistics).n == 0
    assert pair(statistics).difference is None
