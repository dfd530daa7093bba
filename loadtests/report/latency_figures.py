"""Latency against the load, with the objectives and the knee drawn as lines, and the table behind each drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation

from gateway.markup import Element, Node, element
from loadtests.cells import CellSeen, ObjectiveSeen, Run
from loadtests.readings import Reading, asked_of, latency, objectives, plotted
from loadtests.report.charts import Limit, Point, Scale, Series, line_chart, scale_of, series_key
from loadtests.report.conclusions import cell_words, why_invalid
from loadtests.report.figure_words import in_unit, metric_name, objective_words, unit_of, with_unit
from loadtests.report.tables import Head, Number, Row
from loadtests.report.view import View, paragraph

STATISTICS = ("p50", "p95", "p99")
_LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
_ALWAYS = ("ttft_s", "tpot_s")
_GROUPS = [(door, kind) for door in ("gateway", "direct") for kind in ("open", "closed")]


# --- latency ------------------------------------------------------------------------------------------------


def latencies(view: View) -> Iterator[Node]:
    drawn = False
    for run in view.runs:
        for door, kind in _GROUPS:
            cells = [cell for cell in plotted(run) if (cell.door, cell.kind) == (door, kind)]
            if cells:
                drawn = True
                yield from _latency_group(view, run, cells)
        yield from not_drawn(view, run)
    if not drawn:
        yield paragraph(view.word("nothing_to_draw"))


def _latency_group(view: View, run: Run, cells: Sequence[CellSeen]) -> Iterator[Node]:
    where = view.group(run, cells[0].door, cells[0].kind)
    named = {one.metric for one in objectives(run)}
    metrics = [metric for metric in _LATENCIES if metric in _ALWAYS or metric in named]
    yield element("h3", {}, where)
    fields = [asked_of(cells[0].kind, metric) for metric in metrics]
    drawn = {one for one in STATISTICS for field in fields for cell in cells if latency(cell, field, one) is not None}
    yield series_key([(place, statistic) for place, statistic in enumerate(STATISTICS) if statistic in drawn])
    panels = (_latency_panel(view, run, cells, metric, where) for metric in metrics)
    yield element("figure", {"class": "pair"}, *panels)
    statistics = [Head(statistic, is_number=True) for statistic in STATISTICS]
    heads = [*view.heads("cell", "load", "metric", "n", numbers=["n"]), *statistics]
    rows = [_latency_row(view, cell, metric) for metric in metrics for cell in cells]
    yield view.behind(heads, rows, view.caption("latency", where))


def _latency_panel(view: View, run: Run, cells: Sequence[CellSeen], metric: str, where: str) -> Element:
    field = asked_of(cells[0].kind, metric)
    series = [
        Series(statistic, _points(field, [(cell, latency(cell, field, statistic)) for cell in cells]), style)
        for style, statistic in enumerate(STATISTICS)
    ]
    limits = [*_objective_limits(view, run, metric), *_knees(view, run, cells)]
    values = [value for one in series for point in one.points for value in reach(point)]
    name = metric_name(field, view.language)
    if not values:
        return element("div", {}, element("h4", {}, name), paragraph(view.word("nothing_to_draw")))
    values += [limit.value for limit in limits if limit.is_across]
    y, x = scale_of(values, may_be_log=True), _load_scale(cells)
    chart = line_chart(
        [one for one in series if one.points],
        x,
        y,
        identity=view.identity(),
        title=view.word("chart_latency", metric=name, run=where),
        description=_described(view, field, series),
        x_name=load_axis(view, cells[0].kind, x),
        y_name=axis_name(view, unit_of(field, view.language), y),
        limits=limits,
    )
    return element("div", {}, element("h4", {}, name), chart)


def _points(metric: str, found: Sequence[tuple[CellSeen, Reading | None]]) -> list[Point]:
    return [
        Point(
            cell.level or 0.0,
            in_unit(metric, one.value),
            None if one.low is None else in_unit(metric, one.low),
            None if one.high is None else in_unit(metric, one.high),
        )
        for cell, one in found
        if one is not None
    ]


def reach(point: Point) -> list[float]:
    return [value for value in (point.y, point.low, point.high) if value is not None]


def _objective_limits(view: View, run: Run, metric: str) -> list[Limit]:
    return [
        Limit(value, objective_words(one, view.language))
        for one in objectives(run)
        if one.metric == metric and (value := limit_value(one)) is not None
    ]


def limit_value(one: ObjectiveSeen) -> float | None:
    """An objective's limit in the unit in which its metric is shown."""
    try:
        return in_unit(one.metric, float(Decimal(one.limit)))
    except (InvalidOperation, KeyError):
        return None


def _knees(view: View, run: Run, cells: Sequence[CellSeen]) -> list[Limit]:
    over, door = ("rate" if cells[0].kind == "open" else "users"), cells[0].door
    levels = {
        search.highest_met
        for search in run.searches
        if search.over == over and search.door == door and search.ended == "found" and search.highest_met is not None
    }
    return [
        Limit(level, view.word("knee", level=f"{level:.4g}"), is_across=False)
        for level in sorted(levels)
        if any(cell.level == level for cell in cells)
    ]


def _load_scale(cells: Sequence[CellSeen]) -> Scale:
    return scale_of([cell.level or 0.0 for cell in cells], may_be_log=True)


def load_axis(view: View, kind: str, scale: Scale) -> str:
    return axis_name(view, view.word("axis_rate" if kind == "open" else "axis_users"), scale)


def axis_name(view: View, name: str, scale: Scale) -> str:
    return view.word("axis_log", name=name) if scale.is_log else name


def _described(view: View, metric: str, series: Sequence[Series]) -> str:
    """What a drawing shows, for who does not see it: each series from its least to its highest value."""
    unit = unit_of(metric, view.language)
    said = []
    for one in series:
        values = [point.y for point in one.points]
        if values:
            low, high = (with_unit(f"{end:.4g}", unit) for end in (min(values), max(values)))
            said.append(view.word("range", name=one.name, low=low, high=high))
    return " ".join([*said, view.word("as_table")])


def _latency_row(view: View, cell: CellSeen, metric: str) -> Row:
    field = asked_of(cell.kind, metric)
    figures = [latency(cell, field, statistic) for statistic in STATISTICS]
    n = min((getattr(repeat.latencies, field).n for repeat in cell.repeats), default=0)
    name = f"{metric_name(field, view.language)} ({unit_of(field, view.language)})"
    shown = (
        view.reading(
            field, found, "no_values" if n == 0 else "few_for_p99" if statistic == "p99" else "not_every_repeat"
        )
        for statistic, found in zip(STATISTICS, figures, strict=True)
    )
    return [cell.id, view.load(cell), name, Number(f"{n:,}"), *shown]


def not_drawn(view: View, run: Run) -> Iterator[Node]:
    """Cells that no drawing against the load may show, each with the reason."""
    left_out = []
    for cell in run.cells:
        if not cell.is_valid:
            why = view.word("invalid_why", why=why_invalid(cell, view.language, most=1))
            left_out.append(f"{cell_words(cell, view.language)} – {why}")
        elif not cell.is_steady or cell.level is None:
            left_out.append(f"{cell_words(cell, view.language)} – {view.word('not_steady')}")
    if left_out:
        yield paragraph(view.word("not_drawn", cells="; ".join(left_out)), "note")
