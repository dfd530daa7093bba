"""A stand-in engine as fast as Python allows, so that a benchmark measures the gateway and not its engine.

It speaks just enough of vLLM's protocol to be served by the gateway: canned whole answers, and streams whose events
are each an individual write at a steady rate, stamped with the moment they were sent. It computes nothing and checks
nothing; a test that needs an engine's behaviour belongs to the simulated engine or to tests/engines.py.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
from collections import deque
from time import perf_counter
from typing import cast

import httptools
import uvloop

MODEL = "bench"
TICK_S = 0.002
DEFAULT_EVENTS = 32
DEFAULT_RATE_PER_S = 50.0

_HEAD = b"HTTP/1.1 %s\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: %s\r\n"
_STREAM_HEAD = _HEAD % (b"200 OK", b"text/event-stream; charset=utf-8") + b"transfer-encoding: chunked\r\n\r\n"
_CHUNK_OPEN = (
    '{"id":"chatcmpl-b5d1f0a2c3e4495b8a7d6c5e4f3a2b1c","object":"chat.completion.chunk","created":1767225600,'
    f'"model":"{MODEL}","choices":['
).encode()
_EVENT_OPEN = b"data: " + _CHUNK_OPEN + b'{"index":0,"delta":{"content":"'
_EVENT_CLOSE = b'"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
_ROLE = (
    b"data: "
    + _CHUNK_OPEN
    + b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
    + b'"prompt_token_ids":null}\n\n'
)
_FINISH = (
    b"data: "
    + _CHUNK_OPEN
    + b'{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length","stop_reason":null}]}\n\n'
)
_METRICS = (
    "# TYPE vllm:num_requests_running gauge\n"
    f'vllm:num_requests_running{{engine="0",model_name="{MODEL}"}} 0.0\n'
    "# TYPE vllm:num_requests_waiting gauge\n"
    f'vllm:num_requests_waiting{{engine="0",model_name="{MODEL}"}} 0.0\n'
    "# TYPE vllm:kv_cache_usage_perc gauge\n"
    f'vllm:kv_cache_usage_perc{{engine="0",model_name="{MODEL}"}} 0.0\n'
).encode()


def _whole(body: bytes, content_type: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    return _HEAD % (status, content_type) + b"content-length: %d\r\n\r\n" % len(body) + body


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


_ANSWER = _whole(
    _json(
        {
            "id": "chatcmpl-b5d1f0a2c3e4495b8a7d6c5e4f3a2b1c",
            "object": "chat.completion",
            "created": 1767225600,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "A canned answer of about thirty tokens, long enough to look like one sentence "
                        "of a model and short enough that copying it costs next to nothing at all.",
                        "refusal": None,
                        "annotations": None,
                        "audio": None,
                        "function_call": None,
                        "tool_calls": [],
                        "reasoning": None,
                    },
                    "logprobs": None,
                    "finish_reason": "stop",
                    "stop_reason": None,
                    "token_ids": None,
                }
            ],
            "service_tier": None,
            "system_fingerprint": None,
            "usage": {
                "prompt_tokens": 12,
                "total_tokens": 44,
                "completion_tokens": 32,
                "prompt_tokens_details": None,
            },
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "kv_transfer_params": None,
        }
    )
)
_MODELS = _whole(
    _json(
        {
            "object": "list",
            "data": [
                {
                    "id": MODEL,
                    "object": "model",
                    "created": 1767225600,
                    "owned_by": "vllm",
                    "root": MODEL,
                    "parent": None,
                    "max_model_len": 32768,
                    "permission": [],
                }
            ],
        }
    )
)
_PLAIN = {
    b"/health": _whole(b""),
    b"/v1/models": _MODELS,
    b"/metrics": _whole(_METRICS, b"text/plain; version=0.0.4; charset=utf-8"),
    b"/version": _whole(b'{"version":"0.32.0"}'),
}
_NOT_FOUND = _whole(b'{"detail":"Not Found"}', status=b"404 Not Found")


def _ending(events: int, *, with_usage: bool) -> bytes:
    """Everything after the last token event, as one write, the way an engine's last step sends it."""
    usage = b""
    if with_usage:
        totals = b'{"prompt_tokens":12,"total_tokens":%d,"completion_tokens":%d}' % (events + 12, events)
        usage = _chunked(b"data: " + _CHUNK_OPEN + b'],"usage":' + totals + b"}\n\n")
    return _chunked(_FINISH) + usage + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Wheel:
    """One timer for every stream of a rate: each tick serves one slot, so the writes are spread over the period."""

    def __init__(self, rate_per_s: float) -> None:
        self._slots: list[set[Stream]] = [set() for _ in range(max(1, round(1 / rate_per_s / TICK_S)))]
        self._tick_s = 1 / rate_per_s / len(self._slots)
        self._next_slot = 0
        self._due_s = 0.0
        self._count = 0

    def add(self, stream: Stream) -> None:
        stream.slot = min(self._slots, key=len)
        stream.slot.add(stream)
        self._count += 1
        if self._count == 1:
            self._due_s = perf_counter() + self._tick_s
            asyncio.get_running_loop().call_later(self._tick_s, self._turn)

    def remove(self, stream: Stream) -> None:
        if stream.slot is not None:
            stream.slot.discard(stream)
            stream.slot = None
            self._count -= 1

    def _turn(self) -> None:
        """Serve every slot that is due; a late tick catches up, so the rate holds."""
        while self._due_s <= perf_counter():
            slot = self._slots[self._next_slot]
            self._next_slot = (self._next_slot + 1) % len(self._slots)
            self._due_s += self._tick_s
            for stream in tuple(slot):
                stream.send()
        if self._count:
            asyncio.get_running_loop().call_later(max(0.0, self._due_s - perf_counter()), self._turn)


