"""Whether an API server would know every key and value of an object: Kubernetes' own schemas, strict, by version; the
published models of custom resources; and strict schemas of the few kinds that nobody publishes as a package.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import cache
from typing import Any

import jsonschema_rs
import yaml
from crd_models import PACKAGES
from deploy_tools import ROOT, crd_python, library
from guards import HANG_S
from manifests import Manifest, identity

HERE = ROOT / "tests" / "deploy"
OWN_SCHEMAS = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "httproute.yaml",
    ("external-secrets.io/v1", "ExternalSecret"): "externalsecret.yaml",
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"): "leaderworkerset.yaml",
}


def is_modelled(manifest: Manifest) -> bool:
    """Whether a published model is its judge, and no schema."""
    return str(manifest["apiVersion"]).partition("/")[0] in PACKAGES


def schema_objections(manifests: Sequence[Manifest], kubernetes: str) -> list[str]:
    """What schemas hold against the objects. One that no schema knows is an objection, unless it has a model."""
    judged = [manifest for manifest in manifests if not is_modelled(manifest)]
    return [complaint for manifest in judged for complaint in _by_schema(manifest, kubernetes)]


def model_objections(manifests: Sequence[Manifest]) -> dict[str, list[str]]:
    """What published models hold against each object that they are of, by its JSON. Loading them takes seconds."""
    judged = sorted({canonical(manifest) for manifest in manifests if is_modelled(manifest)})
    done = subprocess.run(
        [crd_python(), HERE / "crd_models.py"],
        input=f"[{','.join(judged)}]",
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(judged, json.loads(done.stdout), strict=True))


def canonical(manifest: Manifest) -> str:
    return json.dumps(manifest, sort_keys=True)


def _by_schema(manifest: Manifest, kubernetes: str) -> list[str]:
    own = OWN_SCHEMAS.get((manifest["apiVersion"], manifest["kind"]))
    if own is None:
        return list(_by_kubernetes(canonical(manifest), kubernetes))
    found = [
        f"{identity(manifest)}: {'.'.join(map(str, error.instance_path))}: {error.message}"
        for error in _own_validator(own).iter_errors(manifest)
    ]
    return found + [c for template in _templates(manifest) for c in _by_kubernetes(canonical(template), kubernetes)]


@cache
def _own_validator(file: str) -> Any:
    return jsonschema_rs.validator_for(yaml.safe_load((HERE / "crd_schemas" / file).read_text(encoding="utf-8")))


def _templates(manifest: Manifest) -> list[Manifest]:
    """Pods inside a custom resource, as objects that Kubernetes' own schemas know."""
    group = manifest["spec"].get("leaderWorkerTemplate", {})
    return [
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": f"{identity(manifest)}"}, "template": template}
        for template in (group.get("leaderTemplate"), group.get("workerTemplate"))
        if template
    ]


@cache
def _by_kubernetes(manifest: str, kubernetes: str) -> tuple[str, ...]:
    validate = library("kubernetes_validate")
    value = json.loads(manifest)
    try:
        validate.validate(value, kubernetes, strict=True)
    except validate.ValidationError as error:
        return (f"{identity(value)} on Kubernetes {kubernetes}: {'.'.join(map(str, error.path))}: {error.message}",)
    except validate.SchemaNotFoundError as error:
        return (f"{identity(value)}: {error.message}",)
    return ()
