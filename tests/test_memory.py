"""Bytes of weights and KV cache against figures that vLLM or a vendor has published."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.kv_groups import Paging
from gateway.domain.memory import (
    GIB,
    KvNeed,
    default_batched_tokens,
    kv_blocks_per_request,
    kv_budget_bytes,
    kv_bytes_per_token,
    kv_bytes_per_token_past_window,
    kv_layout,
    missing_kv_fields,
    number_format,
    overhead_bytes,
    splits_over,
    weights_bytes,
    weights_bytes_as,
)
from gateway.domain.records import (
    LinearShape,
    MlaShape,
    Model,
    ModelShape,
    MoeShape,
    Serving,
    ServingKind,
    VisionShape,
    Weights,
)
from gateway.domain.weights import weights_by_stage

LLAMA_8B = ModelShape(params=8_030_261_248, layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128)
EXAONE_32B = ModelShape(
    params=32_003_200_000, layers=64, heads=40, kv_heads=8, head_dim=128, sliding_window=4096, global_layers=16
)
STARCODER2_3B = ModelShape(layers=30, heads=24, kv_heads=2, head_dim=128, sliding_window=4096, global_layers=0)
DEEPSEEK_V3 = ModelShape(layers=61, mla=MlaShape(kv_lora_rank=512, qk_rope_head_dim=64))

SHAPES = st.builds(
    ModelShape,
    layers=st.integers(1, 128),
    kv_heads=st.integers(1, 64),
    head_dim=st.integers(1, 256),
    sliding_window=st.none() | st.integers(1, 10_000),
    global_layers=st.integers(0, 128),
).filter(lambda shape: not missing_kv_fields(shape))
PAGINGS = st.builds(Paging, st.sampled_from([1, 16, 64]), st.integers(1, 16384), st.integers(1, 3))


def published(shape: ModelShape | None, dtype: str = "bfloat16", size_bytes: int | None = None) -> Model:
    return Model("m", Serving(ServingKind.VLLM, "m"), weights=Weights("r", None, None, dtype, size_bytes), shape=shape)


@pytest.mark.parametrize(("shape", "expected"), [(LLAMA_8B, 131_072), (DEEPSEEK_V3, 70_272), (EXAONE_32B, 262_144)])
def test_kv_bytes_per_token_of_known_models(shape: ModelShape, expected: int) -> None:
    assert kv_bytes_per_token(shape) == expected


def test_only_global_layers_grow_past_the_window() -> None:
    assert kv_bytes_per_token_past_window(EXAONE_32B) == 65_536
    assert kv_bytes_per_token_past_window(STARCODER2_3B) == 0
    assert kv_bytes_per_token_past_window(LLAMA_8B) == kv_bytes_per_token(LLAMA_8B)


@pytest.mark.parametrize(("batches", "blocks"), [(2, 5891), (1, 4355)])
def test_exaone_4_needs_the_blocks_that_vllm_reserves(batches: int, blocks: int) -> None:
    need = kv_blocks_per_request(
        EXAONE_32B, context=32_768, block=16, max_batched_tokens=8192, batches_in_flight=batches
    )
    assert need == KvNeed(blocks, block_bytes=16 * 16 * 4096)
    assert need.total_bytes == blocks * 2**20


def test_starcoder2_matches_vllms_own_report() -> None:
    """137,407 blocks, 769 a request, 178.68 times the context of 16,384: one batch in flight."""
    layout, paging = kv_layout(STARCODER2_3B), Paging(16, 8192, 1)
    assert layout is not None
    per_request = layout.blocks_per_request(16_384, paging)
    blocks = layout.blocks_in(137_407 * layout.block_bytes(paging) + 5, paging)
    assert (blocks, per_request) == (137_407, 769)
    assert round(blocks / per_request, 2) == 178.68
    assert blocks * 16_384 // per_request == 2_927_537


def test_budget_matches_vllms_own_report() -> None:
    """15.77 GiB × 0.90 - 7.51 - 0.39 - 2.53 = 3.76 to 3.77 GiB."""
    budget = kv_budget_bytes(int(15.77 * GIB), 0.90, int(7.51 * GIB), int((0.39 + 2.53) * GIB))
    assert 3.76 <= budget / GIB <= 3.77


@pytest.mark.parametrize(
    ("full", "window", "widest"),
    [(16, 48, 16), (10, 12, 12), (12, 10, 12), (8, 11, 11), (8, 12, 8), (13, 7, 7), (30, 0, 30), (0, 30, 30)],
)
def test_groups_take_the_smaller_count_unless_the_larger_is_below_one_and_a_half(
    full: int, window: int, widest: int
) -> None:
    """vLLM 0.32.0's own rule; tests/vllm/test_kv_grid.py has it from vLLM itself."""
    shape = ModelShape(layers=full + window, kv_heads=8, head_dim=128, sliding_window=1024, global_layers=full)
    layout = kv_layout(shape)
    assert layout is not None
    assert layout.block_bytes(Paging(16)) == widest * 16 * 4096


