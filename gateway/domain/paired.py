"""What a batch of comparisons says: figures per model, and per pair of models the difference on the same prompts.

The unit is the prompt. Repeats of one prompt are not independent, so they are first reduced to their median, and every
n counts prompts. What may not be counted (an answer that failed, timings that are not comparable, an answer of another
provenance than most) is left out and counted by its reason. How answers become columns is `observations`; asking
models, and reading what was stored, do not belong here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gateway.domain.observations import ABSENT, COUNTED, BatchAnswers, Column, FloatGrid, IntGrid, Observation, Words
from gateway.domain.records import Provenance
from gateway.domain.stats import Interval, Summary, binomial_cdf, median_with_interval, summarise

DIFFERENT_UNITS = "in different units"


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one model over prompts."""

    unit: str
    summary: Summary
    answers: int
    """Values that entered, repeats included."""
    excluded: Mapping[str, int]
    """Answers that did not, by reason."""


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    model: str
    asked: int
    answered: int
    failures: Mapping[str, int]
    """By error code."""
    finish_reasons: Mapping[str, int]
    provenance: Provenance | None
    """What most of its answers come from, and all of its figures; None without answers."""
    figures: Mapping[str, Figure]
    spent: Mapping[str, Decimal]
    """Sum of all known costs by currency, exact: of answers, of failures, and of what was asked again."""
    cost_unknown: int
    """Answers whose cost is not known; they are in no sum."""
    asked_again: int
    """Answers and failures in comparisons that do not count, because their prompt was asked again."""


@dataclass(frozen=True, slots=True)
class PairedFigure:
    """One metric of two models on the same prompts, each in the same comparison. Below n = 6 there is no interval.

    `difference` is the median over prompts of (first - second), `ratio` that of first / second. Their 95 % intervals
    invert the sign test: from one order statistic of the differences to another, valid for any continuous distribution
    (W. J. Conover, Practical Nonparametric Statistics, 3rd ed. 1999, sections 3.1 and 3.4).
    """

    unit: str
    n: int
    first_median: float | None = None
    second_median: float | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    ratio: float | None = None
    """None where a value is 0 or below."""
    ratio_interval: Interval | None = None
    first_lower: int = 0
    equal: int = 0
    second_lower: int = 0
    p_value: float | None = None
    """Exact two-sided sign test; prompts on which both are equal do not count. None without any other."""
    excluded: Mapping[str, int] = field(default_factory=dict)
    """Comparisons that did not enter, by reason."""


@dataclass(frozen=True, slots=True)
class PairStatistics:
    first: str
    second: str
    figures: Mapping[str, PairedFigure]


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    models: tuple[ModelStatistics, ...]
    pairs: tuple[PairStatistics, ...]


def batch_statistics(models: Sequence[str], observations: Iterable[Observation]) -> BatchStatistics:
    """Statistics for `models`, in their order; every pair once, the earlier model first."""
    answers = BatchAnswers(models)
    for seen in observations:
        answers.add(seen)
    return summed_up(answers)


def summed_up(answers: BatchAnswers) -> BatchStatistics:
    """The statistics of all that was added, the same in whatever order."""
    columns = {model: answers.columns(model) for model in answers.models}
    words = answers.words
    return BatchStatistics(
        models=tuple(_model_statistics(model, answers, columns[model]) for model in columns),
        pairs=tuple(
            PairStatistics(
                first,
                second,
                {name: _paired(column, columns[second][name], words) for name, column in columns[first].items()},
            )
            for first, second in combinations(columns, 2)
        ),
    )


# --- one model ----------------------------------------------------------------------------------------------


def _model_statistics(model: str, answers: BatchAnswers, columns: Mapping[str, Column]) -> ModelStatistics:
    seen = answers.models[model]
    return ModelStatistics(
        model=model,
        asked=seen.asked,
        answered=seen.provenances.total(),
        failures=_counted(seen.failures),
        finish_reasons=_counted(seen.finish_reasons),
        provenance=seen.provenance,
        figures={name: _figure(column, answers.words) for name, column in columns.items()},
        spent=seen.spent,
        cost_unknown=seen.cost_unknown,
        asked_again=seen.asked_again,
    )


