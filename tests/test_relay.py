"""Streams and whole answers through the gateway: wire bytes in, wire bytes out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from engines import CLOSE, DONE, RESET, Reply, ScriptedEngine, chat_chunk, error_event, usage_chunk
from gateways import entry, running_gateway
from guards import HANG_S

from gateway.domain.records import CallStatus, Usage

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
STREAM = {**ASK, "stream": True}
CLOSED_WITHIN_S = 0.1


def errors_in(stream: bytes) -> list[dict[str, Any]]:
    events = [json.loads(line[6:]) for line in stream.split(b"\n\n") if line.startswith(b'data: {"error"')]
    return [event["error"] for event in events]


async def test_stream_arrives_byte_for_byte_without_the_usage_nobody_asked_for(tmp_path: Path) -> None:
    events = (chat_chunk("", role="assistant"), chat_chunk("안녕"), chat_chunk(finish_reason="stop"))
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(*events, usage_chunk(5, 2), DONE))
        async with RawClient(gateway.url) as client:
            answer = await client.request("POST", CHAT, body={**STREAM, "vendor_field": {"kept": [1.50, None]}})
        assert answer.body == b"".join((*events, DONE))
        assert answer.header("content-type") == "text/event-stream; charset=utf-8"
        assert answer.header("x-accel-buffering") == "no"
        sent = engine.requests_to(CHAT)[0].json()
        assert sent == {**STREAM, "vendor_field": {"kept": [1.5, None]}, "stream_options": {"include_usage": True}}
        call = await gateway.call()
        assert (call.status, call.usage) == (CallStatus.OK, Usage(5, 2, None, None, "engine"))
        assert call.timing.ttft_s is not None
        assert call.finish_reason == "stop"
        assert (call.feasibility, call.feasibility_gpu) == ("unknown", "h100-sxm"), "nothing is known of this model"


async def test_usage_event_reaches_a_client_that_asked(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        async with RawClient(gateway.url) as client:
            body = {**STREAM, "stream_options": {"include_usage": True, "continuous_usage_stats": False}}
            answer = await client.request("POST", CHAT, body=body)
        assert b'"usage":{"prompt_tokens":12' in answer.body
        assert engine.requests_to(CHAT)[0].json() == body


async def test_whole_answer_arrives_byte_for_byte_with_its_facts_in_headers(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        body = (
            b'{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"\\uc548"},'
            b'"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4},"x":1e2}'
        )
        engine.script(CHAT, Reply(pieces=(body,), headers=[("connection", "keep-alive"), ("x-engine", "secret")]))
        async with RawClient(gateway.url) as client:
            answer = await client.request("POST", CHAT, body=ASK, headers=[("x-request-id", "mine-1")])
        assert answer.body == body
        assert answer.header("x-request-id") == "mine-1"
        assert answer.header("x-simsa-model") == "m"
        assert answer.header("x-simsa-attempts") == "1"
        assert answer.header("x-engine") is None, "engine headers do not pass"
        assert engine.requests_to(CHAT)[0].header("x-request-id") == "mine-1"
        call = await gateway.call()
        assert call.opened.request_id == "mine-1"
        assert call.usage == Usage(3, 1, None, None, "engine")
        assert call.timing.ttft_s is None, "a whole answer has no first token to time"
        assert call.timing.e2e_s is not None


async def test_engine_never_sees_the_clients_key_or_encodings(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], admin_key="gate-key") as gateway,
    ):
        await gateway.until_live("m")
        async with RawClient(gateway.url, key="gate-key") as client:
            headers = [("accept-encoding", "gzip"), ("x-simsa-replica", "http://evil"), ("cookie", "a=b")]
            assert (await client.request("POST", CHAT, body=ASK, headers=headers)).status == 200
        seen = dict(engine.requests_to(CHAT)[0].headers)
        assert seen["accept-encoding"] == "identity"
        assert {"authorization", "cookie", "x-simsa-replica"}.isdisjoint(seen)


async def test_model_name_differs_upstream_and_is_ours_downstream(tmp_path: Path) -> None:
    serving = {"kind": "vllm", "served_model_name": "org/weights"}
    async with (
        ScriptedEngine(models=["org/weights"]) as engine,
        running_gateway(tmp_path, [entry("m", engine.url, serving=serving)]) as gateway,
    ):
        await gateway.until_live("m")
        async with RawClient(gateway.url) as client:
            whole = await client.request("POST", CHAT, body=ASK)
            stream = await client.request("POST", CHAT, body=STREAM)
        assert [request.json()["model"] for request in engine.requests_to(CHAT)] == ["org/weights"] * 2
        assert whole.json()["model"] == "m"
        assert b"org/weights" not in stream.body


async def test_each_token_is_forwarded_when_it_comes(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        end = chat_chunk(finish_reason="stop")
        engine.script(CHAT, Reply.stream(chat_chunk("a"), gate, end, DONE))
        async with RawClient(gateway.url) as client:
            assert (await client.start("POST", CHAT, body=STREAM)).status == 200
            assert await client.next_event() == chat_chunk("a")
            gate.set()
            assert await client.rest() == end + DONE


async def test_engine_connection_is_reused(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        async with RawClient(gateway.url) as client:
            for body in (ASK, STREAM, ASK, STREAM, ASK):
                assert (await client.request("POST", CHAT, body=body)).status == 200
        assert engine.connections_made <= 2, "one for the watcher, one for the calls"


@pytest.mark.parametrize("how", ["leave", "reset", "half_close"])
async def test_client_leaving_mid_stream_frees_the_engine(tmp_path: Path, how: str) -> None:
    never = asyncio.Event()
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(chat_chunk("", role="assistant"), chat_chunk("a"), chat_chunk("b"), never))
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=STREAM)
            for _ in range(3):
                await client.next_event()
            left_s = time.monotonic()
            if how == "half_close":
                await client.half_close()
            elif how == "reset":
                client.reset()
            else:
                client.leave()
            request = engine.requests_to(CHAT)[0]
            await asyncio.wait_for(request.closed_by_peer.wait(), HANG_S)
        assert request.closed_by_peer_s is not None
        assert request.closed_by_peer_s - left_s < CLOSED_WITHIN_S
        call = await gateway.call()
        assert call.status is CallStatus.CANCELLED
        assert call.usage == Usage(completion_tokens=2, source="counted")
        assert all(state.in_flight == 0 for state in gateway.services.fleet.states_of("m"))


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("reply", [Reply.hang, Reply.hang_after_head], ids=["before head", "after head"])
async def test_client_leaving_before_the_first_byte_frees_the_engine(
    tmp_path: Path, body: dict[str, Any], reply: Callable[[], Reply]
) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, reply())
        async with RawClient(gateway.url) as client:
            await client.send("POST", CHAT, body=body)
            request = await engine.received(CHAT)
            left_s = time.monotonic()
            client.leave()
            await asyncio.wait_for(request.closed_by_peer.wait(), HANG_S)
        assert request.closed_by_peer_s is not None
        assert request.closed_by_peer_s - left_s < CLOSED_WITHIN_S
        call = await gateway.call()
        assert (call.status, call.usage.source) == (CallStatus.CANCELLED, "unknown")


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_cut_stream_ends_with_one_error_event_and_is_not_retried(tmp_path: Path, end: Any) -> None:
    async with (
        ScriptedEngine() as first,
        ScriptedEngine() as second,
        running_gateway(tmp_path, [entry("m", first.url, second.url)]) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        for engine in (first, second):
            engine.script(CHAT, Reply.stream(chat_chunk("a"), end))
        async with RawClient(gateway.url) as client:
            answer = await client.request("POST", CHAT, body=STREAM)
        assert answer.body.startswith(chat_chunk("a"))
        (error,) = errors_in(answer.body)
        assert error["code"] == "upstream_truncated"
        assert DONE not in answer.body
        assert len(first.requests_to(CHAT)) + len(second.requests_to(CHAT)) == 1
        call = await gateway.call()
        assert (call.status, call.attempts) == (CallStatus.TRUNCATED, 1)
        assert call.usage == Usage(completion_tokens=1, source="counted")


async def test_engines_own_error_event_passes_and_its_done_does_not(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(chat_chunk("a"), error_event("boom"), DONE))
        async with RawClient(gateway.url) as client:
            answer = await client.request("POST", CHAT, body=STREAM)
        assert answer.body == chat_chunk("a") + error_event("boom")
        call = await gateway.call()
        assert call.status is CallStatus.TRUNCATED
        assert (
            call.error_message
            == "The answer was cut: the engine reported an error mid-stream (InternalServerError, 500)."
        )


async def test_dead_replica_is_passed_over_before_the_first_byte(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as dead,
        ScriptedEngine() as alive,
        running_gateway(tmp_path, [entry("m", dead.url, alive.url)], health_interval_s=60) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        await dead.kill()
        async with RawClient(gateway.url) as client:
            answers = [await client.request("POST", CHAT, body=ASK) for _ in range(8)]
        assert {answer.status for answer in answers} == {200}
        assert len(gateway.services.fleet.live("m")) == 1
        assert sorted(int(answer.header("x-simsa-attempts") or 0) for answer in answers)[-1] <= 2


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_failing_replica_is_replaced_before_the_first_byte(tmp_path: Path, status: int) -> None:
    async with (
        ScriptedEngine() as bad,
        ScriptedEngine() as good,
        running_gateway(tmp_path, [entry("m", bad.url, good.url)]) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        bad.script(CHAT, Reply.json({"error": {"message": "no"}}, status=status))
        async with RawClient(gateway.url) as client:
            for _ in range(8):
                assert (await client.request("POST", CHAT, body=STREAM)).status == 200
        calls = await gateway.calls(8)
        assert {call.attempts for call in calls} <= {1, 2}
        assert len(bad.requests_to(CHAT)) == sum(call.attempts == 2 for call in calls)


@pytest.mark.parametrize(
    ("body", "start"),
    [
        (STREAM, Reply.stream(CLOSE)),
        (STREAM, Reply.stream(chat_chunk("a")[:20], RESET)),
        (ASK, Reply(pieces=(b'{"choices": [', RESET, b"..."))),
        (ASK, Reply(pieces=(b'{"choices": [', CLOSE, b"..."))),
    ],
    ids=["stream, nothing", "stream, half an event", "whole, reset", "whole, end"],
)
async def test_engine_that_dies_after_its_head_is_replaced_while_the_client_has_had_nothing(
    tmp_path: Path, body: dict[str, Any], start: Reply
) -> None:
    async with (
        ScriptedEngine() as bad,
        ScriptedEngine() as good,
        running_gateway(tmp_path, [entry("m", bad.url, good.url)], health_interval_s=60) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        bad.script(CHAT, start)
        async with RawClient(gateway.url) as client:
            for _ in range(8):
                assert (await client.request("POST", CHAT, body=body)).status == 200
        calls = await gateway.calls(8)
        assert {call.status for call in calls} == {CallStatus.OK}
        assert sum(call.attempts for call in calls) == 8 + len(bad.requests_to(CHAT))


async def test_engine_that_closes_without_an_answer_gets_a_request_twice_at_most(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], health_interval_s=60) as gateway,
    ):
        await gateway.until_live("m")
        gate = asyncio.Event()
        engine.script(CHAT, Reply.json({"choices": [{"finish_reason": "stop"}]}).gated(gate))
        async with RawClient(gateway.url) as one, RawClient(gateway.url) as two, RawClient(gateway.url) as three:
            clients = [one, two, three]
            for client in clients:
                await client.send("POST", CHAT, body=ASK)
            await engine.received(CHAT, 3)
            gate.set()
            assert [(await client.head()).status for client in clients] == [200] * 3
            engine.script(CHAT, Reply.raw(CLOSE))
            assert (await one.request("POST", CHAT, body=ASK)).status == 502
        assert len(engine.requests_to(CHAT)) == 3 + 2


async def test_neither_a_slow_upload_nor_a_failed_attempt_counts_as_the_gateways_time(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as one,
        ScriptedEngine() as other,
        running_gateway(tmp_path, [entry("m", one.url, other.url)]) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        leap_s, gate = [0.0], asyncio.Event()
        gateway.services.dispatcher.now = lambda: time.perf_counter() + leap_s[0]
        busy = Reply.json({"error": {"message": "no"}}, status=503).gated(gate)
        fine = Reply.json({"choices": [{"finish_reason": "stop"}]})
        replies = iter([busy, fine])
        for engine in (one, other):
            engine.script(CHAT, lambda _request: next(replies))
        body = json.dumps(ASK).encode()
        async with RawClient(gateway.url) as client:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
            await client.send_raw(f"{head}content-length: {len(body)}\r\n\r\n".encode())
            assert b"100 Continue" in await client._reader.readuntil(b"\r\n\r\n")
            leap_s[0] = 100.0
            await client.send_raw(body)
            await gateway.until(lambda: one.requests_to(CHAT) + other.requests_to(CHAT))
            leap_s[0] = 300.0
            gate.set()
            status = (await client.head()).status
        call = await gateway.call()
        assert (status, call.attempts) == (200, 2)
        assert call.timing.overhead_s is not None
        assert call.timing.overhead_s < 100


async def test_engine_shutting_down_is_passed_over(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as bad,
        ScriptedEngine() as good,
        running_gateway(tmp_path, [entry("m", bad.url, good.url)]) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        body = {"error": {"message": "cannot schedule new futures after shutdown", "code": 500}}
        bad.script(CHAT, Reply.json(body, status=500))
        async with RawClient(gateway.url) as client:
            assert {(await client.request("POST", CHAT, body=ASK)).status for _ in range(8)} == {200}


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_engines_refusal_passes_unchanged_and_is_not_retried(tmp_path: Path, status: int) -> None:
    async with (
        ScriptedEngine() as first,
        ScriptedEngine() as second,
        running_gateway(tmp_path, [entry("m", first.url, second.url)]) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        refusal = b'{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}'
        for engine in (first, second):
            engine.script(CHAT, Reply(status=status, pieces=(refusal,)))
        async with RawClient(gateway.url) as client:
            answer = await client.request("POST", CHAT, body=STREAM)
        assert (answer.status, answer.body) == (status, refusal)
        assert len(first.requests_to(CHAT)) + len(second.requests_to(CHAT)) == 1
        call = await gateway.call()
        assert (call.status, call.http_status) == (CallStatus.ERROR, status)
        assert "too long" not in (call.error_message or ""), "an engine's refusal may quote the prompt"


async def test_closed_idle_connection_is_replaced_without_an_attempt(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], health_interval_s=60) as gateway,
    ):
        await gateway.until_live("m")
        async with RawClient(gateway.url) as client:
            assert (await client.request("POST", CHAT, body=ASK)).status == 200
            await engine.kill()
            await engine.start()
            answer = await client.request("POST", CHAT, body=ASK)
            assert (answer.status, answer.header("x-simsa-attempts")) == (200, "1")


async def test_gauges_are_zero_after_any_mix(tmp_path: Path) -> None:
    ok = Reply.stream(chat_chunk("a"), chat_chunk(finish_reason="stop"), DONE)
    replies = [
        ok,
        Reply.stream(chat_chunk("a"), CLOSE),
        Reply.hang(),
        Reply.json({}, status=500),
        Reply.raw(b"junk\r\n\r\n"),
    ]
    async with (
        ScriptedEngine() as engine,
        running_gateway(
            tmp_path, [entry("m", engine.url, timeouts={"first_token_s": 0.3})], breaker_faults=1000
        ) as gateway,
    ):

        async def one(leaves: bool) -> None:
            async with RawClient(gateway.url) as client:
                await client.send("POST", CHAT, body=STREAM)
                if leaves:
                    client.leave()
                else:
                    await client.head()
                    await client.rest()

        for reply in replies:
            await gateway.until_live("m")
            engine.script(CHAT, reply)
            await asyncio.gather(*(one(leaves=i % 4 == 3) for i in range(8)))
        await gateway.until(lambda: not gateway.services.dispatcher.in_flight)
        calls = await gateway.calls(6 * len(replies))
        assert {CallStatus.OK, CallStatus.ERROR, CallStatus.TRUNCATED} <= {call.status for call in calls}
        assert {"upstream_timeout", "upstream_error", "upstream_truncated"} <= {call.error_code for call in calls}
        assert all(state.in_flight == 0 for state in gateway.services.fleet.states_of("m"))
        assert b'simsa_inflight_requests{model="m"} 0.0' in gateway.services.telemetry.render()


async def test_silent_stream_gets_pings_where_they_are_switched_on(tmp_path: Path) -> None:
    before, between = asyncio.Event(), asyncio.Event()
    end = chat_chunk(finish_reason="stop")
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], ping_interval_s=0.02) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(before, chat_chunk("a"), between, end, DONE))
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=STREAM)
            assert await client.next_event() == b": ping\n\n", "after the engine's 200, before its first byte"
            before.set()
            events = [await client.next_event()]
            while events[-1] != chat_chunk("a"):
                events.append(await client.next_event())
            assert await client.next_event() == b": ping\n\n"
            between.set()
            rest = await client.rest()
        assert rest.replace(b": ping\n\n", b"") == end + DONE
        assert (await gateway.call()).status is CallStatus.OK


async def test_client_leaving_a_pinged_stream_frees_the_engine(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], ping_interval_s=0.02) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.hang_after_head())
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=STREAM)
            await client.next_event()
            client.leave()
            await asyncio.wait_for(engine.requests_to(CHAT)[0].closed_by_peer.wait(), HANG_S)
        assert (await gateway.call()).status is CallStatus.CANCELLED
