"""Batches of comparisons in the database: what was asked for, and how far each item has come.

The statements of one subject, over `Store.transaction`. An item is one prompt in one repeat; it is done when its
comparison is stored, so a gateway that dies finds every other item still pending. Asking is `batches`' part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from gateway.domain.records import Priority
from gateway.store import Comparison, Store, insert_comparison, slices
from gateway.tables import batch_items, batch_prompts, batches, comparison_sides, comparisons

ROWS_AT_ONCE = 500
"""Rows made and written before the event loop gets its turn: about two milliseconds."""


class BatchStatus(StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class ItemStatus(StrEnum):
    PENDING = "pending"
    DONE = "done"
    """Its comparison is stored; sides of it may have failed."""
    FAILED = "failed"
    """No comparison could be made; `error` says why."""


_BY_END = (ItemStatus.DONE, ItemStatus.FAILED, ItemStatus.PENDING)


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    name: str
    """Unique in its organisation: the same name again means the same batch, or is refused."""
    created_at: datetime
    ended_at: datetime | None
    status: BatchStatus
    models: tuple[str, ...]
    params: dict[str, Any]
    schedule: str | None
    repeats: int
    digest: str
    """Of everything that was asked for."""
    organisation: str = ""
    """Whose it is; "" is the operator."""
    key: str | None = None
    """The key whose rights and limits hold for what is asked next; None is the operator's."""
    priority: Priority = Priority.BATCH
    """The class of its calls, or of the key's where that is lower."""
    reason: str | None = None
    """Why the gateway itself cancelled it."""


@dataclass(frozen=True, slots=True)
class BatchPrompt:
    prompt_id: str
    messages: Any
    max_tokens: int | None = None
    """Longest answer to this prompt; None = as the batch's params say."""


@dataclass(frozen=True, slots=True)
class BatchItem:
    number: int
    """Its turn, from 0."""
    prompt_id: str
    repeat: int
    """From 1."""
    status: ItemStatus
    attempts: int
    comparison_id: str | None
    error: Any


