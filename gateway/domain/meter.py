"""Watches one reply: when tokens came, how many, how it ended, and which bytes go on to the client.

The meter only looks: per token it searches the bytes, and it parses JSON only for the events that carry usage, an
ending or an error. It knows the dialects of /v1/chat/completions and /v1/completions; it never waits and never reads
a clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gateway.domain.records import Timing, Usage
from gateway.domain.sse import Event, SseError, SseParser

DONE = b"[DONE]"
# Keys can be told from text: inside a JSON string every quote is escaped, so `{"content"` never occurs in one.
_CHAT_OUTPUT = re.compile(rb'[{,\s]"(?:content"\s*:\s*"[^"]|refusal"\s*:\s*"[^"]|tool_calls"\s*:\s*\[\s*\{)')
_CHAT_REASONING = re.compile(rb'[{,\s]"reasoning(?:_content)?"\s*:\s*"[^"]')
_TEXT_OUTPUT = re.compile(rb'[{,\s]"text"\s*:\s*"[^"]')
_NOTABLE = re.compile(rb'[{,\s]"(?:usage"\s*:\s*\{|finish_reason"\s*:\s*"|error"\s*:)')
_CHOICES = b'"choices"'
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z_]{0,39}|\d{3}")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a reply counts as failed although its status was 200."""

    message: str
    told: bool
    """True when the engine's own error event, whose words may quote the prompt, was forwarded to the client."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where a route's tokens are: patterns over one event's data."""

    usual_output: bytes
    """How an output text nearly always begins; the patterns decide about all else."""
    output: re.Pattern[bytes]
    reasoning: re.Pattern[bytes] | None

    def has_output(self, data: bytes) -> bool:
        """Whether the event carries output text (or a tool call) that is not empty."""
        end = data.find(self.usual_output) + len(self.usual_output)
        if end >= len(self.usual_output) and data[end : end + 1] != b'"':
            return True
        return self.output.search(data) is not None


CHAT = Dialect(usual_output=b'{"content":"', output=_CHAT_OUTPUT, reasoning=_CHAT_REASONING)
COMPLETIONS = Dialect(usual_output=b',"text":"', output=_TEXT_OUTPUT, reasoning=None)


class Meter:
    """Feed it the engine's bytes as they come; it returns what to forward. One meter a streamed reply.

    `withhold_usage`: drop the usage event, because only the gateway asked for it.
    `rename`: (engine's model name, our model id) where they differ.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        choices: int = 1,
        withhold_usage: bool = False,
        rename: tuple[str, str] | None = None,
    ) -> None:
        self._dialect = dialect
        self._parser = SseParser()
        self._choices = choices
        self._withhold_usage = withhold_usage
        self._rename = _rename_pattern(rename)
        self._finished: dict[int, str] = {}
        self._usage: Usage | None = None
        self._running_usage: Usage | None = None
        self._first_s: float | None = None
        self._first_output_s: float | None = None
        self._last_s: float | None = None
        self._first_tokens: tuple[int, str] | None = None
        self.token_events = 0
        self.is_done = False
        self.failure: Failure | None = None

    def feed(self, chunk: bytes, now: float) -> bytes:
        """Take bytes that arrived at monotonic moment `now`; return the bytes to forward at once.

        After the call `is_done` or `failure` may be set; what the engine sends later is not forwarded.
        """
        if self.is_done or self.failure is not None:
            return b""
        try:
            events = self._parser.feed(chunk)
        except SseError as error:
            self.failure = Failure(f"the engine's stream is malformed: {error}", told=False)
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
            self.failure = Failure("the engine closed the stream before its end", told=False)

    @property
    def finish_reason(self) -> str | None:
        """The first choice's reason (further choices of n > 1 must have one too, for success)."""
        return next(iter(self._finished.values()), None)

    def usage(self) -> Usage:
        """The engine's own counts where it gave them, else what was seen, marked as counted."""
        if self._usage is not None:
            return self._usage
        if self._running_usage is not None:
            return replace(self._running_usage, source="counted")
        if self.token_events:
            return Usage(completion_tokens=self.token_events, source="counted")
        return Usage()

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
        if data == DONE:
            return self._take_done(event)
        raw = event.raw
        if _is_notable(data):
            body = _json_object(data)
            if body is None:
                self.failure = Failure("the engine sent an event that is no JSON object", told=False)
                return b""
            if not self._take_notable(body):
                return b""
            if self.failure is not None:
                return raw
        self._count_tokens(data, now)
        return self._rename[0].sub(self._rename[1], raw, count=1) if self._rename else raw

    def _take_done(self, event: Event) -> bytes:
        if len(self._finished) < self._choices:
            self.failure = Failure("the engine ended the stream without a finish_reason", told=False)
            return b""
        aborted = [reason for reason in self._finished.values() if reason in ("abort", "error")]
        if aborted:
            self.failure = Failure(f"the engine gave up: finish_reason is '{aborted[0]}'", told=False)
            return b""
        self.is_done = True
        return event.raw

    def _take_notable(self, body: dict[str, Any]) -> bool:
        """Read usage, endings and errors; return whether the event goes on to the client."""
        if body.get("error") is not None or body.get("object") == "error":
            self.failure = Failure(f"the engine reported an error mid-stream{error_kind(body)}", told=True)
            return True
        choices = body.get("choices")
        if not isinstance(choices, list):
            choices = []
        is_ending = False
        for choice in choices:
            if isinstance(choice, dict) and isinstance(choice.get("finish_reason"), str):
                self._finished[_index(choice)] = choice["finish_reason"]
                is_ending = True
        usage = body.get("usage")
        if not isinstance(usage, dict):
            return True
        if choices and not is_ending:
            self._running_usage = read_usage(usage)
            return True
        self._usage = read_usage(usage)
        return bool(choices) or not self._withhold_usage

    def _count_tokens(self, data: bytes, now: float) -> None:
        is_output = self._dialect.has_output(data)
        reasoning = self._dialect.reasoning
        if not is_output and (reasoning is None or reasoning.search(data) is None):
            return
        self.token_events += 1
        self._last_s = now
        if self._first_s is None:
            self._first_s = now
            self._first_tokens = tokens_in_first_event(data)
        if is_output and self._first_output_s is None:
            self._first_output_s = now


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """What a whole (not streamed) answer says of itself."""

    usage: Usage
    finish_reason: str | None
    is_object: bool
    """False when the body is no JSON object: garbage under a 200."""


