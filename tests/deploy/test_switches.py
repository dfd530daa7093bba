"""What an upgrade that switches scaling on leaves as it is: the number of pods that run.

Helm looks up what is there; here that is an API server of the tests' own (api_server.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import api_server, owned
from charts import HELMS, Release, render_for
from fixtures import OWN_CASES, SMALL_REGISTRY, install
from manifests import Manifest, name_of, of_kind

EVERYTHING = next(case for case in OWN_CASES if case.values.stem == "everything")
MADE = install(EVERYTHING).manifests
GATEWAY, TINY, WIDE = "judging", "judging-engine-tiny", "judging-engine-wide"


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """`everything`, where an engine over several nodes is scaled too."""
    values = yaml.safe_load(EVERYTHING.values.read_text(encoding="utf-8"))
    values["models"]["wide"]["scaling"] = {"minReplicas": 2, "maxReplicas": 4}
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def running(**numbers: int) -> list[Manifest]:
    """The workloads of `everything` as a cluster has them, with so many pods."""
    found: list[Any] = of_kind(MADE, "Deployment", "LeaderWorkerSet")
    return [
        owned({**made, "spec": {**made["spec"], "replicas": numbers[key]}})
        for key, name in (("gateway", GATEWAY), ("tiny", TINY), ("wide", WIDE))
        for made in found
        if name_of(made) == name and key in numbers
    ]


def replicas(made: tuple[Manifest, ...]) -> dict[str, int | None]:
    workloads = of_kind(made, "Deployment", "LeaderWorkerSet")
    return {name_of(one): one["spec"].get("replicas") for one in workloads if name_of(one) in (GATEWAY, TINY, WIDE)}


@pytest.mark.parametrize("helm", HELMS)
def test_what_runs_goes_on_when_scaling_is_switched_on(helm: str, scaled: Path, tmp_path: Path) -> None:
    with api_server(running(gateway=5, tiny=3, wide=3), MADE, tmp_path) as kubeconfig:
        made = render_for(scaled, kubeconfig, Release(helm=helm), registry=SMALL_REGISTRY)
    assert replicas(made) == {GATEWAY: 5, TINY: 3, WIDE: 3}


@pytest.mark.parametrize("helm", HELMS)
def test_what_was_stopped_begins_with_the_least(helm: str, scaled: Path, tmp_path: Path) -> None:
    """An HPA leaves alone what has no pods, and KEDA what it never scaled."""
    with api_server(running(gateway=0, tiny=0, wide=0), MADE, tmp_path) as kubeconfig:
        made = render_for(scaled, kubeconfig, Release(helm=helm), registry=SMALL_REGISTRY)
    assert replicas(made) == {GATEWAY: 2, TINY: 1, WIDE: 2}


@pytest.mark.parametrize("helm", HELMS)
def test_a_first_install_leaves_the_number_to_the_scaler(helm: str, scaled: Path, tmp_path: Path) -> None:
    with api_server([], MADE, tmp_path) as kubeconfig:
        made = render_for(scaled, kubeconfig, Release(helm=helm), registry=SMALL_REGISTRY)
    assert replicas(made) == {GATEWAY: None, TINY: None, WIDE: None}
