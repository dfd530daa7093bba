"""What `simsa compare --out` leaves on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import CLOSE, Reply, ScriptedEngine

from gateway.batch_command import PATH, _write
from gateway.errors import UpstreamError
from gateway.gateway_client import GatewayDoor

EXPORT = f"{PATH}/1/export"


async def test_a_download_that_is_cut_leaves_what_was_there_before(tmp_path: Path) -> None:
    out = tmp_path / "batch.csv"
    out.write_text("before")
    async with ScriptedEngine(["a"]) as server:
        server.script(EXPORT, Reply.stream(b"half a fi", CLOSE))
        with pytest.raises(UpstreamError):
            await _write(GatewayDoor(server.url), "1", out)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("batch.csv", "before")]


async def test_a_whole_download_is_the_file(tmp_path: Path) -> None:
    out = tmp_path / "batch.jsonl"
    async with ScriptedEngine(["a"]) as server:
        server.script(EXPORT, Reply.stream(b"one\n", b"two\n"))
        await _write(GatewayDoor(server.url), "1", out)
        (asked,) = server.requests_to(EXPORT)
        assert asked.query == "format=jsonl"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("batch.jsonl", "one\ntwo\n")]
