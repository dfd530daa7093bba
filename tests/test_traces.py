"""Traces of calls: the real gateway between the official client, engines and a collector, all on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import RawClient
from engines import CLOSE, DONE, Reply, Request, ScriptedEngine, chat_chunk, error_body
from gateways import Entry, RunningGateway, entry, running_gateway
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam
from otlp_collector import TRACES, OtlpCollector, TakenSpan, taken
from pydantic import ValidationError
from servers import serve
from simulated_models import H100, LLAMA_8B, model_of
from structlog.testing import capture_logs

from gateway.domain.trace_context import is_kept
from gateway.settings import Settings
from gateway.simulator import create_engine
from gateway.span_export import TRIES, Fate

CHAT, COMPARE, BATCHES = "/v1/chat/completions", "/api/comparisons", "/api/comparisons/batches"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "안녕하세요"}]
ASK: dict[str, Any] = {"model": "m", "messages": MESSAGES, "max_tokens": 8}
TRACE, PARENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT_SPAN}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT_SPAN}-00"}
GPU = {
    "id": "h100-sxm",
    "name": "H100",
    "memory": "81559 MiB",
    "bandwidth_tb_per_s": 3.35,
    "source": "test",
    "confidence": "high",
    "prices": [
        {"per_hour": 3600, "currency": "KRW", "tier": "reserved", "provider": "a lessor", "date": "2020-01-01"}
        | {"source": "OFFER", "confidence": "high"}
    ],
}
REFUSED = Reply.json(error_body("no", type_="BadRequestError", code=400), status=400)
BROKEN = Reply.json({"error": {"message": "boom"}}, status=500)
BUSY = Reply.json({"error": {"message": "busy"}}, status=503)


@asynccontextmanager
async def traced(
    tmp_path: Path, models: Sequence[Entry], collector: OtlpCollector, **settings: Any
) -> AsyncIterator[tuple[RunningGateway, AsyncOpenAI]]:
    """A gateway that traces, and the official client at its door."""
    chosen = {"otlp_endpoint": collector.url, "trace_flush_s": 0.01, **settings}
    async with running_gateway(tmp_path, models, **chosen) as gateway:
        for model in models:
            await gateway.until_live(model["id"], replicas=len(model["replicas"]))
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            yield gateway, client


async def ask(client: AsyncOpenAI, headers: Mapping[str, str] | None = None) -> None:
    await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=3, extra_headers=headers)


def named(spans: Sequence[TakenSpan], name: str) -> list[TakenSpan]:
    return sorted((span for span in spans if span.name == name), key=lambda span: span.start_ns)


def tree(spans: Sequence[TakenSpan]) -> dict[str, list[str]]:
    """Names of spans by their parent's."""
    names = {span.span_id: span.name for span in spans}
    found: dict[str, list[str]] = {}
    for span in sorted(spans, key=lambda span: span.start_ns):
        found.setdefault(names.get(span.parent_id, span.parent_id), []).append(span.name)
    return found


def counted(gateway: RunningGateway, fate: Fate) -> int:
    text = gateway.services.telemetry.render().decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f'simsa_spans_total{{outcome="{fate}"}} ')]
    return int(float(line.rpartition(" ")[2]))


# --- what spans say -----------------------------------------------------------------------------------------


async def test_a_whole_answer_is_a_span_with_what_the_conventions_ask_and_one_for_its_engine(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine(["org/weights"]) as engine,
        traced(
            tmp_path,
            [entry("m", engine.url, serving={"kind": "vllm", "served_model_name": "org/weights"})],
            collector,
            service_name="simsa-blue",
        ) as (gateway, client),
    ):
        await client.chat.completions.create(
            model="m", messages=MESSAGES, max_tokens=3, n=2, seed=7, temperature=0.5, top_p=1, stop=["그만"]
        )
        call, attempt = await collector.until_spans(2)
        record = await gateway.call()
    host, port = engine.url.removeprefix("http://").split(":")
    server = {"server.address": host, "server.port": int(port)}
    seconds = {f"simsa.{name}": getattr(record.timing, name) for name in ("queue_s", "e2e_s", "overhead_s")}
    assert (call.name, call.kind, call.parent_id, call.is_error) == ("chat m", "SERVER", "", False)
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.seed": 7,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.response.model": "org/weights",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 6,
        "http.response.status_code": 200,
        "simsa.usage.source": "engine",
        "simsa.call_id": record.opened.id,
        "simsa.request_id": record.opened.request_id,
        "simsa.endpoint": "chat_completions",
        "simsa.status": "ok",
        "simsa.replica": "m/1",
        "simsa.provenance": record.provenance.value,
        "simsa.attempts": 1,
        "simsa.client_retry": 0,
        "simsa.cost.basis": "unknown",
        **seconds,
        **server,
    }
    assert (attempt.name, attempt.kind, attempt.parent_id) == ("attempt", "CLIENT", call.span_id)
    assert attempt.attributes == {
        **server,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "simsa.replica": "m/1",
    }
    assert attempt.is_within(call)
    assert call.trace_id == attempt.trace_id
    resource = dict(call.resource)
    assert resource.pop("service.instance.id")
    assert resource == {"service.name": "simsa-blue", "service.version": "0.1.0"}
    span_s = (call.end_ns - call.start_ns) / 1e9
    assert record.timing.e2e_s is not None
    assert record.timing.e2e_s <= span_s


