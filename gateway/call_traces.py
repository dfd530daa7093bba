"""When calls of a model came and how long they were, from the records: what a load test replays. No text, no names."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from gateway.store import Store
from gateway.tables import calls

MOST_ARRIVALS = 1_000_000


class RecordedArrival(NamedTuple):
    """One call as it came in, whatever became of it."""

    at: datetime
    prompt_tokens: int | None
    completion_tokens: int | None


async def recorded_arrivals(
    store: Store, model: str, *, since: datetime | None = None, until: datetime | None = None
) -> list[RecordedArrival] | None:
    """Calls of `model` from `since` up to before `until`, in their order, those of load runs aside.

    None where they are more than MOST_ARRIVALS: name a shorter span. Raises Unavailable while the database is away.
    """
    statement = (
        sa.select(calls.c.started_at, calls.c.prompt_tokens, calls.c.completion_tokens)
        .where(calls.c.model == model, calls.c.run_id.is_(None))
        .order_by(calls.c.started_at, calls.c.id)
    )
    if since is not None:
        statement = statement.where(calls.c.started_at >= since)
    if until is not None:
        statement = statement.where(calls.c.started_at < until)
    async with store.transaction() as connection:
        rows = await connection.execute(statement.limit(MOST_ARRIVALS + 1))
        found = [RecordedArrival(*row) for row in rows]
    return None if len(found) > MOST_ARRIVALS else found
