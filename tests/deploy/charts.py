"""Runs Helm on the chart, on a copy of it, and nowhere else: no cluster but api_server's, no cache, no configuration of
the user's.

A rendering is kept for the whole session, since the same one is looked at by many checks.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploy_tools import ROOT, program
from guards import HANG_S
from manifests import Manifest, read_stream

CHART = ROOT / "deploy" / "helm"
HELMS = ("4.1.4", "3.17.3")
KUBERNETES = ("1.32", "1.34", "1.37")


class Refused(Exception):
    """Helm ended with an error; the text is what it wrote."""


@dataclass(frozen=True, slots=True)
class Release:
    """What `helm template` is told beside the values."""

    name: str = "simsa"
    namespace: str = "judging"
    helm: str = HELMS[0]
    kubernetes: str = KUBERNETES[1]

    def __str__(self) -> str:
        return f"{self.name}-helm{self.helm}-k8s{self.kubernetes}"


@dataclass(frozen=True, slots=True)
class Rendering:
    text: str
    manifests: tuple[Manifest, ...]


@cache
def render(
    values: Path | None,
    release: Release = Release(),
    *,
    registry: Path | None = None,
    chart: Path = CHART,
) -> Rendering:
    """What `helm template` makes of the chart with that file of values. Raises Refused."""
    text = helm(release.helm, "template", release.name, chart, *_options(values, release, registry))
    return Rendering(text, tuple(read_stream(text)))


def render_text(
    values: str,
    release: Release = Release(),
    *,
    base: Path | None = None,
    registry: Path | None = None,
    chart: Path = CHART,
) -> str:
    """The text that `helm template` makes of values that stand in no file, put over those of `base`. Raises Refused."""
    options = [*_options(base, release, registry), "--values", "-"]
    return helm(release.helm, "template", release.name, chart, *options, standard_input=values)


def render_for(
    values: Path, kubeconfig: Path, release: Release = Release(), *, registry: Path | None = None
) -> tuple[Manifest, ...]:
    """What Helm would apply to a cluster, whose objects templates may look up. Raises Refused."""
    options = ["--dry-run=server", "--disable-openapi-validation", *_options(values, release, registry)]
    return tuple(read_stream(helm(release.helm, "template", release.name, CHART, *options, kubeconfig=kubeconfig)))


def lint(values: Path | None, release: Release, *, registry: Path | None = None, chart: Path = CHART) -> str:
    """What `helm lint --strict` says. Raises Refused."""
    return helm(release.helm, "lint", chart, "--strict", *_options(values, release, registry))


def helm(version: str, *arguments: str | Path, standard_input: str = "", kubeconfig: Path = Path(os.devnull)) -> str:
    """What that version of Helm prints. Raises Refused where it ends with an error."""
    with tempfile.TemporaryDirectory(prefix="simsa-helm-") as home:
        environment = {"PATH": os.defpath, "HOME": home, "HELM_CACHE_HOME": home, "KUBECONFIG": str(kubeconfig)}
        done = subprocess.run(
            [program(f"helm-{version}"), *map(str, arguments)],
            input=standard_input,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=HANG_S,
        )
    if done.returncode != 0:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def _options(values: Path | None, release: Release, registry: Path | None) -> list[str]:
    options = ["--namespace", release.namespace, "--kube-version", f"{release.kubernetes}.0"]
    if values is not None:
        options += ["--values", str(values)]
    if registry is not None:
        options += ["--set-file", f"registryYaml={registry}"]
    return options
