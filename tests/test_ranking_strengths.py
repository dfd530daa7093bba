"""Strengths, their covariance and ranks: against other implementations, other arithmetic, and their own symmetries."""

from __future__ import annotations

from itertools import combinations, pairwise

import choix
import evalica
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranked_votes import MODELS, connected, drawn_round, relabelled, vote_rows, votes_of
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import t as student

from gateway.domain.ranking.bradley_terry import Fit, fit_strengths, ratings, win_rate_slopes, win_rates
from gateway.domain.ranking.clustered import Covariance, clustered_covariance, strength_scores
from gateway.domain.ranking.connectivity import NotComparable
from gateway.domain.ranking.contests import Contests, contests_of, pair_table
from gateway.domain.ranking.estimates import Estimate, Grounds, Said, composite, estimate, grounds_of
from gateway.domain.ranking.jackknife import leave_one_reviewer_out
from gateway.domain.ranking.ranks import draw_line, holm, order_of, rank_models
from gateway.domain.ranking.reasons import Caution, Reason
from gateway.domain.ranking.vote_rows import VoteRow
from gateway.domain.ranking.votes import FloatArray, Votes

TRUTH = np.array([0.9, 0.2, 0.0, -0.3, -0.8])


def fitted(votes: Votes) -> Fit:
    fit = fit_strengths(contests_of(votes))
    assert isinstance(fit, Fit)
    return fit


def estimated(votes: Votes, keep: int | None = None) -> Estimate:
    found = estimate(contests_of(votes), Said(keep))
    assert isinstance(found, Estimate)
    return found


def covariance_of(matrix: FloatArray, df: int = 1000) -> Covariance:
    return Covariance(matrix, matrix, df, 1000, df + 1, df + 1, is_clipped=False)


# --- strengths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_strengths_are_those_of_choix(seed: int) -> None:
    votes = drawn_round(seed, TRUTH, n=400)
    table = pair_table(contests_of(votes)).scored
    other = choix.ilsr_pairwise_dense(table, tol=1e-12, max_iter=1000)
    assert fitted(votes).strengths == pytest.approx(other - other.mean(), abs=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_strengths_are_those_of_evalica(seed: int) -> None:
    votes = drawn_round(seed, TRUTH, n=400)
    sides = [[votes.models[code] for code in side.tolist()] for side in (votes.model_a, votes.model_b)]
    winners = [(evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.Draw)[o] for o in votes.outcome]
    found = evalica.bradley_terry(*sides, winners, tie_weight=0.5, tolerance=1e-12, limit=10_000)
    logs = np.log([found.scores[name] for name in votes.models])
    assert fitted(votes).strengths == pytest.approx(logs - logs.mean(), abs=1e-6)


@given(vote_rows(), st.permutations(range(4)), st.randoms(use_true_random=False))
def test_neither_order_nor_names_nor_sides_of_votes_matter(
    rows: list[VoteRow], order: list[int], random: object
) -> None:
    votes = votes_of(connected(rows))
    strengths = fitted(votes).strengths
    mixed = connected(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert fitted(votes_of(mixed)).strengths == pytest.approx(strengths, abs=1e-9)
    assert fitted(votes.swapped()).strengths == pytest.approx(strengths, abs=1e-9)
    names = {model: MODELS[place] for model, place in zip(MODELS, order, strict=True)}
    renamed = fitted(votes_of([relabelled(row, names) for row in connected(rows)])).strengths
    assert renamed[order] == pytest.approx(strengths, abs=1e-9)


@given(vote_rows())
def test_every_model_is_expected_to_take_the_points_it_took(rows: list[VoteRow]) -> None:
    contests = contests_of(votes_of(connected(rows)))
    fit = fit_strengths(contests)
    assert isinstance(fit, Fit)
    table = pair_table(contests)
    chances = expit(fit.strengths[:, None] - fit.strengths[None, :])
    expected = ((table.met + table.met.T) * chances).sum(axis=1)
    assert expected == pytest.approx(table.scored.sum(axis=1), abs=1e-8)
    assert fit.strengths.sum() == pytest.approx(0, abs=1e-9)
    assert fit.n == len(contests)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 50))
