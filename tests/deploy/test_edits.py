"""What is carried arrives as it is, and what an edit restarts is what it concerns."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CHART
from checks import look
from deploy_tools import program
from fixtures import CASES, OWN_CASES, SHIPPED_REGISTRY, SMALL_REGISTRY, Case, install
from guards import HANG_S
from manifests import Manifest, identity, of_kind
from rules import BY_NAME

EVERYTHING = next(case for case in OWN_CASES if case.values.stem == "everything")


def test_the_packaged_registry_is_the_shipped_one() -> None:
    """A link, so that there is one file; `helm package` puts the file itself into the package."""
    packaged = CHART / "files" / "model_registry.yaml"
    assert packaged.is_symlink()
    assert packaged.resolve() == SHIPPED_REGISTRY


def test_a_comment_in_the_registry_restarts_nothing(tmp_path: Path) -> None:
    edited = edit_registry(tmp_path, lambda text: text + "# seen\n")
    before, after = objects_of(EVERYTHING), objects_of(edited)
    changed = {name for name in before if before[name] != after[name]}
    assert {name.partition("/")[0] for name in changed} == {"ConfigMap", "Pod"}
    assert before.keys() == after.keys()


def test_an_entry_restarts_its_own_engine_alone(tmp_path: Path) -> None:
    def edit(text: str) -> str:
        assert "1048576" in text
        return text.replace("1048576", "524288")

    before, after = objects_of(EVERYTHING), objects_of(edit_registry(tmp_path, edit))
    changed = {name for name in before if before[name] != after.get(name)}
    assert {name for name in changed if name.startswith(("Deployment/", "LeaderWorkerSet/", "Job/"))} == {
        name for name in before if name.startswith("Deployment/") and "big-model" in name
    }


def test_a_further_model_touches_no_other(tmp_path: Path) -> None:
    values = yaml.safe_load(EVERYTHING.values.read_text(encoding="utf-8"))
    del values["models"]["elder"]
    without = Case(tmp_path / "values.yaml", SMALL_REGISTRY)
    without.values.write_text(yaml.safe_dump(values), encoding="utf-8")
    before, after = objects_of(without), objects_of(EVERYTHING)
    changed = {name for name in before if before[name] != after.get(name)}
    assert {name.partition("/")[0] for name in changed} == {"ConfigMap"}


def test_a_model_moves_to_another_vllm_alone(tmp_path: Path) -> None:
    before, after = objects_of(EVERYTHING), objects_of(edit_models(tmp_path, {"tiny": {"vllm": "0.31.0"}}))
    changed = {name for name in before if before[name] != after.get(name)}
    assert {name for name in changed if name.startswith("Deployment/")} == {"Deployment/judging-engine-tiny"}
    assert image_of(after["Deployment/judging-engine-tiny"]) == "mirror.example.org/vllm/vllm-openai:v0.31.0"


def test_a_model_that_has_moved_stays_as_it_is_when_the_others_follow(tmp_path: Path) -> None:
    moved = edit_models(tmp_path / "moved", {"tiny": {"vllm": "0.33.0"}})
    followed = edit_models(tmp_path / "followed", {}, engines={"vllm": "0.33.0"})
    name = "Deployment/judging-engine-tiny"
    assert objects_of(moved)[name] == objects_of(followed)[name] != objects_of(EVERYTHING)[name]


def test_a_version_of_its_own_goes_no_further_than_the_registry_says(tmp_path: Path) -> None:
    moved = objects_of(edit_models(tmp_path, {"elder": {"vllm": "0.32.0"}}))
    assert moved == objects_of(EVERYTHING)


def test_a_model_may_be_taken_out_by_a_word(tmp_path: Path) -> None:
    """`enabled: false` lets a values file over another one take a model away, which a map's merge cannot."""
    without = edit_models(tmp_path, {"elder": {"enabled": False}})
    assert "elder" not in str(sorted(objects_of(without)))


