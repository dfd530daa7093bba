"""Real vLLM engines on the CPU for tests: the project's own stand-in checkpoints, with the arguments of `simsa up`.

Each engine runs from the first test that asks for it to the end of the test run, forked from a warm parent; two are
started exactly as `simsa up` starts them. They live on an event loop of their own in a thread, so that tests, each
with its own loop, can share them.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from clients import RawClient
from forge import Forge, WarmEngine
from gateways import RunningGateway, entry, running_gateway

from gateway.checkpoints import stand_in_arguments, stand_in_command, stand_in_environment, write_checkpoint
from gateway.domain.records import Model
from gateway.processes import Child, free_ports, start_child, wait_ready
from gateway.registry import derive_registry, load_registry
from gateway.settings import child_environment

ROOT = Path(__file__).parent.parent.parent
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
REGISTRY = load_registry(ROOT / "model_registry.yaml")

LLAMA, HYBRID, MORTAL = "Midm-2.0-Base-Instruct", "EXAONE-4.0-32B", "A.X-4.0-Light"
"""Candidates by architecture: Llama, Exaone4 with a sliding window, Qwen2. Only the last one may be killed by tests."""
SEEING = "kanana-1.5-v-3b-instruct"
AS_UP_STARTS_THEM = (MORTAL, SEEING)
"""Started anew and not forked: one so that it can be killed like any, one for what is put in its environment."""
DOOMED = "A.X-K2-Light"
"""Nothing serves it: this vLLM starts healthy on its architecture and dies of the first request."""
MAX_MODEL_LEN = 1024
"""Tokens: long enough for a stream of several seconds, short enough to overrun with a small prompt."""
SHUTDOWN_S = 20.0
"""The engines' own `--shutdown-timeout`."""

_READY_S = 150.0
_SETTLED_WITHIN_S = 10.0
_RUNNING = "vllm:num_requests_running"

T = TypeVar("T")


