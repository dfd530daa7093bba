"""Ceilings that no engine exceeds, expectations beside them, and the derivations: known answers and properties."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_models import H100, LLAMA_8B, MIXTURE, SOURCED, TINY, WINDOWED, model_of

from gateway.domain.ceiling_lines import derive
from gateway.domain.ceilings import Ceilings, Setup, Speed, compute_ceilings
from gateway.domain.engine_model import EngineLimits, Scheduler
from gateway.domain.pace import MOST_AT_ONCE, Load
from gateway.domain.records import GpuPrice, LinearShape, MlaShape, ModelShape, VisionShape
from gateway.domain.roofline import PEAK, build_bound, build_roofline, flops_at_best

EMBEDDING = 128_256 * 4096
SHAPES = [LLAMA_8B, MIXTURE, WINDOWED, TINY]
A_DAY = date(2026, 11, 23)


def found(shape: ModelShape, load: Load, *, gpus: int = 1, weights: str = "bf16", kv: int = 2) -> Ceilings:
    return compute_ceilings(model_of(shape), Setup(H100, gpus, weights, {1: "fp8", 2: "auto"}[kv]), load)


def ceiling(shape: ModelShape, load: Load, *, gpus: int = 1, weights: str = "bf16", kv: int = 2) -> Speed:
    result = found(shape, load, gpus=gpus, weights=weights, kv=kv)
    assert result.ceiling is not None, result.why_no_ceiling
    return result.ceiling


# --- known answers ------------------------------------------------------------------------------------------


def test_a_decode_step_reads_the_weights_once_and_each_cache():
    got = ceiling(LLAMA_8B, Load(1000, 100, 8))
    read = 2 * (8_030_261_248 - EMBEDDING) + 8 * 1000 * 131_072
    assert got.tpot_s == pytest.approx(read / 3.35e12)
    assert got.tokens_per_s_per_user == pytest.approx(3.35e12 / read)


def test_a_prompt_is_bound_by_its_operations():
    got = ceiling(LLAMA_8B, Load(8192, 100))
    flops = 2 * (8_030_261_248 - 2 * EMBEDDING) * 8192 + 2 * 32 * 4096 * 8192**2 + 2 * EMBEDDING
    assert got.ttft_s == pytest.approx(flops / 989e12)


def test_cached_tokens_are_read_and_not_computed():
    whole, cached = ceiling(LLAMA_8B, Load(8192, 100)), ceiling(LLAMA_8B, Load(8192, 100, cached_tokens=8000))
    read = 2 * (8_030_261_248 - EMBEDDING) + 8000 * 131_072
    assert cached.ttft_s == pytest.approx(read / 3.35e12)
    assert cached.ttft_s < whole.ttft_s


def test_two_gpus_are_twice_as_fast_at_best():
    one, two = ceiling(LLAMA_8B, Load(1000, 100)), ceiling(LLAMA_8B, Load(1000, 100), gpus=2)
    assert two.tpot_s == pytest.approx(one.tpot_s / 2)
    assert two.ttft_s == pytest.approx(one.ttft_s / 2)


def test_fewer_bits_are_read_and_multiplied_faster():
    load = Load(8192, 100)
    bf16, fp8, int4 = (ceiling(LLAMA_8B, load, weights=name, kv=1) for name in ("bf16", "fp8", "int4"))
    assert fp8.ttft_s == pytest.approx(bf16.ttft_s / 2)
    assert int4.ttft_s == pytest.approx(bf16.ttft_s / 4)
    assert int4.tpot_s < fp8.tpot_s < bf16.tpot_s


def test_a_gpu_without_8_bit_floats_may_still_have_8_bit_integers():
    a100 = replace(H100, fp8_flops=None, bf16_flops=312e12)
    assert [flops_at_best(a100, name) for name in ("bf16", "int8", "int4")] == [312e12, 624e12, 1248e12]
    assert flops_at_best(replace(H100, bf16_flops=None), "bf16") is None


def test_a_bound_reads_the_experts_of_one_token_as_all_may_choose_the_same():
    one, many = ceiling(MIXTURE, Load(100, 100, 1)), ceiling(MIXTURE, Load(100, 100, 64))
    assert one.tpot_s == pytest.approx((2 * (3_000_000_000 - EMBEDDING) + 100 * 131_072) / 3.35e12)
    expert = 27_000_000_000 / 120 * 2
    touched = 8
    dense = 2 * (30_000_000_000 - EMBEDDING) - 128 * expert
    assert many.tpot_s == pytest.approx((dense + touched * expert + 64 * 100 * 131_072) / 3.35e12)


def test_a_prefix_that_all_share_is_kept_and_read_once():
    load = Load(8192, 100, 64, cached_tokens=8000)
    got = ceiling(LLAMA_8B, load)
    read = 2 * (8_030_261_248 - EMBEDDING) + (8000 + 64 * 192) * 131_072
    assert got.tpot_s == pytest.approx(read / 3.35e12)
    assert ceiling(LLAMA_8B, replace(load, batch=1000)).at_once == 1000
    assert ceiling(LLAMA_8B, replace(load, batch=1000, cached_tokens=0)).at_once < 100


def test_speculation_saves_reading_and_no_operations():
    plain, three = ceiling(LLAMA_8B, Load(1000, 100)), ceiling(LLAMA_8B, Load(1000, 100, accepted_length=3))
    assert three.tpot_s == pytest.approx(plain.tpot_s / 3)
    crowded = Load(1, 100, 4096)
    assert ceiling(LLAMA_8B, crowded).tpot_s == pytest.approx(
        ceiling(LLAMA_8B, replace(crowded, accepted_length=100)).tpot_s
    )


def test_expected_rate_is_that_of_the_formula():
    got = found(LLAMA_8B, Load(1000, 101, 8)).expected
    assert got is not None
    assert got.output_tokens_per_s == pytest.approx(8 * 101 / (8 * got.ttft_s + got.tpot_s * 100))
    assert got.e2e_s == pytest.approx(got.ttft_s + 100 * got.tpot_s)


def test_beyond_the_best_concurrency_the_rate_gains_a_hundredth_at_most():
    got = ceiling(LLAMA_8B, Load(1000, 500, 1))
    at_best = ceiling(LLAMA_8B, Load(1000, 500, got.best_concurrency)).output_tokens_per_s
    before = ceiling(LLAMA_8B, Load(1000, 500, got.best_concurrency - 1)).output_tokens_per_s
    most = ceiling(LLAMA_8B, Load(1000, 500, got.most_at_once)).output_tokens_per_s
    assert at_best == pytest.approx(got.best_output_tokens_per_s)
    assert before < 0.99 * most <= at_best


def test_a_batch_beyond_the_cache_is_cut_to_what_it_holds():
    got = ceiling(LLAMA_8B, Load(100_000, 100, 1000))
    assert got.at_once == got.most_at_once < 10
    assert "KV cache is full" in ceiling(LLAMA_8B, Load(100_000, 5000)).limit


def test_cost_is_a_range_over_the_listed_prices_of_one_currency():
    prices = [("1.99", "USD"), ("5.00", "USD"), ("1", "KRW")]
    listed = tuple(GpuPrice(Decimal(p), c, "on_demand", "lists", A_DAY, SOURCED) for p, c in prices)
    result = compute_ceilings(model_of(LLAMA_8B), Setup(replace(H100, prices=listed), 2, "bf16"), Load(1000, 500, 8))
    assert result.ceiling is not None
    assert result.ceiling.cost is not None
    cost, rate = result.ceiling.cost, Decimal(str(result.ceiling.output_tokens_per_s))
    assert (cost.currency, cost.prices) == ("USD", 2)
    assert cost.low == pytest.approx(Decimal("1.99") * 2 * 1_000_000 / (rate * 3600))
    assert cost.high == pytest.approx(Decimal("5.00") * 2 * 1_000_000 / (rate * 3600))
    assert ceiling(LLAMA_8B, Load(1, 1)).cost is None


# --- what is not known --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "missing"),
    [
        (replace(LLAMA_8B, hidden=None), "hidden"),
        (replace(LLAMA_8B, vocab=None), "vocab"),
        (replace(LLAMA_8B, layers=None), "layers"),
        (replace(LLAMA_8B, vision=VisionShape()), "vision.params"),
        (replace(LLAMA_8B, active_params=3_000_000_000), "moe"),
        (replace(MIXTURE, active_params=None), "active_params"),
    ],
)
def test_a_bound_guesses_nothing(shape: ModelShape, missing: str):
    result = found(shape, Load(100, 100))
    assert result.ceiling is None
    assert result.has_room
    assert result.why_no_ceiling is not None
    assert missing in result.why_no_ceiling


def test_a_model_without_a_shape_has_no_figure_and_two_reasons():
    result = compute_ceilings(model_of(None), Setup(H100, 1, "bf16"), Load(1, 1))
    assert (result.ceiling, result.expected) == (None, None)
    assert "unknown shape" in (result.why_no_ceiling or "")
    assert "unknown shape" in (result.why_not_expected or "")


def test_what_cannot_be_in_memory_has_no_room_rather_than_a_missing_fact():
    result = found(replace(LLAMA_8B, params=519_000_000_000, active_params=519_000_000_000), Load(1000, 100))
    assert result.ceiling is None
    assert not result.has_room
    assert "leaves no room" in (result.why_no_ceiling or "")


def test_an_image_encoder_is_not_read_for_text():
    seeing = replace(LLAMA_8B, vision=VisionShape(params=1_000_000_000))
    seen, text = ceiling(seeing, Load(100, 100)), ceiling(LLAMA_8B, Load(100, 100))
    assert seen.tpot_s == pytest.approx(text.tpot_s - 2e9 / 3.35e12)


def test_what_is_not_read_for_certain_is_not_counted():
    sparse = replace(LLAMA_8B, mla=MlaShape(512, 64, index_head_dim=128))
    chunked = replace(LLAMA_8B, attention_chunk=8192, global_layers=8)
    linear = replace(LLAMA_8B, linear=LinearShape(24, state_bytes=1000), global_layers=8)
    weights = 2 * (8_030_261_248 - EMBEDDING) / 3.35e12
    assert ceiling(sparse, Load(10_000, 100)).tpot_s == pytest.approx(weights)
    for shape, states in ((chunked, 0), (linear, 24_000)):
        bound = build_bound(model_of(shape), H100, gpus=1, weights_format="bf16", kv_dtype_bytes=2)
        assert bound.cache.read_bytes(10_000) == 8 * 10_000 * 4096 + states


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Load(0, 1),
        lambda: Load(1, 0),
        lambda: Load(1, 1, 0),
        lambda: Load(10, 1, cached_tokens=10),
        lambda: Load(1, 1, accepted_length=0.5),
        lambda: Load(1, 1, accepted_length=float("nan")),
        lambda: Setup(H100, 0, "bf16"),
        lambda: Setup(H100, 1, "mystery"),
        lambda: Setup(H100, 1, "bf16", "mystery"),
    ],
)
def test_senseless_questions_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        wrong()


# --- properties ---------------------------------------------------------------------------------------------

LOADS = st.builds(Load, st.integers(1, 20_000), st.integers(1, 2000), st.integers(1, 512))
LARGER = st.sampled_from(["input_tokens", "output_tokens", "batch"])


@given(st.sampled_from(SHAPES), LOADS, st.integers(1, 5000))
@settings(max_examples=150, deadline=None)
def test_more_context_never_makes_a_ceiling_higher(shape: ModelShape, load: Load, more: int):
    less, longer = ceiling(shape, load), ceiling(shape, replace(load, input_tokens=load.input_tokens + more))
    assert longer.ttft_s >= less.ttft_s
    assert longer.e2e_s >= less.e2e_s
    assert longer.most_at_once <= less.most_at_once
    assert longer.output_tokens_per_s <= less.output_tokens_per_s * (1 + 1e-9)
    if longer.at_once == less.at_once:
        assert longer.tpot_s >= less.tpot_s


@given(st.sampled_from(SHAPES), LOADS, st.integers(1, 512))
@settings(max_examples=150, deadline=None)
def test_a_larger_batch_never_has_a_shorter_step_or_a_lower_rate(shape: ModelShape, load: Load, more: int):
    small, large = ceiling(shape, load), ceiling(shape, replace(load, batch=load.batch + more))
    assert large.tpot_s >= small.tpot_s
    assert large.output_tokens_per_s >= small.output_tokens_per_s * (1 - 1e-9)
    assert large.best_concurrency == small.best_concurrency


@given(st.sampled_from(SHAPES), LOADS)
@settings(max_examples=100, deadline=None)
def test_fewer_bytes_are_never_slower(shape: ModelShape, load: Load):
    by_bytes = [
        ceiling(shape, load, weights=name, kv=kv) for name, kv in (("int4", 1), ("fp8", 1), ("fp8", 2), ("bf16", 2))
    ]
    rates = [one.output_tokens_per_s for one in by_bytes]
    times = [one.tpot_s if one.at_once == load.batch else None for one in by_bytes]
    assert rates == sorted(rates, reverse=True)
    known = [time for time in times if time is not None]
    assert known == sorted(known)


@given(st.sampled_from(SHAPES), LOADS, st.sampled_from(["bf16", "fp8", "int4"]), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_the_expectation_never_beats_the_ceiling(shape: ModelShape, load: Load, weights: str, gpus: int):
    result = found(shape, load, gpus=gpus, weights=weights)
    if result.expected is None or result.ceiling is None:
        return
    assert result.expected.ttft_s >= result.ceiling.ttft_s
    assert result.expected.output_tokens_per_s <= result.ceiling.output_tokens_per_s
    assert result.expected.best_output_tokens_per_s <= result.ceiling.best_output_tokens_per_s * 1.011
    if result.expected.at_once == result.ceiling.at_once:
        assert result.expected.tpot_s >= result.ceiling.tpot_s


def simulate(shape: ModelShape, load: Load, requests: int) -> tuple[float, dict[str, tuple[float, float]]]:
    """A closed loop of `load.batch` on the simulated engine at the peak: seconds, and (TTFT, E2E) of each request."""
    limits = EngineLimits(num_gpu_blocks=1_000_000, max_model_len=50_000, max_num_batched_tokens=512, max_num_seqs=1024)
    engine = Scheduler(limits, build_roofline(model_of(shape), H100, efficiency=PEAK))
    waiting = deque(f"r{n}" for n in range(requests))
    now, began, first, got = 0.0, {}, {}, dict.fromkeys(waiting, 0)
    done: dict[str, tuple[float, float]] = {}
    while waiting or engine.has_work:
        while waiting and len(began) - len(done) < load.batch:
            name = waiting.popleft()
            engine.add(name, load.input_tokens)
            began[name] = now
        now += engine.begin_step().duration_s
        for name in engine.end_step():
            got[name] += 1
            first.setdefault(name, now)
            if got[name] == load.output_tokens:
                engine.finish(name)
                done[name] = (first[name] - began[name], now - began[name])
    return now, done


@given(
    st.sampled_from(SHAPES),
    st.builds(Load, st.integers(1, 3000), st.integers(1, 60), st.integers(1, 24)),
    st.integers(1, 40),
)
@settings(max_examples=80, deadline=None)
def test_the_simulated_engine_at_its_peak_is_never_faster_than_the_ceiling(
    shape: ModelShape, load: Load, requests: int
):
    bound = ceiling(shape, load)
    if bound.at_once < load.batch:
        return
    seconds, done = simulate(shape, load, requests)
    assert requests / seconds <= bound.requests_per_s * (1 + 1e-9)
    alone = ceiling(shape, replace(load, batch=1))
    for ttft_s, e2e_s in done.values():
        assert ttft_s >= bound.ttft_s * (1 - 1e-9)
        assert e2e_s >= bound.e2e_s * (1 - 1e-9)
        if load.output_tokens > 1:
            assert (e2e_s - ttft_s) / (load.output_tokens - 1) >= alone.tpot_s * (1 - 1e-9)


def test_a_crowd_that_takes_turns_is_served_faster_than_a_step_of_all_of_it():
    """Why a pace with many in flight is refuted by the step of one alone, and not by the step of all."""
    load = Load(6000, 2, 8)
    _, done = simulate(LLAMA_8B, load, 48)
    assert min(e2e_s - ttft_s for ttft_s, e2e_s in done.values()) < 0.95 * ceiling(LLAMA_8B, load).tpot_s


# --- derivations --------------------------------------------------------------------------------------------


def test_a_derivation_shows_formulas_numbers_results_and_sources():
    shape = replace(LLAMA_8B, facts={"params": SOURCED, "layers": SOURCED})
    text = "\n".join(derive(found(shape, Load(1000, 100, 8))))
    assert "params 8,030,261,248 (test, high)" in text
    assert "3.35 TB/s" in text
    assert "TPOT ≥ max((weights read + batch × cache) / bandwidth" in text
    assert f"{ceiling(LLAMA_8B, Load(1000, 100, 8)).tpot_s * 1000:.4g} ms" in text
    assert "Expected, at 0.8 × bandwidth and 0.5 × operations:" in text
    assert "Cost: unknown, the registry has no hourly price for h100-sxm." in text


def test_a_derivation_of_what_is_not_known_says_why():
    lines = derive(found(replace(LLAMA_8B, vocab=None), Load(1, 1)))
    assert any(line.startswith("Ceiling: None: ") and "vocab" in line for line in lines)


def test_no_cache_is_no_limit():
    sparse = replace(LLAMA_8B, mla=MlaShape(512, 64, index_head_dim=128))
    assert ceiling(sparse, Load(10, 10)).most_at_once == MOST_AT_ONCE
