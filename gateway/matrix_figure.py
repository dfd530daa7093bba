"""The heat map: one SVG of row heads that stays in sight, and one of cells that scrolls beside it.

Every cell says its verdict three times: by colour, by a sign, and in its tooltip. Where things stand is worked out
here; what they say is in `matrix_cell_words`, what colour they have in `matrix_style`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from gateway.domain.feasibility import Verdict
from gateway.domain.matrix import Cell, Matrix, Units, Unknown
from gateway.domain.records import Confidence, Gpu, Model
from gateway.markup import Attribute, Element, Node, element
from gateway.matrix_cell_words import first_line, gib, tooltip, unknown_words
from gateway.matrix_words.fields import Words

HEAD_WIDTH, CELL_WIDTH, CELL_HEIGHT, BAND_HEIGHT = 172, 78, 42, 26
LINE, SMALL_LINE, PAD = 14, 13, 8
_EM_NARROW, _EM_WIDE = 0.58, 1.0
SIGNS = {Verdict.FITS_QUANTISED: "Q", Verdict.FITS_SHORT_CONTEXT: "S", Verdict.UNKNOWN: "?"}
"""Letters; fits and no are drawn, as fonts differ in their ticks and crosses."""
_TICK, _CROSS = "M0 5 L3.5 8.5 L10 1", "M1 1 L9 9 M9 1 L1 9"


@dataclass(frozen=True, slots=True)
class Group:
    """Models of one consortium, in the order in which they are drawn."""

    name: str
    models: tuple[Model, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the figure: a consortium's band, a model with cells, or one about which nothing is known."""

    y: int
    height: int
    group: Group | None = None
    model: Model | None = None
    lines: tuple[str, ...] = ()
    unknown: Unknown | None = None


