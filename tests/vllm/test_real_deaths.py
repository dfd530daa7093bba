"""Real vLLM that is killed or told to stop while it streams, and comes back; and one that dies of its first request."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from clients import RawClient
from gateways import RunningGateway, entry, running_gateway
from real_engines import DOOMED, MAX_MODEL_LEN, MORTAL, RealEngine, RealEngines, gateway_before

from gateway.domain.records import CallStatus

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "안녕하세요"}]
SHORT: dict[str, Any] = {"model": MORTAL, "messages": QUESTION, "max_tokens": 8, "ignore_eos": True}
LONG = {**SHORT, "max_tokens": MAX_MODEL_LEN - 100, "stream": True}


async def test_kill_9_mid_stream_is_one_error_and_the_engine_is_used_again_when_it_is_back(
    tmp_path: Path, engines: RealEngines, mortal: RealEngine
) -> None:
    async with gateway_before(tmp_path, mortal) as gateway:
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=LONG)
            first = [await client.next_event() for _ in range(8)]
            os.kill(mortal.pid, signal.SIGKILL)
            rest = [event async for event in client.events()]
        assert all(first)
        assert error_of(rest[-1])["code"] == "upstream_truncated"
        assert [event for event in rest if b'"error"' in event or b"[DONE]" in event] == rest[-1:]
        call = await gateway.call()
        assert (call.status, call.error_code) == (CallStatus.TRUNCATED, "upstream_truncated")
        assert call.usage.source == "counted"
        assert (call.usage.completion_tokens or 0) >= 4

        await gateway.until(lambda: not gateway.services.fleet.live(MORTAL))
        assert await refusal(gateway) == (503, "no_replica")

        await engines.beside(mortal.gone())
        await engines.beside(mortal.start())
        await gateway.until_live(MORTAL)
        async with RawClient(gateway.url) as client:
            answer = await client.request("POST", CHAT, body=SHORT)
        assert answer.status == 200
        assert answer.json()["usage"]["completion_tokens"] == 8


async def test_sigterm_mid_stream_lets_the_stream_end_properly_and_takes_the_replica_out(
    tmp_path: Path, engines: RealEngines, mortal: RealEngine
) -> None:
    """With --shutdown-timeout the work in flight goes on; whatever vLLM does, no client is left without an end."""
    async with gateway_before(tmp_path, mortal) as gateway:
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=LONG)
            for _ in range(8):
                assert await client.next_event()
            os.kill(mortal.pid, signal.SIGTERM)
            rest = [event async for event in client.events()]
        call = await gateway.call()
        if rest[-1] == b"data: [DONE]\n\n":
            assert (call.status, call.finish_reason) == (CallStatus.OK, "length")
            assert call.usage.completion_tokens == LONG["max_tokens"]
        else:
            assert error_of(rest[-1])["code"] == "upstream_truncated"
            assert call.status is CallStatus.TRUNCATED
        await engines.beside(mortal.gone())
        await gateway.until(lambda: not gateway.services.fleet.live(MORTAL))
        assert await refusal(gateway) == (503, "no_replica")


async def test_an_engine_that_is_healthy_and_dies_of_its_first_token_gets_no_calls(
    tmp_path: Path, engines: RealEngines
) -> None:
    doomed = engines.unasked(DOOMED)
    async with running_gateway(tmp_path, [entry(DOOMED, doomed.url)], health_interval_s=60) as gateway:
        (state,) = gateway.services.fleet.states_of(DOOMED)
        await gateway.until(lambda: state.reason != "not looked at yet")
        assert not state.is_up
        assert "healthy, but answered 500 when asked for one token: EngineCore encountered an issue" in state.reason
        assert await refusal(gateway, DOOMED) == (503, "no_replica")
        assert await engines.beside(doomed.gone()) == 0, "vLLM ends by itself, as if nothing had happened"


def error_of(event: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(event.removeprefix(b"data: "))["error"]
    return error


async def refusal(gateway: RunningGateway, model: str = MORTAL) -> tuple[int, str]:
    async with RawClient(gateway.url) as client:
        answer = await client.request("POST", CHAT, body={**SHORT, "model": model})
    return answer.status, answer.json()["error"]["code"]
