"""How each family of models reads its configuration: which biases, norms, windows and experts it has, as data.

Each entry says what transformers 5.19 builds for that `model_type` (Motif: what vLLM 0.10.2 built). What the entries
lead to, layer by layer, is in `layers` and `parts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any


class Locals(Enum):
    """Which layers are local where the configuration has no `layer_types`."""

    ALL = "all layers keep the window, where there is one"
    UPPER = "layers from max_window_layers on, where use_sliding_window is set"
    SWITCHED = "all layers, where use_sliding_window is set"
    ODD = "every other layer below max_window_layers, where use_sliding_window is set"
    PATTERN = "all but every n-th layer, by sliding_window_pattern"
    EXAONE = "the same, or by letters such as LLLG, of which the last layer is always global"
    CHUNKED = "layers with rotary embeddings see their own chunk"
    LINEAR = "all but every n-th layer keep a state, by full_attention_interval"
    NONE = "no layer, whatever sliding_window says"


class QkNorm(Enum):
    NONE = "none"
    HEAD = "one weight for each position of a head"
    WIDE = "one weight for each position of all heads"


class Sparse(Enum):
    """Which layers have experts."""

    AFTER_DENSE = "all from first_k_dense_replace on, or by mlp_layer_types"
    STEP = "every decoder_sparse_step-th but those in mlp_only_layers"
    INTERLEAVED = "those in moe_layers, or every interleave_moe_layer_step-th"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Moe:
    sparse: Sparse
    ffn: str = "moe_intermediate_size"
    """The field with the inner size of a routed expert."""
    shared_ffn: str | None = None
    """The field with the inner size of the shared part; None: n_shared_experts × the routed size."""
    always_shared: int = 0
    """Shared experts of a family that has no field for their number."""
    shared_gate: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    norm_after: bool = False
    """Whether the experts' sum is normed."""
    dense_ffn: str = "intermediate_size"
    """The field with the inner size of the layers without experts."""


@dataclass(frozen=True, slots=True)
class Family:
    """Biases name the field that turns them on, or say whether they are there."""

    qkv_bias: str | bool = "attention_bias"
    output_bias: str | bool = "attention_bias"
    mlp_bias: str | bool = "mlp_bias"
    qk_norm: QkNorm = QkNorm.NONE
    qk_norm_switch: str | None = None
    """The field that turns `qk_norm` on, where it is not always there."""
    norms: int = 2
    """Norms over the hidden size in a layer."""
    post_norms: str | None = None
    """The field that adds two more, on unless it says otherwise."""
    norm_bias: bool = False
    matrices: int = 3
    """Matrices of a dense feed-forward layer: 3 with a gate, 2 without."""
    query_gate: bool = False
    """Whether the query projection gives a gate of the same size as well."""
    sinks: bool = False
    """Whether each head has a learned sink."""
    differential: bool = False
    """Differential attention and PolyNorm, as Motif has them."""
    indexer: bool = False
    """Sparse attention behind an indexer with keys of its own."""
    gated_norms: bool = False
    mla: bool = False
    local: Locals = Locals.ALL
    pattern: int = 0
    """n of the pattern where the configuration gives none; 0 = no pattern."""
    moe: Moe | None = None
    countable: bool = True
    """Whether parameters can be counted from the configuration."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What the class assumes where the file leaves a field out."""


_DEEPSEEK = Family(
    mla=True,
    moe=Moe(Sparse.AFTER_DENSE),
    mlp_bias=False,
    local=Locals.NONE,
    defaults={"tie_word_embeddings": False},
)
_LLAMA = Family(defaults={"tie_word_embeddings": False})
_QWEN3 = Family(
    qk_norm=QkNorm.HEAD, mlp_bias=False, local=Locals.UPPER, defaults={"tie_word_embeddings": False, "head_dim": 128}
)
_GEMMA: Mapping[str, Any] = {"tie_word_embeddings": True, "head_dim": 256}
_GEMMA3: Mapping[str, Any] = {
    **_GEMMA,
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
}
_EXAONE = Family(
    qkv_bias=False,
    output_bias=False,
    mlp_bias=False,
    qk_norm=QkNorm.HEAD,
    local=Locals.EXAONE,
    pattern=4,
    defaults={"tie_word_embeddings": False},
)
_QWEN3_MOE = replace(
    _QWEN3,
    moe=Moe(Sparse.STEP),
    local=Locals.SWITCHED,
    defaults={"tie_word_embeddings": False, "decoder_sparse_step": 1},
)

