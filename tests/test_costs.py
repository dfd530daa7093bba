"""`/api/costs` and `simsa costs` on a running gateway: who sees what, what is settled, and that it adds up."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from clients import Answer, RawClient
from engines import ScriptedEngine
from gateways import RunningGateway, running_gateway
from processes_under_test import run_simsa
from rich.console import Console

from gateway.answer_lengths import Lengths, korean_lengths
from gateway.cost_tables import settled_windows
from gateway.costs_command import show_costs
from gateway.domain.accounts import Role, Terms
from gateway.domain.cost import price_in_force
from gateway.domain.records import Priority
from gateway.settlements import Settlements
from gateway.settler import Settler
from gateway.store import Comparison, Side

ADMIN = "the-admin-of-this-gate"
CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
PRICE = {"per_hour": 3600, "currency": "KRW", "tier": "reserved", "provider": "a lessor", "date": "2020-01-01"}
GPU = {
    "id": "h100-sxm",
    "name": "H100",
    "memory": "81559 MiB",
    "bandwidth_tb_per_s": 3.35,
    "source": "test",
    "confidence": "high",
    "prices": [{**PRICE, "source": "OFFER", "confidence": "high"}],
}


@asynccontextmanager
async def gateway_with_a_gpu(directory: Path, gpu: str | None = "h100-sxm") -> AsyncIterator[RunningGateway]:
    async with ScriptedEngine() as engine:
        replica = {"url": engine.url, "gpus": 2, **({"gpu": gpu} if gpu else {})}
        models = [{"id": "m", "serving": {"kind": "vllm"}, "replicas": [replica]}]
        sections = {"gpus": [GPU]}
        async with running_gateway(
            directory, models, sections=sections, admin_key=ADMIN, presence_interval_s=0.05
        ) as gateway:
            await gateway.until_live("m")
            yield gateway


async def ask(gateway: RunningGateway, key: str, *headers: tuple[str, str]) -> Answer:
    async with RawClient(gateway.url, key=key) as client:
        return await client.request("POST", CHAT, body=ASK, headers=list(headers))


async def get(gateway: RunningGateway, path: str, key: str = ADMIN) -> Answer:
    async with RawClient(gateway.url, key=key) as client:
        return await client.request("GET", path)


async def costs(gateway: RunningGateway, query: str = "", key: str = ADMIN) -> Any:
    answer = await get(gateway, f"/api/costs{query}", key)
    assert answer.status == 200, answer.body
    return answer.json()


async def settle(gateway: RunningGateway) -> None:
    """What the gateway does by itself some minutes later."""
    services = gateway.services
    settler = Settler(
        fleet=services.fleet,
        settlements=Settlements(services.store),
        telemetry=services.telemetry,
        settings=services.settings,
        registry=lambda: services.registry.current,
        now=lambda: datetime.now(UTC) + timedelta(hours=1),
    )
    await settler.settle_due()


async def test_costs_are_provisional_then_settled_and_add_up_with_idle_time(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        for _ in range(3):
            assert (await ask(gateway, ADMIN)).status == 200
        await gateway.calls(3)
        before = await costs(gateway)
        (line,) = [row for row in before["data"] if row["kind"] == "calls"]
        assert (line["basis"], line["calls"], line["currency"]) == ("gpu_time_provisional", 3, "KRW")
        assert "not settled" in line["reason"]
        assert before["unsettled_windows"] >= 1
        await settle(gateway)
        after = await costs(gateway)
        (line,) = [row for row in after["data"] if row["kind"] == "calls"]
        (idle,) = [row for row in after["data"] if row["kind"] == "idle"]
        assert (line["basis"], line["group"], line["calls"]) == ("gpu_time", "m", 3)
        rows = await gateway_rows(gateway)
        assert Decimal(line["cost"]) + Decimal(idle["cost"]) == Decimal(sum(r.money_nanos for r in rows)).scaleb(-9)
        assert Decimal(idle["gpu_seconds"]) > 0
        assert 0 < idle["idle_share"] < 1
        (price,) = line["prices"]
        assert (price["per_hour"], price["provider"], price["source"]) == ("3600", "a lessor", "OFFER")
        assert (price["date"], price["is_stale"]) == ("2020-01-01", True)
        assert line["weights"] == ["0.25 (assumed)"]
        figures = {(row["name"], row["load"]): row for row in after["figures"]}
        seen, busy = figures["output", "seen"], figures["output", "while_busy"]
        assert Decimal(seen["amount"]) > Decimal(busy["amount"]) > 0
        assert Decimal(busy["amount"]) == pytest.approx(Decimal(line["cost"]) / 24 * 10**6, rel=Decimal("1e-6"))
        assert figures["energy", "seen"]["amount"] is None
        metrics = (await get(gateway, "/metrics")).body.decode()
        (counted,) = [
            text for text in metrics.splitlines() if text.startswith("simsa_cost_total{") and '"gpu_time"' in text
        ]
        assert float(counted.rpartition(" ")[2]) == pytest.approx(float(line["cost"]), abs=1e-9)


async def gateway_rows(gateway: RunningGateway) -> Any:
    async with gateway.services.store.transaction() as connection:
        return (await connection.execute(sa.select(settled_windows))).all()


async def test_usage_says_the_settled_cost_and_its_basis(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        await ask(gateway, ADMIN)
        await gateway.call()
        assert [row["cost_basis"] for row in (await get(gateway, "/api/usage")).json()["data"]] == [
            "gpu_time_provisional"
        ]
        await settle(gateway)
        (row,) = (await get(gateway, "/api/usage")).json()["data"]
        assert (row["cost_basis"], row["calls"]) == ("gpu_time", 1)
        assert row["cost"] == str((await gateway.call()).cost.amount)


async def test_an_organisation_sees_its_own_costs_and_idle_time_as_a_share(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        acme, globex = await gateway.key_of("acme"), await gateway.key_of("globex")
        auditor = await gateway.key_of("audit", Terms(roles=frozenset({Role.AUDITOR})))
        for key in (acme, acme, globex):
            await ask(gateway, key)
        await gateway.calls(3)
        await settle(gateway)
        everybody = await costs(gateway, "?by=organisation", auditor)
        assert {r["group"]: r["calls"] for r in everybody["data"] if r["kind"] == "calls"} == {"acme": 2, "globex": 1}
        own = await costs(gateway, "?by=organisation", acme)
        assert {r["group"]: r["calls"] for r in own["data"] if r["kind"] == "calls"} == {"acme": 2}
        (idle,) = [row for row in own["data"] if row["kind"] == "idle"]
        assert (idle["cost"], idle["gpu_seconds"]) == (None, None)
        assert idle["idle_share"] > 0
        assert "operators" in idle["reason"]
        assert (await costs(gateway, "", acme))["figures"] == []
        for path in ("?organisation=globex", "?by=replica"):
            assert (await get(gateway, f"/api/costs{path}", acme)).status == 403


async def test_costs_by_run_replica_and_day(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        acme = await gateway.key_of("acme", Terms(priority=Priority.LOAD_TEST))
        for key, *headers in (
            (ADMIN,),
            (ADMIN, ("x-simsa-run-id", "run-7")),
            (acme, ("x-simsa-run-id", "run-7")),
            (acme, ("x-simsa-run-id", "run-8")),
        ):
            assert (await ask(gateway, key, *headers)).status == 200
        await gateway.calls(4)
        await settle(gateway)
        runs = [row for row in (await costs(gateway, "?by=run"))["data"] if row["kind"] == "calls"]
        assert [(row["group"], row["calls"], row["basis"]) for row in runs] == [
            ("run-7", 2, "gpu_time"),
            ("run-8", 1, "gpu_time"),
        ]
        own = [row for row in (await costs(gateway, "?by=run", acme))["data"] if row["kind"] == "calls"]
        assert [(row["group"], row["calls"]) for row in own] == [("run-7", 1), ("run-8", 1)]
        replicas = (await costs(gateway, "?by=replica"))["data"]
        assert [(row["kind"], row["group"]) for row in replicas] == [("calls", "m/1"), ("idle", "m/1")]
        assert replicas[0]["calls"] == 4
        days = (await costs(gateway, "?by=day"))["data"]
        assert {row["group"] for row in days} <= {
            str(datetime.now(UTC).date()),
            str(datetime.now(UTC).date() - timedelta(days=1)),
        }


async def test_a_gpu_that_nobody_named_makes_unknown_costs_with_a_reason(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path, gpu=None) as gateway:
        await ask(gateway, ADMIN)
        await gateway.call()
        await settle(gateway)
        (line,) = (await costs(gateway))["data"]
        assert (line["cost"], line["basis"], line["calls_without_cost"]) == (None, "unknown", 1)
        assert line["reason"]


async def test_costs_as_a_table_for_spreadsheets(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        await ask(gateway, ADMIN)
        await gateway.call()
        await settle(gateway)
        answer = await get(gateway, "/api/costs?format=csv")
        assert answer.header("content-type") == "text/csv; charset=utf-8"
        rows = list(csv.DictReader(io.StringIO(answer.body.decode("utf-8-sig"))))
        assert [row["kind"] for row in rows] == ["calls", "idle"]
        assert rows[0]["prices"].endswith("2020-01-01, OFFER, stale")


async def test_costs_as_tables_on_a_terminal(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        await ask(gateway, ADMIN)
        await gateway.call()
        provisional = io.StringIO()
        show_costs(await costs(gateway), Console(file=provisional, width=250))
        assert "yet to be settled" in provisional.getvalue()
        assert "gpu_time_provisional" in provisional.getvalue()
        await settle(gateway)
        settled = io.StringIO()
        show_costs(await costs(gateway), Console(file=settled, width=250))
        for words in (
            "idle GPU time",
            "3600 KRW/h h100-sxm (OFFER, 2020-01-01, STALE)",
            "blended_3_to_1",
            "while_busy",
        ):
            assert words in settled.getvalue()


async def test_days_that_cannot_be_are_refused(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        for query in ("since=2026-02-01&until=2026-01-01", "since=2020-01-01&until=2026-01-01", "by=colour"):
            assert (await get(gateway, f"/api/costs?{query}")).status == 400


async def test_a_million_tokens_at_a_given_load(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        query = "gpu=h100-sxm&gpus=2&output_tokens_per_s=2000&utilisation=0.5&load=claimed&characters=2000&tokens=1000"
        found = (await get(gateway, f"/api/costs/tokens?{query}")).json()
        figures = {row["name"]: row for row in found["figures"]}
        assert Decimal(figures["output"]["amount"]) == 2000  # 7200 KRW an hour, 3.6 million tokens an hour
        assert figures["output"]["load"] == "claimed"
        assert Decimal(figures["per_1000_characters"]["amount"]) == 1
        assert figures["energy"]["reason"].startswith("no joules were given")
        measured = (await get(gateway, f"/api/costs/tokens?{query}&joules=500")).json()["figures"]
        assert [Decimal(row["amount"]) for row in measured if row["name"] == "energy"] == [Decimal("0.5")]
        assert found["price"]["is_stale"]
        assert (found["weight"], found["weight_basis"]) == ("0.25", "assumed")
        changes = {row["changed"]: row["changes"]["output"] for row in found["sensitivity"]}
        assert (changes["price +20%"], changes["utilisation -20%"]) == (0.2, 0.25)
        assert (await get(gateway, "/api/costs/tokens?gpu=nothing&output_tokens_per_s=1")).status == 404
        for bad in ("output_tokens_per_s=0", "output_tokens_per_s=nan", "output_tokens_per_s=1&utilisation=2"):
            assert (await get(gateway, f"/api/costs/tokens?gpu=h100-sxm&{bad}")).status == 400


async def test_a_weight_is_fitted_to_measured_loads_and_settled_with(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        loads = ((1000, 10), (10, 1000), (500, 500), (2000, 100))
        cells = [
            {"uncached_prompt_tokens": p, "completion_tokens": c, "busy_s": 0.001 * (0.1 * p + c)} for p, c in loads
        ]
        asked = {"model": "m", "gpu": "h100-sxm", "provenance": "unknown", "source": "run-7", "cells": cells}
        path = "/api/costs/weights"
        async with RawClient(gateway.url, key=ADMIN) as client:
            kept = (await client.request("POST", path, body=asked)).json()
            assert (Decimal(kept["weight"]), kept["basis"], kept["cells"]) == (Decimal("0.1"), "fitted", 4)
            assert kept["r_squared"] == pytest.approx(1)
            few = (await client.request("POST", path, body={**asked, "cells": cells[:3]})).json()
            assert (few["weight"], few["basis"]) == ("0.25", "assumed")
            assert "fewer" in few["reason"]
            assert (await client.request("POST", path, body={**asked, "gpu": "none"})).status == 404
            assert (await client.request("POST", path, body={**asked, "cells": []})).status == 400
        async with RawClient(gateway.url, key=await gateway.key_of("acme")) as client:
            assert (await client.request("POST", path, body=asked)).status == 403
        await ask(gateway, ADMIN)
        await gateway.call()
        await settle(gateway)
        (line,) = [row for row in (await costs(gateway))["data"] if row["kind"] == "calls"]
        assert line["provenance"] == "unknown"
        assert [Decimal(weight.partition(" ")[0]) for weight in line["weights"]] == [Decimal("0.1")]


def side(text: str, tokens: int, **facts: Any) -> Side:
    told = {"usage": {"completion_tokens": tokens, "source": "engine"}, "provenance": "real", **facts}
    output = {"content": text, "reasoning": "생각" if tokens == 7 else None, "tool_calls": None}
    return Side("m", "ok", None, "stop", None, told, output)


async def test_characters_are_counted_in_korean_answers_that_comparisons_keep(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        store = gateway.services.store
        sides = (
            side("한국어 답변", 7),
            side("an English answer", 4),
            side("가나다", 3, provenance="simulated"),
            side("세어지지 않은 답", 9, usage={"completion_tokens": 9, "source": "counted"}),
        )
        now = datetime.now(UTC)
        await store.save_comparison(Comparison("cmp-1", now, "sequential", {}, [], sides))
        found = await korean_lengths(store)
        assert found == {("m", "real"): Lengths(1, 8, 7), ("m", "simulated"): Lengths(1, 3, 3)}


async def test_costs_by_command(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        await ask(gateway, ADMIN)
        await gateway.call()
        await settle(gateway)
        ended = await run_simsa("costs", "--by", "replica", "--url", gateway.url, admin_key=ADMIN)
        assert (ended.code, ended.err) == (0, "")
        assert [row["group"] for row in json.loads(ended.out)["data"]] == ["m/1", "m/1"]
        refused = await run_simsa("costs", "--by", "colour", "--url", gateway.url, admin_key=ADMIN)
        assert refused.code == 2
        assert "by" in refused.err


TOKENS = "/api/costs/tokens?gpu=h100-sxm&output_tokens_per_s="
EXTREME = (
    "1e-6",
    "1e-6&utilisation=1e-6&gpus=100000&characters=1&tokens=1000000000000000",
    "1e9&input_tokens_per_s=1e-320&weight=1e-320",
    "5&joules=1e18&tokens=1",
)


async def test_extreme_loads_have_an_answer_and_impossible_ones_a_reason(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        for query in EXTREME:
            answer = await get(gateway, TOKENS + query)
            assert answer.status == 200, answer.body
            assert Decimal(answer.json()["figures"][0]["amount"]) >= 0
        for query in ("1e-18", "1e-300", "5e-324", "nan", "inf", "1e10"):
            answer = await get(gateway, TOKENS + query)
            assert answer.status == 400
            assert answer.json()["error"]["param"] == "output_tokens_per_s"
        answer = await get(gateway, TOKENS + "5&utilisation=1e-20")
        assert answer.status == 400
        assert "0.000001" in answer.json()["error"]["message"]


async def test_settled_calls_idle_and_busy_lines_are_the_gpus_money(tmp_path: Path) -> None:
    async with gateway_with_a_gpu(tmp_path) as gateway:
        acme = await gateway.key_of("acme")
        await ask(gateway, acme)
        call = await gateway.call()
        assert call.dispatched_at is not None
        until = call.dispatched_at + timedelta(minutes=1)
        await gateway.services.store.upsert_calls([replace(call, ended_at=until)])
        settlements = Settlements(gateway.services.store)
        due = await settlements.list_due(datetime.now(UTC) + timedelta(hours=1))
        registry = gateway.services.registry.current
        find_price = price_in_force(registry.gpus["h100-sxm"], until.date(), tier="reserved")
        await settlements.settle(due[0], lambda _gpu, _on: find_price)
        data = (await costs(gateway, "?since=2020-01-01&until=2020-01-02"))["data"]
        assert data == []
        found = await costs(gateway)
        (busy,) = [row for row in found["data"] if row["kind"] == "busy"]
        assert "not attributed to a settled call" in busy["reason"]
        rows = await gateway_rows(gateway)
        whole = sum(Decimal(r["cost"]) for r in found["data"] if r["basis"] == "gpu_time")
        assert whole == Decimal(sum(r.money_nanos for r in rows)).scaleb(-9)
        table = io.StringIO()
        show_costs(found, Console(file=table, width=250))
        assert "busy, not attributed" in table.getvalue()
        assert {row["kind"] for row in (await costs(gateway, "", acme))["data"]} == {"calls", "idle"}
