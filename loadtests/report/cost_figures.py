"""Cost of a million output tokens against the load, and the table behind it; each currency in a drawing of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.markup import Element, Node, element
from loadtests.cells import CellSeen, Run
from loadtests.readings import Reading, cost, plotted
from loadtests.report.charts import Point, Series, line_chart, scale_of, series_key
from loadtests.report.figure_words import money
from loadtests.report.latency_figures import axis_name, load_axis, reach
from loadtests.report.tables import Missing, Number, Row
from loadtests.report.view import View, paragraph


@dataclass(frozen=True, slots=True)
class _Priced:
    """Cells of one candidate whose cost is known, with their style of drawing."""

    run: Run
    style: int
    cells: tuple[tuple[CellSeen, Reading], ...]

    def series(self, view: View, kind: str, currency: str) -> Series | None:
        points = [
            Point(cell.level or 0.0, one.value, one.low, one.high)
            for cell, one in self.cells
            if (cell.kind, _currency(cell)) == (kind, currency)
        ]
        return Series(view.label(self.run), points, self.style) if points else None


def costs(view: View) -> Iterator[Node]:
    priced = list(_priced(view))
    currencies = sorted({_currency(cell) for one in priced for cell, _ in one.cells})
    panels = [
        (kind, currency, drawn)
        for kind in ("open", "closed")
        for currency in currencies
        if (drawn := [series for one in priced if (series := one.series(view, kind, currency)) is not None])
    ]
    if not panels:
        return
    if view.is_comparison:
        yield series_key(list(dict.fromkeys((one.style, one.name) for _, _, drawn in panels for one in drawn)))
    yield element("figure", {"class": "pair"}, *(_panel(view, *panel) for panel in panels))
    unknown = [view.label(one.run) for one in priced if not one.cells]
    if unknown:
        yield paragraph(view.word("no_price", runs=", ".join(unknown)), "note")
    heads = view.heads("run", "cell", "door", "load", "cost_per_mtok_out", numbers=["cost_per_mtok_out"])
    rows = [_row(view, run, cell) for run in view.runs for cell in plotted(run)]
    yield view.behind(heads, rows, view.word("chart_cost"))


def _priced(view: View) -> Iterator[_Priced]:
    for style, run in enumerate(view.runs):
        cells = [cell for cell in plotted(run) if cell.door == view.main_door(run)]
        yield _Priced(run, style, tuple((cell, one) for cell in cells if (one := cost(cell)) is not None))


def _currency(cell: CellSeen) -> str:
    return cell.repeats[0].currency or ""


def _panel(view: View, kind: str, currency: str, series: Sequence[Series]) -> Element:
    points = [point for one in series for point in one.points]
    x = scale_of([point.x for point in points], may_be_log=True)
    y = scale_of([value for point in points for value in reach(point)], may_be_log=True)
    said = [
        view.word(
            "range",
            name=one.name,
            low=money(min(point.y for point in one.points)),
            high=money(max(point.y for point in one.points)),
        )
        for one in series
    ]
    return line_chart(
        series,
        x,
        y,
        identity=view.identity(),
        title=view.word("chart_cost"),
        description=" ".join([*said, view.word("as_table")]),
        x_name=load_axis(view, kind, x),
        y_name=axis_name(view, view.word("axis_cost", currency=currency), y),
    )


def _row(view: View, run: Run, cell: CellSeen) -> Row:
    one = cost(cell)
    shown: Missing | Number = Missing("mtok_unknown")
    if one is not None and one.low is not None and one.high is not None:
        shown = Number(f"{money(one.value)} {_currency(cell)}".rstrip(), f"({money(one.low)}–{money(one.high)})")
    return [view.label(run), cell.id, view.door(cell.door), view.load(cell), shown]
