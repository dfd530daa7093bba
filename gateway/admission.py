"""Which call gets a place on which replica, and who waits meanwhile: caps, the queue, sessions, breakers at work.

A `Place` is one call's right to one replica; it is taken at once where there is room, else waited for in line. Who is
next is `domain.queueing`'s question, when a failing replica is left alone `domain.breaker`'s. The fleet's looks at the
engines do not come by here. What a call does with its place is not known here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil, inf

import structlog

from gateway.domain.breaker import CLOSED, Admits, Breaker, BreakerRule, Outcome
from gateway.domain.dialects.responses import PREVIOUS
from gateway.domain.queueing import RANKS, Bound, LineFull, WaitingLine
from gateway.domain.records import EngineAddress, Priority
from gateway.domain.routing import pick_for_session, pick_replica
from gateway.engine_answers import LONGEST_RETRY_AFTER_S, RETRY_AFTER_S
from gateway.errors import ModelNotFound, NoReplica, ResponseNotFound, SimsaError, Unavailable
from gateway.fleet import Fleet
from gateway.replica_state import ReplicaState
from gateway.settings import Settings
from gateway.telemetry import Telemetry

HOME_GONE = "The engine that kept the response is no longer there, and no other has it."


class Turn:
    """One call's claim to a place, from its arrival to its last attempt."""

    __slots__ = (
        "granted",
        "home",
        "model_id",
        "organisation",
        "priority",
        "rank",
        "session",
        "tried",
        "waited_s",
        "waits",
    )

    def __init__(
        self,
        model_id: str,
        priority: Priority = Priority.INTERACTIVE,
        organisation: str | None = None,
        session: str | None = None,
        home: EngineAddress | None = None,
    ) -> None:
        self.model_id = model_id
        self.priority = priority
        self.rank = RANKS[priority]
        self.organisation = organisation or ""
        self.session = session
        self.home = home
        """The only engine that can answer it, because it keeps what the call continues; None: all can."""
        self.tried: list[ReplicaState] = []
        """Replicas that failed it: it gets none of them again."""
        self.waited_s = 0.0
        """Seconds in line so far, all its waits together."""
        self.waits: tuple[tuple[float, float], ...] = ()
        """Each wait of them: from when, until when."""
        self.granted: asyncio.Future[Place] | None = None
        """While it waits: where its place or its refusal will be."""

    @property
    def bound(self) -> Bound:
        """Which replicas can be of use to it, for `WaitingLine`; None: all."""
        return (self.home, frozenset(self.tried)) if self.home is not None or self.tried else None


class Place:
    """One call's place on a replica: counted from `__init__` until `end`. `end` and `judge` may be called again."""

    __slots__ = ("_admission", "_is_judged", "_is_over", "_mark", "_trial", "began_at", "replica", "share_s", "state")

    def __init__(self, admission: Admission, state: ReplicaState) -> None:
        self.state = state
        self.replica = state.replica
        """What the registry said of it when the call was sent: that is recorded and paid."""
        self.share_s = 0.0
        """Seconds of the replica's busy time that fall to the call; known after `end`."""
        self._admission = admission
        self._is_over = self._is_judged = False
        self._mark = state.shared_time.enter(admission.now())
        self.began_at = datetime.now(UTC)
        self._trial: float | None = None
        if state.breaker is not CLOSED:
            self._trial = state.breaker.trial
            state.breaker = state.breaker.taken(admission.now())

    def end(self) -> None:
        """The engine is done with the call: the place is free for another."""
        if not self._is_over:
            self._is_over = True
            self.share_s = self.state.shared_time.leave(self._admission.now(), self._mark)
            self._admission.serve(self.state.model.id)

    def began(self) -> None:
        """The engine has given the call its first token."""
        self.state.is_proven = True
        if self._trial is not None:
            self._admission.set_breaker(self.state, self.state.breaker.began(self._trial, self._admission.rule))

    def judge(self, outcome: Outcome) -> None:
        """What the call says of the replica; what comes first counts."""
        if self._is_judged:
            return
        self._is_judged = True
        admission, state = self._admission, self.state
        if outcome is Outcome.GOOD:
            state.is_proven = True
        if outcome is Outcome.FAULT or state.breaker is not CLOSED:
            after = state.breaker.judged(outcome, self._trial, admission.now(), admission.rule)
            admission.set_breaker(state, after)

    def pause(self, pause_s: float) -> None:
        """The engine asked to be left alone for so long."""
        state = self.state
        state.breaker = state.breaker.paused(self._admission.now() + pause_s)


class _Queue:
    """The line for one model, while anybody stands in it."""

    __slots__ = ("alarm", "line")

    def __init__(self, limit: int) -> None:
        self.line: WaitingLine[Turn] = WaitingLine(limit)
        self.alarm: asyncio.TimerHandle | None = None
        """Rings when a replica may be used again that must not be now."""


