"""The chart renders under every Helm and Kubernetes it is for, to the same objects, and a server knows them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import schemas
from charts import HELMS, KUBERNETES, Refused, Release, lint, render
from fixtures import CASES, RELEASES, Case
from manifests import Manifest

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
    assert schemas.schema_objections(rendering.manifests, kubernetes) == []


MODELLED_KINDS = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject"}
SPOILT_OBJECTS = {
    "Deployment": {"spec": {"template": {"spec": {"enableServiceLink": False}}}},
    "NetworkPolicy": {"spec": {"ingres": []}},
    "HTTPRoute": {"spec": {"hostname": "simsa.example.org"}},
    "LeaderWorkerSet": {"spec": {"leaderWorkerTemplate": {"workerTemplate": {"spec": {"hostname": 1}}}}},
    "ExternalSecret": {"spec": {"refresh": "1h"}},
    "ServiceMonitor": {"spec": {"endpoint": []}},
    "PodMonitor": {"spec": {"podMetricsEndpoints": [{"ports": "http"}]}},
    "PrometheusRule": {"spec": {"groups": [{"name": "a", "rule": []}]}},
    "ScaledObject": {"spec": {"maxReplicas": 3}},
}
"""A key that nobody knows, or a value of a wrong kind, for each kind of object that has another judge."""


def test_operators_know_every_key_of_their_objects(made: Sequence[Manifest], judged: Mapping[str, list[str]]) -> None:
    modelled = [manifest for manifest in made if schemas.is_modelled(manifest)]
    assert {manifest["kind"] for manifest in modelled} == {
        "ServiceMonitor",
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
    }
    assert [complaint for manifest in modelled for complaint in judged[schemas.canonical(manifest)]] == []


@pytest.mark.parametrize("kind", SPOILT_OBJECTS)
def test_judges_object_to_what_nobody_knows(
    kind: str, made: Sequence[Manifest], judged: Mapping[str, list[str]]
) -> None:
    spoilt = spoilt_object(made, kind)
    found = judged[schemas.canonical(spoilt)] if schemas.is_modelled(spoilt) else []
    assert [*found, *schemas.schema_objections([spoilt], KUBERNETES[0])] != []


@pytest.fixture(scope="session")
def made() -> list[Manifest]:
    """Every object of every case."""
    return [manifest for case in CASES for manifest in render(case.values, registry=case.registry).manifests]


@pytest.fixture(scope="session")
def judged(made: Sequence[Manifest]) -> Mapping[str, list[str]]:
    """What the published models say of all of them, and of spoilt ones."""
    return schemas.model_objections([*made, *(spoilt_object(made, kind) for kind in SPOILT_OBJECTS)])


def spoilt_object(made: Sequence[Manifest], kind: str) -> Manifest:
    good = next(manifest for manifest in made if manifest["kind"] == kind)
    spoilt: Manifest = merged(good, SPOILT_OBJECTS[kind])
    return spoilt


def merged(value: Any, change: Any) -> Any:
    """The value with the change put over it, key by key; a list takes the place of another."""
    if not isinstance(value, Mapping) or not isinstance(change, Mapping):
        return change
    return {**value, **{key: merged(value.get(key), inner) for key, inner in change.items()}}


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
    with pytest.raises(Refused, match="incompatible"):
        render(CASES[0].values, replace(RELEASES[0], kubernetes="1.31"), registry=CASES[0].registry)
