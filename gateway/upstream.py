"""The only door to an engine: connections, requests, replies, the limits on waiting.

A thin HTTP/1.1 client over asyncio protocols and httptools, because the general clients cost several times the
processor time of everything else the gateway does (docs/decisions/0001-upstream-client.md). It knows nothing of
models, tokens or records.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.errors import UpstreamUnreachable
from gateway.http_reply import Connection, Reply

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an engine listens: one pool of connections each."""

    host: str
    port: int
    tls: bool
    authority: bytes
    """Value of the Host header."""
    prefix: bytes
    """Path that stands before every route of this engine, without a trailing slash."""


def parse_origin(url: str) -> Origin:
    """Split an http(s) URL. Raises ValueError when it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected an http:// or https:// URL, got '{url}'")
    tls = parts.scheme == "https"
    return Origin(
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        tls=tls,
        authority=parts.netloc.rpartition("@")[2].encode("idna" if not parts.netloc.isascii() else "ascii"),
        prefix=parts.path.rstrip("/").encode(),
    )


def request_head(origin: Origin, method: bytes, path: bytes, headers: Headers) -> bytes:
    """The head of a request but for its length and its end; further header lines may be put behind it."""
    first = b"%b %b%b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\n"
    return first % (method, origin.prefix, path, origin.authority) + b"".join(b"%b: %b\r\n" % pair for pair in headers)


class Upstream:
    """Connections to all engines, kept alive and reused, most recently used first."""

    def __init__(self, *, idle_connections: int, now: Callable[[], float]) -> None:
        """`now`: the monotonic clock that dates what arrives."""
        self._idle_connections = idle_connections
        self._now = now
        self._idle: dict[Origin, deque[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def open(
        self,
        origin: Origin,
        *,
        head: bytes,
        body: bytes | None,
        connect_s: float,
        due: float,
        due_what: str,
    ) -> Reply:
        """Send a request and return its reply once the headers are there. `head` is that of `request_head`.

        Raises UpstreamUnreachable when the engine gave no answer at all, UpstreamTimeout when `due` passed first.
        An engine that closes a kept-alive connection just then is asked once more, over a new one; the other kept
        connections are then given up too, so an engine that dies of a request gets it twice at most.
        """
        request = head + b"\r\n" if body is None else b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        kept = self._take_idle(origin)
        if kept is not None:
            try:
                return await _exchange(kept, request, due, due_what)
            except UpstreamUnreachable:
                self._close_idle(origin)
        return await _exchange(await self._connect(origin, connect_s), request, due, due_what)

    async def fetch(
        self,
        origin: Origin,
        path: bytes,
        *,
        headers: Headers = (),
        timeout_s: float,
        limit: int = 4 * 1024 * 1024,
    ) -> tuple[int, bytes]:
        """GET a small document: (status, body). Raises UpstreamError."""
        due = asyncio.get_running_loop().time() + timeout_s
        reply = await self.open(
            origin,
            head=request_head(origin, b"GET", path, headers),
            body=None,
            connect_s=timeout_s,
            due=due,
            due_what=f"no answer within {timeout_s} s",
        )
        try:
            return reply.status, await reply.read_all(limit)
        finally:
            reply.release()

    def forget(self, origin: Origin) -> None:
        """Close the idle connections to an engine that is gone; those in use are closed after their reply."""
        self._close_idle(origin)
        self._idle.pop(origin, None)

    def close(self) -> None:
        for origin in list(self._idle):
            self.forget(origin)

    def _close_idle(self, origin: Origin) -> None:
        idle = self._idle.get(origin)
        while idle:
            idle.pop().close()

    def _take_idle(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self, origin: Origin, connect_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        idle = self._idle.setdefault(origin, deque())

        def keep(connection: Connection) -> None:
            if self._idle.get(origin) is not idle:  # forgotten since
                connection.close()
                return
            idle.append(connection)
            if len(idle) > self._idle_connections:
                idle.popleft().close()

        try:
            async with asyncio.timeout(connect_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._now, keep), origin.host, origin.port, ssl=self._tls_for(origin)
                )
        except TimeoutError as error:
            raise UpstreamUnreachable(f"no connection to the engine within {connect_s} s") from error
        except OSError as error:
            raise UpstreamUnreachable(f"cannot connect to the engine: {error.strerror or error}") from error
        return connection

    def _tls_for(self, origin: Origin) -> ssl.SSLContext | None:
        if not origin.tls:
            return None
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


async def _exchange(connection: Connection, request: bytes, due: float, due_what: str) -> Reply:
    """Send and wait for the head of the answer."""
    reply = connection.send(request, due, due_what)
    try:
        await reply.started()
    except BaseException:
        reply.release()
        raise
    return reply
