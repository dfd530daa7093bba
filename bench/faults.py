"""`make drill`: the true minute without a database, kill -9 again and again, a thousand clients who finish no head.

The tests show the same in seconds (tests/test_outages.py, tests/test_floods.py); here it takes as long as it does in
life. Two simulated engines keep a GPU's time, `simsa serve` runs with its own defaults, eight callers with keys of
four organisations ask without pause, and every answer is held against its row. The servers and the callers are the
tests' own, so `tests` must be on PYTHONPATH. Exit code 1 when an answer, a row or a charge is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Self
from urllib.parse import urlsplit

import uvloop
from clients import RawClient
from databases import ScratchDatabase, ScratchPostgres, ScratchSqlite
from gateways import entry
from keyed_load import Answered, KeyedLoad, make_bearers, reckon
from postgres import Cluster, NotInstalled
from processes_under_test import GatewayProcess, gateway_process
from rich.console import Console
from rich.table import Table

from bench.admission import MODEL, simulated_engines
from bench.gateway_process import GatewayFailed
from bench.measure import percentile, rss_bytes
from gateway.store import upgrade

ADMIN = "the-admin-of-this-drill"
ORGANISATIONS = ("naru", "dure", "saem", "maru")
CALLERS = 8
ASK = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "부산의 날씨를 한 문장으로 말해 주세요."}],
    "max_tokens": 64,
    "ignore_eos": True,
}
ROWS = "SELECT * FROM calls"
ROWS_OF = "SELECT * FROM calls WHERE request_id LIKE '{}%'"
AROUND_S = 10.0
"""How long the load runs before and after an outage."""
KILL_AFTER_S = 4.0
USUAL_LAG_S = 1.0
CATCH_UP_LIMIT_S = 60.0
HALF_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-slow: "
Row = dict[str, object]


class Site:
    """A gateway's directory and database, in which it is started as often as a scene wants."""

    def __init__(self, directory: Path, database: ScratchDatabase, engines: Sequence[str]) -> None:
        self.directory = directory
        self.database = database
        self._models = [entry(MODEL, *engines)]

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[GatewayProcess]:
        """`simsa serve` as an operator runs it: intervals and limits are the defaults."""
        defaults = {"health_interval_s": 2, "recorder_flush_s": 0.25}
        async with gateway_process(
            self.directory, self._models, database_url=self.database.url, admin_key=ADMIN, **defaults
        ) as gateway:
            yield gateway

    @property
    def spool_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.directory / "data" / "spool").iterdir())

    async def take_away(self) -> None:
        """Crash the server, or move the file."""
        if isinstance(self.database, ScratchPostgres):
            await asyncio.to_thread(self.database.cluster.crash)
        elif isinstance(self.database, ScratchSqlite):
            self.database.path.rename(self.database.path.with_name("away.db"))

    async def bring_back(self) -> None:
        if isinstance(self.database, ScratchPostgres):
            await asyncio.to_thread(self.database.cluster.start)
        elif isinstance(self.database, ScratchSqlite):
            self.database.path.with_name("away.db").rename(self.database.path)


async def metric(gateway: GatewayProcess, series: str) -> float:
    async with RawClient(gateway.url) as client:
        text = (await client.request("GET", "/metrics")).body.decode()
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{series} "))


async def seconds_until_caught_up(gateway: GatewayProcess) -> float:
    """Until no record waits for the database for longer than it does on any other day."""
    began_s = perf_counter()
    async with asyncio.timeout(CATCH_UP_LIMIT_S):
        while await metric(gateway, "simsa_recorder_lag_seconds") > USUAL_LAG_S:  # noqa: ASYNC110  it is not announced
            await asyncio.sleep(0.05)
    return perf_counter() - began_s


async def until_all_written(gateway: GatewayProcess) -> None:
    async with asyncio.timeout(CATCH_UP_LIMIT_S):
        while await metric(gateway, "simsa_recorder_queued"):  # noqa: ASYNC110  nothing announces it
            await asyncio.sleep(0.05)


def phase(answers: Sequence[Answered], began_s: float, ended_s: float) -> Row:
    """Answers that ended in a span, and how long they took."""
    took = [answer.ended_s - answer.sent_s for answer in answers if began_s <= answer.ended_s < ended_s]
    figures = {f"p{round(q * 100)}_ms": percentile(took, q) * 1000 if took else None for q in (0.5, 0.99)}
    return {"answers": len(took), **figures, "longest_ms": max(took) * 1000 if took else None}


