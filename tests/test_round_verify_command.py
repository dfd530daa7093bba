"""`simsa round verify` as a process: what it prints where, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

from closed_rounds import put_closed_round
from databases import ScratchDatabase
from processes_under_test import run_simsa

from gateway.rounds.bundle import BundleKind, build_bundle
from gateway.rounds.bundle_tools import TOOLS
from gateway.rounds.store import RoundStore
from gateway.store import Store


async def test_a_bundle_is_verified_from_the_command_line(sqlite_file: ScratchDatabase, tmp_path: Path) -> None:
    store = await Store.open(sqlite_file.url)
    closed = await put_closed_round(RoundStore(store), reviewers=3)
    content = await closed.content()
    await store.close()
    bundle = build_bundle(content, BundleKind.AUDIT, tools=TOOLS)
    file, receipt = tmp_path / "round.zip", tmp_path / "receipt.json"
    file.write_bytes(bundle.data)
    receipt.write_text(json.dumps(closed.receipt))
    one = content.round
    assert one.root is not None
    assert one.head is not None
    published = ("--root", one.root, "--head", one.head, "--closing", content.closing.root, "--bundle", bundle.root)

    whole = await run_simsa("round", "verify", str(file), *published, "--receipt", str(receipt))
    assert (whole.code, whole.err) == (0, "")
    assert json.loads(whole.out)["verdict"] == "authenticated"

    alone = await run_simsa("round", "verify", str(file))
    assert alone.code == 0
    assert "consistent, not authenticated" in alone.err
    assert json.loads(alone.out)["authenticated"] == {
        "what was sealed": False,
        "the votes": False,
        "the other records": False,
    }

    other = await run_simsa("round", "verify", str(file), "--root", "0" * 64)
    assert other.code == 1
    fault = json.loads(other.out)["faults"][0]
    assert (fault["file"], fault["place"]) == ("round.json", "root")

    file.write_bytes(bundle.data.replace(b'"sequence":2}', b'"sequence":3}', 1))
    changed = await run_simsa("round", "verify", str(file), *published)
    assert changed.code == 1
    assert "votes.jsonl" in {fault["file"] for fault in json.loads(changed.out)["faults"]}

    for arguments, words in (
        ((str(tmp_path / "none.zip"),), "cannot be read"),
        ((str(file), "--root", "abc"), "64 hexadecimal digits"),
        ((str(file), "--receipt", str(file)), "cannot be read"),
    ):
        wrong = await run_simsa("round", "verify", *arguments)
        assert wrong.code == 2
        assert words in wrong.err