def test_two_models_are_as_far_apart_as_the_odds(won: int, lost: int, ties: int) -> None:
    cast = (("a", won), ("b", lost), ("both_bad", ties))
    rows = [VoteRow("r", "p", *MODELS[:2], outcome) for outcome, n in cast for _ in range(n)]
    fit = fitted(votes_of(rows, MODELS[:2]))
    assert fit.strengths[0] - fit.strengths[1] == pytest.approx(np.log((won + ties / 2) / (lost + ties / 2)), abs=1e-9)


@given(vote_rows(most=8))
def test_models_that_the_votes_do_not_connect_get_no_strengths(rows: list[VoteRow]) -> None:
    contests = contests_of(votes_of(rows))
    found = fit_strengths(contests)
    if isinstance(found, NotComparable):
        assert found.reason is (Reason.NOT_CONNECTED if len(contests) else Reason.NO_VOTES)
        assert found.n == len(contests)
        assert not len(contests) or sorted(sum(found.components, ())) == [0, 1, 2, 3]
        assert len(found.components) != 1
    else:
        assert np.abs(found.strengths).max() < 20


def test_a_model_that_won_everything_is_not_comparable_and_not_infinite() -> None:
    rows = [VoteRow("r", "p", MODELS[0], other, "a") for other in MODELS[1:]]
    rows += [VoteRow("r", "p", a, b, "tie") for a, b in combinations(MODELS[1:], 2)]
    found = fit_strengths(contests_of(votes_of(rows)))
    assert found == NotComparable(Reason.NOT_CONNECTED, ((0,), (1, 2, 3)), 6)


def test_with_covariates_the_likelihood_is_at_its_top() -> None:
    contests = contests_of(drawn_round(3, TRUTH, n=600, side=0.4))
    rng = np.random.default_rng(0)
    z = np.column_stack((np.ones(len(contests)), rng.normal(size=len(contests))))
    fit = fit_strengths(contests, z)
    assert isinstance(fit, Fit)

    def loss(at: FloatArray) -> float:
        strengths = np.append(at[:4], -at[:4].sum())
        margins = strengths[contests.a] - strengths[contests.b] + z @ at[4:]
        return float(-np.sum(contests.points * margins - np.logaddexp(0, margins)))

    other = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-6})
    assert np.concatenate((fit.strengths[:4], fit.coefficients)) == pytest.approx(other.x, abs=1e-4)


def test_covariates_that_say_the_same_twice_are_refused() -> None:
    contests = contests_of(drawn_round(3, TRUTH, n=200))
    found = fit_strengths(contests, np.ones((len(contests), 2)))
    assert found == NotComparable(Reason.NO_CONVERGENCE, n=len(contests))


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=8))
def test_win_rates_average_the_chances_and_change_as_their_slopes_say(values: list[float]) -> None:
    strengths = np.array(values)
    size = len(values)
    by_hand = [np.mean([expit(strengths[i] - strengths[j]) for j in range(size) if j != i]) for i in range(size)]
    assert win_rates(strengths) == pytest.approx(np.array(by_hand), abs=1e-12)
    nudges = np.eye(size) * 1e-6
    numeric = np.array([(win_rates(strengths + e) - win_rates(strengths - e)) / 2e-6 for e in nudges]).T
    assert win_rate_slopes(strengths) == pytest.approx(numeric, abs=1e-8)


def test_400_points_of_rating_are_odds_of_ten() -> None:
    assert ratings(np.array([0.0, np.log(10)])) == pytest.approx([1000, 1400])


# --- covariance ---------------------------------------------------------------------------------------------


