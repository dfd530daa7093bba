"""What a round can tell apart: known answers, and the way there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.planner import (
    Assumptions,
    design_effect,
    log_odds_of,
    plan_round,
    votes_needed,
    win_rate_of,
)

SHARES = st.floats(0, 0.6)
ASSUMPTIONS = st.builds(
    Assumptions,
    tie_share=SHARES,
    design_effect=st.floats(1, 4),
    alpha=st.floats(0.001, 0.2),
    power=st.floats(0.5, 0.99),
)


def test_49_reviewers_with_40_votes_tell_62_percent_apart_in_one_pair_and_67_in_all_45() -> None:
    plan = plan_round(models=10, reviewers=49, prompts=120, votes_per_reviewer=40)
    assert (plan.votes, plan.all_pairs.comparisons) == (1960, 45)
    assert plan.one_pair.win_rate == pytest.approx(0.62, abs=0.005)
    assert plan.all_pairs.win_rate == pytest.approx(0.67, abs=0.005)
    assert plan.warnings == ()


def test_figures_are_those_of_the_formula_with_quantiles_from_tables() -> None:
    assume = Assumptions(tie_share=0, design_effect=1, alpha=0.05, power=0.8)
    plan = plan_round(models=10, reviewers=45, prompts=100, votes_per_reviewer=40, assume=assume)
    assert plan.telling_votes_per_pair == 40
    assert plan.one_pair.log_odds == pytest.approx((1.959964 + 0.841621) * math.sqrt(8 / 400), rel=1e-6)
    # 0.05 / 45 / 2 = 0.000556 above 3.2608
    assert plan.all_pairs.log_odds == pytest.approx((3.2608 + 0.841621) * math.sqrt(8 / 400), rel=1e-4)


@pytest.mark.parametrize("models", [2, 3, 10, 20])
def test_the_variance_is_that_of_a_balanced_design_between_equals(models: int) -> None:
    n = 50
    information = n / 4 * (models * np.eye(models) - np.ones((models, models)))
    covariance = np.linalg.pinv(information)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert variance == pytest.approx(8 / (n * models))


def test_the_design_effect_falls_from_3_for_ten_reviewers_to_one_and_a_half_for_fifty() -> None:
    assert (design_effect(1), design_effect(10), design_effect(50), design_effect(500)) == (3, 3, 1.5, 1.5)
    effects = [design_effect(reviewers) for reviewers in range(1, 80)]
    assert effects == sorted(effects, reverse=True)


@given(st.integers(2, 20), st.integers(1, 500), st.floats(0.02, 3), st.booleans(), ASSUMPTIONS)
def test_the_votes_needed_find_the_difference_and_one_less_a_pair_does_not(
    models: int, reviewers: int, log_odds: float, in_all: bool, assume: Assumptions
) -> None:
    pairs = models * (models - 1) // 2
    needed = votes_needed(
        log_odds, models=models, reviewers=reviewers, comparisons=pairs if in_all else 1, assume=assume
    )
    assert needed.votes == needed.votes_per_pair * pairs
    assert 0 <= needed.votes_per_reviewer * reviewers - needed.votes < reviewers

    def found(votes_per_pair: int) -> float:
        plan = plan_round(
            models=models, reviewers=1, prompts=1, votes_per_reviewer=votes_per_pair * pairs, assume=assume
        )
        return (plan.all_pairs if in_all else plan.one_pair).log_odds

    assert found(needed.votes_per_pair) <= log_odds * (1 + 1e-9)
    if needed.votes_per_pair > 1:
        assert found(needed.votes_per_pair - 1) >= log_odds * (1 - 1e-9)


@given(st.integers(2, 20), st.integers(1, 200), st.integers(1, 100), ASSUMPTIONS)
def test_more_votes_tell_finer_and_all_pairs_are_coarser_than_one(
    models: int, reviewers: int, votes: int, assume: Assumptions
) -> None:
    def plan(votes: int) -> tuple[float, float]:
        made = plan_round(models=models, reviewers=reviewers, prompts=100, votes_per_reviewer=votes, assume=assume)
        return made.one_pair.win_rate, made.all_pairs.win_rate

    one, every = plan(votes)
    assert 0.5 < one <= every <= 1
    more_one, more_every = plan(votes + 1)
    assert more_one <= one
    assert more_every <= every


@given(st.floats(0.01, 0.99))
def test_win_rates_and_log_odds_are_each_others_inverse(win_rate: float) -> None:
    assert win_rate_of(log_odds_of(win_rate)) == pytest.approx(win_rate)
    assert win_rate_of(-1000) == pytest.approx(0)


def test_small_rounds_are_warned_of_in_words() -> None:
    plan = plan_round(models=10, reviewers=2, prompts=12, votes_per_reviewer=20)
    assert plan.warnings == (
        "2 reviewers: with fewer than 30, intervals are too narrow",
        "12 prompts: with fewer than 100, intervals are too narrow",
        "20 votes on 12 prompts: reviewers see prompts more than once",
        "not every pair gets a vote",
    )


@pytest.mark.parametrize(
    ("sizes", "assume", "complaint"),
    [
        ({"models": 1}, {}, "models: expected at least 2, got 1"),
        ({"reviewers": 0}, {}, "reviewers: expected at least 1, got 0"),
        ({}, {"tie_share": 1.0}, "tie_share: expected a share from 0 to below 1"),
        ({}, {"alpha": 0.0}, "alpha"),
        ({}, {"power": 1.0}, "power"),
        ({}, {"design_effect": 0.5}, "design_effect: expected 1 or more"),
    ],
)
def test_impossible_sizes_are_refused_by_name(sizes: dict[str, int], assume: dict[str, float], complaint: str) -> None:
    asked = {"models": 10, "reviewers": 49, "prompts": 120, "votes_per_reviewer": 40, **sizes}
    with pytest.raises(ValueError, match=complaint):
        plan_round(**asked, assume=Assumptions(**assume))
    with pytest.raises(ValueError, match="log_odds: expected a number above 0"):
        votes_needed(0, models=10, reviewers=49)
    with pytest.raises(ValueError, match="win_rate"):
        log_odds_of(1)
    with pytest.raises(ValueError, match="reviewers"):
        design_effect(0)
