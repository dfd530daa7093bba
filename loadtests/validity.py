"""Whether a repeat may be believed: looked at before any number is shown. What several say together: `agreement`.

Each check says what it demands and what it saw. A check that could not be made is `passed=None` with the reason: it
does not make a cell invalid, and a reader sees that nobody looked. What a failing engine does is a result, never a
fault of the measurement: an overloaded engine misses its objectives, validly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gateway.domain.stats import percentile
from loadtests.cells import Check, ObjectiveSeen
from loadtests.columns import OUTCOMES, Columns, RepeatFiles
from loadtests.figures import Window, arrived_in, due_in, in_flight_at, lags
from loadtests.records import Outcome
from loadtests.steadiness import MOST_DRIFT, SAMPLES, drift_of, growth_of

MOST_CPU = 0.60
"""Of one core, a worker: above it the client may be what is measured (vllm issue 39963 saw figures ten times off)."""
MOST_LAG_S = 0.010
LEAST_SENT = 0.99
LENGTH_SLACK = 0.05
MOST_COLD_HITS = 0.05
"""Of prompt tokens: what may be cached although every prompt is new (templates and system prompts are alike)."""
MOST_CLOCK_JUMP_S = 0.5
MOST_BEGIN_S = 0.1
RUNNING_SLACK = 0.10
STREAM_TOKENS = 8
MOST_TOKENS_AN_EVENT = 8
"""Speculative decoding gives several tokens at once; more than this is a buffer on the way."""
LEAST_STREAMED = 0.9


SILENT = "silent"
"""In place of a provenance: nothing answered behind the door."""


class Look(NamedTuple):
    """What stood behind a plan's doors at one moment."""

    provenance: str
    """Of the answers, or `SILENT`."""
    moved: str | None = ""
    """Which engines came and went since the run began, in words; None = name servers did not say."""


class EngineWindow(NamedTuple):
    """What engines said of a window, all together; None = not asked, or not said."""

    running_and_waiting: float | None
    """Median of the samples."""
    prefix_hit_share: float | None
    restarts: int | None
    gone: int = 0
    """Engines that answered and then, up to the end, did not."""
    readings: int = 0
    unanswered: int = 0
    """Of the readings, those that an engine gave no answer to."""


NOT_SEEN = EngineWindow(None, None, None)


@dataclass(frozen=True, slots=True)
class Intended:
    """What a repeat was to be."""

    is_open: bool
    is_steady: bool
    scheduled: int | None
    """Requests that the schedule has, of all workers; None in a closed loop."""
    asks_for_lengths: bool
    is_pinned: bool
    has_shared_prefix: bool
    """Or conversations, whose every turn repeats the one before."""
    workers: int
    users: int | None = None
    """Of a closed loop of one size without thinking: so many requests are to be in flight."""
    calibrated_events_per_s: float | None = None
    """What all workers together were shown to read; None = not calibrated."""


def check_repeat(
    files: RepeatFiles,
    window: Window,
    intended: Intended,
    engines: EngineWindow,
    objectives: Sequence[ObjectiveSeen],
    looks: Sequence[Look],
) -> list[Check]:
    """All checks of one repeat, in the order in which a reader should see them."""
    columns = files.columns
    provenances = [look.provenance for look in looks]
    return [
        _records_complete(files, intended),
        _client_cpu(files),
        _schedule_lag(columns, window),
        *_sent(columns, window, intended),
        _clock(files),
        *_hosts(files),
        *_calibration(columns, window, intended),
        _token_source(columns, window),
        _stream(columns, window),
        *_lengths(columns, window, intended),
        _cache_hits(columns, window, intended, engines),
        *_steady(columns, window, intended, objectives),
        *_in_flight(columns, window, intended),
        _running(columns, window, engines),
        _restart(engines),
        _same_engines(looks),
        _answering(provenances) or provenance_check(provenances),
    ]


def piles_up(columns: Columns, window: Window, intended: Intended) -> bool:
    """Whether an open loop's work in flight grows through the window: more comes than is answered."""
    return intended.is_open and intended.is_steady and growth_of(columns, window).is_overload


# --- the client ---------------------------------------------------------------------------------------------


