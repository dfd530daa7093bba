"""Load tests on real vLLM: the whole command, both doors, and what must be so however fast this machine is.

The weights are random and the CPU is no GPU, so no speed is looked at: what is shown is that every request and token is
counted as the engine counts it, that the run says what answered, and that an engine that dies leaves no hole.
"""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from clients import RawClient
from gateways import RunningGateway
from guards import HANG_S
from processes_under_test import SIMSA, clean_environment
from real_engines import LLAMA, RealEngine, RealEngines, gateway_before

from gateway.domain.claims import ClaimVerdict
from gateway.registry import load_registry
from gateway.registry.text import read_document, write_document
from gateway.settings import Settings
from loadtests.campaign import Campaign, Step
from loadtests.cells import CellSeen, Repeat, Run
from loadtests.journal import Journal
from loadtests.outset import Wishes, prepare
from loadtests.records import Outcome, RequestRecord
from loadtests.written import write_report

LIMIT_S = 240.0
"""How long a run may take. A guard, not a timing."""
OUTPUT_TOKENS = 12
# Prompts of more than two of the CPU's KV blocks (128 tokens each): a shorter one could not be found in a cache.
CLAIMED = "p50 of TTFT within a minute"
PLAN = """
name: real
target: {model: MODEL, through: both, gateway: 'GATEWAY'}
workload: {kind: chat, language: ko, input_tokens: 320, output_tokens: 12}
load:
  - {id: crowd, users: 3, for_s: 3, warm_up_s: 0.5}
  - {id: rate, rate_per_s: 3, for_s: 3, warm_up_s: 0.5}
objectives: [{metric: ttft_s, statistic: p50, limit: 60}]
repeats: 1
calibrate: false
"""
SHARED = """
name: shared
target: {model: MODEL, through: direct}
workload: {kind: chat, language: ko, input_tokens: 400, output_tokens: 4, shared_prefix_tokens: 300}
load: [{id: crowd, users: 2, for_s: 4, warm_up_s: 0}]
repeats: 1
calibrate: false
"""
DYING = """
name: dying
target: {model: MODEL, through: direct}
workload: {kind: chat, language: ko, output_tokens: 64}
load: [{id: crowd, users: 3, for_s: 7, warm_up_s: 0}]
repeats: 2
drain_s: 20
calibrate: false
"""


class Counted(NamedTuple):
    """What an engine has counted since it began."""

    prompt_tokens: int
    generation_tokens: int


