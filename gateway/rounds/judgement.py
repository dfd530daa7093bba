"""A judgement as it comes from a reviewer's browser, checked against the round's rubric before anything is kept.

Strict: an unknown field, grade or criterion is refused by name, for what is sealed into the chain cannot be mended.
Whether the item may be judged at all belongs in `voting`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from gateway.domain.rounds import Choice
from gateway.errors import InvalidRequest

GRADES = range(-2, 3)
"""From A much better to B much better."""
MAX_COMMENT = 4_000
"""Characters."""
MAX_REASON = 1_000
MAX_SECONDS = 24 * 3600

Judgement = Mapping[str, Any]
"""choice, grades, reason, comment, recognised, seconds; what was not said is absent."""


def read_judgement(fields: Any, criteria: Collection[str]) -> dict[str, Any]:
    """The judgement in one form, without what says nothing. Raises InvalidRequest naming the field and what is right.

    `fields`: decoded JSON. `criteria`: the ids of the rubric.
    """
    if not isinstance(fields, dict):
        raise InvalidRequest("judgement: expected an object", param="judgement")
    unknown = sorted(set(fields) - set(_READERS))
    if unknown:
        raise _wrong(unknown[0][:60], f"there is no such field; expected {', '.join(_READERS)}")
    said: dict[str, Any] = {}
    for name, read in _READERS.items():
        if fields.get(name) is not None:
            value = read(fields[name], criteria)
            if value not in ("", {}, False):
                said[name] = value
    return said


def is_complete(judgement: Judgement) -> bool:
    """Whether an item with this may be submitted: an overall choice, or the reason why there is none."""
    choice = judgement.get("choice")
    return choice is not None and (choice != Choice.CANNOT_JUDGE.value or bool(judgement.get("reason")))


def says_the_same(one: Judgement, other: Judgement) -> bool:
    """Whether two judgements differ in nothing but the time that was spent."""
    return {**one, "seconds": None} == {**other, "seconds": None}


def _choice(value: Any, _criteria: Collection[str]) -> str:
    known = [choice.value for choice in Choice]
    if value not in known:
        raise _wrong("choice", f"expected one of {', '.join(known)}")
    return str(value)


def _grades(value: Any, criteria: Collection[str]) -> dict[str, int]:
    if not isinstance(value, dict):
        raise _wrong("grades", "expected an object of grades by criterion")
    for criterion, grade in value.items():
        if criterion not in criteria:
            raise _wrong(f"grades.{criterion[:60]}", f"no such criterion; expected {', '.join(criteria)}")
        if type(grade) is not int or grade not in GRADES:
            raise _wrong(f"grades.{criterion}", "expected a whole number from -2 (A much better) to 2 (B much better)")
    return {criterion: value[criterion] for criterion in criteria if criterion in value}


def _text(name: str, limit: int) -> Callable[[Any, Collection[str]], str]:
    def read(value: Any, _criteria: Collection[str]) -> str:
        if not isinstance(value, str):
            raise _wrong(name, "expected a text")
        text = value.replace("\r\n", "\n").strip()
        if len(text) > limit:
            raise _wrong(name, f"expected at most {limit} characters, got {len(text)}")
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise _wrong(name, "it holds half a character (a lone surrogate)")
        return text

    return read


def _flag(value: Any, _criteria: Collection[str]) -> bool:
    if type(value) is not bool:
        raise _wrong("recognised", "expected true or false")
    return value


def _seconds(value: Any, _criteria: Collection[str]) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SECONDS:
        raise _wrong("seconds", f"expected a whole number of seconds from 0 to {MAX_SECONDS}")
    return value


def _wrong(field: str, words: str) -> InvalidRequest:
    return InvalidRequest(f"judgement.{field}: {words}", param=field, code="judgement_invalid")


_READERS: Mapping[str, Callable[[Any, Collection[str]], Any]] = {
    "choice": _choice,
    "grades": _grades,
    "reason": _text("reason", MAX_REASON),
    "comment": _text("comment", MAX_COMMENT),
    "recognised": _flag,
    "seconds": _seconds,
}