async def test_a_stream_of_the_simulated_engine_says_its_times_tokens_cost_and_provenance(tmp_path: Path) -> None:
    app = create_engine(model_of(LLAMA_8B, model_id="m"), H100, max_model_len=4096, speed=1000.0)
    with serve(app) as url:
        replica = {"url": url, "gpu": "h100-sxm"}
        models = [entry("m", replicas=[replica])]
        async with (
            OtlpCollector() as collector,
            traced(tmp_path, models, collector, sections={"gpus": [GPU]}) as (gateway, client),
        ):
            ask_usage: Any = {"include_usage": True}
            stream = await client.chat.completions.create(
                model="m", messages=MESSAGES, max_tokens=12, stream=True, stream_options=ask_usage
            )
            chunks = [chunk async for chunk in stream]
            call, _ = await collector.until_spans(2)
            record = await gateway.call()
    usage = chunks[-1].usage
    assert usage is not None
    said = call.attributes
    assert said["gen_ai.request.stream"] is True
    assert said["gen_ai.usage.input_tokens"] == usage.prompt_tokens
    assert said["gen_ai.usage.output_tokens"] == usage.completion_tokens
    assert said["gen_ai.response.finish_reasons"] == ["length"]
    assert said["simsa.provenance"] == "simulated"
    assert (said["simsa.ttft_s"], said["simsa.tpot_s"]) == (record.timing.ttft_s, record.timing.tpot_s)
    assert (said["simsa.gpu"], said["simsa.gpus"]) == ("h100-sxm", 1)
    assert (said["simsa.cost.currency"], said["simsa.cost.basis"]) == ("KRW", "gpu_time_provisional")
    assert said["simsa.cost.amount"] == float(record.cost.amount or 0) > 0


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/completions", {"prompt": "안녕"}, "text_completion m"),
        ("/tokenize", {"prompt": "안녕"}, "tokenize m"),
    ],
)
async def test_other_routes_are_named_by_what_they_do(
    tmp_path: Path, path: str, body: dict[str, Any], name: str
) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (gateway, _),
    ):
        engine.script("/tokenize", Reply.json({"count": 1, "max_model_len": 9, "tokens": [7]}))
        async with RawClient(gateway.url) as client:
            assert (await client.request("POST", path, body={"model": "m", **body})).status == 200
        (call, _) = await collector.until_spans(2)
        assert call.name == name


@pytest.mark.parametrize(
    ("reply", "code", "status", "is_fault"),
    [(REFUSED, "engine_refused", 400, False), (BROKEN, "upstream_error", 502, True)],
    ids=["the client's doing", "the engine's"],
)
async def test_a_failed_call_says_how_and_is_marked_unless_it_is_the_clients_doing(
    tmp_path: Path, reply: Reply, code: str, status: int, is_fault: bool
) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (_, client),
    ):
        engine.script(CHAT, reply)
        with pytest.raises(openai.APIStatusError):
            await ask(client)
        call, attempt = await collector.until_spans(2)
    assert (call.attributes["error.type"], call.attributes["http.response.status_code"]) == (code, status)
    assert call.attributes["simsa.status"] == "error"
    assert call.is_error is is_fault
    assert (attempt.attributes["error.type"], attempt.is_error) == (code, True)
    assert attempt.attributes["http.response.status_code"] == reply.status
    assert "gen_ai.response.model" not in call.attributes
    assert "gen_ai.response.finish_reasons" not in call.attributes


