"""Claims as they are written, in the registry and in an assessor's file: what is read and what is refused."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from gateway.domain.claim_terms import METRICS
from gateway.domain.memory import missing_kv_fields
from gateway.errors import RegistryInvalid
from gateway.registry import load_registry, parse_registry
from gateway.registry.claims_file import StatedClaim, parse_claims

SHIPPED = load_registry(Path(__file__).parent.parent / "model_registry.yaml")
MODEL = "EXAONE-4.0-32B"


def parsed(*claims: str, about: str = f"model: {MODEL}") -> list[StatedClaim]:
    text = "claims:\n" + "".join(f"  - {{{about}, {claim}}}\n" for claim in claims)
    return parse_claims(text.encode(), path="c.yaml", registry=SHIPPED)


def problems_of(text: str) -> list[str]:
    with pytest.raises(RegistryInvalid) as caught:
        parse_claims(text.encode(), path="c.yaml", registry=SHIPPED)
    return caught.value.problems


def problems_with(claim: str) -> list[str]:
    return problems_of(f"claims:\n  - {{model: {MODEL}, {claim}}}\n")


# --- what is read -------------------------------------------------------------------------------------------


def test_a_claim_needs_what_it_is_about_a_metric_and_its_figures():
    (one,) = parsed("metric: output_tokens_per_s, value: 500, gpu: h100-sxm, gpus: 1")
    assert (one.about, one.claim.id, one.claim.text) == (MODEL, "claim-1", METRICS["output_tokens_per_s"].words)
    assert one.claim.value == Decimal(500)
    assert one.claim.sourced.source == "stated by an assessor, without a source"
    assert one.claim.sourced.confidence.value == "low"


def test_everything_that_an_assessor_states_is_kept():
    (one,) = parsed(
        "id: fast, text: 빠르다, original: 빠릅니다, metric: ttft_s, value: 0.35, unit: s, comparison: at_most, "
        "statistic: attainment, attainment_percent: 99, gpu: h200-sxm, gpus: 4, quantisation: fp8, kv_dtype: fp8, "
        "context_tokens: 40000, input_tokens: 32000, output_tokens: 500, cached_tokens: 1000, concurrency: 16, "
        "accepted_length: 2.5, said_by: LG AI Research, date: 2026-10-01, source: C, confidence: high, note: n"
    )
    claim = one.claim
    assert (claim.original, claim.statistic, claim.attainment_percent) == ("빠릅니다", "attainment", 99)
    assert (claim.gpu, claim.gpus, claim.quantisation, claim.kv_dtype) == ("h200-sxm", 4, "fp8", "fp8")
    assert (claim.context_tokens, claim.input_tokens, claim.output_tokens) == (40000, 32000, 500)
    assert (claim.cached_tokens, claim.concurrency, claim.accepted_length) == (1000, 16, Decimal("2.5"))
    assert (claim.said_by, str(claim.on), claim.sourced.source) == ("LG AI Research", "2026-10-01", "C")


def test_a_consortium_may_be_what_a_claim_is_about():
    (one,) = parsed("metric: partners, text: With others", about="consortium: motif")
    assert one.about == "motif"


# --- what is refused ----------------------------------------------------------------------------------------

TTFT = "metric: ttft_s, value: 1, statistic: p99"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("text: t", "metric: missing; expected one of fits_single_gpu, fits_gpus, ttft_s"),
        ("metric: tttf_s, value: 1", "got 'tttf_s', did you mean 'ttft_s'?"),
        ("metric: ttft_s, statistic: p50", "value: missing; expected the figure that ttft_s claims"),
        ("metric: ttft_s, statistic: p50, value: soon", "value: expected a number, got 'soon'"),
        (
            "metric: ttft_s, statistic: p50, value: '1e-400'",
            "value: expected a number of a size from 1e-12 to 1e+18, got 1e-400",
        ),
        ("metric: ttft_s, statistic: p50, value: 1.0e-320", "value: expected a number of a size from 1e-12 to 1e+18"),
        ("metric: params, value: '1e400'", "value: expected a number of a size from 1e-12 to 1e+18, got 1e+400"),
        ("metric: ttft_s, statistic: p50, value: -1", "value: expected more than 0, got -1"),
        ("metric: ttft_s, statistic: p50, value: 0", "value: expected more than 0, got 0"),
        ("metric: ttft_s, statistic: p50, value: .nan", "value: expected a number, got nan"),
        ("metric: ttft_s, value: 1", "statistic: missing; expected one of p50, p95, p99, mean, attainment"),
        ("metric: ttft_s, value: 1, statistic: p42", "statistic: expected one of p50, p95, p99, mean, attainment; got"),
        ("metric: ttft_s, value: 350, statistic: p50, unit: ms", "unit: expected s, as ttft_s is in that unit"),
        (f"{TTFT}, comparison: at_least", "comparison: expected at_most or equals for ttft_s, got at_least"),
        (f"{TTFT}, attainment_percent: 99", "attainment_percent: expected the statistic attainment beside it"),
        ("metric: ttft_s, value: 1, statistic: attainment", "attainment_percent: missing; expected the share"),
        (
            "metric: ttft_s, value: 1, statistic: attainment, attainment_percent: 101",
            "attainment_percent: expected more than 0 and up to 100, got 101",
        ),
        (
            f"{TTFT}, gpu: h100-smx, gpus: 1",
            "gpu: there is no GPU 'h100-smx' in the registry, did you mean 'h100-sxm'?",
        ),
        (f"{TTFT}, gpu: h100-sxm", "gpus: missing; expected how many h100-sxm it is claimed for"),
        (f"{TTFT}, gpu: h100-sxm, gpus: 0", "gpus: expected a whole number, 1 or more, got 0"),
        (f"{TTFT}, quantisation: fp9", "quantisation: expected one of fp32, bf16, fp16, fp8"),
        (f"{TTFT}, concurrency: 8, rate_per_s: 2", "rate_per_s: expected either concurrency (a closed loop) or"),
        (
            f"{TTFT}, input_tokens: 10, cached_tokens: 10",
            "expected fewer than input_tokens (10), got 10",
        ),
        (
            f"{TTFT}, input_tokens: 10, output_tokens: 10, context_tokens: 15",
            "context_tokens: expected input and output together (20) or more, got 15",
        ),
        (f"{TTFT}, accepted_length: 0.5", "accepted_length: expected 1 token a step or more"),
        ("metric: output_tokens_per_s, value: 5, statistic: p99", "statistic: expected one of mean for"),
        ("metric: output_tokens_per_s, value: 5, comparison: at_most", "comparison: expected at_least or equals for"),
        ("metric: fits_single_gpu, gpus: 2", "gpus: expected 1 or none for fits_single_gpu, got 2; more is fits_gpus"),
        ("metric: fits_gpus", "gpus: missing; expected how many GPUs"),
        ("metric: fits_gpus, gpus: 4, value: 32768", "value: expected none for fits_gpus; a length goes into"),
        ("metric: fits_single_gpu, statistic: p50", "statistic: expected none for fits_single_gpu, got p50"),
        ("metric: fits_single_gpu, rate_per_s: 2", "rate_per_s: expected none for fits_single_gpu"),
        ("metric: price_per_mtok_out, value: 1", "unit: missing; expected the price's currency such as USD"),
        ("metric: price_per_mtok_out, value: -1, unit: USD", "value: expected more than 0, got -1"),
        ("metric: price_per_mtok_out, value: 1, unit: EUR", "unit: expected a currency of the registry, KRW or USD"),
        ("metric: price_per_mtok_out, value: 1, unit: USD, concurrency: 4", "concurrency: expected a gpu beside it"),
        (
            "metric: price_per_mtok_in, value: 1, unit: USD, gpu: l4, gpus: 1",
            "gpu: expected none: on a GPU of one's own the prompts' work is part of price_per_mtok_out",
        ),
        ("metric: rank, value: 1, gpu: l4, gpus: 1", "gpu: expected none for rank, which no GPU and no load changes"),
        ("metric: context, value: 1000, unit: words", "unit: expected tokens, as context is in that unit"),
        (f"{TTFT}, tokens: 4", "tokens: unknown field"),
        (f"{TTFT}, date: soon", "date: expected a date such as 2026-11-23, got 'soon'"),
    ],
)
def test_a_mistake_is_told_with_its_field_its_line_and_what_would_be_right(claim: str, message: str):
    problems = problems_with(claim)
    assert any(message in problem for problem in problems), problems
    assert all(problem.startswith("c.yaml: claims[0]") and problem.endswith("(line 2)") for problem in problems)


@pytest.mark.parametrize(
    "claim",
    [
        "metric: ttft_s, statistic: p50, value: '1e-400'",
        "metric: ttft_s, statistic: p50, value: soon",
        "metric: ttft_s, statistic: p42, value: 1",
        "metric: tttf_s, statistic: p50, value: 1",
    ],
)
def test_a_field_that_is_wrong_is_not_called_missing_as_well(claim: str):
    assert len(problems_with(claim)) == 1


def test_every_mistake_is_told_at_once():
    problems = problems_of(
        f"claims:\n  - {{model: {MODEL}, metric: ttft_s, value: -1, unit: ms}}\n  - {{model: nobody, metric: rank}}\n"
    )
    told = "\n".join(problems)
    assert len(problems) == 4
    for words in ("value: expected more than 0", "unit: expected s", "statistic: missing", "no model 'nobody'"):
        assert words in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml: the file is empty"),
        ("- a\n", "c.yaml: expected a mapping with `claims:`, got a list"),
        ("claims: []\n", "expected a list with at least one claim"),
        ("claims: [3]\n", "expected a mapping, got 3"),
        ("claims: [{metric: rank}]\n", "expected either model or consortium"),
        ("claims: [{model: Motif-26B, metric: rank}]\n", "did you mean 'Motif-2.6B'?"),
        ("claims: [{consortium: motiv, metric: rank}]\n", "did you mean 'motif'?"),
        ("claims: [{model: [1], metric: rank}]\n", "there is no model a list"),
        ("claims: [{consortium: motif, metric: ttft_s, value: 1, statistic: p50}]\n", "expected the claim at a model"),
        ("claim: []\n", "unknown field; known here: claims"),
        ("claims: [\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_none_is_told(text: str, message: str):
    assert any(message in problem for problem in problems_of(text))


def test_an_id_that_another_claim_has_is_refused():
    twice = f"claims:\n  - {{model: {MODEL}, id: a, metric: rank}}\n  - {{model: {MODEL}, id: a, metric: rank}}\n"
    assert problems_of(twice) == [
        f"c.yaml: claims[1] (a).id: expected an id of its own; claims[0] about {MODEL} has 'a' already (line 3)"
    ]


def test_too_many_claims_are_refused():
    many = "claims:\n" + f"  - {{model: {MODEL}, metric: rank}}\n" * 501
    assert any("at most 500" in problem for problem in problems_of(many))


def test_the_registry_refuses_what_a_file_of_claims_refuses():
    text = (
        "models:\n  - id: m\n    serving: {kind: vllm}\n"
        "    claims: [{id: c, text: t, metric: ttft_s, value: 1, statistic: p50, gpu: h1, gpus: 1, source: a b, "
        "confidence: low}]\n"
    )
    with pytest.raises(RegistryInvalid) as caught:
        parse_registry(text.encode(), path="r.yaml")
    assert caught.value.problems == ["r.yaml: models[0] (m).claims[0] (c).gpu: 'h1' is not in gpus (line 4)"]


# --- what ships ---------------------------------------------------------------------------------------------


def test_each_of_the_ten_consortia_has_the_claims_of_the_article():
    said: dict[str, list[str]] = {name: [] for name in SHIPPED.consortia}
    for consortium in SHIPPED.consortia.values():
        said[consortium.id] += [one.id for one in consortium.claims if one.sourced.source == "ARTICLE"]
    for model in SHIPPED.models.values():
        found = [one.id for one in model.claims if one.sourced.source == "ARTICLE"]
        said[model.consortium_id or ""] += found
    assert all(said.values()), said
    assert {"aa-rank-overall", "aa-rank-korea", "open-weight-top-ten", "downloads"} == set(said["lg-ai-research"])
    assert {"single-gpu", "hard-tasks", "cost-methods", "parent"} == set(said["motif"])
    assert {"efficient", "partners"} == set(said["upstage"])
    assert {"light-multimodal", "open-moe", "multimodal-moe", "platforms", "gpu-supplier"} == set(said["kakao"])


def test_every_shipped_claim_has_a_metric_and_none_quotes_words_that_are_not_at_hand():
    claims = [one for c in SHIPPED.consortia.values() for one in c.claims]
    claims += [one for model in SHIPPED.models.values() for one in model.claims]
    assert len(claims) >= 40
    assert all(one.metric in METRICS for one in claims)
    assert all(one.original is None for one in claims if one.sourced.source == "ARTICLE")


def test_a_latent_of_unknown_size_lacks_its_own_sizes_and_no_heads():
    shape = SHIPPED.models["VAETKI"].shape
    assert shape is not None
    assert missing_kv_fields(shape) == ("mla.kv_lora_rank",)
