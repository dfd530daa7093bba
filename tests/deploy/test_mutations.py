"""A safeguard taken out of a copy of the chart is missed by the check that is named here; else nothing held it in place.

A mutation is a text of one template and what takes its place. Where the text is no longer there the mutation says so:
then the safeguard has moved, or is gone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import parity
import policy
import pytest
import references
from charts import CHART, Refused, Release, helm, render_text
from checks import Check, Installation, look
from fixtures import OWN_CASES, Case, declared
from manifests import read_stream
from test_refusals import FAULTS, Fault


@dataclass(frozen=True, slots=True)
class Mutation:
    file: str
    old: str
    new: str
    missed_by: Check | str
    """The rule, or the name of the fault that would render."""
    case: str = "everything"

    def __str__(self) -> str:
        missed = self.missed_by if isinstance(self.missed_by, str) else self.missed_by.__name__
        return f"{self.file}-{self.old.strip().splitlines()[0][:40]}-{missed}"


CASE = {case.values.stem: case for case in OWN_CASES}
FAULT = {fault.name: fault for fault in FAULTS}
MUTATIONS = (
    # --- rights
    Mutation("_names.tpl", "enableServiceLinks: false\n", "", policy.has_no_service_links),
    Mutation("_names.tpl", "automountServiceAccountToken: false\n", "", policy.mounts_no_token),
    Mutation("_names.tpl", "readOnlyRootFilesystem: true\n", "", policy.root_filesystem_is_read_only),
    Mutation("_names.tpl", "capabilities: {drop: [ALL]}\n", "", policy.drops_every_capability),
    Mutation("_names.tpl", "allowPrivilegeEscalation: false\n", "", policy.gains_no_privileges),
    Mutation("_names.tpl", "runAsNonRoot: true\n", "", policy.runs_as_non_root),
    Mutation("_names.tpl", "runAsUser: {{ int . }}\n", "", policy.runs_as_non_root),
    Mutation("_names.tpl", "seccompProfile: {type: RuntimeDefault}\n", "", policy.has_seccomp_profile),
    # --- images and names
    Mutation("_names.tpl", '{{- if eq $tag "latest" -}}', "{{- if false -}}", "the latest gateway"),
    Mutation("_names.tpl", '{{- if eq $name "vllm" -}}', "{{- if false -}}", "a Service called vllm"),
    Mutation("_names.tpl", '(printf "%.0f" .)', "(toString .)", policy.numbers_are_whole),
    Mutation("_engines.tpl", "{{- if hasKey $owners $engine.name -}}", "{{- if false -}}", "two models of one name"),
    Mutation("_engine_pod.tpl", "simsa/model: {{ .engine.slug }}\n", "", references.workloads_keep_to_their_own_pods),
    # --- the registry
    Mutation("_registry.tpl", '{{- if hasKey $registry "Error" -}}', "{{- if false -}}", "a registry that is no YAML"),
    Mutation("_engines.tpl", "{{- if not (or $engines .Values.hostedApisOnly) -}}", "{{- if false -}}", "no model at all"),
    Mutation("_engines.tpl", "{{- if not (hasKey $entries $id) -}}", "{{- if false -}}", "a model that the registry has not"),
    Mutation("registry-configmap.yaml", 'include "simsa.registryText" . | b64enc', 'include "simsa.registryText" . | trim | b64enc', parity.registry_travels_byte_for_byte),
    Mutation("registry-configmap.yaml", '{{ include "simsa.registrySha256" . | quote }}', '"-"', parity.registry_is_marked_with_its_hash),
    Mutation("_engine_pod.tpl", "simsa/model-id: {{ .engine.id | quote }}\n", 'simsa/model-id: {{ .engine.id | quote }}\n    simsa/registry: {{ include "simsa.registrySha256" .root }}\n', parity.pods_outlive_a_new_registry),
    Mutation("gateway-deployment.yaml", "{name: registry, mountPath: /etc/simsa, readOnly: true}", "{name: registry, mountPath: /etc/simsa/model_registry.yaml, subPath: model_registry.yaml}", references.configuration_is_mounted_whole),
    # --- engines
    Mutation("_engines.tpl", '(include "simsa.version" .newest)', '"0.32.0"', parity.engine_image_is_within_the_bounds),
    Mutation("_engines.tpl", '(list "--revision" ($weights.revision | default ""))', "", parity.engine_is_called_as_the_registry_says),
    Mutation("_engines.tpl", "{{- concat $args $own | toJson -}}", "{{- $args | toJson -}}", parity.engine_is_called_as_the_registry_says),
    Mutation("_engines.tpl", '(list "--shutdown-timeout" (include "simsa.text" .drain))', "list", parity.engine_is_told_to_drain),
    Mutation("_engine_pod.tpl", "failureThreshold: {{ int (ceil (divf .engine.startupSeconds 10)) }}", "failureThreshold: 60", parity.startup_budget_covers_the_start),
    Mutation("_engine_pod.tpl", "startupProbe:", "x-startupProbe:", policy.is_probed),
    Mutation("_engine_pod.tpl", "    sleep: {seconds: {{ include \"simsa.engineLeaveSeconds\" . }}}", "    sleep: {seconds: 0}", policy.grace_covers_the_drain),
    Mutation("_engine_pod.tpl", "(int .root.Values.engines.drainSeconds) 30 }}", "0 0 }}", policy.grace_covers_the_drain),
    Mutation("_engine_pod.tpl", '- {name: HF_HUB_OFFLINE, value: "1"}\n', "", parity.weights_are_fetched_once_and_then_offline),
    Mutation("_engine_pod.tpl", "- {name: weights, mountPath: /weights, readOnly: true}\n  - {name: scratch", "- {name: weights, mountPath: /weights}\n  - {name: scratch", parity.weights_are_fetched_once_and_then_offline),
    Mutation("_engine_pod.tpl", "emptyDir: {medium: Memory, sizeLimit: {{ int .root.Values.engines.sharedMemoryGi }}Gi}", "emptyDir: {}", policy.shared_memory_is_sized),
    Mutation("engine-deployment.yaml", "rollingUpdate: {maxSurge: 0, maxUnavailable: 1}", "rollingUpdate: {maxSurge: 1, maxUnavailable: 0}", policy.never_asks_for_a_second_gpu_to_roll),
    Mutation("engine-deployment.yaml", "  progressDeadlineSeconds: {{ add (int $engine.startupSeconds) 14400 }}\n", "", parity.engine_waits_long_enough_for_its_rollout),
    Mutation("engine-deployment.yaml", "{{- if not $engine.scaling }}", "{{- if true }}", policy.scaled_workloads_leave_their_number_alone),
    Mutation("engine-prefetch.yaml", "{{- if not $engine.claim }}", "{{- if false }}", parity.each_placed_model_has_its_objects),
    Mutation("engine-pvc.yaml", "  name: {{ $engine.name }}\n", "  name: {{ $engine.name }}-weights\n", references.named_objects_exist),
    Mutation("engine-pvc.yaml", "  name: {{ $engine.name }}\n", "  name: {{ $engine.name }}-weights\n", references.what_is_made_is_used),
    Mutation("_prefetch_pod.tpl", '  {{- include "simsa.enginePlace" . | nindent 2 }}\n', "", parity.weights_are_fetched_once_and_then_offline),
    Mutation("_engines.tpl", '(ne .root.Values.engines.storage.accessMode "ReadWriteMany")', "false", "two engines on one volume"),
    # --- services, and how the gateway finds engines
    Mutation("engine-service.yaml", "  clusterIP: None\n", "", parity.replicas_lead_to_engines),
    Mutation("engine-service.yaml", '    simsa/role: {{ gt (int $engine.nodes) 1 | ternary "leader" "single" }}\n', "", references.service_ports_meet_containers),
    Mutation("replicas-configmap.yaml", "port: 8000", "port: 80", parity.replicas_lead_to_engines),
    Mutation("replicas-configmap.yaml", "{{ $.Release.Namespace }}.svc", "default.svc", parity.replicas_lead_to_engines),
    Mutation("replicas-configmap.yaml", "{{ mul (int .gpus) (int .nodes) }}", "{{ int .gpus }}", parity.replicas_say_which_gpus),
    # --- gateways
    Mutation("_gateway.tpl", "{{- if and $several $missing -}}", "{{- if false -}}", "several gateways without Redis"),
    Mutation("_gateway.tpl", "{{- else if has $name $secret }}", "{{- else if false }}", "a secret among settings"),
    Mutation("gateway-deployment.yaml", "{{ add $leave (int .Values.gateway.drainSeconds) 30 }}", "30", policy.grace_covers_the_drain),
    Mutation("gateway-deployment.yaml", "rollingUpdate: {maxSurge: 1, maxUnavailable: 0}", "rollingUpdate: {maxSurge: 0, maxUnavailable: 1}", policy.gateway_rolls_without_a_gap),
    Mutation("gateway-deployment.yaml", 'path: "/ready?engines=false"', "path: /health", policy.liveness_asks_no_more_than_life),
    Mutation("gateway-hpa.yaml", "stabilizationWindowSeconds: 1800", "stabilizationWindowSeconds: 0", policy.scales_down_slowly),
    Mutation("engine-scaledobject.yaml", "stabilizationWindowSeconds: 3600", "stabilizationWindowSeconds: 60", policy.scales_down_slowly),
    Mutation("gateway-pdb.yaml", "maxUnavailable: 1", "maxUnavailable: 0", policy.evictions_stay_possible),
    Mutation("migration-job.yaml", "  activeDeadlineSeconds: 1800\n", "", policy.jobs_end),
    Mutation("migration-job.yaml", "      restartPolicy: Never\n", '      restartPolicy: Never\n      serviceAccountName: {{ include "simsa.serviceAccountName" . }}\n', references.early_hooks_stand_alone),
    Mutation("externalsecret.yaml", 'helm.sh/hook-weight: "-10"', 'helm.sh/hook-weight: "10"', references.early_hooks_stand_alone),
    # --- network
    Mutation("engine-networkpolicy.yaml", "        {{- with .Values.networkPolicy.prometheus }}\n        {{- toYaml . | nindent 8 }}\n        {{- end }}\n", "        - namespaceSelector: {}\n", policy.engines_are_reached_by_name_alone),
    Mutation("engine-networkpolicy.yaml", "{port: http, protocol: TCP}", "{port: metrics, protocol: TCP}", references.doors_open_to_ports),
    Mutation("gateway-networkpolicy.yaml", "{port: http, protocol: TCP}", "{port: 80, protocol: TCP}", references.policies_meet_ports),
    Mutation("gateway-networkpolicy.yaml", ".Values.networkPolicy.enabled", "false", policy.every_pod_is_behind_a_policy),
    # --- ways in, and watching
    Mutation("ingress.yaml", '"nginx.ingress.kubernetes.io/proxy-buffering" "off"\n', "", policy.streams_come_through),
    Mutation("ingress.yaml", '"nginx.ingress.kubernetes.io/proxy-read-timeout" $stream\n', "", policy.streams_come_through),
    Mutation("httproute.yaml", "timeouts: {request: {{ $stream }}s, backendRequest: {{ $stream }}s}", "timeouts: {request: 60s}", policy.streams_come_through, "several-gateways"),
    Mutation("ingress.yaml", "port: {name: http}", "port: {name: web}", references.routes_lead_to_services),
    Mutation("servicemonitor.yaml", "- port: http", "- port: metrics", references.monitors_meet_what_they_watch),
    Mutation("podmonitor.yaml", '"component" "engine"', '"component" "engines"', references.monitors_meet_what_they_watch),
    Mutation("engine-scaledobject.yaml", "    name: {{ $engine.name }}\n  pollingInterval", "    name: {{ $engine.name }}-x\n  pollingInterval", references.scalers_meet_workloads),
)  # fmt: skip


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart without links, so that it stands by itself."""
    return shutil.copytree(CHART, tmp_path_factory.mktemp("chart") / "simsa", ignore=shutil.ignore_patterns("ci"))


