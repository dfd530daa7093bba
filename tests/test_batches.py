"""Batches over real sockets and a real database: progress, restarts, repeats, cancelling, what they say."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from databases import ScratchDatabase, ScratchSqlite
from engines import DONE, Reply, ScriptedEngine, chat_chunk
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S
from processes_under_test import gateway_process

from gateway.batch_store import Batch, BatchStore, ItemEnd, ItemStatus
from gateway.domain.accounts import TOKENS, Budget, Limits, Period, Terms
from gateway.errors import Unavailable
from gateway.store import Comparison, Store

CHAT = "/v1/chat/completions"
BATCHES = "/api/comparisons/batches"
PROMPTS = [{"id": f"p{n}", "prompt": f"질문 {n}"} for n in range(1, 5)]


@dataclass
class Bench:
    gateway: RunningGateway
    a: ScriptedEngine
    b: ScriptedEngine
    client: RawClient

    async def order(self, *, status: int = 201, **fields: Any) -> Any:
        body = {"models": ["a", "b"], "prompts": PROMPTS, "params": {"max_tokens": 3}, **fields}
        answer = await self.client.request("POST", BATCHES, body=body)
        assert answer.status == status, answer.body
        return answer.json()

    async def get(self, path: str) -> Any:
        answer = await self.client.request("GET", f"{BATCHES}/{path}")
        assert answer.status == 200, answer.body
        return answer.json()

    async def until_over(self, batch_id: str) -> Any:
        """The batch once it no longer runs."""
        async with asyncio.timeout(HANG_S):
            while (found := await self.get(batch_id))["status"] == "running":
                await asyncio.sleep(0.01)
        return found

    async def export(self, batch_id: str, kind: str) -> str:
        answer = await self.client.request("GET", f"{BATCHES}/{batch_id}/export?format={kind}")
        assert answer.status == 200
        return str(answer.body.decode("utf-8-sig"))


@asynccontextmanager
async def bench(directory: Path, **settings: Any) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(ScriptedEngine(["a"]))
        b = await stack.enter_async_context(ScriptedEngine(["b"]))
        async with at(directory, a, b, **settings) as it:
            yield it


@asynccontextmanager
async def at(directory: Path, a: ScriptedEngine, b: ScriptedEngine, **settings: Any) -> AsyncIterator[Bench]:
    """A gateway over the directory's database, in front of engines that outlive it."""
    models = [
        entry("a", replicas=[{"url": a.url, "host": "node-a"}]),
        entry("b", replicas=[{"url": b.url, "host": "node-b"}]),
    ]
    async with (
        running_gateway(directory, models, **{"batch_retry_s": 0.01, **settings}) as gateway,
        RawClient(gateway.url) as client,
    ):
        await gateway.until_live("a", "b")
        yield Bench(gateway, a, b, client)


def questions(engine: ScriptedEngine) -> list[str]:
    return [request.json()["messages"][0]["content"] for request in engine.requests_to(CHAT)]


# --- from order to end --------------------------------------------------------------------------------------


