"""The tables of settlement: when replicas were there, which windows are due, what each window, call and day cost.

Columns only. Statements belong in `settled_shares`, `settlements`, `gpu_days`, `kept_minutes` and `cost_sums`. A window
is named by what is paid for (replica, its GPU and how many) and by the minute of UTC in which it begins.
"""

from __future__ import annotations

import sqlalchemy as sa

from gateway.tables import Moment, Money, Total, metadata


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

refused_windows = sa.Table(
    "refused_windows",
    metadata,
    *_window_key(),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("refused_under", sa.Text, nullable=False),  # fingerprint of the GPU's prices then: others open it again
    sa.Index("ix_refused_windows_gpu_refused_under", "gpu", "refused_under"),
    sa.Index("ix_refused_windows_window_at", "window_at"),
)

settlement_horizon = sa.Table(
    "settlement_horizon",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # there is one row at most
    sa.Column("open_since", Moment, nullable=False),  # windows before it are closed: nothing opens them again
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

gpu_days = sa.Table(
    "gpu_days",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),  # digest of the facts below: some of them may be NULL
    sa.Column("replica", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("gpu", sa.Text, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("currency", sa.Text),
    sa.Column("price_per_hour", Money),
    sa.Column("price_tier", sa.Text),
    sa.Column("price_provider", sa.Text),
    sa.Column("price_on", sa.Date),
    sa.Column("price_source", sa.Text),
    sa.Column("weight", Money, nullable=False),
    sa.Column("weight_basis", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    *(
        sa.Column(name, Total, nullable=False)
        for name in ("windows", "paid_us", "busy_us", "money_nanos", "busy_nanos", "idle_nanos")
    ),
    # of windows whose rows were removed: what they charged to calls that have no settled cost
    sa.Column("unattributed_nanos", Total, nullable=False),
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
