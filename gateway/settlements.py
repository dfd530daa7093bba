"""Settles windows in the database: reads what was recorded of a minute, writes what it cost, any number of times.

A window and the calls in it are written in one transaction, from nothing but the records, so settling again gives the
same rows and a process that dies between two windows leaves whole ones. A window keeps the price and the weight that
it was first settled with. When to settle belongs in `settler`, the arithmetic in `domain.settlement`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cost_tables import (
    call_shares,
    prompt_weights,
    replica_presences,
    settled_windows,
    unsettled_windows,
)
from gateway.domain.cost import PriceInForce
from gateway.domain.records import Provenance
from gateway.domain.settlement import (
    DEFAULT_WEIGHT,
    WINDOW_US,
    CallSpan,
    PromptWeight,
    Span,
    WindowCost,
    microseconds,
    moment_of,
    settle_window,
    windows_of,
)
from gateway.settled_shares import WindowKey, reopen
from gateway.store import Store, slices
from gateway.tables import calls
from gateway.use_by_day import COUNTED, Change, place_of, share_of

WINDOW = timedelta(microseconds=WINDOW_US)
CALLS_OFF_LOOP = 200
"""So many calls in a window are settled in a thread, so that no stream waits for the arithmetic."""
FindPrice = Callable[[str, date], PriceInForce]
"""The price of a GPU on a day, or why there is none."""
_DIALECTS = (("sqlite", sqlite), ("postgresql", postgresql))
SHARES_AT_ONCE = 100
"""Calls that are read or written before the event loop gets its turn."""
_NEEDED = tuple(
    calls.c[name]
    for name in (
        "id",
        "model",
        "provenance",
        "started_at",
        "dispatched_at",
        "ended_at",
        "ttft_s",
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
    )
)
"""What must be known of a call to share a window out."""


def _replacing(insert: sqlite.Insert | postgresql.Insert, table: sa.Table, *names: str) -> sa.Insert:
    keys = [column.name for column in table.primary_key.columns]
    replaced = names or [column.name for column in table.columns if not column.primary_key]
    upsert: sa.Insert = insert.on_conflict_do_update(
        index_elements=keys, set_={name: insert.excluded[name] for name in replaced}
    )
    return upsert


_KEEP_WINDOW = {kind: _replacing(of.insert(settled_windows), settled_windows) for kind, of in _DIALECTS}
_KEEP_WEIGHT = {kind: _replacing(of.insert(prompt_weights), prompt_weights) for kind, of in _DIALECTS}
_KEEP_PRESENCE = {kind: _replacing(of.insert(replica_presences), replica_presences, "until") for kind, of in _DIALECTS}


@dataclass(frozen=True, slots=True)
class Presence:
    """A time in which the gateway saw a replica up: it is paid for, called or not."""

    id: str
    replica: str
    gpu: str
    gpus: int
    model: str
    provenance: Provenance
    since: datetime
    until: datetime


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


class Settlements:
    """Windows as they are stored. Raises Unavailable while the database is away; what was not settled stays due."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note_presences(self, presences: Sequence[tuple[Presence, datetime]]) -> None:
        """Keep until when replicas were seen, each with the moment up to which that is kept already.

        The windows from there on are opened again.
        """
        touched: set[WindowKey] = set()
        for presence, kept_until in presences:
            begin, end = microseconds(kept_until), microseconds(presence.until)
            for window_us in windows_of(begin, end):
                touched.add(WindowKey(presence.replica, presence.gpu, presence.gpus, moment_of(window_us)))
        rows = [{**asdict(presence), "provenance": presence.provenance.value} for presence, _ in presences]
        if not rows:
            return
        async with self._store.call_writing, self._store.transaction() as connection:
            await connection.execute(_KEEP_PRESENCE[connection.dialect.name], rows)
            await reopen(connection, touched)

    async def keep_weight(
        self, model: str, gpu: str, weight: PromptWeight, *, provenance: Provenance, at: datetime, source: str
    ) -> None:
        """Use a measured weight for the windows of engines of that provenance that end after `at` and were never
        settled. Raises ValueError for one that was assumed.
        """
        if weight.basis != "fitted":
            raise ValueError(f"weight: expected one that was measured, got one that is assumed: {weight.reason}")
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
        async with self._store.transaction() as connection:
            await connection.execute(_KEEP_WEIGHT[connection.dialect.name], row)

    async def list_due(self, before: datetime, *, limit: int = 100, after: WindowKey | None = None) -> list[WindowKey]:
        """Windows that ended at `before` or earlier and are to be settled, the oldest first; those behind `after`."""
        table = unsettled_windows
        order = (table.c.window_at, table.c.replica, table.c.gpu, table.c.gpus)
        statement = sa.select(table).where(table.c.window_at <= before - WINDOW).order_by(*order).limit(limit)
        if after is not None:
            passed = (after.window_at, after.replica, after.gpu, after.gpus)
            marks = [sa.bindparam(None, value, type_=column.type) for column, value in zip(order, passed, strict=True)]
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*marks))
        async with self._store.transaction() as connection:
            return [WindowKey(*row) for row in await connection.execute(statement)]

    async def settle(self, key: WindowKey, find_price: FindPrice) -> list[SettledChange]:
        """Settle one window in one transaction; say what that changed in the calls' settled costs."""
        async with self._store.call_writing, self._store.transaction() as connection:
            await connection.execute(sa.delete(unsettled_windows).where(*_is(unsettled_windows, key)))
            rows = await _calls_in(connection, key)
            presences = await _presences_in(connection, key)
            if not rows and not presences:
                await connection.execute(sa.delete(settled_windows).where(*_is(settled_windows, key)))
                return []
            terms = await _terms(connection, key, rows, presences, find_price)
            cost = await _arithmetic(key, rows, presences, terms)
            window = _window_row(key, rows, presences, terms, cost)
            await connection.execute(_KEEP_WINDOW[connection.dialect.name], window)
            return await _write_shares(connection, key, rows, cost, terms.currency)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a window is settled with: a price or the reason for none, and a weight."""

    model: str
    per_hour: Decimal | None
    currency: str | None
    tier: str | None
    provider: str | None
    on: date | None
    source: str | None
    reason: str | None
    weight: Decimal
    weight_basis: str


Rows = Sequence[Mapping[Any, Any]]


def _is(table: sa.Table, key: WindowKey) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in key._asdict().items()]


async def _calls_in(connection: AsyncConnection, key: WindowKey) -> Rows:
    joined = call_shares.join(calls, calls.c.id == call_shares.c.call_id)
    statement = sa.select(*_NEEDED, call_shares.c.cost_nanos).select_from(joined).where(*_is(call_shares, key))
    found = (await connection.execute(statement.order_by(calls.c.id))).mappings()
    rows: list[Mapping[Any, Any]] = []
    for some in found.partitions(SHARES_AT_ONCE):  # each is made of what the database gave when it is asked for
        rows += some
        await asyncio.sleep(0)
    return rows


async def _presences_in(connection: AsyncConnection, key: WindowKey) -> Rows:
    table = replica_presences
    statement = (
        sa.select(table)
        .where(table.c.replica == key.replica, table.c.gpu == key.gpu, table.c.gpus == key.gpus)
        .where(table.c.until > key.window_at, table.c.since < key.window_at + WINDOW)
        .order_by(table.c.since, table.c.id)
    )
    return (await connection.execute(statement)).mappings().all()


async def _terms(
    connection: AsyncConnection, key: WindowKey, rows: Rows, presences: Rows, find_price: FindPrice
) -> _Terms:
    """Those of the first settlement where there are any; what was unknown then is looked for again."""
    model = min(row["model"] for row in (*rows, *presences))
    statement = sa.select(settled_windows).where(*_is(settled_windows, key))
    before = (await connection.execute(statement)).mappings().first()
    if before is None:
        weight, basis = await _weight(connection, model, _provenance([*rows, *presences]), key)
    else:
        weight, basis = before["weight"], before["weight_basis"]
    if before is not None and before["price_per_hour"] is not None:
        facts = {name: before[f"price_{name}"] for name in ("per_hour", "tier", "provider", "on", "source")}
        return _Terms(model, currency=before["currency"], reason=None, weight=weight, weight_basis=basis, **facts)
    found = find_price(key.gpu, key.window_at.date())
    price = found.price
    if price is None:
        return _Terms(model, None, None, None, None, None, None, found.reason, weight, basis)
    return _Terms(
        model,
        price.per_hour,
        price.currency,
        price.tier,
        price.provider,
        price.on,
        price.sourced.source,
        None,
        weight,
        basis,
    )


async def _weight(connection: AsyncConnection, model: str, provenance: str, key: WindowKey) -> tuple[Decimal, str]:
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


async def _arithmetic(key: WindowKey, rows: Rows, presences: Rows, terms: _Terms) -> WindowCost:
    present = [Span(microseconds(row["since"]), microseconds(row["until"])) for row in presences]

    def settle() -> WindowCost:
        return settle_window(
            microseconds(key.window_at),
            present=present,
            calls=[_span_of(row) for row in rows],
            per_hour=terms.per_hour if terms.per_hour is not None else Decimal(0),
            gpus=key.gpus,
            weight=terms.weight,
        )

    return await asyncio.to_thread(settle) if len(rows) > CALLS_OFF_LOOP else settle()


def _provenance(rows: Rows) -> str:
    """The one that all have; unknown where an engine became another within the window."""
    found = {row["provenance"] for row in rows}
    return found.pop() if len(found) == 1 else Provenance.UNKNOWN.value


def _span_of(row: Mapping[Any, Any]) -> CallSpan:
    prompt, completion, ttft_s = row["prompt_tokens"], row["completion_tokens"], row["ttft_s"]
    if min(prompt or 0, completion or 0) < 0:  # an engine's own count, and no count
        prompt = completion = None
    return CallSpan(
        id=row["id"],
        dispatched_us=microseconds(row["dispatched_at"]),
        ended_us=microseconds(row["ended_at"]),
        first_token_us=None if ttft_s is None else microseconds(row["started_at"]) + round(ttft_s * 1_000_000),
        uncached_prompt_tokens=None if prompt is None else max(0, prompt - (row["cached_tokens"] or 0)),
        completion_tokens=completion,
    )


def _window_row(key: WindowKey, rows: Rows, presences: Rows, terms: _Terms, cost: WindowCost) -> dict[str, Any]:
    is_priced = terms.per_hour is not None
    return {
        **key._asdict(),
        "day": key.window_at.date(),
        "model": terms.model,
        "provenance": _provenance([*rows, *presences]),
        "paid_us": cost.paid_us,
        "busy_us": cost.busy_us,
        "calls": len(rows),
        "money_nanos": cost.money_nanos if is_priced else None,
        "busy_nanos": cost.busy_nanos if is_priced else None,
        "idle_nanos": cost.idle_nanos if is_priced else None,
        "currency": terms.currency,
        "price_per_hour": terms.per_hour,
        "price_tier": terms.tier,
        "price_provider": terms.provider,
        "price_on": terms.on,
        "price_source": terms.source,
        "weight": terms.weight,
        "weight_basis": terms.weight_basis,
        "reason": terms.reason,
    }


async def _write_shares(
    connection: AsyncConnection, key: WindowKey, rows: Rows, cost: WindowCost, currency: str | None
) -> list[SettledChange]:
    """What each call costs in this window, and in all where all of its windows are settled."""
    if currency is None:
        return await _set_costs(connection, [row["id"] for row in rows], take_back=True)
    shares = [(row["id"], cost.shares[row["id"]]) for row in rows if row["cost_nanos"] != cost.shares[row["id"]]]
    window = {f"of_{name}": value for name, value in key._asdict().items()}
    for some in slices(shares, SHARES_AT_ONCE):
        values = [{**window, "of_call": of_call, "nanos": nanos, "in_currency": currency} for of_call, nanos in some]
        await connection.execute(_SET_SHARE, values)
        await asyncio.sleep(0)
    return await _set_costs(connection, [of_call for of_call, _ in shares])


async def _set_costs(
    connection: AsyncConnection, ids: Sequence[str], *, take_back: bool = False
) -> list[SettledChange]:
    """Give calls the cost of all their windows where it is another; `take_back`: none, where one has no price."""
    change = Change()
    found: dict[tuple[Any, ...], SettledChange] = {}
    for some in slices(ids, SHARES_AT_ONCE):
        wholes = {} if take_back else await _whole_costs(connection, some)
        named = some if take_back else list(wholes)
        statement = sa.select(*COUNTED).where(calls.c.id.in_(sa.bindparam("ids", expanding=True)))
        values = []
        for row in (await connection.execute(statement, {"ids": named})).mappings().all() if named else ():
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