class RealEngine:
    """One candidate's stand-in, on the same port each time it is started."""

    def __init__(self, model: Model, directory: Path) -> None:
        self.model_id = model.id
        self.model = model
        self.checkpoint = write_checkpoint(model, directory / "checkpoints", max_model_len=MAX_MODEL_LEN)
        (self.port,) = free_ports(1)
        self.log = directory / f"{model.id}.log"
        self._engine: Child | WarmEngine | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._engine is not None and self._engine.exit_code is None

    @property
    def pid(self) -> int:
        """vLLM's own process, not its guard."""
        words = ("vllm.entrypoints.openai.api_server", str(self.port))
        found = {
            int(path.name): (path / "cmdline").read_bytes().split(b"\0")
            for path in Path("/proc").iterdir()
            if path.name.isdigit() and os.access(path / "environ", os.R_OK)
        }
        (only,) = [
            pid
            for pid, line in found.items()
            if all(word.encode() in line for word in words) and not any(b.endswith(b"guard.py") for b in line)
        ]
        return only

    async def start(self) -> None:
        """Start it as `simsa up` does and wait until it has answered a chat, not only its health check."""
        self._engine = child = await start_child(
            self.model_id,
            stand_in_command(VLLM_PYTHON, self.model, self.checkpoint, port=self.port, max_model_len=MAX_MODEL_LEN),
            log=self.log,
            environment=child_environment(**self._environment),
        )
        await wait_ready(child, f"{self.url}/health", timeout_s=_READY_S)
        url, body = self._question()
        await wait_ready(child, url, body=body, timeout_s=_READY_S, answer_s=_READY_S)

    async def fork(self, forge: Forge, *, ask: bool = True) -> None:
        """The same from the warm parent; without `ask` its health is enough."""
        self._engine = engine = await forge.engine(
            self.model_id,
            stand_in_arguments(self.model, self.checkpoint, port=self.port, max_model_len=MAX_MODEL_LEN),
            self._environment,
            self.log,
        )
        url, body = self._question() if ask else (f"{self.url}/health", None)
        await engine.until_answers(url, body, within_s=_READY_S)

    @property
    def _environment(self) -> dict[str, str]:
        """With a store of responses, so that one can be continued and asked for again."""
        return {**stand_in_environment(VLLM_PYTHON, self.model), "VLLM_ENABLE_RESPONSES_API_STORE": "1"}

    def _question(self) -> tuple[str, bytes]:
        body = {"model": self.model_id, "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 1}
        return f"{self.url}/v1/chat/completions", json.dumps(body).encode()

    async def stop(self) -> None:
        match self._engine:
            case Child() as child:
                await child.stop(grace_s=0)
            case WarmEngine() as engine:
                await engine.kill()

    async def gone(self) -> int:
        """Wait until the process has ended. Returns its exit code."""
        assert self._engine is not None
        return await self._engine.wait()


class RealEngines:
    """`with RealEngines(directory) as engines`: `engines[id]` starts where need be and runs until the block ends."""

    kind: type[RealEngine] = RealEngine

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._engines: dict[str, RealEngine] = {}
        self._forge: Forge | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engines", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.run(self._stop_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __getitem__(self, model_id: str) -> RealEngine:
        engine = self._engines.get(model_id)
        if engine is None:
            engine = self._engines[model_id] = self.kind(REGISTRY.models[model_id], self._directory)
        if not engine.is_running:
            self.run(self._start(engine))
        return engine

    def unasked(self, model_id: str) -> RealEngine:
        """A fresh engine that is healthy and has had no request yet."""
        engine = self._engines[model_id] = self.kind(REGISTRY.models[model_id], self._directory)
        self.run(self._start(engine, ask=False))
        return engine

    @property
    def versions(self) -> Mapping[str, str]:
        """Of what the forked engines run on; empty while none was asked for."""
        return self._forge.versions if self._forge is not None else {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the engines' own loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def beside(self, work: Coroutine[Any, Any, T]) -> T:
        """The same from a test's loop, which goes on meanwhile."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _start(self, engine: RealEngine, *, ask: bool = True) -> None:
        if engine.model_id in AS_UP_STARTS_THEM:
            await engine.start()
            return
        if self._forge is None:
            forge = Forge(VLLM_PYTHON, self._directory)
            await forge.start(stand_in_environment(VLLM_PYTHON, REGISTRY.models[LLAMA]))
            self._forge = forge
        await engine.fork(self._forge, ask=ask)

    async def _stop_all(self) -> None:
        await asyncio.gather(*(engine.stop() for engine in self._engines.values() if engine.is_running))
        if self._forge is not None:
            await self._forge.stop()


async def running_requests(engine: RealEngine) -> int:
    """What the engine itself says it is working on."""
    async with RawClient(engine.url) as client:
        text = (await client.request("GET", "/metrics")).body.decode()
    values = [float(line.split()[-1]) for line in text.splitlines() if line.startswith(_RUNNING)]
    assert values, f"the engine shows no {_RUNNING}"
    return int(sum(values))


async def until_running(engine: RealEngine, count: int) -> None:
    """Wait until the engine works on so many requests; it is asked again and again, for nothing announces it."""
    last: int | None = None
    try:
        async with asyncio.timeout(_SETTLED_WITHIN_S):
            while (last := await running_requests(engine)) != count:
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"expected {count} running requests within {_SETTLED_WITHIN_S} s, got {last}") from None


@asynccontextmanager
async def gateway_before(
    directory: Path, *engines: RealEngine, gpus: Mapping[str, str] | None = None, **settings: Any
) -> AsyncIterator[RunningGateway]:
    """A gateway with the shipped registry, in which only these engines' models have a replica.

    `gpus` says which GPU the registry claims for a model's replica; the engine runs on the CPU all the same.
    """
    claimed = {name: {"gpu": gpu} for name, gpu in (gpus or {}).items()}
    replicas = {engine.model_id: [{"url": engine.url, **claimed.get(engine.model_id, {})}] for engine in engines}
    registry = derive_registry((ROOT / "model_registry.yaml").read_bytes(), replicas)
    async with running_gateway(directory, [entry("before", "http://127.0.0.1:9")], **settings) as gateway:
        gateway.registry_path.write_bytes(registry)
        await gateway.until_live(*replicas)
        yield gateway
