"""Load runs that are kept in the gateway: their table, its statements, and what the gateway's own records say of them.

A run comes whole from whoever measured it. What the gateway can check of it, it checks when it is handed in: requests
that a run counts as answered through the gateway must stand in the gateway's records, with the run's provenance. How a
run is measured, and what its figures mean, is `loadtests`' subject.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gateway.domain.accounts import Caller
from gateway.domain.records import CallStatus, Provenance
from gateway.store import Store
from gateway.tables import Moment, calls, metadata
from loadtests.cells import VERSION, CellSeen, Check, Repeat, Run
from loadtests.exports import run_json
from loadtests.records import Outcome
from loadtests.report import Distribution, distributions_of

Spreads = dict[str, dict[str, tuple[float, ...]]]
"""By "cell/door" and metric: the quantiles 0 to 100 %, for drawing."""
MOST_OF_A_MODEL = 50
"""Runs of one model that are looked through for evidence, the newest first."""
IDS_AT_ONCE = 500
CHECK = "gateway_records"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENDED = ("complete", "stopped", "failed")

load_runs = sa.Table(
    "load_runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("gpu", sa.Text),
    sa.Column("gpus", sa.Integer),
    sa.Column("began_at", Moment, nullable=False, index=True),
    sa.Column("ended_at", Moment),
    sa.Column("kept_at", Moment, nullable=False),
    sa.Column("kept_by", sa.Text),
    sa.Column("organisation", sa.Text),
    sa.Column("withdrawn_at", Moment),
    sa.Column("withdrawn_by", sa.Text),
    sa.Column("withdrawn_why", sa.Text),
    sa.Column("findings", sa.LargeBinary, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
_HEAD = [column for column in load_runs.columns if column.name not in ("findings", "document")]
_OWN = (
    "sha256",
    "name",
    "state",
    "provenance",
    "gpu",
    "gpus",
    "ended_at",
    "kept_at",
    "kept_by",
    "findings",
    "document",
)
"""What a run that went on brings anew."""


@dataclass(frozen=True, slots=True)
class KeptRun:
    """What a list tells of a run; the rest is in its document."""

    id: str
    sha256: str
    """Of the run as JSON, which is the file `run.json` of its report."""
    name: str
    state: str
    model: str
    provenance: str
    gpu: str | None
    gpus: int | None
    began_at: datetime
    ended_at: datetime | None
    kept_at: datetime
    kept_by: str | None
    """The key that handed it in; None for the admin key."""
    organisation: str | None
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None
    withdrawn_why: str | None = None


class Document(msgspec.Struct, frozen=True):
    """A run whole, as it was handed in."""

    run: Run
    spreads: Spreads = {}

    @property
    def distributions(self) -> list[Distribution]:
        return distributions_of(self.run, self.spreads)


class RunDiffers(Exception):
    """Another run is kept under the id, or one that is over; the message says which."""


class LoadRuns:
    """Every statement about load runs. Raises what `Store` raises. Runs are packed and unpacked off the event loop."""

    def __init__(self, store: Store) -> None:
        self._transaction = store.transaction

    async def keep(self, document: Document, findings: Run, caller: Caller, at: datetime) -> tuple[KeptRun, bool]:
        """Store a run; the second value tells whether it is new. The same again is answered as it stands.

        `findings`: the run as `checked` gives it. One that was stopped may come again after it went on. Raises
        RunDiffers.
        """
        new = await asyncio.to_thread(_kept, document.run, caller, at)
        row = {field.name: getattr(new, field.name) for field in fields(KeptRun)}
        row["findings"] = await asyncio.to_thread(_packed, findings)
        row["document"] = await asyncio.to_thread(_packed, document)
        async with self._transaction() as connection:
            if (await connection.execute(_INSERTS[connection.dialect.name], row)).rowcount:
                return new, True
            statement = sa.select(load_runs).where(load_runs.c.id == new.id).with_for_update()
            found = (await connection.execute(statement)).mappings().one()
            old = _kept_in(found)
            if old.sha256 == new.sha256:
                return old, False
            _refuse_other(old, await asyncio.to_thread(_findings, found["findings"]), document.run)
            changed = {name: row[name] for name in _OWN}
            await connection.execute(sa.update(load_runs).where(load_runs.c.id == new.id).values(changed))
        return replace(new, **_withdrawal(old)), False

    async def newest(self, limit: int, *, model: str | None = None) -> list[KeptRun]:
        """The last begun first."""
        statement = sa.select(*_HEAD).order_by(load_runs.c.began_at.desc(), load_runs.c.id).limit(limit)
        if model is not None:
            statement = statement.where(load_runs.c.model == model)
        async with self._transaction() as connection:
            return [_kept_in(row) for row in (await connection.execute(statement)).mappings()]

    async def found(self, run_id: str) -> tuple[KeptRun, Run] | None:
        """A run's head and its findings; None where there is no such run."""
        statement = sa.select(*_HEAD, load_runs.c.findings).where(load_runs.c.id == run_id)
        async with self._transaction() as connection:
            row = (await connection.execute(statement)).mappings().first()
        return None if row is None else (_kept_in(row), await asyncio.to_thread(_findings, row["findings"]))

    async def document(self, run_id: str) -> bytes | None:
        """What `read_document` reads; None where there is no such run."""
        statement = sa.select(load_runs.c.document).where(load_runs.c.id == run_id)
        async with self._transaction() as connection:
            found: bytes | None = (await connection.execute(statement)).scalar()
        return found

    async def withdraw(self, run_id: str, by: str | None, why: str, at: datetime) -> None:
        """From now on the run speaks to no claim. It stays to be read, and a second time changes nothing."""
        is_it = (load_runs.c.id == run_id) & load_runs.c.withdrawn_at.is_(None)
        values = {"withdrawn_at": at, "withdrawn_by": by, "withdrawn_why": why}
        async with self._transaction() as connection:
            await connection.execute(sa.update(load_runs).where(is_it).values(values))

    async def findings_of(self, models: Collection[str]) -> dict[str, list[Run]]:
        """What the newest runs of these models found, those that were not withdrawn, by model."""
        found: dict[str, list[Run]] = {}
        for model in models:
            statement = (
                sa.select(load_runs.c.findings)
                .where(load_runs.c.model == model, load_runs.c.withdrawn_at.is_(None))
                .order_by(load_runs.c.began_at.desc())
                .limit(MOST_OF_A_MODEL)
            )
            async with self._transaction() as connection:
                rows = (await connection.execute(statement)).scalars().all()
            found[model] = [await asyncio.to_thread(_findings, one) for one in rows]
        return found

    async def recorded(self, run_ids: Sequence[str]) -> dict[str, list[RecordedCalls]]:
        """The gateway's own calls under each of these run ids, by provenance."""
        found: dict[str, list[RecordedCalls]] = {}
        is_ok = sa.func.sum(sa.case((calls.c.status == CallStatus.OK.value, 1), else_=0))
        for begin in range(0, len(run_ids), IDS_AT_ONCE):
            statement = (
                sa.select(calls.c.run_id, calls.c.provenance, sa.func.count(), is_ok)
                .where(calls.c.run_id.in_(run_ids[begin : begin + IDS_AT_ONCE]))
                .group_by(calls.c.run_id, calls.c.provenance)
            )
            async with self._transaction() as connection:
                for run_id, provenance, n, ok in (await connection.execute(statement)).all():
                    found.setdefault(run_id, []).append(RecordedCalls(provenance, n, int(ok)))
        return found


