"""Figures of answered requests, and what pairs of runs say of the ratio of two tools' figures.

The same few lines of arithmetic for every tool's raw times, by docs/measurement.md. No files, no processes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import t as students_t

LOWEST, HIGHEST = 0.97, 1.03
"""Two tools agree on a figure where the 95 % interval of its ratio lies between these."""
LEAST_PAIRS = 5
METRICS = ("output_tokens_per_s", "ttft_p50_s", "tpot_p50_s")


class Answered(NamedTuple):
    """One request that was answered whole. Seconds of the tool's own clock."""

    sent_s: float
    first_s: float
    """When the first event with tokens came."""
    last_s: float
    tokens: int


class Figures(NamedTuple):
    """What is compared."""

    output_tokens_per_s: float
    ttft_p50_s: float
    tpot_p50_s: float


def figures_of(answers: Sequence[Answered], *, warm_up_s: float) -> Figures:
    """Of the window from `warm_up_s` after the first request was sent to the moment when the last one was.

    Latencies are of requests sent in the window. Tokens count by when they came: the first with its event, the others
    evenly up to the last event. Raises ValueError where nothing was sent in the window.
    """
    begin_s = min((one.sent_s for one in answers), default=0.0) + warm_up_s
    end_s = max((one.sent_s for one in answers), default=0.0)
    chosen = [one for one in answers if begin_s <= one.sent_s <= end_s]
    if not chosen or end_s <= begin_s:
        raise ValueError(f"expected requests sent later than the warm-up of {warm_up_s:g} s, got {len(chosen)}")
    tokens = sum(_tokens_between(one, begin_s, end_s) for one in answers)
    return Figures(
        output_tokens_per_s=tokens / (end_s - begin_s),
        ttft_p50_s=statistics.median(one.first_s - one.sent_s for one in chosen),
        tpot_p50_s=statistics.median((one.last_s - one.first_s) / (one.tokens - 1) for one in chosen if one.tokens > 1),
    )


def _tokens_between(one: Answered, begin_s: float, end_s: float) -> float:
    first = 1.0 if begin_s <= one.first_s < end_s else 0.0
    span_s = one.last_s - one.first_s
    if span_s <= 0:
        return first * one.tokens
    inside_s = max(0.0, min(one.last_s, end_s) - max(one.first_s, begin_s))
    return first + (one.tokens - 1) * inside_s / span_s


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours over theirs, from pairs of runs: the geometric mean and its 95 % interval by t on the logarithms."""

    pairs: int
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """agrees | differs | inconclusive."""
        if self.pairs < LEAST_PAIRS:
            return "inconclusive"
        if self.low >= LOWEST and self.high <= HIGHEST:
            return "agrees"
        return "differs" if self.high < LOWEST or self.low > HIGHEST else "inconclusive"

    @property
    def width(self) -> float:
        return self.high - self.low


def ratio_of(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """From (ours, theirs) of each pair. Raises ValueError for fewer than two pairs or a value that is not above 0."""
    if len(pairs) < 2 or any(value <= 0 for pair in pairs for value in pair):
        raise ValueError(f"expected at least two pairs of values above 0, got {list(pairs)}")
    logs = [math.log(ours / theirs) for ours, theirs in pairs]
    mean = statistics.mean(logs)
    half = float(students_t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(len(logs), math.exp(mean), math.exp(mean - half), math.exp(mean + half))
