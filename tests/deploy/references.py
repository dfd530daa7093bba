"""Whether what pods name is there: Helm sees neither a name that stands twice nor a claim nobody makes.

What a release names is made by it or declared to exist already (`Installation.external`, as Kind/name).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from checks import Check, Finding, Installation
from manifests import Container, Manifest, Pod, identity, name_of, walk

ALWAYS_THERE = frozenset({"ServiceAccount/default"})


# --- what is named ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Mention:
    """One place where an object is named, and, where it says so, which key of it."""

    where: str
    kind: str
    name: str
    key: str | None = None
    is_optional: bool = False

    @property
    def target(self) -> str:
        return f"{self.kind}/{self.name}"


def mentions_of(pod: Pod) -> Iterator[Mention]:
    """Everything a pod needs before its containers start."""
    where = pod.where
    if account := pod.spec.get("serviceAccountName"):
        yield Mention(where, "ServiceAccount", account)
    for secret in pod.spec.get("imagePullSecrets", ()):
        yield Mention(f"{where}: imagePullSecrets", "Secret", secret["name"])
    for volume in pod.spec.get("volumes", ()):
        yield from _mentions_of_volume(f"{where}: volume {volume['name']}", volume)
    for container in pod.containers:
        yield from _mentions_of_environment(container)


def _mentions_of_volume(where: str, volume: Mapping[str, Any]) -> Iterator[Mention]:
    sources = [volume, *volume.get("projected", {}).get("sources", ())]
    for source in sources:
        for kind, block, name in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
            if block not in source:
                continue
            named = source[block].get(name) or source[block]["name"]
            is_optional = bool(source[block].get("optional"))
            keys = [item["key"] for item in source[block].get("items", ())] or [None]
            for key in keys:
                yield Mention(where, kind, named, key, is_optional)
    if claim := volume.get("persistentVolumeClaim"):
        yield Mention(where, "PersistentVolumeClaim", claim["claimName"])


def _mentions_of_environment(container: Container) -> Iterator[Mention]:
    kinds = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}
    for variable in container.spec.get("env", ()):
        for block, kind in kinds.items():
            if source := variable.get("valueFrom", {}).get(block):
                where = f"{container.where}: {variable['name']}"
                yield Mention(where, kind, source["name"], source["key"], bool(source.get("optional")))
    for source in container.spec.get("envFrom", ()):
        for block, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            if block in source:
                optional = bool(source[block].get("optional"))
                yield Mention(f"{container.where}: envFrom", kind, source[block]["name"], None, optional)


def made_by(release: Installation) -> dict[str, Manifest]:
    """What there is once the release is applied, by Kind/name; a Secret of an ExternalSecret by its maker."""
    made = {identity(manifest): manifest for manifest in release.manifests}
    for maker in release.of_kind("ExternalSecret"):
        made["Secret/" + (maker["spec"].get("target", {}).get("name") or name_of(maker))] = maker
    return made


def names_are_used_once(release: Installation) -> Iterator[Finding]:
    times = Counter((m["apiVersion"].partition("/")[0], m["kind"], name_of(m)) for m in release.manifests)
    for (_, kind, name), count in times.items():
        yield f"{kind}/{name}", f"is there {count} times" if count > 1 else None


def named_objects_exist(release: Installation) -> Iterator[Finding]:
    made = made_by(release)
    for mention in _mentions(release):
        is_there = mention.target in made or mention.target in release.external | ALWAYS_THERE
        missing = f"{mention.target} is neither made nor declared to exist"
        yield mention.where, None if is_there or mention.is_optional else missing


def named_keys_exist(release: Installation) -> Iterator[Finding]:
    made = made_by(release)
    for mention in _mentions(release):
        holder = made.get(mention.target)
        if mention.key is not None and holder is not None and not mention.is_optional:
            keys = _keys_of(holder)
            is_there = keys is None or mention.key in keys
            yield mention.where, None if is_there else f"{mention.target} has no key {mention.key}"


def _keys_of(holder: Manifest) -> set[str] | None:
    """None where only the store knows them."""
    if "dataFrom" in holder.get("spec", {}):
        return None
    if holder["kind"] == "ExternalSecret":
        return {item["secretKey"] for item in holder["spec"].get("data", ())}
    return {key for part in ("data", "binaryData", "stringData") for key in holder.get(part) or {}}


def _mentions(release: Installation) -> list[Mention]:
    found = [mention for pod in release.pods for mention in mentions_of(pod)]
    for ingress in release.of_kind("Ingress"):
        found += [
            Mention(identity(ingress), "Secret", entry["secretName"])
            for entry in ingress["spec"].get("tls", ())
            if "secretName" in entry
        ]
    for monitor in release.of_kind("ServiceMonitor", "PodMonitor"):
        for path, value in walk(monitor["spec"]):
            if path and path[-1] in ("credentials", "username", "password") and isinstance(value, Mapping):
                found.append(Mention(identity(monitor), "Secret", value["name"], value.get("key")))
    return found


def what_is_made_is_used(release: Installation) -> Iterator[Finding]:
    """A claim, a ConfigMap or a Secret that no pod names was meant for one that names another."""
    used = {mention.target for mention in _mentions(release)}
    for target, maker in made_by(release).items():
        kind = target.partition("/")[0]
        is_for_others = bool({"grafana_dashboard"} & (maker["metadata"].get("labels") or {}).keys())
        if kind in ("PersistentVolumeClaim", "ConfigMap", "Secret", "ServiceAccount") and not is_for_others:
            yield target, None if target in used else "is made and never used"


def what_is_declared_is_used(release: Installation) -> Iterator[Finding]:
    used = {mention.target for mention in _mentions(release)}
    for target in sorted(release.external):
        yield target, None if target in used else "is declared to exist and never used"


def mounts_meet_volumes(release: Installation) -> Iterator[Finding]:
    for pod in release.pods:
        volumes = {volume["name"] for volume in pod.spec.get("volumes", ())}
        mounts = {mount["name"] for container in pod.containers for mount in container.spec.get("volumeMounts", ())}
        complaints = [f"volume {name} is not there" for name in sorted(mounts - volumes)]
        complaints += [f"volume {name} is mounted nowhere" for name in sorted(volumes - mounts)]
        yield pod.where, "; ".join(complaints) or None


def configuration_is_mounted_whole(release: Installation) -> Iterator[Finding]:
    """A file mounted by subPath never changes in a running pod."""
    for container in release.containers:
        volumes = {volume["name"]: volume for volume in container.pod.spec.get("volumes", ())}
        for mount in container.spec.get("volumeMounts", ()):
            if _holds_configuration(volumes.get(mount["name"], {})):
                where = f"{container.where}: {mount['mountPath']}"
                yield where, "is mounted by subPath" if "subPath" in mount else None


def _holds_configuration(volume: Mapping[str, Any]) -> bool:
    return any("configMap" in source for source in (volume, *volume.get("projected", {}).get("sources", ())))


# --- hooks ------------------------------------------------------------------------------------------------


def early_hooks_stand_alone(release: Installation) -> Iterator[Finding]:
    """What runs before the release's objects are made can name only earlier hooks, and what was there already."""
    made = made_by(release)
    for pod in release.pods:
        if not _hooks(pod.owner) & {"pre-install", "pre-upgrade"}:
            continue
        for mention in mentions_of(pod):
            holder = made.get(mention.target)
            is_there = holder is None or mention.is_optional
            is_earlier = is_there or (_hooks(pod.owner) <= _hooks(holder) and _weight(holder) < _weight(pod.owner))
            yield mention.where, None if is_earlier else f"{mention.target} is made only after this hook has run"


