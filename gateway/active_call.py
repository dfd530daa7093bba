"""One call from the door to the record: what the engine says is metered and passed on, and recorded exactly once.

How it gets to an engine is `approach`'s part. Who the client is and how bytes reach it is not known here: `relay`
writes them to a socket, `comparison` reads them itself. Both get the same record.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from gateway.admission import Place
from gateway.approach import Approach
from gateway.dispatch import Abortable, CallContext, Dispatcher
from gateway.domain.breaker import Outcome
from gateway.domain.cost import call_cost
from gateway.domain.dialects import read_answer
from gateway.domain.meter import Meter
from gateway.domain.model_name import renaming
from gateway.domain.records import Call, CallOpened, CallStatus, Cost, Model, Provenance, Timing, Usage
from gateway.endpoints import Endpoint
from gateway.engine_answers import RETRY_AFTER_S
from gateway.errors import (
    InternalError,
    SimsaError,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
)
from gateway.limits import Reservation
from gateway.request_body import RequestBody
from gateway.trail import Trail

CLIENT_GONE = 499
"""Recorded as the status of a call whose client left; nobody received it."""
_LINGER_S = 1.0
_SLOW_READER_S = 0.5
"""How much later than the engine's own total limit a call ends whose client does not read."""
NO_USAGE = Usage()


def new_call_id() -> str:
    """A UUID of version 7: unique, and in order of time, so that the database appends. Not a secret."""
    noise = random.getrandbits(74)
    ms = time.time_ns() // 1_000_000
    return "%08x-%04x-%04x-%04x-%012x" % (  # noqa: UP031  half the time of an f-string
        ms >> 16,
        ms & 0xFFFF,
        0x7000 | noise >> 62,
        0x8000 | noise >> 48 & 0x3FFF,
        noise & 0xFFFF_FFFF_FFFF,
    )


