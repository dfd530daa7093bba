"""A cell while it runs: what was due, what is under way, what became of it. Nothing that was due is left out.

Who asks when is `users`' part; from the order to the exit code, `worker`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter

import gevent  # type: ignore[import-untyped]
import msgspec
from gevent.event import Event  # type: ignore[import-untyped]
from gevent.pool import Group  # type: ignore[import-untyped]

from loadtests.answers import DIALECTS, Answer, Due, StreamedAnswer, unsent
from loadtests.arrivals import TracePoint
from loadtests.asks import AskLike, Conversation, SingleTurn, WorkSource
from loadtests.cell_order import PATHS, CellOrder, headers_of
from loadtests.comparison_answers import ComparisonAnswer
from loadtests.plan import Route
from loadtests.record_file import RecordFile
from loadtests.records import Outcome, RequestRecord
from loadtests.streams import Abandoned, Client, Door

LATEST_S = 1.0
"""What could not be sent so soon after it was due is not sent any more: it would be another load than the plan's."""
STREAMED = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": False}}
LOG = logging.getLogger("simsa.loadtests")
Told = Callable[[RequestRecord], None]


class Sending:
    """One cell: begun once, stopped once. One a process."""

    def __init__(self, order: CellOrder, source: WorkSource, file: RecordFile, *, key: str | None, told: Told) -> None:
        """`told` is given every record when it is made. Raises OrderRefused."""
        self.order = order
        self._source = source
        self._file = file
        self._told = told
        self._zero_s = perf_counter()
        self._door = Door(order.address)
        self._client = Client(
            self._door,
            PATHS[order.route],
            headers_of(order, key),
            timeout_s=order.timeout_s,
            now_s=self.now_s,
        )
        self._under_way: dict[gevent.Greenlet, Due] = {}
        self._greenlets = Group()
        self.begun = Event()
        """Second 0 has a place on the clock."""
        self.stopping = Event()
        """Nothing more is sent."""
        self.finished = Event()
        """All that was due of an open loop was sent or left unsent."""
        self.stopped: str | None = None
        """Why it ended early."""

    def now_s(self) -> float:
        """Seconds since second 0; below 0 before it."""
        return perf_counter() - self._zero_s

    def look_up(self) -> None:
        """Find the target's addresses, which the first request would have to wait for."""
        with suppress(OSError):
            self._door.look_up()

    def begin(self, zero_s: float) -> None:
        """Second 0 is at this moment of perf_counter, which may still be to come."""
        self._zero_s = zero_s
        self.begun.set()

    def stop(self, why: str | None) -> None:
        """Send nothing more; `why` where that is early. The first reason stays."""
        if not self.stopping.is_set():
            self.stopped = why
            self.stopping.set()

    def wait_until(self, at_s: float) -> bool:
        """Sleep up to a moment; False where the cell is stopped before. Others get a turn in any case."""
        while (left := at_s - self.now_s()) > 0:  # gevent's timers count from the loop's last turn and may be early
            if self.stopping.wait(left):
                return False
        gevent.sleep(0)
        return not self.stopping.is_set()

    def conversation(self, like: TracePoint | None = None) -> Conversation:
        """What is asked next; a question that stands alone has the lengths of what it is to be `like`."""
        if self.order.is_multi_turn:
            return self._source.conversation()
        if like is None:
            return SingleTurn(self._source)
        return SingleTurn(self._source, input_tokens=like.input_tokens, output_tokens=like.output_tokens)

    def body_of(self, ask: AskLike) -> bytes:
        """What goes over the wire."""
        order = self.order
        if order.route is Route.COMPARISON:
            return msgspec.json.encode({**ask.body, "models": order.models, "stream": True})
        return msgspec.json.encode({**ask.body, "model": order.model, **STREAMED})

    def send(self, due: Due, body: bytes, ended: Callable[[list[RequestRecord], Answer], None]) -> gevent.Greenlet:
        """Send it in a greenlet of its own; `ended` is called in it when the records are kept."""
        greenlet = self._greenlets.spawn(self._ask, due, body, ended)
        self._under_way[greenlet] = due
        return greenlet

    def leave_unsent(self, due: Due, why: str) -> None:
        self._keep(unsent(due, why, self.order.models))

    def abandon(self, why: str) -> None:
        """Give up what is under way."""
        self._greenlets.kill(Abandoned(why), block=False)

    def drain(self, until_s: float) -> None:
        """Wait for what is under way, up to a moment; what is then still there is abandoned."""
        self._greenlets.join(timeout=max(0.0, until_s - self.now_s()))
        words = self.stopped or f"still running {self.order.drain_s:g} s after the load's end"
        self._greenlets.kill(Abandoned(words))
        for due in list(self._under_way.values()):  # given up before its first step
            self.leave_unsent(due, "the client had not begun to send it when the cell ended")
        self._under_way.clear()
        self._door.close()

    def _ask(self, due: Due, body: bytes, ended: Callable[[list[RequestRecord], Answer], None]) -> None:
        try:
            answer = self._answer()
            exchange = self._client.ask(body, answer)
            records = answer.records(due, exchange)
            self._under_way.pop(gevent.getcurrent(), None)
            self._keep(records)
            ended(records, answer)
        except Exception as defect:
            LOG.exception("a request could not be measured")
            self.fail(defect)

    def fail(self, defect: Exception) -> None:
        """The client's own defect ends the cell: what it measures is not to be believed."""
        self.stop(f"the client failed: {type(defect).__name__}: {defect}")

    def _answer(self) -> Answer:
        order = self.order
        if order.route is Route.COMPARISON:
            return ComparisonAnswer(order.models)
        return StreamedAnswer(DIALECTS[order.route], keeps_text=order.is_multi_turn)

    def _keep(self, records: list[RequestRecord]) -> None:
        self._file.add(records)
        for record in records:
            self._told(record)


def has_failed(records: list[RequestRecord]) -> bool:
    return any(record.outcome is not Outcome.OK for record in records)
