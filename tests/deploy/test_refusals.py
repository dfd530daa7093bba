"""What the chart refuses to render, each with the words that tell an operator what to do.

A values file that is wrong must fail here, on a laptop, and not as a pod that is Pending on Friday night. Each fault
stands alone over values that render.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from charts import HELMS, Refused, Release, render_text
from fixtures import HERE, SMALL_REGISTRY

GOOD = HERE / "values" / "one-model.yaml"


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    values: str
    """Put over values that render."""
    words: tuple[str, ...]
    """All of them must be in the error."""
    base: Path = GOOD
    registry: str | None = None
    release: Release = Release()  # noqa: RUF009

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def registry_in(self, directory: Path) -> Path:
        """The small registry, or an edited copy of it: `registry` is what to replace, >, and by what."""
        if self.registry is None:
            return SMALL_REGISTRY
        old, new = self.registry.split(">", 1)
        text = SMALL_REGISTRY.read_text(encoding="utf-8")
        assert old in text
        edited = directory / "registry.yaml"
        edited.write_text(text.replace(old, new), encoding="utf-8")
        return edited


FAULTS = (
    # --- models and their places
    Fault("a model that the registry has not", "models: {tinny: {gpu: h100-sxm}}", ("models.tinny", "no such model", "tiny")),
    Fault("a model of a hosted API", "models: {hosted: {gpu: h100-sxm}}", ("models.hosted", "openai_api")),
    Fault("a model that nothing serves", "models: {nowhere: {gpu: h100-sxm}}", ("models.nowhere", "No engine serves it")),
    Fault("a model without weights", "models: {bodiless: {gpu: h100-sxm}}", ("models.bodiless", "weights.repo")),
    Fault("a model that needs a plugin", "models: {plugged: {gpu: h100-sxm}}", ("models.plugged.image", "plugin")),
    Fault("a GPU that the registry has not", "models: {tiny: {gpu: h100}}", ("models.tiny.gpu", "h100-sxm")),
    Fault("a GPU without a place", "models: {tiny: {gpu: l4}}", ("models.tiny.gpu", "gpus.l4", "gpus: {l4: {}}")),
    Fault("a model without a place", "models: {tiny: {gpu: null}}", ("gpu",)),
    Fault("no model at all", "models: null", ("no engine would run", "hostedApisOnly")),
    Fault("engines beside hosted APIs only", "hostedApisOnly: true", ("hostedApisOnly", "models places some")),
    Fault("a model that its GPU cannot hold", "models: {wide: {gpu: h100-sxm}, tiny: null}\nleaderWorkerSet: {enabled: true}", ("models.wide",), registry="size: 600 GB>size: 6000 GB"),
    Fault("GPUs restated", "models: {Big.Model-72B-Instruct: {gpu: h100-sxm, gpus: 4}}", ("gpus", "the registry's arguments")),
    Fault("GPUs that do not divide", "models: {Big.Model-72B-Instruct: {gpu: h100-sxm, nodes: 3}}\nleaderWorkerSet: {enabled: true}", ("nodes", "do not divide by 3")),
    Fault("several nodes without the operator", "models: {wide: {gpu: h100-sxm, nodes: 2}}\nengines: {storage: {accessMode: ReadWriteMany}}", ("models.wide.nodes", "leaderWorkerSet.enabled")),
    Fault("two engines on one volume", "models: {tiny: {replicas: 2}}", ("models.tiny", "ReadWriteOnce", "ReadWriteMany")),
    Fault("weights of unknown size", "models: {unsized: {gpu: h100-sxm}}", ("models.unsized.storageGi",)),
    Fault("a scaler without series", "models: {tiny: {scaling: {maxReplicas: 1}}}", ("models.tiny.scaling", "monitoring.enabled")),
    Fault("a scaler without Prometheus", "models: {tiny: {scaling: {maxReplicas: 1}}}\nmonitoring: {enabled: true}", ("models.tiny.scaling", "prometheusUrl")),
    Fault("a scaler of two on one volume", "models: {tiny: {scaling: {maxReplicas: 2}}}\nmonitoring: {enabled: true, prometheusUrl: 'http://p:9090'}", ("models.tiny", "ReadWriteOnce")),
    Fault("an engine too old for its model", "engines: {vllm: 0.31.0}", ("models.tiny", "0.32.0 or newer", "engines.vllm"), registry="{kind: vllm, startup_s: 90}>{kind: vllm, min_vllm: '0.32.0'}"),
    Fault("two models of one name", "models: {'big_model.72b-instruct': {gpu: h100-sxm}, Big.Model-72B-Instruct: {gpu: h100-sxm}}", ("names",), registry="id: elder>id: big_model.72b-instruct"),
    # --- facts that stand in the registry
    Fault("a restated served name", "models: {tiny: {served_model_name: x}}", ("served_model_name",)),
    Fault("restated arguments", "models: {tiny: {args: [--max-model-len, '1']}}", ("args",)),
    Fault("a restated revision", "models: {tiny: {revision: main}}", ("revision",)),
    # --- the registry
    Fault("a registry that is no YAML", "{}", ("registryYaml", "cannot be read"), registry="models:>models: ["),
    Fault("a registry without models", "{}", ("registryYaml", "no list of models"), registry="models:>candidates:"),
    # --- gateways
    Fault("several gateways without Redis", "gateway: {replicas: 2}\npostgresql: {enabled: true}", ("gateway.replicas", "redis.enabled")),
    Fault("several gateways without PostgreSQL", "gateway: {replicas: 2}\nredis: {enabled: true}", ("gateway.replicas", "postgresql.enabled")),
    Fault("scaled gateways without both", "gateway: {scaling: {enabled: true}}", ("gateway.scaling", "postgresql.enabled", "redis.enabled")),
    Fault("less at most than at least", "gateway: {scaling: {enabled: true, minReplicas: 4, maxReplicas: 3}}\npostgresql: {enabled: true}\nredis: {enabled: true}", ("minReplicas", "maxReplicas")),
    Fault("no secret", "secrets: {existingSecret: ''}", ("secrets.existingSecret", "SIMSA_ADMIN_KEY")),
    Fault("two secrets", "secrets: {externalSecret: {enabled: true, store: {name: s}, remoteKey: k}}", ("either existingSecret or externalSecret",)),
    Fault("an external secret of no store", "secrets: {existingSecret: '', externalSecret: {enabled: true, remoteKey: k}}", ("externalSecret.store.name",)),
    Fault("an external secret of no entry", "secrets: {existingSecret: '', externalSecret: {enabled: true, store: {name: s}}}", ("externalSecret.remoteKey",)),
    Fault("a secret among settings", "gateway: {settings: {SIMSA_ADMIN_KEY: hunter2}}", ("SIMSA_ADMIN_KEY", "secret")),
    Fault("a setting that the chart sets", "gateway: {settings: {SIMSA_PORT: 9000}}", ("SIMSA_PORT", "leave it out")),
    Fault("a setting that is none", "gateway: {settings: {LOG_LEVEL: INFO}}", ("LOG_LEVEL",)),
    # --- images
    Fault("the latest gateway", "gateway: {image: {tag: latest}}", ("gateway.image.tag", "latest")),
    Fault("the latest engine", "engines: {vllm: latest}", ("vllm",)),
    Fault("the latest plugin image", "models: {plugged: {gpu: h100-sxm, image: {repository: a, tag: latest}}}", ("models.plugged.image.tag", "latest")),
    Fault("a digest that is none", "gateway: {image: {digest: 'sha256:abc'}}", ("digest",)),
    # --- ways in
    Fault("an unknown way in", "exposure: {kind: loadBalancer}", ("exposure", "kind")),
    Fault("an ingress without a host", "exposure: {kind: ingress}", ("exposure.host",)),
    Fault("a route without a host", "exposure: {kind: httpRoute, httpRoute: {gateway: g}}", ("exposure.host",)),
    Fault("a route without a gateway", "exposure: {kind: httpRoute, host: simsa.example.org}", ("exposure.httpRoute.gateway",)),
    # --- the rest
    Fault("a load test without a plan", "loadtest: {enabled: true}", ("loadtest.plan", "--set-file")),
    Fault("a name that no Service may have", "{}", ("begins with no letter", "fullnameOverride"), release=Release(name="2nd")),
    Fault("a Service called vllm", "fullnameOverride: vllm", ("vllm", "VLLM_PORT")),
    Fault("a word that is no key", "gatway: {}", ("gatway",)),
    Fault("replicas in words", "gateway: {replicas: two}", ("replicas",)),
    Fault("a replica less than none", "models: {tiny: {replicas: -1}}", ("replicas",)),
)  # fmt: skip


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault_is_refused_with_what_to_do(fault: Fault, helm: str, tmp_path: Path) -> None:
    release = Release(name=fault.release.name, helm=helm)
    with pytest.raises(Refused) as refusal:
        render_text(fault.values, release, base=fault.base, registry=fault.registry_in(tmp_path))
    said = re.sub(r"\s+", " ", str(refusal.value))
    assert [word for word in fault.words if word not in said] == [], said


def test_what_the_faults_are_put_over_renders() -> None:
    assert render_text("{}", base=GOOD, registry=SMALL_REGISTRY)


def test_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
