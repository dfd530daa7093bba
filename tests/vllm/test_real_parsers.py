"""What real vLLM's reasoning parsers, tool parsers and grammars make of each candidate's answers, through the gateway.

Each stand-in is served with its candidate's own parsers. Random weights hardly ever write a tag and never choose to
call a tool, so the requests see to it that they do; a parser is known by where it puts the text.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from architectures_shown import CANDIDATES, PARSERS, SWITCHES
from doors import Door, text_of
from questions import ask, everyone, message_of, reasoning_off, tokens_of
from real_engines import RealEngine

from gateway.checkpoints.commands import DEFAULT_TOOL_PARSER
from gateway.checkpoints.tokenizer import tokenizer_vocabulary

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["방문", "온라인"]}},
    "required": ["ok", "kind"],
    "additionalProperties": False,
}
LOOSE_TOOL = {"type": "function", "function": {"name": "find_office", "parameters": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "find_office", "strict": True, "parameters": SCHEMA}}
ARGUMENTS = r'\{"ok": (true|false), "kind": "(방문|온라인)"\}'
CALL_AS_WRITTEN = {
    "hermes": r'<tool_call>\{"name": "find_office", "arguments": ' + ARGUMENTS + r"\}</tool_call>",
    "llama3_json": r'\{"name": "find_office", "parameters": ' + ARGUMENTS + r"\}",
}
"""How a model writes a call, by the parser that reads it, as a regular expression."""
SYLLABLES, END_TAG = "가나다라마바사", "</think>"
THINKS_UNTIL_TOLD = ("deepseek_r1",)
"""Reasoning parsers for which a whole answer without an end tag is reasoning, whatever the prompt says."""


def free(model_id: str, **changes: Any) -> dict[str, Any]:
    """A question whose answer ends where its grammar says."""
    return ask(model_id, **{"max_tokens": 400, "ignore_eos": False, **changes})


def has_the_schemas_form(text: str) -> None:
    value = json.loads(text)
    assert set(value) == {"ok", "kind"}
    assert isinstance(value["ok"], bool)
    assert value["kind"] in SCHEMA["properties"]["kind"]["enum"]


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
async def test_the_reasoning_parser_parts_an_answer_at_its_first_end_tag(
    door: Door, engine: RealEngine, model_id: str
) -> None:
    """Answers of a few syllables and the tag, in any order, so that it stands in the middle of some of them.

    Further tags are text: a whole answer keeps them, a stream drops them.
    """
    switch = CANDIDATES[model_id].reasoning
    assert switch is not None
    spoken = dict(zip(await tokens_of(engine, SYLLABLES), SYLLABLES, strict=True))
    spoken[tokenizer_vocabulary()[END_TAG]] = END_TAG
    body = ask(model_id, n=6, allowed_token_ids=list(spoken), chat_template_kwargs={switch.name: True})
    whole = await door.answered({**body, "return_token_ids": True})
    said = ["".join(spoken[token] for token in choice["token_ids"]) for choice in whole["choices"]]
    expected = [(text.partition(END_TAG)[0], text.partition(END_TAG)[2]) for text in said]
    assert any(thoughts and answer for thoughts, answer in expected)
    messages = [choice["message"] for choice in whole["choices"]]
    assert [(message["reasoning"] or "", message["content"] or "") for message in messages] == expected
    events = await door.streamed({**body, "stream": True})
    each = [[event for event in events if event["choices"][0]["index"] == index] for index in range(6)]
    assert [(text_of(one, "reasoning"), text_of(one).replace(END_TAG, "")) for one in each] == [
        (thoughts, answer.replace(END_TAG, "")) for thoughts, answer in expected
    ]


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
    name, arguments = called_in(await door.streamed({**body, "stream": True}))
    assert name == "find_office"
    has_the_schemas_form(arguments)
    message = message_of(await door.answered(body))
    if CANDIDATES[model_id].reasoning_parser in THINKS_UNTIL_TOLD:
        assert not message.get("tool_calls")
        assert "find_office" in message["reasoning"]
        return
    (called,) = message["tool_calls"]
    assert called["function"]["name"] == "find_office"
    has_the_schemas_form(called["function"]["arguments"])


@pytest.mark.shows("tools")
@everyone
async def test_a_call_written_as_its_parser_expects_is_read_as_one_when_the_model_may_choose(
    door: Door, model_id: str
) -> None:
    """Random weights never choose to call, so a grammar has them write a call; nothing but the text tells vLLM so."""
    model = CANDIDATES[model_id]
    written = {"structured_outputs": {"regex": CALL_AS_WRITTEN[model.tool_parser or DEFAULT_TOOL_PARSER]}}
    body = reasoning_off(model_id) | free(model_id, tools=[LOOSE_TOOL], tool_choice="auto", **written)
    events = await door.streamed({**body, "stream": True})
    name, arguments = called_in(events)
    assert name == "find_office"
    has_the_schemas_form(arguments)
    assert not text_of(events)
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    if model.reasoning_parser in THINKS_UNTIL_TOLD:
        return
    (called,) = message_of(await door.answered(body))["tool_calls"]
    assert called["function"]["name"] == "find_office"
    has_the_schemas_form(called["function"]["arguments"])


def called_in(events: list[dict[str, Any]]) -> tuple[str, str]:
    """Name and arguments of the one call that a stream makes, put together from its pieces."""
    deltas = [call for event in events for choice in event["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert {call["index"] for call in deltas} == {0}
    pieces = [(call["function"].get("name") or "", call["function"].get("arguments") or "") for call in deltas]
    return "".join(name for name, _ in pieces), "".join(arguments for _, arguments in pieces)


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
