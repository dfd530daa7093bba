"""The small programs that the chart puts into pods, run as pods run them: their text after `python3 -c`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from charts import CHART
from engines import ScriptedEngine
from gateways import entry, running_gateway
from guards import HANG_S
from scripted_http import ScriptedServer
from scripted_replies import CLOSE, Reply

from gateway.processes import free_ports

SCRIPTS = CHART / "files" / "scripts"
HUB = """
import json, os, pathlib
def snapshot_download(repo, revision=None, **options):
    pathlib.Path(os.environ["ASKED"]).open("a").write(json.dumps([repo, revision]) + "\\n")
    if repo == "example/gone":
        raise RuntimeError("404 Client Error: no such repository")
"""
"""Stands where the engine's image has the hub's own library."""


def begin(name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    text = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-I" if environment is None else "-s", "-c", text, *arguments],
        env={"PATH": os.defpath, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def run(name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Its exit code, and what it said."""
    process = begin(name, *arguments, environment=environment)
    said, complained = await asyncio.to_thread(process.communicate, timeout=HANG_S)
    return process.returncode, said + complained


@pytest.mark.parametrize(
    ("reply", "is_started"),
    [
        (Reply.json({"choices": [{"text": "a"}]}), True),
        (Reply.json({"error": {}}, status=400), True),
        (Reply.json({"error": {}}, status=503), True),
        (Reply.json({"error": {}}, status=500), False),
        (Reply.raw(CLOSE), False),
    ],
    ids=["a token", "refused", "overloaded", "dead inside", "cut off"],
)
async def test_an_engine_has_started_when_it_answers_for_a_token(reply: Reply, is_started: bool) -> None:
    async with ScriptedServer() as server:
        server.script("/v1/completions", reply)
        code, _ = await run("first_token", server.url.rpartition(":")[2], "example/tiny")
        assert (code == 0) is is_started
        body = server.requests_to("/v1/completions")[0].json()
        assert (body["model"], body["max_tokens"]) == ("example/tiny", 1)


async def test_an_engine_that_does_not_listen_has_not_started() -> None:
    code, said = await run("first_token", str(free_ports(1)[0]), "tiny")
    assert code == 1
    assert "Traceback" not in said


async def test_weights_are_fetched_once_and_marked_when_they_are_whole(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text(HUB)
    asked = tmp_path / "asked"
    environment = {"PYTHONPATH": str(tmp_path), "ASKED": str(asked)}
    marker = str(tmp_path / "weights" / ".fetched" / "0123")
    for _ in range(2):
        code, said = await run("fetch_weights", "example/tiny", "abc", marker, environment=environment)
        assert (code, said) == (0, "")
    assert asked.read_text() == '["example/tiny", "abc"]\n'
    assert Path(marker).exists()


async def test_a_failed_fetch_leaves_no_mark_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text(HUB)
    environment = {"PYTHONPATH": str(tmp_path), "ASKED": str(tmp_path / "asked")}
    marker = tmp_path / "weights" / ".fetched" / "0123"
    code, said = await run("fetch_weights", "example/gone", "", str(marker), environment=environment)
    assert code != 0
    assert "no such repository" in said
    assert not marker.exists()


async def test_an_engine_waits_until_its_weights_are_marked(tmp_path: Path) -> None:
    marker = tmp_path / "0123"
    process = begin("await_weights", str(marker))
    try:
        assert process.poll() is None
        marker.write_text("")
        assert await asyncio.to_thread(process.wait, HANG_S) == 0
    finally:
        process.kill()
        process.communicate()


async def test_helm_test_passes_on_a_gateway_with_this_registry(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], admin_key="k") as gateway,
    ):
        await gateway.until_live("m")
        digest = hashlib.sha256(gateway.registry_path.read_bytes()).hexdigest()
        code, said = await run("look_at_gateway", gateway.url, digest, environment={"SIMSA_ADMIN_KEY": "k"})
        assert (code, said) == (0, "models that answer: m\n")


async def test_helm_test_fails_on_another_registry(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("tiny")], admin_key="k") as gateway:
        code, said = await run("look_at_gateway", gateway.url, "0" * 64, environment={"SIMSA_ADMIN_KEY": "k"})
        assert code == 1
        assert "another registry" in said


async def test_helm_test_fails_with_another_key(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("tiny")], admin_key="k") as gateway:
        digest = hashlib.sha256(gateway.registry_path.read_bytes()).hexdigest()
        code, said = await run("look_at_gateway", gateway.url, digest, environment={"SIMSA_ADMIN_KEY": "other"})
        assert code != 0
        assert "401" in said
