"""Whether selectors, ports and routes meet what they are meant for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from checks import Check, Finding, Installation
from manifests import Manifest, Pod, identity, is_selected, name_of

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


# --- selectors --------------------------------------------------------------------------------------------


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


# --- ports ------------------------------------------------------------------------------------------------


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


# --- routes, monitors, scalers ----------------------------------------------------------------------------


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


RULES: tuple[Check, ...] = (
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
)
