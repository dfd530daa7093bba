"""One repeat of one cell through one door: its workers started, watched and ended, their files found.

What is sent is the workers' business, what it shows `measured`'s. Whatever becomes of the workers, the repeat ends: a
lost worker leaves a file without a footer, and the checks see it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from loadtests.arrivals import TracePoint, duration_s, moments
from loadtests.cell_order import VERSION, CellOrder, DrawnWork, FixedWork
from loadtests.doorways import Doorway
from loadtests.plan import Cell, Closed, Open, Plan
from loadtests.traces import trace_lines

START_S = 2.0
START_EACH_S = 1.5
"""Importing Locust takes a core about this long; workers begin together."""
GRACE_S = 20.0
"""After the drain deadline, before a worker that does not end is ended."""
_STDERR_BYTES = 4000


@dataclass(frozen=True, slots=True)
class RepeatOrder:
    """What one repeat is."""

    cell: Cell
    number: int
    """From 1."""
    doorway: Doorway
    run_id: str
    seed: int
    work: DrawnWork | FixedWork
    directory: Path
    trace: Sequence[TracePoint] = ()
    attempt: int = 1
    web_port: int | None = None

    @property
    def name(self) -> str:
        again = "" if self.attempt == 1 else f"-again{self.attempt}"
        return f"{self.cell.id}-{self.doorway.door}-r{self.number}{again}"

    @property
    def load_s(self) -> float:
        return duration_s(self.cell.load, self.trace)

    @property
    def scheduled(self) -> int | None:
        """Requests that are due in all; None in a closed loop."""
        load = self.cell.load
        return len(moments(load, self.seed, self.trace)) if isinstance(load, Open) else None


@dataclass(frozen=True, slots=True)
class RepeatRun:
    """What came of it."""

    files: tuple[Path, ...]
    failures: tuple[str, ...]
    """What workers that did not end well said, in one line each."""


async def run_repeat(order: RepeatOrder, plan: Plan, *, stopping: asyncio.Event) -> RepeatRun:
    """Run the workers to their end; when `stopping` is set they send nothing more and drain. Never runs unbounded."""
    order.directory.mkdir(parents=True, exist_ok=True)
    for path in order.directory.glob(f"{order.name}-w*"):
        path.unlink()  # of a sitting that was stopped meanwhile
    begin_at = None
    if plan.workers > 1:
        begin_at = datetime.now(UTC) + timedelta(seconds=START_S + START_EACH_S * plan.workers)
    orders = [_order(order, plan, worker, begin_at) for worker in range(plan.workers)]
    limit_s = order.load_s + plan.drain_s + START_S + START_EACH_S * plan.workers + GRACE_S
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(_run_worker(order, one, stopping, limit_s)) for one in orders]
    said = [task.result() for task in workers]
    return RepeatRun(tuple(Path(one.out) for one in orders), tuple(filter(None, said)))


def _order(order: RepeatOrder, plan: Plan, worker: int, begin_at: datetime | None) -> CellOrder:
    load = order.cell.load
    trace_file = None
    if order.trace:
        trace_file = str(order.directory / f"{order.name}-trace.jsonl")
        Path(trace_file).write_bytes(trace_lines(order.trace))
    return CellOrder(
        v=VERSION,
        cell=order.cell.id,
        repeat=order.number,
        door=order.doorway.door,
        run_id=order.run_id,
        address=order.doorway.address,
        route=plan.target.route,
        model=order.doorway.model,
        models=plan.target.models,
        key_variable=order.doorway.key_variable,
        open=load if isinstance(load, Open) else None,
        closed=load if isinstance(load, Closed) else None,
        trace_file=trace_file,
        work=order.work,
        seed=order.seed,
        worker=worker,
        workers=plan.workers,
        timeout_s=plan.timeout_s,
        drain_s=plan.drain_s,
        out=str(order.directory / f"{order.name}-w{worker}.jsonl"),
        begin_at=None if begin_at is None else begin_at.isoformat(),
        web_port=order.web_port if worker == 0 else None,
    )


async def _run_worker(order: RepeatOrder, one: CellOrder, stopping: asyncio.Event, limit_s: float) -> str | None:
    """Start one worker and wait for its end; what it said when it did not end well."""
    path = order.directory / f"{order.name}-w{one.worker}.order.json"
    path.write_bytes(msgspec.json.encode(one))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtests.worker", str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the campaign alone, which then tells its workers
    )
    stopper = asyncio.create_task(_stop_when_told(process, stopping))
    try:
        _, stderr = await asyncio.wait_for(process.communicate(), limit_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"worker {one.worker} did not end within {limit_s:g} s and was ended"
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    finally:
        stopper.cancel()
    if process.returncode == 0:
        return None
    words = stderr[-_STDERR_BYTES:].decode("utf-8", "replace").strip().splitlines()
    return f"worker {one.worker} ended with {process.returncode}: {words[-1] if words else 'it said nothing'}"


async def _stop_when_told(process: asyncio.subprocess.Process, stopping: asyncio.Event) -> None:
    await stopping.wait()
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
