"""What a run lets one say: which cells count, the middle of repeats with its bounds, knees, frontiers, reasons.

Plain functions from the values of `cells` to values. What they are called in words, and how they are drawn, belongs to
`view` and `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gateway.domain.stats import P99_LEAST_N, percentile
from loadtests.cells import CellSeen, Check, Figure, ObjectiveSeen, Rates, Repeat, Run, SearchSeen, Verdict

LATENCIES = (
    "ttft_s",
    "scheduled_ttft_s",
    "ttfot_s",
    "tpot_s",
    "itl_s",
    "e2e_s",
    "scheduled_e2e_s",
    "output_tokens_per_s_per_user",
)
"""Fields of `cells.Latencies` that are figures, in the order in which they are shown."""
AT_LEAST = frozenset({"output_tokens_per_s", "output_tokens_per_s_per_user", "requests_per_s"})
"""Metrics of objectives that must not be lower than their limit; all others must not be higher."""
_SCHEDULED = {"ttft_s": "scheduled_ttft_s", "e2e_s": "scheduled_e2e_s"}
_MEASURED = frozenset({"refuted (measured)", "holds", "plausible (simulated)", "not met (simulated)"})


@dataclass(frozen=True, slots=True)
class Failure:
    """A check that makes a cell invalid; of all repeats together where `repeat` is None."""

    check: Check
    repeat: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Of several repeats the middle value; the bounds reach from the lowest lower to the highest upper one."""

    value: float
    low: float | None
    high: float | None
    n: int
    """Of the repeat with fewest values."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A cell's place between throughput and latency."""

    cell: CellSeen
    throughput: float
    latency: float
    is_frontier: bool = False
    """No other cell of the same series has at least its throughput and at most its latency."""


# --- what counts --------------------------------------------------------------------------------------------


def failures(cell: CellSeen) -> list[Failure]:
    """What makes a cell invalid. Empty for a valid one, and for one that was never measured."""
    found = [Failure(check, None) for check in cell.checks if check.passed is False]
    for repeat in cell.repeats:
        found.extend(Failure(check, repeat.number) for check in repeat.checks if check.passed is False)
    return found


def plotted(run: Run) -> list[CellSeen]:
    """Cells whose figures may be drawn against their load, by load: valid, steady, with one level of load."""
    cells = [cell for cell in run.cells if cell.is_valid and cell.is_steady and cell.level is not None]
    return sorted(cells, key=lambda cell: (cell.level or 0.0, cell.id))


def rests_on_invalid(run: Run, verdict: Verdict) -> bool:
    """A verdict from measurements whose cells are all invalid: it is none."""
    cells = [cell for cell in run.cells if cell.source(run.id) in verdict.cells]
    return verdict.verdict in _MEASURED and bool(cells) and not any(cell.is_valid for cell in cells)


def cells_in_words(run: Run, verdict: Verdict) -> str:
    """The cells that a verdict rests on, without the run's id where they are its own."""
    return ", ".join(cell.removeprefix("cell ").removesuffix(f" of run {run.id}") for cell in verdict.cells)


def objectives(run: Run) -> list[ObjectiveSeen]:
    """Each objective of the run once, as some repeat states it."""
    found: dict[tuple[str, str, str, str | None], ObjectiveSeen] = {}
    for cell in run.cells:
        for repeat in cell.repeats:
            for one in repeat.objectives:
                found.setdefault((one.metric, one.statistic, one.limit, one.attainment_percent), one)
    return list(found.values())


def is_at_least(metric: str) -> bool:
    return metric in AT_LEAST


# --- several repeats ----------------------------------------------------------------------------------------


def asked_of(kind: str, metric: str) -> str:
    """The field of `Latencies` that an objective on `metric` rests on: in an open loop, from t_sched."""
    return _SCHEDULED.get(metric, metric) if kind == "open" else metric


def figure_of(repeat: Repeat, metric: str) -> Figure:
    found: Figure = getattr(repeat.latencies, metric)
    return found


