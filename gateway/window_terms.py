"""What a window is settled with: the hourly price of its GPU, and the weight of a prompt token.

A window keeps those of its first settlement; what was unknown then is looked for again. Which price the registry has is
the caller's part, fitting a weight `domain.settlement`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cost_tables import prompt_weights
from gateway.domain.cost import PriceInForce
from gateway.domain.records import Provenance
from gateway.domain.settlement import DEFAULT_WEIGHT, PromptWeight
from gateway.settled_shares import WINDOW, WindowKey

FindPrice = Callable[[str, date], PriceInForce]
"""The price of a GPU on a day, or why there is none."""
_WEIGHT_KEY = ("model", "gpu", "provenance", "measured_at")


@dataclass(frozen=True, slots=True)
class Terms:
    """Columns of the window's row. Without a price: the reason for none."""

    currency: str | None
    price_per_hour: Decimal | None
    price_tier: str | None
    price_provider: str | None
    price_on: date | None
    price_source: str | None
    weight: Decimal
    weight_basis: str
    reason: str | None

    def columns(self) -> dict[str, Any]:
        return asdict(self)


async def terms_of(
    connection: AsyncConnection,
    key: WindowKey,
    before: Mapping[Any, Any] | None,
    *,
    model: str,
    provenance: str,
    find_price: FindPrice,
) -> Terms:
    """`before`: the window's row where it was settled already."""
    if before is None:
        weight, basis = await _find_weight(connection, key, model, provenance)
    else:
        weight, basis = before["weight"], before["weight_basis"]
        if before["price_per_hour"] is not None:
            return Terms(**{name: before[name] for name in Terms.__slots__})
    found = find_price(key.gpu, key.window_at.date())
    price = found.price
    if price is None:
        return Terms(None, None, None, None, None, None, weight, basis, found.reason or "no price is known")
    return Terms(
        price.currency,
        price.per_hour,
        price.tier,
        price.provider,
        price.on,
        price.sourced.source,
        weight,
        basis,
        None,
    )


async def keep_weight(
    connection: AsyncConnection,
    model: str,
    gpu: str,
    weight: PromptWeight,
    *,
    provenance: Provenance,
    at: datetime,
    source: str,
) -> None:
    """Use a measured weight for the windows that end after `at` and were never settled."""
    row = {
        "model": model,
        "gpu": gpu,
        "provenance": provenance.value,
        "measured_at": at,
        "weight": weight.value,
        "cells": weight.cells,
        "r_squared": weight.r_squared,
        "standard_error": weight.standard_error,
        "source": source,
    }
    await connection.execute(_KEEP_WEIGHT[connection.dialect.name], row)


def _keep_weight(insert: sqlite.Insert | postgresql.Insert) -> sa.Insert:
    names = ("weight", "cells", "r_squared", "standard_error", "source")
    replaced = {name: insert.excluded[name] for name in names}
    upsert: sa.Insert = insert.on_conflict_do_update(index_elements=list(_WEIGHT_KEY), set_=replaced)
    return upsert


_KEEP_WEIGHT = {
    kind: _keep_weight(of.insert(prompt_weights)) for kind, of in (("sqlite", sqlite), ("postgresql", postgresql))
}


async def _find_weight(connection: AsyncConnection, key: WindowKey, model: str, provenance: str) -> tuple[Decimal, str]:
    table = prompt_weights
    statement = (
        sa.select(table.c.weight)
        .where(table.c.model == model, table.c.gpu == key.gpu, table.c.provenance == provenance)
        .where(table.c.measured_at < key.window_at + WINDOW)
        .order_by(table.c.measured_at.desc())
        .limit(1)
    )
    found = (await connection.execute(statement)).scalar()
    return (DEFAULT_WEIGHT, "assumed") if found is None else (found, "fitted")
