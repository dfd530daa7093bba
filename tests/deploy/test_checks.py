"""The checks themselves: each lets a good release pass, having looked at something, and objects to a spoilt one."""

from __future__ import annotations

import copy
from typing import Any

import policy
import pytest
import references
from checks import Check, Installation, look
from deploy_tools import ROOT
from manifests import NotAManifest, identity, read_stream

GOOD = (ROOT / "tests" / "deploy" / "samples" / "good.yaml").read_text(encoding="utf-8")
EXTERNAL = frozenset({"Secret/simsa-keys", "Secret/simsa-tls"})
GONE = object()
"""In the table: the key is taken away."""

GATEWAY, ENGINE, JOB = "Deployment/simsa", "Deployment/tiny", "Job/simsa-migrate"
POD, CONTAINER = "spec.template.spec", "spec.template.spec.containers.0"
SPOILT: tuple[tuple[Check, str, str, Any], ...] = (
    (policy.runs_as_non_root, GATEWAY, f"{POD}.securityContext.runAsNonRoot", GONE),
    (policy.runs_as_non_root, JOB, f"{POD}.securityContext.runAsUser", 0),
    (policy.root_filesystem_is_read_only, ENGINE, f"{CONTAINER}.securityContext.readOnlyRootFilesystem", GONE),
    (policy.drops_every_capability, GATEWAY, f"{CONTAINER}.securityContext.capabilities.add", ["SYS_ADMIN"]),
    (policy.drops_every_capability, GATEWAY, f"{CONTAINER}.securityContext.capabilities", GONE),
    (policy.gains_no_privileges, JOB, f"{CONTAINER}.securityContext.allowPrivilegeEscalation", True),
    (policy.has_seccomp_profile, ENGINE, f"{POD}.securityContext.seccompProfile", GONE),
    (policy.keeps_off_the_node, ENGINE, f"{POD}.hostIPC", True),
    (policy.keeps_off_the_node, ENGINE, f"{POD}.volumes.0", {"name": "weights", "hostPath": {"path": "/mnt"}}),
    (policy.mounts_no_token, GATEWAY, f"{POD}.automountServiceAccountToken", GONE),
    (policy.has_no_service_links, ENGINE, f"{POD}.enableServiceLinks", GONE),
    (policy.calls_no_service_vllm, "Service/tiny", "metadata.name", "vllm"),
    (policy.keeps_secrets_out_of_sight, GATEWAY, f"{CONTAINER}.env.1", {"name": "SIMSA_ADMIN_KEY", "value": "x"}),
    (policy.keeps_secrets_out_of_sight, ENGINE, f"{CONTAINER}.args.1", "postgresql://simsa:hunter2@db/simsa"),
    (policy.image_is_pinned, ENGINE, f"{CONTAINER}.image", "vllm/vllm-openai:latest"),
    (policy.image_is_pinned, ENGINE, f"{CONTAINER}.image", "registry.example:5000/vllm"),
    (policy.asks_for_what_it_needs, JOB, f"{CONTAINER}.resources.limits", GONE),
    (policy.memory_asked_is_memory_had, ENGINE, f"{CONTAINER}.resources.requests.memory", "1Gi"),
    (policy.shared_memory_is_sized, ENGINE, f"{POD}.volumes.1.emptyDir.medium", GONE),
    (policy.scratch_is_bounded, GATEWAY, f"{POD}.volumes.1.emptyDir", {}),
    (policy.is_probed, ENGINE, f"{CONTAINER}.startupProbe", GONE),
    (policy.is_probed, GATEWAY, f"{CONTAINER}.readinessProbe", GONE),
    (policy.liveness_asks_no_more_than_life, GATEWAY, f"{CONTAINER}.livenessProbe.httpGet.path", "/ready"),
    (policy.grace_covers_the_drain, GATEWAY, f"{POD}.terminationGracePeriodSeconds", 50),
    (policy.grace_covers_the_drain, ENGINE, f"{POD}.terminationGracePeriodSeconds", GONE),
    (policy.grace_covers_the_drain, ENGINE, f"{CONTAINER}.lifecycle", GONE),
    (policy.grace_covers_the_drain, ENGINE, f"{CONTAINER}.args.4", "--other"),
    (policy.never_asks_for_a_second_gpu_to_roll, ENGINE, "spec.strategy", GONE),
    (policy.gateway_rolls_without_a_gap, GATEWAY, "spec.strategy.rollingUpdate.maxUnavailable", "25%"),
    (policy.jobs_end, JOB, "spec.activeDeadlineSeconds", GONE),
    (policy.scales_down_slowly, "HorizontalPodAutoscaler/simsa", "spec.behavior", GONE),
    (policy.scales_down_slowly, "ScaledObject/tiny", "spec.advanced", GONE),
    (policy.evictions_stay_possible, "PodDisruptionBudget/simsa", "spec.maxUnavailable", 0),
    (policy.names_are_good_everywhere, "Service/simsa", "metadata.name", "EXAONE-4.0-32B"),
    (policy.labels_are_valid, "Service/simsa", "metadata.labels.simsa", "a b"),
    (policy.says_whose_it_is, JOB, "metadata.labels.app~kubernetes~io/instance", "other"),
    (policy.stays_in_its_namespace, JOB, "metadata.namespace", "default"),
    (policy.selectors_outlive_an_upgrade, ENGINE, "spec.selector.matchLabels.helm~sh/chart", "simsa-0.1.0"),
    (policy.scaled_workloads_leave_their_number_alone, GATEWAY, "spec.replicas", 2),
    (policy.lists_have_no_doubles, GATEWAY, f"{CONTAINER}.env.1.name", "SIMSA_SHUTDOWN_GRACE_S"),
    (policy.numbers_are_whole, ENGINE, f"{CONTAINER}.args.5", "1.048576e+06"),
    (policy.says_nothing_half, ENGINE, f"{CONTAINER}.args.1", "example/%!s(<nil>)"),
    (policy.every_pod_is_behind_a_policy, ENGINE, "spec.template.metadata.labels", {"a": "b"}),
    (policy.engines_are_reached_by_name_alone, "NetworkPolicy/simsa-engine", "spec.ingress.0.from", GONE),
    (policy.engines_are_reached_by_name_alone, "NetworkPolicy/simsa-engine", "spec.ingress.0.from.0", {}),
    (policy.streams_come_through, "Ingress/simsa", "metadata.annotations", GONE),
    (policy.streams_come_through, "HTTPRoute/simsa", "spec.rules.0.timeouts.request", "60s"),
    (references.names_are_used_once, "Service/tiny", "metadata.name", "simsa"),
    (references.named_objects_exist, ENGINE, f"{POD}.volumes.0.persistentVolumeClaim.claimName", "other"),
    (references.named_objects_exist, GATEWAY, f"{POD}.serviceAccountName", "other"),
    (references.named_objects_exist, GATEWAY, f"{CONTAINER}.env.1.valueFrom.secretKeyRef.name", "other"),
    (references.named_keys_exist, GATEWAY, f"{POD}.volumes.0.configMap.items.0.key", "registry.yaml"),
    (references.what_is_made_is_used, ENGINE, f"{POD}.volumes.0", {"name": "weights", "emptyDir": {}}),
    (references.what_is_declared_is_used, "Ingress/simsa", "spec.tls", GONE),
    (references.mounts_meet_volumes, GATEWAY, f"{CONTAINER}.volumeMounts.0.name", "other"),
    (references.configuration_is_mounted_whole, GATEWAY, f"{CONTAINER}.volumeMounts.0.subPath", "a.yaml"),
    (references.selectors_meet_pods, "Service/tiny", "spec.selector.app~kubernetes~io/component", "engines"),
    (references.selectors_meet_pods, "PodDisruptionBudget/simsa", "spec.selector.matchLabels.a", "b"),
    (
        references.workloads_keep_to_their_own_pods,
        ENGINE,
        "spec.selector.matchLabels",
        {"app.kubernetes.io/name": "simsa"},
    ),
    (references.services_keep_to_one_workload, "Service/tiny", "spec.selector", {"app.kubernetes.io/name": "simsa"}),
    (references.service_ports_meet_containers, "Service/simsa", "spec.ports.0.targetPort", "web"),
    (references.probes_meet_ports, ENGINE, f"{CONTAINER}.startupProbe.httpGet.port", 8001),
    (references.policies_meet_ports, "NetworkPolicy/simsa-engine", "spec.ingress.0.ports.0.port", 8001),
    (references.doors_open_to_ports, "NetworkPolicy/simsa-gateway", "spec.ingress", []),
    (references.routes_lead_to_services, "Ingress/simsa", "spec.rules.0.http.paths.0.backend.service.port.name", "web"),
    (references.routes_lead_to_services, "HTTPRoute/simsa", "spec.rules.0.backendRefs.0.name", "other"),
    (references.monitors_meet_what_they_watch, "ServiceMonitor/simsa", "spec.endpoints.0.port", "metrics"),
    (references.monitors_meet_what_they_watch, "PodMonitor/tiny", "spec.podMetricsEndpoints.0.port", "metrics"),
    (references.scalers_meet_workloads, "ScaledObject/tiny", "spec.scaleTargetRef.name", "other"),
    (references.early_hooks_stand_alone, JOB, f"{POD}.serviceAccountName", "simsa"),
    (references.shared_volumes_can_be_shared, ENGINE, "spec.replicas", 2),
)
RULES = (*policy.RULES, *references.RULES)


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


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
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
    assert {rule for rule, _, _, _ in SPOILT} == set(RULES)


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
