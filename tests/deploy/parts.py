"""Where the parts of this chart's releases are: its gateway, the engines of each model, the files that it carries."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from checks import Installation
from manifests import Container, Manifest, Pod, is_selected, name_of

from gateway.domain.records import Registry
from gateway.registry import parse_registry

MODEL_ID = "simsa/model-id"
REGISTRY_KEY, REPLICAS_KEY = "model_registry.yaml", "replicas.yaml"
WORKLOADS = ("Deployment", "LeaderWorkerSet")


@cache
def registry_of(data: bytes) -> Registry:
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


def setting(container: Container, name: str) -> str | None:
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
    path = setting(pod.containers[-1], "SIMSA_REPLICAS_FILE")
    data = mounted(pod, pod.containers[-1], path, release) if path else None
    return (yaml.safe_load(data) or {}).get("replicas") or {} if data else {}
