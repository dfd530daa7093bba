"""What calls cost once all of their windows are settled, and how that changes the sums made of calls.

Done in the transaction that settles a window. What a call's share of a window is comes from `settlements`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cost_tables import call_shares
from gateway.settled_shares import WindowKey
from gateway.store import slices
from gateway.tables import calls
from gateway.use_by_day import COUNTED, Change, place_of, share_of

SHARES_AT_ONCE = 100
"""Calls that are read or written before the event loop gets its turn."""
CALLS_BEFORE_TURN = 20
"""Of which the sums are worked out before the event loop gets its turn."""


@dataclass(slots=True)
class SettledChange:
    """What a settlement changed for the calls of one model and key that began on one day of UTC."""

    model: str
    currency: str
    key: str | None
    began_on: date
    amount: Decimal = Decimal(0)
    """By how much their settled costs grew: a first settlement's whole, a later one's difference."""
    charged: dict[str, Decimal] = field(default_factory=dict)
    """By how much what they are charged with grew, by currency: provisional costs make room for settled ones."""
    without_cost: int = 0
    """How many calls more have no cost."""


async def write_shares(
    connection: AsyncConnection, key: WindowKey, shares: Sequence[tuple[str, int]], currency: str
) -> list[SettledChange]:
    """What calls, by their ids, cost in this window in nanos, and in all where all of their windows are settled."""
    window = {f"of_{name}": value for name, value in key._asdict().items()}
    for some in slices(shares, SHARES_AT_ONCE):
        values = [{**window, "of_call": of_call, "nanos": nanos, "in_currency": currency} for of_call, nanos in some]
        await connection.execute(_SET_SHARE, values)
        await asyncio.sleep(0)
    return await set_costs(connection, [of_call for of_call, _ in shares])


async def set_costs(connection: AsyncConnection, ids: Sequence[str], *, take_back: bool = False) -> list[SettledChange]:
    """Give calls the cost of all their windows where it is another; `take_back`: none, where one has no price."""
    change = Change()
    found: dict[tuple[Any, ...], SettledChange] = {}
    for some in slices(ids, SHARES_AT_ONCE):
        wholes = {} if take_back else await _whole_costs(connection, some)
        named = some if take_back else list(wholes)
        statement = sa.select(*COUNTED).where(calls.c.id.in_(sa.bindparam("ids", expanding=True)))
        values = []
        counted = (await connection.execute(statement, {"ids": named})).mappings().all() if named else ()
        for number, row in enumerate(counted):
            if number % CALLS_BEFORE_TURN == 0:
                await asyncio.sleep(0)
            amount, currency = wholes.get(row["id"], (None, None))
            if (amount, currency) == (row["settled_cost"], row["settled_currency"]):
                continue
            after = {**row, "settled_cost": amount, "settled_currency": currency}
            change.take_back(row)
            change.add(after)
            _tell(found, row, after)
            values.append({"of_call": row["id"], "amount": amount, "in_currency": currency})
        if values:
            await connection.execute(_SET_CALL, values)
        await asyncio.sleep(0)
    await change.write(connection)
    return list(found.values())


def _tell(found: dict[tuple[Any, ...], SettledChange], before: Mapping[Any, Any], after: Mapping[Any, Any]) -> None:
    """Add what one call's change of cost changes."""
    day, _, key, model, *_ = place_of(before)
    currency = after["settled_currency"] or before["settled_currency"]
    told = found.setdefault((model, currency, key, day), SettledChange(model, currency, key or None, day))
    for row, sign in ((before, -1), (after, 1)):
        if row["settled_cost"] is not None and row["settled_currency"] == currency:
            told.amount += sign * row["settled_cost"]
        _, _, _, _, _, unit, _ = place_of(row)
        *_, without, cost, estimate = share_of(row)
        told.without_cost += sign * int(without)
        if unit:
            told.charged[unit] = told.charged.get(unit, Decimal(0)) + sign * (Decimal(cost) + Decimal(estimate))


_SET_SHARE = (
    sa.update(call_shares)
    .where(*(call_shares.c[name] == sa.bindparam(f"of_{name}") for name in WindowKey._fields))
    .where(call_shares.c.call_id == sa.bindparam("of_call"))
    .values(cost_nanos=sa.bindparam("nanos"), currency=sa.bindparam("in_currency"))
)
_SET_CALL = (
    sa.update(calls)
    .where(calls.c.id == sa.bindparam("of_call"))
    .values(settled_cost=sa.bindparam("amount"), settled_currency=sa.bindparam("in_currency"))
)


async def _whole_costs(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, tuple[Decimal, str]]:
    """What calls cost in all their windows; without those of which one is not settled, or has another currency."""
    shares: dict[str, list[tuple[int | None, str | None]]] = {}
    statement = sa.select(call_shares.c.call_id, call_shares.c.cost_nanos, call_shares.c.currency)
    of_calls = statement.where(call_shares.c.call_id.in_(sa.bindparam("ids", expanding=True)))
    for call_id, nanos, currency in await connection.execute(of_calls, {"ids": list(ids)}):
        shares.setdefault(call_id, []).append((nanos, currency))
    wholes = {}
    for call_id, parts in shares.items():
        currencies = {currency for _, currency in parts}
        currency = parts[0][1]
        if len(currencies) == 1 and currency is not None:
            wholes[call_id] = money(sum(nanos or 0 for nanos, _ in parts)), currency
    return wholes


def money(nanos: int) -> Decimal:
    """Nanos as an amount, exactly, with its nine places."""
    return Decimal(nanos).scaleb(-9) if nanos else Decimal("0E-9")
