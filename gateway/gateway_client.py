"""Sends one request to a running gateway, for commands: reaching it, and what its refusals mean.

What is asked and what becomes of the answer belong to whoever asks, e.g. `comparison_client`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import msgspec
from pydantic import SecretStr

from gateway.errors import SimsaError, UpstreamUnreachable
from gateway.http_reply import Reply
from gateway.settings import Settings
from gateway.upstream import Headers, Origin, Upstream, parse_origin, request_head

CONNECT_S = 5.0
ANSWER_S = 60.0
FILE_SILENCE_S = 600.0
"""Longest silence within a file that the gateway makes."""
ERROR_BYTES = 1024 * 1024
ANSWER_BYTES = 64 * 1024 * 1024


class GatewayUnreachable(Exception):
    """Nothing answers at the address, or it is none; the message says how to mend it."""


class GatewayRefused(SimsaError):
    """The gateway answered with an error; the message is its own."""

    def __init__(self, status: int, message: str, code: str | None) -> None:
        super().__init__(message, code=code)
        self.answered_status = status


class GatewayDoor(NamedTuple):
    """Where a running gateway is, and what opens it."""

    address: str
    key: str | None = None


def own_door(settings: Settings, address: str | None = None) -> GatewayDoor:
    """The settings' gateway, or another, with the caller's own key; with the admin key where there is none."""
    return _door(settings, address, settings.key or settings.admin_key)


def admin_door(settings: Settings, address: str | None = None) -> GatewayDoor:
    """The same with the admin key first: for what admins alone may do."""
    return _door(settings, address, settings.admin_key or settings.key)


def _door(settings: Settings, address: str | None, key: SecretStr | None) -> GatewayDoor:
    return GatewayDoor(
        address or f"http://{settings.host}:{settings.port}", None if key is None else key.get_secret_value()
    )


async def ask_gateway(gateway: GatewayDoor, method: str, path: str, body: object | None = None) -> Any:
    """The JSON that the gateway answers. Raises GatewayUnreachable, GatewayRefused, UpstreamError."""
    upstream = Upstream(idle_connections=0, now=time.perf_counter)
    content = None if body is None else msgspec.json.encode(body, enc_hook=str)
    reply = await open_gateway(upstream, gateway, method, path, body=content, wait_s=ANSWER_S)
    try:
        if reply.status not in (200, 201):
            raise refusal_in(reply.status, await reply.read_all(ERROR_BYTES))
        return msgspec.json.decode(await reply.read_all(ANSWER_BYTES))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise GatewayUnreachable(f"what answers at {gateway.address} is no Simsa gateway: {error}") from error
    finally:
        reply.release()
        upstream.close()


async def download(gateway: GatewayDoor, path: str) -> AsyncGenerator[bytes, None]:
    """The bytes of a file that the gateway makes, as they come. Raises what `ask_gateway` raises."""
    upstream = Upstream(idle_connections=0, now=time.perf_counter)
    reply = await open_gateway(upstream, gateway, "GET", path, body=None, wait_s=FILE_SILENCE_S)
    try:
        if reply.status != 200:
            raise refusal_in(reply.status, await reply.read_all(ERROR_BYTES))
        loop = asyncio.get_running_loop()
        while chunk := await reply.read():
            reply.expect(loop.time() + FILE_SILENCE_S, silence_words(FILE_SILENCE_S))
            yield chunk
    finally:
        reply.release()
        upstream.close()


async def open_gateway(
    upstream: Upstream,
    gateway: GatewayDoor,
    method: str,
    path: str,
    *,
    body: bytes | None,
    wait_s: float,
    headers: Headers = (),
) -> Reply:
    """The reply once its headers are there. Raises GatewayUnreachable, or UpstreamTimeout after `wait_s`."""
    origin = _origin(gateway.address)
    sent = [*headers]
    if body is not None:
        sent.append((b"content-type", b"application/json"))
    elif method != "GET":
        sent.append((b"content-length", b"0"))
    if gateway.key is not None:
        sent.append((b"authorization", b"Bearer " + gateway.key.encode()))
    try:
        return await upstream.open(
            origin,
            head=request_head(origin, method.encode(), path.encode(), sent),
            body=body,
            connect_s=CONNECT_S,
            due=asyncio.get_running_loop().time() + wait_s,
            due_what=silence_words(wait_s),
        )
    except UpstreamUnreachable as error:
        raise GatewayUnreachable(
            f"no gateway answers at {gateway.address}: start one with 'simsa up' or 'simsa serve', "
            "or name another address"
        ) from error


def silence_words(silence_s: float) -> str:
    return f"nothing for {silence_s:g} s"


def refusal_in(status: int, body: bytes) -> GatewayRefused:
    """An error answer as an exception, whatever sent it."""
    try:
        error = msgspec.json.decode(body)["error"]
        return GatewayRefused(status, str(error["message"]), error.get("code"))
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        return GatewayRefused(status, f"the address answered with status {status}; is it a Simsa gateway?", None)


def _origin(address: str) -> Origin:
    try:
        return parse_origin(address)
    except ValueError as error:
        raise GatewayUnreachable(
            f"'{address}' is no address of a gateway: expected something like http://127.0.0.1:8080"
        ) from error
