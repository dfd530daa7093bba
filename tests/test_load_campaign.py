"""A plan from its YAML to its run: real workers, the gateway, a simulated engine, and what interrupts them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from gateways import RunningGateway, entry, running_gateway
from msgspec.structs import replace
from populated_gateway import GPU, GPUS
from processes_under_test import run_simsa
from servers import serve
from simulated_models import H100, TINY, model_of

from gateway.errors import StartRefused
from gateway.registry import load_registry
from gateway.settings import Settings
from gateway.simulator import create_engine
from loadtests.calibration import this_host
from loadtests.campaign import Campaign, Step, disturbances, seed_of
from loadtests.cells import Calibration, Check, Run
from loadtests.journal import Journal
from loadtests.outset import OutsetRefused, Wishes, needed_events_per_s, prepare, take_over
from loadtests.plan_file import parse_plan
from loadtests.sighting import TargetSilent
from loadtests.written import write_report

MODEL = model_of(TINY, model_id="m")
LIMIT_S = 240.0
"""How long a campaign may take. A guard, not a timing."""


@dataclass
class Bench:
    """A gateway with one simulated engine behind it, and where runs are kept."""

    gateway: RunningGateway
    engine: str
    directory: Path
    settings: Settings

    async def campaign(
        self,
        plan: str,
        *,
        resume: Path | None = None,
        calibrated: Path | None = None,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> Campaign:
        path = self.directory / "plan.yaml"
        path.write_text(plan.replace("GATEWAY", self.gateway.url).replace("ENGINE", self.engine))
        return await prepare(
            path,
            load_registry(self.gateway.registry_path),
            self.settings,
            Wishes(resume=resume, calibrated=calibrated),
            stopping=asyncio.Event(),
            on_step=on_step,
            say=lambda words: None,
        )

    async def run(self, plan: str) -> tuple[Run, Path]:
        campaign = await self.campaign(plan)
        async with asyncio.timeout(LIMIT_S):
            return await campaign.run(), campaign.journal.directory


@asynccontextmanager
async def bench(directory: Path) -> AsyncIterator[Bench]:
    with serve(create_engine(MODEL, H100)) as engine:
        async with running_gateway(directory, [entry("m", engine)]) as gateway:
            await gateway.until_live("m")
            settings = Settings(data_dir=directory / "client", registry=gateway.registry_path)
            yield Bench(gateway, engine, directory, settings)


PLAN = """
name: small
target: {model: m, through: both, gateway: 'GATEWAY', engine: 'ENGINE'}
workload: {kind: chat, language: en, output_tokens: 8}
load:
  - {id: crowd, users: 2, for_s: 1.5, warm_up_s: 0.3}
objectives:
  - {metric: ttft_s, statistic: p50, limit: 60}
