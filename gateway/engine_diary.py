"""Collects what looks at engines showed and writes it down now and then; what is new of a GPU, into the calibration.

Busy looks add up to a row a minute, idle ones to a row an hour: a night without load costs a few rows, and a load run
can still be cut out. Rows wait in memory while the database is away: too many of them, and the oldest are dropped and
counted, for these are observations and no records of calls. Looking is the fleet's part.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from gateway.calibration_file import CalibrationBook, CalibrationInvalid
from gateway.domain.calibration import OverheadObservation, observe_overhead
from gateway.domain.engine_facts import ObservedLoad, one_after_the_other
from gateway.domain.predicted_column import predict
from gateway.domain.records import Registry
from gateway.engine_records import EngineRecords, EngineReport, LoadRow, report_id, span_start
from gateway.errors import Unavailable
from gateway.replica_state import ReplicaState
from gateway.store import RowRefused

BUSY_SPAN_S = 60
IDLE_SPAN_S = 3600
STEP_BACK_S = 600
"""How far the clock may be set back without a look falling into a row that is no longer in memory."""
MOST_ROWS = 10_000
_Place = tuple[str, datetime, int]
"""Report, start and length of a row."""


class EngineDiary:
    """`note` after every look; `run` writes until cancelled, `flush` at once."""

    def __init__(
        self,
        records: EngineRecords,
        calibration: CalibrationBook,
        *,
        registry: Callable[[], Registry],
        flush_s: float,
        writes: Callable[[], bool] = lambda: True,
    ) -> None:
        """`writes`: whether this gateway, of several that look at the same engines, writes down what it sees."""
        self._writes = writes
        self._records = records
        self._calibration = calibration
        self._registry = registry
        self._flush_s = flush_s
        self._writing = asyncio.Lock()
        self._seen_by = uuid.uuid4().hex[:16]
        self._reports: dict[str, EngineReport] = {}
        """Of engines seen since the last writing."""
        self._loads: dict[_Place, ObservedLoad] = {}
        self._unwritten: set[_Place] = set()
        self.on_learnt: Callable[[], None] = _ignore
        """Called when an engine taught the calibration something."""
        self.dropped = 0
        """Rows that were given up."""
        self._log = structlog.get_logger("simsa.engines")
        if calibration.problem is not None:
            self._log.error("calibration not used", reason=calibration.problem)

    def note(self, state: ReplicaState) -> None:
        """Take over what the fleet's last look found."""
        resolved, look = state.resolved, state.last_look
        if resolved is None:
            return
        at = datetime.now(UTC) if look is None else look.last_look
        identity = report_id(state.model.id, state.replica.address, state.provenance, resolved)
        if identity != state.report_id:
            state.report_id = identity
            self._log.info("engine resolved", model=state.model.id, replica=state.replica.id, report=identity)
        known = self._reports.get(identity)
        self._reports[identity] = EngineReport(
            id=identity,
            model=state.model.id,
            replica=state.replica.id,
            gpu=state.replica.gpu,
            gpus=state.replica.gpus,
            provenance=state.provenance,
            provenance_reason=state.provenance_reason,
            first_seen=known.first_seen if known is not None else at,
            last_seen=at,
            resolved=resolved,
        )
        if look is not None:
            self._add(identity, look)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._flush_s)
            await self.flush()

    async def flush(self) -> None:
        """Write what is new; what cannot be written now is kept for the next time."""
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        reports = dict(self._reports)
        places = sorted(self._unwritten)
        rows = [LoadRow(place[0], self._seen_by, place[1], place[2], self._loads[place]) for place in places]
        if not self._writes():
            self._forget_written(reports, {(row.report, row.starts_at, row.span_s): row.load for row in rows})
            await self._learn(list(reports.values()))
            return
        if not reports and not rows:
            return
        try:
            try:
                await self._records.save(list(reports.values()), rows)
            except RowRefused:
                await self._write_one_by_one(reports, rows)
        except Unavailable:
            return
        self._forget_written(reports, {(row.report, row.starts_at, row.span_s): row.load for row in rows})
        await self._learn(list(reports.values()))

    async def _write_one_by_one(self, reports: dict[str, EngineReport], rows: list[LoadRow]) -> None:
        """So that an engine whose figures no database takes costs the others nothing."""
        for identity in {*reports, *(row.report for row in rows)}:
            own = [row for row in rows if row.report == identity]
            try:
                await self._records.save([reports[identity]] if identity in reports else [], own)
            except RowRefused as error:
                self._log.error("what an engine showed was refused", report=identity, reason=str(error))
                self.dropped += len(own)
                for row in own:
                    self._loads.pop((row.report, row.starts_at, row.span_s), None)
                    self._unwritten.discard((row.report, row.starts_at, row.span_s))

    def _add(self, report: str, look: ObservedLoad) -> None:
        span_s = IDLE_SPAN_S if look.is_idle else BUSY_SPAN_S
        place = (report, span_start(look.last_look, span_s), span_s)
        before = self._loads.get(place)
        self._loads[place] = look if before is None else one_after_the_other(before, look)
        self._unwritten.add(place)
        while len(self._loads) > MOST_ROWS:
            oldest = next(iter(self._loads))
            del self._loads[oldest]
            self._unwritten.discard(oldest)
            self.dropped += 1

    def _forget_written(self, reports: dict[str, EngineReport], rows: dict[_Place, ObservedLoad]) -> None:
        """A row whose span is over will not change any more; what changed while it was written is still to be."""
        for identity, report in reports.items():
            if self._reports.get(identity) is report:
                del self._reports[identity]
        now = datetime.now(UTC)
        for place, load in rows.items():
            if self._loads.get(place) is load:
                self._unwritten.discard(place)
                if place[1] + timedelta(seconds=place[2] + STEP_BACK_S) < now:
                    del self._loads[place]

    async def _learn(self, reports: list[EngineReport]) -> None:
        if self._calibration.problem is not None:
            return
        for report in reports:
            observation = self._observation(report)
            if isinstance(observation, str) or not self._calibration.teaches(observation):
                continue
            try:
                await asyncio.to_thread(self._calibration.learn, observation)
            except (OSError, CalibrationInvalid) as error:
                self._log.error("calibration not written", reason=str(error))
                return
            self._log.info("overhead learnt", gpu=observation.gpu, bytes=observation.overhead_bytes, source=report.id)
            self.on_learnt()

    def _observation(self, report: EngineReport) -> OverheadObservation | str:
        registry = self._registry()
        model = registry.models.get(report.model)
        if model is None:
            return "The registry has no such model any more."
        gpu = registry.gpus.get(report.gpu or "")
        return observe_overhead(
            report.model,
            gpu,
            predict(model, gpu, report.resolved, gpus=report.gpus),
            report.resolved,
            provenance=report.provenance,
            gpus=report.gpus,
            on=report.last_seen.date(),
            source=report.id,
        )


def _ignore() -> None:
    """Nobody wants to know."""
