"""How few votes, or reviewers, would have to be missing for another model to be above the cut line.

Votes are removed in the order of their influence on one pair across the line, which a first-order look at the fit gives
(Broderick, Giordano and Meager, arXiv 2011.14999); every count is then shown by fitting what is left. So the number is
an upper bound: fewer may do, more are not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.special import expit

from gateway.domain.ranking.bradley_terry import Fit
from gateway.domain.ranking.connectivity import is_connected
from gateway.domain.ranking.contests import Contests
from gateway.domain.ranking.jackknife import refit, reviewer_tables
from gateway.domain.ranking.ranks import order_of
from gateway.domain.ranking.reasons import Reason
from gateway.domain.ranking.votes import FloatArray, IntArray

_POINTS = (0.0, 0.5, 1.0)
_PAIRS_TRIED = 12
"""Pairs across the line for which removal is tried: those with the smallest distances."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The smallest removal found that moves the line."""

    count: int
    share: float
    """Of all votes, or reviewers, that counted."""
    left: int
    """A model that was above the line and is not any more, by code."""
    entered: int
    """A model that has come above it."""
    reviewers: tuple[int, ...] = ()
    """Whose votes are removed, for a removal of reviewers."""


@dataclass(frozen=True, slots=True)
class Fragility:
    votes: Removal | None
    reviewers: Removal | None
    n: int
    reason: Reason | None = None
    """Why both are None."""


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Votes that the fit cannot tell apart: same pair (lower code first), same points."""

    a: IntArray
    b: IntArray
    points: FloatArray
    number: FloatArray
    size: int


def fragility(fit: Fit, contests: Contests, keep: int | None) -> Fragility:
    """Upper bounds on the votes and on the reviewers whose removal moves the line below the `keep` strongest."""
    size = contests.size
    if keep is None or not 0 < keep < size:
        return Fragility(None, None, fit.n, Reason.NO_CUT_LINE)
    order = order_of(fit.strengths)
    pairs = [(above, below) for above in order[:keep] for below in order[keep:]]
    pairs.sort(key=lambda pair: float(fit.strengths[pair[0]] - fit.strengths[pair[1]]))
    pairs = pairs[:_PAIRS_TRIED]
    votes = _fewest_votes(fit, _kinds(contests), pairs, set(order[:keep]))
    reviewers = _fewest_reviewers(fit, contests, pairs, set(order[:keep]))
    return Fragility(votes, reviewers, fit.n, None if votes or reviewers else Reason.LINE_HOLDS)


# --- votes --------------------------------------------------------------------------------------------------


def _kinds(contests: Contests) -> _Kinds:
    size = contests.size
    is_turned = contests.a > contests.b
    a, b = np.where(is_turned, contests.b, contests.a), np.where(is_turned, contests.a, contests.b)
    halves = np.rint(2 * np.where(is_turned, 1 - contests.points, contests.points)).astype(np.int64)
    number = np.bincount((a * size + b) * 3 + halves, minlength=size * size * 3)
    found = np.flatnonzero(number)
    pair, half = found // 3, found % 3
    return _Kinds(pair // size, pair % size, np.array(_POINTS)[half], number[found].astype(np.float64), size)


def _fewest_votes(fit: Fit, kinds: _Kinds, pairs: Sequence[tuple[int, int]], above: set[int]) -> Removal | None:
    best: Removal | None = None
    for pair in pairs:
        influence = _influence(fit, kinds, pair)
        order = np.argsort(-influence, kind="stable")
        order = order[influence[order] > 0]
        upto = np.concatenate(([0.0], np.cumsum(kinds.number[order])))
        most = int(upto[-1]) if best is None else best.count - 1

        def without(count: int, order: IntArray = order, upto: FloatArray = upto) -> tuple[int, int] | None:
            left = kinds.number.copy()
            left[order] -= np.clip(count - upto[:-1], 0.0, kinds.number[order])
            return _crossed(*_tables(kinds, left), fit.strengths, above)

        found = _smallest(without, _guess(fit, pair, influence[order], upto), min(most, int(upto[-1])))
        if found is not None:
            count, (gone, come) = found
            best = Removal(count=count, share=count / fit.n, left=gone, entered=come)
    return best


def _influence(fit: Fit, kinds: _Kinds, pair: tuple[int, int]) -> FloatArray:
    """By how much the pair's distance shrinks, to first order, when one vote of each kind is removed."""
    direction = fit.bread[pair[0], : kinds.size] - fit.bread[pair[1], : kinds.size]
    residual = kinds.points - expit(fit.strengths[kinds.a] - fit.strengths[kinds.b])
    influence: FloatArray = residual * (direction[kinds.a] - direction[kinds.b])
    return influence


