"""How often the intervals hold what they say: votes from reviewers and prompts with tastes of their own, many times.

Effects act on the logit, so a round's win probabilities are the average of many logistic curves: flatter than any of
them. Bradley-Terry strengths of that average are what more and more votes lead to, and so what the intervals must
cover: the pseudo-true β, not the β that went into the logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from scipy.special import expit

from gateway.domain.ranking.bradley_terry import Fit, PairTable, fit_strengths, fit_table
from gateway.domain.ranking.clustered import Covariance, clustered_covariance, strength_scores
from gateway.domain.ranking.contests import Contests
from gateway.domain.ranking.ranks import rank_models
from gateway.domain.ranking.rao_kupper import Acceptability, fit_acceptability, probabilities
from gateway.domain.ranking.votes import FloatArray, IntArray, Votes, columns_of_votes

K = 10
SD = 0.5
FIRST, SECOND = np.triu_indices(K, 1)
RUNS = 1000


@dataclass(frozen=True)
class Coverage:
    """Shares over all runs, and all models or pairs."""

    strengths: float
    differences: float
    least: float
    most: float
    never_wrong: float
    """Runs in which no pair was ranked the wrong way round for sure."""
    independent: float
    """What the intervals of independent votes cover."""


def pseudo_true(beta: FloatArray) -> FloatArray:
    """Strengths of the average win probabilities, every pair met equally often; the average is by Gauss-Hermite."""
    at, weight = np.polynomial.hermite_e.hermegauss(60)
    margins = beta[:, None, None] - beta[None, :, None] + np.sqrt(4 * SD**2) * at
    won = expit(margins) @ (weight / weight.sum())
    np.fill_diagonal(won, 0.0)
    fit = fit_table(PairTable(1.0 - np.eye(K), won))
    assert isinstance(fit, Fit)
    return fit.strengths


def design(rng: np.random.Generator, reviewers: int, prompts: int, votes: int) -> tuple[IntArray, IntArray, IntArray]:
    """Pairs equally often (±1), reviewers and prompts equally often, no prompt twice as often for one reviewer (±1)."""
    pair = rng.permutation(np.resize(np.arange(len(FIRST)), votes))
    each = votes // reviewers
    reviewer = np.repeat(np.arange(reviewers), each)
    prompt = np.concatenate([np.resize(rng.permutation(prompts), each) for _ in range(reviewers)])
    return pair, reviewer, prompt


def one_round(rng: np.random.Generator, beta: FloatArray, reviewers: int, prompts: int, votes: int) -> Contests:
    pair, reviewer, prompt = design(rng, reviewers, prompts, votes)
    is_turned = rng.random(votes) < 0.5
    a, b = np.where(is_turned, SECOND[pair], FIRST[pair]), np.where(is_turned, FIRST[pair], SECOND[pair])
    tastes, topics = rng.normal(0, SD, (reviewers, K)), rng.normal(0, SD, (prompts, K))
    worth = beta + tastes[reviewer] + topics[prompt]
    rows = np.arange(votes)
    points = (rng.random(votes) < expit(worth[rows, a] - worth[rows, b])).astype(float)
    return Contests(K, a, b, points, reviewer, prompt)


@cache
def coverage(seed: int, spread: float, sizes: tuple[int, int, int]) -> Coverage:
    """Of 1,000 rounds of models whose β go in equal steps from -spread to spread."""
    beta = np.linspace(-spread, spread, K)
    rng, truth = np.random.default_rng(seed), pseudo_true(beta)
    gaps = truth[:, None] - truth[None, :]
    strengths, differences, wrong, independent = [], [], [], []
    for _ in range(RUNS):
        contests = one_round(rng, beta, *sizes)
        fit = fit_strengths(contests)
        assert isinstance(fit, Fit)
        scores = strength_scores(fit, contests)
        covariance = clustered_covariance(scores, fit.bread)
        assert isinstance(covariance, Covariance)
        reach, off = covariance.reach(0.95), np.abs(fit.strengths - truth)
        found = fit.strengths[:, None] - fit.strengths[None, :]
        strengths.append(off <= reach * covariance.errors)
        differences.append((np.abs(found - gaps) <= reach * covariance.difference_errors)[FIRST, SECOND])
        wrong.append((rank_models(fit.strengths, covariance).surely_above & (gaps <= 1e-9)).any())
        independent.append(off <= 1.96 * np.sqrt(np.diag(covariance.independent)))
    by_model = np.mean(strengths, axis=0)
    return Coverage(
        strengths=float(by_model.mean()),
        differences=float(np.mean(differences)),
        least=float(by_model.min()),
        most=float(by_model.max()),
        never_wrong=1 - float(np.mean(wrong)),
        independent=float(np.mean(independent)),
    )


@pytest.mark.parametrize("sizes", [(10, 60, 1800), (49, 120, 1960), (50, 60, 1800)], ids=str)
def test_95_percent_intervals_cover_92_to_98_percent(sizes: tuple[int, int, int]) -> None:
    """Reviewers, prompts, votes. Of every model by itself, and of differences on average."""
    found = coverage(20_260, 0.8, sizes)
    print(sizes, found)
    assert found.least >= 0.92
    assert found.most <= 0.98
    assert 0.92 <= found.differences <= 0.98


@pytest.mark.parametrize("sizes", [(10, 60, 1800), (49, 120, 1960)], ids=str)
def test_of_equal_models_hardly_ever_one_is_surely_above_another(sizes: tuple[int, int, int]) -> None:
    found = coverage(7, 0.0, sizes)
    print(sizes, found)
    assert found.never_wrong >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / RUNS)


def test_treating_votes_as_independent_covers_far_less_than_it_says() -> None:
    assert coverage(20_260, 0.8, (10, 60, 1800)).independent < 0.80


def test_acceptable_lines_cover_what_they_say() -> None:
    """Grounded worths with tastes and topics of the same size; the truth is what 300,000 votes of many others give."""
    rng, gamma = np.random.default_rng(5), np.linspace(-0.5, 1.5, 6)
    truth = fit_acceptability(grounded_round(rng, gamma, 20_000, 20_000, 300_000))
    assert isinstance(truth, Acceptability)
    covered = []
    for _ in range(400):
        found = fit_acceptability(grounded_round(rng, gamma, 49, 120, 1960))
        assert isinstance(found, Acceptability)
        assert isinstance(found.covariance, Covariance)
        reach = found.covariance.reach(0.95) * found.covariance.errors[: len(gamma)]
        covered.append(np.abs(found.strengths - truth.strengths) <= reach)
    print(np.mean(covered, axis=0))
    assert 0.92 <= np.mean(covered) <= 0.98


def grounded_round(rng: np.random.Generator, gamma: FloatArray, reviewers: int, prompts: int, votes: int) -> Votes:
    size = len(gamma)
    a = rng.integers(0, size, votes)
    b = (a + rng.integers(1, size, votes)) % size
    reviewer = np.repeat(np.arange(reviewers), votes // reviewers)
    prompt = rng.permutation(np.resize(np.arange(prompts), votes))
    tastes, topics = rng.normal(0, SD, (reviewers, size)), rng.normal(0, SD, (prompts, size))
    worth_a, worth_b = (gamma[code] + tastes[reviewer, code] + topics[prompt, code] for code in (a, b))
    upto = np.cumsum(probabilities(worth_a, worth_b, np.log(1.6)), axis=1)
    return columns_of_votes(
        models=[str(code) for code in range(size)],
        reviewers=[str(code) for code in range(reviewers)],
        prompts=[str(code) for code in range(prompts)],
        reviewer=reviewer,
        prompt=prompt,
        model_a=a,
        model_b=b,
        outcome=np.minimum((rng.random(votes)[:, None] > upto).sum(axis=1), 3).astype(np.int8),
    )
