"""The matrix: each cell says what `estimate` and `roofline` say, the unknown has a reason, more memory never hurts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_feasibility import EXAONE_32B, H100, H200, L4, LLAMA_8B, candidate, gpu

from gateway.domain.cost import cost_per_mtok
from gateway.domain.decoding import Decoding
from gateway.domain.feasibility import Verdict, estimate
from gateway.domain.matrix import (
    DEFAULT_QUANTISATIONS,
    PUBLISHED,
    QUANTISATIONS,
    Gap,
    Matrix,
    MatrixLoad,
    Units,
    build_matrix,
    model_in,
    most_sequences,
    units_of,
)
from gateway.domain.memory import GIB, ByteRange
from gateway.domain.records import Confidence, Gpu, GpuPrice, Model, MoeShape, Registry, Sourced
from gateway.domain.roofline import Roofline, Work, build_bound, expect_roofline
from gateway.domain.serving_plan import ServingPlan
from gateway.registry import load_registry

SHIPPED = Path(__file__).parent.parent / "model_registry.yaml"
LISTS = Sourced("lists", Confidence.MEDIUM)
LOAD = MatrixLoad(context=8192, concurrency=4)
ORDER = (Verdict.NO, Verdict.FITS_SHORT_CONTEXT, Verdict.FITS_QUANTISED, Verdict.FITS)
DENSE = replace(LLAMA_8B, vocab=128_256, active_params=LLAMA_8B.params)
LLAMA = replace(candidate(DENSE), id="llama")
EXAONE = replace(candidate(replace(EXAONE_32B, active_params=EXAONE_32B.params)), id="exaone")
BARE = replace(candidate(None), id="bare")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(SHIPPED)


@pytest.fixture(scope="module")
def shipped(registry: Registry) -> Matrix:
    return build_matrix(registry.models.values(), registry.gpus.values(), QUANTISATIONS, LOAD)


def price(per_hour: str, currency: str = "USD") -> GpuPrice:
    return GpuPrice(Decimal(per_hour), currency, "list_low", "a list", date(2026, 11, 23), LISTS)


def only(model: Model, device: Gpu, quantisation: str = PUBLISHED, load: MatrixLoad = LOAD) -> Matrix:
    return build_matrix([model], [device], [quantisation], load)


# --- what a cell says ---------------------------------------------------------------------------------------


def test_every_combination_is_there_exactly_once(registry: Registry, shipped: Matrix) -> None:
    assert len(shipped.cells) == len(registry.models) * len(registry.gpus) * len(QUANTISATIONS)
    assert [cell.key for cell in shipped] == list(shipped.cells)


def test_what_is_named_twice_counts_once() -> None:
    matrix = build_matrix([LLAMA, LLAMA], [H100, H100], [PUBLISHED, "fp8", PUBLISHED], LOAD)
    assert list(matrix.cells) == [("llama", "h100", PUBLISHED), ("llama", "h100", "fp8")]


def test_every_cell_has_the_estimate_of_its_plan(registry: Registry, shipped: Matrix) -> None:
    for cell in list(shipped)[::37]:
        plan = ServingPlan(quantisation=None if cell.quantisation == PUBLISHED else cell.quantisation)
        model, device = registry.models[cell.model_id], registry.gpus[cell.gpu_id]
        assert cell.estimate == estimate(model, device, context=8192, concurrency=4, plan=plan)


def pace_of(roofline: Roofline) -> float:
    """Tokens per second of the load, request by request as the roofline has it."""
    return 4 / roofline.step_seconds([Work(new_tokens=1, past_tokens=8191)] * 4)


@pytest.mark.parametrize("kv_dtype", ["auto", "fp8"])
@pytest.mark.parametrize("gpus", [1, 4])
@pytest.mark.parametrize("quantisation", QUANTISATIONS)
@pytest.mark.parametrize("model", [LLAMA, EXAONE], ids=lambda model: model.id)
def test_speed_is_that_of_the_bound_and_of_the_expectation(
    model: Model, quantisation: str, gpus: int, kv_dtype: str
) -> None:
    cell = next(iter(only(model, H200, quantisation, replace(LOAD, gpus=gpus, kv_dtype=kv_dtype))))
    name = "bf16" if quantisation == PUBLISHED else quantisation
    kv_bytes = 2 if kv_dtype == "auto" else 1
    bound = build_bound(model, H200, gpus=gpus, weights_format=name, kv_dtype_bytes=kv_bytes)
    expected = expect_roofline(model, H200, gpus=gpus, weights_format=name, kv_dtype_bytes=kv_bytes)
    assert cell.asked is not None
    assert cell.asked.ceiling_tokens_per_s == pytest.approx(pace_of(bound), rel=1e-9)
    assert cell.asked.expected_tokens_per_s == pytest.approx(pace_of(expected), rel=1e-9)


@pytest.mark.parametrize("name", [name for name in QUANTISATIONS if name not in (PUBLISHED, "bf16")])
def test_no_engine_with_everything_quantised_on_the_fastest_units_beats_a_ceiling(name: str) -> None:
    """An engine of its own arithmetic: all weights but the input embedding at the format's width, with a scale of a
    byte for 16 of 4 bits, the cache, and 16 ÷ bits times the 16-bit operations."""
    bits = {"fp8": 8, "int8": 8}.get(name, 4)
    shape, requests = LLAMA.shape, 256
    assert shape is not None
    cell = next(iter(only(LLAMA, H200, name, MatrixLoad(context=16, concurrency=requests))))
    assert shape.params is not None
    assert H100.bf16_flops is not None
    weights = 1.125 * (shape.params - 128_256 * 4096) * bits / 8
    cache = requests * 15 * 32 * 8 * 128 * 2 * 2
    read_s = (weights + cache) / H100.bandwidth_bytes_per_s
    flops_s = requests * 2 * (shape.params - 128_256 * 4096) / (H100.bf16_flops * 16 / bits)
    assert cell.asked is not None
    assert cell.asked.ceiling_tokens_per_s is not None
    assert cell.asked.ceiling_tokens_per_s >= 0.999 * requests / max(read_s, flops_s)


def test_a_scaled_cache_is_read_with_its_scales() -> None:
    load = MatrixLoad(context=32_768, concurrency=8, kv_dtype="int4_per_token_head")
    cell = next(iter(only(LLAMA, H200, load=load)))
    bound = build_bound(LLAMA, H200, gpus=1, weights_format="bf16", kv_dtype_bytes=2)
    cache = 8 * 32 * 32_767 * 8 * (64 + 64 + 8)
    assert cell.asked is not None
    assert cell.asked.ceiling_tokens_per_s == pytest.approx(
        8 * bound.bytes_per_s / (bound.dense_read_bytes + cache), rel=1e-9
    )


def test_a_ceiling_is_unknown_where_a_bound_would_have_to_guess() -> None:
    cell = next(iter(only(candidate(LLAMA_8B), H100)))
    assert cell.asked is not None
    assert (cell.asked.ceiling_tokens_per_s, cell.asked.expected_tokens_per_s > 0) == (None, True)
    assert cell.ceiling_reason == "The ceiling cannot be computed: unknown vocab, active_params, moe."
    odd = replace(LLAMA, weights=replace(LLAMA.weights, dtype="odd", size_bytes=17 * GIB))
    assert next(iter(only(odd, H100))).ceiling_reason == "The ceiling cannot be computed: unknown weights.dtype."
    assert next(iter(only(LLAMA, H100))).ceiling_reason is None


def test_speed_of_a_mixture_counts_the_experts_that_a_batch_touches() -> None:
    moe = MoeShape(experts=64, experts_per_token=4)
    model = candidate(replace(DENSE, active_params=2_000_000_000, moe=moe))
    cell = next(iter(only(model, H100)))
    bound = build_bound(model, H100, gpus=1, weights_format="bf16", kv_dtype_bytes=2)
    assert cell.asked is not None
    assert cell.asked.ceiling_tokens_per_s == pytest.approx(pace_of(bound), rel=1e-9)


def test_full_load_is_what_memory_holds_and_the_engine_takes() -> None:
    held = next(iter(only(LLAMA, H100)))
    assert held.full is not None
    assert held.full.requests == held.estimate.max_concurrency
    short = next(iter(only(LLAMA, H200, load=MatrixLoad(context=16))))
    assert short.full is not None
    assert short.full.requests == most_sequences(H200) == 1024
    assert most_sequences(L4) == 256


def test_cost_is_the_range_over_the_listed_prices() -> None:
    device = replace(H100, prices=(price("3"), price("1.5"), price("6")))
    cell = next(iter(only(LLAMA, device)))
    assert cell.asked is not None
    cost = cell.asked.cost_per_mtok
    assert cost is not None
    rate = cell.asked.expected_tokens_per_s
    assert (cost.low, cost.high) == (cost_per_mtok(Decimal("1.5"), 1, rate), cost_per_mtok(Decimal(6), 1, rate))
    assert cost.currency == "USD"
    assert cell.cost_reason is None


@pytest.mark.parametrize(
    ("prices", "words"), [((), "no hourly price"), ((price("3"), price("4000", "KRW")), "KRW and USD")]
)
def test_no_cost_without_prices_in_one_currency(prices: tuple[GpuPrice, ...], words: str) -> None:
    cell = next(iter(only(LLAMA, replace(H100, prices=prices))))
    assert cell.asked is not None
    assert cell.asked.cost_per_mtok is None
    assert words in (cell.cost_reason or "")


def test_several_gpus_share_the_work_and_cost_as_many() -> None:
    device = replace(H100, prices=(price("3"),))
    one = next(iter(only(EXAONE, device))).asked
    four = next(iter(only(EXAONE, device, load=replace(LOAD, gpus=4))))
    assert one is not None
    assert four.asked is not None
    assert four.estimate.gpus == 4
    assert four.asked.expected_tokens_per_s == pytest.approx(4 * one.expected_tokens_per_s)
    assert one.cost_per_mtok is not None
    assert four.asked.cost_per_mtok is not None
    assert float(four.asked.cost_per_mtok.low) == pytest.approx(float(one.cost_per_mtok.low))


def test_a_smaller_cache_holds_more_and_reads_faster() -> None:
    whole, half = (next(iter(only(LLAMA, H100, load=replace(LOAD, kv_dtype=name)))) for name in ("auto", "fp8"))
    assert (half.estimate.max_concurrency or 0) >= 2 * (whole.estimate.max_concurrency or 0)
    assert whole.full is not None
    assert half.full is not None
    assert whole.full.ceiling_tokens_per_s is not None
    assert half.full.ceiling_tokens_per_s is not None
    assert half.full.ceiling_tokens_per_s > 1.5 * whole.full.ceiling_tokens_per_s


def test_a_measured_overhead_stands_in_the_place_of_the_guess_on_its_gpu_alone() -> None:
    measured = ByteRange(GIB, 2 * GIB, 3 * GIB)
    matrix = build_matrix([LLAMA], [H100, L4], [PUBLISHED, "fp8"], LOAD, measured_overheads={H100.id: measured})
    plain = build_matrix([LLAMA], [H100, L4], [PUBLISHED, "fp8"], LOAD)
    for cell in matrix:
        is_measured = cell.gpu_id == H100.id
        assert cell.estimate.overhead_is_measured == is_measured
        assert any("The overhead was measured" in said for said in cell.estimate.reasons) == is_measured
        assert (cell.estimate.overhead_bytes == measured) == is_measured
        assert is_measured or cell == plain.cells[cell.key]


def test_a_measured_overhead_needs_no_width() -> None:
    narrow = candidate(replace(DENSE, hidden=None, heads=None))
    measured = {H100.id: ByteRange(GIB, 2 * GIB, 3 * GIB)}
    unknown = next(iter(only(narrow, H100))).unknown
    assert unknown is not None
    assert next(iter(build_matrix([narrow], [H100], [PUBLISHED], LOAD, measured_overheads=measured))).unknown is None


# --- number formats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "on_a100", "on_h100"),
    [
        ("bf16", Units.NATIVE, Units.NATIVE),
        ("fp8", Units.WEIGHT_ONLY, Units.NATIVE),
        ("int8", Units.UNLISTED, Units.UNLISTED),
        ("int4", Units.WEIGHT_ONLY, Units.WEIGHT_ONLY),
        ("awq", Units.WEIGHT_ONLY, Units.WEIGHT_ONLY),
        ("nvfp4", Units.WEIGHT_ONLY, Units.UNLISTED),
        ("mxfp4", Units.WEIGHT_ONLY, Units.UNLISTED),
    ],
)
def test_units_of_a_format_are_told_by_what_the_registry_lists(name: str, on_a100: Units, on_h100: Units) -> None:
    assert units_of(name, replace(H100, fp8_flops=None)) is on_a100
    assert units_of(name, H100) is on_h100


def test_a_gpu_of_unknown_speed_is_not_said_to_lack_units() -> None:
    assert units_of("fp8", replace(H100, bf16_flops=None, fp8_flops=None)) is Units.UNLISTED


def test_the_published_format_asked_for_by_name_is_the_checkpoint_itself() -> None:
    model = candidate(LLAMA_8B, size_bytes=17 * GIB)
    assert model_in(model, "bf16") is model
    assert next(iter(only(model, H100, "bf16"))).estimate.weights_bytes == 17 * GIB


def test_an_unlisted_unit_never_lowers_a_ceiling() -> None:
    load = MatrixLoad(context=128, concurrency=512)
    for name in ("int8", "nvfp4", "mxfp4"):
        cell = next(iter(only(LLAMA, H100, name, load)))
        plain = next(iter(only(LLAMA, H100, "bf16", load)))
        assert cell.asked is not None
        assert plain.asked is not None
        assert plain.asked.ceiling_tokens_per_s is not None
        assert (cell.asked.ceiling_tokens_per_s or 0) >= plain.asked.ceiling_tokens_per_s


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantisations": ["fp9"]}, "quantisation: expected published, bf16, .* got 'fp9'"),
        ({"load": MatrixLoad(0)}, "context: expected at least 1 token"),
        ({"load": MatrixLoad(1, 0)}, "concurrency: expected at least 1"),
        ({"load": MatrixLoad(1, 1, gpus=0)}, "tensor_parallel: expected at least 1"),
        ({"load": MatrixLoad(1, kv_dtype="fp3")}, "kv_dtype: expected .* got 'fp3'"),
    ],
)
def test_what_cannot_be_asked_is_refused(change: dict[str, object], words: str) -> None:
    asked: dict[str, object] = {"models": [LLAMA], "gpus": [H100], "quantisations": [PUBLISHED], "load": LOAD}
    with pytest.raises(ValueError, match=words):
        build_matrix(**{**asked, **change})  # type: ignore[arg-type]


# --- what is unknown ----------------------------------------------------------------------------------------


def test_unknown_and_only_unknown_has_a_gap_with_its_sentence(shipped: Matrix) -> None:
    assert {cell.estimate.verdict is Verdict.UNKNOWN for cell in shipped} == {True, False}
    for cell in shipped:
        assert (cell.unknown is not None) == (cell.estimate.verdict is Verdict.UNKNOWN), cell.key
        if cell.unknown is not None:
            assert cell.unknown.sentence == cell.estimate.reasons[0]
            assert bool(cell.unknown.facts) == (cell.unknown.gap is Gap.FACTS)


def test_no_speed_and_no_cost_without_a_reason(shipped: Matrix) -> None:
    for cell in shipped:
        assert (cell.asked is None) == (cell.speed_reason is not None) == (cell.full is None), cell.key
        has_cost = cell.asked is not None and cell.asked.cost_per_mtok is not None
        assert has_cost == (cell.cost_reason is None), cell.key
        has_ceiling = cell.asked is None or cell.asked.ceiling_tokens_per_s is not None
        assert has_ceiling == (cell.ceiling_reason is None), cell.key


@pytest.mark.parametrize(
    ("model", "load", "gap", "facts"),
    [
        (BARE, LOAD, Gap.NO_SHAPE, ()),
        (candidate(replace(LLAMA_8B, kv_heads=None)), LOAD, Gap.FACTS, ("kv_heads",)),
        (candidate(replace(LLAMA_8B, params=None)), LOAD, Gap.FACTS, ("params",)),
        (candidate(replace(LLAMA_8B, kv_heads=7)), LOAD, Gap.CONTRADICTORY, ()),
        (LLAMA, replace(LOAD, gpus=3), Gap.PLAN, ()),
        (LLAMA, replace(LOAD, kv_dtype="fp8_ds_mla"), Gap.PLAN, ()),
    ],
)
def test_gap_is_named(model: Model, load: MatrixLoad, gap: Gap, facts: tuple[str, ...]) -> None:
    unknown = next(iter(only(model, H100, load=load))).unknown
    assert unknown is not None
    assert (unknown.gap, unknown.facts) == (gap, facts)


def test_a_gpu_without_a_speed_has_a_verdict_and_no_speed() -> None:
    cell = next(iter(only(LLAMA, replace(H100, bf16_flops=None, fp8_flops=None))))
    assert cell.estimate.verdict is Verdict.FITS
    assert (cell.asked, cell.full, cell.speed_facts) == (None, None, ("h100.bf16_flops",))


def test_what_does_not_fit_has_no_speed() -> None:
    cell = next(iter(only(EXAONE, L4)))
    assert cell.asked is None
    assert "does not fit" in (cell.speed_reason or "")


# --- properties ---------------------------------------------------------------------------------------------


def shapes() -> st.SearchStrategy[Model]:
    return st.builds(
        lambda layers, kv_heads, group, params: candidate(
            replace(
                DENSE, layers=layers, kv_heads=kv_heads, heads=kv_heads * group, params=params, active_params=params
            )
        ),
        st.integers(1, 96),
        st.sampled_from((1, 2, 4, 8)),
        st.sampled_from((1, 4, 8)),
        st.integers(10**9, 2 * 10**11),
    )


@settings(max_examples=60, deadline=None)
@given(shapes(), st.integers(20, 150), st.integers(0, 60), st.integers(1, 65_536), st.integers(1, 64))
def test_more_memory_never_worsens_a_verdict(model: Model, size: int, more: int, context: int, requests: int) -> None:
    load = MatrixLoad(context, requests)
    devices = [gpu("small", size * 10**9), gpu("large", (size + more) * 10**9)]
    # The default batch grows with the memory, and with it the overhead: the same one is compared.
    if most_sequences(devices[0]) != most_sequences(devices[1]):
        return
    if (devices[0].memory_bytes >= 160 * GIB) != (devices[1].memory_bytes >= 160 * GIB):
        return
    matrix = build_matrix([model], devices, DEFAULT_QUANTISATIONS, load)
    for name in DEFAULT_QUANTISATIONS:
        small, large = (matrix.cell(model, device, name).estimate for device in devices)
        assert ORDER.index(large.verdict) >= ORDER.index(small.verdict)
        assert (large.max_concurrency or 0) >= (small.max_concurrency or 0)


@settings(max_examples=60, deadline=None)
@given(shapes(), st.integers(1, 60_000), st.integers(0, 60_000))
def test_longer_contexts_leave_room_for_fewer_requests(model: Model, context: int, more: int) -> None:
    held = [
        next(iter(only(model, H200, load=MatrixLoad(length)))).estimate.max_concurrency or 0
        for length in (context, context + more)
    ]
    assert held[1] <= held[0]


@settings(max_examples=60, deadline=None)
@given(shapes(), st.sampled_from(QUANTISATIONS), st.integers(1, 32_768), st.integers(1, 64))
def test_an_expectation_never_beats_its_ceiling(model: Model, name: str, context: int, requests: int) -> None:
    cell = next(iter(only(model, H200, name, MatrixLoad(context, requests))))
    for found in _decodings(cell.asked, cell.full):
        assert found.ceiling_tokens_per_s is not None
        assert 0 < found.expected_tokens_per_s <= found.ceiling_tokens_per_s
        assert found.requests >= 1


def _decodings(*found: Decoding | None) -> Iterator[Decoding]:
    return (one for one in found if one is not None)
