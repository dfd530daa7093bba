"""What the chart makes, written down, so that a change of it is seen in review: `make goldens` writes it anew.

Under two release names, and over the tests' own registry, so that an edit of the shipped one changes nothing here.
What is only carried (the registry, rules, dashboards, scripts) is named, not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from charts import CHART, Release
from fixtures import HERE, OWN_CASES, RELEASES, Case, install

GOLDENS = HERE / "goldens"
LONGEST_TEXT = 400


PAIRS = [
    (case, release)
    for case in OWN_CASES
    for release in RELEASES
    if release is RELEASES[0] or "fullnameOverride" not in case.given
]


@pytest.mark.parametrize(("case", "release"), PAIRS, ids=lambda part: getattr(part, "name", None) or str(part))
def test_golden(case: Case, release: Release, pytestconfig: pytest.Config) -> None:
    path = GOLDENS / f"{case}.{release.name}.yaml"
    made = written(case, release)
    if pytestconfig.getoption("--write-goldens"):
        path.write_text(made, encoding="utf-8")
    assert path.exists(), "run `make goldens`"
    assert path.read_text(encoding="utf-8") == made, "look at the difference, then run `make goldens`"


def test_no_golden_is_left_over() -> None:
    wanted = {f"{case}.{release.name}.yaml" for case, release in PAIRS}
    assert {path.name for path in GOLDENS.glob("*.yaml")} == wanted


def written(case: Case, release: Release) -> str:
    carried = {
        path.read_text(encoding="utf-8"): f"<{path.relative_to(CHART)}>" for path in sorted(CHART.glob("files/*/*"))
    }
    manifests = [_short(manifest, carried) for manifest in install(case, release).manifests]
    return yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True, width=110)


def _short(value: Any, carried: Mapping[str, str], key: str = "") -> Any:
    if isinstance(value, Mapping):
        if "groups" in value and key == "spec":
            return {"groups": f"<{len(value['groups'])} groups of rules>"}
        return {name: _short(inner, carried, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner, carried) for inner in value]
    if isinstance(value, str):
        if value in carried:
            return carried[value]
        return value if len(value) < LONGEST_TEXT else f"<{len(value)} characters>"
    return value
