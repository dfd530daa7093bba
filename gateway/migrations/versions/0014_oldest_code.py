"""Which code may still run on the schema, so that gateways of two versions can share a database during an upgrade.

Code from before this step runs on no schema that it does not know. Types are spelled out here and not taken from
`gateway.schema_steps`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | None = None
depends_on: str | None = None
oldest_code: str = "0014"


def upgrade() -> None:
    op.create_table(
        "oldest_code",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_oldest_code"),
    )


def downgrade() -> None:
    op.drop_table("oldest_code")
