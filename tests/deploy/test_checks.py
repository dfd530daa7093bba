"""The checks themselves: each lets a good release pass, having looked at something, and objects to a spoilt one."""

from __future__ import annotations

import copy
from typing import Any

import forms
import lifecycle
import network
import pytest
import references
import rights
import targets
from checks import Check, Installation, look
from deploy_tools import ROOT
from manifests import NotAManifest, identity, read_stream
from rules import ON_ANY_OBJECTS

GOOD = (ROOT / "tests" / "deploy" / "samples" / "good.yaml").read_text(encoding="utf-8")
EXTERNAL = frozenset({"Secret/simsa-keys", "Secret/simsa-tls"})
GONE = object()
"""In the table: the key is taken away."""

GATEWAY, ENGINE, JOB = "Deployment/simsa", "Deployment/tiny", "Job/simsa-migrate"
POD, CONTAINER = "spec.template.spec", "spec.template.spec.containers.0"
SPOILT: tuple[tuple[Check, str, str, Any], ...] = (
    (rights.runs_as_non_root, GATEWAY, f"{POD}.securityContext.runAsNonRoot", GONE),
    (rights.runs_as_non_root, JOB, f"{POD}.securityContext.runAsUser", 0),
    (rights.root_filesystem_is_read_only, ENGINE, f"{CONTAINER}.securityContext.readOnlyRootFilesystem", GONE),
    (rights.drops_every_capability, GATEWAY, f"{CONTAINER}.securityContext.capabilities.add", ["SYS_ADMIN"]),
    (rights.drops_every_capability, GATEWAY, f"{CONTAINER}.securityContext.capabilities", GONE),
    (rights.gains_no_privileges, JOB, f"{CONTAINER}.securityContext.allowPrivilegeEscalation", True),
    (rights.has_seccomp_profile, ENGINE, f"{POD}.securityContext.seccompProfile", GONE),
    (rights.keeps_off_the_node, ENGINE, f"{POD}.hostIPC", True),
    (rights.keeps_off_the_node, ENGINE, f"{POD}.volumes.0", {"name": "weights", "hostPath": {"path": "/mnt"}}),
    (rights.writes_where_it_may, ENGINE, f"{CONTAINER}.env", [{"name": "HOME", "value": "/home/vllm"}]),
    (rights.volumes_belong_to_the_user, ENGINE, f"{POD}.securityContext.fsGroup", GONE),
    (lifecycle.probes_ask_one_thing, ENGINE, f"{CONTAINER}.startupProbe.httpGet", GONE),
    (network.engines_reach_nobody, "NetworkPolicy/simsa-engine", "spec.policyTypes", ["Ingress"]),
    (network.engines_reach_nobody, "NetworkPolicy/simsa-engine", "spec.egress", [{"ports": [{"port": 443}]}]),
    (
        network.engines_reach_nobody,
        "NetworkPolicy/simsa-engine",
        "spec.egress",
        [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 443}]}],
    ),
    (rights.mounts_no_token, GATEWAY, f"{POD}.automountServiceAccountToken", GONE),
    (rights.has_no_service_links, ENGINE, f"{POD}.enableServiceLinks", GONE),
    (rights.calls_no_service_vllm, "Service/tiny", "metadata.name", "vllm"),
    (rights.keeps_secrets_out_of_sight, GATEWAY, f"{CONTAINER}.env.1", {"name": "SIMSA_ADMIN_KEY", "value": "x"}),
    (rights.keeps_secrets_out_of_sight, ENGINE, f"{CONTAINER}.args.1", "postgresql://simsa:hunter2@db/simsa"),
    (rights.image_is_pinned, ENGINE, f"{CONTAINER}.image", "vllm/vllm-openai:latest"),
    (rights.image_is_pinned, ENGINE, f"{CONTAINER}.image", "registry.example:5000/vllm"),
    (rights.asks_for_what_it_needs, JOB, f"{CONTAINER}.resources.limits", GONE),
    (rights.memory_asked_is_memory_had, ENGINE, f"{CONTAINER}.resources.requests.memory", "1Gi"),
    (rights.shared_memory_is_sized, ENGINE, f"{POD}.volumes.1.emptyDir.medium", GONE),
    (rights.scratch_is_bounded, GATEWAY, f"{POD}.volumes.1.emptyDir", {}),
    (lifecycle.is_probed, ENGINE, f"{CONTAINER}.startupProbe", GONE),
    (lifecycle.is_probed, GATEWAY, f"{CONTAINER}.readinessProbe", GONE),
    (lifecycle.liveness_asks_no_more_than_life, GATEWAY, f"{CONTAINER}.livenessProbe.httpGet.path", "/ready"),
    (lifecycle.what_hangs_ends_soon, GATEWAY, f"{CONTAINER}.livenessProbe.terminationGracePeriodSeconds", 61),
    (lifecycle.what_hangs_ends_soon, ENGINE, f"{CONTAINER}.startupProbe.terminationGracePeriodSeconds", 350),
    (lifecycle.grace_covers_the_drain, GATEWAY, f"{POD}.terminationGracePeriodSeconds", 50),
    (lifecycle.grace_covers_the_drain, ENGINE, f"{POD}.terminationGracePeriodSeconds", GONE),
    (lifecycle.grace_covers_the_drain, ENGINE, f"{CONTAINER}.lifecycle", GONE),
    (lifecycle.grace_covers_the_drain, ENGINE, f"{CONTAINER}.args.4", "--other"),
    (lifecycle.never_asks_for_a_second_gpu_to_roll, ENGINE, "spec.strategy", GONE),
    (lifecycle.gateway_rolls_without_a_gap, GATEWAY, "spec.strategy.rollingUpdate.maxUnavailable", "25%"),
    (lifecycle.rolls_on_when_the_new_pod_is_in_use, ENGINE, "spec.minReadySeconds", 15),
    (lifecycle.rolls_on_when_the_new_pod_is_in_use, GATEWAY, "spec.minReadySeconds", GONE),
    (lifecycle.jobs_end, JOB, "spec.activeDeadlineSeconds", GONE),
    (lifecycle.scales_down_slowly, "HorizontalPodAutoscaler/simsa", "spec.behavior", GONE),
    (lifecycle.scales_down_slowly, "ScaledObject/tiny", "spec.advanced", GONE),
    (lifecycle.evictions_stay_possible, "PodDisruptionBudget/simsa", "spec.maxUnavailable", 0),
    (forms.names_are_good_everywhere, "Service/simsa", "metadata.name", "EXAONE-4.0-32B"),
    (forms.labels_are_valid, "Service/simsa", "metadata.labels.simsa", "a b"),
    (forms.says_whose_it_is, JOB, "metadata.labels.app~kubernetes~io/instance", "other"),
    (forms.stays_in_its_namespace, JOB, "metadata.namespace", "default"),
    (forms.selectors_outlive_an_upgrade, ENGINE, "spec.selector.matchLabels.helm~sh/chart", "simsa-0.1.0"),
    (forms.scaled_workloads_leave_their_number_alone, GATEWAY, "spec.replicas", 2),
    (forms.lists_have_no_doubles, GATEWAY, f"{CONTAINER}.env.1.name", "SIMSA_SHUTDOWN_GRACE_S"),
    (forms.numbers_are_whole, ENGINE, f"{CONTAINER}.args.5", "1.048576e+06"),
    (forms.says_nothing_half, ENGINE, f"{CONTAINER}.args.1", "example/%!s(<nil>)"),
    (network.every_pod_is_behind_a_policy, ENGINE, "spec.template.metadata.labels", {"a": "b"}),
    (network.engines_are_reached_by_name_alone, "NetworkPolicy/simsa-engine", "spec.ingress.0.from", GONE),
    (network.engines_are_reached_by_name_alone, "NetworkPolicy/simsa-engine", "spec.ingress.0.from.0", {}),
    (network.streams_come_through, "Ingress/simsa", "metadata.annotations", GONE),
    (network.streams_come_through, "HTTPRoute/simsa", "spec.rules.0.timeouts.request", "60s"),
    (references.names_are_used_once, "Service/tiny", "metadata.name", "simsa"),
    (references.named_objects_exist, ENGINE, f"{POD}.volumes.0.persistentVolumeClaim.claimName", "other"),
    (references.named_objects_exist, GATEWAY, f"{POD}.serviceAccountName", "other"),
    (references.named_objects_exist, GATEWAY, f"{CONTAINER}.env.1.valueFrom.secretKeyRef.name", "other"),
    (references.named_keys_exist, GATEWAY, f"{POD}.volumes.0.configMap.items.0.key", "registry.yaml"),
    (references.what_is_made_is_used, ENGINE, f"{POD}.volumes.0", {"name": "weights", "emptyDir": {}}),
    (references.what_is_declared_is_used, "Ingress/simsa", "spec.tls", GONE),
    (references.mounts_meet_volumes, GATEWAY, f"{CONTAINER}.volumeMounts.0.name", "other"),
    (references.configuration_is_mounted_whole, GATEWAY, f"{CONTAINER}.volumeMounts.0.subPath", "a.yaml"),
    (targets.selectors_meet_pods, "Service/tiny", "spec.selector.app~kubernetes~io/component", "engines"),
    (targets.selectors_meet_pods, "PodDisruptionBudget/simsa", "spec.selector.matchLabels.a", "b"),
    (
        targets.workloads_keep_to_their_own_pods,
        ENGINE,
        "spec.selector.matchLabels",
        {"app.kubernetes.io/name": "simsa"},
    ),
    (targets.services_keep_to_one_workload, "Service/tiny", "spec.selector", {"app.kubernetes.io/name": "simsa"}),
    (targets.service_ports_meet_containers, "Service/simsa", "spec.ports.0.targetPort", "web"),
    (targets.probes_meet_ports, ENGINE, f"{CONTAINER}.startupProbe.httpGet.port", 8001),
    (targets.policies_meet_ports, "NetworkPolicy/simsa-engine", "spec.ingress.0.ports.0.port", 8001),
    (targets.doors_open_to_ports, "NetworkPolicy/simsa-gateway", "spec.ingress", []),
    (targets.routes_lead_to_services, "Ingress/simsa", "spec.rules.0.http.paths.0.backend.service.port.name", "web"),
    (targets.routes_lead_to_services, "HTTPRoute/simsa", "spec.rules.0.backendRefs.0.name", "other"),
    (targets.monitors_meet_what_they_watch, "ServiceMonitor/simsa", "spec.endpoints.0.port", "metrics"),
    (targets.monitors_meet_what_they_watch, "PodMonitor/tiny", "spec.podMetricsEndpoints.0.port", "metrics"),
    (targets.scalers_meet_workloads, "ScaledObject/tiny", "spec.scaleTargetRef.name", "other"),
    (references.early_hooks_stand_alone, JOB, f"{POD}.serviceAccountName", "simsa"),
    (references.shared_volumes_can_be_shared, ENGINE, "spec.replicas", 2),
)


