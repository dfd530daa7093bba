"""Several gateways on one PostgreSQL and one Redis, each with sockets of its own: to callers they are one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clients import Answer, RawClient
from databases import ScratchPostgres, ScratchSqlite
from dialect_shapes import response_body
from engines import Reply, ScriptedEngine
from gateways import RunningGateway, entry, registry_text, running_gateway
from guards import HANG_S
from redis.asyncio import Redis
from redis_server import RedisServer
from test_postgresql import opened_store
from test_store import opened

from gateway.domain.accounts import TOKENS, Budget, Limits, Period, Terms
from gateway.domain.records import CallStatus
from gateway.errors import StartRefused
from gateway.settings import DatabaseLimits

ADMIN = "admin-key-of-the-tests"
CHAT = "/v1/chat/completions"
BATCHES = "/api/comparisons/batches"
MODELS = [entry("a", "http://127.0.0.1:1")]
SHARED = DatabaseLimits(is_shared=True)
BODY = {"model": "a", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 3}


@dataclass
class Trio:
    gateways: Sequence[RunningGateway]
    engine: ScriptedEngine
    ends: Sequence[AsyncExitStack]
    """Of each gateway its end."""
    doors: Sequence[Path]
    """By which each finds Redis."""

    async def cut_off(self, number: int) -> None:
        """Redis is there for the others alone."""
        link = self.gateways[number].services.together.link
        assert link is not None
        self.doors[number].unlink()
        await link._redis.connection_pool.disconnect()
        await self.gateways[number].until(lambda: not link.is_up)

    async def call(self, number: int, key: str, path: str = CHAT, body: Any = BODY, method: str = "POST") -> Answer:
        async with RawClient(self.gateways[number].url, key=key) as client:
            return await client.request(method, path, body=body)

    async def admin(self, number: int, method: str, path: str, body: Any = b"") -> Any:
        answer = await self.call(number, ADMIN, path, body, method)
        assert answer.status in (200, 201), answer.body
        return answer.json()

    async def key(self, **limits: Any) -> str:
        """A new key, by the first gateway; every one knows it when this returns."""
        if "acme" not in {one["id"] for one in (await self.admin(0, "GET", "/api/admin/orgs"))["data"]}:
            await self.admin(0, "POST", "/api/admin/orgs", {"id": "acme", "name": "Acme"})
        _, secret = await self.gateways[0].services.keys.create_key("acme", "k", Terms(limits=Limits(**limits)), None)
        for gateway in self.gateways:
            await gateway.until(lambda g=gateway: g.services.keys.find(secret.encode()) is not None)
        return secret


@asynccontextmanager
async def trio(directory: Path, postgres: ScratchPostgres, redis: RedisServer, **settings: Any) -> AsyncIterator[Trio]:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ScriptedEngine(["a", "b"]))
        models = [entry("a", engine.url), entry("b", engine.url)]
        shared = {"database_url": postgres.url, "admin_key": ADMIN, "key_refresh_s": 60.0, **settings}
        gateways, ends, doors = [], [], []
        for number in range(3):
            socket = Path(redis.url.removeprefix("unix://"))
            doors.append(socket.with_name(f"s{number}"))
            doors[-1].symlink_to(socket)
            ends.append(await stack.enter_async_context(AsyncExitStack()))
            running = running_gateway(directory / str(number), models, redis_url=f"unix://{doors[-1]}", **shared)
            gateways.append(await ends[-1].enter_async_context(running))
        for gateway in gateways:
            await gateway.until_live("a", "b")
            await gateway.until(lambda g=gateway: len(g.services.together.peers()) == 3)
        yield Trio(gateways, engine, ends, doors)


async def test_a_keys_minute_is_one_minute_over_all_gateways(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        key = await it.key(requests_per_min=10)
        answers = await asyncio.gather(*(it.call(number % 3, key) for number in range(30)))
        assert sorted(answer.status for answer in answers) == [200] * 10 + [429] * 20
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.header("x-ratelimit-remaining-requests") == "0"


async def test_a_budget_is_spent_once_and_the_books_say_what_the_records_say(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        key = await it.key(budgets=(Budget(Period.MONTH, TOKENS, Decimal(200)),))
        statuses = [(await it.call(number % 3, key)).status for number in range(40)]
        assert 200 in statuses
        assert 429 in statuses
        (made,) = (await it.admin(1, "GET", "/api/admin/keys"))["data"]
        for gateway in it.gateways:
            assert await gateway.services.recorder.drain(HANG_S)
            await gateway.services.together.books.flush()  # type: ignore[attr-defined]
        (shown,) = (await it.admin(2, "GET", "/api/admin/keys"))["data"]
        usage = await it.admin(0, "GET", f"/api/usage?key={made['id']}")
        spent = Decimal(shown["limits"]["budgets"][0]["spent"])
        assert spent <= 200
        assert spent == sum(row["charged_tokens"] for row in usage["data"])
        assert shown["in_flight"] == 0
        assert len(await it.gateways[0].calls(statuses.count(200))) == statuses.count(200)


async def test_what_redis_loses_the_database_tells_and_nothing_is_kept_for_ever(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        key = await it.key(budgets=(Budget(Period.MONTH, TOKENS, Decimal(100_000)),))
        (made,) = (await it.admin(1, "GET", "/api/admin/keys"))["data"]

        async def said(count: int) -> Decimal:
            """What is spent by the books of all three alike, once every record is written and told of."""
            answers = await asyncio.gather(*(it.call(number % 3, key) for number in range(count)))
            assert {answer.status for answer in answers} == {200}
            for gateway in it.gateways:
                assert await gateway.services.recorder.drain(HANG_S)
                await gateway.services.together.books.flush()  # type: ignore[attr-defined]
            found = {
                row["limits"]["budgets"][0]["spent"]
                for number in range(3)
                for row in (await it.admin(number, "GET", "/api/admin/keys"))["data"]
            }
            assert len(found) == 1
            usage = await it.admin(0, "GET", f"/api/usage?key={made['id']}")
            (spent,) = map(Decimal, found)
            assert spent == sum(row["charged_tokens"] for row in usage["data"])
            async with Redis.from_url(redis.url) as outside:
                assert await outside.keys("*:unwritten") == []
            return spent

        before = await said(20)
        redis.lose()
        for gateway in it.gateways:
            await gateway.until(lambda g=gateway: not g.services.together.books.is_shared)
        redis.start()
        for gateway in it.gateways:
            await gateway.until(lambda g=gateway: g.services.together.books.is_shared)
        assert await said(20) == 2 * before


async def test_what_one_wrote_that_was_cut_off_from_redis_counts_when_it_is_gone(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        key = await it.key(budgets=(Budget(Period.MONTH, TOKENS, Decimal(100_000)),))
        assert (await it.call(0, key)).status == 200
        assert await it.gateways[0].services.recorder.drain(HANG_S)

        async def spent() -> Decimal:
            (row,) = (await it.admin(0, "GET", "/api/admin/keys"))["data"]
            return Decimal(row["limits"]["budgets"][0]["spent"])

        once = await spent()
        await it.cut_off(2)
        assert (await it.call(2, key)).status == 200
        assert await it.gateways[2].services.recorder.drain(HANG_S)
        assert await spent() == once
        await it.ends[2].aclose()
        async with asyncio.timeout(HANG_S):
            while await spent() != 2 * once:
                await asyncio.sleep(0.05)


async def test_a_key_revoked_in_one_opens_no_other(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        key = await it.key()
        assert (await it.call(2, key)).status == 200
        (made,) = (await it.admin(0, "GET", "/api/admin/keys"))["data"]
        await it.admin(0, "POST", f"/api/admin/keys/{made['id']}/revoke")
        async with asyncio.timeout(HANG_S):  # long before key_refresh_s, which is a minute
            while (await it.call(2, key)).status != 401:
                await asyncio.sleep(0.01)


async def test_calls_go_on_while_redis_is_away_and_are_counted_when_it_is_back(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        key = await it.key(requests_per_min=9)
        redis.stop()
        for gateway in it.gateways:
            await gateway.until(lambda g=gateway: not g.services.together.books.is_shared)
        statuses = [(await it.call(number % 3, key)).status for number in range(30)]
        assert statuses.count(200) == 9, "each of the three has its third"
        page = (await it.call(0, ADMIN, "/metrics", b"", "GET")).body.decode()
        assert "simsa_limits_shared 0.0" in page
        redis.start()
        for gateway in it.gateways:
            await gateway.until(lambda g=gateway: g.services.together.books.is_shared)
        assert len(await it.gateways[0].calls(9)) == 9


async def test_one_gateway_has_the_duty_and_another_takes_it_when_that_ends(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    shared = {"database_url": postgres.url, "redis_url": redis.url}
    async with AsyncExitStack() as stack:
        async with running_gateway(tmp_path / "1", MODELS, **shared) as first:
            await first.until(lambda: first.services.together.duty.is_held)
            other = await stack.enter_async_context(running_gateway(tmp_path / "2", MODELS, **shared))
            await other.until(lambda: len(other.services.together.peers()) == 2)
            assert not await other.services.store.has_duty()
        await other.until(lambda: other.services.together.duty.is_held)


async def test_a_batch_ordered_anywhere_is_worked_off_and_may_be_cancelled_anywhere(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        prompts = [{"id": "p", "prompt": "질문"}]
        order = {"models": ["a", "b"], "prompts": prompts, "params": {"max_tokens": 3}}
        made = [await it.admin(number, "POST", BATCHES, {**order, "name": f"n{number}"}) for number in range(3)]
        async with asyncio.timeout(HANG_S):
            while {(await it.admin(0, "GET", f"{BATCHES}/{one['id']}"))["status"] for one in made} != {"done"}:
                await asyncio.sleep(0.01)
        it.engine.script(CHAT, *[Reply.hang()] * 4)
        late = await it.admin(0, "POST", BATCHES, order)
        await it.engine.received(CHAT, 7)
        off_duty = next(n for n, one in enumerate(it.gateways) if not one.services.together.duty.is_held)
        await it.admin(off_duty, "DELETE", f"{BATCHES}/{late['id']}")
        async with asyncio.timeout(HANG_S):
            while any(one.services.dispatcher.in_flight for one in it.gateways):
                await asyncio.sleep(0.01)
        assert (await it.admin(1, "GET", f"{BATCHES}/{late['id']}"))["status"] == "cancelled"


async def test_a_reply_that_one_gateway_passed_on_can_be_continued_through_another_by_its_owner(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        owner, stranger = await it.key(), await it.key()
        it.engine.script("/v1/responses", Reply.json(response_body("a", reply_id="resp_1")))
        asked = {"model": "a", "input": "안녕", "max_output_tokens": 3}
        assert (await it.call(0, owner, "/v1/responses", asked)).status == 200
        it.engine.script("/v1/responses", Reply.json(response_body("a", reply_id="resp_2")))
        further = {**asked, "previous_response_id": "resp_1"}
        async with asyncio.timeout(HANG_S):
            while (answer := await it.call(1, owner, "/v1/responses", further)).status == 404:
                await asyncio.sleep(0.01)
        assert answer.status == 200
        assert (await it.call(2, stranger, "/v1/responses", further)).status == 404


async def test_who_signed_in_at_one_is_signed_in_at_all(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        form = b"key=" + ADMIN.encode()
        headers = [("content-type", "application/x-www-form-urlencoded"), ("origin", it.gateways[0].url)]
        async with RawClient(it.gateways[0].url) as client:
            signed_in = await client.request("POST", "/rounds/sign-in", headers=headers, body=form)
        cookie = (signed_in.header("set-cookie") or "").partition(";")[0]
        for gateway in it.gateways:
            async with RawClient(gateway.url) as client:
                assert (await client.request("GET", "/rounds", headers=[("cookie", cookie)])).status == 200


async def test_places_on_a_replica_are_shared_out(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis, replica_max_in_flight=90) as it:
        for gateway in it.gateways:
            await gateway.until(lambda g=gateway: {state.places[0] for state in g.services.fleet.states} == {30})


async def test_that_one_gateway_serves_by_another_registry_shows(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        it.gateways[1].registry_path.write_text(registry_text([entry("a", it.engine.url)]))

        async def page() -> str:
            return (await it.call(0, ADMIN, "/metrics", b"", "GET")).body.decode()

        async with asyncio.timeout(HANG_S):
            while "simsa_registry_differs 1.0" not in await page():
                await asyncio.sleep(0.05)
        assert "simsa_gateways 3.0" in await page()


async def test_calls_of_a_gateway_whose_session_is_gone_are_ended_by_the_others(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with trio(tmp_path, postgres, redis) as it:
        assert (await it.call(0, ADMIN)).status == 200
        await it.gateways[0].calls(1)
        await postgres.execute("UPDATE calls SET status = 'open', ended_at = NULL, gateway = 12345")
        async with asyncio.timeout(HANG_S):
            while (await it.gateways[1].calls(1))[0].status is not CallStatus.INTERRUPTED:
                await asyncio.sleep(0.05)
        number = it.gateways[1].services.store.number
        await postgres.execute(f"UPDATE calls SET status = 'open', ended_at = NULL, gateway = {number}")
        assert await it.gateways[2].services.store.list_orphans() == []


async def test_calls_of_a_gateway_that_may_only_be_away_for_a_moment_are_left_to_it(postgres: ScratchPostgres) -> None:
    async with opened_store(postgres.url, SHARED) as one, opened_store(postgres.url, SHARED) as other:
        await one.upsert_calls([opened(1)])
        assert await other.list_orphans() == []
        assert one.number is not None
        away = one.number
        await one.close()
        assert await other.list_orphans({away}) == []
        assert await other.list_orphans({away + 1}) == ["call-000001"]


async def test_gateways_that_share_and_one_that_does_not_keep_each_other_out(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    shared = {"database_url": postgres.url, "redis_url": redis.url}
    async with running_gateway(tmp_path / "1", MODELS, **shared):
        with pytest.raises(StartRefused, match="same SIMSA_REDIS_URL"):
            async with running_gateway(tmp_path / "2", MODELS, database_url=postgres.url):
                pass
    async with running_gateway(tmp_path / "2", MODELS, database_url=postgres.url):
        with pytest.raises(StartRefused, match="same SIMSA_REDIS_URL"):
            async with running_gateway(tmp_path / "1", MODELS, **shared):
                pass


async def test_redis_beside_a_file_is_refused_with_what_to_do(tmp_path: Path, sqlite_file: ScratchSqlite) -> None:
    with pytest.raises(StartRefused, match="set SIMSA_DATABASE_URL to postgresql"):
        async with running_gateway(tmp_path, MODELS, redis_url="redis://127.0.0.1:1/0"):
            pass