async def outage(site: Site, seconds: float) -> tuple[list[Row], Row]:
    """The load before, during and after so many seconds without a database; the reckoning."""
    most_waiting, spool = 0.0, 0
    async with site.gateway() as gateway:
        load = KeyedLoad(gateway.url, await make_bearers(gateway.url, ADMIN, ORGANISATIONS), ASK, name="outage")
        async with load.running(CALLERS):
            marks = [perf_counter()]
            await asyncio.sleep(AROUND_S)
            marks.append(perf_counter())
            await site.take_away()
            while perf_counter() < marks[1] + seconds:
                await asyncio.sleep(0.5)
                most_waiting = max(most_waiting, await metric(gateway, "simsa_recorder_queued"))
            spool = site.spool_bytes
            await site.bring_back()
            marks.append(perf_counter())
            caught_up_s = await seconds_until_caught_up(gateway)
            await asyncio.sleep(AROUND_S)
        marks.append(perf_counter())
        await until_all_written(gateway)
        found = reckon(load, await site.database.rows(ROWS_OF.format("outage")))
        lost = await metric(gateway, "simsa_recorder_lost")
    answers = list(load.answered.values())
    spans = zip(("before", "database away", "after"), marks, marks[1:], strict=False)
    phases = [{"database": site.database.kind, "phase": name, **phase(answers, *span)} for name, *span in spans]
    summary: Row = {
        "scene": f"{seconds:g} s without a database",
        "database": site.database.kind,
        "calls": len(load.sent),
        "failed": load.failed.total(),
        "rows_ok": found.ok,
        "interrupted": found.interrupted,
        "waited_at_most": int(most_waiting),
        "spool_kib": round(spool / 1024),
        "caught_up_s": caught_up_s,
        "faults": dict(found.faults) | ({"records lost": int(lost)} if lost else {}),
    }
    if load.failed:
        summary["faults"] = {**found.faults, **load.failed}
    return phases, summary


async def kills(site: Site, rounds: int) -> Row:
    """kill -9 under load, started again each time; the reckoning over all of them."""
    loads: list[KeyedLoad] = []
    ready_s: list[float] = []
    for number in range(rounds):
        async with site.gateway() as gateway:
            bearers = loads[0].bearers if loads else await make_bearers(gateway.url, ADMIN, ORGANISATIONS)
            load = KeyedLoad(gateway.url, bearers, ASK, name=f"round-{number}")
            loads.append(load)
            async with load.running(CALLERS):
                await asyncio.sleep(KILL_AFTER_S)
                gateway.send(signal.SIGKILL)
                await gateway.ended()
        began_s = perf_counter()
        async with site.gateway():
            ready_s.append(perf_counter() - began_s)
            await until(site.database, lambda rows: all(row["status"] != "open" for row in rows))
    whole = KeyedLoad("", loads[0].bearers, ASK)
    for load in loads:
        whole.sent |= load.sent
        whole.answered |= load.answered
    found = reckon(whole, await site.database.rows(ROWS_OF.format("round")))
    cut = len(whole.sent) - len(whole.answered)
    return {
        "scene": f"kill -9 under load, {rounds} times",
        "database": site.database.kind,
        "calls": len(whole.sent),
        "answered": len(whole.answered),
        "cut_off": cut,
        "rows_ok": found.ok,
        "interrupted": found.interrupted,
        "starts_s": [round(seconds, 1) for seconds in ready_s],
        "faults": dict(found.faults),
    }


