"""What a vote is, and votes in their thousands as aligned columns: read strictly, sliced, never changed.

A label that is not known is an error, not half a point. Which votes a fit counts is decided here and only here; what
they amount to is every other module's subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
NO_GRADE = -128
"""In a column of grades: this criterion was not judged."""
UNKNOWN = -1
"""In a column of codes: not said."""


class Outcome(StrEnum):
    """The overall choice. Nothing else is one."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    CANNOT_JUDGE = "cannot_judge"

    @property
    def code(self) -> int:
        return _CODES[self]


OUTCOMES = tuple(Outcome)
_CODES = {outcome: code for code, outcome in enumerate(OUTCOMES)}
A, B, TIE, BOTH_BAD, CANNOT_JUDGE = range(len(OUTCOMES))
_POINTS = np.array([1.0, 0.0, 0.5, 0.5, np.nan])
_SWAPPED = np.array([B, A, TIE, BOTH_BAD, CANNOT_JUDGE], dtype=np.int8)


def read_outcome(label: str) -> Outcome:
    """Raises ValueError for anything but the five labels."""
    try:
        return Outcome(label)
    except ValueError:
        raise ValueError(f"outcome: expected one of {', '.join(OUTCOMES)}, got {label!r}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """n votes as columns of length n; codes count into the tuples of names. Raises ValueError for what cannot be."""

    models: tuple[str, ...]
    reviewers: tuple[str, ...]
    prompts: tuple[str, ...]
    reviewer: IntArray
    prompt: IntArray
    model_a: IntArray
    model_b: IntArray
    outcome: NDArray[np.int8]
    """Codes of `OUTCOMES`."""
    criteria: tuple[str, ...] = ()
    grades: NDArray[np.int8]
    """n × criteria, -2 to +2 in favour of A, or `NO_GRADE`."""
    is_repeat: BoolArray
    is_attention: BoolArray
    recognised: BoolArray
    industries: tuple[str, ...] = ()
    industry: IntArray
    """`UNKNOWN` where not said."""
    seconds: FloatArray
    """NaN where not known."""
    features: tuple[str, ...] = ()
    style_a: FloatArray
    """n × features, at least 0; NaN where not known."""
    style_b: FloatArray

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def points(self) -> FloatArray:
        """What A takes of each vote: 1, ½ or 0; NaN for cannot judge."""
        return _POINTS[self.outcome]

    @property
    def counts(self) -> BoolArray:
        """Which votes a fit counts: those that were judged and are neither repeat nor attention item."""
        counted: BoolArray = (self.outcome != CANNOT_JUDGE) & ~self.is_repeat & ~self.is_attention
        return counted

    def where(self, chosen: BoolArray) -> Votes:
        """Those votes only; the names stay, so that codes keep their meaning."""
        columns = {name: getattr(self, name)[chosen] for name in _COLUMNS}
        return replace(self, **columns)

    def of_industry(self, industry: str) -> Votes:
        return self.where(self.industry == _position(self.industries, industry, "industry"))

    def by_criterion(self, criterion: str) -> Votes:
        """The same votes, judged by one criterion: its sign is the outcome, no grade is cannot judge."""
        grade = self.grades[:, _position(self.criteria, criterion, "criterion")]
        outcome = np.select([grade == NO_GRADE, grade > 0, grade < 0], [CANNOT_JUDGE, A, B], TIE)
        return replace(self, outcome=outcome.astype(np.int8))

    def in_order(self) -> Votes:
        """Sorted by all that they say, so that sums over them are the same to the last bit in whatever order."""
        columns = [getattr(self, name) for name in _COLUMNS]
        keys = [part for column in columns for part in (column.T if column.ndim == 2 else (column,))]
        order = np.lexsort(keys[::-1])
        return replace(self, **{name: getattr(self, name)[order] for name in _COLUMNS})

    def swapped(self) -> Votes:
        """The same judgements with A and B in each other's place."""
        turned = np.where(self.grades == NO_GRADE, NO_GRADE, -self.grades.astype(np.int16)).astype(np.int8)
        return replace(
            self,
            model_a=self.model_b,
            model_b=self.model_a,
            outcome=_SWAPPED[self.outcome],
            grades=turned,
            style_a=self.style_b,
            style_b=self.style_a,
        )

    def by_pair(self) -> Votes:
        """The same judgements with the model of the lower code as A, so that votes on one pair can be compared."""
        other = self.swapped()
        is_turned = self.model_a > self.model_b
        columns = {
            name: np.where(_beside(is_turned, getattr(self, name)), getattr(other, name), getattr(self, name))
            for name in ("model_a", "model_b", "outcome", "grades", "style_a", "style_b")
        }
        return replace(self, **columns)


_COLUMNS = (
    *("reviewer", "prompt", "model_a", "model_b", "outcome", "grades", "is_repeat", "is_attention", "recognised"),
    *("industry", "seconds", "style_a", "style_b"),
)


def columns_of_votes(
    *,
    models: Sequence[str],
    reviewers: Sequence[str],
    prompts: Sequence[str],
    reviewer: IntArray,
    prompt: IntArray,
    model_a: IntArray,
    model_b: IntArray,
    outcome: NDArray[np.int8],
    criteria: Sequence[str] = (),
    grades: NDArray[np.int8] | None = None,
    is_repeat: BoolArray | None = None,
    is_attention: BoolArray | None = None,
    recognised: BoolArray | None = None,
    industries: Sequence[str] = (),
    industry: IntArray | None = None,
    seconds: FloatArray | None = None,
    features: Sequence[str] = (),
    style_a: FloatArray | None = None,
    style_b: FloatArray | None = None,
) -> Votes:
    """Votes from columns, with what is left out filled in as not said."""
    n = len(outcome)
    nobody = np.zeros(n, dtype=np.bool_)
    no_style = np.full((n, len(features)), np.nan)
    return Votes(
        models=tuple(models),
        reviewers=tuple(reviewers),
        prompts=tuple(prompts),
        reviewer=reviewer,
        prompt=prompt,
        model_a=model_a,
        model_b=model_b,
        outcome=outcome,
        criteria=tuple(criteria),
        grades=np.full((n, len(criteria)), NO_GRADE, dtype=np.int8) if grades is None else grades,
        is_repeat=nobody if is_repeat is None else is_repeat,
        is_attention=nobody if is_attention is None else is_attention,
        recognised=nobody if recognised is None else recognised,
        industries=tuple(industries),
        industry=np.full(n, UNKNOWN, dtype=np.int64) if industry is None else industry,
        seconds=np.full(n, np.nan) if seconds is None else seconds,
        features=tuple(features),
        style_a=no_style if style_a is None else style_a,
        style_b=no_style if style_b is None else style_b,
    )


# --- checks --------------------------------------------------------------------------------------------------


def _check(votes: Votes) -> None:
    n = len(votes.outcome)
    for name in _COLUMNS:
        if len(getattr(votes, name)) != n:
            raise ValueError(f"{name}: expected {n} values as in outcome, got {len(getattr(votes, name))}")
    for name in ("models", "reviewers", "prompts", "criteria", "industries", "features"):
        if len(set(getattr(votes, name))) != len(getattr(votes, name)):
            raise ValueError(f"{name}: expected every name once")
    _check_codes("reviewer", votes.reviewer, len(votes.reviewers))
    _check_codes("prompt", votes.prompt, len(votes.prompts))
    _check_codes("model_a", votes.model_a, len(votes.models))
    _check_codes("model_b", votes.model_b, len(votes.models))
    _check_codes("outcome", votes.outcome, len(OUTCOMES))
    _check_codes("industry", votes.industry, len(votes.industries), least=UNKNOWN)
    if (votes.model_a == votes.model_b).any():
        where = int(np.flatnonzero(votes.model_a == votes.model_b)[0])
        raise ValueError(f"vote {where}: expected two models, got one against itself")
    _check_grids(votes, n)


def _check_grids(votes: Votes, n: int) -> None:
    if votes.grades.shape != (n, len(votes.criteria)):
        raise ValueError(f"grades: expected {n} × {len(votes.criteria)}, got {votes.grades.shape}")
    if ((votes.grades != NO_GRADE) & ((votes.grades < -2) | (votes.grades > 2))).any():
        raise ValueError(f"grades: expected -2 to 2, or {NO_GRADE} for none")
    for name, style in (("style_a", votes.style_a), ("style_b", votes.style_b)):
        if style.shape != (n, len(votes.features)):
            raise ValueError(f"{name}: expected {n} × {len(votes.features)}, got {style.shape}")
        if (style < 0).any() or np.isinf(style).any():
            raise ValueError(f"{name}: expected finite values of at least 0, or NaN")
    if (votes.seconds < 0).any():
        raise ValueError("seconds: expected at least 0, or NaN")


def _check_codes(name: str, codes: NDArray[np.integer], size: int, *, least: int = 0) -> None:
    if len(codes) and not (least <= int(codes.min()) and int(codes.max()) < size):
        raise ValueError(f"{name}: expected codes from {least} to {size - 1}, got {codes.min()} to {codes.max()}")


def _position(names: Sequence[str], name: str, kind: str) -> int:
    if name not in names:
        raise ValueError(f"{kind}: expected one of {', '.join(names) or 'none'}, got {name!r}")
    return names.index(name)


def _beside(is_turned: BoolArray, column: NDArray[np.generic]) -> BoolArray:
    return is_turned if column.ndim == 1 else is_turned[:, None]
