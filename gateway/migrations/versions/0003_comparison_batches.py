"""Batches of comparisons: what was asked for, the prompts with their texts, and how far each item has come.

A comparison says for which item of which batch it was made.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.JSON()


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("models", JSON, nullable=False),
        sa.Column("params", JSON, nullable=False),
        sa.Column("schedule", sa.Text()),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("key", sa.Text()),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.UniqueConstraint("organisation", "name", name="uq_batches_organisation"),
    )
    op.create_index("ix_batches_created_at", "batches", ["created_at"])
    op.create_table(
        "batch_prompts",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.Text(), nullable=False),
        sa.Column("messages", JSON, nullable=False),
        sa.Column("max_tokens", sa.Integer()),
        sa.PrimaryKeyConstraint("batch_id", "position", name="pk_batch_prompts"),
        _belongs_to_batch("batch_prompts"),
    )
    op.create_table(
        "batch_items",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("repeat", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("comparison_id", sa.Text()),
        sa.Column("error", JSON),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_items"),
        _belongs_to_batch("batch_items"),
    )
    op.create_index("ix_batch_items_turn", "batch_items", ["batch_id", "status", "number"])
    op.add_column("comparisons", sa.Column("batch_id", sa.Text()))
    op.add_column("comparisons", sa.Column("batch_item", sa.Integer()))
    op.create_index("ix_comparisons_batch_id", "comparisons", ["batch_id"])


def downgrade() -> None:
    op.drop_index("ix_comparisons_batch_id", "comparisons")
    op.drop_column("comparisons", "batch_item")
    op.drop_column("comparisons", "batch_id")
    for table in ("batch_items", "batch_prompts", "batches"):
        op.drop_table(table)


def _belongs_to_batch(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=f"fk_{table}_batch_id", ondelete="CASCADE")
