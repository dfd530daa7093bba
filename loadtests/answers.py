"""What became of one request: the bytes of its answer go in as they come, its records come out. Sans-I/O.

Sockets and clocks belong to `streams`; the meter of the gateway decides what a token event is, here as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

from gateway.domain.dialects import Dialect
from gateway.domain.dialects.choices import CHAT, COMPLETIONS
from gateway.domain.meter import FailureKind, Meter
from gateway.domain.records import Usage
from loadtests.asks import AskLike
from loadtests.heard_text import HeardText
from loadtests.plan import Route
from loadtests.records import VERSION, Outcome, RequestRecord

MOST_WORDS = 300
DIALECTS: dict[Route, Dialect] = {Route.CHAT: CHAT, Route.COMPLETIONS: COMPLETIONS}
_OUTCOMES = {
    FailureKind.MALFORMED: Outcome.MALFORMED,
    FailureKind.CUT: Outcome.CUT,
    FailureKind.REPORTED: Outcome.FAILED,
    FailureKind.GIVEN_UP: Outcome.FAILED,
}


class End(NamedTuple):
    """How a request ended, and why in words where it did not end well."""

    outcome: Outcome
    error: str | None = None


NOT_READ = End(Outcome.CUT, "the answer was not read to its end")
NO_TOKEN = End(Outcome.EMPTY, "the answer ended well, and no token came")
REASONING_ALONE = End(Outcome.OK, "the answer is reasoning alone: no output came")
"""Its times are those of tokens, so it counts as answered; a reader sees that nobody was given anything to read."""


@dataclass(frozen=True, slots=True)
class Due:
    """A request that is to be sent."""

    n: int
    worker: int
    scheduled_s: float
    ask: AskLike
    user: int | None = None


@dataclass(slots=True)
class Exchange:
    """What was seen of a request on its way and of its answer's head. Moments as in `RequestRecord`."""

    sent_s: float | None = None
    ended_s: float | None = None
    has_begun: bool = False
    """A byte of an answer has come."""
    status: int | None = None
    request_id: str | None = None
    replica: str | None = None
    end: End | None = None
    """Why the answer was not read to its end, where that is so."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What an answer said, or one side of a comparison."""

    stamps: Sequence[float] = ()
    """When each event with tokens came."""
    first_output_s: float | None = None
    first_event_tokens: int | None = None
    first_event_source: str | None = None
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    characters: int | None = None
    ended_s: float | None = None
    """Where it is not that of the whole."""
    request_id: str | None = None
    """Where it has one of its own."""


class Answer(Protocol):
    """How the answer of one kind of route is read."""

    @property
    def is_over(self) -> bool:
        """Nothing more is to come that matters."""

    @property
    def text(self) -> str:
        """What a further turn of the conversation repeats; empty unless it was to be kept."""

    def feed(self, piece: bytes, now_s: float) -> None:
        """Take bytes of the body that came at a moment."""

    def end_of_stream(self) -> None:
        """The server ended the body."""

    def records(self, due: Due, exchange: Exchange) -> list[RequestRecord]:
        """What became of it, one record, or of a comparison one a side."""


class StreamedAnswer:
    """The answer of a route of engines: chat or completions."""

    def __init__(self, dialect: Dialect, *, keeps_text: bool = False) -> None:
        self._heard = HeardText(dialect, keeps_text=keeps_text)
        self._meter = Meter(self._heard.dialect)
        self._stamps: list[float] = []

    @property
    def is_over(self) -> bool:
        return self._meter.is_done or self._meter.failure is not None

    @property
    def text(self) -> str:
        return self._heard.text

    def feed(self, piece: bytes, now_s: float) -> None:
        meter = self._meter
        before = meter.token_events
        meter.feed(piece, now_s)
        new = meter.token_events - before
        if new == 1:
            self._stamps.append(now_s)
        elif new:
            self._stamps += [now_s] * new

    def end_of_stream(self) -> None:
        self._meter.end_of_stream()

    def records(self, due: Due, exchange: Exchange) -> list[RequestRecord]:
        meter = self._meter
        timing = meter.timing(accepted_s=0.0, queue_s=0.0, overhead_s=0.0)
        heard = Heard(
            stamps=self._stamps,
            first_output_s=timing.ttfot_s,
            first_event_tokens=timing.first_event_tokens,
            first_event_source=timing.first_event_source,
            usage=meter.usage(),
            finish_reason=meter.finish_reason,
            characters=self._heard.characters,
        )
        return [record_of(due, exchange, self._end(timing.ttfot_s) or exchange.end or NOT_READ, heard)]

    def _end(self, first_output_s: float | None) -> End | None:
        """What the stream itself says; None where it says nothing yet."""
        failure = self._meter.failure
        if failure is not None:
            return End(_OUTCOMES[failure.kind], failure.message)
        if not self._meter.is_done:
            return None
        return well_ended(has_tokens=bool(self._stamps), has_output=first_output_s is not None)


def well_ended(*, has_tokens: bool, has_output: bool) -> End:
    """The end of an answer that came to its end, by what it held."""
    if not has_tokens:
        return NO_TOKEN
    return End(Outcome.OK) if has_output else REASONING_ALONE


def unsent(due: Due, why: str, sides: tuple[str, ...] = ()) -> list[RequestRecord]:
    """The records of what was due and never sent; `sides`: the models of a comparison."""
    end = End(Outcome.UNSENT, why)
    return [record_of(due, Exchange(), end, Heard(), side=side) for side in sides or (None,)]


def record_of(due: Due, exchange: Exchange, end: End, heard: Heard, *, side: str | None = None) -> RequestRecord:
    """All that is known of a request, as its line."""
    usage, stamps = heard.usage, heard.stamps
    return RequestRecord(
        v=VERSION,
        n=due.n,
        worker=due.worker,
        user=due.user,
        item=due.ask.item,
        turn=due.ask.turn,
        scheduled_s=due.scheduled_s,
        sent_s=exchange.sent_s,
        first_s=stamps[0] if stamps else None,
        first_output_s=heard.first_output_s,
        last_s=stamps[-1] if stamps else None,
        ended_s=exchange.ended_s if heard.ended_s is None else heard.ended_s,
        outcome=end.outcome,
        status=exchange.status,
        error=None if end.error is None else end.error[:MOST_WORDS],
        asked_input_tokens=due.ask.asked_input_tokens,
        asked_output_tokens=due.ask.asked_output_tokens,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        usage_source=usage.source,
        finish_reason=heard.finish_reason,
        token_events=len(stamps),
        first_event_tokens=heard.first_event_tokens,
        first_event_source=heard.first_event_source,
        gaps_us=gaps_us(stamps),
        characters=heard.characters if stamps else None,
        request_id=heard.request_id or exchange.request_id,
        replica=exchange.replica,
        side=side,
    )


def gaps_us(stamps: Sequence[float]) -> list[int]:
    """Between each moment and the next; their sum is that from the first to the last, whatever is rounded."""
    whole = [round(stamp * 1e6) for stamp in stamps]
    return [later - earlier for earlier, later in pairwise(whole)]
