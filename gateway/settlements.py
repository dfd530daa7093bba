"""Settles windows in the database: reads what was recorded of a minute, writes what it cost, any number of times.

A window, the calls in it and the sums made of both are written in one transaction, from nothing but the records, so
settling again gives the same rows and a process that dies between two windows leaves whole ones. When to settle
belongs in `settler`, the arithmetic in `domain.settlement`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cost_tables import (
    call_shares,
    refused_windows,
    replica_presences,
    settled_windows,
    unsettled_windows,
)
from gateway.domain.records import Provenance
from gateway.domain.settlement import (
    CallSpan,
    PromptWeight,
    Span,
    WindowCost,
    microseconds,
    moment_of,
    settle_window,
    windows_of,
)
from gateway.gpu_days import GpuDayChange
from gateway.long_work import give_way
from gateway.settled_costs import SHARES_AT_ONCE, SettledChange, set_costs, write_shares
from gateway.settled_shares import WINDOW, WindowKey, delete_windows, is_window, open_since, reopen
from gateway.store import Store
from gateway.tables import calls
from gateway.window_terms import FindPrice, Terms, keep_weight, terms_of

CALLS_OFF_LOOP = 50
"""Above so many calls in a window the arithmetic is done in a thread, so that no stream waits for it."""
REOPENED_AT_ONCE = 50
"""The oldest window that is due is settled first: so many may keep those of now waiting."""
_DIALECTS = (("sqlite", sqlite), ("postgresql", postgresql))
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
Rows = Sequence[Mapping[Any, Any]]


def _replacing(insert: sqlite.Insert | postgresql.Insert, table: sa.Table, *names: str) -> sa.Insert:
    keys = [column.name for column in table.primary_key.columns]
    replaced = names or [column.name for column in table.columns if not column.primary_key]
    upsert: sa.Insert = insert.on_conflict_do_update(
        index_elements=keys, set_={name: insert.excluded[name] for name in replaced}
    )
    return upsert


_KEEP_WINDOW = {kind: _replacing(of.insert(settled_windows), settled_windows) for kind, of in _DIALECTS}
_KEEP_REFUSAL = {kind: _replacing(of.insert(refused_windows), refused_windows) for kind, of in _DIALECTS}
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


class Settlements:
    """Windows as they are stored. Raises Unavailable while the database is away; what was not settled stays due."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note_presences(self, presences: Sequence[tuple[Presence, datetime]]) -> None:
        """Keep until when replicas were seen, each with the moment up to which that is kept already.

        The windows from there on are opened again, as far as they are not closed.
        """
        touched: set[WindowKey] = set()
        for presence, kept_until in presences:
            begin, end = microseconds(kept_until), microseconds(presence.until)
            for window_us in windows_of(begin, end):
                touched.add(WindowKey(presence.replica, presence.gpu, presence.gpus, moment_of(window_us)))
        rows = [{**asdict(presence), "provenance": presence.provenance.value} for presence, _ in presences]
        if not rows:
            return
        async with self._store.writing_calls() as connection:
            since = await open_since(connection)
            await connection.execute(_KEEP_PRESENCE[connection.dialect.name], rows)
            await reopen(connection, (window for window in touched if window.window_at >= since))

    async def keep_weight(
        self, model: str, gpu: str, weight: PromptWeight, *, provenance: Provenance, at: datetime, source: str
    ) -> None:
        """Use a measured weight for the windows of engines of that provenance that end after `at` and were never
        settled. Raises ValueError for one that was assumed.
        """
        if weight.basis != "fitted":
            raise ValueError(f"weight: expected one that was measured, got one that is assumed: {weight.reason}")
        async with self._store.transaction() as connection:
            await keep_weight(connection, model, gpu, weight, provenance=provenance, at=at, source=source)

    async def list_due(self, before: datetime, *, limit: int = 100) -> list[WindowKey]:
        """Windows that ended at `before` or earlier and are to be settled, the oldest first."""
        table = unsettled_windows
        order = (table.c.window_at, table.c.replica, table.c.gpu, table.c.gpus)
        statement = sa.select(table).where(table.c.window_at <= before - WINDOW).order_by(*order).limit(limit)
        async with self._store.transaction() as connection:
            return [WindowKey(*row) for row in await connection.execute(statement)]

    async def settle(self, key: WindowKey, find_price: FindPrice, *, prices: str = "") -> list[SettledChange]:
        """Settle one window in one transaction; say what that changed in the calls' settled costs.

        Where it has no price it is settled without money, and kept as refused under `prices`; see `reopen_refused`.
        """
        days = GpuDayChange()
        async with self._store.writing_calls() as connection:
            for table in (unsettled_windows, refused_windows):
                await connection.execute(sa.delete(table).where(*is_window(table, key)))
            if key.window_at < await open_since(connection):
                return []
            before = await _window_before(connection, key)
            if before is not None:
                days.take_back(before)
            rows = await _calls_in(connection, key)
            presences = await _presences_in(connection, key)
            if not rows and not presences:
                await connection.execute(sa.delete(settled_windows).where(*is_window(settled_windows, key)))
                await days.write(connection)
                return []
            model, provenance = min(row["model"] for row in (*rows, *presences)), _provenance([*rows, *presences])
            terms = await terms_of(connection, key, before, model=model, provenance=provenance, find_price=find_price)
            cost = await _arithmetic(key, rows, presences, terms)
            window = _window_row(key, model, provenance, len(rows), terms, cost)
            await connection.execute(_KEEP_WINDOW[connection.dialect.name], window)
            days.add(window)
            await days.write(connection)
            if terms.currency is None:
                await _keep_refusal(connection, key, terms.reason or "", prices)
                return await set_costs(connection, [row["id"] for row in rows], take_back=True)
            return await write_shares(connection, key, _changed_shares(rows, cost), terms.currency)

    async def refuse(self, key: WindowKey, reason: str, *, prices: str) -> None:
        """Leave a window that cannot be settled alone until a record of it comes, or its GPU has other prices."""
        async with self._store.writing_calls() as connection:
            await connection.execute(sa.delete(unsettled_windows).where(*is_window(unsettled_windows, key)))
            await _keep_refusal(connection, key, reason, prices)

    async def reopen_refused(self, prices_of: Callable[[str], str], find_price: FindPrice) -> int:
        """Have some refused windows settled anew whose GPU has other prices now, the newest first; how many.

        None of a day that still has no price: they are kept as refused under the prices of now. `prices_of`: the
        fingerprint of a GPU's prices by its id. 0: nothing is left to be looked at.
        """
        table = refused_windows
        async with self._store.transaction() as connection:
            found = (await connection.execute(sa.select(table.c.gpu, table.c.refused_under).distinct())).all()
        for gpu, refused_under in found:
            prices = prices_of(gpu)
            if prices != refused_under and (reopened := await self._reopen_of(gpu, refused_under, prices, find_price)):
                return reopened
        return 0

    async def _reopen_of(self, gpu: str, refused_under: str, prices: str, find_price: FindPrice) -> int:
        table = refused_windows
        columns = [table.c[name] for name in WindowKey._fields]
        refused = (table.c.gpu == gpu, table.c.refused_under == refused_under)
        newest = sa.select(*columns).where(*refused).order_by(table.c.window_at.desc()).limit(REOPENED_AT_ONCE)
        while True:
            async with self._store.writing_calls() as connection:
                keys = [WindowKey(*row) for row in await connection.execute(newest)]
                if not keys:
                    return 0
                day = keys[0].window_at.date()
                found = find_price(gpu, day)
                if found.price is not None:
                    of_day = [key for key in keys if key.window_at.date() == day]
                    await reopen(connection, of_day)
                    await delete_windows(connection, table, of_day)
                    return len(of_day)
                since = keys[0].window_at.replace(hour=0, minute=0, second=0, microsecond=0)
                refused_anew = sa.update(table).where(*refused, table.c.window_at >= since)
                await connection.execute(refused_anew.values(refused_under=prices, reason=found.reason or ""))


