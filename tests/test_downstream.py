"""What clients owe the gateway: whole requests in time, a hand that takes the answer; and how many there may be."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from engines import DONE, Reply, ScriptedEngine, chat_chunk
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S

from gateway.domain.records import CallStatus
from gateway.downstream import _JoiningTransport

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
STREAM = {**ASK, "stream": True}
END = chat_chunk(finish_reason="stop") + DONE
NO_ENGINE = [entry("m", "http://127.0.0.1:9")]
HALF_HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-le".encode()
HEAD_ONLY = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n".encode()
HALF_BODY = HEAD_ONLY + b'{"model": "m", '


async def passed(seconds: float) -> None:
    """So much time is over."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.call_later(seconds, over.set_result, None)
    await over


async def is_served(gateway: RunningGateway) -> bool:
    async with RawClient(gateway.url) as client:
        return (await client.request("GET", "/health")).status == 200


async def until_closed(client: RawClient) -> bytes:
    """Everything that comes until the gateway closes the connection, unparsed."""
    async with asyncio.timeout(HANG_S):
        return await client._reader.read()


def error_in(body: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def requests_being_served() -> int:
    return sum("run_asgi" in repr(task.get_coro()) for task in asyncio.all_tasks())


# --- half a request -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "part"),
    [(b"P", "head"), (HALF_HEAD, "head"), (HEAD_ONLY, "body"), (HALF_BODY, "body")],
    ids=["a byte", "half a head", "no body", "half a body"],
)
async def test_half_a_request_is_answered_in_the_end_and_leaves_nothing_behind(
    tmp_path: Path, sent: bytes, part: str
) -> None:
    limit: dict[str, Any] = {f"client_{part}_timeout_s": 0.1}
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)], **limit) as gateway:
        await gateway.until_live("m")
        async with RawClient(gateway.url) as client:
            await client.send_raw(sent)
            head = await client.head()
            error = error_in(await client.rest())
            assert (head.status, head.header("connection")) == (408, "close")
            assert (error["type"], error["code"]) == ("invalid_request_error", "request_timeout")
            assert f"SIMSA_CLIENT_{part.upper()}_TIMEOUT_S" in error["message"]
            assert await client.at_end()
        await gateway.until(lambda: not requests_being_served())
        assert not gateway.services.dispatcher.in_flight
        assert not await gateway.services.store.list_calls()
        assert not engine.requests_to(CHAT)


@pytest.mark.parametrize("start", [HALF_HEAD, HALF_BODY, b"\r\n"], ids=["head", "body", "blank lines"])
async def test_a_byte_now_and_then_buys_no_time(tmp_path: Path, start: bytes) -> None:
    async with (
        running_gateway(tmp_path, NO_ENGINE, client_head_timeout_s=0.2, client_body_timeout_s=0.2) as gateway,
        RawClient(gateway.url) as client,
    ):

        async def drip() -> None:
            while True:
                await client.send_raw(start[-1:])
                assert await is_served(gateway)

        await client.send_raw(start)
        dripping = asyncio.create_task(drip())
        await client.at_end()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"], ids=["nothing", "blank lines"])
async def test_connection_on_which_no_request_begins_is_closed_without_a_word(tmp_path: Path, sent: bytes) -> None:
    async with (
        running_gateway(tmp_path, NO_ENGINE, client_head_timeout_s=0.1) as gateway,
        RawClient(gateway.url) as client,
    ):
        await client.send_raw(sent)
        assert await until_closed(client) == b""


async def test_time_for_requests_does_not_run_between_them_nor_while_they_are_answered(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedEngine() as engine,
        running_gateway(
            tmp_path, [entry("m", engine.url)], client_head_timeout_s=0.2, client_body_timeout_s=0.2
        ) as gateway,
        RawClient(gateway.url) as client,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(chat_chunk("a"), gate, END), lambda request: engine.usual(request))
        body = json.dumps(STREAM).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        for piece in (head[:20], head[20:], body[:9]):
            await client.send_raw(piece)
            await is_served(gateway)
        await client.send_raw(body[9:])
        assert (await client.head()).status == 200
        await passed(0.3)
        gate.set()
        assert (await client.rest()).endswith(DONE)
        await passed(0.3)
        assert (await client.request("POST", CHAT, body=ASK)).status == 200


