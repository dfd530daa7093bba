"""What every command of `simsa loadtest` does alike: find a run, show one, print JSON, refuse in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console

from gateway.console import printable, wants_json
from gateway.settings import Settings

if TYPE_CHECKING:
    from loadtests.cells import Run

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its directory; see `simsa loadtest list`.")]


def show_run(found: Run, *, as_json: bool, directory: Path | None = None) -> None:
    from loadtests.exports import run_json
    from loadtests.view import render_run

    if as_json:
        sys.stdout.buffer.write(run_json(found) + b"\n")
        return
    console = Console()
    console.print(render_run(found))
    if directory is not None:
        console.print(f"simsa loadtest report {found.id} writes the report into {directory}", markup=False)


def load_run(name: str) -> Run:
    from loadtests.journal import Journal, RunUnreadable

    try:
        return Journal(directory_of(name, Settings())).run()
    except RunUnreadable as error:
        refuse(str(error))


def directory_of(name: str, settings: Settings) -> Path:
    from loadtests.journal import PLAN, runs_directory

    place = Path(name) if (Path(name) / PLAN).is_file() else runs_directory(settings.data_dir) / name
    if not (place / PLAN).is_file():
        refuse(f"there is no run {printable(name)!r}; see `simsa loadtest list`")
    return place


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        refuse(f"{path}: cannot be read: {error.strerror or error}")


def is_json(asked: bool) -> bool:
    return asked or wants_json(sys.stdout)


def print_json(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2) + b"\n")


def refuse_all(problems: list[str], path: str) -> NoReturn:
    for line in problems:
        print(line, file=sys.stderr)  # noqa: T201
    refuse(f"{path} has {len(problems)} problem(s); mend them and try again")


def refuse(message: str, *, code: int = 2) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201
    raise typer.Exit(code)
