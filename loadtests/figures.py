"""A repeat's figures from its columns: latencies, rates, distributions, the timeline. Pure and exact.

Definitions are those of docs/measurement.md and `gateway.domain.stats`. A request belongs to the window when it was
due in it; its tokens belong to the second in which they came. Whether the figures may be believed: `validity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gateway.domain.stats import Summary, summarise
from loadtests.cells import Figure, Latencies, Rates, TimelinePoint
from loadtests.columns import OUTCOMES, Columns, Flags, Floats
from loadtests.records import Outcome

PERCENTS = np.arange(101)
_SENT_NOTHING = OUTCOMES.index(Outcome.UNSENT)


class Window(NamedTuple):
    """From the end of the warm-up to the last moment of the load, in seconds of the cell."""

    begin_s: float
    end_s: float

    @property
    def span_s(self) -> float:
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class Spans:
    """Each request's own latencies in seconds, a row a request. NaN = not measurable for it."""

    ttft_s: Floats
    ttfot_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    scheduled_ttft_s: Floats
    scheduled_e2e_s: Floats
    tokens_per_s: Floats
    mean_gap_s: Floats


def spans_of(columns: Columns) -> Spans:
    """TTFT = c_1 − t0, TPOT = (c_last − c_1) / (N − n_1), E2E = c_last − t0, and from t_sched the same.

    An answer of several tokens that came in one event has no TPOT: nobody saw when its tokens came.
    """
    later = columns.completion_tokens - columns.first_event_tokens
    with np.errstate(invalid="ignore", divide="ignore"):
        spread_out = (later >= 1) & (columns.gap_counts >= 1)
        tpot = np.where(spread_out, (columns.last_s - columns.first_s) / later, np.nan)
        pace = np.where(tpot > 0, 1 / tpot, np.nan)
        gaps = np.where(columns.gap_counts > 0, (columns.last_s - columns.first_s) / columns.gap_counts, np.nan)
    return Spans(
        ttft_s=columns.first_s - columns.sent_s,
        ttfot_s=columns.first_output_s - columns.sent_s,
        tpot_s=tpot,
        e2e_s=columns.last_s - columns.sent_s,
        scheduled_ttft_s=columns.first_s - columns.scheduled_s,
        scheduled_e2e_s=columns.last_s - columns.scheduled_s,
        tokens_per_s=pace,
        mean_gap_s=gaps,
    )


def due_in(columns: Columns, window: Window) -> Flags:
    """Requests that count: due in the window, whatever became of them."""
    result: Flags = (columns.scheduled_s >= window.begin_s) & (columns.scheduled_s < window.end_s)
    return result


def figure_of(values: Floats) -> Figure:
    """Of the values that are known."""
    return _figure(summarise(values[np.isfinite(values)]))


def _figure(found: Summary) -> Figure:
    return Figure(
        n=found.n,
        **{name: getattr(found, name) for name in ("min", "mean", "p50", "p90", "p95", "p99", "max")},
        **_bounds(found),
    )


def _bounds(found: Summary) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for name in ("p50", "p90", "p95", "p99"):
        interval = getattr(found, f"{name}_interval")
        if interval is not None:
            bounds |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return bounds


def gaps_in(columns: Columns, chosen: Flags) -> Floats:
    """ITL: every gap between two events with tokens of the chosen requests, in seconds, the shortest first.

    Sorted as whole microseconds, which an hour's run has room for.
    """
    gaps_us = columns.gaps_us[np.repeat(chosen, columns.gap_counts)]
    gaps_us.sort()
    gaps: Floats = gaps_us / 1e6
    return gaps


