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
from deploy_tools import LIBRARIES, library
from engines import ScriptedEngine
from gateways import entry, running_gateway
from guards import HANG_S
from scripted_http import ScriptedServer
from scripted_replies import CLOSE, Reply, Request

from gateway.processes import free_ports

SCRIPTS = CHART / "files" / "scripts"
OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"
FILES = {"config.json": b"{}", "model.safetensors": b"the former weights"}
NEW_FILES = {**FILES, "model.safetensors": b"the new weights"}


class Hub(ScriptedServer):
    """The part of a model hub that its library asks for: `revisions` of example/tiny, each with its files."""

    def __init__(self, revisions: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__()
        self._revisions = revisions
        self.size: int | None = 1
        """What it says to be the size of each file, whatever it is; None = nothing."""

    def usual(self, request: Request) -> Reply:
        for revision, files in self._revisions.items():
            if request.path == f"/api/models/example/tiny/revision/{revision}":
                return Reply.json({"id": "example/tiny", "sha": revision, "siblings": self._siblings(files)})
            if request.path == f"/api/models/example/tiny/tree/{revision}":
                return Reply.json(
                    [
                        {"type": "file", "path": name, "size": len(data), "oid": digest(data)}
                        for name, data in files.items()
                    ]
                )
            for name, data in files.items():
                if request.path == f"/example/tiny/resolve/{revision}/{name}":
                    headers = (("x-repo-commit", revision), ("etag", f'"{digest(data)}"'))
                    if request.method == "HEAD":
                        return head(*headers, ("content-length", str(len(data))))
                    return Reply(headers=headers, pieces=(data,), content_type="application/octet-stream")
        return Reply.json({"error": "not found"}, status=404)

    def _siblings(self, files: Mapping[str, bytes]) -> list[dict[str, object]]:
        sizes = {} if self.size is None else {"size": self.size}
        return [{"rfilename": name, "blobId": digest(data), **sizes} for name, data in files.items()]


def head(*headers: tuple[str, str]) -> Reply:
    """An answer without the body that it tells of."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return Reply.raw(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode())


def digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class Volume:
    """Where weights are fetched to: `directory` is its root."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._repository = directory / "hub" / "models--example--tiny"

    async def fetch(self, hub: Hub, revision: str) -> tuple[int, str]:
        library("huggingface_hub")
        environment = {
            "PYTHONPATH": str(LIBRARIES),
            "HF_HOME": str(self._directory),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return await run(
            "fetch_weights", "example/tiny", revision, str(self._marker(revision)), environment=environment
        )

    def weights(self, revision: str) -> dict[str, bytes]:
        found = (self._repository / "snapshots" / revision).glob("*")
        return {path.name: path.read_bytes() for path in found}

    def blobs(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in (self._repository / "blobs").iterdir())

    def piece(self) -> Path:
        """A piece of a download that broke off."""
        path = self._repository / "blobs" / "0123.4567.incomplete"
        path.write_bytes(b"the n")
        return path

    def is_marked(self, revision: str) -> bool:
        return self._marker(revision).exists()

    def _marker(self, revision: str) -> Path:
        return self._directory / ".fetched" / revision


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
    volume = Volume(tmp_path)
    async with Hub({OLD: FILES}) as hub:
        assert (await volume.fetch(hub, OLD))[0] == 0
        asked = len(hub.requests)
        assert await volume.fetch(hub, OLD) == (0, "")
        assert len(hub.requests) == asked
    assert volume.weights(OLD) == FILES
    assert volume.is_marked(OLD)


async def test_a_failed_fetch_leaves_no_mark_and_says_why(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    async with Hub({OLD: FILES}) as hub:
        code, said = await volume.fetch(hub, NEW)
    assert code != 0
    assert "404" in said
    assert not volume.is_marked(NEW)


async def test_a_hub_that_is_gone_leaves_a_half_fetched_revision_without_a_mark(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    async with Hub({OLD: FILES}) as hub:
        hub.script(f"/example/tiny/resolve/{OLD}/model.safetensors", Reply.text("", status=403))
        assert (await volume.fetch(hub, OLD))[0] != 0
    assert volume.weights(OLD).keys() < FILES.keys()
    assert (await volume.fetch(hub, OLD))[0] != 0
    assert not volume.is_marked(OLD)


async def test_another_revision_lies_beside_the_former_one_where_there_is_room(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    async with Hub({OLD: FILES, NEW: NEW_FILES}) as hub:
        for revision in (OLD, NEW):
            code, said = await volume.fetch(hub, revision)
            assert (code, "removed" in said) == (0, False)
    assert (volume.weights(OLD), volume.weights(NEW)) == (FILES, NEW_FILES)
    assert volume.is_marked(OLD)


async def test_another_revision_takes_the_place_of_the_former_one_where_there_is_no_room(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    async with Hub({OLD: FILES, NEW: NEW_FILES}) as hub:
        await volume.fetch(hub, OLD)
        hub.size = 2**62
        piece = volume.piece()
        code, said = await volume.fetch(hub, NEW)
    assert code == 0
    assert f"removed example/tiny@{OLD}" in said
    assert volume.weights(NEW) == NEW_FILES
    assert (volume.weights(OLD), volume.is_marked(OLD), volume.is_marked(NEW)) == ({}, False, True)
    assert volume.blobs() == sorted(NEW_FILES.values())
    assert not piece.exists()


async def test_nothing_is_removed_where_the_hub_does_not_say_how_large_files_are(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    async with Hub({OLD: FILES, NEW: NEW_FILES}) as hub:
        await volume.fetch(hub, OLD)
        hub.size = None
        assert (await volume.fetch(hub, NEW))[0] == 0
    assert (volume.weights(OLD), volume.weights(NEW)) == (FILES, NEW_FILES)


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
