"""The figures of each cell, a line a repeat: latency, throughput and cost, objectives, outcomes. No row of an invalid
cell has a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gateway.markup import Element, Node, element
from loadtests.cells import CellSeen, Figure, ObjectiveSeen, Repeat, Run
from loadtests.readings import LATENCIES, figure_of, why_no_rate, why_no_statistic
from loadtests.records import Outcome
from loadtests.report.figure_words import in_unit, metric_name, money, number, objective_words, unit_of, with_unit
from loadtests.report.tables import Foreign, Head, Missing, Number, Row, Shown
from loadtests.report.terms import METRICS, OUTCOMES, PROVENANCE
from loadtests.report.view import View

_PERCENTILES = ("p50", "p90", "p95", "p99")
_MAIN = (
    ("ttft_s", "p50"),
    ("ttft_s", "p95"),
    ("ttft_s", "p99"),
    ("tpot_s", "p50"),
    ("tpot_s", "p95"),
    ("e2e_s", "p95"),
)
_THROUGHPUT = (
    *("offered", "offered_per_s", "requests_per_s", "goodput_per_s", "attainment_percent"),
    *("output_tokens_per_s", "output_tokens_per_s_per_gpu"),
)
_WORK = ("window_s", "input_tokens_per_s", "characters_per_s", "cached_share")
_COSTS = ("tokens_per_event", "cost_per_mtok_out", "gpu_seconds")


def results(view: View) -> Iterator[Node]:
    for run in view.runs:
        if not run.cells:
            continue
        depth = "h3"
        if view.is_comparison:
            yield element("h3", {}, view.label(run))
            depth = "h4"
        for name, make in _TABLES.items():
            yield element(depth, {}, view.word(name))
            yield from make(view, run, f"{view.word(name)}: {view.label(run)}")


# --- rows ---------------------------------------------------------------------------------------------------


def _rows(view: View, run: Run, figures: Callable[[CellSeen, Repeat], Sequence[Shown]]) -> Iterator[Row]:
    """A line a repeat; of an invalid cell one line, which says why."""
    for cell in run.cells:
        begin = (cell.id, view.door(cell.door), view.load(cell))
        if not cell.is_valid:
            yield [*begin, view.invalid(cell)]
        else:
            for repeat in cell.repeats:
                yield [*begin, str(repeat.number), *figures(cell, repeat)]


def _heads(view: View, *more: Head) -> list[Head]:
    return [*view.heads("cell", "door", "load", "repeat"), *more]


def _latencies(view: View, run: Run, caption: str) -> Iterator[Node]:
    heads = [
        Head(f"{metric_name(metric, view.language)} {statistic} ({unit_of(metric, view.language)})", is_number=True)
        for metric, statistic in _MAIN
    ]
    count = view.heads("n", numbers=["n"])
    rows = _rows(view, run, lambda cell, repeat: list(_main(view, repeat)))
    yield from view.table(_heads(view, *count, *heads), rows, caption)
    for cell in run.cells:
        if cell.is_valid:
            yield _every_figure(view, cell)


def _main(view: View, repeat: Repeat) -> Iterator[Shown]:
    yield Number(f"{repeat.latencies.ttft_s.n:,}")
    for metric, statistic in _MAIN:
        yield _statistic(view, metric, figure_of(repeat, metric), statistic)


def _every_figure(view: View, cell: CellSeen) -> Element:
    """All that the records say of a cell's spans, behind a switch."""
    numbers = ("n", "min", "mean", "max")
    of = view.heads("repeat", "metric", *numbers, numbers=numbers)
    heads = [*of[:5], *(Head(name, is_number=True) for name in _PERCENTILES), of[5]]
    name = f"{cell.id} ({view.door(cell.door)})"
    rows = [
        _figure_row(view, repeat.number, metric, figure_of(repeat, metric))
        for repeat in cell.repeats
        for metric in LATENCIES
    ]
    return view.behind(
        heads, rows, view.caption("results", name), summary=view.word("every_figure", cell=name), is_long=True
    )


def _figure_row(view: View, repeat: int, metric: str, figure: Figure) -> Row:
    name = f"{metric_name(metric, view.language)} ({unit_of(metric, view.language)})"
    ends = [view.metric(metric, getattr(figure, one), why_no_statistic(figure, one)) for one in ("min", "mean", "max")]
    percentiles = (_statistic(view, metric, figure, one) for one in _PERCENTILES)
    return [str(repeat), name, Number(f"{figure.n:,}"), *ends[:2], *percentiles, ends[2]]


def _statistic(view: View, metric: str, figure: Figure, statistic: str) -> Shown:
    low, high = getattr(figure, f"{statistic}_low"), getattr(figure, f"{statistic}_high")
    value = getattr(figure, statistic)
    return view.metric(metric, value, why_no_statistic(figure, statistic), view.span(metric, low, high))


# --- throughput and cost ------------------------------------------------------------------------------------


def _throughput(view: View, run: Run, caption: str) -> Iterator[Node]:
    heads = _heads(view, *view.heads(*_THROUGHPUT, numbers=_THROUGHPUT))
    yield from view.table(heads, _rows(view, run, lambda cell, repeat: _rates(repeat, _THROUGHPUT)), caption)


def _work(view: View, run: Run, caption: str) -> Iterator[Node]:
    names = (*_WORK, *_COSTS)
    rows = _rows(view, run, lambda cell, repeat: [*_rates(repeat, _WORK), *_costs(repeat)])
    yield from view.table(_heads(view, *view.heads(*names, numbers=names)), rows, caption)


