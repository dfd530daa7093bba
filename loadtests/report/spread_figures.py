"""How TTFT and TPOT are spread, as cumulative curves; and where candidates stand between throughput and latency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.domain.stats import P99_LEAST_N
from gateway.markup import Element, Node, element
from loadtests.cells import CellSeen, Run
from loadtests.readings import Spot, asked_of, frontier, objectives, plotted
from loadtests.report.charts import Limit, Point, Series, line_chart, scale_of, series_key
from loadtests.report.figure_words import in_unit, metric_name, number, objective_words, unit_of, with_unit
from loadtests.report.latency_figures import axis_name, limit_value
from loadtests.report.spreads import Distribution
from loadtests.report.tables import Head, Missing, Number, Row, Shown, Sign
from loadtests.report.view import View, paragraph

_CURVES = 6
_TABLED = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
_FRONTIERS = ("ttft_s", "tpot_s")
_P95 = "p95"


# --- distributions ------------------------------------------------------------------------------------------


def spreads(view: View) -> Iterator[Node]:
    for run in view.runs:
        for door in ("gateway", "direct"):
            for kind in ("open", "closed"):
                cells = {
                    cell.id: cell for cell in run.cells if (cell.door, cell.kind, cell.is_valid) == (door, kind, True)
                }
                of = [one for one in view.distributions if (one.run, one.door) == (run.id, door) and one.cell in cells]
                if of:
                    yield from _spread_group(view, run, of, cells)


def _spread_group(view: View, run: Run, found: Sequence[Distribution], cells: dict[str, CellSeen]) -> Iterator[Node]:
    found = sorted(found, key=lambda one: (cells[one.cell].level is None, cells[one.cell].level or 0.0, one.cell))
    metrics = list(dict.fromkeys(one.metric for one in found))
    ids = list(dict.fromkeys(one.cell for one in found))
    drawn = _evenly(ids, _CURVES)
    styles = {cell: style for style, cell in enumerate(drawn)}
    first = cells[ids[0]]
    where = view.group(run, first.door, first.kind)
    yield element("h3", {}, where)
    yield series_key([(styles[cell], _curve_name(view, cells[cell])) for cell in drawn], has_marks=False)
    panels = (
        _spread_panel(
            view, run, [one for one in found if one.metric == metric and one.cell in styles], styles, where, first.kind
        )
        for metric in metrics
    )
    yield element("figure", {"class": "pair"}, *panels)
    if len(drawn) < len(ids):
        yield paragraph(view.word("few_drawn", n=len(drawn)), "note")
    quantiles = [Head(f"{percent}%", is_number=True) for percent in _TABLED]
    heads = [*view.heads("cell", "metric", "n", numbers=["n"]), *quantiles]
    yield view.behind(heads, [_spread_row(view, one) for one in found], view.caption("distributions", where))


def _evenly(ids: Sequence[str], most: int) -> list[str]:
    """At most so many, the first and the last among them."""
    if len(ids) <= most:
        return list(ids)
    return [ids[round(place * (len(ids) - 1) / (most - 1))] for place in range(most)]


def _curve_name(view: View, cell: CellSeen) -> str:
    load = view.load(cell)
    return f"{cell.id} ({load})" if isinstance(load, str) else cell.id


def _spread_panel(
    view: View, run: Run, found: Sequence[Distribution], styles: dict[str, int], where: str, kind: str
) -> Element:
    if not found:
        return element("div", {}, paragraph(view.word("nothing_to_draw")))
    metric = found[0].metric
    name = metric_name(metric, view.language)
    series = [
        Series(
            one.cell,
            [Point(in_unit(metric, value), percent) for percent, value in enumerate(one.quantiles)],
            styles[one.cell],
            has_marks=False,
        )
        for one in found
    ]
    limits = [
        Limit(value, objective_words(one, view.language), is_across=False, is_named_below=True)
        for one in objectives(run)
        if asked_of(kind, one.metric) == metric and (value := limit_value(one)) is not None
    ]
    values = [point.x for one in series for point in one.points] + [limit.value for limit in limits]
    x = scale_of(values, may_be_log=True)
    unit = unit_of(metric, view.language)
    said = [
        view.word("range", name=one.cell, low=with_unit(low, unit), high=with_unit(high, unit))
        for one in found
        for low, high in [[number(in_unit(metric, one.quantiles[at])) for at in (50, 95)]]
    ]
    chart = line_chart(
        series,
        x,
        scale_of([0, 100], most=4),
        identity=view.identity(),
        title=view.word("chart_spread", metric=name, run=where),
        description=" ".join(["p50, p95.", *said, view.word("as_table")]),
        x_name=axis_name(view, f"{name} ({unit})", x),
        y_name=view.word("axis_share"),
        limits=limits,
    )
    return element("div", {}, element("h4", {}, name), chart)


def _spread_row(view: View, one: Distribution) -> Row:
    name = f"{metric_name(one.metric, view.language)} ({unit_of(one.metric, view.language)})"
    shown: list[Shown] = [
        Missing("few_for_p99")
        if percent == 99 and one.n < P99_LEAST_N
        else Number(number(in_unit(one.metric, one.quantiles[percent])))
        for percent in _TABLED
    ]
    return [one.cell, name, Number(f"{one.n:,}"), *shown]


# --- the frontier -------------------------------------------------------------------------------------------


def frontiers(view: View) -> Iterator[Node]:
    if len({run.workload_sha256 for run in view.runs}) > 1:
        return
    throughput = _throughput(view)
    panels = [
        (metric, kind, found)
        for kind in ("open", "closed")
        for metric in _FRONTIERS
        if (found := _candidates(view, metric, kind, throughput))
    ]
    if not panels:
        return
    if view.is_comparison:
        yield series_key([(style, view.label(run)) for style, run in enumerate(view.runs)])
    yield element("figure", {"class": "pair"}, *(_frontier_panel(view, *panel, throughput) for panel in panels))
    heads = [
        *view.heads("run", "cell", "load", "metric"),
        Head(view.word("per_gpu" if throughput.endswith("gpu") else "in_all"), is_number=True),
        *view.heads("value", "frontier", numbers=["value"]),
    ]
    rows = [
        _frontier_row(view, view.runs[style], metric, spot)
        for metric, _, found in panels
        for style, spots in found
        for spot in spots
    ]
    yield view.behind(heads, rows, view.caption("frontier", view.word("numbers")))


def _throughput(view: View) -> str:
    """Per GPU where that is known of every valid cell, else of all GPUs together."""
    cells = [cell for run in view.runs for cell in plotted(run)]
    known = all(repeat.rates.output_tokens_per_s_per_gpu is not None for cell in cells for repeat in cell.repeats)
    return "output_tokens_per_s_per_gpu" if known else "output_tokens_per_s"


def _candidates(view: View, metric: str, kind: str, throughput: str) -> list[tuple[int, list[Spot]]]:
    """Each candidate's place among the runs, with where its cells stand; candidates without any are left out."""
    found = []
    for style, run in enumerate(view.runs):
        cells = [cell for cell in plotted(run) if (cell.door, cell.kind) == (view.main_door(run), kind)]
        spots = frontier(cells, metric, _P95, throughput)
        if spots:
            found.append((style, spots))
    return found


