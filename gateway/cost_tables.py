"""The tables of settlement: when replicas were there, which windows are due, what each window and call cost.

Columns only. Statements belong in `settled_shares`, `settlements` and `cost_sums`. A window is named by what is paid
for (replica, its GPU and how many) and by the minute of UTC in which it begins.
"""

from __future__ import annotations

import sqlalchemy as sa

from gateway.tables import Moment, Money, metadata


def _window_key() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("replica", sa.Text, primary_key=True),
        sa.Column("gpu", sa.Text, primary_key=True),
        sa.Column("gpus", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("window_at", Moment, primary_key=True),
    )


replica_presences = sa.Table(
    "replica_presences",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("replica", sa.Text, nullable=False),
    sa.Column("gpu", sa.Text, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("until", Moment, nullable=False),  # when it was last seen up: moves on while it is
    sa.Index("ix_replica_presences_replica_until", "replica", "until"),
)

call_shares = sa.Table(
    "call_shares",
    metadata,
    *_window_key(),
    sa.Column("call_id", sa.Text, primary_key=True, index=True),
    sa.Column("cost_nanos", sa.BigInteger),  # null until the window is settled, or where it has no price
    sa.Column("currency", sa.Text),
)

unsettled_windows = sa.Table(
    "unsettled_windows",
    metadata,
    *_window_key(),
    sa.Index("ix_unsettled_windows_window_at", "window_at"),
)

settled_windows = sa.Table(
    "settled_windows",
    metadata,
    *_window_key(),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("paid_us", sa.BigInteger, nullable=False),
    sa.Column("busy_us", sa.BigInteger, nullable=False),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("money_nanos", sa.BigInteger),
    sa.Column("busy_nanos", sa.BigInteger),
    sa.Column("idle_nanos", sa.BigInteger),
    sa.Column("currency", sa.Text),
    sa.Column("price_per_hour", Money),
    sa.Column("price_tier", sa.Text),
    sa.Column("price_provider", sa.Text),
    sa.Column("price_on", sa.Date),
    sa.Column("price_source", sa.Text),
    sa.Column("weight", Money, nullable=False),
    sa.Column("weight_basis", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),  # why there is no money, where there is none
    sa.Index("ix_settled_windows_model_day", "model", "day"),
)

prompt_weights = sa.Table(
    "prompt_weights",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("gpu", sa.Text, primary_key=True),
    sa.Column("provenance", sa.Text, primary_key=True),  # of the engine that was measured: it counts for no other kind
    sa.Column("measured_at", Moment, primary_key=True),
    sa.Column("weight", Money, nullable=False),
    sa.Column("cells", sa.Integer, nullable=False),
    sa.Column("r_squared", sa.Double, nullable=False),
    sa.Column("standard_error", sa.Double, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
)
