"""Engines that say they are well and cannot generate: kept out until they give a token, with the reason."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from clients import RawClient
from engines import CLOSE, RESET, Reply, Request, ScriptedEngine, chat_chunk, error_body
from gateways import RunningGateway, entry, running_gateway

from gateway.errors import UpstreamUnreachable
from gateway.first_token import ask_for_a_token
from gateway.replica_state import ReplicaState
from gateway.upstream import Upstream, parse_origin, request_head

CHAT, TOKEN = "/v1/chat/completions", "/v1/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
DEAD = error_body("EngineCore encountered an issue.", type_="InternalServerError", code=500)


def state_of(gateway: RunningGateway) -> ReplicaState:
    (state,) = gateway.services.fleet.states_of("m")
    return state


async def ask(gateway: RunningGateway) -> tuple[int, str | None]:
    async with RawClient(gateway.url) as client:
        answer = await client.request("POST", CHAT, body=ASK)
    return answer.status, answer.json().get("error", {}).get("code")


async def test_an_engine_is_asked_for_one_token_before_its_first_call_and_not_again(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        await engine.received("/health", 4)
        (request,) = engine.requests_to(TOKEN)
        asked = request.json()
        assert (asked["model"], asked["max_tokens"], asked["user"]) == ("m", 1, "simsa-first-token")
        assert await ask(gateway) == (200, None)
        assert [call.opened.endpoint for call in await gateway.calls()] == ["chat_completions"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Reply.json(DEAD, status=500), "answered 500 when asked for one token: EngineCore encountered an issue."),
        (Reply.text("Bad Gateway", status=502), "answered 502 when asked for one token: Bad Gateway"),
        (Reply.raw(RESET), "without an answer"),
        (Reply.raw(CLOSE), "without an answer"),
        (Reply.raw(b"garbage"), ""),
    ],
    ids=["500", "502", "reset", "closed", "no HTTP"],
)
async def test_an_engine_that_is_healthy_and_fails_its_first_token_gets_no_calls(
    tmp_path: Path, answer: Reply, words: str
) -> None:
    async with ScriptedEngine() as engine:
        engine.script(TOKEN, answer)
        async with running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
            await engine.received(TOKEN, 3)
            assert not state_of(gateway).is_up
            assert words in state_of(gateway).reason
            assert await ask(gateway) == (503, "no_replica")
            assert not engine.requests_to(CHAT)
            engine.script(TOKEN)
            await gateway.until_live("m")
            assert await ask(gateway) == (200, None)


async def test_an_engine_that_never_gives_its_first_token_is_waited_for_as_long_as_a_call_would(tmp_path: Path) -> None:
    limits = {"timeouts": {"first_token_s": 0.2}}
    async with ScriptedEngine() as engine:
        engine.script(TOKEN, Reply.hang())
        async with running_gateway(tmp_path, [entry("m", engine.url, **limits)]) as gateway:
            await engine.received(TOKEN, 2)
            assert "no first token within 0.2 s" in state_of(gateway).reason
            assert not state_of(gateway).is_up


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 503])
async def test_a_refusal_proves_that_an_engine_lives(tmp_path: Path, status: int) -> None:
    """404 and 400 come from one that embeds, 429 and 503 from one that is full."""
    async with ScriptedEngine() as engine:
        engine.script(TOKEN, Reply.json({"detail": "no"}, status=status))
        async with running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
            await gateway.until_live("m")


async def test_an_engine_that_dies_of_its_first_call_takes_no_second_call(tmp_path: Path) -> None:
    """As vLLM 0.32 does with AXK2: /health is 200 until the process is gone; here it comes back each time."""
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")

        async def die(_: Request) -> Reply:
            engine.script(TOKEN, Reply.raw(RESET))
            return Reply.raw(RESET)

        engine.script(CHAT, die)
        assert await ask(gateway) == (502, "upstream_unreachable")
        sent = len(engine.requests_to(CHAT))
        assert sent <= 2, "once more over a new connection, for the kept one may just have been closed"
        await engine.received(TOKEN, 4)
        assert await ask(gateway) == (503, "no_replica")
        assert len(engine.requests_to(CHAT)) == sent


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_engine_that_has_answered_calls_is_back_at_once_after_one_broken_connection(
    tmp_path: Path, streamed: bool
) -> None:
    """A token asked for in between would wait in the busy engine's queue, and every call with it."""
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        never = asyncio.Event()
        engine.script(TOKEN, Reply.hang())
        begun = Reply.stream(chat_chunk("a"), never) if streamed else engine.usual
        engine.script(CHAT, begun, Reply.raw(RESET), Reply.raw(RESET), engine.usual)
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body={**ASK, "stream": streamed})
            await (client.next_event() if streamed else client.rest())
            looks = len(engine.requests_to("/health"))
            assert await ask(gateway) == (502, "upstream_unreachable")
            answers = [await ask(gateway)]
            if answers == [(502, "upstream_unreachable")]:  # the first time over a kept connection, then a new one
                answers = [await ask(gateway)]
            assert answers == [(200, None)], "it waits for the look, and that finds it well"
            assert len(engine.requests_to("/health")) > looks
        assert len(engine.requests_to(TOKEN)) == 1


