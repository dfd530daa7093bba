"""Batches over real sockets and a real database: progress, restarts, repeats, cancelling, what they say."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from engines import DONE, Reply, ScriptedEngine, chat_chunk
from gateways import RunningGateway, entry, running_gateway
from processes_under_test import gateway_process

from gateway.domain.accounts import TOKENS, Budget, Limits, Period, Terms

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
        async with asyncio.timeout(15):
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


# --- failures -----------------------------------------------------------------------------------------------


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
        it.gateway.services.dispatcher.limiter._now = lambda: moments[0]
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


async def test_organisations_take_turns_however_long_the_batch_of_one_is(tmp_path: Path) -> None:
    async with bench(tmp_path) as it, caller_of(it, "one") as one, caller_of(it, "two") as two:
        gate = asyncio.Event()
        it.a.script(CHAT, Reply.stream(gate, chat_chunk("하나", finish_reason="stop"), DONE))
        long = await one.order(repeats=5, schedule="sequential")
        await it.a.received(CHAT)
        short = await two.order(prompts=PROMPTS[:2], schedule="sequential")
        gate.set()
        await it.until_over(short["id"])
        assert (await it.get(long["id"]))["items"]["done"] <= 3
        await it.until_over(long["id"])


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
