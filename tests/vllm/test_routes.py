"""The routes beyond chat and completions, through the gateway to real vLLM: which it serves, and how it is recorded.

The Llama stand-in generates; a stand-in under the pooling runner embeds, and vLLM reranks and scores with its vectors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import Answer, RawClient
from gateways import RunningGateway
from pooling_engines import PoolingEngines
from real_engines import LLAMA, MORTAL, RealEngine, gateway_before, until_running

from gateway.domain.records import Call, CallStatus, Provenance

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
QUESTION = "전입신고는 어떻게 하나요? 뷁 🙂"
SAID = [{"role": "user", "content": QUESTION}]
TOKENS = 16
# Random weights pick each token about equally often, the end token too; /v1/messages has no ignore_eos.
RESPONSE: dict[str, Any] = {"model": LLAMA, "input": QUESTION, "max_output_tokens": TOKENS, "ignore_eos": True}
MESSAGE: dict[str, Any] = {"model": LLAMA, "messages": SAID, "max_tokens": TOKENS}
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@dataclass
class Door:
    gateway: RunningGateway
    client: RawClient

    async def ask(self, path: str, body: dict[str, Any]) -> Answer:
        return await self.client.request("POST", path, body=body)

    async def answered(self, path: str, body: dict[str, Any]) -> Any:
        answer = await self.ask(path, body)
        assert answer.status == 200, answer.body
        return answer.json()

    async def streamed(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The data of every event; their names must say the same."""
        answer = await self.ask(path, {**body, "stream": True})
        assert answer.status == 200, answer.body
        events = []
        for event in answer.body.decode().split("\n\n")[:-1]:
            name, data = event.split("\n")
            events.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {events[-1]['type']}"
        return events

    async def call(self) -> Call:
        return await self.gateway.call()


@pytest.fixture
async def door(tmp_path: Path, llama: RealEngine) -> AsyncIterator[Door]:
    async with gateway_before(tmp_path, llama) as gateway, RawClient(gateway.url) as client:
        yield Door(gateway, client)


