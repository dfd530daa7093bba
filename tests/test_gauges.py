"""After any mix of endings nothing is counted, held or running any more: calls, places, reservations, queues, tasks."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clients import RawClient, Truncated
from dialect_shapes import BLOCK_STOP, MESSAGE_STOP, block_delta, block_start, message_delta, message_start
from engines import CLOSE, RESET, Reply, Request, ScriptedEngine, chat_chunk, error_event
from gateways import RunningGateway, entry, running_gateway
from keyed_load import Bearer, make_bearers

from gateway.active_call import ActiveCall
from gateway.approach import Approach
from gateway.domain.records import Call, CallStatus

ADMIN = "the-admin-of-this-gate"
CHAT, MESSAGES, EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
COMPARISONS, BATCHES = "/api/comparisons", "/api/comparisons/batches"
SAID = [{"role": "user", "content": "안녕하세요"}]
LIMITS = {
    "concurrent": 3,
    "tokens_per_min": 10**6,
    "budgets": [{"period": "day", "unit": "tokens", "amount": "1e9"}],
}
GAUGES = ("simsa_inflight_requests{", "simsa_queue_depth{", "simsa_recorder_queued ")
MESSAGE_STREAM = (
    *(message_start(), block_start(), block_delta("a")),
    *(BLOCK_STOP, message_delta(), MESSAGE_STOP),
)

PROVOKED = {"queue_full", "upstream_error", "upstream_truncated", "upstream_timeout"}
"""What the mix must have come to; on a slow machine that takes more waves."""
LEAST_WAVES, MOST_WAVES = 4, 16


class Fickle(ScriptedEngine):
    """Answers well or fails in one of many ways, by the dice."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(["a", "b"])
        self._dice = dice
        for path in (CHAT, MESSAGES, EMBEDDINGS):
            self.script(path, self._reply)

    def _reply(self, request: Request) -> Reply:
        usual = Reply.stream(*MESSAGE_STREAM) if request.path == MESSAGES else self.usual(request)
        odd = (
            Reply.hang(),
            Reply.hang_after_head(),
            Reply.raw(CLOSE),
            Reply.raw(RESET),
            Reply.raw(b"junk\r\n\r\n"),
            Reply.json({"error": {"message": "no"}}, status=400),
            Reply.json({}, status=500),
            Reply.json({}, status=429),
            Reply.json({}, status=503, headers=[("retry-after", "0")]),
            Reply.text("<html>It works!</html>"),
            Reply.stream(chat_chunk("a"), CLOSE),
            Reply.stream(chat_chunk("a"), asyncio.Event()),
            Reply.stream(chat_chunk("a"), error_event("no")),
            Reply.stream(b"data: {garbage\n\n"),
        )
        return usual if self._dice.random() < 0.4 else self._dice.choice(odd)


class Crowd:
    """Callers who ask for everything there is and leave in every way, by the dice."""

    def __init__(self, gateway: RunningGateway, bearers: list[Bearer], dice: random.Random) -> None:
        self._gateway = gateway
        self._bearers = bearers
        self._dice = dice
        self.heard: Counter[str] = Counter()

    async def visit(self) -> None:
        dice = self._dice
        path, body = self._wish()
        headers = [("x-simsa-priority", dice.choice(("interactive", "batch", "load_test")))]
        manner = dice.choice(("stay", "stay", "stay", "leave", "reset", "half_close", "leave later", "reset later"))
        async with RawClient(self._gateway.url, key=dice.choice(self._bearers).secret) as client:
            await client.send("POST", path, body=body, headers=headers)
            try:
                if manner in ("stay", "leave later", "reset later"):
                    head = await client.head()
                    self.heard[f"{path} {head.status}"] += 1
                match manner:
                    case "stay":
                        await client.rest()
                    case "half_close":
                        await client.half_close()
                    case _:
                        getattr(client, manner.split()[0])()
            except (Truncated, ConnectionError):
                self.heard["cut"] += 1

    def _wish(self) -> tuple[str, Any]:
        model, streamed = self._dice.choice("ab"), self._dice.random() < 0.6
        match self._dice.randrange(8):
            case 0:
                return MESSAGES, {"model": model, "messages": SAID, "max_tokens": 8, "stream": True}
            case 1:
                return EMBEDDINGS, {"model": model, "input": ["안녕"]}
            case 2 | 3:
                schedule = self._dice.choice(("sequential", "concurrent"))
                question = {"models": ["a", "b"], "prompt": "안녕", "params": {"max_tokens": 8}}
                return COMPARISONS, {**question, "schedule": schedule, "stream": streamed}
            case _:
                return CHAT, {"model": model, "messages": SAID, "max_tokens": 8, "stream": streamed}


def not_zero(metrics: str) -> list[str]:
    """Every gauge of work under way that is not 0."""
    return [line for line in metrics.splitlines() if line.startswith(GAUGES) and not line.endswith(" 0.0")]


def work_under_way() -> Counter[str]:
    """Tasks of this loop by what they do, but for the test's own and for connections of engines that are kept."""
    tasks = (task.get_coro().__qualname__ for task in asyncio.all_tasks() if task is not asyncio.current_task())
    return Counter(name for name in tasks if "Connection" not in name and "_reply" not in name)


