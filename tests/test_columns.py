"""Predicted, resolved and observed on paper: what each figure is, why they differ, what settles and what teaches."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_models import H100, LLAMA_8B, WINDOWED, model_of

from gateway.calibration_file import CalibrationBook, CalibrationInvalid, load_calibration
from gateway.domain.calibration import OverheadObservation, calibrate, observe_overhead, with_observation
from gateway.domain.columns import Cell, ColumnRow, compare_columns
from gateway.domain.engine_facts import ObservedLoad, ResolvedEngine
from gateway.domain.engine_model import resolve_limits
from gateway.domain.kv_groups import Paging
from gateway.domain.memory import GIB, ByteRange, kv_layout, weights_bytes
from gateway.domain.predicted_column import Predicted, overhead_of, predict
from gateway.domain.records import LinearShape, Model, ModelShape, Provenance
from gateway.domain.settled_fit import settle_fit

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TODAY = date(2026, 3, 1)
LLAMA = model_of(LLAMA_8B)
CALM = ObservedLoad(100, NOON, NOON, peak_running=3, peak_waiting=0, peak_kv_usage=0.1, preemptions=0)
FULL = replace(CALM, peak_running=256, peak_waiting=40, peak_kv_usage=0.99, preemptions=7, looks_waiting=60)


def engine_with(model: Model, overhead: int, *, context: int = 8192, utilization: float = 0.92) -> ResolvedEngine:
    """What vLLM would resolve on an H100 if everything but weights and cache took `overhead`."""
    assert model.shape is not None
    layout, weights = kv_layout(model.shape), weights_bytes(model)
    assert layout is not None
    assert weights is not None
    paging = Paging(16, 8192, 2)
    blocks = layout.blocks_in(int(H100.memory_bytes * utilization) - weights - overhead, paging)
    concurrency = blocks / layout.blocks_per_request(context, paging)
    return ResolvedEngine(
        version="0.32.0",
        max_model_len=context,
        num_gpu_blocks=blocks,
        block_size=16,
        kv_cache_size_tokens=int(concurrency * context),
        kv_cache_max_concurrency=concurrency,
        gpu_memory_utilization=utilization,
        cache_dtype="auto",
        engines=1,
        labels=(("num_gpu_blocks", str(blocks)),),
    )


def rows(
    resolved: ResolvedEngine | None,
    *,
    model: Model = LLAMA,
    observed: ObservedLoad | None = CALM,
    provenance: Provenance = Provenance.REAL,
) -> dict[str, ColumnRow]:
    predicted = predict(model, H100, resolved)
    return {row.figure: row for row in compare_columns(predicted, resolved, observed, provenance=provenance)}


# --- predicted with the engine's own settings ---------------------------------------------------------------


@given(overhead=st.integers(GIB // 2, 20 * GIB), utilization=st.sampled_from([0.8, 0.9, 0.92, 0.95]))
@pytest.mark.parametrize("shape", [LLAMA_8B, WINDOWED], ids=["full", "windowed"])
def test_the_overhead_is_found_again_to_within_one_block(shape: ModelShape, overhead: int, utilization: float) -> None:
    model = model_of(shape)
    resolved = engine_with(model, overhead, utilization=utilization)
    predicted = predict(model, H100, resolved)
    found = overhead_of(predicted, resolved)
    assert isinstance(found, int)
    layout = kv_layout(shape)
    assert layout is not None
    assert 0 <= found - overhead < layout.block_bytes(Paging())
    assert predicted.resolved_kv_tokens == resolved.kv_cache_size_tokens


@pytest.mark.parametrize("shape", [LLAMA_8B, WINDOWED], ids=["full", "windowed"])
def test_what_a_simulated_engine_resolves_is_what_is_predicted_of_it(shape: ModelShape) -> None:
    model = model_of(shape)
    limits = resolve_limits(model, H100, max_model_len=8192)
    resolved = ResolvedEngine(
        max_model_len=8192, num_gpu_blocks=limits.num_gpu_blocks, block_size=16, gpu_memory_utilization=0.92, engines=1
    )
    predicted = predict(model, H100, resolved)
    assert predicted.blocks is not None
    assert predicted.blocks.likely == limits.num_gpu_blocks


@pytest.mark.parametrize(
    ("engine", "model", "words"),
    [
        (ResolvedEngine(max_model_len=64), replace(LLAMA, shape=None), "no shape"),
        (ResolvedEngine(max_model_len=64, cache_dtype="mystery"), LLAMA, "'mystery' is not known"),
        (ResolvedEngine(max_model_len=64), model_of(replace(LLAMA_8B, kv_heads=None)), "kv_heads"),
        (ResolvedEngine(max_model_len=64), model_of(replace(LLAMA_8B, linear=LinearShape(4))), "linear.state_bytes"),
        (ResolvedEngine(), model_of(replace(LLAMA_8B, context=None)), "context length is known"),
    ],
)
def test_what_cannot_be_predicted_is_unknown_and_says_why(engine: ResolvedEngine, model: Model, words: str) -> None:
    predicted = predict(model, H100, engine)
    assert (predicted.blocks, predicted.kv_tokens) == (None, None)
    assert words in (predicted.obstacle or "")
    row = rows(engine, model=model)["kv_tokens"]
    assert row.predicted.value is None
    assert words in row.predicted.reason


ENGINES = st.builds(
    ResolvedEngine,
    version=st.none() | st.just("0.32.0"),
    max_model_len=st.none() | st.integers(-1, 2**40),
    **{
        name: st.none() | st.integers(0, 2**50)
        for name in ("num_gpu_blocks", "kv_cache_size_tokens", "kv_cache_memory_bytes", "num_gpu_blocks_override")
    },
    block_size=st.none() | st.integers(0, 2**20),
    kv_cache_max_concurrency=st.none() | st.floats(0, 1e12),
    gpu_memory_utilization=st.none() | st.floats(0, 2),
    cache_dtype=st.none() | st.sampled_from(["auto", "fp8", "odd"]),
    engines=st.integers(0, 2),
)
LOADS = st.none() | st.builds(
    ObservedLoad,
    looks=st.integers(1, 9),
    first_look=st.just(NOON),
    last_look=st.just(NOON),
    peak_running=st.none() | st.integers(0, 99),
    preemptions=st.none() | st.integers(0, 9),
    restarts=st.integers(0, 2),
)


@given(
    engine=st.none() | ENGINES,
    load=LOADS,
    provenance=st.sampled_from(Provenance),
    shape=st.sampled_from([None, LLAMA_8B, WINDOWED, replace(LLAMA_8B, heads=None, hidden=None), ModelShape()]),
    gpu=st.sampled_from([None, H100]),
    args=st.sampled_from([(), ("--max-num-batched-tokens", "4096"), ("--max-num-batched-tokens",)]),
)
def test_every_null_of_every_column_has_its_reason_and_no_difference_is_of_an_unknown(
    engine: ResolvedEngine | None,
    load: ObservedLoad | None,
    provenance: Provenance,
    shape: object,
    gpu: object,
    args: tuple[str, ...],
) -> None:
    model = replace(LLAMA, shape=shape, serving=replace(LLAMA.serving, args=args))  # type: ignore[arg-type]
    predicted = predict(model, gpu, engine, gpus=2)  # type: ignore[arg-type]
    found = compare_columns(predicted, engine, load, provenance=provenance)
    assert len({row.figure for row in found}) == len(found) == 15
    for row in found:
        for cell in (row.predicted, row.resolved, row.observed):
            assert cell.reason.strip()
        both = all(isinstance(cell.value, int | float) for cell in (row.predicted, row.resolved))
        assert (row.difference is not None) == both
        assert row.reason.endswith("."), row
        assert "None" not in row.reason
    if provenance is not Provenance.REAL:
        assert next(row for row in found if row.figure == "overhead").resolved.value is None
        assert settle_fit(engine, load, provenance=provenance).fits is None


# --- differences and their reasons --------------------------------------------------------------------------


def test_a_difference_of_memory_alone_is_told_from_one_of_layout() -> None:
    resolved = engine_with(LLAMA, 6 * GIB)
    found = rows(resolved)
    assert found["kv_tokens"].difference == resolved.kv_cache_size_tokens - found["kv_tokens"].predicted.value  # type: ignore[operator]
    assert "the whole difference is that of the memory, where the overhead is a guess" in found["kv_tokens"].reason
    assert found["overhead"].resolved.value == pytest.approx(6.0, abs=0.01)
    assert found["overhead"].predicted.low == pytest.approx(1.7, abs=0.1)
    assert "within" in found["overhead"].reason or "outside" in found["overhead"].reason
    other = replace(resolved, kv_cache_size_tokens=12345)
    assert "the registry's shape or the tokens in flight" in rows(other)["kv_tokens"].reason


def test_other_settings_of_the_engine_are_named_and_reckoned_with() -> None:
    found = rows(replace(engine_with(LLAMA, 3 * GIB, utilization=0.85), block_size=32, cache_dtype="fp8"))
    assert "Another utilization: the engine takes 0.85" in found["gpu_memory_utilization"].reason
    assert found["gpu_memory_utilization"].difference == pytest.approx(-0.07)
    assert "Another block size: the engine has 32" in found["block_size"].reason
    assert "Another KV number format: the engine keeps it as fp8" in found["kv_dtype"].reason
    assert found["context"].resolved == Cell(8192, "As the engine says.")
    half = predict(LLAMA, H100, ResolvedEngine(max_model_len=8192, cache_dtype="fp8")).kv_tokens
    whole = predict(LLAMA, H100, ResolvedEngine(max_model_len=8192)).kv_tokens
    assert half is not None
    assert whole is not None
    assert half.likely == pytest.approx(2 * whole.likely, rel=1e-3)


def test_memory_that_was_given_tells_nothing_of_the_overhead() -> None:
    resolved = replace(engine_with(LLAMA, 3 * GIB), kv_cache_memory_bytes=64 * 2**20)
    found = rows(resolved, provenance=Provenance.STAND_IN)
    assert "--kv-cache-memory-bytes" in found["kv_budget"].reason
    assert "stand-in's weights are not the model's" in found["kv_budget"].reason
    assert found["overhead"].resolved.value is None
    assert "--kv-cache-memory-bytes" in rows(resolved)["overhead"].reason


def test_a_peak_is_a_limit_only_where_a_load_filled_the_engine() -> None:
    resolved = engine_with(LLAMA, 3 * GIB)
    calm, full, none = (rows(resolved, observed=load) for load in (CALM, FULL, None))
    assert "so the peak is no limit" in calm["peak_running"].reason
    assert calm["peak_running"].observed.value == 3
    assert full["peak_running"].observed.value == 256
    assert "a limit of this load" in full["peak_running"].reason
    assert "the KV cache ran out" in full["preemptions"].reason
    assert "waited in the engine at 60 of 100 looks" in full["peak_queue"].reason
    assert none["peak_running"].observed == Cell(None, "No look at the engine's metrics is known for this span.")
    unknown = rows(resolved, observed=replace(CALM, preemptions=None))["preemptions"].observed
    assert unknown.value is None
    assert "vllm:num_preemptions_total" in unknown.reason


def test_only_real_weights_under_a_load_that_filled_the_engine_settle_that_it_fits() -> None:
    resolved = engine_with(LLAMA, 3 * GIB)
    for provenance in Provenance:
        for load in (None, CALM, FULL):
            fits = settle_fit(resolved, load, provenance=provenance).fits
            assert fits is (True if provenance is Provenance.REAL and load is FULL else None)
    assert settle_fit(None, FULL, provenance=Provenance.REAL).fits is None
    died = settle_fit(resolved, replace(FULL, restarts=1), provenance=Provenance.REAL)
    assert (died.fits, "began anew 1 times" in died.reason) == (None, True)


# --- calibration --------------------------------------------------------------------------------------------


def observation(size: int, *, source: str = "r1", provenance: Provenance = Provenance.REAL) -> OverheadObservation:
    guess = ByteRange(GIB, 2 * GIB, 4 * GIB)
    return OverheadObservation(
        "h100-sxm",
        "m",
        size,
        70 * GIB,
        16 * GIB,
        70 * GIB - 16 * GIB - size,
        guess,
        provenance,
        "0.32.0",
        TODAY,
        source,
    )


def learnt_from(resolved: ResolvedEngine, **changes: object) -> OverheadObservation | str:
    facts = {"provenance": Provenance.REAL, "gpus": 1, "on": TODAY, "source": "r1"} | changes
    gpu = facts.pop("gpu", H100)
    return observe_overhead("m", gpu, predict(LLAMA, H100, resolved), resolved, **facts)  # type: ignore[arg-type]


def test_a_real_engine_teaches_its_overhead_and_every_other_one_says_why_not() -> None:
    resolved = engine_with(LLAMA, 3 * GIB)
    found = learnt_from(resolved)
    assert isinstance(found, OverheadObservation)
    assert found.overhead_bytes == pytest.approx(3 * GIB, abs=2**22)
    assert found.requested_bytes - found.weights_bytes - found.kv_bytes == found.overhead_bytes
    for changes, words in (
        ({"provenance": Provenance.STAND_IN}, "stand_in"),
        ({"provenance": Provenance.SIMULATED}, "simulated"),
        ({"provenance": Provenance.UNKNOWN}, "unknown"),
        ({"gpu": None}, "on which GPU"),
        ({"gpus": 2}, "2 GPUs"),
    ):
        why = learnt_from(resolved, **changes)
        assert isinstance(why, str)
        assert words in why
    for engine, words in (
        (replace(resolved, kv_cache_memory_bytes=5), "--kv-cache-memory-bytes"),
        (replace(resolved, block_size=128, labels=(("user_specified_block_size", "False"),)), "on a CPU"),
        (replace(resolved, num_gpu_blocks_override=5), "--num-gpu-blocks-override"),
        (replace(resolved, num_gpu_blocks=None), "KV cache"),
        (replace(resolved, num_gpu_blocks=10**9), "take more than"),
        (replace(resolved, gpu_memory_utilization=None), "share of it"),
    ):
        why = learnt_from(engine)
        assert isinstance(why, str)
        assert words in why


@given(st.lists(st.integers(1, 50 * GIB), min_size=1, max_size=9))
def test_the_calibrated_overhead_is_the_median_between_the_lowest_and_the_highest(sizes: list[int]) -> None:
    seen = [observation(size, source=str(number)) for number, size in enumerate(sizes)]
    others = [observation(60 * GIB, source="s", provenance=p) for p in Provenance if p is not Provenance.REAL]
    found = calibrate([*seen, *others])["h100-sxm"]
    middle = sorted(sizes)[len(sizes) // 2]
    assert found.overhead.low == min(sizes) <= found.overhead.likely <= max(sizes) == found.overhead.high
    assert len(sizes) % 2 == 0 or found.overhead.likely == middle
    assert (found.n, found.versions, found.first, found.last) == (len(sizes), ("0.32.0",), TODAY, TODAY)
    assert calibrate(others) == {}


def test_the_same_engine_seen_again_counts_once() -> None:
    twice = with_observation(with_observation((), observation(1)), observation(2))
    assert [each.overhead_bytes for each in twice] == [2]
    assert len(with_observation(twice, observation(1, source="r2"))) == 2


def test_what_is_learnt_is_in_the_file_for_the_next_one_and_another_process_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "calibration.json"
    one, other = CalibrationBook(path), CalibrationBook(path)
    assert (one.problem, one.calibrated_overhead("h100-sxm")) == (None, None)
    assert one.teaches(observation(3 * GIB))
    one.learn(observation(3 * GIB))
    assert not one.teaches(observation(3 * GIB))
    other.learn(observation(5 * GIB, source="r2"))
    fresh = CalibrationBook(path)
    assert fresh.calibrated_overhead("h100-sxm") == ByteRange(3 * GIB, 4 * GIB, 5 * GIB)
    assert fresh.calibrated_overhead("a100") is None
    assert load_calibration(path) == (observation(3 * GIB), observation(5 * GIB, source="r2"))
    assert [each.name for each in path.parent.iterdir()] == ["calibration.json"]
    assert json.loads(path.read_bytes())["unit"] == "bytes"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"format": 2, "unit": "bytes", "observations": []}',
        b'{"format": 1, "unit": "bytes", "observations": [{"gpu": "a"}]}',
        b'{"format": 1, "unit": "bytes", "observations": [], "more": 1}',
    ],
)
def test_a_broken_calibration_is_refused_in_a_sentence_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    book = CalibrationBook(path)
    assert book.problem is not None
    assert str(path) in book.problem
    assert "mend it" in book.problem
    assert book.calibrated_overhead("h100-sxm") is None
    with pytest.raises(CalibrationInvalid):
        book.learn(observation(1))
    assert path.read_bytes() == content


def test_an_overhead_that_is_no_part_of_what_was_asked_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    CalibrationBook(path).learn(observation(GIB))
    path.write_bytes(path.read_bytes().replace(str(GIB).encode(), b"-5", 1))
    with pytest.raises(CalibrationInvalid, match=r"observations\[0\].overhead_bytes"):
        load_calibration(path)


def test_an_empty_prediction_has_nothing_to_compare() -> None:
    found = compare_columns(Predicted(), None, None, provenance=Provenance.UNKNOWN)
    assert all(row.resolved.value is None and row.difference is None for row in found)
