"""For how long GPU time is kept by the minute: closes days, and removes the rows of closed windows, some at a time.

A closed window is never settled again, so its rows may go: the sums of days stay, with what the window charged to calls
that have no settled cost. A record that comes later changes nothing of it; see `settled_shares.Reopening`. When this is
done belongs in `retention`.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cost_tables import (
    call_shares,
    refused_windows,
    replica_presences,
    settled_windows,
    settlement_horizon,
    unsettled_windows,
)
from gateway.gpu_days import GpuDayChange
from gateway.settled_shares import (
    FROM_THE_FIRST,
    MOST_WINDOWS,
    WINDOW,
    WindowKey,
    delete_windows,
    is_window,
    open_since,
)
from gateway.store import Store
from gateway.tables import calls

WINDOWS_AT_ONCE = 20
"""Removed in one transaction with their calls' shares: writers of calls wait for it."""
PRESENCES_AT_ONCE = 500
KEPT_BEHIND = MOST_WINDOWS * WINDOW
"""Rows stay so much longer than their windows are open: a call that has both kinds of windows keeps all its shares."""

DAYS_AT_ONCE = timedelta(days=3)
"""So far the horizon moves at once: a clock that is wrong for an hour must not close the days to come."""
_FIRST_DUE = sa.select(sa.func.min(unsettled_windows.c.window_at))
_NEWEST = tuple(
    sa.select(sa.func.max(column))
    for column in (unsettled_windows.c.window_at, replica_presences.c.until, calls.c.started_at)
)


class KeptMinutes:
    """The rows of windows. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def close(self, now: datetime, keep: timedelta) -> datetime:
        """Close windows that are older than `keep`, up to the first that is yet to be settled; the new horizon.

        It is the beginning of a day of UTC, and never goes back. For a clock that is wrong it stays as far behind the
        newest record as behind `now`, and moves on by DAYS_AT_ONCE at most.
        """
        async with self._store.writing_calls() as connection:
            since = await open_since(connection)
            moments = [(await connection.execute(statement)).scalar() for statement in (_FIRST_DUE, *_NEWEST)]
            due, *newest = moments
            seen = max((moment for moment in newest if moment is not None), default=None)
            first = since if since > FROM_THE_FIRST else await _first_kept(connection)
            if seen is None or first is None:
                return since
            horizon = _midnight(min(min(now, seen) - keep, first + DAYS_AT_ONCE, due or now))
            if horizon <= since:
                return since
            await connection.execute(sa.delete(settlement_horizon))
            await connection.execute(sa.insert(settlement_horizon).values(id=1, open_since=horizon))
            return horizon

    async def remove_some(self, horizon: datetime) -> int:
        """Remove rows that closed windows no longer need, a transaction's worth; how many windows and presences."""
        cut = horizon - KEPT_BEHIND
        async with self._store.writing_calls() as connection:
            return await _remove_windows(connection, cut) or await _remove_presences(connection, cut)


async def _first_kept(connection: AsyncConnection) -> datetime | None:
    """The first day of which minutes are kept; None where there are none."""
    day = (await connection.execute(sa.select(sa.func.min(settled_windows.c.day)))).scalar()
    refused_at = (await connection.execute(sa.select(sa.func.min(refused_windows.c.window_at)))).scalar()
    begins = [] if day is None else [datetime.combine(day, time(), UTC)]
    begins += [] if refused_at is None else [refused_at]
    return min(begins, default=None)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _key_of(table: sa.Table) -> list[sa.Column[Any]]:
    return [table.c[name] for name in WindowKey._fields]


async def _remove_windows(connection: AsyncConnection, cut: datetime) -> int:
    settled = sa.select(settled_windows).where(settled_windows.c.day < cut.date()).limit(WINDOWS_AT_ONCE)
    windows = (await connection.execute(settled)).mappings().all()
    keys = [WindowKey(*(row[name] for name in WindowKey._fields)) for row in windows]
    if not keys:
        refused = sa.select(*_key_of(refused_windows)).where(refused_windows.c.window_at < cut - timedelta(days=1))
        keys = [WindowKey(*row) for row in await connection.execute(refused.limit(WINDOWS_AT_ONCE))]
    if not keys:
        return 0
    days = GpuDayChange()
    for window, key in zip(windows, keys, strict=False):  # a window that was refused may have no row
        days.keep_unattributed(window, await _unattributed(connection, key))
    await days.write(connection)
    for table in (call_shares, settled_windows, refused_windows):
        await delete_windows(connection, table, keys)
    return len(keys)


async def _unattributed(connection: AsyncConnection, key: WindowKey) -> int:
    """What a window charges to calls that have no settled cost, in nanos."""
    statement = (
        sa.select(sa.func.sum(call_shares.c.cost_nanos))
        .select_from(call_shares.join(calls, calls.c.id == call_shares.c.call_id))
        .where(*is_window(call_shares, key), call_shares.c.cost_nanos > 0, calls.c.settled_cost.is_(None))
    )
    return int((await connection.execute(statement)).scalar() or 0)


async def _remove_presences(connection: AsyncConnection, cut: datetime) -> int:
    table = replica_presences
    some = sa.select(table.c.id).where(table.c.until < cut).limit(PRESENCES_AT_ONCE)
    removed = await connection.execute(sa.delete(table).where(table.c.id.in_(some)))
    return removed.rowcount
