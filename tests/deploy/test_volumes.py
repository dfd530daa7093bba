"""A volume with weights that is there never asks for less than it did: an API server refuses that.

Its size follows from the registry, where a better figure may make it smaller. Helm looks up what is there; here that is
an API server of the tests' own (api_server.py).
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

ONE_MODEL = next(case for case in OWN_CASES if case.values.stem == "one-model")
MADE = install(ONE_MODEL).manifests
NAME = "simsa-engine-tiny"
COMPUTED = "6Gi"


def volume(size: str) -> Manifest:
    """The volume of `one-model` as a cluster has it, of another size."""
    (made,) = [claim for claim in of_kind(MADE, "PersistentVolumeClaim") if name_of(claim) == NAME]
    spec: dict[str, Any] = {**made["spec"], "resources": {"requests": {"storage": size}}}
    return owned({**made, "spec": spec})


def asked_for(made: tuple[Manifest, ...]) -> str:
    (claim,) = [claim for claim in of_kind(made, "PersistentVolumeClaim") if name_of(claim) == NAME]
    return str(claim["spec"]["resources"]["requests"]["storage"])


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ("76Gi", "76Gi"),
        ("5Gi", COMPUTED),
        ("6Gi", COMPUTED),
        ("6442450945", "6442450945"),
        ("6144Mi", COMPUTED),
        ("6145Mi", "6145Mi"),
        ("7G", "7G"),
        ("6G", COMPUTED),
        ("1Ti", "1Ti"),
        ("1.5Ti", "1.5Ti"),
        ("1T", "1T"),
        ("7e9", "7e9"),
    ],
)
def test_a_larger_volume_stays_as_large(helm: str, there: str, asked: str, tmp_path: Path) -> None:
    with api_server([volume(there)], MADE, tmp_path) as kubeconfig:
        made = render_for(ONE_MODEL.values, kubeconfig, Release(helm=helm), registry=SMALL_REGISTRY)
    assert asked_for(made) == asked


@pytest.mark.parametrize("helm", HELMS)
def test_a_first_install_asks_for_what_the_registry_says(helm: str, tmp_path: Path) -> None:
    with api_server([], MADE, tmp_path) as kubeconfig:
        made = render_for(ONE_MODEL.values, kubeconfig, Release(helm=helm), registry=SMALL_REGISTRY)
    assert asked_for(made) == asked_for(MADE) == COMPUTED


@pytest.mark.parametrize("helm", HELMS)
def test_a_size_in_the_values_is_asked_for_as_it_stands(helm: str, tmp_path: Path) -> None:
    """What somebody wrote is not changed in silence; the API server says that a volume cannot shrink."""
    values = yaml.safe_load(ONE_MODEL.values.read_text(encoding="utf-8"))
    values["models"]["tiny"]["storageGi"] = 12
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with api_server([volume("76Gi")], MADE, tmp_path) as kubeconfig:
        made = render_for(path, kubeconfig, Release(helm=helm), registry=SMALL_REGISTRY)
    assert asked_for(made) == "12Gi"
