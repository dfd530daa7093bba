"""Batches of comparisons in the database: what was asked for, and how far each item has come.

The statements of one subject, over `Store.transaction`. An item is one prompt in one repeat; it is done when its
comparison is stored, so a gateway that dies finds every other item still pending. Asking is `batches`' part.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from gateway.store import Store, slices
from gateway.tables import batch_items, batch_prompts, batches

ROWS_AT_ONCE = 500


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
        texts = [
            {"batch_id": batch.id, "position": position, "prompt_id": prompt.prompt_id}
            | {"messages": prompt.messages, "max_tokens": prompt.max_tokens}
            for position, prompt in enumerate(prompts)
        ]
        items = [
            {"batch_id": batch.id, "number": repeat * len(prompts) + position, "position": position}
            | {"repeat": repeat + 1, "status": ItemStatus.PENDING.value, "attempts": 0}
            for repeat in range(batch.repeats)
            for position in range(len(prompts))
        ]
        row = {column.name: getattr(batch, column.name) for column in batches.columns}
        async with self._store.transaction() as connection:
            await connection.execute(sa.insert(batches).values({**row, "models": list(batch.models)}))
            for table, rows in ((batch_prompts, texts), (batch_items, items)):
                for some in slices(rows, ROWS_AT_ONCE):
                    await connection.execute(sa.insert(table), some)

    async def get(self, batch_id: str) -> Batch | None:
        return await self._first(sa.select(batches).where(batches.c.id == batch_id))

    async def named(self, organisation: str, name: str) -> Batch | None:
        return await self._first(
            sa.select(batches).where(batches.c.organisation == organisation, batches.c.name == name)
        )

    async def newest(self, limit: int, *, organisation: str | None = None) -> list[Batch]:
        """The newest ones first, of one organisation or of all."""
        statement = sa.select(batches).order_by(batches.c.created_at.desc(), batches.c.id.desc()).limit(limit)
        if organisation is not None:
            statement = statement.where(batches.c.organisation == organisation)
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
        first = _items(batch.id).where(batch_items.c.status == ItemStatus.PENDING.value).limit(1)
        async with self._store.transaction() as connection:
            item = (await connection.execute(first)).mappings().first()
        if item is None:
            return None
        return Turn(batch, _item(item), BatchPrompt(item["prompt_id"], item["messages"], item["max_tokens"]))

    async def items(self, batch_id: str, *, after: int = -1, limit: int = 100) -> list[BatchItem]:
        """Items in their order, those behind number `after`."""
        statement = _items(batch_id).where(batch_items.c.number > after).limit(limit)
        async with self._store.transaction() as connection:
            return [_item(row) for row in (await connection.execute(statement)).mappings()]

    async def note(
        self,
        batch_id: str,
        number: int,
        status: ItemStatus,
        *,
        attempts: int,
        comparison_id: str | None = None,
        error: Any = None,
    ) -> None:
        """What became of an item's turn."""
        statement = sa.update(batch_items).where(batch_items.c.batch_id == batch_id, batch_items.c.number == number)
        values = {"status": status.value, "attempts": attempts, "comparison_id": comparison_id, "error": error}
        async with self._store.transaction() as connection:
            await connection.execute(statement.values(values))

    async def cancel(self, batch_id: str, ended_at: datetime, reason: str | None = None) -> bool:
        """Ask nothing more for a running batch; whether it was one. `reason`: why, where it was not asked for."""
        values = {"status": BatchStatus.CANCELLED.value, "ended_at": ended_at, "reason": reason}
        return await self._turn(batch_id, BatchStatus.RUNNING, values)

    async def resume(self, batch_id: str, key: str | None) -> bool:
        """Let a cancelled batch go on with the rights and limits of `key`; whether it was one."""
        values = {"status": BatchStatus.RUNNING.value, "ended_at": None, "reason": None, "key": key}
        return await self._turn(batch_id, BatchStatus.CANCELLED, values)

    async def _turn(self, batch_id: str, before: BatchStatus, values: dict[str, Any]) -> bool:
        statement = sa.update(batches).where(batches.c.id == batch_id, batches.c.status == before.value)
        async with self._store.transaction() as connection:
            result = await connection.execute(statement.values(values))
        return bool(result.rowcount)

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


def _items(batch_id: str) -> sa.Select[Any]:
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


def _batch(row: Any) -> Batch:
    fields = {name: row[name] for name in Batch.__slots__}
    return Batch(**{**fields, "status": BatchStatus(row["status"]), "models": tuple(row["models"])})


def _item(row: Any) -> BatchItem:
    fields = {name: row[name] for name in BatchItem.__slots__}
    return BatchItem(**{**fields, "status": ItemStatus(row["status"])})
