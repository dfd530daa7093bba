"""Do reviewers agree with each other, and with themselves, and are the criteria more than one impression?

Krippendorff's α (ordinal) and κ on the items that several judged, self-consistency on hidden repeats, and the
correlation of criteria beyond what models have in common. Intervals leave out one item, or one reviewer, in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gateway.domain.ranking.contests import numbered
from gateway.domain.ranking.figures import Figure, clustered_share, jackknifed
from gateway.domain.ranking.reasons import Reason
from gateway.domain.ranking.votes import CANNOT_JUDGE, NO_GRADE, FloatArray, IntArray, Votes

_ORDER = np.array([2, 0, 1, 1, -1])
"""Place of an outcome between B and A; both bad counts as a tie, as it does in the fit."""
_LEVELS = 3
_GRADES = 5
_JUDGED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """n of α and κ: judgements of items judged by two or more; of `consistent` and `reversed`: repeats."""

    alpha: Figure
    """Krippendorff's α of the overall choice, ordinal: B, tie or both bad, A."""
    alpha_by_criterion: Mapping[str, Figure]
    """Of the five grades."""
    kappa: Figure
    """Fleiss's κ of the four outcomes as names; with unequal numbers of reviewers, items weigh equally."""
    shared_items: int
    consistent: Figure
    """Repeats judged as the first time."""
    reversed: Figure
    """Repeats in which the other model won."""
    halo: Mapping[tuple[str, str], Figure]
    """By two criteria: correlation of their grades after each pair of models' own mean is taken off; n: votes."""
    all_alike: Figure
    """Votes with the same grade on all criteria; n: votes that grade all of at least two."""


def agreement(votes: Votes, *, confidence: float = 0.95) -> Agreement:
    """Items are (prompt, pair of models); repeats and attention items stand outside the shared block."""
    turned = votes.by_pair()
    first = turned.where(~turned.is_repeat & ~turned.is_attention)
    counts = _item_counts(first, _ORDER[first.outcome], _LEVELS)
    same, opposite, compared = _repeats(turned)
    return Agreement(
        alpha=_alpha_figure(counts, confidence),
        alpha_by_criterion={
            name: _alpha_figure(_item_counts(first, _grade_levels(first, code), _GRADES), confidence)
            for code, name in enumerate(votes.criteria)
        },
        kappa=_kappa_figure(_item_counts(first, _names_of(first), _JUDGED), confidence),
        shared_items=len(counts),
        consistent=_of_repeats(same, compared, confidence),
        reversed=_of_repeats(opposite, compared, confidence),
        halo={
            (votes.criteria[one], votes.criteria[other]): _halo(first, one, other, confidence)
            for one, other in combinations(range(len(votes.criteria)), 2)
        },
        all_alike=_all_alike(first, confidence),
    )


# --- items that several judged ------------------------------------------------------------------------------


def _items(votes: Votes) -> IntArray:
    """A code for each (prompt, pair); the votes have the lower model as A."""
    size = len(votes.models)
    return (votes.prompt * size + votes.model_a) * size + votes.model_b


def _item_counts(votes: Votes, levels: IntArray, size: int) -> FloatArray:
    """Items judged by at least two × levels: how many gave each. A level below 0 is no judgement."""
    judged = levels >= 0
    items, item = numbered(_items(votes)[judged])
    flat = np.bincount(item * size + levels[judged], minlength=len(items) * size)
    counts = flat.reshape(len(items), size).astype(np.float64)
    shared: FloatArray = counts[counts.sum(axis=1) >= 2]
    return shared


def _grade_levels(votes: Votes, criterion: int) -> IntArray:
    grades = votes.grades[:, criterion].astype(np.int64)
    return np.where(grades == NO_GRADE, -1, grades + 2)


def _names_of(votes: Votes) -> IntArray:
    return np.where(votes.outcome == CANNOT_JUDGE, -1, votes.outcome.astype(np.int64))


def _alpha_figure(counts: FloatArray, confidence: float) -> Figure:
    if not len(counts):
        return Figure(None, 0, reason=Reason.NO_SHARED_ITEMS)
    size = counts.shape[1]
    return jackknifed(
        coincidences(counts).reshape(len(counts), size * size),
        lambda sums: alpha_ordinal(sums.reshape(-1, size, size)),
        n=int(counts.sum()),
        confidence=confidence,
    )


def coincidences(counts: FloatArray) -> FloatArray:
    """Each item's part of the coincidence matrix: (c cᵀ - diag c) / (m - 1) for its m judgements."""
    together = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[1])
    parts: FloatArray = together / (counts.sum(axis=1) - 1)[:, None, None]
    return parts


def alpha_ordinal(matrices: FloatArray) -> FloatArray:
    """Krippendorff's α of coincidence matrices, with his ordinal distance; NaN where nothing varies.

    The distance of two levels is the number of judgements between their middles, squared (Content Analysis, 4th ed.
    2018, section 12.3).
    """
    by_level = matrices.sum(axis=2)
    total = by_level.sum(axis=1)
    middle = np.cumsum(by_level, axis=1) - by_level / 2
    distance = (middle[:, :, None] - middle[:, None, :]) ** 2
    observed = (matrices * distance).sum(axis=(1, 2))
    expected = (by_level[:, :, None] * by_level[:, None, :] * distance).sum(axis=(1, 2))
    ratio = np.divide(observed * (total - 1), expected, out=np.full(len(total), np.nan), where=expected > 0)
    alpha: FloatArray = 1 - ratio
    return alpha


