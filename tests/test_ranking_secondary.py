"""What stands beside the ranking: what is acceptable, style, sides, sensitivity, agreement, fragility, the blind."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import evalica
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranked_votes import CRITERIA, MODELS, connected, drawn_round, vote_rows, votes_of
from scipy.optimize import minimize

from gateway.domain.ranking.agreement import agreement, alpha_ordinal, coincidences, fleiss_kappa, kappa_parts
from gateway.domain.ranking.anomalies import AnomalyRules, Sign, anomalies
from gateway.domain.ranking.blinding import Guess, bang_index, blinding, guess_tables, james_index
from gateway.domain.ranking.bradley_terry import Fit, fit_strengths
from gateway.domain.ranking.clustered import Covariance
from gateway.domain.ranking.connectivity import NotComparable
from gateway.domain.ranking.contests import contests_of
from gateway.domain.ranking.estimates import Estimate, Said, estimate
from gateway.domain.ranking.figures import clustered_share
from gateway.domain.ranking.fragility import Fragility, fragility
from gateway.domain.ranking.position import Position, position_effect
from gateway.domain.ranking.ranks import order_of
from gateway.domain.ranking.rao_kupper import Acceptability, Line, fit_acceptability, probabilities
from gateway.domain.ranking.reasons import Caution, Reason
from gateway.domain.ranking.sensitivity import Variation, vary
from gateway.domain.ranking.style import StyleControlled, style_controlled
from gateway.domain.ranking.vote_rows import VoteRow
from gateway.domain.ranking.votes import FloatArray, Votes, columns_of_votes

TRUTH = np.array([0.9, 0.2, 0.0, -0.3, -0.8])


def estimated(votes: Votes, keep: int | None = None) -> Estimate:
    found = estimate(contests_of(votes), Said(keep))
    assert isinstance(found, Estimate)
    return found


# --- acceptability ------------------------------------------------------------------------------------------


def grounded_round(seed: int, gamma: FloatArray, theta: float, n: int = 60_000) -> Votes:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, len(gamma), n)
    b = (a + rng.integers(1, len(gamma), n)) % len(gamma)
    upto = np.cumsum(probabilities(gamma[a], gamma[b], np.log(theta)), axis=1)
    return columns_of_votes(
        models=[f"m{code}" for code in range(len(gamma))],
        reviewers=[f"r{code}" for code in range(200)],
        prompts=[f"p{code}" for code in range(200)],
        reviewer=rng.integers(0, 200, n),
        prompt=rng.integers(0, 200, n),
        model_a=a,
        model_b=b,
        outcome=np.minimum((rng.random(n)[:, None] > upto).sum(axis=1), 3).astype(np.int8),
    )


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 3))
def test_the_four_outcomes_are_all_there_is(a: float, b: float, log_theta: float) -> None:
    p = probabilities(np.array([a]), np.array([b]), log_theta)[0]
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p >= 0).all()
    assert p[3] == pytest.approx(1 / (1 + np.exp(a) + np.exp(b)))
    assert p[0] == pytest.approx(np.exp(a) / (np.exp(a) + np.exp(log_theta) * np.exp(b) + 1))


def test_worths_that_made_the_votes_are_found_again() -> None:
    gamma = np.array([1.5, 0.6, 0.0, -0.9])
    found = fit_acceptability(grounded_round(1, gamma, 1.7))
    assert isinstance(found, Acceptability)
    assert found.strengths == pytest.approx(gamma, abs=0.06)
    assert found.tie_parameter == pytest.approx(1.7, abs=0.03)
    assert found.acceptable == pytest.approx(1 / (1 + np.exp(-found.strengths)))
    assert found.lines == (Line.ACCEPTABLE, Line.ACCEPTABLE, Line.UNCLEAR, Line.NOT_ACCEPTABLE)
    assert found.n == 60_000


@settings(max_examples=30)
@given(vote_rows(least=10))
def test_worths_are_at_the_top_of_the_likelihood(rows: list[VoteRow]) -> None:
    bad = [VoteRow("r0", "p0", MODELS[0], other, "both_bad") for other in MODELS[1:]]
    won = [VoteRow("r0", "p0", *pair, outcome) for pair in pairwise(MODELS) for outcome in ("a", "b")]
    votes = votes_of(connected([*rows, *bad, *won]))
    found = fit_acceptability(votes)
    assert isinstance(found, Acceptability)
    kept = votes.where(votes.counts)

    def loss(at: FloatArray) -> float:
        p = probabilities(at[kept.model_a], at[kept.model_b], abs(float(at[-1])))
        return float(-np.log(np.maximum(p[np.arange(len(kept)), kept.outcome], 1e-300)).sum())

    at = np.append(found.strengths, np.log(found.tie_parameter))
    other = minimize(loss, at, method="Nelder-Mead", options={"maxiter": 300})
    assert loss(at) <= other.fun + 1e-6
    turned = fit_acceptability(votes.swapped())
    assert isinstance(turned, Acceptability)
    assert turned.strengths == pytest.approx(found.strengths, abs=1e-7)


def test_without_both_bad_there_is_no_acceptable_line() -> None:
    votes = drawn_round(1, TRUTH, bad=0.0)
    assert fit_acceptability(votes) == NotComparable(Reason.NO_BOTH_BAD, n=len(votes))


def test_without_ties_the_tie_parameter_stands_at_its_bound() -> None:
    found = fit_acceptability(drawn_round(1, TRUTH, ties=0.0))
    assert isinstance(found, Acceptability)
    assert found.tie_parameter == 1.0
    assert Caution.TIES_ABSENT in found.cautions
    assert isinstance(found.covariance, Covariance)


# --- style and position -------------------------------------------------------------------------------------


def test_what_length_alone_earned_is_taken_off_and_told() -> None:
    votes = drawn_round(3, np.zeros(5), n=20_000, length=0.8)
    raw, controlled = estimated(votes), style_controlled(votes, Said())
    assert isinstance(controlled, StyleControlled)
    assert raw.strengths[4] - raw.strengths[0] > 0.5
    assert np.abs(controlled.estimate.strengths).max() < 0.15
    (effect,) = controlled.effects
    assert effect.feature == "length"
    assert effect.interval is not None
    assert effect.interval.low < 0.8 * 0.8 < effect.interval.high + 0.1
    assert controlled.estimate.n == raw.n


def test_style_does_not_care_which_side_is_called_a() -> None:
    votes = drawn_round(3, TRUTH, length=0.5)
    turned = votes.where(votes.reviewer % 2 == 0).swapped()
    names = ("reviewer", "prompt", "model_a", "model_b", "outcome", "style_a", "style_b")
    rest = votes.where(votes.reviewer % 2 == 1)
    columns = {name: np.concatenate((getattr(turned, name), getattr(rest, name))) for name in names}
    labels = {name: getattr(votes, name) for name in ("models", "reviewers", "prompts", "features")}
    mixed = columns_of_votes(**labels, **columns)
    one, other = style_controlled(votes, Said()), style_controlled(mixed, Said())
    assert isinstance(one, StyleControlled)
    assert isinstance(other, StyleControlled)
    assert other.estimate.strengths == pytest.approx(one.estimate.strengths, abs=1e-9)
    assert other.effects[0].coefficient == pytest.approx(one.effects[0].coefficient, abs=1e-9)


def test_unknown_and_constant_style_is_left_out_and_told() -> None:
    votes = drawn_round(3, TRUTH)
    same = np.ones((len(votes), 1))
    style_a, style_b = np.hstack((votes.style_a, same)), np.hstack((votes.style_b, same))
    style_a[:100, 0] = np.nan
    known = replace(votes, features=("length", "bold"), style_a=style_a, style_b=style_b)
    found = style_controlled(known, Said())
    assert isinstance(found, StyleControlled)
    assert found.constant == ("bold",)
    assert found.without_style == 100
    assert found.estimate.n == len(votes) - 100
    bare = replace(votes, features=(), style_a=np.zeros((len(votes), 0)), style_b=np.zeros((len(votes), 0)))
    assert style_controlled(bare, Said()) == NotComparable(Reason.NOT_RECORDED)


def test_a_preference_for_the_left_is_measured_and_turns_with_the_sides() -> None:
    votes = drawn_round(5, TRUTH, n=8000, side=0.5, ties=0.0, bad=0.0)
    effects = []
    for version in (votes, votes.swapped()):
        found = position_effect(contests_of(version), estimated(version), Said())
        assert isinstance(found, Position)
        effects.append(found)
    assert effects[0].interval is not None
    assert effects[0].interval.low < 0.5 < effects[0].interval.high
    assert effects[0].p_value is not None
    assert effects[0].p_value < 1e-6
    assert effects[1].advantage == pytest.approx(-effects[0].advantage, abs=1e-9)
    assert effects[1].share_for_a == pytest.approx(1 - effects[0].share_for_a, abs=1e-9)
    assert effects[0].shown_first == effects[1].shown_second
    assert effects[0].n == len(votes)


# --- sensitivity and fragility ------------------------------------------------------------------------------


def test_variations_are_the_estimates_of_what_is_left() -> None:
    votes = drawn_round(6, TRUTH)
    votes = replace(votes, recognised=votes.prompt % 10 == 0)
    without_bad, without_recognised = vary(votes, estimated(votes), Said(2))
    assert (without_bad.variation, without_recognised.variation) == tuple(Variation)
    for found, kept in ((without_bad, votes.outcome != 3), (without_recognised, ~votes.recognised)):
        assert isinstance(found.estimate, Estimate)
        assert found.estimate.strengths == pytest.approx(estimated(votes.where(kept)).strengths, abs=1e-9)
        assert found.left_out == int((~kept).sum())
        assert found.moved is not None
        assert found.moved.entered == found.moved.left == ()


def fragile(votes: Votes, keep: int | None) -> tuple[Fit, Fragility]:
    contests = contests_of(votes)
    fit = fit_strengths(contests)
    assert isinstance(fit, Fit)
    return fit, fragility(fit, contests, keep)


def test_removing_the_reviewers_named_moves_the_line_and_one_vote_less_than_told_was_not_enough() -> None:
    votes = drawn_round(8, np.array([0.6, 0.25, 0.1, -0.4, -0.55]), reviewers=20, n=2000)
    fit, found = fragile(votes, 2)
    assert found.votes is not None
    assert found.reviewers is not None
    rest = estimated(votes.where(~np.isin(votes.reviewer, found.reviewers.reviewers)))
    assert set(rest.order[:2]) != set(order_of(fit.strengths)[:2])
    assert found.reviewers.entered in rest.order[:2]
    assert found.reviewers.left not in rest.order[:2]
    assert found.reviewers.count == len(found.reviewers.reviewers)
    assert 1 < found.votes.count < 200
    assert found.votes.share == pytest.approx(found.votes.count / fit.n)


@settings(max_examples=40)
@given(vote_rows(least=4, most=12), st.integers(1, 3))
def test_a_removal_of_votes_is_never_fewer_than_the_fewest(rows: list[VoteRow], keep: int) -> None:
    """Against trying every single vote: where one is enough the bound may be more, where one is told it is enough."""
    votes = votes_of(connected(rows))
    fit, found = fragile(votes, keep)
    above = set(order_of(fit.strengths)[:keep])
    single = False
    for gone in np.flatnonzero(votes.counts):
        rest = fit_strengths(contests_of(votes.where(np.arange(len(votes)) != gone)))
        single = single or (isinstance(rest, Fit) and set(order_of(rest.strengths)[:keep]) != above)
    if found.votes is not None and found.votes.count == 1:
        assert single
    if not single and found.votes is not None:
        assert found.votes.count >= 2


def test_without_a_line_nothing_is_fragile() -> None:
    _, found = fragile(drawn_round(1, TRUTH), None)
    assert found.reason is Reason.NO_CUT_LINE


# --- agreement ----------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.sampled_from((None, 0, 1, 2, 3, 4)), min_size=4, max_size=4), min_size=2, max_size=15))
def test_alpha_is_that_of_evalica(items: list[list[int | None]]) -> None:
    shared = [item for item in items if sum(level is not None for level in item) >= 2]
    if not shared or len({level for item in shared for level in item if level is not None}) < 2:
        return
    counts = np.array([[item.count(level) for level in range(5)] for item in shared], dtype=float)
    found = alpha_ordinal(coincidences(counts).sum(axis=0)[None])[0]
    other = evalica.alpha(pandas.DataFrame(np.array(items, dtype=float).T), distance="ordinal").alpha
    assert found == pytest.approx(other, abs=1e-9)


def test_kappa_is_that_of_the_textbooks_table() -> None:
    """Fourteen raters, ten subjects, five categories: the example with κ = 0.210 that is often worked through."""
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    kappa = fleiss_kappa(kappa_parts(np.array(table, dtype=float)).sum(axis=0)[None])[0]
    assert kappa == pytest.approx(0.210, abs=5e-4)


def shared_rows(seed: int, flips: float) -> list[VoteRow]:
    """Thirty items judged by six reviewers, who turn the true answer around with the chance given, sides at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for item in range(30):
        better, worse = rng.permutation(4)[:2]
        for reviewer in range(6):
            won, lost = (worse, better) if rng.random() < flips else (better, worse)
            sides = (won, lost, "a", 2) if rng.random() < 0.5 else (lost, won, "b", -2)
            grades = dict.fromkeys(CRITERIA, sides[3])
            rows.append(VoteRow(f"r{reviewer}", f"p{item}", MODELS[sides[0]], MODELS[sides[1]], sides[2], grades))
    return rows


