"""The proof that an engine not only says that it is well but generates: one token, asked for before it gets calls.

Some engines load, answer /health with 200, and die of their first request. When to ask, and what follows from the
answer, is the fleet's. The token is no call: nobody asked for it, so nothing is recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from gateway.engine_answers import message_in
from gateway.errors import UpstreamError
from gateway.upstream import Origin, Upstream

_LONGEST_ANSWER = 1024 * 1024
_OVERLOADED = 503


async def ask_for_a_token(
    upstream: Upstream,
    origin: Origin,
    *,
    head: bytes,
    served_model_name: str,
    connect_s: float,
    within_s: float,
    hide_key: Callable[[bytes], bytes],
) -> None:
    """POST a completion of one token, with `head` of `upstream.request_head`; `hide_key` takes it out of error words.

    Raises UpstreamError when the engine fails at it or takes no connection within `connect_s` seconds, UpstreamTimeout
    after `within_s` seconds in all. A refusal proves that it is alive as well as a token does: 4xx from one that does
    not complete text, 503 from one that is full.
    """
    body = msgspec.json.encode(
        {"model": served_model_name, "prompt": "1", "max_tokens": 1, "temperature": 0, "user": "simsa-first-token"}
    )
    reply = await upstream.open(
        origin,
        head=head,
        body=body,
        connect_s=connect_s,
        due=asyncio.get_running_loop().time() + within_s,
        due_what=f"no first token within {within_s:g} s",
    )
    try:
        status, answer = reply.status, await reply.read_all(_LONGEST_ANSWER)
    finally:
        reply.release()
    if status >= 500 and status != _OVERLOADED:
        words = message_in(hide_key(answer))
        raise UpstreamError(f"it is healthy, but answered {status} when asked for one token: {words}")
