"""What routes of our own have in common in how they answer: the refusals that OpenAPI tells of, and files in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse

from gateway.api.schemas import ErrorAnswer

Documented = dict[int | str, dict[str, Any]]


def refused(words: str) -> dict[str, Any]:
    return {"model": ErrorAnswer, "description": words}


REFUSALS: Documented = {
    400: refused("the request is not valid; nothing was asked"),
    401: refused("missing or invalid key"),
    403: refused("the key does not reach so far"),
    503: refused("shutting down, or the database is away"),
    "default": refused("any other failure"),
}
NOT_FOUND: Documented = {404: refused("there is no such thing")}
TOO_LARGE: Documented = {413: refused("the body is too large")}
FILE: Documented = {200: {"content": {"application/x-ndjson": {}, "text/csv": {}}, "description": "a file"}}


async def send_file(pieces: AsyncGenerator[bytes, None], *, name: str, kind: str) -> StreamingResponse:
    """A file in pieces. What fails before the first one raises: a status, not a file that is cut."""
    first = await anext(pieces, b"")
    headers = {"content-disposition": f'attachment; filename="{name}"', "x-accel-buffering": "no"}
    return StreamingResponse(_joined(first, pieces), media_type=kind, headers=headers)


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece
