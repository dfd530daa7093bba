"""Asks a set of prompts of several models, one comparison after the other, and goes on where it was after a restart.

One comparison at a time over all batches: a second one would disturb the timings of the first; organisations take
turns, one comparison each. Each item starts with another model, so that no model is always asked first. It is asked in
the class of batches, with the rights and within the limits of the key that ordered it. What is durable stands in
`batch_store`; the comparison itself is `comparison`'s work, and what a batch says `batch_report`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any

import msgspec
import structlog

from gateway.batch_store import Batch, BatchPrompt, BatchStatus, BatchStore, ItemStatus, Turn
from gateway.comparison import COMPARISON_FINISHED, Comparisons, Question, Schedule
from gateway.comparison_object import OK
from gateway.domain.accounts import EVERYTHING, Caller
from gateway.domain.limits import WINDOW_S
from gateway.domain.queueing import RANKS
from gateway.domain.records import Priority
from gateway.errors import (
    Conflict,
    ModelNotFound,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    SimsaError,
    Unavailable,
)
from gateway.settings import Settings
from gateway.store import RowRefused

PASSING = frozenset(
    ("upstream_busy", "upstream_unreachable", "no_replica", "recorder_unavailable", "queue_full", "draining", "skipped")
)
"""Codes of failures that say nothing about the model: the item is asked again."""
LIMITED = RateLimited.code
"""Code of a side over a limit of the key: the item is asked again when the minute is over."""
SPENT = QuotaExhausted.code
"""Code of a side over a budget of the key: the batch is cancelled, for nothing more can be asked."""
_STORE_RETRY_S = 1.0
_ANY_PROMPT = BatchPrompt("any", [{"role": "user", "content": "?"}])
"""Stands for a batch's prompts where only its models and parameters matter."""
_NEXT_MINUTE_S = WINDOW_S + 1.0


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


@dataclass(frozen=True, slots=True)
class _End:
    """What came of asking an item: its comparison, or why there is none."""

    comparison_id: str | None = None
    may_repeat: bool = False
    """What failed says nothing about the models."""
    error: dict[str, Any] | None = None
    pause_s: float = 0.0
    """Seconds that must pass before it is asked again."""
    stops: str | None = None
    """Why nothing more can be asked for its batch at present."""


