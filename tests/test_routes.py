"""Every route of engines through the gateway: its path there, its dialect, its errors, what is recorded."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import Answer, RawClient
from dialect_shapes import (
    MESSAGE_STOP,
    block_delta,
    block_start,
    embedding_body,
    message_body,
    message_start,
    message_stream,
    named,
    rerank_body,
    response_body,
    response_delta,
    response_opening,
    response_stream,
    response_usage,
    score_body,
)
from engines import CLOSE, Reply, ScriptedEngine, error_body
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S

from gateway.api.openai import describe_relay
from gateway.domain.records import CallStatus, Usage
from gateway.endpoints import ENDPOINTS

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
SAID = [{"role": "user", "content": "안녕하세요"}]
RESPONSE: dict[str, Any] = {"model": "m", "input": "안녕하세요", "max_output_tokens": 8, "vendor": {"kept": [1.5]}}
MESSAGE: dict[str, Any] = {"model": "m", "messages": SAID, "max_tokens": 8, "vendor": {"kept": [1.5]}}
SERVING = {"kind": "vllm", "served_model_name": "org/weights"}
DEAD = "http://127.0.0.1:9"

WHOLE: list[tuple[str, str, dict[str, Any], dict[str, Any], Usage]] = [
    (RESPONSES, RESPONSES, RESPONSE, response_body("a", usage=response_usage(5, 2)), Usage(5, 2, 3, 2, "engine")),
    (MESSAGES, MESSAGES, MESSAGE, message_body("a"), Usage(21, 4, 3, None, "engine")),
    ("/v1/messages/count_tokens", "/v1/messages/count_tokens", MESSAGE, {"input_tokens": 5}, Usage()),
    (
        "/v1/embeddings",
        "/v1/embeddings",
        {"input": ["a"], "stream": True},
        embedding_body(),
        Usage(2, 0, source="engine"),
    ),
    ("/v1/rerank", "/v1/rerank", {"query": "q", "documents": ["a"]}, rerank_body(), Usage(4, source="engine")),
    ("/rerank", "/v1/rerank", {"query": "q", "documents": ["a"]}, rerank_body(), Usage(4, source="engine")),
    ("/v1/score", "/score", {"text_1": "q", "text_2": ["a"]}, score_body(), Usage(4, 0, source="engine")),
    ("/score", "/score", {"queries": "q", "documents": ["a"]}, score_body(), Usage(4, 0, source="engine")),
    ("/tokenize", "/tokenize", {"prompt": "a", "n": "any"}, {"count": 1, "max_model_len": 9, "tokens": [7]}, Usage()),
    ("/detokenize", "/detokenize", {"tokens": [7]}, {"prompt": "a"}, Usage()),
]


async def post(gateway: RunningGateway, path: str, body: Any, **options: Any) -> Answer:
    async with RawClient(gateway.url, key=options.pop("key", None)) as client:
        return await client.request("POST", path, body=body, **options)


def test_openapi_describes_every_route() -> None:
    schema = describe_relay({"paths": {}})
    aliases = {"/rerank", "/score"}
    assert set(ENDPOINTS) - aliases | {"/v1/responses/{response_id}", "/v1/responses/{response_id}/cancel"} == set(
        schema["paths"]
    )
    names = [operation["operationId"] for methods in schema["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/models/m", "/v1/models/m"),
        ("/responses/resp_1", "/v1/responses/resp_1"),
        ("/v1/v1/embeddings", "/v1/embeddings"),
        ("/v1/tokenize", "/tokenize"),
        ("/v1/nothing", None),
        ("/modelsaid", None),
    ],
)
async def test_a_path_without_the_v1_of_the_base_url_is_told_the_right_one(
    tmp_path: Path, path: str, other: str | None
) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)]) as gateway:
        answer = await post(gateway, path, {"model": "m"})
        error = answer.json()["error"]
        assert (answer.status, error["code"]) == (404, "route_not_found")
        assert error["message"].endswith(f"Did you mean {other}?" if other else "See /docs.")


# --- whole answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "engine_path", "ask", "body", "usage"), WHOLE, ids=[row[0] for row in WHOLE])
async def test_a_whole_answer_passes_byte_for_byte_and_is_recorded(
    tmp_path: Path, path: str, engine_path: str, ask: dict[str, Any], body: dict[str, Any], usage: Usage
) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        raw = json.dumps(body, indent=1).encode()
        engine.script(engine_path, Reply(pieces=(raw,)))
        answer = await post(gateway, path, {"model": "m", **ask})
        assert (answer.status, answer.body) == (200, raw)
        assert engine.requests_to(engine_path)[0].json() == {"model": "m", **ask}
        call = await gateway.call()
        assert (call.status, call.usage) == (CallStatus.OK, usage)
        assert call.opened.endpoint == ENDPOINTS[path].name
        assert not call.opened.streamed
        assert call.timing.ttft_s is None
        assert call.timing.e2e_s is not None


@pytest.mark.parametrize(("path", "engine_path", "ask", "body", "usage"), WHOLE, ids=[row[0] for row in WHOLE])
async def test_the_model_is_renamed_both_ways(
    tmp_path: Path, path: str, engine_path: str, ask: dict[str, Any], body: dict[str, Any], usage: Usage
) -> None:
    async with (
        ScriptedEngine(models=["org/weights"]) as engine,
        running_gateway(tmp_path, [entry("m", engine.url, serving=SERVING)]) as gateway,
    ):
        await gateway.until_live("m")
        named_there = {**body, "model": "org/weights"} if "model" in body else body
        engine.script(engine_path, Reply.json(named_there))
        answer = await post(gateway, path, {"model": "m", **ask})
        assert answer.json() == {**named_there, **({"model": "m"} if "model" in body else {})}
        assert engine.requests_to(engine_path)[0].json()["model"] == "org/weights"


@pytest.mark.parametrize("body", [b"[1]", b"\x00\x01", b'{"data": [1,}', b'{"error": {"message": "no"}}'])
async def test_an_answer_that_is_none_is_not_passed_on(tmp_path: Path, body: bytes) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script("/v1/embeddings", Reply(pieces=(body,)))
        answer = await post(gateway, "/v1/embeddings", {"model": "m", "input": "a"})
        assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_error")
        assert (await gateway.call()).status is CallStatus.ERROR


async def test_vllms_own_routes_stand_outside_the_base_path(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        model = entry("m") | {"replicas": [{"url": engine.url, "base_path": "/gw/v1"}]}
        engine.script("/gw/v1/models", Reply.json({"object": "list", "data": [{"id": "m", "object": "model"}]}))
        engine.script("/gw/v1/embeddings", Reply.json(embedding_body()))
        engine.script("/tokenize", Reply.json({"count": 1, "tokens": [7]}))
        async with running_gateway(tmp_path, [model]) as gateway:
            await gateway.until_live("m")
            assert (await post(gateway, "/v1/embeddings", {"model": "m", "input": "a"})).status == 200
            assert (await post(gateway, "/tokenize", {"model": "m", "prompt": "a"})).status == 200


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
async def test_a_route_that_the_engine_has_not_is_said_to_be_missing(tmp_path: Path, path: str) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        endpoint = ENDPOINTS[path]
        base = "/v1" if endpoint.is_below_base else ""
        engine.script(base + endpoint.path.decode(), Reply.json({"detail": "Not Found"}, status=404))
        answer = await post(gateway, path, {"model": "m"})
        assert answer.status == 404
        assert answer.json()["error"]["message"].startswith("The engine has no such route")
        assert (await gateway.call()).http_status == 404


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
async def test_every_route_needs_a_model_and_takes_each_field_once(tmp_path: Path, path: str) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)]) as gateway:
        for body, words in ((b"{}", "'model'"), (b'{"model":"m","model":"k"}', "'model' occurs more than once")):
            answer = await post(gateway, path, body)
            assert answer.status == 400
            assert words in answer.json()["error"]["message"]


# --- streams ------------------------------------------------------------------------------------------------

STREAMS = [
    (RESPONSES, RESPONSE, response_stream(["안", "녕"]), "completed", Usage(21, 4, 3, 2, "engine")),
    (MESSAGES, MESSAGE, message_stream(["안", "녕"]), "end_turn", Usage(21, 4, None, None, "engine")),
]


@pytest.mark.parametrize(("path", "ask", "events", "reason", "usage"), STREAMS, ids=["responses", "messages"])
async def test_a_stream_passes_byte_for_byte_and_is_recorded(
    tmp_path: Path, path: str, ask: dict[str, Any], events: tuple[bytes, ...], reason: str, usage: Usage
) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(path, Reply.stream(*events))
        answer = await post(gateway, path, {**ask, "stream": True})
        assert answer.body == b"".join(events)
        assert engine.requests_to(path)[0].json() == {**ask, "stream": True}, "nothing is injected"
        call = await gateway.call()
        assert (call.status, call.finish_reason, call.usage) == (CallStatus.OK, reason, usage)
        assert call.timing.ttft_s is not None
        assert call.timing.token_events == 2


CUTS = [
    (RESPONSES, RESPONSE, (*response_opening(), response_delta("a"))),
    (MESSAGES, MESSAGE, (message_start(), block_start(), block_delta("a"))),
]


@pytest.mark.parametrize(("path", "ask", "events"), CUTS, ids=["responses", "messages"])
async def test_a_cut_stream_ends_with_an_error_event_of_its_dialect(
    tmp_path: Path, path: str, ask: dict[str, Any], events: tuple[bytes, ...]
) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(path, Reply.stream(*events, CLOSE))
        answer = await post(gateway, path, {**ask, "stream": True})
        *passed, last = [event + b"\n\n" for event in answer.body.split(b"\n\n")[:-1]]
        assert tuple(passed) == events
        assert last.startswith(b"event: error\ndata: ")
        told = json.loads(last.partition(b"data: ")[2])
        words = "The answer was cut: the engine closed the connection before its answer was whole."
        if path == RESPONSES:
            assert told.pop("error") == {**{k: told[k] for k in ("message", "param", "code")}, "type": "upstream_error"}
            assert told == {
                "type": "error",
                "sequence_number": len(events),
                "code": "upstream_truncated",
                "message": words,
                "param": None,
            }
        else:
            assert told == {"type": "error", "error": {"type": "api_error", "message": words}}
        call = await gateway.call()
        assert (call.status, call.usage.completion_tokens) == (CallStatus.TRUNCATED, 1)


@pytest.mark.parametrize(("path", "ask", "events"), CUTS, ids=["responses", "messages"])
async def test_the_client_leaving_frees_the_engine(
    tmp_path: Path, path: str, ask: dict[str, Any], events: tuple[bytes, ...]
) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(path, Reply.stream(*events, asyncio.Event()))
        async with RawClient(gateway.url) as client:
            await client.start("POST", path, body={**ask, "stream": True})
            for _ in events:
                await client.next_event()
            left_s = time.monotonic()
            client.leave()
            request = engine.requests_to(path)[0]
            await asyncio.wait_for(request.closed_by_peer.wait(), HANG_S)
        assert request.closed_by_peer_s is not None
        assert request.closed_by_peer_s - left_s < 0.1
        call = await gateway.call()
        assert (call.status, call.usage.completion_tokens, call.usage.source) == (CallStatus.CANCELLED, 1, "counted")


async def test_an_engines_own_error_event_passes_and_fails_the_call(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        error = named({"type": "error", "error": {"type": "internal_error", "message": "the prompt was: secret"}})
        engine.script(MESSAGES, Reply.stream(message_start(), block_delta("a"), error, MESSAGE_STOP))
        answer = await post(gateway, MESSAGES, {**MESSAGE, "stream": True})
        assert answer.body == message_start() + block_delta("a") + error
        call = await gateway.call()
        assert call.status is CallStatus.TRUNCATED
        assert call.error_message == "The answer was cut: the engine reported an error mid-stream (internal_error)."


# --- /v1/messages: errors, keys, headers --------------------------------------------------------------------

REFUSED = [
    ("POST", b"{", [], 400, "invalid_request_error"),
    ("POST", {**MESSAGE, "model": "nobody's"}, [], 404, "not_found_error"),
    ("POST", {**MESSAGE, "messages": [{"content": [{"source": {"type": "url", "url": "http://10.0.0.1"}}]}]}, [], 400,
     "invalid_request_error"),
    ("POST", b"x" * 2001, [], 413, "request_too_large"),
    ("POST", MESSAGE, [], 503, "overloaded_error"),
    ("POST", MESSAGE, [("x-api-key", "wrong"), ("authorization", "")], 401, "authentication_error"),
    ("GET", b"", [], 405, "invalid_request_error"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "body", "headers", "status", "kind"), REFUSED, ids=[row[4] for row in REFUSED])
@pytest.mark.parametrize("path", [MESSAGES, "/v1/messages/count_tokens"])
async def test_every_error_of_ours_has_anthropics_envelope(
    tmp_path: Path, path: str, method: str, body: Any, headers: list[tuple[str, str]], status: int, kind: str
) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)], admin_key="k", max_body_bytes=2000) as gateway:
        async with RawClient(gateway.url, key="k") as client:
            answer = await client.request(method, path, body=body, headers=headers)
        assert answer.status == status
        error = answer.json()
        assert (error["type"], error["error"]["type"]) == ("error", kind)
        assert set(error) == {"type", "error"}
        assert set(error["error"]) == {"type", "message"}


async def test_x_api_key_opens_messages_and_nothing_else(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], admin_key="k") as gateway,
    ):
        await gateway.until_live("m")
        engine.script(MESSAGES, Reply.json(message_body("a")))
        key = [("x-api-key", "k")]
        assert (await post(gateway, MESSAGES, MESSAGE, headers=key)).status == 200
        assert (await post(gateway, "/v1/chat/completions", MESSAGE, headers=key)).status == 401
        other = [*key, ("authorization", "Bearer wrong")]
        assert (await post(gateway, MESSAGES, MESSAGE, headers=other)).status == 401, "a bearer that is there counts"
        assert engine.requests_to(MESSAGES)[0].header("x-api-key") is None


async def test_only_the_dialects_own_headers_reach_the_engine(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(MESSAGES, Reply.json(message_body("a")))
        engine.script(RESPONSES, Reply.json(response_body("a")))
        version = ("anthropic-version", "2023-06-01")
        odd = ("anthropic-beta", "\u00e9")
        given = [version, odd, ("openai-beta", "x"), ("x-simsa-replica", "evil")]
        assert (await post(gateway, MESSAGES, MESSAGE, headers=given)).status == 200
        assert (await post(gateway, RESPONSES, RESPONSE, headers=[version])).status == 200
        seen = dict(engine.requests_to(MESSAGES)[0].headers)
        assert seen["anthropic-version"] == "2023-06-01"
        assert {"openai-beta", "x-simsa-replica", "anthropic-beta"}.isdisjoint(seen)
        assert engine.requests_to(RESPONSES)[0].header("anthropic-version") is None


@pytest.mark.parametrize(
    ("refusal", "is_own"),
    [
        ({"type": "error", "error": {"type": "NotFoundError", "message": "no"}}, True),
        (error_body("no", type_="BadRequestError", code=400), False),
        ({"detail": "no"}, False),
    ],
)
async def test_an_engines_refusal_of_a_message_has_anthropics_envelope(
    tmp_path: Path, refusal: dict[str, Any], is_own: bool
) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(MESSAGES, Reply.json(refusal, status=400))
        answer = await post(gateway, MESSAGES, MESSAGE)
        assert answer.status == 400
        kind = "NotFoundError" if is_own else "invalid_request_error"
        assert answer.json() == {"type": "error", "error": {"type": kind, "message": "no"}}


# --- the official client ------------------------------------------------------------------------------------


async def test_the_openai_client_makes_responses_and_embeddings(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        full = response_body("안녕", usage=response_usage(5, 2))
        cut = Reply.stream(*response_opening(), response_delta("안"), CLOSE)
        engine.script(RESPONSES, Reply.json(full), Reply.stream(*response_stream(["안", "녕"])), cut)
        engine.script("/v1/embeddings", Reply.json(embedding_body()))
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            whole = await client.responses.create(model="m", input="안녕하세요")
            assert whole.output_text == "안녕"
            stream = await client.responses.create(model="m", input="안녕하세요", stream=True)
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            assert deltas == ["안", "녕"]
            with pytest.raises(openai.APIError, match="The answer was cut"):
                async for _ in await client.responses.create(model="m", input="안녕하세요", stream=True):
                    pass
            vectors = await client.embeddings.create(model="m", input=["a"], encoding_format="float")
            assert vectors.data[0].embedding == [0.5, -0.25]
            with pytest.raises(openai.NotFoundError, match="of this key is known"):
                await client.responses.create(model="m", input="안녕하세요", previous_response_id="resp_nobody")
