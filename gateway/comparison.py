"""One question to several models: every side an ordinary call, their answers merged into one stream of events.

A side that fails ends with its own error and the others go on; whoever reads the events ends all sides by leaving.
How the result looks stands in `comparison_object`, whether its timings may be compared in `domain.comparability`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import combinations
from typing import Any, NamedTuple

import msgspec
import structlog

from gateway.access import permit_model, permit_route
from gateway.active_call import ActiveCall
from gateway.answer_text import AnswerText
from gateway.asgi import RawHeaders
from gateway.comparison_object import asked_side, comparison_object, side_object, skipped_side
from gateway.dispatch import CallContext, Dispatcher
from gateway.domain.accounts import Caller
from gateway.domain.comparability import Finished, judge_timing, summarise
from gateway.domain.otlp import Attributes
from gateway.domain.records import CallStatus, Cost, Model, Priority, Provenance, Timing, Usage
from gateway.endpoints import CHAT_COMPLETIONS
from gateway.errors import QuotaExhausted, RateLimited, SimsaError, Unavailable, UpstreamTimeout
from gateway.evidence import common_provenance, hardware_of, side_feasibility
from gateway.model_lookup import find_model
from gateway.replica_state import ReplicaState
from gateway.request_adapter import adapt
from gateway.request_body import RequestBody, read_request
from gateway.settings import Settings
from gateway.store import Comparison, RowRefused, Side, Store
from gateway.trail import Trail

SIDE_STARTED = "side.started"
SIDE_DELTA = "side.delta"
SIDE_FINISHED = "side.finished"
COMPARISON_FINISHED = "comparison.finished"
EVENTS_AHEAD = 1024
ROUTE = "comparisons"
"""What a key's scope of routes calls comparisons."""


