"""Would another reading of the same votes have ranked otherwise? The variations that are fixed before a round.

Each is a whole estimate with how far it moves from the primary one. None of them replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from gateway.domain.ranking.connectivity import NotComparable
from gateway.domain.ranking.contests import contests_of
from gateway.domain.ranking.estimates import Estimate, Said, estimate
from gateway.domain.ranking.ranks import order_of
from gateway.domain.ranking.votes import FloatArray, Votes


class Variation(StrEnum):
    WITHOUT_BOTH_BAD = "without_both_bad"
    """Both bad left out instead of half a point each."""
    WITHOUT_RECOGNISED = "without_recognised"
    """Without votes whose reviewer thought to recognise a model."""


@dataclass(frozen=True, slots=True)
class Moved:
    """How far another estimate is from the primary one."""

    largest: float
    """The most by which any strength differs, in logits."""
    turned_pairs: int
    """Pairs of models in the other order."""
    entered: tuple[int, ...]
    """Models above the cut line only in the other estimate; empty without a line."""
    left: tuple[int, ...]
    """Models above the line only in the primary one."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    variation: Variation
    estimate: Estimate | NotComparable
    left_out: int
    """Votes that the primary estimate counts and this one does not."""
    moved: Moved | None
    """None where the other is not comparable."""


def vary(votes: Votes, primary: Estimate, said: Said) -> tuple[Sensitivity, ...]:
    """Every variation of the primary estimate of these votes."""
    contests = {
        Variation.WITHOUT_BOTH_BAD: contests_of(votes, without_both_bad=True),
        Variation.WITHOUT_RECOGNISED: contests_of(votes.where(~votes.recognised)),
    }
    found = []
    for variation, kept in contests.items():
        other = estimate(kept, said)
        moved = None if isinstance(other, NotComparable) else moved_from(primary.strengths, other.strengths, said.keep)
        found.append(Sensitivity(variation, other, primary.n - len(kept), moved))
    return tuple(found)


def moved_from(primary: FloatArray, other: FloatArray, keep: int | None) -> Moved:
    rows, columns = np.triu_indices(len(primary), 1)
    turned = (primary[rows] - primary[columns]) * (other[rows] - other[columns]) < 0
    before, after = set(order_of(primary)[: keep or 0]), set(order_of(other)[: keep or 0])
    return Moved(
        largest=float(np.abs(other - primary).max()),
        turned_pairs=int(turned.sum()),
        entered=tuple(sorted(after - before)),
        left=tuple(sorted(before - after)),
    )
