"""One request of a client and its answer, as the server of an ASGI application writes them on the wire.

uvicorn's cycle of a request with the work that a relay's answers do not need left out. Connections, and what is owed on
them, are `downstream`'s subject; what is answered, the application's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.asgi import Message, Scope


class Exchange(RequestResponseCycle):
    """One request and its answer. Says the same over the wire as uvicorn's, for a third of the processor time.

    Header names are written as they are given, in lower case; a value cannot begin a line of its own. What it says
    beyond ASGI: `downstream.departure_of`.
    """

    def __init__(
        self,
        scope: Scope,
        transport: asyncio.Transport,
        flow: FlowControl,
        on_response: Callable[[], None],
        *,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self.scope = scope  # type: ignore[assignment]  # uvicorn's is a TypedDict of the same keys
        self.transport = transport
        self.flow = flow
        self.on_response = on_response
        self.message_event = asyncio.Event()
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects_continue
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self._is_read = False
        """The application has been given the end of the request."""
        self._is_chunked = False
        self._is_open_ended = False
        """The answer ends with the connection."""
        self._bytes_due = 0
        """Of the length that the head has promised."""

    async def run_asgi(self, app: Any) -> None:
        """Let the application answer; an answer that it does not finish ends with the connection."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - the last place that sees it
            if not self.response_complete:
                structlog.get_logger("simsa.downstream").error("an answer was not finished", exc_info=error)
        finally:
            if not self.response_complete:
                self.transport.close()
            self.on_response = _nothing

    async def receive(self) -> Any:
        if self._is_read or self.more_body or self.disconnected or self.waiting_for_100_continue:
            message = await super().receive()
            self._is_read |= not self.more_body
            return message
        # The request has come whole, as most do: there is no next piece to wait for.
        self._is_read = True
        self.message_event.clear()
        body, self.body = self.body, bytearray()
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"'{message['type']}' before the answer's head")
            self.transport.write(self._head_of(message))
            self.response_started = True
            self.waiting_for_100_continue = False
            return
        if self.response_complete or message["type"] != "http.response.body":
            raise RuntimeError(f"'{message['type']}' after the answer's head, or after its end")
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if self._is_chunked:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                piece += b"0\r\n\r\n"
        else:
            piece = b"" if self.scope["method"] == "HEAD" else body
            self._bytes_due -= 0 if self._is_open_ended else len(piece)
            if self._bytes_due < 0:
                raise RuntimeError("the answer is longer than its head says")
        if piece:
            self.transport.write(piece)
        if is_last:
            self._end()

    def _head_of(self, message: Message) -> bytes:
        status, method = message["status"], self.scope["method"]
        headers = message.get("headers", ())
        lines = [STATUS_LINE[status], *[b"%b: %b\r\n" % (name, value) for name, value in headers]]
        is_framed = method == "HEAD" or status in (204, 304)
        said = dict(headers)
        if b"content-length" in said:
            self._bytes_due, is_framed = 0 if is_framed else int(said[b"content-length"]), True
        if said.get(b"connection") == b"close":
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        is_chunked = not is_framed and self.scope["http_version"] != "1.0"  # there the connection's end is the answer's
        if is_chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        if not head.count(b"\n") == head.count(b"\r") == len(lines) or b"\0" in head:
            raise RuntimeError("a header's value has a line end in it")
        self._is_chunked, self._is_open_ended = is_chunked, not is_framed and not is_chunked
        return head + b"\r\n"

    def _end(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if self._bytes_due:
            self.transport.close()  # the client must not take the next answer for the rest of this one
            raise RuntimeError("the answer is shorter than its head says")
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _nothing() -> None:
    pass
