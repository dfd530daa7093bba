"""A whole plan, run from its first cell to its verdicts: in order, resumable, and honest about where it stopped.

What a repeat is stands in `repeat_run` and `measured`, what is found in the end in `run_evidence` and `doors`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from gateway.domain.memory import number_format
from gateway.domain.records import Claim, Model, Registry
from gateway.file_lock import FileLock
from loadtests.agreement import check_cell
from loadtests.arrivals import TracePoint
from loadtests.cell_order import DrawnWork
from loadtests.cells import (
    VERSION,
    Calibration,
    CellSeen,
    Check,
    EngineSeen,
    Repeat,
    Run,
    SearchSeen,
    common_provenance,
)
from loadtests.doors import door_shares
from loadtests.doorways import Doorway
from loadtests.engine_view import EngineWatch, restarts_of_each
from loadtests.hosts import LOOPBACK, Hosts
from loadtests.journal import Journal, Spreads
from loadtests.load_words import kind_of, level_of, load_in_words, planned_s, repeats_in
from loadtests.measured import Context, Values, measure, spreads_of, values_of, window_of_cell
from loadtests.plan import Cell, Closed, Open, Plan, Rate, Search, Shape, Users
from loadtests.repeat_run import RepeatOrder, RepeatRun, run_repeat
from loadtests.run_evidence import evidence_of, is_tested, verdicts, why_invalid
from loadtests.search import LoadSearch
from loadtests.sighting import Sighting
from loadtests.validity import Look

AGAIN = ("client_cpu", "schedule_lag", "achieved_rate", "clock", "running", "records_complete", "hosts")
"""Checks whose failure may have been a moment's disturbance, of the client above all: a repeat with no other is run
once more, and the run says so."""
PAUSE_S = 1.0
SHORT = 24
"""Letters of a cell's id in the id of a run that the gateway is told."""
GONE_ON = "Stopped, and gone on with at"


@dataclass(frozen=True, slots=True)
class Step:
    """Where a campaign is."""

    words: str
    number: int
    """Of `of` repeats; those of searches are estimated."""
    of: int
    span_s: float
    """How long this repeat's load lasts."""
    left_s: float
    """How long the whole may still take."""
    page: str | None = None
    """Where Locust's own page shows this repeat while it runs."""


