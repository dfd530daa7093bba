"""Replicas that fail, over real sockets: what counts against one, how it is left alone and tried again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from clients import Answer, RawClient
from engines import CLOSE, DONE, RESET, Reply, Request, ScriptedEngine, chat_answer, chat_chunk, error_event, usage_body
from gateways import RunningGateway, entry, running_gateway

from gateway.replica_state import ReplicaState

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
STREAM = {**ASK, "stream": True}
END = chat_chunk(finish_reason="stop") + DONE
QUICK: dict[str, Any] = {"timeouts": {"first_token_s": 0.2, "idle_s": 0.2, "total_s": 0.5}}
FAULTS = 3

HALF = chat_answer("half an answer", usage=usage_body(3, 3))
SPEAKING_AGAINST_IT = {
    "500": (Reply.json({"error": {"message": "no"}}, status=500), ASK, "upstream_error"),
    "502": (Reply.json({}, status=502), STREAM, "upstream_error"),
    "nothing": (Reply.raw(CLOSE), ASK, "upstream_unreachable"),
    "reset": (Reply.raw(RESET), STREAM, "upstream_unreachable"),
    "no HTTP": (Reply.raw(b"junk\r\n\r\n", CLOSE), ASK, "upstream_truncated"),
    "200 with garbage": (Reply.text("<html>It works!</html>"), ASK, "upstream_error"),
    "200 with another object": (Reply.json({"object": "list"}), ASK, "upstream_error"),
    "200 with no stream": (Reply.text("<html>It works!</html>"), STREAM, "upstream_error"),
    "stream of garbage": (Reply.stream(b"data: {garbage\n\n"), STREAM, "upstream_truncated"),
    "half an answer": (Reply.json(HALF).cut(100), ASK, "upstream_truncated"),
    "half a stream": (Reply.stream(chat_chunk("a"), CLOSE), STREAM, "upstream_truncated"),
    "stream without its end": (Reply.stream(chat_chunk("a")), STREAM, "upstream_truncated"),
    "no head": (Reply.hang(), STREAM, "upstream_timeout"),
    "no first token": (Reply.hang_after_head(), STREAM, "upstream_timeout"),
}
SAYING_NOTHING = {
    "400": (Reply.json({"error": {"message": "no"}}, status=400), ASK, 400),
    "404": (Reply.json({"error": {"message": "no"}}, status=404), STREAM, 404),
    "409": (Reply.json({}, status=409), ASK, 502),
    "401": (Reply.json({}, status=401), ASK, 502),
    "429": (Reply.json({}, status=429), ASK, 503),
    "503": (Reply.json({}, status=503), STREAM, 503),
    "idle": (Reply.stream(chat_chunk("a"), asyncio.Event()), STREAM, 200),
    "error event": (Reply.stream(chat_chunk("a"), error_event("no"), DONE), STREAM, 200),
    "long whole answer": (Reply.hang(), ASK, 504),
}


def state_of(gateway: RunningGateway) -> ReplicaState:
    (state,) = gateway.services.fleet.states_of("m")
    return state


async def ask(gateway: RunningGateway, body: object = ASK) -> Answer:
    async with RawClient(gateway.url) as client:
        return await client.request("POST", CHAT, body=body)


async def fail(gateway: RunningGateway, engine: ScriptedEngine, body: object = ASK) -> None:
    """Let the engine fail until it is left alone."""
    for _ in range(FAULTS):
        await gateway.until_live("m")
        await ask(gateway, body)
    assert state_of(gateway).breaker.is_open
    await gateway.until_live("m")


async def rested(gateway: RunningGateway) -> None:
    await gateway.until(lambda: state_of(gateway).breaker.until_s <= gateway.services.now())


def breaker_gauge(gateway: RunningGateway) -> str:
    text = gateway.services.telemetry.render().decode()
    (line,) = [line for line in text.splitlines() if line.startswith('simsa_replica_breaker{model="m",replica="m/1"}')]
    return line.rpartition(" ")[2]


@pytest.mark.parametrize("kind", SPEAKING_AGAINST_IT)
async def test_replica_that_fails_again_and_again_is_left_alone_and_then_tried(tmp_path: Path, kind: str) -> None:
    reply, body, code = SPEAKING_AGAINST_IT[kind]
    async with (
        ScriptedEngine() as engine,
        running_gateway(
            tmp_path, [entry("m", engine.url, **QUICK)], breaker_faults=FAULTS, breaker_rest_s=0.5
        ) as gateway,
    ):
        await gateway.until_live("m")
        assert breaker_gauge(gateway) == "0.0"
        engine.script(CHAT, reply)
        for _ in range(FAULTS):
            await gateway.until_live("m")
            answer = await ask(gateway, body)
            assert code.encode() in answer.body
        await gateway.until_live("m")
        asked = len(engine.requests_to(CHAT))
        refused = await ask(gateway, body)
        assert (refused.status, refused.json()["error"]["code"]) == (503, "no_replica")
        assert refused.header("retry-after") == "2"
        assert len(engine.requests_to(CHAT)) == asked, "the engine is spared"
        assert breaker_gauge(gateway) == "1.0"
        engine.script(CHAT)
        await rested(gateway)
        assert (await ask(gateway, body)).status == 200
        assert breaker_gauge(gateway) == "0.0"
        assert (await ask(gateway, body)).status == 200


@pytest.mark.parametrize("kind", SAYING_NOTHING)
async def test_what_is_not_the_replicas_fault_never_takes_it_out(tmp_path: Path, kind: str) -> None:
    reply, body, status = SAYING_NOTHING[kind]
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url, **QUICK)], breaker_faults=1) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, reply)
        assert {(await ask(gateway, body)).status for _ in range(3)} == {status}
        assert len(engine.requests_to(CHAT)) == 3
        assert not state_of(gateway).breaker.is_open


async def test_clients_that_leave_say_nothing_of_the_replica(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], breaker_faults=1) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.hang())
        for body in (ASK, STREAM):
            async with RawClient(gateway.url) as client:
                await client.send("POST", CHAT, body=body)
                await engine.until(lambda: engine.running == 1)
                client.leave()
                await engine.until(lambda: engine.running == 0)
        engine.script(CHAT)
        assert (await ask(gateway)).status == 200


async def test_one_call_tries_the_replica_while_the_others_wait_for_its_fate(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], breaker_faults=FAULTS, breaker_rest_s=0.05) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({}, status=500))
        await fail(gateway, engine)
        engine.script(CHAT, Reply.stream(gate, chat_chunk("a"), END), engine.usual)
        await rested(gateway)
        calls = [asyncio.create_task(ask(gateway, STREAM)) for _ in range(4)]
        depth = gateway.services.telemetry.queue_depth.at("m", "interactive")
        await gateway.until(lambda: depth.value == 3)
        assert engine.running == 1
        gate.set()
        assert [(await call).status for call in calls] == [200] * 4


async def test_others_come_as_soon_as_a_trial_has_its_first_token(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], breaker_faults=FAULTS, breaker_rest_s=0.05) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({}, status=500))
        await fail(gateway, engine)
        engine.script(CHAT, Reply.stream(chat_chunk("a"), gate, END), engine.usual)
        await rested(gateway)
        async with RawClient(gateway.url) as trial:
            await trial.start("POST", CHAT, body=STREAM)
            await trial.next_event()
            assert (await ask(gateway)).status == 200
            gate.set()
            assert (await trial.rest()).endswith(DONE)


async def test_trial_with_a_long_whole_answer_keeps_the_others_out_for_one_rest_only(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], breaker_faults=FAULTS, breaker_rest_s=0.05) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({}, status=500))
        await fail(gateway, engine)
        engine.script(CHAT, Reply.json(HALF).gated(gate), engine.usual)
        await rested(gateway)
        long = asyncio.create_task(ask(gateway))
        await engine.until(lambda: engine.running == 1)
        assert (await ask(gateway)).status == 200, "another trial, whose answer lets everybody in"
        assert not long.done()
        assert not state_of(gateway).breaker.is_open
        gate.set()
        assert (await long).status == 200


async def test_failed_trial_refuses_those_who_waited_for_it_and_the_rest_is_longer(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], breaker_faults=FAULTS, breaker_rest_s=0.05) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({}, status=500))
        await fail(gateway, engine)
        engine.script(CHAT, Reply.json({}, status=500).gated(gate))
        await rested(gateway)
        calls = [asyncio.create_task(ask(gateway)) for _ in range(3)]
        depth = gateway.services.telemetry.queue_depth.at("m", "interactive")
        await gateway.until(lambda: depth.value == 2)
        gate.set()
        answers = [await call for call in calls]
        assert sorted(answer.json()["error"]["code"] for answer in answers) == [
            "no_replica",
            "no_replica",
            "upstream_error",
        ]
        assert state_of(gateway).breaker.trips == 2


async def test_trial_whose_client_leaves_makes_way_for_another(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], breaker_faults=FAULTS, breaker_rest_s=0.05) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({}, status=500))
        await fail(gateway, engine)
        engine.script(CHAT, Reply.hang(), engine.usual)
        await rested(gateway)
        async with RawClient(gateway.url) as client:
            await client.send("POST", CHAT, body=STREAM)
            await engine.until(lambda: engine.running == 1)
            waits = asyncio.create_task(ask(gateway))
            depth = gateway.services.telemetry.queue_depth.at("m", "interactive")
            await gateway.until(lambda: depth.value == 1)
            client.leave()
            assert (await waits).status == 200
        assert not state_of(gateway).breaker.is_open


async def test_other_replicas_take_the_calls_of_one_that_is_left_alone(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as bad,
        ScriptedEngine() as good,
        running_gateway(tmp_path, [entry("m", bad.url, good.url)], breaker_faults=FAULTS) as gateway,
    ):
        await gateway.until_live("m", replicas=2)
        bad.script(CHAT, Reply.json({}, status=500))
        statuses = [(await ask(gateway)).status for _ in range(40)]
        assert statuses.count(500) == 0
        assert statuses.count(502) == len(bad.requests_to(CHAT)) == FAULTS


async def test_engine_that_was_seen_down_is_used_at_once_when_it_is_back(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], breaker_faults=FAULTS, breaker_rest_s=60) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({}, status=500))
        await fail(gateway, engine)
        await engine.kill()
        await gateway.until(lambda: not state_of(gateway).is_up)
        engine.script(CHAT)
        await engine.start()
        await gateway.until_live("m")
        assert (await ask(gateway)).status == 200


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["whole", "stream"])
async def test_engine_that_takes_up_no_connection_is_given_up_in_time(tmp_path: Path, body: object) -> None:
    model = entry("m", timeouts={"connect_s": 0.2, "first_token_s": 60.0, "total_s": 60.0})
    async with ScriptedEngine() as engine:
        model["replicas"] = [{"url": engine.url}]
        async with running_gateway(tmp_path, [model], health_interval_s=60) as gateway:
            await gateway.until_live("m")
            await engine.kill()
            with full_listener(int(engine.url.rpartition(":")[2])):
                answer = await ask(gateway, body)
                assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
                assert "no connection to the engine within 0.2 s" in answer.json()["error"]["message"]
            await engine.start()


@contextmanager
def full_listener(port: int) -> Iterator[None]:
    """A listener whose queue is full: whoever connects gets neither yes nor no."""
    with socket.socket() as listener, ExitStack() as waiting:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield


@pytest.mark.parametrize("status", [429, 503])
async def test_engine_that_asks_for_a_pause_gets_it(tmp_path: Path, status: int) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], queue_wait_s=0.2, breaker_faults=1) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({}, status=status, headers=[("retry-after", "7")]))
        first = await ask(gateway)
        assert (first.status, first.header("retry-after")) == (503, "7")
        then = await ask(gateway)
        assert (then.status, then.json()["error"]["code"]) == (503, "upstream_busy")
        assert then.header("retry-after") == "7"
        assert len(engine.requests_to(CHAT)) == 1, "it is left in peace"
        assert state_of(gateway).is_up, "busy is not dead"
        assert breaker_gauge(gateway) == "0.0"


async def test_calls_wait_for_the_end_of_a_pause_that_is_short_enough(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], queue_wait_s=5) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({}, status=503, headers=[("retry-after", "1")]), engine.usual)
        assert (await ask(gateway)).status == 503
        answer = await ask(gateway)
        assert answer.status == 200
        assert float(answer.header("x-simsa-queue-ms") or 0) > 500


async def test_place_is_free_only_when_it_is_known_what_became_of_it(tmp_path: Path) -> None:
    """A call that waits for the place of one that is told to pause must not run into the same wall."""
    gate = asyncio.Event()

    def busy(_: Request) -> Reply:
        return Reply.json({}, status=503, headers=[("retry-after", "1")]).gated(gate)

    async with ScriptedEngine() as engine:
        model = {**entry("m"), "replicas": [{"url": engine.url, "max_in_flight": 1}]}
        async with running_gateway(tmp_path, [model], queue_wait_s=5) as gateway:
            await gateway.until_live("m")
            engine.script(CHAT, busy, engine.usual)
            first = asyncio.create_task(ask(gateway))
            await engine.until(lambda: engine.running == 1)
            second = asyncio.create_task(ask(gateway))
            depth = gateway.services.telemetry.queue_depth.at("m", "interactive")
            await gateway.until(lambda: depth.value == 1)
            gate.set()
            assert (await first).status == 503
            assert (await second).status == 200
            one, two = engine.requests_to(CHAT)
            assert two.received_s - one.received_s > 0.9
