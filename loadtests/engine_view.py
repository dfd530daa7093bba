"""The engines' own view of a run: their gauges and counters, read every second, and laid beside the client's.

Only what engines say of themselves; what it means for a cell's validity is `validity`'s subject. Engines that cannot
be read are no fault of a run: then nothing is known of them, and the checks say so.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import msgspec

from gateway.domain.engine_facts import EngineGlance
from gateway.engine_reports import read_glance
from gateway.errors import UpstreamError
from gateway.upstream import Origin, Upstream, parse_origin
from loadtests.cells import TimelinePoint
from loadtests.figures import Window
from loadtests.validity import EngineWindow

PERIOD_S = 1.0
TIMEOUT_S = 5.0
SILENT_READINGS = 2
MOST_AGE_S = 5.0
"""How old a reading may be for a second of the timeline."""


class Reading(NamedTuple):
    """All engines at one moment; None for one that did not answer."""

    at_s: float
    """Wall clock, seconds since the epoch."""
    glances: tuple[EngineGlance | None, ...]


@dataclass(slots=True)
class EngineWatch:
    """Reads engines until it is cancelled. One a run."""

    addresses: Sequence[str]
    wall: Callable[[], float] = time.time
    readings: list[Reading] = field(default_factory=list)

    async def run(self) -> None:
        """Read all engines at once, every `PERIOD_S`, until cancelled."""
        upstream = Upstream(idle_connections=len(self.addresses), now=time.perf_counter)
        origins = [parse_origin(address) for address in self.addresses]
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while origins:
                at = self.wall()
                glances = await asyncio.gather(*(_read(upstream, origin) for origin in origins))
                self.readings.append(Reading(at, tuple(glances)))
                due = max(due + PERIOD_S, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            upstream.close()

    def between(self, begin_s: float, end_s: float) -> list[Reading]:
        """The readings from one wall clock moment to another, and the last before: what they are counted from."""
        before = [one for one in self.readings if begin_s - MOST_AGE_S < one.at_s < begin_s]
        return before[-1:] + [one for one in self.readings if begin_s <= one.at_s < end_s]


async def _read(upstream: Upstream, origin: Origin) -> EngineGlance | None:
    try:
        status, body = await upstream.fetch(origin, b"/metrics", headers=(), timeout_s=TIMEOUT_S)
        return read_glance(body) if status == 200 else None
    except (UpstreamError, ValueError):
        return None


def window_of(readings: Sequence[Reading], began_at_s: float, window: Window) -> EngineWindow:
    """What engines said of a window: how much they held, what their prefix caches gave, whether one began anew."""
    inside = [one for one in readings if window.begin_s <= one.at_s - began_at_s < window.end_s]
    held = [_held(one) for one in inside]
    known = [value for value in held if value is not None]
    return EngineWindow(
        running_and_waiting=float(median(known)) if known else None,
        prefix_hit_share=_hit_share(inside),
        restarts=restarts_in(readings) if any(any(one.glances) for one in readings) else None,
        gone=_gone_in(readings),
        readings=len(inside),
        unanswered=sum(None in one.glances for one in inside),
    )


def restarts_in(readings: Sequence[Reading]) -> int:
    """How often an engine's process was another one than at the reading before."""
    return sum(restarts_of_each(readings))


def restarts_of_each(readings: Sequence[Reading]) -> list[int]:
    """The same by engine, in the order in which they are read."""
    found = []
    for seen in _by_engine(readings):
        known = [glance for glance in seen if glance is not None]
        found.append(sum(_began_anew(before, after) for before, after in itertools.pairwise(known)))
    return found


def _gone_in(readings: Sequence[Reading]) -> int:
    """How many engines answered and were silent in the last readings: one alone may have come too late."""
    return sum(any(seen) and not any(seen[-SILENT_READINGS:]) for seen in _by_engine(readings))


def _by_engine(readings: Sequence[Reading]) -> list[tuple[EngineGlance | None, ...]]:
    return list(zip(*(one.glances for one in readings), strict=True))


def _began_anew(before: EngineGlance, after: EngineGlance) -> bool:
    if before.started_at_s is not None and after.started_at_s is not None:
        return abs(after.started_at_s - before.started_at_s) > 1
    counters = ("generation_tokens", "prompt_tokens", "preemptions")
    pairs = [(getattr(before, name), getattr(after, name)) for name in counters]
    return any(b is not None and a is not None and a < b for b, a in pairs)


def join_timeline(
    points: Sequence[TimelinePoint], readings: Sequence[Reading], began_at_s: float
) -> list[TimelinePoint]:
    """The client's seconds with what engines last said at or before the end of each."""
    if not readings:
        return list(points)
    joined = []
    first = next((one for one in readings if all(one.glances)), None)
    position = -1
    for point in points:
        end = began_at_s + point.at_s + 1
        while position + 1 < len(readings) and readings[position + 1].at_s <= end:
            position += 1
        reading = readings[position] if position >= 0 else None
        if reading is None or end - reading.at_s > MOST_AGE_S:
            joined.append(point)
        else:
            joined.append(msgspec.structs.replace(point, **_said(reading, first)))
    return joined


def _said(reading: Reading, first: Reading | None) -> dict[str, float | int | None]:
    queries, hits = _since(reading, first, "prefix_queries"), _since(reading, first, "prefix_hits")
    kv_usages = [one.kv_usage for one in reading.glances if one is not None and one.kv_usage is not None]
    return {
        "engine_running": _sum(reading, "running"),
        "engine_waiting": _sum(reading, "waiting"),
        "engine_kv_usage": max(kv_usages, default=None),
        "engine_preemptions": _since(reading, first, "preemptions"),
        "engine_generation_tokens": _since(reading, first, "generation_tokens"),
        "engine_prefix_hit_share": hits / queries if queries and hits is not None else None,
    }


def _sum(reading: Reading, name: str) -> int | None:
    """Over all engines; None where one does not say."""
    values = [None if one is None else getattr(one, name) for one in reading.glances]
    return None if None in values or not values else sum(value for value in values if value is not None)


def _since(reading: Reading, first: Reading | None, name: str) -> int | None:
    if first is None:
        return None
    now, before = _sum(reading, name), _sum(first, name)
    return None if now is None or before is None or now < before else now - before


def _held(reading: Reading) -> float | None:
    running, waiting = _sum(reading, "running"), _sum(reading, "waiting")
    return None if running is None else float(running + (waiting or 0))


def _hit_share(readings: Sequence[Reading]) -> float | None:
    if len(readings) < 2:
        return None
    queries = _since(readings[-1], readings[0], "prefix_queries")
    hits = _since(readings[-1], readings[0], "prefix_hits")
    return hits / queries if queries and hits is not None else None
