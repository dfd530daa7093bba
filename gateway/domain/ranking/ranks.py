"""Which model is surely above which, and so which ranks are possible: simultaneous intervals on all differences.

Best rank of i = 1 + the number of models surely above it, worst = K - the number surely below it. Models that share a
best rank share it; who cannot be told apart is said outright. Where strengths come from is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gateway.domain.ranking.clustered import Covariance, t_quantile, two_sided_p
from gateway.domain.ranking.votes import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Ranks:
    """By model, in the order of the strengths given."""

    best: IntArray
    worst: IntArray
    surely_above: BoolArray
    """Models × models: the row is surely above the column."""
    groups: tuple[tuple[int, ...], ...]
    """Longest runs down the order of strength within which no two are distinguishable; the strongest first."""
    reach: float
    """Half-width of the simultaneous intervals in standard errors."""


@dataclass(frozen=True, slots=True)
class LinePair:
    """A model above the cut line and one below it."""

    above: int
    below: int
    difference: float
    p_value: float
    """Two-sided, by t."""
    adjusted_p: float
    """By Holm over all pairs of models."""
    is_separated: bool


@dataclass(frozen=True, slots=True)
class CutLine:
    """The line below the `keep` strongest models."""

    keep: int
    above: tuple[int, ...]
    pairs: tuple[LinePair, ...]
    """The closest first."""

    @property
    def is_clear(self) -> bool:
        """Everyone above is distinguishable from everyone below."""
        return all(pair.is_separated for pair in self.pairs)

    @property
    def contested(self) -> tuple[int, ...]:
        """Models with a pair that the votes do not separate, by code."""
        unclear = [pair for pair in self.pairs if not pair.is_separated]
        return tuple(sorted({pair.above for pair in unclear} | {pair.below for pair in unclear}))


def order_of(strengths: FloatArray) -> tuple[int, ...]:
    """Codes, the strongest first; of equal strengths (to 1e-9) the lower code first."""
    codes = np.lexsort((np.arange(len(strengths)), -np.round(strengths, 9)))
    return tuple(codes.tolist())


def rank_models(strengths: FloatArray, covariance: Covariance, *, confidence: float = 0.95) -> Ranks:
    """Bonferroni over all K (K - 1) / 2 differences, with the covariance's own t."""
    size = len(strengths)
    pairs = max(1, size * (size - 1) // 2)
    reach = t_quantile(1 - (1 - confidence) / (2 * pairs), covariance.df)
    differences = strengths[:, None] - strengths[None, :]
    surely_above = differences > reach * covariance.cautious_difference_errors
    np.fill_diagonal(surely_above, False)
    return Ranks(
        best=1 + surely_above.sum(axis=0),
        worst=size - surely_above.sum(axis=1),
        surely_above=surely_above,
        groups=tuple(_groups(order_of(strengths), surely_above | surely_above.T)),
        reach=reach,
    )


def draw_line(strengths: FloatArray, covariance: Covariance, *, keep: int, confidence: float = 0.95) -> CutLine:
    """The pairs across the line below the `keep` strongest, each with its p-value adjusted by Holm.

    The votes themselves decide which pairs lie across the line, so the family is all pairs of models: correcting only
    for the pairs that were picked by looking would claim too much. Raises ValueError unless 0 < keep < models.
    """
    size = len(strengths)
    if not 0 < keep < size:
        raise ValueError(f"keep: expected 1 to {size - 1} models above the line, got {keep}")
    order = order_of(strengths)
    p_values = _p_values(strengths, covariance)
    adjusted = _holm_of_pairs(p_values)
    pairs = [
        LinePair(
            above=above,
            below=below,
            difference=float(strengths[above] - strengths[below]),
            p_value=float(p_values[above, below]),
            adjusted_p=float(adjusted[above, below]),
            is_separated=bool(adjusted[above, below] <= 1 - confidence),
        )
        for above in order[:keep]
        for below in order[keep:]
    ]
    return CutLine(keep, order[:keep], tuple(sorted(pairs, key=lambda pair: -pair.p_value)))


def holm(p_values: FloatArray) -> FloatArray:
    """Adjusted p-values: the k-th smallest of m times m - k + 1, never falling, at most 1 (Holm 1979)."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    raised = np.maximum.accumulate(p_values[order] * np.arange(count, 0, -1))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted


def _p_values(strengths: FloatArray, covariance: Covariance) -> FloatArray:
    """Models × models; 1 where both difference and error are 0."""
    differences = strengths[:, None] - strengths[None, :]
    errors = covariance.cautious_difference_errors
    t = np.divide(differences, errors, out=np.where(differences == 0, 0.0, np.inf), where=errors > 0)
    return two_sided_p(t, covariance.df)


def _holm_of_pairs(p_values: FloatArray) -> FloatArray:
    rows, columns = np.triu_indices(len(p_values), 1)
    adjusted = np.ones_like(p_values)
    adjusted[rows, columns] = adjusted[columns, rows] = holm(p_values[rows, columns])
    return adjusted


def _groups(order: tuple[int, ...], are_distinct: BoolArray) -> Iterator[tuple[int, ...]]:
    """Runs of at least two; a run within another is not told again."""
    reached = 0
    for first in range(len(order)):
        last = first + 1
        while last < len(order) and not are_distinct[order[last], list(order[first:last])].any():
            last += 1
        if last - first > 1 and last > reached:
            yield order[first:last]
        reached = max(reached, last)
