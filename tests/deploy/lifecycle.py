"""How pods of the chart begin, are looked at, roll, scale and end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from checks import Check, Finding, Installation
from manifests import Container, Pod, identity, is_selected

LEAST_SCALE_DOWN_WAIT_S = 300
LEAST_WAIT_WITHOUT_DRAIN_S = 60
MOST_GRACE_OF_THE_HANGING_S = 60
LEAST_PROOF_OF_A_POD_S = 15
LEAST_PROOF_OF_AN_ENGINE_S = 60


# --- beginnings and ends ----------------------------------------------------------------------------------


def is_probed(release: Installation) -> Iterator[Finding]:
    for pod in _lasting(release):
        for container in pod.containers:
            if container.kind == "init container" or not container.spec.get("ports"):
                continue
            wanted = ["readinessProbe", "livenessProbe", *(["startupProbe"] if container.gpus else [])]
            missing = [probe for probe in wanted if probe not in container.spec]
            yield container.where, f"{', '.join(missing)} missing" if missing else None


def probes_ask_one_thing(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if name in container.spec:
                asked = [kind for kind in ("httpGet", "exec", "tcpSocket", "grpc") if container.spec[name].get(kind)]
                yield f"{container.where}: {name}", None if len(asked) == 1 else f"asks for {asked or 'nothing'}"


def liveness_asks_no_more_than_life(release: Installation) -> Iterator[Finding]:
    """A probe of life that asks what readiness asks restarts every pod when what they all need is away."""
    for pod in _lasting(release):
        for container in pod.containers:
            alive, ready = (container.spec.get(f"{kind}Probe") for kind in ("liveness", "readiness"))
            if alive and ready and not container.gpus:
                asked = {key: alive.get(key) == ready.get(key) for key in ("httpGet", "exec") if key in alive}
                yield container.where, "asks for life what it asks for readiness" if any(asked.values()) else None


def what_hangs_ends_soon(release: Installation) -> Iterator[Finding]:
    """What answers no probe drains nothing: the pod's own grace would keep its GPUs for that long."""
    for pod in _lasting(release):
        for container in pod.containers:
            for name in ("livenessProbe", "startupProbe"):
                if probe := container.spec.get(name):
                    grace_s = probe.get(
                        "terminationGracePeriodSeconds", pod.spec.get("terminationGracePeriodSeconds", 30)
                    )
                    is_soon = grace_s <= MOST_GRACE_OF_THE_HANGING_S
                    yield f"{container.where}: {name}", None if is_soon else f"leaves {grace_s} s to what hangs"


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
        is_several = manifest["spec"].get("replicas") not in (0, 1)
        unavailable = strategy.get("rollingUpdate", {}).get("maxUnavailable")
        is_safe = (is_recreated and not is_several) or unavailable == 0
        yield identity(manifest), None if is_safe else f"maxUnavailable is {unavailable}, not 0"


def rolls_on_when_the_new_pod_is_in_use(release: Installation) -> Iterator[Finding]:
    """A pod that is Ready is one that nobody has found yet: gateways ask the DNS for engines, and each for a token."""
    for manifest in release.of_kind("Deployment"):
        if manifest["spec"].get("strategy", {}).get("type") == "Recreate":
            continue
        has_gpus = any(pod.gpus for pod in release.pods if pod.owner is manifest)
        least_s = LEAST_PROOF_OF_AN_ENGINE_S if has_gpus else LEAST_PROOF_OF_A_POD_S
        proof_s = manifest["spec"].get("minReadySeconds", 0)
        yield identity(manifest), None if proof_s >= least_s else f"rolls on {proof_s} s after a pod is Ready"


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


def _lasting(release: Installation) -> list[Pod]:
    """Pods that serve until they are told to end; a group's workers serve nobody by themselves."""
    return [pod for pod in release.pods if not pod.runs_to_an_end and pod.role != "worker"]


RULES: tuple[Check, ...] = (
    is_probed,
    probes_ask_one_thing,
    liveness_asks_no_more_than_life,
    what_hangs_ends_soon,
    grace_covers_the_drain,
    never_asks_for_a_second_gpu_to_roll,
    gateway_rolls_without_a_gap,
    rolls_on_when_the_new_pod_is_in_use,
    jobs_end,
    scales_down_slowly,
    evictions_stay_possible,
)
