"""Taking a schema back to an earlier step, for an older version of Simsa that does not know the later ones.

Whatever an earlier schema has no place for is lost, so it is counted first, and not lost unless that was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.backup import SEEDED
from gateway.database import alone_with, shown_url, usable_schema
from gateway.errors import StartRefused
from gateway.schema_steps import step_down, steps, tables_at
from gateway.settings import DatabaseLimits


@dataclass(frozen=True, slots=True)
class GoneBack:
    before: str
    after: str
    lost: Sequence[str]
    """What was lost, in words."""


async def go_back(text: str, revision: str, limits: DatabaseLimits, *, accept_loss: bool) -> GoneBack:
    """Take the schema of the database at a URL back to a step. Raises StartRefused while any gateway has it."""
    async with alone_with(text, limits, doing="taken back") as connection:
        return await connection.run_sync(_go_back_on, revision, accept_loss)


def _go_back_on(connection: Connection, revision: str, accept_loss: bool) -> GoneBack:
    before = usable_schema(connection).revision
    shown, known = shown_url(connection), steps()
    if before is None:
        raise StartRefused(f"database {shown} has no tables yet: there is nothing to take back")
    if before not in known:
        raise StartRefused(f"database {shown} has schema {before}: only a version that knows it can take it back")
    if revision not in known[: known.index(before) + 1]:
        earlier = f"one from {known[0]} to {before}"
        raise StartRefused(f"database {shown} has schema {before}: expected {earlier} to go back to, got '{revision}'")
    lost = _losses(connection, before, revision)
    if lost and not accept_loss:
        raise StartRefused(
            f"database {shown}: schema {revision} has no place for {', '.join(lost)}: back the database up, then say "
            "--accept-loss"
        )
    step_down(connection, revision)
    return GoneBack(before, revision, lost)


def _losses(connection: Connection, before: str, after: str) -> list[str]:
    """What there is in tables and columns that the earlier schema does not have."""
    kept = tables_at(after)
    found = []
    for table, columns in tables_at(before).items():
        if table not in kept:
            count = 0 if table == SEEDED else _count(connection, table, sa.func.count())
            found += [f"{table} ({count:,} rows)"] if count else []
            continue
        for column in (name for name in columns if name not in kept[table]):
            count = _count(connection, table, sa.func.count(sa.column(column)))
            found += [f"{table}.{column} ({count:,} values)"] if count else []
    return found


def _count(connection: Connection, table: str, what: sa.ColumnElement[int]) -> int:
    return int(connection.execute(sa.select(what).select_from(sa.table(table))).scalar_one())