async def test_a_call_that_fails_while_a_look_is_under_way_is_for_the_next_look_to_judge(tmp_path: Path) -> None:
    gate, is_held = asyncio.Event(), asyncio.Event()

    def hold(_: Request) -> Reply:
        is_held.set()
        return Reply.text("").gated(gate)

    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        assert await ask(gateway) == (200, None)
        engine.script(TOKEN, Reply.hang())
        engine.script("/metrics", hold)
        await is_held.wait()  # the engine was found well, and the look is not at its end
        engine.script(CHAT, Reply.raw(RESET), Reply.raw(RESET), engine.usual)
        assert await ask(gateway) == (502, "upstream_unreachable")
        engine.script(CHAT)
        waiting = asyncio.create_task(ask(gateway))
        depth = gateway.services.telemetry.queue_depth.at("m", "interactive")
        await gateway.until(lambda: depth.value == 1)
        gate.set()
        assert await waiting == (200, None)
        assert len(engine.requests_to(TOKEN)) == 1


async def test_an_engine_that_was_seen_down_is_tried_out_again_whatever_it_answered_before(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        assert await ask(gateway) == (200, None)
        engine.script("/health", Reply.text("restarting", status=503))
        await gateway.until(lambda: not state_of(gateway).is_up)
        engine.script(TOKEN, Reply.json(DEAD, status=500))
        engine.script("/health")
        await engine.received(TOKEN, 3)
        assert await ask(gateway) == (503, "no_replica")


async def test_the_models_own_limit_holds_for_the_connection_of_the_first_token(tmp_path: Path) -> None:
    """A listener that takes no connection: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as filling:
        host, port = listener.getsockname()
        for _ in range(3):
            filler = filling.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        origin = parse_origin(f"http://{host}:{port}")
        upstream = Upstream(idle_connections=0, now=time.perf_counter)
        with pytest.raises(UpstreamUnreachable, match=r"no connection to the engine within 0\.1 s"):
            await ask_for_a_token(
                upstream,
                origin,
                head=request_head(origin, b"POST", b"/v1/completions", ()),
                served_model_name="m",
                connect_s=0.1,
                within_s=60,
                hide_key=bytes,
            )


async def test_a_replica_that_gives_tokens_serves_while_its_neighbour_does_not(tmp_path: Path) -> None:
    async with ScriptedEngine() as well, ScriptedEngine() as ill:
        ill.script(TOKEN, Reply.json(DEAD, status=500))
        async with running_gateway(tmp_path, [entry("m", ill.url, well.url)]) as gateway:
            await gateway.until_live("m")
            await ill.received(TOKEN)
            assert {await ask(gateway) for _ in range(8)} == {(200, None)}
            assert not ill.requests_to(CHAT)


async def test_a_hosted_api_and_whoever_switched_it_off_are_not_asked(tmp_path: Path) -> None:
    hosted = {"id": "h", "serving": {"kind": "openai_api"}}
    async with ScriptedEngine(models=["m", "h"]) as engine:
        models = [entry("m", engine.url), {**hosted, "replicas": [{"url": engine.url}]}]
        async with running_gateway(tmp_path, models, probe_on_connect=False) as gateway:
            await gateway.until_live("m", "h")
        async with running_gateway(tmp_path / "on", models[1:]) as gateway:
            await gateway.until_live("h")
        assert not engine.requests_to(TOKEN)
