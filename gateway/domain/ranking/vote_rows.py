"""Votes in words, one a row, read strictly into columns. Where rows are stored and exported is not known here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gateway.domain.ranking.votes import NO_GRADE, UNKNOWN, FloatArray, IntArray, Votes, columns_of_votes, read_outcome


@dataclass(frozen=True, slots=True)
class VoteRow:
    """One vote in words."""

    reviewer: str
    prompt: str
    model_a: str
    model_b: str
    outcome: str
    grades: Mapping[str, int] = field(default_factory=dict)
    """By criterion, -2 (B far better) to +2 (A far better); a criterion that was not judged is absent."""
    is_repeat: bool = False
    """Shown a second time, sides swapped, to see whether the reviewer agrees with themself."""
    is_attention: bool = False
    recognised: bool = False
    """The reviewer ticked "I think I recognised a model"."""
    industry: str | None = None
    seconds: float | None = None
    """From seeing the item to submitting it."""
    style_a: Mapping[str, float] | None = None
    style_b: Mapping[str, float] | None = None


def read_votes(
    rows: Iterable[VoteRow], *, models: Sequence[str], criteria: Sequence[str] = (), features: Sequence[str] = ()
) -> Votes:
    """Columns from rows. `models` are those of the round, whether or not anyone judged them.

    Reviewers, prompts and industries are numbered in the order of their names, so that the order of the rows changes
    no code. Raises ValueError, with the row's number, for an unknown outcome, model, criterion or grade.
    """
    listed = list(rows)
    for number, row in enumerate(listed):
        _check_row(number, row, models, criteria)
    reviewers = _names(row.reviewer for row in listed)
    prompts = _names(row.prompt for row in listed)
    industries = _names(row.industry for row in listed if row.industry is not None)
    return columns_of_votes(
        models=models,
        reviewers=reviewers,
        prompts=prompts,
        reviewer=_codes(reviewers, [row.reviewer for row in listed]),
        prompt=_codes(prompts, [row.prompt for row in listed]),
        model_a=_codes(models, [row.model_a for row in listed]),
        model_b=_codes(models, [row.model_b for row in listed]),
        outcome=np.array([read_outcome(row.outcome).code for row in listed], dtype=np.int8),
        criteria=criteria,
        grades=np.array(
            [[row.grades.get(name, NO_GRADE) for name in criteria] for row in listed], dtype=np.int8
        ).reshape(len(listed), len(criteria)),
        is_repeat=np.array([row.is_repeat for row in listed], dtype=np.bool_),
        is_attention=np.array([row.is_attention for row in listed], dtype=np.bool_),
        recognised=np.array([row.recognised for row in listed], dtype=np.bool_),
        industries=industries,
        industry=_codes(industries, [row.industry for row in listed]),
        seconds=np.array([np.nan if row.seconds is None else row.seconds for row in listed], dtype=np.float64),
        features=features,
        style_a=_styles(features, [row.style_a for row in listed]),
        style_b=_styles(features, [row.style_b for row in listed]),
    )


def _check_row(number: int, row: VoteRow, models: Sequence[str], criteria: Sequence[str]) -> None:
    try:
        read_outcome(row.outcome)
    except ValueError as error:
        raise ValueError(f"vote {number}: {error}") from None
    for model in (row.model_a, row.model_b):
        if model not in models:
            raise ValueError(f"vote {number}: expected a model of the round ({', '.join(models)}), got {model!r}")
    for name, grade in row.grades.items():
        if name not in criteria:
            raise ValueError(f"vote {number}: expected a criterion of {', '.join(criteria)}, got {name!r}")
        if grade not in range(-2, 3):
            raise ValueError(f"vote {number}: {name}: expected a grade from -2 to 2, got {grade!r}")


def _names(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(found)))


def _codes(names: Sequence[str], labels: Sequence[str | None]) -> IntArray:
    positions = {name: code for code, name in enumerate(names)}
    return np.array([UNKNOWN if label is None else positions[label] for label in labels], dtype=np.int64)


def _styles(features: Sequence[str], styles: Sequence[Mapping[str, float] | None]) -> FloatArray:
    rows = [[np.nan if style is None else style.get(name, np.nan) for name in features] for style in styles]
    return np.array(rows, dtype=np.float64).reshape(len(styles), len(features))
