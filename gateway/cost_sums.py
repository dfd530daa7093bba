"""What was spent, summed up from the database: calls' costs by what they have in common, GPU money and idle time.

Days are summed up as calls are written and minutes settled, so that a month is read in a moment. Sums are exact and
never across currencies, bases or provenances. Who may see what is the `api`'s question; what is not settled yet is
counted, so that an answer can say so.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, localcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cost_tables import call_shares, gpu_days, settled_windows, unsettled_windows
from gateway.gpu_days import FACTS
from gateway.settled_costs import money
from gateway.settled_shares import MOST_WINDOWS, WindowKey
from gateway.store import Store
from gateway.tables import calls
from gateway.use_by_day import read_spent

ROWS_AT_ONCE = 100
"""Rows of GPU time read before the event loop gets its turn."""
DAYS_AT_ONCE = 31
"""Of calls' costs, read in one transaction."""
_UNKNOWN = frozenset({None, "unknown"})
_DIGITS = 60


@dataclass(frozen=True, slots=True)
class SpentRow:
    """Calls of one group, model, provenance, currency and basis."""

    group: str | None
    model: str
    provenance: str | None
    basis: str | None
    currency: str | None
    calls: int
    calls_without_cost: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class GpuTimeRow:
    """Settled time of one replica, with one price and one weight, on one day."""

    day: date
    replica: str
    model: str
    provenance: str
    gpu: str
    gpus: int
    paid_s: Decimal
    busy_s: Decimal
    windows: int
    money: Decimal | None
    busy: Decimal | None
    idle: Decimal | None
    currency: str | None
    price_per_hour: Decimal | None
    price_tier: str | None
    price_provider: str | None
    price_on: date | None
    price_source: str | None
    weight: Decimal
    weight_basis: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class UnattributedRow:
    """Busy money of one replica on one day whose calls have no settled cost: another of their minutes has none."""

    day: date
    replica: str
    model: str
    provenance: str
    currency: str
    cost: Decimal


