"""Comparisons over real sockets: scripted engines on one side, a raw client on the other, the real app between."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from databases import ScratchDatabase
from engines import CLOSE, DONE, Reply, ScriptedEngine, chat_chunk, error_body, usage_chunk
from gateways import RunningGateway, entry, registry_text, running_gateway
from guards import HANG_S

from gateway.api.deps import Services
from gateway.api.schemas import ComparisonOut, ComparisonPage
from gateway.comparison import ComparisonEvent, Comparisons, Question, Schedule
from gateway.comparison_client import compare
from gateway.domain.accounts import EVERYTHING
from gateway.domain.records import CallStatus
from gateway.errors import UpstreamTimeout, UpstreamTruncated
from gateway.gateway_client import GatewayDoor, GatewayRefused, GatewayUnreachable

CHAT = "/v1/chat/completions"
COMPARE = "/api/comparisons"
CLOSED_WITHIN_S = 0.1
END = chat_chunk(finish_reason="stop")
ASK: dict[str, Any] = {"models": ["a", "b"], "prompt": "전입신고는 어떻게 하나요?"}
STREAM = {**ASK, "stream": True}
Event = tuple[str, dict[str, Any]]


@dataclass
class Bench:
    """Two engines, `a` and `b`, and a gateway in front of them."""

    gateway: RunningGateway
    a: ScriptedEngine
    b: ScriptedEngine
    client: RawClient

    async def ask(self, **changes: Any) -> dict[str, Any]:
        """A whole comparison, which must be answered with 200."""
        answer = await self.client.request("POST", COMPARE, body={**ASK, **changes})
        assert answer.status == 200, answer.body
        whole = answer.json()
        ComparisonOut.model_validate(whole, strict=False)
        return dict(whole)

    async def refused(self, status: int, body: Any) -> dict[str, Any]:
        answer = await self.client.request("POST", COMPARE, body=body)
        assert answer.status == status, answer.body
        assert not self.a.requests_to(CHAT)
        assert not self.b.requests_to(CHAT)
        return dict(answer.json()["error"])

    async def next_event(self) -> Event:
        return parsed(await self.client.next_event())


@asynccontextmanager
async def bench(
    directory: Path, *, hosts: tuple[str, str] = ("node-a", "node-b"), simulated: bool = True, **settings: Any
) -> AsyncIterator[Bench]:
    owner = {"owned_by": "simsa-simulator"} if simulated else {}
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(ScriptedEngine(["a"], **owner))
        b = await stack.enter_async_context(ScriptedEngine(["b"], **owner))
        models = [
            entry("a", replicas=[{"url": a.url, "host": hosts[0]}]),
            entry("b", replicas=[{"url": b.url, "host": hosts[1]}]),
        ]
        gateway = await stack.enter_async_context(running_gateway(directory, models, **settings))
        await gateway.until_live("a", "b")
        client = await stack.enter_async_context(RawClient(gateway.url))
        yield Bench(gateway, a, b, client)


def parsed(event: bytes) -> Event:
    name, data = event.decode().rstrip("\n").split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def said(*words: str, usage: bytes | None = None) -> Reply:
    return Reply.stream(*map(chat_chunk, words), END, usage or usage_chunk(12, len(words)), DONE)


def usage_with_cache(cached: int) -> bytes:
    usage = {"prompt_tokens": 12, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": cached}}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [], "usage": usage}).encode() + b"\n\n"


# --- the object ---------------------------------------------------------------------------------------------


async def test_both_answers_come_back_with_their_figures(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, said("주민센터에 ", "가세요."))
        it.b.script(CHAT, said("정부24에서 ", "하세요."))
        whole = await it.ask(params={"temperature": 0, "seed": 7})
        first, second = whole["sides"]
        assert (first["model"], second["model"]) == ("a", "b")
        assert first["output"] == {"content": "주민센터에 가세요.", "reasoning": None, "tool_calls": None}
        assert second["output"]["content"] == "정부24에서 하세요."
        assert [side["status"] for side in whole["sides"]] == ["ok", "ok"]
        assert first["usage"] == {
            "prompt_tokens": 12,
            "completion_tokens": 2,
            "cached_tokens": None,
            "reasoning_tokens": None,
            "source": "engine",
        }
        assert 0 < first["timing"]["ttft_s"] <= first["timing"]["e2e_s"]
        assert first["cost"]["amount"] is None
        assert first["cost"]["reason"]
        assert first["feasibility"]["verdict"] == "unknown"
        assert first["feasibility"]["reasons"]
        assert first["provenance"] == "simulated"
        assert whole["params"] == {"temperature": 0.0, "max_tokens": 512, "seed": 7}
        assert (whole["stored"], whole["stored_reason"]) == (True, None)


async def test_engines_get_the_question_the_params_and_nothing_else(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        messages = [{"role": "system", "content": "짧게."}, {"role": "user", "content": "안녕", "name": "kim"}]
        params = {"max_tokens": 3, "chat_template_kwargs": {"enable_thinking": False}, "stop": ["끝"]}
        body = {"models": ["a", "b"], "messages": messages, "params": params}
        assert (await it.client.request("POST", COMPARE, body=body)).status == 200
        for name, engine in (("a", it.a), ("b", it.b)):
            sent = engine.requests_to(CHAT)[0].json()
            asked = {"model": name, "messages": messages, **params}
            assert sent == {**asked, "stream": True, "stream_options": {"include_usage": True}}


async def test_reasoning_and_tool_calls_are_kept_apart_from_the_answer(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        start = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "날씨", "arguments": ""}}
        more = [{"index": 0, "function": {"arguments": part}} for part in ('{"도시":', '"서울"}')]
        it.a.script(
            CHAT,
            Reply.stream(
                chat_chunk(reasoning="음, "),
                chat_chunk(reasoning="날씨."),
                chat_chunk(tool_calls=[start]),
                *(chat_chunk(tool_calls=[part]) for part in more),
                chat_chunk(finish_reason="tool_calls"),
                usage_chunk(5, 9),
                DONE,
            ),
        )
        old_name = b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"\xec\x9d\x8c"}}]}\n\n'
        it.b.script(CHAT, Reply.stream(old_name, chat_chunk("네."), END, usage_chunk(5, 2), DONE))
        first, second = (await it.ask())["sides"]
        call = {"id": "call-1", "type": "function", "function": {"name": "날씨", "arguments": '{"도시":"서울"}'}}
        assert first["output"] == {"content": None, "reasoning": "음, 날씨.", "tool_calls": [call]}
        assert first["finish_reason"] == "tool_calls"
        assert second["output"] == {"content": "네.", "reasoning": "음", "tool_calls": None}


async def test_stream_and_whole_answer_are_the_same_object(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        whole = await it.ask()
        answer = await it.client.request("POST", COMPARE, body=STREAM)
        assert answer.header("content-type") == "text/event-stream; charset=utf-8"
        name, streamed = parsed(answer.body.split(b"\n\n")[-2])
        assert name == "comparison.finished"
        assert shape(streamed) == shape(whole)
        assert untimed(streamed) == untimed(whole)


def shape(value: Any) -> Any:
    """The names and types of a JSON value."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value)


