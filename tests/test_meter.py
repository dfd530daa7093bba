from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sse import split
from vllm_shapes import DONE, chat_chunk, error_event, text_chunk, usage_body, usage_chunk

from gateway.domain.dialects import read_answer
from gateway.domain.dialects.choices import CHAT, COMPLETIONS
from gateway.domain.meter import Meter
from gateway.domain.model_name import Renaming
from gateway.domain.records import Usage


def feed(meter: Meter, *chunks: bytes) -> bytes:
    """Chunk i arrives at moment i + 1; then the stream ends."""
    forwarded = b"".join(meter.feed(chunk, float(i)) for i, chunk in enumerate(chunks, start=1))
    meter.end_of_stream()
    return forwarded


def test_latency_figures_follow_their_definitions() -> None:
    meter = Meter(CHAT)
    feed(
        meter,
        chat_chunk("", role="assistant"),
        chat_chunk(reasoning="음"),
        chat_chunk("안"),
        chat_chunk("녕"),
        chat_chunk(finish_reason="stop"),
        usage_chunk(5, 4),
        DONE,
    )
    timing = meter.timing(accepted_s=0.5, queue_s=0.0, overhead_s=0.1)
    assert timing.ttft_s == 1.5, "the role-only event is no token"
    assert timing.ttfot_s == 2.5, "the first output token comes after the reasoning"
    assert timing.e2e_s == 3.5
    assert timing.tpot_s == (4 - 2) / (4 - 1)
    assert (timing.token_events, timing.first_event_tokens, timing.first_event_source) == (3, 1, "assumed")
    assert meter.usage() == Usage(5, 4, None, None, "engine")
    assert meter.is_done
    assert meter.failure is None


def test_one_token_has_no_time_per_output_token() -> None:
    meter = Meter(CHAT)
    feed(meter, chat_chunk("a"), chat_chunk(finish_reason="length"), usage_chunk(5, 1), DONE)
    assert meter.timing(accepted_s=0, queue_s=0, overhead_s=0).tpot_s is None


def test_answer_without_a_token_has_no_latency() -> None:
    meter = Meter(CHAT)
    feed(meter, chat_chunk("", role="assistant"), chat_chunk("", finish_reason="stop"), usage_chunk(5, 1), DONE)
    timing = meter.timing(accepted_s=0, queue_s=0, overhead_s=0)
    assert (timing.ttft_s, timing.e2e_s, timing.token_events) == (None, None, 0)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (chat_chunk("ab", usage=usage_body(5, 2)), (2, "running_usage")),
        (
            b'data: {"choices":[{"index":0,"delta":{"content":"ab"},"token_ids":[1,2,3]}]}\n\n',
            (3, "token_ids"),
        ),
        (
            b'data: {"choices":[{"index":0,"delta":{"content":"ab"},'
            b'"logprobs":{"content":[{"token":"a"},{"token":"b"}]}}]}\n\n',
            (2, "logprobs"),
        ),
    ],
)
def test_tokens_of_the_first_event_are_known_where_the_engine_says(first: bytes, expected: tuple[int, str]) -> None:
    meter = Meter(CHAT)
    feed(meter, first, chat_chunk("c"), chat_chunk(finish_reason="stop"), usage_chunk(5, 4), DONE)
    timing = meter.timing(accepted_s=0, queue_s=0, overhead_s=0)
    assert (timing.first_event_tokens, timing.first_event_source) == expected


def test_usage_event_is_withheld_unless_the_client_asked() -> None:
    chunks = (chat_chunk("a"), chat_chunk(finish_reason="stop"), usage_chunk(5, 1), DONE)
    meter = Meter(CHAT, withhold_usage=True)
    assert feed(meter, *chunks) == b"".join((chunks[0], chunks[1], DONE))
    assert meter.usage().completion_tokens == 1
    assert feed(Meter(CHAT), *chunks) == b"".join(chunks)


def test_error_event_followed_by_done_is_a_failure_and_done_is_not_forwarded() -> None:
    meter = Meter(CHAT)
    assert feed(meter, chat_chunk("a"), error_event("boom") + DONE) == chat_chunk("a") + error_event("boom")
    assert meter.failure is not None
    assert meter.failure.told
    assert not meter.is_done


