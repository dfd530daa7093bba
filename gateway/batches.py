"""Asks a set of prompts of several models, one comparison after the other, and goes on where it was after a restart.

One comparison at a time over all batches: a second one would disturb the timings of the first; organisations take
turns, one comparison each. Each item starts with another model, so that no model is always asked first. It is asked in
the class of batches, with the rights and within the limits of the key that ordered it, and only when nothing is known
to stand in the way of any of its sides. What is durable stands in `batch_store`, what a turn's end means in
`batch_verdicts`; the comparison itself is `comparison`'s work, and what a batch says `batch_report`'s.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf

import structlog

from gateway.batch_order import ANY_PROMPT, Order, question_of, question_of_turn
from gateway.batch_store import Batch, BatchStatus, BatchStore, Turn
from gateway.batch_verdicts import (
    MENDABLE,
    Stop,
    Verdict,
    Wait,
    failed_item,
    judge_comparison,
    judge_refusal,
)
from gateway.comparison import Comparisons, Keep, Question
from gateway.domain.accounts import EVERYTHING, Caller
from gateway.domain.queueing import RANKS
from gateway.domain.records import Priority
from gateway.errors import Conflict, InternalError, SimsaError, Unavailable
from gateway.settings import Settings
from gateway.store import Comparison, RowRefused

_STORE_RETRY_S = 1.0
LOOK_S = 5.0
"""How long an order of another gateway may go unseen."""
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Pause:
    """A batch that waits, or did so last."""

    due: float
    why: str
    in_row: int
    """How many pauses there were since something of it was asked to the end."""


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
        self._looked_s = -inf
        """When it was last looked who waits: a pause may be over by the time that it is waited for."""
        self._pauses: dict[str, _Pause] = {}
        """By batch: for an engine that is busy or away, for the end of a key's minute."""
        self._served: dict[str, float] = {}
        """When each organisation had its last turn."""
        self._asking: tuple[str, asyncio.Task[None]] | None = None
        self._being_cancelled: set[str] = set()
        self._stopped: set[str] = set()
        """Batches cancelled since the present look for an item began: the one just read is not begun."""
        self._is_draining = False
        self.on_change: Callable[[], Awaitable[None]] = _tell_nobody
        """Called after an order, a resumption or a cancellation here: another gateway may be the one that asks."""
        self._log = structlog.get_logger("simsa.batches")

    def begin_draining(self) -> None:
        """Begin no further comparison; the one under way goes on."""
        self._is_draining = True

    def waiting_for(self, batch_id: str) -> str | None:
        """What a running batch waits for at this moment."""
        pause = self._pauses.get(batch_id)
        return pause.why if pause is not None and pause.due > self._now() else None

    async def create(self, order: Order, caller: Caller, priority: Priority = Priority.BATCH) -> tuple[Batch, bool]:
        """The batch for an order, and whether it is new: the same name and content again go on with what there is.

        One that is over is resumed. `priority`: the class that was asked for; that of batches is the highest. Raises
        Conflict for a name that means another batch, and what `Comparisons.check` raises for an order that cannot be
        asked.
        """
        organisation = caller.organisation or ""
        if order.name is not None and (existing := await self.store.named(organisation, order.name)) is not None:
            return await self._taken_up(existing, order, caller), False
        digest = await asyncio.to_thread(self._check, order, caller)
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
            digest=digest,
            organisation=organisation,
            key=caller.key,
            priority=max(Priority.BATCH, priority, key=RANKS.__getitem__),
        )
        try:
            await self.store.create(batch, order.prompts)
        except RowRefused as error:
            twin = await self.store.named(organisation, batch.name)
            if twin is None:
                raise Conflict(f"The database does not take this batch: {error}") from error
            return await self._taken_up(twin, order, caller), False
        self._wake.set()
        await self.on_change()
        return batch, True

    async def resume(self, batch: Batch, caller: Caller) -> Batch:
        """Take a batch that is over up again: what is pending, and what failed by something that passes.

        It goes on with the caller's key; with its own where that is in force and the caller is of no such organisation,
        but the operator. Nothing happens to one that runs, or has nothing to go on with. Raises what
        `Comparisons.check` raises where it cannot be asked now.
        """
        if batch.status is BatchStatus.RUNNING:
            return batch
        numbers = await self.store.failed_numbers(batch.id, MENDABLE)
        if batch.status is BatchStatus.DONE and not numbers:
            return batch
        if (caller.organisation or "") != batch.organisation and batch.key is not None:
            caller = self._find_caller(batch.key) or caller
        self._comparisons.check(question_of(batch, ANY_PROMPT), caller)
        if await self.store.resume(batch.id, caller.key, numbers):
            self._stopped.discard(batch.id)
            self._pauses.pop(batch.id, None)
            self._wake.set()
            await self.on_change()
        return await self._existing(batch.id)

    async def cancel(self, batch: Batch, reason: str | None = None) -> Batch:
        """Ask nothing more for a batch; the comparison under way ends, what is stored stays."""
        self._being_cancelled.add(batch.id)
        self._stopped.add(batch.id)
        try:
            if await self.store.cancel(batch.id, datetime.now(UTC), reason):
                self._log.info("batch cancelled", batch_id=batch.id, reason=reason)
        except BaseException:
            self._stopped.discard(batch.id)
            raise
        finally:
            self._being_cancelled.discard(batch.id)
            self._wake.set()
        self._pauses.pop(batch.id, None)
        after = await self._existing(batch.id)
        await self.on_change()
        if after.status is BatchStatus.CANCELLED and self._asking is not None and self._asking[0] == batch.id:
            self._asking[1].cancel()
        return after

    async def take_news(self) -> None:
        """Another gateway took an order, or cancelled one: look, and let go of what is not wanted any more."""
        self._wake.set()
        if self._asking is not None:
            batch_id, task = self._asking
            try:
                batch = await self.store.get(batch_id)
            except Unavailable:
                return
            if batch is not None and batch.status is BatchStatus.CANCELLED:
                task.cancel()

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
        if existing.digest != await asyncio.to_thread(order.digest):
            raise Conflict(
                f"The batch named '{existing.name}' has other models, prompts or parameters: choose another name.",
                param="name",
            )
        return await self.resume(existing, caller)

    async def _existing(self, batch_id: str) -> Batch:
        batch = await self.store.get(batch_id)
        assert batch is not None, "batches are never removed"
        return batch

    def _check(self, order: Order, caller: Caller) -> str:
        """The digest of an order that can be asked."""
        for prompt in order.prompts:
            self._comparisons.check(order.question(prompt), caller)
        return order.digest()

    # --- work -----------------------------------------------------------------------------------------------

    async def _next_turn(self) -> Turn | None:
        self._stopped.clear()
        for batch_id in await self.store.finish_complete(datetime.now(UTC)):
            self._log.info("batch done", batch_id=batch_id)
        self._looked_s = now = self._now()
        paused = {batch_id for batch_id, pause in self._pauses.items() if pause.due > now}
        waiting = await self.store.waiting(besides=paused | self._being_cancelled)
        if not waiting:
            return None
        batch = min(waiting, key=lambda one: self._served.get(one.organisation, -inf))
        self._served[batch.organisation] = now
        return await self.store.next_turn(batch)

    async def _rest(self) -> None:
        """Wait for an order, or until one of the batches that waited at the last look may go on."""
        due = min((pause.due for pause in self._pauses.values() if pause.due > self._looked_s), default=None)
        if self._settings.is_one_of_several:  # news of other gateways may be lost
            due = min(inf if due is None else due, self._now() + LOOK_S)
        try:
            async with asyncio.timeout(max(0.0, due - self._now()) if due is not None else None):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _take(self, turn: Turn) -> None:
        """Ask one item, or see why not. Afterwards it is over, or its batch waits or is cancelled."""
        batch = turn.batch
        if batch.id in self._stopped:
            return  # cancelled while it was read: the next look passes it over
        caller = EVERYTHING if batch.key is None else self._find_caller(batch.key)
        if caller is None:
            await self.cancel(batch, "the key that ordered it is revoked or has expired; another one may resume it")
            return
        question = question_of_turn(turn)
        try:
            await self._comparisons.check_now(question, caller)
            await self._ask(turn, question, caller)
        except SimsaError as error:
            await self._note_refusal(turn, error)
        except Exception as error:  # noqa: BLE001  one item's defect must not stop all batches, or repeat without end
            self._log.exception("an item failed", batch_id=batch.id, number=turn.item.number, exc_info=error)
            end = failed_item(InternalError(), attempts=turn.item.attempts)
            await self._until_stored(turn, lambda: self.store.note(batch.id, turn.item.number, end))

    async def _note_refusal(self, turn: Turn, error: SimsaError) -> None:
        """Nothing was asked."""
        match judge_refusal(error):
            case Wait(why, pause_s):
                self._pause(turn.batch.id, why, pause_s)
            case Stop(why):
                await self.cancel(turn.batch, why)
            case None:
                end = failed_item(error, attempts=turn.item.attempts)
                await self._until_stored(turn, lambda: self.store.note(turn.batch.id, turn.item.number, end))

    def _pause(self, batch_id: str, why: str, pause_s: float | None = None) -> None:
        """Let a batch wait: as long as told, or longer each time that nothing comes of it."""
        before = self._pauses.get(batch_id)
        in_row = before.in_row + 1 if before is not None else 1
        if pause_s is None:
            pause_s = min(_LONGEST_PAUSE_S, self._settings.batch_retry_s * 2 ** min(in_row - 1, 32))
        self._pauses[batch_id] = _Pause(self._now() + pause_s, why, in_row)

    async def _ask(self, turn: Turn, question: Question, caller: Caller) -> None:
        """Make the comparison, and keep it with what becomes of its item. Its batch may be cancelled meanwhile."""
        verdicts: list[Verdict] = []

        async def keep(comparison: Comparison) -> None:
            verdicts.append(await self._keep(turn, comparison))

        task = asyncio.create_task(self._compare(turn, question, caller, keep), name=f"batch {turn.batch.id}")
        self._asking = (turn.batch.id, task)
        try:
            await asyncio.wait((task,))
        finally:
            self._asking = None
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            return
        task.result()
        if not verdicts:  # what other calls of the key took meanwhile left no room for any side: nothing was asked
            self._pause(turn.batch.id, "the limits of its key leave no room at the moment")
            return
        (verdict,) = verdicts
        if verdict.stop is not None:
            await self.cancel(turn.batch, verdict.stop.why)
        elif verdict.why_again is not None:
            self._pause(turn.batch.id, verdict.why_again)
        else:
            self._pauses.pop(turn.batch.id, None)

    async def _compare(self, turn: Turn, question: Question, caller: Caller, keep: Keep) -> None:
        priority = max(turn.batch.priority, caller.priority, key=RANKS.__getitem__)
        request_id = f"{turn.batch.id}-{turn.item.number}"
        async with aclosing(await self._comparisons.run(question, request_id, caller, priority, keep)) as events:
            async for _ in events:
                continue

    async def _keep(self, turn: Turn, comparison: Comparison) -> Verdict:
        """Store a finished comparison and its item's end together; what was paid for is not lost for want of patience.

        It is the batch's organisation's, whoever's key asks.
        """
        batch, item = turn.batch, turn.item
        comparison = replace(
            comparison, organisation=batch.organisation or None, batch_id=batch.id, batch_item=item.number
        )
        verdict = judge_comparison(comparison, attempts=item.attempts, most=self._settings.batch_attempts)
        try:
            await self._until_stored(turn, lambda: self.store.keep(comparison, verdict.end))
        except RowRefused as error:
            self._log.error("a comparison cannot be stored", comparison_id=comparison.id, why=str(error))
            refused = SimsaError(f"The database does not take its comparison: {error}", code="not_stored")
            end = failed_item(refused, attempts=item.attempts)
            await self._until_stored(turn, lambda: self.store.note(batch.id, item.number, end))
            return Verdict(end)
        return verdict

    async def _until_stored(self, turn: Turn, write: Callable[[], Awaitable[None]]) -> None:
        """Write, again and again while the database is away. Raises RowRefused for what it will never take."""
        while True:
            try:
                await write()
            except Unavailable as error:
                self._log.warning("a batch waits for the database", batch_id=turn.batch.id, reason=error.message)
                await asyncio.sleep(_STORE_RETRY_S)
            else:
                return


async def _tell_nobody() -> None:
    """There is no other gateway."""
