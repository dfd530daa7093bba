"""What the image files say, as values: Dockerfiles, what is sent to the builder, the compose file with its variables.

Only as much of these formats as our own files use; hadolint and the Compose schema judge the rest.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


class Step(NamedTuple):
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str


@dataclass
class Stage:
    base: str
    name: str | None = None
    steps: list[Step] = field(default_factory=list)

    def texts(self, name: str) -> list[str]:
        return [step.text for step in self.steps if step.name == name]


@dataclass
class Dockerfile:
    arguments: list[str]
    """ARG lines before the first stage."""
    stages: list[Stage]

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    @property
    def steps(self) -> list[Step]:
        return [step for stage in self.stages for step in stage.steps]


def read_dockerfile(path: Path) -> Dockerfile:
    found = Dockerfile([], [])
    for step in _steps(path.read_text()):
        if step.name == "FROM":
            base, *rest = step.text.split()
            found.stages.append(Stage(base, rest[1] if rest[:1] == ["AS"] else None))
        elif not found.stages:
            found.arguments.append(step.text)
        else:
            found.last.steps.append(step)
    return found


def _steps(text: str) -> Iterator[Step]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for whole in re.sub(r"\\\n", "", "\n".join(lines)).splitlines():
        name, _, rest = whole.partition(" ")
        yield Step(name, " ".join(rest.split()))


def copied_from_checkout(dockerfile: Dockerfile) -> list[str]:
    """Sources of COPY that come out of the checkout."""
    copies = [step.text for step in dockerfile.steps if step.name == "COPY" and "--from=" not in step.text]
    return [source for text in copies for source in text.split()[:-1] if not source.startswith("--")]


def is_sent_to_builder(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last pattern that matches it or a folder above it counts."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    parts = path.strip("/").split("/")
    prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    sent = True
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        if any(_matches(prefix, bare) for prefix in prefixes):
            sent = pattern.startswith("!")
    return sent


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(path.rpartition("/")[2], pattern[3:])
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


def tracked_files() -> list[str]:
    """What git has, or would add: no build output."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [path for path in listed.split("\0") if path and (ROOT / path).exists()]


# --- compose ------------------------------------------------------------------------------------------------

_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<how>:-|:\?)(?P<rest>[^}]*))?}")


class Unset(Exception):
    """A variable without which the compose file refuses to be used."""


def read_environment(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def compose(environment: Mapping[str, str]) -> dict[str, Any]:
    """The compose file as Compose reads it: merged, then variables filled in. Raises Unset."""
    loaded = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    filled: dict[str, Any] = _filled(loaded, environment)
    return filled


def compose_variables() -> set[str]:
    text = (DEPLOY / "compose.yaml").read_text()
    return {match["name"] for match in _VARIABLE.finditer(text) if match["name"]}


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _value(match, environment), value)
    if isinstance(value, list):
        return [_filled(item, environment) for item in value]
    if isinstance(value, dict):
        return {name: _filled(item, environment) for name, item in value.items()}
    return value


def _value(match: re.Match[str], environment: Mapping[str, str]) -> str:
    if match["name"] is None:
        return "$"
    given = environment.get(match["name"], "")
    if given or match["how"] is None:
        return given
    if match["how"] == ":?":
        raise Unset(f"{match['name']}: {match['rest']}")
    return match["rest"]
