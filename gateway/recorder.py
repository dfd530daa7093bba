"""Keeps every call: into the spool at once, into the database in batches, and counts whatever it could not keep.

`opened` and `closed` stand on the hot path: they append one line to a file and never wait for the database. A
database that is locked or gone only delays; a spool that cannot be written only narrows what a crash would spare.
The file format belongs in `spool`, SQL in `store`, metrics in `telemetry`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from gateway.background import end_all, keep_running
from gateway.domain.records import Call, CallOpened
from gateway.errors import Unavailable
from gateway.settings import Settings
from gateway.spool import NUL, Segment, Spool, frame, legible, newest, read_segment, retire, settle
from gateway.store import RowRefused, Store, slices

RESPOOL_AT_ONCE = 1000
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 2.0

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class RecorderStats:
    queued: int
    """Calls whose newest record is not yet in the database."""
    written: int
    """Rows written since the start."""
    spooled_bytes: int
    """Bytes of spool on the disk."""
    replayed: int
    """Records of an earlier process taken over from its spool."""
    interrupted: int
    """Calls of an earlier process, or of a gateway that is gone, that had not ended."""
    interrupted_at_s: float
    """When such calls were found the last time, epoch seconds; 0 before."""
    torn: int
    """Spool lines of an earlier process that were cut short or damaged."""
    lost: int
    """Records that the database refuses for good (kept aside in the spool directory where it can be written), and
    at the end those that neither spool nor database took."""
    database_failing: str | None
    spool_failing: str | None
    lag_s: float
    """Age of the oldest record that is not yet in the database."""


class _Waiting:
    """The newest record of one call, until the database has it."""

    __slots__ = ("record", "segments", "since")

    def __init__(self, record: Call | CallOpened, since: float) -> None:
        self.record = record
        self.segments: list[Segment] = []
        """Where its records lie, one entry a record."""
        self.since = since


class Recorder:
    """`start` before the first call and `stop` after the last, on the loop that calls `opened` and `closed`."""

    def __init__(
        self,
        spool_dir: Path,
        store: Store,
        settings: Settings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        count_failure: Callable[[str], None] = lambda _work: None,
    ) -> None:
        """`count_failure` is told the name of each background work that failed unexpectedly and began anew."""
        self._store = store
        self._now = now
        self._clock = clock
        self._count_failure = count_failure
        self._fsync_s = settings.spool_fsync_s
        self._limit = settings.recorder_queue
        self._batch_size = settings.recorder_batch
        self._flush_s = settings.recorder_flush_s
        self._spool = Spool(spool_dir, settings.spool_segment_bytes)
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simsa-spool")
        self._left: list[Path] = []
        self._pending: dict[str, _Waiting] = {}
        self._batch: dict[str, _Waiting] = {}
        self._unspooled: set[_Waiting] = set()
        self._hurried = False
        self._tasks: list[asyncio.Task[None]] = []
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._idle = asyncio.Event()
        self._dirty = asyncio.Event()
        self._tried = asyncio.Event()
        self._has_taken_over = False
        self.on_written: Callable[[Sequence[Call | CallOpened], bool, Sequence[str]], None] | None = None
        """Told what the database took or refused for good, whether it is an earlier process's, and which calls of it
        had ended there before."""
        self.on_interrupted: Callable[[], None] | None = None
        """Told when calls were ended there that nobody else could end."""
        self._written = self._replayed = self._interrupted = self._torn = self._lost = 0
        self._interrupted_at_s = 0.0
        self._database_failing: str | None = None
        self._log = structlog.get_logger("simsa.recorder")

    # --- the hot path ---------------------------------------------------------------------------------------

    @property
    def accepting(self) -> bool:
        """False when new calls must be refused: the database has been away for too long, or nobody writes any more."""
        has_room = len(self._pending) + len(self._batch) < self._limit
        return has_room and not any(task.done() for task in self._tasks)

    @property
    def spool_failing(self) -> bool:
        return self._spool.failing is not None

    def opened(self, opened: CallOpened) -> None:
        """Keep the fact that a call is about to be dispatched. Returns when a kill -9 would not lose it."""
        waiting = self._pending.get(opened.id)
        if waiting is None:
            waiting = self._pending[opened.id] = _Waiting(opened, self._clock())
        self._keep(waiting, opened)

    def closed(self, call: Call) -> None:
        """Keep how a call ended, also while `accepting` is False. Returns when a kill -9 would not lose it."""
        waiting = self._pending.get(call.opened.id)
        if waiting is None:
            waiting = self._pending[call.opened.id] = _Waiting(call, self._clock())
        else:
            waiting.record = call
        self._keep(waiting, call)

    def _keep(self, waiting: _Waiting, record: Call | CallOpened) -> None:
        try:
            line = frame(record)
        except UnicodeEncodeError:
            line = NUL
        if NUL in line:
            waiting.record = legible(waiting.record)
            line = frame(legible(record))
        segment = self._spool.append(line)
        if segment is None:
            self._unspooled.add(waiting)
        else:
            waiting.segments.append(segment)
            if not self._dirty.is_set():
                self._dirty.set()
        if not self._some.is_set():
            self._some.set()
            self._idle.clear()
        if len(self._pending) >= self._batch_size and not self._enough.is_set():
            self._enough.set()

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what an earlier process left.

        Returns when that is in the database, or when the database is away: then it follows when the database is
        back, before any new record. Raises StartRefused; see `Spool.open`.
        """
        try:
            self._left = await self._on_disk(self._spool.open)
        except BaseException:
            self._disk.shutdown()
            raise
        self._tasks = [
            asyncio.create_task(keep_running(name, work, self._count_failure), name=name)
            for name, work in (("recorder", self._write_forever), ("spool sync", self._sync_forever))
        ]
        await self._tried.wait()

    async def stop(self, deadline_s: float = 5.0) -> None:
        """Put everything on the disk and, if the database answers within `deadline_s`, into the database.

        Does nothing after a start that was refused.
        """
        if not self._tasks:
            return
        self._spool_the_rest()
        await self._sync()
        await self.drain(deadline_s)
        await end_all(self._tasks)
        self._spool_the_rest()
        self._spool.seal()
        await self._sync()
        if self._unspooled:
            self._lost += len(self._unspooled)
            self._log.error(
                "records are lost: neither the database nor the spool takes them", lost=len(self._unspooled)
            )
        self._disk.shutdown()
        self._spool.close()

    async def drain(self, deadline_s: float) -> bool:
        """Wait until every record so far is in the database; False when that takes longer than `deadline_s`."""
        self._hurried = True
        self._enough.set()
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def stats(self) -> RecorderStats:
        oldest = next(chain(self._batch.values(), self._pending.values()), None)
        return RecorderStats(
            queued=len(self._pending) + len(self._batch),
            written=self._written,
            spooled_bytes=self._spool.size,
            replayed=self._replayed,
            interrupted=self._interrupted,
            interrupted_at_s=self._interrupted_at_s,
            torn=self._torn,
            lost=self._lost,
            database_failing=self._database_failing,
            spool_failing=self._spool.failing,
            lag_s=self._clock() - oldest.since if oldest else 0.0,
        )

    # --- into the database ----------------------------------------------------------------------------------

    async def _write_forever(self) -> None:
        if not self._has_taken_over:
            try:
                await self._take_over()
            finally:
                self._tried.set()
            self._has_taken_over = True
        self._settle_down()
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._flush_s):
                    await self._enough.wait()
            await self._write_batch()

    async def _write_batch(self) -> None:
        taken = list(islice(self._pending, self._batch_size))
        self._batch = {call_id: self._pending.pop(call_id) for call_id in taken}
        try:
            await self._write([waiting.record for waiting in self._batch.values()])
        except BaseException:
            self._put_back()
            raise
        for waiting in self._batch.values():
            self._spool.release(waiting.segments)
        self._unspooled.difference_update(self._batch.values())
        self._batch = {}
        self._dirty.set()
        self._settle_down()

    def _put_back(self) -> None:
        """The batch was not written: it waits again, before the others, with what came meanwhile of its calls."""
        newer, self._pending, self._batch = self._pending, self._batch, {}
        for call_id, waiting in newer.items():
            kept = self._pending.setdefault(call_id, waiting)
            if kept is waiting:
                continue
            kept.record = waiting.record
            kept.segments += waiting.segments
            if waiting in self._unspooled:
                self._unspooled.remove(waiting)
                self._unspooled.add(kept)

    def _settle_down(self) -> None:
        """Wait for more before the next batch, unless enough is there or somebody waits for all."""
        if not self._pending:
            self._some.clear()
            self._idle.set()
            self._hurried = False
        if len(self._pending) < self._batch_size and not self._hurried:
            self._enough.clear()

    async def _write(self, records: Sequence[Call | CallOpened], *, are_left: bool = False) -> None:
        """Write them all, whatever it takes; those that the database refuses for good are put aside one by one."""
        try:
            had_ended = await self._insist(lambda: self._store.upsert_calls(records, are_left=are_left))
            self._written += len(records)
            if self.on_written is not None:
                self.on_written(records, are_left, had_ended)
        except RowRefused as error:
            if len(records) > 1:
                for record in records:
                    await self._write([record], are_left=are_left)
            else:
                await self._set_aside(records[0], error)
                if self.on_written is not None:
                    self.on_written(records, are_left, ())

    async def _set_aside(self, record: Call | CallOpened, error: RowRefused) -> None:
        self._lost += 1
        opened = record.opened if isinstance(record, Call) else record
        self._log.error("the database refuses a record", call_id=opened.id, model=opened.model, why=str(error))
        try:
            await self._on_disk(self._spool.set_aside, frame(record))
        except OSError as failure:
            self._spool.fail(failure)

    async def _insist(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do it until the database takes it, waiting longer after each failure."""
        delay_s = FIRST_RETRY_S
        while True:
            try:
                result = await act()
            except RowRefused:
                raise
            except Exception as error:  # noqa: BLE001 - this loop must outlive whatever a driver comes up with
                self._note_failure(error)
            else:
                if self._database_failing is not None:
                    self._log.info("the database answers again")
                    self._database_failing = None
                return result
            self._tried.set()
            self._spool_the_rest(RESPOOL_AT_ONCE)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LAST_RETRY_S)

    def _note_failure(self, error: Exception) -> None:
        if self._database_failing is None:
            known = isinstance(error, Unavailable)
            self._log.error("the database fails; records wait", why=str(error), exc_info=None if known else error)
        self._database_failing = str(error) or repr(error)

    async def _take_over(self) -> None:
        """Replay the segments of an earlier process, then end the calls that it could not end."""
        while self._left:
            path = self._left.pop(0)
            try:
                await self._replay(path)
            except OSError as error:
                self._log.error("a spool segment of an earlier process stays", path=str(path), why=str(error))
        await self._insist(self.end_orphans)

    async def end_orphans(self, spare: Collection[int] = ()) -> None:
        """End the calls of gateways that are gone, which they cannot end any more. Raises Unavailable.

        `spare`: numbers of gateways that may only be away from the database for a moment.
        """
        found = await self._store.list_orphans(spare)
        if not found:
            return
        now = self._now()
        if ended := await self._store.mark_interrupted(found, now):
            self._interrupted += ended
            self._interrupted_at_s = now.timestamp()
            self._log.warning("calls were found that their gateway had not ended", calls=ended)
        if self.on_interrupted is not None:  # also where none was left: somebody ended them meanwhile
            self.on_interrupted()

    async def _replay(self, path: Path) -> None:
        contents = await self._on_disk(read_segment, path)
        for records in slices(newest(contents.records), self._batch_size):
            await self._write(records, are_left=True)
        self._replayed += len(contents.records)
        self._torn += contents.torn
        if contents.torn:
            self._log.warning("spool lines were cut short or damaged", path=str(path), lines=contents.torn)
        await self._on_disk(self._store.make_durable)
        self._spool.size -= await self._on_disk(partial(retire, path, keep=contents.is_damaged))

    # --- onto the disk --------------------------------------------------------------------------------------

    async def _sync_forever(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(self._fsync_s)
            await self._sync()

    async def _sync(self) -> None:
        self._dirty.clear()
        touched = self._spool.touched()
        try:
            await self._on_disk(settle, touched, self._store.make_durable)
        except OSError as error:
            self._spool.fail(error)
            self._spool.touch_again(touched)
        finally:
            self._spool.forget(touched)

    def _spool_the_rest(self, limit: int | None = None) -> None:
        """Offer the spool again, at most `limit` of them, the records that it refused and the database has not."""
        for waiting in list(islice(self._unspooled, limit)):
            segment = self._spool.append(frame(waiting.record))
            if segment is None:
                return
            waiting.segments.append(segment)
            self._unspooled.discard(waiting)
            self._dirty.set()

    async def _on_disk(self, act: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Run it on the spool's own thread, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, partial(act, *args, **options))
