"""What becomes of the strengths when any one reviewer had stayed away: the check beside the clustered intervals.

Every reviewer's votes are taken from the table of pairs and the rest is fitted anew, all at once and starting from the
full answer. It sees how reviewers differ and not how prompts do, so it is no interval of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from gateway.domain.ranking.bradley_terry import Fit
from gateway.domain.ranking.connectivity import is_connected
from gateway.domain.ranking.contests import Contests, numbered
from gateway.domain.ranking.votes import FloatArray, IntArray

_STEPS = 50
_TOLERANCE = 1e-10
_LONGEST_STEP = 1.0


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """By reviewer who cast a vote that counts, in the order of their codes."""

    reviewers: IntArray
    strengths: FloatArray
    """Reviewers × models; NaN where the rest is not comparable."""
    errors: FloatArray | None
    """Jackknife standard errors, √((R - 1) / R · Σ (β_(r) - mean)²); None where some of the rest is not comparable."""

    @property
    def indispensable(self) -> IntArray:
        """Reviewers without whom the models are not comparable."""
        return self.reviewers[np.isnan(self.strengths[:, 0])]


def leave_one_reviewer_out(fit: Fit, contests: Contests) -> LeaveOneOut | None:
    """None with fewer than two reviewers."""
    reviewers, met, scored = reviewer_tables(contests)
    if len(reviewers) < 2:
        return None
    met, scored = met.sum(axis=0) - met, scored.sum(axis=0) - scored
    fitted = np.array([is_connected(table) for table in scored])
    strengths = np.full((len(reviewers), contests.size), np.nan)
    strengths[fitted] = refit(met[fitted], scored[fitted], fit.strengths)
    return LeaveOneOut(reviewers, strengths, _errors(strengths))


def reviewer_tables(contests: Contests) -> tuple[IntArray, FloatArray, FloatArray]:
    """Codes of the reviewers, and reviewers × models × models: how often two met, what the row took from the column."""
    reviewers, number = numbered(contests.reviewer)
    shape = (len(reviewers), contests.size, contests.size)
    place = (number * contests.size + contests.a) * contests.size + contests.b
    cells = len(reviewers) * contests.size**2
    met = np.bincount(place, minlength=cells).reshape(shape).astype(np.float64)
    won = np.bincount(place, contests.points, cells).reshape(shape)
    lost = (met - won).transpose(0, 2, 1)
    return reviewers, met + met.transpose(0, 2, 1), won + lost


def refit(met: FloatArray, scored: FloatArray, start: FloatArray) -> FloatArray:
    """Strengths of many connected tables of pairs at once; the leading axis numbers the tables.

    `met` is symmetric. Newton's method with its steps held within 1, which is enough this near to the answer; a table
    that does not arrive has NaN.
    """
    size = len(start)
    at = np.tile(start - start.mean(), (len(met), 1))
    is_open = np.arange(len(met))
    for _ in range(_STEPS):
        chances = expit(at[is_open, :, None] - at[is_open, None, :])
        gradient = (scored[is_open] - met[is_open] * chances).sum(axis=2)
        information = -met[is_open] * chances * (1 - chances)
        information[:, range(size), range(size)] -= information.sum(axis=2)
        scale = np.trace(information, axis1=1, axis2=2) / size**2
        step = np.linalg.solve(information + scale[:, None, None], gradient[..., None])[..., 0]
        longest = np.abs(step).max(axis=1)
        at[is_open] += step * np.minimum(1.0, _LONGEST_STEP / np.maximum(longest, _LONGEST_STEP))[:, None]
        is_open = is_open[longest > _TOLERANCE]
        if not len(is_open):
            break
    at[is_open] = np.nan
    return at


def _errors(strengths: FloatArray) -> FloatArray | None:
    if np.isnan(strengths).any():
        return None
    count = len(strengths)
    errors: FloatArray = np.sqrt((count - 1) / count * ((strengths - strengths.mean(axis=0)) ** 2).sum(axis=0))
    return errors
