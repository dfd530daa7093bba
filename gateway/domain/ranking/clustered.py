"""How sure a fit is when one reviewer's votes hang together, and so do the votes on one prompt.

V = B (M_reviewer + M_prompt - M_both) Bᵀ, where M sums the outer products of each cluster's score and B is the bread
(Cameron, Gelbach and Miller, Journal of Business and Economic Statistics 29, 2011). Small samples are met four times:
each M is multiplied by G / (G - 1) for its G clusters; V is clipped to positive semi-definite; quantiles are those of t
with min(reviewers, prompts) - 1 degrees; and where few clusters happen to cancel out, there is no interval, and no rank
rests on more precision than independent votes would have. tests/test_ranking_coverage.py shows what that covers.
Which model produced the scores is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, stdtr, stdtrit

from gateway.domain.ranking.bradley_terry import Fit
from gateway.domain.ranking.contests import Contests, numbered
from gateway.domain.ranking.reasons import Caution, Reason
from gateway.domain.ranking.votes import FloatArray, IntArray

FEWEST_REVIEWERS = 30
FEWEST_PROMPTS = 100
_NOISE = 1e-10
"""Negative variance that is rounding, as a part of the largest."""
_DEGENERATE = 0.1
"""An error below this part of what independent votes would have is a cancellation, not a finding."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Derivative of each vote's log-likelihood by the parameters, as a sparse table."""

    reviewer: IntArray
    prompt: IntArray
    columns: IntArray
    """n × m: which parameters the vote touches."""
    values: FloatArray
    """n × m: by how much."""
    width: int
    """Number of parameters."""


@dataclass(frozen=True, slots=True)
class Covariance:
    matrix: FloatArray
    independent: FloatArray
    """What it would be if all that one reviewer says of one prompt were independent of everything else."""
    df: int
    """min(reviewers, prompts) - 1, at least 1."""
    n: int
    reviewers: int
    prompts: int
    is_clipped: bool
    """The sum had negative directions, beyond rounding."""

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """Facts to be put into words beside every interval."""
        found = (
            (self.reviewers < FEWEST_REVIEWERS, Caution.FEW_REVIEWERS),
            (self.prompts < FEWEST_PROMPTS, Caution.FEW_PROMPTS),
            (self.is_clipped, Caution.CLIPPED),
        )
        return tuple(caution for applies, caution in found if applies)

    @property
    def errors(self) -> FloatArray:
        """Standard error of each parameter."""
        errors: FloatArray = np.sqrt(np.maximum(np.diag(self.matrix), 0.0))
        return errors

    @property
    def difference_errors(self) -> FloatArray:
        """Standard error of each difference between two parameters: 0 on the diagonal."""
        return _difference_errors(self.matrix)

    @property
    def cautious_difference_errors(self) -> FloatArray:
        """The same, never below what independent votes would have.

        Of many differences the one with the smallest error is the first to be called sure, and with few clusters it is
        small by chance: docs/decisions/0005-what-votes-may-claim.md has the figures.
        """
        return np.maximum(_difference_errors(self.matrix), _difference_errors(self.independent))

    def among(self, size: int) -> Covariance:
        """That of the first `size` parameters."""
        return replace(self, matrix=self.matrix[:size, :size], independent=self.independent[:size, :size])

    def reach(self, confidence: float) -> float:
        """Half-width of a two-sided interval, in standard errors."""
        return t_quantile(1 - (1 - confidence) / 2, self.df)


def strength_scores(fit: Fit, contests: Contests, covariates: FloatArray | None = None) -> Scores:
    """The scores of a Bradley-Terry fit, over strengths and then coefficients."""
    z = np.zeros((len(contests), 0)) if covariates is None else covariates
    margins = fit.strengths[contests.a] - fit.strengths[contests.b] + z @ fit.coefficients
    residual = contests.points - expit(margins)
    extra = np.broadcast_to(np.arange(z.shape[1]) + contests.size, z.shape)
    return Scores(
        reviewer=contests.reviewer,
        prompt=contests.prompt,
        columns=np.column_stack((contests.a, contests.b, extra)),
        values=np.column_stack((residual, -residual, z * residual[:, None])),
        width=contests.size + z.shape[1],
    )