class Stream:
    """One reply that is being streamed: what is still to be sent and in which slot of its wheel."""

    __slots__ = ("_connection", "_events", "_left", "_wheel", "_with_usage", "slot")

    def __init__(self, connection: Connection, wheel: Wheel, events: int, *, with_usage: bool) -> None:
        self._connection = connection
        self._wheel = wheel
        self._events = self._left = events
        self._with_usage = with_usage
        self.slot: set[Stream] | None = None

    def send(self) -> None:
        """Write one event stamped with perf_counter seconds; after the last one, the ending."""
        event = b"%b%.6f%b" % (_EVENT_OPEN, perf_counter(), _EVENT_CLOSE)
        self._connection.write(b"%x\r\n%b\r\n" % (len(event), event))
        self._left -= 1
        if self._left == 0:
            self.stop()
            self._connection.write(_ending(self._events, with_usage=self._with_usage))
            self._connection.finished()

    def stop(self) -> None:
        self._wheel.remove(self)


class Connection(asyncio.Protocol):
    """One client connection, kept alive; requests are answered one after the other."""

    def __init__(self, wheels: dict[float, Wheel]) -> None:
        self._wheels = wheels
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._stream: Stream | None = None
        self._waiting: deque[tuple[bytes, bytes]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._stream is not None:
            self._stream.stop()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.write(_whole(b"", status=b"400 Bad Request"))
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
        request = (self._url, b"".join(self._body))
        if self._stream is not None:
            self._waiting.append(request)
        else:
            self._answer(*request)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def finished(self) -> None:
        """A stream has ended: the connection may answer what was pipelined behind it."""
        self._stream = None
        while self._waiting and self._stream is None:
            self._answer(*self._waiting.popleft())

    def _answer(self, url: bytes, body: bytes) -> None:
        if url != b"/v1/chat/completions":
            self.write(_PLAIN.get(url, _NOT_FOUND))
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._open_stream(json.loads(body))
        else:
            self.write(_ANSWER)

    def _open_stream(self, request: dict[str, object]) -> None:
        """`max_tokens` gives the number of events, `bench_rate` the events per second (this engine's own extra)."""
        rate, events = request.get("bench_rate"), request.get("max_tokens")
        rate_per_s = float(rate) if isinstance(rate, int | float) else DEFAULT_RATE_PER_S
        options = request.get("stream_options")
        self.write(_STREAM_HEAD + _chunked(_ROLE))
        wheel = self._wheels.setdefault(rate_per_s, Wheel(rate_per_s))
        self._stream = Stream(
            self,
            wheel,
            events if isinstance(events, int) else DEFAULT_EVENTS,
            with_usage=isinstance(options, dict) and options.get("include_usage") is True,
        )
        wheel.add(self._stream)


async def serve(port: int) -> None:
    """Listen on loopback until cancelled; the first line on stdout is the port."""
    wheels: dict[float, Wheel] = {}
    server = await asyncio.get_running_loop().create_server(lambda: Connection(wheels), "127.0.0.1", port, backlog=2048)
    async with server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0, help="TCP port on loopback; 0 takes a free one")
    parser.add_argument("--cpu", type=int, help="core to stay on")
    options = parser.parse_args()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve(options.port))
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
