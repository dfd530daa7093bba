"""A finished call's record and trail as spans, in the words of OpenTelemetry's conventions for generative AI.

`gen_ai.*` by version 0.1 of the conventions, `simsa.*` for what only a gateway knows; docs/tracing.md has the list. No
text of a prompt, an answer or an error is among the attributes, and no key: numbers, names from closed sets, ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from gateway.domain.otlp import Attributes, Span, SpanKind, Value
from gateway.domain.records import Call, CallStatus, Cost, Model, ServingKind, Timing, Usage
from gateway.request_body import RequestBody
from gateway.trail import Attempt, Trail, new_span_id

_OPERATIONS = {
    "chat_completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
}
"""By endpoint; the others are called as they are here."""
_NUMBERS: Mapping[str, type[int] | type[float]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "seed": int,
    "frequency_penalty": float,
    "presence_penalty": float,
}
"""Fields of a request that are numbers, each `gen_ai.request.<name>`."""
_LONGEST_NUMBER = 32
_GREATEST_INTEGER = (1 << 63) - 1
_LONGEST_REASON = 64
_SERVER_FAULT = 500


class SpanSource(Protocol):
    """Something finished of which spans can be made, later and elsewhere."""

    @property
    def count(self) -> int:
        """How many spans it is."""

    def spans(self) -> list[Span]: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """The numbers in a request."""

    max_tokens: int | None
    choices: int
    numbers: Mapping[str, bytes]
    """As they stood there."""

    @classmethod
    def of(cls, body: RequestBody) -> Asked:
        given = {name: bytes(body.members[name]) for name in _NUMBERS if name in body.members}
        short = {name: raw for name, raw in given.items() if len(raw) <= _LONGEST_NUMBER}
        return cls(body.max_tokens, body.choices, short)


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call that is over, with all that its spans say."""

    trail: Trail
    call: Call
    model: Model
    asked: Asked
    waits: tuple[tuple[float, float], ...]
    """When it stood in the queue: from, until."""
    ended_s: float

    @property
    def count(self) -> int:
        return 1 + len(self.waits) + len(self.trail.attempts)

    def spans(self) -> list[Span]:
        trail, call = self.trail, self.call
        queue = [
            _part(trail, "queue", SpanKind.INTERNAL, new_span_id(), (began_s, ended_s), {})
            for began_s, ended_s in self.waits
        ]
        attempts = [self._attempt(number, attempt) for number, attempt in enumerate(trail.attempts)]
        operation = _OPERATIONS.get(call.opened.endpoint, call.opened.endpoint)
        attributes: dict[str, Value | None] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "vllm" if self.model.serving.kind is ServingKind.VLLM else "openai",
            "gen_ai.request.model": call.opened.model,
            **_request(self.asked, call),
            **_response(self.model, call),
            **_usage(call.usage),
            **(_server(trail.attempts[-1]) if trail.attempts else {}),
            "http.response.status_code": call.http_status,
            "error.type": _error_type(call),
            **_own(call),
            **_timing(call.timing),
            **_cost(call.cost),
        }
        name = f"{operation} {call.opened.model}"
        return [_whole(trail, name, self.ended_s, attributes, is_error=_is_fault(call)), *queue, *attempts]

    def _attempt(self, number: int, attempt: Attempt) -> Span:
        error = attempt.error if attempt.ended_s is not None else _error_type(self.call)
        attributes: Attributes = {
            **_server(attempt),
            "http.request.method": "POST",
            "http.request.resend_count": number or None,
            "http.response.status_code": attempt.status,
            "error.type": error,
            "simsa.replica": attempt.replica,
        }
        ended_s = self.ended_s if attempt.ended_s is None else attempt.ended_s
        span = (attempt.began_s, ended_s)
        return _part(
            self.trail, "attempt", SpanKind.CLIENT, attempt.span_id, span, attributes, is_error=error is not None
        )


@dataclass(frozen=True, slots=True)
class ComparisonEnd:
    """A comparison that is over; its sides are calls of their own, below it."""

    trail: Trail
    ended_s: float
    attributes: Attributes
    is_error: bool = False

    @property
    def count(self) -> int:
        return 1

    def spans(self) -> list[Span]:
        return [_whole(self.trail, "comparison", self.ended_s, self.attributes, is_error=self.is_error)]


