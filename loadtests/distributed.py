"""One cell over several hosts, as Locust's master and workers: the order goes out, records come back as messages.

The master deals out the order, starts everybody at once and writes one file a worker; workers need nothing but its
address and, where the target wants one, the key in their own environment. Second 0 is when the word to begin arrives
at each worker, so their wall clocks need not agree.

Nobody is asked for a password: whoever reaches the master's port can take part. It listens on loopback unless told
otherwise. What comes from somebody who was dealt nothing is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import gevent  # type: ignore[import-untyped]
import msgspec
from gevent.event import AsyncResult  # type: ignore[import-untyped]
from locust.env import Environment
from locust.rpc import Message
from locust.runners import STATE_MISSING, STATE_RUNNING, MasterRunner, WorkerRunner

from loadtests.arrivals import duration_s
from loadtests.cell_order import CellOrder, OrderRefused, read_order, trace_of
from loadtests.cell_run import LEAD_S, READY_S, CellRun, Clocks
from loadtests.lost_worker import owed_records
from loadtests.record_file import LineFile
from loadtests.sending import Sending

PORT = 5557
TURN_S = 0.05
LAST_WORD_S = 0.5
GRACE_S = 30.0
"""How long after load and drain a worker may take to say that it has ended: it covers what it waits for itself."""
ORDER, READY, BEGIN, LINES, STOP, END = (
    f"simsa_{word}" for word in ("order", "ready", "begin", "lines", "stop", "end")
)


def out_of_worker(out: str, worker: int) -> str:
    """The file of one worker of several: `cell.jsonl` becomes `cell.w0.jsonl`."""
    path = Path(out)
    return str(path.with_name(f"{path.stem}.w{worker}{path.suffix}"))


# --- the workers' side --------------------------------------------------------------------------------------


class SentLines:
    """Lines that the master writes."""

    def __init__(self, runner: WorkerRunner) -> None:
        self._runner = runner

    def append(self, lines: bytes) -> None:
        self._runner.send_message(LINES, {"lines": lines})

    def end(self) -> None:
        pass


def run_for_master(host: str, port: int, watch: Callable[[Sending], None], ready_s: float) -> str | None:
    """Run what the master orders, once; why it ended early, where it did. Raises OrderRefused.

    `watch` is given what is to be stopped by signals.
    """
    environment = Environment(user_classes=[])
    runner = environment.create_worker_runner(host, port)
    ordered, begun, stopped = (_listen(runner, kind) for kind in (ORDER, BEGIN, STOP))
    try:
        if not _has_come(ordered, stopped, ready_s):
            return _why_not(stopped, f"no order came within {ready_s:g} s")
        cell = CellRun(read_order(ordered.value["order"]), SentLines(runner), environment)
    except OrderRefused as error:
        _say(runner, READY, {"error": str(error)})
        raise
    watch(cell.sending)
    stopped.rawlink(lambda result: cell.sending.stop(result.value["why"]))
    runner.send_message(READY, {"error": None})
    if not _has_come(begun, stopped, ready_s):
        return _why_not(stopped, f"no word to begin came within {ready_s:g} s")
    runner.stats.clear_all()
    for user in environment.user_classes:
        runner.spawn_users({user.__name__: cell.users})
    cell.prepare(runner, ready_s)
    why = cell.run(perf_counter() + LEAD_S, Clocks())
    _say(runner, END, {"stopped": why})
    runner.quit()
    return why


def _has_come(awaited: AsyncResult, stopped: AsyncResult, within_s: float) -> bool:
    """False where the master ends the cell first, or says nothing."""
    gevent.wait([awaited, stopped], timeout=within_s, count=1)
    return bool(awaited.ready())


def _why_not(stopped: AsyncResult, silence: str) -> str:
    return str(stopped.value["why"]) if stopped.ready() else silence


def _say(runner: WorkerRunner, kind: str, data: dict[str, Any]) -> None:
    """The last word before this process ends: Locust's socket needs a moment to get it out."""
    runner.send_message(kind, data)
    gevent.sleep(LAST_WORD_S)


def _listen(runner: WorkerRunner, kind: str) -> AsyncResult:
    """What the first message of its kind says, once it has come."""
    result = AsyncResult()

    def take(msg: Message, **_: object) -> None:
        if not result.ready():
            result.set(msg.data)

    runner.register_message(kind, take)
    return result


# --- the master's side --------------------------------------------------------------------------------------


class Part:
    """What the master knows of one worker."""

    def __init__(self, order: CellOrder) -> None:
        self.order = order
        self.file = LineFile(Path(order.out))
        self.is_ready = False
        self.has_ended = False

    def end(self) -> None:
        """Nothing more is written; raises OSError where what was does not reach the disk."""
        self.has_ended = True
        self.file.end()


