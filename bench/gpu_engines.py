"""Real vLLM on the GPU with made-up weights in the registry's real sizes, and what it resolved at its start.

A checkpoint of a few files: the stand-in's tokenizer, and a config.json with the registry's shape in place of the tiny
one. The network is never needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.gpu_page import Engine, parse_cache_config
from gateway.checkpoints import SERVER, checkpoint_config, write_checkpoint
from gateway.domain.feasibility import Estimate, estimate
from gateway.domain.memory import kv_blocks_per_request, requested_bytes, weights_bytes
from gateway.domain.records import Gpu, Model
from gateway.domain.serving_plan import ServingPlan
from gateway.settings import child_environment

UTILIZATION = 0.92
PLAIN = frozenset(
    {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Exaone4ForCausalLM", "HyperCLOVAXForCausalLM"}
)
"""Architectures whose sizes are all among the shape's fields."""


def has_real_size(model: Model) -> bool:
    shape = model.shape
    if shape is None or model.weights.architecture not in PLAIN:
        return False
    sizes = (shape.layers, shape.hidden, shape.ffn, shape.heads, shape.kv_heads, shape.head_dim, shape.vocab)
    return None not in (*sizes, shape.tied_embeddings)


def real_size_config(model: Model, *, max_model_len: int) -> dict[str, Any]:
    """The stand-in's config.json with the registry's sizes. The model must have `has_real_size`."""
    shape = model.shape
    assert shape is not None
    config = checkpoint_config(model, vocab=shape.vocab or 0, max_model_len=max_model_len)
    config |= {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "tie_word_embeddings": shape.tied_embeddings,
    }
    if model.weights.architecture == "HyperCLOVAXForCausalLM":
        config["attention_multiplier"] = (shape.head_dim or 1) ** -0.5
    if model.weights.architecture == "Exaone4ForCausalLM":
        layers, full = shape.layers or 0, shape.global_layers or 0
        every = layers // full if full and shape.sliding_window else 1
        kinds = ["full_attention" if (n + 1) % every == 0 else "sliding_attention" for n in range(layers)]
        config |= {"layer_types": kinds, "sliding_window": shape.sliding_window}
        config["sliding_window_pattern"] = every if shape.sliding_window else None
    return config


def run_engine(python: Path, model: Model, gpu: Gpu, *, context: int, within_s: float) -> Engine:
    """Start one engine, read its cache_config_info, end it. What went wrong becomes the result's reason."""
    predicted = estimate(model, gpu, context=context, plan=ServingPlan(gpu_memory_utilization=UTILIZATION))
    if predicted.kv_available_bytes is None or predicted.kv_available_bytes.high <= 0:
        return _result(model, gpu, predicted, context, {}, reason="its weights do not fit by the prediction")
    with tempfile.TemporaryDirectory(prefix="simsa-gpu-check-") as directory:
        path = write_checkpoint(model, Path(directory), max_model_len=context)
        (path / "config.json").write_text(json.dumps(real_size_config(model, max_model_len=context)))
        log = Path(directory) / "engine.log"
        try:
            with _engine(python, path, log, context) as (url, process):
                resolved = _cache_config(url, process, within_s)
        except (OSError, TimeoutError, RuntimeError) as error:
            tail = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            return _result(model, gpu, predicted, context, {}, reason=f"{error}: {' '.join(tail)[:200]}")
    return _result(model, gpu, predicted, context, resolved, reason=None)


def _result(
    model: Model, gpu: Gpu, predicted: Estimate, context: int, resolved: Mapping[str, str], *, reason: str | None
) -> Engine:
    block = resolved.get("block_size", "")
    paging = replace(predicted.inputs.paging, block=int(block)) if block.isdigit() else predicted.inputs.paging
    shape, available = model.shape, predicted.kv_available_bytes
    need = (
        None
        if shape is None
        else kv_blocks_per_request(
            shape,
            context=context,
            block=paging.block,
            max_batched_tokens=paging.max_batched_tokens,
            batches_in_flight=paging.batches_in_flight,
        )
    )
    return Engine(
        model=model.id,
        context=context,
        predicted_kv_bytes=None if available is None else (available.low, available.likely, available.high),
        predicted_blocks_per_request=None if need is None else need.blocks,
        weights_bytes=weights_bytes(model),
        resolved=resolved,
        block_bytes=None if need is None else need.block_bytes,
        requested_bytes=requested_bytes(gpu.memory_bytes, UTILIZATION),
        reason=reason,
    )


@contextlib.contextmanager
def _engine(python: Path, checkpoint: Path, log: Path, context: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "--model": str(checkpoint),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--max-model-len": str(context),
        "--load-format": "dummy",
        "--gpu-memory-utilization": str(UTILIZATION),
    }
    words = [word for option in options.items() for word in option]
    # Without CUDA graphs: capturing them takes longer than this check may.
    command = [str(python), *SERVER, *words, "--enforce-eager"]
    environment = child_environment(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", TOKENIZERS_PARALLELISM="false")
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the engine and the processes that it began, so that the GPU is free for the next."""
    for sign, wait_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=wait_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _cache_config(url: str, process: subprocess.Popen[bytes], within_s: float) -> dict[str, str]:
    """The labels of its cache_config_info, once it has them."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise RuntimeError(f"the engine ended with {process.returncode}")
        with contextlib.suppress(urllib.error.URLError, OSError):
            with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310
                found = parse_cache_config(answer.read().decode())
            if found.get("num_gpu_blocks", "None").isdigit():
                return found
        time.sleep(0.5)
    raise TimeoutError(f"no cache_config_info within {within_s:.0f} s")