def _whole(trail: Trail, name: str, ended_s: float, attributes: Attributes, *, is_error: bool) -> Span:
    """The span that the trail is of."""
    return Span(
        trace_id=trail.here.trace_id,
        span_id=trail.here.span_id,
        parent_id=trail.parent_id,
        name=name,
        kind=trail.kind,
        start_ns=trail.clocks.date_ns(trail.began_s),
        end_ns=trail.clocks.date_ns(ended_s),
        attributes=attributes,
        is_error=is_error,
        has_remote_parent=trail.kind is SpanKind.SERVER and bool(trail.parent_id),
        state=trail.here.state,
    )


def _part(
    trail: Trail,
    name: str,
    kind: SpanKind,
    span_id: bytes,
    span_s: tuple[float, float],
    attributes: Attributes,
    *,
    is_error: bool = False,
) -> Span:
    """A span within the trail's own."""
    began_s, ended_s = span_s
    return Span(
        trace_id=trail.here.trace_id,
        span_id=span_id,
        parent_id=trail.here.span_id,
        name=name,
        kind=kind,
        start_ns=trail.clocks.date_ns(began_s),
        end_ns=trail.clocks.date_ns(ended_s),
        attributes=attributes,
        is_error=is_error,
        state=trail.here.state,
    )


def _request(asked: Asked, call: Call) -> Attributes:
    return {
        "gen_ai.request.stream": call.opened.streamed or None,
        "gen_ai.request.max_tokens": asked.max_tokens,
        "gen_ai.request.choice.count": asked.choices if asked.choices != 1 else None,
        **{f"gen_ai.request.{name}": _as_number(name, raw) for name, raw in asked.numbers.items()},
    }


def _as_number(name: str, raw: bytes) -> Value | None:
    """None for what is no number of that kind: it may be anything that a client put there."""
    try:
        number = _NUMBERS[name](raw)
    except ValueError:
        return None
    return number if isinstance(number, float) or abs(number) <= _GREATEST_INTEGER else None


def _response(model: Model, call: Call) -> Attributes:
    if call.status is not CallStatus.OK:
        has_begun = bool(call.usage.completion_tokens)
        return {"gen_ai.response.finish_reasons": ("error",) if has_begun else None}
    reason = call.finish_reason
    return {
        "gen_ai.response.model": model.serving.served_model_name,
        "gen_ai.response.finish_reasons": (reason[:_LONGEST_REASON],) if reason is not None else None,
    }


def _usage(usage: Usage) -> Attributes:
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        "simsa.usage.source": usage.source,
    }


def _server(attempt: Attempt) -> Attributes:
    return {"server.address": attempt.origin.host, "server.port": attempt.origin.port}


def _error_type(call: Call) -> str | None:
    return call.error_code or call.error_type


def _is_fault(call: Call) -> bool:
    """Whether the span is marked as failed: not for what the client did wrong, nor for one that left."""
    is_ours = call.http_status is not None and call.http_status >= _SERVER_FAULT
    return call.status is CallStatus.TRUNCATED or (call.status is CallStatus.ERROR and is_ours)


def _own(call: Call) -> Attributes:
    opened = call.opened
    return {
        "simsa.call_id": opened.id,
        "simsa.request_id": opened.request_id,
        "simsa.endpoint": opened.endpoint,
        "simsa.organisation": opened.organisation,
        "simsa.comparison_id": opened.comparison_id,
        "simsa.run_id": opened.run_id,
        "simsa.client_retry": opened.client_retry,
        "simsa.status": call.status.value,
        "simsa.replica": call.replica,
        "simsa.provenance": call.provenance.value,
        "simsa.attempts": call.attempts,
        "simsa.gpu": call.gpu,
        "simsa.gpus": call.gpus,
    }


def _timing(timing: Timing) -> Attributes:
    return {
        "simsa.queue_s": timing.queue_s,
        "simsa.ttft_s": timing.ttft_s,
        "simsa.tpot_s": timing.tpot_s,
        "simsa.e2e_s": timing.e2e_s,
        "simsa.overhead_s": timing.overhead_s,
    }


def _cost(cost: Cost) -> Attributes:
    return {
        "simsa.cost.amount": _as_float(cost.amount),
        "simsa.cost.currency": cost.currency,
        "simsa.cost.basis": cost.basis,
    }


def _as_float(amount: Decimal | None) -> float | None:
    """A double, which is what traces have; bills are made from records."""
    return float(amount) if amount is not None else None
