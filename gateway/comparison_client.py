"""Asks a running gateway for a comparison over HTTP and gives its events as they come, for commands and tools.

What to do with the events, and running comparisons inside the gateway, belong elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from gateway.domain.sse import SseError, SseParser
from gateway.errors import UpstreamTruncated
from gateway.gateway_client import ERROR_BYTES, open_gateway, refusal_in, silence_words
from gateway.http_reply import Reply
from gateway.upstream import Upstream

SILENCE_S = 1800.0
"""Longest silence between two events: a side that thinks for long sends nothing."""
FINISHED = "comparison.finished"


async def compare(
    address: str, request: Mapping[str, Any], *, key: str | None = None, silence_s: float = SILENCE_S
) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """POST `request` to the gateway at `address` and yield (event, data); the last event is comparison.finished.

    Leaving the generator ends the comparison. Raises GatewayUnreachable, GatewayRefused for an error answer, and
    UpstreamError when the stream breaks off.
    """
    upstream = Upstream(idle_connections=0, now=time.perf_counter)
    reply = await open_gateway(
        upstream,
        address,
        "POST",
        "/api/comparisons",
        body=msgspec.json.encode({**request, "stream": True}),
        key=key,
        wait_s=silence_s,
        headers=[(b"accept", b"text/event-stream")],
    )
    try:
        if reply.status != 200:
            raise refusal_in(reply.status, await reply.read_all(ERROR_BYTES))
        is_finished = False
        async for event, data in _events(reply, silence_s):
            yield event, data
            is_finished = event == FINISHED
        if not is_finished:
            raise UpstreamTruncated("The gateway ended the stream before the comparison was finished.")
    finally:
        reply.release()
        upstream.close()


async def _events(reply: Reply, silence_s: float) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    parser = SseParser()
    loop = asyncio.get_running_loop()
    while chunk := await reply.read():
        reply.expect(loop.time() + silence_s, silence_words(silence_s))
        try:
            for event in parser.feed(chunk):
                if event.data is not None:
                    yield event.name.decode(), msgspec.json.decode(event.data)
        except (SseError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamTruncated(f"The gateway's stream cannot be read: {error}") from error