def _figure(column: Column, words: Words) -> Figure:
    unit, reasons = _of_one_unit(column.units, column.reasons, words)
    counted = reasons == COUNTED
    return Figure(
        unit=unit,
        summary=summarise(prompt_medians(np.where(counted, column.values, np.nan))),
        answers=int(counted.sum()),
        excluded=_reasons_counted(reasons, words),
    )


# --- two models ---------------------------------------------------------------------------------------------


def _paired(first: Column, second: Column, words: Words) -> PairedFigure:
    reasons = np.where(first.reasons == COUNTED, second.reasons, first.reasons)
    reasons[(first.reasons == ABSENT) | (second.reasons == ABSENT)] = ABSENT
    reasons[(reasons == COUNTED) & (first.units != second.units)] = words.number(DIFFERENT_UNITS)
    unit, reasons = _of_one_unit(first.units, reasons, words)
    counted = reasons == COUNTED
    prompts = counted.any(axis=1)
    values, others = (np.where(counted, column.values, np.nan)[prompts] for column in (first, second))
    return _contrast(unit, values, others, _reasons_counted(reasons, words))


def _contrast(unit: str, first: FloatGrid, second: FloatGrid, excluded: Mapping[str, int]) -> PairedFigure:
    """Both grids have their numbers in the same cells, and at least one in each row."""
    if not len(first):
        return PairedFigure(unit, 0, excluded=excluded)
    differences = prompt_medians(first - second)
    difference, difference_interval = median_with_interval(differences)
    ratio, ratio_interval = None, None
    if not ((first <= 0) | (second <= 0)).any():
        ratio, ratio_interval = median_with_interval(prompt_medians(first / second))
    lower, upper = int((differences < 0).sum()), int((differences > 0).sum())
    return PairedFigure(
        unit=unit,
        n=len(first),
        first_median=median_with_interval(prompt_medians(first))[0],
        second_median=median_with_interval(prompt_medians(second))[0],
        difference=difference,
        difference_interval=difference_interval,
        ratio=ratio,
        ratio_interval=ratio_interval,
        first_lower=lower,
        equal=len(first) - lower - upper,
        second_lower=upper,
        p_value=sign_test(lower, upper),
        excluded=excluded,
    )


def sign_test(lower: int, upper: int) -> float | None:
    """Exact two-sided p-value of `lower` against `upper` when both were equally likely; None without either.

    Twice the smaller tail of Binomial(lower + upper, 1/2), at most 1.
    """
    if lower < 0 or upper < 0:
        raise ValueError(f"expected counts, got {lower} and {upper}")
    if lower + upper == 0:
        return None
    return min(1.0, 2 * float(binomial_cdf(lower + upper, 0.5)[min(lower, upper)]))


# --- grids --------------------------------------------------------------------------------------------------


def prompt_medians(values: FloatGrid) -> NDArray[np.float64]:
    """The median of each row's numbers; a row of NaN alone gives none."""
    ascending = values if values.shape[1] == 1 else np.sort(values, axis=1)  # NaN comes last
    counts = (~np.isnan(ascending)).sum(axis=1)
    rows = np.flatnonzero(counts)
    low, high = ascending[rows, (counts[rows] - 1) // 2], ascending[rows, counts[rows] // 2]
    medians: NDArray[np.float64] = np.clip(low * 0.5 + high * 0.5, low, high)
    return medians


def _of_one_unit(units: IntGrid, reasons: IntGrid, words: Words) -> tuple[str, IntGrid]:
    """The unit of most values, and the reasons with all others left out. Of equally frequent ones the first by name."""
    numbers, counts = np.unique(units[reasons == COUNTED], return_counts=True)
    if not len(numbers):
        return "", reasons
    by_name = sorted(zip(counts.tolist(), numbers.tolist(), strict=True), key=lambda pair: (-pair[0], words[pair[1]]))
    unit = words[by_name[0][1]]
    if len(by_name) > 1:
        reasons = reasons.copy()
        for _, number in by_name[1:]:
            reasons[(reasons == COUNTED) & (units == number)] = words.number(f"in {words[number]}, not in {unit}")
    return unit, reasons


def _reasons_counted(reasons: IntGrid, words: Words) -> dict[str, int]:
    numbers, counts = np.unique(reasons[reasons > COUNTED], return_counts=True)
    return _counted({words[number]: count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)})


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    """The most frequent first."""
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
