"""One call from the door to the record: pick a replica, send, try another before the first byte, meter, record once.

Who the client is and how bytes reach it is not known here: `relay` writes them to a socket, `comparison` reads them
itself. Both get the same record.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from gateway.admission import Place, Turn
from gateway.dispatch import CallContext, Dispatcher
from gateway.domain.breaker import Outcome
from gateway.domain.cost import call_cost
from gateway.domain.dialects import read_answer
from gateway.domain.meter import Meter
from gateway.domain.model_name import renaming
from gateway.domain.records import (
    Call,
    CallOpened,
    CallStatus,
    Cost,
    Model,
    Provenance,
    Timing,
    Usage,
)
from gateway.endpoints import Endpoint
from gateway.engine_answers import RETRY_AFTER_S, EngineFailure, message_in, read_failure
from gateway.errors import (
    InternalError,
    SimsaError,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from gateway.http_reply import Arrival, Reply
from gateway.request_body import RequestBody

CLIENT_GONE = 499
"""Recorded as the status of a call whose client left; nobody received it."""
_LINGER_S = 1.0
_SLOW_READER_S = 0.5
"""How much later than the engine's own total limit a call ends whose client does not read."""
_LONGEST_START = 256 * 1024
_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LOW_62 = (1 << 62) - 1
NO_USAGE = Usage()


