"""How `simsa up` shows what it is doing: a live table in a terminal, JSON lines in a pipe, then what to try.

Showing only: parts and their states come in, nothing is started or decided here.
"""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_QUESTION = "동네 병원이 예약 전화를 AI에게 맡길 때 가장 먼저 확인할 것은 무엇인가요?"


class State(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


_BUSY = {State.STARTING, State.STOPPING}
_STYLES = {State.READY: "green", State.FAILED: "bold red", State.WAITING: "dim", State.STOPPED: "dim"}


@dataclass(slots=True)
class Part:
    """An engine or the gateway, its state, and since when it has been in it."""

    name: str
    what: str
    is_gateway: bool = False
    state: State = State.WAITING
    since_s: float = 0.0
    took_s: float | None = None
    """Seconds that the state before this one lasted."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What somebody needs to know to use what is now running."""

    url: str
    models: Sequence[str]
    new_key: str | None
    """The key that was made for this run; None where SIMSA_ADMIN_KEY was set."""
    seconds: float
    """From the start to this moment."""
    logs: Path


class Board(ABC):
    """Told of every change; used as a context manager, so that the terminal is given back whatever happens."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts

    def change(self, part: Part, state: State) -> None:
        now = time.monotonic()
        part.took_s = now - part.since_s if part.state in _BUSY else None
        part.state, part.since_s = state, now
        with suppress(OSError):  # whoever watched has left; what runs goes on
            self._show_change(part, None)

    def fail(self, part: Part, message: str) -> None:
        part.state, part.since_s, part.took_s = State.FAILED, time.monotonic(), None
        with suppress(OSError):
            self._show_change(part, message)

    def welcome(self, welcome: Welcome) -> None:
        """All parts are ready."""
        with suppress(OSError):
            self._show_welcome(welcome)

    @abstractmethod
    def _show_welcome(self, welcome: Welcome) -> None:
        """Say how to use what is running."""

    @abstractmethod
    def _show_change(self, part: Part, message: str | None) -> None:
        """`part` has a new state; `message` says why it failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def make_board(parts: Sequence[Part], *, as_json: bool) -> Board:
    return JsonBoard(parts) if as_json else TerminalBoard(parts)


class JsonBoard(Board):
    """One JSON object a line on standard output: `event` is state or ready."""

    def _show_welcome(self, welcome: Welcome) -> None:
        self._write(
            event="ready",
            url=welcome.url,
            openai_base_url=f"{welcome.url}/v1",
            docs=f"{welcome.url}/docs",
            models=list(welcome.models),
            admin_key=welcome.new_key,
            seconds=round(welcome.seconds, 3),
            logs=str(welcome.logs),
        )

    def _show_change(self, part: Part, message: str | None) -> None:
        took = {} if part.took_s is None else {"after_s": round(part.took_s, 3)}
        why = {} if message is None else {"message": message}
        self._write(event="state", part=part.name, what=part.what, state=part.state.value, **took, **why)

    def _write(self, **fields: Any) -> None:
        sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
        sys.stdout.flush()


class TerminalBoard(Board):
    """A table that moves until everything is ready, then plain lines."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__(parts)
        self._console = Console()
        self._spinner = Spinner("dots")
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _show_welcome(self, welcome: Welcome) -> None:
        self._live.stop()
        for line in welcome_lines(welcome, command=_own_command()):
            self._say(line)

    def _show_change(self, part: Part, message: str | None) -> None:
        if message is not None:
            self._live.stop()
            self._say(message)
        elif not self._live.is_started:
            self._say(f"{part.name}: {part.state.value}")

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for part in self.parts:
            table.add_row(
                Text(part.name, style="bold"), self._state(part), _seconds(part), Text(part.what, style="dim")
            )
        return table

    def _state(self, part: Part) -> Spinner | Text:
        if part.state in _BUSY:
            self._spinner.update(text=part.state.value)
            return self._spinner
        return Text(part.state.value, style=_STYLES.get(part.state, ""))


def _seconds(part: Part) -> Text:
    seconds = time.monotonic() - part.since_s if part.state in _BUSY else part.took_s
    return Text("" if seconds is None else f"{seconds:.1f} s", justify="right")


def _own_command() -> str:
    """How this process was called, for commands that can be copied."""
    return sys.argv[0] if Path(sys.argv[0]).name == "simsa" else f"{sys.executable} -m gateway"


def welcome_lines(welcome: Welcome, *, command: str) -> list[str]:
    """Addresses, the key, and three things to try; `command` is how simsa is called."""
    key = welcome.new_key or "$SIMSA_ADMIN_KEY"
    body = {
        "model": welcome.models[0],
        "messages": [{"role": "user", "content": _QUESTION}],
        "max_tokens": 128,
    }
    several = ",".join(welcome.models[:2])
    prefix = f"SIMSA_ADMIN_KEY={key} " if welcome.new_key else ""
    return [
        "",
        f"Ready after {welcome.seconds:.1f} s: {', '.join(welcome.models)}",
        f"  OpenAI base URL  {welcome.url}/v1",
        f"  API description  {welcome.url}/docs",
        f"  Key              {welcome.new_key or 'the one in SIMSA_ADMIN_KEY'}",
        f"  Logs             {welcome.logs}",
        "",
        "1. Ask one candidate:",
        f'curl -s {welcome.url}/v1/chat/completions -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d '{json.dumps(body, ensure_ascii=False)}'",
        "2. Ask two and read the answers side by side:",
        f'{prefix}{command} compare "{_QUESTION}" --models {several} --url {welcome.url}',
        "3. Point any OpenAI client here:",
        f'OpenAI(base_url="{welcome.url}/v1", api_key="{welcome.new_key or "…"}")',
        "",
        "Ctrl-C stops everything.",
    ]