@pytest.mark.parametrize("second", [HALF_HEAD, HALF_BODY], ids=["head", "body"])
async def test_half_a_request_behind_another_waits_for_that_ones_answer(tmp_path: Path, second: bytes) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedEngine() as engine,
        running_gateway(
            tmp_path, [entry("m", engine.url)], client_head_timeout_s=0.1, client_body_timeout_s=0.1
        ) as gateway,
        RawClient(gateway.url) as client,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(chat_chunk("a"), gate, END))
        body = json.dumps(STREAM).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        await client.send_raw(head + body + second)
        assert (await client.head()).status == 200
        await passed(0.3)
        gate.set()
        received = await until_closed(client)
        assert received.index(b"[DONE]") < received.index(b"HTTP/1.1 408")
        assert (await gateway.call()).status is CallStatus.OK


async def test_body_that_was_refused_early_and_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    async with (
        running_gateway(tmp_path, NO_ENGINE, client_body_timeout_s=0.1) as gateway,
        RawClient(gateway.url) as client,
    ):
        await client.send_raw(HALF_BODY.replace(CHAT.encode(), b"/nowhere"))
        assert (await client.head()).status == 404
        await client.rest()
        assert await until_closed(client) == b"", "one request has one answer"


async def test_connection_whose_refused_body_came_late_is_not_kept_for_ever(tmp_path: Path) -> None:
    async with (
        running_gateway(tmp_path, NO_ENGINE, client_head_timeout_s=0.1) as gateway,
        RawClient(gateway.url) as client,
    ):
        await client.send_raw(HEAD_ONLY.replace(CHAT.encode(), b"/nowhere"))
        assert (await client.head()).status == 404
        await client.rest()
        await client.send_raw(b" " * 100_000)
        assert await until_closed(client) == b""


async def test_bytes_that_are_no_http_get_an_error_in_the_usual_form(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, NO_ENGINE) as gateway, RawClient(gateway.url) as client:
        await client.send_raw(b"NONSENSE\r\n\r\n")
        assert (await client.head()).status == 400
        assert error_in(await client.rest())["code"] == "invalid_http"
        assert await client.at_end()


