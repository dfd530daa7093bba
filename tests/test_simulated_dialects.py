"""The simulated engine in the dialects of /v1/responses and /v1/messages, read by the gateway's own meter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from guards import HANG_S
from servers import serve
from simulated_models import H100, TINY, model_of
from test_simulator import QUESTION, get, opened, post

from gateway.domain.dialects import Dialect
from gateway.domain.dialects.messages import MESSAGES
from gateway.domain.dialects.responses import RESPONSES
from gateway.domain.meter import Meter
from gateway.simulator import create_engine

RESPONSE: dict[str, Any] = {"model": "candidate", "input": QUESTION}
MESSAGE: dict[str, Any] = {"model": "candidate", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 900}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
DIALECTS = {"/v1/responses": (RESPONSES, RESPONSE), "/v1/messages": (MESSAGES, MESSAGE)}


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with serve(create_engine(model_of(TINY, reasons=True), H100, max_model_len=1024, speed=50)) as url:
        yield url


def whole(url: str, path: str, **fields: Any) -> dict[str, Any]:
    status, body = post(url, path, {**DIALECTS[path][1], **fields})
    assert status == 200, body
    return body


def streamed(url: str, path: str, **fields: Any) -> tuple[list[dict[str, Any]], Meter]:
    """The data of every event, and a meter that has read the stream to its end."""
    dialect: Dialect = DIALECTS[path][0]
    with opened(url, {**DIALECTS[path][1], **fields}, path) as response:
        raw = response.read()
    meter = Meter(dialect)
    assert meter.feed(raw, 1.0) == raw
    assert meter.is_done, meter.failure
    events = []
    for event in raw.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events, meter


# --- both ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DIALECTS)
def test_a_stream_says_what_the_whole_answer_and_the_chat_say(engine: str, path: str) -> None:
    _, chat = post(engine, "/v1/chat/completions", {"messages": MESSAGE["messages"]})
    said = chat["choices"][0]["message"]["content"]
    events, meter = streamed(engine, path)
    answer = whole(engine, path)
    if path == "/v1/responses":
        deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        assert answer["output"][0]["content"][0]["text"] == deltas == said
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        final = events[-1]["response"]
        unique = ("id", "created_at", "output")
        assert {k: v for k, v in final.items() if k not in unique} == {
            k: v for k, v in answer.items() if k not in unique
        }
    else:
        deltas = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
        assert answer["content"][0]["text"] == deltas == said
    usage = chat["usage"]
    assert (meter.usage().prompt_tokens, meter.usage().completion_tokens) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    assert meter.finish_reason == ("completed" if path == "/v1/responses" else "end_turn")


@pytest.mark.parametrize(("path", "limit"), [("/v1/responses", "max_output_tokens"), ("/v1/messages", "max_tokens")])
def test_a_limit_cuts_the_answer_and_says_so(engine: str, path: str, limit: str) -> None:
    _, meter = streamed(engine, path, **{limit: 7})
    assert (meter.usage().completion_tokens, meter.finish_reason) == (7, limit)
    whole(engine, path, **{limit: 7})
    status, refused = post(engine, path, {**DIALECTS[path][1], limit: 5000})
    assert status == 400
    assert f"{limit}=5000 cannot be greater than max_model_len=1024" in refused["error"]["message"]


@pytest.mark.parametrize("path", DIALECTS)
def test_reasoning_comes_first_and_apart(engine: str, path: str) -> None:
    events, meter = streamed(engine, path, **THINK)
    timing = meter.timing(accepted_s=0, queue_s=0, overhead_s=0)
    assert timing.ttft_s is not None
    answer = whole(engine, path, **THINK)
    if path == "/v1/responses":
        assert [item["type"] for item in answer["output"]] == ["reasoning", "message"]
        assert answer["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
        kinds = [event["type"] for event in events if event["type"].endswith(".delta")]
        assert kinds == sorted(kinds, reverse=True), "reasoning_text before output_text"
    else:
        assert [block["type"] for block in answer["content"]] == ["thinking", "text"]
        assert sum(event.get("delta", {}).get("type") == "signature_delta" for event in events) == 1


@pytest.mark.parametrize("path", DIALECTS)
def test_a_demanded_tool_is_called_with_valid_arguments(engine: str, path: str) -> None:
    if path == "/v1/responses":
        tool: dict[str, Any] = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
        fields: dict[str, Any] = {"tools": [tool], "tool_choice": {"type": "function", "name": "get_weather"}}
        events, _ = streamed(engine, path, **fields)
        (call,) = whole(engine, path, **fields)["output"]
        given = json.loads(call["arguments"])
        parts = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    else:
        tool = {"name": "get_weather", "input_schema": PARAMETERS}
        fields = {"tools": [tool], "tool_choice": {"type": "any"}}
        events, meter = streamed(engine, path, **fields)
        assert meter.finish_reason == "tool_use"
        (call,) = whole(engine, path, **fields)["content"]
        given = call["input"]
        parts = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    assert call["name"] == "get_weather"
    assert json.loads("".join(parts)) == given
    assert isinstance(given["city"], str)


@pytest.mark.parametrize("path", DIALECTS)
def test_another_model_is_refused_in_the_routes_own_envelope(engine: str, path: str) -> None:
    status, body = post(engine, path, {**DIALECTS[path][1], "model": "other"})
    assert (status, body["error"]["type"]) == (404, "NotFoundError")
    assert (body.get("type") == "error") is (path == "/v1/messages")


# --- each ---------------------------------------------------------------------------------------------------


def test_items_of_a_conversation_are_understood(engine: str) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "네."}]},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "맑음"},
    ]
    longer = whole(engine, "/v1/responses", input=items, instructions="짧게", max_output_tokens=4)
    assert longer["usage"]["input_tokens"] > whole(engine, "/v1/responses")["usage"]["input_tokens"]
    assert longer["instructions"] == "짧게"


def test_blocks_of_a_conversation_are_understood(engine: str) -> None:
    blocks = [
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "맑음"}]},
    ]
    longer = whole(engine, "/v1/messages", messages=blocks, system=[{"type": "text", "text": "짧게"}], max_tokens=4)
    assert longer["usage"]["input_tokens"] > whole(engine, "/v1/messages")["usage"]["input_tokens"]


def test_a_stop_sequence_is_named(engine: str) -> None:
    said = whole(engine, "/v1/messages")["content"][0]["text"]
    cut = whole(engine, "/v1/messages", stop_sequences=[said[10:14]])
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("stop_sequence", said[10:14])


def test_a_schema_is_followed(engine: str) -> None:
    form = {"type": "json_schema", "name": "a", "schema": PARAMETERS}
    answer = whole(engine, "/v1/responses", text={"format": form})
    assert isinstance(json.loads(answer["output"][0]["content"][0]["text"])["city"], str)


def test_no_response_is_kept(engine: str) -> None:
    for path, body in (
        ("/v1/responses", {**RESPONSE, "previous_response_id": "resp_1"}),
        ("/v1/responses/resp_1/cancel", {}),
    ):
        status, refused = post(engine, path, body)
        assert (status, refused["error"]["message"]) == (404, "Response with id 'resp_1' not found.")
    status, refused = post(engine, "/v1/responses", {**RESPONSE, "background": True})
    assert (status, refused["error"]["param"]) == (400, "background")


def test_a_messages_tokens_are_counted_as_they_are_prompted(engine: str) -> None:
    _, counted = post(engine, "/v1/messages/count_tokens", MESSAGE)
    assert counted["input_tokens"] == whole(engine, "/v1/messages", max_tokens=1)["usage"]["input_tokens"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/rerank", "/v1/score", "/score"])
def test_a_generating_engine_has_no_pooling_routes(engine: str, path: str) -> None:
    assert post(engine, path, {"model": "candidate", "input": "a"}) == (404, {"detail": "Not Found"})


def test_the_openai_client_makes_responses(engine: str) -> None:
    with openai.OpenAI(base_url=f"{engine}/v1", api_key="none", max_retries=0, timeout=HANG_S) as client:
        answer = client.responses.create(model="candidate", input=QUESTION)
        with client.responses.stream(model="candidate", input=QUESTION) as stream:
            assert stream.until_done().get_final_response().output_text == answer.output_text
    assert get(engine, "/health") == b""
