"""The grid of test_kv_grid.py: models as our arithmetic takes them, and the config.json that makes vLLM build the same.

Depths, heads and windows are those of the candidates and their like, and small ones that sit at the borders of vLLM's
rules. Nothing is allocated, so the widths are free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from gateway.domain.kv_cache import KvLayout
from gateway.domain.kv_groups import KvRules, Paging
from gateway.domain.memory import kv_layout
from gateway.domain.records import LinearShape, MlaShape, ModelShape

KV_BYTES = 77 * 2**30 - 12_345
"""Of the cache on each worker; an odd number, so that rounding shows."""
CPU_BLOCK, MLA_BLOCK, GPU_BLOCK = 128, 16, 16
CPU_KERNEL, GPU_KERNEL = 32, 16
SERVER_BATCHED_TOKENS, SERVER_REQUESTS = 2048, 128
"""vLLM's defaults on the CPU; MLA models, whose prefill is not cut into chunks there, take a whole context a step."""


@dataclass(frozen=True)
class Point:
    """One model under one set of options."""

    architecture: str
    shape: ModelShape
    context: int
    block: int | None = None
    max_batched_tokens: int | None = None
    kv_dtype: str = "auto"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    hybrid: bool | None = None
    as_on_gpu: bool = False
    asynchronous: bool = True
    """On a GPU."""
    kinds: str = ""
    """Which layers are (L)ocal, (G)lobal or (S)tate, where that is not by the pattern of the architecture."""
    state_pages: int = 2
    kv_bytes: int = KV_BYTES
    known: Mapping[str, Any] = field(default_factory=dict)
    """What vLLM or a document has said of this very point."""

    @property
    def id(self) -> str:
        shape = self.shape
        words = [self.architecture.removesuffix("ForCausalLM"), f"{shape.layers}L"]
        words += [f"{shape.kv_heads}kv{shape.head_dim}"] if shape.mla is None else ["mla"]
        words += [f"w{shape.sliding_window}x{shape.global_layers}"] if shape.sliding_window else []
        words += [f"c{shape.attention_chunk}"] if shape.attention_chunk else []
        words += [f"ctx{self.context}"]
        for name, value in (
            ("b", self.block),
            ("t", self.max_batched_tokens),
            ("tp", self.tensor_parallel if self.tensor_parallel > 1 else None),
            ("pp", self.pipeline_parallel if self.pipeline_parallel > 1 else None),
        ):
            words += [f"{name}{value}"] if value is not None else []
        words += [self.kv_dtype] if self.kv_dtype != "auto" else []
        words += ["gpu"] if self.as_on_gpu else []
        words += ["one-batch"] if not self.asynchronous else []
        words += ["no-hybrid"] if self.hybrid is False else []
        return "-".join(words)

    def layout(self) -> KvLayout:
        """Ours."""
        layout = kv_layout(
            self.shape,
            tensor_parallel=self.tensor_parallel,
            pipeline_parallel=self.pipeline_parallel,
            kv_dtype=self.kv_dtype,
            rules=KvRules(
                hybrid=self.hybrid is not False,
                state_pages=self.state_pages,
                kernel_block=GPU_KERNEL if self.as_on_gpu else CPU_KERNEL,
            ),
        )
        assert layout is not None
        return layout

    @property
    def paging(self) -> Paging:
        own = MLA_BLOCK if self.shape.mla is not None else GPU_BLOCK if self.as_on_gpu else CPU_BLOCK
        batched = self.max_batched_tokens
        if batched is None:
            whole = self.context if self.shape.mla is not None else 0
            batched = min(max(SERVER_BATCHED_TOKENS, whole), SERVER_REQUESTS * self.context)
        batches = self.pipeline_parallel + 1 if self.as_on_gpu and self.asynchronous else self.pipeline_parallel
        return Paging(own if self.shape.mla is not None else self.block or own, batched, batches)

    def order(self) -> dict[str, Any]:
        """What kv_oracle.py is told."""
        block = GPU_BLOCK if self.as_on_gpu and self.block is None else self.block
        return {
            "config": config_json(self),
            "max_model_len": self.context,
            "kv_bytes": self.kv_bytes,
            "block": block,
            "max_batched_tokens": self.max_batched_tokens,
            "kv_dtype": self.kv_dtype,
            "tensor_parallel": self.tensor_parallel,
            "pipeline_parallel": self.pipeline_parallel,
            "hybrid": self.hybrid,
            "as_on_gpu": self.as_on_gpu,
            "asynchronous": self.asynchronous,
        }


# --- config.json --------------------------------------------------------------------------------------------

