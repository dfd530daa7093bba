"""The chart renders under every Helm and Kubernetes it is for, to the same objects, and a server knows them all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import schemas
from charts import HELMS, KUBERNETES, Release, lint, render
from fixtures import CASES, RELEASES, Case

HELM_TIMES_KUBERNETES = [Release(helm=helm, kubernetes=kubernetes) for helm in HELMS for kubernetes in KUBERNETES]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("release", HELM_TIMES_KUBERNETES, ids=str)
def test_lint_finds_nothing(case: Case, release: Release) -> None:
    assert "0 chart(s) failed" in lint(case.values, release, registry=case.registry)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_a_server_knows_every_key_of_every_object(case: Case, kubernetes: str) -> None:
    rendering = render(case.values, Release(kubernetes=kubernetes), registry=case.registry)
    assert len(rendering.manifests) > 5
    assert schemas.objections(rendering.manifests, kubernetes) == []


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_both_helms_make_the_same_of_it(case: Case, kubernetes: str) -> None:
    made = [
        render(case.values, Release(helm=helm, kubernetes=kubernetes), registry=case.registry).manifests
        for helm in HELMS
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rendering_twice_gives_the_same_bytes(case: Case) -> None:
    """Nothing random and no clock: else every `helm upgrade` restarts pods."""
    first = render(case.values, RELEASES[0], registry=case.registry)
    again = render.__wrapped__(case.values, RELEASES[0], registry=case.registry)
    assert first.text == again.text


def test_a_kubernetes_that_is_too_old_is_refused() -> None:
    from charts import Refused

    with pytest.raises(Refused, match="incompatible"):
        render(CASES[0].values, replace(RELEASES[0], kubernetes="1.31"), registry=CASES[0].registry)