class Bench:
    """One real engine with a gateway before it, and the client's registry: the gateway's, with a claim to be tested."""

    def __init__(self, gateway: RunningGateway, engine: RealEngine, directory: Path) -> None:
        self.gateway = gateway
        self.engine = engine
        self.directory = directory
        self.data_dir = directory / "client"
        self.registry = directory / "client.yaml"
        self.registry.write_bytes(claiming(gateway.registry_path.read_bytes()))

    def plan(self, text: str) -> Path:
        path = self.directory / "plan.yaml"
        path.write_text(text.replace("MODEL", LLAMA).replace("GATEWAY", self.gateway.url))
        return path

    async def run(self, plan: str) -> tuple[Run, Journal]:
        """`simsa loadtest run`, as a process, to its end. Its cells have one repeat, so none is valid: exit code 1."""
        process = await asyncio.create_subprocess_exec(
            *(*SIMSA, "loadtest", "run", str(self.plan(plan)), "--json"),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=clean_environment(registry=self.registry, data_dir=self.data_dir),
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 1, err.decode()
        run = msgspec.json.decode(out, type=Run)
        return run, Journal(self.data_dir / "load-runs" / run.id)

    async def campaign(self, plan: str, on_step: Callable[[Step], object]) -> Campaign:
        """The same within this process, so that a test can do something between its steps."""
        return await prepare(
            self.plan(plan),
            load_registry(self.registry),
            Settings(data_dir=self.data_dir, registry=self.registry),
            Wishes(),
            stopping=asyncio.Event(),
            on_step=on_step,
            say=lambda words: None,
        )

    async def counted(self) -> Counted:
        async with RawClient(self.engine.url) as client:
            text = (await client.request("GET", "/metrics")).body.decode()
        return Counted(*(_sum_of(text, f"vllm:{name}_total") for name in Counted._fields))


def claiming(registry: bytes) -> bytes:
    values = read_document(registry, path="registry").value
    (model,) = [one for one in values["models"] if one["id"] == LLAMA]
    claim = {"id": "soon", "text": CLAIMED, "metric": "ttft_s", "statistic": "p50", "value": 60}
    model.setdefault("claims", []).append(claim | {"source": "ARTICLE", "confidence": "low"})
    return write_document(values, heading=["A test's own."])


def _sum_of(metrics: str, family: str) -> int:
    values = re.findall(rf"^{re.escape(family)}\{{.*\}} (\S+)$", metrics, re.M)
    assert values, f"the engine shows no {family}"
    return int(sum(map(float, values)))


@pytest.fixture
async def bench(tmp_path: Path, llama: RealEngine) -> AsyncIterator[Bench]:
    async with gateway_before(tmp_path, llama) as gateway:
        yield Bench(gateway, llama, tmp_path)


async def test_a_plan_through_both_doors_counts_as_the_engine_and_the_gateway_do(bench: Bench) -> None:
    before = await bench.counted()
    run, journal = await bench.run(PLAN)
    after = await bench.counted()
    assert (run.state, run.provenance, run.model) == ("complete", "stand_in", LLAMA)
    assert [(cell.id, cell.door) for cell in run.cells] == [
        (cell, door) for cell in ("crowd", "rate") for door in ("direct", "gateway")
    ]
    sent = [one for path in journal.records.glob("*/*.jsonl") for one in records_in(path)]
    assert {one.outcome for one in sent} == {"ok"}
    assert {(one.usage_source, one.completion_tokens, one.finish_reason) for one in sent} == {
        ("engine", OUTPUT_TOKENS, "length")
    }
    assert after.generation_tokens - before.generation_tokens == len(sent) * OUTPUT_TOKENS
    assert after.prompt_tokens - before.prompt_tokens == sum(one.prompt_tokens or 0 for one in sent)
    for cell in run.cells:
        (repeat,) = cell.repeats
        assert_measured(repeat)
        if cell.door == "gateway":
            await assert_recorded_alike(bench.gateway, repeat, records_of(journal, cell))
    assert_described(run, bench)
    assert_restrained(run)
    assert_rendered(journal, run)


def assert_measured(repeat: Repeat) -> None:
    checks = {check.name: check for check in repeat.checks}
    assert repeat.outcomes == {"ok": repeat.rates.offered}
    assert repeat.latencies.ttft_s.n == repeat.rates.offered > 0
    for name in ("records_complete", "token_source", "lengths", "provenance", "engine_restart"):
        assert checks[name].passed is True, checks[name]
    assert checks["cache_hits"].passed is not False, checks["cache_hits"]
    assert repeat.provenance == "stand_in"


async def assert_recorded_alike(gateway: RunningGateway, repeat: Repeat, records: list[RequestRecord]) -> None:
    """The gateway's own records of this run's id are the same requests with the same tokens."""
    calls = {call.opened.request_id: call for call in await gateway.calls() if call.opened.run_id == repeat.run_id}
    assert set(calls) == {one.request_id for one in records}
    for one in records:
        usage = calls[one.request_id or ""].usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (one.prompt_tokens, one.completion_tokens)


def assert_described(run: Run, bench: Bench) -> None:
    """The engine as it resolved its own configuration, and its view beside the client's."""
    (engine,) = run.engines
    assert (engine.provenance, engine.restarts) == ("stand_in", 0)
    assert engine.version is not None
    assert engine.version.startswith("0.32")
    assert int(engine.resolved["num_gpu_blocks"]) > 0
    assert engine.resolved["block_size"] == "128"
    assert set(run.gateway) == {"registry_sha256"}
    points = [point for cell in run.cells for repeat in cell.repeats for point in repeat.timeline]
    assert max(point.engine_running or 0 for point in points) >= 1
    shares = [point.engine_prefix_hit_share for point in points if point.engine_prefix_hit_share is not None]
    assert shares
    assert max(shares) < 0.05, "every prompt is new"


def assert_restrained(run: Run) -> None:
    """Stand-ins settle no claim, however well they do; and one repeat makes no cell."""
    said = {verdict.claim: verdict.verdict for verdict in run.verdicts}
    assert said["soon"] == ClaimVerdict.OPEN
    assert not {ClaimVerdict.HOLDS, ClaimVerdict.REFUTED_MEASURED, ClaimVerdict.PLAUSIBLE} & set(said.values())
    for cell in run.cells:
        assert [one.met for one in cell.repeats[0].objectives] == [True]
        assert not cell.is_valid
    assert run.doors == [], "what the gateway adds is told of valid cells only"


def assert_rendered(journal: Journal, run: Run) -> None:
    assert journal.run() == run
    written = write_report([journal.directory], journal.directory / "report")
    pages = {path.name: path.read_text() for path in written if path.suffix == ".html"}
    assert set(pages) == {"report.ko.html", "report.en.html"}
    for page in pages.values():
        assert CLAIMED in page
        assert run.id in page


def records_of(journal: Journal, cell: CellSeen) -> list[RequestRecord]:
    """Every request of the first repeat, those of the warm-up too. On a busy machine it may have been run twice."""
    again = "" if cell.repeats[0].attempt == 1 else "-again2"
    (path,) = journal.record_files(cell.id, f"{cell.id}-{cell.door}-r1{again}")
    return records_in(path)


def records_in(path: Path) -> list[RequestRecord]:
    _, *lines, _ = path.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=RequestRecord) for line in lines]


