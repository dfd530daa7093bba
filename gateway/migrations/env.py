"""What Alembic runs for every command: it works on the connection that `schema_steps` hands it, and on no other.

There is no alembic.ini: `simsa db` and the gateway's own start are the entrances. After each step, in the same
transaction, the database is told which code may run on it now.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationInfo
from sqlalchemy.engine import Connection

from gateway.schema_steps import write_oldest_code
from gateway.tables import metadata

connection: Connection = context.config.attributes["connection"]


def note_oldest_code(*, step: MigrationInfo, **_others: Any) -> None:
    for script in step.destination_revisions:
        write_oldest_code(connection, script)


context.configure(
    connection=connection,
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
    on_version_apply=note_oldest_code,
)
with context.begin_transaction():
    context.run_migrations()
