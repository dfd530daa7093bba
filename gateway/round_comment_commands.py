"""`simsa round comments` and `simsa round clear`: what reviewers wrote, and what of it public bundles may show.

What may be cleared, and when, is the gateway's to say: `rounds.clearing` and `rounds.life`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gateway.console import Column, Figure, render_table, wants_json
from gateway.round_door import PATH, ask, found_round, print_json, refuse

AT_ONCE = 1000


def comments(
    name: Annotated[str, typer.Argument(help="A round's id or name.")],
    url: Annotated[str | None, typer.Option("--url", help="The gateway's address.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")] = False,
) -> None:
    """Show what reviewers of a closed round wrote, by number, with what in it looks like personal data."""
    rows = ask("GET", f"{PATH}/{found_round(name, url)['id']}/comments", None, url)["data"]
    if json or wants_json(sys.stdout):
        print_json(rows)
    else:
        Console().print(render_table(rows, _COLUMNS))


def clear(
    name: Annotated[str, typer.Argument(help="A round's id or name.")],
    comment: Annotated[list[int] | None, typer.Option(help="A comment's number; may be given again.")] = None,
    listed: Annotated[Path | None, typer.Option("--list", help="A file with a number in each line.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The gateway's address.")] = None,
) -> None:
    """Let comments into public bundles, for good: those named, and no others."""
    numbers = [*(comment or ()), *(_read_numbers(listed) if listed is not None else ())]
    if not numbers:
        refuse("name the comments: --comment NUMBER, or --list FILE; 'simsa round comments' shows them")
    path = f"{PATH}/{found_round(name, url)['id']}/clearances"
    cleared = []
    for start in range(0, len(numbers), AT_ONCE):
        cleared += ask("POST", path, {"entries": numbers[start : start + AT_ONCE]}, url)["data"]
    print_json(cleared)


def _read_numbers(path: Path) -> list[int]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{path}: cannot be read: {error}")
    numbers = []
    for place, line in enumerate(lines, start=1):
        if not (text := line.strip()):
            continue
        if not (text.isascii() and text.isdigit()):
            refuse(f"{path}:{place}: expected a comment's number, found {text[:40]!r}")
        numbers.append(int(text))
    return numbers


def _words(row: dict[str, Any]) -> Figure:
    return Figure(" / ".join(row["words"].values()))


def _findings(row: dict[str, Any]) -> Figure:
    return Figure(", ".join(f"{found['kind']} {found['masked']}" for found in row["findings"]))


_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("Number", lambda row: Figure(str(row["entry"]))),
    Column("Reviewer", lambda row: Figure(row["reviewer"])),
    Column("Words", _words),
    Column("Looks like personal data", _findings),
    Column("Cleared", lambda row: Figure(row["cleared_at"], "not yet")),
)
