"""Bad minutes of a real gateway under the load of keyed callers: its database gone, itself killed, both at once.

What callers got is held against the rows call by call: whose it is, that it is there once, what it is charged. The same
load runs for a true minute in `make drill`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from clients import RawClient
from databases import Row, ScratchDatabase
from engines import DONE, Reply, Request, ScriptedEngine, chat_chunk, usage_chunk
from gateways import entry
from guards import HANG_S
from keyed_load import CHAT, Bearer, KeyedLoad, make_bearers, reckon
from processes_under_test import GatewayProcess, gateway_process

ADMIN = "the-admin-of-this-gate"
ORGANISATIONS = ("naru", "dure", "saem")
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
STREAM = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
ROWS = "SELECT * FROM calls ORDER BY started_at, id"
BUDGET = {"budgets": [{"period": "month", "unit": "tokens", "amount": "1e9"}]}
DATABASE_FAILING = 'simsa_recorder_failing{part="database"}'


class HeldEngine(ScriptedEngine):
    """Answers at once, but calls that name a `user`: their streams go on when that gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[str, asyncio.Event] = {}
        self.script(CHAT, self._held)

    def _held(self, request: Request) -> Reply:
        name = request.json().get("user")
        if name is None:
            return self.usual(request)
        gate = self.gates.setdefault(name, asyncio.Event())
        end = (chat_chunk(finish_reason="stop"), usage_chunk(12, 2), DONE)
        return Reply.stream(chat_chunk("a"), gate, chat_chunk("b"), *end)


@asynccontextmanager
async def house(directory: Path, database: ScratchDatabase, engine: ScriptedEngine) -> AsyncIterator[GatewayProcess]:
    """`simsa serve` with an admin key on this database, which it waits for a moment only."""
    limits = {"database_statement_timeout_s": 0.5, "database_connect_timeout_s": 0.5}
    models = [entry("m", engine.url)]
    async with gateway_process(directory, models, database_url=database.url, admin_key=ADMIN, **limits) as gateway:
        yield gateway


async def metric(gateway: GatewayProcess, series: str) -> float:
    async with RawClient(gateway.url) as client:
        text = (await client.request("GET", "/metrics")).body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{series} ")]
    return float(line.rpartition(" ")[2])


async def until_metric(gateway: GatewayProcess, series: str, value: float) -> None:
    async with asyncio.timeout(HANG_S):
        while await metric(gateway, series) != value:
            await asyncio.sleep(0.01)


async def get(gateway: GatewayProcess, path: str) -> Any:
    async with RawClient(gateway.url, key=ADMIN) as admin:
        return (await admin.request("GET", path)).json()


async def charged_by_key(gateway: GatewayProcess) -> dict[str, int]:
    """What the bill says."""
    charged: dict[str, int] = {}
    for row in (await get(gateway, "/api/usage"))["data"]:
        charged[row["key"]] = charged.get(row["key"], 0) + row["charged_tokens"]
    return charged


async def spent_by_key(gateway: GatewayProcess) -> dict[str, int]:
    """What the limits say."""
    keys = (await get(gateway, "/api/admin/keys"))["data"]
    assert {(key["in_flight"], key["limits"]["budgets"][0]["reserved"]) for key in keys} == {(0, "0")}
    return {key["id"]: int(key["limits"]["budgets"][0]["spent"]) for key in keys}


async def until_rows(database: ScratchDatabase, holds: Callable[[list[Row]], bool]) -> list[Row]:
    async with asyncio.timeout(HANG_S):
        while not holds(rows := await database.rows(ROWS)):
            await asyncio.sleep(0.01)
    return rows


async def status_of(gateway: GatewayProcess, path: str, key: str | None) -> int:
    async with RawClient(gateway.url, key=key) as client:
        return (await client.request("GET", path)).status


# --- the database is gone -----------------------------------------------------------------------------------


