"""One result in one language: its figures as words, its rows for drawings, its tables.

Every section of a report is made with it. Which sections there are is `sections`' subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.markup import Element, Node, element
from gateway.rounds.conclusion_words import Language
from gateway.rounds.conclusions import Json, label_of
from gateway.rounds.figure_words import MINUS, number_words, percent, rank_words, share_words
from gateway.rounds.report.charts import Axis, Mark, Row, dot_whiskers
from gateway.rounds.report.tables import Column, Kind, result_table
from gateway.rounds.report.words import WORDS, Words


@dataclass(frozen=True, slots=True)
class View:
    """A result as `results.result_object` makes it, and the language in which it is shown."""

    result: Json
    language: Language

    @property
    def words(self) -> Words:
        return WORDS[self.language]

    @property
    def analysis(self) -> Json:
        found: Json = self.result["analysis"]
        return found

    def table(self, name: str, *, is_open: bool = False) -> Element:
        """A table of `tables`, behind a switch unless it is what the section is about."""
        table = result_table(self.result, name)
        head = (
            element("th", {"scope": "col", "class": _class(column)}, self._head(name, column))
            for column in table.columns
        )
        body = (
            element(
                "tr",
                {},
                *(
                    self._cell(n, column, value)
                    for n, (column, value) in enumerate(zip(table.columns, row, strict=True))
                ),
            )
            for row in table.rows
        )
        caption = self.words.sections[name].heading if name in self.words.sections else ""
        shown = element(
            "div",
            {"class": "wide", "tabindex": "0", "role": "region", "aria-label": f"{caption} · {self.words.numbers}"},
            element(
                "table",
                {},
                element("thead", {}, element("tr", {}, *head)),
                element("tbody", {}, *body),
            ),
        )
        if is_open:
            return shown
        return element("details", {}, element("summary", {}, self.words.numbers), shown)

    def _head(self, name: str, column: Column) -> str:
        return self.words.columns.get(f"{name}.{column.key}") or self.words.columns[column.key]

    def _cell(self, place: int, column: Column, value: Any) -> Element:
        text = self._formatted(column, value)
        if place == 0:
            return element("th", {"scope": "row"}, text)
        return element("td", {"class": _class(column)}, text)

    def _formatted(self, column: Column, value: Any) -> str:
        if value is None:
            return self.words.no_figure
        match column.kind:
            case Kind.MODEL:
                return self.name(value)
            case Kind.WORD:
                return self.words.codes.get(f"{column.key}.{value}") or self.code(value)
            case Kind.COUNT:
                return f"{value:,.0f}"
            case Kind.SHARE:
                return percent(value, 1)
            case Kind.NUMBER:
                return f"{value:,}" if isinstance(value, int) else _precise(value)
            case Kind.SHARE_SPAN:
                return _joined(*(percent(end, 1) for end in value))
            case Kind.NUMBER_SPAN:
                return _joined(*(f"{end:,.0f}" if abs(end) >= 100 else number_words(end) for end in value))
            case Kind.BOUND:
                return rank_words(*(f"{end:.3g}" for end in value))
            case Kind.RANKS:
                return rank_words(*value)
            case Kind.YES:
                return self.words.yes if value else self.words.no
        return str(value)

    def name(self, code: str) -> str:
        return label_of(self.result, code)

    def code(self, code: str) -> str:
        """A code of our own in words; of `kind:name` the criterion behind it too."""
        kind, _, names = code.partition(":")
        titles = {one["id"]: self.text(one["title"]) for one in self.result["rubric"]}
        if names:
            of = " × ".join(titles.get(name, name) for name in names.split("+"))
            return f"{'α' if kind == 'alpha' else self.words.codes.get(kind, kind)}: {of}"
        return titles.get(code) or self.words.codes.get(code) or code

    def text(self, text: Mapping[str, str]) -> str:
        return text[self.language]

    def row(self, code: str, marks: Sequence[tuple[float, Sequence[float] | None, bool]]) -> Row:
        """A model's row of shares; the first mark's figure stands beside it."""
        value, span, _ = marks[0]
        named = (self.result["names"] or {}).get(code)
        under = "" if named is None else named[f"consortium_{self.language}"] or ""
        drawn = tuple(Mark(*mark) for mark in marks)
        return Row(self.name(code), drawn, percent(value), self.span(span, is_share=True), under)

    def figure_row(self, name: str, figure: Json, *, is_share: bool = False) -> Row:
        value = share_words(figure["value"]) if is_share else number_words(figure["value"])
        marks = (Mark(figure["value"], figure["interval"]),)
        return Row(
            name, marks, value, self.span(figure["interval"], is_share=is_share), self.words.n.format(n=figure["n"])
        )

    def figure(self, name: str, rows: Sequence[Row], axis: Axis) -> Element:
        return element(
            "figure",
            {},
            dot_whiskers(rows, axis, label=self.words.sections[name].label or self.words.sections[name].heading),
        )

    def span(self, interval: Sequence[float] | None, *, is_share: bool = False) -> str:
        if interval is None:
            return ""
        if is_share:
            low, high = (percent(end) for end in interval)
            return f"{low.removesuffix('%')}–{high}"
        return _joined(*(number_words(end) for end in interval))


def term(name: str, said: Node) -> tuple[Element, Element]:
    return element("dt", {}, name), element("dd", {}, said)


def paragraph(text: str, name: str | None = None) -> Element:
    return element("p", {"class": name}, text)


def _precise(value: float) -> str:
    """Two decimals; three for what would be 0.00 and is not."""
    return "<0.001" if 0 < value < 0.001 else f"{value:.3f}" if 0 < value < 0.01 else number_words(value)


def _joined(low: str, high: str) -> str:
    return f"{low}–{high}" if MINUS not in low + high else f"{low} ~ {high}"


def _class(column: Column) -> str | None:
    return None if column.kind in (Kind.MODEL, Kind.TEXT, Kind.WORD, Kind.YES) else "n"
