"""What engines said of themselves and what looks at them showed, in the database: tables and statements.

A report is one configuration that one replica showed: its id is made of what it says, so that writing it again, by
another gateway too, only moves when it was last seen. A load row belongs to one process that looked, which alone writes
it and writes it whole. Collecting what to write is `engine_diary`'s part.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gateway.domain.engine_facts import (
    COUNTERS,
    LOAD_FIELDS,
    ObservedLoad,
    ResolvedEngine,
    joined_loads,
    most_at_once,
)
from gateway.domain.records import EngineAddress, Provenance
from gateway.domain.settlement import microseconds, moment_of
from gateway.long_work import give_way
from gateway.store import Store
from gateway.tables import Json, Moment, calls, metadata

MOST_CALLS = 100_000
CALLS_AT_ONCE = 200
"""Calls that are read before the event loop gets its turn."""
SUMMED_BEFORE_WAY = 1000
LOADS_AT_ONCE = 500
"""Rows that are removed in one transaction."""

engine_reports = sa.Table(
    "engine_reports",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("replica", sa.Text, nullable=False),
    sa.Column("gpu", sa.Text),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("provenance_reason", sa.Text, nullable=False),
    sa.Column("first_seen", Moment, nullable=False),
    sa.Column("last_seen", Moment, nullable=False),
    sa.Column("version", sa.Text),
    sa.Column("facts", Json, nullable=False),
)
engine_loads = sa.Table(
    "engine_loads",
    metadata,
    sa.Column("report", sa.Text, primary_key=True),  # no foreign key, so that either may be written first
    sa.Column("seen_by", sa.Text, primary_key=True),
    sa.Column("starts_at", Moment, primary_key=True),
    sa.Column("span_s", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("looks", sa.BigInteger, nullable=False),
    sa.Column("first_look", Moment, nullable=False),
    sa.Column("last_look", Moment, nullable=False),
    *(sa.Column(name, sa.BigInteger) for name in ("peak_running", "peak_waiting", "peak_own_calls")),
    sa.Column("peak_kv_usage", sa.Double),
    sa.Column("looks_waiting", sa.BigInteger, nullable=False),
    *(sa.Column(name, sa.BigInteger) for name in COUNTERS),
    sa.Column("restarts", sa.BigInteger, nullable=False),
    sa.Index("ix_engine_loads_starts_at", "starts_at"),
)


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One configuration that one replica showed, and when."""

    id: str
    model: str
    replica: str
    """Its id when it was last seen."""
    gpu: str | None
    """What the registry said of its hardware then; the engine does not say."""
    gpus: int
    provenance: Provenance
    provenance_reason: str
    first_seen: datetime
    last_seen: datetime
    resolved: ResolvedEngine


@dataclass(frozen=True, slots=True)
class LoadRow:
    """What one process saw of one report's engine, in one span that begins at `starts_at`."""

    report: str
    seen_by: str
    starts_at: datetime
    span_s: int
    load: ObservedLoad


class OwnCall(NamedTuple):
    """When a replica had a call of the gateway's."""

    replica: str
    dispatched_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class OwnCalls:
    """Calls of the gateway's in one run or span together."""

    first: datetime | None
    """When the first was dispatched; None where there are none."""
    last: datetime | None
    """When the last had ended."""
    by_replica: Mapping[str, tuple[int, int]]
    """How many there were, and how many at once at most."""


def sum_up_calls(own: Sequence[OwnCall]) -> OwnCalls:
    """For a thread of its own where there are many: now and then it lets others go first."""
    spans: dict[str, tuple[list[int], list[int]]] = {}
    for number, (replica, dispatched_at, ended_at) in enumerate(own, start=1):
        begins, ends = spans.setdefault(replica, ([], []))
        begins.append(microseconds(dispatched_at))
        ends.append(microseconds(ended_at))
        if number % SUMMED_BEFORE_WAY == 0:
            give_way()
    if not spans:
        return OwnCalls(None, None, {})
    first = min(min(begins) for begins, _ in spans.values())
    last = max(max(ends) for _, ends in spans.values())
    counts = {replica: (len(begins), most_at_once(begins, ends)) for replica, (begins, ends) in spans.items()}
    return OwnCalls(moment_of(first), moment_of(last), counts)


def report_id(model: str, address: EngineAddress, provenance: Provenance, resolved: ResolvedEngine) -> str:
    """The same for the same configuration at the same address, whenever and by whomever it is seen."""
    said = [model, address.url, address.base_path, provenance.value, msgspec.to_builtins(resolved)]
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:20]


