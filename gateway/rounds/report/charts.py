"""The drawings of a report: estimates with their intervals, ranges of ranks, and tables of cells in shades.

Places are percentages of the width that there is, so that a drawing fits a phone and a page while its letters keep
their size. What is drawn, and in which words, is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.markup import Attribute, Element, Node, element

AXIS_HEIGHT = 24
_MIDDLE = "50%"
_APART = 5
"""How far two series of one row stand from its middle, in pixels."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale, where it is marked, and what stands out on it."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    middle: float | None = None
    """A line of its own: chance, or equality."""

    def at(self, value: float) -> str:
        """The place of a value; one beyond the scale stands at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return f"{round(100 * share, 2):g}%"


@dataclass(frozen=True, slots=True)
class Mark:
    """An estimate and its interval; either may be missing."""

    value: float | None
    interval: Sequence[float] | None
    is_second: bool = False
    """Of the other of two series: hollow and dashed."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    marks: tuple[Mark, ...]
    value: str
    """Beside the drawing, in words."""
    under_value: str = ""
    under_name: str = ""


def dot_whiskers(
    rows: Sequence[Row], axis: Axis, *, label: str, cut_after: int | None = None, cut: str = ""
) -> Element:
    """Estimates as dots with their intervals as lines. `cut_after`: rows above a line that is called `cut`."""
    parts: list[Node] = []
    for place, row in enumerate(rows):
        if cut_after is not None and place == cut_after:
            parts.append(element("div", {"class": "cut"}, cut))
        parts.extend(_beside(row, _row(*_grid(axis), *_marks(row.marks, axis))))
    parts.extend(_axis_row(axis))
    return element("div", {"class": "plot", "role": "group", "aria-label": label}, *parts)


def rank_ranges(rows: Sequence[tuple[str, int, int, str]], size: int, *, label: str) -> Element:
    """Bars from the best to the worst rank possible: name, best, worst, and the words beside it."""
    axis = Axis(0.5, size + 0.5, tuple((rank, str(rank)) for rank in range(1, size + 1)))
    parts: list[Node] = []
    for name, best, worst, words in rows:
        low, high = axis.at(best - 0.32), axis.at(worst + 0.32)
        width = f"{float(high[:-1]) - float(low[:-1]):g}%"
        place: dict[str, Attribute] = {"x": low, "y": _MIDDLE, "width": width, "height": 12, "rx": 6}
        bar = element("rect", {**place, "transform": "translate(0 -6)", "class": "range"})
        parts.extend(_beside(Row(name, (), words), _row(*_grid(axis), bar)))
    parts.extend(_axis_row(axis))
    return element("div", {"class": "plot", "role": "group", "aria-label": label}, *parts)


def key(entries: Sequence[tuple[bool, str]]) -> Element:
    """Which shape is which series: (second, name)."""
    axis = Axis(0, 1, ())
    items = (
        element(
            "li",
            {},
            element(
                "svg",
                {"width": 44, "height": 24, "aria-hidden": "true"},
                *_marks((Mark(0.5, (0.08, 0.92), is_second),), axis),
            ),
            name,
        )
        for is_second, name in entries
    )
    return element("ul", {"class": "key"}, *items)


@dataclass(frozen=True, slots=True)
class Cell:
    """A share between 0 and 1 with what stands under it; None: nothing to show."""

    share: float | None
    text: str
    under: str = ""


def heat_table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]], *, caption: str) -> Element:
    """Shares as numbers on shades; the shade says again which way and how far."""
    head = element("tr", {}, element("td", {}), *(element("th", {"scope": "col"}, name) for name in heads))
    body = (
        element("tr", {}, element("th", {"scope": "row"}, name), *(_heat_cell(cell) for cell in cells))
        for name, cells in rows
    )
    table = element(
        "table",
        {"class": "heat", "aria-label": caption},
        element("thead", {}, head),
        element("tbody", {}, *body),
    )
    return element("div", {"class": "wide", "tabindex": "0", "role": "region", "aria-label": caption}, table)


def shade(share: float) -> str:
    """The class of a share's shade."""
    bounds = ((0.65, "high2"), (0.55, "high1"), (0.45, "even"), (0.35, "low1"))
    return next((name for least, name in bounds if share >= least), "low2")


def _heat_cell(cell: Cell) -> Element:
    if cell.share is None:
        return element("td", {"class": "gap"}, cell.text)
    under = element("small", {}, cell.under) if cell.under else None
    return element("td", {"class": shade(cell.share)}, cell.text, under)


def _beside(row: Row, drawn: Element) -> Iterator[Element]:
    """A row's three places."""
    yield element("div", {"class": "name"}, row.name, element("small", {}, row.under_name) if row.under_name else None)
    yield element(
        "div", {"class": "value"}, row.value, element("small", {}, row.under_value) if row.under_value else None
    )
    yield element("div", {"class": "drawn"}, drawn)


def _axis_row(axis: Axis) -> Iterator[Element]:
    texts = (element("text", {"x": axis.at(value), "y": 15}, text) for value, text in axis.ticks)
    yield element("div", {"class": "drawn"}, element("svg", {"height": AXIS_HEIGHT, "aria-hidden": "true"}, *texts))


def _row(*children: Element) -> Element:
    """As high as the name beside it, so that the lines of the grid meet."""
    return element("svg", {"class": "row", "aria-hidden": "true"}, *children)


def _grid(axis: Axis) -> Iterator[Element]:
    for value, _ in axis.ticks:
        if value != axis.middle:
            yield _line(axis.at(value), axis.at(value), "0%", "100%", "grid")
    if axis.middle is not None:
        yield _line(axis.at(axis.middle), axis.at(axis.middle), "0%", "100%", "middle")


def _marks(marks: Sequence[Mark], axis: Axis) -> Iterator[Element]:
    for mark in marks:
        off = 0 if len(marks) == 1 else _APART if mark.is_second else -_APART
        moved = f"translate(0 {off})" if off else None
        series = " second" if mark.is_second else ""
        if mark.interval is not None:
            low, high = mark.interval
            yield _line(axis.at(low), axis.at(high), _MIDDLE, _MIDDLE, f"whisker{series}", moved)
        if mark.value is not None:
            at: dict[str, Attribute] = {"cx": axis.at(mark.value), "cy": _MIDDLE, "r": 4.5 if mark.is_second else 5.5}
            yield element("circle", {**at, "transform": moved, "class": f"dot{series}"})


def _line(x1: str, x2: str, y1: str, y2: str, name: str, moved: str | None = None) -> Element:
    return element("line", {"x1": x1, "x2": x2, "y1": y1, "y2": y2, "transform": moved, "class": name})
