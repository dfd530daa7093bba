"""One way to write a JSON value down, byte for byte: RFC 8785, so that a hash of it means the same to everybody.

Only values of JSON and no others: a number that a JavaScript program would read as another one is refused. What is
hashed, and what for, belongs to the callers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

LARGEST_INTEGER = 2**53 - 1
"""Beyond it, in either direction, a double has no room for every whole number (RFC 7493, section 2.2)."""
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TO_ESCAPE = re.compile(r'["\\\x00-\x1f]')


def canonical_json(value: Json) -> bytes:
    """The value in UTF-8: keys by their UTF-16 code units, no spaces, numbers as ECMAScript writes them.

    Raises ValueError, naming the place, for NaN, infinity, whole numbers beyond ±(2⁵³ - 1), surrogates that are not
    a pair, and whatever is no JSON value.
    """
    parts: list[str] = []
    _write(value, "$", parts)
    return "".join(parts).encode()


def read_canonical(written: bytes) -> Json:
    """The value of bytes that `canonical_json` wrote, so that it gives the same bytes again.

    A whole number beyond ±(2⁵³ - 1) comes back as the double that it was. Raises ValueError for all other bytes: other
    spaces, other orders, keys that stand twice, numbers written in other ways.
    """
    try:
        value: Json = json.loads(written.decode(), parse_int=_read_integer)
        again = canonical_json(value)
    except RecursionError as error:
        raise ValueError("expected canonical JSON, got one that is nested too deep") from error
    if again != written:
        raise ValueError("expected canonical JSON, got the same or another value written in another way")
    return value


def _read_integer(digits: str) -> int | float:
    number = int(digits)
    return number if abs(number) <= LARGEST_INTEGER else float(digits)


def _write(value: Json, place: str, parts: list[str]) -> None:
    match value:
        case None:
            parts.append("null")
        case bool():
            parts.append("true" if value else "false")
        case str():
            parts.append(_text(value, place))
        case int():
            parts.append(_integer(value, place))
        case float():
            parts.append(_number(value, place))
        case Mapping():
            _write_object(value, place, parts)
        case list() | tuple():
            parts.append("[")
            for at, item in enumerate(value):
                parts.append("," if at else "")
                _write(item, f"{place}[{at}]", parts)
            parts.append("]")
        case _:
            raise ValueError(f"{place}: expected a value of JSON, got {type(value).__name__}")


def _write_object(value: Mapping[str, Json], place: str, parts: list[str]) -> None:
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{place}: expected keys of text, got {key!r}")
        _text(key, place)
    parts.append("{")
    for at, key in enumerate(sorted(value, key=lambda key: key.encode("utf-16-be"))):
        parts.append(("," if at else "") + _text(key, place) + ":")
        _write(value[key], f"{place}.{key}", parts)
    parts.append("}")


def _text(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: expected text that UTF-8 can hold, got a lone surrogate") from error
    return f'"{_TO_ESCAPE.sub(_escaped, text)}"'


def _escaped(sign: re.Match[str]) -> str:
    return _ESCAPES.get(sign[0]) or f"\\u{ord(sign[0]):04x}"


def _integer(value: int, place: str) -> str:
    if abs(value) > LARGEST_INTEGER:
        raise ValueError(f"{place}: expected a whole number within ±(2**53 - 1), got {value}: write it as text")
    return str(int(value))


def _number(value: float, place: str) -> str:
    """ECMA-262, Number::toString: the shortest digits that read back as the same double, which `repr` finds too."""
    if not math.isfinite(value):
        raise ValueError(f"{place}: expected a finite number, got {value}")
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(float(abs(value))).partition("e")
    before, _, after = mantissa.partition(".")
    digits = (before + after).lstrip("0")
    point = len(before) + int(exponent or 0) - (len(before + after) - len(digits))
    return ("-" if value < 0 else "") + _placed(digits.rstrip("0"), point)


def _placed(digits: str, point: int) -> str:
    """`digits` with the decimal point after the first `point` of them, as ECMAScript lays it out."""
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