def read_answer(body: bytes, decode: Callable[[bytes], object] = json.loads) -> WholeAnswer:
    """Read usage and finish_reason from a whole answer's body. `decode` may be a faster JSON decoder."""
    parsed = _json_object(body, decode)
    if parsed is None:
        return WholeAnswer(Usage(), None, is_object=False)
    usage = parsed.get("usage")
    choices = parsed.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    reason = first.get("finish_reason") if isinstance(first, dict) else None
    return WholeAnswer(
        read_usage(usage) if isinstance(usage, dict) else Usage(),
        reason if isinstance(reason, str) else None,
        is_object=True,
    )


def read_usage(usage: dict[str, Any]) -> Usage:
    """An OpenAI usage object as counts; anything that is no whole number is unknown."""
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(_inside(usage, "prompt_tokens_details", "cached_tokens")),
        reasoning_tokens=_count(_inside(usage, "completion_tokens_details", "reasoning_tokens")),
        source="engine",
    )


def tokens_in_first_event(data: bytes) -> tuple[int, str]:
    """n_1 of the TPOT formula and how it is known: running usage, token ids, logprobs, or assumed to be 1."""
    body = _json_object(data) or {}
    usage = body.get("usage")
    running = _count(usage.get("completion_tokens")) if isinstance(usage, dict) else None
    if running:
        return running, "running_usage"
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if isinstance(choice.get("token_ids"), list) and choice["token_ids"]:
        return len(choice["token_ids"]), "token_ids"
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict):
        listed = logprobs.get("content") or logprobs.get("tokens")
        if isinstance(listed, list) and listed:
            return len(listed), "logprobs"
    return 1, "assumed"


def error_text(body: dict[str, Any]) -> str:
    """The message of an engine's error body, in any of the shapes that engines use."""
    error = body.get("error", body)
    if isinstance(error, dict):
        text = error.get("message") or error.get("detail") or body.get("message") or body.get("detail")
        return str(text) if text else "no message given"
    return str(error)


def error_kind(body: dict[str, Any]) -> str:
    """An error's type and code in brackets, as far as they are plain identifiers and so cannot quote anybody."""
    error = body.get("error", body)
    if not isinstance(error, dict):
        return ""
    named = [str(error[key]) for key in ("type", "code") if isinstance(error.get(key), str | int)]
    plain = [name for name in named if _IDENTIFIER.fullmatch(name)]
    return f" ({', '.join(plain)})" if plain else ""


def _is_notable(data: bytes) -> bool:
    """Whether an event may carry usage, an ending or an error; the plain searches spare most events the pattern."""
    if _CHOICES not in data:
        return True
    if b'"usage"' not in data and b'"error"' not in data:
        endings = data.count(b'"finish_reason"')
        if endings == data.count(b'"finish_reason":null'):
            return False
    return _NOTABLE.search(data) is not None


def _json_object(data: bytes, decode: Callable[[bytes], object] = json.loads) -> dict[str, Any] | None:
    try:
        body = decode(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _inside(body: dict[str, Any], outer: str, inner: str) -> object:
    details = body.get(outer)
    return details.get(inner) if isinstance(details, dict) else None


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def rename_model(body: bytes, rename: tuple[str, str]) -> bytes:
    """Replace the engine's name by ours in the first `model` field of a body."""
    pattern = _rename_pattern(rename)
    return pattern[0].sub(pattern[1], body, count=1) if pattern else body


def _rename_pattern(rename: tuple[str, str] | None) -> tuple[re.Pattern[bytes], bytes] | None:
    if rename is None or rename[0] == rename[1]:
        return None
    theirs, ours = (json.dumps(name, ensure_ascii=False).encode() for name in rename)
    return re.compile(rb'(?<=[{,\s]"model":)(\s*)' + re.escape(theirs)), rb"\1" + ours.replace(b"\\", rb"\\")
