"""Our KV cache arithmetic beside vLLM's own, number by number and without tolerance.

Most points are resolved by vLLM's functions in one process (kv_oracle.py), on models that its own classes build; one
point an architecture is a whole engine of the suite, whose `vllm:cache_config_info` is read.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from kv_points import grid
from questions import everyone
from real_engines import LLAMA, MAX_MODEL_LEN, REGISTRY, RealEngine

from gateway.checkpoints import stand_in_environment
from gateway.domain.kv_groups import Paging
from gateway.domain.memory import kv_layout
from gateway.domain.records import MlaShape, ModelShape
from gateway.settings import child_environment

POINTS = {point.id: point for point in grid()}
WITHIN_S = 600.0
FIGURES = ("num_gpu_blocks", "kv_cache_size_tokens", "kv_cache_max_concurrency")
ENGINE_KV_BYTES = 64 * 2**20
"""`--kv-cache-memory-bytes` of every stand-in."""
CPU_BATCHED_TOKENS = 2048


@pytest.fixture(scope="module")
def told(vllm_python: Path) -> dict[str, dict[str, Any]]:
    """What vLLM makes of every point, by the point's id."""
    orders = "".join(json.dumps(point.order()) + "\n" for point in POINTS.values())
    environment = stand_in_environment(vllm_python, REGISTRY.models[LLAMA]) | {"VLLM_LOGGING_LEVEL": "ERROR"}
    ended = subprocess.run(
        [str(vllm_python), str(Path(__file__).with_name("kv_oracle.py"))],
        input=orders,
        env=child_environment(**environment),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(answers) == len(POINTS), ended.stderr[-4000:]
    return dict(zip(POINTS, answers, strict=True))


def test_the_grid_has_points_enough_and_no_two_the_same() -> None:
    assert len(POINTS) == len(list(grid())) >= 60


@pytest.mark.parametrize("name", POINTS)
def test_blocks_tokens_and_concurrency_are_vllms_own(told: dict[str, dict[str, Any]], name: str) -> None:
    point, said = POINTS[name], told[name]
    assert "refused" not in said, said["refused"]
    assert (point.paging.max_batched_tokens, point.paging.batches_in_flight) == (
        said["max_batched_tokens"],
        said["batches_in_flight"],
    ), "the settings that our numbers assume"
    layout, paging = point.layout(), point.paging
    blocks = layout.blocks_in_stages([point.kv_bytes] * point.pipeline_parallel, paging)
    ours = {
        "num_gpu_blocks": blocks,
        "kv_cache_size_tokens": layout.kv_tokens(blocks, point.context, paging),
        "kv_cache_max_concurrency": layout.max_concurrency(blocks, point.context, paging),
    }
    assert ours == {figure: said[figure] for figure in FIGURES}
    assert layout.effective_block(paging) == said["block_size"]
    assert sorted(group.layers for group in layout.groups(paging)) == sorted(count for _, count in said["groups"])
    ours["blocks_per_request"] = layout.blocks_per_request(point.context, paging)
    assert {figure: ours[figure] for figure in point.known} == point.known


# --- whole engines ------------------------------------------------------------------------------------------


@everyone
async def test_a_running_engines_labels_are_what_we_predict(engine: RealEngine, model_id: str) -> None:
    labels = await cache_config_info(engine)
    config = json.loads((engine.checkpoint / "config.json").read_text())
    layout = kv_layout(shape_of(config.get("text_config", config)))
    assert layout is not None
    paging = Paging(int(labels["block_size"]), max(CPU_BATCHED_TOKENS, MAX_MODEL_LEN), batches_in_flight=1)
    blocks = layout.blocks_in(ENGINE_KV_BYTES, paging)
    assert int(labels["num_gpu_blocks"]) == blocks
    assert int(labels["kv_cache_size_tokens"]) == layout.kv_tokens(blocks, MAX_MODEL_LEN, paging)
    assert float(labels["kv_cache_max_concurrency"]) == layout.max_concurrency(blocks, MAX_MODEL_LEN, paging)


async def cache_config_info(engine: RealEngine) -> dict[str, str]:
    async with RawClient(engine.url) as client:
        text = (await client.request("GET", "/metrics")).body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith("vllm:cache_config_info{")]
    return dict(re.findall(r'(\w+)="([^"]*)"', line))


def shape_of(config: dict[str, Any]) -> ModelShape:
    """What the KV cache depends on, of a stand-in's own config.json."""
    layers = config["num_hidden_layers"]
    kinds = config.get("layer_types", ["full_attention"] * layers)
    has_window = "sliding_attention" in kinds
    rank = config.get("kv_lora_rank")
    return ModelShape(
        layers=layers,
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config.get("head_dim"),
        sliding_window=config["sliding_window"] if has_window else None,
        global_layers=kinds.count("full_attention") if has_window else layers,
        mla=None if rank is None else MlaShape(rank, config["qk_rope_head_dim"]),
    )
