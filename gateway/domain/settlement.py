"""Settles what a replica's time cost: windows of a minute, busy money shared by tokens, idle money left over.

Whole numbers throughout, moments in microseconds and money in 10^-9 of a currency unit, so that the calls' costs and
the idle rest add up to the GPU money exactly, whatever the order of the calls. Which price, which calls and what is
stored belong in `settlements`; provisional figures and hosted APIs' prices in `cost`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor, isfinite, sqrt
from typing import Literal

import numpy as np

WINDOW_US = 60_000_000
"""A window is one minute of UTC."""
NANOS = 1_000_000_000
"""Parts of a currency unit that settled money distinguishes."""
DEFAULT_WEIGHT = Decimal("0.25")
"""What an uncached prompt token counts for, in completion tokens, where nobody measured it."""
LEAST_CELLS = 4
_HOUR_US = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
CALLS_BEFORE_REST = 100
"""So many calls of long arithmetic come before a rest: about a millisecond."""
_PARTS = 1_000_000
"""Parts of a token, and of a microsecond of shared time, that proportions distinguish."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `begin_us` up to `end_us`, in microseconds since 1970 UTC; the end is no part of it."""

    begin_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class CallSpan:
    """One call on a replica, from its dispatch to its end, and the tokens that are known of it."""

    id: str
    dispatched_us: int
    ended_us: int
    first_token_us: int | None = None
    """None where nobody saw one: whole answers, and calls that got none."""
    uncached_prompt_tokens: int | None = None
    """None = nobody counted the call's tokens: it is charged by time in flight."""
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class WindowCost:
    """What one replica's time in one window cost. `money_nanos` = sum of `shares` + `idle_nanos`, exactly."""

    window_us: int
    paid_us: int
    busy_us: int
    money_nanos: int
    busy_nanos: int
    idle_nanos: int
    shares: Mapping[str, int]
    """By the calls' ids, in nanos; a call that took no time has 0."""


@dataclass(frozen=True, slots=True)
class WeightCell:
    """A measured load: how long a replica was busy with so many tokens."""

    uncached_prompt_tokens: float
    completion_tokens: float
    busy_s: float


@dataclass(frozen=True, slots=True)
class PromptWeight:
    """What an uncached prompt token counts for, in completion tokens, and how that is known."""

    value: Decimal
    basis: Literal["assumed", "fitted"]
    cells: int = 0
    r_squared: float | None = None
    """1 - sum of squared residuals / sum of squared deviations of the busy time from its mean."""
    standard_error: float | None = None
    reason: str | None = None
    """Why it is assumed."""


def microseconds(moment: datetime) -> int:
    """Since 1970 UTC, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def windows_of(begin_us: int, end_us: int) -> range:
    """Where the windows begin that a span touches; one without length touches the window that it stands in."""
    last_us = max(begin_us, end_us - 1)
    return range(begin_us - begin_us % WINDOW_US, last_us + 1, WINDOW_US)


def money_between(per_hour: Decimal, gpus: int, begin_us: int, end_us: int) -> int:
    """What `gpus` cost from one moment to another, in nanos.

    The difference of two readings of one meter that has run since 1970 and shows whole nanos: pieces of a span, however
    it is cut, add up to the span, and an hour costs `per_hour` a GPU to the last digit.
    """
    if not per_hour.is_finite() or per_hour < 0:
        raise ValueError(f"per_hour: expected 0 or more, got {per_hour}")
    if gpus < 1:
        raise ValueError(f"gpus: expected at least 1, got {gpus}")
    if end_us < begin_us:
        raise ValueError(f"end_us: expected a moment not before {begin_us}, got {end_us}")
    rate = Fraction(per_hour) * gpus * NANOS / _HOUR_US
    return floor(rate * end_us) - floor(rate * begin_us)


def settle_window(
    window_us: int,
    *,
    present: Iterable[Span],
    calls: Sequence[CallSpan],
    per_hour: Decimal,
    gpus: int,
    weight: Decimal = DEFAULT_WEIGHT,
    rest: Callable[[], object] | None = None,
) -> WindowCost:
    """Share a window's GPU money out.

    Paid time is when the replica was `present` or had a call in flight; busy time is the union of the calls' spans and
    costs its part of the paid money. Calls whose tokens nobody counted get the money of their share of busy time, the
    integral of dt / in_flight(t); the others share the rest by weighted tokens produced in the window, or where there
    are none by that same share of time. Completion tokens are spread evenly from the first token to the end, the
    prompt counts in the window of the first token, and where no first token was seen both are spread over the whole
    call. `calls` may be in any order and include some that do not touch the window. `rest` is called now and then in
    the middle of long arithmetic, so that a caller's other threads get their turn. Raises ValueError for a negative
    price, weight or token count, and for two calls of one id.
    """
    _require_sensible(calls, weight)
    window = Span(window_us, window_us + WINDOW_US)
    here = [call for call in _resting(calls, rest) if window_us in windows_of(call.dispatched_us, call.ended_us)]
    spans = [_clipped(Span(call.dispatched_us, call.ended_us), window) for call in _resting(here, rest)]
    paid = union([*(_clipped(span, window) for span in present), *spans])
    paid_us, busy_us = _length(paid), _length(union(spans))
    money = sum(money_between(per_hour, gpus, span.begin_us, span.end_us) for span in paid)
    busy = round(Fraction(money * busy_us, paid_us)) if paid_us else 0
    shares = _divide(busy, _proportions(here, spans, window, weight, rest))
    return WindowCost(window_us, paid_us, busy_us, money, busy, money - busy, shares)


def union(spans: Iterable[Span]) -> list[Span]:
    """The same time without overlaps, in order; spans without length vanish."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.begin_us, span.end_us)):
        if span.end_us <= span.begin_us:
            continue
        if merged and span.begin_us <= merged[-1].end_us:
            merged[-1] = Span(merged[-1].begin_us, max(merged[-1].end_us, span.end_us))
        else:
            merged.append(span)
    return merged


