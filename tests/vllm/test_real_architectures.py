"""Each architecture of the candidates on real vLLM, through the gateway: one candidate for each different stand-in.

What a test shows stands in its `shows` mark and becomes a column of docs/candidates.md. Random weights say nothing of
quality and hardly ever emit a tag, so a parser is known by where it puts the text.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from architectures_shown import CANDIDATES, EYES, PARSERS, SWITCHES
from clients import RawClient
from doors import CHAT, Door, text_of
from real_engines import HYBRID, LLAMA, MAX_MODEL_LEN, RealEngine, RealEngines, gateway_before, until_running

from gateway.checkpoints.tokenizer import IMAGE, tokenizer_vocabulary
from gateway.domain.records import CallStatus, Provenance

LIMIT = 24
QUESTION = "전입신고는 어떻게 하나요? 뷁 🙂"
WITH_USAGE = {"stream_options": {"include_usage": True}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["방문", "온라인"]}},
    "required": ["ok", "kind"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "find_office", "strict": True, "parameters": SCHEMA}}
THINKS_UNTIL_TOLD = ("deepseek_r1",)
"""Reasoning parsers for which a whole answer without an end tag is reasoning, whatever the prompt says."""

everyone = pytest.mark.parametrize("model_id", list(CANDIDATES))


@pytest.fixture
def engine(engines: RealEngines, model_id: str) -> RealEngine:
    return engines[model_id]


@pytest.fixture
async def door(tmp_path: Path, engine: RealEngine) -> AsyncIterator[Door]:
    async with gateway_before(tmp_path, engine) as gateway, RawClient(gateway.url) as client:
        yield Door(gateway, client)


def ask(model_id: str, **changes: Any) -> dict[str, Any]:
    """The same question, its answer fixed and of LIMIT tokens.

    By a seed, not by temperature 0: the likeliest token of random weights is always the same, also in a grammar.
    """
    turns = [{"role": "user", "content": QUESTION}]
    fixed = {"max_tokens": LIMIT, "ignore_eos": True, "temperature": 1, "seed": 7}
    return {"model": model_id, "messages": turns, **fixed, **changes}


def free(model_id: str, **changes: Any) -> dict[str, Any]:
    """A question whose answer ends where its grammar says."""
    return ask(model_id, **{"max_tokens": 400, "ignore_eos": False, **changes})


def message_of(answer: Any) -> dict[str, Any]:
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


def has_the_schemas_form(text: str) -> None:
    value = json.loads(text)
    assert set(value) == {"ok", "kind"}
    assert isinstance(value["ok"], bool)
    assert value["kind"] in SCHEMA["properties"]["kind"]["enum"]


# --- answers and their usage --------------------------------------------------------------------------------


@pytest.mark.shows("chat")
@everyone
async def test_a_whole_and_a_streamed_chat_say_the_same_and_count_the_same(door: Door, model_id: str) -> None:
    whole = await door.answered(ask(model_id))
    events = await door.streamed(ask(model_id, stream=True, **WITH_USAGE))
    usage = next(event["usage"] for event in events if event.get("usage"))
    for counted in (whole["usage"], usage):
        assert counted["completion_tokens"] == LIMIT
        assert counted["prompt_tokens"] == whole["usage"]["prompt_tokens"] > len(QUESTION)
    message = message_of(whole)
    said = (message.get("reasoning") or "") + (message["content"] or "")
    assert said == text_of(events, "reasoning") + text_of(events)
    calls = await door.gateway.calls(2)
    assert {call.opened.streamed for call in calls} == {False, True}
    for call in calls:
        assert (call.status, call.finish_reason, call.provenance) == (CallStatus.OK, "length", Provenance.STAND_IN)
        assert (call.usage.source, call.usage.completion_tokens) == ("engine", LIMIT)
        assert call.usage.prompt_tokens == usage["prompt_tokens"]


@pytest.mark.shows("logprobs")
@everyone
async def test_every_token_of_a_stream_comes_with_its_log_probabilities(door: Door, model_id: str) -> None:
    events = await door.streamed(ask(model_id, stream=True, logprobs=True, top_logprobs=2))
    choices = [choice for event in events for choice in event["choices"] if choice.get("logprobs")]
    tokens = [token for choice in choices for token in choice["logprobs"]["content"]]
    assert len(tokens) == LIMIT
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in tokens)


@pytest.mark.shows("too_long")
@everyone
async def test_a_prompt_that_is_too_long_gets_the_engines_own_400_unchanged(
    door: Door, engine: RealEngine, model_id: str
) -> None:
    body = ask(model_id, messages=[{"role": "user", "content": "가나다라 " * MAX_MODEL_LEN}])
    async with RawClient(engine.url) as client:
        own = await client.request("POST", CHAT, body=body)
    passed = await door.ask(body)
    assert (passed.status, passed.body) == (400, own.body)
    assert "maximum context length" in passed.json()["error"]["message"]
    call = await door.call()
    assert (call.status, call.error_code) == (CallStatus.ERROR, "engine_refused")


# --- reasoning ----------------------------------------------------------------------------------------------


@pytest.mark.shows("reasoning_switch")
@pytest.mark.parametrize("model_id", SWITCHES)
async def test_the_reasoning_switch_changes_the_prompt_and_its_default_is_the_registrys(
    door: Door, model_id: str
) -> None:
    switch = CANDIDATES[model_id].reasoning
    assert switch is not None

    async def prompt_tokens(**switches: bool) -> int:
        answer = await door.answered(ask(model_id, chat_template_kwargs=switches))
        count: int = answer["usage"]["prompt_tokens"]
        return count

    on, off = [await prompt_tokens(**{switch.name: value}) for value in (True, False)]
    # Off, the prompt goes on with a line break, the end tag and two more.
    assert off - on == 4
    assert await prompt_tokens() == (on if switch.default == "true" else off)


@pytest.mark.shows("reasoning_parser")
@pytest.mark.parametrize("model_id", PARSERS)
async def test_the_reasoning_parser_tells_thoughts_from_answers_in_a_stream(door: Door, model_id: str) -> None:
    switch = CANDIDATES[model_id].reasoning
    assert switch is not None
    for thinks, full, empty in ((True, "reasoning", "content"), (False, "content", "reasoning")):
        events = await door.streamed(ask(model_id, stream=True, chat_template_kwargs={switch.name: thinks}))
        assert text_of(events, full)
        assert not text_of(events, empty)


@pytest.mark.shows("reasoning_parser")
@pytest.mark.parametrize("model_id", PARSERS)
async def test_a_whole_answer_with_reasoning_off_stands_where_the_parser_puts_it(door: Door, model_id: str) -> None:
    """deepseek_r1 takes a whole answer without an end tag for reasoning, though the prompt has closed it already."""
    model = CANDIDATES[model_id]
    assert model.reasoning is not None
    message = message_of(await door.answered(ask(model_id, chat_template_kwargs={model.reasoning.name: False})))
    full, empty = ("reasoning", "content") if model.reasoning_parser in THINKS_UNTIL_TOLD else ("content", "reasoning")
    assert message[full]
    assert not message[empty]


@pytest.mark.parametrize("model_id", [n for n in PARSERS if CANDIDATES[n].reasoning_parser == "deepseek_v3"])
async def test_a_default_that_the_parser_does_not_know_leaves_thoughts_in_the_content(
    door: Door, model_id: str
) -> None:
    """deepseek_v3 believes only a switch that the request names; K-EXAONE's template thinks without one."""
    message = message_of(await door.answered(ask(model_id)))
    assert message["content"]
    assert not message["reasoning"]