async def test_a_stream_that_is_cut_is_marked_and_its_finish_reason_is_error(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (gateway, _),
    ):
        engine.script(CHAT, Reply.stream(chat_chunk("a"), chat_chunk("b"), CLOSE))
        async with RawClient(gateway.url) as client:
            await client.request("POST", CHAT, body={**ASK, "stream": True})
        call, attempt = await collector.until_spans(2)
    assert (call.is_error, attempt.is_error) == (True, True)
    assert call.attributes["error.type"] == "upstream_truncated"
    assert call.attributes["simsa.status"] == "upstream_truncated"
    assert call.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert call.attributes["simsa.usage.source"] == "counted"


async def test_each_attempt_is_a_span_and_only_the_one_that_failed_is_marked(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as one,
        ScriptedEngine() as other,
        traced(tmp_path, [entry("m", one.url, other.url)], collector) as (_, client),
    ):
        is_first = iter([True])

        def first_is_busy(request: Request) -> Reply:
            return BUSY if next(is_first, False) else one.usual(request)

        one.script(CHAT, first_is_busy)
        other.script(CHAT, first_is_busy)
        await ask(client, SAMPLED)
        call, failed, answered = await collector.until_spans(3)
        told = [request.header("traceparent") for engine in (one, other) for request in engine.requests_to(CHAT)]
    assert tree([call, failed, answered]) == {PARENT_SPAN: ["chat m"], "chat m": ["attempt", "attempt"]}
    assert (failed.is_error, answered.is_error, call.is_error) == (True, False, False)
    assert failed.attributes["http.response.status_code"] == 503
    assert answered.attributes["http.response.status_code"] == 200
    assert "http.request.resend_count" not in failed.attributes
    assert answered.attributes["http.request.resend_count"] == 1
    assert {failed.attributes["simsa.replica"], answered.attributes["simsa.replica"]} == {"m/1", "m/2"}
    assert call.attributes["simsa.replica"] == answered.attributes["simsa.replica"]
    assert call.attributes["simsa.attempts"] == 2
    assert failed.end_ns <= answered.start_ns
    assert sorted(told, key=str) == sorted(f"00-{TRACE}-{span.span_id}-01" for span in (failed, answered))


async def test_an_engine_that_cannot_be_reached_has_a_span_without_an_answer(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (_, client),
    ):
        engine.script(CHAT, Reply.raw(CLOSE))
        with pytest.raises(openai.APIStatusError):
            await ask(client)
        _, attempt = await collector.until_spans(2)
    assert attempt.attributes["error.type"] == "upstream_unreachable"
    assert "http.response.status_code" not in attempt.attributes


async def test_a_client_that_left_is_no_fault(tmp_path: Path) -> None:
    never = asyncio.Event()
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (gateway, _),
    ):
        engine.script(CHAT, Reply.stream(chat_chunk("a"), never))
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body={**ASK, "stream": True})
            await client.next_event()
            client.leave()
        call, attempt = await collector.until_spans(2)
    assert (call.attributes["simsa.status"], call.attributes["http.response.status_code"]) == ("cancelled", 499)
    assert "error.type" not in call.attributes
    assert (call.is_error, attempt.is_error) == (False, False)


async def test_time_in_the_queue_is_a_span_of_its_own(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(
            tmp_path,
            [entry("m", replicas=[{"url": engine.url, "max_in_flight": 1}])],
            collector,
        ) as (gateway, client),
    ):
        engine.script(CHAT, Reply.stream(chat_chunk(finish_reason="stop"), DONE).gated(gate))
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(drain(client))
                await gateway.until(lambda: len(engine.requests_to(CHAT)) == 1)
                depth = gateway.services.telemetry.queue_depth.at("m", "interactive")
                await gateway.until(lambda: depth.value == number)  # noqa: B023
            gate.set()
        spans = await collector.until_spans(5)
        records = await gateway.calls(2)
    (queue,) = named(spans, "queue")
    waited = next(span for span in named(spans, "chat m") if span.span_id == queue.parent_id)
    assert queue.kind == "INTERNAL"
    assert queue.is_within(waited)
    queue_s = max(record.timing.queue_s or 0.0 for record in records)
    assert (queue.end_ns - queue.start_ns) / 1e9 == pytest.approx(queue_s, abs=1e-6)
    (asked,) = [span for span in named(spans, "attempt") if span.parent_id == waited.span_id]
    assert queue.end_ns <= asked.start_ns


