"""Server-sent events, sans-I/O: bytes in, whole events out, with their raw bytes.

Follows the event-stream format of the WHATWG HTML standard: lines end with CRLF, LF or CR, one optional space after
the colon, several data lines join with LF, lines that start with a colon are comments. Meaning belongs to `meter`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_EVENT_BYTES = 16 * 1024 * 1024

# Atomic groups: "\r\n" is one line end and is never read as two.
_BLANK_LINE = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class SseError(ValueError):
    """The stream is no event stream: an event grew past MAX_EVENT_BYTES."""


class Event(NamedTuple):
    data: bytes | None
    """Joined data lines; None where the block had none (comments, blank lines)."""
    raw: bytes
    """The block's own bytes, blank line included."""
    name: bytes = b""
    """The `event:` field, empty for the default "message"."""


class SseParser:
    """Feed it chunks split anywhere; `b"".join(event.raw …) + tail` is always exactly what was fed."""

    __slots__ = ("_at_start", "_buffer")

    def __init__(self) -> None:
        self._buffer = b""
        self._at_start = True

    @property
    def tail(self) -> bytes:
        """Bytes after the last complete event."""
        return self._buffer

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes, in order. Raises SseError on an endless event."""
        held = len(self._buffer)
        if not held and _is_one_line_event(chunk):
            self._at_start = False
            return [Event(chunk[6:-2], chunk)]
        buffer = self._buffer + chunk if held else chunk
        events: list[Event] = []
        start = 0
        # A blank line may straddle the border: up to three of its bytes may be held already.
        match = _BLANK_LINE.search(buffer, max(0, held - 3))
        while match is not None:
            events.append(self._event(buffer[start : match.end()], match.start() - start))
            start = match.end()
            match = _BLANK_LINE.search(buffer, start)
        self._buffer = buffer[start:] if start else buffer
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise SseError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def _event(self, raw: bytes, length: int) -> Event:
        block = raw[:length]
        if self._at_start:
            self._at_start = False
            block = block.removeprefix(_BOM)
        if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
            return Event(block[6:], raw)
        return _parse_block(block, raw)


def _is_one_line_event(chunk: bytes) -> bool:
    """What engines send nearly always: one whole event with one data line."""
    return (
        chunk.startswith(b"data: ")
        and chunk.endswith(b"\n\n")
        and chunk.find(b"\n") == len(chunk) - 2
        and b"\r" not in chunk
    )


def _parse_block(block: bytes, raw: bytes) -> Event:
    data: list[bytes] = []
    name = b""
    for line in _LINE_END.split(block):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(b"\n".join(data) if data else None, raw, name)