def test_a_volume_never_changes_its_access_mode(tmp_path: Path) -> None:
    """An API server refuses that, so weights that several may read lie on another volume."""
    alone = {
        "tiny": {"scaling": {"maxReplicas": 1}},
        "Big.Model-72B-Instruct": {"replicas": 1},
        "wide": {"enabled": False},
    }
    once = edit_models(tmp_path / "once", alone, engines={"storage": {"accessMode": "ReadWriteOnce"}})
    many = edit_models(tmp_path / "many", alone)
    first, then = volumes_of(once), volumes_of(many)
    assert len(first) == len(then) > 4
    assert [name for name in first.keys() & then.keys() if first[name]["spec"] != then[name]["spec"]] == []
    assert max(map(len, then)) <= len("PersistentVolumeClaim/") + 63


@pytest.mark.parametrize("stem", ["one-model", "several-gateways"])
def test_stopped_gateways_leave_everything_else(stem: str, tmp_path: Path) -> None:
    """To move to Redis, or to restore: no gateway runs, nothing touches the database, and nothing else changes."""
    case = next(case for case in OWN_CASES if case.values.stem == stem)
    values = yaml.safe_load(case.values.read_text(encoding="utf-8"))
    values.setdefault("gateway", {})["replicas"] = 0
    stopped = Case(tmp_path / "values.yaml", case.registry)
    stopped.values.write_text(yaml.safe_dump(values), encoding="utf-8")
    before, after = objects_of(case), objects_of(stopped)
    assert before.keys() - after.keys() == before.keys() & {"Job/simsa-migrate"}
    assert {name for name in after if before[name] != after[name]} == {"Deployment/simsa"}
    assert after["Deployment/simsa"]["spec"]["replicas"] == 0
    assert [complaint for rule in BY_NAME.values() for complaint in look(rule, install(stopped)).complaints] == []


def volumes_of(case: Case) -> dict[str, Manifest]:
    return {name: made for name, made in objects_of(case).items() if name.startswith("PersistentVolumeClaim/")}


def test_rules_and_dashboards_travel_as_they_are() -> None:
    made = install(EVERYTHING).manifests
    rules = [manifest["spec"]["groups"] for manifest in of_kind(made, "PrometheusRule")]
    for path in sorted((CHART / "files" / "rules").glob("*.yaml")):
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["groups"] in rules, path.name
    boards = {key: text for m in of_kind(made, "ConfigMap") for key, text in (m.get("data") or {}).items()}
    for path in sorted((CHART / "files" / "dashboards").glob("*.json")):
        assert boards[path.name] == path.read_text(encoding="utf-8")


def test_a_release_may_leave_the_shared_rules_to_another(tmp_path: Path) -> None:
    values = yaml.safe_load(EVERYTHING.values.read_text(encoding="utf-8"))
    values["monitoring"]["rules"] = False
    without = Case(tmp_path / "values.yaml", SMALL_REGISTRY)
    without.values.write_text(yaml.safe_dump(values), encoding="utf-8")
    made = of_kind(install(without).manifests, "PrometheusRule")
    assert [manifest["metadata"]["name"] for manifest in made] == ["judging-release"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_prometheus_takes_every_rule_that_is_made(case: Case, tmp_path: Path) -> None:
    for rule in of_kind(install(case).manifests, "PrometheusRule"):
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
        checked = subprocess.run(
            [program("promtool"), "check", "rules", path], capture_output=True, text=True, check=False, timeout=HANG_S
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def edit_models(directory: Path, models: dict[str, dict[str, Any]], *, engines: dict[str, Any] | None = None) -> Case:
    """`everything` with those keys put over its models and its engines."""
    values = yaml.safe_load(EVERYTHING.values.read_text(encoding="utf-8"))
    for model_id, keys in models.items():
        values["models"][model_id] |= keys
    values["engines"] |= engines or {}
    directory.mkdir(exist_ok=True)
    path = directory / "values.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return Case(path, SMALL_REGISTRY)


def image_of(workload: Manifest) -> str:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return str(container["image"])


def edit_registry(directory: Path, edit: Any) -> Case:
    path = directory / "registry.yaml"
    path.write_text(edit(SMALL_REGISTRY.read_text(encoding="utf-8")), encoding="utf-8")
    return Case(EVERYTHING.values, path)


def objects_of(case: Case) -> dict[str, Manifest]:
    return {identity(manifest): manifest for manifest in install(case).manifests}
