"""`python -m loadtests.worker CELL.json`: run one cell in this process, with Locust as a library.

Exit code 0 when the cell ran to its end, 1 when it did not (one line on stderr says why; what was measured is kept),
2 for an order that cannot be run. SIGINT and SIGTERM stop sending and wait for what is under way, up to the drain's
end; a second one gives that up too. Across hosts see `distributed`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time, time

import gevent  # type: ignore[import-untyped]
from locust.env import Environment
from locust.stats import stats_history

from loadtests.arrivals import duration_s
from loadtests.cell_order import CellOrder, OrderRefused, begin_moment, read_order, source_of, trace_of
from loadtests.record_file import FLUSH_S, LineFile, Lines, RecordFile
from loadtests.records import VERSION, CellFooter, CellHeader
from loadtests.sending import LATEST_S, Sending
from loadtests.users import fire, parts_of, user_class

LEAD_S = 0.05
"""Between the worker being ready and second 0, where the order names no moment."""
READY_S = 60.0
SLACK_S = 5.0


class Clocks:
    """The wall clock beside the monotonic one, from the moment it is made."""

    def __init__(self) -> None:
        self._wall_s, self._monotonic_s = time(), perf_counter()

    def drift_s(self) -> float:
        """How far the wall clock moved against the monotonic one since."""
        return (time() - self._wall_s) - (perf_counter() - self._monotonic_s)

    def monotonic_at(self, moment: datetime) -> float:
        """What perf_counter says at a moment of the wall clock."""
        return self._monotonic_s + moment.timestamp() - self._wall_s

    def wall_at(self, monotonic_s: float) -> str:
        """ISO 8601, UTC."""
        return datetime.fromtimestamp(self._wall_s + monotonic_s - self._monotonic_s, UTC).isoformat()


class CellRun:
    """One cell from the order to the footer."""

    def __init__(self, order: CellOrder, lines: Lines, environment: Environment) -> None:
        """Raises OrderRefused."""
        self._order = order
        self._environment = environment
        self._file = RecordFile(lines)
        key = None if order.key_variable is None else os.environ.get(order.key_variable)
        if order.key_variable is not None and not key:
            raise OrderRefused(f"key_variable: {order.key_variable} is not set in the environment")
        trace = trace_of(order)
        self._duration_s = duration_s(order.load, trace)
        self.sending = Sending(
            order, source_of(order), self._file, key=key, told=lambda record: fire(environment, order, record)
        )
        self._parts = parts_of(self.sending, trace)
        environment.user_classes = [user_class(self.sending, self._parts)]

    @property
    def users(self) -> int:
        """How many users of Locust's it takes."""
        return len(self._parts)

    def prepare(self) -> None:
        """What the first request would have to wait for. A target that is not found is found out by the requests."""
        self.sending.look_up()
        gc.collect()
        gc.freeze()

    def run(self, zero_s: float, clocks: Clocks) -> str | None:
        """Send, drain and write, second 0 being at a moment of perf_counter; why it ended early, where it did.

        Locust's users must have been started.
        """
        sending, order = self.sending, self._order
        self._file.begin(_header(order, clocks.wall_at(zero_s)))
        flusher = gevent.spawn(self._keep_flushing)
        sending.begin(zero_s)
        gevent.sleep(max(0.0, -sending.now_s()))
        cpu_began_s = process_time()
        sending.stopping.wait(max(0.0, self._duration_s - sending.now_s()))
        cpu_s, window_s = process_time() - cpu_began_s, sending.now_s()
        sending.finished.wait(LATEST_S + SLACK_S)
        sending.stop(None)
        sending.drain(window_s + order.drain_s)
        flusher.kill()
        self._file.flush()
        stopped = sending.stopped or self._file.failure
        self._file.end(
            CellFooter(
                v=VERSION,
                footer=True,
                ended_s=sending.now_s(),
                cpu_s=cpu_s,
                window_s=window_s,
                wall_minus_monotonic_s=clocks.drift_s(),
                stopped=stopped,
            )
        )
        return stopped or self._file.failure

    def _keep_flushing(self) -> None:
        while True:
            gevent.sleep(FLUSH_S)
            self._file.flush()
            if self._file.failure is not None:
                self.sending.stop(self._file.failure)


def stop_on_signals(sending: Sending) -> None:
    """The first signal stops sending, the second one what is under way too."""

    def stop(number: signal.Signals) -> None:
        if sending.stopping.is_set():
            sending.abandon(f"stopped by a second {number.name}")
        else:
            sending.stop(f"stopped by {number.name}")

    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stop, number)


def run_here(order: CellOrder) -> str | None:
    """Run the cell in this process alone; why it ended early, where it did. Raises OrderRefused, OSError."""
    environment = Environment()
    cell = CellRun(order, LineFile(Path(order.out)), environment)
    runner = environment.create_local_runner()
    if order.web_port is not None:
        environment.create_web_ui("127.0.0.1", order.web_port)
        gevent.spawn(stats_history, runner)
    stop_on_signals(cell.sending)
    environment.events.test_stopping.add_listener(  # type: ignore[no-untyped-call]
        lambda **_: cell.sending.stop("stopped on Locust's page")
    )
    if cell.users:
        runner.start(cell.users, spawn_rate=cell.users)
    cell.prepare()
    clocks = Clocks()
    moment = begin_moment(order)
    zero_s = perf_counter() + LEAD_S if moment is None else clocks.monotonic_at(moment)
    stopped = cell.run(zero_s, clocks)
    runner.quit()
    if environment.web_ui is not None:
        environment.web_ui.stop()  # type: ignore[no-untyped-call]
    return stopped


def raise_file_limit() -> None:
    """Every request under way is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _header(order: CellOrder, began_at: str) -> CellHeader:
    return CellHeader(
        v=VERSION,
        cell=order.cell,
        repeat=order.repeat,
        door=order.door,
        run_id=order.run_id,
        worker=order.worker,
        workers=order.workers,
        seed=order.seed,
        began_at=began_at,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.worker", description="Run one cell of a load test.")
    parser.add_argument("order", type=Path, help="CELL.json")
    options = parser.parse_args(arguments)
    logging.getLogger("locust").setLevel(logging.ERROR)
    raise_file_limit()
    try:
        stopped = run_here(read_order(options.order.read_bytes()))
    except (OrderRefused, OSError) as error:
        sys.stderr.write(f"{options.order}: {error}\n")
        return 2
    if stopped is not None:
        sys.stderr.write(f"{options.order}: {stopped}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