async def test_database_that_is_away_under_keyed_load_costs_no_answer_no_row_and_no_token(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with HeldEngine() as engine, house(tmp_path, database, engine) as gateway:
        bearers = await make_bearers(gateway.url, ADMIN, ORGANISATIONS, limits=BUDGET)
        load = KeyedLoad(gateway.url, bearers, ASK)
        async with (
            load.running(callers=6),
            held_stream(gateway, load, bearers[0], "into") as into,
            held_stream(gateway, load, bearers[1], "out of") as out_of,
        ):
            await into("begins")
            await load.until_more(40)
            async with database.gone():
                await until_metric(gateway, DATABASE_FAILING, 1)
                await load.until_more(60)
                engine.gates["into"].set()
                await into("ends")
                await out_of("begins")
                assert await status_of(gateway, "/ready", None) == 200
                assert await status_of(gateway, "/v1/models", "simsa-" + "A" * 43) == 401
                assert await status_of(gateway, "/api/admin/keys", ADMIN) == 503, "what cannot be known is not guessed"
                await load.until_more(20)
            await until_metric(gateway, DATABASE_FAILING, 0)
            engine.gates["out of"].set()
            await out_of("ends")
            await load.until_more(40)
        await until_metric(gateway, "simsa_recorder_queued", 0)
        assert await metric(gateway, "simsa_recorder_lost") == 0
        found = reckon(load, await database.rows(ROWS))
        assert not load.failed, "no caller noticed"
        assert not found.faults
        assert (found.ok, found.interrupted) == (len(load.sent), 0)
        assert await charged_by_key(gateway) == found.charged
        assert await spent_by_key(gateway) == found.charged


@asynccontextmanager
async def held_stream(gateway: GatewayProcess, load: KeyedLoad, bearer: Bearer, name: str) -> AsyncIterator[Any]:
    """A stream that begins and ends when it is told to; then it counts as one of the load's."""
    async with RawClient(gateway.url, key=bearer.secret) as client:

        async def step(what: str) -> None:
            if what == "begins":
                load.sent[name.replace(" ", "-")] = bearer
                headers = [("x-request-id", name.replace(" ", "-"))]
                await client.start("POST", CHAT, body={**STREAM, "user": name}, headers=headers)
                assert await client.next_event() == chat_chunk("a")
            else:
                assert (await client.rest()).endswith(DONE)

        yield step


# --- the gateway is killed ----------------------------------------------------------------------------------


async def test_kill_9_under_keyed_load_while_the_database_is_away_loses_no_row_and_bills_what_was_cut(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with HeldEngine() as engine:
        async with house(tmp_path, database, engine) as gateway:
            bearers = await make_bearers(gateway.url, ADMIN, ORGANISATIONS, limits=BUDGET)
            load = KeyedLoad(gateway.url, bearers, ASK)
            async with held_stream(gateway, load, bearers[2], "cut") as cut, load.running(callers=6):
                await cut("begins")
                await load.until_more(60)
                async with database.gone():
                    await until_metric(gateway, DATABASE_FAILING, 1)
                    await load.until_more(60)
                    gateway.send(signal.SIGKILL)
                    assert await gateway.ended() == -signal.SIGKILL
        assert load.failed.total() == 6, "each caller was cut off once"
        async with house(tmp_path, database, engine) as again:
            rows = await until_rows(
                database, lambda rows: len(rows) >= len(load.answered) and all(row["status"] != "open" for row in rows)
            )
            found = reckon(load, rows)
            assert not found.faults
            assert found.ok >= len(load.answered)
            assert 1 <= found.interrupted <= len(load.sent) - len(load.answered)
            reached = {request.header("x-request-id") for request in engine.requests_to(CHAT)}
            assert reached <= {row["request_id"] for row in rows}, "what an engine had has a record"
            (row,) = [row for row in rows if row["request_id"] == "cut"]
            assert (row["status"], row["charged_tokens"]) == ("interrupted", row["prompt_estimate"])
            assert row["charged_tokens"] > 0
            assert (row["prompt_tokens"], row["completion_tokens"]) == (None, None), "unknown, not zero"
            assert await charged_by_key(again) == found.charged
