"""Kubernetes objects as the checks see them: read strictly from a stream of YAML, and the pods that they ask for.

A stream is read as strictly as an API server reads it, and more: a key that stands twice is an error, as is a document
that is no object. Nothing here knows Simsa.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

Manifest = Mapping[str, Any]


class NotAManifest(ValueError):
    """A stream holds something that is no Kubernetes object."""


@dataclass(frozen=True, slots=True)
class Container:
    pod: Pod
    kind: Literal["container", "init container"]
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def where(self) -> str:
        return f"{self.pod.where}: {self.kind} {self.name}"

    @property
    def gpus(self) -> int:
        limits = self.spec.get("resources", {}).get("limits", {})
        return sum(int(amount) for resource, amount in limits.items() if resource.endswith("/gpu"))

    @property
    def security(self) -> Mapping[str, Any]:
        """What holds for the container: its own security context over its pod's."""
        return {**self.pod.spec.get("securityContext", {}), **self.spec.get("securityContext", {})}

    @property
    def words(self) -> list[str]:
        return [str(word) for word in (*self.spec.get("command", ()), *self.spec.get("args", ()))]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that the object `owner` makes. A LeaderWorkerSet makes two kinds of them."""

    owner: Manifest
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    role: str = ""

    @property
    def where(self) -> str:
        return identity(self.owner) + (f" {self.role}" if self.role else "")

    @property
    def containers(self) -> list[Container]:
        kinds: dict[str, Literal["container", "init container"]] = {
            "initContainers": "init container",
            "containers": "container",
        }
        return [Container(self, kind, spec) for key, kind in kinds.items() for spec in self.spec.get(key, ())]

    @property
    def gpus(self) -> int:
        return sum(container.gpus for container in self.containers)

    @property
    def runs_to_an_end(self) -> bool:
        return self.owner["kind"] in ("Job", "CronJob", "Pod")


class _StrictLoader(yaml.CSafeLoader):
    """Refuses a key that stands twice in a mapping, which YAML forbids and PyYAML lets pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise NotAManifest(f"the key {key.value!r} stands twice{key.start_mark}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_StrictLoader.add_constructor(
    "tag:yaml.org,2002:timestamp",
    yaml.CSafeLoader.construct_yaml_str,  # Kubernetes knows no dates either
)


def read_stream(text: str) -> list[Manifest]:
    """The objects of a YAML stream; empty documents are left out. Raises NotAManifest."""
    return [_checked(document) for document in yaml.load_all(text, Loader=_StrictLoader) if document is not None]


def _checked(document: Any) -> Manifest:
    if not isinstance(document, dict):
        raise NotAManifest(f"a document is no mapping: {document!r}")
    missing = [key for key in ("apiVersion", "kind", "metadata") if not document.get(key)]
    if missing or not document["metadata"].get("name"):
        raise NotAManifest(f"an object without {' and '.join(missing) or 'a name'}: {str(document)[:200]}")
    return document


def name_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def identity(manifest: Manifest) -> str:
    """Kind and name, as kubectl writes them."""
    return f"{manifest['kind']}/{name_of(manifest)}"


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def pods(manifests: Sequence[Manifest]) -> list[Pod]:
    return [pod for manifest in manifests for pod in _pods_of(manifest)]


def containers(manifests: Sequence[Manifest]) -> list[Container]:
    return [container for pod in pods(manifests) for container in pod.containers]


def _pods_of(manifest: Manifest) -> Iterator[Pod]:
    spec = manifest.get("spec", {})
    match manifest["kind"]:
        case "Pod":
            yield _pod(manifest, manifest)
        case "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job":
            yield _pod(manifest, spec["template"])
        case "CronJob":
            yield _pod(manifest, spec["jobTemplate"]["spec"]["template"])
        case "LeaderWorkerSet":
            group = spec["leaderWorkerTemplate"]
            for role in ("leader", "worker"):
                if f"{role}Template" in group:
                    yield _pod(manifest, group[f"{role}Template"], role=role)


def _pod(owner: Manifest, template: Mapping[str, Any], *, role: str = "") -> Pod:
    metadata = template.get("metadata") or {}
    return Pod(owner, metadata.get("labels") or {}, metadata.get("annotations") or {}, template["spec"], role)


def is_selected(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    """Whether a label selector of the API takes these labels; an empty one takes all."""
    wanted = selector.get("matchLabels") or {}
    rules = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _is_met(labels.get(rule["key"]), rule["operator"], rule.get("values") or ()) for rule in rules
    )


def _is_met(value: str | None, operator: str, values: Sequence[str]) -> bool:
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            raise NotAManifest(f"no such operator of a label selector: {operator}")


def walk(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value inside, with the keys that lead to it."""
    yield path, value
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from walk(inner, (*path, key))
