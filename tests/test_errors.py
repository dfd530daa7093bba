"""Every way a request can fail: its status, its envelope, its headers, and the record it leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from clients import Answer, RawClient
from engines import DONE, Reply, ScriptedEngine, chat_chunk
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S

from gateway.domain.records import CallStatus

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
STREAM = {**ASK, "stream": True}
DEAD = "http://127.0.0.1:9"


def error_of(answer: Answer) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert answer.header("x-request-id")
    error: dict[str, Any] = body["error"]
    return error


async def ask(
    gateway: RunningGateway, body: object = None, *, path: str = CHAT, method: str = "POST", **kw: Any
) -> Answer:
    async with RawClient(gateway.url) as client:
        return await client.request(method, path, body=ASK if body is None else body, **kw)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"{", None, "not valid JSON"),
        (b"", None, "not valid JSON"),
        (b"[1]", None, "JSON object"),
        (b'{"model": "m", "x": "\xff"}', None, "UTF-8"),
        (b'{"model": "m", "x": ' + b"[" * 50_000, None, "nested too deeply"),
        (b'{"messages": []}', "model", "'model' is missing"),
        (b'{"model": 7}', "model", "'model' must be a string, got 7"),
        (b'{"model": "m", "stream": "yes"}', "stream", "true or false"),
        (b'{"model": "m", "n": 0}', "n", "from 1 to 1,024"),
        (b'{"model": "m", "n": true}', "n", "whole number"),
        (b'{"model": "m", "max_tokens": 1.5}', "max_tokens", "whole number"),
        (b'{"model": "m", "stream_options": []}', "stream_options", "an object"),
        (b'{"model": "m", "stream_options": {"include_usage": 1}}', "stream_options.include_usage", "true or false"),
        (b'{"model": "m", "model": "m"}', "model", "more than once"),
        (b'{"model": "m", "stream": true, "mod\\u0065l": "b"}', "model", "more than once"),
        (b'{"model": "m", "max_tokens": 1, "n": 1, "max_tokens": 9}', "max_tokens", "more than once"),
        (b'{"model": "m", "stream_options": {}, "stream_options": {}}', "stream_options", "more than once"),
    ],
)
async def test_bad_body_is_400_and_names_the_field(tmp_path: Path, body: bytes, param: str | None, words: str) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)]) as gateway:
        answer = await ask(gateway, body)
        error = error_of(answer)
        assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
        assert words in error["message"]


async def test_unknown_model_is_404_and_lists_near_names(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("EXAONE-4.0-32B", DEAD)]) as gateway:
        answer = await ask(gateway, {**ASK, "model": "exaone-4.0-32B"})
        error = error_of(answer)
        assert (answer.status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert "EXAONE-4.0-32B" in error["message"]


async def test_model_that_nothing_serves_is_404_with_its_reason_and_not_listed(tmp_path: Path) -> None:
    nobody = {"id": "kaist", "serving": {"kind": "none", "reason": "no model was published"}}
    async with running_gateway(tmp_path, [nobody, {"id": "idle", "serving": {"kind": "vllm"}}]) as gateway:
        assert "no model was published" in error_of(await ask(gateway, {**ASK, "model": "kaist"}))["message"]
        assert "no engine is configured" in error_of(await ask(gateway, {**ASK, "model": "idle"}))["message"]
        assert (await ask(gateway, b"", path="/v1/models", method="GET")).json()["data"] == []
        listed = (await ask(gateway, b"", path="/api/models", method="GET")).json()["data"]
        assert {item["id"]: item["reason"] for item in listed}["kaist"] == "no model was published"


async def test_no_live_replica_is_503_and_recorded(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)]) as gateway:
        answer = await ask(gateway)
        error = error_of(answer)
        assert (answer.status, error["code"], error["type"]) == (503, "no_replica", "server_error")
        assert answer.header("retry-after") == "2"
        call = await gateway.call()
        assert (call.status, call.http_status, call.cost.amount) == (CallStatus.ERROR, 503, None)


@pytest.mark.parametrize("key", [None, "wrong", "", "right-but-longer"])
async def test_missing_or_wrong_key_is_401_with_one_message(tmp_path: Path, key: str | None) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)], admin_key="right") as gateway:
        for path, method in (
            (CHAT, "POST"),
            ("/v1/models", "GET"),
            ("/api/models", "GET"),
            ("/api/comparisons", "POST"),
        ):
            async with RawClient(gateway.url, key=key) as client:
                answer = await client.request(method, path, body=ASK if method == "POST" else b"")
            error = error_of(answer)
            assert (answer.status, error["type"], error["code"]) == (401, "authentication_error", "invalid_api_key")
            assert answer.header("www-authenticate") == "Bearer"
            assert error["message"].startswith("Missing or invalid API key")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/nowhere", 404, "route_not_found"),
        ("GET", "/v1/models/none", 404, "model_not_found"),
    ],
)
async def test_unknown_route_and_method_have_the_envelope(
    tmp_path: Path, method: str, path: str, status: int, code: str
) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)]) as gateway:
        answer = await ask(gateway, b"", path=path, method=method)
        assert (answer.status, error_of(answer)["code"]) == (status, code)


async def test_body_over_the_limit_is_413_and_ten_megabytes_pass(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], max_body_bytes=11_000_000) as gateway,
    ):
        await gateway.until_live("m")
        big = {**ASK, "messages": [{"role": "user", "content": "가" * (10_000_000 // 3)}]}
        assert (await ask(gateway, json.dumps(big, ensure_ascii=False).encode())).status == 200
        assert engine.requests_to(CHAT)[0].json() == big
        too_big = {**ASK, "messages": [{"role": "user", "content": "x" * 12_000_000}]}
        answer = await ask(gateway, too_big)
        assert (answer.status, error_of(answer)["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply.json({"error": "Unauthorized"}, status=401), 502, "upstream_auth"),
        (Reply.json({"detail": "key sk-secret"}, status=403), 502, "upstream_auth"),
        (Reply.json({"error": {"message": "busy"}}, status=429, headers=[("retry-after", "7")]), 503, "upstream_busy"),
        (Reply.json({"error": {"message": "busy"}}, status=503, headers=[("retry-after", "7")]), 503, "upstream_busy"),
        (Reply.json({"error": {"message": "boom"}}, status=500), 502, "upstream_error"),
        (Reply.text("<html>bad gateway</html>", status=502), 502, "upstream_error"),
        (Reply.raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502, "upstream_truncated"),
        (Reply.text("<html>ok</html>", content_type="text/html"), 502, "upstream_error"),
        (Reply.json({"choices": []}), 502, "upstream_error"),
    ],
    ids=["401", "403", "429", "503", "500", "502", "no HTTP", "HTML under 200", "no answer in it"],
)
async def test_engines_failure_becomes_the_gateways(tmp_path: Path, reply: Reply, status: int, code: str) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, reply)
        answer = await ask(gateway)
        error = error_of(answer)
        assert (answer.status, error["code"]) == (status, code)
        assert "secret" not in error["message"]
        if code == "upstream_busy":
            assert answer.header("retry-after") == "7"
        assert (await gateway.call()).status is CallStatus.ERROR


async def test_stream_request_answered_with_something_else_is_502(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({"error": {"message": "no streams today"}}))
        answer = await ask(gateway, STREAM)
        assert answer.status == 502
        assert "no streams today" in error_of(answer)["message"]


async def test_engines_refusal_in_another_shape_gets_the_envelope(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({"detail": "Not Found"}, status=404))
        answer = await ask(gateway)
        assert answer.status == 404
        assert error_of(answer)["message"].startswith("The engine has no such route")


@pytest.mark.parametrize(
    ("body", "reply", "timeouts", "words"),
    [
        (STREAM, Reply.hang, {"first_token_s": 0.1}, "no first token within 0.1 s"),
        (STREAM, Reply.hang_after_head, {"first_token_s": 0.1}, "no first token within 0.1 s"),
        (STREAM, Reply.hang, {"total_s": 0.1}, "no end within 0.1 s"),
        (ASK, Reply.hang, {"total_s": 0.1}, "no end within 0.1 s"),
    ],
)
async def test_silent_engine_is_504(
    tmp_path: Path, body: object, reply: Any, timeouts: dict[str, float], words: str
) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url, timeouts=timeouts)]) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, reply())
        answer = await ask(gateway, body)
        error = error_of(answer)
        assert (answer.status, error["code"]) == (504, "upstream_timeout")
        assert words in error["message"]
        await asyncio.wait_for(engine.requests_to(CHAT)[0].closed_by_peer.wait(), HANG_S)


@pytest.mark.parametrize(
    ("first", "timeouts", "words"),
    [
        (chat_chunk("a"), {"idle_s": 0.1}, "idle for 0.1 s"),
        (chat_chunk("a"), {"total_s": 0.1}, "no end within 0.1 s"),
        (chat_chunk("", role="assistant"), {"first_token_s": 0.1}, "no first token within 0.1 s"),
    ],
    ids=["idle", "total", "role but no token"],
)
async def test_engine_that_falls_silent_mid_stream_ends_it_with_an_error(
    tmp_path: Path, first: bytes, timeouts: dict[str, float], words: str
) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url, timeouts=timeouts)]) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(first, asyncio.Event()))
        answer = await ask(gateway, STREAM)
        assert answer.status == 200
        assert answer.body.startswith(first)
        error = json.loads(answer.body[len(first) :].removeprefix(b"data: "))["error"]
        assert error["code"] == "upstream_timeout"
        assert words in error["message"]
        assert DONE not in answer.body
        call = await gateway.call()
        assert (call.status, call.error_code) == (CallStatus.TRUNCATED, "upstream_timeout")


async def test_unsafe_request_id_is_replaced(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)]) as gateway:
        for given in ("a" * 129, "a b", "<script>", "___prefill_addr_10.0.0.1:5000___decode_addr_10.0.0.2:5000_0"):
            answer = await ask(gateway, b"{", headers=[("x-request-id", given)])
            assert answer.header("x-request-id") not in (None, given)
        answer = await ask(gateway, b"", path="/health", method="GET", headers=[("x-request-id", "mine")])
        assert answer.header("x-request-id") == "mine"


async def test_retries_of_the_openai_client_are_recorded(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)]) as gateway:
        await ask(gateway, headers=[("x-stainless-retry-count", "2")])
        assert (await gateway.call()).opened.client_retry == 2


async def test_docs_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", DEAD)]) as gateway:
        page = await ask(gateway, b"", path="/docs", method="GET")
        assert page.status == 200
        assert b"//cdn" not in page.body
        for asset in (b"swagger-ui-bundle.js", b"swagger-ui.css"):
            assert asset in page.body
        schema = (await ask(gateway, b"", path="/openapi.json", method="GET")).json()
        assert {CHAT, "/v1/models", "/api/comparisons", "/ready"} <= set(schema["paths"])