@dataclass(frozen=True, slots=True)
class ItemEnd:
    """What became of an item's turn."""

    status: ItemStatus
    attempts: int
    comparison_id: str | None = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The item whose turn it is, with what is needed to ask it."""

    batch: Batch
    item: BatchItem
    prompt: BatchPrompt


@dataclass(frozen=True, slots=True)
class Progress:
    prompts: int
    done: int
    failed: int
    pending: int

    @property
    def total(self) -> int:
        return self.done + self.failed + self.pending


class BatchStore:
    """Every statement about batches. Raises what `Store` raises."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, batch: Batch, prompts: Sequence[BatchPrompt]) -> None:
        """Keep a new batch with all its items pending: every prompt once, then every prompt again.

        Raises RowRefused where the name is taken.
        """
        row = {column.name: getattr(batch, column.name) for column in batches.columns}
        row |= {"models": list(batch.models), "priority": batch.priority.value}
        async with self._store.transaction() as connection:
            await connection.execute(sa.insert(batches).values(row))
            for some in _prompt_rows(batch, prompts):
                await connection.execute(sa.insert(batch_prompts), some)
            for some in _item_rows(batch, len(prompts)):
                await connection.execute(sa.insert(batch_items), some)

    async def get(self, batch_id: str) -> Batch | None:
        return await self._first(sa.select(batches).where(batches.c.id == batch_id))

    async def named(self, organisation: str, name: str) -> Batch | None:
        return await self._first(
            sa.select(batches).where(batches.c.organisation == organisation, batches.c.name == name)
        )

    async def newest(
        self, limit: int, *, organisation: str | None = None, without: Collection[str] = ()
    ) -> list[Batch]:
        """The newest ones first, of one organisation or of all."""
        statement = sa.select(batches).order_by(batches.c.created_at.desc(), batches.c.id.desc()).limit(limit)
        if organisation is not None:
            statement = statement.where(batches.c.organisation == organisation)
        if without:
            statement = statement.where(batches.c.id.not_in(list(without)))
        async with self._store.transaction() as connection:
            return [_batch(row) for row in (await connection.execute(statement)).mappings()]

    async def progress(self, batch_id: str) -> Progress:
        items = batch_items.c
        counts = sa.select(items.status, sa.func.count()).where(items.batch_id == batch_id).group_by(items.status)
        prompts = sa.select(sa.func.count()).where(batch_prompts.c.batch_id == batch_id)
        async with self._store.transaction() as connection:
            found = {status: count for status, count in await connection.execute(counts)}  # noqa: C416  typed rows
            number = (await connection.execute(prompts)).scalar_one()
        done, failed, pending = (found.get(status.value, 0) for status in _BY_END)
        return Progress(number, done, failed, pending)

    async def waiting(self, *, besides: Collection[str] = ()) -> list[Batch]:
        """Running batches with a pending item that are not among `besides`, the oldest first."""
        waiting = sa.and_(batch_items.c.batch_id == batches.c.id, batch_items.c.status == ItemStatus.PENDING.value)
        statement = (
            sa.select(batches)
            .where(batches.c.status == BatchStatus.RUNNING.value, batches.c.id.not_in(besides))
            .where(sa.exists().where(waiting))
            .order_by(batches.c.created_at, batches.c.id)
        )
        async with self._store.transaction() as connection:
            return [_batch(row) for row in (await connection.execute(statement)).mappings()]

    async def next_turn(self, batch: Batch) -> Turn | None:
        """The first pending item of a batch."""
        first = items_of(batch.id).where(batch_items.c.status == ItemStatus.PENDING.value).limit(1)
        async with self._store.transaction() as connection:
            item = (await connection.execute(first)).mappings().first()
        if item is None:
            return None
        return Turn(batch, item_from(item), BatchPrompt(item["prompt_id"], item["messages"], item["max_tokens"]))

    async def items(self, batch_id: str, *, after: int = -1, limit: int = 100) -> list[BatchItem]:
        """Items in their order, those behind number `after`."""
        statement = items_of(batch_id).where(batch_items.c.number > after).limit(limit)
        async with self._store.transaction() as connection:
            return [item_from(row) for row in (await connection.execute(statement)).mappings()]

    async def note(self, batch_id: str, number: int, end: ItemEnd) -> None:
        """Keep what became of an item's turn."""
        async with self._store.transaction() as connection:
            await connection.execute(_noted(batch_id, number, end))

    async def keep(self, comparison: Comparison, end: ItemEnd | None) -> None:
        """Keep a comparison of a batch and what became of its item, both or neither; `end` None: the item as it was.

        Doing it again does nothing, so it may be tried until the database says that it has it.
        """
        assert comparison.batch_id is not None
        assert comparison.batch_item is not None
        known = sa.select(comparisons.c.id).where(comparisons.c.id == comparison.id)
        async with self._store.transaction() as connection:
            if (await connection.execute(known)).first() is not None:
                return
            await insert_comparison(connection, comparison)
            if end is not None:
                await connection.execute(_noted(comparison.batch_id, comparison.batch_item, end))

    async def cancel(self, batch_id: str, ended_at: datetime, reason: str | None = None) -> bool:
        """Ask nothing more for a running batch; whether it was one. `reason`: why, where it was not asked for."""
        values = {"status": BatchStatus.CANCELLED.value, "ended_at": ended_at, "reason": reason}
        statement = sa.update(batches).where(batches.c.id == batch_id, batches.c.status == BatchStatus.RUNNING.value)
        async with self._store.transaction() as connection:
            result = await connection.execute(statement.values(values))
        return bool(result.rowcount)

    async def failed_numbers(self, batch_id: str, codes: Collection[str]) -> list[int]:
        """Items that are over, and failed or have a side that failed with one of these codes."""
        at = batch_items.c
        over = sa.select(at.number, at.error).where(at.batch_id == batch_id, at.status == ItemStatus.FAILED.value)
        sides = (
            sa.select(at.number, comparison_sides.c.error)
            .join(comparison_sides, comparison_sides.c.comparison_id == at.comparison_id)
            .where(at.batch_id == batch_id, at.status == ItemStatus.DONE.value, comparison_sides.c.error.is_not(None))
        )
        found: set[int] = set()
        async with self._store.transaction() as connection:
            for statement in (over, sides):
                async for number, error in await connection.stream(statement):
                    if error is not None and error.get("code") in codes:
                        found.add(number)
        return sorted(found)

    async def resume(self, batch_id: str, key: str | None, numbers: Sequence[int]) -> bool:
        """Let a batch that is over go on with the rights and limits of `key`, the items of `numbers` asked once more.

        Whether it was over.
        """
        values = {"status": BatchStatus.RUNNING.value, "ended_at": None, "reason": None, "key": key}
        ended = sa.update(batches).where(batches.c.id == batch_id, batches.c.status != BatchStatus.RUNNING.value)
        fresh = {"status": ItemStatus.PENDING.value, "attempts": 0, "comparison_id": None, "error": None}
        items = sa.update(batch_items).where(batch_items.c.batch_id == batch_id)
        async with self._store.transaction() as connection:
            if not (await connection.execute(ended.values(values))).rowcount:
                return False
            for some in slices(numbers, ROWS_AT_ONCE):
                await connection.execute(items.where(batch_items.c.number.in_(some)).values(fresh))
        return True

    async def finish_complete(self, ended_at: datetime) -> list[str]:
        """Turn running batches without a pending item into done ones; their ids."""
        pending = sa.and_(batch_items.c.batch_id == batches.c.id, batch_items.c.status == ItemStatus.PENDING.value)
        complete = sa.and_(batches.c.status == BatchStatus.RUNNING.value, ~sa.exists().where(pending))
        async with self._store.transaction() as connection:
            ids = list((await connection.execute(sa.select(batches.c.id).where(complete))).scalars())
            if ids:
                done = sa.update(batches).where(batches.c.id.in_(ids))
                await connection.execute(done.values(status=BatchStatus.DONE.value, ended_at=ended_at))
        return ids

    async def _first(self, statement: sa.Select[Any]) -> Batch | None:
        async with self._store.transaction() as connection:
            row = (await connection.execute(statement)).mappings().first()
        return None if row is None else _batch(row)