async def until(database: ScratchDatabase, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
    async with asyncio.timeout(CATCH_UP_LIMIT_S):
        while not holds(await database.rows(ROWS)):  # noqa: ASYNC110  nothing announces it
            await asyncio.sleep(0.1)


class SlowClient:
    """Sends half a head, and then a byte a second."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, url: str) -> Self:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(HALF_HEAD)
        return cls(reader, writer)

    async def drip(self) -> int:
        """The status that it is told in the end; 0 when it is cut off without a word."""
        line = asyncio.create_task(self._reader.readline())
        while not (await asyncio.wait((line,), timeout=1.0))[0]:
            self._writer.write(b"a")
        self._writer.close()
        words = line.result().split() if line.exception() is None else []
        return int(words[1]) if words else 0


async def slow_loris(site: Site, connections: int) -> Row:
    """So many clients who send half a head, and then a byte now and then, beside the load."""
    async with site.gateway() as gateway:
        bearers = await make_bearers(gateway.url, ADMIN, ORGANISATIONS)
        load = KeyedLoad(gateway.url, bearers, ASK, name="loris")
        async with load.running(CALLERS):
            marks = [perf_counter()]
            await asyncio.sleep(AROUND_S)
            marks.append(perf_counter())
            before = rss_bytes(gateway.pid)
            slow = [await SlowClient.connect(gateway.url) for _ in range(connections)]
            held_bytes = rss_bytes(gateway.pid) - before
            answered = await asyncio.gather(*(client.drip() for client in slow))
            marks.append(perf_counter())
        quiet = phase(list(load.answered.values()), marks[0], marks[1])
        beside = phase(list(load.answered.values()), marks[1], marks[2])
    return {
        "scene": f"{connections:,} clients who never finish a head",
        "database": site.database.kind,
        "calls": len(load.sent),
        "failed": load.failed.total(),
        "told_408": answered.count(408),
        "kib_each": held_bytes / connections / 1024,
        "slowest_408_s": marks[2] - marks[1],
        "p99_ms_before": quiet["p99_ms"],
        "p99_ms_beside_them": beside["p99_ms"],
        "faults": dict(load.failed) | ({"not told": answered.count(0)} if 0 in answered else {}),
    }


async def drill(seconds: float, rounds: int, connections: int, note: Console) -> dict[str, list[Row]]:
    """Every scene, one after the other."""
    phases: list[Row] = []
    summaries: list[Row] = []
    core = sorted(os.sched_getaffinity(0))[-1]
    async with simulated_engines(core) as engines, databases(note) as made:
        for number, database in enumerate(made):
            with tempfile.TemporaryDirectory(prefix="simsa-drill-") as folder:
                site = Site(Path(folder), database, engines)
                note.print(f"{database.kind}: {seconds:g} s without a database ...", style="dim")
                scenes, summary = await outage(site, seconds)
                phases += scenes
                summaries.append(summary)
                note.print(f"{database.kind}: kill -9, {rounds} times ...", style="dim")
                summaries.append(await kills(site, rounds))
                if number == 0:
                    note.print(f"{connections} slow clients ...", style="dim")
                    summaries.append(await slow_loris(site, connections))
    return {"phases": phases, "scenes": summaries}


@asynccontextmanager
async def databases(note: Console) -> AsyncIterator[list[ScratchDatabase]]:
    """One of each kind, empty; SQLite alone where there is no PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="simsa-drill-") as folder:
        path = Path(folder) / "simsa.db"
        await upgrade(f"sqlite:///{path}")
        made: list[ScratchDatabase] = [ScratchSqlite(path)]
        try:
            cluster = Cluster()
        except NotInstalled as error:
            note.print(f"SQLite only: {error}")
            yield made
            return
        try:
            await upgrade(cluster.url("postgres"))
            yield [*made, ScratchPostgres(cluster, "postgres")]
        finally:
            cluster.remove()


def tables_of(report: dict[str, list[Row]]) -> list[Table]:
    return [table_of("answers around the outage", report["phases"])] + [
        table_of(f"{row['scene']} ({row['database']})", [row]) for row in report["scenes"]
    ]


def table_of(title: str, rows: list[Row]) -> Table:
    table = Table(title=title, title_justify="left")
    shown = [name for name in rows[0] if name != "scene"]
    for name in shown:
        table.add_column(name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        values = (row[name] for name in shown)
        table.add_row(*(f"{value:,.1f}" if isinstance(value, float) else str(value) for value in values))
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description="A drill of bad days.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the database is away")
    parser.add_argument("--kills", type=int, default=5, help="how often the gateway is killed on each database")
    parser.add_argument("--connections", type=int, default=1000, help="clients who never finish a head")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    options = parser.parse_args(arguments)
    note = Console(stderr=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(drill(options.seconds, options.kills, options.connections, note))
    except GatewayFailed as failure:
        note.print(str(failure), markup=False, highlight=False, soft_wrap=True)
        return 2
    is_well = not any(row["faults"] for row in report["scenes"])
    if options.json or not sys.stdout.isatty():
        sys.stdout.write(json.dumps({**report, "well": is_well}, ensure_ascii=False, indent=2) + "\n")
    else:
        for table in tables_of(report):
            Console().print(table)
        Console().print("nothing is missing" if is_well else "something is missing: see faults")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
