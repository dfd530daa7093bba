"""Puts our name for a model where an engine's answer has the engine's own, and touches no other byte.

Answers may repeat objects that a client or the model itself made up (metadata, a tool's input), so the field is found
by its place in the document and not by its looks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY = re.compile(rb"[\s,]*+(" + _STRING + rb")\s*+:\s*+")
_SCALAR = re.compile(_STRING + rb"|[^\s,\]}]++")
_STRUCTURE = re.compile(_STRING + rb"|([\[{])|[\]}]")


class Renaming:
    """From the engine's name `theirs` to `ours`."""

    def __init__(self, theirs: str, ours: str) -> None:
        self._theirs = theirs
        self._ours = json.dumps(ours, ensure_ascii=False).encode()
        written = json.dumps(theirs, ensure_ascii=False).encode()
        self._field = re.compile(rb'(?<=[{,\s]"model":)(\s*)' + re.escape(written))
        self._replacement = rb"\1" + self._ours.replace(b"\\", rb"\\")

    def first_field(self, body: bytes) -> bytes:
        """For bodies whose own `model` stands before whatever else might be called so. The cheapest way."""
        return self._field.sub(self._replacement, body, count=1)

    def at(self, path: Sequence[str], body: bytes) -> bytes:
        """For the JSON object in `body`, which may stand among other bytes: the name at that place, where it is."""
        span = _member(body, path)
        if span is None:
            return body
        start, end = span
        try:
            is_theirs = json.loads(body[start:end]) == self._theirs
        except ValueError:
            return body
        return body[:start] + self._ours + body[end:] if is_theirs else body


def renaming(theirs: str, ours: str) -> Renaming | None:
    """None where both call the model the same."""
    return Renaming(theirs, ours) if theirs != ours else None


def _member(body: bytes, path: Sequence[str]) -> tuple[int, int] | None:
    """Where the value stands that `path` leads to, one member's name a step."""
    position = body.find(b"{")
    for step, name in enumerate(path):
        if position < 0 or body[position : position + 1] != b"{":
            return None
        span = _value_of(name.encode(), body, position + 1)
        if span is None or step == len(path) - 1:
            return span
        position = span[0]
    return None


def _value_of(name: bytes, body: bytes, position: int) -> tuple[int, int] | None:
    """The value of the member `name` of the object whose inside begins at `position`."""
    while (key := _KEY.match(body, position)) is not None:
        end = _end_of_value(body, key.end())
        if key[1][1:-1] == name:
            return key.end(), end
        if end <= key.end():
            return None
        position = end
    return None


def _end_of_value(body: bytes, position: int) -> int:
    if body[position : position + 1] not in (b"{", b"["):
        scalar = _SCALAR.match(body, position)
        return scalar.end() if scalar else position
    depth = 0
    for token in _STRUCTURE.finditer(body, position):
        if token[1]:
            depth += 1
        elif not token[0].startswith(b'"'):
            depth -= 1
            if depth == 0:
                return token.end()
    return len(body)
