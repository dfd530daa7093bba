"""What every object of the chart keeps to, whatever it is for: rights, images, probes, ends, sizes, names.

Each check is one rule and names itself. Which objects must exist, and whether they fit each other, stands in
`references` and `parity`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from checks import Check, Finding, Installation
from manifests import Container, Manifest, Pod, identity, is_selected, name_of, walk

DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
SECRET_NAME = re.compile(r"(_KEY|_TOKEN|PASSWORD|SECRET|DATABASE_URL|REDIS_URL)$")
COMMON_LABELS = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
)
CHANGING_LABELS = ("helm.sh/chart", "app.kubernetes.io/version")
LEAST_SCALE_DOWN_WAIT_S = 300
LEAST_WAIT_WITHOUT_DRAIN_S = 60
LISTS_BY_KEY = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "ports": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}


# --- rights -------------------------------------------------------------------------------------------------


def runs_as_non_root(release: Installation) -> Iterator[Finding]:
    """By number: a kubelet cannot tell whether a user's name is root's."""
    for container in release.containers:
        security = container.security
        is_safe = security.get("runAsNonRoot") is True and int(security.get("runAsUser", 0)) > 0
        yield container.where, None if is_safe else "runAsNonRoot and a runAsUser over 0 are missing"


def root_filesystem_is_read_only(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        is_safe = container.security.get("readOnlyRootFilesystem") is True
        yield container.where, None if is_safe else "readOnlyRootFilesystem is not true"


def drops_every_capability(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        capabilities = container.spec.get("securityContext", {}).get("capabilities", {})
        is_safe = capabilities.get("drop") == ["ALL"] and not capabilities.get("add")
        yield container.where, None if is_safe else f"capabilities are {dict(capabilities)}, not drop: [ALL]"


def gains_no_privileges(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        security = container.spec.get("securityContext", {})
        is_safe = security.get("allowPrivilegeEscalation") is False and not security.get("privileged")
        yield container.where, None if is_safe else "allowPrivilegeEscalation is not false, or it is privileged"


def has_seccomp_profile(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        profile = container.security.get("seccompProfile", {}).get("type")
        yield container.where, None if profile in ("RuntimeDefault", "Localhost") else f"seccomp profile {profile}"


def keeps_off_the_node(release: Installation) -> Iterator[Finding]:
    for pod in release.pods:
        shared = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(key)]
        paths = [volume["name"] for volume in pod.spec.get("volumes", ()) if "hostPath" in volume]
        ports = [c.name for c in pod.containers if any("hostPort" in port for port in c.spec.get("ports", ()))]
        found = [*shared, *paths, *ports]
        yield pod.where, f"reaches into its node by {', '.join(found)}" if found else None


def mounts_no_token(release: Installation) -> Iterator[Finding]:
    for pod in release.pods:
        is_off = pod.spec.get("automountServiceAccountToken") is False
        yield pod.where, None if is_off else "automountServiceAccountToken is not false"


def has_no_service_links(release: Installation) -> Iterator[Finding]:
    """A Service `vllm` would set VLLM_PORT in every pod, a Service `simsa` SIMSA_PORT, to tcp://… for a number."""
    for pod in release.pods:
        yield pod.where, None if pod.spec.get("enableServiceLinks") is False else "enableServiceLinks is not false"


def calls_no_service_vllm(release: Installation) -> Iterator[Finding]:
    for service in release.of_kind("Service"):
        yield identity(service), "its VLLM_PORT breaks engines" if name_of(service) == "vllm" else None


def keeps_secrets_out_of_sight(release: Installation) -> Iterator[Finding]:
    """Values that open something come from Secrets: no environment, argument or ConfigMap spells one out."""
    for container in release.containers:
        for variable in container.spec.get("env", ()):
            if SECRET_NAME.search(variable["name"]):
                spelt_out = variable.get("value")
                yield f"{container.where}: {variable['name']}", "is spelt out" if spelt_out else None
    for manifest in release.manifests:
        opened = manifest["kind"] == "Secret" and (manifest.get("stringData") or manifest.get("data"))
        text = str([value for path, value in walk(manifest) if isinstance(value, str) and path[:1] != ("binaryData",)])
        has_password = re.search(r"://[^/\s:@']+:[^/\s@'$]+@", text)
        yield identity(manifest), "holds what opens something" if opened or has_password else None


# --- images and sizes ---------------------------------------------------------------------------------------


