"""`simsa feasibility` and `GET /api/feasibility`: plain answers as ever, matrices as JSON, CSV and pages, refusals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
import pytest_asyncio
from clients import Answer, RawClient
from gateways import running_gateway
from processes_under_test import run_simsa
from rich.console import Console
from test_feasibility import EXAONE_32B, H100, L4, LLAMA_8B, candidate

from gateway.api.feasibility import MAX_CELLS, FeasibilityOut, Quantisation
from gateway.calibration_file import save_calibration
from gateway.domain.accounts import Role, Terms
from gateway.domain.calibration import OverheadObservation
from gateway.domain.feasibility import estimate
from gateway.domain.matrix import QUANTISATIONS, MatrixLoad, build_matrix
from gateway.domain.memory import GIB, ByteRange
from gateway.domain.records import Provenance
from gateway.evidence import feasibility_summary
from gateway.matrix_answer import DEFINITIONS, matrix_csv, matrix_object
from gateway.matrix_page import feasibility_page
from gateway.matrix_view import render_matrix, render_one
from gateway.matrix_words.fields import Language
from gateway.registry import load_registry

SHIPPED = Path(__file__).parent.parent / "model_registry.yaml"
REGISTRY = load_registry(SHIPPED)
LANGUAGES: tuple[Language, ...] = ("ko", "en")
PATH = "/api/feasibility"
HEAD = (
    "basis,model,model_name,consortium,gpu,quantisation,number_format,units,verdict,quantised_to,context_tokens,"
    "concurrency,gpus,kv_dtype,headroom_gib_low,headroom_gib_likely,headroom_gib_high,is_borderline,weights_gib,"
    "kv_gib_per_request,overhead_gib_low,overhead_gib_likely,overhead_gib_high,max_context_one_request_tokens,"
    "max_concurrency,min_gpus,asked_requests,asked_ceiling_tokens_per_s,asked_expected_tokens_per_s,"
    "asked_cost_per_mtok_low,asked_cost_per_mtok_high,asked_cost_currency,full_requests,full_ceiling_tokens_per_s,"
    "full_expected_tokens_per_s,full_cost_per_mtok_low,full_cost_per_mtok_high,full_cost_currency,confidence,"
    "speed_reason,cost_reason,reasons,registry_sha256,ceiling_reason,overhead_basis,max_context_at_concurrency_tokens"
)


def table_of(content: bytes) -> list[dict[str, str]]:
    assert content.startswith(b"\xef\xbb\xbf"), "Excel needs it for Korean"
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


# --- values -------------------------------------------------------------------------------------------------


def test_object_has_figures_units_definitions_and_assumptions() -> None:
    matrix = build_matrix(REGISTRY.models.values(), REGISTRY.gpus.values(), ["published", "fp8"], MatrixLoad(8192))
    found = matrix_object(matrix, REGISTRY)
    assert FeasibilityOut.model_validate(found)
    assert found["basis"] == "predicted"
    assert len(found["data"]) == len(matrix.cells)
    assert set(DEFINITIONS) <= {*found["data"][0], *found["data"][0]["asked"]}
    assert any("guess" in assumed for assumed in found["assumptions"])
    for row in found["data"]:
        assert row["verdict"] != "unknown" or row["reasons"]
        assert (row["asked"] is None) == (row["speed_reason"] is not None)
        no_ceiling = row["asked"] is not None and row["asked"]["ceiling_tokens_per_s"] is None
        assert no_ceiling == (row["ceiling_reason"] is not None)
        for decoding in (row["asked"], row["full"]):
            if decoding is not None and decoding["cost_per_mtok"] is not None:
                assert Decimal(decoding["cost_per_mtok"]["low"]) <= Decimal(decoding["cost_per_mtok"]["high"])


def test_csv_has_its_stable_head_and_a_row_a_cell() -> None:
    matrix = build_matrix([candidate(LLAMA_8B), candidate(None)], [H100, L4], ["published", "int4"], MatrixLoad(8192))
    content = matrix_csv(matrix, REGISTRY)
    assert content.decode("utf-8-sig").splitlines()[0] == HEAD
    rows = table_of(content)
    assert [row["quantisation"] for row in rows] == ["published", "published", "int4", "int4"]
    assert {row["basis"] for row in rows} == {"predicted"}


def test_no_text_of_a_csv_is_a_formula() -> None:
    matrix = build_matrix(
        [candidate(LLAMA_8B)],
        [replace(H100, id="=1+1")],
        ["published"],
        MatrixLoad(8192),
    )
    assert [row["gpu"] for row in table_of(matrix_csv(matrix, REGISTRY))] == ["'=1+1"]


def test_longest_context_is_that_of_the_requests_asked() -> None:
    """The worked example of docs/feasibility: forty users at 3,984 tokens, not one at the model's own limit."""
    gpu = REGISTRY.gpus["h100-sxm"]
    matrix = build_matrix([REGISTRY.models["EXAONE-4.0-32B"]], [gpu], ["fp8"], MatrixLoad(8192, 40))
    (cell,) = matrix
    assert cell.estimate.max_context_at_concurrency == 3984
    assert (cell.estimate.max_context_one_request or 0) > 100_000
    (row,) = matrix_object(matrix, REGISTRY)["data"]
    assert row["max_context_at_concurrency"] == 3984
    assert table_of(matrix_csv(matrix, REGISTRY))[0]["max_context_at_concurrency_tokens"] == "3984"
    assert "S ≤ 3,984" in drawn(render_matrix(matrix, width=160), 160)
    for language in LANGUAGES:
        page = feasibility_page(matrix, REGISTRY, language=language, on=date(2026, 11, 28))
        assert "≤ 4.0k" in page
        assert "3,984" in page