def heat_map(matrix: Matrix, quantisation: str, gpus: Sequence[Gpu], groups: Sequence[Group], words: Words) -> Element:
    """The figure of one number format."""
    heads = [_head_lines(gpu, matrix, quantisation, words) for gpu in gpus]
    top = PAD + LINE * max((len(lines) for lines, _ in heads), default=1) + SMALL_LINE * 2
    rows = list(_rows(matrix, quantisation, gpus, groups, top))
    height = rows[-1].y + rows[-1].height + 1 if rows else top
    width = CELL_WIDTH * len(gpus)
    label = words.figure.format(format=words.quantisations[quantisation])
    names = element("g", {}, *(_row_head(row, words) for row in rows))
    columns = element("g", {}, *(_column_head(n, gpu, *heads[n], top) for n, gpu in enumerate(gpus)))
    cells = element(
        "g", {}, *(part for row in rows for part in _row_cells(row, matrix, quantisation, gpus, words, top=top))
    )
    return element(
        "div",
        {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": words.scroll},
        _svg({"class": "heads", "aria-hidden": "true"}, HEAD_WIDTH, height, names),
        _svg({"class": "cells", "role": "img", "aria-label": label}, width, height, columns, cells),
    )


def sample(
    verdict: Verdict, text: str, second: str = "", *, is_borderline: bool = False, is_low: bool = False
) -> Element:
    """One cell by itself, for the legend."""
    body = _cell_body(verdict, text, second, is_borderline=is_borderline, is_low=is_low)
    return _svg({"class": "sample", "aria-hidden": "true"}, CELL_WIDTH, CELL_HEIGHT, element("g", {}, *body))


def hatching() -> Element:
    """The pattern of unknown cells, once a page."""
    line = element("path", {"d": "M-2 2 L2 -2 M0 8 L8 0 M6 10 L10 6", "class": "hatch-line"})
    pattern = element(
        "pattern", {"id": "hatch", "width": 8, "height": 8, "patternUnits": "userSpaceOnUse"},
        element("rect", {"width": 8, "height": 8, "class": "hatch-ground"}), line,
    )  # fmt: skip
    return element(
        "svg", {"width": 0, "height": 0, "class": "definitions", "aria-hidden": "true"}, element("defs", {}, pattern)
    )


# --- where things stand -------------------------------------------------------------------------------------


def _rows(matrix: Matrix, quantisation: str, gpus: Sequence[Gpu], groups: Sequence[Group], top: int) -> Iterator[_Row]:
    y = top
    for group in groups:
        name = wrapped(group.name, HEAD_WIDTH - 2 * PAD, 12.5, most=2)
        band = BAND_HEIGHT + LINE * (len(name) - 1)
        yield _Row(y, band, group=group, lines=name)
        y += band
        for model in group.models:
            unknown = _unknown_everywhere(matrix, model, quantisation, gpus)
            size = 12.5 if unknown is None else 11.5
            lines = wrapped(model.name or model.id, HEAD_WIDTH - 2 * PAD, size, most=2)
            height = CELL_HEIGHT if unknown is None else PAD + SMALL_LINE * len(lines)
            yield _Row(y, height, model=model, lines=lines, unknown=unknown)
            y += height


def _unknown_everywhere(matrix: Matrix, model: Model, quantisation: str, gpus: Sequence[Gpu]) -> Unknown | None:
    """The common reason where the whole row is unknown for the same one."""
    reasons = {matrix.cell(model, gpu, quantisation).unknown for gpu in gpus}
    return reasons.pop() if len(reasons) == 1 else None


def wrapped(text: str, width: float, size: float, *, most: int) -> tuple[str, ...]:
    """`text` in at most so many lines of `width` at this font size; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (len(lines) == most or text_width(longer, size) <= width):
            lines[-1] = longer
        else:
            lines.append(word)
    return tuple(_cut(line, width, size) for line in lines) or ("",)


def text_width(text: str, size: float) -> float:
    """About how wide a text is; wide characters such as Hangul count as a whole em."""
    return size * sum(_EM_WIDE if east_asian_width(c) in "WF" else _EM_NARROW for c in text)


def _cut(line: str, width: float, size: float) -> str:
    if text_width(line, size) <= width:
        return line
    while line and text_width(line + "…", size) > width:
        line = line[:-1]
    return line + "…"


def _head_lines(gpu: Gpu, matrix: Matrix, quantisation: str, words: Words) -> tuple[tuple[str, ...], tuple[str, str]]:
    """A GPU's name without its size, and below it the size and the flag of its units."""
    words_of_name = gpu.name.split()
    if words_of_name[-1:] == ["GB"]:
        words_of_name = words_of_name[:-2]
    units = {matrix.cell(model, gpu, quantisation).units for model in matrix.models}
    flag = words.units[units.pop()] if len(units) == 1 else ""
    if common_units(matrix, quantisation) is not None:
        flag = ""
    name = " ".join(words_of_name) or gpu.id
    return wrapped(name, CELL_WIDTH - 6, 11.5, most=3), (f"{gib(gpu.memory_bytes)} GiB", flag)


def common_units(matrix: Matrix, quantisation: str) -> Units | None:
    """The units of every cell of this format, where all have the same."""
    units = {matrix.cell(model, gpu, quantisation).units for model in matrix.models for gpu in matrix.gpus}
    return units.pop() if len(units) == 1 else None


# --- drawing ------------------------------------------------------------------------------------------------


def _svg(attributes: dict[str, str], width: int, height: int, *children: Node) -> Element:
    size: dict[str, Attribute] = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    return element("svg", {**attributes, **size}, *children)


def _text(x: float, y: float, name: str, text: str, **more: str) -> Element:
    return element("text", {"x": x, "y": y, "class": name, **more}, text)


def _row_head(row: _Row, words: Words) -> Element:
    if row.group is not None:
        band = element("rect", {"y": row.y, "width": HEAD_WIDTH, "height": row.height, "class": "band"})
        names = (_text(PAD, row.y + 17 + LINE * n, "group", name) for n, name in enumerate(row.lines))
        return element("g", {}, element("title", {}, row.group.name), band, *names)
    assert row.model is not None
    line, name = (LINE, "name") if row.unknown is None else (SMALL_LINE, "name dim")
    flag = words.by_size if row.unknown is None and not row.model.is_servable else ""
    height = line * len(row.lines) + (SMALL_LINE if flag else 0)
    first = row.y + (row.height - height) / 2 + line - 3
    texts = [_text(PAD, first + line * n, name, text) for n, text in enumerate(row.lines)]
    if flag:
        texts.append(_text(PAD, first + line * (len(row.lines) - 1) + SMALL_LINE, "by-size", flag))
    return element("g", {}, element("title", {}, row.model.name or row.model.id), *texts)


def _column_head(column: int, gpu: Gpu, name: Sequence[str], small: tuple[str, str], top: int) -> Element:
    centre = CELL_WIDTH * (column + 0.5)
    memory, flag = small
    first = top - SMALL_LINE * 2 - LINE * (len(name) - 1) - 6
    texts = [_text(centre, first + LINE * n, "gpu", line) for n, line in enumerate(name)]
    texts.append(_text(centre, top - SMALL_LINE - 6, "small", memory))
    if flag:
        texts.append(_text(centre, top - 6, "flag", flag))
    return element("g", {}, element("title", {}, f"{gpu.name} ({gpu.id})"), *texts)


def _row_cells(
    row: _Row, matrix: Matrix, quantisation: str, gpus: Sequence[Gpu], words: Words, *, top: int
) -> Iterator[Element]:
    width = CELL_WIDTH * len(gpus)
    if row.group is not None:
        yield element("rect", {"y": row.y, "width": width, "height": row.height, "class": "band"})
        has_cells = any(_unknown_everywhere(matrix, m, quantisation, gpus) is None for m in row.group.models)
        is_below_the_names = row.y == top
        for n, gpu in enumerate(gpus if has_cells and not is_below_the_names else ()):
            name = wrapped(gpu.id, CELL_WIDTH - 4, 10.5, most=1)[0]
            yield _text(CELL_WIDTH * (n + 0.5), row.y + 17, "band-gpu", name)
    elif row.unknown is not None:
        yield _unknown_row(row, width, words)
    elif row.model is not None:
        for n, gpu in enumerate(gpus):
            cell = matrix.cell(row.model, gpu, quantisation)
            yield _cell(cell, gpu, row.model, words, x=CELL_WIDTH * n, y=row.y)


def _unknown_row(row: _Row, width: int, words: Words) -> Element:
    """One hatched bar with its reason, instead of the same question mark in every column."""
    assert row.unknown is not None
    assert row.model is not None
    reason = unknown_words(row.unknown, words)
    shown = wrapped(f"? {reason}", width - 4 * PAD, 11.5, most=1)[0]
    middle = row.y + row.height / 2
    plate = min(width - 2 * PAD, text_width(shown, 11.5) + 2 * PAD)
    bar: dict[str, Attribute] = {
        "x": 1,
        "y": row.y + 1,
        "width": max(0, width - 2),
        "height": row.height - 2,
        "class": "unknown-bar",
    }
    ground: dict[str, Attribute] = {"x": PAD, "y": middle - 8, "width": max(0.0, plate), "height": 16, "class": "plate"}
    return element(
        "g",
        {},
        element("title", {}, f"{row.model.name or row.model.id}: {words.unknown}\n{reason}"),
        element("rect", bar),
        element("rect", ground),
        _text(2 * PAD, middle + 4, "why", shown),
    )


def _cell(cell: Cell, gpu: Gpu, model: Model, words: Words, *, x: int, y: int) -> Element:
    found = cell.estimate
    room = found.headroom_bytes
    body = _cell_body(
        found.verdict,
        first_line(cell, words),
        f"{gib(room.likely, sign=True)} GiB" if room is not None else "",
        is_borderline=cell.is_borderline,
        is_low=found.confidence is Confidence.LOW,
    )
    title = element("title", {}, tooltip(cell, gpu, model, words))
    return element("g", {"transform": f"translate({x} {y})"}, title, *body)


def _cell_body(verdict: Verdict, text: str, second: str, *, is_borderline: bool, is_low: bool) -> Iterator[Element]:
    """A box, its sign, its two lines, and its marks."""
    box = {"x": 1, "y": 1, "width": CELL_WIDTH - 2, "height": CELL_HEIGHT - 2, "rx": 3}
    yield element("rect", {**box, "class": f"box {verdict.value}"})
    if is_borderline:
        inner = {"x": 3.5, "y": 3.5, "width": CELL_WIDTH - 7, "height": CELL_HEIGHT - 7, "rx": 2}
        yield element("rect", {**inner, "class": f"edge {verdict.value}"})
    yield from _sign(verdict, centred=not text)
    if text:
        is_tight = text_width(text, 13) > CELL_WIDTH - 34
        yield _text(24, 19, f"main{' tight' if is_tight else ''} {verdict.value}", text)
    if second:
        yield _text(9, 34, f"second {verdict.value}", second)
    if is_low:
        yield element("circle", {"cx": CELL_WIDTH - 9, "cy": 9, "r": 2.8, "class": f"ring {verdict.value}"})


def _sign(verdict: Verdict, *, centred: bool) -> Iterator[Element]:
    x = CELL_WIDTH / 2 - 5 if centred else 9
    if verdict in SIGNS:
        yield _text(x, 25 if centred else 19, f"sign {verdict.value}", SIGNS[verdict])
    else:
        path = _TICK if verdict is Verdict.FITS else _CROSS
        yield element("path", {"d": path, "transform": f"translate({x:g} 9)", "class": f"mark {verdict.value}"})
