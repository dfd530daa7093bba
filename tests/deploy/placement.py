"""Whether what values say of where, how many and for whom arrives in the objects, and in all of them alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from checks import Check, Finding, Installation
from manifests import Container, identity, name_of
from parts import WORKLOADS, engine_of, engine_pods, gateway_pod, of_model, option_values, setting

DATABASE_SETTINGS = ("SIMSA_DATABASE", "SIMSA_REDIS_URL", "SIMSA_DATA_DIR")
MIGRATION = ["db", "upgrade"]
CALLS_OUT = ("gateway", "migrate", "fetch", "lead", "send")
"""Containers that speak to servers which the chart does not bring, under TLS if these want it."""


# --- engines ------------------------------------------------------------------------------------------------


def engines_run_where_their_gpus_are(release: Installation) -> Iterator[Finding]:
    for model_id, pod in engine_pods(release):
        place = release.values["gpus"][release.values["models"][model_id]["gpu"]] or {}
        resource = place.get("resource", "nvidia.com/gpu")
        yield pod.where, _difference("nodeSelector", pod.spec.get("nodeSelector"), place.get("nodeSelector"))
        yield pod.where, _difference("runtime", pod.spec.get("runtimeClassName"), place.get("runtimeClassName"))
        borne = pod.spec.get("tolerations") or []
        missing = [taint for taint in place.get("tolerations") or [] if taint not in borne]
        yield pod.where, f"does not bear {missing}" if missing else None
        bears_gpus = any(taint.get("key") == resource for taint in borne)
        yield pod.where, None if bears_gpus else f"does not bear the taint of nodes with {resource}"
        yield pod.where, None if resource in engine_of(pod).spec["resources"]["limits"] else f"asks for no {resource}"


def there_are_as_many_engines_as_values_say(release: Installation) -> Iterator[Finding]:
    scaled = {scaler["spec"]["scaleTargetRef"]["name"]: scaler["spec"] for scaler in release.of_kind("ScaledObject")}
    for model_id, manifest in of_model(release, WORKLOADS).items():
        wanted = release.values["models"][model_id]
        if "scaling" in wanted:
            limits = scaled[name_of(manifest)].get("maxReplicaCount"), scaled[name_of(manifest)].get("minReplicaCount")
            given = wanted["scaling"]["maxReplicas"], wanted["scaling"].get("minReplicas", 1)
            yield identity(manifest), _difference("most and least", limits, given)
        else:
            yield (
                identity(manifest),
                _difference("replicas", manifest["spec"].get("replicas"), wanted.get("replicas", 1)),
            )


def scalers_ask_for_a_load(release: Installation) -> Iterator[Finding]:
    for scaler in release.of_kind("ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            missing = [key for key in ("serverAddress", "query", "threshold") if not trigger["metadata"].get(key)]
            yield identity(scaler), f"its trigger has no {missing}" if missing else None
            hides = trigger["metadata"].get("ignoreNullValues") != "false"
            yield identity(scaler), "takes a query without series for a load of 0" if hides else None


def a_group_speaks_to_its_leader(release: Installation) -> Iterator[Finding]:
    for _, pod in engine_pods(release):
        if not pod.role:
            continue
        options = option_values(engine_of(pod).words)
        wanted = {
            "--nnodes": "$(LWS_GROUP_SIZE)",
            "--node-rank": "$(LWS_WORKER_INDEX)",
            "--master-addr": "$(LWS_LEADER_ADDRESS)",
        }
        yield pod.where, _difference("options", {key: options.get(key) for key in wanted}, wanted)
        yield pod.where, _difference("--headless", "--headless" in options, pod.role == "worker")
        group = pod.owner["spec"]["leaderWorkerTemplate"].get("restartPolicy")
        yield pod.where, _difference("restartPolicy", group, "RecreateGroupOnPodRestart")


def engines_start_when_the_weights_are_whole(release: Installation) -> Iterator[Finding]:
    """What the fetching Job marks at its end is what the engine waits for, on the volume that both have."""
    fetched = of_model(release, "Job")
    for model_id, pod in engine_pods(release):
        waits = [container for container in pod.containers if container.kind == "init container"]
        if model_id not in fetched:
            continue
        (fetching,) = [pod for pod in release.pods if pod.owner is fetched[model_id]]
        marker = fetching.containers[0].words[-1]
        yield pod.where, None if any(c.words[-1] == marker for c in waits) else "waits for another mark, or for none"
        homes = {setting(container, "HF_HOME") for container in (engine_of(pod), fetching.containers[0])}
        yield pod.where, None if len(homes) == 1 and None not in homes else f"looks in {homes}"


def a_start_is_proved_by_a_token(release: Installation) -> Iterator[Finding]:
    """/health alone is no proof: some engines load, say 200 and die of their first request."""
    for _, pod in engine_pods(release):
        if pod.role == "worker":
            continue
        engine = engine_of(pod)
        words = engine.spec["startupProbe"].get("exec", {}).get("command", [])
        options = option_values(engine.words)
        asked = [options.get("--port"), options.get("--served-model-name")]
        yield engine.where, None if words[-2:] == asked else f"its start is asked for {words[-2:]}, not {asked}"


# --- gateways -----------------------------------------------------------------------------------------------


def gateway_listens_where_it_is_asked(release: Installation) -> Iterator[Finding]:
    container = gateway_pod(release).containers[-1]
    ports = [str(port["containerPort"]) for port in container.spec["ports"]]
    yield container.where, _difference("port", [setting(container, "SIMSA_PORT")], ports)
    is_open = setting(container, "SIMSA_HOST") in ("0.0.0.0", "::")
    yield container.where, None if is_open else "listens where no other pod reaches it"


def gateway_keeps_its_data_on_a_volume(release: Installation) -> Iterator[Finding]:
    pod = gateway_pod(release)
    container = pod.containers[-1]
    mounts = {mount["mountPath"]: mount["name"] for mount in container.spec["volumeMounts"]}
    name = mounts.get(setting(container, "SIMSA_DATA_DIR") or "")
    yield container.where, None if name else "keeps its data on no volume"
    volume = next((volume for volume in pod.spec["volumes"] if volume["name"] == name), {})
    shares = all(release.values.get(part, {}).get("enabled") for part in ("postgresql", "redis"))
    is_lasting = "persistentVolumeClaim" in volume
    yield container.where, None if is_lasting or shares else "keeps its database where it is lost with the pod"


def migrations_use_the_gateways_database(release: Installation) -> Iterator[Finding]:
    """With the Deployment's own settings, before any gateway of the new version."""
    wanted = _of_database(gateway_pod(release).containers[-1])
    migrations = [c for c in release.containers if c.words[-2:] == MIGRATION]
    is_stopped = release.values.get("gateway", {}).get("replicas") == 0
    if release.values.get("postgresql", {}).get("enabled") and not is_stopped:
        yield "the release", None if migrations else "has a PostgreSQL whose schema nobody makes"
    for container in migrations:
        found = {name: variable for name, variable in _of_database(container).items() if name in wanted}
        yield container.where, _difference("its database", found, wanted)
        hooks = (container.pod.owner["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
        is_early = container.kind == "init container" or {"pre-install", "pre-upgrade"} <= set(hooks.split(","))
        yield container.where, None if is_early else "runs beside gateways that need it done"


def _of_database(container: Container) -> dict[str, Any]:
    return {v["name"]: v for v in container.spec["env"] if v["name"].startswith(DATABASE_SETTINGS)}


def settings_arrive(release: Installation) -> Iterator[Finding]:
    container = gateway_pod(release).containers[-1]
    for name, value in release.values.get("gateway", {}).get("settings", {}).items():
        found = setting(container, name)
        yield f"{container.where}: {name}", None if found == _as_text(value) else f"is {found}, not {value}"


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def gateway_runs_where_values_say(release: Installation) -> Iterator[Finding]:
    pod, wanted = gateway_pod(release), release.values.get("gateway", {})
    for key in ("nodeSelector", "tolerations"):
        yield pod.where, _difference(key, pod.spec.get(key), wanted.get(key))
    if not wanted.get("scaling", {}).get("enabled"):
        yield pod.where, _difference("replicas", pod.owner["spec"].get("replicas"), wanted.get("replicas", 1))
    for scaler in release.of_kind("HorizontalPodAutoscaler"):
        limits = {key: scaler["spec"].get(key) for key in ("minReplicas", "maxReplicas")}
        given = {key: wanted["scaling"].get(key, limits[key]) for key in limits}
        yield identity(scaler), _difference("limits", limits, given)


def addresses_are_the_same_everywhere(release: Installation) -> Iterator[Finding]:
    """Where clients are let in is what the gateway says of itself in links, and for reviewers a host of their own."""
    exposure = release.values.get("exposure", {})
    wanted = sorted(filter(None, [exposure.get("host"), exposure.get("reviewHost")]))
    for ingress in release.of_kind("Ingress"):
        yield identity(ingress), _difference("hosts", sorted(r["host"] for r in ingress["spec"]["rules"]), wanted)
        for entry in ingress["spec"].get("tls", ()):
            yield identity(ingress), _difference("hosts of its certificate", sorted(entry.get("hosts", ())), wanted)
    for route in release.of_kind("HTTPRoute"):
        yield identity(route), _difference("hosts", sorted(route["spec"].get("hostnames", ())), wanted)
    container = gateway_pod(release).containers[-1]
    if exposure.get("reviewHost"):
        found = setting(container, "SIMSA_REVIEW_URL")
        yield container.where, _difference("reviewers' address", found, f"https://{exposure['reviewHost']}")
    elif exposure.get("host"):
        yield (
            container.where,
            _difference("address", setting(container, "SIMSA_PUBLIC_URL"), f"https://{exposure['host']}"),
        )


# --- whom they trust ----------------------------------------------------------------------------------------


def what_calls_out_trusts_whom_values_name(release: Installation) -> Iterator[Finding]:
    """OpenSSL and huggingface_hub look for authorities by their own variables; engines call nobody."""
    wanted = release.values.get("trustedCa") or {}
    for container in release.containers:
        if container.name not in CALLS_OUT:
            continue
        files = {setting(container, name) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")}
        if not wanted.get("configMap"):
            yield container.where, _difference("trusted files", files, {None})
            continue
        mounts = {mount["mountPath"]: mount for mount in container.spec["volumeMounts"]}
        directory, _, file = str(next(iter(files))).rpartition("/")
        mount = mounts.get(directory, {})
        volume = next((v for v in container.pod.spec["volumes"] if v["name"] == mount.get("name")), {})
        items = [{"key": wanted.get("key", "ca.crt"), "path": file}]
        found = len(files), mount.get("readOnly"), volume.get("configMap")
        yield (
            container.where,
            _difference("trusted file", found, (1, True, {"name": wanted["configMap"], "items": items})),
        )


# --- the load test ------------------------------------------------------------------------------------------


def a_load_test_has_all_its_hosts(release: Installation) -> Iterator[Finding]:
    """A run with missing workers is void, so leader and workers must count alike and find each other."""
    if not release.values.get("loadtest", {}).get("enabled"):
        return
    leader, worker = _loadtest(release, "run"), _loadtest(release, "worker")
    jobs = worker.pod.owner["spec"]
    led = option_values(leader.words)
    counts = {led.get("--hosts"), str(jobs.get("completions")), str(jobs.get("parallelism"))}
    wanted = {str(release.values["loadtest"].get("hosts", 2))}
    yield worker.where, _difference("hosts", counts, wanted)
    yield worker.where, _difference("completionMode", jobs.get("completionMode"), "Indexed")
    host, _, port = worker.words[3].rpartition(":")
    yield worker.where, _difference("port", led.get("--listen", "").rpartition(":")[2], port)
    services = [f"{name_of(service)}.{release.namespace}.svc" for service in release.of_kind("Service")]
    yield worker.where, None if any(host.startswith(f"{name}.") for name in services) else f"no Service is {host}"
    for container in (leader, worker):
        place = release.values["loadtest"].get("nodeSelector")
        yield container.where, _difference("nodeSelector", container.pod.spec.get("nodeSelector"), place)
        for name, value in release.values["gateway"].get("settings", {}).items():
            if name.startswith("SIMSA_DNS_"):
                yield container.where, _difference(name, setting(container, name), str(value))
        asked = container.spec["resources"]["requests"]["cpu"], container.spec["resources"]["limits"].get("cpu")
        yield container.where, None if asked[0] == asked[1] else f"has no core of its own: {asked}"


def _loadtest(release: Installation, command: str) -> Container:
    (found,) = [c for c in release.containers if c.words[:3] == ["simsa", "loadtest", command]]
    return found


# --- what is left behind ------------------------------------------------------------------------------------


def data_outlives_the_release(release: Installation) -> Iterator[Finding]:
    """Votes, records, runs, and weights that took an hour to fetch."""
    for claim in release.of_kind("PersistentVolumeClaim"):
        kept = (claim["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"
        yield identity(claim), None if kept else "is deleted with the release"


def bare_pods_are_tests(release: Installation) -> Iterator[Finding]:
    for pod in release.of_kind("Pod"):
        hook = (pod["metadata"].get("annotations") or {}).get("helm.sh/hook")
        yield identity(pod), None if hook == "test" else "is no test, and nothing starts it again"


def _difference(what: str, found: Any, wanted: Any) -> str | None:
    return None if found == wanted or (not found and not wanted) else f"{what}: {found}, not {wanted}"


RULES: tuple[Check, ...] = (
    engines_run_where_their_gpus_are,
    there_are_as_many_engines_as_values_say,
    scalers_ask_for_a_load,
    a_group_speaks_to_its_leader,
    engines_start_when_the_weights_are_whole,
    a_start_is_proved_by_a_token,
    gateway_listens_where_it_is_asked,
    gateway_keeps_its_data_on_a_volume,
    migrations_use_the_gateways_database,
    settings_arrive,
    gateway_runs_where_values_say,
    addresses_are_the_same_everywhere,
    what_calls_out_trusts_whom_values_name,
    a_load_test_has_all_its_hosts,
    data_outlives_the_release,
    bare_pods_are_tests,
)