def _hooks(manifest: Manifest) -> set[str]:
    listed = (manifest["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
    return {word.strip() for word in listed.split(",") if word.strip()}


def _weight(manifest: Manifest) -> int:
    return int((manifest["metadata"].get("annotations") or {}).get("helm.sh/hook-weight", "0"))


# --- storage ----------------------------------------------------------------------------------------------


def shared_volumes_can_be_shared(release: Installation) -> Iterator[Finding]:
    """A ReadWriteOnce volume that pods on two nodes mount leaves the second one Pending for ever."""
    for claim in release.of_kind("PersistentVolumeClaim"):
        if set(claim["spec"]["accessModes"]) & {"ReadWriteMany", "ReadOnlyMany"}:
            yield identity(claim), None
            continue
        users = [pod for pod in release.pods if identity(claim) in {mention.target for mention in mentions_of(pod)}]
        lasting = [pod for pod in users if not pod.runs_to_an_end]
        several = [pod.where for pod in lasting if pod.owner["spec"].get("replicas", 1) > 1]
        crowd = several or ([pod.where for pod in lasting] if len(lasting) > 1 else [])
        yield identity(claim), f"is ReadWriteOnce and mounted by several: {crowd}" if crowd else None


RULES: tuple[Check, ...] = (
    names_are_used_once,
    named_objects_exist,
    named_keys_exist,
    what_is_made_is_used,
    what_is_declared_is_used,
    mounts_meet_volumes,
    configuration_is_mounted_whole,
    early_hooks_stand_alone,
    shared_volumes_can_be_shared,
)
