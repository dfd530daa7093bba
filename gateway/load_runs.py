"""Load runs that are kept in the gateway: their table and its statements.

A run's document is kept as it was handed in; beside it the findings, which are what the gateway's checks left of it
(`load_run_checks`) without its timelines.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gateway.domain.accounts import Caller
from gateway.domain.records import CallStatus, Provenance
from gateway.load_run_checks import Document, KeptRun, RecordedCalls, borne_out, for_claims
from gateway.store import Store
from gateway.tables import Moment, calls, metadata
from loadtests.cells import Repeat, Run
from loadtests.exports import run_json

MOST_OF_A_MODEL = 50
"""Runs of one model that are looked through for evidence."""
_REAL = Provenance.REAL.value
IDS_AT_ONCE = 500

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
                before = await asyncio.to_thread(_findings, found["findings"])
                if borne_out(findings) > borne_out(before):  # calls have come in; and none is lost by old ones' removal
                    again = {"findings": row["findings"]}
                    await connection.execute(sa.update(load_runs).where(load_runs.c.id == new.id).values(again))
                return old, False
            _refuse_other(old, new, (await asyncio.to_thread(read_document, found["document"])).run, document.run)
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

    async def findings_of(
        self, weights: Mapping[str, str | None], *, most: int = MOST_OF_A_MODEL
    ) -> dict[str, list[Run]]:
        """What the runs of these models found that may speak to claims, by model: real ones first, then the newest.

        `weights`: by model the repository that the registry names. Withdrawn runs say nothing.
        """
        found: dict[str, list[Run]] = {}
        for model, repo in weights.items():
            statement = (
                sa.select(load_runs.c.findings)
                .where(load_runs.c.model == model, load_runs.c.withdrawn_at.is_(None))
                .order_by(sa.case((load_runs.c.provenance == _REAL, 0), else_=1), load_runs.c.began_at.desc())
                .limit(most)
            )
            async with self._transaction() as connection:
                rows = (await connection.execute(statement)).scalars().all()
            found[model] = [for_claims(await asyncio.to_thread(_findings, one), repo) for one in rows]
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
