"""`simsa serve --workers N`: several processes on one socket, begun anew when one dies, ended together."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient, Truncated
from databases import ScratchPostgres
from engines import Reply, ScriptedEngine
from gateways import entry, registry_text
from guards import HANG_S
from processes_under_test import SIMSA, GatewayProcess, clean_environment, gateway_process, run_simsa
from redis_server import RedisServer

from gateway.workers import merged

ADMIN = "admin-key-of-the-tests"
CHAT = "/v1/chat/completions"
BODY = {"model": "a", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 3}


@dataclass
class Running:
    process: GatewayProcess
    engine: ScriptedEngine
    postgres: ScratchPostgres

    async def ask(self, method: str, path: str, body: Any = b"", *, key: str = ADMIN) -> Any:
        async with RawClient(self.process.url, key=key) as client:
            return await client.request(method, path, body=body)

    async def series(self, name: str) -> dict[str, float]:
        """Of each worker that answers."""
        page = (await self.ask("GET", "/metrics")).body.decode()
        found = re.findall(rf'^{name}\{{worker="(\d+)"[^}}]*\}} (\S+)$', page, re.MULTILINE)
        return {worker: float(value) for worker, value in found}

    async def until_both(self) -> None:
        async with asyncio.timeout(HANG_S):
            while set((await self.series("simsa_gateways")).items()) != {("1", 2.0), ("2", 2.0)}:
                await asyncio.sleep(0.05)

    async def workers(self) -> dict[int, int]:
        """Numbers and pids of the workers, oldest first."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        told = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in children}
        return {int(words[words.index("--worker") + 1].partition("/")[0]): pid for pid, words in told.items()}


@asynccontextmanager
async def running(directory: Path, postgres: ScratchPostgres, redis: RedisServer) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ScriptedEngine(["a"]))
        process = await stack.enter_async_context(
            gateway_process(
                directory,
                [entry("a", engine.url)],
                workers=2,
                database_url=postgres.url,
                redis_url=redis.url,
                admin_key=ADMIN,
            )
        )
        it = Running(process, engine, postgres)
        await it.until_both()
        yield it


