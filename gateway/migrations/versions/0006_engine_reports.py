"""What engines resolved at start, and what looks at them showed under load.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None

MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
COUNTS = ("peak_running", "peak_waiting", "peak_own_calls")
COUNTERS = ("preemptions", "prefix_queries", "prefix_hits", "prompt_tokens", "generation_tokens")


def upgrade() -> None:
    op.create_table(
        "engine_reports",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("gpu", sa.Text()),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("provenance_reason", sa.Text(), nullable=False),
        sa.Column("first_seen", MOMENT, nullable=False),
        sa.Column("last_seen", MOMENT, nullable=False),
        sa.Column("version", sa.Text()),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_engine_reports"),
    )
    op.create_index("ix_engine_reports_model", "engine_reports", ["model"])
    op.create_table(
        "engine_loads",
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("seen_by", sa.Text(), nullable=False),
        sa.Column("starts_at", MOMENT, nullable=False),
        sa.Column("span_s", sa.Integer(), nullable=False),
        sa.Column("looks", sa.BigInteger(), nullable=False),
        sa.Column("first_look", MOMENT, nullable=False),
        sa.Column("last_look", MOMENT, nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in COUNTS),
        sa.Column("peak_kv_usage", sa.Double()),
        sa.Column("looks_waiting", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in COUNTERS),
        sa.Column("restarts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("report", "seen_by", "starts_at", "span_s", name="pk_engine_loads"),
    )


def downgrade() -> None:
    op.drop_table("engine_loads")
    op.drop_index("ix_engine_reports_model", "engine_reports")
    op.drop_table("engine_reports")
