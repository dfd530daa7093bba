"""The door to an engine, without a gateway around it: connections over real sockets, and when bytes count as come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engines import CLOSE, Reply, ScriptedEngine
from guards import HANG_S

from gateway.http_reply import HIGH_WATER_BYTES
from gateway.http_reply import Reply as Answer
from gateway.upstream import Upstream, parse_origin, request_head

PATH = "/v1/chat/completions"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def asked(engine: ScriptedEngine, clock: Clock) -> AsyncIterator[Answer]:
    """The reply of `engine` to one POST."""
    upstream, origin = Upstream(idle_connections=8, now=clock), parse_origin(engine.url)
    reply = await upstream.open(
        origin,
        head=request_head(origin, b"POST", PATH.encode(), ()),
        body=b"{}",
        connect_s=5.0,
        due=asyncio.get_running_loop().time() + 60.0,
        due_what="the test's own limit",
    )
    try:
        yield reply
    finally:
        reply.release()
        upstream.close()


async def test_bytes_are_dated_when_they_come_however_late_they_are_read() -> None:
    clock, gates, is_over = Clock(), [asyncio.Event(), asyncio.Event()], asyncio.Event()
    async with ScriptedEngine() as engine:
        engine.script(PATH, Reply.stream(gates[0], b"one", gates[1], b"two"))
        async with asked(engine, clock) as reply:
            reply.when_over = is_over.set
            clock.now_s = 10.0
            gates[0].set()
            assert await reply.arrivals() == [(b"one", 10.0)]
            clock.now_s = 20.0
            gates[1].set()
            await is_over.wait()
            clock.now_s = 30.0
            assert await reply.arrivals() == [(b"two", 20.0)]
            assert await reply.arrivals() == []


async def test_whole_answer_is_dated_by_its_last_byte() -> None:
    clock, gate = Clock(), asyncio.Event()
    async with ScriptedEngine() as engine:
        engine.script(PATH, Reply(pieces=(b"one", gate, b"two")))
        async with asked(engine, clock) as reply:
            clock.now_s = 10.0
            reading = asyncio.ensure_future(reply.read_all_timed(100))
            await engine.received(PATH)
            gate.set()
            assert await reading == (b"onetwo", 10.0)


async def test_engine_that_is_read_too_slowly_waits_and_that_is_known() -> None:
    piece = b"x" * 65536
    async with ScriptedEngine() as engine:
        engine.script(PATH, Reply(pieces=[piece] * 64))
        async with asked(engine, Clock()) as reply:
            async with asyncio.timeout(HANG_S):
                while not reply.was_held_back:
                    await asyncio.sleep(0)
            assert sum(len(data) for data, _ in await reply.arrivals()) < 2 * HIGH_WATER_BYTES
            assert await reply.read_all(len(piece) * 64)


async def test_burst_that_its_reader_takes_at_once_held_nobody_back() -> None:
    piece = b"x" * (3 * HIGH_WATER_BYTES)
    async with ScriptedEngine() as engine:
        engine.script(PATH, Reply.stream(piece))
        async with asked(engine, Clock()) as reply:
            assert await reply.read_all(len(piece)) == piece
            assert not reply.was_held_back


async def test_answer_that_is_cut_is_over_all_the_same() -> None:
    is_over, gate = asyncio.Event(), asyncio.Event()
    async with ScriptedEngine() as engine:
        engine.script(PATH, Reply.stream(b"one", gate, CLOSE))
        async with asked(engine, Clock()) as reply:
            reply.when_over = is_over.set
            gate.set()
            async with asyncio.timeout(HANG_S):
                await is_over.wait()
