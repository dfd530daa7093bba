"""The first tables: calls, comparisons with their sides, and the texts of comparisons apart from both.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
MONEY = sa.Text().with_variant(sa.Numeric(), "postgresql")
JSON = sa.JSON()

CALL_INDEXES = ("started_at", "model", "comparison_id", "run_id", "status")


def upgrade() -> None:
    _create_calls()
    _create_comparisons()


def downgrade() -> None:
    for table in ("comparison_sides", "comparison_contents", "comparisons", "calls"):
        op.drop_table(table)


def _create_calls() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("comparison_id", sa.Text()),
        sa.Column("run_id", sa.Text()),
        sa.Column("client_retry", sa.Integer()),
        sa.Column("ended_at", MOMENT),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("http_status", sa.Integer()),
        sa.Column("replica", sa.Text()),
        sa.Column("provenance", sa.Text()),
        sa.Column("attempts", sa.Integer()),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("finish_reason", sa.Text()),
        sa.Column("prompt_tokens", sa.BigInteger()),
        sa.Column("completion_tokens", sa.BigInteger()),
        sa.Column("cached_tokens", sa.BigInteger()),
        sa.Column("reasoning_tokens", sa.BigInteger()),
        sa.Column("usage_source", sa.Text()),
        sa.Column("queue_s", sa.Double()),
        sa.Column("ttft_s", sa.Double()),
        sa.Column("ttfot_s", sa.Double()),
        sa.Column("tpot_s", sa.Double()),
        sa.Column("e2e_s", sa.Double()),
        sa.Column("overhead_s", sa.Double()),
        sa.Column("token_events", sa.BigInteger()),
        sa.Column("first_event_tokens", sa.BigInteger()),
        sa.Column("first_event_source", sa.Text()),
        sa.Column("cost_amount", MONEY),
        sa.Column("cost_currency", sa.Text()),
        sa.Column("cost_basis", sa.Text()),
        sa.Column("cost_reason", sa.Text()),
        sa.Column("feasibility", sa.Text()),
        sa.Column("feasibility_gpu", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
    )
    for column in CALL_INDEXES:
        op.create_index(f"ix_calls_{column}", "calls", [column])


def _create_comparisons() -> None:
    op.create_table(
        "comparisons",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("params", JSON, nullable=False),
        sa.Column("timing_comparable", sa.Boolean()),
        sa.Column("timing_reason", sa.Text()),
        sa.Column("summary", JSON),
        sa.PrimaryKeyConstraint("id", name="pk_comparisons"),
    )
    op.create_index("ix_comparisons_created_at", "comparisons", ["created_at"])
    op.create_table(
        "comparison_contents",
        sa.Column("comparison_id", sa.Text(), nullable=False),
        sa.Column("messages", JSON, nullable=False),
        sa.Column("outputs", JSON, nullable=False),
        sa.PrimaryKeyConstraint("comparison_id", name="pk_comparison_contents"),
        _belongs_to_comparison("comparison_contents"),
    )
    op.create_table(
        "comparison_sides",
        sa.Column("comparison_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("finish_reason", sa.Text()),
        sa.Column("error", JSON),
        sa.Column("facts", JSON, nullable=False),
        sa.PrimaryKeyConstraint("comparison_id", "position", name="pk_comparison_sides"),
        _belongs_to_comparison("comparison_sides"),
    )
    op.create_index("ix_comparison_sides_model", "comparison_sides", ["model"])


def _belongs_to_comparison(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["comparison_id"], ["comparisons.id"], name=f"fk_{table}_comparison_id", ondelete="CASCADE"
    )
