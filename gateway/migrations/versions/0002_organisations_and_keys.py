"""Organisations and their keys, and whose each call and comparison is.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.JSON()

NEW_IN_CALLS: dict[str, sa.types.TypeEngine[Any]] = {
    "organisation": sa.Text(),
    "key": sa.Text(),
    "prompt_estimate": sa.BigInteger(),
    "charged_tokens": sa.BigInteger(),
}


def upgrade() -> None:
    for name, kind in NEW_IN_CALLS.items():
        op.add_column("calls", sa.Column(name, kind))
    op.create_index("ix_calls_organisation_started_at", "calls", ["organisation", "started_at"])
    op.add_column("comparisons", sa.Column("organisation", sa.Text()))
    op.create_index("ix_comparisons_organisation", "comparisons", ["organisation"])
    _create_accounts()


def downgrade() -> None:
    for table in ("account_changes", "api_keys", "organisations"):
        op.drop_table(table)
    op.drop_index("ix_comparisons_organisation", "comparisons")
    op.drop_column("comparisons", "organisation")
    op.drop_index("ix_calls_organisation_started_at", "calls")
    for name in NEW_IN_CALLS:
        op.drop_column("calls", name)


def _create_accounts() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_organisations"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
        sa.Column("terms", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["organisation"], ["organisations.id"], name="fk_api_keys_organisation"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_index("ix_api_keys_organisation", "api_keys", ["organisation"])
    changes = op.create_table(
        "account_changes",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account_changes"),
    )
    op.bulk_insert(changes, [{"id": 1, "count": 0}])
