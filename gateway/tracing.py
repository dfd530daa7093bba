"""Where traced calls begin and end: which trace a request goes on with, whether it is kept, and who gets its spans.

There is a tracer only where a collector is configured; without one no call asks for more than that. How spans look is
`call_spans`' subject, how they are sent `span_export`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.asgi import RawHeaders
from gateway.call_spans import Asked, CallEnd, ComparisonEnd
from gateway.domain.otlp import Attributes, SpanKind
from gateway.domain.records import Call, Model
from gateway.domain.trace_context import TraceParent, is_kept, read_parent
from gateway.request_body import RequestBody
from gateway.series import Numbers
from gateway.settings import Settings
from gateway.span_export import SpanExport
from gateway.trail import Clocks, Trail, new_span_id, new_trace_id
from gateway.upstream import Upstream


class Tracer:
    """One per gateway that traces."""

    def __init__(self, export: SpanExport, *, ratio: float, now: Callable[[], float]) -> None:
        """`ratio`: share of the traces that begin here which are kept; those that others began are theirs to keep."""
        self.export = export
        self._ratio = ratio
        self._now = now

    def follow(self, headers: RawHeaders, began_s: float) -> Trail:
        """The trail of a request that came with these headers."""
        return self._trail(read_parent(headers), began_s, SpanKind.SERVER)

    def begin(self, began_s: float) -> Trail:
        """The trail of work that nobody outside asked for just now."""
        return self._trail(None, began_s, SpanKind.INTERNAL)

    def note_call(
        self, trail: Trail, call: Call, model: Model, body: RequestBody, waits: tuple[tuple[float, float], ...]
    ) -> None:
        """The call is over."""
        if trail.here.is_sampled:
            self.export.put(CallEnd(trail, call, model, Asked.of(body), waits, self._now()))

    def note_comparison(self, trail: Trail, attributes: Attributes, *, is_error: bool) -> None:
        """The comparison is over; its sides were noted as calls."""
        if trail.here.is_sampled:
            self.export.put(ComparisonEnd(trail, self._now(), attributes, is_error=is_error))

    def _trail(self, parent: TraceParent | None, began_s: float, kind: SpanKind) -> Trail:
        clocks = Clocks(time.time_ns(), self._now())
        if parent is not None:
            here = parent._replace(span_id=new_span_id())
            return Trail(here, began_s=began_s, clocks=clocks, parent_id=parent.span_id, kind=kind)
        trace_id = new_trace_id()
        here = TraceParent(trace_id, new_span_id(), is_kept(trace_id, self._ratio))
        return Trail(here, began_s=began_s, clocks=clocks, parent_id=b"", kind=kind)


def tracer_of(settings: Settings, upstream: Upstream, counts: Numbers, now: Callable[[], float]) -> Tracer | None:
    """The tracer that the settings ask for, if they do. `counts`: spans by what became of them."""
    if settings.otlp_endpoint is None:
        return None
    export = SpanExport(
        upstream=upstream,
        endpoint=settings.otlp_endpoint,
        headers=[(name.encode(), value.encode()) for name, value in settings.otlp_header_pairs],
        service=settings.service_name,
        queue_limit=settings.trace_queue,
        flush_s=settings.trace_flush_s,
        counts=counts,
    )
    return Tracer(export, ratio=settings.trace_ratio, now=now)