repeats: 1
drain_s: 20
calibrate: false
"""


CALIBRATION = Calibration(
    events_per_s=500.0,
    lag_p99_s=0.004,
    ttft_error_p99_s=0.001,
    cpu_share=0.2,
    needed_events_per_s=None,
    passed=True,
    host=this_host(),
)


async def test_a_plan_runs_through_both_doors_and_is_kept_whole(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        run, directory = await it.run(PLAN)
        assert (run.state, run.provenance, run.model) == ("complete", "simulated", "m")
        assert [(cell.id, cell.door) for cell in run.cells] == [("crowd", "direct"), ("crowd", "gateway")]
        for cell in run.cells:
            (repeat,) = cell.repeats
            assert set(repeat.outcomes) == {"ok"}
            assert repeat.outcomes["ok"] == repeat.rates.offered > 0
            assert repeat.latencies.ttft_s.n == repeat.rates.offered
            assert [one.met for one in repeat.objectives] == [True]
            assert {check.name: check.passed for check in cell.checks} == {"repeats": False}, "one is not enough"
            assert not cell.is_valid
        assert run.engines[0].provenance == "simulated"
        assert run.engines[0].version is not None
        named = {call.opened.run_id for call in await it.gateway.calls(1)}
        through = next(cell for cell in run.cells if cell.door == "gateway")
        assert through.repeats[0].run_id in named
        assert Journal(directory).run() == run
        pages = write_report([directory], directory / "report")
        assert {page.name for page in pages} >= {"report.ko.html", "report.en.html", "run.json", "cells.csv"}


async def test_a_run_that_was_stopped_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        campaign: Campaign | None = None

        def stop_at_the_gateway(step: Step) -> None:
            if "gateway" in step.words:
                assert campaign is not None
                campaign.stopping.set()

        campaign = await it.campaign(PLAN, on_step=stop_at_the_gateway)
        async with asyncio.timeout(LIMIT_S):
            stopped = await campaign.run()
        assert stopped.state == "stopped"
        assert [(cell.door, len(cell.repeats)) for cell in stopped.cells] == [("direct", 1)]
        assert "Stopped during crowd (gateway), repeat 1; that repeat is left out." in stopped.notes
        steps: list[str] = []
        again = await it.campaign(
            "name: another", resume=campaign.journal.directory, on_step=lambda step: steps.append(step.words)
        )
        async with asyncio.timeout(LIMIT_S):
            whole = await again.run()
        assert (whole.id, whole.state) == (stopped.id, "complete")
        assert [cell.door for cell in whole.cells] == ["direct", "gateway"]
        assert whole.cells[0] == stopped.cells[0], "what was measured is not measured again"
        assert all("gateway" in words for words in steps)


async def test_a_run_is_not_gone_on_with_on_other_engines_or_by_two(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        begun = await it.campaign(PLAN)
        begun.stopping.set()
        with pytest.raises(StartRefused, match="is being run by another process"):
            await it.campaign(PLAN, resume=await kept(begun))
        stopped = await begun.run()
        assert stopped.state == "stopped"
        with serve(create_engine(MODEL, H100, max_model_len=512)) as other:
            path = begun.journal.directory / "plan.yaml"
            path.write_text(path.read_text().replace(it.engine, other))
            with pytest.raises(OutsetRefused, match="the engines changed; begin a new run"):
                await it.campaign(PLAN, resume=begun.journal.directory)


async def kept(campaign: Campaign) -> Path:
    """A campaign as an interrupted one lies there."""
    campaign.journal.keep(campaign._found("running"), {})
    return campaign.journal.directory


async def test_a_campaign_that_fails_says_so_and_never_complete(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        campaign = await it.campaign(PLAN)
        campaign.journal.records.rmdir()
        campaign.journal.records.write_text("in the way")
        with pytest.raises(OSError, match=r"records"):
            await campaign.run()
        run = campaign.journal.run()
        assert run.state == "failed"
        assert run.notes[-1].startswith("Failed: ")


async def test_a_run_that_cannot_be_kept_is_told_in_one_line(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        path, place = tmp_path / "plan.yaml", tmp_path / "in-the-way"
        path.write_text(PLAN.replace("GATEWAY", it.gateway.url).replace("ENGINE", it.engine))
        place.write_text("no directory")
        ended = await run_simsa("loadtest", "run", str(path), registry=it.gateway.registry_path, data_dir=place)
    assert ended.code == 2
    assert "the run cannot be kept: " in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


async def test_a_run_is_kept_in_the_gateway_that_it_went_through(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        path, place = tmp_path / "plan.yaml", tmp_path / "client"
        path.write_text(PLAN.replace("GATEWAY", it.gateway.url).replace("ENGINE", it.engine))
        ended = await run_simsa("loadtest", "run", str(path), registry=it.gateway.registry_path, data_dir=place)
        assert ended.code == 1, "one repeat is not enough"
        (kept,) = await it.gateway.services.load_runs.newest(10)
        found = await it.gateway.services.load_runs.found(kept.id)
        assert found is not None
        through = next(cell for cell in found[1].cells if cell.door == "gateway")
        (check,) = (one for one in through.repeats[0].checks if one.name == "gateway_records")
        assert check.passed, check.seen
        again = await run_simsa(
            *("loadtest", "keep", kept.id, "--url", it.gateway.url), registry=it.gateway.registry_path, data_dir=place
        )
        assert (again.code, again.out) == (0, f"{kept.id} is kept at {it.gateway.url}\n")
    gone = await run_simsa(
        *("loadtest", "keep", kept.id, "--url", it.gateway.url), registry=it.gateway.registry_path, data_dir=place
    )
    assert (gone.code, gone.err.splitlines()[-1]) == (
        1,
        f"no gateway answers at {it.gateway.url}: start one with 'simsa up' or 'simsa serve', or name another address",
    )


async def test_a_search_tries_levels_until_the_plans_limit(tmp_path: Path) -> None:
    searching = (
        PLAN.replace("through: both", "through: direct")
        .replace("gateway: 'GATEWAY', ", "")
        .replace(
            "{id: crowd, users: 2, for_s: 1.5, warm_up_s: 0.3}",
            "{id: knee, search: {over: users, begin: 1, most: 2}, for_s: 1.5, warm_up_s: 0.3}",
        )
    )
    async with bench(tmp_path) as it:
        run, _ = await it.run(searching)
    (search,) = run.searches
    if search.ended == "invalid":  # this machine may be too busy to measure; then no level is called good
        assert search.why is not None
        assert search.highest_met in (None, 1)
    else:
        assert (search.ended, search.highest_met, search.tried) == ("at_most", 2, ["knee-1", "knee-2"])


async def test_a_plan_that_names_another_gpu_than_the_registry_is_refused(tmp_path: Path) -> None:
    with serve(create_engine(MODEL, H100)) as engine:
        models = [entry("m", replicas=[{"url": engine, "gpu": GPU, "gpus": 1}])]
        async with running_gateway(tmp_path, models, sections={"gpus": GPUS}) as gateway:
            await gateway.until_live("m")
            settings = Settings(data_dir=tmp_path / "client", registry=gateway.registry_path)
            it = Bench(gateway, engine, tmp_path, settings)
            with pytest.raises(OutsetRefused, match=f"the plan says 2 × {GPU}, the registry 1 × {GPU} for m/1"):
                await it.campaign(PLAN + f"gpu: {GPU}\ngpus: 2\n")


async def test_what_does_not_answer_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        with pytest.raises(TargetSilent, match=r"no engine answers at http://127\.0\.0\.1:9"):
            await it.campaign(PLAN.replace("ENGINE", "http://127.0.0.1:9"))
        it.settings = Settings(data_dir=tmp_path / "data", registry=it.gateway.registry_path)
        with pytest.raises(OutsetRefused, match="the records hold no call of m"):
            await it.campaign(PLAN.replace("users: 2, for_s: 1.5, warm_up_s: 0.3", "trace: {records: m}"))
        assert await it.gateway.services.store.list_calls() == []


async def test_lengths_are_learnt_from_prompts_as_they_will_come(tmp_path: Path) -> None:
    """A message costs what the chat template adds; a bare prompt does not."""
    learnt = {}
    async with bench(tmp_path) as it:
        for route in ("chat", "completions"):
            plan = PLAN.replace("model: m", f"model: m, route: {route}").replace("language: en", "input_tokens: 90")
            campaign = await it.campaign(plan)
            campaign.lock.release()
            learnt[route] = campaign.work.fertility.overhead_tokens["ko"]
    assert learnt["chat"] - learnt["completions"] >= 2


@pytest.mark.parametrize(
    ("failed", "again"),
    [
        (("schedule_lag", "running"), True),
        (("running", "engine_restart"), False),
        (("lengths",), False),
        ((), False),
    ],
)
def test_only_what_a_disturbance_alone_has_spoilt_is_run_again(failed: tuple[str, ...], again: bool) -> None:
    names = ("records_complete", "schedule_lag", "lengths", "running", "engine_restart")
    checks = [Check(name=name, passed=name not in failed, limit="", seen="") for name in names]
    assert [one.name for one in disturbances(checks)] == (list(failed) if again else [])


def test_every_repeat_and_door_has_a_seed_of_its_own() -> None:
    seeds = {
        seed_of(source, cell, door, number, attempt)
        for source in ("1/lr-1/0", "1/lr-2/0")
        for cell in ("a", "b")
        for door in ("direct", "gateway")
        for number in (1, 2, 3)
        for attempt in (1, 2)
    }
    assert len(seeds) == 2 * 2 * 2 * 3 * 2
    assert seed_of("1/lr-1/0", "a", "direct", 1) == seed_of("1/lr-1/0", "a", "direct", 1)


def test_the_plans_need_is_its_highest_rate_times_its_longest_answer() -> None:
    text = PLAN.replace("{id: crowd, users: 2, for_s: 1.5, warm_up_s: 0.3}", "{id: up, ramp: {rate_per_s: [1, 50]}}")
    for plan, needed in ((text, 400), (PLAN, None)):
        addressed = plan.replace("GATEWAY", "http://127.0.0.1:1").replace("ENGINE", "http://127.0.0.1:2")
        assert needed_events_per_s(parse_plan(addressed.encode(), path="p"), {}) == needed


async def test_a_calibration_of_the_last_hour_is_taken_over_and_held_against_the_plan(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        run, _ = await it.run(PLAN)
        now = datetime.fromisoformat(run.began_at)
        shown = replace(run, calibration=CALIBRATION)
        assert take_over(shown, now=now + timedelta(minutes=59)) == replace(CALIBRATION, of_run=run.id)
        other = dict.fromkeys(run.versions, "0")
        for refused, why in (
            (run, "it was not calibrated"),
            (replace(shown, calibration=replace(CALIBRATION, of_run="lr-0")), "its own is that of lr-0"),
            (replace(shown, calibration=replace(CALIBRATION, host="0" * 16)), "of another host"),
            (replace(shown, calibration=replace(CALIBRATION, host=None)), "of another host"),
            (replace(shown, versions=other), "other versions of the client"),
            (replace(shown, began_at=(now - timedelta(hours=2)).isoformat()), "more than 1 h ago"),
        ):
            with pytest.raises(OutsetRefused, match=why):
                take_over(refused, now=now)
        directory = tmp_path / "shown"
        journal = Journal(directory)
        journal.begin(b"name: shown")
        journal.keep(replace(shown, began_at=datetime.now(UTC).isoformat()), {})
        open_loop = PLAN.replace("users: 2, for_s: 1.5", "rate_per_s: 100, for_s: 1.5").replace("calibrate: false", "")
        campaign = await it.campaign(open_loop, calibrated=directory)
        expected = replace(CALIBRATION, of_run=run.id, needed_events_per_s=800.0, passed=False)
        assert campaign.calibration == expected, "100 answers of 8 tokens a second are more than 500 events"
        campaign.lock.release()


def test_a_run_reads_back_from_its_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "lr-1")
    journal.begin(b"name: one")
    assert journal.plan() == b"name: one"
    (journal.records / "c").mkdir()
    for name in ("c-direct-r1-w0.jsonl", "c-direct-r1-w1.jsonl", "c-direct-r10-w0.jsonl"):
        (journal.records / "c" / name).write_bytes(b"")
    assert [path.name for path in journal.record_files("c", "c-direct-r1")] == [
        "c-direct-r1-w0.jsonl",
        "c-direct-r1-w1.jsonl",
    ]
    assert msgspec.json.decode(msgspec.json.encode({})) == journal.spreads()
