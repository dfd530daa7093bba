"""The digests of what was on the reviewer's screen, which the chain of votes covers.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("round_votes", sa.Column("shown", sa.JSON()))


def downgrade() -> None:
    op.drop_column("round_votes", "shown")
