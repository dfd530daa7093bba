"""Clients that leave real vLLM: the engine is freed at once, and the record says who went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from real_engines import HYBRID, MAX_MODEL_LEN, RealEngine, gateway_before, until_running

from gateway.domain.records import CallStatus

CHAT, COMPARE = "/v1/chat/completions", "/api/comparisons"
LONG: dict[str, Any] = {
    "model": HYBRID,
    "messages": [{"role": "user", "content": "길게 말해 주세요."}],
    "max_tokens": MAX_MODEL_LEN - 100,
    "ignore_eos": True,
}
"""Seconds of work for the engine."""


@pytest.mark.parametrize("leave", [RawClient.leave, RawClient.reset], ids=["closes", "resets"])
async def test_a_client_that_leaves_mid_stream_frees_the_engine(
    tmp_path: Path, hybrid: RealEngine, leave: Callable[[RawClient], None]
) -> None:
    async with gateway_before(tmp_path, hybrid) as gateway:
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body={**LONG, "stream": True})
            for _ in range(8):
                assert await client.next_event()
            await until_running(hybrid, 1)
            leave(client)
            await until_running(hybrid, 0)
        call = await gateway.call()
        assert call.status is CallStatus.CANCELLED
        assert call.usage.source == "counted"
        assert call.usage.completion_tokens is not None
        assert 4 <= call.usage.completion_tokens < LONG["max_tokens"]
        assert gateway.services.fleet.states_of(HYBRID)[0].in_flight == 0


async def test_a_client_that_leaves_before_a_whole_answer_frees_the_engine(tmp_path: Path, hybrid: RealEngine) -> None:
    async with gateway_before(tmp_path, hybrid) as gateway:
        async with RawClient(gateway.url) as client:
            await client.send("POST", CHAT, body=LONG)
            await until_running(hybrid, 1)
            client.leave()
            await until_running(hybrid, 0)
        call = await gateway.call()
        assert (call.status, call.finish_reason) == (CallStatus.CANCELLED, None)


async def test_a_crowd_that_leaves_frees_the_engine(tmp_path: Path, hybrid: RealEngine) -> None:
    async with gateway_before(tmp_path, hybrid) as gateway, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(gateway.url)) for _ in range(8)]
        for number, client in enumerate(clients):
            await client.send("POST", CHAT, body={**LONG, "stream": number % 2 == 0})
        await until_running(hybrid, len(clients))
        for client in clients:
            client.leave()
        await until_running(hybrid, 0)
        calls = await gateway.calls(len(clients))
        assert {call.status for call in calls} == {CallStatus.CANCELLED}


async def test_leaving_a_comparison_frees_both_engines(tmp_path: Path, llama: RealEngine, hybrid: RealEngine) -> None:
    async with gateway_before(tmp_path, llama, hybrid) as gateway:
        async with RawClient(gateway.url) as client:
            body = {
                "models": [llama.model_id, hybrid.model_id],
                "prompt": "길게 말해 주세요.",
                "params": {"max_tokens": LONG["max_tokens"], "temperature": 0},
                "schedule": "concurrent",
                "stream": True,
            }
            await client.start("POST", COMPARE, body=body)
            await asyncio.gather(until_running(llama, 1), until_running(hybrid, 1))
            client.leave()
            await asyncio.gather(until_running(llama, 0), until_running(hybrid, 0))
        assert {call.status for call in await gateway.calls(2)} == {CallStatus.CANCELLED}
