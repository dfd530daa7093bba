"""Percentiles and their intervals: the one definition behind every latency figure, here and in load reports.

Exact, from raw values, never from buckets. Which span a figure measures is said by `records.Timing` and the meter;
verdicts and comparisons of runs do not belong here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

P99_LEAST_N = 500
"""Below this many values a p99 rests on fewer than five of them and is not shown."""
_DEVIATIONS = 12
_ROUNDING = 1e-12
"""Slack for probabilities that are equal but for floating point."""
Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval between two of the observed values, valid for any continuous distribution."""

    low: float
    high: float
    coverage: float
    """Exact probability that such an interval contains the true percentile; at least the confidence asked for."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What n values say, in the values' own unit. None = too few values."""

    n: int
    min: float | None = None
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    """None below 500 values."""
    max: float | None = None
    p50_interval: Interval | None = None
    p90_interval: Interval | None = None
    p95_interval: Interval | None = None
    p99_interval: Interval | None = None


def percentile(values: Values, q: float) -> float:
    """The q-th percentile, q in 0..100, by linear interpolation between the two closest ranks.

    Rank 1 + (n - 1) × q / 100 among the sorted values (Hyndman and Fan's definition 7). Raises ValueError for no
    values, values that are not finite, or q outside 0..100.
    """
    return _percentile(_ascending(values), q)


def percentile_interval(
    values: Values, q: float, confidence: float = 0.95, *, is_ascending: bool = False
) -> Interval | None:
    """Distribution-free interval for the q-th percentile, 0 < q < 100; None when there are too few values.

    The number of values below the true percentile is Binomial(n, q / 100), so the interval runs from the largest
    order statistic that leaves at most (1 - confidence) / 2 below to the smallest that leaves at most that above.
    `is_ascending`: the values are sorted already, and need no copy.
    """
    return _interval(_ascending(values, is_ascending=is_ascending), q, confidence)


def median_with_interval(values: Values, confidence: float = 0.95) -> tuple[float, Interval | None]:
    """The median and what `percentile_interval` says of it, for the price of one. Raises ValueError for no values."""
    ascending = _ascending(values)
    return _percentile(ascending, 50), _interval(ascending, 50, confidence)


def summarise(values: Values, *, is_ascending: bool = False) -> Summary:
    """Percentiles with 95 % intervals. No values give n = 0 and None throughout.

    `is_ascending`: the values are sorted already, and need no copy.
    """
    if len(values) == 0:
        return Summary(n=0)
    ascending = _ascending(values, is_ascending=is_ascending)
    tail_known = len(ascending) >= P99_LEAST_N
    return Summary(
        n=len(ascending),
        min=float(ascending[0]),
        mean=float(ascending.mean()),
        p50=_percentile(ascending, 50),
        p90=_percentile(ascending, 90),
        p95=_percentile(ascending, 95),
        p99=_percentile(ascending, 99) if tail_known else None,
        max=float(ascending[-1]),
        p50_interval=_interval(ascending, 50, 0.95),
        p90_interval=_interval(ascending, 90, 0.95),
        p95_interval=_interval(ascending, 95, 0.95),
        p99_interval=_interval(ascending, 99, 0.95) if tail_known else None,
    )


def _ascending(values: Values, *, is_ascending: bool = False) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("expected at least one value, got none")
    if not is_ascending:
        array = np.sort(array)
    if not np.isfinite(array[[0, -1]]).all():  # where infinity and, behind it, NaN are sorted to
        raise ValueError("expected finite values, got NaN or infinity")
    return array


def _percentile(ascending: NDArray[np.float64], q: float) -> float:
    if not 0 <= q <= 100:
        raise ValueError(f"q: expected a percentage from 0 to 100, got {q}")
    rank = (len(ascending) - 1) * q / 100
    below = int(rank)
    low = float(ascending[below])
    high = float(ascending[min(below + 1, len(ascending) - 1)])
    share = rank - below
    return min(max(low * (1 - share) + high * share, low), high)


def _interval(ascending: NDArray[np.float64], q: float, confidence: float) -> Interval | None:
    if not 0 < q < 100:
        raise ValueError(f"q: expected a percentage between 0 and 100, got {q}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a share between 0 and 1, got {confidence}")
    ranks = _interval_ranks(len(ascending), q, confidence)
    if ranks is None:
        return None
    lower, upper, coverage = ranks
    return Interval(low=float(ascending[lower - 1]), high=float(ascending[upper - 1]), coverage=coverage)


@lru_cache(maxsize=1024)
def _interval_ranks(n: int, q: float, confidence: float) -> tuple[int, int, float] | None:
    """Between which of n order statistics the interval lies, and its coverage: the same for many figures of one n."""
    tail = (1 - confidence) / 2 + _ROUNDING
    first, at_most = _binomial_around_mean(n, q / 100)
    lower = first + int(np.searchsorted(at_most, tail, side="right"))
    upper = first + int(np.searchsorted(at_most, 1 - tail, side="left")) + 1
    if lower < 1 or upper > n:
        return None
    return lower, upper, float(at_most[upper - 1 - first] - (at_most[lower - 1 - first] if lower > first else 0.0))


def _binomial_around_mean(n: int, p: float) -> tuple[int, NDArray[np.float64]]:
    """P(B <= k) for k = first, first + 1, … as far as B ~ Binomial(n, p) can be told from its end; and that first k.

    Outside of `_DEVIATIONS` standard deviations and 40 values lies less than 1e-20, so that millions of values cost
    thousands of probabilities. Each is the one before it times (n - k) / (k + 1) × p / (1 - p).
    """
    spread = _DEVIATIONS * np.sqrt(n * p * (1 - p)) + 40
    first, last = max(0, int(n * p - spread)), min(n, int(n * p + spread))
    k = np.arange(first, last, dtype=np.float64)
    logs = np.concatenate(([0.0], np.cumsum(np.log((n - k) / (k + 1)) + np.log(p / (1 - p)))))
    pmf = np.exp(logs - logs.max())
    return first, np.minimum(np.cumsum(pmf / pmf.sum()), 1.0)


def binomial_cdf(n: int, p: float) -> NDArray[np.float64]:
    """P(B <= k) for k = 0..n, B ~ Binomial(n, p)."""
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    k = np.arange(n + 1)
    log_choose = log_factorial[n] - log_factorial - log_factorial[::-1]
    pmf = np.exp(log_choose + k * np.log(p) + (n - k) * np.log1p(-p))
    cdf: NDArray[np.float64] = np.minimum(np.cumsum(pmf), 1.0)
    return cdf