def _guess(fit: Fit, pair: tuple[int, int], influence: FloatArray, upto: FloatArray) -> int:
    """How many removals close the distance, to first order."""
    distance = float(fit.strengths[pair[0]] - fit.strengths[pair[1]])
    closed = np.concatenate(([0.0], np.cumsum(influence * np.diff(upto))))
    return int(np.interp(distance, closed, upto)) + 1


def _tables(kinds: _Kinds, number: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Symmetric table of meetings, and points of row from column."""
    shape = (kinds.size, kinds.size)
    met, scored = np.zeros(shape), np.zeros(shape)
    np.add.at(met, (kinds.a, kinds.b), number)
    np.add.at(scored, (kinds.a, kinds.b), number * kinds.points)
    np.add.at(scored, (kinds.b, kinds.a), number * (1 - kinds.points))
    return met + met.T, scored


# --- reviewers ----------------------------------------------------------------------------------------------


def _fewest_reviewers(
    fit: Fit, contests: Contests, pairs: Sequence[tuple[int, int]], above: set[int]
) -> Removal | None:
    reviewers, met, scored = reviewer_tables(contests)
    expected = expit(fit.strengths[:, None] - fit.strengths[None, :])
    scores = (scored - met * expected).sum(axis=2)
    best: Removal | None = None
    for pair in pairs:
        direction = fit.bread[pair[0], : contests.size] - fit.bread[pair[1], : contests.size]
        influence = scores @ direction
        order = np.argsort(-influence, kind="stable")
        order = order[influence[order] > 0]
        gone_met, gone_scored = np.cumsum(met[order], axis=0), np.cumsum(scored[order], axis=0)
        most = len(order) if best is None else min(len(order), best.count - 1)

        def without(
            count: int, gone_met: FloatArray = gone_met, gone_scored: FloatArray = gone_scored
        ) -> tuple[int, int] | None:
            left_met, left_scored = met.sum(axis=0) - gone_met[count - 1], scored.sum(axis=0) - gone_scored[count - 1]
            return _crossed(left_met, left_scored, fit.strengths, above)

        guess = _guess(fit, pair, influence[order], np.arange(len(order) + 1.0))
        found = _smallest(without, guess, most)
        if found is not None:
            count, (left, entered) = found
            chosen = tuple(reviewers[order[:count]].tolist())
            best = Removal(count=count, share=count / len(reviewers), left=left, entered=entered, reviewers=chosen)
    return best


# --- both ---------------------------------------------------------------------------------------------------


def _crossed(met: FloatArray, scored: FloatArray, start: FloatArray, above: set[int]) -> tuple[int, int] | None:
    """A model that fell below the line and one that rose above it; None where the line stands or nothing is left."""
    if not is_connected(scored):
        return None
    strengths = refit(met[None], scored[None], start)[0]
    if np.isnan(strengths).any():
        return None
    order = order_of(strengths)
    entered = [code for code in order[: len(above)] if code not in above]
    left = [code for code in order[len(above) :] if code in above]
    return (left[-1], entered[0]) if entered else None


def _smallest(tried: Callable[[int], T | None], guess: int, most: int) -> tuple[int, T] | None:
    """The smallest count from 1 to `most` that is known to do: raised from the guess until it does, then halved in."""
    if most < 1:
        return None
    low, count = 0, min(max(guess, 1), most)
    found = tried(count)
    while found is None:
        if count == most:
            return None
        low, count = count, min(count + max(1, count // 2), most)
        found = tried(count)
    while count - low > 1:
        middle = (low + count) // 2
        reached = tried(middle)
        if reached is None:
            low = middle
        else:
            count, found = middle, reached
    return count, found
