"""The guides of blind rounds: their plan is a plan, their commands are commands, and their pictures are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from gateways import entry, running_gateway
from processes_under_test import run_simsa

from gateway.round_commands import round_app

GUIDES = Path(__file__).parent.parent / "docs" / "guides"
PAGES = {name: (GUIDES / f"{name}.ko.md").read_text() for name in ("chairs", "reviewers")}
ADMIN = "admin-key-of-this-test"
IMAGE_BYTES = 250_000


def block(language: str) -> str:
    """The chairs' only block in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGES["chairs"], re.MULTILINE | re.DOTALL)
    return str(found)


async def test_the_plan_of_the_chairs_guide_becomes_a_round(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(block("yaml"))
    (tmp_path / "prompts.jsonl").write_text(block("json"))
    models = yaml.safe_load(block("yaml"))["models"]
    entries = [entry(name, "http://127.0.0.1:9") for name in models]
    async with running_gateway(tmp_path / "gateway", entries, admin_key=ADMIN) as gateway:
        made = await run_simsa("round", "create", str(tmp_path / "plan.yaml"), "--url", gateway.url, key=ADMIN)
        assert made.code == 0, made.err
        drafted = json.loads(made.out)
        assert (drafted["status"], drafted["models"], drafted["prompts"]) == ("draft", len(models), 1)


def test_every_command_of_the_chairs_guide_is_one() -> None:
    known = {command.name for command in round_app.registered_commands}
    named = set(re.findall(r"simsa round ([a-z-]+)", PAGES["chairs"]))
    assert len(named) >= 12
    assert named <= known


@pytest.mark.parametrize("name", PAGES)
def test_what_a_guide_points_to_is_there(name: str) -> None:
    places = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", PAGES[name])
    for place in (found or other for found, other in places):
        target = (GUIDES / place).resolve()
        assert target.exists(), place
        if target.suffix == ".png":
            assert target.stat().st_size < IMAGE_BYTES, place