def latencies(columns: Columns, window: Window) -> Latencies:
    """Of requests that were due in the window and answered well; how many were not, is said by outcomes."""
    chosen = due_in(columns, window) & columns.is_ok
    spans = spans_of(columns)
    events = int((columns.gap_counts[chosen] + 1).sum())
    tokens = columns.completion_tokens[chosen]
    return Latencies(
        ttft_s=figure_of(spans.ttft_s[chosen]),
        ttfot_s=figure_of(spans.ttfot_s[chosen]),
        tpot_s=figure_of(spans.tpot_s[chosen]),
        itl_s=_figure(summarise(gaps_in(columns, chosen), is_ascending=True)),
        e2e_s=figure_of(spans.e2e_s[chosen]),
        scheduled_ttft_s=figure_of(spans.scheduled_ttft_s[chosen]),
        scheduled_e2e_s=figure_of(spans.scheduled_e2e_s[chosen]),
        output_tokens_per_s_per_user=figure_of(spans.tokens_per_s[chosen]),
        tokens_per_event=float(tokens.sum() / events) if events and np.isfinite(tokens).all() else None,
    )


class Arrived(NamedTuple):
    """Every event with tokens: when it came, and how many tokens it stands for (NaN where N is unknown)."""

    at_s: Floats
    tokens: Floats


def arrived(columns: Columns, chosen: Flags | None = None) -> Arrived:
    """A request's N tokens over its events: n_1 in the first, the rest in equal parts. Of all requests, or of some.

    Of an hour's requests in `Columns.parts`.
    """
    wanted = np.ones(columns.n, dtype=np.bool_) if chosen is None else chosen
    has_first = np.isfinite(columns.first_s) & wanted
    of_wanted = np.repeat(wanted, columns.gap_counts)
    later = columns.completion_tokens - columns.first_event_tokens
    with np.errstate(invalid="ignore", divide="ignore"):
        share = later / columns.gap_counts
    first = np.where(columns.gap_counts == 0, columns.completion_tokens, columns.first_event_tokens)
    return Arrived(
        np.concatenate((columns.first_s[has_first], columns.event_times()[of_wanted])),
        np.concatenate((first[has_first], np.repeat(share, columns.gap_counts)[of_wanted])),
    )


class ArrivedIn(NamedTuple):
    """What came in a window."""

    events: int
    tokens: float
    """NaN where N is unknown of some answer."""


def arrived_in(columns: Columns, window: Window, chosen: Flags) -> ArrivedIn:
    """Events with tokens of the chosen requests that came in the window, and the tokens that they stand for."""
    events, tokens = 0, 0.0
    for rows, part in columns.parts():
        came = arrived(part, chosen[rows])
        inside = (came.at_s >= window.begin_s) & (came.at_s < window.end_s)
        events += int(inside.sum())
        tokens += float(came.tokens[inside].sum())
    return ArrivedIn(events, tokens)


def rates(columns: Columns, window: Window, *, met: Flags | None, gpus: int | None) -> Rates:
    """What came in the window for each second of it. `met`: requests that met every objective; None = there are none.

    Tokens and answers are counted when they came. Only answers that ended well count, whenever they were due: what was
    cut or given up is no throughput.
    """
    span = window.span_s
    due = due_in(columns, window)
    offered = int(due.sum())
    ended = columns.is_ok & (columns.ended_s >= window.begin_s) & (columns.ended_s < window.end_s)
    tokens = arrived_in(columns, window, columns.is_ok).tokens / span
    known = bool(np.isfinite(tokens))
    good = None if met is None else int((met & due).sum())
    prompts, cached = columns.prompt_tokens[due & columns.is_ok], columns.cached_tokens[due & columns.is_ok]
    told = np.isfinite(prompts) & np.isfinite(cached)
    return Rates(
        window_s=span,
        offered=offered,
        offered_per_s=offered / span,
        requests_per_s=int(ended.sum()) / span,
        output_tokens_per_s=float(tokens) if known else None,
        output_tokens_per_s_per_gpu=float(tokens) / gpus if known and gpus else None,
        input_tokens_per_s=_sum_or_none(columns.prompt_tokens[ended], span),
        characters_per_s=_sum_or_none(columns.characters[ended], span),
        goodput_per_s=None if good is None else good / span,
        attainment_percent=None if good is None or not offered else 100 * good / offered,
        cached_share=float(cached[told].sum() / prompts[told].sum()) if told.any() else None,
    )