_MOE = {
    "moe_intermediate_size": 64,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "first_k_dense_replace": 1,
}
_ROUTED = {**_MOE, "n_routed_experts": 8, "n_shared_experts": 1}
_STATE = {
    "linear_num_value_heads": 8,
    "linear_num_key_heads": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_conv_kernel_dim": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "decoder_sparse_step": 1,
}
_EXTRA: dict[str, dict[str, Any]] = {
    "AXK1ForCausalLM": {"model_type": "axk1", **_ROUTED},
    "DeepseekV3ForCausalLM": {"model_type": "deepseek_v3", "topk_method": "noaux_tc", **_ROUTED},
    "Exaone4ForCausalLM": {"model_type": "exaone4", "sliding_window_pattern": "LLLG"},
    "ExaoneMoeForCausalLM": {
        "model_type": "exaone_moe",
        "sliding_window_pattern": "LLLG",
        "num_experts": 8,
        "num_shared_experts": 1,
        **_MOE,
    },
    "Gemma3ForCausalLM": {"model_type": "gemma3_text", "query_pre_attn_scalar": 32},
    "GptOssForCausalLM": {
        "model_type": "gpt_oss",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
    "GraniteMoeHybridForCausalLM": {
        "model_type": "granitemoehybrid",
        "mamba_n_heads": 16,
        "mamba_d_head": 64,
        "mamba_d_state": 64,
        "mamba_n_groups": 1,
        "mamba_expand": 2,
        "mamba_d_conv": 4,
        "num_local_experts": 0,
        "shared_intermediate_size": 64,
        "position_embedding_type": "rope",
    },
    "HyperCLOVAXForCausalLM": {"model_type": "hyperclovax", "attention_multiplier": 0.1, "use_post_norm": True},
    "Llama4ForCausalLM": {
        "model_type": "llama4_text",
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "intermediate_size_mlp": 256,
    },
    "LlamaForCausalLM": {"model_type": "llama"},
    "MistralForCausalLM": {"model_type": "mistral"},
    "Qwen2ForCausalLM": {"model_type": "qwen2"},
    "Qwen3ForCausalLM": {"model_type": "qwen3"},
    "Qwen3NextForCausalLM": {"model_type": "qwen3_next", **_STATE},
    "SolarOpenForCausalLM": {"model_type": "solar_open", **_ROUTED},
    "Starcoder2ForCausalLM": {"model_type": "starcoder2", "use_sliding_window": True, "norm_epsilon": 1e-5},
}
_WITHOUT = {"SolarOpenForCausalLM": ("intermediate_size", "first_k_dense_replace")}
_KIND = {"L": "sliding_attention", "G": "full_attention", "S": "linear_attention"}
_MAMBA_KIND = {"G": "attention", "S": "mamba"}


def config_json(point: Point) -> dict[str, Any]:
    shape, name = point.shape, point.architecture
    heads = shape.heads or 0
    config: dict[str, Any] = {
        "architectures": [name],
        "vocab_size": 1024,
        "hidden_size": heads * (shape.head_dim or 32),
        "intermediate_size": 256,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 1_048_576,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **_EXTRA[name],
    }
    if shape.mla is not None:
        config |= {
            "kv_lora_rank": shape.mla.kv_lora_rank,
            "qk_rope_head_dim": shape.mla.qk_rope_head_dim,
            "q_lora_rank": 64,
            "qk_nope_head_dim": 32,
            "v_head_dim": 32,
            "num_key_value_heads": heads,
        }
        del config["head_dim"]
    if shape.sliding_window is not None:
        config["sliding_window"] = shape.sliding_window
    if shape.attention_chunk is not None:
        kinds = layer_kinds(point)
        config |= {
            "attention_chunk_size": shape.attention_chunk,
            "no_rope_layers": [int(kind == "L") for kind in kinds],
            "layer_types": ["chunked_attention" if kind == "L" else "full_attention" for kind in kinds],
        }
    elif shape.sliding_window is not None or shape.linear is not None or name.startswith("Exaone"):
        kinds_by_name = _MAMBA_KIND if name.startswith("Granite") else _KIND
        config["layer_types"] = [kinds_by_name[kind] for kind in layer_kinds(point)]
    return {key: value for key, value in config.items() if key not in _WITHOUT.get(name, ())}


def layer_kinds(point: Point) -> str:
    """Global layers at even distances, the last of each stretch, unless the point says which."""
    layers, full = point.shape.layers or 0, point.shape.global_layers
    if point.kinds:
        return point.kinds
    if full is None:
        return "G" * layers
    at = {-(-(nth + 1) * layers // full) - 1 for nth in range(full)}
    other = "S" if point.shape.linear is not None else "L"
    return "".join("G" if nth in at else other for nth in range(layers))


# --- the grid -----------------------------------------------------------------------------------------------


def gqa(layers: int, heads: int, kv_heads: int, head_dim: int, **more: Any) -> ModelShape:
    return ModelShape(layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim, **more)


def mla(layers: int, heads: int) -> ModelShape:
    return ModelShape(layers=layers, heads=heads, mla=MlaShape(kv_lora_rank=512, qk_rope_head_dim=64))


def windowed(full: int, local: int, window: int, *, kv_heads: int = 2, head_dim: int = 32) -> ModelShape:
    return gqa(full + local, 4, kv_heads, head_dim, sliding_window=window, global_layers=full)


EXAONE_32B = gqa(64, 40, 8, 128, sliding_window=4096, global_layers=16)
CANDIDATES = {
    "EXAONE-4.0-32B": ("Exaone4ForCausalLM", EXAONE_32B),
    "EXAONE-4.0-1.2B": ("Exaone4ForCausalLM", gqa(30, 32, 8, 64)),
    "K-EXAONE-236B, kv heads assumed": (
        "ExaoneMoeForCausalLM",
        gqa(48, 64, 8, 128, sliding_window=128, global_layers=12),
    ),
    "HyperCLOVAX-SEED-Think-14B": ("HyperCLOVAXForCausalLM", gqa(38, 48, 8, 128)),
    "A.X-4.0": ("Qwen2ForCausalLM", gqa(80, 64, 8, 128)),
    "A.X-4.0-Light": ("Qwen2ForCausalLM", gqa(28, 28, 4, 128)),
    "A.X-K1": ("AXK1ForCausalLM", mla(61, 64)),
    "Llama-VARCO-8B": ("LlamaForCausalLM", gqa(32, 32, 8, 128)),
    "Midm-2.0-Base": ("LlamaForCausalLM", gqa(48, 32, 8, 128)),
    "kanana-2-30b, latent assumed": ("DeepseekV3ForCausalLM", mla(48, 32)),
    # Of its 48 layers, as many as the Transformers backend builds within seconds.
    "Solar-Open-100B": ("SolarOpenForCausalLM", gqa(2, 64, 8, 128)),
    "Konan-LLM-OND, as Qwen3-4B": ("Qwen3ForCausalLM", gqa(36, 32, 8, 128)),
}
STARCODER2_3B = gqa(30, 24, 2, 128, sliding_window=4096, global_layers=0)


def grid() -> Iterator[Point]:
    yield from _candidates()
    yield from _known_answers()
    yield from _full_attention()
    yield from _windows()
    yield from _chunks_latents_states()
    yield from _parallel()


def _candidates() -> Iterator[Point]:
    for architecture, shape in CANDIDATES.values():
        yield Point(architecture, shape, 32_768 if shape.mla is None else 4096)


def _known_answers() -> Iterator[Point]:
    gpu = {"as_on_gpu": True, "block": 16, "max_batched_tokens": 8192}
    yield Point("Exaone4ForCausalLM", EXAONE_32B, 32_768, **gpu, known={"blocks_per_request": 5891})
    alone = {**gpu, "asynchronous": False}
    yield Point("Exaone4ForCausalLM", EXAONE_32B, 32_768, **alone, known={"blocks_per_request": 4355})
    blocks = 137_407  # vllm 19029
    yield Point(
        "Starcoder2ForCausalLM",
        STARCODER2_3B,
        16_384,
        **alone,
        kv_bytes=blocks * 16 * 1024 * 30 + 5,
        known={"num_gpu_blocks": blocks, "blocks_per_request": 769, "kv_cache_size_tokens": 2_927_537},
    )
    yield Point("LlamaForCausalLM", gqa(32, 32, 8, 128), 131_072, **gpu, known={"blocks_per_request": 8192})


def _full_attention() -> Iterator[Point]:
    architectures = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "HyperCLOVAXForCausalLM")
    sizes = ((1, 8, 8, 64), (3, 8, 1, 128), (5, 12, 4, 32), (7, 6, 3, 96))
    for architecture, (layers, heads, kv_heads, head_dim) in product(architectures, sizes):
        yield Point(architecture, gqa(layers, heads, kv_heads, head_dim), 1000 * layers + 1, block=32 * layers)
    llama = gqa(6, 8, 2, 80)
    for context, kv_dtype in ((1, "fp8_e4m3"), (127, "fp8"), (128, "fp8_e5m2"), (129, "bfloat16"), (65_537, "auto")):
        yield Point("LlamaForCausalLM", llama, context, kv_dtype=kv_dtype)


def _windows() -> Iterator[Point]:
    """Around the border of 1.5 times as many layers, around windows and contexts, with padding and without."""
    for full, local in ((1, 3), (10, 10), (10, 12), (10, 13), (10, 14), (10, 15), (13, 10), (7, 20), (5, 26), (2, 5)):
        yield Point("Exaone4ForCausalLM", windowed(full, local, 256), 4096)
    for window, context, batched in product((16, 511, 4096), (1024, 8191), (512, 2048)):
        yield Point("Exaone4ForCausalLM", windowed(2, 6, window), context, max_batched_tokens=batched)
    yield Point("ExaoneMoeForCausalLM", windowed(3, 9, 128), 3000, max_batched_tokens=1024)
    yield Point("Gemma3ForCausalLM", windowed(4, 22, 512, head_dim=64), 9000)
    yield Point("Gemma3ForCausalLM", windowed(1, 5, 1024), 9000, kv_dtype="fp8_e4m3")
    yield Point("GptOssForCausalLM", windowed(12, 12, 128), 9000)
    yield Point("MistralForCausalLM", windowed(0, 5, 1024), 9000, block=64)
    yield Point("Exaone4ForCausalLM", windowed(3, 9, 512), 9000, hybrid=False)
    yield Point("Gemma3ForCausalLM", windowed(2, 10, 512), 9000, hybrid=False)
    for batched in (1024, 8192):
        yield Point("Exaone4ForCausalLM", windowed(4, 12, 4096), 32_768, as_on_gpu=True, max_batched_tokens=batched)
    yield Point("GptOssForCausalLM", windowed(12, 12, 128), 100_000, as_on_gpu=True, max_batched_tokens=8192)


def _chunks_latents_states() -> Iterator[Point]:
    for chunk, hybrid in ((1024, None), (8192, None), (512, False)):
        shape = gqa(8, 8, 2, 32, attention_chunk=chunk, global_layers=2)
        yield Point("Llama4ForCausalLM", shape, 16_384, hybrid=hybrid)
    for layers, context in ((2, 1024), (5, 4097), (9, 333)):
        yield Point("DeepseekV3ForCausalLM", mla(layers, 8), context)
    yield Point("AXK1ForCausalLM", mla(3, 16), 2048)
    # A state as Qwen3-Next keeps it: convolution over queries, keys and values in 16 bits, the recurrent part too.
    conv, recurrent = 3 * (2 * 4 * 64 + 8 * 64) * 2, 8 * 64 * 64
    for layers, full, wide in ((4, 1, 2), (12, 3, 2), (7, 2, 2)):
        shape = gqa(layers, 8, 2, 64, global_layers=full, linear=LinearShape(layers - full, conv + recurrent * wide))
        yield Point("Qwen3NextForCausalLM", shape, 8192)
        yield Point("Qwen3NextForCausalLM", shape, 8192, as_on_gpu=True)
    yield Point("Qwen3NextForCausalLM", shape, 8192, as_on_gpu=True, pipeline_parallel=2)
    yield Point("Qwen3NextForCausalLM", shape, 8192, tensor_parallel=2)
    # Mamba-2 in the middle of a prefill keeps a third page.
    state = (16 * 64 + 2 * 64) * 3 * 2 + 16 * 64 * 64 * 2
    for layers, full in ((4, 1), (10, 1), (9, 4)):
        mamba = gqa(layers, 16, 4, 32, global_layers=full, linear=LinearShape(layers - full, state))
        yield Point("GraniteMoeHybridForCausalLM", mamba, 8192, state_pages=3)
        yield Point("GraniteMoeHybridForCausalLM", mamba, 8192, state_pages=3, as_on_gpu=True)


def _parallel() -> Iterator[Point]:
    for size in (2, 4, 8, 16):
        yield Point("LlamaForCausalLM", gqa(4, 32, 8, 64), 4096, tensor_parallel=size, as_on_gpu=True)
    yield Point("DeepseekV3ForCausalLM", mla(3, 8), 1024, tensor_parallel=4)
    yield Point("Exaone4ForCausalLM", windowed(2, 6, 512), 9000, tensor_parallel=2)
    for stages in (2, 3, 5):
        yield Point("LlamaForCausalLM", gqa(32, 8, 2, 32), 4096, pipeline_parallel=stages)
        yield Point("Exaone4ForCausalLM", windowed(4, 12, 512), 9000, pipeline_parallel=stages)
        yield Point("Exaone4ForCausalLM", windowed(5, 17, 512), 9000, pipeline_parallel=stages, as_on_gpu=True)
    yield Point("Exaone4ForCausalLM", EXAONE_32B, 131_072, pipeline_parallel=4, tensor_parallel=4, as_on_gpu=True)
