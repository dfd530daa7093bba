"""Which gateway a call is open in, and the sessions of those who run rounds: several gateways may serve a database.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | None = None
depends_on: str | None = None
oldest_code: str = "0014"

MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.add_column("calls", sa.Column("gateway", sa.Integer()))
    op.create_table(
        "chair_sessions",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("key", sa.Text()),
        sa.Column("ends_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_chair_sessions"),
    )


def downgrade() -> None:
    op.drop_table("chair_sessions")
    op.drop_column("calls", "gateway")
