"""Energy on a running gateway: an exporter is read over a socket, kept by the minute, shown beside money."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from databases import ScratchDatabase
from energy_exporter import GPU_0, GPU_1, EnergyExporter
from engines import ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S
from rich.console import Console
from scripted_replies import Reply
from test_costs import ADMIN, GPU, ask, costs, settle
from vllm_shapes import metrics_text

from gateway.costs_command import show_costs
from gateway.domain.energy import BEGAN_ANEW, Metered
from gateway.domain.records import Provenance
from gateway.energy_records import EnergyRecords, EnergyRow
from gateway.energy_watch import EnergyWatch
from gateway.store import Store
from gateway.upstream import Upstream

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PRICE = {"per_kwh": 200, "currency": "KRW", "date": "2026-01-02", "source": "a bill", "confidence": "high"}


@asynccontextmanager
async def metered_gateway(
    directory: Path, engine: ScriptedEngine, energy: Mapping[str, Any] | None, **sections: Any
) -> AsyncIterator[RunningGateway]:
    """A gateway over one engine, whose counters are read when a test says so."""
    replica = {"url": engine.url, "gpu": "h100-sxm", **({"energy": energy} if energy else {})}
    models = [{"id": "m", "serving": {"kind": "vllm"}, "replicas": [replica]}]
    async with running_gateway(
        directory, models, sections={"gpus": [GPU], **sections}, admin_key=ADMIN, energy_interval_s=60
    ) as gateway:
        await gateway.until_live("m")
        yield gateway


async def read(gateway: RunningGateway) -> None:
    await gateway.services.energy_watch.read_all()


async def engine_made(gateway: RunningGateway, engine: ScriptedEngine, tokens: int) -> None:
    """From now on the engine says so, and the gateway has seen it."""
    page = metrics_text(["m"], running=0).replace(
        'generation_tokens_total{engine="0",model_name="m"} 0.0',
        f'generation_tokens_total{{engine="0",model_name="m"}} {tokens}',
    )
    engine.script("/metrics", Reply.text(page))
    (state,) = gateway.services.fleet.live("m")
    await gateway.until(lambda: state.glance is not None and state.glance.generation_tokens == tokens)


async def energy(gateway: RunningGateway, query: str = "") -> dict[str, Any]:
    (line,) = (await costs(gateway, query))["energy"]
    assert isinstance(line, dict)
    return line


async def test_the_rise_of_the_counters_is_shown_by_kwh_and_by_the_engines_own_tokens(tmp_path: Path) -> None:
    async with (
        EnergyExporter({0: 5_551_899_580, 1: 7}) as exporter,
        ScriptedEngine() as engine,
        metered_gateway(tmp_path, engine, exporter.meter(0), electricity=PRICE) as gateway,
    ):
        await engine_made(gateway, engine, 100)
        await read(gateway)
        before = await energy(gateway)
        assert (before["joules"], before["readings"] >= 1) == (None, True)
        assert "difference of two readings" in before["reason"]
        await engine_made(gateway, engine, 1_100)
        exporter.millijoules = {0: 5_551_899_580 + 7_200_000, 1: 10**9}
        await read(gateway)
        found = await energy(gateway)
        assert (found["group"], found["model"], found["replicas"], found["resets"]) == ("m", "m", ["m/1"], 0)
        assert (found["joules"], found["kwh"]) == ("7200.000", "0.002000000")
        assert (found["output_tokens"], found["wh_per_1000_output_tokens"]) == (1_000, "2.000000000")
        assert (found["coverage"], found["reason"], found["tokens_reason"]) == (1.0, None, None)
        assert (found["electricity_cost"], found["electricity"]["source"]) == ("0.400000000", "a bill")
        assert (await energy(gateway, "?by=replica"))["group"] == "m/1"
        assert (await energy(gateway, "?by=organisation"))["group"] is None
        table = io.StringIO()
        show_costs(await costs(gateway), Console(file=table, width=250))
        assert "Energy by the GPUs' own counters" in table.getvalue()
        assert "200 KRW/kWh" in table.getvalue()


async def test_electricity_is_in_no_amount_of_money_and_the_figure_by_the_token_comes_from_counters(
    tmp_path: Path,
) -> None:
    async with (
        EnergyExporter() as exporter,
        ScriptedEngine() as engine,
        metered_gateway(tmp_path, engine, exporter.meter(0), electricity=PRICE) as gateway,
    ):
        await ask(gateway, ADMIN)
        await gateway.call()
        await engine_made(gateway, engine, 0)
        await read(gateway)
        await engine_made(gateway, engine, 200)
        exporter.millijoules[0] += 10_000
        await read(gateway)
        await settle(gateway)
        found = await costs(gateway)
        figures = {(row["name"], row["load"]): row for row in found["figures"]}
        assert (figures["energy", "seen"]["amount"], figures["energy", "seen"]["unit"]) == ("0.050000000", "J/token")
        money = sum(Decimal(row["cost"]) for row in found["data"])
        async with gateway.services.store.transaction() as connection:
            row = await connection.exec_driver_sql("SELECT SUM(money_nanos) FROM settled_windows")
            assert money == Decimal(row.scalar_one()).scaleb(-9)


async def test_a_counter_that_began_anew_makes_its_span_unknown_and_never_negative(tmp_path: Path) -> None:
    async with (
        EnergyExporter({0: 9_000_000}) as exporter,
        ScriptedEngine() as engine,
        metered_gateway(tmp_path, engine, exporter.meter(0)) as gateway,
    ):
        await read(gateway)
        exporter.millijoules = {0: 500}
        await read(gateway)
        dropped = await energy(gateway)
        assert (dropped["joules"], dropped["coverage"], dropped["resets"]) == (None, 0.0, 1)
        assert dropped["reason"] == BEGAN_ANEW
        exporter.millijoules = {0: 3_500}
        await read(gateway)
        found = await energy(gateway)
        assert (found["joules"], found["resets"], found["reason"]) == ("3.000", 1, BEGAN_ANEW)
        assert 0 < found["coverage"] < 1
        assert found["electricity_cost"] is None


async def test_an_exporter_that_is_gone_costs_no_call_and_is_unknown_with_the_reason(tmp_path: Path) -> None:
    async with (
        EnergyExporter() as exporter,
        ScriptedEngine() as engine,
        metered_gateway(tmp_path, engine, exporter.meter(0)) as gateway,
    ):
        await read(gateway)
        await exporter.kill()
        await read(gateway)
        assert (await ask(gateway, ADMIN)).status == 200
        gone = await energy(gateway)
        assert gone["joules"] is None
        assert gone["reason"].startswith("the energy exporter: cannot connect")
        await exporter.start()
        exporter.script("/metrics", Reply.text("", status=503))
        await read(gateway)
        exporter.script("/metrics")
        await read(gateway)
        exporter.millijoules[0] += 1_000
        await read(gateway)
        assert (await energy(gateway))["joules"] == "1.000"


async def test_an_exporter_without_the_counter_or_no_exporter_is_unknown_with_the_reason(tmp_path: Path) -> None:
    async with EnergyExporter() as exporter, ScriptedEngine() as engine:
        async with metered_gateway(tmp_path / "a", engine, exporter.meter(GPU_1)) as gateway:
            await read(gateway)
            assert (await energy(gateway))["reason"] == f"the exporter shows no counter of the GPU {GPU_1}"
        async with metered_gateway(tmp_path / "b", engine, None) as gateway:
            line = await energy(gateway)
            assert (line["joules"], line["coverage"], line["readings"]) == (None, None, 0)
            assert "names no energy counters" in line["reason"]


async def test_two_replicas_of_one_machine_ask_its_exporter_once_and_share_nothing(tmp_path: Path) -> None:
    async with EnergyExporter({0: 0, 1: 0}) as exporter, ScriptedEngine(["a", "b"]) as engine:
        models = [entry("a", engine.url), entry("b", engine.url)]
        for gpu, model in enumerate(models):
            model["replicas"][0]["energy"] = exporter.meter(gpu)
        async with running_gateway(tmp_path, models, energy_interval_s=60) as gateway:
            await gateway.until_live("a", "b")
            await read(gateway)
            before = len(exporter.requests)
            exporter.millijoules = {0: 1_000, 1: 5_000}
            await read(gateway)
            assert len(exporter.requests) == before + 1
            lines = (await costs(gateway))["energy"]
            assert {line["model"]: line["joules"] for line in lines} == {"a": "1.000", "b": "5.000"}


async def test_a_card_that_two_replicas_name_is_counted_for_the_first_alone(tmp_path: Path) -> None:
    async with EnergyExporter({0: 0}) as exporter, ScriptedEngine(["a", "b"]) as engine:
        models = [entry("a", engine.url), entry("b", engine.url)]
        models[0]["replicas"][0]["energy"] = exporter.meter(0)
        by_other_name = {**exporter.meter(GPU_0), "url": exporter.url.replace("127.0.0.1", "localhost")}
        models[1]["replicas"][0]["energy"] = by_other_name
        async with running_gateway(tmp_path, models, energy_interval_s=60) as gateway:
            await gateway.until_live("a", "b")
            await read(gateway)
            exporter.millijoules = {0: 1_000}
            await read(gateway)
            lines = {line["model"]: line for line in (await costs(gateway))["energy"]}
            assert (lines["a"]["joules"], lines["b"]["joules"]) == ("1.000", None)
            assert "a/1" in lines["b"]["reason"]
            assert "would be counted twice" in lines["b"]["reason"]


@pytest.mark.parametrize("back_min", [5, 30])
async def test_a_clock_set_back_takes_nothing_from_what_is_stored(tmp_path: Path, back_min: int) -> None:
    clock = [NOON]
    async with (
        EnergyExporter({0: 0}) as exporter,
        ScriptedEngine() as engine,
        metered_gateway(tmp_path, engine, exporter.meter(0)) as gateway,
    ):
        services = gateway.services
        upstream = Upstream(idle_connections=1, now=time.perf_counter)
        watch = EnergyWatch(
            fleet=services.fleet,
            upstream=upstream,
            records=services.energy_records,
            interval_s=60,
            timeout_s=5,
            flush_s=60,
            now=lambda: clock[0],
        )

        async def twenty_readings() -> None:
            for _ in range(20):
                exporter.millijoules[0] += 1_000
                await watch.read_all()
                await watch.flush()
                clock[0] += timedelta(minutes=2)

        await twenty_readings()
        clock[0] -= timedelta(minutes=back_min)
        await twenty_readings()
        upstream.close()
        (found,) = await services.energy_records.sums(NOON.date(), NOON.date())
        assert (found.metered.joules, found.metered.readings) == (Decimal("38.000"), 40)


async def test_a_row_that_the_database_refuses_takes_no_other_with_it(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    async with EnergyExporter(dict.fromkeys(range(5), 0)) as exporter, ScriptedEngine(names) as engine:
        models = [entry(name, engine.url) for name in names]
        for gpu, model in enumerate(models):
            model["replicas"][0]["energy"] = exporter.meter(gpu)
        async with running_gateway(tmp_path, models, energy_interval_s=60, observation_flush_s=600) as gateway:
            await gateway.until_live(*names)
            services = gateway.services
            async with services.store.transaction() as connection:
                await connection.exec_driver_sql(
                    "CREATE TRIGGER no_b BEFORE INSERT ON energy_minutes WHEN NEW.model = 'b' "
                    "BEGIN SELECT RAISE(ABORT, 'not b'); END"
                )
            await read(gateway)
            await services.energy_watch.flush()
            today = datetime.now(UTC).date()
            found = await services.energy_records.sums(today - timedelta(days=1), today)
            assert {each.model for each in found} == {"a", "c", "d", "e"}
            assert services.energy_watch.dropped > 0


async def test_organisations_see_no_energy(tmp_path: Path) -> None:
    async with (
        EnergyExporter() as exporter,
        ScriptedEngine() as engine,
        metered_gateway(tmp_path, engine, exporter.meter(0)) as gateway,
    ):
        await read(gateway)
        assert (await costs(gateway, "", await gateway.key_of("acme")))["energy"] == []


async def test_the_gateway_reads_by_itself(tmp_path: Path) -> None:
    async with EnergyExporter() as exporter, ScriptedEngine() as engine:
        model = entry("m", engine.url)
        model["replicas"][0]["energy"] = exporter.meter(0)
        async with running_gateway(tmp_path, [model], energy_interval_s=0.01, observation_flush_s=0.02) as gateway:
            await exporter.received("/metrics", 3)
            records = gateway.services.energy_records
            today = datetime.now(UTC).date()
            async with asyncio.timeout(HANG_S):
                while not any(r.metered.readings for r in await records.sums(today - timedelta(days=1), today)):
                    await asyncio.sleep(0.005)


async def test_who_takes_the_duty_again_counts_nothing_of_what_others_read_meanwhile(tmp_path: Path) -> None:
    async with (
        EnergyExporter({0: 1_000}) as exporter,
        ScriptedEngine() as engine,
        metered_gateway(tmp_path, engine, exporter.meter(0)) as gateway,
    ):
        await read(gateway)
        exporter.millijoules = {0: 5_000_000}
        async with asyncio.timeout(HANG_S):
            asked = exporter.received("/metrics", 1)
            running = asyncio.create_task(gateway.services.energy_watch.run())
            await asked
            await gateway.until(lambda: bool(gateway.services.energy_watch._before))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await energy(gateway))["joules"] is None


# --- what is kept, on both databases ------------------------------------------------------------------------


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[Store]:
    store = await Store.open(database.url)
    yield store
    await store.close()


def row(minute: int, seen_by: str = "one", replica: str = "m/1", **figures: Any) -> EnergyRow:
    at = NOON + timedelta(minutes=minute)
    return EnergyRow(replica, "m", Provenance.REAL, at, seen_by, Metered(**figures))


async def test_rows_are_written_any_number_of_times_and_summed_by_day_and_replica(store: Store) -> None:
    records = EnergyRecords(store)
    first = row(0, readings=6, up_us=60_000_000, covered_us=50_000_000, millijoules=2**52, reason="it was away")
    rows = [
        first,
        row(0, "two", readings=1, up_us=1_000_000, covered_us=1_000_000, millijoules=2**52),
        row(1, readings=6, up_us=60_000_000, covered_us=60_000_000, millijoules=5, output_tokens=7),
        row(1, replica="m/2", readings=1),
        row(24 * 60, readings=3),
    ]
    await records.save([row(0, readings=1)])
    await records.save(rows)
    await records.save(rows)
    await records.save([])
    found = await records.sums(NOON.date(), NOON.date())
    assert [(each.replica, each.metered.readings) for each in found] == [("m/1", 13), ("m/2", 1)]
    assert found[0].metered == Metered(13, 121_000_000, 111_000_000, 2**53 + 5, 0, 7, 0, "it was away")
    assert await records.sums(NOON.date(), NOON.date(), model="other") == []
    assert len(await records.sums(NOON.date(), (NOON + timedelta(days=1)).date())) == 3
