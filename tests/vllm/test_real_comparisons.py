"""One Korean question to two architectures of real vLLM, through one comparison."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from gateways import RunningGateway
from real_engines import HYBRID, LLAMA, MAX_MODEL_LEN, RealEngine, gateway_before

from gateway.api.schemas import ComparisonOut
from gateway.comparison_client import compare
from gateway.domain.records import CallStatus
from gateway.gateway_client import GatewayDoor
from gateway.prompts import load_prompts

COMPARE = "/api/comparisons"
PROMPT = load_prompts(language="ko")[0].text
LIMIT = 24
ASK: dict[str, Any] = {
    "models": [LLAMA, HYBRID],
    "prompt": PROMPT,
    "params": {"max_tokens": LIMIT, "temperature": 0},
}


@pytest.fixture
async def gateway(tmp_path: Path, llama: RealEngine, hybrid: RealEngine) -> AsyncIterator[RunningGateway]:
    async with gateway_before(tmp_path, llama, hybrid, gpus={LLAMA: "h100-sxm"}) as running:
        yield running


async def whole(gateway: RunningGateway, **changes: Any) -> dict[str, Any]:
    async with RawClient(gateway.url) as client:
        answer = await client.request("POST", COMPARE, body={**ASK, **changes})
    assert answer.status == 200, answer.body
    comparison: dict[str, Any] = answer.json()
    ComparisonOut.model_validate(comparison, strict=False)
    return comparison


def has_every_figure(comparison: dict[str, Any]) -> None:
    for side in comparison["sides"]:
        assert side["status"] == "ok"
        assert side["provenance"] == "stand_in"
        assert side["output"]["content"]
        assert (side["usage"]["completion_tokens"], side["finish_reason"]) == (LIMIT, "length")
        assert side["usage"]["source"] == "engine"
        assert 0 < side["timing"]["ttft_s"] < side["timing"]["e2e_s"]
        assert side["timing"]["tpot_s"] > 0
        assert (side["feasibility"]["verdict"], side["feasibility"]["gpu"]) == ("fits", "h100-sxm")
    costs = {side["model"]: side["cost"] for side in comparison["sides"]}
    assert costs[LLAMA]["basis"] == "gpu_time_provisional"
    assert (costs[HYBRID]["amount"], costs[HYBRID]["basis"]) == (None, "unknown")
    assert costs[HYBRID]["reason"]
    assert comparison["summary"]["provenance"]["value"] == "stand_in"
    assert "not for a verdict" in comparison["summary"]["provenance"]["reason"]


async def test_sides_on_one_host_are_asked_in_turn_and_may_be_compared(gateway: RunningGateway) -> None:
    comparison = await whole(gateway)
    has_every_figure(comparison)
    assert comparison["schedule"] == "sequential"
    assert comparison["timing_comparable"] is True
    assert "one after the other" in comparison["timing_reason"]


async def test_sides_asked_at_once_on_one_host_may_not_be_compared(gateway: RunningGateway) -> None:
    comparison = await whole(gateway, schedule="concurrent")
    has_every_figure(comparison)
    assert comparison["timing_comparable"] is False
    assert "shared the host localhost at the same time" in comparison["timing_reason"]
    assert comparison["summary"]["fastest_first_token"]["model"] is None


async def test_a_streamed_comparison_ends_with_the_object_that_is_stored(gateway: RunningGateway) -> None:
    events = [event async for event in compare(GatewayDoor(gateway.url), {**ASK, "schedule": "concurrent"})]
    kinds = [kind for kind, _ in events]
    assert (kinds.count("side.started"), kinds.count("side.finished")) == (2, 2)
    assert kinds[-1] == "comparison.finished"
    final = events[-1][1]
    has_every_figure(final)
    for number, side in enumerate(final["sides"]):
        deltas = [data for kind, data in events if kind == "side.delta" and data["side"] == number]
        assert "".join(delta.get("content") or "" for delta in deltas) == side["output"]["content"]
    async with RawClient(gateway.url) as client:
        stored = (await client.request("GET", f"{COMPARE}/{final['id']}")).json()
    assert stored["sides"] == final["sides"]
    calls = await gateway.calls(2)
    assert {call.opened.comparison_id for call in calls} == {final["id"]}
    assert {call.provenance.value for call in calls} == {"stand_in"}


async def test_a_prompt_too_long_for_both_ends_each_side_with_the_engines_words(gateway: RunningGateway) -> None:
    comparison = await whole(gateway, prompt="가" * 4 * MAX_MODEL_LEN)
    for side in comparison["sides"]:
        assert side["status"] == "error"
        assert "maximum context length" in side["error"]["message"]
    assert {call.status for call in await gateway.calls(2)} == {CallStatus.ERROR}
