"""What a batch of comparisons says: figures per model, and per pair of models the difference on the same prompts.

The unit is the prompt. Repeats of one prompt are not independent, so they are first reduced to their median, and every
n counts prompts. What may not be counted (an answer that failed, timings that are not comparable) is left out and
counted by its reason. Asking models, and reading what was stored, do not belong here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import combinations

from gateway.domain.comparability import GPU_TIME_BASES
from gateway.domain.records import Cost, Provenance, Timing, Usage
from gateway.domain.stats import Interval, Summary, binomial_cdf, percentile, percentile_interval, summarise

SECONDS, TOKENS = "s", "tokens"
FAILED = "no complete answer"


@dataclass(frozen=True, slots=True)
class Observation:
    """One model's answer to one prompt in one repeat."""

    prompt: str
    repeat: int
    model: str
    failure: str | None
    """Its error's code; None where it answered."""
    provenance: Provenance
    usage: Usage
    timing: Timing
    cost: Cost
    finish_reason: str | None = None
    incomparable: str | None = None
    """Why the timings of its comparison may not be held against each other; None where they may."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric's value of one observation, or why there is none."""

    value: float | None
    unit: str
    reason: str | None = None


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
    """None where its answers differ, or there are none."""
    figures: Mapping[str, Figure]
    spent: Mapping[str, Decimal]
    """Sum of all known costs by currency, exact."""
    cost_unknown: int
    """Answers whose cost is not known; they are in no sum."""


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
    by_model: dict[str, dict[tuple[str, int], Observation]] = {model: {} for model in models}
    for seen in observations:
        if seen.model in by_model:
            by_model[seen.model][seen.prompt, seen.repeat] = seen
    return BatchStatistics(
        models=tuple(_model_statistics(model, list(by_model[model].values())) for model in models),
        pairs=tuple(
            PairStatistics(
                first,
                second,
                {name: _paired(read, by_model[first], by_model[second]) for name, read in METRICS.items()},
            )
            for first, second in combinations(models, 2)
        ),
    )


# --- metrics ------------------------------------------------------------------------------------------------


def _timing(span: Callable[[Timing], float | None]) -> Callable[[Observation], Reading]:
    def read(seen: Observation) -> Reading:
        if seen.failure is not None:
            return Reading(None, SECONDS, FAILED)
        if seen.incomparable is not None:
            return Reading(None, SECONDS, seen.incomparable)
        value = span(seen.timing)
        return Reading(value, SECONDS, None if value is not None else "not measurable for this answer")

    return read


def _count(tokens: Callable[[Usage], int | None]) -> Callable[[Observation], Reading]:
    def read(seen: Observation) -> Reading:
        if seen.failure is not None:
            return Reading(None, TOKENS, FAILED)
        value = tokens(seen.usage)
        return Reading(value, TOKENS, None if value is not None else "the engine did not say")

    return read


def _cost(seen: Observation) -> Reading:
    """Money as a float: for medians and differences only. GPU time is a timing and stands or falls with these."""
    unit = f"{seen.cost.currency} by {seen.cost.basis}"
    if seen.failure is not None:
        return Reading(None, unit, FAILED)
    if seen.cost.amount is None:
        return Reading(None, unit, seen.cost.reason or "the cost is unknown")
    if seen.cost.basis in GPU_TIME_BASES and seen.incomparable is not None:
        return Reading(None, unit, seen.incomparable)
    return Reading(float(seen.cost.amount), unit)


METRICS: Mapping[str, Callable[[Observation], Reading]] = {
    "ttft_s": _timing(lambda timing: timing.ttft_s),
    "tpot_s": _timing(lambda timing: timing.tpot_s),
    "e2e_s": _timing(lambda timing: timing.e2e_s),
    "prompt_tokens": _count(lambda usage: usage.prompt_tokens),
    "completion_tokens": _count(lambda usage: usage.completion_tokens),
    "cost": _cost,
}


# --- one model ----------------------------------------------------------------------------------------------