class EngineRecords:
    """Reports and loads as they are stored. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._transaction = store.transaction

    async def save(self, reports: Sequence[EngineReport], loads: Sequence[LoadRow]) -> None:
        """Write both in one transaction, any number of times: the same rows result."""
        async with self._transaction() as connection:
            kind = connection.dialect.name
            if reports:
                await connection.execute(_REPORTS[kind], [_report_row(report) for report in reports])
            if loads:
                await connection.execute(_LOADS[kind], [_load_row(row) for row in loads])

    async def list_reports(self, *, model: str | None = None, limit: int = 1000) -> list[EngineReport]:
        """The last seen first."""
        order = (engine_reports.c.last_seen.desc(), engine_reports.c.id)
        statement = sa.select(engine_reports).order_by(*order).limit(limit)
        if model is not None:
            statement = statement.where(engine_reports.c.model == model)
        async with self._transaction() as connection:
            return [_report(row) for row in (await connection.execute(statement)).mappings()]

    async def report_at(self, replica: str, moment: datetime) -> EngineReport | None:
        """The configuration with which a replica answered a call at this moment; None where none was seen then.

        Where more than one was, the one that began to show last before it.
        """
        statement = (
            sa.select(engine_reports)
            .where(engine_reports.c.replica == replica)
            .where(engine_reports.c.first_seen <= moment, engine_reports.c.last_seen >= moment)
            .order_by(engine_reports.c.first_seen.desc())
            .limit(1)
        )
        async with self._transaction() as connection:
            row = (await connection.execute(statement)).mappings().first()
        return None if row is None else _report(row)

    async def observed(
        self, report: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> ObservedLoad | None:
        """What was seen of a report's engine in all rows that have a look in [since, until]; None where none has."""
        statement = sa.select(engine_loads).where(engine_loads.c.report == report)
        if since is not None:
            statement = statement.where(engine_loads.c.last_look >= since)
        if until is not None:
            statement = statement.where(engine_loads.c.first_look <= until)
        async with self._transaction() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return joined_loads((row["seen_by"], _load(row)) for row in rows)

    async def own_calls(
        self, *, run_ids: Collection[str] | None, model: str | None, since: datetime | None, until: datetime | None
    ) -> list[OwnCall] | None:
        """Calls of these runs or a span that reached a replica and have ended; None where they are too many."""
        statement = sa.select(calls.c.replica, calls.c.started_at, calls.c.queue_s, calls.c.ended_at).where(
            calls.c.replica.is_not(None), calls.c.ended_at.is_not(None)
        )
        if run_ids is not None:
            statement = statement.where(calls.c.run_id.in_(run_ids))
        if model is not None:
            statement = statement.where(calls.c.model == model)
        if since is not None:
            statement = statement.where(calls.c.ended_at >= since)
        if until is not None:
            statement = statement.where(calls.c.started_at <= until)
        found: list[OwnCall] = []
        async with self._transaction() as connection:
            rows = await connection.execute(statement.limit(MOST_CALLS + 1))
            for some in rows.partitions(CALLS_AT_ONCE):  # each is made of what the database gave when it is asked for
                found += [
                    OwnCall(replica, started_at + timedelta(seconds=queue_s or 0), ended_at)
                    for replica, started_at, queue_s, ended_at in some
                ]
                await asyncio.sleep(0)
        return None if len(found) > MOST_CALLS else found

    async def remove_some_loads(self, before: datetime) -> int:
        """Remove rows of spans that began before a moment, a transaction's worth; how many."""
        key = list(engine_loads.primary_key.columns)
        some = sa.select(*key).where(engine_loads.c.starts_at < before).limit(LOADS_AT_ONCE)
        by_key = sa.delete(engine_loads).where(*(column == sa.bindparam(f"of_{column.name}") for column in key))
        async with self._transaction() as connection:
            found = (await connection.execute(some)).all()
            values = [{f"of_{k.name}": value for k, value in zip(key, row, strict=True)} for row in found]
            if values:
                await connection.execute(by_key, values)
        return len(found)


def span_start(at: datetime, span_s: int) -> datetime:
    """The start of the span of so many seconds of UTC's day that a moment lies in."""
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(seconds=(at - midnight) // timedelta(seconds=span_s) * span_s)


def _upsert_reports(insert: sqlite.Insert | postgresql.Insert) -> sa.Insert:
    new, old = insert.excluded, engine_reports.c
    is_later = new.last_seen >= old.last_seen
    replaced = {
        name: sa.case((is_later, new[name]), else_=old[name])
        for name in ("last_seen", "replica", "gpu", "gpus", "provenance_reason")
    }
    replaced["first_seen"] = sa.case((new.first_seen < old.first_seen, new.first_seen), else_=old.first_seen)
    upsert: sa.Insert = insert.on_conflict_do_update(index_elements=["id"], set_=replaced)
    return upsert


def _upsert_loads(insert: sqlite.Insert | postgresql.Insert) -> sa.Insert:
    key = [column.name for column in engine_loads.primary_key.columns]
    replaced = {column.name: insert.excluded[column.name] for column in engine_loads.columns if column.name not in key}
    upsert: sa.Insert = insert.on_conflict_do_update(index_elements=key, set_=replaced)
    return upsert


_KINDS = (("sqlite", sqlite), ("postgresql", postgresql))
_REPORTS = {kind: _upsert_reports(of.insert(engine_reports)) for kind, of in _KINDS}
_LOADS = {kind: _upsert_loads(of.insert(engine_loads)) for kind, of in _KINDS}


def _report_row(report: EngineReport) -> dict[str, Any]:
    row = {each.name: getattr(report, each.name) for each in fields(report) if each.name != "resolved"}
    facts = msgspec.to_builtins(report.resolved)
    return row | {"provenance": report.provenance.value, "version": report.resolved.version, "facts": facts}


def _report(row: Any) -> EngineReport:
    facts = {each.name: row[each.name] for each in fields(EngineReport) if each.name != "resolved"}
    facts["provenance"] = Provenance(row["provenance"])
    return EngineReport(**facts, resolved=msgspec.convert(row["facts"], ResolvedEngine))


def _load_row(row: LoadRow) -> dict[str, Any]:
    key = {"report": row.report, "seen_by": row.seen_by, "starts_at": row.starts_at, "span_s": row.span_s}
    return key | {name: getattr(row.load, name) for name in LOAD_FIELDS}


def _load(row: Any) -> ObservedLoad:
    return ObservedLoad(**{name: row[name] for name in LOAD_FIELDS})
