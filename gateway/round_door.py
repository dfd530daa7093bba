"""How commands about rounds reach the gateway: its door from the settings, a round by its name, what is printed.

What is asked belongs to the commands.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, NoReturn

import msgspec

from gateway.console import printable
from gateway.errors import SimsaError
from gateway.gateway_client import GatewayDoor, ask_gateway, own_door
from gateway.settings import Settings

PATH = "/api/rounds"


def door(url: str | None) -> GatewayDoor:
    return own_door(Settings(), url)


def ask(method: str, path: str, body: object | None, url: str | None) -> Any:
    """The gateway's answer; what it refuses ends the command."""
    try:
        return asyncio.run(ask_gateway(door(url), method, path, body))
    except SimsaError as error:
        refuse(error.message)


def found_round(name: str, url: str | None) -> dict[str, Any]:
    """A round by its id or its name."""
    rows: list[dict[str, Any]] = ask("GET", f"{PATH}?limit=100", None, url)["data"]
    found = next((row for row in rows if name in (row["id"], row["name"])), None)
    if found is None:
        known = ", ".join(row["name"] for row in rows[:10]) or "none"
        refuse(f"there is no round '{name}'; there are: {known}")
    return found


def print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def refuse(message: str) -> NoReturn:
    print(f"simsa: {printable(message)}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
