"""What became of a streamed comparison: one record a side, from the gateway's own events. Sans-I/O.

All sides were sent with one request, so each counts from there. How the gateway asks them stands in its `comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.domain.records import Usage
from gateway.domain.sse import Event, SseError, SseParser
from gateway.errors import UpstreamTruncated
from loadtests.answers import NOT_READ, Due, End, Exchange, Heard, record_of, well_ended
from loadtests.heard_text import Delta
from loadtests.records import Outcome, RequestRecord

# As in `gateway.comparison` and `gateway.comparison_object`, whose import would load the whole gateway.
SIDE_DELTA, SIDE_FINISHED, COMPARISON_FINISHED = "side.delta", "side.finished", "comparison.finished"
OK = "ok"
_TOO_MANY_REQUESTS = 429


class _SideDelta(Delta):
    side: int = 0


class _Timing(msgspec.Struct):
    first_event_tokens: int | None = None
    first_event_source: str | None = None


class _Error(msgspec.Struct):
    message: str | None = None
    code: str | None = None
    status: int | None = None


class _SideFinished(msgspec.Struct):
    side: int
    status: str
    finish_reason: str | None = None
    usage: Usage = msgspec.field(default_factory=Usage)
    timing: _Timing = msgspec.field(default_factory=_Timing)
    error: _Error | None = None


_DELTA = msgspec.json.Decoder(_SideDelta)
_FINISHED = msgspec.json.Decoder(_SideFinished)


class _Side:
    def __init__(self, model: str) -> None:
        self.model = model
        self.stamps: list[float] = []
        self.first_output_s: float | None = None
        self.characters = 0
        self.finished: _SideFinished | None = None
        self.ended_s: float | None = None

    def hear(self, delta: Delta, now_s: float) -> None:
        self.stamps.append(now_s)
        self.characters += delta.characters()
        if self.first_output_s is None and (delta.output() or delta.tool_calls):
            self.first_output_s = now_s

    def end(self) -> End | None:
        """How it ended by the gateway's own word; None where it never said."""
        if self.finished is None:
            return None
        if self.finished.status == OK:
            return well_ended(has_tokens=bool(self.stamps), has_output=self.first_output_s is not None)
        error = self.finished.error or _Error()
        words = f"{error.code or self.finished.status}: {error.message or 'no message given'}"
        if error.status == _TOO_MANY_REQUESTS:
            return End(Outcome.TOO_MANY, words)
        if error.code == UpstreamTruncated.code:
            return End(Outcome.CUT, words)
        return End(Outcome.FAILED if self.stamps else Outcome.REFUSED, words)

    def heard(self, request_id: str | None) -> Heard:
        finished = self.finished
        timing = finished.timing if finished is not None else _Timing()
        return Heard(
            stamps=self.stamps,
            first_output_s=self.first_output_s,
            first_event_tokens=timing.first_event_tokens,
            first_event_source=timing.first_event_source,
            usage=finished.usage if finished is not None else Usage(),
            finish_reason=finished.finish_reason if finished is not None else None,
            characters=self.characters,
            ended_s=self.ended_s,
            request_id=request_id,
        )


class ComparisonAnswer:
    """The events of one comparison, side by side. See `answers.Answer`."""

    text = ""

    def __init__(self, models: Sequence[str]) -> None:
        self._sides = [_Side(model) for model in models]
        self._parser = SseParser()
        self._failure: End | None = None
        self._is_finished = False

    @property
    def is_over(self) -> bool:
        return self._is_finished or self._failure is not None

    def feed(self, piece: bytes, now_s: float) -> None:
        if self.is_over:
            return
        try:
            for event in self._parser.feed(piece):
                self._take(event, now_s)
        except (SseError, msgspec.DecodeError, LookupError) as error:
            self._failure = End(Outcome.MALFORMED, f"the comparison's stream is malformed: {type(error).__name__}")

    def end_of_stream(self) -> None:
        if not self.is_over:
            self._failure = End(Outcome.CUT, "the gateway ended the stream before the comparison was finished")

    def records(self, due: Due, exchange: Exchange) -> list[RequestRecord]:
        whole = self._failure or exchange.end or NOT_READ
        base = exchange.request_id
        return [
            # The gateway's own record of a side has the comparison's id with the side's place.
            record_of(
                due,
                exchange,
                side.end() or whole,
                side.heard(None if base is None else f"{base}-{place}"),
                side=side.model,
            )
            for place, side in enumerate(self._sides)
        ]

    def _take(self, event: Event, now_s: float) -> None:
        if event.data is None:
            return
        match event.name.decode("latin-1"):
            case name if name == SIDE_DELTA:
                delta = _DELTA.decode(event.data)
                self._sides[delta.side].hear(delta, now_s)
            case name if name == SIDE_FINISHED:
                finished = _FINISHED.decode(event.data)
                side = self._sides[finished.side]
                side.finished, side.ended_s = finished, now_s
            case name if name == COMPARISON_FINISHED:
                self._is_finished = True
