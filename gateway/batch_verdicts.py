"""What is made of an item's turn: it is over, it is asked again, it waits, or its whole batch goes no further.

Values in, values out. A failure that says nothing about a model must not count against it, and one that waiting cannot
mend must not be waited for, because every new attempt is paid for. Waiting and storing are `batches`' part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.batch_store import ItemEnd, ItemStatus
from gateway.comparison_object import OK
from gateway.errors import (
    ModelNotFound,
    NoReplica,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    SimsaError,
    Unavailable,
)
from gateway.store import Comparison

NOT_ASKED = frozenset(("no_replica", "draining", "recorder_unavailable"))
"""Codes of sides that no engine ever saw: the item is asked again, and the attempt does not count."""
PASSING = frozenset((*NOT_ASKED, "upstream_busy", "upstream_unreachable", "queue_full", "skipped", RateLimited.code))
"""Codes of failures that say nothing about the model: the item is asked again.

`upstream_unreachable` counts as an attempt, for the prompt itself may be what kills the engine. An engine that stays
away costs one attempt at most, since nothing is asked of one that is known to be down. `skipped` counts too: the time
of a comparison that was over once will be over again.
"""
MENDABLE = PASSING | {"internal_error", "not_stored"}
"""Codes of failures that are put right by asking once more, when somebody wants that."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The item could not be asked now, and nothing was."""

    why: str
    pause_s: float | None
    """Seconds after which it may be, where that is known."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing more can be asked for the batch at present."""

    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an item that was asked."""

    end: ItemEnd | None
    """None: the item stays as it was."""
    stop: Stop | None = None
    why_again: str | None = None
    """Why it is asked again, where it is."""


def judge_refusal(error: SimsaError) -> Wait | Stop | None:
    """What a refusal before anything was asked means for the batch; None: it is about this item alone."""
    if isinstance(error, RateLimited):
        return Stop(error.message) if error.retry_after_s is None else Wait(error.message, error.retry_after_s)
    if isinstance(error, Unavailable | NoReplica):
        return Wait(error.told, error.retry_after_s if isinstance(error, Unavailable) else None)
    if isinstance(error, ModelNotFound | PermissionDenied | QuotaExhausted):
        return Stop(error.message)  # so would be every other item
    return None


def judge_comparison(comparison: Comparison, *, attempts: int, most: int) -> Verdict:
    """`attempts`: made before this one; `most`: how many are made."""
    failed = [(side.model, side.error) for side in comparison.sides if side.status != OK]
    for _, error in failed:
        if error["code"] == QuotaExhausted.code:
            return Verdict(None, stop=Stop(error["message"]))
    passing = [(model, error["code"], error["message"]) for model, error in failed if error["code"] in PASSING]
    why = "; ".join(f"{model}: {message}" for model, _, message in passing)
    if any(code in NOT_ASKED for _, code, _ in passing):
        return Verdict(ItemEnd(ItemStatus.PENDING, attempts), why_again=why)
    if passing and attempts + 1 < most:
        return Verdict(ItemEnd(ItemStatus.PENDING, attempts + 1), why_again=why)
    return Verdict(ItemEnd(ItemStatus.DONE, attempts + 1, comparison.id))


def failed_item(error: SimsaError, *, attempts: int) -> ItemEnd:
    """The end of an item that can never be asked, or whose comparison can never be kept."""
    told: dict[str, Any] = {"message": error.told, "type": error.kind, "code": error.code}
    return ItemEnd(ItemStatus.FAILED, attempts + 1, error=told)
