"""Shapes and parameters from config.json: known totals, and a complaint that names the field for what cannot be.

Against transformers' own counts the same code is tested in tests/vllm/test_real_parameters.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_configs import DEEPSEEK_V3, EXAONE_40_32B, LLAMA_31_8B, MOTIF_26B, THIN

from gateway.domain.memory import kv_bytes_per_token, kv_bytes_per_token_past_window
from gateway.domain.model_config import count_params, read_weights, shape_of_config
from gateway.domain.records import Confidence, LinearShape, MlaShape, MoeShape


def total_of(config: Any) -> int:
    counted = count_params(config)
    assert counted is not None
    return counted.total


def test_known_models_have_their_known_parameters() -> None:
    assert total_of(LLAMA_31_8B) == 8_030_261_248
    assert total_of(DEEPSEEK_V3) == 671_026_404_352
    assert round(total_of(EXAONE_40_32B) / 1e9, 1) == 32.0
    counted = count_params(EXAONE_40_32B)
    assert counted is not None
    assert round((counted.total - 2 * counted.embedding) / 1e9, 2) == 30.95
    assert round(total_of(MOTIF_26B) / 1e9, 1) == 2.6


def test_of_deepseek_v3_a_token_reads_37_billion() -> None:
    shape = shape_of_config(DEEPSEEK_V3)
    assert round((shape.active_params or 0) / 1e9, 1) == 37.6
    assert shape.moe == MoeShape(256, 8, shared_experts=1, expert_ffn=2048, dense_layers=3)
    assert shape.mla == MlaShape(512, 64, q_lora_rank=1536)
    assert (shape.head_dim, shape.v_head_dim) == (192, 128)


def test_kv_bytes_of_known_models_follow() -> None:
    assert kv_bytes_per_token(shape_of_config(LLAMA_31_8B)) == 131_072
    assert kv_bytes_per_token(shape_of_config(DEEPSEEK_V3)) == 70_272
    exaone = shape_of_config(EXAONE_40_32B)
    assert (kv_bytes_per_token(exaone), kv_bytes_per_token_past_window(exaone)) == (262_144, 65_536)
    assert (exaone.global_layers, exaone.sliding_window) == (16, 4096)


def test_every_fact_names_its_source() -> None:
    shape = shape_of_config(LLAMA_31_8B, source="config.json of meta/x")
    assert shape.facts["layers"].source == "config.json of meta/x"
    assert shape.facts["params"].source == "arithmetic"
    assert {fact.confidence for fact in shape.facts.values()} == {Confidence.HIGH}
    stated = {"layers", "hidden", "heads", "kv_heads", "head_dim", "vocab", "context", "params"}
    assert stated <= shape.facts.keys()


def test_a_class_default_is_marked_as_one() -> None:
    shape = shape_of_config({"model_type": "gemma3_text", "num_hidden_layers": 34, "hidden_size": 2560})
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.tied_embeddings) == (8, 4, 256, True)
    assert shape.facts["heads"].source == "transformers 5.19"
    assert shape.facts["heads"].confidence is Confidence.MEDIUM


def test_what_is_not_said_is_unknown_with_the_reason() -> None:
    shape = shape_of_config({"model_type": "llama", "num_hidden_layers": 2})
    assert (shape.hidden, shape.params, shape.context) == (None, None, None)
    assert "says no hidden_size" in (shape.facts["params"].note or "")
    assert "says no max_position_embeddings" in (shape.facts["context"].note or "")


def test_experts_whose_layers_are_not_told_are_unknown() -> None:
    shape = shape_of_config(thin("deepseek_v3", first_k_dense_replace=None))
    assert (shape.moe, shape.params) == (None, None)
    assert "says no first_k_dense_replace" in (shape.facts["moe"].note or "")


def test_a_family_that_is_not_known_is_not_counted() -> None:
    shape = shape_of_config(dict(LLAMA_31_8B) | {"model_type": "varco9", "architectures": ["Varco9ForCausalLM"]})
    assert (shape.layers, shape.kv_heads, shape.params) == (32, 8, None)
    assert "varco9" in (shape.facts["params"].note or "")


def test_a_model_that_sees_is_read_from_its_text_part() -> None:
    config = {
        "architectures": ["KananaVForConditionalGeneration"],
        "model_type": "kanana-1.5-v",
        "text_config": dict(LLAMA_31_8B),
        "vision_config": {"depth": 32, "embed_dim": 1280},
    }
    shape = shape_of_config(config)
    assert (shape.layers, shape.params) == (32, None)
    assert shape.vision is not None
    assert (shape.vision.layers, shape.vision.hidden, shape.vision.params) == (32, 1280, None)
    assert "the language model has 8,030,261,248" in (shape.facts["params"].note or "")


def thin(name: str, **changes: Any) -> dict[str, Any]:
    return {**THIN[name], **changes}


@pytest.mark.parametrize(
    ("config", "global_layers", "window", "chunk"),
    [
        (thin("exaone4", num_hidden_layers=8, sliding_window_pattern="LLLG"), 2, 64, None),
        (thin("exaone4", sliding_window_pattern="LLLG"), 2, 64, None),  # the last layer is global
        (thin("exaone4", sliding_window_pattern=4), 1, 64, None),
        (thin("exaone4", layer_types=["full_attention"] * 5 + ["sliding_attention"]), 5, 64, None),
        (thin("gemma2"), 3, 64, None),
        (thin("gemma3_text"), 1, 64, None),
        (thin("mistral"), 0, 64, None),
        (thin("qwen2, switched off"), 6, None, None),
        (thin("qwen2, windows"), 4, 64, None),
        (thin("llama4_text"), 1, None, 128),
        (thin("llama", model_type="solar", sliding_window=2047), 0, 2047, None),
    ],
)
def test_windows_and_chunks_follow_the_family(
    config: dict[str, Any], global_layers: int, window: int | None, chunk: int | None
) -> None:
    shape = shape_of_config(config)
    assert (shape.global_layers, shape.sliding_window, shape.attention_chunk) == (global_layers, window, chunk)


def test_state_layers_have_the_bytes_that_vllm_allocates() -> None:
    shape = shape_of_config(thin("qwen3_next", torch_dtype="bfloat16"))
    convolution = (2 * 2 * 14 + 4 * 18) * (4 - 1) * 2
    assert shape.linear == LinearShape(5, convolution + 4 * 18 * 14 * 2)
    assert shape.global_layers == 1


@pytest.mark.parametrize(
    ("rope", "context"),
    [
        (None, 2048),
        ({"rope_type": "linear", "factor": 4.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048),
        ({"type": "dynamic", "factor": 2}, 4096),
    ],
)
def test_the_context_is_stretched_as_vllm_does(rope: Any, context: int) -> None:
    assert shape_of_config(thin("llama", rope_scaling=rope)).context == context


BAD: list[tuple[dict[str, Any], str]] = [
    (
        thin("llama", num_attention_heads=7, num_key_value_heads=7),
        "num_attention_heads: expected a divisor of hidden_size (96)",
    ),
    (thin("llama", num_key_value_heads=12), "num_key_value_heads: expected at most num_attention_heads (6), got 12"),
    (thin("llama", num_key_value_heads=4), "num_key_value_heads: expected a divisor of num_attention_heads (6)"),
    (thin("llama", num_hidden_layers=-1), "num_hidden_layers: expected a whole number, 1 or more, got -1"),
    (thin("llama", num_hidden_layers=2.5), "num_hidden_layers: expected a whole number, 1 or more, got 2.5"),
    (thin("llama", num_hidden_layers=True), "num_hidden_layers: expected a whole number"),
    (thin("llama", num_hidden_layers=10**9), "num_hidden_layers: expected a whole number from 1 to 10,000"),
    (thin("llama", vocab_size="32000"), "vocab_size: expected a whole number, 1 or more, got '32000'"),
    (thin("llama", intermediate_size=0), "intermediate_size: expected a whole number, 1 or more, got 0"),
    (thin("llama", tie_word_embeddings="yes"), "tie_word_embeddings: expected true or false"),
    (thin("llama", rope_scaling={"type": "linear", "factor": -2}), "rope_scaling.factor: expected a number"),
    (thin("exaone4", layer_types=["full_attention"] * 5), "layer_types: expected one type for each of 6 layers"),
    (
        thin("exaone4", layer_types=["sliding_attention"] * 6, sliding_window=None),
        "sliding_window: expected the window",
    ),
    (thin("exaone4", sliding_window_pattern="LLXG"), "sliding_window_pattern: expected a number, or letters"),
    (thin("deepseek_v3", num_experts_per_tok=9), "num_experts_per_tok: expected at most the number of experts (7)"),
    (thin("deepseek_v3", first_k_dense_replace=7), "first_k_dense_replace: expected at most num_hidden_layers (6)"),
    ({"text_config": 3}, "text_config: expected a mapping"),
]


@pytest.mark.parametrize(("config", "complaint"), BAD, ids=[complaint[:40] for _, complaint in BAD])
def test_what_cannot_be_is_named(config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError) as refused:
        shape_of_config(config, source="c")
    assert str(refused.value).startswith(f"c: {complaint}")


VALUES = st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=4) | st.lists(st.integers())


@given(st.sampled_from(sorted(THIN)), st.data())
def test_any_value_in_any_field_is_a_shape_or_one_clear_complaint(name: str, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(THIN[name])))
    value = data.draw(VALUES)
    try:
        shape = shape_of_config({**THIN[name], field: value}, source="c")
    except ValueError as error:
        complaint = str(error)
    else:
        complaint = "c: "
        assert shape.params is None or shape.params > 0
    assert complaint.startswith("c: ")


# --- number formats -----------------------------------------------------------------------------------------

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "modules_to_not_convert": ["visual"]}


def compressed(weights: dict[str, Any], fmt: str = "pack-quantized", ignore: tuple[str, ...] = ("lm_head",)) -> Any:
    group = {"targets": ["Linear"], "weights": weights}
    return {
        "quant_method": "compressed-tensors",
        "format": fmt,
        "config_groups": {"group_0": group},
        "ignore": list(ignore),
    }


@pytest.mark.parametrize(
    ("quantization", "dtype", "group"),
    [
        (GPTQ, "int4", 128),
        (GPTQ | {"bits": 8, "group_size": -1}, "int8", None),
        (AWQ, "int4", 64),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8", None),
        (compressed({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}), "int4", 32),
        (compressed({"num_bits": 8, "type": "int", "strategy": "channel"}, "int-quantized"), "int8", None),
        (compressed({"num_bits": 8, "type": "float", "strategy": "channel"}, "float-quantized"), "fp8", None),
        (compressed({"num_bits": 4, "type": "float", "group_size": 16}, "nvfp4-pack-quantized"), "nvfp4", 16),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}, "nvfp4", 16),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8", None),
        ({"quant_method": "mxfp4"}, "mxfp4", 32),
        ({"load_in_4bit": True}, "int4", 64),
        ({"quant_method": "quip"}, "quip", None),
    ],
)
def test_number_formats_are_read(quantization: Any, dtype: str, group: int | None) -> None:
    weights = read_weights({**LLAMA_31_8B, "quantization_config": quantization})
    assert (weights.dtype, weights.group_size) == (dtype, group)


def test_what_keeps_16_bits_follows_from_the_parts() -> None:
    outside = 2 * 128256 * 4096 + 65 * 4096
    assert read_weights({**LLAMA_31_8B, "quantization_config": GPTQ}).unquantised_params == outside
    with_head = GPTQ | {"lm_head": True}
    assert read_weights({**LLAMA_31_8B, "quantization_config": with_head}).unquantised_params == outside - 128256 * 4096
    ignored = compressed({"num_bits": 4, "type": "int"}, ignore=("lm_head", "re:.*self_attn.*", "model.layers.0.mlp"))
    attention, feed_forward = 4096 * 4096 * 2 + 2 * 4096 * 1024, 3 * 4096 * 14336
    found = read_weights({**LLAMA_31_8B, "quantization_config": ignored}).unquantised_params
    assert found == outside + 32 * attention + feed_forward


def test_a_pattern_that_is_not_understood_leaves_it_unknown() -> None:
    ignored = compressed({"num_bits": 4, "type": "int"}, ignore=("re:(a+)+$",))
    weights = read_weights({**LLAMA_31_8B, "quantization_config": ignored})
    assert weights.unquantised_params is None
    assert weights.sourced is not None
    assert "is not understood here" in (weights.sourced.note or "")


def test_nothing_is_quantised_where_nothing_says_so() -> None:
    weights = read_weights(LLAMA_31_8B)
    assert (weights.dtype, weights.group_size, weights.unquantised_params) == ("bfloat16", None, None)


@pytest.mark.parametrize(
    ("quantization", "complaint"),
    [
        (GPTQ | {"bits": None}, "bits: expected the bits of a weight"),
        (GPTQ | {"group_size": 0}, "group_size: expected a whole number"),
        ([], "quantization_config: expected a mapping"),
        (compressed({"num_bits": "four", "type": "int"}), "num_bits: expected a whole number"),
    ],
)
def test_a_broken_quantisation_is_named(quantization: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as refused:
        read_weights({**LLAMA_31_8B, "quantization_config": quantization})
    assert complaint in str(refused.value)
