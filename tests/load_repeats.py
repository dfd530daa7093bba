"""One repeat of a plan run for real over loopback, and its ledger: what was due and what became of each request."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateways import entry, registry_text
from load_workers import CellFile, read_file, running
from processes_under_test import clean_environment

from loadtests.cell_order import FixedWork
from loadtests.cells import Check, Repeat
from loadtests.doorways import Doorway
from loadtests.engine_view import EngineWatch
from loadtests.measured import Context, measure
from loadtests.plan import Plan
from loadtests.plan_file import parse_plan
from loadtests.repeat_run import RepeatOrder, RepeatRun, run_repeat
from loadtests.validity import Look

RUN_LIMIT_S = 240.0
"""How long a repeat or a run may take. A guard, not a timing."""
BODY = {"messages": [{"role": "user", "content": "오늘 저녁에 먹을 만한 것을 알려 주세요."}], "max_tokens": 8}
PLAN = """
name: faults
target: {model: m, through: direct, engine: 'http://127.0.0.1:1'}
workload: {kind: chat, language: ko, output_tokens: 8}
load:
  - {id: cell, rate_per_s: RATE, for_s: FOR_S, warm_up_s: 0}
objectives:
  - {metric: ttft_s, statistic: p50, limit: 60}
timeout_s: 20
drain_s: 10
workers: WORKERS
"""


@dataclass(frozen=True)
class Ledger:
    """What one repeat left behind."""

    scheduled: int
    repeat: Repeat
    files: list[CellFile]
    said: tuple[str, ...]

    @property
    def outcomes(self) -> Counter[str]:
        """Of all records."""
        return Counter(outcome for file in self.files for outcome in file.outcomes())

    @property
    def numbers(self) -> list[int]:
        return sorted(record.n for file in self.files for record in file.records)

    def check(self, name: str) -> Check:
        return next(one for one in self.repeat.checks if one.name == name)

    @property
    def failed(self) -> dict[str, str]:
        """The checks that make the repeat invalid, with what they saw."""
        return {one.name: one.seen for one in self.repeat.checks if one.passed is False}

    def must_balance(self) -> None:
        """Every request that was due has one record, and all of them stand among the outcomes."""
        assert self.numbers == list(range(self.scheduled))
        assert sum(self.repeat.outcomes.values()) == self.repeat.rates.offered == self.scheduled
        assert not [line for line in (*self.said, *self.repeat.errors) if "Traceback" in line]


def plan_of(rate_per_s: float, for_s: float, *, workers: int = 1, **fields: str) -> Plan:
    """`fields` replace whole lines of the plan, by their first word."""
    text = PLAN.replace("RATE", str(rate_per_s)).replace("FOR_S", str(for_s)).replace("WORKERS", str(workers))
    lines = [line for line in text.splitlines() if line.partition(":")[0] not in fields]
    return parse_plan("\n".join([*lines, *(f"{k}: {v}" for k, v in fields.items())]).encode(), path="plan.yaml")


async def run_one(
    folder: Path,
    address: str,
    plan: Plan,
    *,
    beside: Callable[[RepeatOrder], Coroutine[Any, Any, None]] | None = None,
    watch: EngineWatch | None = None,
    provenances: Sequence[str] = ("simulated", "simulated"),
) -> Ledger:
    """The plan's first cell, once. `beside`: what happens meanwhile. `watch` is read while it runs."""
    order = repeat_order(folder, address, plan)
    watch = watch or EngineWatch(())
    reading = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(RUN_LIMIT_S), asyncio.TaskGroup() as group:
            ran = group.create_task(run_repeat(order, plan, stopping=asyncio.Event()))
            if beside is not None:
                group.create_task(beside(order))
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    return ledger_of(order, ran.result(), plan, watch, provenances)


def repeat_order(folder: Path, address: str, plan: Plan) -> RepeatOrder:
    return RepeatOrder(
        cell=plan.cells[0],
        number=1,
        doorway=Doorway("direct", address, "m", None),
        run_id="run-1",
        seed=7,
        work=FixedWork(BODY, output_tokens=8),
        directory=folder / "records",
    )


def ledger_of(
    order: RepeatOrder,
    ran: RepeatRun,
    plan: Plan,
    watch: EngineWatch,
    provenances: Sequence[str] = ("simulated", "simulated"),
) -> Ledger:
    context = Context(plan, (), gpus=None, replicas=None, price=None)
    repeat = measure(order, ran, context, watch, [Look(one) for one in provenances]).repeat
    assert order.scheduled is not None
    return Ledger(order.scheduled, repeat, [read_file(path) for path in ran.files], ran.failures)


def kill_all_of(process: Process) -> None:
    """The process and everything below it at once, as a host that loses its power."""
    below = {process.pid}
    while more := {child for child, parent in _parents().items() if parent in below} - below:
        below |= more
    for pid in below:
        os.kill(pid, signal.SIGKILL)


def _parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                found[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def worker_pids(folder: Path) -> dict[int, int]:
    """The running workers whose order lies below `folder`: number of the worker to its process."""
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().decode().split("\0")
                if words[1:3] == ["-m", "loadtests.worker"] and words[3].startswith(str(folder)):
                    found[int(words[3].partition("-w")[2].partition(".")[0])] = int(path.name)
    return found


RUN = """
name: run
target: {model: m, through: direct, engine: 'ENGINE'}
workload: {kind: chat, language: ko, max_output_tokens: 8}
load:
  - {id: first, rate_per_s: 10, for_s: FIRST_S, warm_up_s: 0}
  - {id: second, rate_per_s: 20, for_s: FOR_S, warm_up_s: 0}
objectives:
  - {metric: ttft_s, statistic: p50, limit: 60}
repeats: 1
drain_s: 10
calibrate: CALIBRATES
"""


@dataclass
class Bench:
    """Where a run is begun as an operator begins it."""

    folder: Path
    engine: str
    key_variable: str | None = None
    """Of the environment, which has the engine's key."""

    def write_plan(self, *, first_s: float = 1.0, for_s: float = 2.0, calibrates: bool = False) -> str:
        text = RUN.replace("ENGINE", self.engine).replace("FIRST_S", str(first_s)).replace("FOR_S", str(for_s))
        path = self.folder / "plan.yaml"
        path.write_text(text.replace("CALIBRATES", str(calibrates).lower()))
        replica = {"url": self.engine} | ({"api_key_env": self.key_variable} if self.key_variable else {})
        (self.folder / "registry.yaml").write_text(registry_text([entry("m", replicas=[replica])]))
        return str(path)

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(registry=self.folder / "registry.yaml", data_dir=self.folder / "data")

    @property
    def run_directory(self) -> Path:
        (found,) = (self.folder / "data" / "load-runs").glob("lr-*")
        return found

    def loadtest(
        self, *arguments: str, before: Callable[[], None] | None = None, **variables: str
    ) -> AbstractAsyncContextManager[Process]:
        """`simsa loadtest ARGUMENTS` until the block ends."""
        command = ("-m", "gateway", "loadtest", *arguments)
        return running(*command, environment={**self.environment, **variables}, before=before)

    async def simsa(
        self, *arguments: str, before: Callable[[], None] | None = None, beside: Callable[[Process], Any] | None = None
    ) -> tuple[int | None, str, str]:
        """The same to its end: code, standard output and standard error."""
        async with self.loadtest(*arguments, before=before) as process, asyncio.timeout(RUN_LIMIT_S):
            if beside is not None:
                await beside(process)
            out, err = await process.communicate()
        assert b"Traceback" not in err
        return process.returncode, out.decode(), err.decode()
