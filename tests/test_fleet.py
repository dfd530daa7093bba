"""The look at the engines: who is up, what they are, and a registry that changes while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
from clients import RawClient
from engines import RESET, Reply, Request, ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import Turn
from gateway.domain.records import Model, Provenance, Serving, ServingKind, Weights
from gateway.domain.routing import Load, pick_replica
from gateway.first_looks import PATIENCE_S, FirstLooks
from gateway.fleet import MISSES
from gateway.provenance import read_provenance
from gateway.registry import load_registry
from gateway.replica_state import ReplicaState
from gateway.upstream import parse_origin

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
SHIPPED = Path(__file__).parent.parent / "model_registry.yaml"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


async def get(gateway: RunningGateway, path: str) -> Any:
    async with RawClient(gateway.url) as client:
        answer = await client.request("GET", path)
    return answer.status, answer.json()


def hosted(model_id: str, url: str, **replica: Any) -> dict[str, Any]:
    """A registry entry for a hosted API."""
    return {"id": model_id, "serving": {"kind": "openai_api"}, "replicas": [{"url": url, **replica}]}


def state_of(gateway: RunningGateway, model_id: str = "m") -> ReplicaState:
    (state,) = gateway.services.fleet.states_of(model_id)
    return state


async def ask(gateway: RunningGateway) -> int:
    """The status of one call."""
    async with RawClient(gateway.url) as client:
        return (await client.request("POST", CHAT, body=ASK)).status


# --- what the answers are worth -----------------------------------------------------------------------------


VENDOR = "https://api.upstage.ai"
HERE = "http://127.0.0.1:8101"


def judge(kind: str, url: str, owned_by: str | None, root: str | None = None) -> tuple[Provenance, str]:
    model = Model("m", Serving(ServingKind(kind), "m"), weights=Weights(repo="org/weights"))
    return read_provenance(model, parse_origin(url), owned_by, root)


@pytest.mark.parametrize(
    ("kind", "url", "owned_by", "root", "expected"),
    [
        ("vllm", HERE, "vllm", "org/weights", Provenance.REAL),
        ("vllm", HERE, "vllm", "/data/simsa-stand-in-m", Provenance.STAND_IN),
        ("vllm", HERE, "simsa-simulator", "simulated:m@h100", Provenance.SIMULATED),
        ("vllm", HERE, "vllm", "other/weights", Provenance.UNKNOWN),
        ("vllm", HERE, "vllm", None, Provenance.UNKNOWN),
        ("vllm", HERE, None, None, Provenance.UNKNOWN),
        ("vllm", HERE, "someone", "org/weights", Provenance.UNKNOWN),
        ("openai_api", VENDOR, "vendor", None, Provenance.REAL),
        ("openai_api", VENDOR, None, None, Provenance.REAL),
        ("openai_api", HERE, "vendor", None, Provenance.UNKNOWN),
        ("openai_api", VENDOR, "simsa-simulator", None, Provenance.SIMULATED),
        ("openai_api", HERE, "simsa-simulator", None, Provenance.SIMULATED),
        ("openai_api", VENDOR, "vllm", "/data/simsa-stand-in-m/", Provenance.STAND_IN),
    ],
)
def test_provenance_comes_from_what_the_engine_says(
    kind: str, url: str, owned_by: str | None, root: str | None, expected: Provenance
) -> None:
    assert judge(kind, url, owned_by, root)[0] is expected


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "localhost.", "api.localhost", "engine", "node.local", "node.local."),
        *("api.internal", "gateway.lan", "box.home.arpa", "vendor.test", "api.example", "engine.corp"),
        *("127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.01", "0.0.0.0"),
        *("10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
        *("[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[ff02::1]"),
        *("127\u30020\u30020\u30021", "\uff4cocalhost", "api..com", "a" * 64 + ".com", "-", ".com"),
    ],
)
def test_server_of_ones_own_never_passes_as_the_vendor(host: str) -> None:
    found, reason = judge("openai_api", f"https://{host}", "vendor")
    assert found is Provenance.UNKNOWN
    assert reason.endswith("which is not the vendor's own API")


@pytest.mark.parametrize(
    "host", ["api.upstage.ai", "API.Upstage.AI.", "8.8.8.8", "모델.한국", "[2001:4860:4860::8888]"]
)
def test_vendors_api_is_one_on_the_internet_that_proves_its_name(host: str) -> None:
    assert judge("openai_api", f"https://{host}:8443", "vendor")[0] is Provenance.REAL
    found, reason = judge("openai_api", f"http://{host}", "vendor")
    assert found is Provenance.UNKNOWN
    assert "without TLS" in reason


def test_reason_names_the_host() -> None:
    assert judge("openai_api", HERE, "vendor")[1] == "served from 127.0.0.1, which is not the vendor's own API"
    assert judge("openai_api", VENDOR, "up")[1] == "the vendor's own API at api.upstage.ai lists it (owned_by up)"


def test_every_hosted_api_of_the_shipped_registry_counts_as_its_vendors() -> None:
    models = load_registry(SHIPPED).routable()
    apis = [(m, r) for m in models if m.serving.kind is ServingKind.OPENAI_API for r in m.replicas]
    assert apis
    for model, replica in apis:
        assert read_provenance(model, parse_origin(replica.url), None, None)[0] is Provenance.REAL, replica.url


async def test_local_server_behind_an_api_entry_is_shown_as_unknown(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(owned_by="vendor") as engine,
        running_gateway(tmp_path, [hosted("m", engine.url)]) as gateway,
    ):
        await gateway.until_live("m")
        _, body = await get(gateway, "/v1/models/m")
        assert body["simsa"]["provenance"] == "unknown"
        assert state_of(gateway).provenance_reason == "served from 127.0.0.1, which is not the vendor's own API"


# --- up and down --------------------------------------------------------------------------------------------


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
        assert (await get(gateway, "/ready?engines=false"))[0] == 200, "the gateway itself can take requests"
        assert (await get(gateway, "/health"))[0] == 200


async def test_a_gateway_is_not_ready_before_it_has_looked_at_each_engine_once(tmp_path: Path) -> None:
    first_token = asyncio.Event()
    async with ScriptedEngine(models=["m", "n"]) as engine, ScriptedEngine(models=["n"]) as slow:
        slow.script("/v1/completions", Reply.json({"choices": [{"text": "a"}]}).gated(first_token))
        async with running_gateway(tmp_path, [entry("m", engine.url), entry("n", slow.url)]) as gateway:
            await gateway.until_live("m")
            await slow.received("/v1/completions", 1)
            for path in ("/ready", "/ready?engines=false"):
                status, body = await get(gateway, path)
                assert (status, body["problems"]) == (503, ["its engines are being looked at for the first time"])
            first_token.set()
            await gateway.until_live("n")
            assert (await get(gateway, "/ready?engines=false"))[0] == 200
            gateway.write_registry([entry("m", engine.url), entry("n", slow.url), entry("new", "http://127.0.0.1:1")])
            await gateway.until(lambda: bool(gateway.services.fleet.states_of("new")))
            assert (await get(gateway, "/ready"))[0] == 200, "what comes later is found beside the calls"


class Seen:
    """Names or engines, seen through when the test says so."""

    was_seen_through = False


def test_first_looks_end_when_all_is_seen_through_or_patience_is_over_and_do_not_begin_again() -> None:
    now = 100.0
    names, engines = Seen(), Seen()
    looks, impatient = (FirstLooks(names, engines, now=lambda: now) for _ in range(2))
    names.was_seen_through = True
    assert not looks.are_over
    engines.was_seen_through = True
    assert looks.are_over
    engines.was_seen_through = False
    assert looks.are_over, "once and for all"
    assert not impatient.are_over
    now += PATIENCE_S
    assert impatient.are_over


async def test_engine_that_comes_back_is_used_again(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        await engine.kill()
        await gateway.until(lambda: not gateway.services.fleet.live("m"))
        assert state_of(gateway).misses == 0, "a refused connection counts at once"
        await engine.start()
        await gateway.until_live("m")
        async with RawClient(gateway.url) as client:
            assert (await client.request("POST", CHAT, body=ASK)).status == 200


async def test_hosted_api_is_used_again_as_soon_as_it_answers(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [hosted("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.raw(RESET))
        assert await ask(gateway) == 502
        await gateway.until_live("m")
        await engine.received(MODELS, 2)


async def test_hosted_api_that_was_away_for_longer_comes_back_without_its_long_interval(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [hosted("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        await engine.kill()
        assert await ask(gateway) == 502
        await gateway.until(lambda: "cannot connect" in state_of(gateway).reason)
        assert await ask(gateway) == 503
        await engine.start()
        await gateway.until_live("m")


async def test_hosted_api_that_stays_away_is_asked_ever_less_often(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [hosted("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(MODELS, Reply.text("down", status=500))
        engine.script(CHAT, Reply.raw(RESET))
        assert await ask(gateway) == 502
        await engine.received(MODELS, 6)
        at = [request.received_s for request in engine.requests_to(MODELS)[1:6]]
        waits = [later - sooner for sooner, later in pairwise(at)]
        assert all(wait >= 0.99 * 0.05 * 2**step for step, wait in enumerate(waits)), waits


async def test_engine_that_answers_looks_but_no_calls_is_not_looked_at_without_pause(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], health_interval_s=60) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.raw(RESET))
        assert await ask(gateway) == 502
        await gateway.until_live("m")
        assert await ask(gateway) == 502
        assert await ask(gateway) == 503, "out until the interval since the last hurried look is over"
        assert len(engine.requests_to(MODELS)) == 2


async def test_gone_replica_is_not_shown_again_by_its_last_calls(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(models=["m", "n"]) as engine,
        running_gateway(tmp_path, [entry("m", engine.url), entry("n", engine.url)]) as gateway,
    ):
        await gateway.until_live("m", "n")
        gone = state_of(gateway)
        gateway.write_registry([entry("n", engine.url)])
        await gateway.until(lambda: not gateway.services.fleet.states_of("m"))
        gateway.services.fleet.mark_down(gone, "a call that was still under way could not reach it")
        assert b'replica="m/' not in gateway.services.telemetry.render()


def seen_by(gateway: RunningGateway, answer: Reply, seen: list[bool]) -> Callable[[Request], Reply]:
    """Answers with `answer`, and notes whether the replica counts as up at that moment."""

    def reply(request: Request) -> Reply:
        seen.append(state_of(gateway).is_up)
        return answer

    return reply


@pytest.mark.parametrize("path", ["/health", MODELS])
async def test_busy_engine_that_is_late_stays_in_use(tmp_path: Path, path: str) -> None:
    seen: list[bool] = []
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], health_timeout_s=0.25) as gateway,
    ):
        await gateway.until_live("m")
        with structlog.testing.capture_logs() as log:
            late = seen_by(gateway, Reply.hang(), seen)
            answered = engine.usual(Request("GET", path, "", [], b"", 0, 0.0))
            engine.script(
                path, *[late] * (MISSES - 1), seen_by(gateway, answered, seen), *[late] * (MISSES - 1), answered
            )
            await engine.until(lambda: len(seen) == 2 * MISSES - 1)
            await gateway.until(lambda: state_of(gateway).misses == 0)
        assert seen == [True] * (2 * MISSES - 1), "an answer between them, and counting begins anew"
        assert [line["misses"] for line in log if line["event"] == "look missed"] == [1, 2, 1, 2]
        assert not [line for line in log if line["event"] == "replica down"]


async def test_engine_that_answers_no_look_at_all_is_taken_out(tmp_path: Path) -> None:
    seen: list[bool] = []
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], health_timeout_s=0.25) as gateway,
    ):
        await gateway.until_live("m")
        engine.script("/health", seen_by(gateway, Reply.hang(), seen))
        await engine.until(lambda: len(seen) > MISSES)
        assert seen[: MISSES + 1] == [*[True] * MISSES, False]
        assert f"{MISSES} looks in a row" in state_of(gateway).reason
        engine.script("/health")
        await gateway.until_live("m")
        assert state_of(gateway).misses == 0


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/health", Reply.text("dead", status=503)),
        ("/health", Reply.raw(b"garbage")),
        (MODELS, Reply.text("no", status=500)),
        (MODELS, Reply.json({"data": []})),
        (MODELS, Reply.text("no JSON")),
    ],
)
async def test_what_is_no_delay_counts_at_once(tmp_path: Path, path: str, answer: Reply) -> None:
    seen: list[bool] = []
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(path, seen_by(gateway, answer, seen))
        await engine.until(lambda: len(seen) > 1)
        assert seen[:2] == [True, False]


@pytest.mark.parametrize(
    "answer",
    [
        Reply.text("no", status=500),
        Reply.text("", status=404),
        Reply.raw(RESET),
        Reply.raw(b"garbage"),
        Reply.hang(),
        Reply.text("vllm:num_requests_waiting NaN\n"),
        Reply.text("vllm:num_requests_waiting +Inf\n"),
        Reply.text("vllm:num_requests_waiting -1\n"),
        Reply.text("vllm:num_requests_running 3\nvllm:num_requests_waiting " + "many" * 1000),
        Reply.text("<html>"),
        Reply(pieces=(b"\xff" * 5_000_000,)),
    ],
    ids=["500", "404", "reset", "no HTTP", "hang", "NaN", "Inf", "negative", "no number", "HTML", "too long"],
)
async def test_engine_without_readable_metrics_is_used_by_in_flight_counts_alone(tmp_path: Path, answer: Reply) -> None:
    seen: list[bool] = []
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], health_timeout_s=0.25) as gateway,
    ):
        state = state_of(gateway)
        await gateway.until(lambda: state.engine_gauges)
        with structlog.testing.capture_logs() as log:
            engine.script("/metrics", seen_by(gateway, answer, seen))
            await engine.until(lambda: len(seen) > 2)
            assert (state.engine_gauges, state.load(0.0)) == ({}, Load(in_flight=0))
            engine.script("/metrics")
            await gateway.until(lambda: state.engine_gauges)
        assert all(seen)
        assert [line["event"] for line in log] == ["engine metrics unreadable", "engine metrics readable again"]
        assert len(log[0]["reason"]) <= 200


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


def up_gauges(gateway: RunningGateway) -> dict[str, float]:
    """`simsa_replica_up` by replica."""
    lines = gateway.services.telemetry.render().decode().splitlines()
    shown = [line for line in lines if line.startswith("simsa_replica_up{")]
    return {line.split('replica="')[1].split('"')[0]: float(line.rpartition(" ")[2]) for line in shown}


@pytest.mark.parametrize("change", ["weight", "gpus", "host", "id", "max_in_flight"])
async def test_what_is_said_of_a_replica_changes_without_a_moment_in_which_it_is_not_used(
    tmp_path: Path, change: str
) -> None:
    value = {"weight": 2, "gpus": 2, "host": "node-1", "id": "renamed", "max_in_flight": 7}[change]
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], health_interval_s=60) as gateway,
    ):
        await gateway.until_live("m")
        state = state_of(gateway)
        engine.script(CHAT, Reply.hang(), engine.usual)
        async with RawClient(gateway.url) as client:
            await client.send("POST", CHAT, body=ASK)
            await engine.until(lambda: engine.running == 1)
            gateway.write_registry([{**entry("m"), "replicas": [{"url": engine.url, change: value}]}])
            await gateway.until(lambda: getattr(state.replica, change) == value)
            assert state_of(gateway) is state
            assert (state.is_up, state.in_flight) == (True, 1)
            assert await ask(gateway) == 200
        await gateway.until(lambda: state.in_flight == 0)
        assert up_gauges(gateway) == {state.replica.id: 1.0}
        assert len(engine.requests_to(MODELS)) == 1, "it was not looked at for that"


async def test_replica_goes_on_when_another_before_it_is_taken_from_the_list(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as one,
        ScriptedEngine() as other,
        running_gateway(tmp_path, [entry("m", one.url, other.url)], health_interval_s=60) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        gone, kept = gateway.services.fleet.states_of("m")
        gone_place = gateway.services.dispatcher.admission.place_now(Turn("m", home=gone.replica.address))
        assert gone_place is not None
        gateway.services.fleet.mark_down(gone, "down when it went")
        gateway.write_registry([entry("m", other.url)])
        await gateway.until(lambda: len(gateway.services.fleet.states_of("m")) == 1)
        assert state_of(gateway) is kept
        assert (kept.is_up, kept.replica.id) == (True, "m/1")
        gone_place.end()
        gateway.services.fleet.mark_down(gone, "its last call")
        assert up_gauges(gateway) == {"m/1": 1.0}, "the id is the other's now"
        assert await ask(gateway) == 200


async def test_engine_listed_twice_has_two_states_through_every_change(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url, engine.url)]) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        before = gateway.services.fleet.states_of("m")
        gateway.write_registry([entry("m", engine.url, engine.url), entry("n", "http://127.0.0.1:9")])
        await gateway.until(lambda: gateway.services.fleet.states_of("n"))
        assert gateway.services.fleet.states_of("m") == before
        gateway.write_registry([entry("m", engine.url)])
        await gateway.until(lambda: len(gateway.services.fleet.states_of("m")) == 1)
        assert gateway.services.fleet.states_of("m") == before[:1]
        assert up_gauges(gateway) == {"m/1": 1.0}


async def test_model_whose_engines_left_the_registry_is_said_to_have_none(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        gateway.services.fleet.apply(replace(gateway.services.registry.current, models={}))
        async with RawClient(gateway.url) as client:
            answer = await client.request("POST", CHAT, body=ASK)
        assert answer.status == 404
        assert "the registry lists no engine for it any more" in answer.json()["error"]["message"]


async def test_remote_api_without_its_key_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedEngine(models=["api"], owned_by="vendor") as vendor:
        remote = hosted("api", vendor.url, api_key_env="VENDOR_KEY")
        async with running_gateway(tmp_path / "without", [remote]) as gateway:
            assert (await get(gateway, "/v1/models"))[1]["data"] == []
            assert "not in the environment" in (await get(gateway, "/api/models"))[1]["data"][0]["reason"]
            async with RawClient(gateway.url) as client:
                answer = await client.request("POST", CHAT, body={**ASK, "model": "api"})
            assert "the key of its API is not in the environment" in answer.json()["error"]["message"]
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
