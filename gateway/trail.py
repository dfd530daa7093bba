"""What a traced call notes on its way, so that its spans can be made when it is over: whose child it is, whom it asked.

A trail is only appended to, and for every traced call, kept or not: the engine must be told either way. What spans are
made of it is `call_spans`' subject; where no collector is configured there is no trail.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from gateway.domain.otlp import SpanKind
from gateway.domain.trace_context import TraceParent, parent_lines
from gateway.errors import SimsaError
from gateway.replica_state import ReplicaState
from gateway.upstream import Origin


class Clocks(NamedTuple):
    """The same moment on both clocks: spans are measured by the one and dated by the other."""

    wall_ns: int
    monotonic_s: float

    def date_ns(self, moment_s: float) -> int:
        """A moment of the monotonic clock in nanoseconds since 1970."""
        return self.wall_ns + round((moment_s - self.monotonic_s) * 1e9)


class Attempt:
    """One replica that was asked."""

    __slots__ = ("began_s", "ended_s", "error", "origin", "replica", "span_id", "status")

    def __init__(self, state: ReplicaState, span_id: bytes, began_s: float) -> None:
        self.origin: Origin = state.origin
        self.replica = state.replica.id
        self.span_id = span_id
        self.began_s = began_s
        self.ended_s: float | None = None
        """None: it went on to the call's end."""
        self.status: int | None = None
        """What the engine answered, if it did."""
        self.error: str | None = None
        """Why another replica was tried, or could have been."""


class Trail:
    """One span while it lasts: a call's, or a comparison's whose calls are its children."""

    __slots__ = ("attempts", "began_s", "clocks", "here", "kind", "parent_id")

    def __init__(self, here: TraceParent, *, began_s: float, clocks: Clocks, parent_id: bytes, kind: SpanKind) -> None:
        """`here`: itself, as its children name it. `parent_id`: empty where the trace begins here.

        Of kind SERVER where the parent, if any, is another program's, else INTERNAL.
        """
        self.here = here
        self.began_s = began_s
        self.clocks = clocks
        self.parent_id = parent_id
        self.kind = kind
        self.attempts: list[Attempt] = []

    def child(self, began_s: float) -> Trail:
        """The trail of a call that belongs to it."""
        return Trail(
            self.here._replace(span_id=new_span_id()),
            began_s=began_s,
            clocks=self.clocks,
            parent_id=self.here.span_id,
            kind=SpanKind.INTERNAL,
        )

    def asks(self, state: ReplicaState, sent_s: float) -> bytes:
        """A replica is asked now: header lines that tell it so. A hosted API, which is not ours, is told nothing."""
        attempt = Attempt(state, new_span_id(), sent_s)
        self.attempts.append(attempt)
        return b"" if state.is_remote else parent_lines(self.here._replace(span_id=attempt.span_id))

    def answered(self, status: int) -> None:
        """The replica that was asked last has answered with this status."""
        self.attempts[-1].status = status

    def failed(self, error: SimsaError, at_s: float) -> None:
        """The replica that was asked last is not waited for any longer."""
        attempt = self.attempts[-1]
        attempt.error = error.code or error.kind
        attempt.ended_s = at_s


def new_span_id() -> bytes:
    """Random, and not a secret; never all zeros, which would be none."""
    return (random.getrandbits(64) or 1).to_bytes(8)


def new_trace_id() -> bytes:
    return (random.getrandbits(128) or 1).to_bytes(16)