def _sum_or_none(values: Floats, span: float) -> float | None:
    return float(values.sum() / span) if np.isfinite(values).all() else None


def outcomes(columns: Columns, window: Window) -> dict[str, int]:
    """How the requests that were due in the window ended."""
    counts = np.bincount(columns.outcome[due_in(columns, window)], minlength=len(OUTCOMES))
    return {outcome.value: int(count) for outcome, count in zip(OUTCOMES, counts, strict=True) if count}


def quantiles(values: Floats) -> tuple[float, ...]:
    """The 0th to the 100th percentile, for drawing a distribution; empty for no values."""
    known = values[np.isfinite(values)]
    return tuple(float(value) for value in np.percentile(known, PERCENTS)) if known.size else ()


def lags(columns: Columns, window: Window) -> Floats:
    """How much later than due each request of the window was sent, in seconds."""
    late = (columns.sent_s - columns.scheduled_s)[due_in(columns, window)]
    known: Floats = late[np.isfinite(late)]
    return known


def in_flight_at(columns: Columns, moments: Floats) -> Floats:
    """How many requests were sent and had not ended at each moment."""
    sent = columns.outcome != _SENT_NOTHING
    begun = np.sort(columns.sent_s[sent & np.isfinite(columns.sent_s)])
    ended = np.sort(columns.ended_s[sent & np.isfinite(columns.ended_s)])
    result: Floats = (
        np.searchsorted(begun, moments, side="right") - np.searchsorted(ended, moments, side="right")
    ).astype(np.float64)
    return result


def timeline(columns: Columns, end_s: float) -> list[TimelinePoint]:
    """Second by second from 0 to `end_s`; what engines say is joined by `engine_view`."""
    seconds = max(1, int(np.ceil(end_s)))
    edges = np.arange(seconds + 1, dtype=np.float64)
    sent = _by_second(columns.sent_s, edges)
    ended = _by_second(columns.ended_s, edges)
    failed = _by_second(columns.ended_s[~columns.is_ok], edges)
    tokens = np.zeros(seconds)
    for _, part in columns.parts():
        came = arrived(part)
        tokens += _by_second(came.at_s, edges, np.nan_to_num(came.tokens))
    flight = in_flight_at(columns, edges[1:])
    ttft = _median_by_second(columns.sent_s, columns.first_s - columns.sent_s, seconds)
    return [
        TimelinePoint(
            at_s=float(n),
            sent=int(sent[n]),
            ended=int(ended[n]),
            failed=int(failed[n]),
            in_flight=int(flight[n]),
            output_tokens=round(float(tokens[n])),
            ttft_p50_s=ttft[n],
        )
        for n in range(seconds)
    ]


def _by_second(moments: Floats, edges: Floats, weights: Floats | None = None) -> Floats:
    known = np.isfinite(moments)
    result: Floats = np.histogram(moments[known], bins=edges, weights=None if weights is None else weights[known])[0]
    return result


def _median_by_second(moments: Floats, values: Floats, seconds: int) -> Sequence[float | None]:
    found: list[float | None] = [None] * seconds
    known = np.isfinite(moments) & np.isfinite(values) & (moments >= 0) & (moments < seconds)
    order = np.argsort(moments[known], kind="stable")
    at, value = moments[known][order].astype(np.int64), values[known][order]
    for second, part in zip(*_runs(at, value), strict=True):
        found[second] = float(np.median(part))
    return found


def _runs(at: np.ndarray, values: Floats) -> tuple[list[int], list[Floats]]:
    if not at.size:
        return [], []
    seconds, begins = np.unique(at, return_index=True)
    return [int(second) for second in seconds], np.split(values, begins[1:])
