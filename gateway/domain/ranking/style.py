"""Differences of style between two answers, as columns beside the models in a fit: length, headers, lists, bold.

(x_A - x_B) / (x_A + x_B + 1), divided by its standard deviation. The deviation is taken about 0 and not about the mean:
a difference has no middle of its own, and with sides drawn at random the mean is 0 but for chance, so this way it
changes nothing which answer is called A. Counting the features of an answer is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.domain.ranking.connectivity import NotComparable
from gateway.domain.ranking.contests import contests_of
from gateway.domain.ranking.estimates import Estimate, Said, estimate
from gateway.domain.ranking.reasons import Interval, Reason
from gateway.domain.ranking.votes import BoolArray, FloatArray, Votes


@dataclass(frozen=True, slots=True)
class StyleEffect:
    """What one standard deviation more of a feature adds to an answer's strength."""

    feature: str
    coefficient: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class StyleControlled:
    estimate: Estimate
    effects: tuple[StyleEffect, ...]
    constant: tuple[str, ...]
    """Features in which no two answers differ; they are not in the fit."""
    without_style: int
    """Votes left out because an answer's features are not known."""


def style_controlled(votes: Votes, said: Said) -> StyleControlled | NotComparable:
    """Strengths as they would be between answers of the same style."""
    if not votes.features:
        return NotComparable(Reason.NOT_RECORDED)
    counted = votes.where(votes.counts)
    known: BoolArray = np.asarray(np.isfinite(counted.style_a + counted.style_b).all(axis=1), dtype=np.bool_)
    if not known.any():
        return NotComparable(Reason.NOT_RECORDED)
    columns, deviations = style_columns(counted.style_a[known], counted.style_b[known])
    varies = deviations > 0
    controlled = estimate(contests_of(counted.where(known)), said, columns[:, varies])
    if isinstance(controlled, NotComparable):
        return controlled
    names = [name for name, does in zip(votes.features, varies, strict=True) if does]
    constant = tuple(name for name, does in zip(votes.features, varies, strict=True) if not does)
    return StyleControlled(controlled, _effects(controlled, names, said), constant, int((~known).sum()))


def style_columns(style_a: FloatArray, style_b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Votes × features in deviations, and the deviations; a feature that never differs keeps its zeros."""
    relative = (style_a - style_b) / (style_a + style_b + 1)
    deviations = np.sqrt(np.mean(relative**2, axis=0))
    return relative / np.where(deviations > 0, deviations, 1.0), deviations


def _effects(controlled: Estimate, names: list[str], said: Said) -> tuple[StyleEffect, ...]:
    spans: list[Interval | None] = [None] * len(names)
    if controlled.uncertainty is not None:
        covariance = controlled.uncertainty.covariance
        off = covariance.reach(said.confidence) * covariance.errors[len(controlled.strengths) :]
        ends = zip(controlled.coefficients.tolist(), off.tolist(), strict=True)
        spans = [Interval(middle - half, middle + half) for middle, half in ends]
    found = zip(names, controlled.coefficients.tolist(), spans, strict=True)
    return tuple(StyleEffect(name, coefficient, span) for name, coefficient, span in found)