def release_of(manifests: list[Any]) -> Installation:
    return Installation(tuple(manifests), external=EXTERNAL, registry=b"models: [{id: tiny}]")


def spoil(manifests: list[Any], target: str, path: str, value: Any) -> None:
    """Puts `value` where the dotted path leads; a dot within a key is written as ~."""
    place: Any = next(manifest for manifest in manifests if identity(manifest) == target)
    *steps, last = [key.replace("~", ".") for key in path.split(".")]
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is GONE:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value


@pytest.mark.parametrize("rule", ON_ANY_OBJECTS, ids=lambda rule: rule.__name__)
def test_a_good_release_passes_and_was_looked_at(rule: Check) -> None:
    report = look(rule, release_of(read_stream(GOOD)))
    assert report.complaints == []
    assert report.looked_at > 0


@pytest.mark.parametrize(
    ("rule", "target", "path", "value"), SPOILT, ids=[f"{rule.__name__}-{path}" for rule, _, path, _ in SPOILT]
)
def test_a_spoilt_release_does_not_pass(rule: Check, target: str, path: str, value: Any) -> None:
    manifests = copy.deepcopy(read_stream(GOOD))
    spoil(manifests, target, path, value)
    assert look(rule, release_of(manifests)).complaints != []


def test_every_rule_was_shown_to_object() -> None:
    assert {rule for rule, _, _, _ in SPOILT} == set(ON_ANY_OBJECTS)


@pytest.mark.parametrize(
    "text",
    [
        "{apiVersion: v1, kind: Service, metadata: {name: a, name: b}}",
        "apiVersion: v1\nkind: Service\nmetadata: {labels: {}}",
        "apiVersion: v1\nmetadata: {name: a}",
        "- a list",
    ],
    ids=["key twice", "no name", "no kind", "no mapping"],
)
def test_a_stream_that_no_server_would_take_is_refused(text: str) -> None:
    with pytest.raises(NotAManifest):
        read_stream(text)


def test_empty_documents_are_left_out() -> None:
    assert read_stream("---\n# nothing\n---\n") == []