FAMILIES: Mapping[str, Family] = {
    "axk1": replace(
        _DEEPSEEK,
        moe=Moe(Sparse.AFTER_DENSE, norm_after=True),
        defaults={"tie_word_embeddings": False, "first_k_dense_replace": 1},
    ),
    "axk2": replace(
        _DEEPSEEK,
        indexer=True,
        gated_norms=True,
        query_gate=True,
        defaults={"tie_word_embeddings": False, "first_k_dense_replace": 1, "gated_norm_rank": 16},
    ),
    "cohere2": Family(norms=1, mlp_bias=False, local=Locals.PATTERN, pattern=4, defaults={"tie_word_embeddings": True}),
    "deepseek_v2": replace(_DEEPSEEK, defaults={"tie_word_embeddings": False, "first_k_dense_replace": 0}),
    "deepseek_v3": replace(_DEEPSEEK, defaults={"tie_word_embeddings": False, "first_k_dense_replace": 3}),
    "deepseek_v32": replace(
        _DEEPSEEK, indexer=True, defaults={"tie_word_embeddings": False, "first_k_dense_replace": 3}
    ),
    "exaone4": _EXAONE,
    "exaone_moe": replace(
        _EXAONE, moe=Moe(Sparse.AFTER_DENSE), defaults={"tie_word_embeddings": False, "first_k_dense_replace": 1}
    ),
    "gemma": Family(mlp_bias=False, defaults=_GEMMA),
    "gemma2": Family(
        mlp_bias=False, norms=4, local=Locals.PATTERN, pattern=2, defaults={**_GEMMA, "sliding_window": 4096}
    ),
    "gemma3_text": Family(
        mlp_bias=False, norms=4, qk_norm=QkNorm.HEAD, local=Locals.PATTERN, pattern=6, defaults=_GEMMA3
    ),
    "glm4_moe": Family(
        qk_norm=QkNorm.HEAD,
        qk_norm_switch="use_qk_norm",
        output_bias=False,
        mlp_bias=False,
        moe=Moe(Sparse.AFTER_DENSE),
        defaults={"tie_word_embeddings": False, "first_k_dense_replace": 1},
    ),
    "gpt_oss": Family(
        sinks=True,
        mlp_bias=False,
        local=Locals.PATTERN,
        pattern=2,
        moe=Moe(Sparse.ALL, ffn="intermediate_size", router_bias=True, expert_bias=True),
        defaults={"tie_word_embeddings": False, "attention_bias": True, "head_dim": 64},
    ),
    "granitemoehybrid": Family(countable=False),
    "bamba": Family(countable=False),
    "hyperclovax": Family(post_norms="use_post_norm", defaults={"tie_word_embeddings": False}),
    "llama": _LLAMA,
    "llama4_text": Family(
        mlp_bias=False,
        local=Locals.CHUNKED,
        pattern=4,
        moe=Moe(Sparse.INTERLEAVED, ffn="intermediate_size", always_shared=1, dense_ffn="intermediate_size_mlp"),
        defaults={"tie_word_embeddings": False, "head_dim": 128, "attention_chunk_size": 8192},
    ),
    "mistral": Family(
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        defaults={"tie_word_embeddings": False, "num_key_value_heads": 8},
    ),
    "mixtral": Family(
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        moe=Moe(Sparse.ALL, ffn="intermediate_size"),
        defaults={"tie_word_embeddings": False, "num_key_value_heads": 8, "num_experts_per_tok": 2},
    ),
    "motif": Family(
        differential=True, qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias", local=Locals.NONE
    ),
    "nemotron_h": Family(countable=False),
    "olmoe": Family(
        qk_norm=QkNorm.WIDE,
        mlp_bias=False,
        moe=Moe(Sparse.ALL, ffn="intermediate_size"),
        defaults={"tie_word_embeddings": False},
    ),
    "phi3": Family(qkv_bias=False, output_bias=False, mlp_bias=False, defaults={"tie_word_embeddings": False}),
    "qwen2": Family(
        qkv_bias=True, output_bias=False, mlp_bias=False, local=Locals.UPPER, defaults={"tie_word_embeddings": False}
    ),
    "qwen2_moe": Family(
        qkv_bias="qkv_bias",
        output_bias=False,
        mlp_bias=False,
        local=Locals.ODD,
        moe=Moe(Sparse.STEP, shared_ffn="shared_expert_intermediate_size", always_shared=1, shared_gate=True),
        defaults={"tie_word_embeddings": False, "qkv_bias": True, "decoder_sparse_step": 1},
    ),
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3_MOE,
    "qwen3_next": replace(
        _QWEN3_MOE,
        query_gate=True,
        local=Locals.LINEAR,
        pattern=4,
        moe=Moe(Sparse.STEP, shared_ffn="shared_expert_intermediate_size", always_shared=1, shared_gate=True),
        defaults={"tie_word_embeddings": False, "decoder_sparse_step": 1, "head_dim": 256},
    ),
    "solar": replace(_LLAMA, local=Locals.ALL),
    "solar_open": Family(
        output_bias=False, mlp_bias=False, moe=Moe(Sparse.ALL), defaults={"tie_word_embeddings": False, "head_dim": 128}
    ),
    "starcoder2": Family(
        qkv_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        norm_bias=True,
        matrices=2,
        defaults={"tie_word_embeddings": True, "use_bias": True},
    ),
}
"""By `model_type`."""

BY_ARCHITECTURE: Mapping[str, str] = {
    "AXK1ForCausalLM": "axk1",
    "AXK2ForCausalLM": "axk2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "Exaone4ForCausalLM": "exaone4",
    "ExaoneMoEForCausalLM": "exaone_moe",
    "ExaoneMoeForCausalLM": "exaone_moe",
    "HyperCLOVAXForCausalLM": "hyperclovax",
    "LlamaForCausalLM": "llama",
    "MotifForCausalLM": "motif",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "SolarForCausalLM": "solar",
    "SolarOpenForCausalLM": "solar_open",
}
"""For configurations whose `model_type` is of their own making."""

UNKNOWN = Family(countable=False)


def family_named(model_type: str | None, architecture: str | None) -> Family:
    """The family of a configuration, UNKNOWN where there is no entry."""
    named = FAMILIES.get((model_type or "").lower())
    return named or FAMILIES.get(BY_ARCHITECTURE.get(architecture or "", ""), UNKNOWN)
