"""`make bench-against`: what an answer costs this gateway, as a ratio to another commit's, in alternating rounds.

A figure in microseconds is the machine's as much as the gateway's, and a shared machine changes from minute to minute.
Two versions that are asked in turn, many short rounds each, meet the same machine: their ratio is the code's own. The
caller has a key with every limit where the version knows keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import uvloop
from rich.console import Console

from bench import load
from bench.fast_engine import MODEL
from bench.figures import CLIENTS
from bench.gateway_process import ROOT, Gateway, GatewayFailed, gateway
from bench.measure import calibration_s, cpu_s, fast_engine, median_interval

TIME_LIMIT_S = 900.0
FIRST_LIGHT = "b0bd43f"
"""The commit of the first published figures (196 us), before keys, limits, admission and the other routes."""


async def costs_by_turns(
    sides: Mapping[str, Gateway], cost_us: Cost, rounds: int, requests: int, note: Console
) -> dict[str, list[float]]:
    """The cost of each side in every round; which of them begins changes from round to round."""
    costs: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(-1, rounds):
        for name in sorted(sides, reverse=round_ % 2 == 0):
            cost = await cost_us(sides[name], requests)
            if round_ >= 0:  # the round before the first warms up
                costs[name].append(cost)
        if round_ % 10 == 9:
            note.print(f"  {round_ + 1} of {rounds} rounds", style="dim", highlight=False)
    return costs


async def measure(
    engine_url: str, core: int, other: Path, rounds: int, requests: int, note: Console, cost_us: Cost
) -> dict[str, object]:
    async with asyncio.timeout(TIME_LIMIT_S), AsyncExitStack() as stack:
        sides: dict[str, Gateway] = {
            name: await stack.enter_async_context(gateway(engine_url, cpu=core, tree=tree))
            for name, tree in (("other", other), ("this", ROOT))
        }
        costs = await costs_by_turns(sides, cost_us, rounds, requests, note)
    ratio, low, high = median_interval([this / that for this, that in zip(costs["this"], costs["other"], strict=True)])
    return {
        "ratio": ratio,
        "interval_95": [low, high],
        "rounds": rounds,
        "requests_a_round": requests,
        **{f"{name}_us": statistics.median(values) for name, values in costs.items()},
    }


async def cost_of_answers_us(side: Gateway, requests: int) -> float:
    """CPU time of the gateway a whole answer."""
    before_s = cpu_s(side.pid)
    result = await load.whole_answers(side.target, MODEL, clients=CLIENTS, count=requests)
    if result.errors:
        raise GatewayFailed(f"not every answer was right: {dict(result.errors)}")
    return (cpu_s(side.pid) - before_s) / requests * 1e6


async def cost_of_events_us(side: Gateway, requests: int) -> float:
    """CPU time of the gateway an event, of a hundred streams of fifty events a second for `requests` / 100 seconds."""
    before_s = cpu_s(side.pid)
    result = await load.streams(side.target, MODEL, count=100, rate_per_s=50.0, seconds=requests / 100)
    if result.errors:
        raise GatewayFailed(f"not every stream was right: {dict(result.errors)}")
    return (cpu_s(side.pid) - before_s) / result.events * 1e6


Cost = Callable[[Gateway, int], Awaitable[float]]
COSTS: dict[str, Cost] = {"answers": cost_of_answers_us, "events": cost_of_events_us}


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The tree of a commit, in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="simsa-against-") as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
        if archive.returncode:
            raise GatewayFailed(f"git knows no commit '{commit}': {archive.stderr.decode(errors='replace').strip()}")
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__.split("\n")[0])
    parser.add_argument("commit", nargs="?", default=FIRST_LIGHT, help="what to compare with (default: %(default)s)")
    parser.add_argument("--of", choices=COSTS, default="answers", help="whole answers, or the events of streams")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=500, help="whole answers a round")
    options = parser.parse_args(arguments)
    note = Console(stderr=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that being stopped stops the children too
    cores = sorted(os.sched_getaffinity(0))
    try:
        with checked_out(options.commit) as other, fast_engine(cpu=cores[1 % len(cores)], cwd=ROOT) as (_, engine_url):
            os.sched_setaffinity(0, {cores[-1]})
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = runner.run(
                    measure(engine_url, cores[0], other, options.rounds, options.requests, note, COSTS[options.of])
                )
    except (GatewayFailed, TimeoutError) as failure:
        note.print(str(failure) or f"not finished after {TIME_LIMIT_S:.0f} s", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        note.print("stopped: nothing is reported")
        return 130
    report = {"against": options.commit, "of": options.of, **found, "calibration_us": calibration_s() * 1e6}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
