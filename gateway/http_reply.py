"""One HTTP/1.1 exchange on one socket: the reply as it comes, and the connection that carries it.

Which connection is used for which engine, and the requests' bytes, are `upstream`'s subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from gateway.errors import UpstreamError, UpstreamTimeout, UpstreamTruncated, UpstreamUnreachable

HIGH_WATER_BYTES = 256 * 1024
"""Unread bytes at which the engine's socket is read no further."""
MAX_HEAD_BYTES = 64 * 1024
Arrival = tuple[bytes, float]
"""Bytes, and the monotonic moment at which they came from the socket, however late they are read."""


class Reply:
    """One answer of an engine. `arrivals` gives what has come; `release` must be called, whatever happened.

    `due` is the monotonic moment (loop.time) by which the next bytes must be there; move it with `expect`.
    """

    __slots__ = (
        "_arrivals",
        "_buffered",
        "_connection",
        "_error",
        "_is_overdue",
        "_waiter",
        "due",
        "due_what",
        "has_started",
        "headers",
        "is_complete",
        "status",
        "was_held_back",
        "when_over",
    )  # fmt: skip

    def __init__(self, connection: Connection, due: float, due_what: str) -> None:
        self._connection = connection
        self._arrivals: list[Arrival] = []
        self._buffered = 0
        self._is_overdue = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_started = False
        self.is_complete = False
        self.was_held_back = False
        """The engine had to wait with sending because its bytes were not read: later moments are the reader's."""
        self.when_over: Callable[[], object] | None = None
        """Called when the engine has sent all it will send, read or not."""
        self.due = due
        self.due_what = due_what
        connection.watch(due)

    def expect(self, due: float, what: str) -> None:
        """Bytes must come by `due`; `what` names the limit in the error."""
        self.due_what = what
        self.due = due
        self._connection.watch(due)

    def header(self, name: bytes) -> bytes | None:
        """The first header of that lower-case name."""
        return next((value for key, value in self.headers if key == name), None)

    async def arrivals(self) -> list[Arrival]:
        """All bytes that have come and were not read, each with its moment; empty at the end.

        Raises UpstreamTimeout when `due` passes, UpstreamTruncated when the engine goes away before the end.
        """
        while not self._arrivals:
            if self.is_complete:
                return []
            if self._error is not None:
                raise self._error
            await self._wait()
        came, self._arrivals, self._buffered = self._arrivals, [], 0
        self._connection.resume()
        return came

    async def read(self) -> bytes:
        """Like `arrivals` for those who do not ask when: joined, b"" at the end."""
        return b"".join([data for data, _ in await self.arrivals()])

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamError when it is longer than `limit` bytes."""
        return (await self.read_all_timed(limit))[0]

    async def read_all_timed(self, limit: int) -> Arrival:
        """The whole body, and when its last byte came. Raises UpstreamError when it is longer than `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        last_s = self._connection.arrived_s
        while came := await self.arrivals():
            last_s = came[-1][1]
            for data, _ in came:
                parts.append(data)
                size += len(data)
            if size > limit:
                raise UpstreamError(f"the engine's answer is longer than {limit} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts), last_s

    def release(self) -> None:
        """Give the connection back when the answer is whole, else close it at once, which frees the engine."""
        self._connection.finish(self)

    def release_when_complete(self, within_s: float) -> None:
        """Like `release`, but let the last bytes of a finished stream come first, so the connection can be reused."""
        if self.is_complete:
            self._connection.finish(self)
        else:
            self._connection.finish_later(self, within_s)

    async def started(self) -> None:
        """Wait for the status line and headers."""
        while not self.has_started:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def _wait(self) -> None:
        if self._is_overdue:  # the reader was away, not the engine
            self._is_overdue = False
            self._connection.watch(self.due)
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Called by the connection:

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers
        self.has_started = True
        self._wake()

    def add(self, data: bytes, arrived_s: float) -> bool:
        """Take body bytes; True when the reader is too far behind."""
        self._arrivals.append((data, arrived_s))
        self._buffered += len(data)
        self._wake()
        if self._buffered <= HIGH_WATER_BYTES:
            return False
        if self._waiter is None:  # a reader that only waits for its turn is not slow
            self.was_held_back = True
        return True

    def complete(self) -> None:
        self.is_complete = True
        self._end()

    def ring(self) -> None:
        """`due` has come."""
        if self._waiter is None:
            self._is_overdue = True
        else:
            self.fail(UpstreamTimeout(f"the engine sent nothing in time: {self.due_what}"))

    def fail(self, error: UpstreamError) -> None:
        if self._error is None and not self.is_complete:
            self._error = error
            self._end()

    def _end(self) -> None:
        if self.when_over is not None:
            self.when_over()
        self._wake()


class Connection(asyncio.Protocol):
    """One socket to an engine, serving one reply at a time."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, now: Callable[[], float], on_idle: Callable[[Connection], None]
    ) -> None:
        self.loop = loop
        self.arrived_s = 0.0
        """When the newest bytes came."""
        self._now = now
        self.is_reused = False
        self.is_open = False
        self._on_idle = on_idle
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._is_paused = False
        self._is_lingering = False
        self._linger_timer: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._expect_message()

    def send(self, request: bytes, due: float, due_what: str) -> Reply:
        assert self._transport is not None
        self._reply = Reply(self, due, due_what)
        self._transport.write(request)
        return self._reply

    def resume(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def finish(self, reply: Reply) -> None:
        if self._reply is not reply:
            return
        self._reply = None
        if reply.is_complete and self.is_open and self._keep_alive:
            self.resume()
            self.is_reused = True
            self._expect_message()
            self._on_idle(self)
        else:
            self.close()

    def finish_later(self, reply: Reply, within_s: float) -> None:
        self._is_lingering = True
        self._linger_timer = self.loop.call_later(within_s, self._linger_over)

    def watch(self, due: float) -> None:
        """Look at the reply at `due`. One alarm serves many replies: it is set anew only for an earlier moment."""
        if self._alarm is None or due < self._alarm_at:
            self._stop_alarm()
            self._alarm_at = due
            self._alarm = self.loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        reply = self._reply
        if reply is None:
            return
        if self.loop.time() < reply.due:
            self.watch(reply.due)
        else:
            reply.ring()

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def close(self) -> None:
        self.is_open = False
        self._stop_alarm()
        if self._transport is not None:
            self._transport.abort()

    def _linger_over(self) -> None:
        self._is_lingering = False
        if self._reply is not None:
            self.finish(self._reply)

    def _expect_message(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._is_framed = False
        self._keep_alive = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        if reply is None:
            self.close()  # bytes that nobody asked for
            return
        self.arrived_s = self._now()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            reply.fail(UpstreamTruncated(f"the engine's answer is not valid HTTP: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._stop_alarm()
        reply = self._reply
        if reply is None:
            return
        if reply.has_started and not self._is_framed and exc is None:
            reply.complete()
        elif reply.has_started:
            reply.fail(UpstreamTruncated("the engine closed the connection before its answer was whole"))
        else:
            reply.fail(UpstreamUnreachable("the engine closed the connection without an answer"))

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("response head too large")
        if name in (b"content-length", b"transfer-encoding"):
            self._is_framed = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []
            return
        if status in (204, 304):
            self._is_framed = True
        assert self._reply is not None
        self._reply.start(status, self._headers)

    def on_body(self, data: bytes) -> None:
        reply = self._reply
        if reply is None or self._is_lingering:
            return
        if reply.add(data, self.arrived_s) and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        reply = self._reply
        if reply is None or not reply.has_started:
            return
        self._keep_alive = self._parser.should_keep_alive()
        reply.complete()
        if self._is_lingering:
            assert self._linger_timer is not None
            self._linger_timer.cancel()
            self._is_lingering = False
            # After the parser has returned: the next request may only then use it.
            self.loop.call_soon(self.finish, reply)