def _rates(repeat: Repeat, names: Sequence[str]) -> list[Shown]:
    values = [(name, getattr(repeat.rates, name)) for name in names]
    return [Missing(why_no_rate(repeat.rates, name)) if value is None else _rate(name, value) for name, value in values]


def _costs(repeat: Repeat) -> Iterator[Shown]:
    events = repeat.latencies.tokens_per_event
    yield Missing("tokens_unknown") if events is None else Number(number(events, 3))
    yield _amount(repeat.cost_per_mtok_out, repeat.currency, "mtok_unknown")
    yield Missing("gpu_time_unknown") if repeat.gpu_seconds is None else Number(number(repeat.gpu_seconds))


def _repeats(view: View, run: Run, caption: str) -> Iterator[Node]:
    """How each repeat may be found again. Holds no figure, so invalid cells are in it."""
    heads = _heads(view, *view.heads("provenance", "seed", "began_at", "run_id", numbers=["seed"]))
    rows = [
        [cell.id, view.door(cell.door), view.load(cell), str(repeat.number), *_identity(view, repeat)]
        for cell in run.cells
        for repeat in cell.repeats
    ]
    yield view.behind(heads, rows, caption, summary=view.word("every_repeat"), is_long=True)


def _identity(view: View, repeat: Repeat) -> Iterator[Shown]:
    yield view.say(PROVENANCE[repeat.provenance]) if repeat.provenance in PROVENANCE else repeat.provenance
    yield Number(str(repeat.seed))
    yield repeat.began_at
    yield repeat.run_id


def _rate(name: str, value: float) -> Shown:
    match name:
        case "offered":
            return Number(f"{value:,}")
        case "attainment_percent":
            return Number(f"{value:.1f}%")
        case "cached_share":
            return Number(f"{100 * value:.1f}%")
    return Number(number(value))


def _amount(amount: str | None, currency: str | None, why: str) -> Shown:
    return Missing(why) if amount is None else Number(f"{money(amount)} {currency or ''}".rstrip())


# --- objectives ---------------------------------------------------------------------------------------------


def _objectives(view: View, run: Run, caption: str) -> Iterator[Node]:
    names = ("cell", "door", "load", "repeat", "objective", "value", "interval", "n", "met")
    rows = list(_objective_rows(view, run))
    if not any(repeat.objectives for cell in run.cells for repeat in cell.repeats):
        yield element("p", {}, view.word("no_objectives"))
        return
    yield from view.table(view.heads(*names, numbers=["value", "interval", "n"]), rows, caption)


def _objective_rows(view: View, run: Run) -> Iterator[Row]:
    for cell in run.cells:
        begin = (cell.id, view.door(cell.door), view.load(cell))
        if not cell.is_valid:
            yield [*begin, view.invalid(cell)]
            continue
        for repeat in cell.repeats:
            for one in repeat.objectives:
                yield [*begin, str(repeat.number), *_objective(view, one)]


def _objective(view: View, one: ObjectiveSeen) -> Iterator[Shown]:
    yield objective_words(one, view.language)
    why = one.why or "not_recorded"
    if one.value is None:
        yield Missing(why)
        yield Missing(why)
    else:
        yield Number(_measured(view, one, one.value))
        is_bounded = one.low is not None and one.high is not None
        span = "" if one.low is None or one.high is None else f"{_bare(one, one.low)}–{_bare(one, one.high)}"
        yield Number(span) if is_bounded else Missing("no_interval")
    yield Number(f"{one.n:,}")
    yield view.yes(one.met, why)


def _measured(view: View, one: ObjectiveSeen, value: float) -> str:
    if one.statistic == "attainment":
        return f"{value:.1f}%"
    unit = unit_of(one.metric, view.language) if one.metric in METRICS else ""
    return with_unit(_bare(one, value), unit)


def _bare(one: ObjectiveSeen, value: float) -> str:
    if one.statistic == "attainment" or one.metric not in METRICS:
        return number(value)
    return number(in_unit(one.metric, value))


# --- outcomes -----------------------------------------------------------------------------------------------


def _outcomes(view: View, run: Run, caption: str) -> Iterator[Node]:
    """Outcomes that no repeat of a valid cell had are left out, but for the good one."""
    seen = {name for cell in run.cells if cell.is_valid for repeat in cell.repeats for name in repeat.outcomes}
    shown = [outcome for outcome in Outcome if outcome in seen or outcome is Outcome.OK]
    heads = (Head(view.say(OUTCOMES[outcome]), is_number=True) for outcome in shown)
    rows = _rows(view, run, lambda cell, repeat: [*_counts(repeat, shown), _errors(view, repeat)])
    yield from view.table(_heads(view, *heads, *view.heads("errors")), rows, caption)


def _counts(repeat: Repeat, shown: Sequence[Outcome]) -> list[Shown]:
    return [Number(f"{repeat.outcomes.get(outcome, 0):,}") for outcome in shown]


def _errors(view: View, repeat: Repeat) -> Shown:
    if not repeat.errors:
        return view.word("no_errors")
    return Foreign("; ".join(f"{text} ×{count:,}" for text, count in repeat.errors.items()))


_TABLES: dict[str, Callable[[View, Run, str], Iterator[Node]]] = {
    "latencies": _latencies,
    "throughput": _throughput,
    "work": _work,
    "objectives": _objectives,
    "outcomes": _outcomes,
    "repeats": _repeats,
}
"""By the word that is their heading."""
