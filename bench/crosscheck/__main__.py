"""`make loadtest-crosscheck`: rounds of three runs in drawn order, in a closed loop, then at a constant rate; then
docs/loadtest-crosscheck.json and its tables.

Progress goes to stderr. Exit code 0 whatever the tools say of each other: a difference is a finding, not a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench.crosscheck.page import Machine, Measured, Outcome, put_into, to_json
from bench.crosscheck.results import OURS, TOOLS, ResultUnreadable
from bench.crosscheck.tools import GUIDELLM_BIN, ROOT, VLLM_PYTHON, Bench, Settings, ToolFailed, running_bench, versions

RECORD, PAGE = ROOT / "docs" / "loadtest-crosscheck.json", ROOT / "docs" / "loadtests.md"
LOADS = (Settings(), Settings(rate_per_s=2.0, for_s=32.0))
"""Four users who ask again at once; then one request at a time, which no tool's users can crowd."""
ROUNDS = 6
SEED = 20261128
LEAST_REQUESTS = 120
"""Of the tools that count: a machine that others use may be slow while ours shows how many fit into its time."""


async def cross_check(directory: Path, settings: Settings, *, rounds: int, seed: int) -> Outcome:
    """All runs. The first of ours warms the engine up and tells how many requests make up its time; it counts for
    nothing else."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ToolFailed("the engine and its clients need a core each; this machine has one")
    draw = random.Random(seed)  # noqa: S311 - an order, not a secret
    began_at = datetime.now(UTC).isoformat(timespec="seconds")
    found = []
    async with running_bench(directory, settings, engine_core=cores[0], client_core=cores[1]) as bench:
        probe = await bench.run(OURS, "probe", seed=draw.getrandbits(40), requests=0)
        if settings.rate_per_s is not None:
            requests = round(settings.rate_per_s * settings.for_s)
        else:
            share = settings.for_s / (settings.for_s - settings.warm_up_s)
            requests = max(LEAST_REQUESTS, round(probe.answered * share))
        say(f"{requests} requests a run")
        for number in range(1, rounds + 1):
            order = draw.sample(TOOLS, len(TOOLS))
            for place, tool in enumerate(order):
                found.append(await _measured(bench, tool, number, place, draw.getrandbits(40), requests))
    machine = Machine(cores=os.cpu_count() or 0, began_at=began_at, versions=versions())
    return Outcome(machine=machine, settings=asdict(settings), requests=requests, runs=found)


async def _measured(bench: Bench, tool: str, number: int, place: int, seed: int, requests: int) -> Measured:
    before, load = bench.glance(), os.getloadavg()[0]
    shot = await bench.run(tool, f"{number}-{tool.replace(' ', '-')}", seed=seed, requests=requests)
    after = bench.glance()
    queries = (after.prefix_queries or 0) - (before.prefix_queries or 0)
    hits = (after.prefix_hits or 0) - (before.prefix_hits or 0)
    figures = shot.figures
    say(
        f"round {number}: {tool}: {figures.output_tokens_per_s:.1f} tokens/s, TTFT {figures.ttft_p50_s * 1000:.2f} ms, "
        f"TPOT {figures.tpot_p50_s * 1000:.3f} ms ({shot.answered} answered, {shot.failed} failed)"
    )
    return Measured(
        round=number, place=place, shot=shot, cached_share=hits / queries if queries else None, load_before=load
    )


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.crosscheck", description="Our figures beside two tools'.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each tool ({ROUNDS})")
    parser.add_argument("--seed", type=int, default=SEED, help="of orders and prompts")
    parser.add_argument("--keep", type=Path, help="keep every tool's files in this directory")
    parser.add_argument("--record", type=Path, default=RECORD, help="where the record goes")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page whose table is written anew")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = options_of(arguments)
    missing = [str(path) for path in (VLLM_PYTHON, GUIDELLM_BIN) if not path.exists()]
    if missing:
        say(f"{' and '.join(missing)} are not there: run `make loadtest-crosscheck`, which installs them")
        return 2
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="simsa-crosscheck-") as made:
        directory = options.keep or Path(made)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            for settings in LOADS:
                place = directory / ("open" if settings.rate_per_s else "closed")
                place.mkdir(exist_ok=True)
                outcomes.append(asyncio.run(cross_check(place, settings, rounds=options.rounds, seed=options.seed)))
        except (ToolFailed, ResultUnreadable) as error:
            say(str(error))
            return 1
        except KeyboardInterrupt:
            say("stopped: nothing is reported")
            return 130
    options.record.write_text(to_json(outcomes), encoding="utf-8")
    options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), outcomes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
