"""Which names a round's answers were redacted with, and whose words may be published, by whom cleared.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None

MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.add_column("rounds", sa.Column("lexicon", sa.Text()))
    op.create_table(
        "round_clearances",
        sa.Column("round_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("round_id", "number", name="pk_round_clearances"),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_round_clearances_round_id_rounds"),
    )


def downgrade() -> None:
    op.drop_table("round_clearances")
    op.drop_column("rounds", "lexicon")
