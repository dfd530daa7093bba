"""Which names a round's answers were redacted with, so that it is sealed with no others.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("lexicon", sa.Text()))


def downgrade() -> None:
    op.drop_column("rounds", "lexicon")