def test_covariance_is_the_sum_over_clusters_written_out() -> None:
    contests = contests_of(drawn_round(1, TRUTH, n=120, reviewers=9, prompts=7))
    fit = fit_strengths(contests)
    assert isinstance(fit, Fit)
    covariance = clustered_covariance(strength_scores(fit, contests), fit.bread)
    assert isinstance(covariance, Covariance)
    scores = np.zeros((len(contests), 5))
    for row in range(len(contests)):
        a, b = contests.a[row], contests.b[row]
        rest = contests.points[row] - 1 / (1 + np.exp(fit.strengths[b] - fit.strengths[a]))
        scores[row, a], scores[row, b] = rest, -rest
    total = np.zeros((5, 5))
    keys = [(r, p) for r, p in zip(contests.reviewer.tolist(), contests.prompt.tolist(), strict=True)]
    for sign, cluster in ((1, [r for r, _ in keys]), (1, [p for _, p in keys]), (-1, keys)):
        names = set(cluster)
        for name in names:
            summed = scores[[key == name for key in cluster]].sum(axis=0)
            total += sign * len(names) / (len(names) - 1) * np.outer(summed, summed)
    expected = fit.bread @ total @ fit.bread
    values, vectors = np.linalg.eigh(expected)
    clipped = vectors @ np.diag(np.maximum(values, 0)) @ vectors.T
    assert covariance.matrix == pytest.approx(clipped, abs=1e-10)
    assert (covariance.df, covariance.n, covariance.reviewers, covariance.prompts) == (6, len(contests), 9, 7)
    assert covariance.is_clipped == bool(values.min() < -1e-10 * values.max())


@given(vote_rows(least=20))
def test_a_covariance_has_no_negative_variance_and_none_of_the_sum(rows: list[VoteRow]) -> None:
    contests = contests_of(votes_of(connected(rows)))
    fit = fit_strengths(contests)
    assert isinstance(fit, Fit)
    covariance = clustered_covariance(strength_scores(fit, contests), fit.bread)
    if isinstance(covariance, Covariance):
        assert np.linalg.eigvalsh(covariance.matrix).min() > -1e-9
        assert covariance.matrix.sum() == pytest.approx(0, abs=1e-8)
        assert covariance.reach(0.95) == pytest.approx(student.ppf(0.975, covariance.df))


def test_bread_is_the_inverse_information_within_sum_zero() -> None:
    contests = contests_of(drawn_round(2, TRUTH, n=300))
    fit = fit_strengths(contests)
    assert isinstance(fit, Fit)
    table = pair_table(contests)
    chances = expit(fit.strengths[:, None] - fit.strengths[None, :])
    weights = (table.met + table.met.T) * chances * (1 - chances)
    assert fit.bread == pytest.approx(np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights), abs=1e-10)


@pytest.mark.parametrize(
    ("reviewers", "prompts", "cautions"),
    [
        (29, 100, {Caution.FEW_REVIEWERS}),
        (30, 99, {Caution.FEW_PROMPTS}),
        (30, 100, set()),
        (10, 60, {Caution.FEW_REVIEWERS, Caution.FEW_PROMPTS}),
    ],
)
def test_few_reviewers_or_prompts_are_told(reviewers: int, prompts: int, cautions: set[Caution]) -> None:
    found = estimated(drawn_round(1, TRUTH, reviewers=reviewers, prompts=prompts))
    assert (found.reviewers, found.prompts) == (reviewers, prompts)
    assert set(found.cautions) - {Caution.CLIPPED} == cautions


def test_one_reviewer_gives_strengths_without_intervals_or_ranks() -> None:
    found = estimated(drawn_round(1, TRUTH, reviewers=1))
    assert found.uncertainty is None
    assert found.reason is Reason.TOO_FEW_CLUSTERS


def test_reviewers_who_are_copies_of_each_other_give_no_intervals() -> None:
    outcomes = ("a", "a", "b")
    rows = [VoteRow(r, f"p{n % 2}", *MODELS[:2], o) for r in ("r1", "r2") for n, o in enumerate(outcomes * 2)]
    found = estimated(votes_of(rows, MODELS[:2]))
    assert found.uncertainty is None
    assert found.reason is Reason.DEGENERATE


