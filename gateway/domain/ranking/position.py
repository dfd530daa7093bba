"""Does it help to stand on the left? An intercept in favour of A, with clustered errors, and what it does to strengths.

Orders are balanced by design, so a preference for a side costs precision rather than fairness; it is shown anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from gateway.domain.ranking.clustered import two_sided_p
from gateway.domain.ranking.connectivity import NotComparable
from gateway.domain.ranking.contests import Contests
from gateway.domain.ranking.estimates import Estimate, Said, estimate
from gateway.domain.ranking.reasons import Interval, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    advantage: float
    """Logit in favour of A."""
    interval: Interval | None
    share_for_a: float
    """Points that A would take of models equally strong."""
    share_interval: Interval | None
    p_value: float | None
    """Two-sided, against no advantage."""
    n: int
    shown_first: tuple[int, ...]
    """Contests with each model as A, by code."""
    shown_second: tuple[int, ...]
    largest_change: float
    """The most by which any strength differs from the fit without the intercept."""
    reason: Reason | None
    """Why there is no interval."""


def position_effect(contests: Contests, plain: Estimate, said: Said) -> Position | NotComparable:
    """`plain` is the estimate from the same contests without an intercept."""
    with_side = estimate(contests, said, np.ones((len(contests), 1)))
    if isinstance(with_side, NotComparable):
        return with_side
    advantage = float(with_side.coefficients[0])
    span, p_value = None, None
    if with_side.uncertainty is not None:
        covariance = with_side.uncertainty.covariance
        error = float(covariance.errors[contests.size])
        off = covariance.reach(said.confidence) * error
        span = Interval(advantage - off, advantage + off)
        if error > 0:
            p_value = float(two_sided_p(np.array([advantage / error]), covariance.df)[0])
    return Position(
        advantage=advantage,
        interval=span,
        share_for_a=float(expit(advantage)),
        share_interval=None if span is None else Interval(float(expit(span.low)), float(expit(span.high))),
        p_value=p_value,
        n=with_side.n,
        shown_first=tuple(np.bincount(contests.a, minlength=contests.size).tolist()),
        shown_second=tuple(np.bincount(contests.b, minlength=contests.size).tolist()),
        largest_change=float(np.abs(with_side.strengths - plain.strengths).max()),
        reason=with_side.reason,
    )