@pytest.mark.parametrize("model_id", [name for name in SWITCHES if name not in PARSERS])
async def test_without_a_parser_thoughts_arrive_as_content(door: Door, model_id: str) -> None:
    switch = CANDIDATES[model_id].reasoning
    assert switch is not None
    message = message_of(await door.answered(ask(model_id, chat_template_kwargs={switch.name: True})))
    assert message["content"]
    assert not message.get("reasoning")


# --- grammars -----------------------------------------------------------------------------------------------


@pytest.mark.shows("tools")
@everyone
async def test_a_named_strict_tool_is_called_with_arguments_of_its_form(door: Door, model_id: str) -> None:
    choice = {"type": "function", "function": {"name": "find_office"}}
    body = reasoning_off(model_id) | free(model_id, tools=[TOOL], tool_choice=choice)
    events = await door.streamed({**body, "stream": True})
    deltas = [call for event in events for choice in event["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert [call["function"]["name"] for call in deltas if call["function"].get("name")] == ["find_office"]
    has_the_schemas_form("".join(call["function"].get("arguments") or "" for call in deltas))
    message = message_of(await door.answered(body))
    if CANDIDATES[model_id].reasoning_parser in THINKS_UNTIL_TOLD:
        assert not message.get("tool_calls")
        assert "find_office" in message["reasoning"]
        return
    (called,) = message["tool_calls"]
    assert called["function"]["name"] == "find_office"
    has_the_schemas_form(called["function"]["arguments"])


@pytest.mark.shows("json_schema")
@everyone
async def test_a_json_schema_gives_json_of_its_form(door: Door, model_id: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
    body = reasoning_off(model_id) | free(model_id, response_format=wanted)
    has_the_schemas_form(text_of(await door.streamed({**body, "stream": True})))
    message = message_of(await door.answered(body))
    as_reasoning = CANDIDATES[model_id].reasoning_parser in THINKS_UNTIL_TOLD
    has_the_schemas_form(message["reasoning" if as_reasoning else "content"])
    assert {call.finish_reason for call in await door.gateway.calls(2)} == {"stop"}


def reasoning_off(model_id: str) -> dict[str, Any]:
    """A grammar holds only once reasoning has ended, which random weights never do by themselves."""
    switch = CANDIDATES[model_id].reasoning
    return {"chat_template_kwargs": {switch.name: False}} if switch is not None else {}


# --- leaving, comparing, seeing -----------------------------------------------------------------------------


@pytest.mark.shows("leaving")
@everyone
async def test_a_client_that_leaves_mid_stream_frees_the_engine(
    tmp_path: Path, engine: RealEngine, model_id: str
) -> None:
    long = ask(model_id, max_tokens=MAX_MODEL_LEN - 200, stream=True)
    async with gateway_before(tmp_path, engine) as gateway:
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=long)
            for _ in range(4):
                assert await client.next_event()
            await until_running(engine, 1)
            client.leave()
            await until_running(engine, 0)
        call = await gateway.call()
        assert (call.status, call.usage.source) == (CallStatus.CANCELLED, "counted")
        assert call.usage.completion_tokens is not None
        assert call.usage.completion_tokens < long["max_tokens"]


@pytest.mark.shows("comparison")
@everyone
async def test_it_is_one_side_of_a_comparison(
    tmp_path: Path, engines: RealEngines, engine: RealEngine, model_id: str
) -> None:
    other = engines[HYBRID if model_id == LLAMA else LLAMA]
    params = {"max_tokens": LIMIT, "seed": 7, "ignore_eos": True}
    body = {"models": [other.model_id, model_id], "prompt": QUESTION, "params": params}
    async with gateway_before(tmp_path, other, engine) as gateway, RawClient(gateway.url) as client:
        answer = await client.request("POST", "/api/comparisons", body=body)
    assert answer.status == 200, answer.body
    for side in answer.json()["sides"]:
        assert (side["status"], side["provenance"], side["finish_reason"]) == ("ok", "stand_in", "length")
        assert (side["usage"]["completion_tokens"], side["usage"]["source"]) == (LIMIT, "engine")
        assert side["output"]["content"] or side["output"]["reasoning"]
        assert 0 < side["timing"]["ttft_s"] < side["timing"]["e2e_s"]


@pytest.mark.shows("image")
@pytest.mark.parametrize(("size", "tokens"), [((56, 56), 4), ((300, 80), 14)])
@pytest.mark.parametrize("model_id", EYES)
async def test_an_image_as_a_data_url_takes_its_places_in_the_prompt_and_is_counted(
    door: Door, model_id: str, size: tuple[int, int], tokens: int
) -> None:
    """A token for each 28 x 28 pixels of its resized form. What is in it, random weights are too faint to tell."""
    url = "data:image/png;base64," + base64.b64encode(png(*size, b"\xf0\x80\x10")).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    seen = ask(model_id, messages=[{"role": "user", "content": parts}], return_token_ids=True)
    whole, plain = await door.answered(seen), await door.answered(ask(model_id))
    events = await door.streamed({**seen, "stream": True, **WITH_USAGE})
    assert whole["prompt_token_ids"].count(tokenizer_vocabulary()[IMAGE]) == tokens
    # One more for the line break between image and text.
    assert whole["usage"]["prompt_tokens"] - plain["usage"]["prompt_tokens"] == tokens + 1
    assert events[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert message_of(whole)["content"] == text_of(events)
    assert {call.usage.prompt_tokens for call in await door.gateway.calls(3)} == {
        each["usage"]["prompt_tokens"] for each in (whole, plain)
    }


def png(width: int, height: int, colour: bytes) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + colour * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