@pytest.fixture(scope="module")
def embedder(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with PoolingEngines(tmp_path_factory.mktemp("pooling")) as engines:
        yield engines[MORTAL]


@pytest.fixture
async def pooling(tmp_path: Path, embedder: RealEngine) -> AsyncIterator[Door]:
    async with gateway_before(tmp_path, embedder) as gateway, RawClient(gateway.url) as client:
        yield Door(gateway, client)


# --- /v1/responses ------------------------------------------------------------------------------------------


async def test_a_whole_response_is_recorded_with_the_engines_usage(door: Door) -> None:
    body = await door.answered(RESPONSES, RESPONSE)
    assert (body["model"], body["status"]) == (LLAMA, "incomplete")
    call = await door.call()
    assert (call.status, call.opened.endpoint, call.finish_reason) == (CallStatus.OK, "responses", "max_output_tokens")
    assert (call.usage.prompt_tokens, call.usage.completion_tokens) == (body["usage"]["input_tokens"], TOKENS)
    assert (call.usage.source, call.provenance) == ("engine", Provenance.STAND_IN)


async def test_a_streamed_response_has_its_tokens_timed_and_its_usage_at_the_end(door: Door) -> None:
    events = await door.streamed(RESPONSES, RESPONSE)
    deltas = [event for event in events if event["type"] == "response.output_text.delta" and event["delta"]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    call = await door.call()
    assert (call.status, call.finish_reason) == (CallStatus.OK, "max_output_tokens")
    assert call.timing.token_events == len(deltas)
    assert call.timing.ttft_s is not None
    assert call.timing.tpot_s is not None
    usage = events[-1]["response"]["usage"]
    assert (call.usage.prompt_tokens, call.usage.completion_tokens) == (usage["input_tokens"], TOKENS)


async def test_a_response_is_continued_and_asked_for_where_it_is_kept(door: Door) -> None:
    first = await door.answered(RESPONSES, RESPONSE)
    second = await door.answered(RESPONSES, {**RESPONSE, "previous_response_id": first["id"]})
    assert second["previous_response_id"] == first["id"]
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    kept = await door.client.request("GET", f"{RESPONSES}/{second['id']}")
    assert kept.json() == second
    for path in (f"{RESPONSES}/resp_nobody", f"{RESPONSES}/{first['id'][:-1]}"):
        assert (await door.client.request("GET", path)).status == 404


async def test_work_in_the_background_can_be_cancelled(door: Door) -> None:
    begun = await door.answered(RESPONSES, {**RESPONSE, "max_output_tokens": 900, "background": True})
    assert begun["status"] == "queued"
    cancelled = await door.client.request("POST", f"{RESPONSES}/{begun['id']}/cancel")
    assert (cancelled.status, cancelled.json()["status"]) == (200, "cancelled")
    call = await door.call()
    assert (call.finish_reason, call.usage.source) == ("queued", "unknown")


async def test_a_stream_from_the_background_can_be_taken_up_again(door: Door) -> None:
    events = await door.streamed(RESPONSES, {**RESPONSE, "background": True})
    name = events[0]["response"]["id"]
    again = await door.client.request("GET", f"{RESPONSES}/{name}?stream=true&starting_after=3")
    assert again.body.count(b"event: ") == len(events) - 4
    assert b"response.completed" in again.body


async def test_a_tool_call_of_a_response_is_timed(door: Door) -> None:
    tool = {"type": "function", "name": "find_office", "strict": True, "parameters": SCHEMA}
    ask = {**RESPONSE, "max_output_tokens": 200, "ignore_eos": False, "tools": [tool], "tool_choice": "required"}
    events = await door.streamed(RESPONSES, ask)
    arguments = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert arguments
    assert (await door.call()).timing.token_events == len([text for text in arguments if text])


@pytest.mark.parametrize(
    ("path", "ask", "events"), [(RESPONSES, RESPONSE, 6), (MESSAGES, MESSAGE, 4)], ids=["responses", "messages"]
)
async def test_a_client_that_leaves_frees_real_vllm(
    door: Door, llama: RealEngine, path: str, ask: dict[str, Any], events: int
) -> None:
    limit = {"max_output_tokens": 900} if path == RESPONSES else {"max_tokens": 900}
    async with RawClient(door.gateway.url) as client:
        await client.start("POST", path, body={**ask, **limit, "stream": True})
        for _ in range(events):
            await client.next_event()
        client.leave()
    await until_running(llama, 0)
    call = await door.call()
    assert (call.status, call.usage.source) == (CallStatus.CANCELLED, "counted")


# --- /v1/messages -------------------------------------------------------------------------------------------


async def test_a_whole_message_is_recorded_with_the_engines_usage(door: Door) -> None:
    body = await door.answered(MESSAGES, MESSAGE)
    assert (body["type"], body["model"]) == ("message", LLAMA)
    call = await door.call()
    assert (call.status, call.opened.endpoint, call.finish_reason) == (CallStatus.OK, "messages", body["stop_reason"])
    usage = body["usage"]
    assert (call.usage.prompt_tokens, call.usage.completion_tokens) == (usage["input_tokens"], usage["output_tokens"])


async def test_a_streamed_message_has_its_tokens_timed_and_its_usage(door: Door) -> None:
    events = await door.streamed(MESSAGES, MESSAGE)
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    deltas = [event for event in events if event["type"] == "content_block_delta"]
    call = await door.call()
    assert (call.status, call.finish_reason) == (CallStatus.OK, events[-2]["delta"]["stop_reason"])
    assert call.timing.token_events == len(deltas)
    usage = events[-2]["usage"]
    assert call.usage.prompt_tokens == events[0]["message"]["usage"]["input_tokens"] == usage["input_tokens"]
    assert call.usage.completion_tokens == usage["output_tokens"]


async def test_a_tool_call_of_a_message_is_timed(door: Door) -> None:
    tool = {"name": "find_office", "strict": True, "input_schema": SCHEMA}
    ask = {**MESSAGE, "max_tokens": 200, "tools": [tool], "tool_choice": {"type": "any"}}
    events = await door.streamed(MESSAGES, ask)
    parts = [e["delta"]["partial_json"] for e in events if e.get("delta", {}).get("type") == "input_json_delta"]
    assert parts
    assert (await door.call()).timing.token_events == len([part for part in parts if part])


async def test_refusals_of_messages_have_anthropics_envelope(door: Door) -> None:
    for body in ({**MESSAGE, "max_tokens": 10_000}, {**MESSAGE, "max_tokens": "many"}, {**MESSAGE, "messages": 7}):
        answer = await door.ask(MESSAGES, body)
        assert answer.status == 400
        assert answer.json()["type"] == "error"
        assert set(answer.json()["error"]) == {"type", "message"}


async def test_a_messages_tokens_are_counted_as_they_are_prompted(door: Door) -> None:
    body = {"model": LLAMA, "messages": SAID}
    counted = await door.answered("/v1/messages/count_tokens", body)
    tokenized = await door.answered("/tokenize", body)
    assert counted["input_tokens"] == tokenized["count"]


# --- tokens -------------------------------------------------------------------------------------------------


async def test_korean_goes_through_tokens_and_back(door: Door) -> None:
    there = await door.answered("/tokenize", {"model": LLAMA, "prompt": QUESTION})
    assert there["count"] == len(there["tokens"])
    back = await door.answered("/detokenize", {"model": LLAMA, "tokens": there["tokens"]})
    assert back["prompt"].removeprefix("<|start|>") == QUESTION
    calls = await door.gateway.calls(2)
    assert {(call.status, call.opened.endpoint) for call in calls} == {
        (CallStatus.OK, "tokenize"),
        (CallStatus.OK, "detokenize"),
    }


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/rerank", "/v1/score", "/score"])
async def test_a_generating_engine_has_no_pooling_routes(door: Door, path: str) -> None:
    answer = await door.ask(path, {"model": LLAMA, "input": "a", "query": "a", "documents": ["b"]})
    assert answer.status == 404
    assert "no such route" in answer.json()["error"]["message"]


# --- an engine that embeds ----------------------------------------------------------------------------------


async def test_embeddings_come_with_their_usage(pooling: Door) -> None:
    body = await pooling.answered("/v1/embeddings", {"model": MORTAL, "input": [QUESTION, "하나"], "stream": True})
    assert [len(item["embedding"]) for item in body["data"]] == [128, 128]
    call = await pooling.call()
    assert (call.status, call.opened.endpoint, call.provenance) == (CallStatus.OK, "embeddings", Provenance.STAND_IN)
    assert call.usage.prompt_tokens == body["usage"]["prompt_tokens"] > 0
    assert call.timing.ttft_s is None


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_documents_are_ordered_by_relevance(pooling: Door, path: str) -> None:
    ask = {"model": MORTAL, "query": "전입신고", "documents": ["주민센터", "전입신고", "날씨"], "top_n": 2}
    results = (await pooling.answered(path, ask))["results"]
    scores = [result["relevance_score"] for result in results]
    assert len(results) == 2
    assert results[0]["document"]["text"] == "전입신고"
    assert scores == sorted(scores, reverse=True)
    assert (await pooling.call()).opened.endpoint == "rerank"


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
async def test_pairs_are_scored(pooling: Door, path: str) -> None:
    body = await pooling.answered(path, {"model": MORTAL, "text_1": "전입신고", "text_2": ["전입신고", "날씨"]})
    same, other = (item["score"] for item in body["data"])
    assert same > other
    assert (await pooling.call()).usage.prompt_tokens == body["usage"]["prompt_tokens"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", RESPONSES, MESSAGES])
async def test_an_embedding_engine_has_no_generating_routes(pooling: Door, path: str) -> None:
    answer = await pooling.ask(path, {**MESSAGE, **RESPONSE, "model": MORTAL, "prompt": "a", "stream": True})
    assert answer.status == 404
    assert "no such route" in answer.json()["error"]["message"]


# --- the official client ------------------------------------------------------------------------------------


async def test_the_openai_client_makes_responses(door: Door) -> None:
    def use() -> None:
        limits: dict[str, Any] = {"max_output_tokens": TOKENS, "extra_body": {"ignore_eos": True}}
        with openai.OpenAI(base_url=f"{door.gateway.url}/v1", api_key="none", max_retries=0) as client:
            whole = client.responses.create(model=LLAMA, input=QUESTION, **limits)
            assert whole.usage is not None
            assert whole.usage.output_tokens == TOKENS
            assert client.responses.retrieve(whole.id).output_text == whole.output_text
            with client.responses.stream(model=LLAMA, input=QUESTION, **limits) as stream:
                text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
                assert text == stream.get_final_response().output_text
            with pytest.raises(openai.BadRequestError, match="max_output_tokens"):
                client.responses.create(model=LLAMA, input=QUESTION, max_output_tokens=10_000)

    await asyncio.to_thread(use)


async def test_the_openai_client_makes_embeddings(pooling: Door) -> None:
    def use() -> None:
        with openai.OpenAI(base_url=f"{pooling.gateway.url}/v1", api_key="none", max_retries=0) as client:
            vectors = client.embeddings.create(model=MORTAL, input=["하나", "둘"])
            assert [len(each.embedding) for each in vectors.data] == [128, 128]

    await asyncio.to_thread(use)