@pytest.fixture
def mutated(copied: Path) -> Iterator[Callable[[Mutation], Path]]:
    """Takes a safeguard out of the copy; it is put back after the test."""
    taken: list[tuple[Path, str]] = []

    def take_out(mutation: Mutation) -> Path:
        path = copied / "templates" / mutation.file
        text = path.read_text(encoding="utf-8")
        assert mutation.old in text, f"{mutation.file} has no {mutation.old!r} any more: has the safeguard moved?"
        taken.append((path, text))
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        return copied

    yield take_out
    for path, text in taken:
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_missing_safeguard_is_noticed(mutation: Mutation, mutated: Callable[[Mutation], Path], tmp_path: Path) -> None:
    chart = mutated(mutation)
    if isinstance(mutation.missed_by, str):
        fault = FAULT[mutation.missed_by]
        assert not is_refused(fault, chart, tmp_path)
    else:
        assert look(mutation.missed_by, install_from(chart, CASE[mutation.case])).complaints != []


def test_the_copy_without_mutations_is_as_good_as_the_chart(copied: Path) -> None:
    for rule in (*policy.RULES, *references.RULES, *parity.RULES):
        assert look(rule, install_from(copied, CASE["everything"])).complaints == []


def is_refused(fault: Fault, chart: Path, directory: Path) -> bool:
    """Whether the test of the fault would pass: refused, with its words."""
    try:
        render_text(fault.values, fault.release, base=fault.base, registry=fault.registry_in(directory), chart=chart)
    except Refused as refusal:
        return all(word in str(refusal) for word in fault.words)
    return False


def install_from(chart: Path, case: Case) -> Installation:
    release = Release()
    options = ["--namespace", release.namespace, "--kube-version", f"{release.kubernetes}.0"]
    options += ["--values", str(case.values), "--set-file", f"registryYaml={case.registry}"]
    manifests = read_stream(helm(release.helm, "template", release.name, chart, *options))
    return Installation(
        tuple(manifests),
        name=release.name,
        namespace=release.namespace,
        external=declared(case.given),
        registry=case.registry_bytes,
        values=case.given,
    )
