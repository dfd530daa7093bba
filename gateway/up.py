"""`simsa up`: engines for a few candidates and the gateway in front of them, on this machine, for as long as it runs.

Starts them, waits until all of them answer, says how to use them, watches them, stops them. What is started is
planned in `engine_plans`, how progress looks is `up_board`, and that no process outlives this one is `processes`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.engine_plans import EnginePlan, Plans, plan_engines
from gateway.errors import StartRefused
from gateway.processes import Child, ChildFailed, free_ports, require_port, start_child, wait_ready
from gateway.registry import derive_registry, parse_registry
from gateway.settings import Settings, child_environment
from gateway.up_board import Board, Part, State, Welcome, make_board

_GATEWAY_READY_S = 60.0
_FIRST_ANSWER_S = 120.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (where to reach what listens there)


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What to start. `gpu` and `speed` concern simulated engines only; no `models` means two of our choice."""

    engines: str
    """simulated | vllm"""
    settings: Settings
    gpu: str
    models: tuple[str, ...] = ()
    speed: float = 1.0
    json: bool = False
    """One JSON line per change of state instead of a table."""


def run_up(options: UpOptions) -> int:
    """Run until a signal or a failure; then nothing that was started is left.

    Returns 0 after SIGINT, SIGTERM or SIGHUP, 1 when an engine or the gateway failed. Raises StartRefused or
    RegistryInvalid before anything is started.
    """
    return asyncio.run(_Up(options).run())


@dataclass(slots=True)
class _Member:
    """A part that has a process."""

    part: Part
    child: Child
    grace_s: float


@dataclass(slots=True)
class _Crew:
    """The processes of one run, in the order in which they were started."""

    board: Board
    members: list[_Member] = field(default_factory=list)

    async def start(
        self, part: Part, command: Sequence[str], *, log: Path, environment: Mapping[str, str], grace_s: float
    ) -> Child:
        self.board.change(part, State.STARTING)
        child = await start_child(part.name, command, log=log, environment=environment)
        self.members.append(_Member(part, child, grace_s))
        return child

    async def watch(self, gateway: Part) -> None:
        """Tell of every part that ends, until the gateway has ended or no engine is left."""
        ends = {asyncio.create_task(member.child.wait()): member for member in self.members}
        least = 1 if len(ends) > 1 else 0  # a gateway may be alone from the start, with hosted APIs only
        try:
            while len(ends) > least:
                done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for end in done:
                    member = ends.pop(end)
                    self.board.fail(member.part, str(member.child.failure(member.child.ending())))
                    if member.part is gateway:
                        return
        finally:
            for end in ends:
                end.cancel()

    async def stop(self) -> None:
        """End every process, the last started (the gateway) before the engines that it may still be asking."""
        gateways = [member for member in self.members if member.part.is_gateway]
        engines = [member for member in self.members if not member.part.is_gateway]
        for group in (gateways, engines):
            await asyncio.gather(*(self._stop(member) for member in group))

    async def _stop(self, member: _Member) -> None:
        if member.child.exit_code is None:
            self.board.change(member.part, State.STOPPING)
            await member.child.stop(member.grace_s)
            self.board.change(member.part, State.STOPPED)


