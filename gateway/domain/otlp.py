"""Spans as bytes: the few messages of OTLP 1.x (protobuf) that a batch of traces takes, and what its answer says.

The wire format of these messages is frozen, so writing it is arithmetic; what the spans mean, and where they go, is
not known here. docs/decisions says why no library does this.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

Value = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, Value | None]
"""None: not known, and then not said."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_IS_SAMPLED, _KNOWS_IF_REMOTE, _IS_REMOTE = 0x001, 0x100, 0x200
_ERROR = 2
_UINT64 = (1 << 64) - 1
_SMALL = [bytes((number,)) for number in range(0x80)]
"""Numbers of one byte, as varints."""
_SHORT = 0x80 - 2
"""Bytes of a text below which the sizes around it take one byte each."""
_DOUBLE = struct.Struct("<BBBd").pack


class SpanKind(IntEnum):
    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work in a trace. Moments are nanoseconds since 1970."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    """Empty where the trace begins."""
    name: str
    kind: SpanKind
    start_ns: int
    end_ns: int
    attributes: Attributes
    is_error: bool = False
    has_remote_parent: bool = False
    """The parent is another program's."""
    state: bytes = b""
    """The trace's tracestate."""


def encode_span(span: Span) -> bytes:
    """A span as a field of its scope, for `encode_batch`."""
    flags = _IS_SAMPLED | _KNOWS_IF_REMOTE | (_IS_REMOTE if span.has_remote_parent else 0)
    parts = [_block(1, span.trace_id), _block(2, span.span_id)]
    if span.state:
        parts.append(_block(3, span.state))
    if span.parent_id:
        parts.append(_block(4, span.parent_id))
    parts += (
        _text(5, span.name),
        _number(6, span.kind),
        _fixed64(7, span.start_ns),
        _fixed64(8, span.end_ns),
        _attributes(9, span.attributes),
        _block(15, _number(3, _ERROR)) if span.is_error else b"",
        _tag(16, _FIXED32) + struct.pack("<I", flags),
    )
    return _block(2, b"".join(parts))


def encode_batch(spans: Iterable[bytes], *, resource: Attributes, scope: str, version: str) -> bytes:
    """An ExportTraceServiceRequest of spans that `encode_span` gave. `resource`: who sends them."""
    scope_spans = _block(1, _text(1, scope) + _text(2, version)) + b"".join(spans)
    return _block(1, _block(1, _attributes(1, resource)) + _block(2, scope_spans))


def read_rejected(answer: bytes) -> int:
    """How many spans an ExportTraceServiceResponse says were not taken; 0 where it does not say, or is none."""
    try:
        partial = _field(answer, 1)
        rejected = _field(partial, 1) if isinstance(partial, bytes) else None
    except (IndexError, ValueError):
        return 0
    return rejected if isinstance(rejected, int) else 0


# --- writing ------------------------------------------------------------------------------------------------


@cache
def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _SMALL[number]
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _number(field: int, number: int) -> bytes:
    return _tag(field, _VARINT) + _varint(number & _UINT64)


def _fixed64(field: int, number: int) -> bytes:
    return _tag(field, _FIXED64) + struct.pack("<Q", number)


def _block(field: int, content: bytes) -> bytes:
    return _tag(field, _LENGTH) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _block(field, text.encode(errors="replace"))


def _attributes(field: int, attributes: Attributes) -> bytes:
    tag = _tag(field, _LENGTH)
    parts: list[bytes] = []
    for name, value in attributes.items():
        if value is None:
            continue
        content = _name(name) + _value(value)
        size = len(content)
        parts += (tag, _SMALL[size] if size < 0x80 else _varint(size), content)
    return b"".join(parts)


@cache
def _name(name: str) -> bytes:
    """An attribute's name: one of few, written again and again."""
    return _text(1, name)


def _value(value: Value) -> bytes:
    """An attribute's value. Short texts, most of them by far, are written in one go."""
    if isinstance(value, str):
        text = value.encode(errors="replace")
        size = len(text)
        return b"\x12%c\x0a%c%b" % (size + 2, size, text) if size < _SHORT else _block(2, _block(1, text))
    if isinstance(value, bool):
        return _block(2, _number(2, value))
    if isinstance(value, int):
        return _block(2, _number(3, value))
    if isinstance(value, float):
        return _DOUBLE(0x12, 9, 0x21, value)
    return _block(2, _block(5, b"".join([_block(1, _text(1, item)) for item in value])))


# --- reading ------------------------------------------------------------------------------------------------


def _field(message: bytes, wanted: int) -> bytes | int | None:
    """A field's value. Raises IndexError or ValueError for what is no message of these kinds of field."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, at = _read_varint(message, at)
        if tag & 7 == _VARINT:
            found: bytes | int = number
        elif tag & 7 == _LENGTH:
            found, at = message[at : at + number], at + number
        else:
            raise ValueError("a kind of field that this message has not")
        if tag >> 3 == wanted:
            return found
    return None


def _read_varint(message: Sequence[int], at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