async def drain(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    async for _ in stream:
        pass


async def test_what_is_refused_before_it_is_a_call_has_no_span(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (_, client),
    ):
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="unknown", messages=MESSAGES)
        await ask(client)
        assert tree(await collector.until_spans(2)) == {"": ["chat m"], "chat m": ["attempt"]}


# --- comparisons --------------------------------------------------------------------------------------------


async def test_a_comparison_is_the_parent_of_its_sides_and_the_child_of_who_asked(tmp_path: Path) -> None:
    async with OtlpCollector() as collector, ScriptedEngine(["a"]) as a, ScriptedEngine(["b"]) as b:
        models = [entry("a", a.url), entry("b", b.url)]
        async with traced(tmp_path, models, collector) as (gateway, _):
            b.script(CHAT, BROKEN)
            async with RawClient(gateway.url) as client:
                body = {"models": ["a", "b"], "prompt": "전입신고", "schedule": "sequential"}
                answer = await client.request("POST", COMPARE, body=body, headers=list(SAMPLED.items()))
            spans = await collector.until_spans(5)
            told = [engine.requests_to(CHAT)[0].header("traceparent") or "" for engine in (a, b)]
    assert tree(spans) == {
        PARENT_SPAN: ["comparison"],
        "comparison": ["chat a", "chat b"],
        "chat a": ["attempt"],
        "chat b": ["attempt"],
    }
    assert {span.trace_id for span in spans} == {TRACE}
    assert all(f"-{TRACE}-" in value for value in told)
    (comparison,) = named(spans, "comparison")
    assert comparison.kind == "SERVER"
    request_id = answer.header("x-request-id")
    assert comparison.attributes == {
        "simsa.comparison_id": answer.json()["id"],
        "simsa.request_id": request_id,
        "simsa.schedule": "sequential",
        "simsa.status": "ok",
        "simsa.sides": 2,
        "simsa.sides_ok": 1,
        "simsa.timing_comparable": False,
    }
    for position, name in enumerate(("chat a", "chat b")):
        (side,) = named(spans, name)
        assert side.kind == "INTERNAL"
        assert side.is_within(comparison)
        assert side.attributes["simsa.comparison_id"] == answer.json()["id"]
        assert side.attributes["simsa.request_id"] == f"{request_id}-{position}"


async def test_a_comparison_whose_reader_leaves_is_over_with_its_sides(tmp_path: Path) -> None:
    never = asyncio.Event()
    async with OtlpCollector() as collector, ScriptedEngine(["a"]) as a, ScriptedEngine(["b"]) as b:
        models = [entry("a", a.url), entry("b", b.url)]
        async with traced(tmp_path, models, collector) as (gateway, _):
            for engine in (a, b):
                engine.script(CHAT, Reply.stream(chat_chunk("a"), never))
            async with RawClient(gateway.url) as client:
                body = {"models": ["a", "b"], "prompt": "x", "schedule": "concurrent", "stream": True}
                await client.start("POST", COMPARE, body=body)
                await a.received(CHAT)
                await b.received(CHAT)
                client.leave()
            spans = await collector.until_spans(5)
    (comparison,) = named(spans, "comparison")
    assert (comparison.attributes["simsa.status"], comparison.is_error) == ("cancelled", False)
    assert {span.parent_id for span in spans if span.name.startswith("chat")} == {comparison.span_id}


async def test_each_comparison_of_a_batch_begins_a_trace(tmp_path: Path) -> None:
    async with OtlpCollector() as collector, ScriptedEngine(["a"]) as a, ScriptedEngine(["b"]) as b:
        models = [entry("a", a.url), entry("b", b.url)]
        async with traced(tmp_path, models, collector) as (gateway, _):
            prompts = [{"id": "1", "prompt": "하나"}, {"id": "2", "prompt": "둘"}]
            async with RawClient(gateway.url) as client:
                body = {"models": ["a", "b"], "prompts": prompts, "name": "two"}
                assert (await client.request("POST", BATCHES, body=body)).status == 201
            spans = await collector.until_spans(10)
    comparisons = named(spans, "comparison")
    assert [(span.kind, span.parent_id) for span in comparisons] == [("INTERNAL", "")] * 2
    assert len({span.trace_id for span in comparisons}) == 2


# --- whose trace it is --------------------------------------------------------------------------------------


