"""Several gateway processes on one socket of one machine: `simsa serve --workers N`.

A parent that serves nothing starts them, begins one anew that died, and passes on the signals by which it is stopped.
To the database and to Redis each is a gateway like those of other machines. Each keeps a spool of its own, so its data
directory is one below the parent's. `/metrics` of any of them shows all, told apart by the label `worker`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import structlog

from gateway.errors import StartRefused
from gateway.listening import listen
from gateway.log import close_log, configure_logging, flush_log
from gateway.settings import Settings, child_environment

RESTART_S = 1.0
_ASK_S = 2.0
_REFUSED = 2
"""The exit code of a gateway that will not start: it would not the next time either."""
_SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?( .*)\Z")


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which of the parent's processes this is."""

    number: int
    of: int
    listener_fd: int
    meeting: Path
    """A directory where each has a socket by which its siblings ask for its series."""
    parent: int
    """Its pid, as it says itself: by the time a worker could ask, it may be gone."""

    def socket_of(self, number: int) -> str:
        return str(self.meeting / str(number))


def serve_by_workers(settings: Settings, workers: int) -> int:
    """Serve by so many processes until a signal: the exit code. Raises StartRefused."""
    settings.refuse_open_door()
    if not settings.is_one_of_several:
        raise StartRefused(
            f"--workers {workers}: several processes share limits through Redis: set SIMSA_REDIS_URL and a "
            "postgresql:// SIMSA_DATABASE_URL, or leave --workers out"
        )
    settings.refuse_lonely_redis()
    configure_logging(settings.log_level)
    try:
        with listen(settings) as listener, tempfile.TemporaryDirectory(prefix="simsa-") as meeting:
            return _Parent(settings, workers, listener.fileno(), Path(meeting)).run()
    finally:
        close_log()


class _Parent:
    def __init__(self, settings: Settings, workers: int, listener_fd: int, meeting: Path) -> None:
        self._settings = settings
        self._places = [
            WorkerPlace(number, workers, listener_fd, meeting, os.getpid()) for number in range(1, workers + 1)
        ]
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._begun_s: dict[int, float] = {}
        self._is_first: dict[int, bool] = {}
        """Whether a worker's process is its first: what refuses to start then will do so again."""
        self._is_stopping = False
        self._code = 0
        self._log = structlog.get_logger("simsa.workers")

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        for place in self._places:
            if not self._is_stopping:
                self._start(place)
        while self._children:
            self._wait()
        return self._code

    def _start(self, place: WorkerPlace) -> None:
        command = [sys.executable, "-m", "gateway", "serve", "--worker", f"{place.number}/{place.of}"]
        command += ["--listener", str(place.listener_fd), "--meeting", str(place.meeting)]
        command += ["--parent", str(place.parent)]
        environment = child_environment(
            SIMSA_DATA_DIR=str(self._settings.data_dir / f"worker-{place.number}"),
            SIMSA_CALIBRATION=str(self._settings.calibration_file),
        )
        child = subprocess.Popen(command, pass_fds=[place.listener_fd], env=environment, process_group=0)
        self._children[place.number] = child
        if self._is_stopping:  # a signal came between
            os.kill(child.pid, signal.SIGTERM)
        self._is_first[place.number] = place.number not in self._begun_s
        self._begun_s[place.number] = time.monotonic()

    def _wait(self) -> None:
        pid, status = os.wait()
        place = next((one for one in self._places if one.number in self._children and self._pid(one) == pid), None)
        if place is None:
            return
        del self._children[place.number]
        code = os.waitstatus_to_exitcode(status)
        if self._is_stopping:
            self._code = self._code or max(0, code)
        elif code == _REFUSED and self._is_first[place.number]:
            self._code = code
            self._stop(signal.SIGTERM)
        else:
            self._log.error("a worker ended, another one begins", worker=place.number, code=code)
            flush_log()
            time.sleep(max(0.0, RESTART_S - (time.monotonic() - self._begun_s[place.number])))
            if not self._is_stopping:
                self._start(place)

    def _pid(self, place: WorkerPlace) -> int:
        return self._children[place.number].pid

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._stop(signal.Signals(number))

    def _stop(self, number: signal.Signals) -> None:
        self._is_stopping = True
        for child in self._children.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)  # `send_signal` would reap one that has just ended


class Siblings:
    """The other workers of this machine: tells them its own series, and asks for theirs."""

    def __init__(self, place: WorkerPlace, render: Callable[[], bytes]) -> None:
        self._place = place
        self._render = render
        self._server: asyncio.Server | None = None

    @property
    def of(self) -> int:
        """How many there are to be, this one among them."""
        return self._place.of

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._tell, self._place.socket_of(self._place.number))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def render_all(self) -> bytes:
        """The series of all workers that answer, each with the label `worker`."""
        others = [number for number in range(1, self._place.of + 1) if number != self._place.number]
        pages = dict(zip(others, await asyncio.gather(*map(self._ask, others)), strict=True))
        pages[self._place.number] = self._render()
        return merged({str(number): page.decode() for number, page in sorted(pages.items()) if page}).encode()

    async def _tell(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(self._render())
            await writer.drain()
        writer.close()

    async def _ask(self, number: int) -> bytes:
        """b"" of one that does not answer: it is about to begin anew."""
        try:
            async with asyncio.timeout(_ASK_S):
                reader, writer = await asyncio.open_unix_connection(self._place.socket_of(number))
                try:
                    return await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return b""


def merged(pages: Mapping[str, str]) -> str:
    """One page in Prometheus' text format of several: each series under its metric, labelled with its page's name."""
    heads: dict[str, list[str]] = {}
    series: dict[str, list[str]] = {}
    told_by: dict[str, str] = {}
    for name, page in pages.items():
        metric = ""
        for line in page.splitlines():
            if line.startswith("#"):
                metric = line.split(" ", 3)[2]
                if told_by.setdefault(metric, name) == name:
                    heads.setdefault(metric, []).append(line)
                series.setdefault(metric, [])
            elif (found := _SERIES.match(line)) is not None:
                labels = f'worker="{name}"' + (f",{found[2]}" if found[2] else "")
                series.setdefault(metric, []).append(f"{found[1]}{{{labels}}}{found[3]}")
    return "".join(f"{line}\n" for metric in series for line in (*heads.get(metric, ()), *series[metric]))
