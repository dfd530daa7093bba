"""Configurations whose parameter counts are known, thin ones of every family, and what the tests change in them.

Sizes of the thin ones are chosen so that no two products are alike: a term that is missing or doubled shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

LLAMA_31_8B: Config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
EXAONE_40_32B: Config = {
    "architectures": ["Exaone4ForCausalLM"],
    "model_type": "exaone4",
    "hidden_size": 5120,
    "intermediate_size": 27392,
    "num_hidden_layers": 64,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 102400,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
    "sliding_window_pattern": "LLLG",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
DEEPSEEK_V3: Config = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
}
MOTIF_26B: Config = {
    "architectures": ["MotifForCausalLM"],
    "model_type": "Motif",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 219520,
    "tie_word_embeddings": True,
}
"""As the registry has it: inferred, not read."""

_THIN: Config = {
    "vocab_size": 1009,
    "hidden_size": 96,
    "intermediate_size": 202,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_WIDE_HEADS: Config = {**_THIN, "head_dim": 34}
_ROUTED: Config = {
    "moe_intermediate_size": 46,
    "num_experts_per_tok": 2,
    "n_routed_experts": 7,
    "n_shared_experts": 2,
    "first_k_dense_replace": 2,
    "n_group": 1,
    "topk_group": 1,
}
_EXPERTS: Config = {"moe_intermediate_size": 46, "num_experts_per_tok": 2, "num_experts": 7}
_LATENT: Config = {
    **_THIN,
    "num_key_value_heads": 6,
    "kv_lora_rank": 22,
    "q_lora_rank": 38,
    "qk_nope_head_dim": 26,
    "qk_rope_head_dim": 10,
    "v_head_dim": 18,
}
_DELTA: Config = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 14,
    "linear_value_head_dim": 18,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}

THIN: Mapping[str, Config] = {
    "llama": {"model_type": "llama", **_THIN},
    "llama, biases, tied": {
        "model_type": "llama",
        **_WIDE_HEADS,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama, no kv heads": {"model_type": "llama", **{k: v for k, v in _THIN.items() if k != "num_key_value_heads"}},
    "mistral": {"model_type": "mistral", **_THIN, "sliding_window": 64},
    "mixtral": {"model_type": "mixtral", **_WIDE_HEADS, "num_local_experts": 5},
    "qwen2": {"model_type": "qwen2", **_THIN},
    "qwen2, windows": {
        "model_type": "qwen2",
        **_THIN,
        "use_sliding_window": True,
        "sliding_window": 64,
        "max_window_layers": 4,
    },
    "qwen2, switched off": {"model_type": "qwen2", **_THIN, "use_sliding_window": False, "sliding_window": 64},
    "qwen2_moe": {
        "model_type": "qwen2_moe",
        **_THIN,
        **_EXPERTS,
        "shared_expert_intermediate_size": 58,
        "decoder_sparse_step": 2,
    },
    "qwen3": {"model_type": "qwen3", **_WIDE_HEADS, "tie_word_embeddings": True},
    "qwen3_moe": {"model_type": "qwen3_moe", **_WIDE_HEADS, **_EXPERTS, "mlp_only_layers": [1]},
    "qwen3_next": {
        "model_type": "qwen3_next",
        **_WIDE_HEADS,
        **_EXPERTS,
        **_DELTA,
        "shared_expert_intermediate_size": 58,
    },
    "exaone4": {"model_type": "exaone4", **_WIDE_HEADS, "sliding_window": 64, "sliding_window_pattern": 4},
    "exaone4, all global": {
        "model_type": "exaone4",
        **_WIDE_HEADS,
        "sliding_window": None,
        "layer_types": ["full_attention"] * 6,
    },
    "exaone_moe": {
        "model_type": "exaone_moe",
        **_WIDE_HEADS,
        **_EXPERTS,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
        "sliding_window": 64,
        "sliding_window_pattern": 3,
    },
    "hyperclovax": {"model_type": "hyperclovax", **_WIDE_HEADS, "use_post_norm": True},
    "hyperclovax, no post norm": {"model_type": "hyperclovax", **_WIDE_HEADS, "use_post_norm": False},
    "deepseek_v3": {"model_type": "deepseek_v3", **_LATENT, **_ROUTED},
    "deepseek_v3, biases, no query rank": {
        "model_type": "deepseek_v3",
        **_LATENT,
        **_ROUTED,
        "q_lora_rank": None,
        "attention_bias": True,
    },
    "deepseek_v2": {"model_type": "deepseek_v2", **_LATENT, **_ROUTED},
    "deepseek_v32": {
        "model_type": "deepseek_v32",
        **_LATENT,
        **_ROUTED,
        "index_head_dim": 16,
        "index_n_heads": 3,
        "index_topk": 8,
    },
    "axk1": {"model_type": "axk1", **_LATENT, **_ROUTED},
    "axk2": {
        "model_type": "axk2",
        **_LATENT,
        **_ROUTED,
        "index_head_dim": 16,
        "index_n_heads": 3,
        "index_topk": 8,
        "gated_norm_rank": 5,
    },
    "solar_open": {"model_type": "solar_open", **_WIDE_HEADS, **_ROUTED},
    "gemma": {"model_type": "gemma", **_WIDE_HEADS},
    "gemma2": {"model_type": "gemma2", **_WIDE_HEADS, "sliding_window": 64},
    "gemma3_text": {"model_type": "gemma3_text", **_WIDE_HEADS, "sliding_window": 64},
    "llama4_text": {
        "model_type": "llama4_text",
        **_WIDE_HEADS,
        "num_local_experts": 5,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 306,
        "interleave_moe_layer_step": 2,
        "attention_chunk_size": 128,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        **_WIDE_HEADS,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "sliding_window": 64,
    },
    "glm4_moe": {"model_type": "glm4_moe", **_WIDE_HEADS, **_ROUTED, "use_qk_norm": True, "attention_bias": True},
    "cohere2": {"model_type": "cohere2", **_WIDE_HEADS, "sliding_window": 64},
    "olmoe": {"model_type": "olmoe", **_THIN, "num_experts": 5, "num_experts_per_tok": 2},
    "phi3": {"model_type": "phi3", **_THIN},
    "starcoder2": {"model_type": "starcoder2", **_THIN},
}
"""One or more configurations of each family, with the sizes of a toy."""
