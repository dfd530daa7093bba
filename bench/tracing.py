"""`make bench-tracing`: what traces cost a whole answer, as a ratio to none, in alternating rounds.

Three gateways of the same code stand on one core: without a collector, with one where nothing is sampled, and with one
that gets everything. The collector only says that it took what came; it shares the other core with engine and client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import httptools
import uvloop
from rich.console import Console

from bench.against import cost_of_answers_us, costs_by_turns
from bench.gateway_process import ROOT, GatewayFailed, gateway
from bench.measure import calibration_s, fast_engine, median_interval

TIME_LIMIT_S = 900.0
OFF, UNSAMPLED, TRACED = "off", "unsampled", "traced"
_TAKEN = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"


class _Sink(asyncio.Protocol):
    """A collector that takes everything and keeps the count of bytes."""

    received_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        type(self).received_bytes += len(data)
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(_TAKEN)


@asynccontextmanager
async def collector() -> AsyncIterator[str]:
    """The sink's address."""
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def measure(engine_url: str, core: int, rounds: int, requests: int, note: Console) -> dict[str, object]:
    async with asyncio.timeout(TIME_LIMIT_S), collector() as endpoint, AsyncExitStack() as stack:
        traced = {"SIMSA_OTLP_ENDPOINT": endpoint, "SIMSA_TRACE_QUEUE": "100000"}
        settings: dict[str, dict[str, str]] = {
            OFF: {},
            UNSAMPLED: {**traced, "SIMSA_TRACE_RATIO": "0"},
            TRACED: traced,
        }
        sides = {
            name: await stack.enter_async_context(gateway(engine_url, cpu=core, settings=chosen))
            for name, chosen in settings.items()
        }
        costs = await costs_by_turns(sides, cost_of_answers_us, rounds, requests, note)
    return {
        "rounds": rounds,
        "requests_a_round": requests,
        "us": {name: statistics.median(values) for name, values in costs.items()},
        "ratio_to_off_with_interval_95": {
            name: median_interval([mine / off for mine, off in zip(costs[name], costs[OFF], strict=True)])
            for name in (UNSAMPLED, TRACED)
        },
        "bytes_a_call": _Sink.received_bytes / ((rounds + 1) * requests),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tracing", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=500, help="whole answers a round")
    options = parser.parse_args(arguments)
    note = Console(stderr=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that being stopped stops the children too
    cores = sorted(os.sched_getaffinity(0))
    try:
        with fast_engine(cpu=cores[1 % len(cores)], cwd=ROOT) as (_, engine_url):
            os.sched_setaffinity(0, {cores[-1]})
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = runner.run(measure(engine_url, cores[0], options.rounds, options.requests, note))
    except (GatewayFailed, TimeoutError) as failure:
        note.print(str(failure) or f"not finished after {TIME_LIMIT_S:.0f} s", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        note.print("stopped: nothing is reported")
        return 130
    sys.stdout.write(json.dumps({**found, "calibration_us": calibration_s() * 1e6}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