class Admission:
    """Hands out the places of all replicas. One per gateway."""

    def __init__(self, *, settings: Settings, fleet: Fleet, telemetry: Telemetry, now: Callable[[], float]) -> None:
        self.now = now
        self._settings = settings
        self.rule = BreakerRule(settings.breaker_faults, settings.breaker_rest_s)
        self._fleet = fleet
        self._telemetry = telemetry
        self._queues: dict[str, _Queue] = {}
        """By model; only where somebody waits."""
        self._log = structlog.get_logger("simsa.admission")
        fleet.on_news = self._take_news

    # --- for calls ---

    def place_now(self, turn: Turn) -> Place | None:
        """A place at once; None where the call has to `wait`.

        Raises NoReplica where waiting would be in vain, ModelNotFound where the model has no replica at all.
        """
        self.serve(turn.model_id)  # what has become free without a word is theirs who wait
        state = self._find(turn)
        if state is not None:
            return Place(self, state)
        if not self._hopes(turn):
            raise self._no_replica(turn)
        return None

    def check_hope(self, model_id: str) -> None:
        """Raise what a call would meet now: NoReplica where no replica is known to be up, Unavailable for a pause."""
        turn = Turn(model_id, Priority.BATCH)
        if not any(state.is_up for state in self._hopes(turn)):
            raise self._no_replica(turn)
        if (pause_s := self._pause_ahead(turn, self.now())) > 0:
            raise _wants_a_pause(model_id, pause_s)

    async def wait(self, turn: Turn) -> Place:
        """A place, in turn. A call that had one before (`tried`) stands before all others of its class.

        Raises NoReplica when the last replica goes, Unavailable when the queue is full or the wait too long. A call
        that is cancelled meanwhile, because its client left, leaves the line and gives back what it was just given.
        """
        began_s = self.now()
        left_s = self._settings.queue_wait_s - turn.waited_s
        pause_s = self._pause_ahead(turn, began_s)
        if pause_s > left_s:
            raise _wants_a_pause(turn.model_id, pause_s)
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[Place] = loop.create_future()
        turn.granted = granted
        queue = self._join(turn)
        depth = self._telemetry.queue_depth.at(turn.model_id, turn.priority.value)
        depth.value += 1
        timer = loop.call_later(left_s, self._refuse_late, turn)
        try:
            self.serve(turn.model_id)
            return await granted
        except asyncio.CancelledError:
            _give_back(granted)
            raise
        finally:
            timer.cancel()
            depth.value -= 1
            ended_s = self.now()
            turn.waited_s += ended_s - began_s
            turn.waits += ((began_s, ended_s),)
            turn.granted = None
            self._leave(queue, turn)

    # --- for places ---

    def serve(self, model_id: str) -> None:
        """Give what is free to those who wait, in their order. Cheap where nobody does."""
        queue = self._queues.get(model_id)
        if queue is None:
            return

        def has_room(priority: Priority) -> bool:
            return self._find(Turn(model_id, priority)) is not None

        while (turn := queue.line.take_next(has_room, lambda turn: self._find(turn) is not None)) is not None:
            state = self._find(turn)
            if state is not None and turn.granted is not None and not turn.granted.done():
                turn.granted.set_result(Place(self, state))
        self._set_alarm(model_id, queue)

    def set_breaker(self, state: ReplicaState, after: Breaker) -> None:
        """Take over what a call says of its replica, and tell those who wait."""
        before = state.breaker
        if after is before:
            return
        self._fleet.set_breaker(state, after)
        log = self._log.bind(model=state.model.id, replica=state.replica.id)
        if after.trips > before.trips:
            log.warning("replica left alone", faults=after.faults, rest_s=round(after.until_s - self.now(), 3))
            self._refuse_hopeless(state.model.id)
        elif before.is_open and not after.is_open:
            log.info("replica used again")
        self.serve(state.model.id)

    # --- choosing ---

    def _find(self, turn: Turn) -> ReplicaState | None:
        """The replica that the call may have now."""
        rank, tried, home = turn.rank, turn.tried, turn.home
        free = [
            state
            for state in self._fleet.states_of(turn.model_id)
            if state.is_up
            and state.shared_time.in_flight < state.places[rank]
            and (state.breaker is CLOSED or state.breaker.admits(self.now()) is Admits.NOW)
            and state not in tried
            and (home is None or state.replica.address == home)
        ]
        if len(free) < 2:
            return free[0] if free else None
        if turn.session is not None:
            return free[pick_for_session(turn.session, [(s.replica.url, s.replica.weight) for s in free])]
        now = self.now()
        draws = (random.random(), random.random())  # noqa: S311  load balancing, not secrecy
        return free[pick_replica([state.load(now) for state in free], draws)]

    def _hopes(self, turn: Turn) -> list[ReplicaState]:
        """Replicas that the call may get, now or later."""
        now = self.now()
        return [
            state
            for state in self._fleet.states_of(turn.model_id)
            if (state.is_up or state.is_in_doubt)
            and state not in turn.tried
            and state.breaker.admits(now) is not Admits.NOT
            and (turn.home is None or state.replica.address == turn.home)
        ]

    def _pause_ahead(self, turn: Turn, now: float) -> float:
        """Seconds until the first replica can be had as far as the engines themselves have said; 0 where none has."""
        return max(0.0, min((state.breaker.until_s - now for state in self._hopes(turn)), default=0.0))

    def _no_replica(self, turn: Turn) -> SimsaError:
        states = self._fleet.states_of(turn.model_id)
        if not states and not self._fleet.may_find(turn.model_id):
            why = self._fleet.why_none(turn.model_id)
            return ModelNotFound(f"The model '{turn.model_id}' cannot be called: {why}.", param="model")
        what, param = f"No live replica serves '{turn.model_id}' at the moment", "model"
        if turn.home is not None:
            states = [state for state in states if state.replica.address == turn.home]
            if not states:
                return ResponseNotFound(HOME_GONE, param=PREVIOUS)
            what, param = "The engine that keeps the response to continue cannot be asked at the moment", PREVIOUS
        now = self.now()
        left_alone_s = min((s.breaker.until_s - now for s in states if s.is_up and s.breaker.is_open), default=0.0)
        if not turn.tried:
            reasons = "; ".join(f"{s.replica.id}: {s.reason or 'left alone after faults'}" for s in states)
            self._log.warning("no replica", model=turn.model_id, reasons=reasons)
        return NoReplica(
            f"{what}; GET /api/models says why.",
            param=param,
            retry_after_s=min(LONGEST_RETRY_AFTER_S, max(RETRY_AFTER_S, ceil(left_alone_s))),
        )

    # --- the line ---

    def _join(self, turn: Turn) -> _Queue:
        queue = self._queues.get(turn.model_id)
        if queue is None:
            queue = self._queues[turn.model_id] = _Queue(self._settings.queue_max_waiting)
        try:
            displaced = queue.line.join(
                turn, turn.priority, turn.organisation, bound=turn.bound, has_had_turn=bool(turn.tried)
            )
        except LineFull:
            raise self._queue_full(turn, "As many calls as may wait already do") from None
        if displaced is not None:
            _refuse(displaced, self._queue_full(displaced, "Calls that go first took the last places in the queue"))
        return queue

    def _leave(self, queue: _Queue, turn: Turn) -> None:
        queue.line.leave(turn)
        if not queue.line and self._queues.get(turn.model_id) is queue:
            del self._queues[turn.model_id]
            if queue.alarm is not None:
                queue.alarm.cancel()

    def _queue_full(self, turn: Turn, why: str) -> Unavailable:
        return Unavailable(
            f"{why} for '{turn.model_id}' in class {turn.priority.value}: try again later.",
            code="queue_full",
            retry_after_s=min(LONGEST_RETRY_AFTER_S, max(RETRY_AFTER_S, ceil(self._settings.queue_wait_s / 2))),
        )

    def _refuse_late(self, turn: Turn) -> None:
        waited = f"No place was free within {self._settings.queue_wait_s:g} s (SIMSA_QUEUE_WAIT_S)"
        _refuse(turn, self._queue_full(turn, waited) if self._hopes(turn) else self._no_replica(turn))

    def _take_news(self, model_id: str) -> None:
        """Replicas have come, gone or changed."""
        if model_id in self._queues:
            self.serve(model_id)
            self._refuse_hopeless(model_id)

    def _refuse_hopeless(self, model_id: str) -> None:
        """Nobody waits in vain. That one call could not reach a replica is only a doubt: a look decides."""
        queue = self._queues.get(model_id)
        for turns in queue.line.by_bound().values() if queue is not None else ():
            if not self._hopes(turns[0]):
                for turn in turns:
                    _refuse(turn, self._no_replica(turn))

    def _set_alarm(self, model_id: str, queue: _Queue) -> None:
        """Serve again at the moment at which the next replica may be used that must not be now."""
        if queue.alarm is not None:
            queue.alarm.cancel()
            queue.alarm = None
        now = self.now()
        moments = [s.breaker.admits_from_s for s in self._fleet.states_of(model_id) if s.is_up]
        moments = [moment for moment in moments if moment > now]
        if queue.line and (soonest := min(moments, default=inf)) < inf:
            loop = asyncio.get_running_loop()
            queue.alarm = loop.call_later(soonest - now, self.serve, model_id)


def _refuse(turn: Turn, error: SimsaError) -> None:
    if turn.granted is not None and not turn.granted.done():
        turn.granted.set_exception(error)


def _give_back(granted: asyncio.Future[Place]) -> None:
    """Its call was cancelled in the moment in which it was served or refused."""
    if granted.done() and not granted.cancelled() and granted.exception() is None:
        place = granted.result()
        place.judge(Outcome.NEUTRAL)
        place.end()


def _wants_a_pause(model_id: str, pause_s: float) -> Unavailable:
    return Unavailable(
        f"Every engine of '{model_id}' asked for a pause of {ceil(pause_s)} s or more.",
        code="upstream_busy",
        retry_after_s=min(LONGEST_RETRY_AFTER_S, ceil(pause_s)),
    )
