"""A real Prometheus with the shipped rules, a real gateway, a simulated engine that goes away and comes back.

The rules are a copy whose waiting times are a second each, made by `hurried`; nothing else of them is changed.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import watched
import yaml
from clients import RawClient
from deploy_tools import program
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S
from prometheus_client.parser import text_string_to_metric_families
from servers import serve
from simulated_models import H100, TINY, model_of

from gateway.processes import free_ports
from gateway.simulator import create_engine

EVERY_S = 1
TOLD = {"SimsaModelWithoutReplica", "SimsaEngineScrapeDown"}
"""What must fire while the engine is gone."""
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 4, "stream": True}
FAR_AWAY = {"SimsaGatewayAbsent", "SimsaRegistryInvalid", "SimsaDatabaseAway", "SimsaSpoolFailing", "SimsaRecordsLost"}
"""What must not fire, whatever becomes of the engine."""


def hurried(text: str) -> str:
    """The same rules, each waiting for a second only and looked at every second."""
    document = yaml.safe_load(text)
    for group in document["groups"]:
        group["interval"] = f"{EVERY_S}s"
        for rule in group["rules"]:
            if "alert" in rule:
                rule["for"] = f"{EVERY_S}s"
    return yaml.safe_dump(document, allow_unicode=True)


class Prometheus:
    """One that runs; asked over its own API."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def ask(self, path: str) -> Any:
        async with RawClient(self.url) as client:
            answer = await client.request("GET", path)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)["data"]

    async def value(self, query: str) -> float | None:
        """The only value of a query; None where there is none."""
        result = (await self.ask(f"/api/v1/query?query={quote(query)}"))["result"]
        return float(result[0]["value"][1]) if result else None

    async def states(self) -> dict[str, set[str]]:
        """pending or firing, by alert."""
        found: dict[str, set[str]] = {}
        for alert in (await self.ask("/api/v1/alerts"))["alerts"]:
            found.setdefault(alert["labels"]["alertname"], set()).add(alert["state"])
        return found

    async def own_figure(self, name: str) -> float:
        """The sum of one of its own series, from its own /metrics."""
        async with RawClient(self.url) as client:
            page = (await client.request("GET", "/metrics")).body.decode()
        found = [family for family in text_string_to_metric_families(page) if name.startswith(family.name)]
        return sum(sample.value for family in found for sample in family.samples if sample.name == name)


@asynccontextmanager
async def prometheus(directory: Path, targets: dict[str, str]) -> AsyncIterator[Prometheus]:
    """Scrapes `targets` (address by job) every second and has the shipped rules in a hurry, until the block ends."""
    binary = program("prometheus")
    for path in watched.RULES:
        (directory / path.name).write_text(hurried(path.read_text(encoding="utf-8")), encoding="utf-8")
    config = {
        "global": {"scrape_interval": f"{EVERY_S}s", "evaluation_interval": f"{EVERY_S}s"},
        "rule_files": [path.name for path in watched.RULES],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [url.removeprefix("http://")]}]}
            for job, url in targets.items()
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        binary,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
        stdout=DEVNULL,
        stderr=PIPE,
    )
    assert process.stderr is not None
    said = asyncio.create_task(process.stderr.read())
    running = Prometheus(f"http://127.0.0.1:{port}")
    try:
        await until(lambda: is_ready(running, process))
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        print((await said).decode())


async def is_ready(running: Prometheus, process: asyncio.subprocess.Process) -> bool:
    assert process.returncode is None, "Prometheus did not start"
    try:
        async with RawClient(running.url) as client:
            return (await client.request("GET", "/-/ready")).status == 200
    except OSError:
        return False


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; nothing announces it, so it is asked again and again."""
    async with asyncio.timeout(HANG_S):
        while not await holds():
            await asyncio.sleep(0.1)


async def ask(gateway: RunningGateway) -> None:
    async with RawClient(gateway.url) as client:
        answer = await client.request("POST", "/v1/chat/completions", body=ASK)
    assert answer.status == 200, answer.body


def test_hurried_rules_differ_in_their_times_alone() -> None:
    for path in watched.RULES:
        text = path.read_text(encoding="utf-8")
        slow, fast = yaml.safe_load(text), yaml.safe_load(hurried(text))
        for one, other in zip(slow["groups"], fast["groups"], strict=True):
            for rule, quick in zip(one["rules"], other["rules"], strict=True):
                assert {**rule, "for": None} == {**quick, "for": None}


def simulated_engine() -> Any:
    return create_engine(model_of(TINY, model_id="m"), H100, max_model_len=1024, speed=100)


async def test_engine_that_goes_is_told_by_its_alerts_until_it_is_back_and_no_rule_fails(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    async with (
        running_gateway(tmp_path, [entry("m", url)]) as gateway,
        prometheus(tmp_path, {"simsa-gateway": gateway.url, "simsa-engines": url}) as watching,
    ):

        async def is_seen_well() -> bool:
            is_up = await watching.value('job_model:simsa_replicas_up:sum{model="m"}') == 1
            is_scraped = await watching.value("count(vllm:num_requests_running)") == 1
            return is_up and is_scraped and not (TOLD | FAR_AWAY) & set(await watching.states())

        async def is_told() -> bool:
            states = await watching.states()
            return all("firing" in states.get(alert, ()) for alert in TOLD)

        with serve(simulated_engine(), port=port):
            await gateway.until_live("m")
            await ask(gateway)
            await until(is_seen_well)
        await until(is_told)
        assert not FAR_AWAY & set(await watching.states())
        with serve(simulated_engine(), port=port):
            await until(is_seen_well)
        rules = [rule for group in (await watching.ask("/api/v1/rules"))["groups"] for rule in group["rules"]]
        assert len(rules) == len(watched.rules())
        assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
        assert await watching.own_figure("prometheus_rule_evaluations_total") > len(rules)
        assert await watching.own_figure("prometheus_rule_evaluation_failures_total") == 0
