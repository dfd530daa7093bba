"""Two runs beside each other: the ratio of each figure, with its interval, and whether they differ at all.

The repeat is the unit: requests of one repeat share its engine, its cache and its minute, so they are no independent
evidence of a difference. Welch's interval on the logarithms of the repeats' figures; with fewer than two repeats a
side there is a ratio and no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from loadtests.cells import CellSeen, Repeat, Run

CONFIDENCE = 0.95
OF_OBJECTIVES = ("goodput_per_s", "attainment_percent")
"""Compared only under the same objectives."""
OF_MONEY = ("cost_per_mtok_out",)
"""Compared only in the same currency."""


class Difference(NamedTuple):
    """One figure of one cell in both runs. `ratio` = after / before."""

    cell: str
    door: str
    metric: str
    before: float
    after: float
    ratio: float | None
    low: float | None
    high: float | None
    repeats: tuple[int, int]
    says: str
    """higher | lower | not_distinguishable | too_few_repeats | fell_to_0 | rose_from_0 (without a ratio)."""


class Incomparable(NamedTuple):
    """Why a cell, or all of two runs, cannot be compared."""

    cell: str | None
    why: str


FIGURES: dict[str, Callable[[Repeat], float | None]] = {
    "ttft_p50_s": lambda one: one.latencies.ttft_s.p50,
    "ttft_p95_s": lambda one: one.latencies.ttft_s.p95,
    "tpot_p50_s": lambda one: one.latencies.tpot_s.p50,
    "itl_p95_s": lambda one: one.latencies.itl_s.p95,
    "e2e_p50_s": lambda one: one.latencies.e2e_s.p50,
    "output_tokens_per_s": lambda one: one.rates.output_tokens_per_s,
    "requests_per_s": lambda one: one.rates.requests_per_s,
    "goodput_per_s": lambda one: one.rates.goodput_per_s,
    "attainment_percent": lambda one: one.rates.attainment_percent,
    "answered_percent": lambda one: _answered(one),
    "cost_per_mtok_out": lambda one: None if one.cost_per_mtok_out is None else float(one.cost_per_mtok_out),
}


def compare_runs(before: Run, after: Run) -> tuple[list[Difference], list[Incomparable]]:
    """Every figure of every cell that both have, and why others are not compared. Provenances must be alike."""
    if before.workload_sha256 != after.workload_sha256:
        return [], [Incomparable(None, "their workloads differ: the same texts and lengths are needed")]
    if (before.gpu, before.gpus) != (after.gpu, after.gpus):
        why = f"one ran on {_gpus(before)}, the other on {_gpus(after)}"
        return [], [Incomparable(None, why)]
    if before.provenance != after.provenance:
        why = f"one is {before.provenance}, the other {after.provenance}: such times do not compare"
        return [], [Incomparable(None, why)]
    found, refused = [], []
    others = {(cell.id, cell.door): cell for cell in after.cells}
    for cell in before.cells:
        other = others.pop((cell.id, cell.door), None)
        if other is None:
            refused.append(Incomparable(cell.id, "only the first run has it"))
        elif reason := _why_not(cell, other):
            refused.append(Incomparable(cell.id, reason))
        else:
            found += compare_cells(cell, other)
    refused += [Incomparable(name, "only the second run has it") for name, _ in others]
    return found, refused


def compare_cells(before: CellSeen, after: CellSeen) -> list[Difference]:
    """Every figure that both cells have in all repeats."""
    found = []
    is_alike = _objectives_of(before) == _objectives_of(after)
    is_same_money = _currencies_of(before) == _currencies_of(after)
    for metric, of in FIGURES.items():
        if (metric in OF_OBJECTIVES and not is_alike) or (metric in OF_MONEY and not is_same_money):
            continue
        one, other = _values(before.repeats, of), _values(after.repeats, of)
        if one is not None and other is not None:
            found.append(_difference(before, metric, one, other))
    return found


def _objectives_of(cell: CellSeen) -> list[tuple[str, str, str, str | None]]:
    seen = cell.repeats[0].objectives if cell.repeats else []
    return [(one.metric, one.statistic, one.limit, one.attainment_percent) for one in seen]


def _currencies_of(cell: CellSeen) -> set[str | None]:
    return {repeat.currency for repeat in cell.repeats}


def _answered(repeat: Repeat) -> float | None:
    """Of what was offered, what was answered well: whoever refuses half looks fast with the rest."""
    offered = sum(repeat.outcomes.values())
    return 100 * repeat.outcomes.get("ok", 0) / offered if offered else None


def _gpus(run: Run) -> str:
    return f"{run.gpus or 'an unknown number of'} × {run.gpu or 'an unknown GPU'}"


def ratio_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Ratio of the geometric means, after / before, and Welch's 95 % interval on logarithms."""
    a, b = np.log(np.asarray(before, dtype=np.float64)), np.log(np.asarray(after, dtype=np.float64))
    middle = float(b.mean() - a.mean())
    if len(a) < 2 or len(b) < 2:
        return exp(middle), None, None
    va, vb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    if va + vb == 0:
        return exp(middle), exp(middle), exp(middle)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * sqrt(va + vb)
    return exp(middle), exp(middle - half), exp(middle + half)


def _difference(cell: CellSeen, metric: str, before: Sequence[float], after: Sequence[float]) -> Difference:
    repeats = (len(before), len(after))
    means = float(np.mean(before)), float(np.mean(after))
    if not all(after) or not all(before):
        says = "too_few_repeats"
        if all(before) and not any(after):
            says = "fell_to_0"
        elif all(after) and not any(before):
            says = "rose_from_0"
        elif not any(before) and not any(after):
            says = "not_distinguishable"
        return Difference(cell.id, cell.door, metric, *means, None, None, None, repeats, says)
    ratio, low, high = ratio_interval(before, after)
    if low is None or high is None:
        says = "too_few_repeats"
    elif low > 1:
        says = "higher"
    elif high < 1:
        says = "lower"
    else:
        says = "not_distinguishable"
    return Difference(
        cell.id,
        cell.door,
        metric,
        float(np.exp(np.log(before).mean())),
        float(np.exp(np.log(after).mean())),
        ratio,
        low,
        high,
        repeats,
        says,
    )


def _values(repeats: Sequence[Repeat], of: Callable[[Repeat], float | None]) -> list[float] | None:
    values = [of(one) for one in repeats]
    known = [value for value in values if value is not None and value >= 0]
    return known if known and len(known) == len(values) else None


def _why_not(before: CellSeen, after: CellSeen) -> str | None:
    for which, cell in (("first", before), ("second", after)):
        if not cell.is_valid:
            return f"it is invalid in the {which} run"
    if (before.load, before.kind, before.level) != (after.load, after.kind, after.level):
        return f"the load is another: {before.load}, then {after.load}"
    return None