def test_leaving_out_one_reviewer_is_what_fitting_the_rest_gives() -> None:
    votes = drawn_round(4, TRUTH, n=500, reviewers=8)
    contests = contests_of(votes)
    fit = fit_strengths(contests)
    assert isinstance(fit, Fit)
    left_out = leave_one_reviewer_out(fit, contests)
    assert left_out is not None
    by_hand = np.array([fitted(votes.where(votes.reviewer != code)).strengths for code in range(8)])
    assert left_out.strengths == pytest.approx(by_hand, abs=1e-8)
    assert left_out.errors == pytest.approx(np.sqrt(7 / 8 * ((by_hand - by_hand.mean(axis=0)) ** 2).sum(axis=0)))
    assert not len(left_out.indispensable)


def test_a_reviewer_without_whom_nothing_is_comparable_is_named() -> None:
    rows = connected([VoteRow("only", "p", MODELS[3], other, "tie") for other in MODELS[:3]])
    kept = [row for row in rows if MODELS[3] not in (row.model_a, row.model_b) or row.reviewer == "only"]
    contests = contests_of(votes_of(kept))
    fit = fit_strengths(contests)
    assert isinstance(fit, Fit)
    left_out = leave_one_reviewer_out(fit, contests)
    assert left_out is not None
    assert left_out.errors is None
    assert [votes_of(kept).reviewers[code] for code in left_out.indispensable] == ["only"]


# --- ranks --------------------------------------------------------------------------------------------------


def test_ranks_follow_from_who_is_surely_above_whom() -> None:
    strengths = np.array([0.0, 3.0, 0.1, -3.0, 2.9])
    ranks = rank_models(strengths, covariance_of(np.eye(5) * 0.05))
    assert ranks.best.tolist() == [3, 1, 3, 5, 1]
    assert ranks.worst.tolist() == [4, 2, 4, 5, 2]
    assert ranks.groups == ((1, 4), (2, 0))
    assert ranks.reach == pytest.approx(student.ppf(1 - 0.025 / 10, 1000))


def test_a_model_between_two_that_differ_is_in_both_groups() -> None:
    ranks = rank_models(np.array([1.0, 0.5, 0.0]), covariance_of(np.eye(3) * 0.04))
    assert ranks.groups == ((0, 1), (1, 2))
    assert ranks.best.tolist() == [1, 1, 2]
    assert ranks.worst.tolist() == [2, 3, 3]


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8), st.floats(0.01, 2))
def test_ranks_and_groups_agree_with_each_other(values: list[float], spread: float) -> None:
    strengths = np.array(values)
    ranks = rank_models(strengths, covariance_of(np.eye(len(values)) * spread))
    order = order_of(strengths)
    assert (ranks.best <= ranks.worst).all()
    assert all(ranks.best[i] <= ranks.best[j] for i, j in pairwise(order))
    assert not (ranks.surely_above & ranks.surely_above.T).any()
    for first, second in combinations(order, 2):
        together = any(first in group and second in group for group in ranks.groups)
        assert together == (not ranks.surely_above[first, second])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_step_by_step(values: list[float]) -> None:
    adjusted = holm(np.array(values))
    order = sorted(range(len(values)), key=values.__getitem__)
    still = True
    for step, place in enumerate(order):
        still = still and values[place] * (len(values) - step) <= 0.05
        assert (adjusted[place] <= 0.05) == still


def test_the_line_is_clear_only_where_all_pairs_across_it_are_separated() -> None:
    strengths = np.array([0.0, 3.0, 0.1, -3.0, 2.9])
    covariance = covariance_of(np.eye(5) * 0.05)
    clear, unclear = draw_line(strengths, covariance, keep=2), draw_line(strengths, covariance, keep=3)
    assert clear.above == (1, 4)
    assert clear.is_clear
    assert clear.contested == ()
    assert not unclear.is_clear
    assert unclear.contested == (0, 2)
    assert (unclear.pairs[0].above, unclear.pairs[0].below) == (2, 0)
    with pytest.raises(ValueError, match="keep: expected 1 to 4 models above the line, got 5"):
        draw_line(strengths, covariance, keep=5)


