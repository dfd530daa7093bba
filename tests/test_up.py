"""`simsa up` from outside: everything answers when it says so, and nothing is left when it ends, however it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guards import HANG_S

ROOT = Path(__file__).parent.parent


class Up:
    """A running `simsa up`, its output read line by line."""

    def __init__(self, data_dir: Path, *arguments: str, output: int = subprocess.PIPE, **settings: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SIMSA_")}
        environment |= {
            "SIMSA_DATA_DIR": str(data_dir),
            "SIMSA_REGISTRY": str(ROOT / "model_registry.yaml"),
            "SIMSA_PORT": "0",
            **settings,
        }
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "up", *arguments],
            env=environment,
            stdout=output,
            stderr=subprocess.PIPE,
        )

    def events(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def until(self, **wanted: str) -> dict[str, Any]:
        """The first event with these values."""
        seen = []
        for event in self.events():
            if wanted.items() <= event.items():
                return event
            seen.append(event)
        raise AssertionError(f"ended without {wanted}, after {seen}: {self.errors()}")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def pids(self) -> dict[int, str]:
        """Every process that runs with our data directory in its environment, `up` included, and its command line."""
        return {
            int(path.name): (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            for path in Path("/proc").iterdir()
            if path.name.isdigit() and _has(path, str(self.data_dir).encode())
        }

    def pid(self, *words: str) -> int:
        """The process whose command line has these words and that is not its guard."""
        found = self.pids().items()
        (only,) = [pid for pid, line in found if all(word in line for word in words) and "guard.py" not in line]
        return only


def _has(process: Path, words: bytes) -> bool:
    try:
        return words in (process / "environ").read_bytes()
    except OSError:  # ended meanwhile, or not ours
        return False


def ended_within(pids: dict[int, str], seconds: float) -> dict[int, str]:
    """Those of the processes that have not ended after that time."""
    left = {}
    for pid, line in pids.items():
        try:
            watch = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if not select.select([watch], [], [], seconds)[0]:
            left[pid] = line
        os.close(watch)
    return left


def ask(ready: dict[str, Any], model: str) -> dict[str, Any]:
    """One short chat call with the key that `up` printed."""
    body = {"model": model, "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 4}
    request = urllib.request.Request(
        f"{ready['openai_base_url']}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {ready['admin_key']}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[list[Up]]:
    """Runs to clean up after, whatever the test did."""
    started: list[Up] = []
    yield started
    for up in started:
        up.process.kill()
        up.process.wait()
        for stream in (up.process.stdout, up.process.stderr):
            if stream is not None:
                stream.close()
        ended_within(up.pids(), HANG_S)


def test_all_that_is_announced_answers_and_ctrl_c_leaves_nothing(tmp_path: Path, runs: list[Up]) -> None:
    up = Up(tmp_path, "--json")
    runs.append(up)
    ready = up.until(event="ready")
    assert len(ready["models"]) == 2
    for model in ready["models"]:
        assert ask(ready, model)["usage"]["completion_tokens"] == 4
    up.process.send_signal(signal.SIGINT)
    stopped = [event["part"] for event in up.events() if event["state"] == "stopped"]
    assert up.process.wait(HANG_S) == 0
    assert stopped[0] == "gateway"
    assert sorted(stopped[1:]) == sorted(ready["models"])
    assert up.pids() == {}
    assert up.errors() == ""


def test_kill_9_leaves_nothing(tmp_path: Path, runs: list[Up]) -> None:
    up = Up(tmp_path, "--json")
    runs.append(up)
    up.until(event="ready")
    everybody = up.pids()
    assert len(everybody) >= 4
    up.process.kill()
    up.process.wait()
    assert ended_within(everybody, HANG_S) == {}


def test_a_stop_while_starting_leaves_nothing(tmp_path: Path, runs: list[Up]) -> None:
    up = Up(tmp_path, "--json")
    runs.append(up)
    up.until(state="starting")
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(HANG_S) == 0
    assert up.pids() == {}


def test_a_dead_engine_is_told_and_the_rest_goes_on_until_the_gateway_dies(tmp_path: Path, runs: list[Up]) -> None:
    up = Up(tmp_path, "--json")
    runs.append(up)
    ready = up.until(event="ready")
    first, second = ready["models"]
    os.kill(up.pid("gateway engine", first), signal.SIGKILL)
    failed = up.until(state="failed")
    assert failed["part"] == first
    assert f"{first} was ended by SIGKILL; its log" in failed["message"]
    assert ask(ready, second)["model"] == second
    os.kill(up.pid("gateway serve"), signal.SIGKILL)
    assert up.until(state="failed")["part"] == "gateway"
    assert up.process.wait(HANG_S) == 1
    assert up.pids() == {}


def test_an_engine_that_ends_while_starting_ends_the_run_with_its_log(tmp_path: Path, runs: list[Up]) -> None:
    up = Up(tmp_path, "--json")
    runs.append(up)
    up.until(state="starting")
    while not (engines := [pid for pid, line in up.pids().items() if "engine" in line and "guard.py" not in line]):
        assert up.process.poll() is None
    os.kill(engines[0], signal.SIGKILL)
    assert "was ended by SIGKILL before it was ready; its log" in up.until(state="failed")["message"]
    assert up.process.wait(HANG_S) == 1
    assert up.pids() == {}


def test_it_goes_on_when_nobody_reads_its_output_any_more(tmp_path: Path, runs: list[Up]) -> None:
    up = Up(tmp_path, "--json")
    runs.append(up)
    ready = up.until(event="ready")
    assert up.process.stdout is not None
    up.process.stdout.close()
    first, second = ready["models"]
    os.kill(up.pid("gateway engine", first), signal.SIGKILL)
    assert ask(ready, second)["model"] == second
    up.process.send_signal(signal.SIGTERM)
    up.process.wait(HANG_S)
    assert "Traceback" not in up.errors()
    assert up.pids() == {}


def test_a_taken_port_is_refused_in_one_line_before_anything_starts(tmp_path: Path, runs: list[Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        up = Up(tmp_path, "--json", SIMSA_PORT=str(port))
        runs.append(up)
        output, errors = up.process.communicate(timeout=HANG_S)
    assert up.process.returncode == 2
    assert output == b""
    assert errors.decode().count("\n") == 1
    assert f"127.0.0.1 port {port}: Address already in use" in errors.decode()
    assert not list(tmp_path.iterdir())


def test_a_terminal_gets_a_table_then_what_to_try(tmp_path: Path, runs: list[Up]) -> None:
    ours, theirs = pty.openpty()
    up = Up(tmp_path, output=theirs, SIMSA_ADMIN_KEY="test-key", TERM="xterm", COLUMNS="120")
    runs.append(up)
    os.close(theirs)
    shown = _read_until(ours, b"Ctrl-C stops everything.")
    up.process.send_signal(signal.SIGINT)
    rest = _read_until(ours, None)
    os.close(ours)
    assert up.process.wait(HANG_S) == 0
    assert "simulated on h100-sxm" in shown
    assert "gateway compare" in shown
    assert "the one in SIMSA_ADMIN_KEY" in shown
    assert "test-key" not in shown
    assert "gateway: stopped" in rest
    assert up.pids() == {}


def _read_until(terminal: int, words: bytes | None) -> str:
    """What the terminal shows up to these words, or up to its end."""
    shown = b""
    while words is None or words not in shown:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other side is closed
            piece = b""
        if not piece:
            break
        shown += piece
    return shown.decode()
