"""Whether objects that name each other meet: Helm sees neither a name that stands twice nor a claim nobody makes.

What a release names is made by it or declared to exist already (`Installation.external`, as Kind/name).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checks import Check, Finding, Installation
from manifests import Container, Manifest, Pod, identity, is_selected, name_of, walk

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
ALWAYS_THERE = frozenset({"ServiceAccount/default"})


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


# --- selectors ----------------------------------------------------------------------------------------------


def selectors_meet_pods(release: Installation) -> Iterator[Finding]:
    for where, selector in _selectors(release):
        is_met = any(is_selected(pod.labels, selector) for pod in release.pods)
        yield where, None if is_met else f"selects no pod of the release: {dict(selector)}"


def _selectors(release: Installation) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for service in release.of_kind("Service"):
        if selector := service["spec"].get("selector"):
            yield identity(service), {"matchLabels": selector}
    for manifest in release.of_kind(*WORKLOADS, "PodDisruptionBudget", "PodMonitor"):
        yield identity(manifest), manifest["spec"]["selector"]
    for policy in release.of_kind("NetworkPolicy"):
        yield identity(policy), policy["spec"].get("podSelector") or {}
        for way, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(way) or ():
                for peer in rule.get(side) or ():
                    if "podSelector" in peer and "namespaceSelector" not in peer:
                        yield f"{identity(policy)}: {way}", peer["podSelector"] or {}


def workloads_keep_to_their_own_pods(release: Installation) -> Iterator[Finding]:
    """Two selectors that take the same pods make two controllers fight over them."""
    for manifest in release.of_kind(*WORKLOADS):
        owners = [identity(pod.owner) for pod in _selected(release, manifest["spec"]["selector"])]
        strangers = sorted(set(owners) - {identity(manifest)})
        own = identity(manifest) in owners
        yield identity(manifest), None if own and not strangers else f"selects the pods of {strangers or 'nobody'}"


def services_keep_to_one_workload(release: Installation) -> Iterator[Finding]:
    for manifest in release.of_kind("Service", "PodDisruptionBudget"):
        selector = manifest["spec"].get("selector")
        if not selector:
            continue
        taken = _selected(release, {"matchLabels": selector} if manifest["kind"] == "Service" else selector)
        owners = sorted({identity(pod.owner) for pod in taken})
        yield identity(manifest), None if len(owners) <= 1 else f"takes the pods of {owners}"


def _selected(release: Installation, selector: Mapping[str, Any]) -> list[Pod]:
    return [pod for pod in release.pods if is_selected(pod.labels, selector)]


# --- ports --------------------------------------------------------------------------------------------------


def service_ports_meet_containers(release: Installation) -> Iterator[Finding]:
    for service in release.of_kind("Service"):
        selector = {"matchLabels": service["spec"].get("selector") or {}}
        for port in service["spec"].get("ports", ()):
            target = port.get("targetPort", port["port"])
            taken = _selected(release, selector)
            is_met = bool(taken) and all(target in ports_of(pod) for pod in taken)
            yield f"{identity(service)}: port {port['port']}", None if is_met else f"no container listens on {target}"


def probes_meet_ports(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        for probe in PROBES:
            action = container.spec.get(probe, {})
            asked = action.get("httpGet", action.get("tcpSocket", action.get("grpc", {}))).get("port")
            if asked is not None:
                is_met = asked in _ports_of_container(container.spec)
                yield f"{container.where}: {probe}", None if is_met else f"no port {asked}"


def policies_meet_ports(release: Installation) -> Iterator[Finding]:
    for policy in release.of_kind("NetworkPolicy"):
        guarded = _selected(release, policy["spec"].get("podSelector") or {})
        for rule in policy["spec"].get("ingress") or ():
            for port in rule.get("ports") or ():
                is_met = any(port["port"] in ports_of(pod) for pod in guarded)
                yield f"{identity(policy)}: port {port['port']}", None if is_met else "no pod of it has that port"


def doors_open_to_ports(release: Installation) -> Iterator[Finding]:
    """A pod that a Service leads to must be reachable on that port through the policies that guard it."""
    for service in release.of_kind("Service"):
        for pod in _selected(release, {"matchLabels": service["spec"].get("selector") or {}}):
            policies = [
                policy
                for policy in release.of_kind("NetworkPolicy")
                if is_selected(pod.labels, policy["spec"].get("podSelector") or {})
                and "Ingress" in policy["spec"].get("policyTypes", ["Ingress"])
            ]
            if not policies:
                continue
            for port in service["spec"].get("ports", ()):
                target = port.get("targetPort", port["port"])
                is_open = any(_opens(rule, target, pod) for p in policies for rule in p["spec"].get("ingress") or ())
                where = f"{identity(service)} to {pod.where}: port {target}"
                yield where, None if is_open else "every NetworkPolicy keeps it shut"


def _opens(rule: Mapping[str, Any], target: int | str, pod: Pod) -> bool:
    numbers = {port.get("name"): port["containerPort"] for c in pod.containers for port in c.spec.get("ports", ())}
    same = {target, numbers.get(target)}
    return not rule.get("ports") or any(port["port"] in same for port in rule["ports"])


def ports_of(pod: Pod) -> set[int | str]:
    return {port for container in pod.containers for port in _ports_of_container(container.spec)}


def _ports_of_container(spec: Mapping[str, Any]) -> set[int | str]:
    ports = spec.get("ports", ())
    return {port["containerPort"] for port in ports} | {port["name"] for port in ports if "name" in port}


# --- routes, monitors, scalers ------------------------------------------------------------------------------


def routes_lead_to_services(release: Installation) -> Iterator[Finding]:
    for where, name, port in _backends(release):
        service = next((s for s in release.of_kind("Service") if name_of(s) == name), None)
        if service is None:
            yield where, f"no Service {name}"
            continue
        known = {p["port"] for p in service["spec"]["ports"]} | {p.get("name") for p in service["spec"]["ports"]}
        yield where, None if port in known else f"Service {name} has no port {port}"


def _backends(release: Installation) -> Iterator[tuple[str, str, int | str]]:
    for ingress in release.of_kind("Ingress"):
        rules = ingress["spec"].get("rules", ())
        paths: Iterable[Mapping[str, Any]] = (path for rule in rules for path in rule.get("http", {}).get("paths", ()))
        backends = [*(path["backend"] for path in paths), ingress["spec"].get("defaultBackend")]
        for backend in filter(None, backends):
            port = backend["service"]["port"]
            yield identity(ingress), backend["service"]["name"], port.get("name", port.get("number"))
    for route in release.of_kind("HTTPRoute"):
        for rule in route["spec"].get("rules", ()):
            for backend in rule.get("backendRefs", ()):
                yield identity(route), backend["name"], backend["port"]


def monitors_meet_what_they_watch(release: Installation) -> Iterator[Finding]:
    for monitor in release.of_kind("ServiceMonitor"):
        services = [
            service
            for service in release.of_kind("Service")
            if is_selected(service["metadata"].get("labels") or {}, monitor["spec"]["selector"])
        ]
        names = {port.get("name") for service in services for port in service["spec"]["ports"]}
        yield from _watched(monitor, monitor["spec"]["endpoints"], names, len(services), "Service")
    for monitor in release.of_kind("PodMonitor"):
        taken = _selected(release, monitor["spec"]["selector"])
        names = {port for pod in taken for port in ports_of(pod)}
        yield from _watched(monitor, monitor["spec"]["podMetricsEndpoints"], names, len(taken), "pod")


def _watched(
    monitor: Manifest, endpoints: Sequence[Mapping[str, Any]], names: set[Any], found: int, what: str
) -> Iterator[Finding]:
    for endpoint in endpoints:
        port = endpoint.get("port", endpoint.get("targetPort"))
        missing = f"no {what} that it selects has the port {port}"
        yield identity(monitor), f"selects no {what}" if not found else None if port in names else missing


def scalers_meet_workloads(release: Installation) -> Iterator[Finding]:
    for scaler in release.of_kind("HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        wanted = f"{target.get('kind', 'Deployment')}/{target['name']}"
        is_there = any(identity(manifest) == wanted for manifest in release.manifests)
        yield identity(scaler), None if is_there else f"no {wanted}"


# --- hooks --------------------------------------------------------------------------------------------------


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


# --- storage ------------------------------------------------------------------------------------------------


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
    selectors_meet_pods,
    workloads_keep_to_their_own_pods,
    services_keep_to_one_workload,
    service_ports_meet_containers,
    probes_meet_ports,
    policies_meet_ports,
    doors_open_to_ports,
    routes_lead_to_services,
    monitors_meet_what_they_watch,
    scalers_meet_workloads,
    early_hooks_stand_alone,
    shared_volumes_can_be_shared,
)
