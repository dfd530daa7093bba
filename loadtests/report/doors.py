"""What the gateway adds to a latency: dots with their intervals, and the table behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.markup import Node, element
from gateway.rounds.report.charts import Axis, Mark, dot_whiskers
from gateway.rounds.report.charts import Row as Bar
from loadtests.cells import DoorShare, Run
from loadtests.report.charts import scale_of
from loadtests.report.conclusions import door_is_valid
from loadtests.report.figure_words import metric_name, milliseconds
from loadtests.report.tables import Missing, Number, Row, Shown
from loadtests.report.view import View


def doors(view: View) -> Iterator[Node]:
    found = [(run, one) for run in view.runs for one in run.doors]
    if not found:
        return
    drawn = [(run, one) for run, one in found if door_is_valid(run, one.cell)]
    if drawn:
        bars = [_bar(view, run, one) for run, one in drawn]
        axis = _axis([one for _, one in drawn])
        yield element("figure", {"class": "dots"}, dot_whiskers(bars, axis, label=view.word("chart_doors")))
    numbers = ("direct_p50", "gateway_p50", "added", "interval", "pairs")
    heads = view.heads("run", "cell", "metric", *numbers, numbers=numbers)
    yield from view.table(heads, (_row(view, run, one) for run, one in found), view.word("chart_doors"))


def _bar(view: View, run: Run, one: DoorShare) -> Bar:
    span = _span(one)
    name = metric_name(one.metric, view.language)
    under = f"{view.label(run)}, {one.cell}" if view.is_comparison else one.cell
    return Bar(name, (Mark(1000 * one.added_s, span),), f"{milliseconds(one.added_s)} ms", _between(one), under)


def _between(one: DoorShare) -> str:
    if one.added_low_s is None or one.added_high_s is None:
        return ""
    return f"[{milliseconds(one.added_low_s)}, {milliseconds(one.added_high_s)}]"


def _span(one: DoorShare) -> tuple[float, float] | None:
    if one.added_low_s is None or one.added_high_s is None:
        return None
    return 1000 * one.added_low_s, 1000 * one.added_high_s


def _axis(found: Sequence[DoorShare]) -> Axis:
    """Round milliseconds around everything and 0, which is no difference."""
    values = [1000 * one.added_s for one in found]
    values += [end for one in found if (span := _span(one)) is not None for end in span]
    scale = scale_of([0.0, *values])
    return Axis(scale.low, scale.high, tuple((tick.value, f"{tick.text} ms") for tick in scale.ticks), middle=0.0)


def _row(view: View, run: Run, one: DoorShare) -> Row:
    begin: list[Shown] = [view.label(run), one.cell, metric_name(one.metric, view.language)]
    if not door_is_valid(run, one.cell):
        invalid = next((cell for cell in run.cells if cell.id == one.cell and not cell.is_valid), None)
        return [*begin, Missing("not_recorded") if invalid is None else view.invalid(invalid)]
    return [
        *begin,
        *(Number(milliseconds(value)) for value in (one.direct_p50_s, one.gateway_p50_s, one.added_s)),
        Number(_between(one)) if _between(one) else Missing("few_pairs"),
        Number(f"{one.pairs:,}"),
    ]
