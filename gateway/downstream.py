"""The client's side of the wire: uvicorn's HTTP protocol with what the relay needs added.

All bytes of one turn of the event loop go out in one write, so that an answer's head and body are one system call and
nothing waits longer than the turn. And whoever serves a request is told at once that its client has left, without a
task that waits for it. What a client may send before anybody looks at it is bounded, and so is the time that it may
take to send a request and to fetch its answer, and how many clients there may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Literal, cast
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.asgi import Scope
from gateway.errors import InvalidRequest, SimsaError, Unavailable
from gateway.exchange import Exchange
from gateway.settings import Settings

_EXTENSION = "simsa.departure"
_ASGI = {"version": "3.0", "spec_version": "2.3"}
MAX_HEAD_BYTES = 64 * 1024
"""Bytes of a request that are neither body nor a whole head; the parser itself would gather them without end."""
MAX_PIPELINED = 16
LATE_HEAD_S = 1.0
"""How long a head may take before its connection goes first where there are too many: most come in one piece."""
SURPLUS_WAIT_S = 1.0
"""How long a connection over the limit may stay silent: an answer before its request could be lost in a reset."""


def _refusal(status: bytes, error: SimsaError) -> bytes:
    """A whole answer, for requests that reach no application; the connection ends with it."""
    body = msgspec.json.encode(error.envelope())
    head = [b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % len(body)]
    head += [f"{name}: {value}".encode() for name, value in error.headers()]
    return b"\r\n".join([*head, b"connection: close", b"", body])


_HEAD_TOO_LARGE = _refusal(
    b"431 Request Header Fields Too Large",
    InvalidRequest(f"The request head is larger than {MAX_HEAD_BYTES} bytes.", code="head_too_large"),
)
_NO_HTTP = _refusal(b"400 Bad Request", InvalidRequest("The request is not valid HTTP/1.1.", code="invalid_http"))
_TOO_MANY = _refusal(
    b"503 Service Unavailable",
    Unavailable("Too many connections (SIMSA_MAX_CONNECTIONS).", code="too_many_connections", retry_after_s=1),
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
    """A transport whose writes go out together at the end of the loop's turn; all else is the transport's own.

    `patience_s`: how long a client may take no byte of what it is sent; then the connection is broken off.
    """

    __slots__ = ("_alarm", "_loop", "_parts", "_patience_s", "_transport", "_unread")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience_s: float) -> None:
        self._transport = transport
        self._loop = loop
        self._patience_s = patience_s
        self._parts: list[bytes] = []
        self._unread = 0
        self._alarm: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        self.watch_reader()

    def watch_reader(self) -> None:
        """Break off unless bytes go on being taken, from now until none wait."""
        self.stop_watching()
        self._unread = self._transport.get_write_buffer_size()
        if self._unread:
            self._alarm = self._loop.call_later(self._patience_s, self._look_at_reader)

    def stop_watching(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look_at_reader(self) -> None:
        if self._transport.get_write_buffer_size() < self._unread:
            self.watch_reader()
        else:
            self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class ClientProtocol(HttpToolsProtocol):
    """One client's connection. `client_protocol` makes the class that uvicorn is told to use.

    Whenever the client owes the rest of a request, `_due` is the moment by which it must have come. One alarm serves
    all requests of a connection and the time between them, and a request that comes in one piece sets none.
    """

    settings: ClassVar[Settings]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._head_bytes = 0
        self._owed: Literal["head", "body"] | None = None
        """Which part of a request has begun to come and is not whole."""
        self._under_way: Exchange | None = None
        """What is being answered, whatever waits behind it."""
        self._idle_since: float | None = None
        """When the last answer was whole, while no other request has begun."""
        self._due: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._departure = Departure()
        patience_s = self.settings.client_read_timeout_s
        self._joining = _JoiningTransport(cast("asyncio.Transport", transport), self.loop, patience_s)
        super().connection_made(cast("asyncio.Transport", self._joining))
        self._is_surplus = len(self.connections) > self.settings.max_connections and not self._make_room()
        if self._is_surplus:
            self.connections.discard(self)
        self._expect(SURPLUS_WAIT_S if self._is_surplus else self.settings.client_head_timeout_s)

    def data_received(self, data: bytes) -> None:
        if self._is_surplus:
            self._end_with(_TOO_MANY)
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._end_with(_HEAD_TOO_LARGE)
        if self._due is None and (self._owed or not self._is_answering):
            settings = self.settings
            self._expect(settings.client_body_timeout_s if self._owed == "body" else settings.client_head_timeout_s)

    def on_message_begin(self) -> None:
        self._owed = "head"
        self._due = self._idle_since = None
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        parser = self.parser
        version = parser.get_http_version()
        scope = self._scope_of(version)
        self._owed = "body"
        self._due = None
        under_way = self.cycle
        self.scope = cast("Any", scope)
        self.cycle = exchange = Exchange(
            scope,
            self.transport,
            self.flow,
            self.on_response_complete,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            expects_continue=self.expect_100_continue,
        )
        if under_way is None or under_way.response_complete:
            self._under_way = exchange
            self._start_asgi_task(exchange, self.app)
        else:
            self.pipeline.appendleft((exchange, self.app))
            if len(self.pipeline) > MAX_PIPELINED:
                self.transport.close()
            self.flow.resume_reading()  # or the client leaving would not be seen

    def _scope_of(self, version: str) -> Scope:
        """What ASGI says of the request whose head has come.

        The host that a whole address as target names goes before the header's (RFC 9112, 3.2.2), which stays behind it
        for who may be deceived by either. Raises for a target without a path, and the parser then refuses the request.
        """
        target = httptools.parse_url(self.url)
        raw_path = target.path
        if raw_path is None:
            raise ValueError("the request's target has no path")
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": self.parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": target.query or b"",
            "headers": self.headers if target.host is None else [_host_of(target.host, target.port), *self.headers],
            "state": self.app_state.copy(),
            "extensions": {_EXTENSION: self._departure},
        }

    def on_response_complete(self) -> None:
        """An answer is whole: the next request that has come is served, or the connection is idle from now on.

        The idle are closed by the one alarm that each connection has, not by a timer for each answer.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._under_way, app = cast("tuple[Exchange, Any]", self.pipeline.pop())
            self._start_asgi_task(self._under_way, app)
        elif self._owed is None:
            self._idle_since = self.loop.time()
            self._expect(self.timeout_keep_alive)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)
        if self.pipeline:  # nobody reads this body yet, and the client of the request under way must be seen leaving
            if len(self.cycle.body) > self.settings.max_body_bytes:
                self.transport.close()
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._owed = self._due = None
        super().on_message_complete()
        self.flow.resume_reading()  # a large body has paused it; the client leaving would not be seen

    def send_400_response(self, msg: str) -> None:
        self._end_with(_NO_HTTP)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._joining.watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._joining.stop_watching()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._under_way is not None and not self._under_way.response_complete:
            self._under_way.disconnected = True
            self._under_way.message_event.set()
        super().connection_lost(exc)
        if self._alarm is not None:
            self._alarm.cancel()
        self._joining.stop_watching()
        self._departure.announce()

    def end_with_answer(self) -> None:
        """Close after the answer that is due, unless its head is out, which cannot tell the client any more."""
        if self._under_way is not None and not self._under_way.response_started:
            self._under_way.keep_alive = False

    @property
    def _owes_a_head(self) -> bool:
        """Whether all that is due on this connection is the head of a request, begun or not."""
        return self._owed != "body" and not self.pipeline and not self._is_answering

    @property
    def _is_answering(self) -> bool:
        """Whether an answer is due to a request whose head has come."""
        return self.cycle is not None and not self.cycle.response_complete

    def _end_with(self, refusal: bytes) -> None:
        """Close; the refusal goes out unless it could be taken for another answer, or for a part of one."""
        if self._owed == "body":
            may_answer = not self.pipeline and not self.cycle.response_started
        else:
            may_answer = not self._is_answering
        if may_answer:
            self.transport.write(refusal)
        self.transport.close()

    def _expect(self, within_s: float) -> None:
        """Something must come within that time. The alarm is set anew only for an earlier moment than it has."""
        self._due = self.loop.time() + within_s
        if self._alarm is not None and self._due < self._alarm_at:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None:
            self._set_alarm(self._due)

    def _set_alarm(self, at: float) -> None:
        self._alarm_at = at
        self._alarm = self.loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._due is None or self.transport.is_closing():
            return
        if self.loop.time() < self._due:
            self._set_alarm(self._due)
        elif self.pipeline or (self._owed != "body" and self._is_answering):
            self._expect(self.settings.client_head_timeout_s)  # an earlier answer is still under way
        else:
            self._end_as_late()

    def _end_as_late(self) -> None:
        if self._owed is None:  # no request was begun
            self.transport.close()
            return
        name = f"SIMSA_CLIENT_{self._owed.upper()}_TIMEOUT_S"
        error = InvalidRequest(f"The request's {self._owed} took too long ({name}).", code="request_timeout")
        self._end_with(_refusal(b"408 Request Timeout", error))

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, else the one whose head is latest.

        False when every one is at work.
        """
        others = cast("set[ClientProtocol]", self.connections)
        idle = [(one._idle_since, one) for one in others if one._idle_since is not None]
        if idle:
            min(idle, key=lambda since_and_one: since_and_one[0])[1].transport.close()
            return True
        late_by = self.loop.time() + self.settings.client_head_timeout_s - LATE_HEAD_S
        late = [(one._due, one) for one in others if one._due is not None and one._due < late_by and one._owes_a_head]
        if not late:
            return False
        min(late, key=lambda due_and_one: due_and_one[0])[1]._end_as_late()
        return True


def _host_of(host: bytes, port: int | None) -> tuple[bytes, bytes]:
    """The header that a whole address as target stands for."""
    name = b"[%b]" % host if b":" in host else host
    return b"host", name if port is None else b"%b:%d" % (name, port)


def client_protocol(settings: Settings) -> type[ClientProtocol]:
    """What uvicorn is told to speak with clients under these settings."""

    class Protocol(ClientProtocol):
        pass

    Protocol.settings = settings
    return Protocol
