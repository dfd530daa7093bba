"""One call's way to an engine: its place, its attempts, until a whole answer or a stream's first event is there.

So what fails by then has a status of its own, and another replica is tried where that may help. What is made of the
answer, and the record of it, is `active_call`'s part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.admission import Place, Turn
from gateway.dispatch import CallContext, Dispatcher
from gateway.domain.breaker import Outcome
from gateway.domain.records import Model
from gateway.endpoints import Endpoint
from gateway.engine_answers import EngineFailure, message_in, read_failure
from gateway.errors import SimsaError, UpstreamError, UpstreamTruncated, UpstreamUnreachable
from gateway.http_reply import Arrival, Reply
from gateway.request_body import RequestBody

_LONGEST_START = 256 * 1024
_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")


class Approach:
    """Everything between a call and the engine that answers it. `release` it, whatever became of it."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        model: Model,
        endpoint: Endpoint,
        body: RequestBody,
        context: CallContext,
    ) -> None:
        self._dispatcher = dispatcher
        self._model = model
        self._endpoint = endpoint
        self._body = body
        self._context = context
        self._turn = Turn(model.id, context.priority, context.organisation, context.session, context.home)
        self.place: Place | None = None
        """The last one that it was given, if any."""
        self.reply: Reply | None = None
        """While the engine has more to say."""
        self.first_arrivals: list[Arrival] = []
        """The beginning of a stream, unless its client is to get pings while waiting for it."""
        self.whole_answer: Arrival = (b"", 0.0)
        """The body of a whole answer, and when its last byte came."""
        self.total_due = 0.0
        """When the answer must be over, on the loop's clock."""
        self.attempts = 0
        self.overhead_s = 0.0
        self._sent_s = 0.0
        self._failed_attempts_s = 0.0
        """Time that engines took which then did not answer: neither the gateway's nor the answering engine's."""
        self._was_held_back = False

    @property
    def queue_s(self) -> float:
        """Seconds it waited for a place on a replica."""
        return self._turn.waited_s

    @property
    def waits(self) -> tuple[tuple[float, float], ...]:
        """When it waited for a place: from, until."""
        return self._turn.waits

    @property
    def was_held_back(self) -> bool:
        """The engine had to wait for whoever reads, so the moments of its last tokens are the reader's."""
        return self._was_held_back or (self.reply is not None and self.reply.was_held_back)

    @property
    def total_words(self) -> str:
        """What is said where `total_due` passes."""
        return f"no end within {self._model.timeouts.total_s} s"

    async def connect(self, on_sent: Callable[[float], None]) -> None:
        """Reach an engine and wait for a whole answer, or for a stream's first event.

        `on_sent`: told, each time that a streaming request is sent, by when on the loop's clock it must be over. It is
        not kept: call and approach would then hold each other, and the memory of every call would wait for the
        collector.

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
            self.place = place
            failure = await self._attempt(place, started, on_sent)
            if failure is None:
                return
            turn.tried.append(place.state)
            self.release(failure.outcome)
            if self._context.trail is not None:
                self._context.trail.failed(failure.error, self._dispatcher.now())
            if not failure.is_retriable or self.attempts >= self._dispatcher.settings.max_attempts:
                raise failure.error
            self._failed_attempts_s += self._dispatcher.now() - self._sent_s

    def linger(self, within_s: float) -> None:
        """The answer is whole: keep the connection for another call if its last bytes come `within_s`."""
        if self.reply is not None:
            self._was_held_back = self.reply.was_held_back
            self.reply.release_when_complete(within_s)
            self.reply = None

    def release(self, outcome: Outcome = Outcome.NEUTRAL) -> None:
        """Let go of the engine: the connection is reused when the answer was whole, else closed, which frees it.

        `outcome` is what the call says of the replica, unless that was said before.
        """
        if self.reply is not None:
            self._was_held_back = self.reply.was_held_back
            self.reply.release()
            self.reply = None
        if self.place is not None:
            self.place.judge(outcome)
            self.place.end()

    async def _attempt(self, place: Place, started: float, on_sent: Callable[[float], None]) -> EngineFailure | None:
        """Ask one replica; None when it answers. Raises UpstreamError for what no other replica would mend."""
        self.attempts += 1
        try:
            reply = await self._send(place, started, on_sent)
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
            self.whole_answer = answer, ended_s
            return None
        failure = read_failure(reply.status, place.state.hide_key(answer), reply.header(b"retry-after"))
        if failure.pause_s is not None:
            place.pause(failure.pause_s)
        return failure

    async def _send(self, place: Place, started: float, on_sent: Callable[[float], None]) -> Reply:
        dispatcher, state = self._dispatcher, place.state
        timeouts = self._model.timeouts
        due = self.total_due = started + timeouts.total_s
        words = self.total_words
        if self._body.stream:
            if timeouts.first_token_s < timeouts.total_s:
                due, words = started + timeouts.first_token_s, f"no first token within {timeouts.first_token_s} s"
            on_sent(self.total_due)
        self._sent_s = dispatcher.now()
        self.overhead_s = self._sent_s - self._context.accepted_s - self.queue_s - self._failed_attempts_s
        head = state.post_head(self._endpoint.path, below_base=self._endpoint.is_below_base)
        trail, headers = self._context.trail, self._context.headers
        if trail is not None:
            headers += trail.asks(state, self._sent_s)
        self.reply = reply = await dispatcher.upstream.open(
            state.origin,
            head=b"%bx-request-id: %b\r\n%b" % (head, self._context.request_id.encode(), headers),
            body=self._body.for_engine(self._model.serving.served_model_name),
            connect_s=timeouts.connect_s,
            due=due,
            due_what=words,
        )
        if trail is not None:
            trail.answered(reply.status)
        if reply.status == 200:  # else what it says of the replica must be known before the place is free
            if reply.is_complete:
                place.end()
            else:
                reply.when_over = place.end
        return reply

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
        self.first_arrivals = came


def _hold_event(came: list[Arrival]) -> bool:
    """Whether the bytes reach to the end of a first event (or are far more than one needs: the meter will say)."""
    start = came[0][0] if len(came) == 1 else b"".join([data for data, _ in came])
    return len(start) > _LONGEST_START or any(blank in start for blank in _BLANK_LINES)
