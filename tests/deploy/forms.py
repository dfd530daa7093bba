"""Names, labels and the form of objects of the chart, whatever they are for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from checks import Check, Finding, Installation
from manifests import identity, name_of, walk

DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
COMMON_LABELS = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
)
CHANGING_LABELS = ("helm.sh/chart", "app.kubernetes.io/version")
LISTS_BY_KEY = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "ports": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}


# --- names and forms --------------------------------------------------------------------------------------


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


RULES: tuple[Check, ...] = (
    names_are_good_everywhere,
    labels_are_valid,
    says_whose_it_is,
    stays_in_its_namespace,
    selectors_outlive_an_upgrade,
    scaled_workloads_leave_their_number_alone,
    lists_have_no_doubles,
    numbers_are_whole,
    says_nothing_half,
)
