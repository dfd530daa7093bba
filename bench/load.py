"""The benchmark's client: raw connections that keep alive, with as little work per byte as Python allows.

It measures what a caller sees: latency of whole answers, lag of stream events (the engine stamps each event with its
monotonic clock, which all processes of a machine share). It judges nothing; targets and tables are in run.py.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

PATH = "/v1/chat/completions"
_STAMP = b'"content":"'


@dataclass
class WholeResult:
    """Latencies in seconds of the answers that were right, and what went wrong with the others."""

    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0


@dataclass
class StreamResult:
    """Token events seen, their lag behind the engine in seconds, and the streams that did not end well."""

    events: int = 0
    streams: int = 0
    lags_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0


class Target(NamedTuple):
    """Whom a load is for, and the key that it wants."""

    url: str
    key: str | None = None


def request_bytes(target: Target, body: dict[str, object], *, path: str = PATH) -> bytes:
    """A request as it goes over the wire."""
    payload = json.dumps(body, separators=(",", ":")).encode()
    key = "" if target.key is None else f"authorization: Bearer {target.key}\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {urlsplit(target.url).netloc}\r\ncontent-type: application/json\r\n"
        f"accept: */*\r\nuser-agent: simsa-bench\r\n{key}content-length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


async def post(target: Target, path: str, body: dict[str, object]) -> tuple[int, bytes]:
    """One POST over a connection of its own: status and body."""
    connection = await connect(target.url)
    try:
        return await connection.send(request_bytes(target, body, path=path)), b"".join(connection.body)
    finally:
        connection.close()


def whole_request(target: Target, model: str) -> bytes:
    return request_bytes(
        target,
        {
            "model": model,
            "messages": [{"role": "user", "content": "Say one sentence about the weather in Busan."}],
            "max_tokens": 32,
            "temperature": 0.7,
        },
    )


def stream_request(target: Target, model: str, *, events: int, rate_per_s: float) -> bytes:
    return request_bytes(
        target,
        {
            "model": model,
            "messages": [{"role": "user", "content": "Say one sentence about the weather in Busan."}],
            "max_tokens": events,
            "stream": True,
            "bench_rate": rate_per_s,
        },
    )


class Connection(asyncio.Protocol):
    """One keep-alive connection; `send` gives a future of the status once the answer is complete."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[int] | None = None
        self._on_body: Callable[[bytes], None] | None = None
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(ConnectionResetError("closed before the answer was complete"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_message_begin(self) -> None:
        self.body = []

    def on_body(self, body: bytes) -> None:
        if self._on_body is not None:
            self._on_body(body)
        else:
            self.body.append(body)

    def on_message_complete(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(self._parser.get_status_code())
        if not self._parser.should_keep_alive():
            self.close()

    def send(self, request: bytes, on_body: Callable[[bytes], None] | None = None) -> asyncio.Future[int]:
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        self._done = asyncio.get_running_loop().create_future()
        self._on_body = on_body
        self._transport.write(request)
        return self._done

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _fail(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


async def connect(url: str) -> Connection:
    parts = urlsplit(url)
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, parts.hostname or "127.0.0.1", parts.port or 80
    )
    return connection


async def get(url: str, path: str) -> tuple[int, bytes]:
    """One GET over a connection of its own: status and body."""
    connection = await connect(url)
    try:
        head = f"GET {path} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n\r\n"
        return await connection.send(head.encode()), b"".join(connection.body)
    finally:
        connection.close()


async def one_by_one(connection: Connection, request: bytes, count: int, result: WholeResult) -> None:
    """Send `count` requests over one connection, each after the answer to the one before."""
    for _ in range(count):
        sent_s = perf_counter()
        try:
            status = await connection.send(request)
        except (OSError, httptools.HttpParserError) as error:
            result.errors[type(error).__name__] += 1
            return
        if status == 200:
            result.latencies_s.append(perf_counter() - sent_s)
        else:
            result.errors[f"status {status}"] += 1


async def whole_answers(target: Target, model: str, *, clients: int, count: int) -> WholeResult:
    """`count` whole answers by `clients` connections that each ask again as soon as they are answered."""
    result = WholeResult()
    request = whole_request(target, model)
    connections = [await connect(target.url) for _ in range(clients)]
    started_s = perf_counter()
    shares = [count // clients + (n < count % clients) for n in range(clients)]
    async with asyncio.TaskGroup() as tasks:
        for connection, share in zip(connections, shares, strict=True):
            tasks.create_task(one_by_one(connection, request, share, result))
    result.wall_s = perf_counter() - started_s
    for connection in connections:
        connection.close()
    return result


class _EventReader:
    """Splits one stream's body into events; a token event's content is the moment it was sent."""

    def __init__(self, result: StreamResult) -> None:
        self._result = result
        self._rest = b""
        self.events = 0
        self.is_done = False
        self.error: str | None = None

    def feed(self, body: bytes) -> None:
        now_s = perf_counter()
        *events, self._rest = (self._rest + body).split(b"\n\n") if self._rest else body.split(b"\n\n")
        for event in events:
            start = event.find(_STAMP)
            if start >= 0 and (stamp := event[start + len(_STAMP) : event.index(b'"', start + len(_STAMP))]):
                self.events += 1
                self._result.lags_s.append(now_s - float(stamp))
            elif event == b"data: [DONE]":
                self.is_done = True
            elif event.startswith(b'data: {"error"'):
                self.error = "error event"


async def _one_stream(url: str, request: bytes, events: int, result: StreamResult) -> None:
    reader = _EventReader(result)
    try:
        connection = await connect(url)
    except OSError as error:
        result.errors[f"connect: {type(error).__name__}"] += 1
        return
    try:
        status = await connection.send(request, reader.feed)
    except (OSError, httptools.HttpParserError) as error:
        result.errors[type(error).__name__] += 1
        return
    finally:
        result.events += reader.events
        connection.close()
    result.streams += 1
    if status != 200:
        result.errors[f"status {status}"] += 1
    elif reader.error is not None:
        result.errors[reader.error] += 1
    elif not reader.is_done:
        result.errors["no [DONE]"] += 1
    elif reader.events != events:
        result.errors["events missing"] += 1


async def streams(target: Target, model: str, *, count: int, rate_per_s: float, seconds: float) -> StreamResult:
    """`count` streams at once, each of `rate_per_s` events a second for `seconds`."""
    result = StreamResult()
    events = max(1, round(rate_per_s * seconds))
    request = stream_request(target, model, events=events, rate_per_s=rate_per_s)
    started_s = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(_one_stream(target.url, request, events, result))
    result.wall_s = perf_counter() - started_s
    return result


async def short_streams(target: Target, model: str, *, clients: int, count: int) -> StreamResult:
    """`count` streams of eight quick events by `clients` clients, each on a connection of its own."""
    result = StreamResult()
    events = 8
    request = stream_request(target, model, events=events, rate_per_s=500.0)
    started_s = perf_counter()

    async def ask(share: int) -> None:
        for _ in range(share):
            await _one_stream(target.url, request, events, result)

    async with asyncio.TaskGroup() as tasks:
        for n in range(clients):
            tasks.create_task(ask(count // clients + (n < count % clients)))
    result.wall_s = perf_counter() - started_s
    return result