@dataclass(slots=True)
class Campaign:
    """One run of a plan. `run()` once."""

    id: str
    plan: Plan
    plan_text: bytes
    workload_sha256: str
    registry: Registry
    doors: Sequence[Doorway]
    context: Context
    sighting: Sighting
    work: DrawnWork
    journal: Journal
    watch: EngineWatch
    look: Callable[[], Awaitable[Look]]
    """At what stands behind the doors now."""
    versions: Mapping[str, str]
    traces: Mapping[str, Sequence[TracePoint]]
    """By cell."""
    on_step: Callable[[Step], None]
    stopping: asyncio.Event
    lock: FileLock
    """Held while the run goes on, so that nobody else goes on with it."""
    calibration: Calibration | None = None
    before: Run | None = None
    """What an interrupted run left: its repeats are not run again."""
    web_port: int | None = None
    hosts: Hosts | None = None
    _cells: dict[tuple[str, str], CellSeen] = field(default_factory=dict)
    _searches: list[SearchSeen] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _spreads: Spreads = field(default_factory=dict)
    _values: dict[str, Values] = field(default_factory=dict)
    """By a repeat's run id."""
    _began_at: str = ""
    _done: int = 0

    async def run(self) -> Run:
        """Run what is left of the plan; returns what there is, also when told to stop."""
        self._began_at = _now()
        if self.before is not None:
            self._take_over(self.before)
        watching = asyncio.create_task(self.watch.run())
        state = "failed"
        try:
            self.journal.keep(self._found("running"), self._spreads)  # from now on it can be gone on with
            for cell in self.plan.cells:
                await self._cell(cell)
            for door in self.doors:
                for search in self.plan.searches:
                    await self._search(search, door)
            state = "stopped" if self.stopping.is_set() else "complete"
        except BaseException as error:
            self._notes.append(f"Failed: {type(error).__name__}: {error}")
            raise
        finally:
            await _ended(watching, self._notes)
            run = self._found(state)
            self.journal.keep(run, self._spreads)
            self.lock.release()
        return run

    def _take_over(self, before: Run) -> None:
        self._began_at = before.began_at
        self._cells = {(cell.id, cell.door): cell for cell in before.cells}
        self._spreads = self.journal.spreads()
        self._notes = [*before.notes, f"{GONE_ON} {_now()}."]

    @property
    def _sitting(self) -> int:
        return sum(note.startswith(GONE_ON) for note in self._notes)

    # --- cells ----------------------------------------------------------------------------------------------

    async def _cell(self, cell: Cell) -> None:
        """All repeats of a cell, its doors by turns, so that what drifts meets both alike."""
        for number in range(1, self.plan.repeats + 1):
            for door in self.doors:
                if not self.stopping.is_set() and self._repeats(cell, door) < number:
                    await self._repeat(cell, door, number)

    def _repeats(self, cell: Cell, door: Doorway) -> int:
        seen = self._cells.get((cell.id, door.door))
        return 0 if seen is None else len(seen.repeats)

    async def _repeat(self, cell: Cell, door: Doorway, number: int, search: str | None = None) -> Repeat | None:
        """Run a repeat, and once more where a disturbance made it invalid; None when told to stop meanwhile."""
        for attempt in (1, 2):
            repeat = await self._once(cell, door, number, attempt)
            if self.stopping.is_set():
                self._notes.append(f"Stopped during {cell.id} ({door.door}), repeat {number}; that repeat is left out.")
                return None
            disturbed = disturbances(repeat.checks)
            if not disturbed or attempt == 2:
                break
            words = f"{cell.id} ({door.door}), repeat {number} was invalid and run once more"
            self._notes.append(f"{words}: {_why(repeat)}.")
        await self._keep(cell, door, repeat, search)
        return repeat

    async def _once(self, cell: Cell, door: Doorway, number: int, attempt: int) -> Repeat:
        order = self._order(cell, door, number, attempt)
        self.on_step(self._step(order))
        before = await self.look()
        ran: RepeatRun = await run_repeat(order, self.plan, stopping=self.stopping)
        looks = [before, await self.look()]
        found = await asyncio.to_thread(measure, order, ran, self.context, self.watch, looks)
        self._values[order.run_id] = found.values
        self._done += 1
        if not self.stopping.is_set():
            await asyncio.sleep(PAUSE_S)  # engines settle, and their last reading is taken
        return found.repeat

    def _order(self, cell: Cell, door: Doorway, number: int, attempt: int) -> RepeatOrder:
        label = f"{self.id}.{_short(cell.id)}.{door.door[0]}{number}.{attempt}"
        if self._sitting:  # what an earlier sitting left out was sent under another name
            label += f".{self._sitting}"
        return RepeatOrder(
            cell=cell,
            number=number,
            doorway=door,
            run_id=label,
            seed=seed_of(f"{self.plan.seed}/{self.id}/{self._sitting}", cell.id, door.door, number, attempt),
            work=self.work,
            directory=self.journal.records / _short(cell.id),
            attempt=attempt,
            trace=self.traces.get(cell.id, ()),
            web_port=self.web_port,
            hosts=self.hosts,
        )

    async def _keep(self, cell: Cell, door: Doorway, repeat: Repeat, search: str | None) -> None:
        before = self._cells.get((cell.id, door.door))
        repeats = [*(before.repeats if before is not None else ()), repeat]
        self._cells[cell.id, door.door] = self._seen(cell, door, repeats, search)
        orders = [self._order(cell, door, one.number, one.attempt) for one in repeats]
        values = [await asyncio.to_thread(self._values_of, order) for order in orders]
        self._spreads[f"{cell.id}/{door.door}"] = await asyncio.to_thread(spreads_of, values)
        self.journal.keep(self._found("running"), self._spreads)

    def _values_of(self, order: RepeatOrder) -> Values:
        if order.run_id not in self._values:  # an earlier sitting measured it
            files = self.journal.record_files(order.directory.name, order.name)
            self._values[order.run_id] = values_of(files, window_of_cell(order), self.plan)
        return self._values[order.run_id]

    def _seen(self, cell: Cell, door: Doorway, repeats: list[Repeat], search: str | None) -> CellSeen:
        work = self.plan.workload
        fixed = [
            lengths.median if lengths is not None and lengths.shape is Shape.FIXED else None
            for lengths in (work.input_tokens, work.output_tokens)
        ]
        return CellSeen(
            id=cell.id,
            door=door.door,
            load=load_in_words(cell.load),
            kind=kind_of(cell.load),
            level=level_of(cell.load),
            is_steady=cell.is_steady,
            claim=cell.claim,
            repeats=repeats,
            checks=check_cell(repeats, wanted=self.plan.repeats),
            search=search,
            input_tokens=fixed[0],
            output_tokens=fixed[1],
            think_s=cell.load.think_s if isinstance(cell.load, Closed) else 0.0,
        )

    # --- searches -------------------------------------------------------------------------------------------

    async def _search(self, search: Search, door: Doorway) -> None:
        looking = LoadSearch(search)
        tried: list[str] = []
        while (level := looking.next_level()) is not None and not self.stopping.is_set():
            cell = cell_at(search, level)
            tried.append(cell.id)
            met, why = await self._holds(cell, door, search.id)
            if self.stopping.is_set():
                break
            looking.tell(level, met, why)
        ended = looking.ended or "stopped"
        self._searches = [one for one in self._searches if (one.id, one.door) != (search.id, door.door)]
        self._searches.append(
            SearchSeen(
                id=search.id,
                door=door.door,
                over=search.over,
                tried=tried,
                highest_met=looking.highest_met,
                lowest_failed=looking.lowest_failed,
                ended=ended,
                why=looking.why,
            )
        )
        self.journal.keep(self._found("running"), self._spreads)

    async def _holds(self, cell: Cell, door: Doorway, search: str) -> tuple[bool | None, str | None]:
        """Whether a level meets every objective in every repeat. One valid repeat that misses one is enough."""
        for number in range(1, self.plan.repeats + 1):
            if self._repeats(cell, door) < number and await self._repeat(cell, door, number, search) is None:
                return None, "stopped"
            repeat = self._cells[cell.id, door.door].repeats[number - 1]
            if not repeat.is_valid:
                return None, _why(repeat)
            if any(one.met is False for one in repeat.objectives):
                self._missed_early(cell, door, search, number)
                return False, None
            unknown = next((one for one in repeat.objectives if one.met is None), None)
            if unknown is not None:
                return None, f"{unknown.metric} {unknown.statistic}: {unknown.why}"
        seen = self._cells[cell.id, door.door]
        return (True, None) if seen.is_valid else (None, why_invalid(seen))

    def _missed_early(self, cell: Cell, door: Doorway, search: str, number: int) -> None:
        """A search asks for no further repeats of a load that has missed: its cell says so."""
        if number >= self.plan.repeats:
            return
        seen = self._cells[cell.id, door.door]
        limit = "a level holds only if every repeat meets every objective"
        check = Check(name="repeats", passed=None, limit=limit, seen=f"repeat {number} missed one: no more were run")
        self._cells[cell.id, door.door] = msgspec.structs.replace(seen, checks=[check], search=search)

    # --- what is found --------------------------------------------------------------------------------------

    def _found(self, state: str) -> Run:
        cells = list(self._cells.values())
        model = self.registry.models.get(self.plan.target.model)
        restarts = restarts_of_each(self.watch.readings)
        notes = [*self._notes]
        if any(restarts):
            notes.append(f"{sum(restarts)} restart(s) of engines were seen during the run.")
        run = Run(
            v=VERSION,
            id=self.id,
            name=self.plan.name,
            state=state,
            began_at=self._began_at,
            ended_at=None if state == "running" else _now(),
            plan=self.plan_text.decode("utf-8", "replace"),
            plan_sha256=hashlib.sha256(self.plan_text).hexdigest(),
            workload_sha256=self.workload_sha256,
            seed=self.plan.seed,
            model=self.plan.target.model,
            gpu=self.gpu,
            gpus=self.context.gpus,
            provenance=common_provenance(cells, self.sighting.provenance.value),
            versions=dict(self.versions),
            gateway=dict(self.sighting.gateway),
            engines=_with_restarts(self.sighting.engines, restarts),
            calibration=self.calibration,
            cells=cells,
            searches=list(self._searches),
            replicas=self.context.replicas,
            workers=self.plan.workers,
            doors=door_shares(cells),
            verdicts=[],
            notes=notes,
            timeout_s=self.plan.timeout_s,
            weights=None if model is None else number_format(model.weights.dtype),
            weights_repo=None if model is None else model.weights.repo,
        )
        return self._with_verdicts(run)

    @property
    def gpu(self) -> str | None:
        """On which the engines stand: the plan's word, else the engines' entries in the registry where they agree."""
        seen = {one.gpu for one in self.sighting.engines}
        return self.plan.gpu or (seen.pop() if len(seen) == 1 else None)

    def _with_verdicts(self, run: Run) -> Run:
        model: Model | None = self.registry.models.get(self.plan.target.model)
        if model is None or run.state == "running":
            return run
        wanted: list[Claim] = [one for one in model.claims if not self.plan.claims or one.id in self.plan.claims]
        evidence = {claim.id: evidence_of(run, claim) for claim in wanted if is_tested(claim)}
        found = verdicts(model, self.registry, wanted, evidence, gpu=run.gpu)
        return msgspec.structs.replace(run, verdicts=found)

    # --- progress -------------------------------------------------------------------------------------------

    def _step(self, order: RepeatOrder) -> Step:
        replayed = sum(points[-1].at_s for points in self.traces.values()) * self.plan.repeats * len(self.doors)
        done = sum(self._span_s(seen) * len(seen.repeats) for seen in self._cells.values())
        of = repeats_in(self.plan)
        return Step(
            words=f"{order.cell.id} · {load_in_words(order.cell.load)} · {order.doorway.door} · "
            f"repeat {order.number} of {self.plan.repeats}",
            number=min(self._done + 1, of),
            of=of,
            span_s=order.load_s,
            left_s=max(order.load_s, planned_s(self.plan) + replayed - done),
            page=None if self.web_port is None else f"http://{LOOPBACK}:{self.web_port}/",
        )

    def _span_s(self, seen: CellSeen) -> float:
        return seen.repeats[0].rates.window_s if seen.repeats else 0.0


