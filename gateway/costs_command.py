"""`simsa costs`: what calls and idle GPU time cost, asked of a running gateway and shown as a table.

The figures are the gateway's own, see `api.costs`; a pipe gets its JSON as it is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn
from urllib.parse import urlencode

import msgspec
import typer
from rich.console import Console

from gateway.console import Column, Figure, printable, render_table, significant, wants_json
from gateway.errors import SimsaError
from gateway.gateway_client import ask_gateway, own_door
from gateway.settings import Settings


def costs(
    by: Annotated[str, typer.Option(help="model, organisation, run, replica or day.")] = "model",
    since: Annotated[str | None, typer.Option(help="First day of UTC; the month's if not given.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day of UTC, included; today if not given.")] = None,
    organisation: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The gateway's address.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")] = False,
) -> None:
    """Show what calls cost, and what GPUs cost while nobody used them. Without VAT.

    The gateway's key is taken from SIMSA_ADMIN_KEY.
    """
    asked = {"by": by, "since": since, "until": until, "organisation": organisation, "model": model}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    settings = Settings()
    gateway = own_door(settings, url)
    try:
        found = asyncio.run(ask_gateway(gateway, "GET", f"/api/costs?{query}"))
    except SimsaError as error:
        _refuse(error.message)
    if json or wants_json(sys.stdout):
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        show_costs(found, Console())


def show_costs(found: dict[str, Any], console: Console) -> None:
    """The answer of /api/costs as tables."""
    title = f"Costs of {found['since']} to {found['until']} (UTC) by {found['by']}, without VAT"
    console.print(render_table(found["data"], _LINES, title=title))
    if found["figures"]:
        known = [row for row in found["figures"] if row["amount"] is not None]
        console.print(render_table(known, _FIGURES, title="Tokens on GPUs as they were used; seen: with idle time"))
    if found["energy"]:
        title = "Energy by the GPUs' own counters, idle time included"
        console.print(render_table(found["energy"], _ENERGY, title=title))
    if found["unsettled_windows"]:
        console.print(
            f"{found['unsettled_windows']} minutes of GPU time are yet to be settled, "
            f"the first of {found['unsettled_since']}"
        )


def _money(row: dict[str, Any], name: str = "cost") -> Figure:
    amount = row[name]
    return Figure(None, row["reason"]) if amount is None else Figure(f"{amount} {row['currency']}", row["reason"])


def _prices(row: dict[str, Any]) -> Figure:
    words = []
    for price in row["prices"]:
        stale = ", STALE" if price["is_stale"] else ""
        amount = (
            f"{price['per_hour']} {price['currency']}/h {price['gpu']}"
            if price["kind"] == "gpu_hour"
            else f"{price['input_per_mtok']} in, {price['output_per_mtok']} out {price['currency']}/10⁶"
        )
        words.append(f"{amount} ({price['source']}, {price['date'] or 'no date'}{stale})")
    return Figure("\n".join(words) or "none")


def _idle_share(row: dict[str, Any]) -> Figure:
    return Figure("" if row["idle_share"] is None else f"{row['idle_share']:.1%}")


def _count(name: str) -> Column[dict[str, Any]]:
    title = name.replace("_", " ").capitalize()
    return Column(title, lambda row: Figure("" if row[name] is None else f"{row[name]:,}"), is_number=True)


def _energy(name: str, reason: str = "reason") -> Callable[[dict[str, Any]], Figure]:
    return lambda row: Figure(None if row[name] is None else significant(float(row[name]), 4), row[reason])


def _covered(row: dict[str, Any]) -> Figure:
    share = "" if row["coverage"] is None else f"{row['coverage']:.1%} of {float(row['up_s']):,.0f} s"
    return Figure(share, row["reason"])


def _electricity(row: dict[str, Any]) -> Figure:
    price = row["electricity"]
    if price is None:
        return Figure("")
    stale = ", STALE" if price["is_stale"] else ""
    words = f"{price['per_kwh']} {price['currency']}/kWh ({price['source']}, {price['date']}{stale})"
    return Figure(f"{row['electricity_cost']} {price['currency']}", f"at {words}; in no other amount")


_KINDS = {"idle": "idle GPU time", "busy": "busy, not attributed"}
_LINES: tuple[Column[dict[str, Any]], ...] = (
    Column("Group", lambda row: Figure(_KINDS.get(row["kind"]) or row["group"] or "none")),
    Column("Model", lambda row: Figure(row["model"])),
    Column("Cost", _money, is_number=True),
    Column("Basis", lambda row: Figure(row["basis"] or "unknown")),
    Column("Idle", _idle_share, is_number=True),
    _count("calls"),
    _count("prompt_tokens"),
    _count("completion_tokens"),
    Column("Provenance", lambda row: Figure(row["provenance"] or "unknown")),
    Column("Prices", _prices),
)
_FIGURES: tuple[Column[dict[str, Any]], ...] = (
    Column("Model", lambda row: Figure(row["model"])),
    Column("Figure", lambda row: Figure(row["name"], row["definition"])),
    Column("Load", lambda row: Figure(row["load"])),
    Column("Amount", lambda row: Figure(significant(float(row["amount"]), 4)), is_number=True),
    Column("Unit", lambda row: Figure(f"{row['currency'] or ''} {row['unit']}".strip())),
    _count("calls"),
    Column("Provenance", lambda row: Figure(row["provenance"])),
)
_ENERGY: tuple[Column[dict[str, Any]], ...] = (
    Column("Group", lambda row: Figure(row["group"] or row["model"])),
    Column("Model", lambda row: Figure(row["model"])),
    Column("J", _energy("joules"), is_number=True),
    Column("kWh", _energy("kwh"), is_number=True),
    Column("Wh per 1,000 output tokens", _energy("wh_per_1000_output_tokens", "tokens_reason"), is_number=True),
    _count("output_tokens"),
    _count("readings"),
    Column("Covered", _covered, is_number=True),
    Column("Electricity", _electricity, is_number=True),
    Column("Provenance", lambda row: Figure(row["provenance"] or "unknown")),
)


def _refuse(message: str) -> NoReturn:
    print(f"simsa: {printable(message)}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