async def test_the_clients_trace_goes_on_through_the_gateway_to_the_engine(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (_, client),
    ):
        await ask(client, {**SAMPLED, "tracestate": "vendor=7", "baggage": "who=me"})
        call, attempt = await collector.until_spans(2)
        asked = engine.requests_to(CHAT)[0]
    assert (call.trace_id, call.parent_id, call.state) == (TRACE, PARENT_SPAN, "vendor=7")
    assert (bool(call.flags & 0x200), bool(attempt.flags & 0x200)) == (True, False), "whose parent is another program's"
    assert asked.header("traceparent") == f"00-{TRACE}-{attempt.span_id}-01"
    assert asked.header("tracestate") == "vendor=7"
    assert asked.header("baggage") is None


async def test_a_hosted_api_is_told_of_no_trace(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url, serving={"kind": "openai_api"})], collector) as (_, client),
    ):
        await ask(client, {**SAMPLED, "tracestate": "vendor=7"})
        call, _ = await collector.until_spans(2)
        asked = engine.requests_to(CHAT)[0]
    assert call.attributes["gen_ai.provider.name"] == "openai"
    assert (asked.header("traceparent"), asked.header("tracestate")) == (None, None)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_the_clients_choice_of_what_is_kept_holds_whatever_the_ratio(tmp_path: Path, ratio: float) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector, trace_ratio=ratio) as (_, client),
    ):
        await ask(client, UNSAMPLED)
        assert (engine.requests_to(CHAT)[0].header("traceparent") or "").endswith("-00"), "the engine keeps none either"
        await ask(client, SAMPLED)
        assert {span.trace_id for span in await collector.until_spans(2)} == {TRACE}
        assert len(collector.spans) == 2


async def test_the_ratio_decides_for_traces_that_begin_here(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector, trace_ratio=0.5) as (_, client),
    ):
        for _ in range(40):
            await ask(client)
        told = [(request.header("traceparent") or "").split("-") for request in engine.requests_to(CHAT)]
        kept = {trace_id for _, trace_id, _, flags in told if flags == "01"}
        assert kept == {trace_id for _, trace_id, _, _ in told if is_kept(bytes.fromhex(trace_id), 0.5)}
        assert len({trace_id for _, trace_id, _, _ in told}) == 40
        spans = await collector.until_spans(2 * len(kept))
    assert {span.trace_id for span in spans} == kept


async def test_nothing_is_traced_where_no_collector_is_named(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        async with RawClient(gateway.url) as client:
            assert (await client.request("POST", CHAT, body=ASK, headers=list(SAMPLED.items()))).status == 200
        assert gateway.services.dispatcher.tracer is None
        assert engine.requests_to(CHAT)[0].header("traceparent") is None
        assert "simsa_spans_total{" not in gateway.services.telemetry.render().decode()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "span export"]


# --- the collector ------------------------------------------------------------------------------------------


async def test_headers_reach_the_collector(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(
            tmp_path, [entry("m", engine.url)], collector, otlp_headers="Authorization=Bearer%20a%2Cb%3D, x-scope=team"
        ) as (_, client),
    ):
        await ask(client)
        await collector.until_spans(2)
        request = collector.requests_to(TRACES)[0]
    assert request.header("authorization") == "Bearer a,b="
    assert request.header("x-scope") == "team"


async def test_calls_share_batches(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (gateway, client),
    ):
        collector.script(TRACES, taken().gated(gate))
        await ask(client)
        await collector.received(TRACES)
        for _ in range(20):
            await ask(client)
        collector.script(TRACES)
        gate.set()
        await collector.until_spans(40)
        assert len(collector.requests_to(TRACES)) == 2
        await gateway.until(lambda: counted(gateway, Fate.EXPORTED) == 42)


async def test_a_collector_that_is_away_costs_calls_nothing_and_is_counted(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (gateway, client),
    ):
        await collector.kill()
        with capture_logs() as lines:
            await ask(client)
            await gateway.until(lambda: counted(gateway, Fate.GIVEN_UP) == 2)
        (told,) = [line for line in lines if line["event"].startswith("the collector")]
        assert told["why"].startswith("cannot connect to the collector")
        await collector.start()
        await ask(client)
        await collector.until_spans(2)
        await gateway.until(lambda: counted(gateway, Fate.EXPORTED) == 2)
        assert {call.status.value for call in await gateway.calls(2)} == {"ok"}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_collector_is_asked_again(tmp_path: Path, status: int) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (gateway, client),
    ):
        busy = Reply.text("", status=status)
        collector.script(TRACES, busy, busy, collector.usual)
        await ask(client)
        await collector.until_spans(2)
        first, *others = [request.body for request in collector.requests_to(TRACES)]
        assert others == [first, first]
        await gateway.until(lambda: counted(gateway, Fate.EXPORTED) == 2)
        assert counted(gateway, Fate.GIVEN_UP) == 0


