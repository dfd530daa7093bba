"""Locust's users: the one who sends an open loop's requests when they are due, and those who wait for their answers.

They are plain `User`s: `FastHttpUser`'s client reports a stream as a success at its headers, `streams` reads to the
end, and one event is fired then. Locust starts and counts the users and shows them on its page; which of them does
what is told by the cell, so a user too many, started on that page, finds nothing to do.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from time import time
from typing import NamedTuple

from gevent import GreenletExit  # type: ignore[import-untyped]
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from loadtests.answers import Answer, Due
from loadtests.arrivals import Share, Span, TracePoint, moments, share, think_times, user_spans
from loadtests.asks import AskLike, Conversation
from loadtests.cell_order import CellOrder
from loadtests.plan import Closed, Open
from loadtests.records import Outcome, RequestRecord
from loadtests.sending import LATEST_S, Sending, has_failed

LOG = logging.getLogger("simsa.loadtests")
PAUSE_S = 1.0
"""How long a user of a closed loop waits after a request that failed, at the least: who is refused at once and asks
again at once is no user but a flood."""


class CellUser(User):
    """Does one part of the cell, then ends."""

    abstract = True
    parts: Iterator[Callable[[], None]]
    """Of the whole cell, each taken once."""
    sending: Sending

    @task
    def do_part(self) -> None:
        part = next(self.parts, None)
        if part is not None:
            self.sending.begun.wait()
            try:
                part()
            except GreenletExit:
                self.sending.stop("Locust ended a user of the cell")
                raise
            except Exception as defect:
                LOG.exception("a user ended")
                self.sending.fail(defect)
        raise StopUser


def user_class(sending: Sending, parts: list[Callable[[], None]]) -> type[CellUser]:
    """The class of users that do the parts, one each."""
    return type(
        "LoadUser",
        (CellUser,),
        {"abstract": False, "sending": sending, "parts": iter(parts), "host": sending.order.address},
    )


def fire(environment: Environment, order: CellOrder, record: RequestRecord) -> None:
    """Locust's own event of a request, at its end: its page shows no success that was none."""
    began_s, ended_s = record.sent_s, record.ended_s
    took_s = ended_s - began_s if began_s is not None and ended_s is not None else 0.0
    is_ok = record.outcome is Outcome.OK
    environment.events.request.fire(  # type: ignore[no-untyped-call]
        request_type="POST",
        name=order.cell if record.side is None else f"{order.cell} {record.side}",
        response_time=took_s * 1000,
        response_length=record.characters or 0,
        response=None,
        context={},
        exception=None if is_ok else RuntimeError(f"{record.outcome} {record.status or ''}"),  # few: it counts by words
        start_time=time() - took_s,
        url=order.address,
    )


# --- open loop ----------------------------------------------------------------------------------------------


class Turn(NamedTuple):
    """What may be asked next, ready to be sent."""

    conversation: Conversation
    ask: AskLike
    body: bytes


class OpenLoop:
    """Sends each request when it is due and waits for no answer.

    Where work is conversations, what is due is the next turn of the one that has waited longest since its last answer,
    or else the first turn of a new one: the moments stay those of the load.
    """

    def __init__(self, sending: Sending, share: Share, trace: Sequence[TracePoint]) -> None:
        """`trace`: what the whole schedule's requests are to be like, where it is that of a trace."""
        self._sending = sending
        self._share = share
        self._trace = trace
        self._answered: deque[Turn] = deque()
        self._new: Turn | None = None

    def __call__(self) -> None:
        sending = self._sending
        for n, at_s in zip(self._share.numbers.tolist(), self._share.moments.tolist(), strict=True):
            self._new = self._new or begin_conversation(sending, self._trace[n] if self._trace else None)
            if not sending.wait_until(at_s) and at_s > sending.now_s():
                break  # stopped before it was due
            turn = self._take()
            due = Due(n=n, worker=sending.order.worker, scheduled_s=at_s, ask=turn.ask)
            late_s = sending.now_s() - at_s
            if sending.stopping.is_set():
                sending.leave_unsent(due, sending.stopped or "the cell was stopped")
            elif late_s > LATEST_S:
                sending.leave_unsent(due, f"the client was {late_s:.1f} s late")
            else:
                sending.send(due, turn.body, partial(self._go_on, turn.conversation))
        sending.finished.set()

    def _take(self) -> Turn:
        turn = self._answered.popleft() if self._answered else None
        if turn is None:
            turn, self._new = self._new, None
        assert turn is not None
        return turn

    def _go_on(self, conversation: Conversation, records: list[RequestRecord], answer: Answer) -> None:
        """A failed turn ends its conversation: what would follow rests on an answer that nobody has."""
        if has_failed(records):
            return
        ask = conversation.next(answer.text)
        if ask is not None:
            self._answered.append(Turn(conversation, ask, self._sending.body_of(ask)))


def begin_conversation(sending: Sending, like: TracePoint | None = None) -> Turn:
    conversation = sending.conversation(like)
    ask = conversation.first()
    return Turn(conversation, ask, sending.body_of(ask))


# --- closed loop --------------------------------------------------------------------------------------------


class ClosedUser:
    """Asks, waits for the answer, thinks, asks again, as long as it is there."""

    def __init__(self, sending: Sending, load: Closed, user: int, spans: list[Span], numbers: Iterator[int]) -> None:
        """`numbers`: those of the worker's requests, shared by its users."""
        self._sending = sending
        self._user = user
        self._spans = spans
        self._numbers = numbers
        self._think_times = think_times(load, sending.order.seed, user)

    def __call__(self) -> None:
        for span in self._spans:
            self._stay(span)

    def _stay(self, span: Span) -> None:
        """Users who think do so before their first question too: they do not all ask at second 0."""
        turn: Turn | None = None
        ready_s = span.begin_s + next(self._think_times)
        while ready_s < span.end_s:
            turn = turn or begin_conversation(self._sending)
            if not self._sending.wait_until(ready_s):
                return
            records, answer = self._ask(turn, ready_s)
            if answer is None:
                return
            ended_s = max(record.ended_s or ready_s for record in records)
            failed = has_failed(records)
            ready_s = ended_s + max(next(self._think_times), PAUSE_S if failed else 0.0)
            turn = None if failed else self._next_turn(turn.conversation, answer)

    def _ask(self, turn: Turn, ready_s: float) -> tuple[list[RequestRecord], Answer | None]:
        """The records and the answer; no answer where the cell ended first."""
        order = self._sending.order
        due = Due(n=next(self._numbers), worker=order.worker, scheduled_s=ready_s, ask=turn.ask, user=self._user)
        came: list[tuple[list[RequestRecord], Answer]] = []
        self._sending.send(due, turn.body, lambda records, answer: came.append((records, answer))).join()
        return came[0] if came else ([], None)

    def _next_turn(self, conversation: Conversation, answer: Answer) -> Turn | None:
        ask = conversation.next(answer.text)
        return None if ask is None else Turn(conversation, ask, self._sending.body_of(ask))


# --- both ---------------------------------------------------------------------------------------------------


def parts_of(sending: Sending, trace: Sequence[TracePoint]) -> list[Callable[[], None]]:
    """What this worker's users do, one each."""
    order, load = sending.order, sending.order.load
    if isinstance(load, Open):
        whole = moments(load, order.seed, trace)
        return [OpenLoop(sending, share(whole, order.worker, order.workers), trace)]
    sending.finished.set()  # its users end by themselves
    numbers = count()
    return [
        ClosedUser(sending, load, user, spans, numbers)
        for user, spans in enumerate(user_spans(load))
        if user % order.workers == order.worker
    ]
