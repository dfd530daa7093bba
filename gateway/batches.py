"""Asks a set of prompts of several models, one comparison after the other, and goes on where it was after a restart.

One comparison at a time over all batches: a second one would disturb the timings of the first. Each item starts with
another model, so that no model is always asked first. What is durable stands in `batch_store`; the comparison itself is
`comparison`'s work, and what a batch says `batch_report`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from gateway.batch_store import Batch, BatchPrompt, BatchStatus, BatchStore, ItemStatus, Turn
from gateway.comparison import COMPARISON_FINISHED, Comparisons, Question, Schedule
from gateway.comparison_object import OK
from gateway.errors import Conflict, NotFound, SimsaError, Unavailable
from gateway.settings import Settings
from gateway.store import RowRefused

PASSING = frozenset(
    ("upstream_busy", "upstream_unreachable", "no_replica", "recorder_unavailable", "queue_full", "draining", "skipped")
)
"""Codes of failures that say nothing about the model: the item is asked again."""
_STORE_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants asked. Without a name the batch is named by its id."""

    models: tuple[str, ...]
    prompts: tuple[BatchPrompt, ...]
    params: dict[str, Any]
    schedule: Schedule | None = None
    repeats: int = 1
    name: str | None = None

    def digest(self) -> str:
        """Of everything but the name: equal exactly for equal batches."""
        prompts = [[prompt.prompt_id, prompt.messages, prompt.max_tokens] for prompt in self.prompts]
        whole = [self.models, self.params, self.schedule, self.repeats, prompts]
        return hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()


