"""A raw HTTP/1.1 client for tests: one connection, bytes as they come, and every rude way to leave.

It adds only the headers without which a request is none (host, content-length). What it is not: an SSE parser to check
the gateway's against (events are split at blank lines, nothing more) or a client to imitate an SDK with.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import httptools
from guards import HANG_S

_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")

Headers = Sequence[tuple[str, str]]


class Truncated(Exception):
    """The server ended the connection before the answer was complete."""


class Head(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    """In the order received, names in lower case."""

    def header(self, name: str) -> str | None:
        """The first value of a header, None when there is none."""
        return next((value for key, value in self.headers if key == name.lower()), None)


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return Head(self.status, self.headers).header(name)

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """`async with RawClient(url) as client`: one connection, requests one after the other.

    `key` is sent as a bearer token. Every read raises Truncated when the connection ends too early, and
    ConnectionResetError when it is reset.
    """

    def __init__(self, url: str, *, key: str | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._key = key

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._answer = _Incoming()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return  # the other side was faster

    async def request(self, method: str, path: str, *, headers: Headers = (), body: bytes | object = b"") -> Answer:
        """Send, and wait for the whole answer. A body that is not bytes goes out as JSON."""
        head = await self.start(method, path, headers=headers, body=body)
        return Answer(head.status, head.headers, await self.rest())

    async def start(self, method: str, path: str, *, headers: Headers = (), body: bytes | object = b"") -> Head:
        """Send, and wait for the status and headers only."""
        await self.send(method, path, headers=headers, body=body)
        return await self.head()

    async def send(self, method: str, path: str, *, headers: Headers = (), body: bytes | object = b"") -> None:
        """Send a request without waiting for anything."""
        payload = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        lines = [f"{method} {path} HTTP/1.1"]
        named = {name.lower() for name, _ in headers}
        if "host" not in named:
            lines.append(f"host: {self._host}:{self._port}")
        if self._key is not None and "authorization" not in named:
            lines.append(f"authorization: Bearer {self._key}")
        if not isinstance(body, bytes) and "content-type" not in named:
            lines.append("content-type: application/json")
        if (payload or method != "GET") and not named & {"content-length", "transfer-encoding"}:
            lines.append(f"content-length: {len(payload)}")
        lines += [f"{name}: {value}" for name, value in headers]
        await self.send_raw(("\r\n".join(lines) + "\r\n\r\n").encode() + payload)

    async def send_raw(self, data: bytes) -> None:
        """Send exactly these bytes; an answer to them may be read with `head` and `rest`."""
        self._answer = _Incoming()
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> Head:
        """Wait for the status and headers of the answer that is due."""
        while not self._answer.has_head:
            await self._take()
        return Head(self._answer.status, self._answer.headers)

    async def read(self) -> bytes:
        """The body bytes that have come since the last read, at least one; b"" once the answer is complete."""
        while not self._answer.body and not self._answer.is_complete:
            await self._take()
        body = bytes(self._answer.body)
        self._answer.body.clear()
        return body

    async def rest(self) -> bytes:
        """All of the body that has not been read."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    async def events(self) -> AsyncIterator[bytes]:
        """Each event as its bytes, blank line included, as soon as it is there; what follows the last one, if any."""
        buffer = b""
        while part := await self.read():
            buffer += part
            while end := _end_of_event(buffer):
                yield buffer[:end]
                buffer = buffer[end:]
        if buffer:
            yield buffer

    async def next_event(self) -> bytes:
        """One event as its bytes; b"" once the answer is complete. Not to be mixed with `read`."""
        while not (end := _end_of_event(bytes(self._answer.body))):
            if self._answer.is_complete:
                end = len(self._answer.body)
                break
            await self._take()
        event = bytes(self._answer.body[:end])
        del self._answer.body[:end]
        return event

    async def at_end(self) -> bool:
        """Wait until the server closes the connection: True for an orderly end, False for a reset."""
        try:
            async with asyncio.timeout(HANG_S):
                while await self._reader.read(65536):
                    pass
        except ConnectionError:
            return False
        return True

    async def half_close(self) -> None:
        """Close the sending side only; answers can still be read."""
        self._writer.write_eof()
        await self._writer.drain()

    def leave(self) -> None:
        """Close the connection now, in order (FIN), answer or not."""
        self._writer.close()

    def reset(self) -> None:
        """Break the connection off (RST)."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def _take(self) -> None:
        async with asyncio.timeout(HANG_S):
            data = await self._reader.read(65536)
        if data:
            self._answer.feed(data)
        elif not self._answer.ends_with_connection:
            raise Truncated(f"the connection ended after {self._answer.received_bytes} bytes of an incomplete answer")
        else:
            self._answer.is_complete = True


class _Incoming:
    """One answer as it comes in."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.received_bytes = 0
        self.has_head = False
        self.is_complete = False

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is the end of the answer (RFC 9112, 6.3)."""
        framed = {"content-length", "transfer-encoding"}
        return self.has_head and not framed & {name for name, _ in self.headers}

    def feed(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


def _end_of_event(buffer: bytes) -> int:
    """Where the first event ends, its blank line included; 0 when none is whole."""
    ends = [at + len(blank) for blank in _BLANK_LINES if (at := buffer.find(blank)) >= 0]
    return min(ends, default=0)
