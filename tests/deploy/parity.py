"""Whether the registry, the engines that the chart starts and the gateway that must find them say the same.

What an engine's command line should be is taken from the gateway's own code, not from the chart's templates: two
derivations of one file that must agree.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from checks import Check, Finding, Installation
from manifests import Container, Manifest, Pod, identity, is_selected, name_of
from packaging.version import Version
from pydantic import TypeAdapter, ValidationError

from gateway.app import create_app
from gateway.checkpoints import weights_command
from gateway.domain.records import Model, Registry, Replica
from gateway.registry import parse_registry
from gateway.settings import Settings

MODEL_ID = "simsa/model-id"
REGISTRY_KEY, REPLICAS_KEY = "model_registry.yaml", "replicas.yaml"
WORKLOADS = ("Deployment", "LeaderWorkerSet")
PLACE_OPTIONS = {"--host", "--port", "--gpu-memory-utilization", "--shutdown-timeout"}
SPLITTING_OPTIONS = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")
"""What values may say where the registry does not."""
GROUP_OPTIONS = {"--nnodes", "--node-rank", "--master-addr", "--headless"}
FIRST_VLLM_THAT_DRAINS = Version("0.18.0")


# --- what the release says ----------------------------------------------------------------------------------


@cache
def _registry(data: bytes) -> Registry:
    return parse_registry(data, path=REGISTRY_KEY)


def placed(release: Installation) -> list[str]:
    """The models that the values give a place."""
    models = release.values.get("models") or {}
    return sorted(name for name, model in models.items() if model.get("enabled") is not False)


def of_model(release: Installation, kind: str | Sequence[str]) -> dict[str, Manifest]:
    """Objects of a kind by the model that they say to be of."""
    kinds = [kind] if isinstance(kind, str) else kind
    return {
        manifest["metadata"]["annotations"][MODEL_ID]: manifest
        for manifest in release.of_kind(*kinds)
        if MODEL_ID in (manifest["metadata"].get("annotations") or {})
    }


def selecting(release: Installation, kind: str) -> dict[str, list[Manifest]]:
    """Objects of a kind that select engines' pods, by the model of these."""
    found: dict[str, list[Manifest]] = {}
    for manifest in release.of_kind(kind):
        selector = manifest["spec"].get("selector") or {}
        wanted = {"matchLabels": selector} if kind == "Service" else selector
        for model_id in {model_id for model_id, pod in engine_pods(release) if is_selected(pod.labels, wanted)}:
            found.setdefault(model_id, []).append(manifest)
    return found


def engine_pods(release: Installation) -> list[tuple[str, Pod]]:
    """Pods that serve a model, with its id; a group's workers too."""
    return [
        (model_id, pod)
        for model_id, manifest in of_model(release, WORKLOADS).items()
        for pod in release.pods
        if pod.owner is manifest
    ]


def engine_of(pod: Pod) -> Container:
    (container,) = [container for container in pod.containers if container.gpus]
    return container


def option_values(words: Sequence[str]) -> dict[str, str]:
    """`--name value`, `--name=value` and flags as one mapping; the last of several wins, as in vLLM."""
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("-") and not word.lstrip("-")[:1].isdigit():
            name, has_value, value = word.partition("=")
            found[name] = value if has_value else ""
        elif name and found[name] == "":
            found[name] = word
    return found


def gateway_pod(release: Installation) -> Pod:
    (pod,) = [
        pod
        for pod in release.pods
        if pod.owner["kind"] == "Deployment" and pod.labels.get("app.kubernetes.io/component") == "gateway"
    ]
    return pod


def _setting(container: Container, name: str) -> str | None:
    return next((v.get("value") for v in container.spec.get("env", ()) if v["name"] == name), None)


def mounted(pod: Pod, container: Container, path: str, release: Installation) -> bytes | None:
    """The bytes that a container finds at a path, where a ConfigMap of the release holds them."""
    for mount in container.spec.get("volumeMounts", ()):
        directory = mount["mountPath"].rstrip("/")
        if not path.startswith(directory + "/"):
            continue
        volume = next(volume for volume in pod.spec["volumes"] if volume["name"] == mount["name"])
        names = [source["configMap"] for source in volume.get("projected", {}).get("sources", ())]
        names += [volume["configMap"]] if "configMap" in volume else []
        for source in names:
            held = _held(source, release)
            if path.removeprefix(directory + "/") in held:
                return held[path.removeprefix(directory + "/")]
    return None


def _held(source: Mapping[str, Any], release: Installation) -> dict[str, bytes]:
    found = [config for config in release.of_kind("ConfigMap") if name_of(config) == source["name"]]
    if not found:
        return {}
    files = {key: base64.b64decode(value) for key, value in (found[0].get("binaryData") or {}).items()}
    files |= {key: value.encode() for key, value in (found[0].get("data") or {}).items()}
    items = source.get("items")
    return {item["path"]: files[item["key"]] for item in items if item["key"] in files} if items else files