class ActiveCall(Abortable):
    """One call in flight. Order: `connect`, then `stream` or `whole`."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        model: Model,
        endpoint: Endpoint,
        body: RequestBody,
        context: CallContext,
        reservation: Reservation | None = None,
    ) -> None:
        """`reservation`: what it holds of its key's limits."""
        super().__init__()
        self._dispatcher = dispatcher
        self._model = model
        self._endpoint = endpoint
        self._body = body
        self._context = context
        self._reservation = reservation
        self._approach = Approach(dispatcher, model, endpoint, body, context)
        self._is_recorded = False
        self._slow_reader_timer: asyncio.TimerHandle | None = None
        self._renaming = renaming(model.serving.served_model_name, model.id)
        self._meter = self._new_meter() if body.stream else None
        self.opened = CallOpened(
            id=new_call_id(),
            request_id=context.request_id,
            started_at=datetime.now(UTC),
            model=model.id,
            endpoint=endpoint.name,
            streamed=body.stream,
            comparison_id=context.comparison_id,
            run_id=context.run_id,
            client_retry=context.client_retry,
            organisation=context.organisation,
            key=context.key,
            prompt_estimate=reservation.prompt_estimate if reservation is not None else None,
        )
        self.record: Call | None = None
        """The finished record, once there is one."""

    def _new_meter(self) -> Meter:
        return Meter(
            self._endpoint.dialect,
            choices=self._body.choices,
            withhold_usage=not self._body.wants_usage,
            renaming=self._renaming,
        )

    def _keep(self, reply_id: str) -> None:
        place = self._approach.place
        if self._context.keep is not None and place is not None:
            self._context.keep(place.state.replica.address, reply_id)

    async def __aenter__(self) -> Self:
        dispatcher = self._dispatcher
        if not dispatcher.recorder.accepting:
            refusal = Unavailable(
                "The gateway cannot keep records at the moment and takes no new calls until it can.",
                code="recorder_unavailable",
                retry_after_s=RETRY_AFTER_S,
            )
            dispatcher.telemetry.observe_refusal(
                self._endpoint.name, refusal.status, refusal.code, self._context.request_id, self._model.id
            )
            raise refusal
        dispatcher.recorder.opened(self.opened)
        dispatcher.telemetry.series_of(self._model.id).inflight.value += 1
        dispatcher.in_flight.add(self)
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        dispatcher = self._dispatcher
        told = None if self._is_recorded else self._told(error)
        if self._slow_reader_timer is not None:
            self._slow_reader_timer.cancel()
        self._approach.release()
        dispatcher.finished(self)
        dispatcher.telemetry.series_of(self._model.id).inflight.value -= 1
        if told is not None:
            self._finish(CallStatus.ERROR, told.status, told)
            if not self._resumes():
                return False
            raise told from None
        if not self._is_recorded:
            self._finish_by_exception(error)
        return False

    @property
    def replica_id(self) -> str | None:
        place = self._approach.place
        return place.replica.id if place is not None else None

    @property
    def attempts(self) -> int:
        """Replicas that were asked."""
        return self._approach.attempts

    @property
    def queue_s(self) -> float:
        """Seconds it waited for a place on a replica."""
        return self._approach.queue_s

    @property
    def overhead_s(self) -> float:
        """Seconds that the gateway itself took before it asked the engine."""
        return self._approach.overhead_s

    @property
    def token_events(self) -> int:
        """Events with tokens that have come so far; 0 for a whole answer."""
        return self._meter.token_events if self._meter is not None else 0

    @property
    def was_held_back(self) -> bool:
        """The engine had to wait for whoever reads, so the moments of its last tokens are the reader's."""
        return self._approach.was_held_back

    @property
    def left_out(self) -> tuple[str, ...]:
        """Fields of the request that its API does not know and that were not sent."""
        return self._body.adaptation.told

    @property
    def provenance(self) -> Provenance:
        place = self._approach.place
        return place.state.provenance if place is not None else Provenance.UNKNOWN

    def abort(self, error: SimsaError) -> None:
        """End the call from outside, with an error for its client; too late when its record is written."""
        if not self._is_recorded:
            super().abort(error)

    def _end_slow_reader(self) -> None:
        words = f"The answer was not read within {self._model.timeouts.total_s} s."
        self.abort(UpstreamTimeout(words, code="client_too_slow"))

    async def connect(self) -> None:
        """Reach an engine; see `Approach.connect`."""
        await self._approach.connect(self._watch_for_slow_reader)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes for the client as they come. A failure after the first byte arrives as a last error event."""
        approach, meter = self._approach, self._meter
        reply, place = approach.reply, approach.place
        assert reply is not None
        assert meter is not None
        assert place is not None
        has_begun = is_kept = False
        came = approach.first_arrivals
        timeouts = self._model.timeouts
        loop = asyncio.get_running_loop()
        total_due = approach.total_due
        while True:
            if len(came) == 1:
                forward = meter.feed(*came[0])
            else:
                forward = b"".join([meter.feed(data, arrived_s) for data, arrived_s in came])
            if meter.reply_id is not None and not is_kept:
                self._keep(meter.reply_id)
                is_kept = True
            if meter.is_done:
                approach.linger(_LINGER_S)
                place.judge(Outcome.GOOD)
                self._finish(CallStatus.OK, 200, None)
                yield forward
                return
            if meter.failure is not None:
                cut = self._truncated(meter.failure.message, told=meter.failure.told)
                yield place.state.hide_key(forward) + cut
                return
            if forward:
                yield forward
            if meter.token_events:
                if not has_begun:
                    place.began()
                    has_begun = True
                due = loop.time() + timeouts.idle_s
                reply.expect(
                    min(due, total_due), f"idle for {timeouts.idle_s} s" if due < total_due else approach.total_words
                )
            try:
                came = await reply.arrivals()
            except UpstreamTimeout as error:
                place.judge(Outcome.NEUTRAL if meter.token_events else Outcome.FAULT)
                yield self._truncated(error.message, code="upstream_timeout")
                return
            except UpstreamError as error:
                yield self._truncated(error.message)
                return
            if not came:
                meter.end_of_stream()
                yield self._truncated("the engine closed the stream before its end")
                return

    def whole(self) -> bytes:
        """The whole answer's body for the client, whose engine is done. Raises UpstreamError."""
        body, ended_s = self._approach.whole_answer
        answer = read_answer(self._endpoint.dialect, body, self._endpoint.decode)
        self._approach.release(Outcome.GOOD if answer.failure is None else Outcome.FAULT)
        if answer.failure is not None:
            raise UpstreamError(answer.failure)
        if answer.reply_id is not None:
            self._keep(answer.reply_id)
        timing = Timing(queue_s=self.queue_s, e2e_s=ended_s - self._context.accepted_s, overhead_s=self.overhead_s)
        self._finish(CallStatus.OK, 200, None, usage=answer.usage, timing=timing, finish_reason=answer.finish_reason)
        return self._renaming.at(("model",), body) if self._renaming is not None else body

    def _watch_for_slow_reader(self, total_due: float) -> None:
        if self._slow_reader_timer is not None:
            self._slow_reader_timer.cancel()
        self._slow_reader_timer = asyncio.get_running_loop().call_at(total_due + _SLOW_READER_S, self._end_slow_reader)

    # --- the record ---

    def _truncated(self, message: str, *, told: bool = False, code: str = "upstream_truncated") -> bytes:
        """Record a failure after the first byte; return the error event for the client unless it was `told`."""
        error = UpstreamTruncated(f"The answer was cut: {message}.", code=code)
        self._approach.release(Outcome.NEUTRAL if told else Outcome.FAULT)
        self._finish(CallStatus.TRUNCATED, 200, error)
        return b"" if told else self.error_event(error)

    def error_event(self, error: SimsaError) -> bytes:
        """An error as the last event of the stream, in the route's dialect."""
        return self._endpoint.errors.event(error, self._meter.events if self._meter is not None else 0)

    def _finish_by_exception(self, error: BaseException | None) -> None:
        if isinstance(error, SimsaError):
            self._finish(CallStatus.ERROR, error.status, error)
        elif isinstance(error, Exception):
            self._dispatcher.log.error("call failed", call_id=self.opened.id, exc_info=error)
            self._finish(CallStatus.ERROR, 500, InternalError())
        else:  # cancelled, or the reader of the stream stopped reading
            self._finish(CallStatus.CANCELLED, CLIENT_GONE, None)

    def _finish(
        self,
        status: CallStatus,
        http_status: int,
        error: SimsaError | None,
        *,
        usage: Usage = NO_USAGE,
        timing: Timing | None = None,
        finish_reason: str | None = None,
    ) -> None:
        assert not self._is_recorded
        self._is_recorded = True
        place = self._approach.place
        if place is not None:
            place.end()
        if self._meter is not None:
            usage = self._meter.usage()
            finish_reason = self._meter.finish_reason
            timing = self._meter.timing(
                accepted_s=self._context.accepted_s,
                queue_s=self.queue_s,
                overhead_s=self.overhead_s,
                was_held_back=self.was_held_back,
            )
        elif timing is None:
            timing = Timing(queue_s=self.queue_s, overhead_s=self.overhead_s)
        verdict, gpu_id = self._verdict(place)
        cost = self._cost(place, usage)
        gpu, gpus = self._hardware(place)
        reservation = self._reservation
        charged, estimated_cost = None, None
        if reservation is not None:
            charged, estimated_cost = reservation.charge(status, usage, cost, reached_engine=self.attempts > 0)
        self.record = Call(
            opened=self.opened,
            ended_at=datetime.now(UTC),
            status=status,
            http_status=http_status,
            replica=self.replica_id,
            provenance=self.provenance,
            attempts=self.attempts,
            error_type=error.kind if error is not None else None,
            error_code=error.code if error is not None else None,
            error_message=error.recorded_message if error is not None else None,
            finish_reason=finish_reason,
            usage=usage,
            timing=timing,
            cost=cost,
            feasibility=verdict,
            feasibility_gpu=gpu_id,
            charged_tokens=charged,
            estimated_cost=estimated_cost,
            dispatched_at=place.began_at if place is not None else None,
            gpu=gpu,
            gpus=gpus,
        )
        self._dispatcher.limiter.settle(reservation, self.record)
        self._dispatcher.recorder.closed(self.record)
        self._dispatcher.telemetry.observe_call(self.record, self._context.priority)
        if self._context.trail is not None:
            self._note_trail(self._context.trail, self.record)

    def _note_trail(self, trail: Trail, record: Call) -> None:
        tracer = self._dispatcher.tracer
        assert tracer is not None
        tracer.note_call(trail, record, self._model, self._body, self._approach.waits)

    def _cost(self, place: Place | None, usage: Usage) -> Cost:
        if place is None:
            return Cost(None, None, "unknown", "no engine was reached")
        replica = place.replica
        gpu = self._dispatcher.registry().gpus.get(replica.gpu or "")
        on, tier = place.began_at.date(), self._dispatcher.settings.gpu_price_tier
        return call_cost(self._model, replica, gpu, usage, place.share_s, on=on, tier=tier)

    def _hardware(self, place: Place | None) -> tuple[str | None, int | None]:
        """What is paid for by the hour while the call is in flight; nothing where a hosted API answers."""
        if place is None or place.state.is_remote or place.replica.gpu is None:
            return None, None
        return place.replica.gpu, place.replica.gpus

    def _verdict(self, place: Place | None) -> tuple[str | None, str | None]:
        if place is None:
            return None, None
        return self._dispatcher.verdicts.verdict(self._model, place.replica.gpu)
