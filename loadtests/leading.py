"""The side of the host that leads: one cell dealt out to the workers that connect, what they send back written down.

What goes between the two is told in `distributed`. Whatever becomes of a worker, its share of the load has records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, time
from typing import Any

import gevent  # type: ignore[import-untyped]
import msgspec
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc import Message
from locust.runners import STATE_MISSING, STATE_RUNNING, MasterRunner

from gateway import __version__
from loadtests.arrivals import duration_s
from loadtests.cell_order import CellOrder, trace_of
from loadtests.cell_run import READY_S
from loadtests.distributed import NOT_THIS_CELL, Missing, Word
from loadtests.host_clocks import Answered, clock_of
from loadtests.hosts import Address, require_free
from loadtests.lost_worker import settle_file
from loadtests.record_file import LineFile, RecordsNotKept, pieces_of

TURN_S = 0.05
LEAD_S = 0.5
"""Between the word to begin and second 0: the word has to arrive before."""
GRACE_S = 30.0
"""How long after load and drain a worker may take to say that it has ended: it covers what it waits for itself."""
MISSING_S = 6
"""How long a worker may be missing by Locust's heartbeats, whose patience is 3 s, before it counts as lost."""
ROUNDS = 10
ROUND_S = 2.0
"""How often each host is asked for its clock, and how long an answer is waited for."""


def out_of_worker(out: str, worker: int) -> str:
    """The file of one worker of several: `cell.jsonl` becomes `cell-w0.jsonl`."""
    path = Path(out)
    return str(path.with_name(f"{path.stem}-w{worker}{path.suffix}"))


@contextmanager
def listening(bind_host: str, port: int) -> Iterator[Environment]:
    """An environment whose master listens. Raises OSError."""
    require_free(Address(bind_host, port))
    environment = Environment(user_classes=[])
    try:
        environment.create_master_runner(bind_host, port)
    except RPCError as error:
        raise OSError(f"cannot listen on {Address(bind_host, port)}: {error}") from error
    yield environment


def dismiss(environment: Environment, workers: int, within_s: float) -> None:
    """Tell so many workers, as they come, that there is nothing more to do, until they have heard it; those who come
    later find nobody.
    """
    runner = environment.runner
    assert isinstance(runner, MasterRunner)
    here: set[str] = set()
    heard: set[str] = set()

    def tell(msg: Message, **_: object) -> None:
        here.add(msg.node_id)
        runner.send_message(Word.OVER, {"why": "the run is over"}, msg.node_id)

    runner.register_message(Word.HERE, tell)
    runner.register_message(Word.HEARD, lambda msg, **_: heard.add(msg.node_id))
    with gevent.Timeout(within_s, False):
        while len(heard) < workers:
            gevent.sleep(TURN_S)
    _quit(runner, here)


def _quit(runner: MasterRunner, here: set[str]) -> None:
    """Locust's word to quit reaches those alone who can hear it: it leaves one that has only just connected deaf."""
    for client in runner.clients.all:
        if client.id not in here:
            del runner.clients[client.id]
    runner.quit()


class Part:
    """What the master knows of one worker."""

    def __init__(self, order: CellOrder) -> None:
        self.order = order
        self.file = LineFile(Path(order.out))
        self.host = "?"
        self.is_ready = False
        self.has_ended = False
        self.is_torn = False
        """Something of what it sent is not there."""
        self.clocks: list[Answered] = []
        self._received_bytes = 0
        self._digest = hashlib.sha256()

    def __str__(self) -> str:
        return f"worker {self.order.worker} of {self.order.workers} ({self.host})"

    def take(self, data: dict[str, Any]) -> bool:
        """Keep a piece; False where it is not the next one, whole. Raises OSError."""
        self._digest.update(data["lines"])
        if data["at"] != self._received_bytes or data["sha256"] != self._digest.hexdigest():
            return False
        self.file.append(data["lines"])
        self._received_bytes += len(data["lines"])
        return True

    def has_all(self, sent_bytes: int) -> bool:
        return sent_bytes == self._received_bytes

    def end(self) -> None:
        """Nothing more is written; raises OSError where what was does not reach the disk."""
        if not self.has_ended:
            self.has_ended = True
            self.file.end()


