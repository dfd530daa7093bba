"""A database into a backup file, and a backup file into a database, of either kind and of any schema that is known.

A backup is what the database held at one moment, while gateways go on writing. A restore puts the rows into the schema
that they had and takes the steps from there, all in one transaction. The file's form belongs in `backup_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import __version__
from gateway.backup_file import FORMAT, KIND, ROWS_AT_ONCE, BackupWriter, Header, Rows, new_backup, opened_backup
from gateway.database import alone_with, one_moment_of, shown_url, usable_schema
from gateway.errors import StartRefused
from gateway.schema_steps import BASE, read_schema, step_down, step_up, steps, tables_at
from gateway.settings import DatabaseLimits

Maker = Callable[[Any], Any]
SEEDED = "account_changes"
"""The table in which a step puts a row itself."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup has, or a restore has put back."""

    revision: str
    """The schema of the file."""
    rows: Mapping[str, int]
    """By table."""


# --- backup -------------------------------------------------------------------------------------------------


async def back_up(text: str, path: Path, limits: DatabaseLimits, *, now: datetime) -> Copied:
    """Write the database at a URL into a new file. Gateways may go on. Raises StartRefused."""
    async with one_moment_of(text, limits, doing="backed up") as connection:
        revision = await connection.run_sync(_known_revision)
        made = {"made_at": now.isoformat(timespec="seconds"), "made_by": __version__}
        header = Header(kind=KIND, format=FORMAT, revision=revision, database=connection.dialect.name, **made)
        with new_backup(path, header) as writer:
            for table, columns in tables_at(revision).items():
                await _write_table(connection, writer, table, columns)
        return Copied(revision, writer.rows)


def _known_revision(connection: Connection) -> str:
    """Raises StartRefused: what has steps that this version does not know may have tables that it would leave out."""
    schema = usable_schema(connection)
    if schema.revision is None:
        raise StartRefused(f"database {shown_url(connection)} has no tables yet: there is nothing to back up")
    if schema.revision not in steps():
        raise StartRefused(
            f"database {shown_url(connection)} has schema {schema.revision}, which this version of simsa does not "
            "know: back it up with the version that it was upgraded to"
        )
    return schema.revision


async def _write_table(connection: AsyncConnection, writer: BackupWriter, table: str, columns: Sequence[str]) -> None:
    kinds = await connection.run_sync(_column_types, table)
    picked = [_as_kept(sa.column(name), kinds[name]) for name in columns]
    writer.begin(table, columns)
    statement = sa.select(*picked).select_from(sa.table(table))
    result = await connection.stream(statement, execution_options={"yield_per": ROWS_AT_ONCE})
    async for rows in result.partitions():
        writer.add(rows)


def _as_kept(column: sa.ColumnClause[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """JSON as the text that it is, to the letter: PostgreSQL's driver would read it, and SQLite has numbers of it."""
    return sa.cast(column, sa.Text) if isinstance(kind, sa.JSON) else column


def _column_types(connection: Connection, table: str) -> dict[str, sa.types.TypeEngine[Any]]:
    return {column["name"]: column["type"] for column in sa.inspect(connection).get_columns(table)}


# --- restore ------------------------------------------------------------------------------------------------


async def restore(text: str, path: Path, limits: DatabaseLimits, *, replace: bool) -> Copied:
    """Put a backup into the database at a URL, with the schema of this version; all of it or nothing.

    `replace`: remove the rows that are there. Raises StartRefused: where a gateway has the database, where there are
    rows and none may be removed, and where the file is no whole backup of a schema that this version knows.
    """
    with opened_backup(path) as backup:
        header = backup.header
        if header.revision not in steps():
            raise StartRefused(
                f"{path} has schema {header.revision}, which this version of simsa does not know: restore it with "
                f"the version that made it ({header.made_by}), or a newer one"
            )
        async with alone_with(text, limits, doing="restored") as connection:
            await connection.run_sync(_make_room, header.revision, replace)
            await put_rows(connection, backup)
            await connection.run_sync(step_up)
        return Copied(header.revision, backup.rows)


def _make_room(connection: Connection, revision: str, replace: bool) -> None:
    """Leave the schema as it is after this step, and no row."""
    found = read_schema(connection).revision
    if found is not None:
        _refuse_rows(connection, found, may_remove=replace)
        _remove_rows(connection, found)
        step_down(connection, BASE)
    step_up(connection, revision)
    _remove_rows(connection, revision)


def _refuse_rows(connection: Connection, revision: str, *, may_remove: bool) -> None:
    shown = shown_url(connection)
    if revision not in steps():
        raise StartRefused(
            f"database {shown} has schema {revision}, which this version of simsa does not know: restore with a newer "
            "version, or into another database"
        )
    filled = [name for name in tables_at(revision) if name != SEEDED and _has_rows(connection, name)]
    if filled and not may_remove:
        raise StartRefused(
            f"database {shown} has rows ({', '.join(filled)}): restore into an empty one, or remove them with --replace"
        )


def _has_rows(connection: Connection, table: str) -> bool:
    return connection.execute(sa.select(sa.literal(1)).select_from(sa.table(table)).limit(1)).first() is not None


def _remove_rows(connection: Connection, revision: str) -> None:
    for name in reversed(tables_at(revision)):
        connection.execute(sa.delete(sa.table(name)))


async def put_rows(connection: AsyncConnection, backup: Iterable[Rows]) -> None:
    """Insert rows of a backup into tables that have their columns."""
    makers: dict[str, Mapping[str, Maker]] = {}
    for rows in backup:
        if rows.table not in makers:
            makers[rows.table] = await connection.run_sync(_makers_of, rows.table)
        await _insert(connection, rows, makers[rows.table])


async def _insert(connection: AsyncConnection, rows: Rows, makers: Mapping[str, Maker]) -> None:
    if unknown := [name for name in rows.columns if name not in makers]:
        raise StartRefused(f"the backup has columns of {rows.table} that its schema does not know: {unknown}")
    insert = sa.insert(sa.table(rows.table, *(sa.column(name) for name in rows.columns)))
    made = [makers[name] for name in rows.columns]
    values = [
        {
            name: value if value is None else make(value)
            for name, value, make in zip(rows.columns, row, made, strict=True)
        }
        for row in rows.values
    ]
    await connection.execute(insert, values)


def _makers_of(connection: Connection, table: str) -> dict[str, Maker]:
    """By column: what makes the value that the driver wants there. SQLite's takes all as it stands."""
    is_strict = connection.dialect.name == "postgresql"
    return {name: _maker(kind) if is_strict else _as_is for name, kind in _column_types(connection, table).items()}


def _maker(kind: sa.types.TypeEngine[Any]) -> Maker:
    return next((make for of_kind, make in _MAKERS if isinstance(kind, of_kind)), _as_is)


def _as_is(value: Any) -> Any:
    return value


_MAKERS: tuple[tuple[type[sa.types.TypeEngine[Any]], Maker], ...] = (
    (sa.DateTime, datetime.fromisoformat),
    (sa.Date, date.fromisoformat),
    (sa.Boolean, bool),
    (sa.Float, float),
    (sa.Numeric, Decimal),
)
