"""A Redis server of a test's own, on a Unix socket nobody else knows: stopped, frozen and begun anew as a test likes.

What it holds stays in its append-only file over a `restart`, and is gone after `lose`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from guards import HANG_S

INSTALL = "`make servers` installs Redis, then try again; no server needs to run"


class RedisServer:
    """Make it once a test; `remove` it at the end."""

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            if os.environ.get("SIMSA_TEST_REDIS") == "required":
                pytest.fail(f"Redis is not installed: {INSTALL}")
            pytest.skip(f"Redis is not installed: {INSTALL}")
        self._program = program
        self._directory = Path(tempfile.mkdtemp(prefix="simsa-redis-"))
        self._socket = self._directory / "s"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Returns when it answers."""
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "dir": str(self._directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self._directory / "log").open("ab") as log:
            command = ["setpriv", "--pdeathsig=KILL", self._program, *words]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + HANG_S
        while self._ask(b"PING\r\n") != b"+PONG":
            assert self._process.poll() is None, (self._directory / "log").read_text()
            assert time.monotonic() < deadline, (self._directory / "log").read_text()
            time.sleep(0.005)

    def stop(self) -> None:
        """As a kill -9 does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait(HANG_S)

    def lose(self) -> None:
        """Stop, and forget everything."""
        self.stop()
        shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)

    def keep(self) -> Path:
        """What it holds at this moment, for `go_back`."""
        kept = Path(tempfile.mkdtemp(prefix="kept-", dir=self._directory))
        shutil.copytree(self._directory / "appendonlydir", kept, dirs_exist_ok=True)
        return kept

    def go_back(self, kept: Path) -> None:
        """Stop, and hold what it held then: as a server does that saves now and then, or a replica that lags."""
        self.lose()
        shutil.copytree(kept, self._directory / "appendonlydir")

    def freeze(self) -> None:
        """Connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _ask(self, command: bytes) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self._socket))
                connection.sendall(command)
                return connection.recv(64).strip()
        except OSError:
            return b""
