"""A single figure with its n and interval, from parts that can be left out in turn: items, or reviewers.

What the parts are and what is computed of their sum is the caller's subject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gateway.domain.ranking.clustered import t_quantile
from gateway.domain.ranking.reasons import Interval, Reason
from gateway.domain.ranking.votes import FloatArray

FEWEST_UNITS = 10
"""Below it no interval is given."""


@dataclass(frozen=True, slots=True)
class Figure:
    value: float | None
    n: int
    """Of what is counted; the field that holds the figure says of what."""
    interval: Interval | None = None
    reason: Reason | None = None
    """Why `value`, or where that is given `interval`, is None."""


def jackknifed(
    parts: FloatArray,
    figure: Callable[[FloatArray], FloatArray],
    *,
    n: int,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> Figure:
    """`figure` of the sum of `parts` (units × sums), with the interval of the delete-one jackknife.

    `figure` maps m × sums to m values, NaN where there is none. Quantiles are those of t with units - 1 degrees.
    """
    value = float(figure(parts.sum(axis=0)[None])[0])
    if np.isnan(value):
        return Figure(None, n, reason=Reason.NO_VARIATION)
    units = len(parts)
    others = figure(parts.sum(axis=0) - parts) if units >= FEWEST_UNITS else np.array([np.nan])
    if np.isnan(others).any():
        return Figure(value, n, reason=Reason.TOO_FEW_UNITS)
    error = float(np.sqrt((units - 1) / units * np.sum((others - others.mean()) ** 2)))
    off = t_quantile(1 - (1 - confidence) / 2, units - 1) * error
    return Figure(value, n, Interval(max(value - off, bounds[0]), min(value + off, bounds[1])))


def clustered_share(hits: FloatArray, n: FloatArray, *, confidence: float = 0.95) -> Figure:
    """Σ hits / Σ n over clusters (reviewers), by Wilson's interval.

    The n of Wilson's formula is divided by the design effect, where the clusters differ more than chance lets them, and
    its quantile is that of t with clusters - 1 degrees. It has width also where all or none hit.
    """
    hits, n = hits[n > 0], n[n > 0]
    total = float(n.sum())
    if total == 0:
        return Figure(None, 0, reason=Reason.NOT_RECORDED)
    share = float(hits.sum()) / total
    clusters = len(n)
    if clusters < 2:
        return Figure(share, int(total), reason=Reason.TOO_FEW_UNITS)
    chance = share * (1 - share) / total
    seen = clusters / (clusters - 1) * float(np.sum((hits - share * n) ** 2)) / total**2
    worth = total / max(1.0, seen / chance) if chance > 0 else total
    return Figure(share, int(total), _wilson(share, worth, t_quantile(1 - (1 - confidence) / 2, clusters - 1)))


def _wilson(share: float, n: float, quantile: float) -> Interval:
    square = quantile**2 / n
    middle = (share + square / 2) / (1 + square)
    off = float(np.sqrt(square * share * (1 - share) + square**2 / 4)) / (1 + square)
    return Interval(max(middle - off, 0.0), min(middle + off, 1.0))
