"""What engines showed, held against claims: what supports, what is set aside and why, and that nothing refutes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from databases import ScratchDatabase
from engines import Reply, ScriptedEngine
from gateways import RunningGateway, entry, registry_text, running_gateway
from populated_gateway import GPU, GPUS, SHAPE
from processes_under_test import run_simsa
from test_engine_columns import QUICK, metrics, until
from test_feasibility import CARD, H100, LLAMA_8B, candidate

from gateway.domain.claim_evidence import Evidence, EvidenceKind
from gateway.domain.claims import CheckedClaim, ClaimVerdict, check_claim
from gateway.domain.engine_evidence import SeenEngine, engine_evidence
from gateway.domain.engine_facts import ObservedLoad, ResolvedEngine
from gateway.domain.records import Claim, Provenance

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
RESOLVED = ResolvedEngine(
    max_model_len=8192, root="org/weights", kv_cache_max_concurrency=40.5, cache_dtype="auto", engines=1
)
FULL = ObservedLoad(50, NOON, NOON, peak_running=64, preemptions=3)
ENGINE = SeenEngine("r1", "m/1", "h100", 1, Provenance.REAL, RESOLVED, FULL, "bf16")
FITS = Claim(
    id="one",
    text="One GPU",
    metric="fits_single_gpu",
    value=None,
    unit=None,
    gpu="h100",
    gpus=1,
    sourced=CARD,
)
CONTEXT = replace(FITS, id="long", text="8K", metric="context", value=Decimal(8192), gpu=None, gpus=None)


def kinds(found: tuple[Evidence, ...]) -> list[tuple[str, Decimal | None, str | None]]:
    return [(one.kind.value, one.value, one.invalid) for one in found]


def checked(claim: Claim, *engines: SeenEngine) -> CheckedClaim:
    gpus = {"h100": replace(H100, id="h100")}
    return check_claim(claim, candidate(LLAMA_8B), gpus, evidence=engine_evidence(claim, engines))


def test_a_real_engine_shows_what_it_resolved_and_what_a_filling_load_showed() -> None:
    resolved, observed = engine_evidence(FITS, [ENGINE])
    assert (resolved.kind, resolved.value, resolved.context_tokens) == (EvidenceKind.RESOLVED, Decimal("40.5"), 8192)
    assert (observed.kind, observed.value, observed.context_tokens) == (EvidenceKind.OBSERVED, Decimal(64), None)
    assert {(one.gpu, one.gpus, one.invalid, one.quantisation) for one in (resolved, observed)} == {
        ("h100", 1, None, "bf16")
    }
    assert resolved.source == "engine m/1, report r1: kv_cache_max_concurrency at 8,192 tokens"


def test_a_load_that_did_not_fill_it_is_no_evidence() -> None:
    idle = replace(FULL, preemptions=0)
    assert [one.kind for one in engine_evidence(FITS, [replace(ENGINE, observed=idle)])] == [EvidenceKind.RESOLVED]


def test_a_start_leaves_a_fit_open_and_three_filled_engines_settle_it() -> None:
    started = checked(FITS, replace(ENGINE, observed=None))
    assert started.verdict is ClaimVerdict.OPEN
    assert started.reasons[0].startswith("An engine that started says so: 40.5 requests at once")
    assert checked(FITS, ENGINE).verdict is ClaimVerdict.OPEN
    engines = [replace(ENGINE, report=f"r{n}") for n in range(3)]
    assert checked(FITS, *engines).verdict is ClaimVerdict.HOLDS


def test_a_longer_request_stands_for_shorter_ones() -> None:
    shorter = replace(FITS, context_tokens=4096, concurrency=40)
    (resolved, observed) = engine_evidence(shorter, [ENGINE])
    assert (resolved.context_tokens, resolved.concurrency, resolved.invalid) == (4096, 40, None)
    assert observed.context_tokens is None
    assert "An engine that started says so" in checked(shorter, ENGINE).reasons[0]
    of_parts = replace(FITS, input_tokens=1000, output_tokens=500)
    assert engine_evidence(of_parts, [ENGINE])[0].input_tokens == 1000
    longer = checked(replace(FITS, context_tokens=16_384), ENGINE)
    assert any("context_tokens 8192, not the 16384 claimed" in reason for reason in longer.reasons)


def test_a_context_is_settled_by_an_engine_that_took_it_and_refuted_by_none() -> None:
    assert checked(CONTEXT, ENGINE).verdict is ClaimVerdict.HOLDS
    short = checked(replace(CONTEXT, value=Decimal(131_072)), ENGINE)
    assert short.verdict is ClaimVerdict.OPEN
    assert any("by its operator's settings, which refute nothing" in reason for reason in short.reasons)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"provenance": Provenance.STAND_IN}, "a stand-in with small random weights"),
        ({"provenance": Provenance.SIMULATED}, "a simulated engine"),
        ({"provenance": Provenance.UNKNOWN}, "nothing proves what the engine serves"),
        ({"gpu": None}, "does not say on which GPU"),
        ({"gpus": 2}, "it runs on 2 GPUs"),
        ({"is_of_todays_weights": False}, "it served org/weights, and the registry names other weights by now"),
        ({"resolved": replace(RESOLVED, kv_cache_max_concurrency=None)}, "the engine does not say"),
    ],
)
def test_what_cannot_count_is_listed_with_its_reason_and_supports_nothing(change: dict[str, Any], why: str) -> None:
    engine = replace(ENGINE, **{"observed": None, **change})
    (found,) = engine_evidence(FITS, [engine])
    assert why in (found.invalid or "")
    with_it, without = checked(FITS, *[engine] * 3), checked(FITS)
    assert (with_it.verdict, with_it.margin) == (without.verdict, without.margin)
    assert any(why in reason for reason in with_it.reasons)


def test_fewer_than_claimed_and_another_cache_are_set_aside() -> None:
    many = replace(FITS, concurrency=100)
    assert all("refute nothing" in (one.invalid or "") for one in engine_evidence(many, [ENGINE]))
    assert checked(many, *[ENGINE] * 3).verdict is ClaimVerdict.OPEN
    small = replace(FITS, kv_dtype="fp8")
    assert "its KV cache is in auto, not in the fp8 claimed" in (engine_evidence(small, [ENGINE])[0].invalid or "")
    eight = replace(ENGINE, resolved=replace(RESOLVED, cache_dtype="fp8_e4m3"))
    assert kinds(engine_evidence(small, [eight]))[0] == ("resolved", Decimal("40.5"), None)


def test_engines_say_nothing_of_speed_and_price() -> None:
    assert engine_evidence(replace(FITS, metric="tpot_s", value=Decimal(1)), [ENGINE]) == ()
    assert engine_evidence(replace(FITS, metric="rank"), [ENGINE]) == ()


# --- through a gateway --------------------------------------------------------------------------------------


async def claims(
    gateway: RunningGateway, method: str = "GET", body: Any = None, *, key: str | None = None
) -> list[dict[str, Any]]:
    async with RawClient(gateway.url, key=key) as client:
        answer = await client.request(method, "/api/claims", body=body)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def of_engines(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in found[0]["evidence"] if one["kind"] in ("resolved", "observed")]


async def test_a_real_engine_speaks_for_a_claim_live_and_stored_and_an_unproven_one_does_not(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    source = {"source": "a test", "confidence": "high"}
    claim = {"id": "one", "text": "One GPU", "metric": "fits_single_gpu", "gpu": GPU, **source}
    weights = {"repo": "org/weights", "dtype": "bfloat16", **source}
    labels = {"kv_cache_max_concurrency": "12.5"}
    async with ScriptedEngine(root="org/weights", max_model_len=2048) as engine:
        engine.script("/metrics", metrics(running=9, kv=0.99, **labels))
        models = [
            {**entry("m", shape=SHAPE, weights=weights, claims=[claim]), "replicas": [{"url": engine.url, "gpu": GPU}]}
        ]
        how: dict[str, Any] = {"sections": {"gpus": GPUS}, "database_url": database.url, **QUICK}
        async with running_gateway(tmp_path, models, **how) as gateway:
            await gateway.until_live("m")
            found = await until(lambda: claims(gateway), lambda data: len(of_engines(data)) == 2)
            assert [
                (one["kind"], one["provenance"], one["value"], one["gpu"], one["invalid"]) for one in of_engines(found)
            ] == [
                ("resolved", "real", "12.5", GPU, None),
                ("observed", "real", "9", GPU, None),
            ]
            assert (found[0]["verdict"], "1 of 3 repeats" in found[0]["reasons"][0]) == ("open", True)
            own = {"model": "m", "metric": "context", "value": 2048}
            (context,) = await claims(gateway, "POST", {"claims": [own]})
            assert context["verdict"] == "holds"
            engine.root = "simsa-stand-in-m"
            engine.script("/health", Reply.text("", status=503))
            await gateway.until(lambda: not gateway.services.fleet.states_of("m")[0].is_up)
            engine.script("/health")
            await gateway.until_live("m")
            both = await until(lambda: claims(gateway), lambda data: len(of_engines(data)) == 3)
            assert {one["provenance"] for one in of_engines(both)} == {"real", "stand_in"}
        engine.script("/health", Reply.text("", status=503))
        async with running_gateway(tmp_path, models, **how) as gateway:
            again = of_engines(await claims(gateway))
            assert {(one["kind"], one["provenance"]) for one in again} == {
                ("resolved", "real"),
                ("observed", "real"),
                ("resolved", "stand_in"),
            }
            (aside,) = (one for one in again if one["provenance"] == "stand_in")
            assert "stand-in" in aside["invalid"]


async def test_the_command_reads_what_engines_showed_beside_the_gateway_after_it_and_from_it(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    source = {"source": "a test", "confidence": "high"}
    claim = {"id": "one", "text": "One GPU", "metric": "fits_single_gpu", "gpu": GPU, **source}
    weights = {"repo": "org/weights", "dtype": "bfloat16", **source}
    async with ScriptedEngine(root="org/weights", max_model_len=2048) as engine:
        engine.script("/metrics", metrics(running=9, kv=0.99, kv_cache_max_concurrency="12.5"))
        models = [
            {**entry("m", shape=SHAPE, weights=weights, claims=[claim]), "replicas": [{"url": engine.url, "gpu": GPU}]}
        ]
        how: dict[str, Any] = {"sections": {"gpus": GPUS}, "database_url": database.url, "admin_key": "boss", **QUICK}
        async with running_gateway(tmp_path, models, **how) as gateway:
            await gateway.until_live("m")
            expected = await until(lambda: claims(gateway, key="boss"), lambda data: len(of_engines(data)) == 2)
            registry = gateway.registry_path
            at = ("claims", "check", "--gateway", gateway.url)
            beside = await run_simsa("claims", "check", "--database", database.url, registry=registry)
            asked = await run_simsa(*at, registry=tmp_path / "not there", admin_key="boss")
            named = await run_simsa(*at, "m", admin_key="boss")
            unknown = await run_simsa(*at, "nobody", admin_key="boss")
            file = tmp_path / "mine.yaml"
            file.write_text("claims:\n  - {model: m, metric: context, value: 2048, date: 2026-10-01}\n")
            own = await run_simsa(*at, "--file", str(file), admin_key="boss")
        after = await run_simsa("claims", "check", registry=registry, database_url=database.url)
        without = await run_simsa("claims", "check", registry=registry, data_dir=tmp_path / "nothing here")
    for ended in (beside, asked, named, after):
        assert (ended.code, ended.err) == (0, "")
        (found,) = json.loads(ended.out)
        words = [one["reasons"][0].partition(", in ")[0] for one in (found, expected[0])]  # then: how many looks
        assert (found["verdict"], words[0]) == ("open", words[1])
        assert [one["kind"] for one in of_engines([found])] == ["resolved", "observed"]
    assert json.loads(own.out)[0]["verdict"] == "holds"
    assert (without.code, without.err, of_engines(json.loads(without.out))) == (0, "", [])
    assert (unknown.code, unknown.error_line) == (2, "simsa: the gateway knows no claim about 'nobody'")
    assert not (tmp_path / "nothing here").exists()


async def test_a_database_that_cannot_be_read_is_told_and_only_one_that_was_named_stands_in_the_way(
    tmp_path: Path,
) -> None:
    registry = tmp_path / "registry.yaml"
    claim = {"id": "one", "text": "t", "metric": "fits_single_gpu", "source": "t", "confidence": "low"}
    registry.write_text(registry_text([entry("m", claims=[claim])], gpus=GPUS))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "simsa.db").write_bytes(b"no database at all" * 100)
    spoilt = await run_simsa("claims", "check", registry=registry, data_dir=tmp_path / "data")
    assert (spoilt.code, len(json.loads(spoilt.out))) == (0, 1)
    assert spoilt.error_line.startswith("simsa: what engines and load runs showed cannot be read: ")
    assert spoilt.error_line.endswith("; the verdicts are without it")
    gone = await run_simsa("claims", "check", "--database", f"sqlite:///{tmp_path}/gone.db", registry=registry)
    assert (gone.code, gone.out) == (2, "")
    assert "there is no file" in gone.error_line
    both = await run_simsa("claims", "check", "--database", "sqlite://", "--gateway", "http://h", registry=registry)
    assert (both.code, "exclude each other" in both.error_line) == (2, True)
    silent = await run_simsa("claims", "check", "--gateway", "http://127.0.0.1:1", registry=registry)
    assert (silent.code, "no gateway answers" in silent.error_line) == (2, True)
