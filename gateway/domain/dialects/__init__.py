"""What a dialect is: how the answers of one kind of route say when tokens came, what they cost and how they ended.

One small module a dialect. They know single events and whole bodies, never the order or the time in which they came:
that is the meter's subject.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from gateway.domain.records import Usage

GIVEN_UP = ("abort", "error")
"""Finish reasons of an answer that the engine did not finish."""
_MOST = 1 << 53
"""Above it JSON's numbers are not exact, and sums of them would leave what databases keep."""
NOTABLE, REASONING, OUTPUT = 1, 2, 4
"""What `Dialect.look` sees in an event, as bits: something to be parsed, reasoning that is not empty, output (text or
a tool call) that is not empty."""


class Notice(NamedTuple):
    """What one parsed event says of its reply."""

    finished: Mapping[int, str] | None = None
    """Finish reason by choice, for those that this event ends."""
    usage: Usage | None = None
    is_final_usage: bool = False
    is_only_usage: bool = False
    """The event exists only because usage was asked for."""
    is_end: bool = False
    failure: str | None = None
    """Why the reply failed, in words that quote nobody; the event itself tells the client."""
    reply_id: str | None = None
    """The name under which the engine may keep the reply."""
    tokens: int = 0
    """OUTPUT or REASONING, where `look` could not tell."""


class WholeAnswer(NamedTuple):
    """What a whole (not streamed) answer says of itself."""

    usage: Usage
    finish_reason: str | None
    failure: str | None = None
    """Why the answer counts as failed although its status was 200; in words that quote nobody."""
    reply_id: str | None = None


class Dialect(Protocol):
    """How a route's answers are read."""

    @property
    def done(self) -> bytes | None:
        """The data that ends every stream; None where events say so themselves."""

    @property
    def model_path(self) -> tuple[str, ...] | None:
        """Where the events that are notable name the model; None: every event does, in its first such field."""

    def look(self, data: bytes) -> int:
        """What there is in an event, seen without parsing it."""

    def read(self, body: dict[str, Any]) -> Notice:
        """An event that `look` found notable."""

    def read_whole(self, body: dict[str, Any]) -> WholeAnswer: ...

    def first_tokens(self, body: dict[str, Any]) -> tuple[int, str]:
        """n_1 of the TPOT formula for the first event with tokens, and how it is known."""


class BodyDialect:
    """Routes that answer whole and generate nothing: embeddings, scores, token ids. Usage where it is given."""

    done = None
    model_path = None

    def look(self, data: bytes) -> int:
        return NOTABLE

    def read(self, body: dict[str, Any]) -> Notice:
        return Notice(failure="the engine streamed an answer that has no streamed form")

    def read_whole(self, body: dict[str, Any]) -> WholeAnswer:
        usage = body.get("usage")
        failure = "The engine reported an error under status 200." if body.get("error") else None
        return WholeAnswer(read_usage(usage) if isinstance(usage, dict) else Usage(), None, failure)

    def first_tokens(self, body: dict[str, Any]) -> tuple[int, str]:
        return 1, "assumed"


BODIES = BodyDialect()


def read_answer(dialect: Dialect, body: bytes, decode: Callable[[bytes], object] = json.loads) -> WholeAnswer:
    """Read a whole answer's body. `decode` may be a faster JSON decoder."""
    parsed = json_object(body, decode)
    if parsed is None:
        return WholeAnswer(Usage(), None, "The engine answered with something that is no JSON object.")
    return dialect.read_whole(parsed)


def read_usage(usage: dict[str, Any]) -> Usage:
    """The usage object of chat, completions and embeddings; anything that is no whole number is unknown."""
    return Usage(
        prompt_tokens=count(usage.get("prompt_tokens")),
        completion_tokens=count(usage.get("completion_tokens")),
        cached_tokens=count(inside(usage, "prompt_tokens_details", "cached_tokens")),
        reasoning_tokens=count(inside(usage, "completion_tokens_details", "reasoning_tokens")),
        source="engine",
    )


# --- JSON values of which nothing is known ------------------------------------------------------------------


def json_object(data: bytes, decode: Callable[[bytes], object] = json.loads) -> dict[str, Any] | None:
    try:
        body = decode(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def count(value: object) -> int | None:
    """A count that some reply can have; what is beyond it is as unknown as what is no number."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else None


def text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def inside(body: dict[str, Any], outer: str, inner: str) -> object:
    return mapping(body.get(outer)).get(inner)


def mapping(value: object) -> dict[str, Any]:
    """The object, or an empty one where it is none."""
    return value if isinstance(value, dict) else {}