def stacked(parts: Sequence[Scores]) -> Scores:
    """Scores of several fits to votes of the same reviewers and prompts, their parameters side by side."""
    offsets = np.cumsum([0, *(part.width for part in parts)])
    return Scores(
        reviewer=np.concatenate([part.reviewer for part in parts]),
        prompt=np.concatenate([part.prompt for part in parts]),
        columns=np.concatenate([part.columns + offset for part, offset in zip(parts, offsets, strict=False)]),
        values=np.concatenate([part.values for part in parts]),
        width=int(offsets[-1]),
    )


def clustered_covariance(scores: Scores, bread: FloatArray) -> Covariance | Reason:
    """Two-way clustered covariance of bread × parameters, or why there is none: too few clusters, or degenerate ones.

    `bread` is outputs × parameters: for a plain fit the inverse information.
    """
    found, reviewer = numbered(scores.reviewer)
    asked, prompt = numbered(scores.prompt)
    reviewers, prompts = len(found), len(asked)
    if reviewers < 2 or prompts < 2:
        return Reason.TOO_FEW_CLUSTERS
    cells, cell = numbered(reviewer * prompts + prompt)
    both = _meat(scores, cell, len(cells))
    meat = _meat(scores, reviewer, reviewers) + _meat(scores, prompt, prompts) - both
    matrix, is_clipped = _clipped(bread @ meat @ bread.T)
    independent = bread @ both @ bread.T
    by_chance = bread @ _gram_of_votes(scores) @ bread.T
    if (np.diag(matrix) <= _DEGENERATE**2 * np.diag(by_chance)).any():
        return Reason.DEGENERATE
    return Covariance(
        matrix=matrix,
        independent=independent,
        df=min(reviewers, prompts) - 1,
        n=len(scores.reviewer),
        reviewers=reviewers,
        prompts=prompts,
        is_clipped=is_clipped,
    )


def t_quantile(probability: float, df: int) -> float:
    return float(stdtrit(df, probability))


def two_sided_p(t: FloatArray, df: int) -> FloatArray:
    """Probability of a |t| at least as large; infinite t gives 0, NaN stays."""
    p: FloatArray = 2 * stdtr(df, -np.abs(t))
    return p


def _meat(scores: Scores, cluster: IntArray, clusters: int) -> FloatArray:
    return _gram(scores, cluster, clusters) * (clusters / (clusters - 1))


def _gram(scores: Scores, cluster: IntArray, clusters: int) -> FloatArray:
    """Σ over clusters of u uᵀ, u the sum of the cluster's scores."""
    if clusters == len(cluster):
        return _gram_of_votes(scores)
    touched = scores.columns.shape[1]
    places = (np.repeat(cluster.astype(np.int32), touched), scores.columns.astype(np.int32).ravel())
    sums = csr_array((scores.values.ravel(), places), shape=(clusters, scores.width))
    gram: FloatArray = (sums.T @ sums).toarray()
    return gram


def _gram_of_votes(scores: Scores) -> FloatArray:
    """The same where each vote is a cluster of its own."""
    width = scores.width
    gram = np.zeros(width * width)
    for one, first in zip(scores.columns.T, scores.values.T, strict=True):
        for other, second in zip(scores.columns.T, scores.values.T, strict=True):
            gram += np.bincount(one * width + other, first * second, width * width)
    return gram.reshape(width, width)


def _difference_errors(matrix: FloatArray) -> FloatArray:
    own = np.diag(matrix)
    errors: FloatArray = np.sqrt(np.maximum(own[:, None] + own[None, :] - 2 * matrix, 0.0))
    np.fill_diagonal(errors, 0.0)
    return errors


def _clipped(matrix: FloatArray) -> tuple[FloatArray, bool]:
    values, directions = np.linalg.eigh((matrix + matrix.T) / 2)
    is_clipped = bool(values.min() < -_NOISE * max(values.max(), 0.0))
    clipped: FloatArray = (directions * np.maximum(values, 0.0)) @ directions.T
    return clipped, is_clipped
