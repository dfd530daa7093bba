"""What was used, summed up by day, from all calls so far; what calls of unknown cost are charged with in money.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

EXACT = sa.Text().with_variant(sa.Numeric(), "postgresql")
MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
PLACE = ("organisation", "key", "model", "provenance", "currency", "cost_basis")
SUMS = (
    "calls",
    "failed_calls",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "charged_tokens",
    "calls_charged_by_estimate",
    "calls_without_cost",
    "cost",
    "estimated_cost",
)
CALL_COLUMNS: dict[str, Any] = {
    "id": sa.Text(),
    "started_at": MOMENT,
    "organisation": sa.Text(),
    "key": sa.Text(),
    "model": sa.Text(),
    "provenance": sa.Text(),
    "cost_currency": sa.Text(),
    "cost_basis": sa.Text(),
    "status": sa.Text(),
    "prompt_tokens": sa.BigInteger(),
    "completion_tokens": sa.BigInteger(),
    "cached_tokens": sa.BigInteger(),
    "charged_tokens": sa.BigInteger(),
    "cost_amount": EXACT,
}
CALLS = sa.table("calls", *(sa.column(name, kind) for name, kind in CALL_COLUMNS.items()))
ROWS_AT_ONCE = 10_000


def upgrade() -> None:
    op.add_column("calls", sa.Column("estimated_cost", EXACT))
    table = op.create_table(
        "use_by_day",
        sa.Column("day", sa.Date(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in PLACE),
        *(sa.Column(name, EXACT, nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("day", *PLACE, name="pk_use_by_day"),
    )
    connection = op.get_bind()
    as_stored = Decimal if connection.dialect.name == "postgresql" else str
    rows = [
        dict(zip(("day", *PLACE, *SUMS), (*place, *map(as_stored, sums)), strict=True))
        for place, sums in summed_up(ended_calls(connection)).items()
    ]
    if rows:
        op.bulk_insert(table, rows)


def downgrade() -> None:
    op.drop_table("use_by_day")
    op.drop_column("calls", "estimated_cost")


def ended_calls(connection: sa.Connection) -> Iterator[Mapping[Any, Any]]:
    """All of them, some at a time in memory."""
    some = sa.select(CALLS).where(CALLS.c.status != "open").order_by(CALLS.c.id).limit(ROWS_AT_ONCE)
    last = ""
    while rows := connection.execute(some.where(CALLS.c.id > last)).mappings().all():
        yield from rows
        last = rows[-1]["id"]


def summed_up(rows: Iterable[Mapping[Any, Any]]) -> dict[tuple[Any, ...], list[Any]]:
    """By what calls have in common: day and `PLACE`; in the order of `SUMS`."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    with localcontext(prec=60):
        for row in rows:
            texts = [row[name] or "" for name in PLACE[:4]]
            place = (day_of(row["started_at"]), *texts, row["cost_currency"] or "", row["cost_basis"] or "")
            share, sums = share_of(row), found.get(place)
            found[place] = share if sums is None else [old + new for old, new in zip(sums, share, strict=True)]
    return found


def day_of(moment: datetime | str) -> date:
    """Of UTC. SQLite has texts, which begin with it."""
    return date.fromisoformat(moment[:10]) if isinstance(moment, str) else moment.astimezone(UTC).date()


def share_of(row: Mapping[Any, Any]) -> list[Any]:
    prompt, charged, cost = row["prompt_tokens"], row["charged_tokens"] or 0, row["cost_amount"]
    return [
        1,
        int(row["status"] in ("error", "upstream_truncated", "interrupted")),
        prompt or 0,
        row["completion_tokens"] or 0,
        row["cached_tokens"] or 0,
        charged,
        int(prompt is None and charged > 0),
        int(cost is None),
        Decimal(cost or 0),
        Decimal(0),
    ]
