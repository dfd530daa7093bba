"""Reads the energy counters of replicas that are up, now and then, and writes down by the minute what they showed.

An exporter is asked once for all replicas whose GPUs it knows, beside the looks at engines: one that hangs or lies
costs no engine anything. Rows wait in memory while the database is away; too many of them, and the oldest are dropped
and counted.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from gateway.domain.energy import EnergyReading, Metered, metered
from gateway.domain.records import EnergyMeter, Provenance
from gateway.energy_records import EnergyRecords, EnergyRow
from gateway.energy_reports import read_energy
from gateway.engine_reports import legible
from gateway.errors import Unavailable, UpstreamError
from gateway.fleet import Fleet
from gateway.replica_state import ReplicaState
from gateway.store import RowRefused
from gateway.upstream import Upstream, parse_origin

MOST_ROWS = 10_000
KEPT = timedelta(minutes=15)
"""How long a row stays in memory at least: what a reading adds lies in the last minutes."""
_Place = tuple[str, str, Provenance, datetime, str]
"""Replica, model, provenance and minute of a row, and by whom it was seen."""


@dataclass(frozen=True, slots=True)
class _Before:
    """The last reading of a replica, and of what it was."""

    meter: EnergyMeter
    up_since: datetime | None
    provenance: Provenance
    reading: EnergyReading


class EnergyWatch:
    """`run` reads and writes until cancelled; `flush` writes at once."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        upstream: Upstream,
        records: EnergyRecords,
        interval_s: float,
        timeout_s: float,
        flush_s: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._fleet = fleet
        self._upstream = upstream
        self._records = records
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._flush_s = flush_s
        self._now = now
        self._seen_by = _new_name()
        self._read_at: datetime | None = None
        """When the first exporter answered last time."""
        self._before: dict[ReplicaState, _Before] = {}
        self._rows: dict[_Place, Metered] = {}
        self._unwritten: set[_Place] = set()
        self._problems: dict[ReplicaState, str | None] = {}
        self._writing = asyncio.Lock()
        self.dropped = 0
        """Rows that were given up."""
        self._log = structlog.get_logger("simsa.energy")

    async def run(self) -> None:
        """Until cancelled. What lies before it another gateway may have read and written."""
        loop = asyncio.get_running_loop()
        self._before.clear()
        flushed_s = loop.time()
        while True:
            await self.read_all()
            if loop.time() - flushed_s >= self._flush_s:
                await self.flush()
                flushed_s = loop.time()
            await asyncio.sleep(self._interval_s)

    async def read_all(self) -> None:
        """Ask every exporter once, all at the same time, and add up what its counters show."""
        watched = {
            state: state.replica.energy
            for state in self._fleet.all_states()
            if state.is_up and state.replica.energy is not None
        }
        for state in self._before.keys() - watched.keys():
            del self._before[state]
            self._problems.pop(state, None)
        addresses = {meter.url for meter in watched.values()}
        pages = dict(zip(addresses, await asyncio.gather(*map(self._page, addresses)), strict=True))
        if pages:
            self._look_at_clock(min(at for at, _ in pages.values()))
        owners: dict[str, str] = {}
        for state, meter in watched.items():
            if state.replica.energy == meter:  # else the registry changed while its exporter was asked
                self._take(state, meter, _reading(state, meter, *pages[meter.url], owners))

    async def flush(self) -> None:
        """Write what is new; what cannot be written now is kept for the next time."""
        async with self._writing:
            with suppress(Unavailable):
                await self._write([(place, self._rows[place]) for place in sorted(self._unwritten)])

    async def _write(self, rows: list[tuple[_Place, Metered]]) -> None:
        """In one transaction; where the database refuses one, the others without it. Raises Unavailable."""
        try:
            await self._records.save([_row(*each) for each in rows])
        except RowRefused as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                await self._write(rows[:middle])
                await self._write(rows[middle:])
                return
            ((replica, model, *_), _) = rows[0]
            self._log.error("energy was refused by the database", reason=str(error), replica=replica, model=model)
            self.dropped += 1
        self._forget(dict(rows))

    def _look_at_clock(self, at: datetime) -> None:
        """After a clock was set back, minutes come again whose rows may be stored: write others, which add up."""
        if self._read_at is not None and at < self._read_at:
            self._seen_by = _new_name()
        self._read_at = at

    async def _page(self, url: str) -> tuple[datetime, bytes | str]:
        """When it was answered, and the exporter's page or why there is none."""
        found: bytes | str
        try:
            status, body = await self._upstream.fetch(parse_origin(url), b"", timeout_s=self._timeout_s)
            found = body if status == 200 else f"the energy exporter answered {status}"
        except UpstreamError as error:
            found = f"the energy exporter: {error.message}"
        except ValueError as error:
            found = f"the energy exporter's address: {error}"
        return self._now(), found

    def _take(self, state: ReplicaState, meter: EnergyMeter, reading: EnergyReading) -> None:
        last = self._before.get(state)
        now = self._before[state] = _Before(meter, state.up_since, state.provenance, reading)
        before = last.reading if last is not None and replace(last, reading=reading) == now else None
        for minute, found in metered(before, reading):
            self._add((state.replica.id, state.model.id, state.provenance, minute, self._seen_by), found)
        self._tell(state, reading.reason)

    def _tell(self, state: ReplicaState, problem: str | None) -> None:
        """Log when counters cannot be read, and when they can again."""
        if self._problems.get(state) == problem:
            return
        self._problems[state] = problem
        log = self._log.bind(model=state.model.id, replica=state.replica.id)
        if problem is not None:
            log.warning("energy counters unreadable", reason=problem)
        else:
            log.info("energy counters readable again")

    def _add(self, place: _Place, found: Metered) -> None:
        self._rows[place] = self._rows.get(place, Metered()) + found
        self._unwritten.add(place)
        while len(self._rows) > MOST_ROWS:
            oldest = next(iter(self._rows))
            del self._rows[oldest]
            self._unwritten.discard(oldest)
            self.dropped += 1

    def _forget(self, written: dict[_Place, Metered]) -> None:
        """A minute that is over will not change any more; what changed while it was written is still to be."""
        for place, found in written.items():
            if self._rows.get(place) is found:
                self._unwritten.discard(place)
        over = self._now() - KEPT
        for place in [each for each in self._rows if each[3] < over and each not in self._unwritten]:
            del self._rows[place]


