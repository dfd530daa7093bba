"""Models and GPUs for the tests of the simulated engine: one with a published shape, one tiny, one without facts."""

from __future__ import annotations

from dataclasses import replace

from gateway.domain.feasibility import estimate
from gateway.domain.memory import kv_layout
from gateway.domain.records import (
    Confidence,
    Gpu,
    Model,
    ModelShape,
    MoeShape,
    ReasoningSwitch,
    Serving,
    ServingKind,
    Sourced,
    Weights,
)

SOURCED = Sourced("test", Confidence.HIGH)

LLAMA_8B = ModelShape(
    params=8_030_261_248,
    active_params=8_030_261_248,
    layers=32,
    hidden=4096,
    ffn=14336,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocab=128_256,
    tied_embeddings=False,
    context=131_072,
    global_layers=32,
)
MIXTURE = replace(
    LLAMA_8B,
    params=30_000_000_000,
    active_params=3_000_000_000,
    moe=MoeShape(experts=128, experts_per_token=8),
)
WINDOWED = replace(LLAMA_8B, sliding_window=512, global_layers=8)
TINY = ModelShape(
    params=12_124_160,
    active_params=12_124_160,
    layers=4,
    hidden=256,
    ffn=1024,
    heads=4,
    kv_heads=2,
    head_dim=64,
    vocab=32_000,
    tied_embeddings=True,
    context=2048,
    global_layers=4,
)
H100 = Gpu("h100-sxm", "H100 SXM", 81_559 * 2**20, 3.35e12, 989e12, 1978e12, 700, SOURCED)


def model_of(shape: ModelShape | None, *, model_id: str = "candidate", reasons: bool = False) -> Model:
    """A servable model of this shape."""
    return Model(
        id=model_id,
        serving=Serving(ServingKind.VLLM, model_id),
        weights=Weights(repo=f"somebody/{model_id}"),
        shape=shape,
        reasoning=ReasoningSwitch("enable_thinking", "chat_template_kwargs", "false") if reasons else None,
    )


def gpu_with_blocks(model: Model, blocks: int, *, step_s: float = 0.001) -> Gpu:
    """A GPU on which the KV cache of `model` has exactly `blocks` blocks, and a step for one takes about `step_s`."""
    gpu = replace(H100, id="small", name="small", memory_bytes=16 * 2**30)
    answer = estimate(model, gpu, context=1024)
    paging = answer.inputs.paging
    assert model.shape is not None
    assert answer.weights_bytes is not None
    layout = kv_layout(model.shape)
    assert layout is not None
    assert answer.overhead_bytes is not None
    needed = answer.weights_bytes + answer.overhead_bytes.likely + blocks * layout.block_bytes(paging)
    bandwidth = answer.weights_bytes / 0.8 / step_s
    return replace(gpu, memory_bytes=-int(-needed // 0.92) + 1, bandwidth_bytes_per_s=bandwidth)
