"""Child processes that we own: started with a log file, waited for until they answer, stopped, never left behind.

Each runs under `gateway.guard`, which ends it with everything it started when this process ends, even by kill -9.
What is started, and in which order, does not belong here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from gateway import guard
from gateway.errors import StartRefused

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_TAIL_LINES = 15
_GUARD_SLACK_S = 5.0
_LISTENING_PORTS = range(20_000, 32_768)
"""Linux lends outgoing connections ports from 32768 upwards, macOS from 49152."""


class ChildFailed(Exception):
    """The child `name` ended or stayed silent when it was needed; the message ends with the last lines of its log."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Child:
    """A running command and everything that it started. Made by `start_child`."""

    def __init__(self, name: str, process: Process, log: Path, lifeline: int) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._lifeline: int | None = lifeline

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + n where signal n ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until the command and its process group are gone. Returns the exit code."""
        code = await self._process.wait()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        return code

    async def stop(self, grace_s: float) -> int:
        """SIGTERM, then SIGKILL to the whole group after `grace_s` seconds. A second call may shorten the first's."""
        if self._lifeline is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._lifeline, f"{grace_s}\n".encode())
        try:
            async with asyncio.timeout(grace_s + _GUARD_SLACK_S):
                return await self.wait()
        except TimeoutError:
            self._process.kill()
            return await self.wait()

    def ending(self) -> str:
        """How it ended, in words."""
        code = self.exit_code
        if code is None:
            return "is still running"
        if code > 128 and code - 128 in set(signal.Signals):
            return f"was ended by {signal.Signals(code - 128).name}"
        return f"ended with exit code {code}"

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of its output."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def failure(self, what: str) -> ChildFailed:
        """The error to raise: `what` happened, then the log's last lines."""
        tail = self.log_tail()
        return ChildFailed(self.name, f"{self.name} {what}; its log {self.log} ends with:\n{tail or '(nothing)'}")


async def start_child(name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Child:
    """Start `command` in a session of its own, its output in `log` (begun anew), its input empty.

    It does not outlive this process; see `gateway.guard` for what holds where.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lifeline, ours = os.pipe()
    try:
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(Path(guard.__file__)), str(lifeline), *command),
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                env=environment,
                pass_fds=(lifeline,),
                start_new_session=True,
            )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(lifeline)
    return Child(name, process, log, ours)


async def wait_ready(
    child: Child, url: str, *, timeout_s: float, body: bytes | None = None, answer_s: float = 2.0
) -> None:
    """Ask `url` until it answers 200; with a `body`, by POST of that JSON. Each try may take `answer_s` seconds.

    Raises ChildFailed as soon as the child ends, or after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    ended = asyncio.ensure_future(child.wait())
    status: int | None = None
    try:
        while time.monotonic() < deadline:
            asked = asyncio.ensure_future(http_status(url, body=body, timeout_s=answer_s))
            try:
                await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
            if not asked.cancelled() and asked.done() and (status := asked.result()) == 200:
                return
            await asyncio.wait((ended,), timeout=pause_s)
            if ended.done():
                raise child.failure(f"{child.ending()} before it was ready")
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
    finally:
        ended.cancel()
    answer = "did not answer" if status is None else f"answered {status}"
    raise child.failure(f"was not ready after {timeout_s:.0f} s ({url} {answer})")


async def http_status(url: str, *, body: bytes | None = None, timeout_s: float) -> int | None:
    """The status that a plain http `url` answers with, None when it does not answer in time."""
    parts = urlsplit(url)
    head = [
        f"{'GET' if body is None else 'POST'} {parts.path or '/'} HTTP/1.1",
        f"host: {parts.netloc}",
        "connection: close",
        *([] if body is None else ["content-type: application/json", f"content-length: {len(body)}"]),
    ]
    request = "\r\n".join([*head, "", ""]).encode() + (body or b"")
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
            try:
                writer.write(request)
                words = (await reader.readline()).split()
                await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):  # ValueError: a line without an end
        return None
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


# --- ports --------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """`count` different loopback ports that nobody listens on at this moment, none that a connection may be given.

    An engine listens only many seconds after its port was chosen; by then the kernel may have lent a port of its own
    choice to any outgoing connection. Raises StartRefused when there are not so many.
    """
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(_LISTENING_PORTS, len(_LISTENING_PORTS)):
            if len(found) == count:
                break
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
        if len(found) < count:
            raise StartRefused(f"found {len(found)} free ports on 127.0.0.1 where {count} are needed")
        return found


def require_port(host: str, port: int) -> None:
    """Raise StartRefused, naming the port, when `host`:`port` cannot be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise StartRefused(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "stop what uses it, or set SIMSA_PORT to another (0 takes a free one)"
        ) from error
