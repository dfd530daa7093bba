"""The client's side of the wire as a server of any ASGI application: what it writes for what the application says."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from clients import RawClient, Truncated
from servers import serve

from gateway.asgi import Message, Receive, Scope, Send
from gateway.downstream import client_protocol
from gateway.settings import Settings

JSON = (b"content-type", b"application/json")


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def app_saying(*messages: Message) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def served(app: Any) -> Any:
    return serve(app, http=client_protocol(Settings()), lifespan="off")


async def test_an_answer_of_known_length_is_written_as_it_is_and_the_connection_goes_on() -> None:
    with served(app_saying(start(JSON, (b"content-length", b"2")), part(b"{}"))) as url:
        async with RawClient(url) as client:
            for _ in range(3):
                answer = await client.request("POST", "/x", body=b"abc")
                assert (answer.status, answer.body, answer.header("content-length")) == (200, b"{}", "2")
                assert answer.header("connection") is None


async def test_an_answer_of_unknown_length_comes_in_chunks_and_its_head_before_them() -> None:
    may_go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        while not may_go_on.is_set():
            await asyncio.sleep(0)
        await send(part("안녕".encode(), more=True))
        await send(part(b"", more=True))
        await send(part(b"!"))

    with served(app) as url:
        async with RawClient(url) as client:
            head = await client.start("GET", "/x")
            assert (head.status, head.header("transfer-encoding")) == (200, "chunked")
            may_go_on.set()
            assert await client.rest() == "안녕!".encode()
            assert (await client.request("GET", "/x")).body == "안녕!".encode()


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_cannot_begin_another_line(value: bytes) -> None:
    with served(app_saying(start((b"x-a", value)), part(b"secret"))) as url:
        async with RawClient(url) as client:
            with pytest.raises((Truncated, ConnectionError)):
                await client.request("GET", "/x")


@pytest.mark.parametrize("body", [b"ab", b"abcd"], ids=["shorter", "longer"])
async def test_an_answer_of_another_length_than_promised_ends_the_connection(body: bytes) -> None:
    with served(app_saying(start((b"content-length", b"3")), part(body))) as url:
        async with RawClient(url) as client:
            await client.send("GET", "/x")
            whole = await client._reader.read()
    assert whole.partition(b"\r\n\r\n")[2] in (b"", b"ab")


async def test_an_answer_that_breaks_off_ends_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(part(b"half", more=True))
        raise RuntimeError("meant")

    with served(app) as url:
        async with RawClient(url) as client:
            with pytest.raises((Truncated, ConnectionError)):
                await client.request("GET", "/x")


async def test_head_and_not_modified_have_no_body() -> None:
    with served(app_saying(start((b"content-length", b"5")), part(b"hello"))) as url:
        async with RawClient(url) as client:
            await client.send_raw(b"HEAD /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            whole = await client._reader.read()
    assert whole.startswith(b"HTTP/1.1 200")
    assert whole.endswith(b"\r\n\r\n")
    assert b"content-length: 5\r\n" in whole
    assert b"hello" not in whole
    with served(app_saying(start(status=304), part(b""))) as url:
        async with RawClient(url) as client:
            await client.send_raw(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert b"transfer-encoding" not in await client._reader.read()


@pytest.mark.parametrize(
    "request_head",
    [b"GET /x HTTP/1.0\r\nhost: a\r\n\r\n", b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"],
)
async def test_who_wants_no_further_answer_is_told_that_the_connection_closes(request_head: bytes) -> None:
    with served(app_saying(start((b"content-length", b"2")), part(b"{}"))) as url:
        async with RawClient(url) as client:
            await client.send_raw(request_head)
            whole = await client._reader.read()
    assert whole.count(b"connection: close\r\n") == 1
    assert whole.endswith(b"{}")


async def test_the_end_of_a_request_is_told_once_and_then_only_that_the_client_left() -> None:
    told: list[str] = []
    left = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append((await receive())["body"].decode())
        await send(start())
        await send(part(b"a", more=True))
        told.append((await receive())["type"])
        left.set()

    with served(app) as url:
        async with RawClient(url) as client:
            await client.start("POST", "/%EC%95%88?a=b", body=b"whole")
        assert left.wait(10)
    assert told == ["whole", "http.disconnect"]


async def test_an_answer_of_unknown_length_to_an_old_client_ends_with_the_connection() -> None:
    with served(app_saying(start(), part(b"a", more=True), part(b"b"))) as url:
        async with RawClient(url) as client:
            await client.send_raw(b"GET /x HTTP/1.0\r\nhost: a\r\n\r\n")
            whole = await client._reader.read()
    assert b"transfer-encoding" not in whole
    assert whole.endswith(b"\r\n\r\nab")


async def test_who_waits_behind_another_request_does_not_hide_that_the_client_left() -> None:
    told = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if (await receive())["type"] == "http.disconnect":
            told.set()

    with served(app) as url:
        async with RawClient(url) as client:
            await client.send_raw(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n" * 2)
        assert told.wait(10)


async def test_a_head_that_cannot_be_written_is_followed_by_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(RuntimeError):
            await send(start((b"x-a", b"a\nb")))
        await send(start((b"content-length", b"2")))
        await send(part(b"{}"))

    with served(app) as url:
        async with RawClient(url) as client:
            assert (await client.request("GET", "/x")).body == b"{}"


async def test_the_scope_says_what_was_asked() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(start((b"content-length", b"0")))
        await send(part(b""))

    with served(app) as url:
        async with RawClient(url) as client:
            await client.request("PUT", "/%EC%95%88?a=b%20c", headers=[("X-A", "1")], body=b"whole")
    (scope,) = seen
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("PUT", "/안", b"/%EC%95%88")
    assert (scope["query_string"], scope["http_version"], scope["scheme"]) == (b"a=b%20c", "1.1", "http")
    assert (b"x-a", b"1") in scope["headers"]
