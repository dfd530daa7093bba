"""One cell in this process, from its order to its footer. Locust's runner and the signals belong to whoever runs it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter, process_time, time

import gevent  # type: ignore[import-untyped]
from locust.env import Environment
from locust.runners import Runner

from gateway.settings import secret_from_environment
from loadtests.arrivals import duration_s
from loadtests.cell_order import CellOrder, OrderRefused, header_of, source_of, trace_of
from loadtests.record_file import FLUSH_S, Lines, RecordFile, RecordsNotKept
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

    def __init__(self, wall: Callable[[], float] = time) -> None:
        self._wall = wall
        self._wall_s, self._monotonic_s = wall(), perf_counter()
        self._farthest_s = 0.0

    def look(self) -> None:
        """To be called again and again: a wall clock that is set, and set back, has jumped all the same."""
        drift_s = (self._wall() - self._wall_s) - (perf_counter() - self._monotonic_s)
        self._farthest_s = max(self._farthest_s, drift_s, key=abs)

    def drift_s(self) -> float:
        """How far the wall clock was seen to move against the monotonic one, at the farthest."""
        self.look()
        return self._farthest_s

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

    def run(self, zero_s: float, clocks: Clocks, header: CellHeader | None = None) -> str | None:
        """Send, drain and write, second 0 being at a moment of perf_counter; why it ended early, where it did.

        To be called after `prepare`. `header`: where another host says when the cell began. Raises RecordsNotKept at
        its end where what was measured could not be written.
        """
        sending, order = self.sending, self._order
        self._file.begin(header or header_of(order, clocks.wall_at(zero_s)))
        flusher = gevent.spawn(self._keep_flushing, clocks)
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
        stopped = self._file.failure or sending.stopped
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
        if self._file.failure is not None:
            raise RecordsNotKept(self._file.failure)
        return stopped

    def _keep_flushing(self, clocks: Clocks) -> None:
        while True:
            gevent.sleep(FLUSH_S)
            clocks.look()
            self._file.flush()
            if self._file.failure is not None:
                self.sending.stop(self._file.failure)
