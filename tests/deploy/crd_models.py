"""What the published models of custom resources object to; run by .deploy-tools/crds/bin/python, which has them.

Reads a JSON list of objects, writes a JSON list of objections for each. The models take unknown keys in silence, so
what comes out of them is compared with what went in: a key that is gone was never known.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

PACKAGES = {
    "monitoring.coreos.com": "cloudcoil.models.prometheus_operator",
    "keda.sh": "cloudcoil.models.keda",
}
YOUNGER = {("ScaledObject", ".spec.fallback.behavior")}  # KEDA 2.17; the newest models for this Python are of 2.16


def objections(manifest: dict[str, Any]) -> list[str]:
    group, _, version = manifest["apiVersion"].partition("/")
    try:
        model = getattr(import_module(f"{PACKAGES[group]}.{version}"), manifest["kind"])
        parsed = model.model_validate(manifest)
    except ValueError as error:
        return [str(error)]
    known = parsed.model_dump(mode="json", by_alias=True, exclude_unset=True)
    gone = lost(manifest, known, "")
    return [f"{path}: no such key" for path in gone if (manifest["kind"], path) not in YOUNGER]


def lost(given: Any, known: Any, path: str) -> list[str]:
    """The paths of keys of `given` that are not in `known`."""
    if isinstance(given, dict) and isinstance(known, dict):
        return [
            found
            for key, value in given.items()
            for found in (lost(value, known[key], f"{path}.{key}") if key in known else [f"{path}.{key}"])
        ]
    if isinstance(given, list) and isinstance(known, list):
        return [
            found for n, (a, b) in enumerate(zip(given, known, strict=True)) for found in lost(a, b, f"{path}[{n}]")
        ]
    return []


if __name__ == "__main__":
    json.dump([objections(manifest) for manifest in json.load(sys.stdin)], sys.stdout)
