"""One answer to "who is how strong": strengths with everything that may be said of them, from one set of contests.

Fits, covariances and ranks are made elsewhere and put together here; a composite of several criteria is their weighted
sum, with the covariance between them. Which answers a round wants is `analysis`'s subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logit

from gateway.domain.ranking.bradley_terry import Fit, fit_strengths, ratings, win_rate_slopes, win_rates
from gateway.domain.ranking.clustered import Covariance, Scores, clustered_covariance, stacked, strength_scores
from gateway.domain.ranking.connectivity import NotComparable
from gateway.domain.ranking.contests import Contests
from gateway.domain.ranking.jackknife import LeaveOneOut, leave_one_reviewer_out
from gateway.domain.ranking.ranks import CutLine, Ranks, draw_line, order_of, rank_models
from gateway.domain.ranking.reasons import Caution, Interval, Reason
from gateway.domain.ranking.votes import FloatArray

_EDGE = 1e-12


@dataclass(frozen=True, slots=True)
class Said:
    """How much an estimate is asked to say."""

    keep: int | None = None
    """Models above the cut line; None: no line."""
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """What two-way clustering says of the strengths."""

    covariance: Covariance
    """Of strengths, then coefficients."""
    strengths: tuple[Interval, ...]
    ratings: tuple[Interval, ...]
    win_rates: tuple[Interval, ...]
    """By the delta method on the logit, so that they stay within 0 and 1."""
    ranks: Ranks
    line: CutLine | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Strengths of all models, by code."""

    strengths: FloatArray
    win_rates: FloatArray
    """Expected share of points against each other model equally often."""
    ratings: FloatArray
    coefficients: FloatArray
    n: int
    reviewers: int
    prompts: int
    uncertainty: Uncertainty | None
    reason: Reason | None = None
    """Why `uncertainty` is None."""
    leave_one_out: LeaveOneOut | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """Codes, the strongest first."""
        return order_of(self.strengths)

    @property
    def cautions(self) -> tuple[Caution, ...]:
        return self.uncertainty.covariance.cautions if self.uncertainty else ()


@dataclass(frozen=True, slots=True)
class Grounds:
    """What an estimate rests on: kept so that several can be added up."""

    fit: Fit
    contests: Contests
    scores: Scores


def estimate(contests: Contests, said: Said, covariates: FloatArray | None = None) -> Estimate | NotComparable:
    """Strengths from these contests, with intervals and ranks."""
    grounds = grounds_of(contests, covariates)
    return grounds if isinstance(grounds, NotComparable) else estimate_on(grounds, said)


def estimate_with_jackknife(contests: Contests, said: Said) -> Estimate | NotComparable:
    """The same, with what becomes of the strengths without each reviewer."""
    grounds = grounds_of(contests)
    if isinstance(grounds, NotComparable):
        return grounds
    return replace(estimate_on(grounds, said), leave_one_out=leave_one_reviewer_out(grounds.fit, contests))


def grounds_of(contests: Contests, covariates: FloatArray | None = None) -> Grounds | NotComparable:
    fit = fit_strengths(contests, covariates)
    if isinstance(fit, NotComparable):
        return fit
    return Grounds(fit, contests, strength_scores(fit, contests, covariates))


def estimate_on(grounds: Grounds, said: Said) -> Estimate:
    fit, contests = grounds.fit, grounds.contests
    covariance = clustered_covariance(grounds.scores, fit.bread)
    return Estimate(
        strengths=fit.strengths,
        win_rates=win_rates(fit.strengths),
        ratings=ratings(fit.strengths),
        coefficients=fit.coefficients,
        n=fit.n,
        reviewers=contests.reviewers,
        prompts=contests.prompts,
        uncertainty=_uncertainty(fit.strengths, covariance, said) if isinstance(covariance, Covariance) else None,
        reason=None if isinstance(covariance, Covariance) else covariance,
    )


def composite(parts: Sequence[Grounds], weights: Sequence[float], said: Said) -> Estimate:
    """Σ w β over criteria, the weights as sealed and divided by their sum; n is that of the criterion most judged.

    One vote speaks on every criterion, so its scores are stacked before they are clustered: what the criteria have in
    common is in the covariance. Raises ValueError for weights that are negative or sum to 0.
    """
    share = _shares(weights, len(parts))
    strengths = np.sum([w * part.fit.strengths for w, part in zip(share, parts, strict=True)], axis=0)
    bread = np.hstack([w * part.fit.bread for w, part in zip(share, parts, strict=True)])
    scores = stacked([part.scores for part in parts])
    covariance = clustered_covariance(scores, bread)
    return Estimate(
        strengths=strengths,
        win_rates=win_rates(strengths),
        ratings=ratings(strengths),
        coefficients=np.zeros(0),
        n=max(part.fit.n for part in parts),
        reviewers=len(np.unique(scores.reviewer)),
        prompts=len(np.unique(scores.prompt)),
        uncertainty=_uncertainty(strengths, covariance, said) if isinstance(covariance, Covariance) else None,
        reason=None if isinstance(covariance, Covariance) else covariance,
    )


def ordered_weights(weights: Mapping[str, float], criteria: Sequence[str]) -> tuple[float, ...]:
    """Weights in the order of the criteria. Raises ValueError unless they name exactly these."""
    if set(weights) != set(criteria):
        raise ValueError(f"weights: expected one for each of {', '.join(criteria)}, got {', '.join(weights) or 'none'}")
    return tuple(weights[name] for name in criteria)


def _shares(weights: Sequence[float], count: int) -> FloatArray:
    share = np.asarray(weights, dtype=np.float64)
    if len(share) != count or not np.isfinite(share).all() or (share < 0).any() or share.sum() <= 0:
        raise ValueError(f"weights: expected {count} numbers of at least 0 that do not sum to 0, got {list(weights)}")
    normed: FloatArray = share / share.sum()
    return normed


def _uncertainty(strengths: FloatArray, covariance: Covariance, said: Said) -> Uncertainty:
    size = len(strengths)
    of_strengths = covariance.among(size)
    reach, errors = covariance.reach(said.confidence), of_strengths.errors
    low, high = strengths - reach * errors, strengths + reach * errors
    line = None
    if said.keep is not None and 0 < said.keep < size:
        line = draw_line(strengths, of_strengths, keep=said.keep, confidence=said.confidence)
    return Uncertainty(
        covariance=covariance,
        strengths=intervals(low, high),
        ratings=intervals(ratings(low), ratings(high)),
        win_rates=_rate_intervals(strengths, of_strengths, reach),
        ranks=rank_models(strengths, of_strengths, confidence=said.confidence),
        line=line,
    )


def _rate_intervals(strengths: FloatArray, covariance: Covariance, reach: float) -> tuple[Interval, ...]:
    rates, slopes = win_rates(strengths), win_rate_slopes(strengths)
    variance = np.einsum("ij,jk,ik->i", slopes, covariance.matrix, slopes)
    rates = np.clip(rates, _EDGE, 1 - _EDGE)
    off = reach * np.sqrt(np.maximum(variance, 0.0)) / (rates * (1 - rates))
    return intervals(expit(logit(rates) - off), expit(logit(rates) + off))


def intervals(low: FloatArray, high: FloatArray) -> tuple[Interval, ...]:
    return tuple(Interval(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