def new_call_id() -> str:
    """A UUID of version 7: unique, and in order of time, so that the database appends. Not a secret."""
    noise = random.getrandbits(74)
    text = f"{time.time_ns() // 1_000_000:012x}{0x7000 | noise >> 62:04x}{0x8 << 60 | noise & _LOW_62:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class ActiveCall:
    """One call in flight. Order: `connect`, then `stream` or `whole`."""

    def __init__(
        self, dispatcher: Dispatcher, model: Model, endpoint: Endpoint, body: RequestBody, context: CallContext
    ) -> None:
        self._dispatcher = dispatcher
        self._model = model
        self._endpoint = endpoint
        self._body = body
        self._context = context
        self._turn = Turn(model.id, context.priority, context.organisation, context.session, context.home)
        self._place: Place | None = None
        """The last one that it was given, if any."""
        self._reply: Reply | None = None
        self._first_arrivals: list[Arrival] = []
        self._whole_answer: Arrival = (b"", 0.0)
        self._total_due = 0.0
        self._total_words = ""
        self._is_recorded = False
        self._owner: asyncio.Task[object] | None = None
        self._slow_reader_timer: asyncio.TimerHandle | None = None
        self._abort_error: SimsaError | None = None
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
            prompt_estimate=context.reservation.prompt_estimate if context.reservation is not None else None,
        )
        self.attempts = 0
        self._sent_s = 0.0
        self._failed_attempts_s = 0.0
        """Time that engines took which then did not answer: neither the gateway's nor the answering engine's."""
        self.overhead_s = 0.0
        self._was_held_back = False
        self.record: Call | None = None
        """The finished record, once there is one."""

    def _new_meter(self) -> Meter:
        return Meter(
            self._endpoint.dialect,
            choices=self._body.choices,
            withhold_usage=not self._body.wants_usage,
            renaming=self._renaming,
            on_reply_id=self._keep,
        )

    def _keep(self, reply_id: str) -> None:
        if self._context.keep is not None and self.replica_id is not None:
            self._context.keep(self.replica_id, reply_id)

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
        self._owner = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        dispatcher = self._dispatcher
        told = self._abort_error if isinstance(error, asyncio.CancelledError) and not self._is_recorded else None
        if self._slow_reader_timer is not None:
            self._slow_reader_timer.cancel()
        self._release()
        dispatcher.finished(self)
        dispatcher.telemetry.series_of(self._model.id).inflight.value -= 1
        if told is not None:
            assert self._owner is not None
            self._finish(CallStatus.ERROR, told.status, told)
            if self._owner.uncancel() > 0:  # the client left in the same moment: nobody is there to be told
                return False
            raise told from None
        if not self._is_recorded:
            self._finish_by_exception(error)
        return False

    @property
    def replica_id(self) -> str | None:
        return self._place.state.replica.id if self._place is not None else None

    @property
    def queue_s(self) -> float:
        """Seconds it waited for a place on a replica."""
        return self._turn.waited_s

    @property
    def token_events(self) -> int:
        """Events with tokens that have come so far; 0 for a whole answer."""
        return self._meter.token_events if self._meter is not None else 0

    @property
    def was_held_back(self) -> bool:
        """The engine had to wait for whoever reads, so the moments of its last tokens are the reader's."""
        return self._was_held_back or (self._reply is not None and self._reply.was_held_back)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Fields of the request that its API does not know and that were not sent."""
        return self._body.adaptation.told

    @property
    def provenance(self) -> Provenance:
        return self._place.state.provenance if self._place is not None else Provenance.UNKNOWN

    def abort(self, error: SimsaError) -> None:
        """End the call from outside, with an error for its client; too late when its record is written."""
        if self._owner is not None and self._abort_error is None and not self._is_recorded:
            self._abort_error = error
            self._owner.cancel()

    def _end_slow_reader(self) -> None:
        words = f"The answer was not read within {self._model.timeouts.total_s} s."
        self.abort(UpstreamTimeout(words, code="client_too_slow"))

    async def connect(self) -> None:
        """Reach an engine and wait for a whole answer, or for a stream's first event.

        So what fails by then has a status of its own, and another replica is tried where that may help.

        Raises NoReplica, UpstreamError, Unavailable or EngineRefused.
        """
        admission, turn = self._dispatcher.admission, self._turn
        failure: EngineFailure | None = None
        started = 0.0
        while True:
            waited_before_s = turn.waited_s
            try:
                place = admission.place_now(turn) or await admission.wait(turn)
            except SimsaError as refusal:
                raise (refusal if failure is None else failure.error) from None
            if failure is None:
                started = asyncio.get_running_loop().time()
            else:  # the limits are the engines': waiting for one takes nothing from them
                started += turn.waited_s - waited_before_s
            self._place = place
            failure = await self._attempt(place, started)
            if failure is None:
                return
            turn.tried.append(place.state)
            self._release(failure.outcome)
            if not failure.is_retriable or self.attempts >= self._dispatcher.settings.max_attempts:
                raise failure.error
            self._failed_attempts_s += self._dispatcher.now() - self._sent_s

    async def _attempt(self, place: Place, started: float) -> EngineFailure | None:
        """Ask one replica; None when it answers. Raises UpstreamError for what no other replica would mend."""
        self.attempts += 1
        try:
            reply = await self._send(place, started)
            if reply.status == 200 and self._body.stream:
                await self._await_stream(reply, place)
                return None
            answer, ended_s = await reply.read_all_timed(self._dispatcher.settings.max_answer_bytes)
        except (UpstreamUnreachable, UpstreamTruncated) as error:
            self._dispatcher.fleet.mark_down(place.state, error.message)
            return EngineFailure(error, is_retriable=True, outcome=Outcome.FAULT)
        except UpstreamError:
            # How long a whole answer is, and takes, is the request's doing as well.
            place.judge(Outcome.FAULT if self._body.stream else Outcome.NEUTRAL)
            raise
        if reply.status == 200:
            self._whole_answer = answer, ended_s
            return None
        failure = read_failure(reply.status, place.state.hide_key(answer), reply.header(b"retry-after"))
        if failure.pause_s is not None:
            place.pause(failure.pause_s)
        return failure

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes for the client as they come. A failure after the first byte arrives as a last error event."""
        reply, meter, place = self._reply, self._meter, self._place
        assert reply is not None
        assert meter is not None
        assert place is not None
        is_trial = place.is_trial
        came = self._first_arrivals
        timeouts = self._model.timeouts
        loop = asyncio.get_running_loop()
        total_due = self._total_due
        while True:
            if len(came) == 1:
                forward = meter.feed(*came[0])
            else:
                forward = b"".join([meter.feed(data, arrived_s) for data, arrived_s in came])
            if meter.is_done:
                self._was_held_back = reply.was_held_back
                reply.release_when_complete(_LINGER_S)
                self._reply = None
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
                if is_trial:
                    place.began()
                    is_trial = False
                due = loop.time() + timeouts.idle_s
                reply.expect(
                    min(due, total_due), f"idle for {timeouts.idle_s} s" if due < total_due else self._total_words
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
        body, ended_s = self._whole_answer
        answer = read_answer(self._endpoint.dialect, body, self._endpoint.decode)
        self._release(Outcome.GOOD if answer.failure is None else Outcome.FAULT)
        if answer.failure is not None:
            raise UpstreamError(answer.failure)
        if answer.reply_id is not None:
            self._keep(answer.reply_id)
        timing = Timing(queue_s=self.queue_s, e2e_s=ended_s - self._context.accepted_s, overhead_s=self.overhead_s)
        self._finish(CallStatus.OK, 200, None, usage=answer.usage, timing=timing, finish_reason=answer.finish_reason)
        return self._renaming.at(("model",), body) if self._renaming is not None else body

    # --- the way to an engine ---

    async def _send(self, place: Place, started: float) -> Reply:
        dispatcher, state = self._dispatcher, place.state
        timeouts = self._model.timeouts
        self._total_due = started + timeouts.total_s
        self._total_words = f"no end within {timeouts.total_s} s"
        due, words = self._total_due, self._total_words
        if self._body.stream and timeouts.first_token_s < timeouts.total_s:
            due, words = started + timeouts.first_token_s, f"no first token within {timeouts.first_token_s} s"
        if self._body.stream:
            self._watch_for_slow_reader(self._total_due + _SLOW_READER_S)
        self._sent_s = dispatcher.now()
        self.overhead_s = self._sent_s - self._context.accepted_s - self.queue_s - self._failed_attempts_s
        head = state.post_head(self._endpoint.path, below_base=self._endpoint.is_below_base)
        self._reply = reply = await dispatcher.upstream.open(
            state.origin,
            head=b"%bx-request-id: %b\r\n%b" % (head, self._context.request_id.encode(), self._context.headers),
            body=self._body.for_engine(self._model.serving.served_model_name),
            connect_s=timeouts.connect_s,
            due=due,
            due_what=words,
        )
        if reply.status == 200:  # else what it says of the replica must be known before the place is free
            if reply.is_complete:
                place.end()
            else:
                reply.when_over = place.end
        return reply

    def _watch_for_slow_reader(self, due: float) -> None:
        if self._slow_reader_timer is not None:
            self._slow_reader_timer.cancel()
        self._slow_reader_timer = asyncio.get_running_loop().call_at(due, self._end_slow_reader)

    async def _await_stream(self, reply: Reply, place: Place) -> None:
        """Wait for the stream to begin, unless its client is to get pings meanwhile."""
        kind = reply.header(b"content-type") or b""
        if not kind.startswith(b"text/event-stream"):
            body = await reply.read_all(self._dispatcher.settings.max_answer_bytes)
            what = f"The engine answered a streaming request with {kind.decode('latin-1') or 'no content type'}"
            raise UpstreamError(f"{what}: {message_in(place.state.hide_key(body))}", recorded=what)
        if self._dispatcher.settings.ping_interval_s:
            return
        came = await reply.arrivals()
        while not _hold_event(came):
            more = await reply.arrivals()
            if not more:
                raise UpstreamTruncated("The engine closed the stream before its first event.")
            came = [*came, *more]
        self._first_arrivals = came

    # --- the record ---

    def _truncated(self, message: str, *, told: bool = False, code: str = "upstream_truncated") -> bytes:
        """Record a failure after the first byte; return the error event for the client unless it was `told`."""
        error = UpstreamTruncated(f"The answer was cut: {message}.", code=code)
        self._release(Outcome.NEUTRAL if told else Outcome.FAULT)
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
        if self._place is not None:
            self._place.end()
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
        verdict, gpu_id = self._verdict()
        reservation = self._context.reservation
        charged = None
        if reservation is not None:
            charged = reservation.charge(status, usage, reached_engine=self.attempts > 0)
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
            cost=self._cost(usage),
            feasibility=verdict,
            feasibility_gpu=gpu_id,
            charged_tokens=charged,
        )
        self._dispatcher.limiter.settle(reservation, self.record)
        self._dispatcher.recorder.closed(self.record)
        self._dispatcher.telemetry.observe_call(self.record)

    def _cost(self, usage: Usage) -> Cost:
        place = self._place
        if place is None:
            return Cost(None, None, "unknown", "no engine was reached")
        replica = place.state.replica
        gpu = self._dispatcher.registry().gpus.get(replica.gpu or "")
        return call_cost(self._model, replica, gpu, usage, place.share_s)

    def _verdict(self) -> tuple[str | None, str | None]:
        if self._place is None:
            return None, None
        return self._dispatcher.verdicts.verdict(self._model, self._place.state.replica.gpu)

    def _release(self, outcome: Outcome = Outcome.NEUTRAL) -> None:
        """Let go of the engine: the connection is reused when the answer was whole, else closed, which frees it.

        `outcome` is what the call says of the replica, unless that was said before.
        """
        if self._reply is not None:
            self._was_held_back = self._reply.was_held_back
            self._reply.release()
            self._reply = None
        if self._place is not None:
            self._place.judge(outcome)
            self._place.end()


def _hold_event(came: list[Arrival]) -> bool:
    """Whether the bytes reach to the end of a first event (or are far more than one needs: the meter will say)."""
    start = came[0][0] if len(came) == 1 else b"".join([data for data, _ in came])
    return len(start) > _LONGEST_START or any(blank in start for blank in _BLANK_LINES)
