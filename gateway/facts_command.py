"""`simsa registry facts`: what a checkpoint says of itself, as an entry for the registry.

Reading it belongs to `checkpoint_facts`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import msgspec
import typer

from gateway.checkpoint_facts import read_checkpoint
from gateway.errors import CheckpointUnreadable
from gateway.registry.text import write_document
from gateway.registry_entry import registry_entry
from gateway.settings import Settings


def show_facts(
    source: Annotated[str, typer.Argument(help="A folder, a file of one, or the URL of a folder on an allowed hub.")],
    name: Annotated[str | None, typer.Option("--id", help="The entry's id; the folder's name if not given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Read a checkpoint's config.json and the headers of its weights; print them as a registry entry."""
    try:
        model = asyncio.run(read_checkpoint(source, Settings(), model_id=name))
    except CheckpointUnreadable as error:
        print(f"simsa: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    entry = registry_entry(model)
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(entry), indent=2).decode() + "\n")
    else:
        sys.stdout.write(
            write_document(
                {"models": [entry]}, heading=["A registry of one model: paste the entry below your own `models:`."]
            ).decode()
        )
