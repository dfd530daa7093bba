"""What the client of load tests can read, and how true: `python -m bench.load_client` prints figures, and no verdict.

One worker on the first core, the stand-in on the last, which writes down when it sent each event. Rates rise until the
worker is too slow or too late; of each rate the client's TTFT, ITL and TPOT stand beside the stand-in's own log.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

import numpy as np

from gateway.domain.stats import percentile
from loadtests.calibration import FIRST_S, GAP_S, Level, try_level

RATES = (1000.0, 2000.0, 4000.0, 6000.0, 8000.0, 10_000.0)
TARGET, AIM = 4000.0, 8000.0
EXPLAINED = f"""\
Stand-in: first token after {FIRST_S * 1000:g} ms, then one every {GAP_S * 1000:g} ms.
Errors: the client's figure less the stand-in's own, of each request (TTFT, TPOT) or gap (ITL).
Too much: a schedule lag p99 of 10 ms, 60 % of a core, or a wrong count.
"""
HEAD = (
    f"{'events/s':>9} {'lag p99':>9} {'CPU':>6}   {'TTFT p50/p99':>16} {'ITL p50/p99':>16} {'TPOT p50/p99':>16}  tokens"
)


async def tried(rates: tuple[float, ...], for_s: float) -> float:
    """Print each rate; the highest that was not too much, in events a second."""
    cores = sorted(os.sched_getaffinity(0))
    highest = 0.0
    with tempfile.TemporaryDirectory() as place:
        for number, rate in enumerate(rates):
            level = await try_level(Path(place) / str(number), rate, for_s, cores[0], cores[-1])
            print(_line(level), flush=True)  # noqa: T201
            highest = level.events_per_s if level.passed else highest
    return highest


def _line(level: Level) -> str:
    errors = level.errors
    spans = " ".join(f"{_both(values):>16}" for values in (errors.ttft_s, errors.itl_s, errors.tpot_s))
    counts = "exact" if not level.wrong else f"{level.wrong} wrong"
    passed = "" if level.passed else "  too much"
    client = f"{level.events_per_s:>9,.0f} {level.lag_p99_s * 1000:>6.2f} ms {level.cpu_share:>6.1%}"
    return f"{client}   {spans}  {counts}{passed}"


def _both(errors_s: np.ndarray) -> str:
    absolute = np.abs(errors_s)
    return f"{percentile(absolute, 50) * 1000:.3f}/{percentile(absolute, 99) * 1000:.3f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for-s", type=float, default=8.0, help="how long each rate is held")
    asked = parser.parse_args()
    print(EXPLAINED + HEAD)  # noqa: T201
    highest = asyncio.run(tried(RATES, asked.for_s))
    print(f"most: {highest:,.0f} events/s (target {TARGET:,.0f}, aim {AIM:,.0f})")  # noqa: T201


if __name__ == "__main__":
    main()
