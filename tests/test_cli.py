"""Every command as its user meets it: a real process, its exit code, its output in a pipe, one line when it refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from engines import ScriptedEngine
from gateways import RunningGateway, entry, registry_text, running_gateway
from processes_under_test import Ended, run_simsa
from typer.testing import CliRunner

from gateway import __version__
from gateway.cli import app
from gateway.schema_steps import steps

SHIPPED = Path(__file__).parent.parent / "model_registry.yaml"
COMMANDS = (
    "",
    "up",
    "serve",
    "engine",
    "compare",
    "feasibility",
    "registry",
    "registry check",
    "registry schema",
    "registry facts",
    "db",
    "db upgrade",
    "db downgrade",
    "db backup",
    "db restore",
    "org",
    "org create",
    "org list",
    "org revoke",
    "key",
    "key create",
    "key list",
    "key revoke",
    "claims",
    "claims check",
    "loadtest",
    "loadtest check",
    "loadtest run",
    "loadtest list",
    "loadtest show",
    "loadtest report",
    "loadtest trace",
    "loadtest diff",
    "loadtest capacity",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    ended = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="simsa")
    assert (ended.exit_code, ended.stderr, ended.exception) == (0, "", None)
    assert f"Usage: simsa {command}".rstrip() in ended.stdout


async def test_help_is_told_by_the_process_itself() -> None:
    ended = await run_simsa("round", "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "Usage: python -m gateway round" in ended.out


async def test_version_is_told() -> None:
    assert await run_simsa("--version") == Ended(0, f"simsa {__version__}\n", "")


async def test_a_missing_key_is_told_in_the_words_of_the_command_line(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")], admin_key="k") as gateway:
        ended = await run_simsa("compare", "안녕", "--models", "a,b", "--url", gateway.url)
    assert ended.code == 2
    assert "set SIMSA_ADMIN_KEY" in ended.error_line


async def test_valid_registry_is_summed_up_as_json_in_a_pipe() -> None:
    ended = await run_simsa("registry", "check", str(SHIPPED))
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert found["valid"] is True
    assert found["consortia"] == 10
    assert found["models"] > found["routable"]
    assert len(found["sha256"]) == 64


async def test_broken_registry_is_reported_with_all_its_problems(tmp_path: Path) -> None:
    broken = tmp_path / "registry.yaml"
    broken.write_text(registry_text([{"id": "a", "serving": {"kind": "vlm"}}, entry("b", "not a url"), {"id": "a"}]))
    ended = await run_simsa("registry", "check", registry=broken)
    assert (ended.code, ended.err) == (1, "")
    found = json.loads(ended.out)
    assert (found["file"], found["valid"]) == (str(broken), False)
    for where in ("models[0]", "models[1]", "models[2]"):
        assert any(where in problem for problem in found["problems"]), f"{where} is not named"


async def test_registry_schema_is_the_one_that_ships() -> None:
    ended = await run_simsa("registry", "schema")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == json.loads(SHIPPED.with_name("model_registry.schema.json").read_text())


async def test_feasibility_is_json_in_a_pipe_with_a_verdict_and_reasons() -> None:
    ended = await run_simsa("feasibility", "EXAONE-4.0-32B", "--gpu", "h100-sxm", registry=SHIPPED)
    assert (ended.code, ended.err) == (0, "")
    (found,) = json.loads(ended.out)
    assert (found["model"], found["gpu"]) == ("EXAONE-4.0-32B", "h100-sxm")
    assert found["verdict"]
    assert found["reasons"]


async def test_database_is_brought_up_to_date_and_twice_is_harmless(tmp_path: Path) -> None:
    for before in (None, steps()[-1]):
        ended = await run_simsa("db", "upgrade", data_dir=tmp_path / "new")
        assert (ended.code, ended.err) == (0, "")
        assert json.loads(ended.out) == {"before": before, "after": steps()[-1]}
    assert (tmp_path / "new" / "simsa.db").read_bytes().startswith(b"SQLite format 3")


async def test_database_of_a_running_gateway_is_not_touched(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")]):
        ended = await run_simsa("db", "upgrade", data_dir=tmp_path / "data")
    assert ended.code == 2
    assert "in use by another simsa process" in ended.error_line


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (["engine", "exaone-4.0-32"], {"registry": SHIPPED}, ["there is no model", "did you mean EXAONE-4.0-32B"]),
        (["feasibility", "--gpu", "h1000"], {"registry": SHIPPED}, ["there is no GPU 'h1000'", "did you mean h100"]),
        (["feasibility", "--gpu", "moon"], {"registry": SHIPPED}, ["there is no GPU 'moon'", "known are", "h100-sxm"]),
        (["serve"], {"admin_key": "한글"}, ["SIMSA_ADMIN_KEY", "printable ASCII"]),
        (["serve"], {"host": "192.0.2.1", "admin_key": "k"}, ["192.0.2.1", "SIMSA_HOST"]),
        (["serve"], {"prot": "9", "host": "0.0.0.0"}, ["SIMSA_PROT is no setting", "did you mean SIMSA_PORT"]),
        (["feasibility"], {"registry": "/no/such.yaml"}, ["/no/such.yaml"]),
        (["compare", "안녕", "--models", "a,b", "--url", "http://127.0.0.1:9"], {}, ["no gateway answers", "simsa up"]),
        (["up", "--engines", "real"], {}, ["--engines", "expected simulated or vllm, got 'real'"]),
        (["up", "--models", "EXAONE-5"], {"registry": SHIPPED}, ["EXAONE-5"]),
        (["db", "upgrade"], {"data_dir": "/dev/null/simsa"}, ["/dev/null/simsa", "Not a directory"]),
    ],
    ids=[
        "model",
        "GPU",
        "far GPU",
        "key",
        "address",
        "setting",
        "file",
        "no gateway",
        "engines",
        "model of up",
        "no directory",
    ],
)
async def test_mistake_is_told_in_one_line_with_what_would_be_right(
    arguments: list[str], settings: dict[str, object], words: list[str]
) -> None:
    ended = await run_simsa(*arguments, **settings)
    assert (ended.code, ended.out) == (2, "")
    last = ended.err.splitlines()[-1]
    assert last.startswith("simsa: ")
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err


# --- batches ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_models(directory: Path) -> AsyncIterator[RunningGateway]:
    async with (
        ScriptedEngine(["a"]) as a,
        ScriptedEngine(["b"]) as b,
        running_gateway(directory, [entry("a", a.url), entry("b", b.url)]) as gateway,
    ):
        await gateway.until_live("a", "b")
        yield gateway


async def test_prompt_file_is_asked_kept_and_summed_up_and_the_same_again_asks_nothing(tmp_path: Path) -> None:
    prompts = tmp_path / "질문.jsonl"
    prompts.write_text("".join(f'{{"text": "질문 {n}"}}\n' for n in range(6)))
    out = tmp_path / "out.csv"
    async with two_models(tmp_path / "gateway") as gateway:
        command = ["compare", "--prompts", str(prompts), "--models", "a,b", "--url", gateway.url, "--out", str(out)]
        ended = await run_simsa(*command)
        assert (ended.code, ended.err) == (0, "")
        found = json.loads(ended.out)
        assert (found["batch"]["name"], found["batch"]["status"]) == ("질문.jsonl", "done")
        assert [model["answered"] for model in found["models"]] == [6, 6]
        assert len(out.read_text(encoding="utf-8-sig").splitlines()) == 13
        again = await run_simsa(*command)
        assert json.loads(again.out)["batch"]["id"] == found["batch"]["id"]
        by_id = await run_simsa("compare", "--batch", found["batch"]["id"], "--url", gateway.url)
        assert (by_id.code, json.loads(by_id.out)["models"]) == (0, found["models"])
        assert len(await gateway.services.store.list_comparisons()) == 6
        other = await run_simsa(*command, "--repeats", "2")
        assert other.code == 2
        assert "choose another name" in other.error_line


async def test_prompt_file_with_a_fault_is_told_line_by_line_before_anything_is_asked(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"text": "하나"}\n{"txet": "둘"}\n')
    ended = await run_simsa("compare", "--prompts", str(prompts), "--models", "a,b", "--url", "http://127.0.0.1:9")
    assert (ended.code, ended.out) == (2, "")
    assert "line 2" in ended.err
    assert "did you mean 'text'?" in ended.err


@pytest.mark.parametrize("arguments", [[], ["안녕", "--prompts", "x"], ["--batch", "1", "--prompts", "x"]])
async def test_compare_takes_one_question_one_set_or_one_batch(arguments: list[str]) -> None:
    ended = await run_simsa("compare", *arguments, "--models", "a,b")
    assert ended.code == 2
    assert "expected a question in quotes, or --prompts FILE, or --batch ID" in ended.error_line
