"""Watches one streamed reply: when tokens came, how many, how it ended, and which bytes go on to the client.

The meter only looks: per token it searches the bytes, and it parses JSON only for the events that carry usage, an
ending or an error. What events mean is its dialect's knowledge; it never waits and never reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.domain.dialects import GIVEN_UP, NOTABLE, OUTPUT, REASONING, Dialect, Notice, json_object
from gateway.domain.model_name import Renaming
from gateway.domain.records import Timing, Usage
from gateway.domain.sse import Event, SseError, SseParser

_TOKENS = OUTPUT | REASONING


class FailureKind(StrEnum):
    MALFORMED = "malformed"
    """The stream is no stream of events, or an event is no JSON object."""
    CUT = "cut"
    """It broke off, or ended without its end."""
    REPORTED = "reported"
    """The engine sent an error event."""
    GIVEN_UP = "given_up"
    """The engine's finish reason says that it gave up."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a reply counts as failed although its status was 200."""

    message: str
    told: bool
    """True when the engine's own error event, whose words may quote the prompt, was forwarded to the client."""
    kind: FailureKind


class Meter:
    """Feed it the engine's bytes as they come; it returns what to forward. One meter a streamed reply.

    `choices`: how many answers must end. `withhold_usage`: drop the usage event, because only the gateway asked for
    it. `renaming`: where engine and gateway call the model differently.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        choices: int = 1,
        withhold_usage: bool = False,
        renaming: Renaming | None = None,
    ) -> None:
        self._dialect = dialect
        self._look = dialect.look
        self._done = dialect.done
        self._parser = SseParser()
        self._choices = choices
        self._withhold_usage = withhold_usage
        self._renaming = renaming
        self._finished: dict[int, str] = {}
        self._usage: Usage | None = None
        self._running_usage: Usage | None = None
        self._first_s: float | None = None
        self._first_output_s: float | None = None
        self._last_s: float | None = None
        self._first_tokens: tuple[int, str] | None = None
        self.events = 0
        """Events that have come, with tokens or without."""
        self.token_events = 0
        self.is_done = False
        self.failure: Failure | None = None
        self.reply_id: str | None = None
        """Under which name the engine may keep the reply, once an event has shown it."""

    def feed(self, chunk: bytes, now: float) -> bytes:
        """Take bytes that arrived at monotonic moment `now`; return the bytes to forward at once.

        After the call `is_done` or `failure` may be set; what the engine sends later is not forwarded.
        """
        if self.is_done or self.failure is not None:
            return b""
        try:
            events = self._parser.feed(chunk)
        except SseError as error:
            self.failure = Failure(f"the engine's stream is malformed: {error}", told=False, kind=FailureKind.MALFORMED)
            return b""
        if len(events) == 1:
            return self._take(events[0], now)
        forward: list[bytes] = []
        for event in events:
            forward.append(self._take(event, now))
            if self.is_done or self.failure is not None:
                break
        return b"".join(forward)

    def end_of_stream(self) -> None:
        """The engine closed the stream: without a terminator that is a failure."""
        if not self.is_done and self.failure is None:
            self.failure = Failure("the engine closed the stream before its end", told=False, kind=FailureKind.CUT)

    @property
    def finish_reason(self) -> str | None:
        """The first choice's reason (further choices of n > 1 must have one too, for success)."""
        return next(iter(self._finished.values()), None)

    def usage(self) -> Usage:
        """The engine's own counts where it gave them, else what was seen, marked as counted."""
        if self._usage is not None:
            return self._usage
        running = self._running_usage
        if running is None:
            return Usage(completion_tokens=self.token_events, source="counted") if self.token_events else Usage()
        seen = running.completion_tokens
        return replace(
            running, completion_tokens=(self.token_events or None) if seen is None else seen, source="counted"
        )

    def timing(self, *, accepted_s: float, queue_s: float, overhead_s: float, was_held_back: bool = False) -> Timing:
        """Spans since `accepted_s`, by the definitions of docs/measurement.md.

        Where the engine `was_held_back` by a client that did not read, what depends on its last token is unknown.
        """
        first, last = self._first_s, self._last_s
        if first is None or last is None:
            return Timing(queue_s=queue_s, overhead_s=overhead_s)
        tokens, source = self._first_tokens or (1, "assumed")
        total = self.usage().completion_tokens
        later = (total or 0) - tokens
        output = self._first_output_s
        return Timing(
            queue_s=queue_s,
            ttft_s=first - accepted_s,
            ttfot_s=output - accepted_s if output is not None else None,
            tpot_s=(last - first) / later if later >= 1 and not was_held_back else None,
            e2e_s=last - accepted_s if not was_held_back else None,
            overhead_s=overhead_s,
            token_events=self.token_events,
            first_event_tokens=tokens,
            first_event_source=source,
        )

    def _take(self, event: Event, now: float) -> bytes:
        data = event.data
        if data is None:
            return event.raw
        self.events += 1
        if data == self._done:
            return self._take_end(event.raw)
        seen = self._look(data)
        if seen & NOTABLE:
            return self._take_notable(event, data, seen, now)
        if seen:
            self._count_tokens(seen, data, now)
        if self._renaming is None or self._dialect.model_path is not None:
            return event.raw
        return self._renaming.first_field(event.raw)

    def _take_notable(self, event: Event, data: bytes, seen: int, now: float) -> bytes:
        """Read what a parsed event says of usage, endings and errors; return what of it goes on to the client."""
        body = json_object(data)
        if body is None:
            self.failure = Failure(
                "the engine sent an event that is no JSON object", told=False, kind=FailureKind.MALFORMED
            )
            return b""
        notice = self._dialect.read(body)
        self._note(notice)
        raw = self._renamed(event, data)
        if notice.failure is not None:
            self.failure = Failure(notice.failure, told=True, kind=FailureKind.REPORTED)
            return raw
        if notice.is_end:
            return self._take_end(raw)
        if notice.is_only_usage and self._withhold_usage:
            return b""
        seen |= notice.tokens
        if seen & _TOKENS:
            self._count_tokens(seen, data, now)
        return raw

    def _note(self, notice: Notice) -> None:
        if notice.finished:
            self._finished.update(notice.finished)
        if notice.reply_id is not None:
            self.reply_id = notice.reply_id
        if notice.usage is None:
            return
        if notice.is_final_usage:
            self._usage = _filled(notice.usage, self._running_usage)
        else:
            self._running_usage = notice.usage

    def _take_end(self, raw: bytes) -> bytes:
        if len(self._finished) < self._choices:
            self.failure = Failure(
                "the engine ended the stream without a finish_reason", told=False, kind=FailureKind.CUT
            )
            return b""
        aborted = [reason for reason in self._finished.values() if reason in GIVEN_UP]
        if aborted:
            self.failure = Failure(
                f"the engine gave up: finish_reason is '{aborted[0]}'", told=False, kind=FailureKind.GIVEN_UP
            )
            return b""
        self.is_done = True
        return raw

    def _renamed(self, event: Event, data: bytes) -> bytes:
        """The event's bytes with our name for the model."""
        if self._renaming is None:
            return event.raw
        path = self._dialect.model_path
        if path is None:
            return self._renaming.first_field(event.raw)
        renamed = self._renaming.at(path, data)
        if renamed == data:
            return event.raw
        if data in event.raw:
            return event.raw.replace(data, renamed, 1)
        lines = [b"event: " + event.name] if event.name else []  # the data stood in several lines
        return b"\n".join([*lines, *(b"data: " + line for line in renamed.split(b"\n")), b"", b""])

    def _count_tokens(self, seen: int, data: bytes, now: float) -> None:
        self.token_events += 1
        self._last_s = now
        if self._first_s is None:
            self._first_s = now
            self._first_tokens = self._dialect.first_tokens(json_object(data) or {})
        if seen & OUTPUT and self._first_output_s is None:
            self._first_output_s = now


def _filled(usage: Usage, earlier: Usage | None) -> Usage:
    """Final usage, with what only an earlier event told."""
    if earlier is None:
        return usage
    return Usage(
        usage.prompt_tokens if usage.prompt_tokens is not None else earlier.prompt_tokens,
        usage.completion_tokens if usage.completion_tokens is not None else earlier.completion_tokens,
        usage.cached_tokens if usage.cached_tokens is not None else earlier.cached_tokens,
        usage.reasoning_tokens if usage.reasoning_tokens is not None else earlier.reasoning_tokens,
        source=usage.source,
    )
