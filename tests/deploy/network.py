"""Who reaches pods of the chart, and whether streams come through to who may."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from checks import Check, Finding, Installation
from manifests import Manifest, Pod, identity, is_selected

INSIDE = {
    4: frozenset(("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")),
    6: frozenset(("fc00::/7", "fe80::/10")),
}
"""Networks of the cluster, its nodes and the cloud's own services, by version of IP."""


# --- network ----------------------------------------------------------------------------------------------


def every_pod_is_behind_a_policy(release: Installation) -> Iterator[Finding]:
    """Every one that listens."""
    for pod in release.pods:
        if not any(container.spec.get("ports") for container in pod.containers):
            continue
        yield pod.where, None if _policies_of(pod, release) else "no NetworkPolicy says who may reach it"


def engines_are_reached_by_name_alone(release: Installation) -> Iterator[Finding]:
    """From pods that are named: `--api-key` guards only a part of vLLM's routes."""
    for pod in release.pods:
        if not pod.gpus:
            continue
        for policy in _policies_of(pod, release):
            for rule in policy["spec"].get("ingress") or ():
                peers = rule.get("from") or []
                is_open = not peers or any(_is_anybody(peer) for peer in peers)
                where = f"{identity(policy)} for {pod.where}"
                yield where, "lets anybody in" if is_open else None


def engines_reach_nobody(release: Installation) -> Iterator[Finding]:
    """Weights are on a volume: an engine that calls out is one that a prompt or a repository's code has turned.

    Where it may fetch the media that clients name, no such name leads inside.
    """
    for pod in release.pods:
        if not pod.gpus:
            continue
        policies = _policies_of(pod, release, way="Egress")
        where = [identity(policy) for policy in policies if any(_is_free(rule) for rule in policy["spec"]["egress"])]
        if not policies:
            yield pod.where, "may call anybody"
        else:
            yield pod.where, f"may call anybody by {where}" if where else None


def _is_free(rule: Mapping[str, Any]) -> bool:
    """A way out to anywhere, but for asking for a name and for what lies outside."""
    peers, ports = rule.get("to") or [], {port["port"] for port in rule.get("ports") or ()}
    return (not peers or any(_is_anybody(peer) and not _is_outside(peer) for peer in peers)) and ports != {53}


def _is_outside(peer: Mapping[str, Any]) -> bool:
    block = peer.get("ipBlock", {})
    version = 6 if ":" in str(block.get("cidr")) else 4
    return bool(block) and INSIDE[version] <= set(block.get("except") or ())


def _policies_of(pod: Pod, release: Installation, *, way: str = "Ingress") -> list[Manifest]:
    return [
        policy
        for policy in release.of_kind("NetworkPolicy")
        if way in policy["spec"].get("policyTypes", ["Ingress"])
        and is_selected(pod.labels, policy["spec"].get("podSelector") or {})
    ]


def _is_anybody(peer: Mapping[str, Any]) -> bool:
    wide = str(peer.get("ipBlock", {}).get("cidr", "")).endswith("/0")
    return wide or not any(peer.get(key) for key in ("podSelector", "ipBlock", "namespaceSelector"))


# --- ways in ----------------------------------------------------------------------------------------------


def streams_come_through(release: Installation) -> Iterator[Finding]:
    """Each event at once, and as long as the longest answer: a proxy by itself gathers events and ends after 60 s."""
    longest_s = _longest_answer_seconds(release)
    for ingress in release.of_kind("Ingress"):
        marks = ingress["metadata"].get("annotations") or {}
        nginx = "nginx.ingress.kubernetes.io"
        buffers = marks.get(f"{nginx}/proxy-buffering") != "off"
        ends_s = float(marks.get(f"{nginx}/proxy-read-timeout", 60))
        yield identity(ingress), "the proxy gathers events" if buffers else None
        yield identity(ingress), None if ends_s >= longest_s else f"ends streams after {ends_s:g} s of {longest_s:g}"
    for route in release.of_kind("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for limit in rule.get("timeouts", {}).values():
                ends_s = float(str(limit).removesuffix("s"))
                is_long = ends_s == 0 or ends_s >= longest_s
                yield identity(route), None if is_long else f"ends streams after {ends_s:g} s of {longest_s:g}"


def _longest_answer_seconds(release: Installation) -> float:
    if not release.registry:
        return 0.0
    models = yaml.safe_load(release.registry)["models"]
    return max(float((model.get("timeouts") or {}).get("total_s", 1800)) for model in models)


RULES: tuple[Check, ...] = (
    every_pod_is_behind_a_policy,
    engines_are_reached_by_name_alone,
    engines_reach_nobody,
    streams_come_through,
)