def items_of(batch_id: str) -> sa.Select[Any]:
    """A batch's items with their prompts, in their order; each row is an `item_from`."""
    prompt = sa.and_(
        batch_prompts.c.batch_id == batch_items.c.batch_id, batch_prompts.c.position == batch_items.c.position
    )
    texts = (batch_prompts.c.prompt_id, batch_prompts.c.messages, batch_prompts.c.max_tokens)
    return (
        sa.select(batch_items, *texts)
        .join(batch_prompts, prompt)
        .where(batch_items.c.batch_id == batch_id)
        .order_by(batch_items.c.number)
    )


def _prompt_rows(batch: Batch, prompts: Sequence[BatchPrompt]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        yield [
            {"batch_id": batch.id, "position": position, "prompt_id": prompt.prompt_id}
            | {"messages": prompt.messages, "max_tokens": prompt.max_tokens}
            for position, prompt in enumerate(prompts[start : start + ROWS_AT_ONCE], start)
        ]


def _item_rows(batch: Batch, prompts: int) -> Iterator[list[dict[str, Any]]]:
    """Every prompt once, then every prompt again."""
    total = prompts * batch.repeats
    for start in range(0, total, ROWS_AT_ONCE):
        yield [
            {"batch_id": batch.id, "number": number, "position": number % prompts}
            | {"repeat": number // prompts + 1, "status": ItemStatus.PENDING.value, "attempts": 0}
            for number in range(start, min(total, start + ROWS_AT_ONCE))
        ]


def _noted(batch_id: str, number: int, end: ItemEnd) -> sa.Update:
    statement = sa.update(batch_items).where(batch_items.c.batch_id == batch_id, batch_items.c.number == number)
    values = {"attempts": end.attempts, "comparison_id": end.comparison_id, "error": end.error}
    return statement.values(status=end.status.value, **values)


def _batch(row: Any) -> Batch:
    fields = {name: row[name] for name in Batch.__slots__}
    fields |= {"status": BatchStatus(row["status"]), "priority": Priority(row["priority"])}
    return Batch(**{**fields, "models": tuple(row["models"])})


def item_from(row: Any) -> BatchItem:
    fields = {name: row[name] for name in BatchItem.__slots__}
    return BatchItem(**{**fields, "status": ItemStatus(row["status"])})
