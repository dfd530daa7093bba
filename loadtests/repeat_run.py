"""One repeat of one cell through one door: its workers started, watched and ended, their files found.

What is sent is the workers' business, what it shows `measured`'s. Whatever becomes of the workers, the repeat ends: the
file of one that was lost has no footer, so the checks see it, and what it owed stands there as unsent.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import msgspec

from gateway.processes import Child, start_child
from gateway.settings import child_environment
from loadtests.arrivals import TracePoint, duration_s, moments
from loadtests.cell_order import VERSION, CellOrder, DrawnWork, FixedWork
from loadtests.doorways import Doorway
from loadtests.endings import Ending
from loadtests.hosts import Hosts
from loadtests.lost_worker import settle_file
from loadtests.plan import Cell, Closed, Open, Plan
from loadtests.traces import trace_lines

START_S = 2.0
START_EACH_S = 1.5
"""Importing Locust takes a core about this long; workers begin together."""
GRACE_S = 20.0
"""After the drain deadline, before a worker that does not end is ended."""
LEAD_GRACE_S = 30.0
"""Within which who leads on several hosts gives up those that do not end."""
NO_OTHER = (Ending.REFUSED, Ending.NOT_KEPT, Ending.MISSING)
"""Endings after which no further repeat would fare better."""


class RepeatImpossible(OSError):
    """A repeat could not be begun or not be kept, and no other could; the message says why."""


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
    hosts: Hosts | None = None
    """Where its workers run; None: here."""

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
    """Run the workers to their end; when `stopping` is set they send nothing more and drain. Never runs unbounded.

    Raises RepeatImpossible, and OSError where this process itself cannot write.
    """
    order.directory.mkdir(parents=True, exist_ok=True)
    for path in order.directory.glob(f"{order.name}-w*"):
        path.unlink()  # of a sitting that was stopped meanwhile
    if order.hosts is not None:
        return await _run_on_hosts(order, plan, order.hosts, stopping)
    starting_s = START_S + START_EACH_S * plan.workers
    begin_s = perf_counter() + starting_s if plan.workers > 1 else None
    began_at = datetime.now(UTC)
    orders = [_order(order, plan, worker, begin_s) for worker in range(plan.workers)]
    limit_s = starting_s + order.load_s + plan.drain_s + GRACE_S
    impossible: list[Exception] = []
    try:
        async with asyncio.TaskGroup() as group:  # one that is impossible ends the others
            workers = [group.create_task(_run_worker(one, stopping, limit_s)) for one in orders]
    except* RepeatImpossible as group_of_them:
        impossible += group_of_them.exceptions
    if impossible:
        raise impossible[0]
    said = [task.result() for task in workers]
    if not stopping.is_set():  # else nobody knows until when it was due, and the repeat is left out
        unwell = [one for one, words in zip(orders, said, strict=True) if words is not None]
        await asyncio.to_thread(_settle, order, unwell, began_at)
    return RepeatRun(tuple(Path(one.out) for one in orders), tuple(filter(None, said)))


async def _run_on_hosts(order: RepeatOrder, plan: Plan, hosts: Hosts, stopping: asyncio.Event) -> RepeatRun:
    """One process here leads those on the hosts, and writes a file for each."""
    one = _order(order, plan, 0, None)
    one = msgspec.structs.replace(one, out=str(order.directory / f"{order.name}.jsonl"))
    limit_s = 2 * hosts.wait_s + order.load_s + plan.drain_s + LEAD_GRACE_S + GRACE_S
    arguments = ("--expect-workers", str(plan.workers), *hosts.arguments)
    said = await _run_worker(one, stopping, limit_s, arguments=arguments)
    files = [order.directory / f"{order.name}-w{worker}.jsonl" for worker in range(plan.workers)]
    return RepeatRun(tuple(files), () if said is None else (said,))


def _settle(order: RepeatOrder, orders: Sequence[CellOrder], began_at: datetime) -> None:
    """The files of workers that did not end well, made whole: nobody had stopped the load, so all of it was due."""
    for one in orders:
        settle_file(Path(one.out), one, until_s=order.load_s, began_at=began_at, trace=order.trace)


def _order(order: RepeatOrder, plan: Plan, worker: int, begin_s: float | None) -> CellOrder:
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
        begin_s=begin_s,
        web_port=order.web_port if worker == 0 else None,
    )


async def _run_worker(
    one: CellOrder, stopping: asyncio.Event, limit_s: float, *, arguments: Sequence[str] = ()
) -> str | None:
    """Start one worker, or by `arguments` who leads those on other hosts, and wait for its end.

    Returns what it said when it did not end well. Raises RepeatImpossible.
    """
    out = Path(one.out)
    path, log = out.with_suffix(".order.json"), out.with_suffix(".log")
    path.write_bytes(msgspec.json.encode(one))
    command = (sys.executable, "-m", "loadtests.worker", str(path), *arguments)
    name = "the host that leads" if arguments else f"worker {one.worker}"
    # It ends with this process, however that ends: nobody would know any more that there is a load.
    child = await start_child(name, command, log=log, environment=child_environment())
    stopper = asyncio.create_task(_stop_when_told(child, stopping, one.drain_s + LEAD_GRACE_S + GRACE_S))
    try:
        async with asyncio.timeout(limit_s):
            code = await child.wait()
    except TimeoutError:
        return f"{name} did not end within {limit_s:g} s and was ended"
    finally:
        stopper.cancel()
        if child.exit_code is None:
            await child.stop(0.0)
    if code == Ending.RAN:
        return None
    words = f"{name} {child.ending()}: {child.log_tail(lines=1) or 'it said nothing'}"
    if code in NO_OTHER:
        raise RepeatImpossible(words)
    return words


async def _stop_when_told(child: Child, stopping: asyncio.Event, grace_s: float) -> None:
    await stopping.wait()
    await child.stop(grace_s)
