"""GPU time and spending summed up by day, windows that were refused, and the horizon before which windows are closed.

The sums are made of all windows and calls so far. Going back, the sums of days whose minutes were removed are lost.
Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None

EXACT = sa.Text().with_variant(sa.Numeric(), "postgresql")
MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
WINDOW_KEY: dict[str, Any] = {"replica": sa.Text(), "gpu": sa.Text(), "gpus": sa.Integer(), "window_at": MOMENT}
FACTS: dict[str, tuple[Any, bool]] = {
    "replica": (sa.Text(), False),
    "model": (sa.Text(), False),
    "provenance": (sa.Text(), False),
    "gpu": (sa.Text(), False),
    "gpus": (sa.Integer(), False),
    "currency": (sa.Text(), True),
    "price_per_hour": (EXACT, True),
    "price_tier": (sa.Text(), True),
    "price_provider": (sa.Text(), True),
    "price_on": (sa.Date(), True),
    "price_source": (sa.Text(), True),
    "weight": (EXACT, False),
    "weight_basis": (sa.Text(), False),
    "reason": (sa.Text(), True),
}
NANOS = ("paid_us", "busy_us", "money_nanos", "busy_nanos", "idle_nanos")
SPENT_PLACE = ("run_id", "replica", "organisation", "model", "provenance", "currency", "cost_basis")
SPENT_SUMS = ("calls", "calls_without_cost", "prompt_tokens", "completion_tokens", "cached_tokens", "cost")
CALL_COLUMNS: dict[str, Any] = {
    "id": sa.Text(),
    "started_at": MOMENT,
    "status": sa.Text(),
    **dict.fromkeys(("run_id", "replica", "organisation", "model", "provenance"), sa.Text()),
    **dict.fromkeys(("cost_currency", "cost_basis", "settled_currency"), sa.Text()),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens"), sa.BigInteger()),
    **dict.fromkeys(("cost_amount", "settled_cost"), EXACT),
}
CALLS = sa.table("calls", *(sa.column(name, kind) for name, kind in CALL_COLUMNS.items()))
WINDOWS = sa.table(
    "settled_windows",
    sa.column("day", sa.Date()),
    sa.column("window_at", MOMENT),
    *(sa.column(name, kind) for name, (kind, _) in FACTS.items()),
    *(sa.column(name, sa.BigInteger()) for name in NANOS),
)
ROWS_AT_ONCE = 10_000


def upgrade() -> None:
    connection = op.get_bind()
    gpu_days = op.create_table(
        "gpu_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        *(sa.Column(name, kind, nullable=nullable) for name, (kind, nullable) in FACTS.items()),
        *(sa.Column(name, EXACT, nullable=False) for name in ("windows", *NANOS, "unattributed_nanos")),
        sa.PrimaryKeyConstraint("day", "kind", name="pk_gpu_days"),
    )
    spent = op.create_table(
        "spent_by_day",
        sa.Column("day", sa.Date(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in SPENT_PLACE),
        *(sa.Column(name, EXACT, nullable=False) for name in SPENT_SUMS),
        sa.PrimaryKeyConstraint("day", *SPENT_PLACE, name="pk_spent_by_day"),
    )
    refused = op.create_table(
        "refused_windows",
        *(sa.Column(name, kind, nullable=False) for name, kind in WINDOW_KEY.items()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("refused_under", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(*WINDOW_KEY, name="pk_refused_windows"),
    )
    op.create_index("ix_refused_windows_gpu_refused_under", "refused_windows", ["gpu", "refused_under"])
    op.create_index("ix_refused_windows_window_at", "refused_windows", ["window_at"])
    op.create_table(
        "settlement_horizon",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("open_since", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_settlement_horizon"),
    )
    op.create_index("ix_engine_loads_starts_at", "engine_loads", ["starts_at"])
    for table, rows in ((gpu_days, _days(connection)), (spent, _spent(connection))):
        if rows:
            op.bulk_insert(table, rows)
    columns = [WINDOWS.c[name] for name in WINDOW_KEY]
    without_price = sa.select(*columns, sa.func.coalesce(WINDOWS.c.reason, ""), sa.literal("before 0007")).where(
        WINDOWS.c.price_per_hour.is_(None)
    )
    op.execute(sa.insert(refused).from_select([*WINDOW_KEY, "reason", "refused_under"], without_price))


def downgrade() -> None:
    op.drop_index("ix_engine_loads_starts_at", "engine_loads")
    for table in ("settlement_horizon", "refused_windows", "spent_by_day", "gpu_days"):
        op.drop_table(table)


def _days(connection: sa.Connection) -> list[dict[str, Any]]:
    of_kind = [WINDOWS.c.day, *(WINDOWS.c[name] for name in FACTS)]
    sums = [sa.func.count(), *(sa.func.coalesce(sa.func.sum(WINDOWS.c[name]), 0) for name in NANOS)]
    stored = _as_stored(connection)
    found: dict[tuple[Any, ...], tuple[dict[str, Any], list[int]]] = {}
    for row in connection.execute(sa.select(*of_kind, *sums).group_by(*of_kind)):
        day, facts = row[0], dict(zip(FACTS, row[1 : 1 + len(FACTS)], strict=True))
        place, amounts = (day, _kind(facts)), [int(each) for each in row[1 + len(FACTS) :]]
        kept, before = found.get(place, (facts, [0] * len(amounts)))
        found[place] = kept, [old + new for old, new in zip(before, amounts, strict=True)]
    names = ("windows", *NANOS, "unattributed_nanos")
    return [
        {"day": day, "kind": kind, **facts, **dict(zip(names, map(stored, [*amounts, 0]), strict=True))}
        for (day, kind), (facts, amounts) in found.items()
    ]


def _kind(facts: Mapping[str, Any]) -> str:
    return sha256(json.dumps([_text(name, value) for name, value in facts.items()]).encode()).hexdigest()[:32]


def _text(name: str, value: Any) -> str | int | None:
    if value is not None and name in ("price_per_hour", "weight"):
        text = f"{Decimal(value):f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value) if isinstance(value, date) else value


def _spent(connection: sa.Connection) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], list[Any]] = {}
    with localcontext(prec=60):
        for row in _ended_calls(connection):
            amount, currency, basis = row["cost_amount"], row["cost_currency"], row["cost_basis"]
            if row["settled_cost"] is not None:
                amount, currency, basis = row["settled_cost"], row["settled_currency"], "gpu_time"
            texts = [row[name] or "" for name in SPENT_PLACE[:5]]
            place = (_day_of(row["started_at"]), *texts, currency or "", basis or "")
            tokens = [row[name] or 0 for name in SPENT_SUMS[2:5]]
            share = [1, int(amount is None), *tokens, Decimal(amount or 0)]
            sums = found.get(place)
            found[place] = share if sums is None else [old + new for old, new in zip(sums, share, strict=True)]
    stored = _as_stored(connection)
    names = ("day", *SPENT_PLACE, *SPENT_SUMS)
    return [dict(zip(names, (*place, *map(stored, sums)), strict=True)) for place, sums in found.items()]


def _ended_calls(connection: sa.Connection) -> Iterator[Mapping[Any, Any]]:
    """All of them, some at a time in memory."""
    some = sa.select(CALLS).where(CALLS.c.status != "open").order_by(CALLS.c.id).limit(ROWS_AT_ONCE)
    last = ""
    while rows := connection.execute(some.where(CALLS.c.id > last)).mappings().all():
        yield from rows
        last = rows[-1]["id"]


def _day_of(moment: datetime | str) -> date:
    """Of UTC. SQLite has texts, which begin with it."""
    return date.fromisoformat(moment[:10]) if isinstance(moment, str) else moment.astimezone(UTC).date()


def _as_stored(connection: sa.Connection) -> Any:
    return Decimal if connection.dialect.name == "postgresql" else str
