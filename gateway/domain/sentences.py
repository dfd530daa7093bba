"""Markdown text -> the spans that may be taken out whole without breaking its structure.

List markers, quotation marks, headings, table bars and code fences stay outside every span. What a span says is not
looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(r"[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_FENCE = re.compile(r"[ \t>]*(?:```+|~~~+)[ \t]*")
_PREFIX = re.compile(
    r"[^\S\n]*(?:>[^\S\n]*)*(?P<bullet>(?:[-*+•]|\d{1,9}[.)])[^\S\n]+)?(?:\[[ xX]\][^\S\n]+)?(?P<head>#{1,6}[^\S\n]+)?"
)
_CELL = re.compile(r"(?:[^|\\]|\\.)+")
_END = re.compile(
    r"(?<![\s.!?。！？…])[.!?。！？…]+[\"'”’»)\]*_`]*(?=\s|$)|(?<![\s~])~(?=\s|$)|(?<![。！？])[。！？]+[\"'”’»)\]*_`]*"
)
_INITIAL = re.compile(r"(?:^|[^\w])[A-Za-zＡ-Ｚａ-ｚ]\.$")


@dataclass(frozen=True, slots=True)
class Span:
    start: int
    end: int
    continues: bool = False
    """Its sentence may have begun at the end of the span before, in the line above."""
    is_cell: bool = False
    """A table's cell with another before it, which may be its label."""


def spans_of(text: str, *, marker: str) -> Iterator[Span]:
    """Sentences, lines of code and cells, in order and apart. A `marker` is left between spans, never within one."""
    in_fence, open_end = False, -1
    for line in _LINE.finditer(text):
        start, end = line.span()
        if fence := _FENCE.match(text, start, end):
            in_fence, open_end = not in_fence, -1
            yield from _trimmed(text, fence.end(), end)
            continue
        prefix = _PREFIX.match(text, start, end)
        begin = prefix.end() if prefix else start
        if in_fence:
            yield from _trimmed(text, start, end)
        elif text.startswith("|", begin):
            yield from _cells(text, begin, end)
            open_end = -1
        else:
            is_item = bool(prefix and (prefix["bullet"] or prefix["head"]))
            is_next_line = open_end >= 0 and text.count("\n", open_end, start) == 1
            yield from _sentences(text, begin, end, marker=marker, continues=is_next_line and not is_item)
            open_end = -1 if (prefix and prefix["head"]) or _is_closed(text, begin, end) else end


def prefix_end(line: str) -> int:
    """Where a line's own words begin: behind indentation, quotation marks, a list's marker, a heading's."""
    prefix = _PREFIX.match(line)
    return prefix.end() if prefix else 0


def _is_closed(text: str, start: int, end: int) -> bool:
    """Whether a line ends with a sentence's end."""
    return any(match.end() == end for match in _END.finditer(text, max(start, end - 8), end))


def _cells(text: str, start: int, end: int) -> Iterator[Span]:
    for position, cell in enumerate(_CELL.finditer(text, start, end)):
        for span in _trimmed(text, *cell.span()):
            yield Span(span.start, span.end, is_cell=position > 0)


def _sentences(text: str, start: int, end: int, *, marker: str, continues: bool) -> Iterator[Span]:
    for begin, stop in _between_markers(text, start, end, marker):
        position = begin
        for cut in _cuts(text, begin, stop):
            for span in _trimmed(text, position, cut):
                yield Span(span.start, span.end, continues=continues and position == start)
            position = cut


def _between_markers(text: str, start: int, end: int, marker: str) -> Iterator[tuple[int, int]]:
    while (found := text.find(marker, start, end)) >= 0:
        yield start, found
        start = found + len(marker)
    yield start, end


def _cuts(text: str, start: int, end: int) -> Iterator[int]:
    """Where sentences end. A single letter with a full stop is an initial or a part of a name: A. X."""
    for match in _END.finditer(text, start, end):
        if not _INITIAL.search(text[max(start, match.start() - 2) : match.start() + 1]):
            yield match.end()
    yield end


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    """The span without spaces at its ends; none where nothing else is in it."""
    piece = text[start:end]
    lead = len(piece) - len(piece.lstrip())
    if lead < len(piece):
        yield Span(start + lead, start + len(piece.rstrip()))
