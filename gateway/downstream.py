"""The client's side of the wire: uvicorn's HTTP protocol with two things added.

All bytes of one turn of the event loop go out in one write, so that an answer's head and body are one system call and
nothing waits longer than the turn. And whoever serves a request is told at once that its client has left, without a
task that waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Scope = MutableMapping[str, Any]
_EXTENSION = "simsa.departure"


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
        joining = _JoiningTransport(cast("asyncio.Transport", transport), self.loop)
        self._departure = Departure()
        super().connection_made(cast("asyncio.Transport", joining))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("Scope", self.scope)["extensions"] = {_EXTENSION: self._departure}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._departure.announce()