class Batches:
    """Takes orders and works them off. `run` until cancelled; one per gateway."""

    def __init__(
        self,
        *,
        comparisons: Comparisons,
        store: BatchStore,
        find_caller: Callable[[str], Caller | None],
        settings: Settings,
        now: Callable[[], float],
    ) -> None:
        """`find_caller`: who a key's bearer is, by the key's id; None where the key is not in force."""
        self.store = store
        self._comparisons = comparisons
        self._find_caller = find_caller
        self._settings = settings
        self._now = now
        self._wake = asyncio.Event()
        self._not_before: dict[str, float] = {}
        """Moments until which batches wait: for an engine that is busy or away, for the end of a key's minute."""
        self._served: dict[str, float] = {}
        """When each organisation had its last turn."""
        self._asking: tuple[str, asyncio.Task[dict[str, Any]]] | None = None
        self._stopped: set[str] = set()
        """Batches that were cancelled in this process: none of their items is begun, not even one just read."""
        self._is_draining = False
        self._log = structlog.get_logger("simsa.batches")

    def begin_draining(self) -> None:
        """Begin no further comparison; the one under way goes on."""
        self._is_draining = True

    async def create(self, order: Order, caller: Caller) -> tuple[Batch, bool]:
        """The batch for an order, and whether it is new: the same name and content again go on with what there is.

        A cancelled one is taken up again. Raises Conflict for a name that means another batch, and what
        `Comparisons.check` raises for an order that cannot be asked.
        """
        organisation = caller.organisation or ""
        if order.name is not None and (existing := await self.store.named(organisation, order.name)) is not None:
            return await self._taken_up(existing, order, caller), False
        await asyncio.to_thread(self._check, order, caller)
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
            organisation=organisation,
            key=caller.key,
        )
        try:
            await self.store.create(batch, order.prompts)
        except RowRefused as error:
            twin = await self.store.named(organisation, batch.name)
            if twin is None:
                raise Conflict(f"The database does not take this batch: {error}") from error
            return await self._taken_up(twin, order, caller), False
        self._wake.set()
        return batch, True

    async def resume(self, batch: Batch, caller: Caller) -> Batch:
        """Take a cancelled batch up again, with the caller's key; any other is as it is.

        Raises what `Comparisons.check` raises where this caller cannot have it asked now.
        """
        if batch.status is not BatchStatus.CANCELLED:
            return batch
        schedule = Schedule(batch.schedule) if batch.schedule is not None else None
        self._comparisons.check(_question(batch.models, _ANY_PROMPT, batch.params, schedule), caller)
        if await self.store.resume(batch.id, caller.key):
            self._stopped.discard(batch.id)
            self._wake.set()
        return await self._existing(batch.id)

    async def cancel(self, batch: Batch, reason: str | None = None) -> Batch:
        """Ask nothing more for a batch; the comparison under way ends, what is stored stays."""
        self._stopped.add(batch.id)
        if await self.store.cancel(batch.id, datetime.now(UTC), reason):
            if self._asking is not None and self._asking[0] == batch.id:
                self._asking[1].cancel()
            self._log.info("batch cancelled", batch_id=batch.id, reason=reason)
        return await self._existing(batch.id)

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

    async def _taken_up(self, existing: Batch, order: Order, caller: Caller) -> Batch:
        if existing.digest != order.digest():
            raise Conflict(
                f"The batch named '{existing.name}' has other models, prompts or parameters: choose another name.",
                param="name",
            )
        return await self.resume(existing, caller)

    async def _existing(self, batch_id: str) -> Batch:
        batch = await self.store.get(batch_id)
        assert batch is not None, "batches are never removed"
        return batch

    def _check(self, order: Order, caller: Caller) -> None:
        for prompt in order.prompts:
            self._comparisons.check(_question(order.models, prompt, order.params, order.schedule), caller)

    # --- work -----------------------------------------------------------------------------------------------

    async def _next_turn(self) -> Turn | None:
        for batch_id in await self.store.finish_complete(datetime.now(UTC)):
            self._log.info("batch done", batch_id=batch_id)
        now = self._now()
        self._not_before = {batch_id: due for batch_id, due in self._not_before.items() if due > now}
        waiting = await self.store.waiting(besides=self._not_before)
        if not waiting:
            return None
        batch = min(waiting, key=lambda one: self._served.get(one.organisation, -inf))
        self._served[batch.organisation] = now
        return await self.store.next_turn(batch)

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
        if batch.id in self._stopped:
            return
        caller = EVERYTHING if batch.key is None else self._find_caller(batch.key)
        if caller is None:
            await self.cancel(batch, "the key that ordered it is revoked or has expired; another one may resume it")
            return
        end = await self._end_of(turn, caller)
        if end is None or (end.may_repeat and self._is_draining):
            return  # whoever goes on with the batch, in this process or the next, asks it again
        if end.stops is not None:
            await self.cancel(batch, end.stops)
            return
        attempts = item.attempts + 1
        status = ItemStatus.DONE if end.error is None else ItemStatus.FAILED
        if end.may_repeat and attempts < self._settings.batch_attempts:
            status = ItemStatus.PENDING
            pause_s = max(end.pause_s, self._settings.batch_retry_s * 2 ** (attempts - 1))
            self._not_before[batch.id] = self._now() + pause_s
        await self.store.note(
            batch.id, item.number, status, attempts=attempts, comparison_id=end.comparison_id, error=end.error
        )

    async def _end_of(self, turn: Turn, caller: Caller) -> _End | None:
        """What came of asking; None when the batch was cancelled meanwhile."""
        try:
            whole = await self._ask(turn, caller)
        except RateLimited as error:
            return _End(may_repeat=True, pause_s=_NEXT_MINUTE_S, error=_told(error))
        except (
            QuotaExhausted,
            ModelNotFound,
            PermissionDenied,
        ) as error:  # so would be every other item: they can wait
            return _End(stops=error.message)
        except SimsaError as error:
            return _End(error=_told(error))
        except Exception as error:  # noqa: BLE001  one item's defect must not stop all batches, or repeat without end
            self._log.exception("an item failed", batch_id=turn.batch.id, number=turn.item.number, exc_info=error)
            told = {"message": "The gateway failed on this item.", "type": "server_error", "code": "internal_error"}
            return _End(may_repeat=True, error=told)
        if whole is None:
            return None
        errors = [side["error"] for side in whole["sides"] if side["status"] != OK]
        failures = {error["code"] for error in errors}
        spent = next((error["message"] for error in errors if error["code"] == SPENT), None)
        pause_s = _NEXT_MINUTE_S if LIMITED in failures else 0.0
        if not whole["stored"]:
            told = {"message": whole["stored_reason"], "type": "server_error", "code": "not_stored"}
            return _End(may_repeat=True, error=told, pause_s=pause_s, stops=spent)
        return _End(
            comparison_id=whole["id"],
            may_repeat=LIMITED in failures or not failures.isdisjoint(PASSING),
            pause_s=pause_s,
            stops=spent,
        )

    async def _ask(self, turn: Turn, caller: Caller) -> dict[str, Any] | None:
        """The finished comparison; None when its batch was cancelled meanwhile."""
        task = asyncio.create_task(self._compare(turn, caller), name=f"batch {turn.batch.id}")
        self._asking = (turn.batch.id, task)
        try:
            await asyncio.wait((task,))
        finally:
            self._asking = None
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        return None if task.cancelled() else task.result()

    async def _compare(self, turn: Turn, caller: Caller) -> dict[str, Any]:
        batch, item = turn.batch, turn.item
        first = (item.number + item.repeat) % len(batch.models)
        models = (*batch.models[first:], *batch.models[:first])
        schedule = Schedule(batch.schedule) if batch.schedule is not None else None
        question = _question(models, turn.prompt, batch.params, schedule)
        whole: dict[str, Any] = {}
        priority = max(Priority.BATCH, caller.priority, key=RANKS.__getitem__)
        running = self._comparisons.run(question, f"{batch.id}-{item.number}", caller, priority)
        async with aclosing(running) as events:
            async for name, data in events:
                if name == COMPARISON_FINISHED:
                    whole = data
        return whole


def _told(error: SimsaError) -> dict[str, Any]:
    return {"message": error.message, "type": error.kind, "code": error.code}


def _question(
    models: Sequence[str], prompt: BatchPrompt, params: dict[str, Any], schedule: Schedule | None
) -> Question:
    own = {"max_tokens": prompt.max_tokens} if prompt.max_tokens is not None else {}
    return Question(models=models, messages=prompt.messages, params={**params, **own}, schedule=schedule)
