"""`simsa db`: the schema of the database one version on or back, and backups of what is in it.

These commands open the database themselves and ask no gateway. What may be done beside one that runs, `database` says.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.console import printable, wants_json
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.backup import Copied

# What works on a database is imported by the command that does: it would cost every other command most of its start.
db_app = typer.Typer(help="The database.", no_args_is_help=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")]


@db_app.command("upgrade")
def upgrade(json: JsonFlag = False) -> None:
    """Bring the database's schema up to date."""
    from gateway.database import upgrade

    settings = Settings()
    done = asyncio.run(upgrade(settings.database, settings.database_limits))
    match done.before:
        case done.after:
            words = f"schema {done.after} is up to date"
        case None:
            words = f"schema {done.after} was made"
        case _:
            words = f"schema {done.before} was brought to {done.after}"
    _say({"before": done.before, "after": done.after}, words, json)


@db_app.command("downgrade")
def downgrade(
    revision: Annotated[str, typer.Argument(help="The schema to go back to, e.g. 0013; see docs/upgrades.md.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Lose what that schema has no place for; else it is only said.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Take the schema back for an older version. No gateway may have the database."""
    from gateway.going_back import go_back

    settings = Settings()
    done = asyncio.run(go_back(settings.database, revision, settings.database_limits, accept_loss=accept_loss))
    lost = f"; lost: {', '.join(done.lost)}" if done.lost else ""
    _say(
        {"before": done.before, "after": done.after, "lost": list(done.lost)},
        f"schema {done.before} was taken back to {done.after}{lost}",
        json,
    )


@db_app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="A new file, e.g. simsa-2026-11-28.backup.")], json: JsonFlag = False
) -> None:
    """Write all that is in the database into a file, while gateways go on."""
    from gateway.backup import back_up

    settings = Settings()
    copied = asyncio.run(back_up(settings.database, file, settings.database_limits, now=datetime.now(UTC)))
    _say(_document(file, copied), f"{file} has {_words(copied)}", json)


@db_app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `simsa db backup` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Remove what is in the database first.")] = False,
    json: JsonFlag = False,
) -> None:
    """Put a backup into the database, of either kind, with this version's schema. No gateway may have it."""
    from gateway.backup import restore

    settings = Settings()
    copied = asyncio.run(restore(settings.database, file, settings.database_limits, replace=replace))
    _say(_document(file, copied), f"the database has {_words(copied)} of {file}", json)


def _document(file: Path, copied: Copied) -> dict[str, Any]:
    return {"file": str(file), "schema": copied.revision, "rows": dict(copied.rows)}


def _words(copied: Copied) -> str:
    tables = sum(1 for count in copied.rows.values() if count)
    return f"{sum(copied.rows.values()):,} rows of {tables} tables, schema {copied.revision}"


def _say(document: dict[str, Any], words: str, as_json: bool) -> None:
    if as_json or wants_json(sys.stdout):
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
    else:
        print(printable(words))  # noqa: T201
