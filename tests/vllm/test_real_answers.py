"""One question through the gateway to real vLLM: answers, usage, refusals and extras as vLLM 0.32 gives them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import RawClient
from doors import CHAT, COMPLETIONS, Door, text_of
from real_engines import HYBRID, LLAMA, MAX_MODEL_LEN, RealEngine, gateway_before

from gateway.domain.records import CallStatus, Provenance

QUESTION = "전입신고는 어떻게 하나요? 뷁 🙂"
# Random weights pick each token about equally often, the end token too.
LENGTH: dict[str, Any] = {"max_tokens": 16, "ignore_eos": True}
ASK: dict[str, Any] = {"model": LLAMA, "messages": [{"role": "user", "content": QUESTION}], **LENGTH}
STREAM = {**ASK, "stream": True}
WITH_USAGE = {"stream_options": {"include_usage": True}}


@pytest.fixture
async def door(tmp_path: Path, llama: RealEngine, hybrid: RealEngine) -> AsyncIterator[Door]:
    async with (
        gateway_before(tmp_path, llama, hybrid, gpus={LLAMA: "h100-sxm"}) as gateway,
        RawClient(gateway.url) as client,
    ):
        yield Door(gateway, client)


# --- what answers -------------------------------------------------------------------------------------------


async def test_the_model_list_says_stand_in_and_the_engines_own_length(door: Door, llama: RealEngine) -> None:
    listed = (await door.client.request("GET", "/v1/models")).json()["data"]
    assert {model["id"] for model in listed} == {LLAMA, HYBRID}
    for model in listed:
        assert (model["simsa"]["provenance"], model["simsa"]["simulated"]) == ("stand_in", False)
        assert model["max_model_len"] == MAX_MODEL_LEN
    assert str(llama.checkpoint) in {model["root"] for model in listed}


@pytest.mark.parametrize("model", [LLAMA, HYBRID])
async def test_a_whole_chat_is_recorded_with_the_engines_exact_usage(door: Door, model: str) -> None:
    body = await door.answered({**ASK, "model": model})
    assert body["model"] == model
    assert body["choices"][0]["finish_reason"] == "length"
    call = await door.call()
    assert (call.status, call.http_status, call.finish_reason) == (CallStatus.OK, 200, "length")
    assert call.provenance is Provenance.STAND_IN
    assert (call.usage.prompt_tokens, call.usage.completion_tokens) == (body["usage"]["prompt_tokens"], 16)
    assert call.usage.source == "engine"
    assert body["usage"]["completion_tokens"] == 16
    assert call.timing.ttft_s is None
    assert call.timing.e2e_s is not None


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("asked", [{}, WITH_USAGE, {"stream_options": {"include_usage": False}}])
async def test_usage_is_recorded_and_shown_only_to_those_who_ask(door: Door, path: str, asked: dict[str, Any]) -> None:
    events = await door.streamed(question(path) | {"stream": True} | asked, path)
    shown = [event["usage"] for event in events if event.get("usage")]
    call = await door.call()
    assert (call.status, call.usage.source, call.usage.completion_tokens) == (CallStatus.OK, "engine", 16)
    if asked == WITH_USAGE:
        (usage,) = shown
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (call.usage.prompt_tokens, 16)
        assert events[-1]["choices"] == []
    else:
        assert shown == []
        assert all(event["choices"] for event in events)


def question(path: str) -> dict[str, Any]:
    if path == CHAT:
        return ASK
    return {"model": LLAMA, "prompt": QUESTION, **LENGTH}


async def test_a_stream_has_first_token_and_pace(door: Door) -> None:
    events = await door.streamed(STREAM)
    timing = (await door.call()).timing
    assert timing.ttft_s is not None
    assert timing.tpot_s is not None
    assert timing.e2e_s is not None
    assert 0 < timing.ttft_s < timing.e2e_s
    bearing = [event for event in events if text_of([event])]
    assert 1 < timing.token_events == len(bearing) <= 16


async def test_continuous_usage_grows_to_what_the_record_says(door: Door) -> None:
    options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    events = await door.streamed(STREAM | options)
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    call = await door.call()
    assert counts[-1] == call.usage.completion_tokens == 16
    assert call.timing.first_event_source == "running_usage"


async def test_the_token_ids_of_the_stream_are_as_many_as_the_record_says(door: Door) -> None:
    events = await door.streamed(STREAM | {"return_token_ids": True})
    ids = [token for event in events for choice in event["choices"] for token in choice.get("token_ids") or ()]
    prompt_ids = next(event["prompt_token_ids"] for event in events if event.get("prompt_token_ids"))
    call = await door.call()
    assert (call.usage.prompt_tokens, call.usage.completion_tokens) == (len(prompt_ids), len(ids))
    assert len(ids) == 16
    assert call.timing.first_event_source == "token_ids"


async def test_text_completions_are_whole_too(door: Door) -> None:
    body = await door.answered({**question(COMPLETIONS), "model": HYBRID, "max_tokens": 5}, COMPLETIONS)
    assert body["choices"][0]["text"]
    call = await door.call()
    assert (call.opened.endpoint, call.usage.completion_tokens) == ("completions", 5)


# --- Korean -------------------------------------------------------------------------------------------------


async def test_korean_comes_back_as_it_went(door: Door) -> None:
    """Echoed by the engine: through the gateway, its tokenizer, and back."""
    body = await door.answered({"model": LLAMA, "prompt": QUESTION, "max_tokens": 1, "echo": True}, COMPLETIONS)
    assert body["choices"][0]["text"].startswith(QUESTION)


async def test_streamed_korean_is_whole_characters_and_the_same_as_the_whole_answer(door: Door) -> None:
    """Random bytes and syllables: a character may be split over tokens, never over events."""
    fixed = {"temperature": 0, "seed": 7, "max_tokens": 200}
    whole = await door.answered({**ASK, **fixed})
    answer = await door.ask({**STREAM, **fixed})
    events = [json.loads(line[6:]) for line in answer.body.decode("utf-8").split("\n\n") if line.startswith("data: {")]
    text = text_of(events)
    assert text == whole["choices"][0]["message"]["content"]
    assert any("가" <= character <= "힣" for character in text)


# --- limits and refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": [{"role": "user", "content": "가나다라 " * MAX_MODEL_LEN}]}, "maximum context length"),
        ({"max_tokens": MAX_MODEL_LEN + 1}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 7}, "top_p"),
        ({"messages": "안녕"}, "messages"),
    ],
    ids=["too long", "max_tokens", "temperature", "top_p", "messages"],
)
async def test_the_engines_own_400_passes_unchanged(
    door: Door, llama: RealEngine, change: dict[str, Any], words: str, stream: bool
) -> None:
    body = {**ASK, **change, "stream": stream}
    async with RawClient(llama.url) as engine:
        own = await engine.request("POST", CHAT, body=body)
    passed = await door.ask(body)
    assert (passed.status, passed.body) == (own.status, own.body)
    assert passed.status == 400
    error = passed.json()["error"]
    assert error["code"] == 400
    assert words in error["message"] + str(error["param"])
    call = await door.call()
    assert (call.status, call.http_status, call.error_code) == (CallStatus.ERROR, 400, "engine_refused")


@pytest.mark.parametrize("limit", [1, 64])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_has_exactly_as_many_tokens_as_allowed(door: Door, field: str, limit: int) -> None:
    body = {name: value for name, value in ASK.items() if name != "max_tokens"} | {field: limit}
    assert (await door.answered(body))["usage"]["completion_tokens"] == limit


async def test_an_answer_ends_where_the_context_does(door: Door, llama: RealEngine) -> None:
    """vLLM refuses a limit above the context's length, and cuts one that only the prompt makes too large."""
    body = await door.answered({**ASK, "max_tokens": MAX_MODEL_LEN})
    assert body["usage"]["total_tokens"] == MAX_MODEL_LEN
    call = await door.call()
    assert (call.status, call.finish_reason) == (CallStatus.OK, "length")
    assert call.usage.completion_tokens == MAX_MODEL_LEN - (call.usage.prompt_tokens or 0)