class Master:
    """Deals one cell out to the workers that connect, and writes what they send back."""

    def __init__(
        self, order: CellOrder, *, bind_host: str, port: int, ready_s: float = READY_S, grace_s: float = GRACE_S
    ) -> None:
        """As many workers as the order says.

        `ready_s`: how long they may take to connect, and then to get ready. `grace_s`: how long after load and drain
        one may take to say that it has ended. Raises OSError where the port is taken.
        """
        self._order = order
        self._ready_s, self._grace_s = ready_s, grace_s
        self._trace = trace_of(order)
        self._duration_s = duration_s(order.load, self._trace)
        self.environment = Environment(user_classes=[])
        self.runner: MasterRunner = self.environment.create_master_runner(bind_host, port)
        self._parts: dict[str, Part] = {}
        """By Locust's id of the worker."""
        self._why: str | None = None
        self._stopped_s: float | None = None
        """When the workers were told to stop, of perf_counter."""
        for kind, take in ((READY, self._take_ready), (LINES, self._take_lines), (END, self._take_end)):
            self.runner.register_message(kind, take)

    def stop(self, why: str) -> None:
        """The workers send nothing more."""
        self._why = self._why or why
        if self._stopped_s is None:
            self._stopped_s = perf_counter()
        self.runner.send_message(STOP, {"why": why})  # to all that are connected

    def run(self) -> str | None:
        """The whole cell; why it ended early, where it did."""
        if not self._until(lambda: len(self.runner.clients.ready) >= self._order.workers):
            self.stop(
                self._why or f"expected {self._order.workers} workers, {len(self.runner.clients.ready)} connected"
            )
        else:
            self._deal()
            if self._until(lambda: all(part.is_ready for part in self._parts.values())):
                self._begin()
            else:
                self.stop(self._why or self._who_is_not_ready())
        for part in self._parts.values():
            part.end()
        self.runner.quit()
        return self._why

    def _until(self, holds: Callable[[], bool]) -> bool:
        """Wait, for `ready_s` at the most; False where it does not come about or the cell is stopped before."""
        with gevent.Timeout(self._ready_s, False):
            while not holds() and self._why is None:
                gevent.sleep(TURN_S)
        return holds() and self._why is None

    def _deal(self) -> None:
        for number, worker in enumerate(sorted(client.id for client in self.runner.clients.ready)):
            if number < self._order.workers:
                out = out_of_worker(self._order.out, number)
                order = msgspec.structs.replace(self._order, worker=number, out=out)
                self._parts[worker] = Part(order)
                self.runner.send_message(ORDER, {"order": msgspec.json.encode(order)}, worker)

    def _who_is_not_ready(self) -> str:
        late = ", ".join(str(part.order.worker) for part in self._parts.values() if not part.is_ready)
        return f"worker {late} of {self._order.workers} did not get ready within {self._ready_s:g} s"

    def _begin(self) -> None:
        began_s = perf_counter()
        self.runner.stats.clear_all()
        self.runner.update_state(STATE_RUNNING)
        for worker in self._parts:
            self.runner.send_message(BEGIN, {}, worker)
        while not all(part.has_ended for part in self._parts.values()):
            gevent.sleep(TURN_S)
            for worker, part in self._parts.items():
                if part.has_ended:
                    continue
                if self._is_lost(worker):
                    self._give_up(part, began_s, "")
                elif perf_counter() > self._latest_end_s(began_s):
                    more = f": it had not ended {self._grace_s:g} s after load and drain"
                    self._give_up(part, began_s, more)
                    self.runner.send_message(STOP, {"why": self._why}, worker)

    def _latest_end_s(self, began_s: float) -> float:
        """When a worker that has not ended is waited for no longer, of perf_counter."""
        load_ends_s = began_s + self._ready_s + self._duration_s
        if self._stopped_s is not None:
            load_ends_s = min(load_ends_s, self._stopped_s)
        return load_ends_s + self._order.drain_s + self._grace_s

    def _is_lost(self, worker: str) -> bool:
        client = self.runner.clients.get(worker)
        return client is None or client.state == STATE_MISSING

    def _give_up(self, part: Part, began_s: float, more: str) -> None:
        """What the worker owed is offered and unsent; its file stays without a footer."""
        part.has_ended = True
        order = part.order
        until_s = self._duration_s  # the others go on: it was due all the same
        if self._stopped_s is not None:
            until_s = min(self._stopped_s - began_s, until_s)
        written = Path(order.out).read_bytes()
        owed = owed_records(order, written, until_s=until_s, trace=self._trace)
        part.file.append(b"".join(msgspec.json.encode(record) + b"\n" for record in owed))
        self._why = self._why or f"worker {order.worker} of {order.workers} was lost{more}"

    def _take_ready(self, msg: Message, **_: object) -> None:
        part = self._parts.get(msg.node_id)
        if part is None:
            return
        if msg.data["error"] is not None:
            self._why = self._why or msg.data["error"]
        part.is_ready = True

    def _take_lines(self, msg: Message, **_: object) -> None:
        part = self._parts.get(msg.node_id)
        if part is None or part.has_ended:  # of one given up as lost, what it owed stands there already
            return
        try:
            part.file.append(msg.data["lines"])
        except OSError as error:
            self.stop(f"the records cannot be written: {error.strerror or error}")

    def _take_end(self, msg: Message, **_: object) -> None:
        part = self._parts.get(msg.node_id)
        if part is None or part.has_ended:
            return
        part.has_ended = True
        self._why = self._why or msg.data["stopped"]
