"""/api/claims and `simsa claims check`: who may ask, what is told, what is refused, and that nothing is kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from gateways import RunningGateway, entry, running_gateway
from populated_gateway import GPUS, SHAPE
from processes_under_test import run_simsa
from rich.console import Console

from gateway.claim_checks import check_claims, registry_claims
from gateway.claim_commands import render_claims
from gateway.registry import load_registry

SHIPPED = Path(__file__).parent.parent / "model_registry.yaml"
SOURCE = {"source": "a test", "confidence": "high"}
FITS = {"id": "one-gpu", "text": "Runs on one GPU", "metric": "fits_single_gpu", **SOURCE}
IMPOSSIBLE = {"metric": "tpot_s", "value": 1e-9, "statistic": "p50", "gpu": "h100-sxm", "gpus": 1}
FASTEST = {"id": "fast", "text": "A token a nanosecond", **IMPOSSIBLE, **SOURCE}
SECTIONS = {
    "gpus": GPUS,
    "consortia": [
        {
            "id": "makers",
            "name": {"ko": "만드는 이", "en": "Makers"},
            "claims": [{"id": "many", "text": "With many", "metric": "partners", **SOURCE}],
            **SOURCE,
        }
    ],
}


@asynccontextmanager
async def claiming(directory: Path, **settings: Any) -> AsyncIterator[RunningGateway]:
    weights = {"repo": "somebody/m", **SOURCE}
    known = {"consortium": "makers", "shape": SHAPE, "weights": weights, "claims": [FITS, FASTEST]}
    models = [entry("m", **known), entry("other", claims=[{**FITS, "metric": "rank"}])]
    async with running_gateway(directory, models, sections=SECTIONS, **settings) as gateway:
        yield gateway


async def asked(gateway: RunningGateway, method: str, path: str, body: Any = None, key: str | None = None) -> Any:
    async with RawClient(gateway.url, key=key) as client:
        return await client.request(method, path, body=body)


async def test_every_claim_is_listed_with_its_verdict(tmp_path: Path) -> None:
    async with claiming(tmp_path) as gateway:
        answer = await asked(gateway, "GET", "/api/claims")
    found = {(one["model"], one["consortium"], one["claim"]["id"]): one for one in answer.json()["data"]}
    assert set(found) == {
        ("m", "makers", "one-gpu"),
        ("m", "makers", "fast"),
        (None, "makers", "many"),
        ("other", None, "one-gpu"),
    }
    fits = found["m", "makers", "one-gpu"]
    assert (fits["verdict"], fits["holds_for"]) == ("open", None)
    assert fits["derivation"]
    fast = found["m", "makers", "fast"]
    assert fast["verdict"] == "refuted (arithmetic)"
    assert fast["claim"]["value"] == "0.000000001"
    assert fast["evidence"][0]["kind"] == "ceiling"
    assert found[None, "makers", "many"]["verdict"] == "not testable here"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("model=m", ["one-gpu", "fast"]),
        ("consortium=makers", ["many", "one-gpu", "fast"]),
        ("verdict=open", ["one-gpu"]),
        ("model=m&verdict=refuted+(arithmetic)", ["fast"]),
        ("model=other&consortium=makers", []),
    ],
)
async def test_claims_are_filtered(tmp_path: Path, query: str, ids: list[str]) -> None:
    async with claiming(tmp_path) as gateway:
        answer = await asked(gateway, "GET", f"/api/claims?{query}")
    assert [one["claim"]["id"] for one in answer.json()["data"]] == ids


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("model=nobody", 404, "model"),
        ("consortium=nobody", 404, "consortium"),
        ("verdict=true", 400, "verdict"),
        ("gpu=h1", 400, "gpu"),
    ],
)
async def test_what_there_is_not_is_refused(tmp_path: Path, query: str, status: int, param: str) -> None:
    async with claiming(tmp_path) as gateway:
        answer = await asked(gateway, "GET", f"/api/claims?{query}")
    assert (answer.status, answer.json()["error"]["param"]) == (status, param)


async def test_an_assessors_claims_are_checked_and_not_kept(tmp_path: Path) -> None:
    claims = [{"model": "m", **IMPOSSIBLE}, {"model": "m", "metric": "fits_single_gpu", "text": "한 장에서 😀"}]
    async with claiming(tmp_path) as gateway:
        answer = await asked(gateway, "POST", "/api/claims", {"claims": claims})
        after = await asked(gateway, "GET", "/api/claims")
    assert answer.status == 200
    assert [one["verdict"] for one in answer.json()["data"]] == ["refuted (arithmetic)", "open"]
    assert answer.json()["data"][1]["claim"]["text"] == "한 장에서 😀"
    assert len(after.json()["data"]) == 4


async def test_the_mistakes_of_a_body_are_all_told_each_with_its_field(tmp_path: Path) -> None:
    claims = [{"model": "m", "metric": "ttft_s", "value": -1}, {"model": "m", "metric": "fits_gpus", "gpu": "h1"}]
    async with claiming(tmp_path) as gateway:
        answer = await asked(gateway, "POST", "/api/claims", {"claims": claims})
    assert (answer.status, answer.json()["error"]["param"]) == (400, "claims")
    told = answer.json()["error"]["message"].split("; ")
    assert "claims[0].value: expected more than 0, got -1" in told
    assert "claims[1].gpus: missing" in told
    assert any(line.startswith("claims[1].gpu: there is no GPU 'h1'") for line in told)
    assert not any("line" in line for line in told)


@pytest.mark.parametrize("body", [{}, {"claims": []}, {"claims": [1]}, {"claims": [{}], "more": 1}, []])
async def test_a_body_of_another_shape_is_refused(tmp_path: Path, body: Any) -> None:
    async with claiming(tmp_path) as gateway:
        answer = await asked(gateway, "POST", "/api/claims", body)
    assert answer.status == 400


async def test_a_key_is_needed_where_the_gateway_asks_for_one(tmp_path: Path) -> None:
    async with claiming(tmp_path, admin_key="boss") as gateway:
        for method in ("GET", "POST"):
            assert (
                await asked(gateway, method, "/api/claims", {"claims": []} if method == "POST" else None)
            ).status == 401
        mine = await gateway.key_of("askers")
        assert (await asked(gateway, "GET", "/api/claims", key=mine)).status == 200


# --- at a terminal ------------------------------------------------------------------------------------------


async def test_the_shipped_claims_are_json_in_a_pipe_and_none_is_refuted() -> None:
    ended = await run_simsa("claims", "check", registry=SHIPPED)
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert {one["consortium"] for one in found} == set(load_registry(SHIPPED).consortia)
    assert {one["verdict"] for one in found} == {"open", "not testable here"}


async def test_one_model_alone_is_checked() -> None:
    ended = await run_simsa("claims", "check", "Motif-2.6B", registry=SHIPPED)
    assert ended.code == 0
    assert {one["model"] for one in json.loads(ended.out)} == {"Motif-2.6B"}


async def test_a_refuted_claim_of_a_file_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"claims": [{"model": "EXAONE-4.0-32B", **IMPOSSIBLE}]}))
    ended = await run_simsa("claims", "check", "--file", str(file), registry=SHIPPED)
    assert (ended.code, ended.err) == (1, "")
    (one,) = json.loads(ended.out)
    assert one["verdict"] == "refuted (arithmetic)"


async def test_a_gpu_may_be_named_for_claims_that_name_none(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    claim = {"model": "EXAONE-4.0-32B", "metric": "tpot_s", "value": 0.05, "statistic": "p50"}
    file.write_text(json.dumps({"claims": [claim]}))
    ended = await run_simsa("claims", "check", "--file", str(file), "--gpu", "h100-sxm", registry=SHIPPED)
    assert ended.code == 0
    (one,) = json.loads(ended.out)
    assert one["reasons"][0] == "It names no GPU; read as on h100-sxm."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Motif-26B"], "did you mean 'Motif-2.6B'?"),
        (["--gpu", "h100"], "there is no GPU 'h100' in the registry"),
        (["--file", "nowhere.yaml"], "nowhere.yaml cannot be read: No such file or directory"),
    ],
)
async def test_wrong_use_ends_with_2_and_one_line(arguments: list[str], words: str) -> None:
    ended = await run_simsa("claims", "check", *arguments, registry=SHIPPED)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.error_line


async def test_the_mistakes_of_a_file_are_told_line_by_line_and_end_with_2(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("claims:\n  - {model: Motif-2.6B, metric: ttft_s, value: -1, statistic: p50}\n  - {metric: rank}\n")
    ended = await run_simsa("claims", "check", "--file", str(file), registry=SHIPPED)
    assert (ended.code, ended.out) == (2, "")
    assert "claims[0].value: expected more than 0, got -1 (line 2)" in ended.err
    assert "claims[1].model: expected either model or consortium" in ended.err


def test_a_terminal_shows_a_table_and_for_one_model_the_derivation() -> None:
    registry = load_registry(SHIPPED)
    found = check_claims(registry_claims(registry, about={"Motif-2.6B"}), registry)
    screen = Console(file=StringIO(), width=160)
    screen.print(render_claims(found, in_full=True))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "Motif-2.6B · single-gpu: open" in shown
    assert "Not servable by current vLLM: vLLM removed its architecture after 0.10.2" in shown
    assert "2 not testable here, 1 open" in shown
