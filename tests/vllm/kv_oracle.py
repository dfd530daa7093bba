"""vLLM's own KV cache accounting for many models in one process, without weights, engines or memory: 0.1 s a model.

Run by path with vLLM's own Python; for tests only. Each line of the input is a point, `{"config", "max_model_len",
...}` (see `answer`); each line of the output is what vLLM makes of it: `{"num_gpu_blocks", "kv_cache_size_tokens",
"kv_cache_max_concurrency", ...}` or `{"refused"}`. The model is built on PyTorch's meta device, so its layers are
vLLM's and only its tensors are missing; grouping, blocks and capacity are vLLM's functions, called as its engine core
calls them. Parallel sets and a GPU's settings are put on from outside, for there is one CPU.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import vllm.v1.worker.cpu_worker  # noqa: F401  so that what it imports is imported in the engine's order
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.utils.torch_utils import set_default_torch_dtype
from vllm.v1.attention.backend import MultipleOf
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
from vllm.v1.core.kv_cache_utils import (
    generate_scheduler_kv_cache_config,
    get_kv_cache_capacity,
    get_kv_cache_configs,
    max_memory_usage_bytes,
)
from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

Json = dict[str, Any]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM's own words go beside, not between
    with tempfile.TemporaryDirectory() as directory:
        for number, line in enumerate(sys.stdin):
            point, begun = json.loads(line), time.monotonic()
            path = Path(directory) / str(number)
            path.mkdir()
            (path / "config.json").write_text(json.dumps(point.pop("config")))
            try:
                told = answer(path, **point)
            except Exception as error:  # whatever vLLM says no with
                told = {"refused": f"{type(error).__name__}: {error}"}
            print(json.dumps({**told, "seconds": round(time.monotonic() - begun, 3)}), file=answers, flush=True)


def answer(
    path: Path,
    *,
    max_model_len: int,
    kv_bytes: int,
    block: int | None = None,
    max_batched_tokens: int | None = None,
    kv_dtype: str = "auto",
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    hybrid: bool | None = None,
    as_on_gpu: bool = False,
    asynchronous: bool = True,
) -> Json:
    """What the engine core would resolve with `kv_bytes` for the cache on each of its workers.

    `as_on_gpu`: two batches in flight by asynchronous scheduling unless that is off, one more than the stages of a
    pipeline (the V2 model runner), and attention kernels with blocks of a multiple of 16 tokens, as FlashAttention's.
    """
    config = EngineArgs(
        model=str(path),
        skip_tokenizer_init=True,
        max_model_len=max_model_len,
        max_num_batched_tokens=max_batched_tokens,
        block_size=block,
        kv_cache_dtype=kv_dtype,
        disable_hybrid_kv_cache_manager=None if hybrid is None else not hybrid,
        enforce_eager=True,
        load_format="dummy",
        distributed_executor_backend="uni",
    ).create_engine_config(UsageContext.OPENAI_API_SERVER)
    config.parallel_config.tensor_parallel_size = tensor_parallel
    config.parallel_config.pipeline_parallel_size = pipeline_parallel
    if as_on_gpu:
        config.scheduler_config.async_scheduling = asynchronous
    with _kernels(16 if as_on_gpu else 32), _environment({"VLLM_USE_V2_MODEL_RUNNER": "1"} if as_on_gpu else {}):
        return resolve(config, kv_bytes)


def resolve(config: VllmConfig, kv_bytes: int) -> Json:
    stages, tensor_parallel = config.parallel_config.pipeline_parallel_size, config.parallel_config.tensor_parallel_size
    specs = []
    for stage in range(stages):
        config.compilation_config.static_forward_context.clear()
        with _rank(config, stage, stages, tensor_parallel):
            initialize_model(vllm_config=config, model_config=config.model_config)
            if stage == 0:
                current_platform.update_block_size_for_backend(config)
            specs.append(get_kv_cache_spec(config))
    layers = config.compilation_config.static_forward_context.values()
    backends = [layer.get_attn_backend() for layer in layers if hasattr(layer, "get_attn_backend")]
    layouts = [layout.name for layout in get_supported_kv_cache_layouts(backends)]
    resolve_kv_cache_layout(config, [layouts], [spec for each in specs for spec in each.values()])
    configs = get_kv_cache_configs(config, specs, [kv_bytes] * stages)
    scheduler = generate_scheduler_kv_cache_config(configs)
    tokens, concurrency = get_kv_cache_capacity(config, scheduler)
    groups = scheduler.kv_cache_groups
    return {
        "num_gpu_blocks": scheduler.num_blocks,
        "kv_cache_size_tokens": tokens,
        "kv_cache_max_concurrency": concurrency,
        "block_size": min(group.kv_cache_spec.block_size for group in groups),
        "max_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "batches_in_flight": config.max_concurrent_batches,
        "layout": config.cache_config.kv_cache_layout,
        "architecture": config.model_config.architecture,
        "groups": [
            [type(group.kv_cache_spec).__name__, sum(len(c.kv_cache_groups[n].layer_names) for c in configs)]
            for n, group in enumerate(groups)
        ],
        "plain_bytes": max_memory_usage_bytes(config, [spec for each in specs for spec in each.values()]),
    }


@contextmanager
def _rank(config: VllmConfig, stage: int, stages: int, tensor_parallel: int) -> Iterator[None]:
    """The first GPU of one pipeline stage."""
    with set_current_vllm_config(config):
        if not parallel_state.model_parallel_is_initialized():
            place = tempfile.mktemp()
            parallel_state.init_distributed_environment(1, 0, f"file://{place}", 0, "gloo")
            parallel_state.initialize_model_parallel(1, 1)
            if parallel_state._EP is None:  # made for mixtures only, and the first model need not be one
                parallel_state._EP = parallel_state.init_model_parallel_group([[0]], 0, "gloo", group_name="ep")
        for group, size, rank in (
            (parallel_state.get_tp_group(), tensor_parallel, 0),
            (parallel_state.get_pp_group(), stages, stage),
        ):
            group.world_size, group.rank, group.rank_in_group, group.ranks = size, rank, rank, list(range(size))
        with set_default_torch_dtype(config.model_config.dtype), torch.device("meta"):
            yield


@contextmanager
def _kernels(multiple: int) -> Iterator[None]:
    own = CPUAttentionBackend.get_supported_kernel_block_sizes
    CPUAttentionBackend.get_supported_kernel_block_sizes = staticmethod(
        lambda kv_cache_spec=None: [MultipleOf(multiple)]
    )
    try:
        yield
    finally:
        CPUAttentionBackend.get_supported_kernel_block_sizes = own


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    main()
