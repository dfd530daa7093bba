"""Requests of a load run made up for tests: a steady engine that answers by a known schedule, and what can go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from loadtests.cells import CellSeen, Repeat
from loadtests.columns import Columns, RepeatFiles, columns_of
from loadtests.figures import Window, latencies, outcomes, rates
from loadtests.objectives import see_objectives
from loadtests.plan import Objective
from loadtests.records import VERSION, CellFooter, CellHeader, Outcome, RequestRecord

TTFT_S = 0.2
GAP_S = 0.02
WINDOW = Window(1.0, 10.0)


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


def repeat_with(
    number: int, ttft_s: float = TTFT_S, limit: str = "2", *, gap_s: float = GAP_S, door: str = "gateway", **over: Any
) -> Repeat:
    """A valid repeat of 100 requests, judged by p95 of TTFT; the claim `ttft` says the same."""
    files = files_of(steadily(100, ttft_s=ttft_s, gap_s=gap_s))
    window_rates = rates(files.columns, WINDOW, met=None, gpus=1)
    seen = see_objectives(
        files.columns, WINDOW, window_rates, [Objective("ttft_s", "p95", Decimal(limit))], is_open=True
    )
    fields: dict[str, Any] = {
        "number": number,
        "door": door,
        "run_id": "r",
        "seed": number,
        "began_at": "2026-11-28T00:00:00Z",
        "outcomes": outcomes(files.columns, WINDOW),
        "latencies": latencies(files.columns, WINDOW),
        "rates": window_rates,
        "objectives": seen,
        "checks": [],
        "timeline": [],
        "provenance": "real",
        "claimed": {"ttft": seen[0]},
    }
    return Repeat(**fields | over)


def cell_with(repeats: Sequence[Repeat], **over: Any) -> CellSeen:
    fields: dict[str, Any] = {
        "id": "c",
        "door": repeats[0].door if repeats else "gateway",
        "load": "40 users at once",
        "kind": "closed",
        "level": 40.0,
        "is_steady": True,
        "claim": None,
        "repeats": list(repeats),
        "checks": [],
        "input_tokens": 100,
        "output_tokens": 50,
    }
    return CellSeen(**fields | over)
