"""A trace that begins at a client and ends in real vLLM: its own span is the child of the gateway's attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from clients import RawClient
from otlp_collector import TRACES, OtlpCollector, TakenSpan
from real_engines import MAX_MODEL_LEN, MORTAL, REGISTRY, VLLM_PYTHON, RealEngine, gateway_before

from gateway.checkpoints import stand_in_command, stand_in_environment
from gateway.processes import start_child, wait_ready
from gateway.settings import child_environment

CHAT = "/v1/chat/completions"
TRACE, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
_READY_S = 150.0


class TracingEngine(RealEngine):
    """One stand-in that sends its spans to a collector, soon after they end."""

    async def trace_to(self, collector: OtlpCollector) -> None:
        """Start it and wait until it is healthy."""
        command = stand_in_command(
            VLLM_PYTHON, self.model, self.checkpoint, port=self.port, max_model_len=MAX_MODEL_LEN
        )
        environment = stand_in_environment(VLLM_PYTHON, self.model) | {
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        self._engine = child = await start_child(
            self.model_id,
            [*command, "--otlp-traces-endpoint", f"{collector.url}{TRACES}"],
            log=self.log,
            environment=child_environment(**environment),
        )
        await wait_ready(child, f"{self.url}/health", timeout_s=_READY_S)


@asynccontextmanager
async def tracing_engine(directory: Path, collector: OtlpCollector) -> AsyncIterator[RealEngine]:
    engine = TracingEngine(REGISTRY.models[MORTAL], directory)
    try:
        await engine.trace_to(collector)
        yield engine
    finally:
        await engine.stop()


async def test_vllms_span_is_the_child_of_the_attempt_in_the_clients_trace(tmp_path: Path, vllm_python: Path) -> None:
    settings = {"trace_flush_s": 0.05, "trace_ratio": 0.0}
    async with (
        OtlpCollector() as collector,
        tracing_engine(tmp_path, collector) as engine,
        gateway_before(tmp_path / "gateway", engine, otlp_endpoint=collector.url, **settings) as gateway,
    ):
        body = {"model": MORTAL, "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 4}
        sampled = [("traceparent", f"00-{TRACE}-{CLIENT_SPAN}-01")]
        async with RawClient(gateway.url) as client:
            assert (await client.request("POST", CHAT, body=body, headers=sampled)).status == 200
        call, attempt, theirs = await _spans_of_trace(collector, 3)
    assert (call.parent_id, attempt.parent_id, theirs.parent_id) == (CLIENT_SPAN, call.span_id, attempt.span_id)
    assert (theirs.name, theirs.kind) == ("llm_request", "SERVER")
    assert theirs.resource["service.name"] != call.resource["service.name"]
    assert theirs.attributes["gen_ai.usage.completion_tokens"] == call.attributes["gen_ai.usage.output_tokens"]


async def _spans_of_trace(collector: OtlpCollector, count: int) -> list[TakenSpan]:
    """The spans of the client's trace once they are so many, the outermost first."""
    await collector.until(lambda: sum(span.trace_id == TRACE for span in collector.spans) >= count)
    found = {span.parent_id: span for span in collector.spans if span.trace_id == TRACE}
    chain = [found[CLIENT_SPAN]]
    while chain[-1].span_id in found:
        chain.append(found[chain[-1].span_id])
    return chain
