"""Every rule over every installation of the chart, under two release names."""

from __future__ import annotations

import network
import pytest
import rights
from charts import Release
from checks import Check, look
from fixtures import CASES, RELEASES, Case, install
from rules import BY_NAME

WHERE_POLICIES_ARE_OFF = {network.every_pod_is_behind_a_policy}


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rule", BY_NAME.values(), ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Check, case: Case, release: Release) -> None:
    if rule in WHERE_POLICIES_ARE_OFF and case.given.get("networkPolicy", {}).get("enabled") is False:
        return
    assert look(rule, install(case, release)).complaints == []


@pytest.mark.parametrize("rule", BY_NAME.values(), ids=lambda rule: rule.__name__)
def test_rule_looked_at_something(rule: Check) -> None:
    """A scanner that sees nothing finds nothing: each rule has met what it is about, in all cases together."""
    assert sum(look(rule, install(case)).looked_at for case in CASES) > 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pods_were_looked_at_in_every_case(case: Case) -> None:
    assert look(rights.runs_as_non_root, install(case)).looked_at >= 1
