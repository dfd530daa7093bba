"""What this client can send and read, shown on a stand-in with a known schedule before anything is measured.

A worker runs cells of rising event rates in a process of its own, exactly as in a run; the stand-in's own log says
when each event was sent. Whether the figure is enough for a plan is decided by what the plan needs at most.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.domain.stats import percentile
from gateway.processes import Child, free_ports, start_child, wait_ready
from gateway.settings import child_environment
from loadtests.cell_order import VERSION, CellOrder, FixedWork
from loadtests.cells import Calibration
from loadtests.plan import Arrivals, Open, Rate, Route
from loadtests.records import CellFooter, Outcome, RequestRecord
from loadtests.stand_in import MODEL, SentAnswer

LEVELS = (500.0, 1000.0, 2000.0, 4000.0, 6000.0, 8000.0, 12_000.0, 16_000.0)
"""Events a second that are tried, one after the other, up to the first that is too much each time."""
TRIES = 2
"""Of a level that is too much: a moment's disturbance of the machine is no bound of the client."""
LAG_MAX_S = 0.010
CPU_MAX = 0.60
"""Of one core: the bounds of docs/measurement.md for a cell that counts."""
FIRST_S, GAP_S, TOKENS = 0.050, 0.010, 100
"""The stand-in's schedule."""
SETTLED_S = FIRST_S + GAP_S * TOKENS + 0.2
"""From then on as many streams are open as ever will be."""
START_LIMIT_S = 30.0
READING = "달력을 넘기며 오늘 할 일을 적어 봅니다. 어떤 순서로 하면 좋을까요?"

Values = NDArray[np.float64]


class CalibrationFailed(Exception):
    """The client could not be tried at all; the message says why."""


@dataclass(frozen=True, slots=True)
class Errors:
    """The client's figures less those of the stand-in's log, in seconds; what the wire takes counts as error."""

    ttft_s: Values
    itl_s: Values
    tpot_s: Values


@dataclass(frozen=True, slots=True)
class Level:
    """One rate, tried."""

    events_per_s: float
    """Read, not asked for."""
    lag_p99_s: float
    cpu_share: float
    errors: Errors
    wrong: int
    """Requests that did not end well, or whose tokens were not those that were sent."""

    @property
    def passed(self) -> bool:
        return self.lag_p99_s < LAG_MAX_S and self.cpu_share < CPU_MAX and not self.wrong


async def calibrate(
    folder: Path,
    *,
    needed_events_per_s: float | None = None,
    levels: Sequence[float] = LEVELS,
    for_s: float = 4.0,
    worker_cpu: int | None = None,
    stand_in_cpu: int | None = None,
) -> Calibration:
    """Try the levels up to the first that is too much each time; the figures are those of the last that was not.

    `for_s`: how long each is held. What is written down lies in `folder`. Raises CalibrationFailed.
    """
    tried: list[Level] = []
    while (level := next_level(tried, levels)) is not None:
        place = folder / f"try-{len(tried) + 1}"
        tried.append(await try_level(place, level, for_s, worker_cpu, stand_in_cpu))
    return what_was_shown(tried, needed_events_per_s)


def next_level(tried: Sequence[Level], levels: Sequence[float]) -> float | None:
    """The next of `levels` to try, or one that was too much once more; None: enough is known."""
    failed = sum(1 for _ in takewhile(lambda level: not level.passed, reversed(tried)))
    passed = sum(level.passed for level in tried)
    return None if failed == TRIES or passed == len(levels) else levels[passed]


def what_was_shown(tried: Sequence[Level], needed_events_per_s: float | None) -> Calibration:
    """The figures of the last level that was not too much; of the first, where every one was."""
    best = next((level for level in reversed(tried) if level.passed), tried[0])
    is_enough = needed_events_per_s is None or best.events_per_s >= needed_events_per_s
    return Calibration(
        events_per_s=best.events_per_s,
        lag_p99_s=best.lag_p99_s,
        ttft_error_p99_s=percentile(np.abs(best.errors.ttft_s), 99),
        cpu_share=best.cpu_share,
        needed_events_per_s=needed_events_per_s,
        passed=best.passed and is_enough,
        host=this_host(),
    )


def this_host() -> str:
    """A digest of this host's name and processors, for `Calibration.host`."""
    seen = f"{platform.node()} {platform.machine()} {os.cpu_count()}"
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


async def try_level(
    folder: Path, events_per_s: float, for_s: float, worker_cpu: int | None = None, stand_in_cpu: int | None = None
) -> Level:
    """One rate against a stand-in of its own. Raises CalibrationFailed."""
    (port,) = free_ports(1)
    log, out = folder / "sent.jsonl", folder / "records.jsonl"
    _write_order(folder, order_of(f"http://127.0.0.1:{port}", out, events_per_s, SETTLED_S + for_s))
    first_ms, gap_ms = str(FIRST_S * 1000), str(GAP_S * 1000)
    arguments = ["--port", str(port), "--first-ms", first_ms, "--gap-ms", gap_ms, "--log", str(log)]
    stand_in = await _start("loadtests.stand_in", [*arguments, *_pinned(stand_in_cpu)], folder)
    try:
        await wait_ready(stand_in, f"http://127.0.0.1:{port}/health", timeout_s=START_LIMIT_S)
        worker = await _start("loadtests.worker", [str(folder / "cell.json"), *_pinned(worker_cpu)], folder)
        try:
            if await worker.wait() != 0:
                raise CalibrationFailed(f"the worker {worker.ending()}: {worker.log_tail()}")
        finally:
            await worker.stop(1.0)
    finally:
        await stand_in.stop(5.0)
    return judge(out.read_bytes(), log.read_bytes())


