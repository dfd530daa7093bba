"""Which moments a load means: when each request of an open loop is due, when each user of a closed loop is there.

Pure: a seed in, arrays out. All moments are seconds from the cell's second 0. Every worker computes the whole schedule
and keeps its own share, so that the schedules of all workers together are exactly that of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtests.plan import Arrivals, Closed, Open, Rate

Moments = NDArray[np.float64]
_POISSON, _THINKING = 1, 2
"""What a seed is used for: each has a stream of its own."""
_ROUNDING = 1e-9
"""Slack for sums of rates that are whole numbers but for floating point."""


class Share(NamedTuple):
    """What one worker sends of an open loop's schedule."""

    numbers: NDArray[np.int64]
    """The place of each in the whole schedule, from 0."""
    moments: Moments


class Span(NamedTuple):
    """How long a user is there."""

    begin_s: float
    end_s: float


class TracePoint(msgspec.Struct, frozen=True):
    """One line of a trace: a request that once was."""

    at_s: float
    input_tokens: int | None = None
    output_tokens: int | None = None


def duration_s(load: Open | Closed, trace: Sequence[TracePoint] = ()) -> float:
    """How long the load lasts; that of a trace, up to its last request."""
    if isinstance(load, Closed):
        return sum(users.for_s for users in load.users)
    if load.arrivals is Arrivals.TRACE:
        return float(_traced(load, trace).max(initial=0.0))
    return sum(rate.for_s for rate in load.rates)


# --- open loop ----------------------------------------------------------------------------------------------


def moments(load: Open, seed: int, trace: Sequence[TracePoint] = ()) -> Moments:
    """When requests are due, ascending. The same load and seed give the same moments.

    POISSON: a Poisson process whose rate is the load's at every moment (unit exponential gaps, carried back through
    the sum of the rate). CONSTANT: request k when the sum of the rate reaches k, so the first comes at second 0 and a
    steady rate gives equal gaps. TRACE: those of the trace, from its first on, `speed` times as fast.
    """
    match load.arrivals:
        case Arrivals.TRACE:
            return _traced(load, trace)
        case Arrivals.CONSTANT:
            return _at_sums(load.rates, np.arange(np.ceil(_sum(load.rates) - _ROUNDING), dtype=np.float64))
        case Arrivals.POISSON:
            return _at_sums(load.rates, _unit_poisson(_sum(load.rates), np.random.default_rng([_POISSON, seed])))


def share(whole: Moments, worker: int, workers: int) -> Share:
    """The moments of worker `worker` of `workers`, from 0: every moment belongs to exactly one."""
    numbers = np.arange(worker, len(whole), workers, dtype=np.int64)
    return Share(numbers, whole[numbers])


def read_trace(text: bytes) -> list[TracePoint]:
    """One JSON object a line; the requests in the order in which they came. Raises ValueError, naming the line."""
    decoder = msgspec.json.Decoder(TracePoint)
    points = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            points.append(decoder.decode(line))
        except msgspec.DecodeError as error:
            raise ValueError(f"line {number} of the trace: expected an object with at_s: {error}") from error
    return sorted(points, key=lambda point: point.at_s)


def _traced(load: Open, trace: Sequence[TracePoint]) -> Moments:
    at_s = np.array([point.at_s for point in trace], dtype=np.float64)
    return (at_s - at_s[0]) / load.speed if len(at_s) else at_s


def _sum(rates: Sequence[Rate]) -> float:
    """How many requests the rates mean."""
    return sum((rate.begin_per_s + rate.end_per_s) / 2 * rate.for_s for rate in rates)


def _unit_poisson(until: float, draws: np.random.Generator) -> Moments:
    """A Poisson process of rate 1 on [0, until)."""
    drawn = np.empty(0)
    reached = 0.0
    while reached < until:
        left = until - reached
        more = reached + np.cumsum(draws.exponential(size=int(left + 6 * np.sqrt(left)) + 16))
        drawn = np.concatenate((drawn, more))
        reached = float(more[-1])
    return drawn[drawn < until]


def _at_sums(rates: Sequence[Rate], sums: Moments) -> Moments:
    """When the sum of the rate since second 0 reaches each of `sums`; each below the sum of all."""
    begin, end, length = (
        np.array(values, dtype=np.float64)
        for values in zip(*((rate.begin_per_s, rate.end_per_s, rate.for_s) for rate in rates), strict=True)
    )
    sum_ends = np.cumsum((begin + end) / 2 * length)
    # What reaches a span's end exactly belongs to the next one in which anything is due.
    span = np.minimum(np.searchsorted(sum_ends, sums, side="right"), len(sum_ends) - 1)
    left = np.maximum(0.0, sums - np.concatenate(([0.0], sum_ends))[span])
    slope = (end - begin) / length
    # The root of begin * t + slope * t^2 / 2 = left, in the form that does not cancel.
    root = np.sqrt(np.maximum(0.0, begin[span] ** 2 + 2 * slope[span] * left))
    below = begin[span] + root
    within = np.divide(2 * left, below, out=np.zeros_like(left), where=below > 0)
    begins: Moments = np.concatenate(([0.0], np.cumsum(length)))
    due: Moments = begins[span] + np.minimum(within, length[span])
    return due


# --- closed loop --------------------------------------------------------------------------------------------


def user_spans(load: Closed) -> list[list[Span]]:
    """When each user is there, user by user, spans ascending.

    On the way from one number to another, user k (from 0) is there while the line is at k + 1/2 or above: as many as
    the line says, rounded to the nearest.
    """
    most = max((max(users.begin, users.end) for users in load.users), default=0)
    return [_joined(_above(load, user + 0.5)) for user in range(most)]


def users_at(load: Closed, at_s: float) -> int:
    """How many users are there at a moment."""
    return sum(any(span.begin_s <= at_s < span.end_s for span in spans) for spans in user_spans(load))


def think_times(load: Closed, seed: int, user: int) -> Iterator[float]:
    """Seconds between an answer and the user's next question, one after the other without end."""
    if load.think_s == 0:
        while True:
            yield 0.0
    draws = np.random.default_rng([_THINKING, seed, user])
    while True:
        yield from draws.exponential(load.think_s, size=64).tolist()


def _above(load: Closed, level: float) -> Iterator[Span]:
    """Where the line of users is at `level` or above; the level is never a whole number."""
    at_s = 0.0
    for users in load.users:
        begins, ends = users.begin > level, users.end > level
        if begins and ends:
            yield Span(at_s, at_s + users.for_s)
        elif begins != ends:
            crossed_s = at_s + users.for_s * (level - users.begin) / (users.end - users.begin)
            yield Span(at_s, crossed_s) if begins else Span(crossed_s, at_s + users.for_s)
        at_s += users.for_s


def _joined(spans: Iterator[Span]) -> list[Span]:
    """The same with spans that touch made one."""
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].end_s == span.begin_s:
            joined[-1] = Span(joined[-1].begin_s, span.end_s)
        else:
            joined.append(span)
    return joined