def test_reviewers_who_always_agree_have_alpha_and_kappa_1_and_who_guess_have_0() -> None:
    same, guessed = (agreement(votes_of(shared_rows(4, flips))) for flips in (0.0, 0.5))
    assert same.shared_items == guessed.shared_items == 30
    for figure in (same.alpha, same.kappa, *same.alpha_by_criterion.values()):
        assert figure.value == pytest.approx(1)
        assert figure.n == 180
    for figure in (guessed.alpha, guessed.kappa, *guessed.alpha_by_criterion.values()):
        assert figure.interval is not None
        assert figure.interval.low < 0 < figure.interval.high
        assert figure.interval.high - figure.interval.low < 0.4


def test_a_repeat_is_held_against_the_same_reviewers_first_vote_whatever_the_side() -> None:
    a, b = MODELS[:2]
    rows = [
        VoteRow("r1", "p1", a, b, "a"),
        VoteRow("r1", "p1", b, a, "b", is_repeat=True),
        VoteRow("r2", "p1", a, b, "a"),
        VoteRow("r2", "p1", b, a, "a", is_repeat=True),
        VoteRow("r2", "p2", a, b, "tie"),
        VoteRow("r2", "p2", b, a, "both_bad", is_repeat=True),
        VoteRow("r3", "p3", b, a, "a", is_repeat=True),
    ]
    found = agreement(votes_of(rows))
    assert (found.consistent.value, found.consistent.n) == (pytest.approx(1 / 3), 3)
    assert (found.reversed.value, found.reversed.n) == (pytest.approx(1 / 3), 3)
    assert agreement(votes_of(rows[:1])).consistent.reason is Reason.NO_REPEATS


