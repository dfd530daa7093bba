"""Whether objectives hold in a repeat: each with its own statistic, and all of them for each request (goodput).

In an open loop TTFT and E2E count from when a request was due, so that an engine which keeps clients from sending
cannot look fast (coordinated omission). Failed, cut and malformed requests meet nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from gateway.domain.claim_terms import LEAST_N, METRICS, MetricKind
from gateway.domain.stats import percentile_interval
from loadtests.cells import ObjectiveSeen, Rates
from loadtests.columns import Columns, Flags, Floats
from loadtests.figures import Spans, Window, due_in, gaps_in, spans_of
from loadtests.plan import OF_REQUESTS, OF_WINDOWS, Objective

_PERCENT = {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def met_by_each(columns: Columns, objectives: Sequence[Objective], *, is_open: bool) -> Flags | None:
    """Which requests met every objective that a request can meet; None where no objective is of that kind.

    What an answer cannot have, such as the TPOT of one token, it cannot miss; what it should have and nobody could see,
    because all its tokens came in one event, it misses.
    """
    asked = [one for one in objectives if one.metric in OF_REQUESTS]
    if not asked:
        return None
    spans = spans_of(columns)
    met = columns.is_ok.copy()
    for one in asked:
        values = _of_requests(spans, one.metric, is_open=is_open)
        met &= _has_none(columns, one.metric) | _within(values, one)
    return met


def _has_none(columns: Columns, metric: str) -> Flags:
    """Answers that cannot have the figure: of pace and gaps, those with no token after the first event's."""
    if metric in ("ttft_s", "e2e_s"):
        return np.zeros(columns.n, dtype=np.bool_)
    result: Flags = columns.completion_tokens - columns.first_event_tokens < 1
    return result


def see_objectives(
    columns: Columns, window: Window, rates: Rates, objectives: Sequence[Objective], *, is_open: bool
) -> list[ObjectiveSeen]:
    """Each objective with its figure, its interval, and whether it held."""
    spans = spans_of(columns)
    due = due_in(columns, window)
    return [_see(one, columns, spans, due, rates, is_open=is_open) for one in objectives]


def _see(one: Objective, columns: Columns, spans: Spans, due: Flags, rates: Rates, *, is_open: bool) -> ObjectiveSeen:
    if one.metric in OF_WINDOWS:
        value = getattr(rates, one.metric)
        why = "the tokens of some answers are unknown" if value is None else None
        return _seen(one, value, None, rates.offered, why)
    values = _of_requests(spans, one.metric, is_open=is_open)
    if one.statistic == "attainment":
        offered = int(due.sum())
        good = int((due & columns.is_ok & (_has_none(columns, one.metric) | _within(values, one))).sum())
        share = 100 * good / offered if offered else None
        return _seen(one, share, None, offered, None if offered else "no request was offered")
    chosen = due & columns.is_ok
    failed = int((due & ~columns.is_ok).sum())
    known = gaps_in(columns, chosen) if one.metric == "itl_s" else np.sort(values[chosen & np.isfinite(values)])
    return _statistic(one, known, failed, int(due.sum()))


def _statistic(one: Objective, known: Floats, failed: int, offered: int) -> ObjectiveSeen:
    """A percentile counts failed requests as worse than any answer, unless they cannot be compared (ITL, mean).

    `known`: the least first.
    """
    least = LEAST_N.get(one.statistic, 1)
    n = len(known) + (failed if one.metric != "itl_s" else 0)
    if failed and not len(known):
        return _seen(one, None, None, n, f"all of {failed} requests failed", fails=True)
    if n < least or not len(known):
        few = f"{one.statistic} of {n} values; it takes {least}" if len(known) else "no answer has it"
        return _seen(one, None, None, n, few)
    if one.metric == "itl_s" and failed > offered * (1 - _PERCENT.get(one.statistic, 100.0) / 100):
        endless = f"{failed} of {offered} requests failed: their gaps have no end"
        return _seen(one, None, None, n, endless, fails=True)
    if one.statistic == "mean":
        why = f"{failed} requests failed and are not in the mean" if failed else None
        return _seen(one, float(known.mean()), None, n, why, fails=failed > 0)
    padded = known if one.metric == "itl_s" else _with_failed(known, failed, is_latency=_is_latency(one.metric))
    q = _PERCENT[one.statistic] if _is_latency(one.metric) else 100 - _PERCENT[one.statistic]
    value = _order_percentile(padded, q)
    if not np.isfinite(value):
        return _seen(
            one, None, None, n, f"{failed} of {n} requests failed: their {one.statistic} has no end", fails=True
        )
    largest = np.finfo(np.float64).max
    bounded = padded if np.isfinite(padded[-1]) else np.where(np.isfinite(padded), padded, largest)
    interval = percentile_interval(bounded, q, is_ascending=True)
    bounds = None if interval is None else (interval.low, interval.high)
    return _seen(one, value, bounds, n, None)


def _with_failed(known: Floats, failed: int, *, is_latency: bool) -> Floats:
    """The least first: no latency is as long as that of a request that failed, no pace as slow."""
    padding = np.full(failed, np.inf if is_latency else 0.0)
    return np.concatenate((known, padding) if is_latency else (padding, known))


def _order_percentile(ascending: Floats, q: float) -> float:
    """As `stats.percentile`, with infinity allowed."""
    rank = (len(ascending) - 1) * q / 100
    low, high = ascending[int(np.floor(rank))], ascending[int(np.ceil(rank))]
    return float(low if low == high else low + (high - low) * (rank % 1))


def _seen(
    one: Objective,
    value: float | None,
    bounds: tuple[float, float] | None,
    n: int,
    why: str | None,
    *,
    fails: bool = False,
) -> ObjectiveSeen:
    met: bool | None = None
    if fails:
        met = False
    elif value is not None:
        met = _holds(one, value)
    largest = np.finfo(np.float64).max
    return ObjectiveSeen(
        metric=one.metric,
        statistic=one.statistic,
        limit=str(one.limit),
        attainment_percent=None if one.attainment_percent is None else str(one.attainment_percent),
        value=value,
        low=None if bounds is None else bounds[0],
        high=None if bounds is None or bounds[1] == largest else bounds[1],
        n=n,
        met=met,
        why=why,
    )


def _holds(one: Objective, value: float) -> bool:
    if one.statistic == "attainment":
        return Decimal(repr(value)) >= (one.attainment_percent or Decimal(100))
    exact = Decimal(repr(value))
    return exact <= one.limit if _is_latency(one.metric) else exact >= one.limit


def _within(values: Floats, one: Objective) -> Flags:
    limit = float(one.limit)
    with np.errstate(invalid="ignore"):
        result: Flags = values <= limit if _is_latency(one.metric) else values >= limit
    return result


def _of_requests(spans: Spans, metric: str, *, is_open: bool) -> Floats:
    match metric:
        case "ttft_s":
            return spans.scheduled_ttft_s if is_open else spans.ttft_s
        case "e2e_s":
            return spans.scheduled_e2e_s if is_open else spans.e2e_s
        case "tpot_s":
            return spans.tpot_s
        case "itl_s":
            return spans.mean_gap_s
        case "output_tokens_per_s_per_user":
            return spans.tokens_per_s
    raise ValueError(f"{metric} is no figure of a request")


def _is_latency(metric: str) -> bool:
    return METRICS[metric].kind is MetricKind.LATENCY
