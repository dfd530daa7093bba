"""Which client to talk to engines with: CPU per request and per stream event of aiohttp and of a bare protocol.

A one-off that decides a design question: `python -m bench.upstream_clients` from an environment that has aiohttp,
uvloop and httptools. The bare client is measured in the form a gateway would use: a coroutine that awaits the next
bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import statistics
import sys
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from bench.measure import calibration_s, fast_engine

ROOT = Path(__file__).parent.parent
PATH = "/v1/chat/completions"
WHOLE: dict[str, object] = {"model": "bench", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 32}


class Client(Protocol):
    """What both clients can do."""

    @abstractmethod
    async def whole(self, body: bytes) -> bytes: ...

    @abstractmethod
    def stream(self, body: bytes) -> AsyncIterator[bytes]: ...

    @abstractmethod
    async def close(self) -> None: ...


class AiohttpClient:
    """One ClientSession with an unlimited pool, bytes taken as they come."""

    def __init__(self, url: str) -> None:
        aiohttp: Any = importlib.import_module("aiohttp")  # absent from the project's own environment

        self._url = url + PATH
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )

    async def whole(self, body: bytes) -> bytes:
        async with self._session.post(self._url, data=body, headers=_HEADERS) as response:
            return cast("bytes", await response.read())

    async def stream(self, body: bytes) -> AsyncIterator[bytes]:
        async with self._session.post(self._url, data=body, headers=_HEADERS) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    async def close(self) -> None:
        await self._session.close()


_HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}


class _Exchange(asyncio.Protocol):
    """One pooled connection: `read` awaits the next body bytes, b"" at the end of the answer."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self._arrived: list[bytes] = []
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._ended = True
        self._wake()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._arrived.append(body)

    def on_message_complete(self) -> None:
        self._ended = True

    def begin(self, request: bytes) -> None:
        assert self.transport is not None
        self.headers, self._arrived, self._ended = [], [], False
        self.transport.write(request)

    async def read(self) -> bytes:
        while not self._arrived and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = self._arrived[0] if len(self._arrived) == 1 else b"".join(self._arrived)
        self._arrived.clear()
        return data

    def _wake(self) -> None:
        if self._waiter is not None and (self._arrived or self._ended):
            self._waiter.set_result(None)
            self._waiter = None


class BareClient:
    """A list of idle connections over asyncio.Protocol and httptools, and nothing else."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._head = (
            f"POST {PATH} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            "accept: */*\r\naccept-encoding: identity\r\ncontent-length: "
        ).encode()
        self._idle: list[_Exchange] = []

    async def _begin(self, body: bytes) -> _Exchange:
        while self._idle:
            exchange = self._idle.pop()
            if exchange.transport is not None:
                break
        else:
            loop = asyncio.get_running_loop()
            _, exchange = await loop.create_connection(_Exchange, self._host, self._port)
        exchange.begin(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        return exchange

    async def whole(self, body: bytes) -> bytes:
        return b"".join([chunk async for chunk in self.stream(body)])

    async def stream(self, body: bytes) -> AsyncIterator[bytes]:
        exchange = await self._begin(body)
        while chunk := await exchange.read():
            yield chunk
        self._idle.append(exchange)

    async def close(self) -> None:
        for exchange in self._idle:
            if exchange.transport is not None:
                exchange.transport.close()


async def _cpu_of(work: Awaitable[int]) -> float:
    """Microseconds of this process's CPU for each unit that `work` counts."""
    started_s = time.process_time()
    units = await work
    return (time.process_time() - started_s) / units * 1e6


async def _wholes(client: Client, clients: int, count: int) -> int:
    body = json.dumps(WHOLE).encode()

    async def ask() -> None:
        for _ in range(count // clients):
            assert b"usage" in await client.whole(body)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(ask())
    return count // clients * clients


async def _streams(client: Client, count: int, rate_per_s: float, seconds: float) -> int:
    events = round(rate_per_s * seconds)
    body = json.dumps({**WHOLE, "stream": True, "max_tokens": events, "bench_rate": rate_per_s}).encode()

    async def read() -> None:
        last = b""
        async for chunk in client.stream(body):
            last = chunk
        assert b"[DONE]" in last

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(read())
    return events * count


MEASURES: dict[str, Callable[[Client], Awaitable[int]]] = {
    "whole answer, 1 client": lambda client: _wholes(client, 1, 2000),
    "whole answer, 16 clients": lambda client: _wholes(client, 16, 4000),
    "stream event, 100 streams x 50/s": lambda client: _streams(client, 100, 50.0, 3.0),
}
CLIENTS: dict[str, Callable[[str], Client]] = {"aiohttp": AiohttpClient, "bare protocol": BareClient}


async def measure(url: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """CPU microseconds per unit: by measure, by client, one figure a round. Rounds are interleaved."""
    figures: dict[str, dict[str, list[float]]] = {name: {c: [] for c in CLIENTS} for name in MEASURES}
    for round_ in range(rounds + 1):
        for name, units in MEASURES.items():
            for client_name, make in CLIENTS.items():
                client = make(url)
                await _wholes(client, 4, 100)
                cpu_us = await _cpu_of(units(client))
                await client.close()
                if round_ > 0:  # the first round warms up
                    figures[name][client_name].append(cpu_us)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if importlib.util.find_spec("aiohttp") is None:
        sys.stderr.write(
            f"aiohttp is not installed for {sys.executable}: it is no dependency of the project. Make an environment "
            "with `pip install aiohttp httptools uvloop` and run this with its Python from the project's folder.\n"
        )
        return 2
    cores = sorted(os.sched_getaffinity(0))
    with fast_engine(cpu=cores[-1], cwd=ROOT) as (_, url):
        os.sched_setaffinity(0, {cores[0]})
        calibration_us = calibration_s() * 1e6
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(measure(url, options.rounds))
    sys.stdout.write(f"CPU us per unit, median of {options.rounds} rounds; calibration loop {calibration_us:.0f} us\n")
    for name, by_client in figures.items():
        for client_name, values in by_client.items():
            sys.stdout.write(_line(name, client_name, values))
    return 0


def _line(name: str, client_name: str, values: list[Any]) -> str:
    return f"{name:34} {client_name:14} {statistics.median(values):7.1f}  ({min(values):.1f}-{max(values):.1f})\n"


if __name__ == "__main__":
    sys.exit(main())