def test_criteria_that_say_the_same_are_one_impression() -> None:
    rng = np.random.default_rng(0)
    rows = [
        VoteRow(f"r{n % 20}", f"p{n}", *MODELS[:2], "tie", {"performance": g, "infrastructure": g, "industry": h})
        for n, (g, h) in enumerate(rng.integers(-2, 3, (600, 2)).tolist())
    ]
    found = agreement(votes_of(rows))
    assert found.halo["performance", "infrastructure"].value == pytest.approx(1)
    apart = found.halo["performance", "industry"]
    assert apart.interval is not None
    assert apart.interval.low < 0 < apart.interval.high
    assert found.all_alike.value == pytest.approx(0.2, abs=0.05)
    assert apart.n == found.all_alike.n == 600


def test_a_share_has_an_interval_even_when_nobody_missed() -> None:
    found = clustered_share(np.full(20, 3.0), np.full(20, 3.0))
    assert found.value == 1
    assert found.interval is not None
    assert 0.9 < found.interval.low < 0.95
    spread = clustered_share(np.array([3.0] * 10 + [0.0] * 10), np.full(20, 3.0))
    even = clustered_share(np.full(20, 1.5), np.full(20, 3.0))
    assert spread.interval is not None
    assert even.interval is not None
    assert spread.interval.low < even.interval.low, "reviewers who differ are worth fewer votes"


