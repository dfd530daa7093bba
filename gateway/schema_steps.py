"""The steps of the schema that this version knows, what a database says of its own schema, and whether the two fit.

Each step names in `oldest_code` the oldest version of the code, by its newest step, that may run once it was taken. The
database keeps that beside its revision, so that code which does not know a step can tell whether it may go on. When
steps are taken belongs in `database`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy.engine import Connection

from gateway.tables import metadata

BASE = "base"
"""Before the first step."""
HEAD = "head"
"""After the last one."""

oldest_code = sa.Table(
    "oldest_code",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # there is one row
    sa.Column("revision", sa.Text, nullable=False),
)
_OF_THE_SCHEMA = ("alembic_version", oldest_code.name)
"""Tables that say what the schema is, and hold nothing that anybody wrote."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database says of its schema."""

    revision: str | None
    """The last step that was taken; None where there are no tables yet."""
    oldest_code: str | None
    """The oldest code that may run on it; None where it says nothing, as before step 0014."""


class Fit(StrEnum):
    """How a database's schema stands to the code of this version."""

    EMPTY = "empty"
    OLDER = "older"
    SAME = "same"
    NEWER = "newer"
    """This version does not know it, and may run on it."""
    TOO_NEW = "too new"


MAY_RUN = frozenset({Fit.SAME, Fit.NEWER})


@cache
def steps() -> tuple[str, ...]:
    """The revisions that this version knows, the oldest first. The last is the code's own."""
    return tuple(reversed([step.revision for step in ScriptDirectory.from_config(migrations()).walk_revisions()]))


def fit_of(schema: Schema) -> Fit:
    known = steps()
    if schema.revision is None:
        return Fit.EMPTY
    if schema.revision in known:
        return Fit.SAME if schema.revision == known[-1] else Fit.OLDER
    return Fit.NEWER if schema.oldest_code in known else Fit.TOO_NEW


def left_behind(schema: Schema) -> tuple[str, ...]:
    """The code that may run on this schema, and may not once it is brought up to date."""
    known = steps()
    if schema.oldest_code not in known:
        return ()
    newest = ScriptDirectory.from_config(migrations()).get_revision(HEAD)
    return known[known.index(schema.oldest_code) : known.index(oldest_code_after(newest))]


def oldest_code_after(step: Script) -> str:
    """What the step declares; where it declares nothing, only code that knows it may run."""
    declared: str = getattr(step.module, oldest_code.name, step.revision)
    return declared


def read_schema(connection: Connection) -> Schema:
    revision = MigrationContext.configure(connection).get_current_revision()
    if not sa.inspect(connection).has_table(oldest_code.name):
        return Schema(revision, None)
    return Schema(revision, connection.execute(sa.select(oldest_code.c.revision)).scalar())


def write_oldest_code(connection: Connection, step: Script) -> None:
    """Note which code may run from here on, where the schema has a place for it."""
    if sa.inspect(connection).has_table(oldest_code.name):
        connection.execute(sa.delete(oldest_code))
        connection.execute(sa.insert(oldest_code).values(id=1, revision=oldest_code_after(step)))


# --- taking steps -------------------------------------------------------------------------------------------


def migrations() -> Config:
    """Alembic's configuration; a connection goes into `attributes["connection"]` before a command is run."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def step_up(connection: Connection, revision: str = HEAD) -> None:
    """Take the steps to a revision, in the connection's transaction."""
    command.upgrade(_on(connection), revision)


def step_down(connection: Connection, revision: str) -> None:
    """Take steps back to a revision, in the connection's transaction. What only later ones had a place for is lost."""
    command.downgrade(_on(connection), revision)


def _on(connection: Connection) -> Config:
    config = migrations()
    config.attributes["connection"] = connection
    return config


@cache
def tables_at(revision: str) -> Mapping[str, tuple[str, ...]]:
    """The columns of each table after a step; tables that others refer to come first."""
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            step_up(connection, revision)
            found = sa.inspect(connection)
            names = [name for name, _ in found.get_sorted_table_and_fkc_names() if name is not None]
            return {
                name: tuple(column["name"] for column in found.get_columns(name))
                for name in names
                if name not in _OF_THE_SCHEMA
            }
    finally:
        engine.dispose()