def test_short_groups_are_padded() -> None:
    """20 full and 58 windowed layers: groups of 20, so one and three, the last of them 18 wide."""
    shape = ModelShape(layers=78, kv_heads=8, head_dim=128, sliding_window=128, global_layers=20)
    layout = kv_layout(shape)
    assert layout is not None
    assert layout.blocks_per_request(16, Paging(16, 16, 1)) == 1 + 3 * 2


def test_tensor_parallel_shares_kv_heads_repeats_the_rest_and_keeps_a_latent_whole() -> None:
    def token_bytes(shape: ModelShape, size: int) -> int:
        layout = kv_layout(shape, tensor_parallel=size)
        assert layout is not None
        return layout.token_bytes

    assert [token_bytes(LLAMA_8B, size) for size in (1, 2, 8, 16)] == [4096, 2048, 512, 512]
    assert [token_bytes(DEEPSEEK_V3, size) for size in (1, 8)] == [1152, 1152]


def test_heads_decide_over_how_many_gpus_a_model_splits() -> None:
    qwen_7b = ModelShape(heads=28, kv_heads=4)
    assert [size for size in (1, 2, 4, 8, 16) if splits_over(qwen_7b, size)] == [1, 2, 4]
    assert [size for size in (1, 2, 4, 8, 16) if splits_over(LLAMA_8B, size)] == [1, 2, 4, 8, 16]


@given(SHAPES, PAGINGS, st.integers(1, 200_000), st.integers(0, 1000))
def test_blocks_grow_with_context(shape: ModelShape, paging: Paging, context: int, more: int) -> None:
    layout = kv_layout(shape)
    assert layout is not None
    assert layout.blocks_per_request(context, paging) <= layout.blocks_per_request(context + more, paging)


@given(SHAPES, PAGINGS, st.integers(1, 200_000))
def test_reservation_is_never_below_the_plain_sum(shape: ModelShape, paging: Paging, context: int) -> None:
    layout = kv_layout(shape)
    assert layout is not None
    reserved = layout.blocks_per_request(context, paging) * layout.block_bytes(paging)
    assert reserved >= layout.plain_bytes(context)


@given(SHAPES, PAGINGS, st.integers(0, 20_000), st.integers(1, 100_000))
def test_longest_context_is_the_last_that_fits(shape: ModelShape, paging: Paging, blocks: int, limit: int) -> None:
    layout = kv_layout(shape)
    assert layout is not None
    longest = layout.longest_context(blocks, paging, limit=limit)
    assert 0 <= longest <= limit
    if longest > 0:
        assert layout.blocks_per_request(longest, paging) <= blocks
    if longest < limit:
        assert layout.blocks_per_request(longest + 1, paging) > blocks


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", 4_096_000_000),
        ("bfloat16", 2_048_000_000),
        ("fp8", 1_024_000_000),
        ("int8", 1_024_000_000),
        ("int4", 528_000_000),
        ("awq", 532_000_000),
        ("nvfp4", 576_000_000),
        ("mxfp4", 544_000_000),
    ],
)
def test_weights_of_1024_million_parameters(dtype: str, expected: int) -> None:
    assert weights_bytes(published(ModelShape(params=1_024_000_000), dtype)) == expected


