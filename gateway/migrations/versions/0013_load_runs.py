"""Load runs that are kept.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | None = None
depends_on: str | None = None

MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
INDEXED = ("model", "began_at")


def upgrade() -> None:
    op.create_table(
        "load_runs",
        sa.Column("id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("sha256", "name", "state", "model", "provenance")),
        sa.Column("gpu", sa.Text()),
        sa.Column("gpus", sa.Integer()),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("kept_at", MOMENT, nullable=False),
        sa.Column("kept_by", sa.Text()),
        sa.Column("organisation", sa.Text()),
        sa.Column("withdrawn_at", MOMENT),
        sa.Column("withdrawn_by", sa.Text()),
        sa.Column("withdrawn_why", sa.Text()),
        sa.Column("findings", sa.LargeBinary(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_load_runs"),
    )
    for name in INDEXED:
        op.create_index(f"ix_load_runs_{name}", "load_runs", [name])


def downgrade() -> None:
    op.drop_table("load_runs")