@pytest.mark.parametrize("request_line", ["CONNECT a:1", "GET http://localhost:8080"])
async def test_request_without_a_path_is_refused_in_the_usual_form(tmp_path: Path, request_line: str) -> None:
    async with running_gateway(tmp_path, NO_ENGINE) as gateway, RawClient(gateway.url) as client:
        await client.send_raw(f"{request_line} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        assert 400 <= (await client.head()).status < 500


# --- a large request, and then its client leaves ---------------------------------------------------------------


async def send_in_parts(client: RawClient, path: str, body: bytes) -> None:
    """The head, and the body when the gateway has asked for it, as most clients' bodies come behind their heads."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
    await client.send_raw(head.encode())
    assert b"100 Continue" in await client._reader.readuntil(b"\r\n\r\n")
    await client.send_raw(body)


@pytest.mark.parametrize("kib", [10, 100, 2000])
@pytest.mark.parametrize("stream", [True, False])
async def test_client_of_a_large_request_that_leaves_frees_the_engine(tmp_path: Path, kib: int, stream: bool) -> None:
    body = json.dumps({**ASK, "stream": stream, "messages": [{"role": "user", "content": "x" * kib * 1024}]})
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.hang())
        async with RawClient(gateway.url) as client:
            await send_in_parts(client, CHAT, body.encode())
            request = await engine.received(CHAT)
            client.leave()
            await asyncio.wait_for(request.closed_by_peer.wait(), HANG_S)
        assert (await gateway.call()).status is CallStatus.CANCELLED


async def test_client_that_leaves_with_half_a_large_request_in_the_pipe_frees_the_engine(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.hang())
        async with RawClient(gateway.url) as client:
            await client.send("POST", CHAT, body=ASK)
            request = await engine.received(CHAT)
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {2**20}\r\n\r\n".encode()
            await client.send_raw(head + b"x" * (300 * 1024))
            client.leave()
            await asyncio.wait_for(request.closed_by_peer.wait(), HANG_S)


# --- an answer that nobody takes ----------------------------------------------------------------------------


def endless() -> Iterator[bytes]:
    for _ in range(16 * 1024):
        yield chat_chunk("x" * 65_000)


async def test_client_that_takes_nothing_of_its_answer_is_cut_off(tmp_path: Path) -> None:
    flood = Reply(pieces=endless(), framing="chunked", content_type="text/event-stream")
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], client_read_timeout_s=0.2) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, flood)
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=STREAM)
            await asyncio.wait_for(engine.requests_to(CHAT)[0].closed_by_peer.wait(), HANG_S)
            assert (await gateway.call()).status is CallStatus.CANCELLED
            await gateway.until(lambda: not requests_being_served())


async def test_client_that_reads_slowly_but_steadily_gets_everything(tmp_path: Path) -> None:
    answer = json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": "x" * 16 * 2**20}}]}).encode()
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], client_read_timeout_s=0.2) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply(pieces=(answer,)))
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=ASK)
            received = rested_at = 0
            while part := await client.read():
                received += len(part)
                if received - rested_at > 256 * 1024:
                    rested_at = received
                    await passed(0.02)
            assert received == len(answer)


class Lost(asyncio.Protocol):
    """Says when its connection is gone."""

    def __init__(self) -> None:
        self.has_happened = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_happened.set()


async def test_closed_connection_does_not_wait_for_ever_for_its_last_bytes_to_be_taken() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport, lost = await loop.create_connection(Lost, sock=ours)
        joining = _JoiningTransport(transport, loop, 0.05)
        joining.write(b"x" * 60_000)
        joining.close()
        assert transport.get_write_buffer_size()
        await asyncio.wait_for(lost.has_happened.wait(), HANG_S)


async def test_bytes_for_a_connection_that_has_just_ended_are_dropped_without_a_fuss() -> None:
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    ours, theirs = socket.socketpair()
    with theirs:
        transport, lost = await loop.create_connection(Lost, sock=ours)
        joining = _JoiningTransport(transport, loop, 0.05)
        transport.abort()
        joining.write(b"late")
        await lost.has_happened.wait()
        await passed(0)
        joining.close()
        assert not complaints


# --- how many -----------------------------------------------------------------------------------------------


async def test_connections_over_the_limit_are_told_to_come_back(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], max_connections=2) as gateway,
        RawClient(gateway.url) as one,
        RawClient(gateway.url) as two,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.json({"choices": [{"finish_reason": "stop"}]}).gated(gate))
        for client in (one, two):
            await client.send("POST", CHAT, body=ASK)
        await engine.received(CHAT, 2)
        for _ in range(3):
            async with RawClient(gateway.url) as third:
                refused = await third.request("POST", CHAT, body=ASK)
                assert (refused.status, refused.header("retry-after")) == (503, "1")
                assert error_in(refused.body)["code"] == "too_many_connections"
                assert await third.at_end()
        gate.set()
        assert [(await client.head()).status for client in (one, two)] == [200, 200], "those who are in stay in"


async def test_connection_idle_for_longest_makes_room_for_a_new_one(tmp_path: Path) -> None:
    async with (
        running_gateway(tmp_path, NO_ENGINE, max_connections=2) as gateway,
        RawClient(gateway.url) as oldest,
        RawClient(gateway.url) as other,
    ):
        for client in (oldest, other):
            assert (await client.request("GET", "/health")).status == 200
            await passed(0.01)
        assert await is_served(gateway)
        assert await oldest.at_end()
        assert (await other.request("GET", "/health")).status == 200


async def test_heads_that_are_late_make_room_for_whoever_has_something_to_say(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, NO_ENGINE, max_connections=3) as gateway, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(RawClient(gateway.url)) for _ in range(3)]
        for client, sent in zip(slow, (b"", b"P", HALF_HEAD), strict=True):
            await client.send_raw(sent)
        async with asyncio.timeout(HANG_S):
            while not await is_served(gateway):
                await passed(0.05)
        assert await slow[0].at_end(), "the one that owes for longest goes first"


async def test_silent_connection_over_the_limit_is_closed_soon(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], max_connections=1) as gateway,
        RawClient(gateway.url) as one,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.hang())
        await one.send("POST", CHAT, body=ASK)
        await engine.received(CHAT)
        async with RawClient(gateway.url) as surplus:
            assert await until_closed(surplus) == b""