def cell_at(search: Search, level: float) -> Cell:
    """The cell that a search measures at a level."""
    if search.over == "users":
        load: Open | Closed = Closed((Users(int(level), int(level), search.for_s),), search.think_s)
    else:
        load = Open(search.arrivals, (Rate(level, level, search.for_s),))
    return Cell(f"{search.id}-{level:g}", load, search.warm_up_s)


def disturbances(checks: Sequence[Check]) -> list[Check]:
    """The failed checks of a repeat that a moment's disturbance may have spoilt; none where anything else is wrong.

    An engine that died holds nothing of what was sent: that is a finding, and no reason to look away from it.
    """
    failed = [one for one in checks if one.passed is False]
    return failed if all(one.name in AGAIN for one in failed) else []


async def _ended(watching: asyncio.Task[None], notes: list[str]) -> None:
    """The watch over engines, ended; what it failed with is a note, as a run can do without it."""
    watching.cancel()
    (failure,) = await asyncio.gather(watching, return_exceptions=True)
    if isinstance(failure, Exception):
        notes.append(f"The engines were not read to the end: {type(failure).__name__}: {failure}")


def _with_restarts(engines: Sequence[EngineSeen], restarts: Sequence[int]) -> list[EngineSeen]:
    """Each engine with its own restarts, where every one that is read has described itself."""
    if len(engines) != len(restarts):
        return list(engines)
    return [msgspec.structs.replace(one, restarts=n) for one, n in zip(engines, restarts, strict=True)]


def seed_of(source: str, cell: str, door: str, number: int, attempt: int = 1) -> int:
    """A seed of its own for every run, sitting, repeat and door: nothing that is sent is known to the engine already.

    `source` holds the plan's seed and the run's id; a run writes down the seed of each repeat, by which the same
    requests can be made again.
    """
    text = f"{source}/{cell}/{door}/{number}/{attempt}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big")


def _why(repeat: Repeat) -> str:
    return "; ".join(f"{one.name}: {one.seen}" for one in repeat.checks if one.passed is False)


def _short(name: str) -> str:
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in name)
    if plain == name and len(name) <= SHORT:
        return name
    return f"{plain[: SHORT - 5]}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