def test_a_line_that_the_votes_draw_themselves_needs_the_family_of_all_pairs() -> None:
    """Ten equal models: the winner is hardly ever called separate, as it would be by Holm over its own nine pairs."""
    rng = np.random.default_rng(11)
    covariance = covariance_of((np.eye(10) - 0.1) * 0.04, df=10**6)
    wrong, own_family = 0, 0
    for _ in range(1500):
        line = draw_line(rng.normal(0, 0.2, 10), covariance, keep=1)
        wrong += any(pair.is_separated for pair in line.pairs)
        own_family += bool((holm(np.array([pair.p_value for pair in line.pairs])) <= 0.05).any())
    assert wrong / 1500 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
    assert own_family / 1500 > 0.1


# --- whole estimates ----------------------------------------------------------------------------------------


def test_intervals_lie_around_their_figures_and_widen_with_confidence() -> None:
    votes = drawn_round(1, TRUTH)
    contests = contests_of(votes)
    narrow, wide = estimate(contests, Said(2, 0.9)), estimate(contests, Said(2, 0.99))
    assert isinstance(narrow, Estimate)
    assert isinstance(wide, Estimate)
    assert narrow.uncertainty is not None
    assert wide.uncertainty is not None
    for kind, values in (("strengths", narrow.strengths), ("ratings", narrow.ratings), ("win_rates", narrow.win_rates)):
        for value, inner, outer in zip(
            values, getattr(narrow.uncertainty, kind), getattr(wide.uncertainty, kind), strict=True
        ):
            assert outer.low < inner.low < value < inner.high < outer.high
    assert all(span.low > 0 and span.high < 1 for span in wide.uncertainty.win_rates)
    assert narrow.order == (0, 1, 2, 3, 4)


def test_a_composite_of_one_criterion_is_that_criterion_and_of_two_copies_too() -> None:
    grounds = grounds_of(contests_of(drawn_round(1, TRUTH)))
    assert isinstance(grounds, Grounds)
    alone = estimated(drawn_round(1, TRUTH), keep=2)
    for whole in (composite([grounds], [7], Said(2)), composite([grounds, grounds], [1, 3], Said(2))):
        assert whole.strengths == pytest.approx(alone.strengths, abs=1e-12)
        assert whole.uncertainty is not None
        assert alone.uncertainty is not None
        assert whole.uncertainty.covariance.matrix == pytest.approx(alone.uncertainty.covariance.matrix, abs=1e-12)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    grounds = grounds_of(contests_of(drawn_round(1, TRUTH)))
    assert isinstance(grounds, Grounds)
    with pytest.raises(ValueError, match="weights: expected 2 numbers"):
        composite([grounds, grounds], weights, Said())


@settings(max_examples=20)
@given(vote_rows(least=30), st.randoms(use_true_random=False))
def test_intervals_do_not_depend_on_the_order_of_votes(rows: list[VoteRow], random: object) -> None:
    mixed = connected(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, other = estimated(votes_of(connected(rows))), estimated(votes_of(mixed))
    assert (one.uncertainty is None) == (other.uncertainty is None)
    if one.uncertainty is not None and other.uncertainty is not None:
        assert one.uncertainty.covariance.matrix == pytest.approx(other.uncertainty.covariance.matrix, abs=1e-9)


def test_contests_of_one_reviewer_only_are_a_slice() -> None:
    contests = contests_of(drawn_round(1, TRUTH, n=200, reviewers=5))
    part = contests.where(contests.reviewer == 2)
    assert isinstance(part, Contests)
    assert part.reviewers == 1