def fit_prompt_weight(cells: Sequence[WeightCell]) -> PromptWeight:
    """Least squares of busy time = a × uncached prompt tokens + b × completion tokens; the weight is a / b.

    Its standard error is by the delta method. Assumed, with the reason, where there are fewer than four cells, where
    their lengths do not differ in proportion, and where the fit gives no weight above 0.
    """
    for cell in cells:
        if not all(isfinite(value) and value >= 0 for value in _cell_values(cell)):
            raise ValueError(f"cells: expected numbers of 0 or more, got {cell}")
    if len(cells) < LEAST_CELLS:
        return _assumed(cells, f"{len(cells)} measured loads are fewer than the {LEAST_CELLS} that a fit needs")
    table = np.array([_cell_values(cell) for cell in cells], dtype=float)
    tokens, busy_s = table[:, :2], table[:, 2]
    scale = tokens.max(axis=0)
    if not scale.all() or np.linalg.matrix_rank(tokens / scale, tol=1e-6) < 2:
        return _assumed(cells, "all measured loads have prompts and answers in one proportion: no fit can part them")
    try:
        inverse = np.linalg.inv(tokens.T @ tokens)
    except np.linalg.LinAlgError:
        return _assumed(cells, "the measured loads are too much alike for a fit")
    prompt_s, completion_s = inverse @ (tokens.T @ busy_s)
    residuals = busy_s - tokens @ np.array([prompt_s, completion_s])
    deviations = busy_s - busy_s.mean()
    if prompt_s <= 0 or completion_s <= 0 or not deviations.any():
        return _assumed(cells, "the measured loads do not say that a token of each kind takes time")
    weight = prompt_s / completion_s
    spread = inverse * (residuals @ residuals) / (len(cells) - 2)
    variance = (spread[0, 0] + weight**2 * spread[1, 1] - 2 * weight * spread[0, 1]) / completion_s**2
    r_squared = 1 - (residuals @ residuals) / (deviations @ deviations)
    if not all(isfinite(value) for value in (weight, variance, r_squared)):
        return _assumed(cells, "the measured loads are too large or too small for a fit")
    value = Decimal(str(round(float(weight), 6)))
    return PromptWeight(value, "fitted", len(cells), float(r_squared), sqrt(max(0.0, float(variance))))


def _resting(calls: Sequence[CallSpan], rest: Callable[[], object] | None) -> Iterator[CallSpan]:
    """The same calls, with a rest after some."""
    for number, call in enumerate(calls, start=1):
        yield call
        if rest is not None and number % CALLS_BEFORE_REST == 0:
            rest()


def _assumed(cells: Sequence[WeightCell], reason: str) -> PromptWeight:
    return PromptWeight(DEFAULT_WEIGHT, "assumed", len(cells), reason=reason)


def _cell_values(cell: WeightCell) -> tuple[float, float, float]:
    return cell.uncached_prompt_tokens, cell.completion_tokens, cell.busy_s


