"""Files that routes of our own send in pieces, with a status instead of a cut file where the first one fails."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse

FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-ndjson": {}, "text/csv": {}}, "description": "a file"}
}


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
