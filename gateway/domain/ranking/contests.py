"""The votes that a fit counts, as contests: who met whom, who took how many points, whose vote it was and on what.

Aggregates are tables of pairs, so that a fit's price does not grow with the votes. What strengths follow belongs to
`bradley_terry`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.domain.ranking.votes import BOTH_BAD, BoolArray, FloatArray, IntArray, Votes

_DENSE = 8
"""Up to so many times as many codes as places, counting is cheaper than sorting."""


@dataclass(frozen=True, slots=True)
class Contests:
    """n contests; codes as in the votes they come from."""

    size: int
    """Number of models of the round, judged or not."""
    a: IntArray
    b: IntArray
    points: FloatArray
    """What A takes of the one point: 1, ½ or 0."""
    reviewer: IntArray
    prompt: IntArray

    def __len__(self) -> int:
        return len(self.points)

    @property
    def reviewers(self) -> int:
        """How many cast one of these votes."""
        return len(numbered(self.reviewer)[0])

    @property
    def prompts(self) -> int:
        return len(numbered(self.prompt)[0])

    def where(self, chosen: BoolArray) -> Contests:
        return Contests(
            size=self.size,
            a=self.a[chosen],
            b=self.b[chosen],
            points=self.points[chosen],
            reviewer=self.reviewer[chosen],
            prompt=self.prompt[chosen],
        )


@dataclass(frozen=True, slots=True)
class PairTable:
    """Contests summed up by ordered pair: the row's model was A."""

    met: FloatArray
    """Models × models: contests."""
    won: FloatArray
    """Models × models: points that A took in them."""

    @property
    def scored(self) -> FloatArray:
        """Points that the row's model took from the column's, on whichever side it stood."""
        return self.won + (self.met - self.won).T


def contests_of(votes: Votes, *, without_both_bad: bool = False) -> Contests:
    """The votes that count, both bad as half a point each or left out."""
    counted = votes.counts
    if without_both_bad:
        counted = counted & (votes.outcome != BOTH_BAD)
    every = Contests(len(votes.models), votes.model_a, votes.model_b, votes.points, votes.reviewer, votes.prompt)
    return every.where(counted)


def pair_table(contests: Contests) -> PairTable:
    size = contests.size
    pair = contests.a * size + contests.b
    met = np.bincount(pair, minlength=size * size).astype(np.float64)
    won = np.bincount(pair, weights=contests.points, minlength=size * size).astype(np.float64)
    return PairTable(met.reshape(size, size), won.reshape(size, size))


def numbered(codes: IntArray) -> tuple[IntArray, IntArray]:
    """The codes that occur, ascending, and for each place which of these stands there. Codes are at least 0."""
    if len(codes) and int(codes.max()) >= _DENSE * len(codes):
        found, numbers = np.unique(codes, return_inverse=True)
        return found, numbers.astype(np.int64, copy=False)
    occurs = np.bincount(codes) > 0
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[codes]
