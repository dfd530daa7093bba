"""The predicted one-GPU verdict: known models on known GPUs, what is refused, and what must be monotone."""

from __future__ import annotations

from dataclasses import replace
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.feasibility import Estimate, Verdict, estimate
from gateway.domain.memory import GIB, ByteRange
from gateway.domain.records import (
    Confidence,
    Gpu,
    LinearShape,
    MlaShape,
    Model,
    ModelShape,
    MoeShape,
    Serving,
    ServingKind,
    Sourced,
    Weights,
)
from gateway.domain.serving_plan import ServingPlan

MIB = 2**20
DATA_SHEET = Sourced("data sheet", Confidence.HIGH)
CARD = Sourced("card", Confidence.HIGH)
INFERRED = Sourced("inferred", Confidence.LOW)
SHAPE_FIELDS = ("params", "layers", "hidden", "heads", "kv_heads", "head_dim", "context")


def gpu(gpu_id: str, memory_bytes: int) -> Gpu:
    return Gpu(gpu_id, gpu_id.upper(), memory_bytes, 3.35e12, 989e12, 1978e12, 700, DATA_SHEET)


L4, H100, H200 = gpu("l4", 24 * 10**9), gpu("h100", 81_559 * MIB), gpu("h200", 143_771 * MIB)

LLAMA_8B = ModelShape(
    params=8_030_261_248,
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    context=131_072,
    facts=dict.fromkeys(SHAPE_FIELDS, CARD),
)
EXAONE_32B = ModelShape(
    params=32_003_200_000,
    layers=64,
    hidden=5120,
    heads=40,
    kv_heads=8,
    head_dim=128,
    vocab=102_400,
    context=131_072,
    sliding_window=4096,
    global_layers=16,
    facts=dict.fromkeys((*SHAPE_FIELDS, "sliding_window", "global_layers"), CARD),
)


def candidate(shape: ModelShape | None, *, size_bytes: int | None = None) -> Model:
    weights = Weights(repo="org/model", size_bytes=size_bytes, sourced=CARD)
    return Model("candidate", Serving(ServingKind.VLLM, "candidate"), weights=weights, shape=shape)


def said(result: Estimate) -> str:
    return "\n".join(result.reasons)


def test_llama_8b_fits_an_h100_with_its_whole_context() -> None:
    result = estimate(candidate(LLAMA_8B), H100, context=131_072)
    assert result.verdict is Verdict.FITS
    assert result.kv_bytes_per_request == 131_072 * 131_072 == result.kv_bytes_per_request_plain
    assert result.max_context_one_request == 131_072
    assert result.min_gpus == 1
    assert result.confidence is Confidence.HIGH