class CostSums:
    """Reads sums. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._transaction = store.transaction

    async def spent(
        self, first: date, last: date, *, by: str, organisation: str | None = None, model: str | None = None
    ) -> list[SpentRow]:
        """Costs of calls that began on these days of UTC, by `model`, `organisation`, `day`, `run` or `replica`."""
        sums: dict[tuple[Any, ...], list[Any]] = {}
        with localcontext(prec=_DIGITS):
            for begin in range(first.toordinal(), last.toordinal() + 1, DAYS_AT_ONCE):
                days = date.fromordinal(begin), min(last, date.fromordinal(begin + DAYS_AT_ONCE - 1))
                async with self._transaction() as connection:
                    async for row in read_spent(connection, *days, by=by, organisation=organisation, model=model):
                        place, share = row[:5], row[5:]
                        found = sums.get(place)
                        sums[place] = (
                            list(share) if found is None else [o + n for o, n in zip(found, share, strict=True)]
                        )
        return [_spent_row(place, sums[place]) for place in sorted(sums, key=str)]

    async def gpu_time(self, first: date, last: date, *, model: str | None = None) -> list[GpuTimeRow]:
        """Settled GPU time of these days, a row a day, replica, price and weight."""
        async with self._transaction() as connection:
            rows = await _gpu_days(connection, first, last, model)
        return [_gpu_time_row(row) for row in rows if row["windows"]]

    async def unattributed(self, first: date, last: date, *, model: str | None = None) -> list[UnattributedRow]:
        """What settled minutes of these days charge to calls that have no settled cost, or none yet."""
        async with self._transaction() as connection:
            await connection.execute(_AT_ONE_MOMENT[connection.dialect.name])
            of_days = await _gpu_days(connection, first, last, model)
            of_minutes = await _unattributed_minutes(connection, first, last, model)
        sums: dict[tuple[date, str, str, str, str], int] = defaultdict(int)
        for row in of_days:
            if row["unattributed_nanos"]:
                sums[_unattributed_place(row)] += row["unattributed_nanos"]
        for row in of_minutes:
            sums[_unattributed_place(row)] += int(row["nanos"])
        return [UnattributedRow(*place, money(nanos)) for place, nanos in sorted(sums.items())]

    async def unsettled(self, until: datetime) -> tuple[int, datetime | None]:
        """How many windows that began before `until` are yet to be settled, or settled anew, and the first of them."""
        table = unsettled_windows
        statement = sa.select(sa.func.count(), sa.func.min(table.c.window_at)).where(table.c.window_at < until)
        async with self._transaction() as connection:
            count, begin = (await connection.execute(statement)).one()
        return count, begin


_AT_ONE_MOMENT = {
    "sqlite": sa.text("BEGIN"),  # the driver itself begins no transaction before SELECT
    "postgresql": sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
}
"""So that minutes which are removed, and move to the days, between two statements are seen in one of them."""
_ORDER = ("day", "replica", "model", "provenance", "gpu", "gpus")


async def _gpu_days(connection: AsyncConnection, first: date, last: date, model: str | None) -> list[Mapping[Any, Any]]:
    table = gpu_days
    statement = sa.select(table).where(table.c.day >= first, table.c.day <= last)
    if model is not None:
        statement = statement.where(table.c.model == model)
    rows: list[Mapping[Any, Any]] = []
    found = await connection.execute(statement.order_by(*(table.c[name] for name in _ORDER), table.c.kind))
    for some in found.mappings().partitions(ROWS_AT_ONCE):
        rows += some
        await asyncio.sleep(0)
    return rows


async def _unattributed_minutes(
    connection: AsyncConnection, first: date, last: date, model: str | None
) -> Sequence[Mapping[Any, Any]]:
    """Of the minutes whose rows are still kept."""
    window = settled_windows
    of_kind = (window.c.day, window.c.replica, window.c.model, window.c.provenance, call_shares.c.currency)
    on_window = sa.and_(*(call_shares.c[name] == window.c[name] for name in WindowKey._fields))
    begin = datetime.combine(first, time(), UTC) - timedelta(minutes=min(MOST_WINDOWS, _minutes_before(first)))
    end = datetime.combine(last + timedelta(days=1), time(), UTC)
    statement = (
        sa.select(*of_kind, sa.func.sum(call_shares.c.cost_nanos).label("nanos"))
        .select_from(calls.join(call_shares, call_shares.c.call_id == calls.c.id).join(window, on_window))
        .where(calls.c.settled_cost.is_(None), calls.c.gpu.is_not(None))
        .where(calls.c.started_at >= begin, calls.c.started_at < end)
        .where(call_shares.c.cost_nanos.is_not(None), window.c.day >= first, window.c.day <= last)
        .group_by(*of_kind)
    )
    if model is not None:
        statement = statement.where(window.c.model == model)
    return (await connection.execute(statement)).mappings().all()


def _unattributed_place(row: Mapping[Any, Any]) -> tuple[date, str, str, str, str]:
    return row["day"], row["replica"], row["model"], row["provenance"], row["currency"]


def _minutes_before(first: date) -> int:
    return (first - date.min).days * 24 * 60


def _spent_row(place: tuple[Any, ...], sums: list[Any]) -> SpentRow:
    group, model, *kind = place
    provenance, basis, currency = (each or None for each in kind)
    count, without, prompt, completion, cached, cost = sums
    return SpentRow(
        group=str(group) if group else None,
        model=model,
        provenance=provenance,
        basis=basis,
        currency=currency,
        calls=count,
        calls_without_cost=without,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cost=None if basis in _UNKNOWN else cost,
    )


def _gpu_time_row(row: Mapping[Any, Any]) -> GpuTimeRow:
    def amount(name: str) -> Decimal | None:
        return None if row["currency"] is None else money(row[name])

    return GpuTimeRow(
        day=row["day"],
        paid_s=Decimal(row["paid_us"]).scaleb(-6),
        busy_s=Decimal(row["busy_us"]).scaleb(-6),
        windows=row["windows"],
        money=amount("money_nanos"),
        busy=amount("busy_nanos"),
        idle=amount("idle_nanos"),
        **{name: row[name] for name in FACTS},
    )
