"""Admission over real sockets: caps, order, waiting, leaving, sessions. Gates hold the engines, so order is certain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from clients import Answer, RawClient
from engines import CLOSE, DONE, Reply, Request, ScriptedEngine, chat_answer, chat_chunk, usage_body
from gateways import RunningGateway, entry, running_gateway

from gateway.domain.records import CallStatus, Priority, Replica

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
END = chat_chunk(finish_reason="stop") + DONE


class GatedEngine(ScriptedEngine):
    """Answers calls one by one, each when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[str, asyncio.Event] = {}
        self.script(CHAT, self._gated)

    @property
    def names(self) -> list[str]:
        """The `user` of each call that came, in order."""
        return [request.json()["user"] for request in self.requests_to(CHAT)]

    def _gated(self, request: Request) -> Reply:
        gate = self.gates.setdefault(request.json()["user"], asyncio.Event())
        return Reply.json(chat_answer("ja", usage=usage_body(3, 1))).gated(gate)

    async def holding(self, name: str) -> None:
        """Wait until that call is here."""
        await self.until(lambda: name in self.names)

    def answer(self, name: str) -> None:
        self.gates.setdefault(name, asyncio.Event()).set()


class Callers:
    """Calls under way, each on a connection of its own, known by their `user` field."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway
        self.clients: dict[str, RawClient] = {}
        self._stack = AsyncExitStack()

    async def send(self, name: str, priority: str | None = None, *, key: str | None = None, **fields: Any) -> None:
        client = await self._stack.enter_async_context(RawClient(self._gateway.url, key=key))
        self.clients[name] = client
        headers = [("x-simsa-priority", priority)] if priority else []
        await client.send("POST", CHAT, body={**ASK, "user": name, **fields}, headers=headers)

    async def wait_in_line(self, name: str, priority: str | None = None, **fields: Any) -> None:
        """Send a call, and go on when it stands in line."""
        before = waiting(self._gateway)
        await self.send(name, priority, **fields)
        await self._gateway.until(lambda: waiting(self._gateway) == before + 1)

    async def answer(self, name: str) -> Answer:
        head = await self.clients[name].head()
        return Answer(head.status, head.headers, await self.clients[name].rest())


def waiting(gateway: RunningGateway, model: str = "m") -> int:
    depth = gateway.services.telemetry.queue_depth
    return int(sum(depth.at(model, priority.value).value for priority in Priority))


@asynccontextmanager
async def house(
    tmp_path: Path, engines: Sequence[ScriptedEngine], places: int, **settings: Any
) -> AsyncIterator[tuple[RunningGateway, Callers]]:
    """A gateway before these engines, each with so many places, and callers to it."""
    model = entry("m", **settings.pop("fields", {}))
    async with AsyncExitStack() as stack:
        for engine in engines:
            await stack.enter_async_context(engine)
        model["replicas"] = [{"url": engine.url, "max_in_flight": places} for engine in engines]
        gateway = await stack.enter_async_context(running_gateway(tmp_path, [model], **settings))
        await gateway.until_live("m", replicas=len(engines))
        callers = Callers(gateway)
        stack.push_async_callback(callers._stack.aclose)
        yield gateway, callers


# --- order --------------------------------------------------------------------------------------------------


async def test_freed_places_go_to_the_highest_class_first_and_in_order_within_it(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1) as (_, callers):
        await callers.send("running")
        await engine.holding("running")
        for name, priority in (
            ("load 1", "load_test"),
            ("batch 1", "batch"),
            ("interactive 1", None),
            ("load 2", "load_test"),
            ("reviewer 1", "reviewer"),
            ("interactive 2", "interactive"),
            ("reviewer 2", "reviewer"),
        ):
            await callers.wait_in_line(name, priority)
        expected = ["running", "reviewer 1", "reviewer 2", "interactive 1", "interactive 2", "batch 1", "load 1"]
        for name in expected:
            await engine.holding(name)
            assert engine.names == expected[: expected.index(name) + 1], "one at a time"
            engine.answer(name)
        await engine.holding("load 2")
        engine.answer("load 2")
        assert {(await callers.answer(name)).status for name in callers.clients} == {200}


async def test_load_test_leaves_places_free_into_which_a_reviewer_goes_at_once(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 4) as (gateway, callers):
        for number in range(6):
            await callers.send(f"load {number}", "load_test")
        await gateway.until(lambda: waiting(gateway) == 4)
        assert len(engine.names) == 2, "half of the places"
        await callers.send("batch", "batch")
        await engine.holding("batch")
        await callers.wait_in_line("interactive")
        await callers.send("reviewer", "reviewer")
        await engine.holding("reviewer")
        for gate in ("reviewer", "batch"):
            engine.answer(gate)
        assert (await callers.answer("reviewer")).header("x-simsa-queue-ms") == "0.000"
        for name in [*engine.names[:2], "interactive"]:
            await engine.holding(name)
            engine.answer(name)
        for number in range(6):
            await engine.holding(f"load {number}")
            engine.answer(f"load {number}")
            assert (await callers.answer(f"load {number}")).status == 200


async def test_failed_call_keeps_its_turn(tmp_path: Path) -> None:
    """Its second replica is full: it stands before those of its class who came while it was being failed."""
    bad, good = GatedEngine(), GatedEngine()
    async with house(tmp_path, [bad, good], 1, health_interval_s=60) as (gateway, callers):
        for name in ("one", "two"):
            await callers.send(name)
        await gateway.until(lambda: len(bad.names + good.names) == 2)
        (fails,), (runs,) = bad.names, good.names
        await callers.wait_in_line("later")
        bad.script(CHAT, Reply.json({}, status=502))
        await callers.wait_in_line("last", "load_test")
        await bad.kill()  # what it was answering fails and goes to the other
        await gateway.until(lambda: waiting(gateway) == 3)
        good.answer(runs)
        await good.holding(fails)
        assert good.names == [runs, fails]
        good.answer(fails)
        answer = await callers.answer(fails)
        assert (answer.status, answer.header("x-simsa-attempts")) == (200, "2")
        for name in ("later", "last"):
            await good.holding(name)
            good.answer(name)
            assert (await callers.answer(name)).status == 200
        await bad.start()


async def test_organisations_take_turns_at_a_full_replica_however_many_calls_one_of_them_sends(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1, admin_key="admin") as (gateway, callers):
        large, small = [await gateway.key_of(name) for name in ("large", "small")]
        await callers.send("running", key=large)
        await engine.holding("running")
        for number in range(1, 6):
            await callers.wait_in_line(f"large {number}", key=large)
        for number in range(1, 3):
            await callers.wait_in_line(f"small {number}", key=small)
        expected = ["running", "large 1", "small 1", "large 2", "small 2", "large 3", "large 4", "large 5"]
        for name in expected:
            await engine.holding(name)
            engine.answer(name)
            assert (await callers.answer(name)).status == 200
        assert engine.names == expected
        assert waiting(gateway) == 0


async def test_organisation_that_fills_the_queue_makes_room_for_another_ones_calls(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1, admin_key="admin", queue_max_waiting=3) as (gateway, callers):
        large, small = [await gateway.key_of(name) for name in ("large", "small")]
        await callers.send("running", key=large)
        await engine.holding("running")
        for number in range(1, 4):
            await callers.wait_in_line(f"large {number}", key=large)
        await callers.send("large 4", key=large)
        assert (await callers.answer("large 4")).json()["error"]["code"] == "queue_full"
        await callers.send("small", key=small)
        displaced = await callers.answer("large 3")
        assert (displaced.status, displaced.json()["error"]["code"]) == (503, "queue_full")
        for name in ("running", "large 1", "small", "large 2"):
            await engine.holding(name)
            engine.answer(name)
            assert (await callers.answer(name)).status == 200


# --- waiting ------------------------------------------------------------------------------------------------


async def test_wait_is_told_in_header_record_and_metrics(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1) as (gateway, callers):
        await callers.send("first")
        await engine.holding("first")
        loop = asyncio.get_running_loop()
        before = perf_counter()  # the loop's own clock goes by milliseconds
        await callers.wait_in_line("second")
        enough = loop.create_future()
        loop.call_later(0.05, enough.set_result, None)
        await enough
        engine.answer("first")
        await engine.holding("second")
        most_ms = (perf_counter() - before) * 1000
        engine.answer("second")
        waited_ms = float((await callers.answer("second")).header("x-simsa-queue-ms") or 0)
        assert 50 <= waited_ms <= most_ms
        assert (await callers.answer("first")).header("x-simsa-queue-ms") == "0.000"
        calls = {round((call.timing.queue_s or 0) * 1000, 3): call for call in await gateway.calls(2)}
        call = calls[waited_ms]
        assert call.timing.overhead_s is not None
        assert call.timing.overhead_s < 0.05, "waiting is not the gateway's work"
        assert call.timing.e2e_s is not None
        assert call.timing.e2e_s > 0.05, "but the caller waits"
        text = gateway.services.telemetry.render().decode()
        assert 'simsa_queue_seconds_bucket{le="0.01"} 1.0' in text
        assert "simsa_queue_seconds_count 2.0" in text


async def test_queue_is_bounded_and_a_higher_class_still_gets_in(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1, queue_max_waiting=2, queue_wait_s=30) as (gateway, callers):
        await callers.send("running", "load_test")
        await engine.holding("running")
        for name in ("first", "second"):
            await callers.wait_in_line(name, "load_test")
        await callers.send("third", "load_test")
        refused = await callers.answer("third")
        assert (refused.status, refused.json()["error"]["code"]) == (503, "queue_full")
        assert refused.header("retry-after") == "15"
        assert refused.header("x-simsa-attempts") == "0"
        await callers.send("reviewer", "reviewer")
        displaced = await callers.answer("second")
        assert (displaced.status, displaced.json()["error"]["code"]) == (503, "queue_full")
        assert waiting(gateway) == 2
        for name in ("running", "reviewer", "first"):
            await engine.holding(name)
            engine.answer(name)
            assert (await callers.answer(name)).status == 200
        calls = await gateway.calls(5)
        assert sorted(call.error_code or "" for call in calls) == ["", "", "", "queue_full", "queue_full"]


async def test_wait_has_an_end(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1, queue_wait_s=0.05) as (gateway, callers):
        await callers.send("running")
        await engine.holding("running")
        await callers.send("late", stream=True)
        refused = await callers.answer("late")
        assert (refused.status, refused.json()["error"]["code"]) == (503, "queue_full")
        assert refused.header("retry-after") == "2"
        assert "SIMSA_QUEUE_WAIT_S" in refused.json()["error"]["message"]
        call = await gateway.call()
        assert (call.replica, call.attempts, call.status) == (None, 0, CallStatus.ERROR)
        assert call.timing.queue_s is not None
        assert round(call.timing.queue_s, 2) >= 0.05
        engine.answer("running")


async def test_waiting_takes_nothing_from_the_engines_time(tmp_path: Path) -> None:
    engine = GatedEngine()
    fields = {"timeouts": {"total_s": 0.3, "first_token_s": 0.3}}
    async with house(tmp_path, [engine], 1, fields=fields) as (gateway, callers):
        await callers.send("running")
        await engine.holding("running")
        await callers.wait_in_line("waits", stream=True)
        assert (await callers.answer("running")).status == 504
        await engine.holding("waits")
        began_s = asyncio.get_running_loop().time()
        assert (await callers.answer("waits")).status == 504
        assert asyncio.get_running_loop().time() - began_s > 0.2, "its own limit, from when the engine had it"
        at_once, late = sorted(call.timing.queue_s or 0 for call in await gateway.calls(2))
        assert at_once == 0 < 0.2 < late


@pytest.mark.parametrize("how", ["leave", "reset", "half_close"])
async def test_client_that_leaves_the_line_is_never_sent_to_an_engine(tmp_path: Path, how: str) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1) as (gateway, callers):
        await callers.send("running")
        await engine.holding("running")
        for name in ("leaves", "stays"):
            await callers.wait_in_line(name)
        leaving = getattr(callers.clients["leaves"], how)()
        if leaving is not None:
            await leaving
        await gateway.until(lambda: waiting(gateway) == 1)
        engine.answer("running")
        await engine.holding("stays")
        engine.answer("stays")
        assert (await callers.answer("stays")).status == 200
        assert engine.names == ["running", "stays"]
        left = [call for call in await gateway.calls(3) if call.status is CallStatus.CANCELLED]
        assert [(call.attempts, call.replica) for call in left] == [(0, None)]
        assert left[0].timing.queue_s


async def test_place_is_free_when_the_engine_is_done_however_slowly_the_client_reads(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with house(tmp_path, [engine], 1) as (_, callers):
        long = chat_answer("x" * 32_000_000, usage=usage_body(3, 1))
        engine.script(CHAT, Reply.json(long), engine.usual)
        await callers.send("reads nothing")
        await engine.received(CHAT)
        await callers.send("next")
        assert (await callers.answer("next")).status == 200
        assert len((await callers.answer("reads nothing")).json()["choices"][0]["message"]["content"]) == 32_000_000


async def test_looks_at_a_full_engine_do_not_wait_and_full_is_not_down(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1) as (gateway, callers):
        await callers.send("running")
        await engine.holding("running")
        await callers.wait_in_line("waits")
        looks = len(engine.requests_to("/health"))
        await engine.received("/health", looks + 5)
        assert [state.is_up for state in gateway.services.fleet.states_of("m")] == [True]
        for name in ("running", "waits"):
            await engine.holding(name)
            engine.answer(name)
            assert (await callers.answer(name)).status == 200


async def test_nobody_waits_for_engines_that_are_gone(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1) as (gateway, callers):
        await callers.send("running")
        await engine.holding("running")
        await callers.wait_in_line("waits")
        await engine.kill()
        assert (await callers.answer("running")).json()["error"]["code"] == "upstream_unreachable"
        assert (await callers.answer("waits")).json()["error"]["code"] == "no_replica"
        assert waiting(gateway) == 0
        await engine.start()


async def test_changed_cap_counts_at_once_and_calls_under_way_go_on_counting(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1) as (gateway, callers):
        await callers.send("one", "reviewer")
        await engine.holding("one")
        for name in ("two", "three"):
            await callers.wait_in_line(name, "reviewer")
        gateway.write_registry([{**entry("m"), "replicas": [{"url": engine.url, "max_in_flight": 2}]}])
        await engine.holding("two")
        assert waiting(gateway) == 1
        for name in ("one", "two", "three"):
            await engine.holding(name)
            engine.answer(name)
            assert (await callers.answer(name)).status == 200


async def test_a_call_under_way_keeps_the_replica_and_gpu_that_it_was_sent_to(tmp_path: Path) -> None:
    gpu = {"name": "A GPU", "memory": "81559 MiB", "bandwidth_tb_per_s": 3.35, "source": "test", "confidence": "low"}
    gpus = [{"id": name, **gpu} for name in ("h100", "h200")]
    engine = GatedEngine()
    async with house(tmp_path, [engine], 1) as (gateway, callers):

        def replica() -> Replica:
            return gateway.services.fleet.states[0].replica

        first = {"url": engine.url, "id": "before", "gpu": "h100", "gpus": 2}
        gateway.write_registry([{**entry("m"), "replicas": [first]}], gpus=gpus)
        await gateway.until(lambda: replica().id == "before")
        await callers.send("one")
        await engine.holding("one")
        after = {"url": engine.url, "id": "after", "gpu": "h200"}
        gateway.write_registry([{**entry("m"), "replicas": [after]}], gpus=gpus)
        await gateway.until(lambda: replica().id == "after")
        engine.answer("one")
        assert (await callers.answer("one")).status == 200
        call = await gateway.call()
        assert (call.replica, call.gpu, call.gpus) == ("before", "h100", 2)
        assert call.feasibility_gpu == "h100"


async def test_class_that_does_not_exist_is_the_callers_mistake(tmp_path: Path) -> None:
    async with house(tmp_path, [GatedEngine()], 1) as (_, callers):
        await callers.send("odd", "vip")
        answer = await callers.answer("odd")
        assert answer.status == 400
        assert "reviewer, interactive, batch, load_test" in answer.json()["error"]["message"]


# --- sessions -----------------------------------------------------------------------------------------------


async def replica_of(gateway: RunningGateway, session: str) -> str | None:
    async with RawClient(gateway.url) as client:
        answer = await client.request("POST", CHAT, body=ASK, headers=[("x-session-id", session)])
    assert answer.status == 200
    return answer.header("x-simsa-replica")


async def test_session_stays_on_its_replica_while_it_is_there_and_has_room(tmp_path: Path) -> None:
    engines = [ScriptedEngine() for _ in range(3)]
    async with house(tmp_path, engines, 1, health_interval_s=60) as (gateway, _):
        homes = {f"s{number}": await replica_of(gateway, f"s{number}") for number in range(40)}
        assert set(homes.values()) == {"m/1", "m/2", "m/3"}, "sessions are shared out"
        assert {session: await replica_of(gateway, session) for session in homes} == homes

        home = homes["s0"]
        engine = engines[int((home or "")[-1]) - 1]
        gate = asyncio.Event()
        engine.script(CHAT, Reply.json(chat_answer("a", usage=usage_body(3, 1))).gated(gate), engine.usual)
        busy = asyncio.create_task(replica_of(gateway, "s0"))
        await engine.until(lambda: engine.running == 1)
        elsewhere = await replica_of(gateway, "s0")
        assert elsewhere != home, "full"
        gate.set()
        assert await busy == home
        assert await replica_of(gateway, "s0") == home

        await engine.kill()
        assert await replica_of(gateway, "s0") == elsewhere, "down: the same second choice"
        others = {session: where for session, where in homes.items() if where != home}
        assert {session: await replica_of(gateway, session) for session in others} == others
        await engine.start()


async def test_session_is_not_sent_upstream(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with house(tmp_path, [engine], 1) as (gateway, _):
        await replica_of(gateway, "private")
        assert engine.requests_to(CHAT)[0].header("x-session-id") is None


# --- gauges -------------------------------------------------------------------------------------------------


async def test_every_gauge_is_zero_after_any_mix_under_pressure(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    fields = {"timeouts": {"first_token_s": 0.2, "total_s": 0.3}}
    settings = {"queue_max_waiting": 6, "queue_wait_s": 0.1, "breaker_faults": 4, "breaker_rest_s": 0.02}
    async with house(tmp_path, [engine], 2, fields=fields, **settings) as (gateway, _):
        replies = [
            Reply.hang(),
            Reply.stream(chat_chunk("a"), END),
            Reply.stream(chat_chunk("a"), CLOSE),
            Reply.json({}, status=500),
            Reply.json({}, status=503, headers=[("retry-after", "0")]),
            Reply.raw(b"junk\r\n\r\n"),
            Reply.stream(b"data: {garbage\n\n"),
        ]

        async def one(number: int) -> None:
            headers = [("x-simsa-priority", list(Priority)[number % 4].value)]
            async with RawClient(gateway.url) as client:
                await client.send("POST", CHAT, body={**ASK, "stream": number % 2 == 0}, headers=headers)
                if number % 5 == 3:
                    client.leave()
                else:
                    await client.head()
                    answers.append(await client.rest())

        answers: list[bytes] = []
        for _ in range(2):
            for reply in replies:
                engine.script(CHAT, reply)
                await asyncio.gather(*(one(number) for number in range(16)))
        await gateway.until(lambda: not gateway.services.dispatcher.in_flight)
        for code in (b"queue_full", b"no_replica", b"upstream_error", b"upstream_truncated", b"[DONE]"):
            assert any(code in answer for answer in answers), code
        assert [state.in_flight for state in gateway.services.fleet.states_of("m")] == [0]
        lines = gateway.services.telemetry.render().decode().splitlines()
        gauges = [line for line in lines if line.startswith(("simsa_queue_depth{", "simsa_inflight_requests{"))]
        assert len(gauges) == 5
        assert all(line.endswith(" 0.0") for line in gauges), gauges
        engine.script(CHAT)
        await gateway.until_live("m")
        await gateway.until(
            lambda: not gateway.services.fleet.states_of("m")[0].breaker.until_s > gateway.services.now()
        )
        async with RawClient(gateway.url) as client:
            assert (await client.request("POST", CHAT, body=ASK)).status == 200, "and it works again"