def latency(cell: CellSeen, metric: str, statistic: str) -> Reading | None:
    """A statistic of a field of `Latencies`; None where any repeat lacks it."""
    figures = [figure_of(repeat, metric) for repeat in cell.repeats]
    values = [getattr(figure, statistic) for figure in figures]
    if not values or None in values:
        return None
    lows = [low for figure in figures if (low := getattr(figure, f"{statistic}_low", None)) is not None]
    highs = [high for figure in figures if (high := getattr(figure, f"{statistic}_high", None)) is not None]
    is_bounded = len(lows) == len(highs) == len(figures)
    return Reading(
        value=percentile(values, 50),
        low=min(lows) if is_bounded else None,
        high=max(highs) if is_bounded else None,
        n=min(figure.n for figure in figures),
    )


def rate(cell: CellSeen, name: str) -> Reading | None:
    """A field of `Rates`; its bounds are the least and the most of the repeats."""
    return _of_repeats(cell, lambda repeat: getattr(repeat.rates, name))


def cost(cell: CellSeen) -> Reading | None:
    """Money for a million output tokens; its bounds are the least and the most of the repeats."""
    if len({repeat.currency for repeat in cell.repeats}) > 1:
        return None
    return _of_repeats(
        cell, lambda repeat: None if repeat.cost_per_mtok_out is None else float(repeat.cost_per_mtok_out)
    )


def _of_repeats(cell: CellSeen, read: Callable[[Repeat], float | None]) -> Reading | None:
    values = [read(repeat) for repeat in cell.repeats]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Reading(percentile(known, 50), min(known), max(known), len(known))


# --- why something is missing -------------------------------------------------------------------------------


def why_no_statistic(figure: Figure, statistic: str) -> str:
    """A code for why a figure lacks this statistic."""
    if figure.n == 0:
        return "no_values"
    return "few_for_p99" if statistic == "p99" and figure.n < P99_LEAST_N else "not_recorded"


def why_no_rate(rates: Rates, name: str) -> str:
    """A code for why a field of `Rates` is None."""
    if name == "output_tokens_per_s_per_gpu":
        return "tokens_unknown" if rates.output_tokens_per_s is None else "gpus_unknown"
    return {
        "characters_per_s": "characters_unknown",
        "goodput_per_s": "no_objectives",
        "attainment_percent": "no_objectives",
        "cached_share": "cache_unknown",
    }.get(name, "tokens_unknown")


# --- knees and frontiers ------------------------------------------------------------------------------------


def knee_cell(run: Run, search: SearchSeen) -> CellSeen | None:
    """The valid cell of the highest load that met every objective."""
    if search.highest_met is None:
        return None
    for cell in run.cells:
        is_it = cell.id in search.tried and cell.door == search.door and cell.level == search.highest_met
        if is_it and cell.is_valid:
            return cell
    return None


def is_beyond(first: SearchSeen, second: SearchSeen) -> bool:
    """Whether every load that the first search leaves open for its knee is above every one of the second's."""
    if first.over != second.over or first.highest_met is None or second.ended in ("invalid", "stopped", "at_most"):
        return False
    return second.lowest_failed is not None and first.highest_met >= second.lowest_failed


def frontier(cells: Iterable[CellSeen], metric: str, statistic: str, throughput: str) -> list[Spot]:
    """Where each cell stands, by throughput; cells that lack either figure are left out."""
    spots = []
    for cell in cells:
        across, up = rate(cell, throughput), latency(cell, asked_of(cell.kind, metric), statistic)
        if across is not None and up is not None:
            spots.append(Spot(cell, across.value, up.value))
    spots.sort(key=lambda spot: (spot.throughput, -spot.latency))
    return [Spot(spot.cell, spot.throughput, spot.latency, not _is_beaten(spot, spots)) for spot in spots]


def _is_beaten(spot: Spot, spots: Sequence[Spot]) -> bool:
    return any(
        other.throughput >= spot.throughput
        and other.latency <= spot.latency
        and (other.throughput, other.latency) != (spot.throughput, spot.latency)
        for other in spots
    )
