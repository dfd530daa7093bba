"""The salt behind which the chain of votes hides what reviewers wrote in their own words.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("round_votes", sa.Column("salt", sa.Text()))


def downgrade() -> None:
    op.drop_column("round_votes", "salt")
