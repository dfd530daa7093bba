"""Bradley-Terry strengths by Newton's method: P(A takes the point) = 1 / (1 + exp(-(β_A - β_B + zγ))), Σβ = 0.

Ties and both bad are half a point to each. Covariates z, where given, are columns of the contests (a position's
intercept, differences of style). How sure the strengths are is `clustered`'s subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from scipy.special import expit

from gateway.domain.ranking.connectivity import NotComparable, components_of, is_connected
from gateway.domain.ranking.contests import Contests, PairTable, pair_table
from gateway.domain.ranking.reasons import Reason
from gateway.domain.ranking.votes import FloatArray, IntArray

RATING_CENTRE = 1000.0
RATING_SCALE = 400 / log(10)
_TOLERANCE = 1e-11
_STEPS = 60
_FARTHEST = 40.0
"""No vote of ours holds a strength down that Newton's method carries beyond this."""
_WORST_CONDITION = 1e12
"""Beyond it the covariates say the same thing twice."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Strengths β and coefficients γ, with the bread of their covariance."""

    strengths: FloatArray
    coefficients: FloatArray
    bread: FloatArray
    """Inverse of the information on Σβ = 0, over strengths and then coefficients."""
    n: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the likelihood is a sum over: contests, or pairs of models with their contests summed up."""

    a: IntArray
    b: IntArray
    points: FloatArray
    weight: FloatArray
    covariates: FloatArray
    size: int


def fit_strengths(contests: Contests, covariates: FloatArray | None = None) -> Fit | NotComparable:
    """The strengths that make these votes likeliest. `covariates` is contests × columns, signed in favour of A.

    Without covariates the price is that of one pass over the votes.
    """
    table = pair_table(contests)
    if covariates is None:
        return fit_table(table)
    unfit = why_not(table)
    if unfit is not None:
        return unfit
    weight = np.ones(len(contests))
    return _newton(_Rows(contests.a, contests.b, contests.points, weight, covariates, contests.size))


def fit_table(table: PairTable, start: FloatArray | None = None) -> Fit | NotComparable:
    """The same from pairs summed up. `start` is where to begin; it changes the time taken, not the answer."""
    unfit = why_not(table)
    if unfit is not None:
        return unfit
    met, scored = table.met + table.met.T, table.scored
    a, b = np.nonzero(np.triu(met, 1))
    points = scored[a, b] / met[a, b]
    return _newton(_Rows(a, b, points, met[a, b], np.zeros((len(a), 0)), len(met)), start)


def why_not(table: PairTable) -> NotComparable | None:
    """The reason why these contests have no strengths, if so."""
    n = round(float(table.met.sum()))
    if n == 0:
        return NotComparable(Reason.NO_VOTES)
    if not is_connected(table.scored):
        return NotComparable(Reason.NOT_CONNECTED, components_of(table.scored), n)
    return None


def win_rates(strengths: FloatArray) -> FloatArray:
    """Expected share of the points against each other model equally often: (1 / (K - 1)) Σ_j P(i beats j)."""
    chances = expit(strengths[:, None] - strengths[None, :])
    rates: FloatArray = (chances.sum(axis=1) - 0.5) / (len(strengths) - 1)
    return rates


def win_rate_slopes(strengths: FloatArray) -> FloatArray:
    """Derivative of `win_rates` by the strengths: row = rate, column = strength."""
    chances = expit(strengths[:, None] - strengths[None, :])
    slopes: FloatArray = -chances * (1 - chances) / (len(strengths) - 1)
    np.fill_diagonal(slopes, 0.0)
    np.fill_diagonal(slopes, -slopes.sum(axis=1))
    return slopes


def ratings(strengths: FloatArray) -> FloatArray:
    """1000 + β · 400 / ln 10: a scale that readers know; no online Elo is computed anywhere."""
    scaled: FloatArray = RATING_CENTRE + strengths * RATING_SCALE
    return scaled


# --- Newton's method ----------------------------------------------------------------------------------------


def _newton(rows: _Rows, start: FloatArray | None = None) -> Fit | NotComparable:
    """Steps are halved until the likelihood does not fall: it is concave, so this arrives wherever it begins."""
    n = round(float(rows.weight.sum()))
    at = np.zeros(rows.size + rows.covariates.shape[1])
    if start is not None:
        at[: rows.size] = start - start.mean()
    value = _log_likelihood(rows, at)
    for _ in range(_STEPS):
        gradient, information = _derivatives(rows, at)
        step = _solve(information, gradient, rows.size)
        if step is None:
            return NotComparable(Reason.NO_CONVERGENCE, n=n)
        at, value = _climb(rows, at, step, value)
        if np.abs(step).max() < _TOLERANCE:
            return _finished(rows, at, n)
        if np.abs(at).max() > _FARTHEST:
            break
    return NotComparable(Reason.NO_CONVERGENCE, n=n)


def _finished(rows: _Rows, at: FloatArray, n: int) -> Fit | NotComparable:
    held = _grounded(_derivatives(rows, at)[1], rows.size)
    if float(np.linalg.cond(held)) > _WORST_CONDITION:
        return NotComparable(Reason.NO_CONVERGENCE, n=n)
    bread = np.asarray(np.linalg.inv(held), dtype=np.float64)
    bread[: rows.size, : rows.size] -= bread[: rows.size, : rows.size].mean()
    return Fit(at[: rows.size], at[rows.size :], (bread + bread.T) / 2, n)


def _climb(rows: _Rows, at: FloatArray, step: FloatArray, value: float) -> tuple[FloatArray, float]:
    slack = 1e-12 * abs(value)
    for _ in range(30):
        there = at + step
        reached = _log_likelihood(rows, there)
        if reached >= value - slack:
            return there, reached
        step = step / 2
    return at, value


def _margins(rows: _Rows, at: FloatArray) -> FloatArray:
    strengths = at[: rows.size]
    margins: FloatArray = strengths[rows.a] - strengths[rows.b] + rows.covariates @ at[rows.size :]
    return margins


def _log_likelihood(rows: _Rows, at: FloatArray) -> float:
    margins = _margins(rows, at)
    return float(np.sum(rows.weight * (rows.points * margins - np.logaddexp(0.0, margins))))


def _derivatives(rows: _Rows, at: FloatArray) -> tuple[FloatArray, FloatArray]:
    chances = expit(_margins(rows, at))
    residual = rows.weight * (rows.points - chances)
    return _signed_sums(rows, residual), _information(rows, rows.weight * chances * (1 - chances))


def _signed_sums(rows: _Rows, values: FloatArray) -> FloatArray:
    by_model = np.bincount(rows.a, values, rows.size) - np.bincount(rows.b, values, rows.size)
    return np.concatenate((by_model, rows.covariates.T @ values))


def _information(rows: _Rows, weights: FloatArray) -> FloatArray:
    """Σ w x xᵀ over rows x = (e_A - e_B, z): a graph's Laplacian, bordered by the covariates."""
    size = rows.size
    one_way = np.asarray(np.bincount(rows.a * size + rows.b, weights, size * size), dtype=np.float64)
    pairs: FloatArray = one_way.reshape(size, size) + one_way.reshape(size, size).T
    laplacian: FloatArray = np.diag(pairs.sum(axis=1)) - pairs
    if not rows.covariates.shape[1]:
        return laplacian
    weighted = rows.covariates * weights[:, None]
    border = np.stack([_signed_sums(rows, column)[:size] for column in weighted.T], axis=1)
    return np.block([[laplacian, border], [border.T, rows.covariates.T @ weighted]])


def _grounded(information: FloatArray, size: int) -> FloatArray:
    """Information plus the direction that Σβ = 0 forbids, which makes it invertible and moves no other direction."""
    held = information.copy()
    held[:size, :size] += max(1.0, float(np.trace(information[:size, :size])) / size) / size
    return held


def _solve(information: FloatArray, gradient: FloatArray, size: int) -> FloatArray | None:
    try:
        step = np.asarray(np.linalg.solve(_grounded(information, size), gradient), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(step).all():
        return None
    step[:size] -= step[:size].mean()
    return step