def _new_name() -> str:
    return uuid.uuid4().hex[:16]


def _row(place: _Place, found: Metered) -> EnergyRow:
    replica, model, provenance, minute, seen_by = place
    return EnergyRow(replica, model, provenance, minute, seen_by, found)


def _reading(
    state: ReplicaState, meter: EnergyMeter, at: datetime, page: bytes | str, owners: dict[str, str]
) -> EnergyReading:
    """Counters and the engine's own count of tokens, as the last look at it read that.

    `owners`: the replica, by its id, that took a card's counter this time; this one is added.
    """
    glance = state.glance
    tokens = None if glance is None else glance.generation_tokens
    started_at_s = None if glance is None else glance.started_at_s
    if isinstance(page, str):
        return EnergyReading(at, None, tokens, started_at_s, legible(page))
    try:
        counters = read_energy(page, meter)
        _take_cards(counters, state.replica.id, owners)
    except ValueError as error:
        return EnergyReading(at, None, tokens, started_at_s, legible(str(error)))
    return EnergyReading(at, tuple(counters.values()), tokens, started_at_s)


def _take_cards(cards: Collection[str], replica: str, owners: dict[str, str]) -> None:
    """Raise ValueError where one of the cards is counted for another replica already."""
    for card in cards:
        if card in owners:
            raise ValueError(f"the counter of {card} is the replica {owners[card]}'s; it would be counted twice")
    owners.update(dict.fromkeys(cards, replica))
