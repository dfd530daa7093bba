"""What GPUs' energy counters showed, by replica and minute.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None

MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
SUMS = (
    *("readings", "up_us", "covered_us", "millijoules", "counted_millijoules"),
    *("output_tokens", "resets"),
)


def upgrade() -> None:
    op.create_table(
        "energy_minutes",
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("minute_at", MOMENT, nullable=False),
        sa.Column("seen_by", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("replica", "model", "provenance", "minute_at", "seen_by", name="pk_energy_minutes"),
    )
    op.create_index("ix_energy_minutes_day", "energy_minutes", ["day"])


def downgrade() -> None:
    op.drop_index("ix_energy_minutes_day", "energy_minutes")
    op.drop_table("energy_minutes")
