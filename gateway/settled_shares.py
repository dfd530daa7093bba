"""Which windows of a replica's time a call takes part in, and their being opened again when calls are written.

Done in the transaction that writes the calls, so that no call is ever missing from a settlement. Windows before the
horizon are closed: a record that comes later changes nothing of them. Settling itself is `settlements`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cost_tables import call_shares, settlement_horizon, unsettled_windows
from gateway.domain.settlement import WINDOW_US, microseconds, moment_of, windows_of


class WindowKey(NamedTuple):
    """One minute of what is paid for."""

    replica: str
    gpu: str
    gpus: int
    window_at: datetime


WINDOW = timedelta(microseconds=WINDOW_US)
MOST_WINDOWS = 2 * 24 * 60
"""Of one call: no engine works on one for two days, so a longer one is a clock that was set. It stays provisional."""
ROWS_AT_ONCE = 100
"""Rows handed over before the event loop gets its turn."""
_DIALECTS = (("sqlite", sqlite), ("postgresql", postgresql))
_ADD_SHARES = {kind: of.insert(call_shares).on_conflict_do_nothing() for kind, of in _DIALECTS}
_REOPEN = {kind: of.insert(unsettled_windows).on_conflict_do_nothing() for kind, of in _DIALECTS}
_REMOVE_SHARE = sa.delete(call_shares).where(
    *(call_shares.c[name] == sa.bindparam(f"old_{name}") for name in (*WindowKey._fields, "call_id"))
)

_UNSETTLE = (
    sa.update(call_shares)
    .where(call_shares.c.call_id == sa.bindparam("of_call"), call_shares.c.window_at >= sa.bindparam("open_since"))
    .values(cost_nanos=None, currency=None)
)
"""For calls that leave a window: what they cost in the others is to be summed up anew."""


_PLACE = ("replica", "gpu", "gpus", "dispatched_at", "ended_at")
"""Columns of a call that say which windows it is in."""
FROM_THE_FIRST = datetime(1, 2, 1, tzinfo=UTC)
"""The horizon while nothing was closed yet; some days may be taken from it."""
_OPEN_SINCE = sa.select(settlement_horizon.c.open_since)


def is_window(table: sa.Table, key: WindowKey) -> list[sa.ColumnElement[bool]]:
    """Conditions for the rows of one window."""
    return [table.c[name] == value for name, value in key._asdict().items()]


async def delete_windows(connection: AsyncConnection, table: sa.Table, keys: Sequence[WindowKey]) -> None:
    """All rows of some windows, each found by its key: SQLite reads whole tables for several keys at once."""
    of_window = (table.c[name] == sa.bindparam(f"of_{name}") for name in WindowKey._fields)
    values = [{f"of_{name}": value for name, value in key._asdict().items()} for key in keys]
    await connection.execute(sa.delete(table).where(*of_window), values)


async def open_since(connection: AsyncConnection) -> datetime:
    """The horizon: windows that begin before it are closed."""
    found: datetime | None = (await connection.execute(_OPEN_SINCE)).scalar()
    return found or FROM_THE_FIRST


def windows_of_call(row: Mapping[Any, Any]) -> list[WindowKey]:
    """The windows of a call's row; none where it took no time of a GPU that the registry names."""
    dispatched_at, ended_at = row["dispatched_at"], row["ended_at"]
    if dispatched_at is None or ended_at is None or row["replica"] is None or row["gpu"] is None:
        return []
    gpus = row["gpus"] or 1
    begins = windows_of(microseconds(dispatched_at), microseconds(ended_at))
    if len(begins) > MOST_WINDOWS:
        return []
    return [WindowKey(row["replica"], row["gpu"], gpus, moment_of(begin)) for begin in begins]


async def reopen(connection: AsyncConnection, windows: Iterable[WindowKey]) -> None:
    """Have them settled, or settled anew."""
    in_order = sorted(windows)
    for start in range(0, len(in_order), ROWS_AT_ONCE):
        rows = [window._asdict() for window in in_order[start : start + ROWS_AT_ONCE]]
        await connection.execute(_REOPEN[connection.dialect.name], rows)
        await asyncio.sleep(0)


class Reopening:
    """What writing calls in one transaction does to windows: any number of times, in any order.

    A call that had a closed window keeps its place, and so its windows, and its settled cost, whatever it says later,
    and its row goes on saying so: else the next record would not find it closed. Of one that is new
    the closed windows stay without a share: it has no settled cost, and what its open ones charge it with is a sum of
    its own.
    """

    def __init__(self, since: datetime) -> None:
        """`since`: the horizon; see `open_since`."""
        self._since = since
        self._before: dict[str, list[WindowKey]] = {}
        self._places: dict[str, dict[str, Any]] = {}
        self._settled: dict[str, tuple[Any, Any]] = {}
        self._now: dict[str, list[WindowKey]] = {}

    def replace(self, row: Mapping[Any, Any]) -> None:
        """The call says something else from now on than this."""
        self._before[row["id"]] = windows_of_call(row)
        self._places[row["id"]] = {name: row[name] for name in _PLACE}
        self._settled[row["id"]] = row["settled_cost"], row["settled_currency"]

    def write_down(self, row: dict[str, Any]) -> None:
        """Take in a call that has ended. Its settled cost stays until its windows are settled anew."""
        before, settled = self._before.get(row["id"], []), self._settled.get(row["id"], (None, None))
        windows = windows_of_call(row)
        # A settled cost without a window is what an earlier correction left of a call whose windows are closed.
        is_closed = any(window.window_at < self._since for window in before) or (settled[0] is not None and not before)
        if is_closed:
            windows = before
            row.update(self._places[row["id"]])
        self._now[row["id"]] = windows
        if windows or is_closed:
            row["settled_cost"], row["settled_currency"] = settled

    async def write(self, connection: AsyncConnection) -> None:
        await self._remove_shares(connection)
        shares = [
            (window, call_id)
            for call_id, windows in self._now.items()
            if any(window.window_at >= self._since for window in windows)
            for window in windows
        ]
        for start in range(0, len(shares), ROWS_AT_ONCE):
            some = shares[start : start + ROWS_AT_ONCE]
            rows = [{**window._asdict(), "call_id": call_id} for window, call_id in some]
            await connection.execute(_ADD_SHARES[connection.dialect.name], rows)
        touched = {window for windows in (*self._now.values(), *self._before.values()) for window in windows}
        await reopen(connection, (window for window in touched if window.window_at >= self._since))

    async def _remove_shares(self, connection: AsyncConnection) -> None:
        """Of windows that calls are no longer in."""
        gone = [
            {f"old_{name}": value for name, value in {**window._asdict(), "call_id": call_id}.items()}
            for call_id, windows in self._before.items()
            for window in set(windows).difference(self._now.get(call_id, ()))
            if window.window_at >= self._since
        ]
        if gone:
            await connection.execute(_REMOVE_SHARE, gone)
            of_calls = {row["old_call_id"] for row in gone}
            await connection.execute(
                _UNSETTLE, [{"of_call": name, "open_since": self._since} for name in sorted(of_calls)]
            )
