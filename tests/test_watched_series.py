"""The series that alerts stand on: there before anything happened, and right about what did."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from clients import RawClient
from databases import ScratchDatabase
from engines import CLOSE, Reply, ScriptedEngine, chat_answer, chat_chunk, usage_body
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S
from prometheus_client.parser import text_string_to_metric_families
from remote_apis import with_shipped_rules

from gateway.domain.records import Priority
from gateway.endpoints import ENDPOINTS
from gateway.telemetry import FAILURES, OTHER

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}


async def samples(gateway: RunningGateway, name: str) -> dict[tuple[str, ...], float]:
    """Values of one series by the values of its labels, whose names are in order."""
    async with RawClient(gateway.url) as client:
        page = (await client.request("GET", "/metrics")).body.decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    }


async def ask(gateway: RunningGateway, **more: object) -> int:
    async with RawClient(gateway.url) as client:
        return (await client.request("POST", CHAT, body={**ASK, **more})).status


async def ask_as(gateway: RunningGateway, priority: str) -> int:
    async with RawClient(gateway.url) as client:
        return (await client.request("POST", CHAT, body=ASK, headers=[("x-simsa-priority", priority)])).status


async def test_a_model_has_all_its_series_at_zero_before_the_first_call(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        assert await samples(gateway, "simsa_model_expected") == {("m",): 1}
        broken = {("internal_error", OTHER): 0}
        assert await samples(gateway, "simsa_failures_total") == {(code, "m"): 0 for code in FAILURES} | broken
        assert await samples(gateway, "simsa_queue_depth") == {("m", priority.value): 0 for priority in Priority}
        assert await samples(gateway, "simsa_inflight_requests") == {("m",): 0}
        assert await samples(gateway, "simsa_time_to_first_token_seconds_count") == {("m",): 0}
        assert await samples(gateway, "simsa_workers") == {(): 1}
        requests = await samples(gateway, "simsa_requests_total")
        failed = {
            endpoint: value for (endpoint, model, group), value in requests.items() if (model, group) == ("m", "5xx")
        }
        assert failed == dict.fromkeys({endpoint.name for endpoint in ENDPOINTS.values()}, 0)


async def test_a_model_is_expected_while_the_registry_says_so(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(models=["m", "n"]) as engine,
        running_gateway(tmp_path, [entry("m", engine.url), entry("n", engine.url)]) as gateway,
    ):
        assert set(await samples(gateway, "simsa_model_expected")) == {("m",), ("n",)}
        gateway.write_registry([entry("n", engine.url), entry("nowhere")])
        await gateway.until(lambda: not gateway.services.fleet.states_of("m"))
        assert set(await samples(gateway, "simsa_model_expected")) == {("n",)}


async def test_a_hosted_model_whose_key_nobody_gave_is_not_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VENDOR_KEY", raising=False)
    hosted = with_shipped_rules("HCX-007", "http://127.0.0.1:1")
    async with running_gateway(tmp_path, [hosted]) as gateway:
        assert gateway.services.registry.current.routable()
        assert await samples(gateway, "simsa_model_expected") == {}


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply.stream(chat_chunk("a"), CLOSE), 200, "upstream_truncated"),
        (Reply.json({"error": {"message": "boom"}}, status=500), 502, "upstream_error"),
        (Reply.json({"error": "Unauthorized"}, status=401), 502, "upstream_auth"),
    ],
    ids=["cut under status 200", "500", "401"],
)
async def test_what_an_engine_fails_is_a_failure_of_its_model(
    tmp_path: Path, reply: Reply, status: int, code: str
) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, reply)
        assert await ask(gateway, stream=True) == status
        await gateway.call()
        failures = await samples(gateway, "simsa_failures_total")
        assert {key for key, value in failures.items() if value} == {(code, "m")}


async def test_what_callers_do_wrong_is_nobodys_failure(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({"error": {"message": "too long", "code": 400}}, status=400))
        assert await ask(gateway) == 400
        assert await ask(gateway, model="unheard-of") == 404
        await gateway.call()
        assert not any((await samples(gateway, "simsa_failures_total")).values())


async def test_a_call_without_a_replica_is_a_failure_and_an_unknown_code_counts_as_other(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:1")]) as gateway:
        await gateway.until(lambda: bool(gateway.services.fleet.reasons()))
        assert await ask(gateway) == 503
        gateway.services.telemetry.observe_refusal("chat", 500, "unheard_of", "r", "m")
        failures = await samples(gateway, "simsa_failures_total")
        assert (failures["no_replica", "m"], failures[OTHER, "m"]) == (1, 1)


async def test_who_is_to_wait_behind_everybody_and_finds_the_queue_full_is_no_bad_answer(tmp_path: Path) -> None:
    full = {"queue_max_waiting": 1, "queue_wait_s": 0.01}
    async with ScriptedEngine() as engine:
        held = asyncio.Event()
        engine.script(CHAT, Reply.json(chat_answer("ja", usage=usage_body(3, 1))).gated(held))
        model = entry("m", replicas=[{"url": engine.url, "max_in_flight": 1}])
        async with running_gateway(tmp_path, [model], **full) as gateway, RawClient(gateway.url) as first:
            await gateway.until_live("m")
            await first.send("POST", CHAT, body=ASK)
            await gateway.until(lambda: len(engine.requests_to(CHAT)) == 1)
            refused = [
                await ask_as(gateway, priority) for priority in ("load_test", "batch", "interactive", "reviewer")
            ]
            assert refused == [503] * 4
            failures = await samples(gateway, "simsa_failures_total")
            found = {key: value for key, value in failures.items() if value}
            assert found == {("queue_full_background", "m"): 2, ("queue_full", "m"): 2}
            held.set()
            assert (await first.head()).status == 200
            assert [call.error_code for call in await gateway.calls(5)].count("queue_full") == 4, "on record as told"


class BrokenLimiter:
    """Whatever is asked of it fails as nobody expected."""

    async def reserve(self, *_: object) -> None:
        raise ZeroDivisionError

    async def reserve_free(self, *_: object) -> None:
        raise ZeroDivisionError


async def test_what_breaks_before_there_is_a_call_is_told_and_counted(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        assert (await samples(gateway, "simsa_failures_total"))["internal_error", OTHER] == 0
        dispatcher = gateway.services.dispatcher
        whole = dispatcher.limiter
        dispatcher.limiter = BrokenLimiter()  # type: ignore[assignment]
        try:
            assert [await ask(gateway), await ask(gateway)] == [500, 500]
        finally:
            dispatcher.limiter = whole
        assert (await samples(gateway, "simsa_failures_total"))["internal_error", OTHER] == 2
        requests = await samples(gateway, "simsa_requests_total")
        assert requests["chat_completions", OTHER, "5xx"] == 2


async def test_our_own_routes_have_their_failures_at_zero(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:1")]) as gateway:
        requests = await samples(gateway, "simsa_requests_total")
        failed = {endpoint: value for (endpoint, model, _), value in requests.items() if model == OTHER}
        assert failed == dict.fromkeys(("models", "comparisons", "api", "review", "rounds"), 0)


async def test_a_database_that_is_away_is_seen_though_nobody_calls(tmp_path: Path, database: ScratchDatabase) -> None:
    settings = {"database_url": database.url, "key_refresh_s": 0.02}
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:1")], **settings) as gateway:

        async def until_seen(is_away: bool) -> None:
            async with asyncio.timeout(HANG_S):
                while (await samples(gateway, "simsa_recorder_failing"))[("database",)] != is_away:
                    await asyncio.sleep(0.01)

        await until_seen(False)
        async with database.gone():
            await until_seen(True)
        await until_seen(False)


async def test_answers_are_counted_by_what_they_are_worth(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        assert await ask(gateway) == 200
        (call,) = await gateway.calls()
        assert await samples(gateway, "simsa_calls_total") == {("m", "interactive", call.provenance.value, "ok"): 1}


async def test_room_for_records_and_the_spools_size_are_shown(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], recorder_queue=77) as gateway,
    ):
        await gateway.until_live("m")
        assert await ask(gateway) == 200
        assert await samples(gateway, "simsa_recorder_capacity") == {(): 77}
        stats = gateway.services.recorder.stats()
        assert await samples(gateway, "simsa_recorder_spooled_bytes") == {(): stats.spooled_bytes}


async def test_settlement_says_when_it_was_last_through(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:1")], presence_interval_s=0.01) as gateway:
        shown = gateway.services.telemetry.settled_up
        await gateway.until(lambda: shown._value.get() > 0)
        first = shown._value.get()
        await gateway.until(lambda: shown._value.get() > first)
