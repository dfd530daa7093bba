"""`simsa round verify`: checks a bundle with nothing but the bundle and what was published of the round.

It asks no gateway and reads no settings. What is checked, and how, belongs in `rounds.verify`, which
is loaded only when it is asked for: other commands start without the database and the arithmetic.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console

from gateway.console import Column, Figure, printable, render_table, wants_json

if TYPE_CHECKING:
    from gateway.rounds.verify import Check, Verification

_HASH = re.compile(r"[0-9a-f]{64}")


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle: a ZIP archive.")],
    root: Annotated[str | None, typer.Option(help="The root as it was published at sealing.")] = None,
    head: Annotated[str | None, typer.Option(help="The chain's head as it was published at closing.")] = None,
    closing: Annotated[str | None, typer.Option(help="The closing root as it was published at closing.")] = None,
    bundle_root: Annotated[
        str | None, typer.Option("--bundle", help="This bundle's root as it was told when it was exported.")
    ] = None,
    receipt: Annotated[Path | None, typer.Option(help="A reviewer's receipt: is everything of it still there?")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")] = False,
) -> None:
    """Check a bundle offline, its result recomputed. Exit code 1 where anything does not hold."""
    from gateway.rounds.bundle_tools import TOOLS
    from gateway.rounds.verify import Published, Verdict, verify_bundle

    given = {"root": root, "head": head, "closing": closing, "bundle": bundle_root}
    published = Published(
        **{name: _hash(name, value) for name, value in given.items()},
        receipt=None if receipt is None else _receipt(receipt),
    )
    try:
        data = bundle.read_bytes()
    except OSError as error:
        _refuse(f"{bundle}: cannot be read: {error.strerror}")
    found = verify_bundle(data, published, analyse=TOOLS.analyse, report=TOOLS.report)
    if as_json or wants_json(sys.stdout):
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found.document()), indent=2).decode() + "\n")
    else:
        _print(found)
    if found.verdict in (Verdict.CONSISTENT, Verdict.PARTLY):
        if lacking := ", ".join(name for name, is_shown in found.shows.items() if not is_shown):
            print(f"simsa: {found.verdict}: nothing published was given for {lacking}", file=sys.stderr)  # noqa: T201
        if unchecked := ", ".join(one.name for one in found.unchecked):
            print(f"simsa: {found.verdict}: not checked: {unchecked}", file=sys.stderr)  # noqa: T201
    sys.exit(0 if found.holds else 1)


_STATES = {"holds": "holds", "broken": "BROKEN", "not checked": "not checked"}


def _columns() -> tuple[Column[Check], ...]:
    return (
        Column("Check", lambda one: Figure(one.name)),
        Column("", lambda one: Figure(_STATES[one.state.value], one.why)),
        Column("Faults", lambda one: Figure(str(len(one.faults)) if one.faults else ""), is_number=True),
    )


def _print(found: Verification) -> None:
    out = Console()
    about = found.about
    name = f"Round {about.get('name')} ({about.get('id')}), {about.get('bundle')} bundle, {about.get('provenance')}"
    out.print(printable(name), markup=False, highlight=False)
    out.print(render_table(found.checks, _columns()))
    for fault in found.faults:
        place = f" {fault.place}" if fault.place else ""
        out.print(printable(f"{fault.file}{place}: {fault.message}"), markup=False, highlight=False, soft_wrap=True)
    for note in found.notes:
        out.print(printable(f"note: {note}"), markup=False, highlight=False, soft_wrap=True)
    if found.holds:
        for what, is_shown in found.shows.items():
            words = "is what was published" if is_shown else "agrees with itself; NOT AUTHENTICATED"
            out.print(f"{what}: {words}", markup=False, highlight=False)
    out.print(found.verdict.upper(), markup=False, highlight=False, style="bold")


def _hash(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    written = value.strip().lower()
    if not _HASH.fullmatch(written):
        _refuse(f"--{name}: expected 64 hexadecimal digits, got '{value}'")
    return written


def _receipt(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        _refuse(f"{path}: cannot be read: {error}")
    if not isinstance(read, dict):
        _refuse(f"{path}: expected a receipt as a reviewer downloads it")
    return read


def _refuse(message: str) -> NoReturn:
    print(f"simsa: {printable(message)}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
