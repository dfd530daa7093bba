"""Hands a run in to a running gateway, where it is listed, compared, and speaks to claims. See `gateway.load_runs`."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.gateway_client import GatewayDoor, ask_gateway
from loadtests.cells import Run
from loadtests.journal import Journal

PLACE = "/api/load-runs"


async def hand_in(journal: Journal, gateway: GatewayDoor) -> Run:
    """The run as it lies in its directory. Raises RunUnreadable, and what `ask_gateway` raises."""
    run = journal.run()
    spreads: Any = journal.spreads()
    await ask_gateway(gateway, "POST", PLACE, {"run": msgspec.to_builtins(run), "spreads": spreads})
    return run
