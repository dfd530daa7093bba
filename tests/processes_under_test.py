"""The command as an operator runs it: a real process, its settings as SIMSA_* variables, its log read line by line.

Two ways in: `gateway_process` keeps `simsa serve` running beside a test, `run_simsa` runs any command to its end.
Servers inside the test's own loop are in gateways.py.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from clients import RawClient
from gateways import Entry, registry_text
from guards import HANG_S

SIMSA = (sys.executable, "-m", "gateway")


class Ended(NamedTuple):
    """A command that ran to its end."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The only line on standard error."""
        (line,) = self.err.splitlines()
        return line


class GatewayProcess:
    """A running `simsa serve`. Made by `gateway_process`."""

    def __init__(self, process: Process, data_dir: Path) -> None:
        self._process = process
        self._heard = asyncio.Event()
        self._port = 0
        self.data_dir = data_dir
        self.lines: list[str] = []
        """Standard error so far."""
        self._listener = asyncio.create_task(self._listen())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> list[dict[str, Any]]:
        """The structured lines so far; raises where a line is none."""
        return [json.loads(line) for line in self.lines]

    async def until_logged(self, event: str) -> dict[str, Any]:
        """Wait for the first line of the log that has this `event`."""
        async with asyncio.timeout(HANG_S):
            while True:
                self._heard.clear()
                found = next((line for line in self.lines if f'"event":"{event}"' in line), None)
                if found is not None:
                    parsed: dict[str, Any] = json.loads(found)
                    return parsed
                if self._listener.done():
                    raise AssertionError(f"ended without saying {event!r}:\n" + "\n".join(self.lines))
                await self._heard.wait()

    async def until_ready(self) -> None:
        """Wait until it listens and /ready says 200."""
        self._port = int((await self.until_logged("listening"))["port"])

        async def is_ready() -> bool:
            async with RawClient(self.url) as client:
                return (await client.request("GET", "/ready")).status == 200

        async with asyncio.timeout(HANG_S):
            while not await is_ready():  # nothing announces it
                await asyncio.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit code, -n where signal n ended it."""
        async with asyncio.timeout(HANG_S):
            await self._listener
            return await self._process.wait()

    async def until_stored(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait until the rows of the database are such that `holds`; give them."""
        async with asyncio.timeout(HANG_S):
            while not holds(rows := stored_calls(self.data_dir)):
                await asyncio.sleep(0.01)
        return rows

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.lines.append(line.decode().rstrip("\n"))
            self._heard.set()
        self._heard.set()

    async def kill(self) -> None:
        """Be sure that it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._listener


@asynccontextmanager
async def gateway_process(
    directory: Path, models: Sequence[Entry], environment: Mapping[str, str] | None = None, **settings: object
) -> AsyncIterator[GatewayProcess]:
    """`simsa serve` on a free port, ready; gone when the block ends. `settings` are those of gateway.settings."""
    directory.mkdir(parents=True, exist_ok=True)
    registry = directory / "registry.yaml"
    registry.write_text(registry_text(models))
    chosen = {"registry": registry, "data_dir": directory / "data", "port": 0, "health_interval_s": 0.05}
    chosen |= {"recorder_flush_s": 0.01}
    process = await asyncio.create_subprocess_exec(
        *(*SIMSA, "serve"),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        env={**clean_environment(**{**chosen, **settings}), **(environment or {})},
        limit=2**20,
    )
    gateway = GatewayProcess(process, directory / "data")
    try:
        await gateway.until_ready()
        yield gateway
    finally:
        await gateway.kill()


async def run_simsa(*arguments: str, **settings: object) -> Ended:
    """Run `simsa ARGUMENTS` to its end as a process of its own, its output into files."""
    return await asyncio.to_thread(_forge().run, arguments, clean_environment(**settings))


# Importing the command costs more than nearly everything that is asked of it, so this is done once.
_FORGE = """
import json, os, runpy, sys
import gateway.cli, gateway.server
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in enumerate((os.devnull, order["out"], order["err"])):
            os.dup2(os.open(path, os.O_RDWR), number)
        os.environ.clear()
        os.environ.update(order["environment"])
        sys.argv[1:] = order["arguments"]
        runpy.run_module("gateway", run_name="__main__", alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class _Forge:
    """A process that has imported the command and turns a copy of itself into each one that is asked for."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._is_ready = False
        self._process = subprocess.Popen([sys.executable, "-c", _FORGE], stdin=PIPE, stdout=PIPE, process_group=0)
        atexit.register(self._close)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn, NamedTemporaryFile() as out, NamedTemporaryFile() as err:
            if not self._is_ready:
                self._is_ready = self._process.stdout.readline() == b"ready\n"
            order = {"arguments": arguments, "environment": environment, "out": out.name, "err": err.name}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], HANG_S)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise TimeoutError(f"simsa {' '.join(arguments)} did not end: {err.read().decode()}")
            code = int(self._process.stdout.readline())
            return Ended(code, out.read().decode(), err.read().decode())

    def _close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@cache
def _forge() -> _Forge:
    return _Forge()


def clean_environment(**settings: object) -> dict[str, str]:
    """Our own environment with only these settings of Simsa."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SIMSA_")}
    return ours | {f"SIMSA_{name.upper()}": str(value) for name, value in settings.items()}


def stored_calls(data_dir: Path) -> list[dict[str, Any]]:
    """Every row of the calls, oldest first, read from the file as any other program would."""
    with closing(sqlite3.connect(f"file:{data_dir / 'simsa.db'}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM calls ORDER BY started_at, id")]


def processes_of(directory: Path) -> list[int]:
    """Every process on this machine that has this directory in its environment."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _names(path, directory)]


def _names(process: Path, directory: Path) -> bool:
    try:
        return str(directory).encode() in (process / "environ").read_bytes()
    except OSError:  # ended meanwhile, or not ours
        return False
