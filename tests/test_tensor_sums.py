"""Parameters and bytes of tensors: plain, and in every packed format that engines load."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors_files import tensors

from gateway.domain.tensor_sums import sum_tensors

P = "model.layers.0.mlp.up_proj"
NORM = {"model.norm.weight": ("BF16", [64])}
ROWS, COLUMNS = 256, 64
"""Inputs and outputs of the one projection: 16,384 parameters."""
PACKED: dict[str, tuple[Any, str, int | None]] = {
    "gptq": (
        {
            f"{P}.qweight": ("I32", [ROWS // 8, COLUMNS]),
            f"{P}.qzeros": ("I32", [2, COLUMNS // 8]),
            f"{P}.scales": ("F16", [2, COLUMNS]),
            f"{P}.g_idx": ("I32", [ROWS]),
        },
        "int4",
        128,
    ),
    "gptq in 8 bits": (
        {
            f"{P}.qweight": ("I32", [ROWS // 4, COLUMNS]),
            f"{P}.qzeros": ("I32", [4, COLUMNS // 4]),
            f"{P}.scales": ("F16", [4, COLUMNS]),
        },
        "int8",
        64,
    ),
    "awq": (
        {
            f"{P}.qweight": ("I32", [ROWS, COLUMNS // 8]),
            f"{P}.qzeros": ("I32", [2, COLUMNS // 8]),
            f"{P}.scales": ("F16", [2, COLUMNS]),
        },
        "int4",
        128,
    ),
    "compressed-tensors int4": (
        {
            f"{P}.weight_packed": ("I32", [COLUMNS, ROWS // 8]),
            f"{P}.weight_scale": ("BF16", [COLUMNS, 2]),
            f"{P}.weight_shape": ("I64", [2]),
            f"{P}.weight_zero_point": ("I32", [COLUMNS // 8, 2]),
        },
        "int4",
        128,
    ),
    "fp8 with a scale": (
        {
            f"{P}.weight": ("F8_E4M3", [COLUMNS, ROWS]),
            f"{P}.weight_scale": ("F32", []),
            f"{P}.input_scale": ("F32", []),
        },
        "fp8",
        None,
    ),
    "fp8 in blocks": (
        {f"{P}.weight": ("F8_E4M3", [COLUMNS, ROWS]), f"{P}.weight_scale_inv": ("F32", [1, 2])},
        "fp8",
        None,
    ),
    "int8": (
        {f"{P}.weight": ("I8", [COLUMNS, ROWS]), f"{P}.weight_scale": ("F32", [COLUMNS, 1])},
        "int8",
        None,
    ),
    "nvfp4 by ModelOpt": (
        {
            f"{P}.weight": ("U8", [COLUMNS, ROWS // 2]),
            f"{P}.weight_scale": ("F8_E4M3", [COLUMNS, ROWS // 16]),
            f"{P}.weight_scale_2": ("F32", []),
            f"{P}.input_scale": ("F32", []),
        },
        "nvfp4",
        16,
    ),
    "nvfp4 by compressed-tensors": (
        {
            f"{P}.weight_packed": ("U8", [COLUMNS, ROWS // 2]),
            f"{P}.weight_scale": ("F8_E4M3", [COLUMNS, ROWS // 16]),
            f"{P}.weight_global_scale": ("F32", [1]),
            f"{P}.input_global_scale": ("F32", [1]),
        },
        "nvfp4",
        16,
    ),
    "mxfp4 of gpt-oss": (
        {
            "model.layers.0.mlp.experts.up_proj_blocks": ("U8", [2, COLUMNS // 2, ROWS // 32, 16]),
            "model.layers.0.mlp.experts.up_proj_scales": ("U8", [2, COLUMNS // 2, ROWS // 32]),
        },
        "mxfp4",
        32,
    ),
    "bitsandbytes": (
        {
            f"{P}.weight": ("U8", [ROWS * COLUMNS // 2, 1]),
            f"{P}.weight.absmax": ("F32", [ROWS * COLUMNS // 64]),
            f"{P}.weight.quant_map": ("F32", [16]),
            f"{P}.weight.quant_state.bitsandbytes__nf4": ("U8", [80]),
        },
        "int4",
        64,
    ),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_weights_are_counted_as_the_model_has_them(name: str) -> None:
    shapes, dtype, group = PACKED[name]
    sums = sum_tensors(tensors({**shapes, **NORM}))
    assert sums.params_by_format == {dtype: ROWS * COLUMNS, "bfloat16": 64}
    assert (sums.dtype, sums.group_size, sums.unquantised_params, sums.unknown) == (dtype, group, 64, ())
    assert sums.total_bytes == sum(tensor.size_bytes for tensor in tensors({**shapes, **NORM}))


def test_nothing_is_unquantised_where_nothing_is_quantised() -> None:
    sums = sum_tensors(tensors(NORM))
    assert (sums.dtype, sums.unquantised_params, sums.group_size) == ("bfloat16", None, None)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.sampled_from(["BF16", "F16", "F32"]))
def test_plain_tensors_are_their_elements(sizes: list[int], dtype: str) -> None:
    sums = sum_tensors(tensors({f"t{n}": (dtype, [size, 3]) for n, size in enumerate(sizes)}))
    assert sums.params == 3 * sum(sizes)
    assert sums.total_bytes == sums.params * (4 if dtype == "F32" else 2) == sum(sums.bytes_by_dtype.values())


def test_draft_layers_and_copies_are_counted_apart() -> None:
    shapes: Any = {
        "model.embed_tokens.weight": ("BF16", [10, 4]),
        "lm_head.weight": ("BF16", [10, 4]),
        "model.layers.1.mlp.up_proj.weight": ("BF16", [4, 4]),
        "model.layers.2.eh_proj.weight": ("BF16", [4, 8]),
    }
    apart = sum_tensors(tensors(shapes), layers=2, tied=True)
    assert (apart.params, apart.draft_params, apart.draft_bytes, apart.tied_bytes) == (56, 32, 64, 80)
    together = sum_tensors(tensors(shapes), tied=False)
    assert (together.params, together.has_head, together.embedding_params) == (128, True, 40)


def test_an_image_encoder_is_known_by_its_name() -> None:
    shapes: Any = {"visual.blocks.9.attn.qkv.weight": ("BF16", [3, 3]), "model.layers.0.x.weight": ("BF16", [2])}
    sums = sum_tensors(tensors(shapes), layers=1)
    assert (sums.params, sums.vision_params) == (11, 9)


def test_buffers_take_bytes_and_are_no_parameters() -> None:
    shapes: Any = {**NORM, "model.layers.0.mlp.gate.e_score_correction_bias": ("F32", [8])}
    sums = sum_tensors(tensors(shapes))
    assert (sums.params, sums.total_bytes) == (64, 128 + 32)


def test_whole_numbers_of_no_known_format_are_named() -> None:
    assert sum_tensors(tensors({"codebook": ("I16", [4])})).unknown == ("codebook",)


def test_packed_weights_that_do_not_fit_their_scales_are_refused() -> None:
    shapes: Any = {f"{P}.qweight": ("I32", [3, 5]), f"{P}.scales": ("F16", [1, 7])}
    with pytest.raises(ValueError, match=r"up_proj\.qweight: expected 4-bit weights of 7 columns"):
        sum_tensors(tensors(shapes))