async def accounts_of(client: RawClient, bearers: Iterable[Bearer]) -> dict[str, tuple[int, str, int]]:
    """Of each key: calls in flight, tokens held, tokens spent today."""
    keys = {key["id"]: key for key in (await client.request("GET", "/api/admin/keys")).json()["data"]}
    budgets = {bearer.key: keys[bearer.key]["limits"]["budgets"][0] for bearer in bearers}
    return {key: (keys[key]["in_flight"], found["reserved"], int(found["spent"])) for key, found in budgets.items()}


async def codes_in(gateway: RunningGateway) -> set[str | None]:
    """The error codes of the calls that have ended and are written."""
    await gateway.until(lambda: gateway.services.recorder.stats().queued == 0)
    return {
        call.error_code for call in await gateway.services.store.list_calls(limit=100_000) if isinstance(call, Call)
    }


async def test_nothing_is_counted_held_or_running_after_any_mix_of_calls_comparisons_and_batches(
    tmp_path: Path,
) -> None:
    dice = random.Random(20261124)
    quick = {"timeouts": {"first_token_s": 0.2, "idle_s": 0.2, "total_s": 0.4}}
    settings = {"queue_max_waiting": 5, "queue_wait_s": 0.1, "breaker_faults": 6, "breaker_rest_s": 0.02}
    settings |= {"batch_attempts": 2, "batch_retry_s": 0.01}
    async with Fickle(dice) as one, Fickle(dice) as two:
        models = [entry("a", **quick), entry("b", **quick)]
        for model in models:
            model["replicas"] = [{"url": engine.url, "max_in_flight": 2} for engine in (one, two)]
        async with (
            running_gateway(tmp_path, models, admin_key=ADMIN, **settings) as gateway,
            RawClient(gateway.url, key=ADMIN) as admin,
        ):
            await gateway.until_live("a", "b", replicas=2)
            bearers = await make_bearers(gateway.url, ADMIN, ("naru", "dure"), limits=LIMITS)
            crowd = Crowd(gateway, bearers, dice)
            await gateway.until(lambda: not any("run_asgi" in name for name in work_under_way()))  # of making the keys
            before = work_under_way()
            batches = []
            for wave in range(MOST_WAVES):
                bearer = bearers[wave % 2]
                prompts = [{"id": f"p{number}", "prompt": "안녕"} for number in range(40)]
                async with RawClient(gateway.url, key=bearer.secret) as client:
                    order = {"models": ["a", "b"], "prompts": prompts, "name": f"wave {wave}"}
                    batches.append((await client.request("POST", BATCHES, body=order)).json()["id"])
                    await asyncio.gather(*(crowd.visit() for _ in range(32)))
                    cancelled = await client.request("DELETE", f"{BATCHES}/{batches[-1]}")
                    assert cancelled.status == 200
                if wave + 1 >= LEAST_WAVES and await codes_in(gateway) >= PROVOKED:
                    break
            await gateway.until(lambda: not gateway.services.dispatcher.in_flight)
            await gateway.until(lambda: gateway.services.recorder.stats().queued == 0)
            async with RawClient(gateway.url) as client:
                assert not not_zero((await client.request("GET", "/metrics")).body.decode())
            await gateway.until(lambda: not one.answering and not two.answering)
            states = [state for model in ("a", "b") for state in gateway.services.fleet.states_of(model)]
            assert [state.in_flight for state in states] == [0] * 4
            await gateway.until(lambda: work_under_way() == before)
            accounts = await accounts_of(admin, bearers)
            assert {(in_flight, held) for in_flight, held, _ in accounts.values()} == {(0, "0")}
            kept = await gateway.services.store.list_calls(limit=100_000)
            calls = [call for call in kept if isinstance(call, Call)]
            charged: Counter[str | None] = Counter()
            for call in calls:
                charged[call.opened.key] += call.charged_tokens or 0
            assert {key: spent for key, (_, _, spent) in accounts.items()} == charged
            statuses = {call.status for call in calls}
            codes = {call.error_code for call in calls}
            assert {CallStatus.OK, CallStatus.ERROR, CallStatus.TRUNCATED, CallStatus.CANCELLED} <= statuses
            assert codes >= PROVOKED
            assert any(what.endswith(" 429") for what in crowd.heard), "limits of keys were met, too"
            assert not await gateway.services.store.list_orphans()


async def test_calls_leave_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    """Parts of a call that hold each other keep its memory until a collection, which then costs every later call."""
    asked = [
        ("/v1/chat/completions", {"model": "a", "messages": SAID, "max_tokens": 8}),
        ("/v1/chat/completions", {"model": "a", "messages": SAID, "max_tokens": 8, "stream": True}),
        ("/v1/completions", {"model": "a", "prompt": "안녕", "max_tokens": 8, "stream": True}),
        (EMBEDDINGS, {"model": "nobody", "input": "안녕"}),
    ]
    async with (
        ScriptedEngine(["a"]) as engine,
        running_gateway(tmp_path, [entry("a", engine.url)], admin_key=ADMIN) as gateway,
    ):
        await gateway.until_live("a")
        (bearer,) = await make_bearers(gateway.url, ADMIN, {"one": LIMITS})
        gc.collect()
        gc.disable()
        try:
            async with RawClient(gateway.url, key=bearer.secret) as client:
                for path, body in asked * 3:
                    await client.request("POST", path, body=body)
            await gateway.calls(9)
            left = Counter(
                type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, ActiveCall | Approach)
            )
        finally:
            gc.enable()
    assert left == Counter()