async def test_a_shared_prefix_shows_in_the_engines_own_counters(bench: Bench) -> None:
    run, _ = await bench.run(SHARED)
    shares = [point.engine_prefix_hit_share for point in run.cells[0].repeats[0].timeline]
    assert max(share or 0.0 for share in shares) > 0.2


async def test_an_engine_that_is_killed_in_mid_run_is_said_to_be_gone_and_its_requests_count(
    bench: Bench, engines: RealEngines
) -> None:
    """Killed while the first repeat streams, back for the second, which is measured as if nothing had been."""
    campaign = await bench.campaign(DYING, on_step=lambda step: engines[LLAMA])
    running = asyncio.create_task(campaign.run())
    await until_answering(campaign)
    await engines.beside(bench.engine.stop())
    async with asyncio.timeout(LIMIT_S):
        run = await running
    (cell,) = run.cells
    killed, whole = cell.repeats
    assert killed.attempt == 1, "what an engine's death has spoilt is not run again"
    records = records_of(campaign.journal, cell)
    assert sum(killed.outcomes.values()) == killed.rates.offered
    assert {one.outcome for one in records} >= {Outcome.OK, Outcome.UNREACHABLE}
    assert {one.outcome for one in records} & {Outcome.CUT, Outcome.FAILED}
    assert sorted(one.n for one in records) == list(range(len(records))), "every number has its record"
    checks = {check.name: check for check in killed.checks}
    assert checks["engine_restart"].passed is False
    seen = checks["engine_restart"].seen.split("; ")
    assert (seen[0], seen[-1]) == ("0 restarts seen", "1 engine did not answer any more")
    assert seen[1].endswith("readings unanswered")
    assert checks["records_complete"].passed is True
    assert not cell.is_valid
    assert killed.errors
    assert whole.outcomes == {"ok": whole.rates.offered}
    assert run.state == "complete"
    assert [engine.restarts for engine in run.engines] == [1]
    assert "1 restart(s) of engines were seen during the run." in run.notes


async def until_answering(campaign: Campaign) -> None:
    """Wait until the first repeat's worker has written the record of an answer."""
    async with asyncio.timeout(HANG_S):
        while not any(b'"outcome":"ok"' in path.read_bytes() for path in campaign.journal.record_files("crowd", "*")):
            await asyncio.sleep(0.02)  # nothing announces it
