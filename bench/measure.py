"""What the benchmarks share: other processes' CPU time and memory, a calibration of this machine, pinned children.

CPU time comes from the kernel's per-process clock, which counts every thread in nanoseconds. The machine may be shared
and of any speed, so each CPU figure is also given as a multiple of one calibration loop, timed in the same minute.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

CALIBRATION_LOOPS = 20
CALIBRATION_STEPS = 1_000


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, all threads, user and system (Linux: clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def main_thread_cpu_s(pid: int) -> float:
    """CPU seconds of a process's first thread, where its event loop runs (proc(5), schedstat, first field)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def waited_for_core_s(pid: int) -> float:
    """Seconds a process's first thread was ready to run but had no core (proc(5), schedstat, second field)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, exact (proc(5), smaps_rollup; statm is only approximate)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"process {pid} has no resident memory")


def calibration_s() -> float:
    """CPU seconds of one calibration loop (1,000 additions and dictionary writes) here and now: the median of 25."""
    return statistics.median(_calibration_once() for _ in range(25))


def _calibration_once() -> float:
    started_s = time.process_time()
    for _ in range(CALIBRATION_LOOPS):
        total, table = 0, {}
        for step in range(CALIBRATION_STEPS):
            total += step
            table[step & 255] = total
    return (time.process_time() - started_s) / CALIBRATION_LOOPS


def percentile(values: Sequence[float], q: float) -> float:
    """The smallest value with at least `q` of the values at or below it (nearest rank), 0 < q <= 1."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and its distribution-free interval of at least 95 % (order statistics, from the binomial distribution).

    The median, because neighbours on a shared machine spoil single rounds and not most of them. With fewer than six
    values no interval reaches 95 %: it is then the whole range.
    """
    ordered, n = sorted(values), len(values)
    cut, tail = 0, 1 / 2**n
    while 2 * (tail + math.comb(n, cut + 1) / 2**n) <= 0.05:
        cut += 1
        tail += math.comb(n, cut) / 2**n
    return statistics.median(ordered), ordered[cut], ordered[n - 1 - cut]


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Least-squares slope of y over x; 0 when there are fewer than two points."""
    return statistics.linear_regression(xs, ys).slope if len(xs) > 1 else 0.0


@contextmanager
def child(
    arguments: Sequence[str],
    *,
    cpu: int,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A Python process of ours on one core; stopped when the block ends. With `log`, its output goes there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})  # inherited by the child from its first instruction
    try:
        with log.open("wb") if log is not None else _nothing() as sink:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=cwd,
                env=environment,
                stdout=sink if sink is not None else subprocess.PIPE,
                stderr=subprocess.STDOUT if sink is not None else None,
                text=True,
            )
    finally:
        os.sched_setaffinity(0, before)
    try:
        yield process
    finally:
        _stop(process)


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def fast_engine(*, cpu: int, cwd: Path) -> Iterator[tuple[int, str]]:
    """The fast engine on a core: its process id and url."""
    with child(["-m", "bench.fast_engine"], cpu=cpu, cwd=cwd) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the fast engine ended before it listened")
        yield process.pid, f"http://127.0.0.1:{port}"
