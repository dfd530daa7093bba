"""What traces are written in: W3C's headers by their rules, OTLP's messages by OpenTelemetry's own definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from otlp_collector import spans_in

from gateway.domain.otlp import Span, SpanKind, Value, encode_batch, encode_span, read_rejected
from gateway.domain.trace_context import TraceParent, is_kept, parent_lines, read_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: st.SearchStrategy[Value] = st.one_of(
    TEXTS, st.booleans(), INT64, st.floats(allow_nan=False), st.lists(TEXTS).map(tuple)
)
MOMENTS = st.integers(0, 2**64 - 1)


def parent_of(*values: bytes, state: tuple[bytes, ...] = ()) -> TraceParent | None:
    return read_parent(
        [(b"accept", b"*/*"), *((b"traceparent", v) for v in values), *((b"tracestate", v) for v in state)]
    )


# --- W3C Trace Context --------------------------------------------------------------------------------------


def test_a_parent_is_read_and_written_back() -> None:
    parent = parent_of(PARENT, state=(b"vendor=1", b"other=2"))
    assert parent == TraceParent(bytes.fromhex(TRACE), bytes.fromhex(SPAN), True, b"vendor=1,other=2")
    assert parent_lines(parent) == b"traceparent: " + PARENT + b"\r\ntracestate: vendor=1,other=2\r\n"


def test_a_parent_that_is_not_sampled_stays_so() -> None:
    parent = parent_of(PARENT[:-1] + b"0")
    assert parent is not None
    assert not parent.is_sampled
    assert parent_lines(parent) == b"traceparent: " + PARENT[:-1] + b"0\r\n"


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parent_of(b"cc-" + PARENT[3:] + b"-what-comes-then") == parent_of(PARENT)
    assert parent_of(PARENT[:-2] + b"03") == parent_of(PARENT), "other flags are not known"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        PARENT[:-1],
        PARENT + b"0",
        PARENT + b"-more",
        PARENT.upper(),
        PARENT + b"\n",
        b"ff" + PARENT[2:],
        b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + b"-01",
        PARENT.replace(b"-", b"_"),
        b"00-\xc3\xa9" + PARENT[5:],
    ],
)
def test_what_is_no_parent_begins_a_trace_of_its_own(value: bytes) -> None:
    assert parent_of(value) is None


def test_two_parents_are_none() -> None:
    assert parent_of(PARENT, PARENT) is None


@pytest.mark.parametrize("state", [b"a=" + b"x" * 511, b"a=1\x00", "a=é".encode()])
def test_a_state_that_cannot_be_passed_on_is_dropped_and_the_parent_kept(state: bytes) -> None:
    assert parent_of(PARENT, state=(state,)) == parent_of(PARENT)


@given(st.binary(min_size=16, max_size=16))
def test_all_or_none_are_kept_at_the_ends_of_the_ratio(trace_id: bytes) -> None:
    assert is_kept(trace_id, 1.0)
    assert not is_kept(trace_id, 0.0)


@given(st.binary(min_size=16, max_size=16), st.floats(0, 1), st.floats(0, 1))
def test_what_is_kept_at_a_ratio_is_kept_at_every_greater_one(trace_id: bytes, one: float, other: float) -> None:
    assert is_kept(trace_id, min(one, other)) <= is_kept(trace_id, max(one, other))


def test_the_ratio_is_a_share_of_the_ids() -> None:
    ids = [bytes(8) + (i * 2**54 + 1).to_bytes(8) for i in range(1024)]
    assert sum(is_kept(trace_id, 0.25) for trace_id in ids) == 256


# --- OTLP ---------------------------------------------------------------------------------------------------


@given(
    ids=st.tuples(
        st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.sampled_from([b"", b"p" * 8])
    ),
    name=TEXTS,
    kind=st.sampled_from(SpanKind),
    moments=st.tuples(MOMENTS, MOMENTS),
    attributes=st.dictionaries(TEXTS, VALUES),
    marks=st.tuples(st.booleans(), st.booleans()),
)
def test_any_span_is_read_as_it_was_meant(
    ids: tuple[bytes, bytes, bytes],
    name: str,
    kind: SpanKind,
    moments: tuple[int, int],
    attributes: dict[str, Value],
    marks: tuple[bool, bool],
) -> None:
    span = Span(*ids, name, kind, *moments, attributes, *marks, state=b"vendor=1")
    body = encode_batch([encode_span(span)], resource={"service.name": name}, scope="s", version="1")
    (read,) = spans_in(body)
    assert (read.trace_id, read.span_id, read.parent_id) == tuple(part.hex() for part in ids)
    assert (read.name, read.kind, read.state) == (name, kind.name, "vendor=1")
    assert (read.start_ns, read.end_ns) == moments
    assert read.attributes == {
        key: list(value) if isinstance(value, tuple) else value for key, value in attributes.items()
    }
    assert {key: type(value) for key, value in read.attributes.items() if not isinstance(value, list)} == {
        key: type(value) for key, value in attributes.items() if not isinstance(value, tuple)
    }
    assert (read.is_error, bool(read.flags & 0x200)) == marks
    assert read.flags & 0x101 == 0x101
    assert read.resource == {"service.name": name}


def test_a_batch_is_written_as_the_reference_writes_it() -> None:
    span = Span(b"t" * 16, b"s" * 8, b"p" * 8, "chat m", SpanKind.SERVER, 1, 2, {"a": 1, "b": ("x",)}, is_error=True)
    body = encode_batch([encode_span(span)] * 3, resource={"service.name": "simsa"}, scope="simsa", version="0.1")
    message = ExportTraceServiceRequest.FromString(body)
    assert len(message.resource_spans[0].scope_spans[0].spans) == 3
    assert message.SerializeToString(deterministic=True) == ExportTraceServiceRequest.FromString(
        message.SerializeToString()
    ).SerializeToString(deterministic=True)
    assert len(message.SerializeToString()) == len(body), "nothing is in it that the definitions do not know"


def test_what_is_not_known_is_not_said_and_odd_text_is_not_fatal() -> None:
    span = Span(b"t" * 16, b"s" * 8, b"", "n", SpanKind.CLIENT, 1, 2, {"none": None, "odd": "\ud800"})
    (read,) = spans_in(encode_batch([encode_span(span)], resource={}, scope="s", version="1"))
    assert read.attributes == {"odd": "?"}


@given(st.integers(0, 2**63 - 1), TEXTS)
def test_how_many_spans_were_rejected_is_read(rejected: int, words: str) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = words
    assert read_rejected(answer.SerializeToString()) == rejected


@given(st.binary())
def test_any_other_answer_rejects_a_number_of_spans_or_none(answer: bytes) -> None:
    assert read_rejected(answer) >= 0