def _records_complete(files: RepeatFiles, intended: Intended) -> Check:
    lost = intended.workers - len(files.footers)
    stopped = sorted({footer.stopped for footer in files.footers if footer.stopped})
    n = files.columns.n
    faults = [
        *([f"{lost} of {intended.workers} workers lost"] if lost else []),
        *([f"{files.torn_lines} lines torn"] if files.torn_lines else []),
        *([f"stopped: {'; '.join(stopped)}"] if stopped else []),
    ]
    if intended.scheduled is not None and n != intended.scheduled:
        faults.append(f"{n:,} of {intended.scheduled:,} scheduled requests have a record")
    return Check(
        name="records_complete",
        passed=not faults,
        limit="every request that was due has a record, every worker came to its end",
        seen="; ".join(faults) or f"{n:,} records of {intended.workers} worker{'' if intended.workers == 1 else 's'}",
    )


def _client_cpu(files: RepeatFiles) -> Check:
    shares = [footer.cpu_s / footer.window_s for footer in files.footers if footer.window_s > 0]
    worst = max(shares, default=None)
    return Check(
        name="client_cpu",
        passed=None if worst is None else worst < MOST_CPU,
        limit=f"each worker under {MOST_CPU:.0%} of one core",
        seen="no worker came to its end" if worst is None else f"the busiest took {worst:.0%}",
    )


def _schedule_lag(columns: Columns, window: Window) -> Check:
    late = lags(columns, window)
    limit = f"p99 under {MOST_LAG_S * 1000:g} ms after the moment when a request was due"
    if not late.size:
        return Check(name="schedule_lag", passed=None, limit=limit, seen="no request was sent in the window")
    worst = percentile(late, 99)
    return Check(
        name="schedule_lag",
        passed=worst < MOST_LAG_S,
        limit=limit,
        seen=f"p99 {worst * 1000:.2f} ms of {late.size:,} requests",
    )


def _sent(columns: Columns, window: Window, intended: Intended) -> list[Check]:
    if not intended.is_open:
        return []
    due = due_in(columns, window)
    offered = int(due.sum())
    sent = int((due & (columns.outcome != OUTCOMES.index(Outcome.UNSENT))).sum())
    return [
        Check(
            name="achieved_rate",
            passed=offered > 0 and sent / offered >= LEAST_SENT,
            limit=f"at least {LEAST_SENT:.0%} of what was due was sent",
            seen=f"{sent:,} of {offered:,}" if offered else "nothing was due in the window",
        )
    ]


def _clock(files: RepeatFiles) -> Check:
    """A jump of the wall clock moves no span, which are monotonic; it does misplace what engines said beside them."""
    jump = max((abs(footer.wall_minus_monotonic_s) for footer in files.footers), default=None)
    return Check(
        name="clock",
        passed=None if jump is None else jump < MOST_CLOCK_JUMP_S,
        limit=f"the wall clock moves under {MOST_CLOCK_JUMP_S:g} s against the monotonic one",
        seen="no worker came to its end" if jump is None else f"it moved by {jump:.3f} s",
    )


def _hosts(files: RepeatFiles) -> list[Check]:
    """Of several hosts: whether they began as one. Their wall clocks may differ, as no figure rests on them."""
    within = [header.begin_within_s for header in files.headers if header.begin_within_s is not None]
    if not within:
        return []
    ahead = [header.wall_offset_s or 0.0 for header in files.headers]
    hosts = len({header.host for header in files.headers})
    of = f"{hosts} host{'' if hosts == 1 else 's'}"
    return [
        Check(
            name="hosts",
            passed=max(within) <= MOST_BEGIN_S,
            limit=f"workers of all hosts begin within {MOST_BEGIN_S * 1000:g} ms of one another",
            seen=f"{len(within)} workers of {of} within {max(within) * 1000:.2f} ms; "
            f"their wall clocks lie {max(ahead) - min(ahead):.3f} s apart, which enters no figure",
        )
    ]


# --- what was asked for -------------------------------------------------------------------------------------


def _calibration(columns: Columns, window: Window, intended: Intended) -> list[Check]:
    """Whether the client read no more than it was shown to be able to."""
    able = intended.calibrated_events_per_s
    if able is None:
        return []
    read = arrived_in(columns, window, np.ones(columns.n, dtype=np.bool_)).events / window.span_s
    return [
        Check(
            name="calibration",
            passed=read <= able,
            limit=f"at most {able:,.0f} events/s, what the workers were shown to read on a stand-in",
            seen=f"{read:,.0f} events/s",
        )
    ]


