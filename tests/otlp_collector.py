"""A stand-in for an OpenTelemetry collector: a real server that takes traces by OTLP over HTTP and keeps them.

What it takes is read with OpenTelemetry's own message definitions, so that it understands what any collector would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from scripted_http import ScriptedServer
from scripted_replies import Reply, Request

TRACES = "/v1/traces"


@dataclass(frozen=True)
class TakenSpan:
    """A span as a collector shows it."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the first of a trace."""
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    is_error: bool
    flags: int
    state: str

    def is_within(self, other: TakenSpan) -> bool:
        return other.start_ns <= self.start_ns <= self.end_ns <= other.end_ns


class OtlpCollector(ScriptedServer):
    """`async with` it: what it takes is in `spans`. Other answers are scripted on the path TRACES."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[TakenSpan] = []

    def usual(self, request: Request) -> Reply:
        if (request.method, request.path) != ("POST", TRACES):
            return super().usual(request)
        assert request.header("content-type") == "application/x-protobuf"
        self.spans += spans_in(request.body)
        return taken()

    async def until_spans(self, count: int) -> list[TakenSpan]:
        """The spans that it has, once they are so many."""
        await self.until(lambda: len(self.spans) >= count)
        return list(self.spans)


def taken(*, rejected: int = 0) -> Reply:
    """A batch is taken, but for so many of its spans."""
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = "too old"
    return Reply(pieces=(answer.SerializeToString(),), content_type="application/x-protobuf")


def spans_in(body: bytes) -> list[TakenSpan]:
    """The spans of an ExportTraceServiceRequest; raises where it is none, or says what these messages do not know."""
    request = ExportTraceServiceRequest.FromString(body)
    assert request.SerializeToString(deterministic=True)
    return [
        _taken(span, {item.key: _value(item.value) for item in resource_spans.resource.attributes})
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _taken(span: Span, resource: Mapping[str, Any]) -> TakenSpan:
    names = [item.key for item in span.attributes]
    assert len(names) == len(set(names)), "no attribute is said twice"
    return TakenSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes={item.key: _value(item.value) for item in span.attributes},
        resource=resource,
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        flags=span.flags,
        state=span.trace_state,
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, str(kind))