def read_document(content: bytes) -> Document:
    """What `LoadRuns.document` gave. A large one takes a second: not on the event loop."""
    return msgspec.json.decode(zlib.decompress(content), type=Document)


def _findings(content: bytes) -> Run:
    return msgspec.json.decode(zlib.decompress(content), type=Run)


def _packed(value: Document | Run) -> bytes:
    return zlib.compress(msgspec.json.encode(value))


def why_not_kept(document: Document) -> str | None:
    """What is wrong with a run that is handed in; None where nothing is."""
    run = document.run
    if run.v != VERSION:
        return f"it is of version {run.v}, and this Simsa keeps version {VERSION}"
    if not _ID.fullmatch(run.id):
        return "its id must be of letters, digits, '-', '_' and '.', 64 at most"
    if run.state not in _ENDED:
        return f"its state is '{run.state[:32]}': only one that has ended is kept"
    try:
        moments = [run.began_at, *filter(None, (run.ended_at, *(one.began_at for one in _repeats_of(run))))]
        if any(datetime.fromisoformat(moment).tzinfo is None for moment in moments):
            return "its moments need their offset, e.g. 2026-11-28T09:00:00+00:00"
        for repeat in _repeats_of(run):
            Provenance(repeat.provenance)
        distributions_of(run, document.spreads)
    except ValueError as error:
        return str(error)
    return None


# --- what the gateway itself saw ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordedCalls:
    """Calls of one run and provenance in the gateway's records."""

    provenance: str | None
    n: int
    ok: int


