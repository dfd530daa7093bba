"""Whether the registry, the engines that the chart starts and the gateway that must find them say the same.

What an engine's command line should be is taken from the gateway's own code, not from the chart's templates: two
derivations of one file that must agree.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from checks import Check, Finding, Installation
from manifests import Container, Manifest, Pod, identity, name_of
from packaging.version import Version
from parts import (
    REGISTRY_KEY,
    WORKLOADS,
    engine_of,
    engine_pods,
    gateway_pod,
    mounted,
    of_model,
    option_values,
    placed,
    registry_of,
    replicas_file,
    selecting,
    setting,
)

from gateway.checkpoints import weights_command
from gateway.domain.records import Model, Replica

PLACE_OPTIONS = {"--host", "--port", "--gpu-memory-utilization", "--shutdown-timeout"}
SPLITTING_OPTIONS = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")
"""What values may say where the registry does not."""
GROUP_OPTIONS = {"--nnodes", "--node-rank", "--master-addr", "--headless"}
MANY_TRIES = 1000
"""At five minutes a try, as they are after the first few: three days without the hub."""
FIRST_VLLM_THAT_DRAINS = Version("0.18.0")


# --- the registry -----------------------------------------------------------------------------------------


def registry_travels_byte_for_byte(release: Installation) -> Iterator[Finding]:
    pod = gateway_pod(release)
    container = pod.containers[-1]
    path = setting(container, "SIMSA_REGISTRY")
    found = mounted(pod, container, path, release) if path else None
    yield f"{container.where}: {path}", None if found == release.registry else "is not the registry, byte for byte"


def registry_is_marked_with_its_hash(release: Installation) -> Iterator[Finding]:
    expected = hashlib.sha256(release.registry).hexdigest()
    for config in release.of_kind("ConfigMap"):
        if REGISTRY_KEY in (config.get("binaryData") or {}):
            marks = (config["metadata"].get("annotations") or {}).values()
            yield identity(config), None if expected in marks else f"no annotation is {expected}"


def pods_outlive_a_new_registry(release: Installation) -> Iterator[Finding]:
    """The gateway reloads it; its hash on a pod template would restart gateways and end streams for every edit."""
    expected = hashlib.sha256(release.registry).hexdigest()
    for pod in release.pods:
        if not pod.runs_to_an_end:
            yield pod.where, "carries the registry's hash" if expected[:8] in str((pod.annotations, pod.spec)) else None


def gateway_loads_what_travels(release: Installation) -> Iterator[Finding]:
    models = registry_of(release.registry).models
    yield "the registry", None if models else "has no model"


# --- engines ----------------------------------------------------------------------------------------------


def each_placed_model_has_its_objects(release: Installation) -> Iterator[Finding]:
    models = release.values.get("models") or {}
    stored = [name for name in placed(release) if not models[name].get("existingClaim")]
    fetched = [name for name in stored if models[name].get("replicas") != 0]
    for kinds, wanted in ((WORKLOADS, placed(release)), (("PersistentVolumeClaim",), stored), (("Job",), fetched)):
        found = sorted(of_model(release, kinds))
        yield " or ".join(kinds), None if found == wanted else f"there are {found} for the models {wanted}"
    for kind in ("Service", "PodDisruptionBudget"):
        selected = sorted(model_id for model_id, made in selecting(release, kind).items() for _ in made)
        yield kind, None if selected == placed(release) else f"there are {selected} for the models {placed(release)}"


def engine_is_called_as_the_registry_says(release: Installation) -> Iterator[Finding]:
    """The same arguments that `simsa up` would give it, but for where it listens and how it shares a machine."""
    registry = registry_of(release.registry)
    for model_id, pod in engine_pods(release):
        model = registry.models[model_id]
        given = option_values(engine_of(pod).words)
        if model.weights.repo in engine_of(pod).words:
            given["--model"] = model.weights.repo or ""
        expected = option_values(weights_command(Path("python"), model, port=8000, memory_share=0.9)[3:])
        differing = {
            key: (given.get(key), expected.get(key))
            for key in given.keys() | expected.keys()
            if key not in PLACE_OPTIONS | GROUP_OPTIONS | ({*SPLITTING_OPTIONS} - expected.keys())
            and given.get(key) != expected.get(key)
        }
        yield pod.where, f"(chart, gateway) differ: {differing}" if differing else None


def engine_has_the_gpus_that_its_arguments_split(release: Installation) -> Iterator[Finding]:
    for model_id, pod in engine_pods(release):
        options = option_values(engine_of(pod).words)
        wanted = math.prod(int(options.get(name, 1)) for name in SPLITTING_OPTIONS)
        nodes = pod.owner["spec"].get("leaderWorkerTemplate", {}).get("size", 1)
        found = pod.gpus * nodes
        yield f"{pod.where} ({model_id})", None if found == wanted else f"{found} GPUs for {wanted} parts of the model"


def engine_image_is_within_the_bounds(release: Installation) -> Iterator[Finding]:
    registry = registry_of(release.registry)
    for model_id, pod in engine_pods(release):
        serving = registry.models[model_id].serving
        found = _version(engine_of(pod))
        is_old_enough = serving.max_vllm is None or found <= Version(serving.max_vllm)
        is_new_enough = serving.min_vllm is None or found >= Version(serving.min_vllm)
        bounds = f"{serving.min_vllm or ''} to {serving.max_vllm or ''}"
        yield pod.where, None if is_old_enough and is_new_enough else f"vLLM {found} is not within {bounds}"


def engine_is_told_to_drain(release: Installation) -> Iterator[Finding]:
    """By its option where its version has it; an older one ends what it generates, so it must wait first."""
    for _, pod in engine_pods(release):
        if pod.role == "worker":
            continue
        drains = "--shutdown-timeout" in option_values(engine_of(pod).words)
        knows = _version(engine_of(pod)) >= FIRST_VLLM_THAT_DRAINS
        yield pod.where, None if drains == knows else f"--shutdown-timeout is {'' if drains else 'not '}given"


def _version(container: Container) -> Version:
    """As the image's tag begins: a vendor's may go on after it."""
    tag = str(container.spec["image"]).partition("@")[0].rpartition(":")[2]
    return Version(tag.removeprefix("v").partition("-")[0])


def startup_budget_covers_the_start(release: Installation) -> Iterator[Finding]:
    """A probe that gives up before the weights are loaded ends every start there will ever be."""
    registry = registry_of(release.registry)
    for model_id, pod in engine_pods(release):
        if pod.role == "worker":
            continue
        probe = engine_of(pod).spec.get("startupProbe", {})
        budget_s = probe.get("failureThreshold", 0) * probe.get("periodSeconds", 0)
        known_s = getattr(registry.models[model_id].serving, "startup_s", None)
        wanted_s = 600.0 if known_s is None else 1.5 * float(known_s)
        yield pod.where, None if budget_s >= wanted_s else f"{budget_s} s to start, where it needs {wanted_s:g} s"


def engine_waits_long_enough_for_its_rollout(release: Installation) -> Iterator[Finding]:
    for _, pod in engine_pods(release):
        if pod.owner["kind"] == "Deployment":
            probe = engine_of(pod).spec.get("startupProbe", {})
            budget_s = probe.get("failureThreshold", 0) * probe.get("periodSeconds", 0)
            deadline_s = pod.owner["spec"].get("progressDeadlineSeconds", 600)
            is_long = deadline_s > budget_s
            yield identity(pod.owner), None if is_long else f"its rollout fails after {deadline_s} s of {budget_s} s"


def weights_are_fetched_once_and_then_offline(release: Installation) -> Iterator[Finding]:
    registry = registry_of(release.registry)
    jobs = of_model(release, "Job")
    for model_id, pod in engine_pods(release):
        engine = engine_of(pod)
        offline = setting(engine, "HF_HUB_OFFLINE") == "1"
        yield engine.where, None if offline else "may ask the hub: HF_HUB_OFFLINE is not 1"
        is_safe = all(mount.get("readOnly") for mount in engine.spec["volumeMounts"] if mount["name"] == "weights")
        yield engine.where, None if is_safe else "may write where its weights are"
        if model_id in jobs:
            yield from _fetches(jobs[model_id], registry.models[model_id], pod, release)


def _fetches(job: Manifest, model: Model, engine: Pod, release: Installation) -> Iterator[Finding]:
    (pod,) = [pod for pod in release.pods if pod.owner is job]
    words = [word for container in pod.containers for word in container.words]
    wanted = [word for word in (model.weights.repo, model.weights.revision) if word]
    missing = [word for word in wanted if word not in words]
    yield pod.where, f"does not fetch {missing}" if missing else None
    yield pod.where, None if _claims(pod) & _claims(engine) else "fetches to a volume that its engine does not mount"
    tries = job["spec"].get("backoffLimit", 6)
    yield pod.where, None if tries >= MANY_TRIES else f"is given up for good after {tries} tries"
    same = all(pod.spec.get(key) == engine.spec.get(key) for key in ("nodeSelector", "tolerations"))
    yield pod.where, None if same else "may run where its engine cannot, and bind the volume there"


def _claims(pod: Pod) -> set[str]:
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod.spec.get("volumes", ())
        if "persistentVolumeClaim" in volume
    }


# --- how the gateway finds them ---------------------------------------------------------------------------


def gateway_is_told_of_every_engine(release: Installation) -> Iterator[Finding]:
    """Of each that runs: one without replicas would be a model that it misses for ever."""
    workloads = of_model(release, WORKLOADS)
    running = [model_id for model_id, workload in workloads.items() if workload["spec"].get("replicas") != 0]
    found, wanted = sorted(replicas_file(release)), sorted(running)
    yield "the file of replicas", None if found == wanted else f"names {found}, where engines serve {wanted}"


def replicas_lead_to_engines(release: Installation) -> Iterator[Finding]:
    """A headless name resolves to pods, so the port must be the container's, whatever the Service's own is."""
    services = selecting(release, "Service")
    domain = release.values.get("clusterDomain", "cluster.local")
    for model_id, entries in replicas_file(release).items():
        for entry in entries:
            where = f"replicas of {model_id}"
            if model_id not in services:
                yield where, "no Service is the model's"
                continue
            service = services[model_id][0]
            host = f"{name_of(service)}.{release.namespace}.svc.{domain}"
            yield where, None if entry["dns"] in (host, host + ".") else f"{entry['dns']} is not {host}"
            yield where, None if service["spec"].get("clusterIP") == "None" else "its Service hides the replicas"
            ports = {
                port["containerPort"]
                for owner, pod in engine_pods(release)
                if owner == model_id
                for port in engine_of(pod).spec.get("ports", ())
            }
            yield where, None if {entry["port"]} == ports else f"port {entry['port']}, where engines have {ports}"


def replicas_say_which_gpus(release: Installation) -> Iterator[Finding]:
    registry = registry_of(release.registry)
    for model_id, entries in replicas_file(release).items():
        for entry in entries:
            where = f"replicas of {model_id}"
            yield where, None if entry.get("gpu") in registry.gpus else f"no GPU {entry.get('gpu')} in the registry"
            gpus = [
                pod.gpus * pod.owner["spec"].get("leaderWorkerTemplate", {}).get("size", 1)
                for owner, pod in engine_pods(release)
                if owner == model_id
            ]
            yield where, None if set(gpus) == {entry.get("gpus", 1)} else f"{entry.get('gpus')} GPUs for {set(gpus)}"


def gateway_would_route_to_every_engine(release: Installation) -> Iterator[Finding]:
    """By its own rules: a model that it refuses to route to burns its GPU for nothing."""
    models = registry_of(release.registry).models
    for model_id in of_model(release, WORKLOADS):
        model = models[model_id]
        model = replace(model, replicas=(Replica(id=f"{model_id}/1", model_id=model_id, url="http://engine:8000"),))
        refused = f"has an engine, and the gateway answers {model.serving.reason!r}"
        yield model_id, None if model.is_servable else refused


RULES: tuple[Check, ...] = (
    registry_travels_byte_for_byte,
    registry_is_marked_with_its_hash,
    pods_outlive_a_new_registry,
    gateway_loads_what_travels,
    each_placed_model_has_its_objects,
    engine_is_called_as_the_registry_says,
    engine_has_the_gpus_that_its_arguments_split,
    engine_image_is_within_the_bounds,
    engine_is_told_to_drain,
    startup_budget_covers_the_start,
    engine_waits_long_enough_for_its_rollout,
    weights_are_fetched_once_and_then_offline,
    gateway_is_told_of_every_engine,
    replicas_lead_to_engines,
    replicas_say_which_gpus,
    gateway_would_route_to_every_engine,
)
