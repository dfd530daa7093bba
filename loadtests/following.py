"""The side of a worker on another host: it runs what the master orders, once, and sends back what it measures.

What goes between the two is told in `distributed`; starting such workers again and again is `hosts`' part.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, time
from typing import Any

import gevent  # type: ignore[import-untyped]
import msgspec
from gevent.event import AsyncResult  # type: ignore[import-untyped]
from locust import __version__ as locust_version
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc import Message
from locust.runners import WorkerRunner

from gateway import __version__
from loadtests.cell_order import CellOrder, HostClock, OrderRefused, header_of, read_order
from loadtests.cell_run import CellRun, Clocks
from loadtests.distributed import NOT_THIS_CELL, Missing, RunOver, Word
from loadtests.record_file import pieces_of
from loadtests.sending import Sending

LAST_WORD_S = 0.5
AGAIN_S = 2.0
"""How often a worker without an order says that it is there."""


class SentLines:
    """Lines that the master writes."""

    def __init__(self, runner: WorkerRunner) -> None:
        self._runner = runner
        self._digest = hashlib.sha256()
        self.sent_bytes = 0

    def append(self, lines: bytes) -> None:
        """Raises OSError where Locust's socket takes no more."""
        for piece in pieces_of(lines):
            self._digest.update(piece)
            data = {"at": self.sent_bytes, "lines": piece, "sha256": self._digest.hexdigest()}
            try:
                self._runner.send_message(Word.LINES, data)
            except RPCError as error:
                raise OSError(f"the master takes no more: {error}") from error
            self.sent_bytes += len(piece)

    def end(self) -> None:
        pass


class _Follower:
    """One worker of a master: what it hears, until its cell has ended."""

    def __init__(self, runner: WorkerRunner, key_variables: Collection[str]) -> None:
        self._runner = runner
        self._key_variables = key_variables
        self._trace: list[bytes] = []
        self._ordered, self._begun, self._stopped, self._over = (
            self._listen(kind) for kind in (Word.ORDER, Word.BEGIN, Word.STOP, Word.OVER)
        )
        runner.register_message(Word.TRACE, lambda msg, **_: self._trace.append(msg.data["lines"]))
        runner.register_message(Word.ASK, self._tell_clock)

    def run(self, environment: Environment, watch: Callable[[Sending], None], ready_s: float) -> str | None:
        runner = self._runner
        if not self._has_order(ready_s):
            return self._why_not(f"no order came within {ready_s:g} s")
        lines = SentLines(runner)
        with TemporaryDirectory() as folder:
            try:
                order = self._order(Path(folder))
                cell = CellRun(order, lines, environment)
            except OrderRefused as error:
                self._say(Word.READY, self._card(str(error)))
                raise
        watch(cell.sending)
        self._stopped.rawlink(lambda result: cell.sending.stop(result.value["why"]))
        for user in environment.user_classes:
            runner.spawn_users({user.__name__: cell.users})
        cell.prepare(runner, ready_s)
        runner.send_message(Word.READY, self._card(None))
        if not self._has_come(self._begun, ready_s):
            return self._why_not(f"no word to begin came within {ready_s:g} s")
        runner.stats.clear_all()
        begin = self._begun.value
        clock = HostClock(platform.node(), begin["wall_offset_s"], begin["within_s"])
        why = cell.run(begin["zero_s"], Clocks(), header_of(order, begin["began_at"], clock))
        self._say(Word.END, {"stopped": why, "bytes": lines.sent_bytes})
        runner.quit()
        return why

    def _order(self, folder: Path) -> CellOrder:
        """The order with its trace in a file of this host's. Raises OrderRefused."""
        order = read_order(self._ordered.value["order"])
        if order.key_variable is not None and order.key_variable not in self._key_variables:
            raise OrderRefused(
                f"key_variable: this host sends no key of {order.key_variable}; "
                f"`simsa loadtest worker --key-variable {order.key_variable}` allows it"
            )
        if order.trace_file is None:
            return order
        lines = b"".join(self._trace)
        if hashlib.sha256(lines).hexdigest() != self._ordered.value["trace_sha256"]:
            raise OrderRefused("trace_file: the trace did not arrive whole")
        place = folder / "trace.jsonl"
        place.write_bytes(lines)
        return msgspec.structs.replace(order, trace_file=str(place))

    def _card(self, error: str | None) -> dict[str, Any]:
        return {"error": error, "host": platform.node(), "version": __version__}

    def _tell_clock(self, msg: Message, **_: object) -> None:
        self._runner.send_message(
            Word.CLOCK, {"round": msg.data["round"], "monotonic_s": perf_counter(), "wall_s": time()}
        )

    def _has_order(self, within_s: float) -> bool:
        """As `_has_come`. Who leads a run listens anew for each cell, and knows nobody who connected before."""
        latest_s = perf_counter() + within_s
        while perf_counter() < latest_s:
            self._runner.send_message(Word.HERE)
            if self._has_come(self._ordered, AGAIN_S):
                return True
            if self._stopped.ready() or not len(self._runner.greenlet):
                return False
            again = Message("client_ready", locust_version, self._runner.client_id)  # type: ignore[no-untyped-call]
            self._runner.client.send(again)
        return False

    def _has_come(self, awaited: AsyncResult, within_s: float) -> bool:
        """False where the master ends the cell first, or says nothing. Raises RunOver."""
        gevent.wait([awaited, self._stopped, self._over], timeout=within_s, count=1)
        if self._over.ready():
            self._say(Word.HEARD, {})
            raise RunOver(self._over.value["why"])
        return bool(awaited.ready())

    def _why_not(self, silence: str) -> str:
        """Why nothing began. Raises Missing where nobody said anything."""
        if self._stopped.ready():
            return str(self._stopped.value["why"])
        if not len(self._runner.greenlet):  # Locust ends all of its own at its master's word
            return NOT_THIS_CELL
        raise Missing(silence)

    def _say(self, kind: str, data: dict[str, Any]) -> None:
        """The last word before this process ends: Locust's socket needs a moment to get it out."""
        self._runner.send_message(kind, data)
        gevent.sleep(LAST_WORD_S)

    def _listen(self, kind: str) -> AsyncResult:
        """What the first message of its kind says, once it has come."""
        result = AsyncResult()

        def take(msg: Message, **_: object) -> None:
            if not result.ready():
                result.set(msg.data)

        self._runner.register_message(kind, take)
        return result


def run_for_master(
    host: str, port: int, watch: Callable[[Sending], None], ready_s: float, *, key_variables: Collection[str]
) -> str | None:
    """Run what the master orders, once; why it ended early, where it did.

    `watch` is given what is to be stopped by signals. `key_variables`: of this host's environment, what an order may
    have sent as its key; no other secret leaves this host, whoever orders. Raises OrderRefused, RecordsNotKept, Missing
    where no master or no order comes, RunOver where the master has nothing more.
    """
    environment = Environment(user_classes=[])
    with gevent.Timeout(ready_s, Missing(f"no master answered at {host}:{port} within {ready_s:g} s")):
        runner = environment.create_worker_runner(host, port)
    return _Follower(runner, key_variables).run(environment, watch, ready_s)
