"""`simsa columns`: predicted, resolved and observed of a running gateway's engines, as tables or as JSON.

The gateway does the work; SIMSA_ADMIN_KEY is sent where it is set.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any, NoReturn
from urllib.parse import urlencode

import msgspec
import typer
from rich.console import Console, Group
from rich.text import Text

from gateway.console import Column, Figure, printable, render_table, significant, wants_json
from gateway.errors import SimsaError
from gateway.gateway_client import ask_gateway, own_door
from gateway.settings import Settings

Row = dict[str, Any]


def columns(
    models: Annotated[list[str] | None, typer.Argument(help="Model ids; all that run if none is given.")] = None,
    run: Annotated[str | None, typer.Option(help="Observe the time of this run's calls.")] = None,
    since: Annotated[str | None, typer.Option(help="Observe from this moment on, e.g. 2026-11-28T09:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="And up to this one.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The gateway's address.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")] = False,
) -> None:
    """Show what was predicted of running engines beside what they resolved and what was observed."""
    span = {name: value for name, value in (("run", run), ("since", since), ("until", until)) if value is not None}
    queries = [{"model": model, **span} for model in models] if models else [span]
    found = [row for query in queries for row in _ask(query, url)]
    if json or wants_json(sys.stdout):
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
        return
    console = Console()
    if not found:
        console.print("no engine is running")
    for engine in found:
        console.print(render_columns(engine))


def render_columns(engine: Row) -> Group:
    """One engine of the gateway's answer: the table, what is settled, and what its figures are worth."""
    notes = (engine["fits"]["reason"], *engine["notes"], *_about_calibration(engine))
    table = render_table(engine["rows"], _COLUMNS, title=_title(engine))
    return Group(table, *(Text(printable(f"· {note}")) for note in notes))


def _ask(query: dict[str, str], url: str | None) -> list[Row]:
    door = own_door(Settings(), url)
    path = "/api/feasibility/columns" + (f"?{urlencode(query)}" if query else "")
    try:
        found: list[Row] = asyncio.run(ask_gateway(door, "GET", path))["data"]
    except SimsaError as error:
        _refuse(error.message)
    return found


def _title(engine: Row) -> str:
    where = f"{engine['gpus']} × {engine['gpu']}" if engine["gpu"] else "GPU not named"
    version = engine["engine_version"] or "version not said"
    return printable(f"{engine['model']} · {engine['replica']} · {where} · {version} · {engine['provenance']}")


def _about_calibration(engine: Row) -> list[str]:
    if engine["calibration_problem"]:
        return [engine["calibration_problem"]]
    found = engine["calibration"]
    if found is None:
        return []
    size = found["overhead_gib"]
    return [
        f"Overhead on {found['gpu']} as {found['n']} engines showed it: {size['low']:.1f} to {size['high']:.1f} GiB, "
        f"median {size['likely']:.1f}."
    ]


def _figure(cell: Row) -> Figure:
    if not cell["applies"]:
        return Figure("–")
    if cell["value"] is None:
        return Figure(None, cell["reason"])
    if isinstance(cell["value"], str):
        return Figure(cell["value"])
    text = _number(cell["value"])
    return Figure(text if cell["low"] is None else f"{_number(cell['low'])} … {text} … {_number(cell['high'])}")


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else significant(value)


def _difference(row: Row) -> Figure:
    return Figure(
        "" if row["difference"] is None else f"{'+' if row['difference'] > 0 else ''}{_number(row['difference'])}"
    )


def _refuse(message: str) -> NoReturn:
    print(f"simsa: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


_COLUMNS: tuple[Column[Row], ...] = (
    Column("Figure", lambda row: Figure(f"{row['figure']} ({row['unit']})")),
    Column("Predicted", lambda row: _figure(row["predicted"]), is_number=True),
    Column("Resolved", lambda row: _figure(row["resolved"]), is_number=True),
    Column("Observed", lambda row: _figure(row["observed"]), is_number=True),
    Column("Difference", _difference, is_number=True),
    Column("Why", lambda row: Figure(row["reason"])),
)
