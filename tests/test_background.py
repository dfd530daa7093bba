"""Work in the background that fails in a way that nobody foresaw: told, counted, begun anew; never silently gone."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
from clients import RawClient
from engines import ScriptedEngine
from gateways import entry, registry_text, running_gateway
from guards import HANG_S
from structlog.testing import capture_logs

from gateway.background import end_all, keep_running
from gateway.domain.records import Registry
from gateway.live_registry import LiveRegistry
from gateway.telemetry import Telemetry

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
KEY = "key-of-the-operator"


@pytest.mark.parametrize("failure", [RuntimeError("no"), asyncio.CancelledError()], ids=["error", "stray cancel"])
async def test_work_that_fails_is_counted_logged_and_begun_anew(failure: BaseException) -> None:
    telemetry = Telemetry(log_level="ERROR")
    ends: list[BaseException] = [failure]

    async def work() -> None:
        if ends:
            raise ends.pop()

    with capture_logs() as lines:
        await keep_running("watch", work, telemetry.count_background_failure)
    ((line),) = lines
    assert (line["log_level"], line["work"], line["exc_info"]) == ("error", "watch", failure)
    assert b'simsa_background_failures_total{work="watch"} 1.0' in telemetry.render()


async def test_work_that_is_cancelled_ends_and_is_no_failure() -> None:
    failures: list[str] = []
    has_begun = asyncio.Event()

    async def work() -> None:
        has_begun.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(keep_running("watch", work, failures.append))
    await has_begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert failures == []


async def test_work_that_forgets_a_cancelling_is_cancelled_again_and_what_it_ends_with_is_nobodys() -> None:
    forgotten: list[str] = []
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            forgotten.append("once")
        await asyncio.Event().wait()

    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("gone")

    tasks = [asyncio.create_task(work()), asyncio.create_task(fail())]
    await asyncio.sleep(0)
    async with asyncio.timeout(HANG_S):
        await end_all(tasks, again_s=0.01)
    assert forgotten == ["once"]
    assert tasks[0].cancelled()
    del tasks
    gc.collect()
    assert complaints == []


async def test_work_that_forgets_a_cancelling_is_cancelled_again_also_where_its_keeper_is_cancelled() -> None:
    cancelled = 0
    has_begun = asyncio.Event()

    async def work() -> None:
        nonlocal cancelled
        while True:
            try:
                has_begun.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled == 3:
                    raise

    inner: list[asyncio.Task[None]] = []

    async def keep() -> None:
        inner.append(asyncio.create_task(work()))
        try:
            await asyncio.Event().wait()
        finally:
            await end_all(inner, again_s=60)

    keeper = asyncio.create_task(keep())
    await has_begun.wait()
    async with asyncio.timeout(HANG_S):
        await end_all([keeper], again_s=0.01)
    assert keeper.cancelled()
    assert inner[0].cancelled()
    assert cancelled == 3


async def test_registry_that_cannot_be_put_to_use_leaves_the_old_one_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(registry_text([entry("a", "http://127.0.0.1:9")]))
    used: list[list[str]] = []

    def use(registry: Registry) -> None:
        used.append(list(registry.models))
        if "b" in registry.models:
            raise ZeroDivisionError("in our own arithmetic")

    live = LiveRegistry(path, use)
    path.write_text(registry_text([entry("a", "http://127.0.0.1:9"), entry("b", "http://127.0.0.1:9")]))
    with pytest.raises(ZeroDivisionError):
        await live.look()
    assert list(live.current.models) == ["a"]
    assert used == [["a", "b"], ["a"]]
    assert live.problem == "the change could not be taken over: ZeroDivisionError('in our own arithmetic')"
    await live.look()
    assert len(used) == 2, "not tried again before the next change"
    path.write_text(registry_text([entry("c", "http://127.0.0.1:9")]))
    await live.look()
    assert used[-1] == list(live.current.models) == ["c"]
    assert live.problem is None


async def test_registry_watch_sees_the_next_change_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(registry_text([entry("a", "http://127.0.0.1:9")]))
    has_failed, is_used = asyncio.Event(), asyncio.Event()

    def use(registry: Registry) -> None:
        if "b" in registry.models:
            raise ZeroDivisionError
        if "c" in registry.models:
            is_used.set()

    live = LiveRegistry(path, use)
    watch = asyncio.create_task(keep_running("watch", lambda: live.watch(0.001), lambda _: has_failed.set()))
    async with asyncio.timeout(HANG_S):
        path.write_text(registry_text([entry("b", "http://127.0.0.1:9")]))
        await has_failed.wait()
        path.write_text(registry_text([entry("c", "http://127.0.0.1:9")]))
        await is_used.wait()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def test_gateway_without_its_writer_is_not_ready_and_refuses_calls(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], admin_key=KEY) as gateway,
        RawClient(gateway.url, key=KEY) as client,
    ):
        await gateway.until_live("m")
        assert (await client.request("GET", "/ready")).status == 200
        (writer,) = [task for task in asyncio.all_tasks() if task.get_name() == "recorder"]
        writer.cancel()
        await asyncio.wait([writer])
        ready = await client.request("GET", "/ready")
        assert (ready.status, ready.json()["problems"]) == (503, ["records cannot be kept"])
        refused = await client.request("POST", CHAT, body=ASK)
        assert (refused.status, refused.json()["error"]["code"]) == (503, "recorder_unavailable")
