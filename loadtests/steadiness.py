"""Whether a window is of a steady load: work in flight that grows, and latencies that drift from half to half.

What follows for a repeat is `validity`'s subject.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gateway.domain.stats import percentile, percentile_interval
from loadtests.columns import Columns
from loadtests.figures import Window, due_in, in_flight_at

MOST_DRIFT = 0.25
SAMPLES = 90
"""Moments of a window at which what is in flight is counted."""
_PARTS = 3


class Growth(NamedTuple):
    """Mean in flight of the window's first and last third."""

    first: float
    last: float

    @property
    def is_overload(self) -> bool:
        return bool(self.last - self.first > max(2.0, MOST_DRIFT * max(self.first, 1.0), 3 * self.first**0.5))


def growth_of(columns: Columns, window: Window) -> Growth:
    flight = in_flight_at(columns, np.linspace(window.begin_s, window.end_s, SAMPLES, endpoint=False))
    first, *_, last = (float(part.mean()) for part in np.array_split(flight, _PARTS))
    return Growth(first, last)


class Drift(NamedTuple):
    is_sure: bool
    words: str


def drift_of(columns: Columns, window: Window) -> Drift | None:
    """Median TTFT of the halves; sure where it moved too far and the intervals of both do not meet."""
    middle = window.begin_s + window.span_s / 2
    ttft = columns.first_s - columns.sent_s
    halves = []
    for half in (Window(window.begin_s, middle), Window(middle, window.end_s)):
        values = ttft[due_in(columns, half) & columns.is_ok]
        values = values[np.isfinite(values)]
        interval = percentile_interval(values, 50) if values.size else None
        if interval is None:
            return None
        halves.append((percentile(values, 50), interval))
    (before, low), (after, high) = halves
    moved = abs(after - before) / before if before > 0 else 0.0
    apart = low.high < high.low or high.high < low.low
    words = f"median TTFT {before * 1000:.1f} ms, then {after * 1000:.1f} ms"
    return Drift(moved > MOST_DRIFT and apart, words)
