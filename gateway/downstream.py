"""The client's side of the wire: uvicorn's HTTP protocol with what the relay needs added.

All bytes of one turn of the event loop go out in one write, so that an answer's head and body are one system call and
nothing waits longer than the turn. And whoever serves a request is told at once that its client has left, without a
task that waits for it. What a client may send before anybody looks at it is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import InvalidRequest

Scope = MutableMapping[str, Any]
_EXTENSION = "simsa.departure"
MAX_HEAD_BYTES = 64 * 1024
"""Bytes of a request that are neither body nor a whole head; the parser itself would gather them without end."""
MAX_PIPELINED = 16
_TOO_LARGE = msgspec.json.encode(
    InvalidRequest(f"The request head is larger than {MAX_HEAD_BYTES} bytes.", code="head_too_large").envelope()
)
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)


class Departure:
    """Whether a client has left, and what is to happen when it does."""

    __slots__ = ("_callback", "has_happened")

    def __init__(self) -> None:
        self.has_happened = False
        self._callback: Callable[[], object] | None = None

    def announce(self) -> None:
        self.has_happened = True
        if self._callback is not None:
            self._callback()

    async def ends(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`; the client leaving cancels it at once, and that is then a normal end."""
        if self.has_happened:
            work.close()
            return
        owner = asyncio.current_task()
        assert owner is not None
        self._callback = owner.cancel
        try:
            await work
        except asyncio.CancelledError:
            if not self.has_happened or owner.uncancel() > 0:
                raise
        finally:
            self._callback = None


def departure_of(scope: Scope) -> Departure:
    """The departure of the client that sent this request; only requests that came through ClientProtocol have one."""
    departure: Departure = scope["extensions"][_EXTENSION]
    return departure


class _JoiningTransport:
    """A transport whose writes go out together at the end of the loop's turn; all else is the transport's own."""

    __slots__ = ("_loop", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        parts = self._parts
        if parts:
            self._parts = []
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class ClientProtocol(HttpToolsProtocol):
    """What uvicorn is told to speak with clients."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._head_bytes = 0
        joining = _JoiningTransport(cast("asyncio.Transport", transport), self.loop)
        self._departure = Departure()
        super().connection_made(cast("asyncio.Transport", joining))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("Scope", self.scope)["extensions"] = {_EXTENSION: self._departure}

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.pipeline:
            if len(self.pipeline) > MAX_PIPELINED:
                self.transport.close()
            self.flow.resume_reading()  # or the client leaving would not be seen

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._departure.announce()
