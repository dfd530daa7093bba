"""Installations that the chart is tried on: values of the tests' own over a small registry, and every example that the
chart ships over the registry that it ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from charts import CHART, Release, render
from checks import Installation
from deploy_tools import ROOT

HERE = ROOT / "tests" / "deploy"
SHIPPED_REGISTRY = ROOT / "model_registry.yaml"
SMALL_REGISTRY = HERE / "registries" / "small.yaml"
RELEASES = (Release(), Release(name="second-opinion", namespace="review"))
"""The name that everybody takes, and one that no template may count on."""


@dataclass(frozen=True, slots=True)
class Case:
    values: Path
    registry: Path | None
    """None = what is packaged in the chart."""

    def __str__(self) -> str:
        return f"{'ci-' if self.registry is None else ''}{self.values.stem}"

    @property
    def given(self) -> Mapping[str, Any]:
        return yaml.safe_load(self.values.read_text(encoding="utf-8")) or {}

    @property
    def registry_bytes(self) -> bytes:
        return (self.registry or SHIPPED_REGISTRY).read_bytes()


OWN_CASES = tuple(Case(path, SMALL_REGISTRY) for path in sorted((HERE / "values").glob("*.yaml")))
SHIPPED_CASES = tuple(Case(path, None) for path in sorted((CHART / "ci").glob("*.yaml")))
CASES = (*OWN_CASES, *SHIPPED_CASES)


def install(case: Case, release: Release = RELEASES[0], chart: Path = CHART) -> Installation:
    """What the release makes of the case. Raises charts.Refused."""
    rendering = render(case.values, release, registry=case.registry, chart=chart)
    return Installation(
        rendering.manifests,
        name=release.name,
        namespace=release.namespace,
        external=declared(case.given),
        registry=case.registry_bytes,
        values=case.given,
    )


def declared(values: Mapping[str, Any]) -> frozenset[str]:
    """What the values say to be in the cluster already."""
    secrets = values.get("secrets", {})
    claims = [model.get("existingClaim") for model in (values.get("models") or {}).values()]
    tls = values.get("exposure", {}).get("ingress", {}).get("tlsSecret")
    pulled_with = values.get("imagePullSecrets") or []
    trusted = values.get("trustedCa", {}).get("configMap")
    is_made = secrets.get("externalSecret", {}).get("enabled")
    named = [None if is_made else secrets.get("existingSecret"), tls, *pulled_with]
    return frozenset(
        [f"Secret/{name}" for name in named if name]
        + [f"PersistentVolumeClaim/{name}" for name in claims if name]
        + ([f"ConfigMap/{trusted}"] if trusted else [])
    )
