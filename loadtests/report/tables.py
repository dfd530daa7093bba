"""Tables of a report: cells with units, dashes whose reasons stand below, rows of invalid cells without figures.

What stands in them is `sections`' and the other makers'; this is their form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.markup import Element, Node, element
from loadtests.report.terms import WHY_NOT, Language, say

DASH = "–"


@dataclass(frozen=True, slots=True)
class Missing:
    """A dash; `why` is a code of `terms.WHY_NOT` or a sentence."""

    why: str


@dataclass(frozen=True, slots=True)
class Number:
    """Set to the right, with what stands small beside it."""

    text: str
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Words that come from elsewhere, in English."""

    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """Sentences, which wrap; with what stands small below them."""

    sentences: Sequence[str]
    below: str = ""
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Invalid:
    """Instead of all further cells of a row."""

    text: str


@dataclass(frozen=True, slots=True)
class Sign:
    """A word that is good or bad news; its sign says it without colour."""

    text: str
    is_good: bool
    below: str = ""


Shown = Missing | Number | Foreign | Words | Invalid | Sign | Element | str
Row = Sequence[Shown]


@dataclass(frozen=True, slots=True)
class Head:
    text: str
    is_number: bool = False


@dataclass(slots=True)
class _Whys:
    """Names the reasons in the order of their first use."""

    language: Language
    found: list[str] = field(default_factory=list)

    def letter(self, why: str) -> str:
        """a, b, … for the reasons in their order; never a digit, which beside a dash would read as a number."""
        text = say(WHY_NOT[why], self.language) if why in WHY_NOT else why
        if text not in self.found:
            self.found.append(text)
        return _letter(self.found.index(text))


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26) * (1 + number // 26)


def table(heads: Sequence[Head], rows: Iterable[Row], *, caption: str, language: Language) -> Iterator[Element]:
    """A table that scrolls by itself where it is too wide, and the reasons of its dashes."""
    whys = _Whys(language)
    head = (element("th", {"scope": "col", "class": "n" if one.is_number else None}, one.text) for one in heads)
    body = [element("tr", {}, *_row(row, len(heads), whys)) for row in rows]
    yield element(
        "div",
        {"class": "wide numbers", "tabindex": "0", "role": "region", "aria-label": caption},
        element(
            "table",
            {},
            element("thead", {}, element("tr", {}, *head)),
            element("tbody", {}, *body),
        ),
    )
    if whys.found:
        items = (element("li", {}, element("sup", {}, _letter(n)), text) for n, text in enumerate(whys.found))
        yield element("ul", {"class": "whys"}, *items)


def _row(row: Row, width: int, whys: _Whys) -> Iterator[Element]:
    for place, cell in enumerate(row):
        if isinstance(cell, Invalid):
            yield element("td", {"class": "invalid", "colspan": width - place}, cell.text)
            return
        if place == 0:
            yield element("th", {"scope": "row", "class": _class(cell)}, *_content(cell, whys))
        else:
            yield element("td", {"class": _class(cell)}, *_content(cell, whys))


def _class(cell: Shown) -> str | None:
    match cell:
        case Number():
            return "n"
        case Missing():
            return "n gap"
        case Foreign() if len(cell.text) > 40:
            return "text"
        case Words():
            return "text" if len(cell.sentences) < 2 else "text several"
        case str() if len(cell) > 40:
            return "text"
    return None


def _content(cell: Shown, whys: _Whys) -> Iterator[Node]:
    match cell:
        case Missing():
            yield DASH
            yield element("sup", {}, whys.letter(cell.why))
        case Number():
            yield cell.text
            if cell.beside:
                yield element("small", {}, f" {cell.beside}")
        case Foreign():
            yield element("span", {"lang": "en"}, cell.text)
        case Sign():
            sign = "✓ " if cell.is_good else "✗ "
            yield element("span", {"class": "good" if cell.is_good else "bad"}, sign, cell.text)
            if cell.below:
                yield element("small", {"class": "below"}, cell.below)
        case Words():
            said = cell.sentences
            several = element("ul", {"lang": cell.language}, *(element("li", {}, one) for one in said))
            yield several if len(said) > 1 else element("span", {"lang": cell.language}, "".join(said))
            if cell.below:
                yield element("small", {"class": "below"}, cell.below)
        case Invalid():
            yield cell.text
        case _:
            yield cell