async def _keep_refusal(connection: AsyncConnection, key: WindowKey, reason: str, prices: str) -> None:
    row = {**key._asdict(), "reason": reason.replace("\0", "?"), "refused_under": prices}
    await connection.execute(_KEEP_REFUSAL[connection.dialect.name], row)


async def _window_before(connection: AsyncConnection, key: WindowKey) -> Mapping[Any, Any] | None:
    statement = sa.select(settled_windows).where(*is_window(settled_windows, key))
    return (await connection.execute(statement)).mappings().first()


async def _calls_in(connection: AsyncConnection, key: WindowKey) -> Rows:
    joined = call_shares.join(calls, calls.c.id == call_shares.c.call_id)
    statement = sa.select(*_NEEDED, call_shares.c.cost_nanos).select_from(joined).where(*is_window(call_shares, key))
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


async def _arithmetic(key: WindowKey, rows: Rows, presences: Rows, terms: Terms) -> WindowCost:
    present = [Span(microseconds(row["since"]), microseconds(row["until"])) for row in presences]
    is_long = len(rows) > CALLS_OFF_LOOP

    def settle() -> WindowCost:
        return settle_window(
            microseconds(key.window_at),
            present=present,
            calls=[_span_of(row) for row in rows],
            per_hour=terms.price_per_hour if terms.price_per_hour is not None else Decimal(0),
            gpus=key.gpus,
            weight=terms.weight,
            rest=give_way if is_long else None,
        )

    return await asyncio.to_thread(settle) if is_long else settle()


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


def _window_row(
    key: WindowKey, model: str, provenance: str, count: int, terms: Terms, cost: WindowCost
) -> dict[str, Any]:
    is_priced = terms.price_per_hour is not None
    return {
        **key._asdict(),
        "day": key.window_at.date(),
        "model": model,
        "provenance": provenance,
        "paid_us": cost.paid_us,
        "busy_us": cost.busy_us,
        "calls": count,
        "money_nanos": cost.money_nanos if is_priced else None,
        "busy_nanos": cost.busy_nanos if is_priced else None,
        "idle_nanos": cost.idle_nanos if is_priced else None,
        **terms.columns(),
    }


def _changed_shares(rows: Rows, cost: WindowCost) -> list[tuple[str, int]]:
    """A call that says by now that it was elsewhere, and whose window was closed meanwhile, has none of this one."""
    shares = [(row["id"], row["cost_nanos"], cost.shares.get(row["id"], 0)) for row in rows]
    return [(call_id, share) for call_id, before, share in shares if share != before]
