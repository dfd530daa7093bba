"""The chart as a package and as a part: what is in it, what a parent chart can turn off, what its notes tell."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from charts import CHART, HELMS, helm, render, render_text
from deploy_tools import ROOT
from fixtures import CASES, OWN_CASES, SHIPPED_REGISTRY, SMALL_REGISTRY, Case

ONE_MODEL = next(case for case in OWN_CASES if case.values.stem == "one-model")
LARGEST_RELEASE_BYTES = 1_000_000
"""Helm keeps a release in a Secret, compressed and in base 64; Kubernetes takes 1 MiB."""


@pytest.fixture(params=HELMS)
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    helm(request.param, "package", CHART, "--destination", tmp_path)
    (archive,) = tmp_path.glob("*.tgz")
    return archive


def test_a_package_holds_the_registry_itself_and_no_examples(package: Path) -> None:
    with tarfile.open(package) as archive:
        names = archive.getnames()
        registry = archive.extractfile("simsa/files/model_registry.yaml")
        assert registry is not None
        assert registry.read() == SHIPPED_REGISTRY.read_bytes()
    assert {"simsa/Chart.yaml", "simsa/values.yaml", "simsa/values.schema.json", "simsa/README.md"} <= set(names)
    assert [name for name in names if "/ci/" in name or name.endswith((".orig", ".rej", ".tgz", ".pyc"))] == []


def test_a_package_renders_as_its_folder_does(package: Path) -> None:
    for case in CASES:
        packaged = render(case.values, registry=case.registry, chart=package)
        assert packaged.manifests == render(case.values, registry=case.registry).manifests


def test_a_package_fits_where_helm_keeps_releases(package: Path) -> None:
    assert package.stat().st_size * 4 / 3 < LARGEST_RELEASE_BYTES


def test_a_parent_chart_can_turn_all_of_it_off() -> None:
    assert render_text("enabled: false", base=ONE_MODEL.values, registry=SMALL_REGISTRY).strip() == ""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_notes_tell_what_to_do_next(case: Case) -> None:
    """Only the newer Helm writes them without asking a cluster."""
    registry = ["--set-file", f"registryYaml={case.registry}"] if case.registry else []
    place = ["--namespace", "judging", "--dry-run=client"]
    told = helm(HELMS[0], "install", "simsa", CHART, *place, "--values", case.values, *registry)
    notes = told.partition("NOTES:")[2]
    assert "helm -n judging test simsa" in notes
    for model_id in case.given.get("models") or {}:
        assert model_id in notes


def test_notes_say_that_gateways_are_stopped() -> None:
    place = ["--namespace", "judging", "--dry-run=client", "--set", "gateway.replicas=0"]
    given = ["--values", ONE_MODEL.values, "--set-file", f"registryYaml={SMALL_REGISTRY}"]
    notes = helm(HELMS[0], "install", "simsa", CHART, *place, *given).partition("NOTES:")[2]
    assert "No gateway runs" in notes
    assert "gateway.replicas" in notes
    assert "helm -n judging test simsa" not in notes
    assert "port-forward" not in notes


def test_no_file_of_the_chart_names_this_machine() -> None:
    texts = [
        path for path in CHART.rglob("*") if path.is_file() and path.suffix in (".yaml", ".tpl", ".md", ".txt", ".py")
    ]
    assert texts
    assert [str(path) for path in texts if str(ROOT) in path.read_text(encoding="utf-8")] == []
