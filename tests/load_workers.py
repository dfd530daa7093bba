"""Workers of load tests as real processes, for tests: an order, a run, the file that came of it."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from guards import HANG_S

from loadtests.cell_order import CellOrder, FixedWork
from loadtests.plan import Arrivals, Closed, Open, Rate, Route, Users
from loadtests.records import CellFooter, CellHeader, RequestRecord
from loadtests.stand_in import SentAnswer

BODY = {"messages": [{"role": "user", "content": "가을에 어울리는 인사말을 하나 알려 주세요."}], "max_tokens": 8}
WORK = FixedWork(BODY, output_tokens=8)


class CellFile(NamedTuple):
    """What a worker wrote. `footer`: None of a worker that was lost."""

    header: CellHeader
    records: list[RequestRecord]
    footer: CellFooter | None

    def outcomes(self) -> list[str]:
        return [record.outcome.value for record in self.records]


class Ran(NamedTuple):
    """A worker that ran to its end."""

    code: int
    err: str
    file: CellFile


def order(folder: Path, address: str, **fields: Any) -> CellOrder:
    """An order of ten requests within a second, but for what `fields` say."""
    usual: dict[str, Any] = {
        "v": 1,
        "cell": "cell",
        "repeat": 1,
        "door": "direct",
        "run_id": "run-1",
        "address": address,
        "route": Route.CHAT,
        "model": "m",
        "work": WORK,
        "seed": 7,
        "drain_s": 10.0,
        "timeout_s": 20.0,
        "out": str(folder / "out.jsonl"),
    }
    if "closed" not in fields:
        usual["open"] = constant(10, 1.0)
    return CellOrder(**{**usual, **fields})


def constant(rate_per_s: float, for_s: float) -> Open:
    return Open(Arrivals.CONSTANT, (Rate(rate_per_s, rate_per_s, for_s),))


def steady(users: int, for_s: float, think_s: float = 0.0) -> Closed:
    return Closed((Users(users, users, for_s),), think_s)


@asynccontextmanager
async def running(
    *arguments: str, environment: Mapping[str, str] | None = None, before: Callable[[], None] | None = None
) -> AsyncIterator[Process]:
    """`python ARGUMENTS` until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **(environment or {})},
        preexec_fn=before,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def write_order(folder: Path, ordered: CellOrder) -> str:
    path = folder / "cell.json"
    path.write_bytes(msgspec.json.encode(ordered))
    return str(path)


async def run_worker(
    folder: Path,
    ordered: CellOrder,
    environment: Mapping[str, str] | None = None,
    *,
    before: Callable[[], None] | None = None,
    beside: Callable[[Process], Any] | None = None,
) -> Ran:
    """Run the order to its end. `beside`: a coroutine function that is given the process meanwhile."""
    command = ("-m", "loadtests.worker", write_order(folder, ordered))
    async with running(*command, environment=environment, before=before) as process, asyncio.timeout(HANG_S):
        if beside is not None:
            await beside(process)
        out, err = await process.communicate()
        assert out == b""
        assert process.returncode is not None
        return Ran(process.returncode, err.decode(), read_file(Path(ordered.out)))


def read_file(path: Path) -> CellFile:
    """Whole lines only: a half line fails."""
    first, *lines = path.read_bytes().split(b"\n")[:-1]
    footer = None
    if lines and b'"footer":true' in lines[-1]:
        footer = msgspec.json.decode(lines.pop(), type=CellFooter)
    records = [msgspec.json.decode(line, type=RequestRecord) for line in lines]
    return CellFile(msgspec.json.decode(first, type=CellHeader), records, footer)


async def until_lines(path: Path, count: int) -> None:
    """Wait until a file has so many lines; nothing announces them."""
    async with asyncio.timeout(HANG_S):
        while not path.exists() or path.read_bytes().count(b"\n") < count:
            await asyncio.sleep(0.01)


def with_file_limit(size: int) -> Callable[[], None]:
    """For a process whose files may not grow past so many bytes, as on a disk that fills up."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@asynccontextmanager
async def stand_in(log: Path, *arguments: str) -> AsyncIterator[str]:
    """The address of a running `python -m loadtests.stand_in`."""
    async with running("-m", "loadtests.stand_in", "--log", str(log), *arguments) as process:
        assert process.stdout is not None
        async with asyncio.timeout(HANG_S):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        async with asyncio.timeout(HANG_S):
            await process.wait()


def sent(log: Path) -> dict[str, SentAnswer]:
    """The stand-in's log, once it has ended."""
    return {answer.id: answer for answer in msgspec.json.Decoder(SentAnswer).decode_lines(log.read_bytes())}