# --- anomalies and blinding ---------------------------------------------------------------------------------


def test_unlikely_reviewers_are_flagged_and_others_are_not() -> None:
    rng = np.random.default_rng(2)
    rows = []
    for n in range(900):
        reviewer, (a, b) = n % 15, rng.permutation(4)[:2]
        outcome, grade, seconds = (
            str(rng.choice(["a", "b", "tie"])),
            int(rng.integers(-2, 3)),
            float(rng.uniform(30, 90)),
        )
        if reviewer == 3:
            outcome, grade = "tie", 0
        if reviewer == 5:
            seconds = 4.0
        if reviewer == 7:
            outcome = "a"
        grades = {CRITERIA[0]: grade}
        rows.append(VoteRow(f"r{reviewer:02}", f"p{n}", MODELS[a], MODELS[b], outcome, grades, seconds=seconds))
    votes = votes_of(rows)
    flags = {(votes.reviewers[flag.reviewer], flag.sign): flag for flag in anomalies(votes)}
    assert set(flags) == {("r03", Sign.STRAIGHT_LINING), ("r05", Sign.SPEED), ("r07", Sign.POSITION_LOCK)}
    assert flags["r03", Sign.STRAIGHT_LINING].value == 1
    assert flags["r05", Sign.SPEED].value == 4
    assert all(flag.n == 60 for flag in flags.values())
    assert len(contests_of(votes)) == 900, "a flag excludes nothing"
    assert anomalies(votes, AnomalyRules(fewest_votes=61)) == ()