async def test_a_collector_that_stays_busy_is_given_up(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (gateway, client),
    ):
        collector.script(TRACES, Reply.text("", status=503))
        await ask(client)
        await gateway.until(lambda: counted(gateway, Fate.GIVEN_UP) == 2)
        assert len(collector.requests_to(TRACES)) == TRIES


async def test_a_refused_batch_is_not_sent_again(tmp_path: Path) -> None:
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector) as (gateway, client),
    ):
        collector.script(TRACES, Reply.text("no", status=400), taken(rejected=1))
        await ask(client)
        await gateway.until(lambda: counted(gateway, Fate.REJECTED) == 2)
        await ask(client)
        await gateway.until(lambda: counted(gateway, Fate.REJECTED) == 3)
        assert counted(gateway, Fate.EXPORTED) == 1
        assert len(collector.requests_to(TRACES)) == 2


async def test_a_slow_collector_holds_up_no_call_and_no_memory(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        OtlpCollector() as collector,
        ScriptedEngine() as engine,
        traced(tmp_path, [entry("m", engine.url)], collector, trace_queue=1) as (gateway, client),
    ):
        collector.script(TRACES, taken().gated(gate))
        await ask(client)
        await collector.received(TRACES)
        for _ in range(5):
            await ask(client)
        assert counted(gateway, Fate.QUEUE_FULL) == 8, "one call waits, four are dropped"
        collector.script(TRACES)
        gate.set()
        await collector.until_spans(2)
        await gateway.until(lambda: counted(gateway, Fate.EXPORTED) == 4)


async def test_what_is_not_yet_sent_is_sent_when_the_gateway_stops(tmp_path: Path) -> None:
    async with OtlpCollector() as collector, ScriptedEngine() as engine:
        async with traced(tmp_path, [entry("m", engine.url)], collector, trace_flush_s=60) as (_, client):
            await ask(client)
            await ask(client)
            assert not collector.requests
        assert len(collector.spans) == 4


async def test_what_is_being_sent_when_the_gateway_stops_is_offered_again(tmp_path: Path) -> None:
    async with OtlpCollector() as collector, ScriptedEngine() as engine:
        async with traced(tmp_path, [entry("m", engine.url)], collector) as (_, client):
            collector.script(TRACES, Reply.hang(), collector.usual)
            await ask(client)
            await collector.received(TRACES)
            await ask(client)
        assert len(collector.spans) == 4


async def test_a_collector_that_never_answers_does_not_keep_the_gateway_from_stopping(tmp_path: Path) -> None:
    async with OtlpCollector() as collector, ScriptedEngine() as engine:
        collector.script(TRACES, Reply.hang())
        async with traced(tmp_path, [entry("m", engine.url)], collector) as (gateway, client):
            await ask(client)
            await collector.received(TRACES)
        assert counted(gateway, Fate.GIVEN_UP) == 2


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("otlp_endpoint", "collector:4318", "expected an address such as http://collector:4318"),
        ("otlp_endpoint", "", "expected an address"),
        ("otlp_endpoint", "http://key@collector:4318", "SIMSA_OTLP_HEADERS"),
        ("otlp_endpoint", "http://collector:4318/v1/traces/", "leave /v1/traces away"),
        ("otlp_headers", "authorization", "expected name=value"),
        ("otlp_headers", "a b=c", "expected name=value"),
        ("otlp_headers", "a=b%0D%0Ac", "expected name=value"),
        ("trace_ratio", 1.5, "less than or equal to 1"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_what_would(setting: str, value: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**{setting: value})  # type: ignore[arg-type]


def test_the_collectors_headers_are_not_shown() -> None:
    settings = Settings(otlp_headers="authorization=Bearer%20secret")  # type: ignore[arg-type]
    assert "secret" not in repr(settings)
    assert settings.otlp_header_pairs == (("authorization", "Bearer secret"),)
