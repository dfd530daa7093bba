"""Drawings with two axes: lines, marks with bars, limits; as SVG that needs no script and keeps its letters' size.

The SVG's box is the field of the drawing; places in it are percentages, and what is written stands outside of it at
negative places. So a drawing fits a phone and a page alike. Series differ by colour, shape and dashes together. What
is drawn, and in which words, is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.markup import Attribute, Element, Node, element

STYLES = 6
"""Colours with their dashes, and as many shapes: further series have them in other pairs, 36 in all."""
_SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z",
    "M-4 -4H4V4H-4Z",
    "M0 -5.5L5 4H-5Z",
    "M0 -5.6L5.6 0L0 5.6L-5.6 0Z",
    "M0 5.5L5 -4H-5Z",
    "M-5 -1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",
)
_LOG_SPAN = 20
"""From this ratio of the largest to the least value upwards a scale is logarithmic."""
_MOST_LOG_SPAN = 1e9
"""Beyond it the least value is as good as 0, and stands there."""


class Tick(NamedTuple):
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Scale:
    low: float
    high: float
    ticks: tuple[Tick, ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """The place of a value from 0 to 1; one beyond the scale stands at its end."""
        kept = min(max(value, self.low), self.high)
        if self.is_log:
            return math.log(kept / self.low) / math.log(self.high / self.low)
        return (kept - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    is_hollow: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    points: Sequence[Point]
    style: int
    line: Sequence[Point] | None = None
    """What the line joins; None = all points."""
    has_marks: bool = True
    is_faint: bool = False
    breaks: float | None = None
    """Points further apart than this are not joined."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A dashed line through the whole field: across at a value of y, or upwards at one of x."""

    value: float
    text: str
    is_across: bool = True
    is_named_below: bool = False
    """Of a line upwards: its name stands at the foot."""


def scale_of(
    values: Sequence[float], *, may_be_log: bool = False, from_zero: bool = True, unit: float = 1.0, most: int = 6
) -> Scale:
    """Round numbers around everything. `unit`: what a tick's text counts in, 0.001 for milliseconds."""
    low, high = min(values), max(values)
    if may_be_log and low > 0 and _LOG_SPAN <= high / low <= _MOST_LOG_SPAN:
        return _log_scale(low, high, unit)
    low = min(0.0, low) if from_zero else low
    if high <= low:
        low, high = low - abs(low or 1.0) * (not from_zero), high + abs(high or 1.0)
    step = _round_step((high - low) / most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(Tick(n * step, _tick_text(n * step / unit)) for n in range(first, last + 1))
    return Scale(first * step, last * step, ticks)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= least * (1 - 1e-9))


def _log_scale(low: float, high: float, unit: float) -> Scale:
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    begin = max(step for step in steps if step <= low * (1 + 1e-9))
    end = min([step for step in steps if step >= high * (1 - 1e-9)], default=high)
    kept = [step for step in steps if begin <= step <= end]
    shown = kept if len(kept) <= 8 else [step for step in kept if f"{step:.0e}"[0] == "1"]
    return Scale(begin, end, tuple(Tick(step, _tick_text(step / unit)) for step in shown), is_log=True)


def _tick_text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 10):.4g}".replace("-", "\N{MINUS SIGN}")


def line_chart(
    series: Sequence[Series],
    x: Scale,
    y: Scale,
    *,
    identity: str,
    title: str,
    description: str,
    x_name: str,
    y_name: str,
    limits: Sequence[Limit] = (),
    height: int = 240,
    has_x_ticks: bool = True,
) -> Element:
    """A drawing with its title and description for who does not see it. `identity`: of the page's ids, unique."""
    drawn: list[Node] = [
        element("title", {"id": f"{identity}-title"}, title),
        element("desc", {"id": f"{identity}-desc"}, description),
        *_grid(x, y, height, has_x_ticks),
        *(_limit(limit, x, y) for limit in limits),
        *(part for one in series for part in _drawn(one, x, y)),
        *(_limit_text(limit, x, y, height) for limit in limits),
    ]
    svg = element(
        "svg",
        {
            "class": "field",
            "height": height,
            "role": "img",
            "aria-labelledby": f"{identity}-title {identity}-desc",
        },
        *drawn,
    )
    return element(
        "div",
        {"class": "chart"},
        element("div", {"class": "y-name", "aria-hidden": "true"}, y_name),
        element("div", {"class": "around" if has_x_ticks else "around bare"}, svg),
        element("div", {"class": "x-name", "aria-hidden": "true"}, x_name) if x_name else None,
    )