def _kappa_figure(counts: FloatArray, confidence: float) -> Figure:
    if not len(counts):
        return Figure(None, 0, reason=Reason.NO_SHARED_ITEMS)
    return jackknifed(kappa_parts(counts), fleiss_kappa, n=int(counts.sum()), confidence=confidence)


def kappa_parts(counts: FloatArray) -> FloatArray:
    """Per item: the share of its pairs of reviewers that agree, 1, and how often each outcome was named."""
    judged = counts.sum(axis=1)
    agreed = (counts * (counts - 1)).sum(axis=1) / (judged * (judged - 1))
    return np.column_stack((agreed, np.ones(len(counts)), counts))


def fleiss_kappa(sums: FloatArray) -> FloatArray:
    """(agreement - chance) / (1 - chance) of sums of parts; chance from how often each outcome was named."""
    agreed = sums[:, 0] / sums[:, 1]
    shares = sums[:, 2:] / sums[:, 2:].sum(axis=1, keepdims=True)
    chance = (shares**2).sum(axis=1)
    kappa: FloatArray = np.divide(agreed - chance, 1 - chance, out=np.full(len(sums), np.nan), where=chance < 1)
    return kappa


# --- the same reviewer twice --------------------------------------------------------------------------------


def _repeats(votes: Votes) -> tuple[FloatArray, FloatArray, FloatArray]:
    """By reviewer: repeats judged alike, judged the other way round, and compared at all.

    A repeat is compared with the same reviewer's vote on the same prompt and pair; one without such a vote, or with a
    side that could not be judged, is not compared.
    """
    usable = votes.where((votes.outcome != CANNOT_JUDGE) & ~votes.is_attention)
    key = usable.reviewer * (len(votes.prompts) * len(votes.models) ** 2) + _items(usable)
    first, again = np.flatnonzero(~usable.is_repeat), np.flatnonzero(usable.is_repeat)
    keys, where = np.unique(key[first], return_index=True)
    at = np.searchsorted(keys, key[again])
    is_met = (at < len(keys)) & (keys[np.minimum(at, len(keys) - 1)] == key[again]) if len(keys) else at < 0
    before, after = first[where[at[is_met]]], again[is_met]
    size = len(votes.reviewers)
    same = usable.outcome[before] == usable.outcome[after]
    opposite = np.abs(usable.points[before] - usable.points[after]) == 1
    by_reviewer = usable.reviewer[after]
    return (
        np.bincount(by_reviewer, same, size).astype(np.float64),
        np.bincount(by_reviewer, opposite, size).astype(np.float64),
        np.bincount(by_reviewer, minlength=size).astype(np.float64),
    )


def _of_repeats(hits: FloatArray, compared: FloatArray, confidence: float) -> Figure:
    if not compared.any():
        return Figure(None, 0, reason=Reason.NO_REPEATS)
    return clustered_share(hits, compared, confidence=confidence)


# --- one impression or several ------------------------------------------------------------------------------


def _halo(votes: Votes, one: int, other: int, confidence: float) -> Figure:
    both = (votes.grades[:, one] != NO_GRADE) & (votes.grades[:, other] != NO_GRADE)
    graded = votes.where(both)
    if not len(graded):
        return Figure(None, 0, reason=Reason.NOT_RECORDED)
    x, y = (_beyond_pair(graded, criterion) for criterion in (one, other))
    reviewers, reviewer = numbered(graded.reviewer)
    sums = [np.bincount(reviewer, product, len(reviewers)) for product in (x * x, y * y, x * y)]
    return jackknifed(np.column_stack(sums), _correlation, n=len(graded), confidence=confidence)


def _beyond_pair(votes: Votes, criterion: int) -> FloatArray:
    """Grades less the mean grade of their pair of models."""
    grades = votes.grades[:, criterion].astype(np.float64)
    pairs, pair = numbered(votes.model_a * len(votes.models) + votes.model_b)
    means = np.bincount(pair, grades, len(pairs)) / np.bincount(pair, minlength=len(pairs))
    beyond: FloatArray = grades - means[pair]
    return beyond


def _correlation(sums: FloatArray) -> FloatArray:
    scale = np.sqrt(np.maximum(sums[:, 0] * sums[:, 1], 0.0))
    r: FloatArray = np.divide(sums[:, 2], scale, out=np.full(len(sums), np.nan), where=scale > 1e-12)
    return r


def _all_alike(votes: Votes, confidence: float) -> Figure:
    if len(votes.criteria) < 2:
        return Figure(None, 0, reason=Reason.NOT_RECORDED)
    graded = votes.where((votes.grades != NO_GRADE).all(axis=1))
    alike = (graded.grades == graded.grades[:, :1]).all(axis=1)
    size = len(votes.reviewers)
    n = np.bincount(graded.reviewer, minlength=size).astype(np.float64)
    hits = np.bincount(graded.reviewer, alike, size).astype(np.float64)
    return clustered_share(hits, n, confidence=confidence)