def _stream(columns: Columns, window: Window) -> Check:
    """Whether tokens were seen to come: an answer in few events has times that say nothing of its tokens."""
    answered = due_in(columns, window) & columns.is_ok & (columns.completion_tokens >= STREAM_TOKENS)
    limit = (
        f"of answers of {STREAM_TOKENS} tokens or more, {LEAST_STREAMED:.0%} come in at least an event for every "
        f"{MOST_TOKENS_AN_EVENT} tokens"
    )
    n = int(answered.sum())
    if not n:
        return Check(name="stream", passed=None, limit=limit, seen="there is no such answer")
    events = columns.gap_counts[answered] + 1
    streamed = int((columns.completion_tokens[answered] / events <= MOST_TOKENS_AN_EVENT).sum())
    return Check(name="stream", passed=streamed >= LEAST_STREAMED * n, limit=limit, seen=f"{streamed:,} of {n:,}")


def _token_source(columns: Columns, window: Window) -> Check:
    answered = due_in(columns, window) & columns.is_ok
    n, own = int(answered.sum()), int((answered & columns.is_engine_usage).sum())
    return Check(
        name="token_source",
        passed=own == n if n else None,
        limit="token counts of every answer are the engine's own",
        seen=f"{own:,} of {n:,}" if n else "no request was answered in the window",
    )


def _lengths(columns: Columns, window: Window, intended: Intended) -> list[Check]:
    if not intended.asks_for_lengths:
        return []
    answered = due_in(columns, window) & columns.is_ok
    faults, shown = [], []
    asked, got = columns.asked_input_tokens[answered], columns.prompt_tokens[answered]
    told = np.isfinite(asked) & np.isfinite(got)
    if told.any():
        ratio = float(np.median(got[told] / asked[told]))
        shown.append(f"prompts of {ratio:.1%} of the length asked (median)")
        if abs(ratio - 1) > LENGTH_SLACK:
            faults.append("prompts")
    asked, got = columns.asked_output_tokens[answered], columns.completion_tokens[answered]
    told = np.isfinite(asked) & np.isfinite(got)
    if intended.is_pinned and told.any():
        off = int((asked[told] != got[told]).sum())
        shown.append(f"{off:,} of {int(told.sum()):,} answers of another length than pinned")
        if off:
            faults.append("answers")
    return [
        Check(
            name="lengths",
            passed=None if not shown else not faults,
            limit=f"prompts within {LENGTH_SLACK:.0%} of the length asked, pinned answers exact",
            seen="; ".join(shown) or "no answer tells its lengths",
        )
    ]


def _cache_hits(columns: Columns, window: Window, intended: Intended, engines: EngineWindow) -> Check:
    answered = due_in(columns, window) & columns.is_ok
    prompts, cached = columns.prompt_tokens[answered], columns.cached_tokens[answered]
    told = np.isfinite(prompts) & np.isfinite(cached)
    by_usage = float(cached[told].sum() / prompts[told].sum()) if told.any() and told.all() else None
    seen_shares = [
        (share, source)
        for share, source in ((by_usage, "usage"), (engines.prefix_hit_share, "counters"))
        if share is not None
    ]
    share, source = max(seen_shares, default=(None, ""))
    if intended.has_shared_prefix:
        limit = "prefixes are shared on purpose: whatever share is seen"
        passed = None if share is None else True
    else:
        limit = f"every prompt is new: at most {MOST_COLD_HITS:.0%} of its tokens were kept from earlier ones"
        passed = None if share is None else share <= MOST_COLD_HITS
    words = {"usage": "by the answers' usage", "counters": "by the engines' counters"}
    seen = "neither the usage of all answers nor engines tell" if share is None else f"{share:.1%} {words[source]}"
    return Check(name="cache_hits", passed=passed, limit=limit, seen=seen)


def provenance_check(provenances: Sequence[str]) -> Check:
    """Whether answers, or repeats, are all of one provenance."""
    kinds = sorted(set(provenances))
    return Check(
        name="provenance",
        passed=None if not kinds or kinds == ["unknown"] else len(kinds) == 1,
        limit="all answers are of one provenance",
        seen=", ".join(kinds) or "nothing tells",
    )