def replicas_file(release: Installation) -> Mapping[str, list[Mapping[str, Any]]]:
    """What the gateway reads besides the registry: where engines are."""
    pod = gateway_pod(release)
    path = _setting(pod.containers[-1], "SIMSA_REPLICAS_FILE")
    data = mounted(pod, pod.containers[-1], path, release) if path else None
    return (yaml.safe_load(data) or {}).get("replicas") or {} if data else {}


# --- the registry -------------------------------------------------------------------------------------------


def registry_travels_byte_for_byte(release: Installation) -> Iterator[Finding]:
    pod = gateway_pod(release)
    for container in pod.containers:
        path = _setting(container, "SIMSA_REGISTRY")
        if path is not None:
            found = mounted(pod, container, path, release)
            where = f"{container.where}: {path}"
            yield where, None if found == release.registry else "is not the registry, byte for byte"


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
    models = _registry(release.registry).models
    yield "the registry", None if models else "has no model"


# --- engines ------------------------------------------------------------------------------------------------


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
    registry = _registry(release.registry)
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
    registry = _registry(release.registry)
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
    registry = _registry(release.registry)
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
    registry = _registry(release.registry)
    jobs = of_model(release, "Job")
    for model_id, pod in engine_pods(release):
        engine = engine_of(pod)
        offline = _setting(engine, "HF_HUB_OFFLINE") == "1"
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
    same = all(pod.spec.get(key) == engine.spec.get(key) for key in ("nodeSelector", "tolerations"))
    yield pod.where, None if same else "may run where its engine cannot, and bind the volume there"


def _claims(pod: Pod) -> set[str]:
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod.spec.get("volumes", ())
        if "persistentVolumeClaim" in volume
    }


# --- how the gateway finds them -----------------------------------------------------------------------------


def gateway_is_told_of_every_engine(release: Installation) -> Iterator[Finding]:
    found, wanted = sorted(replicas_file(release)), sorted(of_model(release, WORKLOADS))
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
    registry = _registry(release.registry)
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
    models = _registry(release.registry).models
    for model_id in of_model(release, WORKLOADS):
        model = models[model_id]
        model = replace(model, replicas=(Replica(id=f"{model_id}/1", model_id=model_id, url="http://engine:8000"),))
        refused = f"has an engine, and the gateway answers {model.serving.reason!r}"
        yield model_id, None if model.is_servable else refused


# --- what the gateway knows ---------------------------------------------------------------------------------


def settings_are_known(release: Installation) -> Iterator[Finding]:
    """A variable that the gateway does not read is a wish that nobody hears."""
    known = {f"SIMSA_{name.upper()}" for name in Settings.model_fields}
    for container in release.containers:
        for variable in container.spec.get("env", ()):
            if variable["name"].startswith("SIMSA_"):
                where = f"{container.where}: {variable['name']}"
                yield where, None if variable["name"] in known else "is no setting"


def settings_are_valid(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        spelt_out = {v["name"]: v["value"] for v in container.spec.get("env", ()) if "value" in v}
        named = {name.removeprefix("SIMSA_").lower(): value for name, value in spelt_out.items()}
        known = {name: value for name, value in named.items() if name in Settings.model_fields}
        if known:
            yield container.where, _objection(known)


def _objection(values: Mapping[str, str]) -> str | None:
    for name, value in values.items():
        field = Settings.model_fields[name]
        try:
            TypeAdapter(Annotated[field.annotation, field]).validate_python(value)
        except ValidationError as error:
            return f"SIMSA_{name.upper()}={value}: {error.errors()[0]['msg']}"
    return None


def doors_asked_for_exist(release: Installation) -> Iterator[Finding]:
    """Each probe and scrape asks a route of the gateway, with parameters that it has."""
    routes = _routes()
    pod = gateway_pod(release)
    for container in pod.containers:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if action := container.spec.get(probe, {}).get("httpGet"):
                yield f"{container.where}: {probe}", _unknown_door(action["path"], routes)
    for monitor in release.of_kind("ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            yield identity(monitor), _unknown_door(endpoint.get("path", "/metrics"), routes)


def _unknown_door(path: str, routes: Mapping[str, set[str]]) -> str | None:
    door, _, query = path.partition("?")
    if door not in routes:
        return f"the gateway has no {door}"
    unknown = {part.partition("=")[0] for part in query.split("&") if part} - routes[door]
    return f"{door} knows no {sorted(unknown)}" if unknown else None


@cache
def _routes() -> Mapping[str, set[str]]:
    """The gateway's GET routes, and which parameters of the query each has."""
    paths = create_app(Settings()).openapi()["paths"]
    return {
        path: {p["name"] for p in operations["get"].get("parameters", ()) if p["in"] == "query"}
        for path, operations in paths.items()
        if "get" in operations
    }


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
    settings_are_known,
    settings_are_valid,
    doors_asked_for_exist,
)