@pytest.mark.parametrize("requests", [1, 7, 40, 300])
def test_longest_context_holds_and_one_block_more_does_not(requests: int) -> None:
    model = candidate(LLAMA_8B)
    held = estimate(model, H100, context=8192, concurrency=requests).max_context_at_concurrency
    assert held is not None
    assert (estimate(model, H100, context=held, concurrency=requests).max_concurrency or 0) >= requests
    if held < (LLAMA_8B.context or 0):
        assert (estimate(model, H100, context=held + 1, concurrency=requests).max_concurrency or 0) < requests


def drawn(what: Any, width: int = 120) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(what)
    return console.export_text()


def test_terminal_shows_verdicts_by_sign_and_unknown_models_with_their_reason() -> None:
    models = [candidate(LLAMA_8B), candidate(EXAONE_32B), candidate(None)]
    named = [replace(model, id=f"m{n}") for n, model in enumerate(models)]
    matrix = build_matrix(named, [H100, L4], ["published", "int4"], MatrixLoad(8192))
    for width in (50, 160):
        text = drawn(render_matrix(matrix, width=width), width)
        assert "Predicted, not measured: 1 request of 8,192 tokens" in " ".join(text.split())
        assert f"✓ ×{matrix.cells['m0', 'h100', 'published'].estimate.max_concurrency}" in text
        assert "S int4" in text
        assert "As published" in text
        assert "? The model’s shape" in text
        assert "m2" in text.split("? The model’s shape")[1]


def test_a_single_cell_is_told_with_all_its_reasons_speed_and_cost() -> None:
    matrix = build_matrix([candidate(LLAMA_8B)], [H100], ["published"], MatrixLoad(8192))
    (cell,) = matrix
    text = " ".join(drawn(render_one(matrix), 200).split())
    assert all(" ".join(reason.split()) in text for reason in cell.estimate.reasons)
    assert "As asked, ×1:" in text
    assert "cost unknown: The registry has no hourly price for h100" in text


# --- the command --------------------------------------------------------------------------------------------


async def test_command_answers_plain_questions_as_ever() -> None:
    ended = await run_simsa("feasibility", "Motif-2.6B", "--gpu", "l4", "--context", "4096", registry=SHIPPED)
    found = estimate(REGISTRY.models["Motif-2.6B"], REGISTRY.gpus["l4"], context=4096)
    assert json.loads(ended.out) == [{"model": "Motif-2.6B", **feasibility_summary(found)}]
    whole = await run_simsa("feasibility", registry=SHIPPED)
    assert [row["model"] for row in json.loads(whole.out)] == list(REGISTRY.models)


