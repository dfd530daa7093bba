"""What a check of rendered objects is: a function that looks at them one by one and says of each what is wrong, or not.

Checks are functions and no tests, so that the same check can be run over the chart, over manifests made by hand, and
over a chart from which a safeguard was taken. What a check never looked at it has not approved: `looked_at` counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from manifests import Container, Manifest, Pod, containers, pods

Finding = tuple[str, str | None]
"""Where something was looked at, and what is wrong with it; None = nothing."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The objects of one release, and what the cluster has besides."""

    manifests: tuple[Manifest, ...]
    name: str = "simsa"
    namespace: str = "judging"
    external: frozenset[str] = frozenset()
    """Objects that the values declare to exist already, such as Secret/simsa-keys."""
    registry: bytes = b""
    """The registry that the release was rendered with."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What the release was given, without the chart's defaults."""

    @property
    def pods(self) -> list[Pod]:
        return pods(self.manifests)

    @property
    def containers(self) -> list[Container]:
        return containers(self.manifests)

    def of_kind(self, *kinds: str) -> list[Manifest]:
        return [manifest for manifest in self.manifests if manifest["kind"] in kinds]


Check = Callable[[Installation], Iterator[Finding]]


@dataclass(slots=True)
class Report:
    looked_at: int = 0
    complaints: list[str] = field(default_factory=list)


def look(check: Check, installation: Installation) -> Report:
    report = Report()
    for where, complaint in check(installation):
        report.looked_at += 1
        if complaint is not None:
            report.complaints.append(f"{where}: {complaint}")
    return report
