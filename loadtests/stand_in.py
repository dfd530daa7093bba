"""`python -m loadtests.stand_in`: an engine with a known schedule, which writes down when it sent what.

It shows what a client of load tests can send and read. It generates nothing: events are ready-made bytes, sent when
they are due, each a write of its own. Its log has a line for every answer with the moments of CLOCK_MONOTONIC, which
all processes of a machine share. An engine that behaves as a real one is `gateway.simulator`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import IO, cast

import httptools
import msgspec
import uvloop

MODEL = "stand-in"
OWNER = "simsa-simulator"
"""As the simulated engine: what comes from here can never count as real."""
PROMPT_TOKENS = 12
TEXT = "가나 "
"""What every event with a token says: three characters."""


class SentAnswer(msgspec.Struct, frozen=True):
    """One line of the log. Moments are seconds of CLOCK_MONOTONIC."""

    id: str
    """As `x-request-id` of the answer."""
    received_s: float
    """When the request was complete."""
    sent_s: list[float]
    """Just before each event with a token was written."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When tokens come, and how many where a request does not say."""

    first_s: float
    gap_s: float
    tokens: int


def _event(kind: str, choices: list[object], **fields: object) -> bytes:
    body = {"id": "chatcmpl-0", "object": kind, "created": 1767225600, "model": MODEL, "choices": choices, **fields}
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Shapes:
    """The ready-made bytes of one route's streams."""

    def __init__(self, kind: str, part: Callable[[str], dict[str, object]], opening: bytes) -> None:
        """`part`: how a choice says a text. `opening`: what stands before the first token."""
        self._kind = kind
        self.opening = _chunked(opening) if opening else b""
        choice = {"index": 0, **part(TEXT), "logprobs": None, "finish_reason": None}
        self.token = _chunked(_event(kind, [choice]))
        last = {"index": 0, **part(""), "logprobs": None, "finish_reason": "length", "stop_reason": None}
        self._finish = _event(kind, [last])

    def ending(self, tokens: int) -> bytes:
        """All that comes after the last token, as one write, the way an engine's last step sends it."""
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}
        events = (self._finish, _event(self._kind, [], usage=usage), b"data: [DONE]\n\n")
        return b"".join(_chunked(event) for event in events) + b"0\r\n\r\n"


CHAT = Shapes(
    "chat.completion.chunk",
    lambda text: {"delta": {"content": text}},
    _event("chat.completion.chunk", [{"index": 0, "delta": {"role": "assistant", "content": ""}}]),
)
COMPLETIONS = Shapes("text_completion", lambda text: {"text": text}, b"")
SHAPES = {b"/v1/chat/completions": CHAT, b"/v1/completions": COMPLETIONS}


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


_CARD = {
    "id": MODEL,
    "object": "model",
    "created": 1767225600,
    "owned_by": OWNER,
    "root": MODEL,
    "max_model_len": 131072,
}
_PLAIN = {
    b"/health": _whole(b""),
    b"/v1/models": _whole(msgspec.json.encode({"object": "list", "data": [_CARD]})),
}
_NOT_FOUND = _whole(b'{"detail":"Not Found"}', b"404 Not Found")


class _Asked(msgspec.Struct):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_ASKED = msgspec.json.Decoder(_Asked)


@dataclass
class StandIn:
    """The engine: its schedule, and the log of what it sent."""

    schedule: Schedule
    log: IO[bytes] | None = None
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def write_down(self, answer: SentAnswer) -> None:
        if self.log is not None:
            self.log.write(msgspec.json.encode(answer) + b"\n")


class Stream:
    """One answer on its way. A moment that was missed is made good at once, so the schedule never moves."""

    __slots__ = ("_connection", "_due_s", "_id", "_left", "_loop", "_received_s", "_sent_s", "_shapes", "_timer")

    def __init__(self, connection: Connection, shapes: Shapes, answer_id: str, received_s: float, tokens: int) -> None:
        self._connection = connection
        self._shapes = shapes
        self._id = answer_id
        self._received_s = received_s
        self._left = tokens
        self._sent_s: list[float] = []
        self._due_s = received_s + connection.engine.schedule.first_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(max(0.0, self._due_s - perf_counter()), self._send)

    def stop(self) -> None:
        self._timer.cancel()

    def _send(self) -> None:
        connection = self._connection
        gap_s = connection.engine.schedule.gap_s
        now_s = perf_counter()
        while self._left and self._due_s <= now_s + 0.0005:  # the loop's timers count whole milliseconds
            now_s = perf_counter()
            connection.write(self._shapes.token)
            self._sent_s.append(now_s)
            self._due_s += gap_s
            self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(max(0.0, self._due_s - perf_counter()), self._send)
            return
        connection.write(self._shapes.ending(len(self._sent_s)))
        connection.engine.write_down(SentAnswer(self._id, self._received_s, self._sent_s))
        connection.stream = None


class Connection(asyncio.Protocol):
    """One client's connection, kept alive; a request at a time."""

    def __init__(self, engine: StandIn) -> None:
        self.engine = engine
        self.stream: Stream | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._socket = -1
        self._url = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._socket = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.stream is not None:
            self.stream.stop()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.write(_whole(b"", b"400 Bad Request"))
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        received_s = perf_counter()
        shapes = SHAPES.get(self._url)
        if shapes is None:
            self.write(_PLAIN.get(self._url, _NOT_FOUND))
            if self._transport is not None and not self._parser.should_keep_alive():
                self._transport.close()
            return
        asked = _ASKED.decode(b"".join(self._body))
        tokens = asked.max_completion_tokens or asked.max_tokens or self.engine.schedule.tokens
        answer_id = f"stand-in-{next(self.engine.numbers)}"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: %b\r\n"
        self.write(head % answer_id.encode() + b"transfer-encoding: chunked\r\n\r\n" + shapes.opening)
        self.stream = Stream(self, shapes, answer_id, received_s, tokens)

    def write(self, data: bytes) -> None:
        """At once: the loop's own transport would write at the end of its turn, after the moment that is noted."""
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() == 0:
            try:
                data = data[os.write(self._socket, data) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # the client has left; the loop will say so
        if data:
            self._transport.write(data)


async def serve(engine: StandIn, host: str, port: int) -> None:
    """Listen until SIGINT or SIGTERM; the first line on stdout is the port."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with await loop.create_server(lambda: Connection(engine), host, port, backlog=4096) as server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await stopped.wait()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.stand_in", description="An engine with a known schedule."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; the first line of output names it")
    parser.add_argument("--first-ms", type=float, default=50.0, help="from the request to the first token")
    parser.add_argument("--gap-ms", type=float, default=10.0, help="between one token and the next")
    parser.add_argument("--tokens", type=int, default=100, help="of an answer whose request names no max_tokens")
    parser.add_argument("--log", type=Path, help="file for a line an answer, begun anew")
    parser.add_argument("--cpu", type=int, help="core to stay on")
    options = parser.parse_args(arguments)
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    log = None if options.log is None else options.log.open("wb")
    engine = StandIn(Schedule(options.first_ms / 1000, options.gap_ms / 1000, options.tokens), log)
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(engine, options.host, options.port))
    finally:
        if log is not None:
            log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