def series_key(entries: Sequence[tuple[int, str]], *, has_marks: bool = True) -> Element:
    """Which colour, shape and dashes are which series: (style, name)."""
    items = (
        element(
            "li",
            {},
            element(
                "svg",
                {"width": 40, "height": 16, "aria-hidden": "true"},
                element("line", {"x1": 2, "x2": 38, "y1": 8, "y2": 8, "class": f"line s{style % STYLES}"}),
                _mark("50%", "50%", style, is_hollow=False) if has_marks else None,
            ),
            element("span", {}, name),
        )
        for style, name in entries
    )
    return element("ul", {"class": "key"}, *items)


# --- parts --------------------------------------------------------------------------------------------------


def _percent(share: float) -> str:
    return f"{round(100 * share, 2):g}%"


def _across(scale: Scale, value: float) -> str:
    return _percent(scale.share(value))


def _upwards(scale: Scale, value: float) -> str:
    return _percent(1 - scale.share(value))


def _grid(x: Scale, y: Scale, height: int, has_x_ticks: bool) -> Iterator[Element]:
    for tick in y.ticks:
        at = _upwards(y, tick.value)
        yield element("line", {"x1": "0%", "x2": "100%", "y1": at, "y2": at, "class": "grid"})
        yield element("text", {"x": -8, "y": at, "dy": 4, "class": "y-tick"}, tick.text)
    for tick in x.ticks:
        at = _across(x, tick.value)
        yield element("line", {"x1": at, "x2": at, "y1": "0%", "y2": "100%", "class": "grid"})
        if has_x_ticks:
            yield element("text", {"x": at, "y": height + 17}, tick.text)


def _limit(limit: Limit, x: Scale, y: Scale) -> Element:
    if limit.is_across:
        at = _upwards(y, limit.value)
        return element("line", {"x1": "0%", "x2": "100%", "y1": at, "y2": at, "class": "limit"})
    at = _across(x, limit.value)
    return element("line", {"x1": at, "x2": at, "y1": "0%", "y2": "100%", "class": "limit up"})


def _limit_text(limit: Limit, x: Scale, y: Scale, height: int) -> Element:
    """Above a line across, where loads are low; beside one upwards, on the side with more room."""
    if limit.is_across:
        share = y.share(limit.value)
        below = 15 if share > 0.92 else -5
        place: dict[str, Attribute] = {"x": "0%", "y": _percent(1 - share), "dx": 6, "dy": below}
        return element("text", {**place, "class": "limit-name right"}, limit.text)
    share = x.share(limit.value)
    name = "limit-name" if share > 0.5 else "limit-name right"
    at: dict[str, Attribute] = {"x": _percent(share), "y": height - 8 if limit.is_named_below else 12}
    return element("text", {**at, "dx": -5 if share > 0.5 else 5, "class": name}, limit.text)


def _drawn(series: Series, x: Scale, y: Scale) -> Iterator[Element]:
    style = f"s{series.style % STYLES}"
    faint = " faint" if series.is_faint else ""
    path = _path(series, x, y)
    if path:
        yield element(
            "svg",
            {"class": "stretched", "viewBox": "0 0 1000 1000", "preserveAspectRatio": "none"},
            element("path", {"d": path, "class": f"line {style}{faint}"}),
        )
    if not series.has_marks:
        return
    for point in series.points:
        at = _across(x, point.x)
        if point.low is not None and point.high is not None:
            ends = {"x1": at, "x2": at, "y1": _upwards(y, point.low), "y2": _upwards(y, point.high)}
            yield element("line", {**ends, "class": f"bar {style}"})
        yield _mark(at, _upwards(y, point.y), series.style, is_hollow=point.is_hollow)


def _path(series: Series, x: Scale, y: Scale) -> str:
    """Moves and lines in thousandths of the field; `h0` makes a dot of a lone point."""
    parts: list[str] = []
    before: float | None = None
    for point in series.points if series.line is None else series.line:
        is_new = before is None or (series.breaks is not None and point.x - before > series.breaks)
        place = f"{round(1000 * x.share(point.x))} {round(1000 * (1 - y.share(point.y)))}"
        parts.append(f"M{place}h0" if is_new else f"L{place}")
        before = point.x
    return "".join(parts)


def _mark(x: str, y: str, style: int, *, is_hollow: bool) -> Element:
    hollow = " hollow" if is_hollow else ""
    outline = _SHAPES[(style + style // STYLES) % STYLES]
    shape = element("path", {"d": outline, "class": f"mark s{style % STYLES}{hollow}"})
    return element("svg", {"x": x, "y": y, "class": "at"}, shape)
