"""vLLM's accounting of the KV cache: known numbers, and what must hold for any layers. vLLM itself is in tests/vllm."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.kv_cache import KvLayout
from gateway.domain.kv_groups import KvRefused, KvRules, Paging
from gateway.domain.kv_layers import (
    KV_DTYPES,
    Keeps,
    KvLayer,
    KvLayers,
    attention_token_bytes,
    index_token_bytes,
    latent_token_bytes,
    pipeline_stages,
)
from gateway.domain.memory import kv_layout
from gateway.domain.records import LinearShape, MlaShape, ModelShape

GPU = Paging(16, 8192, 2)
SPARSE = ModelShape(layers=61, mla=MlaShape(512, 64, index_head_dim=128))


def kinds(*layers: tuple[KvLayer, int]) -> KvLayout:
    return KvLayout(tuple(KvLayers(layer, (count,)) for layer, count in layers))


def full(token_bytes: int = 4096) -> KvLayer:
    return KvLayer(Keeps.FULL, token_bytes)


def window(span: int, token_bytes: int = 4096) -> KvLayer:
    return KvLayer(Keeps.WINDOW, token_bytes, span)


# --- bytes of one token -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kv_dtype", "expected"),
    [
        ("auto", 8 * 256 * 2),
        ("bfloat16", 8 * 256 * 2),
        ("fp8", 8 * 256),
        ("fp8_e5m2", 8 * 256),
        ("int8_per_token_head", 8 * (256 + 8)),
        ("int4_per_token_head", 8 * (128 + 8)),
        ("nvfp4", 8 * 2 * (64 + 8)),
    ],
)
def test_bytes_of_a_token_in_eight_heads_of_128(kv_dtype: str, expected: int) -> None:
    assert attention_token_bytes(kv_heads=8, key=128, value=128, kv_dtype=kv_dtype) == expected


def test_keys_and_values_may_differ_in_size() -> None:
    assert attention_token_bytes(kv_heads=4, key=192, value=128, kv_dtype="auto") == 4 * 320 * 2
    with pytest.raises(ValueError, match="of one size"):
        attention_token_bytes(kv_heads=4, key=192, value=128, kv_dtype="nvfp4")


def test_bytes_of_a_latent() -> None:
    assert latent_token_bytes(576, kv_dtype="auto") == 1152
    assert latent_token_bytes(576, kv_dtype="fp8") == 576
    assert latent_token_bytes(576, kv_dtype="fp8", sparse=True) == 656
    assert latent_token_bytes(576, kv_dtype="nvfp4_ds_mla") == 352
    assert index_token_bytes(128) == 132


@pytest.mark.parametrize("kv_dtype", ["fp7", "turboquant_k8v4", "fp8_ds_mla"])
def test_an_unknown_dtype_is_refused_and_the_known_ones_are_named(kv_dtype: str) -> None:
    with pytest.raises(ValueError, match="known are auto, bfloat16"):
        attention_token_bytes(kv_heads=1, key=64, value=64, kv_dtype=kv_dtype)


def test_a_sparse_indexer_has_a_cache_of_its_own_in_the_same_blocks() -> None:
    layout = kv_layout(SPARSE, kv_dtype="fp8")
    assert layout is not None
    assert layout.block_bytes(Paging(64)) == 61 * 64 * (656 + 132)
    assert layout.blocks_per_request(65_536, Paging(64)) == 1024
    assert (layout.full_layers, layout.token_bytes) == (61, 656)


# --- groups -------------------------------------------------------------------------------------------------


def test_pages_that_come_out_even_get_longer_blocks() -> None:
    """A window of half the bytes: 32 tokens in a page that holds 16 of a full layer."""
    layout = kinds((full(4096), 4), (window(1024, 2048), 4))
    assert [(group.block, group.stage_bytes) for group in layout.groups(GPU)] == [
        (16, (4 * 65536,)),
        (32, (4 * 65536,)),
    ]
    assert layout.effective_block(GPU) == 16


def test_pages_that_do_not_are_padded() -> None:
    layout = kinds((full(4096), 4), (window(1024, 3000), 4))
    assert [(group.block, group.stage_bytes) for group in layout.groups(GPU)] == [
        (16, (4 * 65536,)),
        (16, (4 * 65536,)),
    ]


def test_windows_beside_a_latent_that_cannot_be_padded_are_charged_as_full() -> None:
    layout = kinds((KvLayer(Keeps.LATENT, 1152), 8), (window(128, 2048), 2))
    (group,) = layout.groups(GPU)
    assert group.stage_bytes == (16 * (8 * 1152 + 2 * 2048),)


def test_full_layers_of_several_sizes_share_one_group() -> None:
    (group,) = kinds((full(4096), 4), (full(1000), 2)).groups(GPU)
    assert group.stage_bytes == (16 * (4 * 4096 + 2 * 1000),)


def test_without_the_hybrid_manager_windows_are_charged_as_full_and_states_are_refused() -> None:
    layout = replace(kinds((full(), 4), (window(128), 12)), rules=KvRules(hybrid=False))
    assert layout.blocks_per_request(32_768, GPU) == 2048
    assert layout.block_bytes(GPU) == 16 * 16 * 4096
    linear = kinds((full(), 4), (KvLayer(Keeps.STATE, state_bytes=10**6), 12))
    assert linear.groups(GPU)
    with pytest.raises(KvRefused, match="hybrid"):
        replace(linear, rules=KvRules(hybrid=False)).groups(GPU)


def test_blocks_grow_until_a_page_holds_a_state() -> None:
    layout = kinds((full(2048), 1), (KvLayer(Keeps.STATE, state_bytes=1_000_000), 3))
    assert layout.effective_block(GPU) == 496
    assert layout.block_bytes(GPU) == 496 * 2048
    assert layout.blocks_per_request(8192, GPU) == 17 + 3 * 2
    assert replace(layout, rules=KvRules(state_pages=1)).blocks_per_request(8192, GPU) == 17 + 3


def test_nothing_kept_is_refused() -> None:
    with pytest.raises(KvRefused):
        KvLayout(()).groups(GPU)


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [(64, 4, (16, 16, 16, 16)), (32, 3, (10, 11, 11)[::-1]), (61, 4, (15, 15, 16, 15)), (7, 5, (1, 1, 2, 2, 1))],
)
def test_pipeline_stages_are_vllms(layers: int, stages: int, expected: tuple[int, ...]) -> None:
    assert pipeline_stages(layers, stages) == expected


def test_the_smallest_stage_decides_how_many_blocks_there_are() -> None:
    layout = kv_layout(ModelShape(layers=32, kv_heads=8, head_dim=128), pipeline_parallel=3)
    assert layout is not None
    assert layout.stage_block_bytes(GPU) == tuple(16 * 4096 * count for count in (11, 11, 10))
    assert layout.blocks_in_stages([2**30, 2**29, 2**30], GPU) == 2**29 // (16 * 4096 * 11)


def test_a_stage_without_a_cache_is_refused() -> None:
    shape = ModelShape(layers=4, kv_heads=8, head_dim=128, linear=LinearShape(3, 1000), global_layers=1)
    layout = kv_layout(shape, pipeline_parallel=4)
    assert layout is not None
    assert layout.stage_block_bytes(GPU)
    empty = KvLayout((KvLayers(full(), (4, 0)),))
    with pytest.raises(KvRefused, match="pipeline stage"):
        empty.block_bytes(GPU)


# --- what must hold for any layers --------------------------------------------------------------------------

LAYERS = st.one_of(
    st.builds(KvLayer, st.just(Keeps.FULL), st.sampled_from([256, 1024, 3000, 4096])),
    st.builds(
        KvLayer, st.sampled_from([Keeps.WINDOW, Keeps.CHUNK]), st.sampled_from([256, 4096]), st.integers(1, 9000)
    ),
    st.builds(lambda size: KvLayer(Keeps.STATE, state_bytes=size), st.integers(1, 10**7)),
)
LAYOUTS = st.builds(
    lambda found, stages: KvLayout(
        tuple(KvLayers(layer, tuple([count] * stages)) for layer, count in dict(found).items())
    ),
    st.lists(st.tuples(LAYERS, st.integers(1, 40)), min_size=1, max_size=3),
    st.integers(1, 3),
)
PAGINGS = st.builds(Paging, st.sampled_from([16, 32, 128]), st.integers(1, 16_384), st.integers(1, 4))
CONTEXTS = st.integers(1, 200_000)


@given(LAYOUTS, PAGINGS, CONTEXTS, st.integers(0, 5000))
def test_blocks_never_shrink_with_context(layout: KvLayout, paging: Paging, context: int, more: int) -> None:
    assert 1 <= layout.blocks_per_request(context, paging) <= layout.blocks_per_request(context + more, paging)


@given(LAYOUTS, PAGINGS, CONTEXTS, st.integers(0, 2**40), st.integers(0, 2**30))
def test_more_memory_never_holds_less(layout: KvLayout, paging: Paging, context: int, kv_bytes: int, more: int) -> None:
    few, many = layout.blocks_in(kv_bytes, paging), layout.blocks_in(kv_bytes + more, paging)
    assert few <= many
    assert layout.kv_tokens(few, context, paging) <= layout.kv_tokens(many, context, paging)
    assert layout.requests_held(few, context, paging) <= layout.max_concurrency(few, context, paging)


@given(LAYOUTS, PAGINGS, CONTEXTS)
def test_every_layer_is_in_exactly_one_group_and_none_is_larger_than_a_block(
    layout: KvLayout, paging: Paging, context: int
) -> None:
    groups = layout.groups(paging)
    assert sum(group.layers for group in groups) == sum(kind.count for kind in layout.layers)
    for sizes in (group.stage_bytes for group in groups):
        assert all(size <= block for size, block in zip(sizes, layout.stage_block_bytes(paging), strict=True))


@given(LAYOUTS, PAGINGS, CONTEXTS, st.integers(1, 4))
def test_more_batches_in_flight_never_take_fewer_blocks(
    layout: KvLayout, paging: Paging, context: int, more: int
) -> None:
    busier = replace(paging, batches_in_flight=paging.batches_in_flight + more)
    assert layout.blocks_per_request(context, paging) <= layout.blocks_per_request(context, busier)


@given(st.integers(1, 200), st.integers(1, 20))
def test_stages_have_all_layers_and_differ_by_one(layers: int, stages: int) -> None:
    if stages <= layers:
        counts = pipeline_stages(layers, stages)
        assert sum(counts) == layers
        assert max(counts) - min(counts) <= 1


def test_every_dtype_that_is_said_to_be_known_is() -> None:
    for kv_dtype in KV_DTYPES:
        widths = []
        for width in (
            lambda name: attention_token_bytes(kv_heads=1, key=128, value=128, kv_dtype=name),
            lambda name: latent_token_bytes(576, kv_dtype=name),
        ):
            try:
                widths.append(width(kv_dtype))
            except ValueError:
                continue
        assert widths, kv_dtype
