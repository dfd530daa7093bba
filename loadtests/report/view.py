"""The runs of one report in one language, with what every section needs to show them.

Every section is made with it. Which sections there are is `page`'s subject.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from gateway.domain.rounds import Text
from gateway.markup import Attribute, Element, Node, element
from loadtests.cells import CellSeen, Run
from loadtests.readings import Reading
from loadtests.report.columns import COLUMNS
from loadtests.report.conclusions import labels, why_invalid
from loadtests.report.figure_words import in_unit, load_words, number
from loadtests.report.spreads import Distribution
from loadtests.report.tables import Foreign, Head, Invalid, Missing, Number, Row, Shown, Sign, table
from loadtests.report.terms import DOORS, Language, say
from loadtests.report.words import SECTIONS, WORDS


@dataclass(frozen=True, slots=True)
class View:
    runs: Sequence[Run]
    distributions: Sequence[Distribution]
    language: Language
    _ids: Iterator[int] = field(default_factory=lambda: count(1))
    _captions: Counter[str] = field(default_factory=Counter)

    @property
    def is_comparison(self) -> bool:
        return len(self.runs) > 1

    def identity(self) -> str:
        """An id that no other drawing of the page has."""
        return f"drawing-{next(self._ids)}"

    def say(self, text: Text) -> str:
        return say(text, self.language)

    def word(self, name: str, /, **values: object) -> str:
        text = say(WORDS[name], self.language)
        return text.format(**values) if values else text

    def label(self, run: Run) -> str:
        return labels(self.runs)[run.id]

    def door(self, door: str) -> str:
        return say(DOORS[door], self.language) if door in DOORS else door

    def where(self, run: Run, door: str) -> str:
        """The candidate and the door, as a drawing's heading needs them."""
        is_one_door = len({cell.door for one in self.runs for cell in one.cells}) <= 1
        parts = [self.label(run)] if self.is_comparison else []
        parts += [] if is_one_door and parts else [self.door(door)]
        return " · ".join(parts)

    def main_door(self, run: Run) -> str:
        """The door whose cells stand for a candidate beside others: the gateway where it was in the way."""
        return "gateway" if any(cell.door == "gateway" for cell in run.cells) else "direct"

    def group(self, run: Run, door: str, kind: str) -> str:
        """As `where`, with the kind of load where the report has both kinds."""
        kinds = {cell.kind for one in self.runs for cell in one.cells}
        return " · ".join(filter(None, (self.where(run, door), self.word(kind) if len(kinds) > 1 else "")))

    # --- cells of tables ---

    def load(self, cell: CellSeen) -> Shown:
        words = load_words(cell, self.language)
        return words if words is not None else Foreign(cell.load)

    def invalid(self, cell: CellSeen) -> Invalid:
        return Invalid(self.word("invalid_why", why=why_invalid(cell, self.language)))

    def metric(self, metric: str, value: float | None, why: str, beside: str = "") -> Shown:
        return Missing(why) if value is None else Number(number(in_unit(metric, value)), beside)

    def reading(self, metric: str, found: Reading | None, why: str) -> Shown:
        if found is None:
            return Missing(why)
        return self.metric(metric, found.value, why, self.span(metric, found.low, found.high))

    def span(self, metric: str, low: float | None, high: float | None) -> str:
        if low is None or high is None:
            return ""
        return f"[{number(in_unit(metric, low))}, {number(in_unit(metric, high))}]"

    def yes(self, value: bool | None, why: str) -> Shown:
        return Missing(why) if value is None else Sign(self.word("yes" if value else "no"), value)

    # --- parts of sections ---

    def heads(self, *names: str, numbers: Iterable[str] = ()) -> list[Head]:
        numeric = set(numbers)
        return [Head(say(COLUMNS[name], self.language), name in numeric) for name in names]

    def table(self, heads: Sequence[Head], rows: Iterable[Row], caption: str) -> Iterator[Element]:
        yield from table(heads, rows, caption=self._unlike(caption), language=self.language)

    def behind(
        self, heads: Sequence[Head], rows: Iterable[Row], caption: str, *, summary: str = "", is_long: bool = False
    ) -> Element:
        """A table behind a switch; one that is long stays off paper."""
        shown = table(heads, rows, caption=self._unlike(caption), language=self.language)
        kind = "screen-only" if is_long else None
        return element("details", {"class": kind}, element("summary", {}, summary or self.word("numbers")), *shown)

    def caption(self, section: str, about: str) -> str:
        """What a table is called to who hears the page."""
        return f"{self.say(SECTIONS[section].heading)}: {about}"

    def _unlike(self, caption: str) -> str:
        """The caption, numbered where another table has the same: regions of a page differ in name."""
        self._captions[caption] += 1
        times = self._captions[caption]
        return caption if times == 1 else f"{caption} ({times})"


def paragraph(text: str, name: str | None = None, **attributes: Attribute) -> Element:
    return element("p", {"class": name, **attributes}, text)


def term(name: str, *said: Node) -> tuple[Element, Element]:
    return element("dt", {}, name), element("dd", {}, *said)