async def test_every_prompt_is_asked_of_every_model_as_often_as_ordered_and_each_is_kept(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        batch = await it.order(repeats=2, name="첫 묶음")
        assert (batch["status"], batch["prompts"], batch["items"]["total"]) == ("running", 4, 8)
        over = await it.until_over(batch["id"])
        assert (over["status"], over["name"]) == ("done", "첫 묶음")
        assert over["items"] == {"total": 8, "done": 8, "failed": 0, "pending": 0}
        assert over["ended_at"] is not None
        assert questions(it.a) == questions(it.b) == [prompt["prompt"] for prompt in PROMPTS] * 2
        assert len(await it.gateway.services.store.list_comparisons()) == 8
        assert (await it.client.request("GET", BATCHES)).json()["data"] == [over]


async def test_comparisons_of_a_batch_come_one_after_the_other_and_each_model_is_first_in_turn(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        batch = await it.order(repeats=2, schedule="sequential")
        await it.until_over(batch["id"])
        kept = (await it.gateway.services.store.list_comparisons())[::-1]
        firsts = [comparison.sides[0].model for comparison in kept]
        assert firsts[:4].count("a") == 2
        assert firsts[4:] == ["b" if first == "a" else "a" for first in firsts[:4]], "a repeat starts with the other"
        calls = sorted(await it.gateway.calls(16), key=lambda call: call.opened.started_at)
        for before, after in pairwise(calls):
            assert before.ended_at <= after.opened.started_at


async def test_prompts_may_bring_messages_and_a_length_of_their_own(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        messages = [{"role": "system", "content": "짧게."}, {"role": "user", "content": "안녕"}]
        batch = await it.order(prompts=[{"messages": messages, "max_tokens": 2}, {"prompt": "둘"}])
        await it.until_over(batch["id"])
        first, second = (request.json() for request in it.a.requests_to(CHAT))
        assert (first["messages"], first["max_tokens"], second["max_tokens"]) == (messages, 2, 3)


async def test_the_shipped_set_needs_no_prompts(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        batch = await it.order(prompts=None, set="core-1", language="en")
        assert batch["prompts"] > 20
        answer = await it.client.request("DELETE", f"{BATCHES}/{batch['id']}")
        assert answer.json()["status"] == "cancelled"


# --- restarts and names -------------------------------------------------------------------------------------


async def test_a_restart_goes_on_where_it_was_and_asks_nothing_twice(tmp_path: Path) -> None:
    async with ScriptedEngine(["a"]) as a, ScriptedEngine(["b"]) as b:
        async with at(tmp_path, a, b) as it:
            b.script(CHAT, b.usual, b.usual, Reply.hang())
            batch = await it.order()
            await b.received(CHAT, 3)
        b.script(CHAT)
        async with at(tmp_path, a, b) as it:
            over = await it.until_over(batch["id"])
            assert over["items"] == {"total": 4, "done": 4, "failed": 0, "pending": 0}
        asked = ["질문 1", "질문 2", "질문 3", "질문 3", "질문 4"]
        assert questions(b) == asked, "only the one under way is asked again"


async def test_the_same_name_and_content_is_the_same_batch_and_another_content_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        batch = await it.order(name="하나")
        await it.until_over(batch["id"])
        again = await it.order(name="하나", status=200)
        assert (again["id"], again["status"]) == (batch["id"], "done")
        refused = await it.order(name="하나", repeats=2, status=409)
        assert (refused["error"]["code"], refused["error"]["param"]) == ("conflict", "name")
        assert len(questions(it.a)) == 4


async def test_a_cancelled_batch_stops_at_once_keeps_what_it_has_and_can_be_taken_up(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.b.script(CHAT, it.b.usual, Reply.hang(), it.b.usual)
        batch = await it.order(name="둘")
        hanging = await it.b.received(CHAT, 2)
        stopped = (await it.client.request("DELETE", f"{BATCHES}/{batch['id']}")).json()
        assert (stopped["status"], stopped["items"]["pending"]) == ("cancelled", 3)
        await hanging.closed_by_peer.wait()
        assert it.gateway.services.dispatcher.in_flight == set()
        again = await it.order(name="둘", status=200)
        assert (again["id"], again["status"]) == (batch["id"], "running")
        assert (await it.until_over(batch["id"]))["items"]["done"] == 4


async def test_while_the_gateway_stops_nothing_begins_and_what_was_cut_is_asked_by_the_next(tmp_path: Path) -> None:
    async with ScriptedEngine(["a"]) as a, ScriptedEngine(["b"]) as b:
        async with at(tmp_path, a, b) as it:
            b.script(CHAT, Reply.hang())
            batch = await it.order()
            await b.received(CHAT)
            it.gateway.app.begin_draining()
            it.gateway.services.dispatcher.abort_all("The gateway is shutting down.")
            await it.gateway.services.dispatcher.until_idle()
            (item, *_) = await it.gateway.services.batches.store.items(batch["id"])
            assert (item.status.value, item.attempts) == ("pending", 0)
            refused = await it.order(status=503)
            assert refused["error"]["code"] == "draining"
        b.script(CHAT)
        async with at(tmp_path, a, b) as it:
            assert (await it.until_over(batch["id"]))["items"]["done"] == 4


async def test_a_killed_gateway_loses_no_answer_of_a_batch(tmp_path: Path) -> None:
    async with ScriptedEngine(["a"]) as a, ScriptedEngine(["b"]) as b:
        models = [entry("a", a.url), entry("b", b.url)]
        b.script(CHAT, b.usual, b.usual, Reply.hang())
        async with gateway_process(tmp_path, models) as gateway, RawClient(gateway.url) as client:
            body = {"models": ["a", "b"], "prompts": PROMPTS, "schedule": "concurrent"}
            batch = (await client.request("POST", BATCHES, body=body)).json()
            await b.received(CHAT, 3)
            await gateway.kill()
        b.script(CHAT)
        async with at(tmp_path, a, b) as it:
            over = await it.until_over(batch["id"])
            assert over["items"] == {"total": 4, "done": 4, "failed": 0, "pending": 0}
            assert questions(b) == ["질문 1", "질문 2", "질문 3", "질문 3", "질문 4"]


# --- a database that is away --------------------------------------------------------------------------------


class StumblingStore(BatchStore):
    """A database that is away for a moment when something is written."""

    def __init__(self, it: Bench, *, cancel: int = 0, keep: int = 0) -> None:
        super().__init__(it.gateway.services.store)
        self.cancel_fails, self.keep_fails = cancel, keep

    async def cancel(self, batch_id: str, ended_at: datetime, reason: str | None = None) -> bool:
        if self.cancel_fails:
            self.cancel_fails -= 1
            raise Unavailable("away", code="database_unavailable")
        return await super().cancel(batch_id, ended_at, reason)

    async def keep(self, comparison: Comparison, end: ItemEnd | None) -> None:
        """The last failure comes after everything was written: a commit whose answer was lost."""
        if self.keep_fails == 1:
            await super().keep(comparison, end)
        if self.keep_fails:
            self.keep_fails -= 1
            raise Unavailable("away", code="database_unavailable")
        await super().keep(comparison, end)


async def test_cancelling_that_the_database_did_not_take_leaves_the_batch_running_and_the_others_too(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, database_statement_timeout_s=0.2) as it:
        gate = asyncio.Event()
        it.b.script(CHAT, Reply.stream(gate, chat_chunk("하나", finish_reason="stop"), DONE))
        batch = await it.order()
        await it.b.received(CHAT, 1)
        async with ScratchSqlite(tmp_path / "data" / "simsa.db").locked():
            answer = await it.client.request("DELETE", f"{BATCHES}/{batch['id']}")
            assert answer.status == 503
        it.b.script(CHAT)
        gate.set()
        other = await it.order(prompts=PROMPTS[:1], name="other")
        assert (await it.until_over(batch["id"]))["items"]["done"] == 4
        assert (await it.until_over(other["id"]))["items"]["done"] == 1


async def test_a_batch_being_cancelled_while_the_database_stands_still_is_not_looked_at_again_and_again(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as it:
        it.b.script(CHAT, Reply.hang())
        batches = it.gateway.services.batches
        batch = await it.order()
        await it.b.received(CHAT, 1)
        batches._being_cancelled.add(batch["id"])
        batches.store = counted = CountingStore(it.gateway.services.store)
        await it.b.kill()
        await it.gateway.until(lambda: counted.looks)
        for _ in range(50):
            await asyncio.sleep(0)
        assert counted.looks <= 2, "once after the comparison, and then it rests"


class CountingStore(BatchStore):
    """Counts how often somebody looks for what is to be asked."""

    looks = 0

    async def waiting(self, *, besides: Collection[str] = ()) -> list[Batch]:
        self.looks += 1
        return await super().waiting(besides=besides)


async def test_reason_of_the_gateways_own_cancelling_survives_a_database_that_is_away(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, caller_of(it, "one") as one:
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(gate, chat_chunk("하나", finish_reason="stop"), DONE))
        batch = await one.order(schedule="sequential")
        await it.a.received(CHAT)
        (made,) = await it.gateway.services.accounts.list_keys("one")
        await it.gateway.services.keys.revoke_key(made.id)
        it.gateway.services.batches.store = StumblingStore(it, cancel=1)
        gate.set()
        over = await it.until_over(batch["id"])
        assert over["status"] == "cancelled"
        assert "revoked" in over["reason"]


async def test_answers_wait_for_the_database_and_are_kept_and_paid_for_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.gateway.services.batches.store = StumblingStore(it, keep=2)
        batch = await it.order(prompts=PROMPTS[:2])
        assert (await it.until_over(batch["id"]))["items"]["done"] == 2
        assert questions(it.a) == questions(it.b) == ["질문 1", "질문 2"]
        kept = await it.gateway.services.store.list_comparisons()
        assert [(one.batch_id, one.batch_item) for one in kept] == [(batch["id"], 1), (batch["id"], 0)]


# --- failures -----------------------------------------------------------------------------------------------


async def test_nothing_is_asked_while_an_engine_is_away_and_nothing_counts_against_it(tmp_path: Path) -> None:
    async with bench(tmp_path, batch_attempts=1) as it:
        await it.b.kill()
        await it.gateway.until(lambda: not it.gateway.services.fleet.live("b"))
        batch = await it.order()
        await it.gateway.until(lambda: it.gateway.services.batches.waiting_for(batch["id"]))
        assert "'b'" in it.gateway.services.batches.waiting_for(batch["id"])
        assert questions(it.a) == [], "one side that answers would be paid for in vain"
        await it.b.start()
        over = await it.until_over(batch["id"])
        assert (over["items"]["done"], over["waiting_for"]) == (4, None)
        statistics = await it.get(f"{batch['id']}/statistics")
        assert [(model["answered"], model["asked_again"]) for model in statistics["models"]] == [(4, 0), (4, 0)]


@pytest.mark.parametrize("by_name", [False, True])
async def test_what_failed_by_something_that_passes_is_asked_once_more_when_the_batch_is_resumed(
    tmp_path: Path, database: ScratchDatabase, by_name: bool
) -> None:
    async with bench(tmp_path, batch_attempts=1, database_url=database.url) as it:
        busy = Reply.json({"error": {"message": "slow down"}}, status=429)
        wrong = Reply.json({"error": {"message": "no"}}, status=400)
        it.b.script(CHAT, busy, wrong, it.b.usual)
        order: dict[str, Any] = {"name": "하나", "prompts": PROMPTS[:3]}
        batch = await it.order(**order)
        await it.until_over(batch["id"])
        if by_name:
            again = await it.order(status=200, **order)
        else:
            again = (await it.client.request("POST", f"{BATCHES}/{batch['id']}/resume")).json()
        assert (again["status"], again["items"]["pending"]) == ("running", 1), "what was wrong stays wrong"
        await it.until_over(batch["id"])
        assert sorted(questions(it.b)) == ["질문 1", "질문 1", "질문 2", "질문 3"]
        statistics = await it.get(f"{batch['id']}/statistics")
        assert [(model["asked"], model["answered"], model["asked_again"]) for model in statistics["models"]] == [
            (3, 3, 1),
            (3, 2, 1),
        ]
        settled = await it.order(status=200, **order)
        assert settled["status"] == "done"


async def test_comparisons_of_a_batch_say_so_also_those_that_were_asked_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.b.script(CHAT, Reply.json({"error": {"message": "slow down"}}, status=429), it.b.usual)
        batch = await it.order(prompts=PROMPTS[:1])
        await it.until_over(batch["id"])
        await it.client.request("POST", "/api/comparisons", body={"models": ["a", "b"], "prompt": "x"})
        listed = (await it.client.request("GET", "/api/comparisons")).json()["data"]
        place = {"id": batch["id"], "item": 0}
        assert [comparison["batch"] for comparison in listed] == [None, place, place]
        table = (await it.client.request("GET", "/api/comparisons/export?format=csv")).body.decode("utf-8-sig")
        cells = {(row["batch_id"], row["batch_item"]) for row in csv.DictReader(io.StringIO(table))}
        assert cells == {("", ""), (batch["id"], "0")}


async def test_spent_is_all_that_was_paid_for_also_for_what_was_asked_again(tmp_path: Path) -> None:
    price = {"currency": "USD", "input_per_mtok": 1, "output_per_mtok": 1, "date": "2026-11-01"}
    async with ScriptedEngine(["a"]) as a, ScriptedEngine(["b"]) as b:
        models = [
            entry("a", a.url, price={**price, "source": "x", "confidence": "high"}, serving={"kind": "openai_api"}),
            entry("b", b.url),
        ]
        b.script(CHAT, Reply.json({"error": {"message": "slow down"}}, status=429), b.usual)
        async with running_gateway(tmp_path, models, batch_retry_s=0.01) as gateway, RawClient(gateway.url) as client:
            await gateway.until_live("a", "b")
            it = Bench(gateway, a, b, client)
            batch = await it.order(prompts=PROMPTS[:1])
            await it.until_over(batch["id"])
            costs = [call.cost.amount for call in await gateway.calls(4) if call.opened.model == "a"]
            assert len(costs) == 2
            first, _ = (await it.get(f"{batch['id']}/statistics"))["models"]
            assert Decimal(first["spent"]["USD"]) == sum(cost for cost in costs if cost is not None) > 0
            assert (first["asked"], first["asked_again"]) == (1, 1)


async def test_a_busy_engine_is_asked_again_and_its_refusals_do_not_count_against_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        busy = Reply.json({"error": {"message": "slow down"}}, status=429, headers=[("retry-after", "1")])
        it.b.script(CHAT, busy, busy, it.b.usual)
        batch = await it.order(prompts=PROMPTS[:1])
        await it.until_over(batch["id"])
        statistics = await it.get(f"{batch['id']}/statistics")
        assert [(model["asked"], model["answered"]) for model in statistics["models"]] == [(1, 1), (1, 1)]
        lines = [json.loads(line) for line in (await it.export(batch["id"], "jsonl")).splitlines()]
        assert lines[1]["attempts"] == 3


async def test_an_engine_that_stays_busy_fails_its_side_in_the_end_and_is_counted(tmp_path: Path) -> None:
    async with bench(tmp_path, batch_attempts=2) as it:
        it.b.script(CHAT, Reply.json({"error": {"message": "slow down"}}, status=429))
        batch = await it.order(prompts=PROMPTS[:1])
        assert (await it.until_over(batch["id"]))["items"]["done"] == 1
        _, second = (await it.get(f"{batch['id']}/statistics"))["models"]
        assert (second["answered"], second["failures"]) == (0, {"upstream_busy": 1})
        assert len(questions(it.b)) == 2


async def test_pause_that_ends_between_two_looks_at_the_clock_is_not_waited_for_without_end(tmp_path: Path) -> None:
    async with bench(tmp_path, batch_attempts=3, batch_retry_s=0.5) as it:
        it.b.script(CHAT, Reply.json({"error": {"message": "slow down"}}, status=429))
        ticks = count()
        it.gateway.services.batches._now = lambda: next(ticks) * 0.3
        batch = await it.order(prompts=PROMPTS[:1])
        assert (await it.until_over(batch["id"]))["items"]["done"] == 1
        assert len(questions(it.b)) == 3


async def test_batch_whose_model_goes_is_cancelled_with_the_reason_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.b.script(CHAT, Reply.hang())
        batch = await it.order(prompts=PROMPTS[:2])
        hanging = await it.b.received(CHAT)
        it.gateway.write_registry([entry("a", it.a.url)])
        await it.gateway.until(lambda: not it.gateway.services.fleet.states_of("b"))
        await it.b.kill()
        over = await it.until_over(batch["id"])
        assert hanging.answered.is_set() is False
        assert (over["status"], over["items"]["failed"]) == ("cancelled", 0)
        assert "'b'" in over["reason"]
        refused = await it.client.request("POST", f"{BATCHES}/{batch['id']}/resume")
        assert (refused.status, refused.json()["error"]["code"]) == (404, "model_not_found")
        await it.b.start()
        it.gateway.write_registry([entry("a", it.a.url), entry("b", it.b.url)])
        await it.gateway.until_live("b")
        it.b.script(CHAT, Reply.stream(chat_chunk("하나", finish_reason="stop"), DONE))
        assert (await it.client.request("POST", f"{BATCHES}/{batch['id']}/resume")).status == 200
        assert (await it.until_over(batch["id"]))["items"]["pending"] == 0


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"models": ["a", "nobody"]}, 404, "There is no model 'nobody'"),
        ({"models": ["a", "a"]}, 400, "name each model once"),
        ({"prompts": []}, 400, "prompts"),
        ({"prompts": [{"id": "x", "prompt": "1"}, {"id": "x", "prompt": "2"}]}, 400, "repeated: x"),
        ({"prompts": [{"prompt": "1", "messages": []}]}, 400, "messages"),
        ({"set": "core-1"}, 400, "either 'prompts' or 'set'"),
        ({"repeats": 0}, 400, "repeats"),
        ({"prompts": PROMPTS, "repeats": 1001}, 400, "repeats"),
        ({"params": {"temprature": 1}}, 400, "temprature"),
        ({"language": "ko"}, 400, "language"),
    ],
)
async def test_an_order_that_cannot_be_asked_is_refused_before_anything_is(
    tmp_path: Path, fields: dict[str, Any], status: int, told: str
) -> None:
    async with bench(tmp_path) as it:
        refused = await it.order(status=status, **fields)
        assert told in refused["error"]["message"]
        assert (await it.client.request("GET", BATCHES)).json() == {"data": []}
        assert questions(it.a) == []


async def test_a_batch_that_does_not_exist_is_404_everywhere(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        for method, path in (("GET", ""), ("GET", "/statistics"), ("GET", "/export"), ("DELETE", "")):
            answer = await it.client.request(method, f"{BATCHES}/nothing{path}")
            assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found")


# --- what it says -------------------------------------------------------------------------------------------


async def test_statistics_pair_the_prompts_and_leave_out_timings_that_are_not_comparable(tmp_path: Path) -> None:
    prompts = [{"id": f"p{n}", "prompt": f"질문 {n}"} for n in range(8)]
    async with bench(tmp_path) as it:
        it.b.tokens = 2
        batch = await it.order(prompts=prompts, schedule="sequential")
        await it.until_over(batch["id"])
        statistics = await it.get(f"{batch['id']}/statistics")
        (pair,) = statistics["pairs"]
        tokens = pair["metrics"]["completion_tokens"]
        assert (tokens["n"], tokens["difference"], tokens["ratio"], tokens["second_lower"]) == (8, 1, 1.5, 8)
        assert tokens["difference_interval"]["coverage"] >= 0.95
        assert tokens["p_value"] == pytest.approx(2 / 2**8)
        first, _ = statistics["models"]
        assert (first["provenance"], first["finish_reasons"]) == ("unknown", {"length": 8})
        assert first["metrics"]["ttft_s"]["n"] == 8
        assert first["spent"] == {}
        assert first["cost_unknown"] == 8


async def test_incomparable_timings_are_counted_by_their_reason_without_its_details(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        cached = {"prompt_tokens": 12, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}
        chunk = {"object": "chat.completion.chunk", "choices": [], "usage": cached}
        word = {"index": 0, "delta": {"content": "네"}, "finish_reason": "stop"}
        events = [{"object": "chat.completion.chunk", "choices": [word]}, chunk]
        written = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
        it.b.script(CHAT, Reply.stream(*written, b"data: [DONE]\n\n"))
        batch = await it.order()
        await it.until_over(batch["id"])
        (pair,) = (await it.get(f"{batch['id']}/statistics"))["pairs"]
        assert pair["metrics"]["ttft_s"]["excluded"] == {"caches were not equally warm": 4}
        assert pair["metrics"]["completion_tokens"]["n"] == 4


async def test_exports_hold_every_answer_and_the_statistics(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        batch = await it.order(repeats=2, name="=1+1")
        await it.until_over(batch["id"])
        lines = [json.loads(line) for line in (await it.export(batch["id"], "jsonl")).splitlines()]
        assert [line["type"] for line in lines] == ["batch", *["item"] * 8, "statistics"]
        assert [(line["prompt_id"], line["repeat"]) for line in lines[1:-1]] == [
            (f"p{n}", repeat) for repeat in (1, 2) for n in range(1, 5)
        ]
        assert lines[1]["comparison"]["sides"][0]["output"]["content"] == "word0 word1 word2 "
        assert lines[-1]["models"][0]["asked"] == 8
        rows = list(csv.DictReader(io.StringIO(await it.export(batch["id"], "csv"))))
        assert len(rows) == 16
        assert {row["batch"] for row in rows} == {"'=1+1"}, "no cell becomes a formula"
        figures = list(csv.DictReader(io.StringIO(await it.export(batch["id"], "statistics_csv"))))
        assert len(figures) == 3 * 6
        paired = next(row for row in figures if row["against"] == "b" and row["metric"] == "completion_tokens")
        assert (paired["model"], paired["n"], paired["difference"], paired["equal"]) == ("a", "4", "0.0", "4")


async def test_an_item_without_a_comparison_has_its_rows_in_the_table_too(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        batch = await it.order(prompts=PROMPTS[:2])
        await it.until_over(batch["id"])
        error = {"message": "It cannot be asked.", "type": "invalid_request_error", "code": "unsupported_field"}
        await it.gateway.services.batches.store.note(batch["id"], 1, ItemEnd(ItemStatus.FAILED, 1, error=error))
        rows = list(csv.DictReader(io.StringIO(await it.export(batch["id"], "csv"))))
        told = [(row["prompt_id"], row["model"], row["status"], row["error_code"]) for row in rows]
        assert sorted(told) == [
            ("p1", "a", "ok", ""),
            ("p1", "b", "ok", ""),
            ("p2", "a", "failed", "unsupported_field"),
            ("p2", "b", "failed", "unsupported_field"),
        ]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "statistics_csv"])
async def test_export_while_the_database_is_away_is_an_error_and_no_empty_file(tmp_path: Path, kind: str) -> None:
    async with bench(tmp_path) as it:
        batch = await it.order(prompts=PROMPTS[:1])
        await it.until_over(batch["id"])
        store = it.gateway.services.batches.store
        it.gateway.services.batches.store = OnlyBatches(it.gateway.services.store, await store.get(batch["id"]))
        async with ScratchSqlite(tmp_path / "data" / "simsa.db").gone():
            answer = await it.client.request("GET", f"{BATCHES}/{batch['id']}/export?format={kind}")
        assert (answer.status, answer.json()["error"]["code"]) == (503, "database_unavailable")


class OnlyBatches(BatchStore):
    """A database that goes away after the batch was looked up."""

    def __init__(self, store: Store, batch: Batch | None) -> None:
        super().__init__(store)
        self._batch = batch

    async def get(self, batch_id: str) -> Batch | None:
        return self._batch


class Witness(ThreadPoolExecutor):
    """A pool of threads that remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.seen.add(getattr(fn.args[0], "__name__", "") if isinstance(fn, partial) else fn.__name__)
        return super().submit(fn, *args, **kwargs)


async def test_figures_and_files_are_made_off_the_event_loop(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        batch = await it.order()
        await it.until_over(batch["id"])
        asyncio.get_running_loop().set_default_executor(witness := Witness())
        await it.get(f"{batch['id']}/statistics")
        assert {"_add", "summed_up"} <= witness.seen
        await it.export(batch["id"], "csv")
        await it.export(batch["id"], "jsonl")
        assert {"_item_rows", "_item_lines"} <= witness.seen


# --- whose it is --------------------------------------------------------------------------------------------


@asynccontextmanager
async def caller_of(it: Bench, organisation: str, terms: Terms = Terms()) -> AsyncIterator[Bench]:  # noqa: B008 - frozen
    """The same bench as a key of an organisation sees it."""
    async with RawClient(it.gateway.url, key=await it.gateway.key_of(organisation, terms)) as client:
        yield replace(it, client=client)


async def test_batch_is_its_organisations_alone_and_two_may_give_the_same_name(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, caller_of(it, "one") as one, caller_of(it, "two") as two:
        ours = await one.order(name="첫 묶음")
        theirs = await two.order(name="첫 묶음", repeats=2)
        assert ours["id"] != theirs["id"]
        for batch in (ours, theirs):
            await it.until_over(batch["id"])
        for method, path in (
            ("GET", ""),
            ("GET", "/statistics"),
            ("GET", "/export"),
            ("POST", "/resume"),
            ("DELETE", ""),
        ):
            answer = await two.client.request(method, f"{BATCHES}/{ours['id']}{path}")
            assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found"), (method, path)
        listed = (await two.client.request("GET", BATCHES)).json()["data"]
        assert [(batch["id"], batch["organisation"]) for batch in listed] == [(theirs["id"], "two")]
        assert len((await it.client.request("GET", BATCHES)).json()["data"]) == 2, "the operator sees all"
        assert len((await one.client.request("GET", "/api/comparisons")).json()["data"]) == 4


async def test_what_a_batch_asks_is_charged_to_its_key_in_the_class_of_batches(tmp_path: Path) -> None:
    async with bench(tmp_path, replica_max_in_flight=1) as it, caller_of(it, "one") as one:
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(gate, chat_chunk("하나", finish_reason="stop"), DONE))
        async with RawClient(it.gateway.url) as holding:
            await holding.send(
                "POST", CHAT, body={"model": "a", "messages": [{"role": "user", "content": "?"}], "stream": True}
            )
            await it.a.received(CHAT)
            batch = await one.order(prompts=PROMPTS[:1], schedule="sequential")
            depth = it.gateway.services.telemetry.queue_depth
            await it.gateway.until(lambda: depth.at("a", "batch").value == 1)
            gate.set()
            await holding.rest()
        await it.until_over(batch["id"])
        calls = [call for call in await it.gateway.calls(3) if call.opened.comparison_id is not None]
        (key,) = {call.opened.key for call in calls}
        assert key is not None
        assert {call.opened.organisation for call in calls} == {"one"}
        assert all(call.charged_tokens for call in calls)


async def test_batch_of_a_key_that_ends_is_cancelled_and_goes_on_with_another(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, caller_of(it, "one") as one:
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(gate, chat_chunk("하나", finish_reason="stop"), DONE))
        batch = await one.order(schedule="sequential")
        await it.a.received(CHAT)
        keys = it.gateway.services.keys
        (made,) = await it.gateway.services.accounts.list_keys("one")
        await keys.revoke_key(made.id)
        gate.set()
        over = await it.until_over(batch["id"])
        assert (over["status"], over["items"]["done"]) == ("cancelled", 1)
        assert "revoked" in over["reason"]
        _, secret = await keys.create_key("one", "another", Terms(), None)
        async with RawClient(it.gateway.url, key=secret) as client:
            resumed = await client.request("POST", f"{BATCHES}/{batch['id']}/resume")
            assert (resumed.status, resumed.json()["reason"]) == (200, None)
        assert (await it.until_over(batch["id"]))["items"]["done"] == 4


async def test_batch_over_its_keys_budget_is_cancelled_with_the_reason_and_asks_nothing_more(
    tmp_path: Path,
) -> None:
    budget = Budget(Period.DAY, TOKENS, Decimal(1))
    async with bench(tmp_path) as it, caller_of(it, "one", Terms(limits=Limits(budgets=(budget,)))) as one:
        over = await one.until_over((await one.order())["id"])
        assert (over["status"], over["items"]["pending"]) == ("cancelled", 4)
        assert "budget" in over["reason"]
        assert not questions(it.a) + questions(it.b)


async def test_batch_over_its_keys_minute_waits_for_the_next_one(tmp_path: Path) -> None:
    moments = [0.0]
    async with bench(tmp_path) as it, caller_of(it, "one", Terms(limits=Limits(requests_per_min=3))) as one:
        it.gateway.services.dispatcher.limiter.books._now = lambda: moments[0]
        batches = it.gateway.services.batches
        batch = await one.order(prompts=PROMPTS[:2])
        await it.gateway.until(lambda: batches.waiting_for(batch["id"]))
        assert (await one.get(batch["id"]))["items"] == {"total": 2, "done": 1, "failed": 0, "pending": 1}
        moments[0] += 61
        batches._pauses.clear()
        batches._wake.set()
        assert (await one.until_over(batch["id"]))["items"]["done"] == 2
        kept = await it.gateway.services.store.list_comparisons()
        assert [side.status for side in kept[0].sides] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("limits", "schedule", "told"),
    [
        (Limits(tokens_per_min=10), "sequential", "whole limit of 10 a minute"),
        (Limits(requests_per_min=1), "sequential", "1 a minute"),
        (Limits(concurrent=1), "concurrent", "1 at a time"),
    ],
)
async def test_batch_that_its_keys_limits_can_never_take_is_cancelled_with_the_reason_and_costs_nothing(
    tmp_path: Path, limits: Limits, schedule: str, told: str
) -> None:
    async with bench(tmp_path) as it, caller_of(it, "one", Terms(limits=limits)) as one:
        over = await one.until_over((await one.order(schedule=schedule))["id"])
        assert (over["status"], over["items"]["pending"]) == ("cancelled", 4)
        assert told in over["reason"]
        assert not questions(it.a) + questions(it.b)


async def test_budget_that_takes_one_side_and_not_both_takes_none(tmp_path: Path) -> None:
    budget = Budget(Period.DAY, TOKENS, Decimal(90))
    async with bench(tmp_path) as it, caller_of(it, "one", Terms(limits=Limits(budgets=(budget,)))) as one:
        over = await one.until_over((await one.order(params={"max_tokens": 3}))["id"])
        assert over["status"] == "cancelled"
        assert "90 left, and this request may take" in over["reason"]
        assert not questions(it.a) + questions(it.b)


async def test_batch_waits_while_its_key_has_as_many_calls_as_it_may_have(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        secret = await it.gateway.key_of("one", Terms(limits=Limits(concurrent=1)))
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(gate, chat_chunk("하나", finish_reason="stop"), DONE))
        asked = {"model": "a", "messages": [{"role": "user", "content": "?"}], "stream": True}
        async with RawClient(it.gateway.url, key=secret) as holding, RawClient(it.gateway.url, key=secret) as client:
            await holding.send("POST", CHAT, body=asked)
            await it.a.received(CHAT)
            one = replace(it, client=client)
            batch = await one.order(prompts=PROMPTS[:1], schedule="sequential")
            await it.gateway.until(lambda: it.gateway.services.batches.waiting_for(batch["id"]))
            assert "1 calls at a time" in (await one.get(batch["id"]))["waiting_for"]
            gate.set()
            await holding.rest()
            assert (await one.until_over(batch["id"]))["items"]["done"] == 1


async def test_operator_who_resumes_an_organisations_batch_leaves_it_its_key_and_its_comparisons(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as it, caller_of(it, "one") as one:
        it.b.script(CHAT, Reply.hang())
        batch = await one.order(prompts=PROMPTS[:1])
        await it.b.received(CHAT, 1)
        await one.client.request("DELETE", f"{BATCHES}/{batch['id']}")
        it.b.script(CHAT)
        assert (await it.client.request("POST", f"{BATCHES}/{batch['id']}/resume")).status == 200
        await it.until_over(batch["id"])
        line = json.loads((await one.export(batch["id"], "jsonl")).splitlines()[1])
        read = await one.client.request("GET", f"/api/comparisons/{line['comparison']['id']}")
        assert read.status == 200
        assert {call.opened.organisation for call in await it.gateway.calls(4)} == {"one"}


async def test_comparisons_are_the_organisations_also_where_its_key_has_ended(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, caller_of(it, "one") as one:
        it.b.script(CHAT, Reply.hang())
        batch = await one.order(prompts=PROMPTS[:1])
        await it.b.received(CHAT, 1)
        await one.client.request("DELETE", f"{BATCHES}/{batch['id']}")
        (made,) = await it.gateway.services.accounts.list_keys("one")
        await it.gateway.services.keys.revoke_key(made.id)
        it.b.script(CHAT)
        assert (await it.client.request("POST", f"{BATCHES}/{batch['id']}/resume")).status == 200
        await it.until_over(batch["id"])
        (kept,) = await it.gateway.services.store.list_comparisons()
        assert kept.organisation == "one"


async def test_batch_takes_the_class_that_its_order_asks_for_but_none_above_batches(tmp_path: Path) -> None:
    async with bench(tmp_path, replica_max_in_flight=1) as it, caller_of(it, "one") as one:
        body = {"models": ["a", "b"], "prompts": PROMPTS[:1], "schedule": "sequential"}
        answers = [
            await one.client.request("POST", BATCHES, body=body, headers=[("x-simsa-priority", priority)])
            for priority in ("nonsense", "reviewer")
        ]
        assert [answer.status for answer in answers] == [400, 403]
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(gate, chat_chunk("하나", finish_reason="stop"), DONE))
        async with RawClient(it.gateway.url) as holding:
            await holding.send(
                "POST", CHAT, body={"model": "a", "messages": [{"role": "user", "content": "?"}], "stream": True}
            )
            await it.a.received(CHAT)
            low = await one.client.request("POST", BATCHES, body=body, headers=[("x-simsa-priority", "load_test")])
            assert (low.status, low.json()["priority"]) == (201, "load_test")
            depth = it.gateway.services.telemetry.queue_depth
            await it.gateway.until(lambda: depth.at("a", "load_test").value == 1)
            gate.set()
            await holding.rest()
        await it.until_over(low.json()["id"])
        assert (await one.order(prompts=PROMPTS[:1]))["priority"] == "batch"


async def test_organisations_take_turns_however_long_the_batch_of_one_is(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, caller_of(it, "one") as one, caller_of(it, "two") as two:
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(gate, chat_chunk("하나", finish_reason="stop"), DONE))
        long = await one.order(repeats=5, schedule="sequential")
        await it.a.received(CHAT)
        short = await two.order(prompts=PROMPTS[:2], schedule="sequential")
        gate.set()
        await it.until_over(short["id"])
        await it.until_over(long["id"])
        kept = (await it.gateway.services.store.list_comparisons())[::-1]
        assert [comparison.organisation for comparison in kept[:5]] == ["one", "two", "one", "two", "one"]


async def test_narrower_key_of_the_organisation_cannot_resume_a_batch_nor_spoil_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, caller_of(it, "one") as one:
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(gate, chat_chunk("하나", finish_reason="stop"), DONE))
        batch = await one.order(name="첫 묶음", schedule="sequential")
        await it.a.received(CHAT)
        assert (await one.client.request("DELETE", f"{BATCHES}/{batch['id']}")).json()["status"] == "cancelled"
        gate.set()
        _, secret = await it.gateway.services.keys.create_key("one", "좁은", Terms(models=frozenset({"a"})), None)
        async with RawClient(it.gateway.url, key=secret) as client:
            narrow = replace(it, client=client)
            assert (await client.request("POST", f"{BATCHES}/{batch['id']}/resume")).status == 403
            assert (await narrow.order(status=403, name="첫 묶음", schedule="sequential"))["error"]["param"] == "model"
        assert (await one.get(batch["id"]))["items"]["failed"] == 0
        await one.client.request("POST", f"{BATCHES}/{batch['id']}/resume")
        assert (await one.until_over(batch["id"]))["items"]["done"] == 4


async def test_key_that_may_not_compare_orders_no_batch(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        for terms in (Terms(routes=frozenset({"chat_completions"})), Terms(models=frozenset({"a"}))):
            async with caller_of(it, f"org-{len(terms.models or ())}", terms) as caller:
                assert (await caller.order(status=403))["error"]["type"] == "permission_error"
