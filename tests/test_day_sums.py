"""How sums of days are read while calls are written: by whole keys, however many runs a day has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from databases import ScratchDatabase
from test_settlements import call

from gateway.store import Store


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[Store]:
    store = await Store.open(database.url)
    yield store
    await store.close()


async def plan_of(store: Store, statement: str, parameters: Any) -> str:
    async with store.transaction() as connection:
        if connection.dialect.name == "postgresql":
            for other in ("seqscan", "hashjoin", "mergejoin"):  # any would be right for so few rows
                await connection.exec_driver_sql(f"SET LOCAL enable_{other} = off")
            found = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            return " ".join(row[0] for row in found if "Index Cond" in row[0])
        found = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return " ".join(row[3] for row in found)


@pytest.mark.parametrize("table", ["use_by_day", "spent_by_day"])
async def test_a_write_finds_the_sums_of_its_places_by_their_whole_keys(store: Store, table: str) -> None:
    load = [call(n, n, n + 1) for n in range(40)]
    await store.upsert_calls([replace(one, opened=replace(one.opened, run_id=f"run-{one.opened.id}")) for one in load])
    told: list[tuple[str, Any]] = []

    def tell(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and table in statement:
            told.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", tell)
    try:
        await store.upsert_calls([replace(one, charged_tokens=7) for one in load])
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", tell)
    ((statement, parameters),) = told
    plan = await plan_of(store, statement, parameters)
    last = "run_id" if table == "spent_by_day" else "key"
    assert all(f"{name} = " in plan or f"{name}=" in plan for name in ("day", last, "model", "cost_basis")), plan
