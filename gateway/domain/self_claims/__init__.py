"""Whether a sentence says who is speaking, and by which words.

Names are found by `lexicon`; here a sentence's names are masked and the rules of both languages are tried at each.
What is done with such a sentence belongs to `redaction`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.domain.lexicon import Found, Kind, Lexicon, names_in, view_of
from gateway.domain.self_claims import english, english_beside, english_turns, korean, korean_turns
from gateway.domain.self_claims.rules import COMPANY, ORDINARY, REACH, SURE, Place, Rule

RULES: tuple[Rule, ...] = (
    *korean.RULES,
    *english.RULES,
    *korean_turns.RULES,
    *english_turns.RULES,
    *english_beside.RULES,
)
_DENIED_AFTER = re.compile(r"(?:이|가|은|는)? ?아(?:니|닙|닌|녜)")
_DENIED_BEFORE = re.compile(r"\bnot (?:an? |the )?$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence as rules read it: `masked` has one sign for each of `found`, at `places`."""

    masked: str
    found: tuple[Found, ...] = ()
    places: tuple[int, ...] = ()


def read_sentence(text: str, lexicon: Lexicon) -> Sentence:
    view = view_of(text)
    found = names_in(view, lexicon)
    parts: list[str] = []
    places: list[int] = []
    position = length = 0
    for one in found:
        between = view[position : one.start]
        parts += (between, _mask(one))
        places.append(length + len(between))
        length += len(between) + 1
        position = one.end
    return Sentence("".join((*parts, view[position:])), tuple(found), tuple(places))


def joined(first: Sentence, second: Sentence, *, by: str = " ") -> Sentence:
    """Both read as one: a sentence that goes on in the next line, a table's cell after its label."""
    moved = len(first.masked) + len(by)
    places = (*first.places, *(moved + place for place in second.places))
    return Sentence(f"{first.masked}{by}{second.masked}", (*first.found, *second.found), places)


def _mask(found: Found) -> str:
    if found.name.kind is Kind.COMPANY:
        return COMPANY
    return ORDINARY if found.name.is_ordinary and not found.has_version else SURE


def rule_of(sentence: Sentence, before: Sentence, *, beside_claim: bool = False) -> str | None:
    """The first rule by which the sentence speaks of itself; None where none does.

    `beside_claim`: another sentence of the same text does, so that what people say too is read as the answer's own.
    """
    places = _places(sentence, before.masked)
    held = (rule.id for place in places for rule in RULES if rule.holds(place, beside_claim=beside_claim))
    return next(held, None)


def _places(sentence: Sentence, before: str) -> Iterator[Place]:
    text = sentence.masked
    for start in sentence.places:
        left = text[max(0, start - REACH) : start]
        yield Place(
            mask=text[start],
            left=left,
            right=text[start + 1 : start + 1 + REACH],
            before=before[-REACH:],
            is_whole_left=start <= REACH,
        )


def names_maker(sentence: Sentence) -> bool:
    """A label such as `Developer: …` with a company: tells of the answer only beside a line that names the model."""
    return any(label.search(sentence.masked) for label in (korean.MAKER_LABEL, english.MAKER_LABEL))


def is_true(sentence: Sentence, author: str | None) -> bool | None:
    """Whether a self-claim names its author. None when the author is not known, or when names are only denied."""
    claimed = set(_claimed(sentence))
    return None if author is None or not claimed else author in claimed


def _claimed(sentence: Sentence) -> Iterator[str]:
    for found, place in zip(sentence.found, sentence.places, strict=True):
        text = sentence.masked
        is_denied = _DENIED_AFTER.match(text, place + 1) or _DENIED_BEFORE.search(text[max(0, place - 10) : place])
        if not is_denied:
            yield found.name.owner


def texts(found: Sequence[Found]) -> tuple[str, ...]:
    """The names as the lexicon writes them, each once, in the order of the sentence."""
    return tuple(dict.fromkeys(one.name.text for one in found))
