"""The questions that every architecture is asked, with answers that random weights give alike each time."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import pytest
from architectures_shown import CANDIDATES
from clients import RawClient
from real_engines import RealEngine

LIMIT = 24
QUESTION = "전입신고는 어떻게 하나요? 뷁 🙂"
WITH_USAGE = {"stream_options": {"include_usage": True}}
everyone = pytest.mark.parametrize("model_id", list(CANDIDATES))
"""For a test of every stand-in."""


def ask(model_id: str, **changes: Any) -> dict[str, Any]:
    """The same question, its answer fixed and of LIMIT tokens.

    By a seed, not by temperature 0: the likeliest token of random weights is always the same, also in a grammar.
    """
    turns = [{"role": "user", "content": QUESTION}]
    fixed = {"max_tokens": LIMIT, "ignore_eos": True, "temperature": 1, "seed": 7}
    return {"model": model_id, "messages": turns, **fixed, **changes}


def reasoning_off(model_id: str) -> dict[str, Any]:
    """A grammar holds only once reasoning has ended, which random weights never do by themselves."""
    switch = CANDIDATES[model_id].reasoning
    return {"chat_template_kwargs": {switch.name: False}} if switch is not None else {}


def message_of(answer: Any) -> dict[str, Any]:
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


def said_in(answer: Any) -> str:
    """All that a whole answer says, thoughts first."""
    message = message_of(answer)
    return (message.get("reasoning") or "") + (message["content"] or "")


async def prompt_length(engine: RealEngine, turns: list[dict[str, Any]], **settings: Any) -> int:
    """How many tokens the engine makes of a conversation, by its tokenizer and not by an answer's usage."""
    return len(await _tokenized(engine, {"messages": turns, **settings}))


async def tokens_of(engine: RealEngine, text: str) -> list[int]:
    return await _tokenized(engine, {"prompt": text, "add_special_tokens": False})


async def _tokenized(engine: RealEngine, body: dict[str, Any]) -> list[int]:
    async with RawClient(engine.url) as client:
        answer = await client.request("POST", "/tokenize", body={"model": engine.model_id, **body})
    assert answer.status == 200, answer.body
    tokens: list[int] = answer.json()["tokens"]
    return tokens


def with_picture(text: str, width: int, height: int) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(png(width, height, b"\xf0\x80\x10")).decode()
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}],
    }


def png(width: int, height: int, colour: bytes) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + colour * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
