"""Load runs on engines that stand behind a name: found when a run begins, and looked for again at every repeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from gateways import RunningGateway, running_gateway
from load_repeats import RUN_LIMIT_S
from name_server import SERVFAIL, NameServer
from populated_gateway import GPUS
from servers import serve
from simulated_models import H100, TINY, model_of

from gateway.registry import load_registry
from gateway.settings import Settings
from gateway.simulator import create_engine
from loadtests.campaign import Step
from loadtests.cells import Check, Run
from loadtests.doorways import TargetUnknown
from loadtests.outset import Wishes, prepare

NAME = "engines.test"
PLAN = """
name: small
target: {model: m, through: both, gateway: 'GATEWAY'}
workload: {kind: chat, language: en, output_tokens: 8}
load:
  - {id: crowd, users: 2, for_s: 1.5, warm_up_s: 0.3}
repeats: 1
drain_s: 20
calibrate: false
"""


@dataclass
class Place:
    """A gateway whose only model has its engines behind NAME, and the name server that says where."""

    gateway: RunningGateway
    names: NameServer
    port: int
    directory: Path

    async def run(self, on_step: Callable[[Step], None] = lambda step: None, *, plan: str = PLAN) -> Run:
        path = self.directory / "plan.yaml"
        path.write_text(plan.replace("GATEWAY", self.gateway.url))
        campaign = await prepare(
            path,
            load_registry(self.gateway.registry_path),
            Settings(data_dir=self.directory / "client", dns_servers=self.names.address),
            Wishes(),
            stopping=asyncio.Event(),
            on_step=on_step,
            say=lambda words: None,
        )
        async with asyncio.timeout(RUN_LIMIT_S):
            return await campaign.run()


@asynccontextmanager
async def place(directory: Path) -> AsyncIterator[Place]:
    with serve(create_engine(model_of(TINY, model_id="m"), H100)) as engine:
        port = urlsplit(engine).port
        assert port is not None
        entry = {
            "id": "m",
            "serving": {"kind": "vllm"},
            "replicas": [{"dns": NAME, "port": port, "gpu": "h100-sxm", "gpus": 2}],
        }
        async with NameServer() as names:
            names.set(NAME, "127.0.0.1")
            async with running_gateway(
                directory, [entry], sections={"gpus": GPUS}, dns_servers=names.address
            ) as gateway:
                await gateway.until_live("m")
                yield Place(gateway, names, port, directory)


def engines_check(run: Run, door: str) -> Check:
    (cell,) = (one for one in run.cells if one.door == door)
    return next(one for one in cell.repeats[0].checks if one.name == "same_engines")


async def test_engines_behind_a_name_are_asked_read_and_counted(tmp_path: Path) -> None:
    async with place(tmp_path) as it:
        run = await it.run()
        assert [one.replica for one in run.engines] == [f"m/127.0.0.1:{it.port}"]
        assert (run.gpu, run.gpus, run.replicas) == ("h100-sxm", 2, 1)
        for cell in run.cells:
            assert set(cell.repeats[0].outcomes) == {"ok"}, cell.door
            assert cell.repeats[0].rates.output_tokens_per_s_per_gpu is not None
            assert engines_check(run, cell.door).passed is True


async def test_a_repeat_with_other_engines_than_the_run_began_with_is_invalid(tmp_path: Path) -> None:
    async with place(tmp_path) as it:
        came = f"http://127.0.0.2:{it.port} came"
        run = await it.run(lambda step: it.names.set(NAME, "127.0.0.1", "127.0.0.2"))
        for cell in run.cells:
            check = engines_check(run, cell.door)
            assert (check.passed, check.seen) == (False, came)
            assert not cell.is_valid


async def test_engines_that_come_are_noticed_though_the_plan_says_whose_figures_to_read(tmp_path: Path) -> None:
    async with place(tmp_path) as it:
        engine = f"engine: 'http://127.0.0.1:{it.port}', gateway: 'GATEWAY'"
        plan = PLAN.replace("gateway: 'GATEWAY'", engine)
        run = await it.run(lambda step: it.names.set(NAME, "127.0.0.1", "127.0.0.2"), plan=plan)
        assert engines_check(run, "gateway").passed is False


async def test_a_name_server_that_fails_meanwhile_is_told_and_spoils_nothing(tmp_path: Path) -> None:
    async with place(tmp_path) as it:
        run = await it.run(lambda step: it.names.fail(NAME, SERVFAIL))
        check = engines_check(run, "direct")
        assert (check.passed, check.seen) == (None, "name servers did not say")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda names: names.remove(NAME), f"{NAME} has no address: no such name"),
        (lambda names: names.set(NAME), f"{NAME} has no address: it has no A record; it has no AAAA record"),
        (lambda names: names.fail(NAME, SERVFAIL), f"{NAME} cannot be resolved"),
    ],
)
async def test_a_run_does_not_begin_without_knowing_its_engines(
    spoil: Callable[[NameServer], None], why: str, tmp_path: Path
) -> None:
    async with place(tmp_path) as it:
        spoil(it.names)
        with pytest.raises(TargetUnknown) as refusal:
            await it.run()
        assert str(refusal.value).startswith(why)
        assert "SIMSA_DNS_SERVERS" in str(refusal.value)
