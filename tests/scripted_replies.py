"""What a scripted server received and what it answers: values, and the bytes that they become.

Nothing here opens a socket; scripted_http.py carries replies out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from http import HTTPStatus
from typing import Any, Literal, Self

Framing = Literal["length", "chunked", "close"]


class End(Enum):
    """How a reply ends its connection, where it does."""

    CLOSE = "close"
    """What was written arrives, then the end of the stream (FIN)."""
    RESET = "reset"
    """What was written arrives, then a reset (RST)."""


CLOSE = End.CLOSE
RESET = End.RESET
Step = bytes | asyncio.Event | End
"""Bytes: one write. An event: go on when it is set. An end: the connection is over."""


@dataclass(eq=False)
class Request:
    """One request as the engine received it, and what became of it."""

    method: str
    path: str
    """Without the query."""
    query: str
    headers: list[tuple[str, str]]
    """In the order received, names in lower case."""
    body: bytes
    connection: int
    """Number of the connection it came over, from 1."""
    received_s: float
    """time.monotonic() when it was complete."""
    sent_bytes: int = 0
    """Bytes of the reply handed to the socket so far, the head included."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the reply was carried out to its end, scripted cuts included."""
    closed_by_peer: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closed, half-closed or reset the connection before the reply was over."""
    closed_by_peer_s: float | None = None
    """time.monotonic() of that."""

    def header(self, name: str) -> str | None:
        """The first value of a header, None when there is none."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer. `pieces` are the body: each bytes is one write (and one chunk, where chunked), each event a gate.

    With `framing="length"` the declared length is that of all bytes in `pieces`, whether or not an end comes sooner.
    `pieces` of a chunked or close-delimited reply may be an endless iterator.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    """Sent after content-type and the framing header; a content-type here replaces the usual one."""
    pieces: Iterable[Step] = ()
    framing: Framing = "length"
    content_type: str = "application/json"
    before_head: asyncio.Event | None = None
    """Nothing is sent before this is set."""
    wire: Iterable[Step] | None = None
    """Instead of all the rest: exactly these bytes."""

    @classmethod
    def json(cls, value: object, *, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Self:
        """A whole JSON answer with a content-length."""
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        return cls(status=status, headers=headers, pieces=(body,))

    @classmethod
    def text(cls, value: str, *, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> Self:
        return cls(status=status, pieces=(value.encode(),), content_type=content_type)

    @classmethod
    def stream(cls, *pieces: Step, framing: Framing = "chunked") -> Self:
        """A stream of server-sent events; the pieces need not be whole events."""
        return cls(pieces=pieces, framing=framing, content_type="text/event-stream; charset=utf-8")

    @classmethod
    def raw(cls, *wire: Step) -> Self:
        """Exactly these bytes, HTTP or not."""
        return cls(wire=wire)

    @classmethod
    def hang(cls) -> Self:
        """Nothing, for ever: not even a status line."""
        return cls(before_head=asyncio.Event())

    @classmethod
    def hang_after_head(cls) -> Self:
        """Status 200 and the headers of a stream, then nothing."""
        return cls.stream(asyncio.Event())

    def gated(self, gate: asyncio.Event) -> Self:
        """The same, but nothing is sent before `gate` is set."""
        return replace(self, before_head=gate)

    def cut(self, after_bytes: int, end: End = CLOSE) -> Self:
        """The same, ended after so many bytes behind the head (as they go over the wire, chunk sizes included)."""
        head, *rest = replace(self, before_head=None).steps()
        return replace(self, wire=(head, *_until_cut(rest, after_bytes), end))

    def steps(self) -> Iterable[Step]:
        """What goes over the wire, in order."""
        if self.before_head is not None:
            yield self.before_head
        if self.wire is not None:
            yield from self.wire
            return
        pieces = tuple(self.pieces) if self.framing == "length" else self.pieces
        yield self._head(pieces)
        for piece in pieces:
            if isinstance(piece, bytes) and piece and self.framing == "chunked":
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
            else:
                yield piece
        if self.framing == "chunked":
            yield b"0\r\n\r\n"
        elif self.framing == "close":
            yield CLOSE

    def _head(self, pieces: Iterable[Step]) -> bytes:
        named = {name.lower() for name, _ in self.headers}
        lines = [f"HTTP/1.1 {self.status} {_phrase(self.status)}", "server: uvicorn"]
        if "content-type" not in named:
            lines.append(f"content-type: {self.content_type}")
        match self.framing:
            case "length":
                lines.append(f"content-length: {sum(len(piece) for piece in pieces if isinstance(piece, bytes))}")
            case "chunked":
                lines.append("transfer-encoding: chunked")
            case "close":
                lines.append("connection: close")
        lines += [f"{name}: {value}" for name, value in self.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"


def _until_cut(steps: Iterable[Step], after_bytes: int) -> Iterable[Step]:
    left = after_bytes
    for step in steps:
        if isinstance(step, bytes):
            yield step[:left]
            left -= len(step)
            if left <= 0:
                return
        else:
            yield step


Behaviour = Reply | Callable[[Request], Reply | Awaitable[Reply]]