async def test_command_makes_a_matrix_of_what_it_is_asked() -> None:
    names = ["A.X-4.0", "Motif-2.6B", "--gpu", "l4", "--gpu", "h100-sxm", "--quantisation", "fp8", "--gpus", "2"]
    ended = await run_simsa("feasibility", *names, "--kv-dtype", "fp8", "--concurrency", "4", registry=SHIPPED)
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert [(row["model"], row["gpu"]) for row in found["data"]] == [
        (model, gpu) for model in ("A.X-4.0", "Motif-2.6B") for gpu in ("l4", "h100-sxm")
    ]
    assert {row["gpus"] for row in found["data"]} == {2}
    assert (found["tensor_parallel"], found["kv_dtype"], found["concurrency"]) == (2, "fp8", 4)


@pytest.mark.parametrize("flags", [["--csv"], ["--format", "csv"]])
async def test_command_prints_a_table_for_spreadsheets(flags: list[str]) -> None:
    ended = await run_simsa("feasibility", "A.X-4.0", "--gpu", "all", *flags, registry=SHIPPED)
    assert (ended.code, ended.err) == (0, "")
    assert len(table_of(ended.out.encode())) == len(REGISTRY.gpus)


async def test_command_writes_files_by_their_ending(tmp_path: Path) -> None:
    for ending, start in (("html", "<!DOCTYPE html>"), ("csv", "\ufeffbasis,"), ("json", "{")):
        out = tmp_path / f"표.{ending}"
        names = ["A.X-4.0", "--gpu", "all", "--quantisation", "all", "--language", "en", "--out", str(out)]
        ended = await run_simsa("feasibility", *names, registry=SHIPPED)
        assert (ended.code, ended.out, ended.err) == (0, "", "")
        assert out.read_text().startswith(start)


async def test_command_draws_its_table_into_a_pipe_when_told_to() -> None:
    names = ["A.X-4.0", "--gpu", "l4", "--gpu", "h100-sxm", "--format", "table"]
    ended = await run_simsa("feasibility", *names, registry=SHIPPED)
    assert "Predicted, not measured" in ended.out
    assert "\x1b" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["exaone-4.0-32"], ["there is no model 'exaone-4.0-32'", "did you mean EXAONE-4.0-32B"]),
        (["--gpu", "l4", "--gpu", "h1000"], ["there is no GPU 'h1000'", "did you mean"]),
        (["--quantisation", "fp9"], ["--quantisation", "'fp9'", "did you mean fp8"]),
        (["--kv-dtype", "fp8_e4"], ["--kv-dtype", "did you mean fp8_e4m3"]),
        (["--context", "0"], ["--context: expected 1 to 100,000,000 tokens, got 0"]),
        (["--concurrency", "-1"], ["--concurrency: expected 1 to 1,000,000 requests, got -1"]),
        (["--gpus", "65"], ["--gpus: expected 1 to 64 GPUs, got 65"]),
        (["--format", "xml"], ["--format: expected table, json, csv, html, got 'xml'"]),
        (["--json", "--csv"], ["--format: expected one form, got csv and json"]),
        (["--language", "fr"], ["--language", "'fr'", "known are en, ko"]),
        (["--out", "matrix.txt"], ["--out", ".json, .csv or .html"]),
        (["--out", "/no/such/dir/m.csv"], ["--out: /no/such/dir/m.csv cannot be written", "directory that exists"]),
    ],
    ids=lambda value: " ".join(value)[:24],
)
async def test_command_refuses_in_one_line(arguments: list[str], words: list[str]) -> None:
    ended = await run_simsa("feasibility", *arguments, registry=SHIPPED)
    assert (ended.code, ended.out) == (2, "")
    for word in words:
        assert word in ended.error_line


def calibration_in(directory: Path) -> Path:
    """What one engine taught of the l4: an overhead of exactly 2 GiB."""
    path = directory / "calibration.json"
    seen = OverheadObservation(
        gpu="l4",
        model="m",
        overhead_bytes=2 * GIB,
        requested_bytes=20 * GIB,
        weights_bytes=GIB,
        kv_bytes=17 * GIB,
        predicted=ByteRange(GIB, GIB, GIB),
        provenance=Provenance.REAL,
        engine_version="0.32.0",
        on=date(2026, 11, 28),
        source="a report",
    )
    save_calibration(path, [seen])
    return path


