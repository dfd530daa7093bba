"""Load runs that are kept in the gateway: their table, its statements, and what the gateway's own records say of them.

A run comes whole from whoever measured it. What the gateway can check of it, it checks when it is handed in: requests
that a run counts as answered through the gateway must stand in the gateway's records, of the run's model and with its
provenance. Only such cells speak to claims here; what went past the gateway it cannot bear out. How a run is measured,
and what its figures mean, is `loadtests`' subject.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gateway.domain.accounts import Caller
from gateway.domain.records import CallStatus, Provenance
from gateway.store import Store
from gateway.tables import Moment, calls, metadata
from loadtests.cells import VERSION, CellSeen, Check, Repeat, Run, common_provenance
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
DOORS = ("gateway", "direct")
CLOCKS_APART = timedelta(minutes=5)
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
            if old.sha256 == new.sha256:  # the records may have had calls to come in
                again = {"findings": row["findings"]}
                await connection.execute(sa.update(load_runs).where(load_runs.c.id == new.id).values(again))
                return old, False
            before = await asyncio.to_thread(read_document, found["document"])
            _refuse_other(old, new, before.run, document.run)
            changed = {name: row[name] for name in _OWN}
            await connection.execute(sa.update(load_runs).where(load_runs.c.id == new.id).values(changed))
        return replace(new, **_kept_once(old)), False

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
            found[model] = [for_claims(await asyncio.to_thread(_findings, one)) for one in rows]
        return found

    async def recorded(self, model: str, run_ids: Sequence[str]) -> dict[str, list[RecordedCalls]]:
        """The gateway's own calls of a model under each of these run ids, by provenance."""
        found: dict[str, list[RecordedCalls]] = {}
        is_ok = sa.func.sum(sa.case((calls.c.status == CallStatus.OK.value, 1), else_=0))
        for begin in range(0, len(run_ids), IDS_AT_ONCE):
            statement = (
                sa.select(calls.c.run_id, calls.c.provenance, sa.func.count(), is_ok)
                .where(calls.c.model == model, calls.c.run_id.in_(run_ids[begin : begin + IDS_AT_ONCE]))
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


def why_not_kept(document: Document, now: datetime) -> str | None:
    """What is wrong with a run that is handed in; None where nothing is."""
    run = document.run
    repeats = [(cell, repeat) for cell in run.cells for repeat in cell.repeats]
    if run.v != VERSION:
        return f"it is of version {run.v}, and this Simsa keeps version {VERSION}"
    if not _ID.fullmatch(run.id):
        return "its id must be of letters, digits, '-', '_' and '.', 64 at most"
    if run.state not in _ENDED:
        return f"its state is '{run.state[:32]}': only one that has ended is kept"
    if any(cell.door not in DOORS or repeat.door != cell.door for cell, repeat in repeats):
        return f"a cell's door must be one of {', '.join(DOORS)}, and that of its repeats"
    ids = [repeat.run_id for _, repeat in repeats]
    if len(set(ids)) < len(ids) or not all(name.startswith(f"{run.id}.") for name in ids):
        return f"the run ids of its repeats must begin with '{run.id}.' and differ"
    if run.provenance != common_provenance(run.cells, run.provenance):
        return f"its provenance is '{run.provenance[:32]}', its repeats' another"
    try:
        moments = [run.began_at, *filter(None, (run.ended_at, *(one.began_at for _, one in repeats)))]
        read = [datetime.fromisoformat(moment) for moment in moments]
        if any(moment.tzinfo is None for moment in read):
            return "its moments need their offset, e.g. 2026-11-28T09:00:00+00:00"
        if any(moment > now + CLOCKS_APART for moment in read):
            return "it lies in the future by the gateway's clock"
        for _, repeat in repeats:
            Provenance(repeat.provenance)
            _read_amounts(repeat)
        distributions_of(run, document.spreads)
    except ValueError as error:
        return str(error)
    return None


def _read_amounts(repeat: Repeat) -> None:
    """Raises ValueError for text that is no number."""
    texts = [repeat.cost_per_mtok_out, *(one.limit for one in (*repeat.objectives, *repeat.claimed.values()))]
    for text in filter(None, texts):
        try:
            is_number = Decimal(text).is_finite()
        except InvalidOperation:
            is_number = False
        if not is_number:
            raise ValueError(f"'{text[:32]}' is no number")


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
        passed=0 < answered <= alike and not others,
        limit=f"each of {answered} answered requests in the gateway's records, with the run's provenance",
        seen=seen,
    )


def for_claims(run: Run) -> Run:
    """Of checked findings what may speak to claims: cells through the gateway, which its records bear out or not."""
    cells = [cell for cell in run.cells if cell.door == "gateway"]
    return msgspec.structs.replace(run, cells=cells)


def as_checked(document: Document, findings: Run, kept: KeptRun) -> Document:
    """The document to be shown: with what the gateway found of each repeat, and whether it was withdrawn.

    Its verdicts are left out: those of `GET /api/claims` are the gateway's own.
    """
    checks = {repeat.run_id: repeat.checks for cell in findings.cells for repeat in cell.repeats}
    cells = [
        msgspec.structs.replace(
            cell, repeats=[msgspec.structs.replace(one, checks=checks[one.run_id]) for one in cell.repeats]
        )
        for cell in document.run.cells
    ]
    notes = [*document.run.notes]
    if kept.withdrawn_at is not None:
        notes.insert(0, f"Withdrawn {kept.withdrawn_at:%Y-%m-%d %H:%M} UTC: {kept.withdrawn_why}")
    run = msgspec.structs.replace(document.run, cells=cells, notes=notes, verdicts=[])
    return msgspec.structs.replace(document, run=run)


def span_of(run: Run) -> tuple[datetime, datetime] | None:
    """From the first repeat's second 0 to the end of the last one's window, counted without warm-ups; None without."""
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


def _kept_once(of: KeptRun) -> dict[str, Any]:
    names = ("kept_by", "organisation", "withdrawn_at", "withdrawn_by", "withdrawn_why")
    return {name: getattr(of, name) for name in names}


def _refuse_other(old: KeptRun, new: KeptRun, before: Run, after: Run) -> None:
    """A run that was stopped may go on: handed in by the same key, of the same plan, with all that was measured."""
    if (old.kept_by, old.organisation) != (new.kept_by, new.organisation):
        raise RunDiffers(f"{old.id} was handed in with another key")
    if old.state == "complete":
        raise RunDiffers(f"{old.id} is kept already and was complete: what it showed stands")
    same = ("plan_sha256", "workload_sha256", "seed", "model", "began_at")
    if any(getattr(before, name) != getattr(after, name) for name in same):
        raise RunDiffers(f"another run is kept as {old.id}")
    now = {repeat.run_id: repeat for repeat in _repeats_of(after)}
    if any(now.get(repeat.run_id) != repeat for repeat in _repeats_of(before)):
        raise RunDiffers(f"{old.id} is kept with repeats that this one lacks, or has otherwise")


def _repeats_of(run: Run) -> Iterable[Repeat]:
    return (repeat for cell in run.cells for repeat in cell.repeats)


_INSERTS = {
    name: kind.insert(load_runs).on_conflict_do_nothing(index_elements=["id"])
    for name, kind in (("sqlite", sqlite), ("postgresql", postgresql))
}