async def test_workers_share_the_port_the_limits_and_one_page_of_series(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with running(tmp_path, postgres, redis) as it:
        await it.ask("POST", "/api/admin/orgs", {"id": "acme", "name": "Acme"})
        made = await it.ask(
            "POST", "/api/admin/keys", {"organisation": "acme", "name": "k", "limits": {"requests_per_min": 8}}
        )
        key = made.json()["secret"]
        async with asyncio.timeout(HANG_S):
            while sum([(await it.ask("GET", "/v1/models", key=key)).status == 200 for _ in range(12)]) < 12:
                continue
        answers = await asyncio.gather(*(it.ask("POST", CHAT, BODY, key=key) for _ in range(24)))
        assert sorted(answer.status for answer in answers) == [200] * 8 + [429] * 16
        page = (await it.ask("GET", "/metrics")).body.decode()
        counted = r'^simsa_requests_total\{.*endpoint="chat_completions".*status_class="2xx".*\} (\S+)$'
        assert await it.series("simsa_workers") == {"1": 2.0, "2": 2.0}
        requests = re.findall(counted, page, re.MULTILINE)
        assert sum(map(float, requests)) == 8
        rows = await it.postgres.rows("SELECT count(*) AS n FROM calls WHERE status = 'ok'")
        async with asyncio.timeout(HANG_S):
            while rows[0]["n"] != 8:
                rows = await it.postgres.rows("SELECT count(*) AS n FROM calls WHERE status = 'ok'")


async def test_a_worker_that_is_killed_is_begun_anew_and_its_calls_are_on_record(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with running(tmp_path, postgres, redis) as it:
        before = await it.workers()
        it.engine.script(CHAT, Reply.hang())
        open_call = asyncio.create_task(it.ask("POST", CHAT, BODY))
        await it.engine.received(CHAT)
        async with asyncio.timeout(HANG_S):
            while not (rows := await it.postgres.rows("SELECT gateway FROM calls")):
                await asyncio.sleep(0.01)
        assert rows[0]["gateway"] is not None
        in_flight = await it.series("simsa_inflight_requests")
        busy = max(in_flight, key=in_flight.__getitem__)
        os.kill(before[int(busy)], signal.SIGKILL)
        with pytest.raises((ConnectionError, Truncated)):
            await open_call
        await it.process.until_logged("a worker ended, another one begins")
        await it.until_both()
        after = await it.workers()
        assert after[int(busy)] != before[int(busy)]
        assert sum(after[number] == before[number] for number in (1, 2)) == 1
        async with asyncio.timeout(HANG_S):
            while (await it.postgres.rows("SELECT status FROM calls"))[0]["status"] != "interrupted":
                await asyncio.sleep(0.01)
        it.engine.script(CHAT)
        assert (await it.ask("POST", CHAT, BODY)).status == 200


async def test_a_signal_to_the_parent_ends_all_in_order(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with running(tmp_path, postgres, redis) as it:
        workers = await it.workers()
        gate = asyncio.Event()
        choice = {"index": 0, "message": {"role": "assistant", "content": "네"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        whole = {"id": "x", "object": "chat.completion", "model": "a", "choices": [choice], "usage": usage}
        it.engine.script(CHAT, Reply.json(whole).gated(gate))
        open_call = asyncio.create_task(it.ask("POST", CHAT, BODY))
        await it.engine.received(CHAT)
        it.process.send(signal.SIGTERM)
        await it.process.until_logged("stopping")
        gate.set()
        assert (await open_call).status == 200
        assert await it.process.ended() == 0
        assert {line["worker"] for line in it.process.log if line["event"] == "replica up"} == {1, 2}
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers.values())


async def test_workers_do_not_outlive_a_parent_that_is_killed(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with running(tmp_path, postgres, redis) as it:
        workers = await it.workers()
        it.process.send(signal.SIGKILL)
        await it.process.ended()
        async with asyncio.timeout(HANG_S):
            while any(Path(f"/proc/{pid}").exists() for pid in workers.values()):
                await asyncio.sleep(0.02)


async def test_a_worker_whose_parent_was_gone_before_it_began_ends_too(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    registry = tmp_path / "registry.yaml"
    registry.write_text(registry_text([entry("a", "http://127.0.0.1:1")]))
    settings = {"registry": registry, "data_dir": tmp_path / "data", "database_url": postgres.url}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = await asyncio.create_subprocess_exec(
            *(*SIMSA, "serve", "--worker", "1/1", "--listener", str(listener.fileno()), "--meeting", str(tmp_path)),
            *("--parent", str(gone.pid)),
            env=clean_environment(**settings, redis_url=redis.url, admin_key=ADMIN),
            pass_fds=[listener.fileno()],
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(HANG_S):
            _, said = await process.communicate()
    assert b'"stopping"' in said, said.decode()
    assert process.returncode == 0


async def test_workers_without_redis_are_refused_with_what_to_do(tmp_path: Path) -> None:
    ended = await run_simsa("serve", "--workers", "2", port=0, data_dir=tmp_path)
    assert ended.code == 2
    assert "set SIMSA_REDIS_URL and a postgresql:// SIMSA_DATABASE_URL" in ended.err


def test_series_of_several_pages_stand_below_one_head_with_their_pages_name() -> None:
    head_of_a = "# HELP a_total An a.\n# TYPE a_total counter\n"
    head_of_b, head_of_c = (f"# HELP {name} One.\n# TYPE {name} gauge\n" for name in "bc")
    pages = {
        "1": f'{head_of_a}a_total{{model="m {{x}}"}} 2.0\n{head_of_b}b 1.0\n',
        "2": f'{head_of_a}a_total{{model="m {{x}}"}} 3.0\n{head_of_c}c 4.0\n',
    }
    of_a = 'a_total{worker="1",model="m {x}"} 2.0\na_total{worker="2",model="m {x}"} 3.0\n'
    of_b, of_c = 'b{worker="1"} 1.0\n', 'c{worker="2"} 4.0\n'
    assert merged(pages) == head_of_a + of_a + head_of_b + of_b + head_of_c + of_c