class Batches:
    """Takes orders and works them off. `run` until cancelled; one per gateway."""

    def __init__(
        self, *, comparisons: Comparisons, store: BatchStore, settings: Settings, now: Callable[[], float]
    ) -> None:
        self.store = store
        self._comparisons = comparisons
        self._settings = settings
        self._now = now
        self._wake = asyncio.Event()
        self._not_before: dict[str, float] = {}
        """Moments until which batches wait for an engine that is busy or away."""
        self._asking: tuple[str, asyncio.Task[dict[str, Any]]] | None = None
        self._is_draining = False
        self._log = structlog.get_logger("simsa.batches")

    def begin_draining(self) -> None:
        """Begin no further comparison; the one under way goes on."""
        self._is_draining = True

    async def create(self, order: Order) -> tuple[Batch, bool]:
        """The batch for an order, and whether it is new: the same name and content again go on with what there is.

        A cancelled one is taken up again. Raises Conflict for a name that means another batch, and what
        `Comparisons.check` raises for an order that cannot be asked.
        """
        if order.name is not None and (existing := await self.store.named(order.name)) is not None:
            return await self._taken_up(existing, order), False
        await asyncio.to_thread(self._check, order)
        batch_id = str(uuid.uuid4())
        batch = Batch(
            id=batch_id,
            name=order.name or batch_id,
            created_at=datetime.now(UTC),
            ended_at=None,
            status=BatchStatus.RUNNING,
            models=order.models,
            params=order.params,
            schedule=order.schedule.value if order.schedule is not None else None,
            repeats=order.repeats,
            digest=order.digest(),
        )
        try:
            await self.store.create(batch, order.prompts)
        except RowRefused as error:
            twin = await self.store.named(batch.name)
            if twin is None:
                raise Conflict(f"The database does not take this batch: {error}") from error
            return await self._taken_up(twin, order), False
        self._wake.set()
        return batch, True

    async def resume(self, batch_id: str) -> Batch:
        """Take a cancelled batch up again; any other is as it is. Raises NotFound."""
        return await self._running_again(await self._existing(batch_id))

    async def cancel(self, batch_id: str) -> Batch:
        """Ask nothing more for a batch; the comparison under way ends, what is stored stays. Raises NotFound."""
        batch = await self._existing(batch_id)
        if batch.status is not BatchStatus.RUNNING:
            return batch
        ended_at = datetime.now(UTC)
        await self.store.set_status(batch_id, BatchStatus.CANCELLED, ended_at)
        if self._asking is not None and self._asking[0] == batch_id:
            self._asking[1].cancel()
        return replace(batch, status=BatchStatus.CANCELLED, ended_at=ended_at)

    async def run(self) -> None:
        """Work off what is pending, also what an earlier process left, until cancelled or draining."""
        while not self._is_draining:
            self._wake.clear()
            try:
                if (turn := await self._next_turn()) is not None:
                    await self._take(turn)
                    continue
            except Unavailable as error:
                self._log.warning("batches wait for the database", reason=error.message)
                await asyncio.sleep(_STORE_RETRY_S)
                continue
            await self._rest()

    # --- orders ---------------------------------------------------------------------------------------------

    async def _taken_up(self, existing: Batch, order: Order) -> Batch:
        if existing.digest != order.digest():
            raise Conflict(
                f"The batch named '{existing.name}' has other models, prompts or parameters: choose another name.",
                param="name",
            )
        return await self._running_again(existing)

    async def _existing(self, batch_id: str) -> Batch:
        batch = await self.store.get(batch_id)
        if batch is None:
            raise NotFound(f"There is no batch '{batch_id[:128]}'. See GET /api/comparisons/batches.")
        return batch

    async def _running_again(self, existing: Batch) -> Batch:
        if existing.status is not BatchStatus.CANCELLED:
            return existing
        await self.store.set_status(existing.id, BatchStatus.RUNNING, None)
        self._wake.set()
        return replace(existing, status=BatchStatus.RUNNING, ended_at=None)

    def _check(self, order: Order) -> None:
        for prompt in order.prompts:
            self._comparisons.check(_question(order.models, prompt, order.params, order.schedule))

    # --- work -----------------------------------------------------------------------------------------------

    async def _next_turn(self) -> Turn | None:
        for batch_id in await self.store.finish_complete(datetime.now(UTC)):
            self._log.info("batch done", batch_id=batch_id)
        now = self._now()
        self._not_before = {batch_id: due for batch_id, due in self._not_before.items() if due > now}
        return await self.store.next_turn(besides=self._not_before)

    async def _rest(self) -> None:
        """Wait for an order, or until a batch that waits may go on."""
        due = min(self._not_before.values(), default=None)
        try:
            async with asyncio.timeout(max(0.0, due - self._now()) if due is not None else None):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _take(self, turn: Turn) -> None:
        """Ask one item and note what became of it."""
        batch, item = turn.batch, turn.item
        attempts = item.attempts + 1
        try:
            whole = await self._ask(turn)
        except SimsaError as error:
            why = {"message": error.message, "type": error.kind, "code": error.code}
            await self.store.note(batch.id, item.number, ItemStatus.FAILED, attempts=attempts, error=why)
            return
        if whole is None:  # cancelled, by whoever cancelled its batch
            return
        comparison_id = whole["id"] if whole["stored"] else None
        failures = [side["error"]["code"] for side in whole["sides"] if side["status"] != OK]
        may_repeat = comparison_id is None or any(code in PASSING for code in failures)
        if may_repeat and self._is_draining:
            return  # the next process asks it again
        status, told = ItemStatus.DONE, None
        if may_repeat and attempts < self._settings.batch_attempts:
            status = ItemStatus.PENDING
            self._not_before[batch.id] = self._now() + self._settings.batch_retry_s * 2 ** (attempts - 1)
        elif comparison_id is None:
            status = ItemStatus.FAILED
            told = {"message": whole["stored_reason"], "type": "server_error", "code": "not_stored"}
        await self.store.note(batch.id, item.number, status, attempts=attempts, comparison_id=comparison_id, error=told)

    async def _ask(self, turn: Turn) -> dict[str, Any] | None:
        """The finished comparison; None when its batch was cancelled meanwhile."""
        task = asyncio.create_task(self._compare(turn), name=f"batch {turn.batch.id}")
        self._asking = (turn.batch.id, task)
        try:
            await asyncio.wait((task,))
        finally:
            self._asking = None
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        return None if task.cancelled() else task.result()

    async def _compare(self, turn: Turn) -> dict[str, Any]:
        batch, item = turn.batch, turn.item
        first = (item.number + item.repeat) % len(batch.models)
        models = (*batch.models[first:], *batch.models[:first])
        schedule = Schedule(batch.schedule) if batch.schedule is not None else None
        question = _question(models, turn.prompt, batch.params, schedule)
        whole: dict[str, Any] = {}
        async with aclosing(self._comparisons.run(question, f"{batch.id}-{item.number}")) as events:
            async for name, data in events:
                if name == COMPARISON_FINISHED:
                    whole = data
        return whole


def _question(
    models: Sequence[str], prompt: BatchPrompt, params: dict[str, Any], schedule: Schedule | None
) -> Question:
    own = {"max_tokens": prompt.max_tokens} if prompt.max_tokens is not None else {}
    return Question(models=models, messages=prompt.messages, params={**params, **own}, schedule=schedule)
