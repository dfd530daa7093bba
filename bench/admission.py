"""`make bench-admission`: reviewers beside a load test that asks for five times what the engines can do.

Two simulated engines with a few places each, open-loop arrivals from a fixed seed (a caller does not wait for the
answers of others), the gateway as an operator starts it. Every figure is the gateway's own, from the header
x-simsa-queue-ms of each answer. The same load without classes shows what they are for. Exit code 1 when a reviewer was
refused or the 99th percentile of their waits is over its target.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

import uvloop
from rich.console import Console
from rich.table import Table

from bench import load
from bench.gateway_process import ADMIN_KEY, READY_LIMIT_S, ROOT, GatewayFailed, free_port, gateway
from bench.measure import child, percentile

MODEL = "A.X-4.0-Light"
ENGINES, PLACES = 2, 8
SPEED = 2.0
REVIEW_TOKENS, LOAD_TOKENS = 64, 256
REVIEWS_PER_S = 12.0
OVERLOAD = 5.0
QUEUE_P99_MAX_MS = 200.0
SEED = 20261123


@dataclass
class Outcome:
    """What one class of callers met. Times in seconds, of answered calls."""

    queue_s: list[float] = field(default_factory=list)
    e2e_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def refused(self) -> int:
        return sum(self.statuses.values()) - self.statuses[200]


class _Connection(load.Connection):
    """Keeps the gateway's word on how long a call waited."""

    queue_ms = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-simsa-queue-ms":
            self.queue_ms = float(value)


class Callers:
    """Sends calls of one class, each over a connection that is free, and notes what became of them."""

    def __init__(self, url: str, priority: str | None, tokens: int) -> None:
        self._url = url
        self._request = _request(url, priority, tokens)
        self._free: list[_Connection] = []
        self.outcome = Outcome()

    async def ask(self) -> None:
        connection = self._free.pop() if self._free else await self._connect()
        sent_s = perf_counter()
        status = await connection.send(self._request)
        self.outcome.statuses[status] += 1
        if status == 200:
            self.outcome.e2e_s.append(perf_counter() - sent_s)
            self.outcome.queue_s.append(connection.queue_ms / 1000)
        self._free.append(connection)

    def close(self) -> None:
        for connection in self._free:
            connection.close()

    async def _connect(self) -> _Connection:
        parts = urlsplit(self._url)
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, parts.hostname, parts.port)
        return connection


def _request(url: str, priority: str | None, tokens: int) -> bytes:
    messages = [{"role": "user", "content": "부산의 날씨를 한 문장으로 말해 주세요."}]
    body = {"model": MODEL, "messages": messages, "max_tokens": tokens, "ignore_eos": True}
    head, _, rest = load.request_bytes(load.Target(url, ADMIN_KEY), body).partition(b"\r\n")
    named = b"" if priority is None else b"x-simsa-priority: %b\r\n" % priority.encode()
    return head + b"\r\n" + named + rest


def arrivals(rate_per_s: float, seconds: float, seed: int) -> Iterator[float]:
    """Moments of a Poisson process from 0 on."""
    draws = random.Random(seed)  # noqa: S311  a load, not a secret
    at = draws.expovariate(rate_per_s)
    while at < seconds:
        yield at
        at += draws.expovariate(rate_per_s)


async def send_all(callers: Callers, rate_per_s: float, seconds: float, seed: int) -> None:
    """Each call at its own moment, whatever became of those before it."""
    began_s = perf_counter()
    async with asyncio.TaskGroup() as calls:
        for at in arrivals(rate_per_s, seconds, seed):
            await asyncio.sleep(max(0.0, began_s + at - perf_counter()))
            calls.create_task(callers.ask())


@dataclass(frozen=True)
class Scene:
    """One run: who comes, and whether the classes are told apart."""

    name: str
    seconds: float
    with_load: bool
    with_classes: bool


async def play(scene: Scene, url: str, capacity_per_s: float) -> dict[str, Outcome]:
    """Outcomes by kind of caller."""
    reviewers = Callers(url, "reviewer" if scene.with_classes else None, REVIEW_TOKENS)
    testers = Callers(url, "load_test" if scene.with_classes else None, LOAD_TOKENS)
    async with asyncio.TaskGroup() as group:
        if scene.with_load:
            group.create_task(send_all(testers, OVERLOAD * capacity_per_s, scene.seconds, SEED))
        group.create_task(send_all(reviewers, REVIEWS_PER_S, scene.seconds, SEED + 1))
    reviewers.close()
    testers.close()
    return {"reviewers": reviewers.outcome, **({"load test": testers.outcome} if scene.with_load else {})}


