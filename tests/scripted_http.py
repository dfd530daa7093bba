"""A scripted HTTP/1.1 server on a loopback port that does, byte for byte, what a test says.

A script gives the answers of one path as `Reply`s (scripted_replies.py). Everything a client sent is kept in
`requests`. It knows nothing of models: engines.py makes an engine of it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Self, cast

import httptools
from guards import HANG_S
from scripted_replies import CLOSE, RESET, Behaviour, End, Reply, Request


class ScriptedServer:
    """`async with` it: it listens at `url` until the block ends. What is not scripted is 404.

    On `host`, an address of this machine, at a free port unless one is named.

    An exception that a scripted callable raised comes out where the block ends.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[Request] = []
        self.connections_open = 0
        self.connections_made = 0
        self._host = host
        self.port = port
        self._scripts: dict[str, deque[Behaviour]] = {}
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._errors: list[Exception] = []

    @property
    def url(self) -> str:
        return f"http://[{self._host}]:{self.port}" if ":" in self._host else f"http://{self._host}:{self.port}"

    @property
    def answering(self) -> list[Request]:
        """Requests whose reply is under way."""
        return [connection.current for connection in self._connections if connection.current is not None]

    def script(self, path: str, *behaviours: Behaviour) -> None:
        """Answer `path` with these, one a request, the last one again and again. None at all: the usual answer."""
        self._scripts[path] = deque(behaviours)

    def requests_to(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    async def received(self, path: str, count: int = 1) -> Request:
        """Wait until `count` requests to `path` have come; give the last of these."""
        await self.until(lambda: len(self.requests_to(path)) >= count)
        return self.requests_to(path)[count - 1]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something about this server holds; looked at whenever anything changes."""
        async with asyncio.timeout(HANG_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def start(self) -> None:
        """Listen; after `kill`, at the same address as before."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), self._host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Be gone as a killed process is: every connection reset, nobody listening."""
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._connections):
            connection.end(RESET)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.until(lambda: not self._connections)
        if self._listener is not None:
            await self._listener.wait_closed()
            self._listener = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.kill()
        if self._errors:
            raise ExceptionGroup("a scripted reply raised", self._errors)

    def usual(self, request: Request) -> Reply:
        """The answer to a path without a script."""
        return Reply.json({"detail": "Not Found"}, status=404)

    async def reply_to(self, request: Request) -> Reply:
        script = self._scripts.get(request.path)
        if not script:
            return self.usual(request)
        behaviour = script.popleft() if len(script) > 1 else script[0]
        if isinstance(behaviour, Reply):
            return behaviour
        reply = behaviour(request)
        return reply if isinstance(reply, Reply) else await reply

    def connected(self, connection: Connection) -> int:
        """Take note of a new connection; give its number."""
        self._connections.add(connection)
        self.connections_open += 1
        self.connections_made += 1
        self._changed.set()
        return self.connections_made

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.connections_open -= 1
        self._changed.set()

    def arrived(self, request: Request, connection: Connection) -> asyncio.Task[None]:
        """Take note of a request and have it answered."""
        self.requests.append(request)
        task = asyncio.get_running_loop().create_task(self._answer(request, connection))
        self._tasks.add(task)
        task.add_done_callback(self._answered)
        self._changed.set()
        return task

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()

    async def _answer(self, request: Request, connection: Connection) -> None:
        try:
            reply = await self.reply_to(request)
            await connection.perform(reply, request)
        except Exception as error:
            self._errors.append(error)
            connection.end(RESET)


class Connection(asyncio.Protocol):
    """One client's connection: answers its requests one after the other and notices when the client leaves."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Request] = deque()
        self._writable = asyncio.Event()
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body = b""
        self._is_last = False
        self.number = 0
        self.current: Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._writable.set()
        self.number = self._server.connected(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.end(CLOSE)

    def eof_received(self) -> bool:
        """A client that closes its side, half or whole, has left: stop the reply, as an engine does."""
        self._peer_left()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer_left()
        self._transport = None
        self._server.disconnected(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", [], b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode()
        request = Request(method, path, query, self._headers, self._body, self.number, time.monotonic())
        self._is_last = not self._parser.should_keep_alive()
        self._waiting.append(request)
        self._next()

    def end(self, how: End) -> None:
        """End the connection from this side."""
        if self._transport is None:
            return
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if how is CLOSE:
            self._transport.close()
        else:
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        self._transport = None

    async def perform(self, reply: Reply, request: Request) -> None:
        """Do what the reply says, up to its end or the connection's."""
        for step in reply.steps():
            match step:
                case bytes():
                    await self._writable.wait()
                    self._write(step)
                    await asyncio.sleep(0)  # the loop's turn: it alone learns that the peer has left
                    request.sent_bytes += len(step)
                case asyncio.Event():
                    await step.wait()
                case End():
                    self.end(step)
                    break
        request.answered.set()

    def _next(self) -> None:
        if self.current is None and self._waiting and self._transport is not None:
            self.current = self._waiting.popleft()
            self._task = self._server.arrived(self.current, self)
            self._task.add_done_callback(self._reply_over)

    def _reply_over(self, task: asyncio.Task[None]) -> None:
        self.current = self._task = None
        if self._is_last and not self._waiting:
            self.end(CLOSE)
        self._next()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _peer_left(self) -> None:
        """Called for every end of the connection; one that came from this side has no transport any more."""
        if self._transport is None or self.current is None or self._task is None:
            return
        if self.current.closed_by_peer.is_set():
            return
        self.current.closed_by_peer_s = time.monotonic()
        self.current.closed_by_peer.set()
        self._task.cancel()