def untimed(whole: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between two comparisons that went alike."""
    sides = [{**side, "timing": None, "call_id": None} for side in whole["sides"]]
    return {**whole, "id": None, "created_at": None, "summary": None, "sides": sides}


async def test_events_add_up_to_the_object(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, said("가", "나", "다"))
        answer = await it.client.request("POST", COMPARE, body=STREAM)
        events = [parsed(event) for event in answer.body.split(b"\n\n")[:-1]]
        whole = events[-1][1]
        for position, side in enumerate(whole["sides"]):
            mine = [(name, data) for name, data in events[:-1] if data["side"] == position]
            assert mine[0] == ("side.started", {"side": position, "model": side["model"], "provenance": "simulated"})
            assert "".join(data["content"] for name, data in mine[1:-1]) == side["output"]["content"]
            assert {name for name, _ in mine[1:-1]} == {"side.delta"}
            assert mine[-1] == ("side.finished", {"side": position, **side})


async def test_deltas_arrive_when_they_come(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(chat_chunk("먼저"), gate, END, DONE))
        it.b.script(CHAT, Reply.hang())
        await it.client.start("POST", COMPARE, body=STREAM)
        names = [(await it.next_event())[0] for _ in range(2)]
        assert names == ["side.started", "side.started"]
        assert await it.next_event() == ("side.delta", {"side": 0, "content": "먼저"})
        gate.set()
        assert (await it.next_event())[0] == "side.finished"


# --- schedules ----------------------------------------------------------------------------------------------


async def test_sequential_asks_the_second_only_after_the_first_is_over(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(chat_chunk("하나"), gate, END, DONE))
        await it.client.start("POST", COMPARE, body={**STREAM, "schedule": "sequential"})
        assert [(await it.next_event())[0] for _ in range(2)] == ["side.started", "side.delta"]
        assert not it.b.requests_to(CHAT), "the second side must wait for the first"
        gate.set()
        assert [(await it.next_event())[0] for _ in range(2)] == ["side.finished", "side.started"]
        rest = (await it.client.rest()).split(b"\n\n")
        whole = parsed(rest[-2])[1]
        assert whole["schedule"] == "sequential"
        first, second = it.a.requests_to(CHAT)[0], it.b.requests_to(CHAT)[0]
        assert first.answered.is_set()
        assert second.received_s > first.received_s


async def test_concurrent_asks_all_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        gates = {"a": asyncio.Event(), "b": asyncio.Event()}
        for name, engine in (("a", it.a), ("b", it.b)):
            engine.script(CHAT, said(name).gated(gates[name]))
        await it.client.send("POST", COMPARE, body={**ASK, "schedule": "concurrent"})
        await it.a.received(CHAT)
        await it.b.received(CHAT)
        for gate in gates.values():
            gate.set()
        await it.client.head()
        assert json.loads(await it.client.rest())["schedule"] == "concurrent"


@pytest.mark.parametrize(
    ("hosts", "schedule"),
    [(("node-a", "node-b"), "concurrent"), (("node-a", "node-a"), "sequential"), (("node-a", "NODE-A"), "sequential")],
)
async def test_the_schedule_follows_the_hardware_unless_asked(
    tmp_path: Path, hosts: tuple[str, str], schedule: str
) -> None:
    async with bench(tmp_path, hosts=hosts) as it:
        assert (await it.ask())["schedule"] == schedule


async def test_engines_without_a_host_are_taken_by_their_address(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(["a"]) as a,
        ScriptedEngine(["b"]) as b,
        running_gateway(tmp_path, [entry("a", a.url), entry("b", b.url.replace("127.0.0.1", "localhost"))]) as gateway,
    ):
        await gateway.until_live("a", "b")
        async with RawClient(gateway.url) as client:
            whole = (await client.request("POST", COMPARE, body=ASK)).json()
        assert whole["schedule"] == "sequential", "both engines are on this machine"


# --- comparable timings -------------------------------------------------------------------------------------


async def test_separate_hosts_are_comparable_and_name_the_fastest(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        gate = asyncio.Event()
        it.a.script(CHAT, said("늦게").gated(gate))
        await it.client.start("POST", COMPARE, body=STREAM)
        while (event := await it.next_event())[0] != "side.finished":
            continue
        assert event[1]["model"] == "b"
        gate.set()
        whole = parsed((await it.client.rest()).split(b"\n\n")[-2])[1]
        assert whole["timing_comparable"] is True
        assert "separate simulated hosts" in whole["timing_reason"]
        fastest = whole["summary"]["fastest_first_token"]
        assert fastest == {"model": "b", "ttft_s": whole["sides"][1]["timing"]["ttft_s"], "reason": None}
        assert "simulated" in whole["summary"]["provenance"]["reason"]
        assert whole["summary"]["cheapest"]["model"] is None
        assert "unknown" in whole["summary"]["cheapest"]["reason"]


async def test_a_shared_host_at_the_same_time_is_not_comparable(tmp_path: Path) -> None:
    async with bench(tmp_path, hosts=("node-a", "node-a")) as it:
        both = asyncio.Event()
        it.a.script(CHAT, said("하나").gated(both))
        it.b.script(CHAT, said("둘").gated(both))
        await it.client.send("POST", COMPARE, body={**ASK, "schedule": "concurrent"})
        await it.a.received(CHAT)
        await it.b.received(CHAT)
        both.set()
        await it.client.head()
        whole = json.loads(await it.client.rest())
        assert whole["timing_comparable"] is False
        assert "shared the host node-a at the same time" in whole["timing_reason"]
        assert whole["summary"]["fastest_first_token"]["model"] is None


async def test_a_shared_host_one_after_the_other_is_comparable(tmp_path: Path) -> None:
    async with bench(tmp_path, hosts=("node-a", "node-a")) as it:
        whole = await it.ask()
        assert whole["timing_comparable"] is True
        assert "one after the other" in whole["timing_reason"]


async def test_unequally_warm_caches_are_not_comparable(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, said("하나", usage=usage_with_cache(0)))
        it.b.script(CHAT, said("둘", usage=usage_with_cache(8)))
        whole = await it.ask()
        assert whole["timing_comparable"] is False
        assert "a 0, b 8" in whole["timing_reason"]
        assert whole["sides"][1]["usage"]["cached_tokens"] == 8


async def test_different_provenance_is_not_comparable(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.b.owned_by = "vllm"
        await it.gateway.until(lambda: it.gateway.services.fleet.live("b")[0].provenance == "unknown")
        whole = await it.ask()
        assert whole["timing_comparable"] is False
        assert "provenance differs (a simulated, b unknown)" in whole["timing_reason"]


async def one_event_ahead(services: Services) -> AsyncGenerator[ComparisonEvent, None]:
    """A comparison of a and then b whose answers wait when one event is unread."""
    comparisons = Comparisons(
        dispatcher=services.dispatcher,
        store=services.store,
        settings=services.settings,
        now=services.now,
        events_ahead=1,
    )
    question = Question(["a", "b"], [{"role": "user", "content": "?"}], {}, Schedule.SEQUENTIAL)
    return await comparisons.run(question, "request-1", EVERYTHING)


async def test_answers_that_waited_for_a_slow_reader_are_not_comparable(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        services, text = it.gateway.services, "나" * 5000
        it.a.script(CHAT, Reply.stream(*[chat_chunk(text)] * 60, END, DONE))
        events = await one_event_ahead(services)
        assert (await anext(events)).name == "side.started"
        await it.gateway.until(lambda: any(call.was_held_back for call in services.dispatcher.in_flight))
        whole = [event async for event in events][-1].data
        assert whole["timing_comparable"] is False
        assert "a had to wait for a slow reader" in whole["timing_reason"]
        assert whole["sides"][0]["output"]["content"] == text * 60, "nothing is lost"
        timing = whole["sides"][0]["timing"]
        assert timing["ttft_s"] is not None
        assert (timing["tpot_s"], timing["e2e_s"]) == (None, None)


def tokens_seen(it: Bench) -> int:
    return sum(call.token_events for call in it.gateway.services.dispatcher.in_flight)


async def test_reader_that_is_late_costs_the_replica_no_time(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        services, more, end = it.gateway.services, asyncio.Event(), asyncio.Event()
        it.a.script(CHAT, Reply.stream(chat_chunk("하나 "), more, chat_chunk("둘"), end, END, DONE))
        events = await one_event_ahead(services)
        assert (await anext(events)).name == "side.started"
        (replica,) = services.fleet.states_of("a")
        for gate, tokens in ((more, 1), (end, 2)):
            await it.gateway.until(lambda tokens=tokens: tokens_seen(it) == tokens)
            assert replica.in_flight == 1
            gate.set()
        await it.gateway.until(lambda: replica.in_flight == 0)
        assert services.dispatcher.in_flight, "the call itself still waits for its reader"
        whole = [event async for event in events][-1].data
        assert whole["timing_comparable"] is True


GPU_PRICE = {
    "per_hour": "2.95",
    "currency": "USD",
    "tier": "list_median",
    "provider": "public lists",
    "date": "2026-06-01",
    "source": "public lists",
    "confidence": "low",
}
GPU = {
    "id": "h100-sxm",
    "name": "H100 SXM",
    "memory": "81559 MiB",
    "bandwidth_tb_per_s": 3.35,
    "bf16_tflops": 989,
    "source": "data sheet",
    "confidence": "low",
    "prices": [GPU_PRICE],
}
SHAPE = {
    "params": "8.03B",
    "layers": 32,
    "hidden": 4096,
    "heads": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "vocab": 128256,
    "tied_embeddings": False,
    "context": 131072,
}


async def test_costs_and_one_gpu_verdicts_stand_beside_the_answers(tmp_path: Path) -> None:
    async with ScriptedEngine(["a"]) as a, ScriptedEngine(["b"]) as b, ScriptedEngine(["c"]) as c:
        price = {"currency": "USD", "input_per_mtok": "10", "output_per_mtok": "20"}
        models = [
            entry("a", shape=SHAPE, replicas=[{"url": a.url, "host": "node-a", "gpu": "h100-sxm"}]),
            entry("b", shape=SHAPE, replicas=[{"url": b.url, "host": "node-b", "gpu": "h100-sxm"}]),
            entry("c", serving={"kind": "openai_api"}, replicas=[{"url": c.url, "host": "vendor"}], price=price),
        ]
        async with running_gateway(tmp_path, [entry("a", a.url)]) as gateway:
            text = registry_text(models, gpus=[GPU])
            gateway.registry_path.write_text(text.replace('"2026-06-01"', "2026-06-01"))  # a YAML date has no quotes
            await gateway.until(lambda: gateway.services.registry.current.gpus)
            await gateway.until_live("a", "b", "c")
            async with RawClient(gateway.url) as client:
                both = (await client.request("POST", COMPARE, body=ASK)).json()
                mixed = (await client.request("POST", COMPARE, body={**ASK, "models": ["a", "c"]})).json()
    first, second = both["sides"]
    assert (first["feasibility"]["verdict"], first["feasibility"]["gpu"]) == ("fits", "h100-sxm")
    headroom = first["feasibility"]["headroom_gib"]
    assert headroom["low"] < headroom["likely"] < headroom["high"]
    assert first["cost"]["basis"] == "gpu_time_provisional"
    assert Decimal(first["cost"]["amount"]) > 0
    amounts = {side["model"]: Decimal(side["cost"]["amount"]) for side in (first, second)}
    assert both["summary"]["cheapest"]["model"] == min(amounts, key=lambda model: amounts[model])
    vendor = mixed["sides"][1]
    assert (Decimal(vendor["cost"]["amount"]), vendor["cost"]["basis"]) == (Decimal("0.00028"), "api_price")
    assert vendor["feasibility"]["verdict"] == "unknown"
    assert "no public weights" in vendor["feasibility"]["reasons"][0]
    assert "differ in currency or basis" in mixed["summary"]["cheapest"]["reason"]


# --- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["concurrent", "sequential"])
async def test_one_sides_failure_never_hides_the_other(tmp_path: Path, schedule: str) -> None:
    async with bench(tmp_path) as it:
        failure = error_body("the prompt is too long", type_="BadRequestError", code=400)
        it.a.script(CHAT, Reply.json(failure, status=400))
        it.b.script(CHAT, said("저는 ", "답합니다."))
        whole = await it.ask(schedule=schedule)
        failed, ok = whole["sides"]
        assert failed["status"] == "error"
        assert failed["error"]["message"] == "the prompt is too long"
        assert failed["error"]["status"] == 400
        assert failed["output"] == {"content": None, "reasoning": None, "tool_calls": None}
        assert (ok["status"], ok["output"]["content"], ok["error"]) == ("ok", "저는 답합니다.", None)
        assert whole["timing_comparable"] is False
        assert "a gave no complete answer" in whole["timing_reason"]


async def test_what_came_before_a_cut_is_kept(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, Reply.stream(chat_chunk("반쯤 "), CLOSE))
        whole = await it.ask()
        cut = whole["sides"][0]
        assert (cut["status"], cut["error"]["code"]) == ("error", "upstream_truncated")
        assert cut["output"]["content"] == "반쯤 "
        assert cut["usage"]["source"] == "counted"
        assert whole["sides"][1]["status"] == "ok"


async def test_a_stream_that_cannot_be_read_fails_its_side_only(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        garbage = b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n'
        it.a.script(CHAT, Reply.stream(garbage, END, DONE))
        whole = await it.ask()
        assert whole["sides"][0]["error"]["code"] == "upstream_truncated"
        assert whole["sides"][1]["status"] == "ok"


async def test_a_known_model_without_a_live_replica_is_only_that_sides_error(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.a.kill()
        await it.gateway.until(lambda: not it.gateway.services.fleet.live("a"))
        whole = await it.ask()
        assert whole["sides"][0]["error"]["code"] == "no_replica"
        assert whole["sides"][0]["provenance"] == "unknown"
        assert whole["sides"][1]["status"] == "ok"


async def test_time_running_out_ends_the_side_under_way_and_skips_the_rest(tmp_path: Path) -> None:
    async with bench(tmp_path, comparison_timeout_s=0.3) as it:
        it.a.script(CHAT, Reply.stream(chat_chunk("영원히 "), asyncio.Event()))
        whole = await it.ask(schedule="sequential")
        late, never = whole["sides"]
        assert (late["status"], late["error"]["code"]) == ("error", "comparison_timeout")
        assert late["output"]["content"] == "영원히 "
        assert (never["status"], never["error"]["code"]) == ("skipped", "skipped")
        assert "0.3 s" in never["error"]["message"]
        assert never["call_id"] is None
        assert not it.b.requests_to(CHAT)
        call = await it.gateway.call()
        assert (call.status, call.error_code) == (CallStatus.ERROR, "comparison_timeout")


async def test_a_shutdown_ends_the_side_under_way_and_skips_the_rest(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, Reply.hang())
        await it.client.send("POST", COMPARE, body={**ASK, "schedule": "sequential"})
        await it.a.received(CHAT)
        it.gateway.services.dispatcher.abort_all("The gateway is shutting down.")
        await it.client.head()
        whole = json.loads(await it.client.rest())
        assert [side["status"] for side in whole["sides"]] == ["error", "skipped"]
        assert whole["sides"][0]["error"]["code"] == "draining"


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"models": ["a", "a"]}, "models", "repeated: a"),
        ({"models": ["a"]}, "models", "at least 2"),
        ({"models": list("abcdefghi")}, "models", "at most 8"),
        ({"messages": [{"role": "user", "content": "x"}]}, None, "either 'messages' or 'prompt'"),
        ({"prompt": None}, None, "either 'messages' or 'prompt'"),
        ({"params": {"max_token": 5}}, "params.max_token", "no such field"),
        ({"params": {"max_tokens": 0}}, "params.max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 5}, "max_tokens", "it belongs into 'params'"),
        ({"params": {"seed": 2**70}}, "params.seed", "less than"),
        ({"schedule": "soon"}, "schedule", "concurrent"),
        ({"prompt": ""}, "prompt", "at least 1"),
        ({"params": {"temperature": "hot"}}, "params.temperature", "number"),
    ],
)
async def test_a_wrong_request_is_refused_before_anything_is_asked(
    tmp_path: Path, changes: dict[str, Any], param: str | None, words: str
) -> None:
    async with bench(tmp_path) as it:
        error = await it.refused(400, {**ASK, **changes})
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert words in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"models":["a","b"],"prompt":"x","params":{"tools":[{"x":' + b"[" * 300 + b"]" * 300 + b"}]}}",
        b'{"models":["a","b"],"prompt":"\xff"}',
        b'{"models":["a","b"],"prompt":"\\ud800"}',
        b'{"models":["a","b"],"prompt":"x","params":{"tools":[{"x":NaN}]}}',
        b'{"models":["a","b"],"prompt":"x","params":{"tools":[{"x":1e999}]}}',
    ],
)
async def test_what_is_no_request_is_refused(tmp_path: Path, body: bytes) -> None:
    async with bench(tmp_path) as it:
        await it.refused(400, body)


async def test_an_unknown_model_fails_the_whole_request_before_anything_is_asked(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        error = await it.refused(404, {**STREAM, "models": ["a", "nobody"]})
        assert error["code"] == "model_not_found"
        assert "nobody" in error["message"]


async def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path, max_body_bytes=1000) as it:
        assert (await it.refused(413, {**ASK, "prompt": "가" * 1000}))["code"] == "request_too_large"


async def test_the_key_is_asked_for(tmp_path: Path) -> None:
    async with bench(tmp_path, admin_key="s3cret") as it:
        assert (await it.refused(401, ASK))["code"] == "invalid_api_key"
        async with RawClient(it.gateway.url, key="s3cret") as client:
            assert (await client.request("POST", COMPARE, body=ASK)).status == 200


# --- the client leaves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_frees_every_engine_at_once(tmp_path: Path, stream: bool) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, Reply.stream(chat_chunk("하나"), asyncio.Event()))
        it.b.script(CHAT, Reply.hang())
        await it.client.send("POST", COMPARE, body={**ASK, "stream": stream})
        requests = [await engine.received(CHAT) for engine in (it.a, it.b)]
        await it.gateway.until(lambda: tokens_seen(it) == 1)
        left_s = time.monotonic()
        it.client.leave()
        for request in requests:
            await asyncio.wait_for(request.closed_by_peer.wait(), HANG_S)
            assert request.closed_by_peer_s is not None
            assert request.closed_by_peer_s - left_s < CLOSED_WITHIN_S
        calls = await it.gateway.calls(2)
        assert {call.status for call in calls} == {CallStatus.CANCELLED}
        assert len({call.opened.comparison_id for call in calls}) == 1
        assert await it.gateway.services.store.list_comparisons() == [], "a comparison nobody saw is none"


async def test_leaving_keeps_the_next_side_from_being_asked(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, Reply.hang())
        await it.client.send("POST", COMPARE, body={**ASK, "schedule": "sequential"})
        request = await it.a.received(CHAT)
        it.client.reset()
        await asyncio.wait_for(request.closed_by_peer.wait(), HANG_S)
        assert (await it.gateway.call()).status is CallStatus.CANCELLED
        assert not it.b.requests_to(CHAT)


async def test_leaving_in_the_moment_in_which_a_call_is_ended_keeps_the_next_side_from_being_asked(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, Reply.hang())
        question = Question(["a", "b"], [{"role": "user", "content": "?"}], {}, Schedule.SEQUENTIAL)
        services = it.gateway.services
        call: asyncio.Task[Any] = asyncio.ensure_future(
            whole_of(await services.comparisons.run(question, "request-1", EVERYTHING))
        )
        await it.a.received(CHAT)
        (call_in_flight,) = services.dispatcher.in_flight
        call.cancel()
        call_in_flight.abort(UpstreamTimeout("over"))
        await asyncio.gather(call, return_exceptions=True)
        await it.gateway.until(lambda: not services.dispatcher.in_flight)
        assert (await it.gateway.call()).error_code == "upstream_timeout"
        assert not it.b.requests_to(CHAT)


async def whole_of(events: AsyncGenerator[ComparisonEvent, None]) -> None:
    async with aclosing(events):
        async for _ in events:
            continue


# --- what is kept -------------------------------------------------------------------------------------------


async def test_what_is_stored_is_what_was_answered(tmp_path: Path, database: ScratchDatabase) -> None:
    async with bench(tmp_path, database_url=database.url) as it:
        it.b.script(CHAT, Reply.json(error_body("no", type_="BadRequestError", code=400), status=400))
        whole = await it.ask()
        stored = await it.client.request("GET", f"{COMPARE}/{whole['id']}")
        assert stored.json() == whole
        calls = await it.gateway.calls(2)
        assert {call.opened.comparison_id for call in calls} == {whole["id"]}
        assert {call.opened.id for call in calls} == {side["call_id"] for side in whole["sides"]}


async def test_it_is_stored_before_the_last_event(tmp_path: Path, database: ScratchDatabase) -> None:
    async with bench(tmp_path, database_url=database.url) as it:
        await it.client.start("POST", COMPARE, body=STREAM)
        while (event := await it.next_event())[0] != "comparison.finished":
            continue
        assert await it.gateway.services.store.get_comparison(event[1]["id"]) is not None


async def test_a_database_that_is_away_costs_the_keeping_not_the_answer(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with bench(tmp_path, database_url=database.url) as it:
        async with database.gone():
            whole = await it.ask()
            assert [side["status"] for side in whole["sides"]] == ["ok", "ok"]
            assert whole["stored"] is False
            assert "database" in whole["stored_reason"]
            assert str(tmp_path) not in whole["stored_reason"], "where it is is the operator's to know"
            answer = await it.client.request("GET", COMPARE)
            assert "://" not in answer.body.decode()
            assert (answer.status, answer.json()["error"]["code"]) == (503, "database_unavailable")
            export = await it.client.request("GET", f"{COMPARE}/export")
            assert export.status == 503, "a status, not a file that is cut"
        kept = await it.ask()
        assert [found["id"] for found in (await it.client.request("GET", COMPARE)).json()["data"]] == [kept["id"]]


async def test_the_list_pages_from_the_newest_to_the_oldest(tmp_path: Path, database: ScratchDatabase) -> None:
    async with bench(tmp_path, database_url=database.url) as it:
        ids = [(await it.ask())["id"] for _ in range(3)]
        first = (await it.client.request("GET", f"{COMPARE}?limit=2")).json()
        ComparisonPage.model_validate(first)
        assert [found["id"] for found in first["data"]] == [ids[2], ids[1]]
        rest = (await it.client.request("GET", f"{COMPARE}?limit=2&before={first['next_before']}")).json()
        assert ([found["id"] for found in rest["data"]], rest["next_before"]) == ([ids[0]], None)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{COMPARE}/nope", 404),
        (f"{COMPARE}?before=nope", 404),
        (f"{COMPARE}?limit=0", 400),
        (f"{COMPARE}/export?format=xls", 400),
    ],
)
async def test_what_does_not_exist_is_an_error_in_the_envelope(tmp_path: Path, path: str, status: int) -> None:
    async with bench(tmp_path) as it:
        answer = await it.client.request("GET", path)
        assert answer.status == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_jsonl_export_is_the_objects_one_a_line(tmp_path: Path, database: ScratchDatabase) -> None:
    async with bench(tmp_path, database_url=database.url) as it:
        assert (await it.client.request("GET", f"{COMPARE}/export")).body == b""
        wholes = [await it.ask() for _ in range(2)]
        answer = await it.client.request("GET", f"{COMPARE}/export?format=jsonl")
        assert answer.header("content-type") == "application/x-ndjson; charset=utf-8"
        assert 'filename="comparisons.jsonl"' in (answer.header("content-disposition") or "")
        lines = answer.body.decode().splitlines()
        assert [json.loads(line) for line in lines] == wholes[::-1]


async def test_csv_export_is_a_row_a_side_that_a_spreadsheet_reads_as_text(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, said("=HYPERLINK(", '"x")'))
        it.b.script(CHAT, said("둘째,\n", '"따옴표"'))
        whole = await it.ask()
        answer = await it.client.request("GET", f"{COMPARE}/export?format=csv")
        assert answer.header("content-type") == "text/csv; charset=utf-8"
        assert answer.body.startswith(b"\xef\xbb\xbf")
        rows = list(csv.DictReader(io.StringIO(answer.body.decode("utf-8-sig"), newline="")))
        assert [(row["comparison_id"], row["side"], row["model"]) for row in rows] == [
            (whole["id"], "0", "a"),
            (whole["id"], "1", "b"),
        ]
        assert rows[0]["content"] == '\'=HYPERLINK("x")'
        assert rows[1]["content"] == '둘째,\n"따옴표"'
        assert float(rows[0]["ttft_s"]) == whole["sides"][0]["timing"]["ttft_s"]
        assert rows[0]["cost_amount"] == "", "unknown is empty, never 0"


async def test_openapi_describes_what_is_asked_and_answered(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        document = (await it.client.request("GET", "/openapi.json")).json()
        post = document["paths"][COMPARE]["post"]
        asked = post["requestBody"]["content"]["application/json"]["schema"]
        assert asked["required"] == ["models"]
        assert asked["properties"]["params"]["properties"]["max_tokens"]["default"] == 512
        assert "$ref" not in json.dumps(asked)
        answers = post["responses"]
        assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
        assert {"400", "401", "404", "413", "503"} <= set(answers)
        assert "422" not in answers, "validation is answered with 400"
        paths = (COMPARE, f"{COMPARE}/{{comparison_id}}", f"{COMPARE}/export")
        assert all("422" not in document["paths"][path]["get"]["responses"] for path in paths)


# --- the client of our own ----------------------------------------------------------------------------------


async def test_our_client_yields_the_events_as_they_come(tmp_path: Path) -> None:
    async with bench(tmp_path, admin_key="열쇠-is-not-ascii".encode().hex()) as it:
        key = "열쇠-is-not-ascii".encode().hex()
        events = [event async for event in compare(GatewayDoor(it.gateway.url, key), ASK)]
        assert events[0][0] == "side.started"
        assert events[-1][0] == "comparison.finished"
        assert events[-1][1]["stored"] is True


async def test_our_client_says_what_the_gateway_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        with pytest.raises(GatewayRefused, match="no model 'nobody'") as caught:
            await anext(compare(GatewayDoor(it.gateway.url), {**ASK, "models": ["a", "nobody"]}))
        assert (caught.value.answered_status, caught.value.code) == (404, "model_not_found")


async def test_our_client_says_when_no_gateway_is_there(unused_tcp_port: int) -> None:
    with pytest.raises(GatewayUnreachable, match=r"no gateway answers at http://127.0.0.1:\d+: start one"):
        await anext(compare(GatewayDoor(f"http://127.0.0.1:{unused_tcp_port}"), ASK))
    with pytest.raises(GatewayUnreachable, match="is no address of a gateway"):
        await anext(compare(GatewayDoor("localhost:8080"), ASK))


async def test_our_client_tells_another_server_from_a_gateway() -> None:
    async with ScriptedEngine() as engine:
        with pytest.raises(GatewayRefused, match="is it a Simsa gateway"):
            await anext(compare(GatewayDoor(engine.url), ASK))


async def test_our_client_notices_a_stream_that_breaks_off() -> None:
    async with ScriptedEngine() as engine:
        started = b'event: side.started\ndata: {"side":0}\n\n'
        engine.script(COMPARE, Reply.stream(started))
        events = compare(GatewayDoor(engine.url), ASK)
        assert await anext(events) == ("side.started", {"side": 0})
        with pytest.raises(UpstreamTruncated):
            await anext(events)


async def test_our_client_leaving_ends_the_comparison(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.a.script(CHAT, Reply.hang())
        it.b.script(CHAT, Reply.hang())
        events = compare(GatewayDoor(it.gateway.url), ASK)
        assert (await anext(events))[0] == "side.started"
        request = await it.a.received(CHAT)
        await events.aclose()
        await asyncio.wait_for(request.closed_by_peer.wait(), HANG_S)
        assert {call.status for call in await it.gateway.calls(2)} == {CallStatus.CANCELLED}