def bases_of(rows: list[dict[str, Any]]) -> dict[str, tuple[str, float]]:
    return {row["gpu"]: (row["overhead_basis"], row["overhead_gib"]["likely"]) for row in rows}


async def test_command_takes_the_measured_overhead_unless_told_not_to(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"registry": SHIPPED, "calibration": calibration_in(tmp_path)}
    asking = ("feasibility", "Motif-2.6B", "--gpu", "l4")
    (plain,) = json.loads((await run_simsa(*asking, **settings)).out)
    assert bases_of([plain]) == {"l4": ("measured", 2.0)}
    assert any("The overhead was measured on this GPU type" in said for said in plain["reasons"])
    (guessed,) = json.loads((await run_simsa(*asking, "--no-calibration", **settings)).out)
    assert guessed["overhead_basis"] == "guess"
    matrix = json.loads((await run_simsa(*asking, "--gpu", "h100-sxm", **settings)).out)
    found = bases_of(matrix["data"])
    assert (found["l4"], found["h100-sxm"][0]) == (("measured", 2.0), "guess")
    assert any("measured for some types of GPU and for others a guess" in said for said in matrix["assumptions"])
    drawn = await run_simsa(*asking, "--gpu", "h100-sxm", "--format", "table", **settings)
    assert "the overhead is measured for some GPUs, for others a guess" in " ".join(drawn.out.split())


async def test_command_refuses_a_broken_calibration_and_goes_on_without_it_when_told_to(tmp_path: Path) -> None:
    broken = tmp_path / "calibration.json"
    broken.write_text("{")
    settings: dict[str, Any] = {"registry": SHIPPED, "calibration": broken}
    ended = await run_simsa("feasibility", "Motif-2.6B", **settings)
    assert (ended.code, ended.out) == (2, "")
    assert str(broken) in ended.error_line
    assert "--no-calibration" in ended.error_line
    assert (await run_simsa("feasibility", "Motif-2.6B", "--no-calibration", **settings)).code == 0


# --- the route ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def asked(directory: Path, **settings: Any) -> AsyncIterator[RawClient]:
    async with (
        running_gateway(directory, [], registry=SHIPPED, **settings) as gateway,
        RawClient(gateway.url) as client,
    ):
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refusing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RawClient]:
    """One gateway for all questions that change nothing in it: a refusal keeps no memory of itself."""
    async with asked(tmp_path_factory.mktemp("refusing")) as client:
        yield client


def reason(answer: Answer) -> str:
    message: str = answer.json()["error"]["message"]
    return message


async def test_route_answers_its_first_parameters_as_ever(tmp_path: Path) -> None:
    async with asked(tmp_path) as client:
        one = await client.request("GET", f"{PATH}?model=Motif-2.6B&gpu=l4&context=4096&concurrency=2")
        every = await client.request("GET", PATH)
    found = estimate(REGISTRY.models["Motif-2.6B"], REGISTRY.gpus["l4"], context=4096, concurrency=2)
    assert one.json() == {"basis": "predicted", "data": [{"model": "Motif-2.6B", **feasibility_summary(found)}]}
    assert [row["model"] for row in every.json()["data"]] == list(REGISTRY.models)
    assert {row["gpu"] for row in every.json()["data"]} == {"h100-sxm"}


async def test_route_takes_the_measured_overhead_unless_told_not_to(tmp_path: Path) -> None:
    query = f"{PATH}?model=Motif-2.6B&gpu=l4"
    async with asked(tmp_path, calibration=calibration_in(tmp_path)) as client:
        one = await client.request("GET", query)
        guessed = await client.request("GET", f"{query}&calibrated=false")
        matrix = await client.request("GET", f"{query}&gpu=h100-sxm")
        plain = await client.request("GET", f"{query}&gpu=h100-sxm&calibrated=false")
        pages = [await client.request("GET", f"{query}&format=html&lang={lang}") for lang in ("ko", "en")]
    assert bases_of(one.json()["data"]) == {"l4": ("measured", 2.0)}
    found = estimate(REGISTRY.models["Motif-2.6B"], REGISTRY.gpus["l4"], context=8192)
    assert guessed.json()["data"] == [{"model": "Motif-2.6B", **feasibility_summary(found)}]
    mixed = bases_of(matrix.json()["data"])
    assert (mixed["l4"], mixed["h100-sxm"][0]) == (("measured", 2.0), "guess")
    assert {row["overhead_basis"] for row in plain.json()["data"]} == {"guess"}
    for page, words in zip(
        pages, ("같은 GPU에서 2.0~2.0 GiB로 측정", "measured on this type of GPU, 2.0"), strict=True
    ):
        assert words in page.body.decode()


