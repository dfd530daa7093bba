"""Which trace a request belongs to, as W3C Trace Context writes it in `traceparent` and `tracestate`.

Reading and writing of the two headers, and the choice of which traces are kept. Spans are not known here, and new ids
arrive as arguments: no randomness.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TRACEPARENT, TRACESTATE = b"traceparent", b"tracestate"
_SAMPLED = 1
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_STATE = re.compile(rb"[\x20-\x7e\t]{1,512}\Z")
"""Longer ones need not be passed on, and other bytes cannot be."""
_WITHOUT_SUFFIX = b"00"
_NEVER_VALID = b"ff"
_BITS_COMPARED = 64


class TraceParent(NamedTuple):
    """The span that a request was sent from, and whether its trace is kept."""

    trace_id: bytes
    span_id: bytes
    is_sampled: bool
    state: bytes = b""
    """The tracestate, for whoever comes next; it means nothing here."""


def read_parent(headers: list[tuple[bytes, bytes]]) -> TraceParent | None:
    """Where a request with these headers (names in lower case) comes from; None where they do not say it rightly."""
    parents = [value for name, value in headers if name == TRACEPARENT]
    found = _PARENT.match(parents[0]) if len(parents) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, suffix = found.groups()
    if version == _NEVER_VALID or (version == _WITHOUT_SUFFIX and suffix is not None):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = b",".join(value for name, value in headers if name == TRACESTATE)
    return TraceParent(
        bytes.fromhex(trace_id.decode()),
        bytes.fromhex(span_id.decode()),
        bool(int(flags, 16) & _SAMPLED),
        state if _STATE.match(state) else b"",
    )


def parent_lines(parent: TraceParent) -> bytes:
    """The header lines that tell the next one whose child it is, each with its line end."""
    line = b"traceparent: 00-%b-%b-%02x\r\n" % (
        parent.trace_id.hex().encode(),
        parent.span_id.hex().encode(),
        parent.is_sampled,
    )
    return line + b"tracestate: %b\r\n" % parent.state if parent.state else line


def is_kept(trace_id: bytes, ratio: float) -> bool:
    """Whether a trace that begins here is among the share that is kept; the same for all who ask of one id."""
    return int.from_bytes(trace_id[8:]) < round(ratio * (1 << _BITS_COMPARED))