# --- vLLM's extras ------------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["방문", "온라인"]}},
    "required": ["ok", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "extra",
    [
        {"structured_outputs": {"json": SCHEMA}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
    ],
    ids=["structured_outputs", "response_format"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_gives_valid_json(door: Door, extra: dict[str, Any], stream: bool) -> None:
    body = {**ASK, **extra, "max_tokens": 200, "ignore_eos": False}
    if stream:
        text = text_of(await door.streamed({**body, "stream": True}))
    else:
        text = (await door.answered(body))["choices"][0]["message"]["content"]
    answer = json.loads(text)
    assert isinstance(answer["ok"], bool)
    assert answer["kind"] in SCHEMA["properties"]["kind"]["enum"]
    assert (await door.call()).finish_reason == "stop"


async def test_a_named_tool_is_called(door: Door) -> None:
    tool = {"type": "function", "function": {"name": "find_office", "strict": True, "parameters": SCHEMA}}
    choice = {"type": "function", "function": {"name": "find_office"}}
    limits = {"max_tokens": 200, "ignore_eos": False}
    body = await door.answered({**ASK, **limits, "tools": [tool], "tool_choice": choice})
    (called,) = body["choices"][0]["message"]["tool_calls"]
    assert called["function"]["name"] == "find_office"
    assert set(json.loads(called["function"]["arguments"])) == {"ok", "kind"}


async def test_log_probabilities_and_unknown_fields_pass(door: Door) -> None:
    extra = {"logprobs": True, "top_logprobs": 2, "min_tokens": 4, "a_field_of_nobody": {"x": [1]}}
    events = await door.streamed({**STREAM, **extra, "chat_template_kwargs": {"enable_thinking": False}})
    tokens = [
        token
        for event in events
        for choice in event["choices"]
        if choice.get("logprobs")
        for token in choice["logprobs"]["content"]
    ]
    assert len(tokens) == 16
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)


@pytest.mark.parametrize("stream", [False, True])
async def test_two_choices_are_two_answers_and_one_record(door: Door, stream: bool) -> None:
    if stream:
        events = await door.streamed({**STREAM, "n": 2})
        ended = {choice["index"] for event in events for choice in event["choices"] if choice["finish_reason"]}
    else:
        ended = {choice["index"] for choice in (await door.answered({**ASK, "n": 2}))["choices"]}
    assert ended == {0, 1}
    call = await door.call()
    assert (call.status, call.usage.completion_tokens) == (CallStatus.OK, 32)


# --- cost ---------------------------------------------------------------------------------------------------


async def test_a_call_costs_its_gpu_time_where_the_registry_knows_the_gpu(door: Door) -> None:
    await door.answered(ASK)
    call = await door.call()
    assert (call.cost.basis, call.cost.currency) == ("gpu_time_provisional", "USD")
    assert call.cost.amount is not None
    assert call.timing.e2e_s is not None
    price = door.gateway.services.registry.current.gpus["h100-sxm"].prices[0].per_hour
    whole_time = price * Decimal(call.timing.e2e_s) / 3600
    assert Decimal("0.5") * whole_time < call.cost.amount <= whole_time * Decimal("1.1")


async def test_the_cost_is_unknown_with_a_reason_where_it_does_not(door: Door) -> None:
    await door.answered({**ASK, "model": HYBRID})
    cost = (await door.call()).cost
    assert (cost.amount, cost.basis) == (None, "unknown")
    assert "GPU" in (cost.reason or "")


# --- the official client ------------------------------------------------------------------------------------

LENGTH_OF_OPENAI: dict[str, Any] = {"max_tokens": 16, "extra_body": {"ignore_eos": True}}
OPENAI: dict[str, Any] = {"model": LLAMA, "messages": ASK["messages"], **LENGTH_OF_OPENAI}


async def test_the_openai_client_streams_and_reads_refusals(door: Door) -> None:
    def use() -> None:
        with openai.OpenAI(base_url=f"{door.gateway.url}/v1", api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(**OPENAI)
            assert whole.usage is not None
            assert whole.usage.completion_tokens == 16
            chunks = list(client.completions.create(model=LLAMA, prompt=QUESTION, stream=True, **LENGTH_OF_OPENAI))
            assert chunks[-1].choices[0].finish_reason == "length"
            with pytest.raises(openai.BadRequestError, match="temperature"):
                client.chat.completions.create(**{**OPENAI, "temperature": -1})

    await asyncio.to_thread(use)
    assert [call.status for call in await door.gateway.calls(3)].count(CallStatus.OK) == 2


async def test_the_async_openai_client_streams_and_reads_refusals(door: Door) -> None:
    async with openai.AsyncOpenAI(base_url=f"{door.gateway.url}/v1", api_key="none", max_retries=0) as client:
        assert {model.id async for model in client.models.list()} == {LLAMA, HYBRID}
        stream = await client.chat.completions.create(**OPENAI, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 16
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        with pytest.raises(openai.BadRequestError, match="maximum context length"):
            await client.chat.completions.create(
                model=LLAMA, messages=[{"role": "user", "content": "가" * 4 * MAX_MODEL_LEN}], max_tokens=1
            )
        with pytest.raises(openai.NotFoundError, match="no-such-model"):
            await client.chat.completions.create(**{**OPENAI, "model": "no-such-model"})