def _require_sensible(calls: Sequence[CallSpan], weight: Decimal) -> None:
    if not weight.is_finite() or weight < 0:
        raise ValueError(f"weight: expected 0 or more, got {weight}")
    if len({call.id for call in calls}) < len(calls):
        raise ValueError("calls: expected each id once")
    for call in calls:
        if min(call.uncached_prompt_tokens or 0, call.completion_tokens or 0) < 0:
            raise ValueError(f"calls: expected token counts of 0 or more, got {call}")


def _clipped(span: Span, window: Span) -> Span:
    """What of it lies in the window; without length where nothing does, or where it ends before it begins."""
    begin_us = max(span.begin_us, window.begin_us)
    return Span(begin_us, max(begin_us, min(span.end_us, window.end_us)))


def _length(spans: Iterable[Span]) -> int:
    return sum(span.end_us - span.begin_us for span in spans)


def _proportions(
    calls: Sequence[CallSpan],
    spans: Sequence[Span],
    window: Span,
    weight: Decimal,
    rest: Callable[[], object] | None,
) -> dict[str, int]:
    """How the busy money falls to the calls, as whole numbers of no unit."""
    in_time = dict(zip((call.id for call in calls), _shared_time(spans), strict=True))
    of_token = weight.as_integer_ratio()
    counted = (call for call in _resting(calls, rest) if call.uncached_prompt_tokens is not None)
    tokens = {call.id: _tokens_in(call, window, of_token) for call in counted}
    all_tokens = sum(tokens.values())
    if not all_tokens:
        return in_time
    counted_time = sum(in_time[call_id] for call_id in tokens)
    return {
        call_id: counted_time * tokens[call_id] if call_id in tokens else shared * all_tokens
        for call_id, shared in in_time.items()
    }


def _shared_time(spans: Sequence[Span]) -> list[int]:
    """Each span's integral of dt / in_flight(t), in millionths of a microsecond."""
    events = sorted(
        event
        for i, span in enumerate(spans)
        if span.end_us > span.begin_us
        for event in ((span.begin_us, 1, i), (span.end_us, -1, i))
    )
    shares, marks = [0] * len(spans), [0] * len(spans)
    reading = in_flight = last_us = 0
    for moment_us, step, i in events:
        if in_flight:
            reading += (moment_us - last_us) * _PARTS // in_flight
        last_us = moment_us
        in_flight += step
        if step > 0:
            marks[i] = reading
        else:
            shares[i] = reading - marks[i]
    return shares


def _tokens_in(call: CallSpan, window: Span, weight: tuple[int, int]) -> int:
    """Millionths of weighted tokens that a call produced in the window, rounded down.

    `weight`: numerator and denominator; whole numbers take a tenth of the time that fractions do.
    """
    weighted, unit = weight[0] * (call.uncached_prompt_tokens or 0), weight[1]
    completion = unit * (call.completion_tokens or 0)
    begin_us, end_us = call.dispatched_us, max(call.dispatched_us, call.ended_us)
    if call.first_token_us is None:
        inside, length = _part_in(begin_us, end_us, window)
        return _PARTS * (weighted + completion) * inside // (unit * length)
    first_us = min(max(begin_us, call.first_token_us), max(begin_us, end_us - 1))
    in_first = weighted if window.begin_us <= first_us < window.end_us else 0
    inside, length = _part_in(first_us, end_us, window)
    return _PARTS * (in_first * length + completion * inside) // (unit * length)


def _part_in(begin_us: int, end_us: int, window: Span) -> tuple[int, int]:
    """The share of a span that lies in the window, as microseconds of microseconds: of one without length, all of it
    where it stands there."""
    if end_us == begin_us:
        return int(window.begin_us <= begin_us < window.end_us), 1
    return max(0, min(end_us, window.end_us) - max(begin_us, window.begin_us)), end_us - begin_us


def _divide(whole: int, proportions: Mapping[str, int]) -> dict[str, int]:
    """`whole` in integers as near to the proportions as can be: what rounding down leaves goes to the largest
    remainders, of equal ones to the lower id."""
    total = sum(proportions.values())
    if not total:
        if whole:
            raise AssertionError(f"{whole} nanos of busy time and nobody who was in flight")
        return dict.fromkeys(proportions, 0)
    shares, remainders = {}, {}
    for call_id, proportion in proportions.items():
        shares[call_id], remainders[call_id] = divmod(whole * proportion, total)
    left = whole - sum(shares.values())
    for call_id in sorted(remainders, key=lambda call_id: (-remainders[call_id], call_id))[:left]:
        shares[call_id] += 1
    return shares
