"""Traces that an open loop replays: read from a file, or made of the calls that the gateway's own records hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from gateway.call_traces import MOST_ARRIVALS, RecordedArrival, recorded_arrivals
from gateway.errors import SimsaError, StartRefused
from gateway.settings import DatabaseLimits
from gateway.store import Store
from loadtests.arrivals import TracePoint, read_trace


class TraceRefused(Exception):
    """There is no such trace, or it is none; the message says why and how to mend it."""


def trace_in(path: Path) -> list[TracePoint]:
    """The trace of a file. Raises TraceRefused."""
    try:
        points = read_trace(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TraceRefused(f"{path}: {error}") from error
    return checked(points, str(path))


def checked(points: Sequence[TracePoint], source: str) -> list[TracePoint]:
    """The same. Raises TraceRefused for a trace that cannot be replayed as a load."""
    if not points:
        raise TraceRefused(f"{source}: the trace has no request")
    if max(point.at_s for point in points) <= min(point.at_s for point in points):
        raise TraceRefused(f"{source}: all requests of the trace are of one moment; a load takes some time")
    return list(points)


async def trace_of_records(
    database: str, limits: DatabaseLimits, model: str, *, since: datetime | None = None, until: datetime | None = None
) -> list[TracePoint]:
    """The trace of a model's recorded calls, beside a running gateway or without one. Raises TraceRefused."""
    try:
        store = await Store.open_for_reading(database, limits)
    except StartRefused as error:
        raise TraceRefused(str(error)) from error
    try:
        found = await recorded_arrivals(store, model, since=since, until=until)
    except SimsaError as error:
        raise TraceRefused(error.message) from error
    finally:
        await store.close()
    if found is None:
        raise TraceRefused(f"{model} has more than {MOST_ARRIVALS:,} recorded calls: name a shorter span")
    if not found:
        raise TraceRefused(f"the records hold no call of {model} in this span")
    return checked(as_trace(found), f"the records of {model}")


def as_trace(calls: Sequence[RecordedArrival]) -> list[TracePoint]:
    """Calls in their order as moments since the first; a call without a count has no length of its own."""
    first = calls[0].at
    return [
        TracePoint((one.at - first).total_seconds(), one.prompt_tokens or None, one.completion_tokens or None)
        for one in calls
    ]


def trace_lines(points: Sequence[TracePoint]) -> bytes:
    """As a file holds it: one JSON object a line."""
    return b"".join(msgspec.json.encode(point) + b"\n" for point in points)
