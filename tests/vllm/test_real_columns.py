"""Predicted, resolved and observed of real vLLM: what is read is what the engine shows, and the arithmetic is vLLM's.

The registry entries here have the stand-ins' own shapes, so that the prediction is of what really runs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from gateways import RunningGateway, entry, running_gateway
from prometheus_client.parser import text_string_to_metric_families
from real_engines import HYBRID, LLAMA, MAX_MODEL_LEN, RealEngine, RealEngines

from gateway.checkpoints.architectures import FFN, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, WINDOW

SHAPE: dict[str, Any] = {
    "layers": LAYERS,
    "hidden": HIDDEN,
    "ffn": FFN,
    "heads": HEADS,
    "kv_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "context": MAX_MODEL_LEN,
    "source": "the stand-in's config.json",
    "confidence": "high",
}
SHAPES = {LLAMA: SHAPE, HYBRID: {**SHAPE, "layers": 4, "sliding_window": WINDOW, "global_layers": 1}}
REQUESTS = 6


async def shown_by(engine: RealEngine) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
    """The cache's labels by another parser than ours, the entry of its list of models, its version."""
    async with RawClient(engine.url) as client:
        text = (await client.request("GET", "/metrics")).body.decode()
        models = (await client.request("GET", "/v1/models")).json()["data"]
        version = (await client.request("GET", "/version")).json()
    (labels,) = (
        sample.labels
        for family in text_string_to_metric_families(text)
        if family.name == "vllm:cache_config_info"
        for sample in family.samples
    )
    return labels, models[0], version


async def told(gateway: RunningGateway, path: str) -> dict[str, Any]:
    async with RawClient(gateway.url) as client:
        answer = await client.request("GET", path)
    assert answer.status == 200, answer.body
    (only,) = answer.json()["data"]
    found: dict[str, Any] = only
    return found


async def ask(gateway: RunningGateway, model_id: str, tokens: int) -> int:
    messages = [{"role": "user", "content": "가나다라 " * 100}]
    body = {"model": model_id, "messages": messages, "max_tokens": tokens, "ignore_eos": True}
    async with RawClient(gateway.url) as client:
        return (await client.request("POST", "/v1/chat/completions", body=body)).status


@pytest.mark.parametrize("model_id", [LLAMA, HYBRID])
async def test_what_is_resolved_is_what_the_engine_shows_and_the_columns_agree(
    tmp_path: Path, engines: RealEngines, model_id: str
) -> None:
    engine = engines[model_id]
    labels, card, version = await shown_by(engine)
    async with running_gateway(tmp_path, [entry(model_id, engine.url, shape=SHAPES[model_id])]) as gateway:
        await gateway.until_live(model_id)
        state = gateway.services.fleet.states_of(model_id)[0]
        await gateway.until(lambda: state.observed is not None)
        report = await told(gateway, "/api/engines")
        assert report["labels"] == {name: value for name, value in labels.items() if name != "engine"}
        assert (report["version"], report["max_model_len"]) == (version["version"], card["max_model_len"])
        assert (report["root"], report["owned_by"]) == (card["root"], card["owned_by"])
        for name in ("num_gpu_blocks", "block_size", "kv_cache_size_tokens", "kv_cache_memory_bytes"):
            assert report[name] == int(labels[name])
        assert report["kv_cache_max_concurrency"] == float(labels["kv_cache_max_concurrency"])

        statuses = await asyncio.gather(*(ask(gateway, model_id, 64) for _ in range(REQUESTS)))
        assert statuses == [200] * REQUESTS
        columns = await told(gateway, "/api/feasibility/columns")
        rows = {row["figure"]: row for row in columns["rows"]}
        for figure in ("blocks", "kv_tokens", "max_concurrency"):
            assert rows[figure]["resolved"]["value"] is not None
            assert rows[figure]["difference"] == pytest.approx(0, abs=1e-6), rows[figure]
        assert rows["kv_budget"]["difference"] == 0
        assert rows["block_size"]["resolved"]["value"] == 128
        assert 0 < rows["peak_running"]["observed"]["value"] <= REQUESTS
        assert 0 < rows["peak_kv_usage"]["observed"]["value"] < 1
        assert rows["preemptions"]["observed"]["value"] == 0
        assert columns["load"]["generation_tokens"] > 0
        assert (columns["provenance"], columns["fits"]["settled"]) == ("stand_in", None)
        assert rows["overhead"]["resolved"]["value"] is None
        assert not gateway.services.settings.calibration_file.exists()
