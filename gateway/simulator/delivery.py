"""Brings a simulated engine's answers to their client, whole or as a stream, for as long as the client is there.

Waits for answers and writes what they have to say; how a chunk looks is decided in `replies`, when tokens
come in `engine`.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.simulator.engine import Engine
from gateway.simulator.replies import Json, StreamedReply


class AnswerResponse(Response):
    """Runs the answers of one reply while its client is there; frees what they hold when it leaves."""

    def __init__(self, engine: Engine, reply: StreamedReply, news: asyncio.Event) -> None:
        super().__init__()
        self._engine = engine
        self._reply = reply
        self._news = news

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for answer in self._reply.answers:
            self._engine.submit(answer)
        send_reply = self._send_stream if self._reply.ask.stream else self._send_body
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_client_left(receive))
                sender = group.create_task(send_reply(send))
                await asyncio.wait({watcher, sender}, return_when=asyncio.FIRST_COMPLETED)
                watcher.cancel()
                sender.cancel()
        finally:
            for answer in self._reply.answers:
                self._engine.leave(answer)

    async def _send_body(self, send: Send) -> None:
        while not self._reply.is_finished:
            await self._news.wait()
            self._news.clear()
        content = msgspec.json.encode(self._reply.body())
        await _start(send, b"application/json", length=len(content))
        await send({"type": "http.response.body", "body": content})

    async def _send_stream(self, send: Send) -> None:
        await _start(send, b"text/event-stream; charset=utf-8")
        sent = [0] * len(self._reply.answers)
        ended: set[int] = set()
        opening = self._reply.opening()
        while len(ended) < len(sent):
            await self._news.wait()
            self._news.clear()
            events = opening + [event for index in range(len(sent)) for event in self._news_of(index, sent, ended)]
            opening = []
            await self._send_events(send, events)
        await self._send_events(send, self._reply.ending())
        await send({"type": "http.response.body", "body": self._reply.terminator})

    async def _send_events(self, send: Send, events: list[Json]) -> None:
        """All of `events` in one write: a client that reads slowly gets fewer and larger ones."""
        if events:
            body = b"".join(map(self._reply.frame, events))
            await send({"type": "http.response.body", "body": body, "more_body": True})

    def _news_of(self, index: int, sent: list[int], ended: set[int]) -> list[Json]:
        """The chunks for what one answer has got since; `sent` and `ended` are kept up."""
        if index in ended:
            return []
        answer = self._reply.answers[index]
        is_last = answer.finish_reason is not None
        pieces = answer.drain()
        chunks = self._reply.chunks(index, pieces, started=sent[index], is_last=is_last)
        if pieces:
            sent[index] = pieces[-1].tokens
        if is_last:
            ended.add(index)
        return chunks


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, content_type: bytes, *, length: int | None = None) -> None:
    headers = [(b"content-type", content_type)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
