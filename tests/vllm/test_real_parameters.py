"""Our count of a model's parameters and layers against transformers' own, of every family, real and thin."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from architectures_shown import CANDIDATES
from known_configs import DEEPSEEK_V3, EXAONE_40_32B, LLAMA_31_8B, THIN
from safetensors_files import tensors

from gateway.checkpoints import checkpoint_config
from gateway.domain.checkpoint import checkpoint_model
from gateway.domain.model_config import count_params, shape_of_config

COUNTER = Path(__file__).with_name("parameter_counter.py")
FOREIGN = {"kanana-1.5-v", "solar"}
"""Configurations of the checkpoints' own making, which transformers does not have."""
FULL_SIZE = {"Llama 3.1 8B": LLAMA_31_8B, "EXAONE 4.0 32B": EXAONE_40_32B, "DeepSeek-V3": DEEPSEEK_V3}
LEFT_OUT = {
    "quantization_config",
    "architectures",
    "sliding_window_pattern",
    "auto_map",
    "torch_dtype",
    "dtype",
    "rope_scaling",
}


def stand_ins() -> dict[str, dict[str, Any]]:
    configs = {name: checkpoint_config(model, vocab=1009, max_model_len=2048) for name, model in CANDIDATES.items()}
    return {name: config for name, config in configs.items() if config["model_type"] not in FOREIGN}


CASES: dict[str, Any] = {**THIN, **FULL_SIZE, **stand_ins()}


def as_transformers_takes_it(config: Any) -> dict[str, Any]:
    given = {name: value for name, value in config.items() if name not in LEFT_OUT}
    if config.get("sliding_window_pattern") == "LLLG" and "layer_types" not in config:
        given["sliding_window_pattern"] = 4
    elif "sliding_window_pattern" in config and config["sliding_window_pattern"] != "LLLG":
        given["sliding_window_pattern"] = config["sliding_window_pattern"]
    return given


@pytest.fixture(scope="module")
def counts(vllm_python: Path) -> dict[str, dict[str, Any]]:
    order = json.dumps([as_transformers_takes_it(config) for config in CASES.values()])
    ended = subprocess.run([vllm_python, COUNTER], input=order, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return dict(zip(CASES, json.loads(ended.stdout), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_those_that_transformers_counts(name: str, counts: dict[str, dict[str, Any]]) -> None:
    ours, theirs = count_params(CASES[name]), counts[name]
    assert ours is not None
    assert (ours.total, ours.embedding) == (theirs["params"], theirs["embedding"])
    assert shape_of_config(CASES[name]).tied_embeddings is theirs["tied"]


@pytest.mark.parametrize("name", CASES)
def test_headers_of_the_same_model_lead_to_the_same_figures(name: str, counts: dict[str, dict[str, Any]]) -> None:
    config, theirs = CASES[name], counts[name]
    shapes: dict[str, Any] = {tensor: ("BF16", shape) for tensor, shape in theirs["tensors"].items()}
    model = checkpoint_model("m", "here", config=config, tensors=tensors(shapes))
    by_config = shape_of_config(config)
    assert model.shape is not None
    assert (model.shape.params, model.weights.size_bytes) == (theirs["params"], 2 * theirs["params"])
    assert model.shape.active_params == by_config.active_params
    assert model.shape.tied_embeddings is theirs["tied"]
    assert model.shape.facts["params"].note is None


@pytest.mark.parametrize("name", CASES)
def test_layers_are_those_of_transformers(name: str, counts: dict[str, dict[str, Any]]) -> None:
    theirs = counts[name]["layer_types"]
    if not theirs:
        pytest.skip("its class has no layer types")
    shape = shape_of_config(CASES[name])
    assert shape.global_layers == theirs.get("full_attention", 0) + theirs.get("indexed_attention", 0)
    assert (shape.linear.layers if shape.linear else 0) == theirs.get("linear_attention", 0)
    assert (shape.sliding_window is not None) == ("sliding_attention" in theirs)
    assert (shape.attention_chunk is not None) == ("chunked_attention" in theirs)