async def test_route_gives_the_matrix_as_json_csv_and_a_page(tmp_path: Path) -> None:
    query = f"{PATH}?model=A.X-4.0&model=Motif-2.6B&gpu=l4&gpu=h200-sxm&quantisation=published&quantisation=int4"
    models = [REGISTRY.models[name] for name in ("A.X-4.0", "Motif-2.6B")]
    gpus = [REGISTRY.gpus[name] for name in ("l4", "h200-sxm")]
    matrix = build_matrix(models, gpus, ["published", "int4"], MatrixLoad(8192))
    async with asked(tmp_path) as client:
        as_json = await client.request("GET", query)
        as_csv = await client.request("GET", f"{query}&format=csv")
        pages = [await client.request("GET", f"{query}&format=html&lang={lang}") for lang in ("ko", "en")]
    assert as_json.json() == json.loads(json.dumps(matrix_object(matrix, REGISTRY)))
    assert as_csv.body == matrix_csv(matrix, REGISTRY)
    assert dict(as_csv.headers)["content-type"] == "text/csv; charset=utf-8"
    for page, words in zip(pages, ("예측값(실측 아님)", "predicted (not measured)"), strict=True):
        assert dict(page.headers)["content-type"] == "text/html; charset=utf-8"
        assert dict(page.headers)["content-security-policy"].startswith("default-src 'none'")
        assert words in page.body.decode()


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("gpu=l4&gpu=h1000", 400, "There is no GPU 'h1000'"),
        ("model=A.X-4.0&model=nobody", 404, "There is no model 'nobody'"),
        ("quantisation=fp9", 400, "quantisation"),
        ("kv_dtype=fp3", 400, "There is no KV cache format 'fp3'"),
        ("gpus=65", 400, "gpus"),
        ("format=xml", 400, "format"),
        ("lang=fr&format=html", 400, "lang"),
        ("gpu=all&quantisation=all", 400, f"more than {MAX_CELLS:,}: name fewer"),
        ("&".join(["gpu=l4"] * 201), 400, "gpu"),
        ("&".join(["quantisation=fp8"] * 201), 400, "quantisation"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_route_refuses_what_is_unknown_or_too_much(
    refusing: RawClient, query: str, status: int, words: str
) -> None:
    answer = await refusing.request("GET", f"{PATH}?{query}")
    assert answer.status == status
    assert words in reason(answer)


async def test_largest_question_is_answered(tmp_path: Path) -> None:
    query = f"{PATH}?gpu=all&context=100000000&concurrency=1000000&gpus=64&kv_dtype=nvfp4&quantisation=all"
    models = "&".join(f"model={model}" for model in list(REGISTRY.models)[:40])
    async with asked(tmp_path) as client:
        for form in ("json", "csv", "html"):
            assert (await client.request("GET", f"{query}&{models}&format={form}")).status == 200


async def test_route_is_for_those_who_call_or_oversee(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [], registry=SHIPPED, admin_key="k") as gateway:
        reviewer = await gateway.key_of("reviewers", Terms(roles=frozenset({Role.REVIEWER})))
        auditor = await gateway.key_of("auditors", Terms(roles=frozenset({Role.AUDITOR})))
        for key, status in ((reviewer, 403), (auditor, 200), ("k", 200), (None, 401)):
            async with RawClient(gateway.url, key=key) as client:
                assert (await client.request("GET", f"{PATH}?gpu=l4")).status == status


def test_described_quantisations_are_those_that_there_are() -> None:
    assert get_args(Quantisation) == (*QUANTISATIONS, "all")
