"""The client's side as ASGI gives it: reading a request's head and body, and answering with an error.

What every route needs before anybody knows what the request means. What it means, and whose it is, is not known here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from gateway.error_shapes import OPENAI, ErrorShape
from gateway.errors import InvalidRequest, RequestTooLarge, SimsaError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
STREAM_HEADERS: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_REQUEST_ID = re.compile(rb"(?!.*___)[A-Za-z0-9._:-]{1,128}\Z")
"""Three underscores begin an address in the ids of vLLM's connectors between engines, which would connect to it."""


class ClientLeft(Exception):
    """The client closed its connection; nobody is left to answer."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole request body. Raises RequestTooLarge, or ClientLeft when it never came whole."""
    declared = first_value(scope["headers"], b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def request_id_of(headers: RawHeaders) -> str:
    """The client's own id when it is safe to repeat, else a new one."""
    given = first_value(headers, b"x-request-id")
    if given is not None and _REQUEST_ID.match(given):
        return given.decode()
    return random.getrandbits(128).to_bytes(16).hex()


def first_value(headers: RawHeaders, wanted: bytes) -> bytes | None:
    """The value of the first header of that lower-case name; None where there is none."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


async def send_error(send: Send, error: SimsaError, request_id: str, shape: ErrorShape = OPENAI) -> None:
    body = msgspec.json.encode(shape.body(error))
    headers = [
        JSON,
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *encoded(error.headers()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def encoded(headers: list[tuple[str, str]]) -> RawHeaders:
    """Headers of an error as ASGI takes them."""
    return [(name.encode(), value.encode()) for name, value in headers]


def _too_large(limit: int) -> InvalidRequest:
    return RequestTooLarge(f"The request body is larger than {limit} bytes (SIMSA_MAX_BODY_BYTES).")
