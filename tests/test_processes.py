"""Owned children: nobody is left behind, early ends are told with the log, stopping escalates. Real processes."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.errors import StartRefused
from gateway.processes import Child, ChildFailed, free_ports, http_status, require_port, start_child, wait_ready
from gateway.settings import child_environment

SLEEPER = "import time; time.sleep(600)"
# Starts a process of its own, says both pids into the pipe named by its argument, then waits.
FAMILY = f"""
import os, subprocess, sys
other = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
with open(sys.argv[1], "w") as pipe:
    pipe.write(f"{{os.getpid()}} {{other.pid}}")
other.wait()
"""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{FAMILY}"
ANSWERS = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 503)
        self.end_headers()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200 if body == b'{"ask": 1}' else 400)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
# A parent that starts FAMILY as its child and then stays.
PARENT = f"""
import asyncio, sys
from pathlib import Path
from gateway.processes import start_child
from gateway.settings import child_environment
async def main():
    command = [sys.executable, "-c", {FAMILY!r}, sys.argv[1]]
    child = await start_child("family", command, log=Path(sys.argv[2]), environment=child_environment())
    await child.wait()
asyncio.run(main())
"""


async def start(tmp_path: Path, code: str, *arguments: str) -> Child:
    command = [sys.executable, "-c", code, *arguments]
    return await start_child("helper", command, log=tmp_path / "log" / "child.log", environment=child_environment())


def pipe_in(tmp_path: Path) -> Path:
    path = tmp_path / "pids"
    os.mkfifo(path)
    return path


def read_pids(pipe: Path) -> list[int]:
    """Blocks until the family has said who it is."""
    return [int(word) for word in pipe.read_text().split()]


def ended_within(pid: int, seconds: float) -> bool:
    """Whether the process (of whatever parent) ends within that time."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], seconds)[0])
    finally:
        os.close(watch)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, end: signal.Signals) -> None:
    pipe = pipe_in(tmp_path)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(pipe), str(tmp_path / "child.log")])
    pids = read_pids(pipe)
    parent.send_signal(end)
    parent.wait()
    assert [ended_within(pid, 10) for pid in pids] == [True, True]


async def test_a_killed_guard_takes_the_command_along(tmp_path: Path) -> None:
    pipe = pipe_in(tmp_path)
    child = await start(tmp_path, FAMILY, str(pipe))
    command, other = await asyncio.to_thread(read_pids, pipe)
    child._process.kill()
    assert await child.wait() == -signal.SIGKILL
    assert ended_within(command, 10)
    os.kill(other, signal.SIGKILL)


async def test_stop_ends_the_command_and_what_it_started(tmp_path: Path) -> None:
    pipe = pipe_in(tmp_path)
    child = await start(tmp_path, FAMILY, str(pipe))
    pids = await asyncio.to_thread(read_pids, pipe)
    assert await child.stop(10) == 128 + signal.SIGTERM
    assert child.ending() == "was ended by SIGTERM"
    assert [ended_within(pid, 0) for pid in pids] == [True, True]


async def test_stop_kills_what_ignores_sigterm_once_the_grace_is_over(tmp_path: Path) -> None:
    pipe = pipe_in(tmp_path)
    child = await start(tmp_path, STUBBORN, str(pipe))
    pids = await asyncio.to_thread(read_pids, pipe)
    began = time.monotonic()
    assert await child.stop(0.3) == 128 + signal.SIGKILL
    assert 0.3 <= time.monotonic() - began < 5
    assert [ended_within(pid, 5) for pid in pids] == [True, True]


async def test_a_second_stop_shortens_the_first(tmp_path: Path) -> None:
    pipe = pipe_in(tmp_path)
    child = await start(tmp_path, STUBBORN, str(pipe))
    await asyncio.to_thread(read_pids, pipe)
    patient = asyncio.create_task(child.stop(600))
    await asyncio.sleep(0)
    assert await child.stop(0) == 128 + signal.SIGKILL
    assert await patient == 128 + signal.SIGKILL


async def test_stopping_twice_or_after_the_end_is_harmless(tmp_path: Path) -> None:
    child = await start(tmp_path, "raise SystemExit(3)")
    assert await child.wait() == 3
    assert await child.stop(1) == 3
    assert await child.stop(1) == 3
    assert child.ending() == "ended with exit code 3"


async def test_a_command_that_does_not_exist_is_named_in_the_log(tmp_path: Path) -> None:
    child = await start_child("helper", ["/no/such/thing"], log=tmp_path / "log", environment=child_environment())
    assert await child.wait() == 127
    assert child.log_tail() == "cannot start /no/such/thing: No such file or directory"


async def test_the_environment_is_the_one_given(tmp_path: Path) -> None:
    code = "import os; print(os.environ['SIMSA_TEST_WORD'], os.environ.get('HOME'))"
    child = await start_child(
        "helper", [sys.executable, "-c", code], log=tmp_path / "log", environment={"SIMSA_TEST_WORD": "심사"}
    )
    assert await child.wait() == 0
    assert child.log_tail() == "심사 None"


async def test_a_child_is_ready_when_it_answers(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    child = await start(tmp_path, ANSWERS, str(port))
    try:
        await wait_ready(child, f"http://127.0.0.1:{port}/health", timeout_s=20)
        await wait_ready(child, f"http://127.0.0.1:{port}/any", timeout_s=20, body=b'{"ask": 1}')
        assert child.exit_code is None
        with pytest.raises(ChildFailed, match=r"helper was not ready after 0 s \(.*/other answered 503\)"):
            await wait_ready(child, f"http://127.0.0.1:{port}/other", timeout_s=0.2)
    finally:
        await child.stop(5)


async def test_an_early_end_is_told_at_once_with_the_log(tmp_path: Path) -> None:
    child = await start(tmp_path, "print('loading', flush=True); raise SystemExit('no such GPU: h200')")
    with pytest.raises(ChildFailed) as caught:
        await wait_ready(child, "http://127.0.0.1:9/health", timeout_s=600)
    assert str(caught.value) == (
        f"helper ended with exit code 1 before it was ready; its log {child.log} ends with:\nloading\nno such GPU: h200"
    )


async def test_the_log_tail_is_the_end_of_a_long_log(tmp_path: Path) -> None:
    child = await start(tmp_path, "for i in range(50_000): print('line', i)")
    assert await child.wait() == 0
    assert child.log_tail(lines=2) == "line 49998\nline 49999"


async def test_a_port_without_a_listener_has_no_status() -> None:
    (port,) = free_ports(1)
    assert await http_status(f"http://127.0.0.1:{port}/", timeout_s=5) is None


async def test_a_listener_that_never_answers_has_no_status() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert await http_status(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.1) is None


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    for port in ports:
        require_port("127.0.0.1", port)


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StartRefused, match=rf"127\.0\.0\.1 port {port}: Address already in use; .*SIMSA_PORT"):
            require_port("127.0.0.1", port)
