"""Long answers: one at a time and never on the loop's thread, a short line before them, the latest ones kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, current_thread, main_thread

import pytest
from clients import RawClient
from gateways import running_gateway

from gateway.errors import Unavailable
from gateway.long_work import MOST_WAITING, RETRY_AFTER_S, LongWork

SHIPPED = Path(__file__).parent.parent / "model_registry.yaml"
QUERY = "/api/feasibility?model=A.X-4.0&gpu=all&quantisation=fp8&format=html"
CLAIMS = {"claims": [{"model": "A.X-4.0", "metric": "fits_single_gpu", "gpu": "h100-sxm"}]}


@contextmanager
def opened(**limits: int) -> Iterator[LongWork]:
    work = LongWork(**limits)
    try:
        yield work
    finally:
        work.close()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_one_at_a_time_in_order_off_the_loops_thread() -> None:
    with opened() as work:
        running, done = 0, list[int]()

        def one(n: int) -> bool:
            nonlocal running
            running += 1
            alone = running == 1 and current_thread() is not main_thread()
            done.append(n)
            running -= 1
            return alone

        assert all(await asyncio.gather(*(work.run(lambda n=n: one(n)) for n in range(5))))
        assert done == list(range(5))


async def test_beyond_a_few_waiting_the_rest_is_refused_and_places_come_back() -> None:
    gate = Event()
    with opened(most_waiting=2) as work:
        held = [asyncio.create_task(work.run(gate.wait)) for _ in range(3)]
        await turns()
        with pytest.raises(Unavailable, match="2 long answers wait already") as refused:
            await work.run(gate.wait)
        assert (refused.value.code, refused.value.retry_after_s) == ("queue_full", RETRY_AFTER_S)
        gate.set()
        assert await asyncio.gather(*held) == [True] * 3
        assert await asyncio.gather(*(work.run(gate.wait) for _ in range(3))) == [True] * 3


async def test_who_leaves_the_line_takes_no_turn() -> None:
    gate, began = Event(), list[str]()
    with opened(most_waiting=1) as work:
        first = asyncio.create_task(work.run(gate.wait))
        gone = asyncio.create_task(work.run(lambda: began.append("gone")))
        await turns()
        gone.cancel()
        await turns()
        last = asyncio.create_task(work.run(lambda: began.append("last")))
        await turns()
        gate.set()
        await asyncio.gather(first, last)
    assert began == ["last"]


async def test_a_failure_is_told_and_nothing_of_it_is_kept() -> None:
    def fail() -> bytes:
        raise ValueError("no")

    with opened(most_waiting=0) as work:
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                await work.answer("key", fail)
        assert await work.answer("key", lambda: b"yes") == b"yes"


async def test_an_answer_is_worked_out_once_a_key() -> None:
    asked = list[str]()

    def answer(name: str) -> bytes:
        asked.append(name)
        return name.encode()

    with opened() as work:
        together = await asyncio.gather(*(work.answer("a", lambda: answer("a")) for _ in range(5)))
        assert together == [b"a"] * 5
        assert await work.answer("b", lambda: answer("b")) == b"b"
    assert asked == ["a", "b"]


async def test_the_least_lately_used_answer_goes_first() -> None:
    asked = list[str]()

    def answer(name: str) -> bytes:
        asked.append(name)
        return b"x" * 4

    with opened(kept_bytes=8) as work:
        for name in ("a", "b", "a", "c", "a", "b"):
            await work.answer(name, lambda name=name: answer(name))  # type: ignore[misc]
        assert await work.answer("large", lambda: b"x" * 9) == b"x" * 9
        assert await work.answer("small", lambda: b"s") == b"s"
    assert asked == ["a", "b", "c", "b"]


async def test_after_its_end_work_is_refused() -> None:
    work = LongWork()
    work.close()
    for _ in range(MOST_WAITING + 2):
        with pytest.raises(Unavailable, match="shutting down"):
            await work.run(lambda: None)


async def test_a_gateway_that_works_something_out_refuses_matrices_and_serves_the_rest(tmp_path: Path) -> None:
    gate = Event()
    async with (
        running_gateway(tmp_path, [], registry=SHIPPED) as gateway,
        RawClient(gateway.url) as client,
    ):
        page = await client.request("GET", QUERY)
        work = gateway.services.long_work
        held = [asyncio.create_task(work.run(gate.wait)) for _ in range(1 + MOST_WAITING)]
        await turns()
        try:
            refused = await client.request("GET", QUERY.replace("fp8", "int8"))
            claims = await client.request("POST", "/api/claims", body=CLAIMS)
            again = await client.request("GET", QUERY)
            alive = await client.request("GET", "/health")
        finally:
            gate.set()
            await asyncio.gather(*held)
        after = await client.request("GET", QUERY.replace("fp8", "int8"))
    for answer in (refused, claims):
        assert answer.status == 503
        assert answer.json()["error"]["code"] == "queue_full"
        assert dict(answer.headers)["retry-after"] == str(RETRY_AFTER_S)
    assert (page.status, again.status, alive.status, after.status) == (200, 200, 200, 200)
    assert again.body == page.body, "a kept answer waits for nobody"
