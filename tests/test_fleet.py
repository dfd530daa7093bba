"""The look at the engines: who is up, what they are, and a registry that changes while they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from engines import Reply, ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.records import Model, Provenance, Serving, ServingKind, Weights
from gateway.domain.routing import Load, pick_replica
from gateway.fleet import read_provenance

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


async def get(gateway: RunningGateway, path: str) -> Any:
    async with RawClient(gateway.url) as client:
        answer = await client.request("GET", path)
    return answer.status, answer.json()


@pytest.mark.parametrize(
    ("kind", "owned_by", "root", "expected"),
    [
        ("vllm", "vllm", "org/weights", Provenance.REAL),
        ("vllm", "vllm", "/data/simsa-stand-in-m", Provenance.STAND_IN),
        ("vllm", "simsa-simulator", "simulated:m@h100", Provenance.SIMULATED),
        ("vllm", "vllm", "other/weights", Provenance.UNKNOWN),
        ("vllm", "vllm", None, Provenance.UNKNOWN),
        ("vllm", None, None, Provenance.UNKNOWN),
        ("vllm", "someone", "org/weights", Provenance.UNKNOWN),
        ("openai_api", "vendor", None, Provenance.REAL),
        ("openai_api", "simsa-simulator", None, Provenance.SIMULATED),
    ],
)
def test_provenance_comes_from_what_the_engine_says(
    kind: str, owned_by: str | None, root: str | None, expected: Provenance
) -> None:
    model = Model("m", Serving(ServingKind(kind), "m"), weights=Weights(repo="org/weights"))
    assert read_provenance(model, owned_by, root)[0] is expected


async def test_engine_that_serves_another_model_is_not_used(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(models=["other"]) as engine,
        running_gateway(tmp_path, [entry("m", engine.url)]) as gateway,
    ):
        state = gateway.services.fleet.states_of("m")[0]
        await gateway.until(lambda: "other" in state.reason)
        assert not state.is_up
        assert state.reason == "the engine serves other, not 'm'"


async def test_unhealthy_engine_is_not_used_and_readiness_follows(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        assert (await get(gateway, "/ready"))[0] == 200
        engine.script("/health", Reply.text("dead", status=500))
        await gateway.until(lambda: not gateway.services.fleet.live("m"))
        status, body = await get(gateway, "/ready")
        assert (status, body["problems"]) == (503, ["no live replica"])
        assert (await get(gateway, "/health"))[0] == 200


async def test_engine_that_comes_back_is_used_again(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        await engine.kill()
        await gateway.until(lambda: not gateway.services.fleet.live("m"))
        await engine.start()
        await gateway.until_live("m")
        async with RawClient(gateway.url) as client:
            assert (await client.request("POST", CHAT, body=ASK)).status == 200


async def test_models_list_shows_what_answers_with_the_engines_extras(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(max_model_len=2048, root="/data/simsa-stand-in-m") as engine,
        running_gateway(tmp_path, [entry("m", engine.url), entry("dead", "http://127.0.0.1:9")]) as gateway,
    ):
        await gateway.until_live("m")
        _, body = await get(gateway, "/v1/models")
        (listed,) = body["data"]
        assert (listed["id"], listed["object"], listed["max_model_len"]) == ("m", "model", 2048)
        assert listed["root"] == "/data/simsa-stand-in-m"
        assert (listed["simsa"]["provenance"], listed["simsa"]["simulated"]) == ("stand_in", False)
        assert (await get(gateway, "/v1/models/m"))[1] == listed
        assert (await get(gateway, "/v1/models/dead"))[0] == 404


async def test_registry_change_is_taken_over_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(models=["m", "n"]) as engine,
        running_gateway(tmp_path, [entry("m", engine.url)]) as gateway,
    ):
        await gateway.until_live("m")
        kept = gateway.services.fleet.states_of("m")[0]
        gateway.write_registry([entry("m", engine.url), entry("n", engine.url)])
        await gateway.until_live("n")
        assert gateway.services.fleet.states_of("m")[0] is kept, "an unchanged replica keeps its state"
        gateway.registry_path.write_text("models: [{id: }]")
        await gateway.until(lambda: gateway.services.registry.problem is not None)
        status, body = await get(gateway, "/ready")
        assert (status, "models[0]" in body["registry_problem"]) == (200, True)
        assert b"simsa_registry_valid 0.0" in gateway.services.telemetry.render()
        assert gateway.services.fleet.live("n")
        gateway.write_registry([entry("n", engine.url)])
        await gateway.until(lambda: not gateway.services.fleet.states_of("m"))
        assert gateway.services.registry.problem is None
        assert b'replica="m/' not in gateway.services.telemetry.render(), "a gone replica takes its series with it"


async def test_remote_api_without_its_key_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedEngine(models=["api"], owned_by="vendor") as vendor:
        remote = {
            "id": "api",
            "serving": {"kind": "openai_api"},
            "replicas": [{"url": vendor.url, "api_key_env": "VENDOR_KEY"}],
        }
        async with running_gateway(tmp_path / "without", [remote]) as gateway:
            assert (await get(gateway, "/v1/models"))[1]["data"] == []
            assert "not in the environment" in (await get(gateway, "/api/models"))[1]["data"][0]["reason"]
        monkeypatch.setenv("VENDOR_KEY", "sk-vendor")
        async with running_gateway(tmp_path / "with", [remote]) as gateway:
            await gateway.until_live("api")
            async with RawClient(gateway.url) as client:
                assert (await client.request("POST", CHAT, body={**ASK, "model": "api"})).status == 200
            assert vendor.requests_to(CHAT)[0].header("authorization") == "Bearer sk-vendor"


DRAWS = st.floats(0, 1, exclude_max=True)
LOADS = st.lists(st.builds(Load, in_flight=st.integers(0, 50), weight=st.floats(0.1, 10)), min_size=1, max_size=8)


@given(LOADS, DRAWS, DRAWS)
def test_pick_is_never_the_worst_of_two_and_always_valid(loads: list[Load], first: float, second: float) -> None:
    picked = loads[pick_replica(loads, (first, second))]
    if len(loads) == 2:
        assert picked.score() == min(load.score() for load in loads)


def test_engine_queue_counts_while_fresh_and_fades() -> None:
    fresh = Load(in_flight=1, engine_waiting=9.0, metrics_age_s=0.0)
    stale = Load(in_flight=1, engine_waiting=9.0, metrics_age_s=20.0)
    assert (fresh.score(), stale.score()) == (10.0, 1.0)
