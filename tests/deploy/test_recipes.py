"""The commands and manifests that the pages give an operator of the chart are ones that Helm and a cluster take."""

from __future__ import annotations

import re
import shlex

import pytest
from charts import CHART, HELMS, helm
from deploy_tools import ROOT
from fixtures import SMALL_REGISTRY
from test_refusals import GOOD

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "upgrades.md", CHART / "README.md")}
COMMANDS = [
    (page, " ".join(found.split()))
    for page, text in PAGES.items()
    for pattern in (r"^\$ ((?:helm|kubectl) .+)$", r"(?<!`)`((?:helm|kubectl) [^`]+)`")
    for found in re.findall(pattern, text, re.MULTILINE)
]
UPGRADES = [command for _, command in COMMANDS if " upgrade " in command and command.startswith("helm ")]


def test_commands_were_found() -> None:
    assert {page for page, _ in COMMANDS} == set(PAGES)
    assert len(UPGRADES) >= 3


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_objects_are_not_called_by_the_releases_name(page: str, command: str) -> None:
    """They have the chart's name too, unless the release has it already, or another one altogether."""
    if command.startswith("kubectl "):
        named = command.replace("app.kubernetes.io/instance=RELEASE", "")
        assert "RELEASE" not in named


@pytest.mark.parametrize("command", UPGRADES)
@pytest.mark.parametrize("version", HELMS)
def test_helm_knows_the_options_of_every_upgrade(version: str, command: str) -> None:
    known = helm(version, "upgrade", "--help")
    options = [word.partition("=")[0] for word in shlex.split(command.partition("#")[0]) if word.startswith("--")]
    assert [option for option in options if f" {option} " not in known] == []


@pytest.mark.parametrize("command", [command for command in UPGRADES if "--set" in command])
@pytest.mark.parametrize("version", HELMS)
def test_the_chart_takes_what_an_upgrade_sets(version: str, command: str) -> None:
    words = shlex.split(command.partition("#")[0])
    given = words[words.index("--set") + 1]
    told = ["--values", str(GOOD), "--set-file", f"registryYaml={SMALL_REGISTRY}", "--set", given]
    assert "replicas: 0" in helm(version, "template", "simsa", CHART, *told)
