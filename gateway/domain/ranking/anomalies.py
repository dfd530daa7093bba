"""Reviewers whose votes look unlike judging: advisory flags with their figures, for a chair to look at.

A flag excludes nothing. Exclusions are rows with a rule, made before the analysis by people who answer for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.special import bdtr

from gateway.domain.ranking.contests import numbered
from gateway.domain.ranking.votes import NO_GRADE, A, B, FloatArray, IntArray, Votes


class Sign(StrEnum):
    STRAIGHT_LINING = "straight_lining"
    """Nearly every item got the same answer, grades and all."""
    SPEED = "speed"
    """The median item took far less time than other reviewers' medians."""
    POSITION_LOCK = "position_lock"
    """One side was preferred more often than chance and taste explain."""


@dataclass(frozen=True, slots=True)
class AnomalyRules:
    """Fixed before a round, as everything else."""

    fewest_votes: int = 10
    """Nobody with fewer is flagged."""
    same_answer_share: float = 0.9
    speed_share: float = 1 / 3
    """Of the median over reviewers of their median time."""
    side_share: float = 0.8
    side_p: float = 0.01
    """Of the exact two-sided binomial test, times the number of reviewers tested."""


@dataclass(frozen=True, slots=True)
class Flag:
    reviewer: int
    """Code."""
    sign: Sign
    value: float
    """Share of the same answer; median seconds; share of one side among votes for a side."""
    threshold: float
    n: int
    """Votes that the value rests on."""


def anomalies(votes: Votes, rules: AnomalyRules | None = None) -> tuple[Flag, ...]:
    """Flags in the order of reviewers, then signs. Attention items are not looked at, repeats are."""
    rules = rules or AnomalyRules()
    looked_at = votes.where(~votes.is_attention)
    flags = [*_straight(looked_at, rules), *_fast(looked_at, rules), *_locked(looked_at, rules)]
    return tuple(sorted(flags, key=lambda flag: (flag.reviewer, flag.sign)))


def _straight(votes: Votes, rules: AnomalyRules) -> list[Flag]:
    size = len(votes.reviewers)
    answers = np.column_stack((votes.outcome, votes.grades)).astype(np.int64) - NO_GRADE
    code = np.zeros(len(votes), dtype=np.int64)
    for column in answers.T:  # renumbered at every column, so that codes stay small
        code = numbered(code * 256 + column)[1]
    width = int(code.max(initial=0)) + 1
    found, place = numbered(votes.reviewer * width + code)
    most = np.zeros(size)
    np.maximum.at(most, found // width, np.bincount(place, minlength=len(found)))
    n = _votes_of(votes.reviewer, size)
    share = most / np.maximum(n, 1)
    flagged = np.flatnonzero((n >= rules.fewest_votes) & (share >= rules.same_answer_share))
    return _flags(flagged, Sign.STRAIGHT_LINING, share, rules.same_answer_share, n)


def _fast(votes: Votes, rules: AnomalyRules) -> list[Flag]:
    timed = votes.where(~np.isnan(votes.seconds))
    size = len(votes.reviewers)
    n = _votes_of(timed.reviewer, size)
    tested = np.flatnonzero(n >= rules.fewest_votes)
    if not len(tested):
        return []
    order = np.lexsort((timed.seconds, timed.reviewer))
    seconds = timed.seconds[order]
    begin = np.cumsum(n) - n
    low, high = begin + (n - 1) // 2, begin + n // 2
    median = np.zeros(size)
    median[tested] = (seconds[low[tested]] + seconds[high[tested]]) / 2
    threshold = rules.speed_share * float(np.median(median[tested]))
    return _flags(tested[median[tested] < threshold], Sign.SPEED, median, threshold, n)


def _locked(votes: Votes, rules: AnomalyRules) -> list[Flag]:
    size = len(votes.reviewers)
    first = _votes_of(votes.reviewer[votes.outcome == A], size)
    n = first + _votes_of(votes.reviewer[votes.outcome == B], size)
    more = np.maximum(first, n - first)
    share = more / np.maximum(n, 1)
    p = np.minimum(2 * bdtr((n - more).astype(np.float64), n, 0.5), 1.0)
    tested = n >= rules.fewest_votes
    sure = p * tested.sum() < rules.side_p
    flagged = np.flatnonzero(tested & sure & (share >= rules.side_share))
    return _flags(flagged, Sign.POSITION_LOCK, share, rules.side_share, n)


def _votes_of(reviewer: IntArray, size: int) -> IntArray:
    return np.bincount(reviewer, minlength=size).astype(np.int64)


def _flags(flagged: IntArray, sign: Sign, value: FloatArray, threshold: float, n: IntArray) -> list[Flag]:
    return [Flag(int(code), sign, float(value[code]), threshold, int(n[code])) for code in flagged]