def image_is_pinned(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        image = str(container.spec.get("image", ""))
        name, _, digest = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        is_pinned = bool(digest) or (tag != "" and tag != "latest")
        yield container.where, None if is_pinned else f"image {image!r} may be another one tomorrow"


def asks_for_what_it_needs(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        resources = container.spec.get("resources", {})
        wanted = {"requests": ("cpu", "memory"), "limits": ("memory",)}
        missing = [f"{a}.{b}" for a, names in wanted.items() for b in names if b not in resources.get(a, {})]
        yield container.where, f"resources: {', '.join(missing)} missing" if missing else None


def memory_asked_is_memory_had(release: Installation) -> Iterator[Finding]:
    """An engine or gateway over its request is the first that a node under pressure ends, in mid-stream."""
    for container in release.containers:
        resources = container.spec.get("resources", {})
        asked, most = (resources.get(key, {}).get("memory") for key in ("requests", "limits"))
        if container.gpus:
            yield container.where, None if asked == most else f"asks for {asked} of memory and may use {most}"


def shared_memory_is_sized(release: Installation) -> Iterator[Finding]:
    """The container runtime's 64 MiB of /dev/shm are too few for an engine's processes."""
    for container in release.containers:
        if not container.gpus:
            continue
        volumes = {volume["name"]: volume for volume in container.pod.spec.get("volumes", ())}
        mounts = {mount["mountPath"]: mount["name"] for mount in container.spec.get("volumeMounts", ())}
        directory = volumes.get(mounts.get("/dev/shm", ""), {}).get("emptyDir") or {}
        is_sized = directory.get("medium") == "Memory" and "sizeLimit" in directory
        yield container.where, None if is_sized else "/dev/shm is no sized directory in memory"


def scratch_is_bounded(release: Installation) -> Iterator[Finding]:
    for pod in release.pods:
        for volume in pod.spec.get("volumes", ()):
            if "emptyDir" in volume:
                is_bounded = "sizeLimit" in (volume["emptyDir"] or {})
                yield f"{pod.where}: volume {volume['name']}", None if is_bounded else "emptyDir without a sizeLimit"


# --- beginnings and ends ------------------------------------------------------------------------------------


def is_probed(release: Installation) -> Iterator[Finding]:
    for pod in _lasting(release):
        for container in pod.containers:
            if container.kind == "init container" or not container.spec.get("ports"):
                continue
            wanted = ["readinessProbe", "livenessProbe", *(["startupProbe"] if container.gpus else [])]
            missing = [probe for probe in wanted if probe not in container.spec]
            yield container.where, f"{', '.join(missing)} missing" if missing else None


def liveness_asks_no_more_than_life(release: Installation) -> Iterator[Finding]:
    """A probe of life that asks what readiness asks restarts every pod when what they all need is away."""
    for pod in _lasting(release):
        for container in pod.containers:
            alive, ready = (container.spec.get(f"{kind}Probe") for kind in ("liveness", "readiness"))
            if alive and ready and not container.gpus:
                asked = {key: alive.get(key) == ready.get(key) for key in ("httpGet", "exec") if key in alive}
                yield container.where, "asks for life what it asks for readiness" if any(asked.values()) else None


def grace_covers_the_drain(release: Installation) -> Iterator[Finding]:
    """What cannot be told how long to drain (vLLM before 0.18) waits that long before it is told to end."""
    for pod in _lasting(release):
        grace_s = pod.spec.get("terminationGracePeriodSeconds", 30)
        for container in pod.containers:
            if container.kind == "init container" or not container.spec.get("ports"):
                continue
            drain_s, wait_s = drain_seconds(container), wait_before_term_seconds(container)
            if drain_s is None and wait_s < LEAST_WAIT_WITHOUT_DRAIN_S:
                yield container.where, "says not how long work in flight may go on after SIGTERM"
            elif wait_s <= 0:
                yield container.where, "has no preStop wait: calls still come while it ends"
            else:
                fits = grace_s > wait_s + (drain_s or 0.0)
                yield container.where, None if fits else f"grace {grace_s} s is not over {wait_s} + {drain_s or 0} s"


def drain_seconds(container: Container) -> float | None:
    """How long it works on after SIGTERM: vLLM's option, or the gateway's setting."""
    option = re.search(r"--shutdown-timeout[ =](\d+(\.\d+)?)", " ".join(container.words))
    if option:
        return float(option[1])
    for variable in container.spec.get("env", ()):
        if variable["name"] == "SIMSA_SHUTDOWN_GRACE_S" and "value" in variable:
            return float(variable["value"])
    return None


def wait_before_term_seconds(container: Container) -> float:
    stop = container.spec.get("lifecycle", {}).get("preStop", {})
    if "sleep" in stop:
        return float(stop["sleep"]["seconds"])
    slept = re.search(r"\bsleep (\d+)", " ".join(map(str, stop.get("exec", {}).get("command", ()))))
    return float(slept[1]) if slept else 0.0


def never_asks_for_a_second_gpu_to_roll(release: Installation) -> Iterator[Finding]:
    """A surge on GPUs waits for ever for one that is not there, while the old pod holds the only one."""
    for manifest in release.of_kind("Deployment"):
        if sum(pod.gpus for pod in release.pods if pod.owner is manifest) == 0:
            continue
        strategy = manifest["spec"].get("strategy", {})
        surge = strategy.get("rollingUpdate", {}).get("maxSurge")
        is_safe = strategy.get("type") == "Recreate" or surge == 0
        yield identity(manifest), None if is_safe else f"maxSurge is {surge}, not 0"


def gateway_rolls_without_a_gap(release: Installation) -> Iterator[Finding]:
    for manifest in release.of_kind("Deployment"):
        if sum(pod.gpus for pod in release.pods if pod.owner is manifest) > 0:
            continue
        strategy = manifest["spec"].get("strategy", {})
        is_recreated = strategy.get("type") == "Recreate"
        is_several = manifest["spec"].get("replicas") != 1
        unavailable = strategy.get("rollingUpdate", {}).get("maxUnavailable")
        is_safe = (is_recreated and not is_several) or unavailable == 0
        yield identity(manifest), None if is_safe else f"maxUnavailable is {unavailable}, not 0"


def jobs_end(release: Installation) -> Iterator[Finding]:
    """Those that Helm waits for end at a known time, and go, so that the next upgrade can make them anew."""
    for job in release.of_kind("Job"):
        spec, marks = job["spec"], job["metadata"].get("annotations") or {}
        is_bounded = "backoffLimit" in spec or "backoffLimitPerIndex" in spec
        missing = [] if is_bounded else ["backoffLimit"]
        if spec["template"]["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
            missing.append("restartPolicy")
        if "helm.sh/hook" in marks:
            missing += [] if "activeDeadlineSeconds" in spec else ["activeDeadlineSeconds"]
            missing += [] if "helm.sh/hook-delete-policy" in marks else ["helm.sh/hook-delete-policy"]
        yield identity(job), f"{', '.join(missing)} missing" if missing else None


def scales_down_slowly(release: Installation) -> Iterator[Finding]:
    """Scaling down ignores disruption budgets and cuts streams."""
    for scaler in release.of_kind("HorizontalPodAutoscaler", "ScaledObject"):
        advanced = scaler["spec"].get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
        behaviour = scaler["spec"].get("behavior") or advanced.get("behavior") or {}
        wait_s = behaviour.get("scaleDown", {}).get("stabilizationWindowSeconds", 0)
        is_slow = wait_s >= LEAST_SCALE_DOWN_WAIT_S
        yield identity(scaler), None if is_slow else f"scales down after {wait_s} s"


def evictions_stay_possible(release: Installation) -> Iterator[Finding]:
    """A budget that allows no eviction blocks every drain of a node."""
    for budget in release.of_kind("PodDisruptionBudget"):
        spec = budget["spec"]
        if "maxUnavailable" in spec:
            is_open = spec["maxUnavailable"] not in (0, "0%")
        else:
            is_open = _least(spec, release) < _replicas(spec, release)
        yield identity(budget), None if is_open else "allows no eviction at all"


def _least(spec: Mapping[str, Any], release: Installation) -> float:
    least = spec.get("minAvailable", 0)
    return float(least) if isinstance(least, int) else _replicas(spec, release) * float(least.rstrip("%")) / 100


def _replicas(spec: Mapping[str, Any], release: Installation) -> int:
    owners = [pod.owner for pod in release.pods if is_selected(pod.labels, spec["selector"])]
    return sum(owner["spec"].get("replicas", 2) for owner in owners)


# --- names and forms ----------------------------------------------------------------------------------------


def names_are_good_everywhere(release: Installation) -> Iterator[Finding]:
    """As names of hosts and as values of labels: 63 characters, lower case."""
    for manifest in release.manifests:
        name = name_of(manifest)
        yield identity(manifest), None if DNS_LABEL.fullmatch(name) else f"the name {name!r} is not a DNS label"


def labels_are_valid(release: Installation) -> Iterator[Finding]:
    for manifest in release.manifests:
        wrong = {
            key: value
            for path, labels in walk(manifest)
            if path[-1:] in (("labels",), ("matchLabels",)) and isinstance(labels, Mapping)
            for key, value in labels.items()
            if not isinstance(value, str) or not LABEL_VALUE.fullmatch(value)
        }
        yield identity(manifest), f"labels are not valid: {wrong}" if wrong else None


def says_whose_it_is(release: Installation) -> Iterator[Finding]:
    for manifest in release.manifests:
        labels = manifest["metadata"].get("labels") or {}
        missing = [key for key in COMMON_LABELS if key not in labels]
        is_ours = labels.get("app.kubernetes.io/instance") == release.name
        yield identity(manifest), f"labels missing: {missing}" if missing else None if is_ours else "another's instance"


def stays_in_its_namespace(release: Installation) -> Iterator[Finding]:
    for manifest in release.manifests:
        namespace = manifest["metadata"].get("namespace", release.namespace)
        yield identity(manifest), None if namespace == release.namespace else f"lies in {namespace}"


def selectors_outlive_an_upgrade(release: Installation) -> Iterator[Finding]:
    """A workload's selector cannot change, so no label in it may change with the chart's version."""
    for manifest in release.of_kind("Deployment", "StatefulSet"):
        found = set(manifest["spec"]["selector"].get("matchLabels", {})) & set(CHANGING_LABELS)
        yield identity(manifest), f"its selector changes with the version: {sorted(found)}" if found else None


def scaled_workloads_leave_their_number_alone(release: Installation) -> Iterator[Finding]:
    """Else every upgrade of the release sets the number of pods back under load."""
    for scaler in release.of_kind("HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        for manifest in release.of_kind(target.get("kind", "Deployment")):
            if name_of(manifest) == target["name"]:
                fixed = manifest["spec"].get("replicas")
                yield identity(manifest), None if fixed is None else f"is scaled and says replicas: {fixed}"


def lists_have_no_doubles(release: Installation) -> Iterator[Finding]:
    for manifest in release.manifests:
        doubles = [
            f"{'.'.join(map(str, path))}: {value} twice"
            for path, items in walk(manifest)
            if path and isinstance(items, list) and path[-1] in LISTS_BY_KEY
            for value, times in Counter(
                item[LISTS_BY_KEY[str(path[-1])]]
                for item in items
                if isinstance(item, Mapping) and LISTS_BY_KEY[str(path[-1])] in item
            ).items()
            if times > 1
        ]
        yield identity(manifest), "; ".join(doubles) or None


def numbers_are_whole(release: Installation) -> Iterator[Finding]:
    """Helm reads YAML's numbers as floats: one over a million would come out as 1.048576e+06."""
    for manifest in release.manifests:
        broken = [
            f"{'.'.join(map(str, path))} is {value}"
            for path, value in walk(manifest)
            if isinstance(value, str) and path[:1] not in (("binaryData",), ("data",))
            if re.search(r"(?<![\w.])\d(\.\d+)?e[+-]?\d{2}(?!\w)", value)
        ]
        yield identity(manifest), "; ".join(broken) or None


def says_nothing_half(release: Installation) -> Iterator[Finding]:
    """What templates leave where a value was missing."""
    for manifest in release.manifests:
        text = [value for path, value in walk(manifest) if isinstance(value, str) and path[:1] != ("binaryData",)]
        broken = [value for value in text if "<no value>" in value or "%!" in value or "<nil>" in value]
        yield identity(manifest), f"{broken[:3]}" if broken else None


# --- network ------------------------------------------------------------------------------------------------


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


# --- ways in ------------------------------------------------------------------------------------------------


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


def _policies_of(pod: Pod, release: Installation) -> list[Manifest]:
    return [
        policy
        for policy in release.of_kind("NetworkPolicy")
        if "Ingress" in policy["spec"].get("policyTypes", ["Ingress"])
        and is_selected(pod.labels, policy["spec"].get("podSelector") or {})
    ]


def _is_anybody(peer: Mapping[str, Any]) -> bool:
    wide = str(peer.get("ipBlock", {}).get("cidr", "")).endswith("/0")
    return wide or not any(peer.get(key) for key in ("podSelector", "ipBlock", "namespaceSelector"))


def _lasting(release: Installation) -> list[Pod]:
    """Pods that serve until they are told to end; a group's workers serve nobody by themselves."""
    return [pod for pod in release.pods if not pod.runs_to_an_end and pod.role != "worker"]


RULES: tuple[Check, ...] = (
    runs_as_non_root,
    root_filesystem_is_read_only,
    drops_every_capability,
    gains_no_privileges,
    has_seccomp_profile,
    keeps_off_the_node,
    mounts_no_token,
    has_no_service_links,
    calls_no_service_vllm,
    keeps_secrets_out_of_sight,
    image_is_pinned,
    asks_for_what_it_needs,
    memory_asked_is_memory_had,
    shared_memory_is_sized,
    scratch_is_bounded,
    is_probed,
    liveness_asks_no_more_than_life,
    grace_covers_the_drain,
    never_asks_for_a_second_gpu_to_roll,
    gateway_rolls_without_a_gap,
    jobs_end,
    scales_down_slowly,
    evictions_stay_possible,
    names_are_good_everywhere,
    labels_are_valid,
    says_whose_it_is,
    stays_in_its_namespace,
    selectors_outlive_an_upgrade,
    scaled_workloads_leave_their_number_alone,
    lists_have_no_doubles,
    numbers_are_whole,
    says_nothing_half,
    every_pod_is_behind_a_policy,
    engines_are_reached_by_name_alone,
    streams_come_through,
)
