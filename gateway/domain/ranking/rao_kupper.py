"""The grounded four-outcome model: with "both bad" as a ground, strengths get a zero, and models an acceptable line.

With worth π = exp γ, P(A) = π_A / (π_A + θ π_B + 1), P(B) likewise, P(both bad) = 1 / (1 + π_A + π_B), P(tie) = the
rest, θ >= 1 (Rao and Kupper's ties, Journal of the American Statistical Association 62, 1967, with a ground of worth
1). It is the secondary analysis: the ranking itself is Bradley-Terry's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.special import expit

from gateway.domain.ranking.clustered import Covariance, Scores, clustered_covariance
from gateway.domain.ranking.connectivity import NotComparable, components_of, is_connected
from gateway.domain.ranking.estimates import intervals
from gateway.domain.ranking.reasons import Caution, Interval, Reason
from gateway.domain.ranking.votes import BOTH_BAD, TIE, A, B, FloatArray, IntArray, Votes

_JUDGED = 4
"""A, B, tie, both bad: the outcomes by code."""
_STEPS = 300
_TOLERANCE = 1e-10
_LONGEST_STEP = 2.0
_FARTHEST = 40.0
_NUDGE = 1e-5
"""Step of the central differences that turn the exact gradient into the observed information."""


class Line(StrEnum):
    """Where a model stands to the acceptable line, at the confidence asked for."""

    ACCEPTABLE = "acceptable"
    NOT_ACCEPTABLE = "not_acceptable"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptability:
    """By model code; γ = 0 is the ground's own worth, and the acceptable line."""

    strengths: FloatArray
    """γ = ln π, absolute: they sum to nothing in particular."""
    acceptable: FloatArray
    """π / (π + 1): the chance of being preferred to the ground, were there only these two."""
    tie_parameter: float
    """θ."""
    n: int
    covariance: Covariance | Reason
    """Of γ and then ln θ, without the latter where no tie was cast; or why there is none."""
    intervals: tuple[Interval, ...] | None
    """Of `acceptable`."""
    lines: tuple[Line, ...] | None
    cautions: tuple[Caution, ...] = ()


@dataclass(frozen=True, slots=True)
class _Counts:
    """Votes by pair of models (the lower code first) and outcome."""

    a: IntArray
    b: IntArray
    votes: FloatArray
    """Pairs × 4."""
    size: int
    has_ties: bool

    @property
    def columns(self) -> IntArray:
        """Pairs × parameters touched."""
        touched = [self.a, self.b]
        if self.has_ties:
            touched.append(np.full(len(self.a), self.size))
        return np.column_stack(touched)

    @property
    def width(self) -> int:
        return self.size + int(self.has_ties)


def fit_acceptability(votes: Votes, *, confidence: float = 0.95) -> Acceptability | NotComparable:
    """Worths against the ground by maximum likelihood, with two-way clustered intervals."""
    counted = votes.where(votes.counts).by_pair()
    counts = _counts(counted)
    n = len(counted)
    unfit = _why_not(counts, n)
    if unfit is not None:
        return unfit
    at = _scoring(counts)
    if at is None:
        return NotComparable(Reason.NO_CONVERGENCE, n=n)
    bread = np.asarray(np.linalg.inv(_observed_information(counts, at)), dtype=np.float64)
    covariance = clustered_covariance(_scores(counts, counted, at), bread)
    return _told(counts, at, covariance, n=n, confidence=confidence)


def probabilities(gamma_a: FloatArray, gamma_b: FloatArray, log_theta: float) -> FloatArray:
    """Pairs × (A, B, tie, both bad)."""
    a, b, theta = np.exp(gamma_a), np.exp(gamma_b), np.exp(log_theta)
    first, second, bad = a / (a + theta * b + 1), b / (b + theta * a + 1), 1 / (1 + a + b)
    return np.stack((first, second, np.maximum(1 - first - second - bad, 0.0), bad), axis=-1)


# --- the likelihood -----------------------------------------------------------------------------------------