class Schedule(StrEnum):
    CONCURRENT = "concurrent"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of whom and how. `params` go to every engine as they are."""

    models: Sequence[str]
    messages: Sequence[dict[str, Any]]
    params: dict[str, Any]
    schedule: Schedule | None = None
    """None: sequential where sides share hardware, else concurrent."""


Keep = Callable[[Comparison], Awaitable[None]]
"""Stores a comparison. May raise Unavailable or RowRefused, which the comparison then says."""


class ComparisonEvent(NamedTuple):
    name: str
    data: dict[str, Any]


class Comparisons:
    """Runs comparisons and keeps them. One per gateway."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        store: Store,
        settings: Settings,
        now: Callable[[], float],
        events_ahead: int = EVENTS_AHEAD,
    ) -> None:
        """`events_ahead`: how many events may wait for the reader before the answers wait for it too."""
        self.dispatcher = dispatcher
        self.store = store
        self.settings = settings
        self.now = now
        self.events_ahead = events_ahead
        self.log = structlog.get_logger("simsa.comparison")

    async def run(
        self,
        question: Question,
        request_id: str,
        caller: Caller,
        priority: Priority | None = None,
        keep: Keep | None = None,
        *,
        run_id: str | None = None,
        headers: RawHeaders | None = None,
    ) -> AsyncGenerator[ComparisonEvent, None]:
        """The events of one comparison, the last one with the whole object, stored by then (or saying why not).

        Nothing is asked before the first event is; closing the generator cancels every side. Raises at once, before
        any engine is asked: ModelNotFound for a model that does not exist or cannot be called, PermissionDenied for
        one that `caller` may not call, InvalidRequest for a parameter that one of them cannot honour. Each side counts
        against the caller's limits; one over them fails alone, but RateLimited or QuotaExhausted is raised where that
        would be each of them. `priority`: the class of the sides where it is not the caller's own. `keep`: stores the
        comparison where more is to be stored with it; it is not called for one of which no side could be asked.
        `run_id`: the load run that its calls belong to. `headers`: those of the request that asked for it, if any,
        which may say what trace it goes on with.
        """
        sides = self._sides(question, caller)
        await self._refuse_where_none_may_be_asked(sides, caller)
        schedule = question.schedule or self._schedule_for([side.model for side in sides])
        keep = keep or self.store.save_comparison
        asked_as = _AskedAs(request_id, caller, priority or caller.priority, run_id, self._trail(headers))
        return _Run(self, question, schedule, sides, asked_as, keep).events()

    def check(self, question: Question, caller: Caller) -> None:
        """Raise what `run` would raise at once, and ask nobody."""
        self._sides(question, caller)

    async def check_now(self, question: Question, caller: Caller) -> None:
        """Raise what keeps the sides from being asked, all of them, at this moment; ask nobody and hold nothing.

        Beside what `check` raises: Unavailable where no call may begin or an engine wants to be left alone, NoReplica,
        and RateLimited or QuotaExhausted where the caller's limits do not take all sides together.
        """
        sides, dispatcher = self._sides(question, caller), self.dispatcher
        if not dispatcher.recorder.accepting:
            raise Unavailable("The gateway cannot keep records at the moment.", code="recorder_unavailable")
        for side in sides:
            dispatcher.admission.check_hope(side.model.id)
        schedule = question.schedule or self._schedule_for([side.model for side in sides])
        asked = [(side.model, side.body) for side in sides]
        at_once = len(sides) if schedule is Schedule.CONCURRENT else 1
        await dispatcher.limiter.check_together(caller, CHAT_COMPLETIONS, asked, at_once=at_once)

    def _trail(self, headers: RawHeaders | None) -> Trail | None:
        tracer = self.dispatcher.tracer
        if tracer is None:
            return None
        return tracer.begin(self.now()) if headers is None else tracer.follow(headers, self.now())

    def _sides(self, question: Question, caller: Caller) -> list[_Side]:
        permit_route(caller, ROUTE)
        registry = self.dispatcher.registry()
        models = [find_model(registry, self.dispatcher.fleet, caller, model_id) for model_id in question.models]
        for model in models:
            permit_model(caller, model)
        media = self.settings.allow_remote_media
        return [_Side(position, model, _body(model, question, media)) for position, model in enumerate(models)]

    async def _refuse_where_none_may_be_asked(self, sides: Sequence[_Side], caller: Caller) -> None:
        """Raise the first side's refusal when the caller's limits let none of them be asked now."""
        refusals: list[SimsaError] = []
        for side in sides:
            try:
                await self.dispatcher.limiter.check(caller, side.model, CHAT_COMPLETIONS, side.body)
            except (RateLimited, QuotaExhausted) as refusal:
                refusals.append(refusal)
            else:
                return
        raise refusals[0]

    def _schedule_for(self, models: Sequence[Model]) -> Schedule:
        hosts = [{hardware_of(state) for state in self.dispatcher.fleet.states_of(model.id)} for model in models]
        shares = any(one & other for one, other in combinations(hosts, 2))
        return Schedule.SEQUENTIAL if shares else Schedule.CONCURRENT


class _Side:
    """One model's part while the comparison runs."""

    def __init__(self, position: int, model: Model, body: RequestBody) -> None:
        self.position = position
        self.model = model
        self.body = body
        self.answer: AnswerText | None = None
        """None until it is asked."""
        self.call: ActiveCall | None = None
        self.state: ReplicaState | None = None
        """The replica that answered."""
        self.error: SimsaError | None = None
        self.started_s = self.ended_s = 0.0
        self.result: Side | None = None
        """What became of it, once it is over."""

    def finished(self) -> Finished:
        record = self.call.record if self.call is not None else None
        if record is None:
            unknown = Cost(None, None, "unknown")
            return Finished(self.model.id, False, Provenance.UNKNOWN, Usage(), Timing(), unknown)
        return Finished(
            model=self.model.id,
            is_ok=record.status is CallStatus.OK and self.error is None,
            provenance=record.provenance,
            usage=record.usage,
            timing=record.timing,
            cost=record.cost,
            host=hardware_of(self.state) if self.state is not None else None,
            span_s=(self.started_s, self.ended_s),
            attempts=record.attempts,
            was_held_back=self.call is not None and self.call.was_held_back,
        )


