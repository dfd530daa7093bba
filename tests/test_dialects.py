"""The dialects of /v1/responses and /v1/messages as the meter reads them, whatever way the bytes are cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from dialect_shapes import (
    BLOCK_STOP,
    MESSAGE_STOP,
    REPLY_ID,
    block_delta,
    block_start,
    embedding_body,
    message_body,
    message_delta,
    message_start,
    message_stream,
    named,
    rerank_body,
    response_body,
    response_delta,
    response_end,
    response_opening,
    response_stream,
    response_usage,
)
from hypothesis import given
from hypothesis import strategies as st
from test_sse import split

from gateway.domain.dialects import BODIES, Dialect, read_answer
from gateway.domain.dialects.messages import MESSAGES
from gateway.domain.dialects.responses import RESPONSES
from gateway.domain.meter import Meter
from gateway.domain.model_name import Renaming
from gateway.domain.records import Usage

CUTS = st.lists(st.integers(min_value=0), max_size=8)
TRICKY = (
    '","type":"response.completed","response":{"status":"completed"}} {"type":"message_stop"}'
    '\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\ndata: [DONE]\n\n"type":"response.output_text.delta"}'
)


def feed(meter: Meter, *chunks: bytes) -> bytes:
    """Chunk i arrives at moment i + 1; then the stream ends."""
    forwarded = b"".join(meter.feed(chunk, float(i)) for i, chunk in enumerate(chunks, start=1))
    meter.end_of_stream()
    return forwarded


def summary(meter: Meter) -> tuple[Any, ...]:
    return meter.token_events, meter.finish_reason, meter.usage(), meter.is_done, meter.failure


# --- any split ----------------------------------------------------------------------------------------------


@given(st.text(min_size=1), CUTS)
def test_responses_are_read_alike_however_they_are_cut(text: str, cuts: list[int]) -> None:
    events = response_stream([text + TRICKY, "b"], metadata={"type": "response.output_text.delta", "a": TRICKY})
    stream = b"".join(events)
    meter = Meter(RESPONSES)
    assert feed(meter, *split(stream, cuts)) == stream
    assert summary(meter) == (2, "completed", Usage(21, 4, 3, 2, "engine"), True, None)
    assert meter.reply_id == REPLY_ID
    assert meter.events == len(events)


@given(st.text(min_size=1), CUTS)
def test_messages_are_read_alike_however_they_are_cut(text: str, cuts: list[int]) -> None:
    stream = b"".join(message_stream([text + TRICKY, "b"]))
    meter = Meter(MESSAGES)
    assert feed(meter, *split(stream, cuts)) == stream
    assert summary(meter) == (2, "end_turn", Usage(21, 4, None, None, "engine"), True, None)


@given(st.sampled_from(["responses", "messages"]), st.text(), st.booleans(), CUTS)
def test_any_layout_of_the_json_is_read_alike(dialect: str, text: str, sorted_keys: bool, cuts: list[int]) -> None:
    def written(event: bytes) -> bytes:
        data = json.loads(event.partition(b"data: ")[2])
        return b"data: " + json.dumps(data, sort_keys=sorted_keys).encode() + b"\r\n\r\n"

    words = [text, "b", ""]
    of, events = (RESPONSES, response_stream(words)) if dialect == "responses" else (MESSAGES, message_stream(words))
    stream = b"".join(written(event) for event in events)
    meter = Meter(of)
    # A CR ends a line as well, so the last event is whole before an LF that comes alone.
    assert feed(meter, *split(stream, cuts)) in (stream, stream[:-1])
    assert (meter.token_events, meter.is_done) == ((2 if text else 1), True)


@given(st.binary(max_size=200), CUTS, st.sampled_from([RESPONSES, MESSAGES]))
def test_garbage_never_raises_and_never_succeeds(garbage: bytes, cuts: list[int], dialect: Dialect) -> None:
    meter = Meter(dialect)
    feed(meter, *split(b"data: " + garbage + b"\n\n", cuts))
    assert not meter.is_done
    assert meter.failure is not None


# --- tokens and times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "events", "figures"),
    [
        (
            RESPONSES,
            (
                *response_opening(),
                response_delta("음", kind="reasoning_text"),
                response_delta("안"),
                response_delta(""),
                response_delta("{", kind="function_call_arguments"),
                *response_end("안"),
            ),
            (5, 6, 8),
        ),
        (
            MESSAGES,
            (
                message_start(),
                block_start(),
                block_delta("음", kind="thinking"),
                block_delta("3f2a", kind="signature"),
                block_delta("안"),
                block_delta(""),
                block_delta('{"a":', kind="input_json"),
                BLOCK_STOP,
                message_delta(),
                MESSAGE_STOP,
            ),
            (3, 5, 7),
        ),
    ],
    ids=["responses", "messages"],
)
def test_latency_figures_follow_their_definitions(
    dialect: Dialect, events: tuple[bytes, ...], figures: tuple[int, int, int]
) -> None:
    meter = Meter(dialect)
    feed(meter, *events)
    timing = meter.timing(accepted_s=0.0, queue_s=0.0, overhead_s=0.0)
    first, first_output, last = figures
    assert (timing.ttft_s, timing.ttfot_s, timing.e2e_s) == (first, first_output, last)
    assert (timing.token_events, timing.first_event_tokens, timing.first_event_source) == (3, 1, "assumed")
    assert timing.tpot_s == (last - first) / 3
    assert meter.failure is None


def test_log_probabilities_tell_how_many_tokens_the_first_event_has() -> None:
    delta = named({"delta": "ab", "logprobs": [{"token": "a"}, {"token": "b"}], "type": "response.output_text.delta"})
    meter = Meter(RESPONSES)
    feed(meter, *response_opening(), delta, response_delta("c"), *response_end("abc"))
    timing = meter.timing(accepted_s=0, queue_s=0, overhead_s=0)
    assert (timing.first_event_tokens, timing.first_event_source) == (2, "logprobs")


# --- success and failure ------------------------------------------------------------------------------------


CUT_BEFORE = (response_delta("a"), message_delta())
"""The last events of the streams below that end in the middle."""
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "the prompt was: secret"}}
FAILED = response_body("a", status="failed", error={"code": "server_error", "message": "the prompt was: secret"})


@pytest.mark.parametrize(
    ("dialect", "chunks", "is_told"),
    [
        (RESPONSES, (*response_opening(), response_delta("a")), False),
        (RESPONSES, (*response_opening(), response_delta("a"), b"data: [DONE]\n\n"), False),
        (RESPONSES, (*response_opening(), named({"type": "error", "code": "server_error", "message": "secret"})), True),
        (RESPONSES, (*response_opening(), named({"response": FAILED, "type": "response.failed"})), True),
        (RESPONSES, (*response_opening(), *response_end("a", status="cancelled")), True),
        (RESPONSES, (b'event: response.completed\ndata: {"type":"response.completed"}\n\n',), False),
        (MESSAGES, message_stream(["a"])[:-1], False),
        (MESSAGES, (message_start(), block_delta("a"), MESSAGE_STOP), False),
        (MESSAGES, (message_start(), block_delta("a"), message_delta(stop_reason=None), MESSAGE_STOP), False),
        (MESSAGES, (message_start(), block_delta("a"), named(ERROR)), True),
        (MESSAGES, (message_start(), block_delta("a"), b'data: {"error": {"message": "secret"}}\n\n'), True),
    ],
    ids=["cut", "[DONE]", "error", "failed", "cancelled", "no response", "cut", "no stop", "abort", "error", "foreign"],
)
def test_success_needs_the_dialects_own_end(dialect: Dialect, chunks: tuple[bytes, ...], is_told: bool) -> None:
    meter = Meter(dialect)
    forwarded = feed(meter, *chunks)
    assert not meter.is_done
    assert meter.failure is not None
    assert meter.failure.told is is_told
    assert "secret" not in meter.failure.message
    assert (forwarded == b"".join(chunks)) is (is_told or chunks[-1] in CUT_BEFORE)


def test_what_follows_the_end_is_not_forwarded() -> None:
    for dialect, stream in ((RESPONSES, response_stream(["a"])), (MESSAGES, message_stream(["a"]))):
        meter = Meter(dialect)
        assert feed(meter, *stream, b"data: [DONE]\n\n") == b"".join(stream)
        assert meter.is_done


def test_an_answer_cut_at_its_limit_is_whole_and_says_so() -> None:
    for kind in ("completed", "incomplete"):
        meter = Meter(RESPONSES)
        feed(meter, *response_opening(), response_delta("a"), *response_end("a", kind=kind, status="incomplete"))
        assert (meter.finish_reason, meter.is_done) == ("max_output_tokens", True)
    meter = Meter(MESSAGES)
    feed(meter, message_start(), block_delta("a"), message_delta(stop_reason="max_tokens"), MESSAGE_STOP)
    assert (meter.finish_reason, meter.is_done) == ("max_tokens", True)


# --- usage --------------------------------------------------------------------------------------------------


def test_usage_of_a_message_that_was_left_is_counted_where_it_was_not_told() -> None:
    meter = Meter(MESSAGES)
    meter.feed(message_start(), 1.0)
    assert meter.usage() == Usage(21, None, None, None, "counted")
    meter.feed(block_delta("a") + block_delta("b"), 2.0)
    assert meter.usage() == Usage(21, 2, None, None, "counted")
    meter = Meter(MESSAGES)
    meter.feed(message_start(input_tokens=0) + block_delta("a"), 1.0)
    assert meter.usage() == Usage(None, 1, None, None, "counted"), "0 is what engines write before they know"


def test_usage_of_a_message_is_put_together_from_its_beginning_and_its_end() -> None:
    meter = Meter(MESSAGES)
    feed(meter, message_start(), block_delta("a"), message_delta(usage={"output_tokens": 9}), MESSAGE_STOP)
    assert meter.usage() == Usage(21, 9, None, None, "engine")


def test_usage_of_a_response_that_was_left_is_counted() -> None:
    meter = Meter(RESPONSES)
    meter.feed(b"".join(response_opening()) + response_delta("a"), 1.0)
    assert meter.usage() == Usage(completion_tokens=1, source="counted")


def test_usage_of_a_failed_response_is_the_engines() -> None:
    failed = {**FAILED, "usage": response_usage(21, 1)}
    meter = Meter(RESPONSES)
    feed(meter, *response_opening(), response_delta("a"), named({"response": failed, "type": "response.failed"}))
    assert meter.usage() == Usage(21, 1, 3, 2, "engine")
    assert meter.failure is not None
    assert meter.failure.message == "the engine failed on the way (server_error)"


# --- whole answers ------------------------------------------------------------------------------------------


def whole(dialect: Dialect, body: object) -> tuple[Usage, str | None, bool]:
    answer = read_answer(dialect, json.dumps(body).encode())
    return answer.usage, answer.finish_reason, answer.failure is None


@pytest.mark.parametrize(
    ("dialect", "body", "expected"),
    [
        (RESPONSES, response_body("a", usage=response_usage(5, 2)), (Usage(5, 2, 3, 2, "engine"), "completed", True)),
        (RESPONSES, response_body("a", status="incomplete"), (Usage(), "max_output_tokens", True)),
        (RESPONSES, response_body(status="queued"), (Usage(), "queued", True)),
        (RESPONSES, response_body(status="failed"), (Usage(), "failed", False)),
        (RESPONSES, {"hello": "there"}, (Usage(), None, False)),
        (MESSAGES, message_body("a"), (Usage(21, 4, 3, None, "engine"), "end_turn", True)),
        (MESSAGES, message_body("a", stop_reason=None), (Usage(21, 4, 3, None, "engine"), None, False)),
        (MESSAGES, {"type": "message", "usage": 7}, (Usage(), None, False)),
        (BODIES, embedding_body(), (Usage(2, 0, None, None, "engine"), None, True)),
        (BODIES, rerank_body(), (Usage(4, None, None, None, "engine"), None, True)),
        (BODIES, {"tokens": [1, 2], "count": 2}, (Usage(), None, True)),
        (BODIES, {"error": {"message": "no"}}, (Usage(), None, False)),
        (BODIES, [1, 2], (Usage(), None, False)),
    ],
)
def test_whole_answers_are_read(dialect: Dialect, body: object, expected: tuple[Usage, str | None, bool]) -> None:
    assert whole(dialect, body) == expected


# --- the model's name ---------------------------------------------------------------------------------------


def renamed_models(forwarded: bytes, read: Callable[[dict[str, Any]], Any]) -> set[Any]:
    found = (json.loads(event.partition(b"data: ")[2]) for event in forwarded.split(b"\n\n") if b"data: " in event)
    return {read(event) for event in found} - {None}


def test_the_model_is_renamed_in_its_place_and_nowhere_else() -> None:
    renaming = Renaming("org/weights", "ours")
    ask = {"model": "org/weights", "metadata": {"model": "org/weights"}}
    events = (*response_opening(**ask), response_delta('"model":"org/weights"'), *response_end("a", **ask))
    forwarded = feed(Meter(RESPONSES, renaming=renaming), *events)
    assert renamed_models(forwarded, lambda event: event.get("response", {}).get("model")) == {"ours"}
    assert renamed_models(forwarded, lambda e: (e.get("response", {}).get("metadata") or {}).get("model")) == {
        "org/weights"
    }
    assert forwarded.replace(b'"ours"', b'"org/weights"') == b"".join(events), "no other byte has changed"
    events = message_stream(['"model":"org/weights"'], model="org/weights")
    forwarded = feed(Meter(MESSAGES, renaming=renaming), *events)
    assert renamed_models(forwarded, lambda event: event.get("message", {}).get("model")) == {"ours"}
    assert forwarded.replace(b'"ours"', b'"org/weights"') == b"".join(events)


def test_the_model_is_renamed_in_an_event_of_several_lines() -> None:
    event = b'event: message_start\ndata: {"type":"message_start",\ndata: "message":{"model":"theirs"}}\n\n'
    forwarded = Meter(MESSAGES, renaming=Renaming("theirs", "ours")).feed(event, 1.0)
    assert forwarded == event.replace(b"theirs", b"ours")
