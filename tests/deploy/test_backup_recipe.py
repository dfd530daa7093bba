"""The CronJob and the Job of docs/upgrades.md: a server takes them, they fit the chart's gateway, and they do it.

They stand in the page and not in the chart, since where backups belong is for whoever runs the cluster to say.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import lifecycle
import pytest
import references
import rights
import schemas
from charts import KUBERNETES, render_text
from checks import Check, Installation, look
from deploy_tools import ROOT
from fixtures import SMALL_REGISTRY
from guards import HANG_S
from manifests import Manifest, identity, is_selected, name_of, read_stream
from parts import gateway_pod
from test_refusals import GOOD

PAGE = (ROOT / "docs" / "upgrades.md").read_text(encoding="utf-8")
KINDS = ("PostgreSQL", "SQLite")
LIKE_THE_READMES = """
secrets: {existingSecret: simsa}
gateway: {image: {repository: registry.example.org/simsa-gateway}}
"""
HOLD_FOR_RECIPES = (
    *rights.RULES,
    lifecycle.jobs_end,
    references.names_are_used_once,
    references.named_objects_exist,
    references.mounts_meet_volumes,
)


def manifests_for(kind: str) -> list[Manifest]:
    """What the page's manifests are for that kind of database, its marked lines taken or left."""
    other = next(name for name in KINDS if name != kind)
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in "---\n".join(blocks).splitlines() if not line.endswith(f"# {other}")]
    return read_stream("\n".join(re.sub(r"^( *)# (.*# \w+)$", r"\1\2", line) for line in lines))


def beside_a_release(kind: str) -> Installation:
    values = f"{LIKE_THE_READMES}\npostgresql: {{enabled: {str(kind == 'PostgreSQL').lower()}}}"
    made = read_stream(render_text(values, base=GOOD, registry=SMALL_REGISTRY))
    return Installation((*made, *manifests_for(kind)), external=frozenset({"Secret/simsa"}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_a_server_knows_every_key_of_a_recipe(kubernetes: str, kind: str) -> None:
    made = manifests_for(kind)
    assert [identity(one) for one in made] == [
        "PersistentVolumeClaim/simsa-backups",
        "CronJob/simsa-backup",
        "Job/simsa-restore",
    ]
    assert schemas.schema_objections(made, kubernetes) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", HOLD_FOR_RECIPES, ids=lambda rule: rule.__name__)
def test_a_recipes_pods_are_as_good_as_the_charts(rule: Check, kind: str) -> None:
    assert look(rule, beside_a_release(kind)).complaints == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_has_the_gateways_image_user_and_database(kind: str) -> None:
    release = beside_a_release(kind)
    gateway = gateway_pod(release)
    wanted = {v["name"]: v for v in gateway.containers[-1].spec["env"]}
    pods = [pod for pod in release.pods if pod.labels.get("app.kubernetes.io/component") in ("backup", "restore")]
    assert len(pods) == 2
    for pod in pods:
        (container,) = pod.containers
        assert container.spec["image"] == gateway.containers[-1].spec["image"]
        assert {key: gateway.spec["securityContext"][key] for key in pod.spec["securityContext"]} == pod.spec[
            "securityContext"
        ]
        for variable in container.spec["env"]:
            assert variable == wanted[variable["name"]]
        claims = [v["persistentVolumeClaim"]["claimName"] for v in pod.spec["volumes"] if "persistentVolumeClaim" in v]
        assert claims == ["simsa-backups", *(["simsa-data"] if kind == "SQLite" else [])]


def test_sqlite_is_opened_on_the_gateways_own_node() -> None:
    release = beside_a_release("SQLite")
    (backup,) = [pod for pod in release.pods if pod.owner["kind"] == "CronJob"]
    (term,) = backup.spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [pod.owner for pod in release.pods if is_selected(pod.labels, term["labelSelector"])] == [
        gateway_pod(release).owner
    ]
    assert not any("affinity" in pod.spec for pod in release.pods if name_of(pod.owner) == "simsa-restore")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    found = {f"/{name}": tmp_path / name for name in ("backups", "data")}
    for place in found.values():
        place.mkdir()
    return found


def run_recipe(name: str, places: dict[str, Path], *, instead: tuple[str, str] = ("", "")) -> int:
    """The exit status of a recipe's own words, with directories of this machine where its pod has volumes."""
    (words,) = [c.words for c in beside_a_release("SQLite").containers if name_of(c.pod.owner) == name]
    for old, new in (instead, *((path, str(place)) for path, place in places.items())):
        words = [word.replace(old, new) for word in words] if old else words
    return run(words, places)


def run(words: list[str], places: dict[str, Path]) -> int:
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
        "PYTHONPATH": str(ROOT),
        "SIMSA_DATA_DIR": str(places["/data"]),
    }
    return subprocess.run(words, env=environment, cwd=places["/data"], check=False, timeout=HANG_S).returncode


def test_backups_come_the_oldest_go_and_one_is_restored(places: dict[str, Path]) -> None:
    backups = places["/backups"]
    assert run(["simsa", "db", "upgrade"], places) == 0
    old = [backups / f"simsa-2026-01-01T{number:06}.backup" for number in range(50)]
    for path in old:
        path.write_bytes(b"")
    assert run_recipe("simsa-backup", places) == 0
    kept = sorted(backups.iterdir())
    assert kept[:-1] == old[3:]
    newest = ("simsa-2026-11-28T020000.backup", kept[-1].name)
    assert run_recipe("simsa-restore", places, instead=newest) == 0


def test_a_backup_that_fails_removes_none(places: dict[str, Path]) -> None:
    (places["/data"] / "simsa.db").write_bytes(b"no database at all, and longer than a header would be" * 100)
    old = [places["/backups"] / f"simsa-2026-01-01T{number:06}.backup" for number in range(50)]
    for path in old:
        path.write_bytes(b"")
    assert run_recipe("simsa-backup", places) != 0
    assert sorted(places["/backups"].iterdir()) == old