def _frontier_panel(
    view: View, metric: str, kind: str, found: Sequence[tuple[int, Sequence[Spot]]], throughput: str
) -> Element:
    asked = asked_of(kind, metric)
    name = metric_name(asked, view.language)
    series = [_frontier_series(metric, view.label(view.runs[style]), style, spots) for style, spots in found]
    points = [point for one in series for point in one.points]
    x = scale_of([point.x for point in points], may_be_log=True)
    y = scale_of([point.y for point in points], may_be_log=True)
    said = [
        view.word("range", name=one.name, low=f"{min(across):.4g}", high=f"{max(across):.4g}")
        for one in series
        for across in [[point.x for point in one.points]]
    ]
    chart = line_chart(
        series,
        x,
        y,
        identity=view.identity(),
        title=f"{view.word('chart_frontier', metric=name, statistic=_P95)} {view.word(kind)}.",
        description=" ".join([*said, view.word("as_table")]),
        x_name=axis_name(view, view.word("per_gpu" if throughput.endswith("gpu") else "in_all"), x),
        y_name=axis_name(view, f"{name} {_P95} ({unit_of(metric, view.language)})", y),
    )
    return element("div", {}, element("h3", {}, f"{name} {_P95} · {view.word(kind)}"), chart)


def _frontier_series(metric: str, name: str, style: int, spots: Sequence[Spot]) -> Series:
    points = [Point(spot.throughput, in_unit(metric, spot.latency), is_hollow=not spot.is_frontier) for spot in spots]
    return Series(name, points, style, line=[point for point in points if not point.is_hollow])


def _frontier_row(view: View, run: Run, metric: str, spot: Spot) -> Row:
    asked = asked_of(spot.cell.kind, metric)
    return [
        view.label(run),
        spot.cell.id,
        view.load(spot.cell),
        f"{metric_name(asked, view.language)} {_P95} ({unit_of(asked, view.language)})",
        Number(number(spot.throughput)),
        Number(number(in_unit(metric, spot.latency))),
        Sign(view.word("yes"), is_good=True) if spot.is_frontier else view.word("no"),
    ]
