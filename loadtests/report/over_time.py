"""Each cell over time: what was sent, what was running, what came, and what the engine said, on one axis of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gateway.domain.rounds import Text
from gateway.markup import Element, Node, element
from loadtests.cells import CellSeen, Run
from loadtests.report.buckets import MOST_DRAWN, MOST_TABLED, Bucket, bucket_width, buckets
from loadtests.report.charts import Point, Scale, Series, line_chart, scale_of
from loadtests.report.columns import COLUMNS
from loadtests.report.figure_words import number
from loadtests.report.tables import Missing, Number, Row, Shown
from loadtests.report.view import View


@dataclass(frozen=True, slots=True)
class _Lane:
    """One drawing of a timeline."""

    name: Text
    read: Callable[[Bucket], float | None]
    style: int
    reach: tuple[float, ...] = ()
    """What its scale holds besides its values."""


_LANES = (
    _Lane(COLUMNS["sent"], lambda bucket: bucket.sent_per_s, 0),
    _Lane(COLUMNS["in_flight"], lambda bucket: bucket.in_flight, 2),
    _Lane(COLUMNS["tokens"], lambda bucket: bucket.tokens_per_s, 3),
    _Lane(COLUMNS["engine_waiting"], lambda bucket: bucket.engine_waiting, 1),
    _Lane(
        Text("KV 캐시 사용률(%, 최대)", "KV use (%, most)"),
        lambda bucket: None if bucket.engine_kv_usage is None else 100 * bucket.engine_kv_usage,
        5,
        (100.0,),
    ),
)
_HEADS = (
    *("repeat", "time", "sent", "ended", "failed", "in_flight", "tokens", "ttft", "engine_running", "engine_waiting"),
    *("engine_kv_usage", "engine_preemptions", "engine_generation_tokens", "engine_prefix_hit_share"),
)


def timelines(view: View) -> Iterator[Node]:
    for run in view.runs:
        for cell in run.cells:
            if cell.is_valid and any(repeat.timeline for repeat in cell.repeats):
                yield _timeline(view, run, cell)


def _timeline(view: View, run: Run, cell: CellSeen) -> Element:
    load = view.load(cell)
    where = [view.label(run)] if view.is_comparison else []
    name = " · ".join([*where, cell.id, view.door(cell.door), load if isinstance(load, str) else cell.load])
    kept = [repeat.timeline for repeat in cell.repeats if repeat.timeline]
    width = bucket_width(kept, MOST_DRAWN)
    drawn = [buckets(timeline, width) for timeline in kept]
    x = scale_of([0.0, max(of_repeat[-1].end_s for of_repeat in drawn)])
    lanes = [lane for lane in _LANES if any(lane.read(bucket) is not None for of in drawn for bucket in of)]
    figures = (_lane(view, lane, drawn, x, name=name, width=width, is_last=lane is lanes[-1]) for lane in lanes)
    return element(
        "div",
        {"class": "one"},
        element("h3", {}, name),
        element("figure", {"class": "lanes"}, *figures),
        view.behind(
            view.heads(*_HEADS, numbers=_HEADS[1:]), _rows(view, cell), view.caption("timelines", name), is_long=True
        ),
    )


def _lane(
    view: View, lane: _Lane, drawn: Sequence[Sequence[Bucket]], x: Scale, *, name: str, width: int, is_last: bool
) -> Element:
    series = []
    for place, of_repeat in enumerate(drawn):
        found = ((bucket.begin_s, lane.read(bucket)) for bucket in of_repeat)
        points = [Point(at, value) for at, value in found if value is not None]
        if points:
            series.append(Series(name, points, lane.style, has_marks=False, is_faint=place > 0, breaks=width * 1.5))
    values = [point.y for one in series for point in one.points]
    title = view.say(lane.name)
    low, high = (f"{end:.4g}" for end in (min(values), max(values)))
    return line_chart(
        series[::-1],
        x,
        scale_of([*values, *lane.reach], most=3),
        identity=view.identity(),
        title=view.word("chart_timeline", row=title, run=name),
        description=f"{view.word('range', name=title, low=low, high=high)} {view.word('as_table')}",
        x_name=view.word("axis_time") if is_last else "",
        y_name=title,
        height=64,
        has_x_ticks=is_last,
    )


def _rows(view: View, cell: CellSeen) -> Iterator[Row]:
    width = bucket_width([repeat.timeline for repeat in cell.repeats], MOST_TABLED)
    for repeat in cell.repeats:
        for bucket in buckets(repeat.timeline, width):
            yield [str(repeat.number), *_bucket_cells(bucket)]


def _bucket_cells(bucket: Bucket) -> Iterator[Shown]:
    yield Number(f"{bucket.begin_s:,.0f}–{bucket.end_s:,.0f}")
    for value in (bucket.sent_per_s, bucket.ended_per_s, bucket.failed_per_s):
        yield Number(number(value, 3) if value else "0")
    yield Number(f"{bucket.in_flight:,}")
    yield Number(number(bucket.tokens_per_s, 3) if bucket.tokens_per_s else "0")
    yield Missing("idle") if bucket.ttft_p50_s is None else Number(number(bucket.ttft_p50_s))
    yield _count(bucket.engine_running)
    yield _count(bucket.engine_waiting)
    yield _share(bucket.engine_kv_usage)
    yield _count(bucket.engine_preemptions)
    yield _count(bucket.engine_generation_tokens)
    yield _share(bucket.engine_prefix_hit_share)


def _count(value: int | None) -> Shown:
    return Missing("not_scraped") if value is None else Number(f"{value:,}")


def _share(value: float | None) -> Shown:
    return Missing("not_scraped") if value is None else Number(f"{100 * value:.1f}%")
