"""Requests of a load run made up for tests: a steady engine that answers by a known schedule, and what can go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtests.columns import Columns, RepeatFiles, columns_of
from loadtests.records import VERSION, CellFooter, CellHeader, Outcome, RequestRecord

TTFT_S = 0.2
GAP_S = 0.02


def answered(
    n: int, at_s: float, *, tokens: int = 50, ttft_s: float = TTFT_S, gap_s: float = GAP_S, **over: Any
) -> RequestRecord:
    """One request that is sent when it is due and answered token by token."""
    first = at_s + ttft_s
    last = first + gap_s * (tokens - 1)
    fields: dict[str, Any] = {
        "v": VERSION,
        "n": n,
        "item": "t",
        "scheduled_s": at_s,
        "sent_s": at_s,
        "first_s": first,
        "first_output_s": first,
        "last_s": last,
        "ended_s": last,
        "outcome": Outcome.OK,
        "status": 200,
        "asked_input_tokens": 100,
        "asked_output_tokens": tokens,
        "prompt_tokens": 100,
        "completion_tokens": tokens,
        "cached_tokens": 0,
        "usage_source": "engine",
        "finish_reason": "length",
        "token_events": tokens,
        "first_event_tokens": 1,
        "first_event_source": "assumed",
        "gaps_us": [round(gap_s * 1e6)] * (tokens - 1),
        "characters": tokens * 2,
    }
    return RequestRecord(**fields | over)


def failed(n: int, at_s: float, outcome: Outcome = Outcome.CUT, **over: Any) -> RequestRecord:
    """One that came to nothing a second after it was sent."""
    fields: dict[str, Any] = {
        "v": VERSION,
        "n": n,
        "item": "t",
        "scheduled_s": at_s,
        "sent_s": at_s,
        "ended_s": at_s + 1,
        "outcome": outcome,
        "error": f"it was {outcome.value}",
    }
    return RequestRecord(**fields | over)


def steadily(count: int, *, every_s: float = 0.1, **over: Any) -> list[RequestRecord]:
    return [answered(n, n * every_s, **over) for n in range(count)]


def header(worker: int = 0, workers: int = 1) -> CellHeader:
    return CellHeader(
        v=VERSION,
        cell="c",
        repeat=1,
        door="gateway",
        run_id="r",
        worker=worker,
        workers=workers,
        seed=1,
        began_at="2026-11-28T00:00:00Z",
    )


def footer(**over: Any) -> CellFooter:
    fields: dict[str, Any] = {
        "v": VERSION,
        "footer": True,
        "ended_s": 12.0,
        "cpu_s": 2.0,
        "window_s": 10.0,
        "wall_minus_monotonic_s": 0.0,
        "stopped": None,
    }
    return CellFooter(**fields | over)


def files_of(records: Sequence[RequestRecord], *, footers: Sequence[CellFooter] | None = None) -> RepeatFiles:
    return RepeatFiles((header(),), tuple(footers if footers is not None else [footer()]), columns(records), 0)


def columns(records: Sequence[RequestRecord]) -> Columns:
    return columns_of(records)