def _counts(votes: Votes) -> _Counts:
    size = len(votes.models)
    place = (votes.model_a * size + votes.model_b) * _JUDGED + votes.outcome
    table = np.bincount(place, minlength=size * size * _JUDGED).reshape(size * size, _JUDGED).astype(np.float64)
    met = np.flatnonzero(table.sum(axis=1))
    return _Counts(met // size, met % size, table[met], size, bool(table[:, TIE].any()))


def _why_not(counts: _Counts, n: int) -> NotComparable | None:
    """Finite worths need models and ground to have scored against each other; a tie scores for both against it.

    Needed, not enough: where ties alone hold a model up, θ and its worth can run away together, which the fit notices.
    """
    if n == 0:
        return NotComparable(Reason.NO_VOTES)
    if not counts.votes[:, BOTH_BAD].any():
        return NotComparable(Reason.NO_BOTH_BAD, n=n)
    size, ground = counts.size, counts.size
    scored = np.zeros((size + 1, size + 1))
    won_a, won_b, tied, bad = (counts.votes[:, outcome] for outcome in (A, B, TIE, BOTH_BAD))
    scored[counts.a, counts.b] += won_a + tied
    scored[counts.b, counts.a] += won_b + tied
    for model, won in ((counts.a, won_a), (counts.b, won_b)):
        np.add.at(scored[:, ground], model, won + tied)
        np.add.at(scored[ground], model, bad)
    if is_connected(scored):
        return None
    groups = components_of(scored)
    named = tuple(tuple(code for code in group if code != ground) for group in groups)
    return NotComparable(Reason.NOT_CONNECTED, tuple(group for group in named if group), n)


def _slopes(counts: _Counts, at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Probabilities (pairs × 4), and their derivatives (pairs × 4 × parameters touched)."""
    a, b = np.exp(at[counts.a]), np.exp(at[counts.b])
    theta = np.exp(_log_theta(counts, at))
    p = probabilities(at[counts.a], at[counts.b], _log_theta(counts, at))
    first, second, bad = p[:, A], p[:, B], p[:, BOTH_BAD]
    by_b, by_a = -first * theta * b / (a + theta * b + 1), -second * theta * a / (b + theta * a + 1)
    slopes = np.zeros((len(a), _JUDGED, 3))
    slopes[:, A] = np.stack((first * (1 - first), by_b, by_b), axis=-1)
    slopes[:, B] = np.stack((by_a, second * (1 - second), by_a), axis=-1)
    slopes[:, BOTH_BAD, :2] = np.stack((-bad * a / (1 + a + b), -bad * b / (1 + a + b)), axis=-1)
    slopes[:, TIE] = -slopes.sum(axis=1)
    return p, slopes[:, :, : 2 + int(counts.has_ties)]


def _log_theta(counts: _Counts, at: FloatArray) -> float:
    return float(at[counts.size]) if counts.has_ties else 0.0


def _log_likelihood(counts: _Counts, at: FloatArray) -> float:
    cast = counts.votes > 0
    p = probabilities(at[counts.a], at[counts.b], _log_theta(counts, at))[cast]
    return float(np.sum(counts.votes[cast] * np.log(p))) if (p > 0).all() else -np.inf


def _gradient(counts: _Counts, at: FloatArray) -> FloatArray:
    touched = np.einsum("po,poc->pc", counts.votes, _log_slopes(*_slopes(counts, at)))
    gradient = np.zeros(counts.width)
    np.add.at(gradient, counts.columns, touched)
    return gradient


def _log_slopes(p: FloatArray, slopes: FloatArray) -> FloatArray:
    """Derivatives of ln P; 0 for an outcome that cannot happen."""
    return np.divide(slopes, p[..., None], out=np.zeros_like(slopes), where=p[..., None] > 0)


def _expected_information(counts: _Counts, at: FloatArray) -> FloatArray:
    p, slopes = _slopes(counts, at)
    blocks = np.einsum("p,poc,pod->pcd", counts.votes.sum(axis=1), slopes, _log_slopes(p, slopes))
    information = np.zeros((counts.width, counts.width))
    columns = counts.columns
    np.add.at(information, (columns[:, :, None], columns[:, None, :]), blocks)
    return information


def _observed_information(counts: _Counts, at: FloatArray) -> FloatArray:
    nudges = np.eye(counts.width) * _NUDGE
    rows = [_gradient(counts, at - nudge) - _gradient(counts, at + nudge) for nudge in nudges]
    information = np.array(rows) / (2 * _NUDGE)
    symmetric: FloatArray = (information + information.T) / 2
    return symmetric


def _scoring(counts: _Counts) -> FloatArray | None:
    """Fisher scoring with halved steps; None where it does not arrive."""
    at = np.zeros(counts.width)
    if counts.has_ties:
        at[counts.size] = np.log(2.0)
    value = _log_likelihood(counts, at)
    for _ in range(_STEPS):
        try:
            solved = np.linalg.solve(_expected_information(counts, at), _gradient(counts, at))
        except np.linalg.LinAlgError:
            return None
        step = np.asarray(solved, dtype=np.float64)
        at, value, moved = _climb(lambda there: _log_likelihood(counts, there), at, step, value)
        if moved < _TOLERANCE:
            return at
        if not np.abs(at).max() < _FARTHEST:
            return None
    return None


def _climb(
    likelihood: Callable[[FloatArray], float], at: FloatArray, step: FloatArray, value: float
) -> tuple[FloatArray, float, float]:
    """The farthest of step, step / 2, ... that does not fall; θ < 1 has no likelihood, so ln θ stays above 0."""
    step = step * (_LONGEST_STEP / max(float(np.abs(step).max()), _LONGEST_STEP))
    for _ in range(40):
        reached = likelihood(at + step)
        if reached >= value - 1e-12 * abs(value):
            return at + step, reached, float(np.abs(step).max())
        step = step / 2
    return at, value, 0.0


# --- what is told -------------------------------------------------------------------------------------------


def _scores(counts: _Counts, votes: Votes, at: FloatArray) -> Scores:
    """Every vote's derivative, looked up in its pair's."""
    by_outcome = _log_slopes(*_slopes(counts, at))
    pair = np.searchsorted(counts.a * counts.size + counts.b, votes.model_a * counts.size + votes.model_b)
    return Scores(votes.reviewer, votes.prompt, counts.columns[pair], by_outcome[pair, votes.outcome], counts.width)


def _told(
    counts: _Counts, at: FloatArray, covariance: Covariance | Reason, *, n: int, confidence: float
) -> Acceptability:
    gamma = at[: counts.size]
    cautions = () if counts.has_ties else (Caution.TIES_ABSENT,)
    spans, lines = None, None
    if isinstance(covariance, Covariance):
        off = covariance.reach(confidence) * covariance.errors[: counts.size]
        spans, lines = intervals(expit(gamma - off), expit(gamma + off)), _lines(gamma - off, gamma + off)
        cautions = (*covariance.cautions, *cautions)
    return Acceptability(
        strengths=gamma,
        acceptable=expit(gamma),
        tie_parameter=float(np.exp(_log_theta(counts, at))),
        n=n,
        covariance=covariance,
        intervals=spans,
        lines=lines,
        cautions=cautions,
    )


def _lines(low: FloatArray, high: FloatArray) -> tuple[Line, ...]:
    found = np.select([low > 0, high < 0], [0, 1], 2)
    return tuple((Line.ACCEPTABLE, Line.NOT_ACCEPTABLE, Line.UNCLEAR)[code] for code in found.tolist())
