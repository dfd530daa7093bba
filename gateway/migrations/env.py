"""What Alembic runs for every command: it works on the connection that `gateway.store` hands it, and on no other.

There is no alembic.ini: `simsa db upgrade` and the gateway's own start are the two entrances.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

from gateway.tables import metadata

connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
