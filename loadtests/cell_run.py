"""One cell in this process, from its order to its footer. Locust's runner and the signals belong to whoever runs it."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from time import perf_counter, process_time, time

import gevent  # type: ignore[import-untyped]
from locust.env import Environment
from locust.runners import Runner

from gateway.settings import secret_from_environment
from loadtests.arrivals import duration_s
from loadtests.cell_order import CellOrder, OrderRefused, source_of, trace_of
from loadtests.record_file import FLUSH_S, Lines, RecordFile
from loadtests.records import VERSION, CellFooter, CellHeader
from loadtests.sending import LATEST_S, Sending
from loadtests.users import fire, parts_of, user_class

LEAD_S = 0.05
"""Between the worker being ready and second 0, where the order names no moment."""
READY_S = 60.0
"""How long workers may take to connect and to get ready, unless whoever starts them says otherwise."""
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
        key = None if order.key_variable is None else secret_from_environment(order.key_variable)
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

    def prepare(self, runner: Runner, within_s: float = READY_S) -> None:
        """Everything that the first requests would have to wait for: the target's addresses, Locust's users.

        A target that is not found is found out by the requests. Users who have not begun after `within_s` stop the
        cell: it would be less load than was ordered.
        """
        self.sending.look_up()
        with gevent.Timeout(within_s, False):
            while runner.user_count < self.users:
                gevent.sleep(0.01)
        if runner.user_count < self.users:
            self.sending.stop(f"only {runner.user_count} of {self.users} users had begun after {within_s:g} s")
        gc.collect()
        gc.freeze()

    def run(self, zero_s: float, clocks: Clocks) -> str | None:
        """Send, drain and write, second 0 being at a moment of perf_counter; why it ended early, where it did.

        To be called after `prepare`.
        """
        sending, order = self.sending, self._order
        self._file.begin(_header(order, clocks.wall_at(zero_s)))
        flusher = gevent.spawn(self._keep_flushing)
        sending.begin(zero_s)
        sending.stopping.wait(max(0.0, -sending.now_s()))
        cpu_began_s = process_time()
        sending.stopping.wait(max(0.0, self._duration_s - sending.now_s()))
        cpu_s, window_s = process_time() - cpu_began_s, max(0.0, sending.now_s())
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
