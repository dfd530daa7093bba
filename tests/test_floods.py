"""Heads without end, heads that never come whole, bodies of strangers: on every kind of route, beside others' calls."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from clients import Answer, RawClient
from engines import DONE, Reply, ScriptedEngine, chat_chunk
from gateways import RunningGateway, entry, running_gateway
from processes_under_test import gateway_process

from gateway.downstream import MAX_HEAD_BYTES

ADMIN = "the-admin-of-this-gate"
CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
STREAM = {**ASK, "stream": True}
RELAYED = (CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/tokenize")
OURS = ("/api/comparisons", "/api/comparisons/batches", "/api/admin/orgs", "/api/admin/keys")
OPEN = ("/health", "/ready", "/metrics", "/openapi.json")
OTHERS = ("/v1/models", "/v1/responses/resp_1", "/api/models", "/api/usage", "/nowhere")
ROUTES = (*RELAYED, *OURS, *OPEN, *OTHERS)
TAKE_BODIES = (*RELAYED, *OURS)
BOMBS = {
    "one long header": b"x-bomb: " + b"a" * MAX_HEAD_BYTES,
    "many headers": b"".join(b"x-%d: a\r\n" % number for number in range(MAX_HEAD_BYTES // 8)),
    "a long key": b"authorization: Bearer " + b"a" * MAX_HEAD_BYTES,
    "a long name": b"x" * MAX_HEAD_BYTES + b": a",
}
MIB = 2**20


@asynccontextmanager
async def beside_a_stream(directory: Path, **settings: object) -> AsyncIterator[RunningGateway]:
    """A gateway through which a stream goes: held up in the middle while the block runs, whole when it is over."""
    gate = asyncio.Event()
    async with (
        ScriptedEngine() as engine,
        running_gateway(directory, [entry("m", engine.url)], admin_key=ADMIN, **settings) as gateway,
        RawClient(gateway.url, key=ADMIN) as streaming,
    ):
        await gateway.until_live("m")
        end = (chat_chunk("b"), chat_chunk(finish_reason="stop"), DONE)
        engine.script(CHAT, Reply.stream(chat_chunk("a"), gate, *end), engine.usual)
        await streaming.start("POST", CHAT, body=STREAM)
        assert await streaming.next_event() == chat_chunk("a")
        yield gateway
        gate.set()
        assert await streaming.rest() == b"".join(end)


async def is_served(gateway: RunningGateway) -> bool:
    async with RawClient(gateway.url, key=ADMIN) as client:
        return (await client.request("POST", CHAT, body=ASK)).status == 200


def head_of(path: str, *lines: bytes, method: str = "POST") -> bytes:
    """The beginning of a request's head, without its end."""
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), b"host: localhost", *lines])


async def refusal(client: RawClient) -> Answer:
    head = await client.head()
    return Answer(head.status, head.headers, await client.rest())


# --- heads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bomb", BOMBS)
async def test_head_over_its_limit_is_refused_on_every_route_and_stops_nobody(tmp_path: Path, bomb: str) -> None:
    async with beside_a_stream(tmp_path) as gateway:
        refused = 0
        for path in ROUTES:
            async with RawClient(gateway.url) as client:
                with suppress(ConnectionError):  # what is still on its way when the connection ends may cut the answer
                    await client.send_raw(head_of(path, BOMBS[bomb]))
                    answer = await refusal(client)
                    assert (answer.status, answer.json()["error"]["code"]) == (431, "head_too_large")
                    assert answer.header("connection") == "close"
                    refused += 1
                assert await client.at_end() in (True, False)
        assert refused > len(ROUTES) // 2
        assert await is_served(gateway)
        assert len(gateway.services.dispatcher.in_flight) == 1, "the stream's"


async def test_heads_that_never_come_whole_are_told_so_on_every_route_while_others_are_served(tmp_path: Path) -> None:
    async with beside_a_stream(tmp_path, client_head_timeout_s=0.5) as gateway, AsyncExitStack() as stack:
        slow = []
        for path in ROUTES:
            for part in (head_of(path)[:9], head_of(path, b"x-slow: "), head_of(path, b"content-length: 5\r\n")):
                client = await stack.enter_async_context(RawClient(gateway.url))
                await client.send_raw(part)
                slow.append(client)
        assert await is_served(gateway)
        for client in slow:
            answer = await refusal(client)
            assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
            assert await client.at_end()
        assert await is_served(gateway)


# --- bodies of strangers ------------------------------------------------------------------------------------


async def routes_with_bodies(gateway: RunningGateway) -> list[tuple[str, str]]:
    """Method and path of every route that takes a body, as OpenAPI has them; so a new one is in it, too."""
    async with RawClient(gateway.url) as client:
        paths = (await client.request("GET", "/openapi.json")).json()["paths"]
    found = [
        (method.upper(), re.sub(r"\{[^}]*\}", "some", path))
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "requestBody" in operation
    ]
    assert set(TAKE_BODIES) <= {path for _, path in found}
    return found


async def test_stranger_is_refused_before_his_body_has_come(tmp_path: Path) -> None:
    async with beside_a_stream(tmp_path) as gateway:
        for method, path in await routes_with_bodies(gateway):
            for line in (b"content-length: 1000000", b"transfer-encoding: chunked"):
                async with RawClient(gateway.url) as stranger:
                    await stranger.send_raw(head_of(path, line, b"", b"", method=method))
                    assert (await refusal(stranger)).status == 401, path


async def test_body_over_the_limit_is_refused_on_every_route_that_takes_one(tmp_path: Path) -> None:
    async with beside_a_stream(tmp_path, max_body_bytes=MIB) as gateway:
        declared = json.dumps({"x": "a" * MIB}).encode()
        chunks = (b"80000\r\n" + b" " * 0x80000 + b"\r\n") * 3
        for method, path in await routes_with_bodies(gateway):
            for body, headers in ((declared, []), (chunks, [("transfer-encoding", "chunked")])):
                async with RawClient(gateway.url, key=ADMIN) as client:
                    refused = await client.request(method, path, body=body, headers=headers)
                    assert refused.status == 413, path


# --- memory -------------------------------------------------------------------------------------------------

CONNECTIONS = 200
KIB_EACH = 256
"""What a connection may cost whose client sends as much as it may of a head, and no more: four times the head."""


def rss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


async def test_memory_is_bounded_beside_clients_who_send_as_much_as_they_may(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        gateway_process(tmp_path, [entry("m", engine.url)], admin_key=ADMIN) as gateway,
        AsyncExitStack() as stack,
    ):
        async with RawClient(gateway.url, key=ADMIN) as client:
            for _ in range(20):
                assert (await client.request("POST", CHAT, body=ASK)).status == 200
        before = rss_bytes(gateway.pid)
        for number in range(CONNECTIONS):
            hoarder = await stack.enter_async_context(RawClient(gateway.url))
            path = ROUTES[number % len(ROUTES)]
            await hoarder.send_raw(head_of(path, b"x-long: " + b"a" * (MAX_HEAD_BYTES - 200)))
        stranger = await stack.enter_async_context(RawClient(gateway.url))
        with suppress(ConnectionError):
            await stranger.send_raw(head_of("/api/admin/orgs", b"content-length: 200000000", b"", b""))
            for _ in range(100):
                await stranger.send_raw(b"a" * MIB)
        async with RawClient(gateway.url, key=ADMIN) as client:
            assert (await client.request("POST", CHAT, body=ASK)).status == 200
        grown = rss_bytes(gateway.pid) - before
        assert grown < CONNECTIONS * KIB_EACH * 1024