class _Up:
    """One run of `simsa up`."""

    def __init__(self, options: UpOptions) -> None:
        self._options = options
        self._settings = options.settings
        self._data = _read(self._settings.registry)
        registry = parse_registry(self._data, path=str(self._settings.registry))
        if self._settings.port:
            require_port(self._settings.host, self._settings.port)
        self._new_key = None if self._settings.admin_key else f"simsa-{secrets.token_urlsafe(24)}"
        self._plans: Plans = plan_engines(
            registry,
            self._settings,
            engines=options.engines,
            wanted=options.models,
            gpu=options.gpu,
            speed=options.speed,
        )
        taken = {plan.port for plan in self._plans.engines}
        self._port = self._settings.port or next(port for port in free_ports(len(taken) + 1) if port not in taken)
        # By port, so that a second run beside this one cannot change the registry under our gateway.
        self._directory = self._settings.data_dir.resolve() / f"up-{self._port}"
        self._engines = [(plan, Part(plan.model.id, plan.what)) for plan in self._plans.engines]
        self._gateway = Part("gateway", self._url, is_gateway=True)
        self._board = make_board([*(part for _, part in self._engines), self._gateway], as_json=options.json)
        self._crew = _Crew(self._board)
        self._hurry: set[asyncio.Task[int]] = set()

    async def run(self) -> int:
        told_to_stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._take_signal, told_to_stop)
        with self._board:
            try:
                if await _finishes(self._start(), before=told_to_stop):
                    await _finishes(self._crew.watch(self._gateway), before=told_to_stop)
            except ChildFailed as failure:
                self._board.fail(self._part_of(failure), str(failure))
                return 1
            finally:
                await self._crew.stop()
        return 0 if told_to_stop.is_set() else 1

    def _take_signal(self, told_to_stop: asyncio.Event) -> None:
        """The first signal asks nicely, a second one ends everything at once."""
        if told_to_stop.is_set():
            self._hurry |= {asyncio.create_task(member.child.stop(0)) for member in self._crew.members}
        told_to_stop.set()

    async def _start(self) -> None:
        """Engines, as many at once as is good for them, then the gateway: whatever it lists, answers."""
        began = time.monotonic()
        slots = asyncio.Semaphore(self._plans.at_once)
        try:
            async with asyncio.TaskGroup() as group:
                for plan, part in self._engines:
                    group.create_task(self._start_engine(plan, part, slots))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        await self._start_gateway()
        self._board.welcome(self._welcome(time.monotonic() - began))

    async def _start_engine(self, plan: EnginePlan, part: Part, slots: asyncio.Semaphore) -> None:
        async with slots:
            child = await self._crew.start(
                part,
                plan.command,
                log=self._log(part),
                environment=child_environment(**plan.environment),
                grace_s=plan.grace_s,
            )
            await wait_ready(child, f"{plan.url}/health", timeout_s=plan.ready_s)
            # An engine can be healthy and die of its first request, so it gets one before anybody relies on it.
            question = {"model": plan.model.serving.served_model_name, "prompt": "안녕하세요", "max_tokens": 1}
            await wait_ready(
                child,
                f"{plan.url}/v1/completions",
                body=json.dumps(question).encode(),
                timeout_s=_FIRST_ANSWER_S,
                answer_s=_FIRST_ANSWER_S,
            )
            self._board.change(part, State.READY)

    async def _start_gateway(self) -> None:
        settings = self._settings
        registry = self._directory / "model_registry.yaml"
        registry.parent.mkdir(parents=True, exist_ok=True)
        replicas = {plan.model.id: [plan.replica] for plan in self._plans.engines}
        registry.write_bytes(derive_registry(self._data, replicas, keep_remote=self._plans.remote))
        changes = {
            "SIMSA_HOST": settings.host,
            "SIMSA_PORT": str(self._port),
            "SIMSA_REGISTRY": str(registry),
            "SIMSA_DATA_DIR": str(settings.data_dir.resolve()),
            **({"SIMSA_ADMIN_KEY": self._new_key} if self._new_key else {}),
        }
        child = await self._crew.start(
            self._gateway,
            [sys.executable, "-m", "gateway", "serve"],
            log=self._log(self._gateway),
            environment=child_environment(**changes),
            grace_s=settings.shutdown_grace_s + 10,
        )
        await wait_ready(child, f"{self._url}/ready", timeout_s=_GATEWAY_READY_S)
        self._board.change(self._gateway, State.READY)

    def _welcome(self, seconds: float) -> Welcome:
        return Welcome(
            url=self._url,
            models=[*(plan.model.id for plan in self._plans.engines), *self._plans.remote],
            new_key=self._new_key,
            seconds=seconds,
            logs=self._directory,
        )

    @property
    def _url(self) -> str:
        host = _EVERYWHERE.get(self._settings.host, self._settings.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    def _log(self, part: Part) -> Path:
        return self._directory / f"{part.name.replace('/', '--')}.log"

    def _part_of(self, failure: ChildFailed) -> Part:
        parts = {member.part.name: member.part for member in self._crew.members}
        return parts[failure.name]


async def _finishes(work: Coroutine[Any, Any, None], *, before: asyncio.Event) -> bool:
    """Run `work` until it is done (True) or the event comes (False, and it is cancelled). Raises what it raises."""
    task, event = asyncio.ensure_future(work), asyncio.ensure_future(before.wait())
    try:
        await asyncio.wait((task, event), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return True
        return False
    finally:
        event.cancel()
        task.cancel()
        await asyncio.wait((task, event))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartRefused(f"{path}: {error.strerror}; set SIMSA_REGISTRY to the model registry file") from error
