"""A claim and evidence in, a verdict out: what refutes, what holds, what stays open, and what is never counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_models import H100, LLAMA_8B, MIXTURE, SOURCED, TINY, WINDOWED, model_of

from gateway.domain.ceilings import Setup, compute_ceilings
from gateway.domain.claim_evidence import Evidence, EvidenceKind
from gateway.domain.claim_terms import METRICS, MetricKind
from gateway.domain.claim_workings import Workings
from gateway.domain.claims import REFUTED, CheckedClaim, ClaimVerdict, check_claim
from gateway.domain.pace import Load
from gateway.domain.records import ApiPrice, Claim, Confidence, GpuPrice, Model, Provenance, Serving, ServingKind
from gateway.registry import load_registry

SHIPPED = load_registry(Path(__file__).parent.parent / "model_registry.yaml")
GPUS = {
    "h100-sxm": replace(
        H100, prices=(GpuPrice(Decimal("2"), "USD", "on_demand", "lists", date(2026, 11, 23), SOURCED),)
    )
}
FACTS = (
    "params",
    "active_params",
    "layers",
    "hidden",
    "vocab",
    "heads",
    "kv_heads",
    "head_dim",
    "moe",
    "global_layers",
)
KNOWN = replace(LLAMA_8B, facts=dict.fromkeys(FACTS, SOURCED))
LLAMA = model_of(KNOWN)
LOAD = {"input_tokens": 1000, "output_tokens": 100, "concurrency": 8}
FULL = {"quantisation": "bf16", "kv_dtype": "bf16", "gpu": "h100-sxm", "gpus": 1}


def claim(metric: str, value: Any = None, **fields: Any) -> Claim:
    made = Claim("c", "said", metric, None if value is None else Decimal(str(value)), None, None, None, SOURCED)
    return replace(made, **fields)


def verdict(stated: Claim, model: Model = LLAMA, *evidence: Evidence, **options: Any) -> ClaimVerdict:
    return check(stated, model, *evidence, **options).verdict


def check(stated: Claim, model: Model = LLAMA, *evidence: Evidence, **options: Any) -> CheckedClaim:
    return check_claim(stated, model, GPUS, evidence=evidence, **options)


def run(metric: str, *values: Any, **fields: Any) -> Evidence:
    """A real, valid measurement on the GPU of the tests, with a value a repeat."""
    repeats = tuple(Decimal(str(value)) for value in values)
    made = Evidence(
        EvidenceKind.MEASURED, Provenance.REAL, metric, "h100-sxm", 1, repeats[0], "run 7", n=1000, repeats=repeats
    )
    return replace(made, **fields)


# --- the worked example -------------------------------------------------------------------------------------


def test_motifs_single_gpu_claim_fits_by_size_which_proves_nothing():
    motif = SHIPPED.models["Motif-2.6B"]
    (stated,) = [one for one in motif.claims if one.id == "single-gpu"]
    found = check_claim(stated, motif, SHIPPED.gpus)
    assert (found.verdict, found.holds_for) == (ClaimVerdict.OPEN, None)
    assert found.reasons[0].startswith("By size alone it fits: weights of 5.2 GB (bf16, as published; 10.4 GB in fp32)")
    assert "15 of the 15 GPUs" in found.reasons[0]
    assert found.reasons[1].startswith("Not servable by current vLLM: vLLM removed its architecture")
    assert any("would settle it" in left for left in found.left_open)
    assert any(line.endswith("× 2 bytes = 5.2 GB.") for line in found.derivation)
    assert found.confidence is Confidence.LOW


def test_every_claim_of_the_registry_has_a_verdict_with_a_reason_and_none_is_refuted_or_measured():
    claims = [(one, model) for model in SHIPPED.models.values() for one in model.claims]
    found = [check_claim(one, model, SHIPPED.gpus) for one, model in claims]
    found += [check_claim(one, c.id, SHIPPED.gpus) for c in SHIPPED.consortia.values() for one in c.claims]
    assert all(one.reasons for one in found)
    assert {one.verdict for one in found} == {ClaimVerdict.OPEN, ClaimVerdict.NOT_TESTABLE}
    assert all(one.left_open for one in found if one.verdict is ClaimVerdict.OPEN)


# --- memory -------------------------------------------------------------------------------------------------


def test_weights_that_cannot_fit_in_any_format_refute():
    giant = model_of(replace(KNOWN, params=519_000_000_000, active_params=519_000_000_000))
    found = check(claim("fits_single_gpu", gpu="h100-sxm", gpus=1), giant)
    assert found.verdict is ClaimVerdict.REFUTED_ARITHMETIC
    assert found.margin is not None
    assert found.margin < 0
    assert "in 2 bits a parameter, fewer than any format in use" in found.reasons[0]


def test_weights_that_fit_only_with_fewer_bits_refute_nothing_unless_the_format_is_named():
    large = model_of(replace(KNOWN, params=72_000_000_000, active_params=72_000_000_000))
    found = check(claim("fits_single_gpu", gpu="h100-sxm", gpus=1), large)
    assert found.verdict is ClaimVerdict.OPEN
    assert "As published it cannot fit" in found.reasons[0]
    assert verdict(claim("fits_single_gpu", **FULL), large) is ClaimVerdict.REFUTED_ARITHMETIC
    assert verdict(claim("fits_gpus", **{**FULL, "gpus": 2}), large) is ClaimVerdict.OPEN


def test_caches_that_cannot_fit_refute():
    stated = claim("fits_single_gpu", **FULL, context_tokens=131_072, concurrency=5)
    assert verdict(stated) is ClaimVerdict.REFUTED_ARITHMETIC
    assert verdict(replace(stated, kv_dtype=None)) is ClaimVerdict.OPEN
    assert verdict(replace(stated, concurrency=4)) is ClaimVerdict.OPEN


def test_a_claim_that_names_a_gpu_is_open_however_well_it_is_predicted():
    found = check(claim("fits_single_gpu", gpu="h100-sxm", gpus=1))
    assert found.verdict is ClaimVerdict.OPEN
    assert found.reasons[0].startswith("It is predicted to fit")
    assert found.left_open == (
        "Starting the published weights on 1 × h100-sxm, and a load that fills the cache, would settle it.",
    )


def test_a_nominal_size_is_read_as_the_larger_one_before_it_refutes():
    eighty = replace(H100, memory_bytes=80 * 10**9)
    needs_84 = model_of(replace(KNOWN, params=42_000_000_000, active_params=42_000_000_000))
    stated = claim("fits_single_gpu", **FULL)
    assert check_claim(stated, needs_84, {"h100-sxm": eighty}).verdict is ClaimVerdict.OPEN


def test_a_reading_by_whoever_asks_refutes_nothing():
    giant = model_of(replace(KNOWN, params=519_000_000_000, active_params=519_000_000_000))
    found = check(claim("fits_single_gpu", gpus=1), giant, gpu="h100-sxm")
    assert found.verdict is ClaimVerdict.OPEN
    assert found.reasons[0] == "It names no GPU; read as on 1 × H100 SXM."
    slow = check(claim("tpot_s", "0.0001", statistic="p50"), gpu="h100-sxm")
    assert slow.verdict is ClaimVerdict.OPEN


def test_missing_facts_leave_it_open_and_are_named():
    found = check(claim("fits_single_gpu", gpu="h100-sxm", gpus=1), model_of(replace(KNOWN, kv_heads=None)))
    assert found.verdict is ClaimVerdict.OPEN
    assert "no usable value for kv_heads" in found.reasons[0]
    found = check(claim("ttft_s", "0.1", statistic="p50", **FULL), model_of(None))
    assert found.verdict is ClaimVerdict.OPEN
    assert "Unknown" in found.reasons[0]


def test_a_hosted_model_has_no_gpu_of_ones_own():
    hosted = Model("hosted", Serving(ServingKind.OPENAI_API, "hosted"))
    found = check(claim("ttft_s", "0.1", statistic="p50", **FULL), hosted)
    assert found.verdict is ClaimVerdict.OPEN
    assert "no public weights" in found.reasons[0]


def test_a_set_that_cannot_be_cut_and_facts_that_contradict_each_other_are_open_with_the_reason():
    found = check(claim("fits_gpus", gpu="h100-sxm", gpus=7))
    assert (found.verdict, "cannot cut 32 heads" in found.reasons[0]) == (ClaimVerdict.OPEN, True)
    found = check(claim("fits_single_gpu", gpus=1), model_of(replace(KNOWN, params=26_000_000_000)))
    assert (found.verdict, "contradict each other" in found.reasons[0]) == (ClaimVerdict.OPEN, True)


def test_a_cache_of_unsaid_format_may_have_4_bits_and_each_format_may_be_named():
    stated = claim("fits_single_gpu", **{**FULL, "kv_dtype": None}, context_tokens=131_072, concurrency=12)
    assert verdict(replace(stated, kv_dtype="fp8")) is ClaimVerdict.REFUTED_ARITHMETIC
    assert verdict(stated) is ClaimVerdict.OPEN
    assert verdict(replace(stated, kv_dtype="int4_per_token_head")) is ClaimVerdict.OPEN
    assert verdict(replace(stated, concurrency=24)) is ClaimVerdict.REFUTED_ARITHMETIC


def test_weights_of_unsaid_format_may_have_2_bits():
    large = model_of(replace(KNOWN, params=250_000_000_000, active_params=250_000_000_000))
    found = check(claim("fits_single_gpu", gpu="h100-sxm", gpus=1), large)
    assert found.verdict is ClaimVerdict.OPEN
    assert found.reasons[0].startswith("In 4 bits or more it cannot fit")


def test_what_decides_must_not_be_doubtful():
    doubtful = replace(SOURCED, confidence=Confidence.LOW)
    giant = replace(KNOWN, params=519_000_000_000, active_params=519_000_000_000)
    stated = claim("fits_single_gpu", gpu="h100-sxm", gpus=1)
    found = check(stated, model_of(replace(giant, facts={**KNOWN.facts, "params": doubtful})))
    assert found.verdict is ClaimVerdict.OPEN
    assert "low confidence or no source: params" in found.reasons[1]
    beside = model_of(replace(giant, facts={**KNOWN.facts, "kv_heads": doubtful}))
    assert verdict(stated, beside) is ClaimVerdict.REFUTED_ARITHMETIC


def test_a_rounded_count_refutes_by_more_than_3_percent_only():
    rounded = model_of(replace(KNOWN, params=8_030_000_000, active_params=8_030_000_000))
    bound = lone(model=rounded).tpot_s
    fields = {**FULL, "input_tokens": 1000, "output_tokens": 100, "statistic": "p50"}
    assert verdict(claim("tpot_s", bound * 0.98, **fields), rounded) is ClaimVerdict.OPEN
    assert verdict(claim("tpot_s", bound * 0.96, **fields), rounded) is ClaimVerdict.REFUTED_ARITHMETIC


def test_an_id_keeps_its_capitals():
    named = model_of(replace(KNOWN, hidden=None), model_id="Motif-2.6B")
    found = check(claim("tpot_s", "0.01", statistic="p50", **FULL), named)
    assert any("Motif-2.6B" in reason for reason in found.reasons)


# --- speed --------------------------------------------------------------------------------------------------


def lone(model: Model = LLAMA, **load: Any) -> Any:
    found = compute_ceilings(
        model, Setup(GPUS["h100-sxm"], 1, "bf16"), Load(**{"input_tokens": 1000, "output_tokens": 100, **load})
    )
    assert found.ceiling is not None
    return found.ceiling


@pytest.mark.parametrize("metric", ["ttft_s", "tpot_s", "e2e_s"])
def test_a_time_just_below_its_bound_is_refuted_and_just_above_it_is_open(metric: str):
    bound = getattr(lone(), metric)
    fields = {**FULL, "input_tokens": 1000, "output_tokens": 100, "statistic": "p99"}
    below = check(claim(metric, bound * 0.999, **fields))
    assert below.verdict is ClaimVerdict.REFUTED_ARITHMETIC
    assert below.margin == pytest.approx(-0.001, abs=1e-4)
    assert below.derivation
    assert verdict(claim(metric, bound * 1.001, **fields)) is ClaimVerdict.OPEN


@pytest.mark.parametrize(
    ("metric", "bound"),
    [
        ("output_tokens_per_s", lambda: lone(batch=8).output_tokens_per_s),
        ("requests_per_s", lambda: lone(batch=8).requests_per_s),
        ("output_tokens_per_s_per_user", lambda: lone().tokens_per_s_per_user),
    ],
)
def test_a_rate_just_above_its_ceiling_is_refuted_and_just_below_it_is_open(metric: str, bound: Any):
    assert verdict(claim(metric, bound() * 1.001, **FULL, **LOAD)) is ClaimVerdict.REFUTED_ARITHMETIC
    assert verdict(claim(metric, bound() * 0.999, **FULL, **LOAD)) is not ClaimVerdict.REFUTED_ARITHMETIC


def test_a_pace_that_only_one_alone_can_have_is_open_and_says_so():
    between = (lone().tpot_s + lone(batch=64).tpot_s) / 2
    found = check(claim("tpot_s", between, statistic="p50", **FULL, **{**LOAD, "concurrency": 64}))
    assert found.verdict is ClaimVerdict.OPEN
    assert found.reasons[0].startswith("With 64 requests decoding at once")
    assert "where some wait" in found.reasons[1]


def test_a_claim_without_a_format_is_refuted_only_where_4_bits_would_not_help():
    stated = claim("tpot_s", lone().tpot_s / 2, gpu="h100-sxm", gpus=1, statistic="p50", **LOAD)
    found = check(stated)
    assert found.verdict is ClaimVerdict.OPEN
    assert "With fewer bits it could" in found.reasons[0]
    faster = check(replace(stated, value=Decimal(str(lone().tpot_s / 10))))
    assert faster.verdict is ClaimVerdict.REFUTED_ARITHMETIC
    assert "In its favour weights in 2 bits were taken, as it names no quantisation." in faster.reasons


def test_speculation_counts_where_the_claim_names_it():
    stated = claim("tpot_s", lone().tpot_s / 2, statistic="p50", **FULL, input_tokens=1000)
    found = check(stated)
    assert found.verdict is ClaimVerdict.REFUTED_ARITHMETIC
    assert any("2 tokens accepted a step or more would be needed" in reason for reason in found.reasons)
    assert verdict(replace(stated, accepted_length=Decimal(3))) is ClaimVerdict.OPEN


def test_gaps_between_events_have_a_floor_in_the_mean_only():
    stated = claim("itl_s", "0.000001", **FULL, statistic="mean")
    assert verdict(stated) is ClaimVerdict.REFUTED_ARITHMETIC
    assert verdict(replace(stated, statistic="p50")) is ClaimVerdict.OPEN


def test_an_expectation_that_misses_refutes_nothing():
    found = check(claim("tpot_s", lone().tpot_s * 1.1, statistic="p50", **FULL, input_tokens=1000, output_tokens=100))
    assert found.verdict is ClaimVerdict.OPEN
    assert "misses it, which refutes nothing" in found.reasons[0]


def test_a_low_fact_lowers_the_confidence():
    facts = dict.fromkeys(("params", "layers", "hidden", "vocab", "heads", "kv_heads", "head_dim"), SOURCED)
    stated = claim("tpot_s", "0.000001", statistic="p50", **FULL)
    known = model_of(replace(KNOWN, facts=facts))
    assert check(stated, known).confidence is Confidence.HIGH
    doubtful = replace(SOURCED, confidence=Confidence.LOW)
    assert check(stated, model_of(replace(KNOWN, facts={**facts, "kv_heads": doubtful}))).confidence is Confidence.LOW
    assert check(stated, model_of(replace(KNOWN, facts={}))).confidence is Confidence.LOW


# --- money and facts ----------------------------------------------------------------------------------------


def test_a_cost_below_what_the_cheapest_listed_gpu_could_do_is_open_as_prices_are_agreed():
    stated = claim("price_per_mtok_out", "0.0001", unit="USD", **FULL, **LOAD)
    found = check(stated)
    assert found.verdict is ClaimVerdict.OPEN
    assert found.reasons[0].startswith("Not at any listed price: 1 × h100-sxm at their full speed cost")
    assert any("the lowest listed price" in reason for reason in found.reasons)
    assert verdict(replace(stated, value=Decimal(100))) is ClaimVerdict.OPEN
    other = check(replace(stated, unit="KRW"))
    assert (other.verdict, "no rate is applied" in other.reasons[0]) == (ClaimVerdict.OPEN, True)
    assert check_claim(stated, LLAMA, {"h100-sxm": H100}).verdict is ClaimVerdict.OPEN


def test_a_list_price_is_held_against_the_list():
    price = ApiPrice("USD", Decimal("0.15"), Decimal("0.60"), on=date(2026, 9, 3), sourced=SOURCED)
    hosted = Model("hosted", Serving(ServingKind.OPENAI_API, "hosted"), price=price)
    at_most = claim("price_per_mtok_out", "0.60", unit="USD")
    found = check(at_most, hosted)
    assert (found.verdict, found.reasons[1][:18]) == (ClaimVerdict.OPEN, "That is the claim,")
    cheaper = replace(at_most, value=Decimal("0.50"))
    assert check(cheaper, hosted).reasons[1].startswith("Not at any listed price")
    assert verdict(cheaper, hosted) is ClaimVerdict.OPEN
    assert verdict(replace(cheaper, on=date(2026, 1, 1)), hosted) is ClaimVerdict.OPEN
    assert verdict(replace(cheaper, unit="KRW"), hosted) is ClaimVerdict.OPEN
    assert verdict(at_most, LLAMA) is ClaimVerdict.OPEN


def test_a_published_fact_proves_nothing_until_an_engine_resolves_it():
    stated = claim("context", 131_072)
    assert verdict(stated) is ClaimVerdict.OPEN
    resolved = run("context", 131_072, kind=EvidenceKind.RESOLVED)
    assert verdict(stated, LLAMA, resolved) is ClaimVerdict.HOLDS
    chosen = check(stated, LLAMA, run("context", 32_768, kind=EvidenceKind.RESOLVED))
    assert (chosen.verdict, "Whoever starts it chooses" in chosen.reasons[0]) == (ClaimVerdict.OPEN, True)
    said = run("context", 32_768, kind=EvidenceKind.CONFIG, gpu=None)
    assert verdict(stated, LLAMA, said) is ClaimVerdict.REFUTED_MEASURED


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.kind is MetricKind.OTHER])
def test_what_cannot_be_tested_says_why_and_what_can_be_said_instead(name: str):
    found = check(claim(name))
    assert found.verdict is ClaimVerdict.NOT_TESTABLE
    assert found.reasons == (METRICS[name].why_not,)


def test_a_claim_without_a_metric_is_not_testable():
    assert verdict(replace(claim("rank"), metric=None)) is ClaimVerdict.NOT_TESTABLE


def test_an_unknown_gpu_is_refused():
    with pytest.raises(ValueError, match="no GPU 'h100'; known are h100-sxm"):
        check(claim("fits_single_gpu", gpu="h100", gpus=1))


# --- measurements -------------------------------------------------------------------------------------------

TTFT = claim("ttft_s", "0.5", statistic="p99", gpu="h100-sxm", gpus=1, **LOAD)
UNDER = {"statistic": "p99", **LOAD}


def test_every_repeat_as_claimed_holds():
    found = check(TTFT, LLAMA, run("ttft_s", "0.4", "0.45", "0.49", **UNDER))
    assert found.verdict is ClaimVerdict.HOLDS
    assert found.margin == pytest.approx(0.02)
    assert found.holds_for == "as measured, under the load claimed"
    assert "run 7" in found.reasons[0]


def test_every_repeat_otherwise_refutes_and_one_of_three_leaves_it_open():
    assert verdict(TTFT, LLAMA, run("ttft_s", "0.6", "0.7", "0.8", **UNDER)) is ClaimVerdict.REFUTED_MEASURED
    mixed = check(TTFT, LLAMA, run("ttft_s", "0.4", "0.45", "0.6", **UNDER))
    assert (mixed.verdict, mixed.margin) == (ClaimVerdict.OPEN, pytest.approx(-0.2))
    assert "1 of 3 miss it" in mixed.reasons[0]


def test_two_repeats_do_not_refute_either():
    found = check(TTFT, LLAMA, run("ttft_s", "0.6", "0.7", **UNDER))
    assert found.verdict is ClaimVerdict.OPEN
    assert "otherwise in 2 of 3 repeats that it takes" in found.reasons[0]


@pytest.mark.parametrize(
    ("claimed", "measured", "name"),
    [
        ({"concurrency": None}, {}, "concurrency"),
        ({}, {"quantisation": "int4"}, "quantisation"),
        ({"gpu": None}, {"gpu": "l4"}, "gpu"),
        ({"gpus": None}, {}, "gpus"),
    ],
)
def test_a_run_refutes_only_where_the_claim_names_what_it_varies(
    claimed: dict[str, Any], measured: dict[str, Any], name: str
):
    stated = replace(TTFT, **claimed)
    found = check(stated, LLAMA, replace(run("ttft_s", "0.6", "0.7", "0.8", **UNDER), **measured))
    assert found.verdict is ClaimVerdict.OPEN
    assert f"the claim does not name {name}" in found.reasons[0]


def test_an_unknown_gpu_makes_nothing_hold():
    stated = replace(TTFT, gpu=None, gpus=None)
    met = run("ttft_s", "0.1", "0.1", "0.1", **UNDER)
    assert verdict(stated, LLAMA, replace(met, gpu=None)) is ClaimVerdict.OPEN
    found = check(stated, LLAMA, met)
    assert (found.verdict, found.holds_for) == (
        ClaimVerdict.HOLDS,
        "as measured, on 1 × h100-sxm, which the claim does not name",
    )


def test_two_repeats_do_not_make_it_hold():
    found = check(TTFT, LLAMA, run("ttft_s", "0.4", "0.45", **UNDER))
    assert found.verdict is ClaimVerdict.OPEN
    assert "in 2 of 3 repeats that it takes" in found.reasons[0]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"provenance": Provenance.STAND_IN}, "its provenance is stand_in"),
        ({"provenance": Provenance.UNKNOWN}, "its provenance is unknown"),
        ({"gpu": "h200-sxm"}, "on 1 × h200-sxm, not the 1 × h100-sxm claimed"),
        ({"gpu": None}, "on 1 × an unknown GPU"),
        ({"gpus": 2}, "on 2 × h100-sxm"),
        ({"statistic": "p50"}, "it is the p50, not the p99 claimed"),
        ({"statistic": None}, "it is the unnamed statistic"),
        ({"n": 499}, "p99 of 499 requests; it takes 500"),
        ({"n": None}, "p99 of an unknown number of requests"),
        ({"concurrency": 4}, "concurrency 4, not the 8 claimed"),
        ({"input_tokens": None}, "input_tokens unknown, not the 1000 claimed"),
        ({"invalid": "the client was busy"}, "invalid: the client was busy"),
        ({"metric": "tpot_s"}, "it is of tpot_s"),
        ({"repeats": (), "value": None}, "it has no value"),
        ({"repeats": (Decimal("NaN"),) * 3}, "no possible one"),
        ({"repeats": (Decimal("Infinity"),) * 3}, "no possible one"),
        ({"repeats": (Decimal(-1),) * 3}, "no possible one"),
        ({"repeats": (Decimal(0),) * 3}, "no possible one"),
    ],
)
def test_what_does_not_speak_to_the_claim_is_set_aside_with_the_reason(fields: dict[str, Any], why: str):
    found = check(TTFT, LLAMA, replace(run("ttft_s", "0.1", "0.1", "0.1", **UNDER), **fields))
    assert found.verdict is ClaimVerdict.OPEN
    assert any(reason.startswith("Not counted: run 7") and why in reason for reason in found.reasons)


def test_a_simulation_is_plausible_or_not_met_and_never_more():
    simulated = {**UNDER, "provenance": Provenance.SIMULATED}
    assert verdict(TTFT, LLAMA, run("ttft_s", "0.4", **simulated)) is ClaimVerdict.PLAUSIBLE
    assert verdict(TTFT, LLAMA, run("ttft_s", "0.6", **simulated)) is ClaimVerdict.NOT_MET
    real = run("ttft_s", "0.6", "0.6", "0.6", **UNDER)
    assert verdict(TTFT, LLAMA, run("ttft_s", "0.4", **simulated), real) is ClaimVerdict.REFUTED_MEASURED


def test_attainment_is_a_share_of_the_offered_requests():
    stated = replace(TTFT, statistic="attainment", attainment_percent=Decimal(99))
    under = {**UNDER, "statistic": "attainment"}
    assert verdict(stated, LLAMA, run("ttft_s", 99.5, 99.2, 99, **under)) is ClaimVerdict.HOLDS
    assert verdict(stated, LLAMA, run("ttft_s", 98, 97, 98.9, **under)) is ClaimVerdict.REFUTED_MEASURED


def test_a_start_may_refute_memory_and_only_a_load_makes_it_hold():
    stated = claim("fits_single_gpu", gpu="h100-sxm", gpus=1, context_tokens=32_768, concurrency=4)
    under = {"context_tokens": 32_768, "concurrency": 4}
    started = run("fits_single_gpu", "9.5", kind=EvidenceKind.RESOLVED, **under)
    found = check(stated, LLAMA, started)
    assert found.verdict is ClaimVerdict.OPEN
    assert "a saturating load is left" in found.reasons[0]
    short = run("fits_single_gpu", "3.2", kind=EvidenceKind.RESOLVED, **under)
    assert verdict(stated, LLAMA, short) is ClaimVerdict.OPEN
    thrice = replace(short, repeats=(Decimal("3.2"),) * 3)
    assert verdict(stated, LLAMA, thrice) is ClaimVerdict.REFUTED_MEASURED
    twice = run("fits_single_gpu", 9, 9, kind=EvidenceKind.OBSERVED, **under)
    assert verdict(stated, LLAMA, started, twice) is ClaimVerdict.OPEN
    seen = run("fits_single_gpu", 9, 9, 8, kind=EvidenceKind.OBSERVED, **under)
    assert verdict(stated, LLAMA, started, seen) is ClaimVerdict.HOLDS


def test_a_measurement_that_arithmetic_forbids_is_no_verdict_but_a_contradiction():
    impossible = claim("tpot_s", "0.0001", statistic="p50", **FULL, **LOAD)
    measured = run(
        "tpot_s", "0.00009", "0.00009", "0.00009", statistic="p50", quantisation="bf16", kv_dtype="bf16", **LOAD
    )
    found = check(impossible, LLAMA, measured)
    assert found.verdict is ClaimVerdict.OPEN
    assert "contradict each other" in found.reasons[0]


# --- properties ---------------------------------------------------------------------------------------------

VALUES = st.decimals(min_value=Decimal("1e-6"), max_value=Decimal("1e6"), places=6).filter(bool)
TESTABLE = [name for name, metric in METRICS.items() if metric.kind is not MetricKind.OTHER]
COUNTS = st.none() | st.integers(1, 4096)
ANY_CLAIM = st.builds(
    lambda metric, value, statistic, **fields: claim(
        metric,
        None if METRICS[metric].kind is MetricKind.FIT else value,
        unit="USD" if METRICS[metric].kind is MetricKind.PRICE else None,
        statistic=statistic if statistic in METRICS[metric].statistics else None,
        attainment_percent=Decimal(90) if statistic == "attainment" else None,
        **fields,
    ),
    st.sampled_from(TESTABLE),
    VALUES,
    st.none() | st.sampled_from(["p50", "p95", "p99", "mean", "attainment"]),
    gpu=st.none() | st.just("h100-sxm"),
    gpus=st.none() | st.integers(1, 8),
    quantisation=st.none() | st.sampled_from(["bf16", "fp8", "int4", "nvfp4", "fp32"]),
    kv_dtype=st.none() | st.sampled_from(["bf16", "fp8"]),
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    concurrency=COUNTS,
    comparison=st.none() | st.just("equals"),
)
MODELS = st.sampled_from([LLAMA, model_of(MIXTURE), model_of(WINDOWED), model_of(TINY), model_of(None)])


@given(ANY_CLAIM, MODELS, st.none() | st.just("h100-sxm"))
@settings(max_examples=300, deadline=None)
def test_any_claim_has_a_verdict_and_without_runs_nothing_is_measured(stated: Claim, model: Model, gpu: str | None):
    found = check(stated, model, gpu=gpu)
    assert found.reasons
    assert all(isinstance(line, str) and line for line in (*found.reasons, *found.left_open, *found.derivation))
    measured = {ClaimVerdict.REFUTED_MEASURED, ClaimVerdict.PLAUSIBLE, ClaimVerdict.NOT_MET}
    assert found.verdict not in measured
    if stated.gpu is None and METRICS[stated.metric or ""].kind in (MetricKind.LATENCY, MetricKind.RATE):
        assert found.verdict is ClaimVerdict.OPEN


@given(ANY_CLAIM, MODELS)
@settings(max_examples=200, deadline=None)
def test_an_easier_claim_is_not_refuted_where_a_harder_one_is_not(stated: Claim, model: Model):
    kind = METRICS[stated.metric or ""].kind
    if kind not in (MetricKind.LATENCY, MetricKind.RATE) or stated.value is None or stated.comparison is not None:
        return
    easier = replace(stated, value=stated.value * 2 if kind is MetricKind.LATENCY else stated.value / 2)
    if verdict(stated, model) not in REFUTED:
        assert verdict(easier, model) not in REFUTED


# --- many claims at once ------------------------------------------------------------------------------------


def test_claims_checked_together_get_the_verdicts_that_each_gets_alone() -> None:
    stated = [
        claim("fits_single_gpu", gpu="h100-sxm"),
        claim("fits_single_gpu", context_tokens=4096, concurrency=64),
        claim("fits_gpus", gpus=2, quantisation="fp8"),
        claim("fits_gpus", gpus=2, quantisation="int4"),
        claim("tpot_s", 0.001, statistic="p50", **FULL, **LOAD),
        claim("tpot_s", 0.1, statistic="p99", **FULL, **LOAD),
        claim("output_tokens_per_s", 10**6, gpu="h100-sxm", concurrency=8),
        claim("price_per_mtok_out", 1, unit="USD", gpu="h100-sxm"),
    ]
    workings = Workings()
    models = [LLAMA, model_of(replace(MIXTURE, facts=KNOWN.facts)), model_of(TINY)]
    for _ in range(2):
        for model in models:
            for one in stated:
                together = check_claim(one, model, GPUS, workings=workings)
                assert together == check_claim(one, model, GPUS)


def test_the_same_inputs_are_worked_out_once_and_others_anew() -> None:
    workings, seen = Workings(), []

    def once(of: list[int], *inputs: int) -> int:
        return workings.once(lambda: seen.append(inputs) or len(seen), (of,), *inputs)

    one, alike = [1], [1]
    assert [once(one, 7), once(one, 7), once(one, 8), once(alike, 7), once(one, 7)] == [1, 1, 2, 3, 1]
