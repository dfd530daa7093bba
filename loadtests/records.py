"""One request of a load run, as it lies in the run's own JSON lines: written by workers, read by everything else.

One line a request, offered or sent, whatever became of it; nothing is left out and nothing is rounded but the gaps, to
whole microseconds. Figures made of many requests belong to `figures`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

VERSION = 1
"""Of the schema. A reader refuses what it does not know."""
FOOTER_MARK = b'"footer":true'
"""What a line has that is a footer."""


class Outcome(StrEnum):
    """How an offered request ended. All but OK are failures that count as offered."""

    OK = "ok"
    REFUSED = "refused"
    """An HTTP status that is no success, 429 aside."""
    TOO_MANY = "too_many"
    """429."""
    UNREACHABLE = "unreachable"
    """No connection, or it broke before the first byte of an answer."""
    CUT = "cut"
    """The stream broke off, or ended without its end."""
    FAILED = "failed"
    """The stream brought an error event, or an ending that means the engine gave up."""
    MALFORMED = "malformed"
    """The stream is no stream of events."""
    EMPTY = "empty"
    """It ended well, and no token came."""
    TIMEOUT = "timeout"
    """It took longer than the plan's `timeout_s`."""
    ABANDONED = "abandoned"
    """Still running when the drain deadline came, or the run was stopped."""
    UNSENT = "unsent"
    """Due, and never sent: the client could not keep up or was lost."""


class RequestRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Moments are seconds since the cell's begin on the worker's own monotonic clock. None = it did not happen."""

    v: int
    """`VERSION`."""
    n: int
    """Number of the request in its cell's schedule (open loop) or in its worker (closed loop)."""
    worker: int = 0
    user: int | None = None
    """Closed loop: which user."""
    item: str
    """Which text of the workload."""
    turn: int = 0
    """Of a conversation, from 0."""
    scheduled_s: float
    """t_sched: when it was due. In a closed loop: when the user was ready to ask."""
    sent_s: float | None = None
    """t0: just before its bytes went to the socket."""
    first_s: float | None = None
    """c_1: the first event with tokens."""
    first_output_s: float | None = None
    """The first with output, reasoning aside."""
    last_s: float | None = None
    """c_last."""
    ended_s: float | None = None
    """When nothing more was to come."""
    outcome: Outcome
    status: int | None = None
    error: str | None = None
    """In words, at most 300 characters; never what the model wrote. With OK: what a reader must know all the same."""
    asked_input_tokens: int | None = None
    asked_output_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: str = "unknown"
    """engine | counted | unknown."""
    finish_reason: str | None = None
    token_events: int = 0
    first_event_tokens: int | None = None
    first_event_source: str | None = None
    gaps_us: list[int] = []
    """Between one event with tokens and the next, in order: one fewer than `token_events`."""
    characters: int | None = None
    """Of output and reasoning, as Unicode code points."""
    request_id: str | None = None
    """`x-request-id` of the answer: the gateway's own record of the same call."""
    replica: str | None = None
    """`x-simsa-replica`."""
    side: str | None = None
    """Of a comparison: the model; each side is a record of its own with the same `n`."""


class CellHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The first line of a worker's file: which cell, and how its clock stands to the world's."""

    v: int
    cell: str
    repeat: int
    door: str
    """gateway | direct."""
    run_id: str
    worker: int
    workers: int
    seed: int
    began_at: str
    """ISO 8601, UTC: the wall clock at the cell's second 0; of several hosts that of the one that leads."""
    host: str | None = None
    """Of several hosts: its name."""
    wall_offset_s: float | None = None
    """Of several hosts: how far its wall clock is ahead of that of the one that leads. It enters no figure."""
    begin_within_s: float | None = None
    """Of several hosts: how far its second 0 may lie from that of the one that leads."""


class CellFooter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The last line of a worker's file. A file without one is of a worker that was lost."""

    v: int
    footer: bool
    """Always true: what tells the line from a request."""
    ended_s: float
    cpu_s: float
    """CPU seconds of the worker's process, user and system, from second 0 to the end of the window."""
    window_s: float
    wall_minus_monotonic_s: float
    """How far the wall clock moved against the monotonic one during the cell: a jump, if it is not near 0."""
    stopped: str | None
    """Why it ended early; None if it did not."""
