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

import msgspec

from gateway.dispatch import CallContext, Dispatcher, Endpoint
from gateway.domain.cost import call_cost
from gateway.domain.meter import Meter, read_answer, rename_model
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
from gateway.domain.routing import pick_replica
from gateway.engine_answers import RETRY_AFTER_S, EngineFailure, EngineRefused, message_in, read_failure
from gateway.errors import (
    InternalError,
    ModelNotFound,
    NoReplica,
    SimsaError,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from gateway.fleet import Presence, ReplicaState
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
        self._presence: Presence | None = None
        self._state: ReplicaState | None = None
        self._reply: Reply | None = None
        self._first_arrivals: list[Arrival] = []
        self._whole_answer: Arrival = (b"", 0.0)
        self._total_due = 0.0
        self._total_words = ""
        self._is_recorded = False
        self._owner: asyncio.Task[object] | None = None
        self._slow_reader_timer: asyncio.TimerHandle | None = None
        self._abort_error: SimsaError | None = None
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
        )
        self.attempts = 0
        self._sent_s = 0.0
        self._failed_attempts_s = 0.0
        """Time that engines took which then did not answer: neither the gateway's nor the answering engine's."""
        self.overhead_s = 0.0
        self.queue_s = 0.0
        self._was_held_back = False
        self.record: Call | None = None
        """The finished record, once there is one."""

    def _new_meter(self) -> Meter:
        return Meter(
            self._endpoint.dialect,
            choices=self._body.choices,
            withhold_usage=not self._body.wants_usage,
            rename=(self._model.serving.served_model_name, self._model.id),
        )

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
        if self._body.stream:
            self._slow_reader_timer = asyncio.get_running_loop().call_later(
                self._model.timeouts.total_s + _SLOW_READER_S, self._end_slow_reader
            )
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
        return self._state.replica.id if self._state is not None else None

    @property
    def token_events(self) -> int:
        """Events with tokens that have come so far; 0 for a whole answer."""
        return self._meter.token_events if self._meter is not None else 0

    @property
    def was_held_back(self) -> bool:
        """The engine had to wait for whoever reads, so the moments of its last tokens are the reader's."""
        return self._was_held_back or (self._reply is not None and self._reply.was_held_back)

    @property
    def provenance(self) -> Provenance:
        return self._state.provenance if self._state is not None else Provenance.UNKNOWN

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
        tried: list[ReplicaState] = []
        started = asyncio.get_running_loop().time()
        while True:
            state = self._pick(tried)
            tried.append(state)
            self.attempts += 1
            is_last = self.attempts >= self._dispatcher.settings.max_attempts or not self._untried(tried)
            try:
                failure = await self._attempt(state, started)
            except (UpstreamUnreachable, UpstreamTruncated) as error:
                self._dispatcher.fleet.mark_down(state, error.message)
                failure = EngineFailure(error, is_retriable=True)
            if failure is None:
                return
            self._release()
            if is_last or not failure.is_retriable:
                raise failure.error
            self._failed_attempts_s += self._dispatcher.now() - self._sent_s

    async def _attempt(self, state: ReplicaState, started: float) -> EngineFailure | None:
        """Ask one replica; None when it answers. Raises UpstreamError."""
        reply = await self._send(state, started)
        if reply.status != 200:
            answer = await reply.read_all(self._dispatcher.settings.max_answer_bytes)
            return read_failure(reply.status, answer, reply.header(b"retry-after"))
        if self._body.stream:
            await self._await_stream(reply)
        else:
            self._whole_answer = await reply.read_all_timed(self._dispatcher.settings.max_answer_bytes)
        return None

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes for the client as they come. A failure after the first byte arrives as a last error event."""
        reply, meter = self._reply, self._meter
        assert reply is not None
        assert meter is not None
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
                self._finish(CallStatus.OK, 200, None)
                yield forward
                return
            if meter.failure is not None:
                yield forward + self._truncated(meter.failure.message, told=meter.failure.told)
                return
            if forward:
                yield forward
            if meter.token_events:
                due = loop.time() + timeouts.idle_s
                reply.expect(
                    min(due, total_due), f"idle for {timeouts.idle_s} s" if due < total_due else self._total_words
                )
            try:
                came = await reply.arrivals()
            except UpstreamTimeout as error:
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
        answer = read_answer(body, msgspec.json.decode)
        if not answer.is_object:
            raise UpstreamError("The engine answered with something that is no JSON object.")
        if answer.finish_reason is None or answer.finish_reason in ("abort", "error"):
            raise UpstreamError(f"The engine gave no finished answer (finish_reason {answer.finish_reason}).")
        self._release()
        timing = Timing(queue_s=self.queue_s, e2e_s=ended_s - self._context.accepted_s, overhead_s=self.overhead_s)
        self._finish(CallStatus.OK, 200, None, usage=answer.usage, timing=timing, finish_reason=answer.finish_reason)
        serving = self._model.serving
        if serving.served_model_name != self._model.id:
            return rename_model(body, (serving.served_model_name, self._model.id))
        return body

    # --- the way to an engine ---

    def _untried(self, tried: list[ReplicaState]) -> list[ReplicaState]:
        return [state for state in self._dispatcher.fleet.live(self._model.id) if state not in tried]

    def _pick(self, tried: list[ReplicaState]) -> ReplicaState:
        candidates = self._untried(tried)
        if not candidates:
            states = self._dispatcher.fleet.states_of(self._model.id)
            if not states:
                raise ModelNotFound(
                    f"The model '{self._model.id}' cannot be called: the key of its API is not in the environment.",
                    param="model",
                )
            reasons = "; ".join(f"{s.replica.id}: {s.reason}" for s in states if s.reason)
            self._dispatcher.log.warning("no replica", model=self._model.id, reasons=reasons)
            raise NoReplica(
                f"No live replica serves '{self._model.id}' at the moment; GET /api/models says why.",
                param="model",
                retry_after_s=RETRY_AFTER_S,
            )
        now = self._dispatcher.now()
        draws = (random.random(), random.random())  # noqa: S311  load balancing, not secrecy
        return candidates[pick_replica([state.load(now) for state in candidates], draws)]

    async def _send(self, state: ReplicaState, started: float) -> Reply:
        dispatcher = self._dispatcher
        timeouts = self._model.timeouts
        self._total_due = started + timeouts.total_s
        self._total_words = f"no end within {timeouts.total_s} s"
        due, words = self._total_due, self._total_words
        if self._body.stream and timeouts.first_token_s < timeouts.total_s:
            due, words = started + timeouts.first_token_s, f"no first token within {timeouts.first_token_s} s"
        self._state = state
        self._sent_s = dispatcher.now()
        self._presence = presence = Presence(state, dispatcher.now)
        self.overhead_s = self._sent_s - self._context.accepted_s - self.queue_s - self._failed_attempts_s
        self._reply = reply = await dispatcher.upstream.open(
            state.origin,
            head=b"%bx-request-id: %b\r\n" % (state.post_head(self._endpoint.path), self._context.request_id.encode()),
            body=self._body.for_engine(self._model.serving.served_model_name),
            connect_s=timeouts.connect_s,
            due=due,
            due_what=words,
        )
        if reply.is_complete:
            presence.end()
        else:
            reply.when_over = presence.end
        return reply

    async def _await_stream(self, reply: Reply) -> None:
        """Wait for the stream to begin, unless its client is to get pings meanwhile."""
        kind = reply.header(b"content-type") or b""
        if not kind.startswith(b"text/event-stream"):
            body = await reply.read_all(self._dispatcher.settings.max_answer_bytes)
            what = f"The engine answered a streaming request with {kind.decode('latin-1') or 'no content type'}"
            raise UpstreamError(f"{what}: {message_in(body)}", recorded=what)
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
        self._release()
        self._finish(CallStatus.TRUNCATED, 200, error)
        return b"" if told else error_event(error)

    def _finish_by_exception(self, error: BaseException | None) -> None:
        if isinstance(error, SimsaError):
            status = error.engine_status if isinstance(error, EngineRefused) else error.status
            self._finish(CallStatus.ERROR, status, error)
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
        if self._presence is not None:
            self._presence.end()
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
        )
        self._dispatcher.recorder.closed(self.record)
        self._dispatcher.telemetry.observe_call(self.record)

    def _cost(self, usage: Usage) -> Cost:
        state = self._state
        if state is None or self._presence is None:
            return Cost(None, None, "unknown", "no engine was reached")
        gpu = self._dispatcher.registry().gpus.get(state.replica.gpu or "")
        return call_cost(self._model, state.replica, gpu, usage, self._presence.share_s)

    def _verdict(self) -> tuple[str | None, str | None]:
        if self._state is None:
            return None, None
        return self._dispatcher.verdicts.verdict(self._model, self._state.replica.gpu)

    def _release(self) -> None:
        """Let go of the engine: the connection is reused when the answer was whole, else closed, which frees it."""
        if self._reply is not None:
            self._was_held_back = self._reply.was_held_back
            self._reply.release()
            self._reply = None
        if self._presence is not None:
            self._presence.end()


def _hold_event(came: list[Arrival]) -> bool:
    """Whether the bytes reach to the end of a first event (or are far more than one needs: the meter will say)."""
    start = came[0][0] if len(came) == 1 else b"".join([data for data, _ in came])
    return len(start) > _LONGEST_START or any(blank in start for blank in _BLANK_LINES)


def error_event(error: SimsaError) -> bytes:
    """An error as the last event of a stream."""
    return b"data: " + msgspec.json.encode(error.envelope()) + b"\n\n"
