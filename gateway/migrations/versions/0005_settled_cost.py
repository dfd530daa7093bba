"""What GPU time cost once it is settled: when a call was dispatched and to what, when replicas were there, windows.

Calls of before have no moment of dispatch: they keep the provisional cost that they have. Types are spelled out here
and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

EXACT = sa.Text().with_variant(sa.Numeric(), "postgresql")
MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
CALL_COLUMNS = ("dispatched_at", "gpu", "gpus", "settled_cost", "settled_currency")


def upgrade() -> None:
    op.add_column("calls", sa.Column("dispatched_at", MOMENT))
    op.add_column("calls", sa.Column("gpu", sa.Text()))
    op.add_column("calls", sa.Column("gpus", sa.Integer()))
    op.add_column("calls", sa.Column("settled_cost", EXACT))
    op.add_column("calls", sa.Column("settled_currency", sa.Text()))
    has_no_settled_cost = sa.text("gpu IS NOT NULL AND settled_cost IS NULL")
    op.create_index(
        "ix_calls_unsettled_started_at",
        "calls",
        ["started_at"],
        sqlite_where=has_no_settled_cost,
        postgresql_where=has_no_settled_cost,
    )
    op.create_table(
        "replica_presences",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replica_presences"),
    )
    op.create_index("ix_replica_presences_replica_until", "replica_presences", ["replica", "until"])
    op.create_table(
        "call_shares",
        *_window_key(),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("cost_nanos", sa.BigInteger()),
        sa.Column("currency", sa.Text()),
        sa.PrimaryKeyConstraint("replica", "gpu", "gpus", "window_at", "call_id", name="pk_call_shares"),
    )
    op.create_index("ix_call_shares_call_id", "call_shares", ["call_id"])
    op.create_table(
        "unsettled_windows",
        *_window_key(),
        sa.PrimaryKeyConstraint("replica", "gpu", "gpus", "window_at", name="pk_unsettled_windows"),
    )
    op.create_index("ix_unsettled_windows_window_at", "unsettled_windows", ["window_at"])
    op.create_table(
        "settled_windows",
        *_window_key(),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("paid_us", sa.BigInteger(), nullable=False),
        sa.Column("busy_us", sa.BigInteger(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("money_nanos", sa.BigInteger()),
        sa.Column("busy_nanos", sa.BigInteger()),
        sa.Column("idle_nanos", sa.BigInteger()),
        sa.Column("currency", sa.Text()),
        sa.Column("price_per_hour", EXACT),
        sa.Column("price_tier", sa.Text()),
        sa.Column("price_provider", sa.Text()),
        sa.Column("price_on", sa.Date()),
        sa.Column("price_source", sa.Text()),
        sa.Column("weight", EXACT, nullable=False),
        sa.Column("weight_basis", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("replica", "gpu", "gpus", "window_at", name="pk_settled_windows"),
    )
    op.create_index("ix_settled_windows_day", "settled_windows", ["day"])
    op.create_index("ix_settled_windows_model_day", "settled_windows", ["model", "day"])
    op.create_table(
        "prompt_weights",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("measured_at", MOMENT, nullable=False),
        sa.Column("weight", EXACT, nullable=False),
        sa.Column("cells", sa.Integer(), nullable=False),
        sa.Column("r_squared", sa.Double(), nullable=False),
        sa.Column("standard_error", sa.Double(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model", "gpu", "provenance", "measured_at", name="pk_prompt_weights"),
    )


def downgrade() -> None:
    for table in ("prompt_weights", "settled_windows", "unsettled_windows", "call_shares", "replica_presences"):
        op.drop_table(table)
    op.drop_index("ix_calls_unsettled_started_at", "calls")
    for column in reversed(CALL_COLUMNS):
        op.drop_column("calls", column)


def _window_key() -> tuple[sa.Column[str], sa.Column[str], sa.Column[int], sa.Column[object]]:
    return (
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("window_at", MOMENT, nullable=False),
    )
