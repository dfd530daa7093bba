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
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's t at 97.5 % for 1 to 15 degrees of freedom."""


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, all threads, user and system (Linux: clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def main_thread_cpu_s(pid: int) -> float:
    """CPU seconds of a process's first thread, where its event loop runs (proc(5), schedstat, first field)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


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


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t, over at most 16 rounds."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, mean, mean
    half = T_975[min(len(values) - 2, len(T_975) - 1)] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


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
