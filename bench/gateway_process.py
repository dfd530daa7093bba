"""Starts the gateway the way a person would, on one core, in front of engines, with a data directory of its own.

Nothing of the person's environment reaches it but what Python itself needs: every SIMSA_ variable is ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.fast_engine import MODEL
from bench.measure import child

ROOT = Path(__file__).parent.parent
READY_LIMIT_S = 30.0
PLACES = 1024
"""Calls at a time on a replica, unless told: room for all that a benchmark of the gateway's cost sends at once."""
ADMIN_KEY = secrets.token_urlsafe()
NEVER_REACHED: dict[str, object] = {
    "requests_per_min": 10**9,
    "tokens_per_min": 10**12,
    "concurrent": 10**6,
    "budgets": [
        {"amount": "1000000000000", "unit": "tokens", "period": "day"},
        {"amount": "1000000000", "unit": "KRW", "period": "month"},
    ],
}
LOG_TAIL_LINES = 20
LOG_LINE_MAX = 300


class GatewayFailed(Exception):
    """The gateway ended or did not become ready; the message ends with its last log lines."""


@dataclass(frozen=True)
class Gateway:
    pid: int
    url: str
    target: load.Target
    """The gateway for a caller with a key that has every limit, none of which is ever reached."""


@asynccontextmanager
async def gateway(
    *engine_urls: str,
    cpu: int,
    model: str = MODEL,
    places: int = PLACES,
    settings: Mapping[str, str] | None = None,
    tree: Path = ROOT,
) -> AsyncIterator[Gateway]:
    """A ready gateway with one model and these SIMSA_ variables; stopped and removed when the block ends.

    `tree`: whose code it runs. A version from before there were keys has no limit to reach either.
    """
    with tempfile.TemporaryDirectory(prefix="simsa-bench-") as folder:
        registry = _write_registry(Path(folder), model, engine_urls, places if _knows_keys(tree) else None)
        log = Path(folder, "gateway.log")
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SIMSA_")} | {
            "SIMSA_PORT": str(port),
            "SIMSA_REGISTRY": str(registry),
            "SIMSA_DATA_DIR": str(Path(folder, "data")),
            "SIMSA_ADMIN_KEY": ADMIN_KEY,
            "PYTHONPATH": str(tree),
            **(settings or {}),
        }
        with child(["-m", "gateway", "serve"], cpu=cpu, cwd=tree, environment=environment, log=log) as process:
            url = f"http://127.0.0.1:{port}"
            await _until_ready(process, url, log)
            yield Gateway(process.pid, url, load.Target(url, await _key(url) if _knows_keys(tree) else ADMIN_KEY))


def _knows_keys(tree: Path) -> bool:
    """Whether the code there is of a version with organisations' keys, and with places."""
    return (tree / "gateway" / "key_ring.py").exists()


def _write_registry(folder: Path, model: str, engine_urls: Sequence[str], places: int | None) -> Path:
    """The few lines that are all a model needs."""
    registry = folder / "model_registry.yaml"
    limit = f", max_in_flight: {places}" if places is not None else ""
    replicas = "".join(f"      - {{url: {url}{limit}}}\n" for url in engine_urls)
    registry.write_text(f"models:\n  - id: {model}\n    serving: {{kind: vllm}}\n    replicas:\n{replicas}")
    return registry


async def _key(url: str) -> str:
    """The secret of a new key with limits."""
    admin = load.Target(url, ADMIN_KEY)
    asked: tuple[tuple[str, dict[str, object]], ...] = (
        ("/api/admin/orgs", {"id": "bench", "name": "bench"}),
        ("/api/admin/keys", {"organisation": "bench", "name": "bench", "limits": NEVER_REACHED}),
    )
    for path, body in asked:
        status, answer = await load.post(admin, path, body)
        if status != 200:
            raise GatewayFailed(f"POST {path} answered {status}: {answer.decode(errors='replace')[:LOG_LINE_MAX]}")
    return str(json.loads(answer)["secret"])


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
