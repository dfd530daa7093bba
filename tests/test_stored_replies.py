"""Responses that engines keep: continued, asked for and cancelled where they are, by those who made them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clients import Answer, RawClient
from dialect_shapes import response_body, response_delta, response_opening, response_stream, response_usage
from engines import CLOSE, Reply, ScriptedEngine, error_body
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S

from gateway.domain.accounts import TOKENS, Budget, Limits, Period, Terms
from gateway.domain.records import EngineAddress
from gateway.errors import NotFound
from gateway.reply_homes import Home, ReplyHomes

RESPONSES = "/v1/responses"
ASK: dict[str, Any] = {"model": "m", "input": "안녕하세요"}


def continued(reply_id: str, **fields: Any) -> dict[str, Any]:
    return {**ASK, "previous_response_id": reply_id, **fields}


@asynccontextmanager
async def two_replicas(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[RunningGateway, list[ScriptedEngine]]]:
    """A model with two replicas whose responses are called after them, and another model on the first engine."""
    async with ScriptedEngine(["m", "k"]) as one, ScriptedEngine(["m", "k"]) as other:
        models = [entry("m", one.url, other.url), entry("k", one.url)]
        async with running_gateway(tmp_path, models, **settings) as gateway:
            await gateway.until_live("m", replicas=2)
            await gateway.until_live("k")
            for name, engine in (("resp_one", one), ("resp_other", other)):
                engine.script(RESPONSES, Reply.json(response_body("a", reply_id=name)))
            yield gateway, [one, other]


async def ask(gateway: RunningGateway, body: dict[str, Any], *, key: str | None = None) -> Answer:
    async with RawClient(gateway.url, key=key) as client:
        return await client.request("POST", RESPONSES, body=body)


async def made(gateway: RunningGateway, *names: str, key: str | None = None) -> None:
    """Ask until both engines have answered."""
    seen: set[str] = set()
    async with asyncio.timeout(HANG_S):
        while not set(names) <= seen:
            seen.add((await ask(gateway, ASK, key=key)).json()["id"])


async def get(gateway: RunningGateway, path: str, *, method: str = "GET", key: str | None = None) -> Answer:
    async with RawClient(gateway.url, key=key) as client:
        return await client.request(method, path)


def error_of(answer: Answer) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    return error


async def test_what_continues_a_response_goes_to_the_engine_that_keeps_it(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, engines):
        await made(gateway, "resp_one", "resp_other")
        for _ in range(6):
            for name, engine in zip(("resp_one", "resp_other"), engines, strict=True):
                assert (await ask(gateway, continued(name))).json()["id"] == name
                assert engine.requests_to(RESPONSES)[-1].json()["previous_response_id"] == name


async def test_a_streamed_response_is_remembered_before_it_ends(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, engines):
        never = asyncio.Event()
        for engine in engines:
            engine.script(RESPONSES, Reply.stream(*response_opening(reply_id="resp_s"), never))
        async with RawClient(gateway.url) as client:
            await client.start("POST", RESPONSES, body={**ASK, "stream": True})
            await client.next_event()
        (home,) = [engine for engine in engines if engine.requests_to(RESPONSES)]
        home.script("/v1/responses/resp_s", Reply.json(response_body("a", reply_id="resp_s")))
        assert (await get(gateway, "/v1/responses/resp_s")).json()["id"] == "resp_s"


@pytest.mark.parametrize("caller", ["operator", "another"])
async def test_a_response_that_is_not_the_callers_does_not_exist(tmp_path: Path, caller: str) -> None:
    async with two_replicas(tmp_path) as (gateway, engines):
        await made(gateway, "resp_one", key=await gateway.key_of("acme"))
        key = await gateway.key_of("another") if caller == "another" else None
        unknown = await ask(gateway, continued("resp_none"), key=key)
        answers = [
            await ask(gateway, continued("resp_one"), key=key),
            await get(gateway, "/v1/responses/resp_one", key=key),
            await get(gateway, "/v1/responses/resp_one/cancel", method="POST", key=key),
        ]
        assert [answer.status for answer in answers] == [404] * 3
        assert {error_of(answer)["code"] for answer in answers} == {"response_not_found"}
        assert error_of(answers[0]) == {
            **error_of(unknown),
            "message": error_of(unknown)["message"].replace("resp_none", "resp_one"),
        }
        assert not [r for engine in engines for r in engine.requests if r.path.startswith("/v1/responses/")]


async def test_a_key_without_the_route_of_responses_gets_none_that_are_kept(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, _):
        key = await gateway.key_of("acme", Terms(routes=frozenset({"chat_completions"})))
        answer = await get(gateway, "/v1/responses/resp_one", key=key)
        assert (answer.status, error_of(answer)["type"]) == (403, "permission_error")


async def test_what_continues_a_response_waits_for_its_engine_and_keeps_nobody_from_another(tmp_path: Path) -> None:
    async with two_replicas(tmp_path, replica_max_in_flight=1) as (gateway, (one, _)):
        await made(gateway, "resp_one")
        gate = asyncio.Event()
        one.script(RESPONSES, Reply.stream(*response_opening(reply_id="resp_s"), gate), Reply.json(response_body("b")))
        async with RawClient(gateway.url) as holding:
            await holding.start("POST", RESPONSES, body=continued("resp_one", stream=True))
            await holding.next_event()
            waiting = asyncio.create_task(ask(gateway, continued("resp_one")))
            depth = gateway.services.telemetry.queue_depth
            await gateway.until(lambda: depth.at("m", "interactive").value == 1)
            assert (await ask(gateway, ASK)).json()["id"] == "resp_other"
            assert not waiting.done()
        assert (await waiting).status == 200, "its engine is free when the client of the other call has left"


async def test_who_waits_for_one_engine_keeps_nobody_from_an_idle_one_even_in_a_full_queue(tmp_path: Path) -> None:
    async with two_replicas(tmp_path, replica_max_in_flight=1, queue_max_waiting=1) as (gateway, (one, _)):
        await made(gateway, "resp_one")
        one.script(RESPONSES, Reply.stream(*response_opening(reply_id="resp_s"), asyncio.Event()))
        async with RawClient(gateway.url) as holding:
            await holding.start("POST", RESPONSES, body=continued("resp_one", stream=True))
            await holding.next_event()
            waiting = asyncio.create_task(ask(gateway, continued("resp_one")))
            depth = gateway.services.telemetry.queue_depth
            await gateway.until(lambda: depth.at("m", "interactive").value == 1)
            assert error_of(await ask(gateway, continued("resp_one")))["code"] == "queue_full"
            assert (await ask(gateway, ASK)).json()["id"] == "resp_other"
            assert not waiting.done()
            one.script(RESPONSES, Reply.json(response_body("b")))
        assert (await waiting).status == 200


async def test_a_key_cannot_name_a_response_and_so_not_overwrite_anothers(tmp_path: Path) -> None:
    """vLLM takes `request_id` as the id under which it keeps the response."""
    async with two_replicas(tmp_path) as (gateway, engines):
        await made(gateway, "resp_one", key=await gateway.key_of("acme"))
        asked = [len(engine.requests_to(RESPONSES)) for engine in engines]
        answer = await ask(gateway, {**ASK, "request_id": "resp_one"}, key=await gateway.key_of("other"))
        assert (answer.status, error_of(answer)["code"]) == (403, "parameter_not_allowed")
        assert [len(engine.requests_to(RESPONSES)) for engine in engines] == asked, "no engine hears of it"
        trusted = await gateway.key_of("trusted", Terms(may_set_priority=True))
        assert (await ask(gateway, {**ASK, "request_id": "resp_mine"}, key=trusted)).status == 403
        assert (await ask(gateway, {**ASK, "request_id": "resp_mine"})).status == 200, "the operator may"


async def test_only_the_model_that_made_a_response_can_continue_it(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, _):
        await made(gateway, "resp_one")
        answer = await ask(gateway, continued("resp_one", model="k"))
        assert (answer.status, error_of(answer)["param"]) == (404, "previous_response_id")
        assert "made by 'm'" in error_of(answer)["message"]
        assert (await ask(gateway, continued("resp_one", previous_response_id=7))).status == 400
        async with RawClient(gateway.url) as client:
            endless = b'{"model":"m","input":"a","previous_response_id":1e999}'
            assert (await client.request("POST", RESPONSES, body=endless)).status == 400


async def test_what_is_not_to_be_stored_is_not_remembered(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, _):
        name = (await ask(gateway, {**ASK, "store": False})).json()["id"]
        assert (await ask(gateway, continued(name))).status == 404


async def test_the_oldest_responses_are_forgotten(tmp_path: Path) -> None:
    async with two_replicas(tmp_path, remembered_responses=1) as (gateway, _):
        await made(gateway, "resp_one", "resp_other")
        statuses = {(await ask(gateway, continued(name))).status for name in ("resp_one", "resp_other")}
        assert 404 in statuses


async def test_no_other_engine_answers_for_the_one_that_is_gone(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, engines):
        await made(gateway, "resp_one")
        await engines[0].kill()
        await gateway.until(lambda: len(gateway.services.fleet.live("m")) == 1)
        answer = await ask(gateway, continued("resp_one"))
        assert (answer.status, error_of(answer)["code"]) == (503, "no_replica")
        assert "engine that keeps the response" in error_of(answer)["message"], "the other one is well"
        assert error_of(answer)["param"] == "previous_response_id"
        answer = await get(gateway, "/v1/responses/resp_one")
        assert (answer.status, error_of(answer)["code"]) == (503, "no_replica")


async def test_a_response_stays_with_its_engine_when_the_list_of_replicas_changes(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, engines):
        await made(gateway, "resp_one", "resp_other")
        engines[1].script("/v1/responses/resp_other", Reply.json(response_body("a", reply_id="resp_other")))
        gateway.write_registry([entry("m", engines[1].url), entry("k", engines[0].url)])
        await gateway.until(lambda: len(gateway.services.fleet.states_of("m")) == 1)
        assert (await ask(gateway, continued("resp_other"))).json()["id"] == "resp_other"
        kept = await get(gateway, "/v1/responses/resp_other")
        assert (kept.status, kept.header("x-simsa-replica")) == (200, "m/1")
        for answer in (await ask(gateway, continued("resp_one")), await get(gateway, "/v1/responses/resp_one")):
            assert (answer.status, error_of(answer)["code"]) == (404, "response_not_found")
            assert "no longer there" in error_of(answer)["message"]


async def test_who_waits_for_an_engine_is_told_when_that_leaves_the_registry(tmp_path: Path) -> None:
    async with two_replicas(tmp_path, replica_max_in_flight=1) as (gateway, (one, other)):
        await made(gateway, "resp_one")
        one.script(RESPONSES, Reply.stream(*response_opening(reply_id="resp_s"), asyncio.Event()))
        async with RawClient(gateway.url) as holding:
            await holding.start("POST", RESPONSES, body=continued("resp_one", stream=True))
            await holding.next_event()
            waiting = asyncio.create_task(ask(gateway, continued("resp_one")))
            depth = gateway.services.telemetry.queue_depth
            await gateway.until(lambda: depth.at("m", "interactive").value == 1)
            gateway.write_registry([entry("m", other.url)])
            answer = await waiting
            assert (answer.status, error_of(answer)["code"]) == (404, "response_not_found")


# --- asked for again ----------------------------------------------------------------------------------------

KEPT = "/v1/responses/resp_one"


async def test_a_kept_response_is_passed_on_and_is_no_call(tmp_path: Path) -> None:
    serving = {"kind": "vllm", "served_model_name": "org/weights"}
    async with (
        ScriptedEngine(["org/weights"]) as engine,
        running_gateway(tmp_path, [entry("m", engine.url, serving=serving)]) as gateway,
    ):
        await gateway.until_live("m")
        kept = response_body("a", model="org/weights", reply_id="resp_one", metadata={"model": "org/weights"})
        engine.script(RESPONSES, Reply.json(kept))
        engine.script(KEPT, Reply.json(kept))
        engine.script(f"{KEPT}/cancel", Reply.json({**kept, "status": "cancelled"}))
        assert (await ask(gateway, ASK)).status == 200
        answer = await get(gateway, f"{KEPT}?starting_after=3&evil=1&stream=false")
        assert answer.json() == {**kept, "model": "m"}
        assert answer.header("x-simsa-replica") == "m/1"
        assert engine.requests_to(KEPT)[0].query == "starting_after=3&stream=false"
        cancelled = await get(gateway, f"{KEPT}/cancel", method="POST")
        assert cancelled.json()["status"] == "cancelled"
        assert (await gateway.call()).opened.endpoint == "responses", "there is one call, and it made the response"
        metrics = gateway.services.telemetry.render().decode()
        assert 'simsa_requests_total{endpoint="stored_responses",model="m",status_class="2xx"} 2.0' in metrics


async def test_a_kept_stream_is_passed_on_event_by_event(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, engines):
        await made(gateway, "resp_one")
        gate = asyncio.Event()
        first, *rest = response_stream(["a", "b"])
        engines[0].script(KEPT, Reply.stream(first, gate, *rest))
        async with RawClient(gateway.url) as client:
            assert (await client.start("GET", f"{KEPT}?stream=true")).status == 200
            assert await client.next_event() == first
            gate.set()
            assert await client.rest() == b"".join(rest)


@pytest.mark.parametrize(
    ("reply", "status", "words"),
    [
        (Reply.json(error_body("not found", type_="NotFoundError", code=404), status=404), 404, "not found"),
        (Reply.json(error_body("no", type_="x", code=400), status=400), 400, "no"),
        (Reply.json({}, status=500), 502, "The engine answered 500"),
        (Reply.stream(*response_opening(), response_delta("a"), CLOSE), 200, "closed the connection"),
        (Reply.stream(*response_opening(), b"data: rubbish\n\n"), 200, "no JSON object"),
        (Reply.stream(*response_opening()), 200, "before its end"),
    ],
)
async def test_an_engine_that_cannot_give_it_is_reported(tmp_path: Path, reply: Reply, status: int, words: str) -> None:
    async with two_replicas(tmp_path) as (gateway, engines):
        await made(gateway, "resp_one")
        engines[0].script(KEPT, reply)
        answer = await get(gateway, KEPT)
        assert answer.status == status
        last = answer.body.split(b"\n\n")[-2] if status == 200 else answer.body
        assert words in last.decode()
        await gateway.until(lambda: not gateway.services.dispatcher.in_flight)


async def test_a_silent_engine_is_left_in_time(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        model = entry("m", engine.url, timeouts={"first_token_s": 0.1, "total_s": 0.2})
        async with running_gateway(tmp_path, [model]) as gateway:
            await gateway.until_live("m")
            engine.script(RESPONSES, Reply.json(response_body("a", reply_id="resp_one")))
            await ask(gateway, ASK)
            for reply, status in ((Reply.hang(), 504), (Reply.stream(*response_opening(), asyncio.Event()), 200)):
                engine.script(KEPT, reply)
                answer = await get(gateway, KEPT)
                assert answer.status == status
                assert b"upstream_timeout" in answer.body


async def test_leaving_and_stopping_end_a_kept_stream(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, engines):
        await made(gateway, "resp_one")
        engines[0].script(KEPT, Reply.stream(*response_opening(), asyncio.Event()))
        async with RawClient(gateway.url) as client:
            await client.start("GET", KEPT)
            await client.next_event()
            client.leave()
            await asyncio.wait_for(engines[0].requests_to(KEPT)[0].closed_by_peer.wait(), HANG_S)
        await gateway.until(lambda: not gateway.services.dispatcher.in_flight)
        async with RawClient(gateway.url) as client:
            await client.start("GET", KEPT)
            await client.next_event()
            gateway.services.dispatcher.abort_all("The gateway is shutting down.")
            assert b"event: error" in await client.rest()
        gateway.app.begin_draining()
        answer = await get(gateway, KEPT)
        assert (answer.status, error_of(answer)["code"]) == (503, "draining")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", KEPT, 405),
        ("GET", f"{KEPT}/cancel", 405),
        ("GET", "/v1/responses/", 404),
        ("GET", "/v1/responses/a/b", 404),
        ("GET", "/v1/responses/a%2Fb", 404),
        ("GET", "/v1/responses/a%0d%0ab", 404),
        ("GET", f"/v1/responses/{'a' * 201}", 404),
    ],
)
async def test_other_paths_and_methods_are_refused(tmp_path: Path, method: str, path: str, status: int) -> None:
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")]) as gateway:
        answer = await get(gateway, path, method=method)
        assert answer.status == status
        assert set(error_of(answer)) == {"message", "type", "param", "code"}


async def test_a_kept_response_needs_the_key(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")], admin_key="k") as gateway:
        assert (await get(gateway, KEPT)).status == 401


# --- the memory ---------------------------------------------------------------------------------------------


ONE, OTHER = (EngineAddress(f"http://127.0.0.1:{port}", "/v1", None) for port in (1, 2))


async def test_an_id_stays_with_the_first_who_has_it() -> None:
    homes = ReplyHomes(limit=2)
    homes.keep("one", "a", Home("m", ONE))
    homes.keep("other", "a", Home("m", OTHER))
    assert await homes.find("one", "a", param="p") == Home("m", ONE)
    with pytest.raises(NotFound):
        await homes.find("other", "a", param="p")


async def test_each_caller_has_its_own_bound() -> None:
    homes = ReplyHomes(limit=2)
    homes.keep("one", "a", Home("m", ONE))
    for name in ("b", "c", "d"):
        homes.keep("other", name, Home("m", ONE))
    assert await homes.find("one", "a", param="p")
    assert await homes.find("other", "c", param="p")
    with pytest.raises(NotFound):
        await homes.find("other", "b", param="p")
    homes.keep("one", "b", Home("m", ONE))
    assert await homes.find("one", "b", param="p"), "what was forgotten may be anybody's"


@pytest.mark.parametrize("reply_id", ["", "a" * 201, "resp/one", "resp one", "안녕", "resp_one\n"])
async def test_what_nobody_could_ask_for_is_not_remembered(reply_id: str) -> None:
    homes = ReplyHomes(limit=2)
    homes.keep("one", reply_id, Home("m", ONE))
    with pytest.raises(NotFound):
        await homes.find("one", reply_id, param="p")
    longest = "a" * 200
    homes.keep("one", longest, Home("m", ONE))
    assert await homes.find("one", longest, param="p") == Home("m", ONE)


async def test_asking_for_kept_responses_counts_in_the_keys_minute_and_not_in_its_tokens_or_budgets(
    tmp_path: Path,
) -> None:
    budget = Budget(Period.DAY, TOKENS, Decimal(1100))
    async with two_replicas(tmp_path) as (gateway, engines):
        limits = Limits(requests_per_min=4, tokens_per_min=2000, budgets=(budget,))
        key = await gateway.key_of("acme", Terms(limits=limits))
        for engine, name in zip(engines, ("resp_one", "resp_other"), strict=True):
            spent = response_body("a", reply_id=name, usage=response_usage(1000, 100))
            engine.script(RESPONSES, Reply.json(spent))
            for path in (f"{RESPONSES}/{name}", f"{RESPONSES}/{name}/cancel"):
                engine.script(path, Reply.json(response_body("a", reply_id=name)))
        name = (await ask(gateway, {**ASK, "max_output_tokens": 10}, key=key)).json()["id"]
        assert (await ask(gateway, ASK, key=key)).status == 429, "the budget is used up"
        path = f"{RESPONSES}/{name}"
        first = await get(gateway, path, key=key)
        assert (first.status, first.header("x-ratelimit-remaining-requests")) == (200, "2")
        assert (await get(gateway, f"{path}/cancel", method="POST", key=key)).status == 200
        assert (await get(gateway, path, key=key)).header("x-ratelimit-remaining-tokens") == "900"
        refused = await get(gateway, path, key=key)
        assert (refused.status, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.header("retry-after") or "") <= 61


async def test_kept_responses_count_among_the_keys_calls_at_a_time_while_they_are_sent(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (gateway, engines):
        key = await gateway.key_of("acme", Terms(limits=Limits(concurrent=1)))
        name = (await ask(gateway, ASK, key=key)).json()["id"]
        gate = asyncio.Event()
        events = response_stream(["a"], reply_id=name)
        for engine in engines:
            engine.script(f"{RESPONSES}/{name}", Reply.stream(*events[:2], gate, *events[2:]))
        async with RawClient(gateway.url, key=key) as client:
            assert (await client.start("GET", f"{RESPONSES}/{name}?stream=true")).status == 200
            await client.next_event()
            refused = await get(gateway, f"{RESPONSES}/{name}", key=key)
            assert (refused.status, refused.header("retry-after")) == (429, "1")
            gate.set()
            await client.rest()
        (made,) = await gateway.services.accounts.list_keys("acme")
        books = gateway.services.dispatcher.limiter.books
        await gateway.until(lambda: books.account(made.id).in_flight == 0)