def run_ids_through_gateway(run: Run) -> list[str]:
    """Under which the gateway recorded the repeats that went through it."""
    return [repeat.run_id for cell in run.cells if cell.door == "gateway" for repeat in cell.repeats]


def checked(run: Run, recorded: Mapping[str, Sequence[RecordedCalls]]) -> Run:
    """A run without timelines, each repeat through the gateway with one more check: whether the records agree.

    A repeat that the records do not bear out is invalid here, and settles nothing.
    """
    cells = [
        msgspec.structs.replace(cell, repeats=[_checked(cell, repeat, recorded) for repeat in cell.repeats])
        for cell in run.cells
    ]
    return msgspec.structs.replace(run, cells=cells)


def _checked(cell: CellSeen, repeat: Repeat, recorded: Mapping[str, Sequence[RecordedCalls]]) -> Repeat:
    checks = [one for one in repeat.checks if one.name != CHECK]
    if cell.door == "gateway":
        checks.append(_records_agree(repeat, recorded.get(repeat.run_id, ())))
    return msgspec.structs.replace(repeat, timeline=[], checks=checks)


def _records_agree(repeat: Repeat, recorded: Sequence[RecordedCalls]) -> Check:
    """Calls of the warm-up stand in the records too, so there may be more than the window's answers, never fewer."""
    answered = repeat.outcomes.get(Outcome.OK, 0)
    alike = sum(one.ok for one in recorded if one.provenance == repeat.provenance)
    others = {one.provenance or "unknown": one.n for one in recorded if one.provenance != repeat.provenance and one.ok}
    seen = f"{alike} answered calls of this repeat are recorded as {repeat.provenance}"
    if others:
        seen += "".join(f", {n} as {name}" for name, n in sorted(others.items()))
    return Check(
        name=CHECK,
        passed=alike >= answered and not others,
        limit=f"each of {answered} answered requests in the gateway's records, with the run's provenance",
        seen=seen,
    )


def span_of(run: Run) -> tuple[datetime, datetime] | None:
    """From the first repeat's begin to the last one's end, as far as its window and drain tell; None without one."""
    repeats = [repeat for cell in run.cells for repeat in cell.repeats if repeat.began_at]
    if not repeats:
        return None
    begins = [datetime.fromisoformat(repeat.began_at) for repeat in repeats]
    ends = [begin + timedelta(seconds=one.rates.window_s) for begin, one in zip(begins, repeats, strict=True)]
    return min(begins), max(ends)


# --- rows ---------------------------------------------------------------------------------------------------


def _kept(run: Run, caller: Caller, at: datetime) -> KeptRun:
    return KeptRun(
        id=run.id,
        sha256=hashlib.sha256(run_json(run)).hexdigest(),
        name=run.name,
        state=run.state,
        model=run.model,
        provenance=run.provenance,
        gpu=run.gpu,
        gpus=run.gpus,
        began_at=datetime.fromisoformat(run.began_at),
        ended_at=None if run.ended_at is None else datetime.fromisoformat(run.ended_at),
        kept_at=at,
        kept_by=caller.key,
        organisation=caller.organisation,
    )


def _kept_in(row: Any) -> KeptRun:
    return KeptRun(**{field.name: row[field.name] for field in fields(KeptRun)})


def _withdrawal(of: KeptRun) -> dict[str, Any]:
    return {name: getattr(of, name) for name in ("withdrawn_at", "withdrawn_by", "withdrawn_why", "organisation")}


def _refuse_other(old: KeptRun, before: Run, after: Run) -> None:
    """A run that was stopped may go on: the same plan and begin, and nothing of what was measured taken away."""
    if old.state == "complete":
        raise RunDiffers(f"{old.id} is kept already and was complete: what it showed stands")
    same = ("plan_sha256", "workload_sha256", "seed", "model", "began_at")
    if any(getattr(before, name) != getattr(after, name) for name in same):
        raise RunDiffers(f"another run is kept as {old.id}")
    if not _repeats(before) <= _repeats(after):
        raise RunDiffers(f"{old.id} is kept with repeats that this one lacks")


def _repeats(run: Run) -> set[tuple[str, int]]:
    return {(repeat.run_id, repeat.seed) for repeat in _repeats_of(run)}


def _repeats_of(run: Run) -> Iterable[Repeat]:
    return (repeat for cell in run.cells for repeat in cell.repeats)


_INSERTS = {
    name: kind.insert(load_runs).on_conflict_do_nothing(index_elements=["id"])
    for name, kind in (("sqlite", sqlite), ("postgresql", postgresql))
}