async def measure_capacity(url: str) -> float:
    """Load-test calls a second that all places together can answer, from a full house of them."""
    callers = Callers(url, "reviewer", LOAD_TOKENS)
    await asyncio.gather(*(callers.ask() for _ in range(ENGINES * PLACES)))
    callers.close()
    return ENGINES * PLACES / percentile(callers.outcome.e2e_s, 0.5)


@asynccontextmanager
async def simulated_engines(cpu: int) -> AsyncIterator[list[str]]:
    """`simsa engine`, as often as needed; stopped when the block ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIMSA_")}
    async with AsyncExitStack() as stack:
        urls = []
        for _ in range(ENGINES):
            port = free_port()
            command = ["-m", "gateway", "engine", MODEL, "--port", str(port), "--speed", str(SPEED)]
            stack.enter_context(child(command, cpu=cpu, cwd=ROOT, environment=environment))
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            await _until_healthy(url)
        yield urls


async def _until_healthy(url: str) -> None:
    deadline_s = perf_counter() + READY_LIMIT_S
    while perf_counter() < deadline_s:
        with suppress(OSError):
            if (await load.get(url, "/health"))[0] == 200:
                return
        await asyncio.sleep(0.1)
    raise GatewayFailed(f"the simulated engine at {url} was not ready after {READY_LIMIT_S:.0f} s")


def row(scene: Scene, who: str, outcome: Outcome) -> dict[str, object]:
    """One line of the report; milliseconds."""
    answered = len(outcome.queue_s)
    waits = {
        f"queue_p{round(q * 100)}_ms": percentile(outcome.queue_s, q) * 1000 if answered else None for q in (0.5, 0.99)
    }
    return {
        "scene": scene.name,
        "callers": who,
        "offered": sum(outcome.statuses.values()),
        "answered": answered,
        "refused": outcome.refused,
        **waits,
        "queue_max_ms": max(outcome.queue_s) * 1000 if answered else None,
        "e2e_p50_ms": percentile(outcome.e2e_s, 0.5) * 1000 if answered else None,
    }


async def run(seconds: float, note: Console) -> tuple[list[dict[str, object]], float, bool]:
    """The report's rows, the capacity, and whether the target is met."""
    cores = sorted(os.sched_getaffinity(0))
    scenes = [
        Scene("reviewers alone", seconds / 3, with_load=False, with_classes=True),
        Scene("beside the load test", seconds, with_load=True, with_classes=True),
        Scene("the same without classes", seconds / 3, with_load=True, with_classes=False),
    ]
    rows: list[dict[str, object]] = []
    is_met = False
    settings = {"SIMSA_QUEUE_MAX_WAITING": "200"}
    async with (
        simulated_engines(cores[-1]) as urls,
        gateway(*urls, cpu=cores[0], model=MODEL, places=PLACES, settings=settings) as running,
    ):
        capacity = await measure_capacity(running.url)
        for scene in scenes:
            note.print(f"{scene.name}: {scene.seconds:.0f} s ...", style="dim")
            outcomes = await play(scene, running.url, capacity)
            rows += [row(scene, who, outcome) for who, outcome in outcomes.items()]
            if scene.with_load and scene.with_classes:
                reviewers = outcomes["reviewers"]
                is_met = not reviewers.refused and percentile(reviewers.queue_s, 0.99) * 1000 <= QUEUE_P99_MAX_MS
    return rows, capacity, is_met


def table_of(rows: list[dict[str, object]], capacity: float) -> Table:
    title = f"{ENGINES} engines, {PLACES} places each; a load test offers {OVERLOAD:g} x {capacity:.1f} calls/s"
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if name in ("scene", "callers") else "right")
    for line in rows:
        table.add_row(*(f"{value:,.1f}" if isinstance(value, float) else str(value) for value in line.values()))
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.admission", description="Reviewers beside a load test.")
    parser.add_argument("--seconds", type=float, default=45.0, help="length of the run that is judged")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    options = parser.parse_args(arguments)
    note = Console(stderr=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows, capacity, is_met = runner.run(run(options.seconds, note))
    except GatewayFailed as failure:
        note.print(str(failure), markup=False, highlight=False, soft_wrap=True)
        return 2
    if options.json or not sys.stdout.isatty():
        report = {"capacity_per_s": capacity, "rows": rows, "met": is_met}
        sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    else:
        Console().print(table_of(rows, capacity))
        Console().print(f"reviewers' p99 <= {QUEUE_P99_MAX_MS:g} ms and none refused: {'met' if is_met else 'missed'}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