def _model_statistics(model: str, seen: Sequence[Observation]) -> ModelStatistics:
    answered = [one for one in seen if one.failure is None]
    kinds = {one.provenance for one in answered}
    spent: dict[str, Decimal] = {}
    for one in seen:
        if one.cost.amount is not None and one.cost.currency is not None:
            spent[one.cost.currency] = spent.get(one.cost.currency, Decimal(0)) + one.cost.amount
    return ModelStatistics(
        model=model,
        asked=len(seen),
        answered=len(answered),
        failures=_counted(one.failure for one in seen if one.failure is not None),
        finish_reasons=_counted(one.finish_reason or "none" for one in answered),
        provenance=kinds.pop() if len(kinds) == 1 else None,
        figures={name: _figure(read, seen) for name, read in METRICS.items()},
        spent=spent,
        cost_unknown=sum(one.cost.amount is None for one in answered),
    )


def _figure(read: Callable[[Observation], Reading], seen: Sequence[Observation]) -> Figure:
    readings = [(one.prompt, read(one)) for one in seen]
    unit = next(
        (reading.unit for _, reading in readings if reading.value is not None), readings[0][1].unit if readings else ""
    )
    by_prompt: dict[str, list[float]] = {}
    excluded: list[str] = []
    for prompt, reading in readings:
        if reading.value is None:
            excluded.append(reading.reason or "unknown")
        elif reading.unit != unit:
            excluded.append(f"in {reading.unit}, not in {unit}")
        else:
            by_prompt.setdefault(prompt, []).append(reading.value)
    return Figure(
        unit=unit,
        summary=summarise([percentile(values, 50) for values in by_prompt.values()]),
        answers=sum(map(len, by_prompt.values())),
        excluded=_counted(excluded),
    )


# --- two models ---------------------------------------------------------------------------------------------


def _paired(
    read: Callable[[Observation], Reading],
    first: Mapping[tuple[str, int], Observation],
    second: Mapping[tuple[str, int], Observation],
) -> PairedFigure:
    pairs: dict[str, list[tuple[float, float]]] = {}
    excluded: list[str] = []
    unit: str | None = None
    for key in first.keys() & second.keys():
        one, other = read(first[key]), read(second[key])
        if one.value is None or other.value is None:
            excluded.append(one.reason or other.reason or "unknown")
        elif one.unit != other.unit or unit not in (None, one.unit):
            excluded.append("in different units")
        else:
            unit = one.unit
            pairs.setdefault(key[0], []).append((one.value, other.value))
    return _contrast(unit or "", list(pairs.values()), _counted(excluded))


def _contrast(unit: str, prompts: Sequence[Sequence[tuple[float, float]]], excluded: Mapping[str, int]) -> PairedFigure:
    if not prompts:
        return PairedFigure(unit, 0, excluded=excluded)
    differences = [percentile([one - other for one, other in repeats], 50) for repeats in prompts]
    lower, upper = sum(d < 0 for d in differences), sum(d > 0 for d in differences)
    ratios: list[float] | None = None
    if all(one > 0 and other > 0 for repeats in prompts for one, other in repeats):
        ratios = [percentile([one / other for one, other in repeats], 50) for repeats in prompts]
    return PairedFigure(
        unit=unit,
        n=len(prompts),
        first_median=percentile([percentile([one for one, _ in repeats], 50) for repeats in prompts], 50),
        second_median=percentile([percentile([other for _, other in repeats], 50) for repeats in prompts], 50),
        difference=percentile(differences, 50),
        difference_interval=percentile_interval(differences, 50),
        ratio=percentile(ratios, 50) if ratios is not None else None,
        ratio_interval=percentile_interval(ratios, 50) if ratios is not None else None,
        first_lower=lower,
        equal=len(differences) - lower - upper,
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


def _counted(words: Iterable[str]) -> dict[str, int]:
    """How often each stands there, the most frequent first."""
    return dict(sorted(Counter(words).items(), key=lambda pair: (-pair[1], pair[0])))