def test_published_size_goes_before_the_parameter_count() -> None:
    assert weights_bytes(published(LLAMA_8B, size_bytes=16_070_000_000)) == 16_070_000_000


@pytest.mark.parametrize(("tied", "kept"), [(True, 1_000_000), (False, 2_000_000), (None, 2_000_000)])
def test_quantised_weights_keep_the_embedding_in_16_bits(tied: bool | None, kept: int) -> None:
    """And each row of 1,000 parameters has a scale of 4 bytes."""
    shape = ModelShape(params=10_000_000, vocab=1000, hidden=1000, tied_embeddings=tied)
    assert weights_bytes_as(shape, "fp8") == (10_000_000 - kept) * 1004 // 1000 + 2 * kept
    assert weights_bytes_as(shape, "bf16") == 20_000_000


def test_groups_and_kept_parameters_are_the_checkpoints_own_where_it_says_them() -> None:
    shape = ModelShape(params=10_000_000, vocab=1000, hidden=1000, tied_embeddings=True)
    told = {"group_size": 32, "unquantised_params": 2_000_000}
    assert weights_bytes_as(shape, "int4", published=Weights(dtype="int4", **told)) == 8_000_000 * 9 // 16 + 4_000_000
    assert weights_bytes_as(shape, "awq", published=Weights(dtype="awq", **told)) == 8_000_000 * 37 // 64 + 4_000_000
    assert weights_bytes_as(shape, "fp8", published=Weights(dtype="fp8", group_size=128, unquantised_params=0)) == (
        10_000_000 + -(-10_000_000 * 4 // 128**2)
    )
    assert weights_bytes_as(shape, "int4", published=Weights(dtype="fp8", **told)) == weights_bytes_as(shape, "int4")


def test_norms_router_and_image_encoder_stay_in_16_bits_too() -> None:
    plain = ModelShape(params=10_000_000_000, layers=10, hidden=1000)
    seeing = replace(plain, moe=MoeShape(100, 2, dense_layers=1), vision=VisionShape(params=400_000_000))
    kept = 2 * 1000 * 10 + 9 * 100 * 1000 + 400_000_000
    assert weights_bytes_as(seeing, "nvfp4") == (10_000_000_000 - kept) * 9 // 16 + 2 * kept
    assert weights_bytes(published(seeing)) == 20_000_000_000


# --- shares of a parallel set -------------------------------------------------------------------------------

LLAMA_WHOLE = replace(LLAMA_8B, ffn=14336, vocab=128_256, tied_embeddings=False)


def test_tensor_parallel_cuts_all_but_norms() -> None:
    total = 2 * 8_030_261_248
    (half,) = weights_by_stage(LLAMA_WHOLE, total, tensor_parallel=2)
    assert half == total // 2 + 2 * (2 * 4096 * 32) // 2, "norms are whole on both"


def test_more_gpus_than_kv_heads_hold_repeats_of_their_projections() -> None:
    total = 2 * 8_030_261_248
    (share,) = weights_by_stage(LLAMA_WHOLE, total, tensor_parallel=16)
    norms, keys = 2 * 2 * 4096 * 32, 2 * 32 * 4096 * 2 * 8 * 128
    assert share == -(-(total - norms - keys) // 16) + norms + keys // 8


def test_first_and_last_stage_have_embedding_and_head_and_the_rest_goes_by_layers() -> None:
    total = 2 * 8_030_261_248
    stages = weights_by_stage(LLAMA_WHOLE, total, pipeline_parallel=4)
    embedding = 2 * 128_256 * 4096
    body = (total - 2 * embedding) // 4
    assert stages == (body + embedding, body, body, body + embedding)


def test_a_tied_embedding_is_on_the_first_and_the_last_stage() -> None:
    shape = replace(LLAMA_WHOLE, tied_embeddings=True, params=7_504_924_672)
    first, last = weights_by_stage(shape, 2 * 7_504_924_672, pipeline_parallel=2)
    assert first == last
    assert first + last == 2 * 7_504_924_672 + 2 * 128_256 * 4096


def test_vocabularies_are_padded_to_64_rows_where_they_are_cut() -> None:
    shape = ModelShape(params=2_000_000, layers=1, hidden=1000, vocab=1000, tied_embeddings=True)
    (share,) = weights_by_stage(shape, 4_000_000, tensor_parallel=2)
    assert share == (4_000_000 - 4000 + 24 * 1000 * 2) // 2 + 4000


def test_whole_experts_are_dealt_out_where_experts_are_parallel() -> None:
    moe = MoeShape(10, 2, expert_ffn=100)
    shape = ModelShape(params=10_000_000, layers=2, hidden=1000, moe=moe)
    experts, router, norms = 2 * 10 * 3 * 100 * 1000, 2 * 10 * 1000, 2 * 2 * 1000
    left = 10_000_000 - experts - router - norms
    (cut,) = weights_by_stage(shape, 20_000_000, tensor_parallel=4)
    (dealt,) = weights_by_stage(shape, 20_000_000, tensor_parallel=4, expert_parallel=True)
    assert cut == 2 * (router + norms) + (left + experts) * 2 // 4
    assert dealt == 2 * (router + norms) + left * 2 // 4 + experts * 2 * 3 // 10


@given(st.integers(1, 16), st.integers(1, 8), st.integers(1, 2**40))
def test_shares_of_a_parallel_set_hold_all_weights_together(size: int, stages: int, total: int) -> None:
    shares = weights_by_stage(LLAMA_WHOLE, total, tensor_parallel=size, pipeline_parallel=stages)
    assert len(shares) == stages
    assert sum(shares) * size >= total


def test_unknown_weights_stay_unknown() -> None:
    assert weights_bytes(published(None)) is None
    assert weights_bytes(published(ModelShape())) is None
    assert weights_bytes(published(LLAMA_8B, "ternary")) is None
    assert number_format("torch.bfloat16") == "bf16"


def test_missing_fields_are_named() -> None:
    assert missing_kv_fields(ModelShape()) == ("layers", "kv_heads", "head_dim")
    assert missing_kv_fields(replace(EXAONE_32B, global_layers=None)) == ("global_layers",)
    assert missing_kv_fields(replace(EXAONE_32B, global_layers=65)) == ("global_layers",)
    assert missing_kv_fields(replace(EXAONE_32B, sliding_window=None)) == ("sliding_window or attention_chunk",)
    assert missing_kv_fields(replace(LLAMA_8B, linear=LinearShape(8))) == ("linear.state_bytes",)
    assert missing_kv_fields(DEEPSEEK_V3) == ()
    assert kv_bytes_per_token(ModelShape()) is None
    assert kv_bytes_per_token_past_window(ModelShape()) is None
    paging = {"context": 1, "block": 16, "max_batched_tokens": 1, "batches_in_flight": 1}
    assert kv_blocks_per_request(ModelShape(), **paging) is None


def test_overhead_is_a_range_over_the_activation_peak() -> None:
    dense = overhead_bytes(LLAMA_8B, Paging(16, 8192, 2))
    mixture = overhead_bytes(replace(LLAMA_8B, moe=MoeShape(8, 2)), Paging(16, 8192, 2))
    assert dense is not None
    assert mixture is not None
    activations = 2 * 8192 * 32 * 128 * 11
    assert (dense.low, dense.likely, dense.high) == (
        GIB + activations,
        5 * GIB // 2 + activations,
        4 * GIB + activations,
    )
    assert mixture.likely - dense.likely == activations
    assert overhead_bytes(ModelShape(hidden=4096), Paging(16, 8192, 2)) == dense
    assert overhead_bytes(ModelShape(), Paging()) is None


@pytest.mark.parametrize(
    ("name", "gib", "expected"),
    [("L4", 24, 2048), ("H100 SXM", 79, 8192), ("A100 80 GB", 80, 2048), ("H200", 140, 8192), ("B200", 180, 16384)],
)
def test_vllms_default_step_size_follows_the_memory(name: str, gib: int, expected: int) -> None:
    assert default_batched_tokens(name, gib * GIB) == expected
