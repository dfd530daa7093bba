"""Starts the gateway the way a person would, on one core, in front of one engine, with a data directory of its own.

Nothing of the person's environment reaches it but what Python itself needs: every SIMSA_ variable is ours.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.fast_engine import MODEL
from bench.measure import child

ROOT = Path(__file__).parent.parent
READY_LIMIT_S = 30.0
LOG_TAIL_LINES = 20
LOG_LINE_MAX = 300


class GatewayFailed(Exception):
    """The gateway ended or did not become ready; the message ends with its last log lines."""


@dataclass(frozen=True)
class Gateway:
    pid: int
    url: str


@asynccontextmanager
async def gateway(engine_url: str, *, cpu: int) -> AsyncIterator[Gateway]:
    """A ready gateway with one model, `bench`; stopped and its files removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix="simsa-bench-") as folder:
        registry = _write_registry(Path(folder), engine_url)
        log = Path(folder, "gateway.log")
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SIMSA_")} | {
            "SIMSA_PORT": str(port),
            "SIMSA_REGISTRY": str(registry),
            "SIMSA_DATA_DIR": str(Path(folder, "data")),
        }
        with child(["-m", "gateway", "serve"], cpu=cpu, cwd=ROOT, environment=environment, log=log) as process:
            url = f"http://127.0.0.1:{port}"
            await _until_ready(process, url, log)
            yield Gateway(process.pid, url)


def _write_registry(folder: Path, engine_url: str) -> Path:
    """The three lines that are all a model needs."""
    registry = folder / "model_registry.yaml"
    registry.write_text(
        f"models:\n  - id: {MODEL}\n    serving: {{kind: vllm}}\n    replicas: [{{url: {engine_url}}}]\n"
    )
    return registry


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_ready(process: subprocess.Popen[str], url: str, log: Path) -> None:
    deadline_s = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise GatewayFailed(f"the gateway ended with code {process.returncode}\n{_tail(log)}")
        try:
            status, _ = await load.get(url, "/ready")
        except OSError:
            status = 0
        if status == 200:
            return
        await asyncio.sleep(0.1)
    raise GatewayFailed(f"the gateway was not ready after {READY_LIMIT_S:.0f} s\n{_tail(log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join(line if len(line) <= LOG_LINE_MAX else line[:LOG_LINE_MAX] + " ..." for line in lines)
