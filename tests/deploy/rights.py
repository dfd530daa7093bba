"""What containers of the chart may do, which images they run, and what they are given."""

from __future__ import annotations

import re
from collections.abc import Iterator

from checks import Check, Finding, Installation
from manifests import identity, name_of, walk

OWN_DIRECTORIES = ("HOME", "TMPDIR", "SIMSA_DATA_DIR", "HF_MODULES_CACHE")
SECRET_NAME = re.compile(r"(_KEY|_TOKEN|PASSWORD|SECRET|DATABASE_URL|REDIS_URL)$")


# --- rights -----------------------------------------------------------------------------------------------


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


def writes_where_it_may(release: Installation) -> Iterator[Finding]:
    """With a read-only root every directory that a program takes for its own must be a volume."""
    for container in release.containers:
        mounts = container.spec.get("volumeMounts", ())
        writable = [f"{mount['mountPath']}/" for mount in mounts if not mount.get("readOnly")]
        for variable in container.spec.get("env", ()):
            if variable["name"] in OWN_DIRECTORIES and "value" in variable:
                is_writable = f"{variable['value']}/".startswith(tuple(writable))
                yield (
                    f"{container.where}: {variable['name']}",
                    None if is_writable else "is a directory it may not write",
                )


def volumes_belong_to_the_user(release: Installation) -> Iterator[Finding]:
    """A fresh volume is root's, which nobody here is."""
    for pod in release.pods:
        if any("persistentVolumeClaim" in volume for volume in pod.spec.get("volumes", ())):
            is_given = int(pod.spec.get("securityContext", {}).get("fsGroup", 0)) > 0
            yield pod.where, None if is_given else "mounts a claim without an fsGroup"


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


# --- images and sizes -------------------------------------------------------------------------------------


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


RULES: tuple[Check, ...] = (
    runs_as_non_root,
    root_filesystem_is_read_only,
    drops_every_capability,
    gains_no_privileges,
    has_seccomp_profile,
    keeps_off_the_node,
    writes_where_it_may,
    volumes_belong_to_the_user,
    mounts_no_token,
    has_no_service_links,
    calls_no_service_vllm,
    keeps_secrets_out_of_sight,
    image_is_pinned,
    asks_for_what_it_needs,
    memory_asked_is_memory_had,
    shared_memory_is_sized,
    scratch_is_bounded,
)
