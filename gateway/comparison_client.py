"""Asks a running gateway over HTTP, for commands and tools: a comparison's events as they come, objects, files.

What to do with them, and running comparisons inside the gateway, belong elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from gateway.domain.sse import SseError, SseParser
from gateway.errors import SimsaError, UpstreamTruncated, UpstreamUnreachable
from gateway.http_reply import Reply
from gateway.upstream import Origin, Upstream, parse_origin, request_head

CONNECT_S = 5.0
SILENCE_S = 1800.0
"""Longest silence between two events: a side that thinks for long sends nothing."""
ANSWER_S = 60.0
ERROR_BYTES = 1024 * 1024
ANSWER_BYTES = 64 * 1024 * 1024
FINISHED = "comparison.finished"


class GatewayUnreachable(Exception):
    """Nothing answers at the address, or it is none; the message says how to mend it."""


class GatewayRefused(SimsaError):
    """The gateway answered with an error; the message is its own."""

    def __init__(self, status: int, message: str, code: str | None) -> None:
        super().__init__(message, code=code)
        self.answered_status = status


async def compare(
    address: str, request: Mapping[str, Any], *, key: str | None = None, silence_s: float = SILENCE_S
) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """POST `request` to the gateway at `address` and yield (event, data); the last event is comparison.finished.

    Leaving the generator ends the comparison. Raises GatewayUnreachable, GatewayRefused for an error answer, and
    UpstreamError when the stream breaks off.
    """
    upstream = Upstream(idle_connections=0, now=time.perf_counter)
    body = msgspec.json.encode({**request, "stream": True})
    reply = await _open(upstream, address, b"POST", b"/api/comparisons", body, key, silence_s)
    try:
        if reply.status != 200:
            raise _refusal(reply.status, await reply.read_all(ERROR_BYTES))
        is_finished = False
        async for event, data in _events(reply, silence_s):
            yield event, data
            is_finished = event == FINISHED
        if not is_finished:
            raise UpstreamTruncated("The gateway ended the stream before the comparison was finished.")
    finally:
        reply.release()
        upstream.close()


async def ask(
    address: str, method: str, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None
) -> dict[str, Any]:
    """The JSON object that the gateway answers to one request. Raises what `compare` raises."""
    upstream = Upstream(idle_connections=0, now=time.perf_counter)
    encoded = msgspec.json.encode(body) if body is not None else None
    reply = await _open(upstream, address, method.encode(), path.encode(), encoded, key, ANSWER_S)
    try:
        answer = await reply.read_all(ANSWER_BYTES)
        if reply.status not in (200, 201):
            raise _refusal(reply.status, answer)
        found: dict[str, Any] = msgspec.json.decode(answer, type=dict)
        return found
    except msgspec.DecodeError as error:
        raise UpstreamTruncated(f"The gateway's answer cannot be read: {error}") from error
    finally:
        reply.release()
        upstream.close()


async def download(
    address: str, path: str, *, key: str | None = None, silence_s: float = SILENCE_S
) -> AsyncGenerator[bytes, None]:
    """The bytes of a file that the gateway makes, as they come. Raises what `compare` raises."""
    upstream = Upstream(idle_connections=0, now=time.perf_counter)
    reply = await _open(upstream, address, b"GET", path.encode(), None, key, silence_s)
    try:
        if reply.status != 200:
            raise _refusal(reply.status, await reply.read_all(ERROR_BYTES))
        loop = asyncio.get_running_loop()
        while chunk := await reply.read():
            reply.expect(loop.time() + silence_s, _silence_words(silence_s))
            yield chunk
    finally:
        reply.release()
        upstream.close()


async def _open(
    upstream: Upstream, address: str, method: bytes, path: bytes, body: bytes | None, key: str | None, silence_s: float
) -> Reply:
    headers = [(b"content-type", b"application/json")] if body is not None else []
    if key is not None:
        headers.append((b"authorization", b"Bearer " + key.encode()))
    origin = _origin(address)
    try:
        return await upstream.open(
            origin,
            head=request_head(origin, method, path, headers),
            body=body,
            connect_s=CONNECT_S,
            due=asyncio.get_running_loop().time() + silence_s,
            due_what=_silence_words(silence_s),
        )
    except UpstreamUnreachable as error:
        raise GatewayUnreachable(
            f"no gateway answers at {address}: start one with 'simsa up' or 'simsa serve', or name another address"
        ) from error


def _origin(address: str) -> Origin:
    try:
        return parse_origin(address)
    except ValueError as error:
        raise GatewayUnreachable(
            f"'{address}' is no address of a gateway: expected something like http://127.0.0.1:8080"
        ) from error


async def _events(reply: Reply, silence_s: float) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    parser = SseParser()
    loop = asyncio.get_running_loop()
    while chunk := await reply.read():
        reply.expect(loop.time() + silence_s, _silence_words(silence_s))
        try:
            for event in parser.feed(chunk):
                if event.data is not None:
                    yield event.name.decode(), msgspec.json.decode(event.data)
        except (SseError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamTruncated(f"The gateway's stream cannot be read: {error}") from error


def _silence_words(silence_s: float) -> str:
    return f"nothing for {silence_s:g} s"


def _refusal(status: int, body: bytes) -> GatewayRefused:
    try:
        error = msgspec.json.decode(body)["error"]
        return GatewayRefused(status, str(error["message"]), error.get("code"))
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        return GatewayRefused(status, f"the address answered with status {status}; is it a Simsa gateway?", None)