class Master:
    """Deals one cell out to the workers that connect, and writes what they send back."""

    def __init__(
        self, order: CellOrder, environment: Environment, *, ready_s: float = READY_S, grace_s: float = GRACE_S
    ) -> None:
        """As many workers as the order says; `environment` is one that listens.

        `ready_s`: how long they may take to connect, and then to get ready. `grace_s`: how long after load and drain
        one may take to say that it has ended. Raises OrderRefused.
        """
        assert isinstance(environment.runner, MasterRunner)
        self._order = order
        self._ready_s, self._grace_s = ready_s, grace_s
        self._trace = trace_of(order)
        self._duration_s = duration_s(order.load, self._trace)
        self._runner = environment.runner
        self._parts: dict[str, Part] = {}
        """By Locust's id of the worker."""
        self._here: set[str] = set()
        """The ids of those who said so."""
        self._asked_s = 0.0
        self._round = 0
        self._why: str | None = None
        self._unkept: str | None = None
        self._stopped_s: float | None = None
        """When the workers were told to stop, of perf_counter."""
        self._runner.register_message(Word.HERE, lambda msg, **_: self._here.add(msg.node_id))
        takes = {
            Word.READY: self._take_ready,
            Word.CLOCK: self._take_clock,
            Word.LINES: self._take_lines,
            Word.END: self._take_end,
        }
        for kind, take in takes.items():
            self._runner.register_message(kind, take)

    def stop(self, why: str) -> None:
        """The workers send nothing more."""
        self._why = self._why or why
        if self._stopped_s is None:
            self._stopped_s = perf_counter()
        self._runner.send_message(Word.STOP, {"why": why})  # to all that are connected

    def stop_from_page(self, **_: object) -> None:
        """As Locust says it; it says so too when the last worker has gone."""
        if self._runner.worker_count:
            self.stop("stopped on Locust's page")

    def run(self) -> str | None:
        """The whole cell; why it ended early, where it did. Raises Missing, RecordsNotKept."""
        missing = None
        if not self._until(lambda: len(self._at_hand()) >= self._order.workers):
            missing = f"{len(self._at_hand())} of {self._order.workers} workers came in {self._ready_s:g} s"
            if mute := len(self._runner.clients.ready) - len(self._at_hand()):
                missing += f"; {mute} that connected did not say that they are here: simsa {__version__} there too?"
            self.stop(self._why or missing)
        else:
            try:
                self._deal()
            except RecordsNotKept as error:
                self._unkept = str(error)
                self.stop(self._unkept)
            if self._until(lambda: all(part.is_ready for part in self._parts.values())):
                self._begin()
            else:
                self.stop(self._why or self._who_is_not_ready())
        for part in self._parts.values():
            self._end(part)
        why = self._why
        for worker in self._at_hand():
            if worker not in self._parts:
                self._runner.send_message(Word.STOP, {"why": NOT_THIS_CELL}, worker)
        _quit(self._runner, self._here)
        if self._unkept is not None:
            raise RecordsNotKept(self._unkept)
        if missing is not None and why == missing:
            raise Missing(missing)
        return why

    def _until(self, holds: Callable[[], bool]) -> bool:
        """Wait, for `ready_s` at the most; False where it does not come about or the cell is stopped before."""
        with gevent.Timeout(self._ready_s, False):
            while not holds() and self._why is None:
                gevent.sleep(TURN_S)
        return holds() and self._why is None

    def _at_hand(self) -> list[str]:
        """Who waits for an order, or for its word to begin."""
        return sorted(client.id for client in self._runner.clients.ready if client.id in self._here)

    def _deal(self) -> None:
        trace = b"" if self._order.trace_file is None else Path(self._order.trace_file).read_bytes()
        for number, worker in enumerate(self._at_hand()):
            if number < self._order.workers:
                out = out_of_worker(self._order.out, number)
                order = msgspec.structs.replace(self._order, worker=number, out=out)
                self._parts[worker] = Part(order)
                for piece in pieces_of(trace):
                    self._runner.send_message(Word.TRACE, {"lines": piece}, worker)
                data = {"order": msgspec.json.encode(order), "trace_sha256": hashlib.sha256(trace).hexdigest()}
                self._runner.send_message(Word.ORDER, data, worker)

    def _who_is_not_ready(self) -> str:
        late = ", ".join(str(part.order.worker) for part in self._parts.values() if not part.is_ready)
        return f"worker {late} of {self._order.workers} did not get ready within {self._ready_s:g} s"

    # --- the load -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._ask_clocks()
        zero_s = perf_counter() + LEAD_S
        began_at = (datetime.now(UTC) + timedelta(seconds=LEAD_S)).isoformat()
        self._runner.stats.clear_all()
        self._runner.update_state(STATE_RUNNING)
        for worker, part in self._parts.items():
            clock = clock_of(part.clocks)
            if clock is None:
                self._give_up(part, zero_s, ": it does not tell its clock")
                continue
            begin = {"zero_s": zero_s + clock.monotonic_ahead_s, "began_at": began_at}
            stands = {"wall_offset_s": clock.wall_ahead_s, "within_s": clock.within_s}
            self._runner.send_message(Word.BEGIN, {**begin, **stands}, worker)
        while not all(part.has_ended for part in self._parts.values()):
            gevent.sleep(TURN_S)
            for worker, part in self._parts.items():
                if part.has_ended:
                    continue
                if self._is_lost(worker):
                    self._give_up(part, zero_s, "")
                elif part.is_torn:
                    self._give_up(part, zero_s, ": what it sent did not arrive whole")
                elif perf_counter() > self._latest_end_s(zero_s):
                    self._give_up(part, zero_s, f": it had not ended {self._grace_s:g} s after load and drain")

    def _ask_clocks(self) -> None:
        """Everybody at once, so that each round costs one answer's time."""
        for number in range(ROUNDS):
            self._round, self._asked_s = number, perf_counter()
            self._runner.send_message(Word.ASK, {"round": number})
            with gevent.Timeout(ROUND_S, False):
                while not all(len(part.clocks) > number or part.has_ended for part in self._parts.values()):
                    gevent.sleep(0.001)

    def _latest_end_s(self, began_s: float) -> float:
        """When a worker that has not ended is waited for no longer, of perf_counter."""
        load_ends_s = began_s + self._duration_s
        if self._stopped_s is not None:
            load_ends_s = min(load_ends_s, self._stopped_s)
        return load_ends_s + self._order.drain_s + self._grace_s

    def _is_lost(self, worker: str) -> bool:
        """Locust counts heartbeats down, one a second, and calls a worker missing below 0; it may only be slow."""
        client = self._runner.clients.get(worker)
        return client is None or (client.state == STATE_MISSING and client.heartbeat <= -MISSING_S)

    def _give_up(self, part: Part, began_s: float, more: str) -> None:
        """Its file stays without a footer."""
        self._end(part)
        self._settle(part, self._duration_s if self._stopped_s is None else self._stopped_s - began_s)
        self._why = self._why or f"{part} was lost{more}"
        for worker, other in self._parts.items():
            if other is part:  # it may be there still, and send
                self._runner.send_message(Word.STOP, {"why": f"{part} counts as lost{more}"}, worker)

    def _settle(self, part: Part, until_s: float) -> None:
        """What the worker owed is offered and unsent: the others went on."""
        place, until_s = Path(part.order.out), min(until_s, self._duration_s)
        try:
            settle_file(place, part.order, until_s=until_s, began_at=datetime.now(UTC), trace=self._trace)
        except OSError as error:
            self._cannot_keep(error)

    def _end(self, part: Part) -> None:
        try:
            part.end()
        except OSError as error:
            self._cannot_keep(error)

    def _cannot_keep(self, error: OSError) -> None:
        self._unkept = self._unkept or f"the records cannot be written: {error.strerror or error}"
        self.stop(self._unkept)

    # --- what workers say -----------------------------------------------------------------------------------

    def _take_ready(self, msg: Message, **_: object) -> None:
        part = self._parts.get(msg.node_id)
        if part is None:
            return
        part.host = str(msg.data["host"])
        if msg.data["error"] is not None:
            self._why = self._why or f"{part}: {msg.data['error']}"
        elif msg.data["version"] != __version__:
            self._why = self._why or f"{part} runs simsa {msg.data['version']}; expected {__version__}, as here"
        part.is_ready = True

    def _take_clock(self, msg: Message, **_: object) -> None:
        came_s, part = perf_counter(), self._parts.get(msg.node_id)
        if part is not None and msg.data["round"] == self._round:
            told = (msg.data["monotonic_s"], msg.data["wall_s"])
            part.clocks.append(Answered(self._asked_s, came_s, time(), *told))

    def _take_lines(self, msg: Message, **_: object) -> None:
        part = self._parts.get(msg.node_id)
        if part is None or part.has_ended:  # of one given up as lost, what it owed stands there already
            return
        try:
            is_next = part.take(msg.data)
        except OSError as error:
            self._cannot_keep(error)
            return
        if not is_next:
            part.is_torn = True  # who waits for the end gives it up

    def _take_end(self, msg: Message, **_: object) -> None:
        part = self._parts.get(msg.node_id)
        if part is None or part.has_ended:
            return
        if not part.has_all(msg.data["bytes"]):
            part.is_torn = True
            return
        self._end(part)
        if msg.data["stopped"] is None:
            return
        if self._stopped_s is None:
            self._settle(part, self._duration_s)
        self._why = self._why or f"{part} ended early: {msg.data['stopped']}"
