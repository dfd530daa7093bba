"""What came of a batch's items, as its figures need it: sides without their texts, a page at a time.

The JSON of a side is left as the text that it is, so that whoever reads it may do so off the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gateway.batch_store import BatchItem, ItemStatus, item_from, items_of
from gateway.store import Store
from gateway.tables import batch_items, comparison_sides, comparisons


@dataclass(frozen=True, slots=True)
class StoredSide:
    """One side. `error` and `facts` are JSON."""

    comparison_id: str
    model: str
    status: str
    finish_reason: str | None
    error: str | None
    facts: str


@dataclass(frozen=True, slots=True)
class Settled:
    """An item that is over, with the sides of its comparison; none where there is no comparison."""

    item: BatchItem
    timing_comparable: bool | None
    timing_reason: str | None
    sides: tuple[StoredSide, ...]


async def read_settled(store: Store, batch_id: str, *, after: int = -1, limit: int = 100) -> list[Settled]:
    """Items that are over, in their order, those behind number `after`."""
    statement = (
        items_of(batch_id)
        .add_columns(comparisons.c.timing_comparable, comparisons.c.timing_reason)
        .outerjoin(comparisons, comparisons.c.id == batch_items.c.comparison_id)
        .where(batch_items.c.number > after, batch_items.c.status != ItemStatus.PENDING.value)
        .limit(limit)
    )
    async with store.transaction() as connection:
        rows = (await connection.execute(statement)).mappings().all()
        ids = [row["comparison_id"] for row in rows if row["comparison_id"] is not None]
        sides: dict[str, list[StoredSide]] = {}
        for side in await connection.execute(_sides(ids)):
            sides.setdefault(side[0], []).append(StoredSide(*side))
    return [
        Settled(
            item_from(row), row["timing_comparable"], row["timing_reason"], tuple(sides.get(row["comparison_id"], ()))
        )
        for row in rows
    ]


async def read_asked_again(store: Store, batch_id: str, *, after: str = "", limit: int = 100) -> list[StoredSide]:
    """Sides of the batch's comparisons that do not count, because their item was asked again, by comparison.

    `limit` counts comparisons; `after` is the id of the last one before.
    """
    counts = sa.and_(
        batch_items.c.batch_id == batch_id,
        batch_items.c.number == comparisons.c.batch_item,
        batch_items.c.comparison_id == comparisons.c.id,
    )
    ids = (
        sa.select(comparisons.c.id)
        .where(comparisons.c.batch_id == batch_id, comparisons.c.id > after, ~sa.exists().where(counts))
        .order_by(comparisons.c.id)
        .limit(limit)
    )
    async with store.transaction() as connection:
        found = list((await connection.execute(ids)).scalars())
        return [StoredSide(*side) for side in await connection.execute(_sides(found))]


def _sides(comparison_ids: list[str]) -> sa.Select[Any]:
    sides = comparison_sides.c
    error, facts = (sa.cast(column, sa.Text) for column in (sides.error, sides.facts))
    return (
        sa.select(sides.comparison_id, sides.model, sides.status, sides.finish_reason, error, facts)
        .where(sides.comparison_id.in_(comparison_ids))
        .order_by(sides.comparison_id, sides.position)
    )
