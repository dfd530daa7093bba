"""Several hosts from one plan: where the host that leads listens, and what a host that follows does until it is told
that the run is over.

What goes between them while a cell runs is `distributed`'s subject, in processes of their own that import Locust.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.processes import Child, start_child
from gateway.settings import child_environment
from loadtests.endings import Ending

PORT = 5557
LOOPBACK = "127.0.0.1"
WAIT_S = 300.0
"""How long the others are waited for before a repeat, and how long they wait for the next one."""
STOP_S = 120.0
"""How long a worker that is told to stop may take for what is under way."""
DISMISS_S = 30.0
"""How long hosts may take to come back and hear that the run is over."""
BETWEEN_S = 1.0
"""Before a worker that ended at once is started again."""


class HostRefused(Exception):
    """A host cannot follow any longer; the message says why."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host that leads listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of a run, of which none is the one that leads: it sends nothing itself."""

    count: int
    workers_each: int
    listen: Address
    wait_s: float = WAIT_S

    @property
    def words(self) -> str:
        """What is to be started where."""
        each = "" if self.workers_each == 1 else f" --workers {self.workers_each}"
        return (
            f"waiting for {self.count} host{'' if self.count == 1 else 's'}, {self.wait_s:g} s at the most: "
            f"on each run `simsa loadtest worker {self.listen}{each}`"
        )

    @property
    def arguments(self) -> tuple[str, ...]:
        """For a worker's process that is to lead."""
        at = ("--bind-host", self.listen.host, "--master-port", str(self.listen.port))
        return (*at, "--ready-s", f"{self.wait_s:g}")


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[IPV6]:PORT` or `HOST` alone. Raises ValueError."""
    host, _, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", str(PORT))
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"expected ADDRESS:PORT, got '{text}'")
    return Address(host, int(port))


def require_free(address: Address) -> None:
    """Raises OSError where it cannot be listened on."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {error.strerror or error}") from error


async def dismiss(hosts: Hosts, log: Path) -> None:
    """Tell the hosts that the run is over; those that do not come for it find out by themselves."""
    workers = str(hosts.count * hosts.workers_each)
    at = ("--bind-host", hosts.listen.host, "--master-port", str(hosts.listen.port), "--ready-s", f"{DISMISS_S:g}")
    command = (sys.executable, "-m", "loadtests.worker", "--dismiss", workers, *at)
    child = await start_child("the farewell", command, log=log, environment=child_environment())
    try:
        async with asyncio.timeout(DISMISS_S * 2):
            await child.wait()
    except TimeoutError:
        pass
    finally:
        if child.exit_code is None:
            await child.stop(0.0)


async def follow(
    master: Address,
    *,
    workers: int,
    wait_s: float,
    key_variables: Sequence[str] = (),
    stopping: asyncio.Event,
    say: Callable[[str], None],
) -> None:
    """Be so many workers of the host that leads, cell after cell, until the run is over or `stopping` is set.

    Each cell has processes of its own. Raises HostRefused where an order cannot be run here or no order comes.
    """
    refused: list[Exception] = []
    with tempfile.TemporaryDirectory(prefix="simsa-worker-") as folder:
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(workers):
                    log = Path(folder) / f"worker-{number}.log"
                    group.create_task(_follow_as(number, master, wait_s, key_variables, log, stopping, say))
        except* HostRefused as group_of_them:
            refused += group_of_them.exceptions
    if refused:
        raise refused[0]


async def _follow_as(
    number: int,
    master: Address,
    wait_s: float,
    key_variables: Sequence[str],
    log: Path,
    stopping: asyncio.Event,
    say: Callable[[str], None],
) -> None:
    """One worker of this host."""
    at = ("--master-host", master.host, "--master-port", str(master.port), "--ready-s", f"{wait_s:g}")
    keys = (word for name in key_variables for word in ("--key-variable", name))
    command = (sys.executable, "-m", "loadtests.worker", *at, *keys)
    while not stopping.is_set():
        child = await start_child(f"worker {number}", command, log=log, environment=child_environment())
        code = await _wait_or_stop(child, stopping)
        words = child.log_tail(lines=1)
        if code in (Ending.REFUSED, Ending.MISSING, Ending.NOT_KEPT):
            raise HostRefused(words or f"worker {number} {child.ending()}")
        if code == Ending.OVER:
            return
        say(f"worker {number}: the cell ran to its end" if code == Ending.RAN else f"worker {number}: {words}")
        if code != Ending.RAN:
            await asyncio.sleep(BETWEEN_S)


async def _wait_or_stop(child: Child, stopping: asyncio.Event) -> int:
    """Its exit code; it is told to stop when `stopping` is set."""
    told = asyncio.create_task(stopping.wait())
    ended = asyncio.create_task(child.wait())
    try:
        await asyncio.wait((told, ended), return_when=asyncio.FIRST_COMPLETED)
        return await (ended if ended.done() else child.stop(STOP_S))
    finally:
        told.cancel()
        ended.cancel()
        if child.exit_code is None:
            await child.stop(0.0)