def order_of(address: str, out: Path, events_per_s: float, for_s: float) -> CellOrder:
    """Requests at equal gaps, so that the rate of events is as steady as it can be."""
    rate = events_per_s / TOKENS
    body = {"messages": [{"role": "user", "content": READING}], "max_tokens": TOKENS}
    return CellOrder(
        v=VERSION,
        cell="calibration",
        repeat=1,
        door="direct",
        run_id="calibration",
        address=address,
        route=Route.CHAT,
        model=MODEL,
        open=Open(Arrivals.CONSTANT, (Rate(rate, rate, for_s),)),
        work=FixedWork(body, output_tokens=TOKENS),
        seed=0,
        timeout_s=30.0,
        drain_s=10.0,
        out=str(out),
    )


# --- the figures --------------------------------------------------------------------------------------------


def judge(records: bytes, sent: bytes) -> Level:
    """What a worker's file and the stand-in's log say together."""
    lines = records.splitlines()
    footer = msgspec.json.decode(lines[-1], type=CellFooter)
    seen = [msgspec.json.decode(line, type=RequestRecord) for line in lines[1:-1]]
    log = {answer.id: answer for answer in msgspec.json.Decoder(SentAnswer).decode_lines(sent)}
    right = [record for record in seen if _is_right(record, log)]
    if not right:
        raise CalibrationFailed(
            "not one answer of the stand-in was read: " + str(seen[0].error if seen else "none asked")
        )
    settled = [record for record in right if record.scheduled_s >= SETTLED_S] or right
    came_s = np.concatenate([arrivals_of(record) for record in right])
    in_window = np.count_nonzero((came_s >= SETTLED_S) & (came_s < footer.window_s))
    return Level(
        events_per_s=float(in_window / (footer.window_s - SETTLED_S)),
        lag_p99_s=percentile([_lag_s(record) for record in settled], 99),
        cpu_share=footer.cpu_s / footer.window_s,
        errors=errors_of(settled, log),
        wrong=len(seen) - len(right),
    )


def errors_of(records: Sequence[RequestRecord], log: Mapping[str, SentAnswer]) -> Errors:
    """Record by record; each must have a line in the log, by its request id."""
    ttft, itl, tpot = [], [], []
    for record in records:
        answer = log[record.request_id or ""]
        sent_s, came_s = np.array(answer.sent_s), arrivals_of(record)
        assert record.sent_s is not None
        ttft.append((came_s[0] - record.sent_s) - (sent_s[0] - answer.received_s))
        itl.append(np.diff(came_s) - np.diff(sent_s))
        if len(sent_s) > 1:
            tpot.append(((came_s[-1] - came_s[0]) - (sent_s[-1] - sent_s[0])) / (len(sent_s) - 1))
    return Errors(np.array(ttft), np.concatenate(itl), np.array(tpot))


def arrivals_of(record: RequestRecord) -> Values:
    """When each event with tokens came, in seconds since second 0; none where none came."""
    if record.first_s is None:
        return np.empty(0)
    gaps_s = np.array(record.gaps_us, dtype=np.float64) / 1e6
    return record.first_s + np.concatenate(([0.0], np.cumsum(gaps_s)))


def _is_right(record: RequestRecord, log: Mapping[str, SentAnswer]) -> bool:
    answer = log.get(record.request_id or "")
    if record.outcome is not Outcome.OK or answer is None:
        return False
    return len(answer.sent_s) == record.token_events == record.completion_tokens


def _lag_s(record: RequestRecord) -> float:
    assert record.sent_s is not None
    return record.sent_s - record.scheduled_s


# --- processes ----------------------------------------------------------------------------------------------


def _write_order(folder: Path, order: CellOrder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cell.json").write_bytes(msgspec.json.encode(order))


async def _start(module: str, arguments: Sequence[str], folder: Path) -> Child:
    command = [sys.executable, "-m", module, *arguments]
    return await start_child(module, command, log=folder / f"{module}.log", environment=child_environment())


def _pinned(cpu: int | None) -> list[str]:
    return [] if cpu is None else ["--cpu", str(cpu)]


def main() -> None:
    """`python -m loadtests.calibration FOLDER` tries the worker on the first core, the engine on the last."""
    cores = sorted(os.sched_getaffinity(0))
    found = asyncio.run(calibrate(Path(sys.argv[1]), worker_cpu=cores[0], stand_in_cpu=cores[-1]))
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


if __name__ == "__main__":
    main()