def test_james_index_is_1_when_nobody_guesses_half_by_chance_and_0_when_all_are_right() -> None:
    right = np.hstack((np.eye(4) * 10, np.zeros((4, 1))))
    chance = np.hstack((np.full((4, 4), 5.0), np.zeros((4, 1))))
    silent = np.hstack((np.zeros((4, 4)), np.full((4, 1), 9.0)))
    assert james_index(np.stack((right, chance, silent))) == pytest.approx([0, 0.5, 1])


def test_bangs_index_of_two_models_is_the_share_right_less_the_share_wrong() -> None:
    assert bang_index(np.array([[82.0, 25.0, 170.0]]), 0)[0] == pytest.approx((82 - 25) / 277)
    assert bang_index(np.array([[27.0, 29.0, 83.0]]), 1)[0] == pytest.approx((29 - 27) / 139)
    assert bang_index(np.array([[5.0, 5.0, 5.0, 5.0, 0.0], [0.0, 9.0, 0.0, 0.0, 0.0]]), 1) == pytest.approx([0, 1])


def test_blinding_is_told_with_intervals_over_reviewers() -> None:
    rng = np.random.default_rng(9)
    guesses = []
    for n in range(400):
        guessed = None if rng.random() < 0.4 else str(rng.choice(MODELS))
        guesses.append(Guess(f"r{n % 40}", MODELS[n % 4], guessed))
    found = blinding(guesses, votes_of([VoteRow("r", "p", *MODELS[:2], "a", recognised=True)] * 3))
    assert found.james.interval is not None
    assert found.james.interval.low < 0.7 < found.james.interval.high
    assert found.james.n == 400
    for figure in found.bang:
        assert figure.interval is not None
        assert figure.interval.low < 0 < figure.interval.high
        assert figure.n == 100
    assert (found.recognised.value, found.recognised.n) == (1, 3)
    assert blinding([], votes_of([])).james.reason is Reason.NO_GUESSES
    with pytest.raises(ValueError, match="guess: expected a model of the round"):
        guess_tables([Guess("r", MODELS[0], "ghost")], MODELS)