def test_figures_follow_vllms_budget() -> None:
    result = estimate(candidate(LLAMA_8B), H100, context=8192, concurrency=4)
    assert result.overhead_bytes is not None
    assert result.kv_available_bytes is not None
    assert result.headroom_bytes is not None
    assert result.weights_bytes == 16_060_522_496
    budget = -int(-H100.memory_bytes * 0.92 // 1) - 16_060_522_496
    assert result.kv_available_bytes.likely == budget - result.overhead_bytes.likely
    assert result.kv_available_bytes.low == budget - result.overhead_bytes.high
    block = 16 * 131_072
    assert result.headroom_bytes.likely == result.kv_available_bytes.likely - 4 * 2**30 - block, "one is vLLM's own"
    assert result.num_gpu_blocks == result.kv_available_bytes.likely // block
    assert result.max_concurrency == (result.num_gpu_blocks - 1) // 512
    assert result.kv_cache_max_concurrency == result.num_gpu_blocks / 512
    assert result.kv_tokens == int(result.num_gpu_blocks / 512 * 8192)
    assert result.inputs.paging.max_batched_tokens == 8192


def test_exaone_32b_is_tight_on_an_h100() -> None:
    one = estimate(candidate(EXAONE_32B), H100, context=32_768)
    assert one.verdict is Verdict.FITS
    assert one.kv_bytes_per_request == 5891 * MIB
    assert one.kv_bytes_per_request_plain == 65_536 * 32_768 + 48 * 4096 * 4096
    assert one.max_concurrency == 1
    assert "48 of 64 layers keep a window of 4,096 tokens" in said(one)


def test_quantised_weights_are_offered_where_they_make_the_difference() -> None:
    result = estimate(candidate(EXAONE_32B), H100, context=131_072)
    assert (result.verdict, result.quantised_to) == (Verdict.FITS_QUANTISED, "fp8")
    assert result.max_concurrency == 0
    assert result.min_gpus == 2
    assert "fp8 weights" in said(result)


def test_shorter_context_is_offered_where_nothing_else_helps() -> None:
    result = estimate(candidate(EXAONE_32B), H100, context=32_768, concurrency=16)
    assert result.verdict is Verdict.FITS_SHORT_CONTEXT
    assert "at most 2,624 tokens a request" in result.reasons[0]


def test_no_says_what_was_tried_and_how_many_gpus_it_takes() -> None:
    result = estimate(candidate(replace(LLAMA_8B, params=519_000_000_000)), H100, context=4096)
    assert result.verdict is Verdict.NO
    assert "fp8 or int4" in result.reasons[0]
    assert result.min_gpus == 16
    assert result.headroom_bytes is not None
    assert result.headroom_bytes.high < 0


def test_verdict_that_hangs_on_the_guess_says_so() -> None:
    needed = int(H100.memory_bytes * 0.92) - 2**30 - 2 * 8192 * 4096 * 11
    on_the_edge = candidate(LLAMA_8B, size_bytes=needed - 3 * GIB)
    result = estimate(on_the_edge, H100, context=8192)
    assert result.verdict is Verdict.FITS
    assert "the high guess, it would not fit" in said(result)
    below = candidate(LLAMA_8B, size_bytes=needed - 2 * GIB)
    result = estimate(below, H100, context=8192)
    assert result.verdict is Verdict.FITS_QUANTISED
    assert "the low guess, it would fit as published" in said(result)


def test_context_beyond_the_models_is_clamped_and_said() -> None:
    result = estimate(candidate(replace(LLAMA_8B, context=4096)), H100, context=131_072)
    assert (result.context, result.max_context_one_request) == (4096, 4096)
    assert "131,072 tokens were asked for" in said(result)


def test_missing_facts_are_named() -> None:
    unknown = replace(LLAMA_8B, kv_heads=None, params=None)
    result = estimate(candidate(unknown), H100, context=4096)
    assert result.verdict is Verdict.UNKNOWN
    assert "kv_heads" in said(result)
    assert "weights.size_bytes or params" in said(result)
    assert result.max_concurrency is None


def test_shapeless_model_is_unknown() -> None:
    result = estimate(candidate(None), H100, context=4096)
    assert result.verdict is Verdict.UNKNOWN
    assert "shape" in said(result)


@pytest.mark.parametrize("kind", [ServingKind.OPENAI_API, ServingKind.NONE])
def test_models_without_public_weights_are_unknown(kind: ServingKind) -> None:
    result = estimate(Model("hosted", Serving(kind, "hosted"), shape=LLAMA_8B), H100, context=4096)
    assert result.verdict is Verdict.UNKNOWN
    assert "no public weights" in said(result)


def test_lowest_confidence_is_carried_and_named() -> None:
    doubtful = replace(LLAMA_8B, facts={**LLAMA_8B.facts, "kv_heads": INFERRED})
    result = estimate(candidate(doubtful), H100, context=4096)
    assert result.confidence is Confidence.LOW
    assert "Low confidence or no source: kv_heads." in result.reasons


def test_fact_without_a_source_counts_as_low() -> None:
    assert estimate(candidate(replace(LLAMA_8B, facts={})), H100, context=4096).confidence is Confidence.LOW


def test_caveats_are_said() -> None:
    unservable = Serving(ServingKind.VLLM, "m", max_vllm="0.10.2", reason="vLLM removed it after 0.10.2.")
    model = replace(candidate(LLAMA_8B), serving=unservable, capabilities=frozenset({"vision"}))
    result = estimate(model, H100, context=4096)
    assert "By size only: no supported engine serves this model (vLLM removed it after 0.10.2)." in result.reasons
    assert not [reason for reason in result.reasons if "..)" in reason or ".)." in reason]
    assert "image encoder" in said(result)


def test_more_gpus_are_needed_in_powers_of_two_that_divide_the_heads() -> None:
    seven_heads = replace(LLAMA_8B, heads=28, kv_heads=4)
    assert estimate(candidate(seven_heads, size_bytes=60 * 10**9), L4, context=4096).min_gpus == 4
    assert estimate(candidate(seven_heads, size_bytes=600 * 10**9), L4, context=4096).min_gpus is None


@pytest.mark.parametrize(
    "question",
    [
        {"context": 0},
        {"context": 1, "concurrency": 0},
        {"context": 1, "plan": ServingPlan(gpu_memory_utilization=float("nan"))},
        {"context": 1, "plan": ServingPlan(tensor_parallel=0)},
        {"context": 1, "plan": ServingPlan(block=-16)},
        {"context": 1, "plan": ServingPlan(overhead_bytes=ByteRange(3, 2, 1))},
    ],
)
def test_senseless_questions_are_refused(question: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        estimate(candidate(LLAMA_8B), H100, **question)


SIZES = st.none() | st.integers(-5, 300_000) | st.integers(0, 2**62)
ANY_SHAPE = st.builds(
    ModelShape,
    params=SIZES,
    layers=SIZES,
    hidden=SIZES,
    heads=SIZES,
    kv_heads=SIZES,
    head_dim=SIZES,
    vocab=SIZES,
    tied_embeddings=st.none() | st.booleans(),
    context=SIZES,
    sliding_window=SIZES,
    global_layers=SIZES,
    mla=st.none() | st.builds(MlaShape, st.integers(-2, 1024), st.integers(-2, 128)),
    moe=st.none() | st.just(MoeShape(8, 2)),
)
ANY_MODEL = st.builds(
    lambda shape, kind, repo, dtype, size: Model(
        "any", Serving(kind, "any"), weights=Weights(repo, dtype=dtype, size_bytes=size), shape=shape
    ),
    st.none() | ANY_SHAPE,
    st.sampled_from(ServingKind),
    st.none() | st.just("org/model"),
    st.sampled_from(["bfloat16", "fp8", "int4", "mystery"]),
    SIZES,
)
RANK = {Verdict.NO: 0, Verdict.FITS_SHORT_CONTEXT: 1, Verdict.FITS_QUANTISED: 2, Verdict.FITS: 3}
SOUND_MODEL = st.builds(
    lambda params, layers, kv_heads, window, full, context: candidate(
        ModelShape(
            params=params,
            layers=layers,
            heads=32,
            kv_heads=kv_heads,
            head_dim=128,
            context=context,
            sliding_window=window,
            global_layers=layers if window is None else min(full, layers),
        )
    ),
    st.integers(10**8, 10**11),
    st.integers(1, 100),
    st.sampled_from([1, 2, 4, 8, 32]),
    st.none() | st.integers(1, 8192),
    st.integers(0, 100),
    st.integers(512, 262_144),
)
CONTEXTS = st.integers(1, 300_000)
CONCURRENCIES = st.integers(1, 500)
GPUS = st.sampled_from([L4, H100, H200])


@given(ANY_MODEL, st.integers(1, 2**40), st.integers(1, 2**20), GPUS)
@settings(max_examples=300)
def test_no_model_makes_it_raise(model: Model, context: int, concurrency: int, device: Gpu) -> None:
    result = estimate(model, device, context=context, concurrency=concurrency)
    assert result.reasons
    assert (result.verdict is Verdict.UNKNOWN) == (result.kv_available_bytes is None)


@given(SOUND_MODEL, CONTEXTS, CONTEXTS, CONCURRENCIES, GPUS)
def test_more_context_never_fits_better(model: Model, a: int, b: int, concurrency: int, device: Gpu) -> None:
    short = estimate(model, device, context=min(a, b), concurrency=concurrency)
    long = estimate(model, device, context=max(a, b), concurrency=concurrency)
    assert RANK[short.verdict] >= RANK[long.verdict]
    assert (short.max_concurrency or 0) >= (long.max_concurrency or 0)
    assert (short.min_gpus or 999) <= (long.min_gpus or 999)


@given(SOUND_MODEL, CONTEXTS, CONCURRENCIES, CONCURRENCIES, GPUS)
def test_more_requests_never_fit_better(model: Model, context: int, a: int, b: int, device: Gpu) -> None:
    few = estimate(model, device, context=context, concurrency=min(a, b))
    many = estimate(model, device, context=context, concurrency=max(a, b))
    assert RANK[few.verdict] >= RANK[many.verdict]
    assert few.headroom_bytes is not None
    assert many.headroom_bytes is not None
    assert few.headroom_bytes.likely >= many.headroom_bytes.likely


@given(SOUND_MODEL, CONTEXTS, st.integers(1, 2**38), st.integers(1, 2**38), GPUS)
def test_heavier_weights_never_fit_better(model: Model, context: int, a: int, b: int, device: Gpu) -> None:
    def weighing(size_bytes: int) -> Estimate:
        heavy = replace(model, weights=replace(model.weights, size_bytes=size_bytes))
        return estimate(heavy, device, context=context)

    light, heavy = weighing(min(a, b)), weighing(max(a, b))
    assert RANK[light.verdict] >= RANK[heavy.verdict]
    assert (light.max_context_one_request or 0) >= (heavy.max_context_one_request or 0)


@given(SOUND_MODEL, CONTEXTS, CONCURRENCIES, st.integers(70, 159), st.integers(0, 50))
def test_more_memory_never_fits_worse(model: Model, context: int, concurrency: int, gib: int, more: int) -> None:
    """Within one step-size tier: a GPU past a tier's border gets larger steps by vLLM's default."""
    small = estimate(model, gpu("small", gib * GIB), context=context, concurrency=concurrency)
    large = estimate(model, gpu("large", min(159, gib + more) * GIB), context=context, concurrency=concurrency)
    assert RANK[small.verdict] <= RANK[large.verdict]


@given(SOUND_MODEL, CONTEXTS, CONCURRENCIES, GPUS)
def test_verdict_agrees_with_its_own_figures(model: Model, context: int, concurrency: int, device: Gpu) -> None:
    result = estimate(model, device, context=context, concurrency=concurrency)
    assert result.max_concurrency is not None
    assert result.max_context_one_request is not None
    assert (result.verdict is Verdict.FITS) == (result.max_concurrency >= concurrency)
    assert (result.min_gpus == 1) == (result.verdict is Verdict.FITS)
    assert (result.max_context_one_request >= result.context) == (result.max_concurrency >= 1)


# --- contradictions and plans -------------------------------------------------------------------------------

WHOLE_8B = replace(LLAMA_8B, ffn=14336, vocab=128_256, tied_embeddings=False)
SPARSE = replace(LLAMA_8B, params=30 * 10**9, active_params=3 * 10**9, moe=MoeShape(128, 8, expert_ffn=None))


@pytest.mark.parametrize(
    ("shape", "said_of_it"),
    [
        (replace(LLAMA_8B, heads=30), "heads (30) is no multiple of kv_heads (8)"),
        (replace(LLAMA_8B, kv_heads=64), "kv_heads (64) is more than heads (32)"),
        (replace(SPARSE, active_params=31 * 10**9), "active_params (31,000,000,000) is more than params"),
        (replace(SPARSE, moe=MoeShape(8, 9)), "moe.experts_per_token (9) is more than moe.experts (8)"),
        (replace(SPARSE, moe=MoeShape(8, 2, dense_layers=33)), "moe.dense_layers (33) is more than layers (32)"),
        (replace(LLAMA_8B, hidden=-4096), "hidden must be at least 1, got -4,096"),
        (replace(LLAMA_8B, sliding_window=512, attention_chunk=512, global_layers=8), "serves no model with both"),
        (replace(WHOLE_8B, params=10 * 10**9), "differs by more than 20%"),
        (replace(WHOLE_8B, params=6 * 10**9), "differs by more than 20%"),
        (replace(EXAONE_32B, global_layers=65), "no usable value for global_layers"),
        (replace(EXAONE_32B, sliding_window=0), "no usable value for sliding_window"),
        (replace(LLAMA_8B, layers=-1), "no usable value for layers"),
        (
            replace(LLAMA_8B, linear=LinearShape(20, 1000), global_layers=20, sliding_window=512),
            "no usable value for global_layers",
        ),
    ],
)
def test_what_cannot_be_gives_a_reason_and_no_number(shape: ModelShape, said_of_it: str) -> None:
    result = estimate(candidate(shape), H100, context=4096)
    assert result.verdict is Verdict.UNKNOWN
    assert said_of_it in said(result)
    assert (result.max_concurrency, result.kv_tokens, result.headroom_bytes, result.steps) == (None, None, None, ())


def test_a_published_count_within_a_fifth_of_the_layers_is_believed() -> None:
    assert estimate(candidate(WHOLE_8B), H100, context=4096).verdict is Verdict.FITS
    assert estimate(candidate(replace(WHOLE_8B, params=9 * 10**9)), H100, context=4096).verdict is Verdict.FITS


@pytest.mark.parametrize(
    ("shape", "plan", "said_of_it"),
    [
        (LLAMA_8B, ServingPlan(tensor_parallel=3), "cannot cut 32 heads and 8 KV heads over 3 GPUs"),
        (
            replace(LLAMA_8B, heads=48, kv_heads=6),
            ServingPlan(tensor_parallel=4),
            "48 heads and 6 KV heads over 4 GPUs",
        ),
        (LLAMA_8B, ServingPlan(pipeline_parallel=33), "32 layers cannot be cut into 33 pipeline stages"),
        (LLAMA_8B, ServingPlan(kv_dtype="fp7"), "kv_dtype 'fp7' is not known"),
        (LLAMA_8B, ServingPlan(kv_dtype="fp8_ds_mla"), "not known for attention with keys and values"),
        (LLAMA_8B, ServingPlan(quantisation="int3"), "the format asked for ('int3')"),
        (LLAMA_8B, ServingPlan(expert_parallel=True), "the model has no experts"),
        (
            replace(LLAMA_8B, linear=LinearShape(24, 10**6), global_layers=8),
            ServingPlan(hybrid_kv=False),
            "vLLM would not start",
        ),
    ],
)
def test_a_plan_that_vllm_does_not_start_with_gives_a_reason(
    shape: ModelShape, plan: ServingPlan, said_of_it: str
) -> None:
    result = estimate(candidate(shape), H100, context=4096, plan=plan)
    assert result.verdict is Verdict.UNKNOWN
    assert said_of_it in said(result)
    assert result.kv_tokens is None


def test_an_fp8_cache_holds_twice_the_requests() -> None:
    whole = estimate(candidate(LLAMA_8B), H100, context=8192)
    half = estimate(candidate(LLAMA_8B), H100, context=8192, plan=ServingPlan(kv_dtype="fp8"))
    assert whole.kv_bytes_per_request == 2 * (half.kv_bytes_per_request or 0)
    assert (half.num_gpu_blocks or 0) // 2 == whole.num_gpu_blocks


def test_the_weights_asked_for_are_the_ones_judged() -> None:
    asked = estimate(candidate(EXAONE_32B), H100, context=131_072, plan=ServingPlan(quantisation="fp8"))
    assert (asked.verdict, asked.quantised_to) == (Verdict.FITS, None)
    published = estimate(candidate(EXAONE_32B), H100, context=131_072)
    assert (asked.weights_bytes or 0) < 0.6 * (published.weights_bytes or 0)


def test_a_tensor_parallel_set_is_one_budget_a_gpu() -> None:
    plan = ServingPlan(tensor_parallel=2)
    pair = estimate(candidate(EXAONE_32B), H100, context=131_072, plan=plan)
    assert (pair.verdict, pair.gpus, pair.min_gpus) == (Verdict.FITS, 2, 2)
    assert "Fits 2 H100" in pair.reasons[0]
    assert pair.kv_available_bytes is not None
    assert pair.weights_bytes is not None
    assert pair.kv_available_bytes.likely < H100.memory_bytes * 0.92 - pair.weights_bytes / 2


def test_the_poorest_stage_of_a_pipeline_decides() -> None:
    plan = ServingPlan(pipeline_parallel=3)
    staged = estimate(candidate(WHOLE_8B), L4, context=8192, plan=plan)
    figures = {step.name: step.value for step in staged.steps}
    assert staged.gpus == 3
    assert figures["block_bytes"] == 16 * 4096 * 11, "32 layers are cut into 11, 11 and 10: vLLM spares the last"
    assert figures["weights_per_gpu"] > (staged.weights_bytes or 0) / 3


def test_a_measured_overhead_is_told_apart_from_a_guess() -> None:
    measured = ByteRange(2 * GIB, 2 * GIB + 1, 2 * GIB + 2)
    result = estimate(candidate(LLAMA_8B), H100, context=4096, plan=ServingPlan(overhead_bytes=measured))
    assert result.overhead_bytes == measured
    assert "The overhead was measured on this GPU type" in said(result)
    assert "guess" not in said(result)
    sources = {step.source for step in result.steps if step.name.startswith("overhead")}
    assert sources == {"measured on this GPU type (calibration)"}
    assert "is a guess" in said(estimate(candidate(LLAMA_8B), H100, context=4096))


def test_chunks_and_states_take_less_than_full_attention() -> None:
    full = estimate(candidate(LLAMA_8B), H100, context=131_072)
    chunked = estimate(candidate(replace(LLAMA_8B, attention_chunk=8192, global_layers=8)), H100, context=131_072)
    linear = estimate(
        candidate(replace(LLAMA_8B, linear=LinearShape(24, 2**20), global_layers=8)), H100, context=131_072
    )
    sizes = [found.kv_bytes_per_request or 0 for found in (linear, chunked, full)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 3
    assert "keep a chunk of 8,192 tokens" in said(chunked)


# --- the derivation -----------------------------------------------------------------------------------------


def test_every_figure_of_the_verdict_can_be_worked_out_from_the_steps() -> None:
    result = estimate(candidate(EXAONE_32B), H100, context=32_768)
    steps = {step.name: step for step in result.steps}
    value = {name: step.value for name, step in steps.items()}
    assert value["requested"] == -(-H100.memory_bytes * 92 // 100)
    assert value["kv_budget_likely"] == value["requested"] - value["weights"] - value["overhead_likely"]
    assert value["num_gpu_blocks"] == value["kv_budget_likely"] // value["block_bytes"]
    assert value["blocks_per_request"] == 5891
    assert value["kv_cache_max_concurrency"] == value["num_gpu_blocks"] / 5891
    assert value["kv_cache_size_tokens"] == int(value["kv_cache_max_concurrency"] * 32_768) == result.kv_tokens
    assert value["requests_at_once"] == (value["num_gpu_blocks"] - 1) // 5891 == result.max_concurrency
    assert value["headroom"] == value["kv_budget_likely"] - (5891 + 1) * value["block_bytes"]
    assert result.headroom_bytes is not None
    assert value["headroom"] == result.headroom_bytes.likely
    assert steps["memory"].source == "accelerator table: data sheet (confidence high)"
    assert steps["sliding_window"].source == "registry: card (confidence high)"
    assert steps["batches_in_flight"].source == "vLLM's default"
    assert steps["overhead_likely"].source == "a guess"
    assert steps["kv_groups"].formula.count("blocks of 16 tokens") == 4


def test_every_step_names_its_source_and_every_result_its_formula() -> None:
    for shape in (LLAMA_8B, EXAONE_32B, replace(LLAMA_8B, linear=LinearShape(24, 2**20), global_layers=8)):
        for plan in (ServingPlan(), ServingPlan(tensor_parallel=2, kv_dtype="fp8", block=32, max_batched_tokens=512)):
            steps = estimate(candidate(shape), H100, context=8192, plan=plan).steps
            assert len({step.name for step in steps}) == len(steps)
            assert all(step.source for step in steps)
            assert all(step.formula for step in steps if step.source == "computed")


@given(SOUND_MODEL, CONTEXTS, CONCURRENCIES, GPUS)
def test_headroom_is_there_exactly_where_it_fits(model: Model, context: int, concurrency: int, device: Gpu) -> None:
    result = estimate(model, device, context=context, concurrency=concurrency)
    assert result.headroom_bytes is not None
    assert (result.headroom_bytes.likely >= 0) == (result.verdict is Verdict.FITS)


def test_a_large_matrix_takes_well_under_two_seconds() -> None:
    """30 models × 15 GPUs × 5 quantisations."""
    models = [candidate(replace(EXAONE_32B, layers=layers)) for layers in range(64, 94)]
    devices = [gpu(f"g{n}", (24 + 9 * n) * GIB) for n in range(15)]
    formats = (None, "fp8", "int4", "awq", "mxfp4")
    begun = process_time()
    for model in models:
        for device in devices:
            for name in formats:
                estimate(model, device, context=32_768, concurrency=4, plan=ServingPlan(quantisation=name))
    assert process_time() - begun < 2