def _answering(provenances: Sequence[str]) -> Check | None:
    """Whether the target was there when the repeat began and when it had ended; None where it was."""
    if SILENT not in provenances:
        return None
    known = next((one for one in provenances if one != SILENT), None)
    when = "before and after" if known is None else "before" if provenances[0] == SILENT else "after"
    return Check(
        name="provenance",
        passed=False,
        limit="all answers are of one provenance",
        seen=f"the target did not answer {when} the repeat" + ("" if known is None else f"; else {known}"),
    )


# --- the engine ---------------------------------------------------------------------------------------------


def _steady(columns: Columns, window: Window, intended: Intended, objectives: Sequence[ObjectiveSeen]) -> list[Check]:
    """Whether a longer window would say the same.

    Work that piles up makes latencies grow with the window's length. If objectives are missed already, a longer one
    only misses them further, so the finding stands; figures that look good would not.
    """
    if not intended.is_steady:
        return []
    growth = growth_of(columns, window)
    drift = drift_of(columns, window)
    limit = f"no work piles up, and TTFT moves under {MOST_DRIFT:.0%} between the window's halves"
    if intended.is_open and growth.is_overload:
        missed = any(one.met is False for one in objectives)
        seen = f"in flight grew from {growth.first:.1f} to {growth.last:.1f}: overloaded"
        if missed:
            seen += "; a longer window would miss the objectives further"
        return [Check(name="steady_state", passed=missed, limit=limit, seen=seen)]
    if drift is None:
        return [Check(name="steady_state", passed=None, limit=limit, seen="too few answers to tell")]
    return [Check(name="steady_state", passed=not drift.is_sure, limit=limit, seen=drift.words)]


def _in_flight(columns: Columns, window: Window, intended: Intended) -> list[Check]:
    """Whether a closed loop kept as many requests in flight as it has users."""
    users = intended.users
    if users is None:
        return []
    flight = in_flight_at(columns, np.linspace(window.begin_s, window.end_s, SAMPLES, endpoint=False))
    seen = float(np.median(flight))
    return [
        Check(
            name="in_flight",
            passed=seen >= users * (1 - RUNNING_SLACK) - 1,
            limit=f"{users} users keep about as many requests in flight",
            seen=f"{seen:g} (median)",
        )
    ]


def _running(columns: Columns, window: Window, engines: EngineWindow) -> Check:
    limit = f"engines hold what was sent, within {RUNNING_SLACK:.0%} or 2 requests: nobody else's, none kept elsewhere"
    if engines.running_and_waiting is None:
        return Check(name="running", passed=None, limit=limit, seen="the engines were not asked")
    moments = np.linspace(window.begin_s, window.end_s, SAMPLES, endpoint=False)
    sent = float(np.median(in_flight_at(columns, moments)))
    off = abs(engines.running_and_waiting - sent)
    return Check(
        name="running",
        passed=off <= max(2.0, RUNNING_SLACK * sent),
        limit=limit,
        seen=f"{engines.running_and_waiting:g} running or waiting there, {sent:g} in flight here (medians)",
    )


def _restart(engines: EngineWindow) -> Check:
    restarts, gone = engines.restarts, engines.gone
    limit = "no engine restarts or goes away"
    if restarts is None:
        return Check(name="engine_restart", passed=None, limit=limit, seen="the engines were not read")
    seen = f"{restarts} restart{'' if restarts == 1 else 's'} seen"
    if engines.unanswered:
        seen += f"; {engines.unanswered} of {engines.readings} readings unanswered"
    if gone:
        seen += f"; {gone} engine{'' if gone == 1 else 's'} did not answer any more"
    return Check(name="engine_restart", passed=restarts == 0 and gone == 0, limit=limit, seen=seen)


def _same_engines(looks: Sequence[Look]) -> Check:
    """Engines behind a name come and go. What is said of one GPU counts those that the run began with."""
    changes = list(dict.fromkeys(look.moved for look in looks if look.moved))
    is_known = bool(looks) and all(look.moved is not None for look in looks)
    return Check(
        name="same_engines",
        passed=False if changes else True if is_known else None,
        limit="the model has the engines that it had when the run began",
        seen="; ".join(changes) or ("the same" if is_known else "name servers did not say"),
    )