@pytest.mark.parametrize(
    "chunks",
    [
        (chat_chunk("a"),),
        (chat_chunk("a"), chat_chunk(finish_reason="stop")),
        (chat_chunk("a"), DONE),
        (chat_chunk("a"), chat_chunk(finish_reason="abort"), DONE),
        (chat_chunk("a"), b"data: garbage\n\n"),
        (chat_chunk("a"), b"data: [1]\n\n"),
        (b"<html>\n\n",),
    ],
    ids=["cut", "no [DONE]", "no finish_reason", "abort", "no JSON", "no object", "no events"],
)
def test_success_needs_a_finish_reason_and_a_terminator(chunks: tuple[bytes, ...]) -> None:
    meter = Meter(CHAT)
    feed(meter, *chunks)
    assert meter.failure is not None
    assert not meter.failure.told


def test_every_choice_must_finish() -> None:
    meter = Meter(CHAT, choices=2)
    feed(meter, chat_chunk("a"), chat_chunk("b", index=1), chat_chunk(finish_reason="stop"), DONE)
    assert meter.failure is not None
    meter = Meter(CHAT, choices=2)
    feed(meter, chat_chunk(finish_reason="stop"), chat_chunk(finish_reason="length", index=1), DONE)
    assert meter.is_done


def test_cancelled_stream_counts_what_was_seen() -> None:
    meter = Meter(CHAT)
    meter.feed(chat_chunk("a") + chat_chunk("b"), 1.0)
    assert meter.usage() == Usage(completion_tokens=2, source="counted")
    meter.feed(chat_chunk("c", usage=usage_body(5, 7)), 2.0)
    assert meter.usage() == Usage(5, 7, None, None, "counted")


def test_completions_count_text() -> None:
    meter = Meter(COMPLETIONS)
    feed(meter, text_chunk(""), text_chunk("a"), text_chunk("b", finish_reason="stop"), usage_chunk(3, 2), DONE)
    assert (meter.token_events, meter.finish_reason, meter.is_done) == (2, "stop", True)


@given(st.text(), st.lists(st.integers(min_value=0), max_size=8))
def test_text_that_looks_like_protocol_is_only_text(text: str, cuts: list[int]) -> None:
    tricky = text + '","finish_reason":"stop","usage":{"completion_tokens":9},"error":{"message":"x"} data: [DONE]'
    stream = b"".join(
        (chat_chunk(tricky), chat_chunk(tricky), chat_chunk(finish_reason="stop"), usage_chunk(3, 2), DONE)
    )
    meter = Meter(CHAT)
    assert feed(meter, *split(stream, cuts)) == stream
    assert (meter.token_events, meter.failure, meter.finish_reason) == (2, None, "stop")
    assert meter.usage() == Usage(3, 2, None, None, "engine")


@given(st.text(min_size=1))
def test_a_token_event_is_recognised_whatever_its_text(text: str) -> None:
    for ascii_only in (True, False):
        meter = Meter(CHAT)
        body = {"choices": [{"index": 0, "delta": {"content": text}}]}
        meter.feed(b"data: " + json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "replace") + b"\n\n", 1.0)
        assert meter.token_events == 1


def test_tool_calls_are_tokens() -> None:
    meter = Meter(CHAT)
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    meter.feed(chat_chunk(tool_calls=[call]), 1.0)
    assert meter.timing(accepted_s=0, queue_s=0, overhead_s=0).ttfot_s == 1.0


def test_model_is_renamed_once_an_event_and_only_as_a_field() -> None:
    meter = Meter(CHAT, renaming=Renaming("org/weights", "ours"))
    forwarded = meter.feed(chat_chunk('"model":"org/weights"', model="org/weights"), 1.0)
    body = json.loads(forwarded.removeprefix(b"data: "))
    assert body["model"] == "ours"
    assert body["choices"][0]["delta"]["content"] == '"model":"org/weights"'


def test_whole_answer_is_read() -> None:
    body = {
        "choices": [{"finish_reason": "length"}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
    }
    answer = read_answer(CHAT, json.dumps(body).encode())
    assert (answer.usage, answer.finish_reason, answer.failure) == (Usage(3, 9, 2, 4, "engine"), "length", None)
    assert read_answer(CHAT, b"<html>").failure == "The engine answered with something that is no JSON object."
    assert read_answer(CHAT, b'{"usage": {"prompt_tokens": "many"}}').usage.prompt_tokens is None