class _AskedAs(NamedTuple):
    """Whose a comparison's calls are, and where they belong."""

    request_id: str
    caller: Caller
    priority: Priority
    run_id: str | None
    trail: Trail | None
    """Where calls are traced."""


class _Run:
    """One comparison under way: a task a side (or one after the other), one bounded channel, one reader."""

    def __init__(
        self,
        owner: Comparisons,
        question: Question,
        schedule: Schedule,
        sides: Sequence[_Side],
        asked_as: _AskedAs,
        keep: Keep,
    ) -> None:
        self._owner = owner
        self._keep_it = keep
        self._asked_as = asked_as
        self._question = question
        self._schedule = schedule
        self._sides = sides
        self._id = str(uuid.uuid4())
        self._created_at = datetime.now(UTC)
        self._channel: asyncio.Queue[ComparisonEvent | None] = asyncio.Queue(owner.events_ahead)
        self._stopped: str | None = None
        """Why no further side is asked."""

    async def events(self) -> AsyncGenerator[ComparisonEvent, None]:
        with self._owner.dispatcher.held():  # between two sides no call is in flight
            async with aclosing(self._merged()) as events:
                async for event in events:
                    yield event

    async def _merged(self) -> AsyncGenerator[ComparisonEvent, None]:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._owner.settings.comparison_timeout_s, self._time_is_over)
        asking = asyncio.create_task(self._ask_all(), name=f"comparison {self._id}")
        asking.add_done_callback(self._wake_reader)
        try:
            while not (asking.done() and self._channel.empty()):
                event = await self._channel.get()
                if event is not None:
                    yield event
            asking.result()
            yield ComparisonEvent(COMPARISON_FINISHED, await self._keep())
        finally:
            timer.cancel()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            self._note_end()

    def _note_end(self) -> None:
        trail, tracer = self._asked_as.trail, self._owner.dispatcher.tracer
        if trail is None or tracer is None:
            return
        finished = [side.finished() for side in self._sides]
        is_over = all(side.result is not None for side in self._sides)
        attributes: Attributes = {
            "simsa.comparison_id": self._id,
            "simsa.request_id": self._asked_as.request_id,
            "simsa.organisation": self._asked_as.caller.organisation,
            "simsa.run_id": self._asked_as.run_id,
            "simsa.schedule": self._schedule.value,
            "simsa.status": "ok" if is_over else "cancelled",
            "simsa.sides": len(self._sides),
            "simsa.sides_ok": sum(side.is_ok for side in finished),
            "simsa.timing_comparable": judge_timing(finished).comparable if is_over else None,
        }
        tracer.note_comparison(trail, attributes, is_error=is_over and not any(side.is_ok for side in finished))

    def _wake_reader(self, _asking: asyncio.Task[None]) -> None:
        if self._channel.empty():
            self._channel.put_nowait(None)

    async def _ask_all(self) -> None:
        if self._schedule is Schedule.SEQUENTIAL:
            for side in self._sides:
                await self._ask(side)
            return
        async with asyncio.TaskGroup() as group:
            for side in self._sides:
                group.create_task(self._ask(side))

    async def _ask(self, side: _Side) -> None:
        """Ask one side; whatever happens to it, it ends with one `side.finished`."""
        if self._stopped is None:
            states = self._owner.dispatcher.fleet.live(side.model.id)
            provenance = common_provenance(states).value if states else None
            await self._emit(side, SIDE_STARTED, {"model": side.model.id, "provenance": provenance})
        if self._stopped is None:  # the reader may have taken its time
            await self._try(side)
        side.result = self._result(side)
        await self._emit(side, SIDE_FINISHED, side_object(side.result))

    async def _try(self, side: _Side) -> None:
        try:
            await self._converse(side)
        except SimsaError as error:
            side.error = error
        except Exception as error:  # one side's defect must not end the others
            self._owner.log.exception("a side failed", comparison_id=self._id, model=side.model.id, exc_info=error)
            side.error = SimsaError("The gateway failed on this side.", code="internal_error")
        if isinstance(side.error, Unavailable) and side.error.code == "draining":
            self._stopped = "the gateway is shutting down"

    async def _converse(self, side: _Side) -> None:
        """The call itself. Its record is complete when this returns or raises."""
        owner = self._owner
        side.started_s = owner.now()
        side.answer = AnswerText(owner.settings.max_answer_bytes)
        limiter, caller = owner.dispatcher.limiter, self._asked_as.caller
        reservation = await limiter.reserve(caller, side.model, CHAT_COMPLETIONS, side.body)
        context = CallContext(
            f"{self._asked_as.request_id}-{side.position}",
            accepted_s=side.started_s,
            comparison_id=self._id,
            priority=self._asked_as.priority,
            run_id=self._asked_as.run_id,
            organisation=caller.organisation,
            key=caller.key,
            trail=self._asked_as.trail.child(side.started_s) if self._asked_as.trail is not None else None,
        )
        try:
            side.call = call = ActiveCall(
                owner.dispatcher, side.model, CHAT_COMPLETIONS, side.body, context, reservation
            )
            async with call:
                await call.connect()
                states = owner.dispatcher.fleet.states_of(side.model.id)
                side.state = next((state for state in states if state.replica.id == call.replica_id), None)
                async with aclosing(call.stream()) as chunks:
                    async for chunk in chunks:
                        if delta := side.answer.feed(chunk):
                            await self._emit(side, SIDE_DELTA, delta)
        finally:
            limiter.settle(reservation, side.call.record if side.call is not None else None)
            side.ended_s = owner.now()

    def _time_is_over(self) -> None:
        """Calls in flight end with an error of their own, the sides after them are skipped."""
        self._stopped = f"the comparison's {self._owner.settings.comparison_timeout_s:g} s were over"
        error = UpstreamTimeout(f"The answer was cut: {self._stopped}.", code="comparison_timeout")
        for side in self._sides:
            if side.call is not None and side.call.record is None:
                side.call.abort(error)

    def _result(self, side: _Side) -> Side:
        owner = self._owner
        calls = owner.dispatcher
        feasibility = side_feasibility(side.model, calls.registry(), owner.settings, side.state, calls.calibration)
        if side.answer is None:
            return skipped_side(self._stopped or "", model=side.model.id, feasibility=feasibility)
        return asked_side(
            side.call.record if side.call is not None else None,
            side.error,
            model=side.model.id,
            output=side.answer.output(),
            feasibility=feasibility,
            dropped=[name for name in side.body.adaptation.told if name in self._question.params],
        )

    async def _emit(self, side: _Side, name: str, data: dict[str, Any]) -> None:
        await self._channel.put(ComparisonEvent(name, {"side": side.position, **data}))

    async def _keep(self) -> dict[str, Any]:
        """Store the comparison; the whole object, which says so or why it could not be kept."""
        finished = [side.finished() for side in self._sides]
        is_refused = all(isinstance(side.error, RateLimited | QuotaExhausted) for side in self._sides)
        timing = judge_timing(finished)
        comparison = Comparison(
            id=self._id,
            created_at=self._created_at,
            schedule=self._schedule.value,
            params=self._question.params,
            messages=list(self._question.messages),
            sides=tuple(side.result for side in self._sides if side.result is not None),
            timing_comparable=timing.comparable,
            timing_reason=timing.reason,
            summary=summarise(finished, timing),
            organisation=self._asked_as.caller.organisation,
        )
        if is_refused:  # what others of the key took in the meantime; a question that nobody was asked is not kept
            return comparison_object(comparison, unstored_reason="no side could be asked within the key's limits")
        try:
            await self._keep_it(comparison)
        except (Unavailable, RowRefused) as error:
            self._owner.log.error("a comparison could not be stored", comparison_id=self._id, why=str(error))
            told = error.told if isinstance(error, SimsaError) else str(error)
            return comparison_object(comparison, unstored_reason=told)
        return comparison_object(comparison)


def _body(model: Model, question: Question, allow_remote_media: bool) -> RequestBody:
    """The OpenAI request for one side."""
    fields = {
        "model": model.id,
        "messages": question.messages,
        **question.params,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return adapt(read_request(msgspec.json.encode(fields), allow_remote_media=allow_remote_media), model)
