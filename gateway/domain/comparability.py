"""May the timings of a comparison's sides be held against each other, and what may be said in one line about them?

Finished sides in, a judgement with its reason out. How sides are asked and how their figures came about is not known
here; where something is unknown the answer is the cautious one, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from typing import Any

from gateway.domain.records import Cost, Provenance, Timing, Usage

GPU_TIME_BASES = frozenset({"gpu_time", "gpu_time_provisional"})


@dataclass(frozen=True, slots=True)
class Finished:
    """One side at its end, as far as judging needs it."""

    model: str
    is_ok: bool
    provenance: Provenance
    usage: Usage
    timing: Timing
    cost: Cost
    host: str | None = None
    """What physically served it; None where no engine was reached."""
    span_s: tuple[float, float] | None = None
    """When it was asked and when it ended, on one monotonic clock; None where it was never asked."""
    attempts: int = 1
    """Replicas tried."""
    was_held_back: bool = False
    """Its engine had to wait for a slow reader, which lengthens its figures."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether timings are comparable, and why (not)."""

    comparable: bool
    reason: str


def judge_timing(sides: Sequence[Finished]) -> Judgement:
    """Comparable only when every side answered, undisturbed by the others, from equal caches and one provenance."""
    obstacles = [*_failures(sides), *_shared_hosts(sides), *_unequal_caches(sides), *_mixed_provenance(sides)]
    obstacles += [f"{side.model} was tried on {side.attempts} replicas" for side in sides if side.attempts > 1]
    obstacles += [f"{side.model} had to wait for a slow reader" for side in sides if side.was_held_back]
    obstacles += [
        f"{side.model} waited {side.timing.queue_s:.3f} s for an engine" for side in sides if side.timing.queue_s
    ]
    if obstacles:
        return Judgement(comparable=False, reason="; ".join(obstacles))
    hosts = "simulated hosts" if all(side.provenance is Provenance.SIMULATED for side in sides) else "hosts"
    how = f"asked at the same time on separate {hosts}" if _any_overlap(sides) else "asked one after the other"
    unknown = [side.model for side in sides if side.usage.cached_tokens is None]
    note = f"; equal caches are assumed, {_listed(unknown)} did not report cached tokens" if unknown else ""
    return Judgement(comparable=True, reason=how + note)


def summarise(sides: Sequence[Finished], timing: Judgement) -> dict[str, Any]:
    """Small facts about the whole, each null with its reason where it may not be said."""
    return {
        "provenance": _provenance_fact(sides),
        "fastest_first_token": _fastest_first_token(sides, timing),
        "cheapest": _cheapest(sides, timing),
    }


# --- obstacles ----------------------------------------------------------------------------------------------


def _failures(sides: Sequence[Finished]) -> Iterator[str]:
    return (f"{side.model} gave no complete answer" for side in sides if not side.is_ok)


def _shared_hosts(sides: Sequence[Finished]) -> Iterator[str]:
    for one, other in combinations(sides, 2):
        if one.host is not None and one.host == other.host and _overlap(one, other):
            yield f"{one.model} and {other.model} shared the host {one.host} at the same time"


def _overlap(one: Finished, other: Finished) -> bool:
    if one.span_s is None or other.span_s is None:
        return False
    return one.span_s[0] < other.span_s[1] and other.span_s[0] < one.span_s[1]


def _any_overlap(sides: Sequence[Finished]) -> bool:
    return any(_overlap(one, other) for one, other in combinations(sides, 2))


def _unequal_caches(sides: Sequence[Finished]) -> Iterator[str]:
    """Known counts that differ, or a warm cache beside one that nobody knows about."""
    counts = {side.model: side.usage.cached_tokens for side in sides if side.is_ok}
    known = {count for count in counts.values() if count is not None}
    if len(known) > 1 or (None in counts.values() and any(known)):
        told = (f"{model} {'unknown' if count is None else count}" for model, count in counts.items())
        yield f"caches were not equally warm (cached prompt tokens: {', '.join(told)})"


def _mixed_provenance(sides: Sequence[Finished]) -> Iterator[str]:
    kinds = {side.model: side.provenance for side in sides if side.is_ok}
    if len(set(kinds.values())) > 1:
        yield f"provenance differs ({', '.join(f'{model} {kind.value}' for model, kind in kinds.items())})"


# --- facts --------------------------------------------------------------------------------------------------


def _provenance_fact(sides: Sequence[Finished]) -> dict[str, Any]:
    kinds = {side.provenance for side in sides}
    if kinds == {Provenance.REAL}:
        return {"value": Provenance.REAL.value, "reason": None}
    unreal = [f"{side.model} is {side.provenance.value}" for side in sides if side.provenance is not Provenance.REAL]
    reason = f"not all real ({'; '.join(unreal)}): for trying and planning, not for a verdict or a ranking"
    return {"value": kinds.pop().value if len(kinds) == 1 else None, "reason": reason}


def _fastest_first_token(sides: Sequence[Finished], timing: Judgement) -> dict[str, Any]:
    nothing = {"model": None, "ttft_s": None}
    if not timing.comparable:
        return {**nothing, "reason": f"timings are not comparable: {timing.reason}"}
    spans = {side.model: side.timing.ttft_s for side in sides if side.timing.ttft_s is not None}
    if len(spans) < len(sides):
        missing = [side.model for side in sides if side.timing.ttft_s is None]
        return {**nothing, "reason": f"the first-token time of {_listed(missing)} is unknown"}
    model = _only_least(spans)
    if model is None:
        return {**nothing, "reason": "more than one side had the shortest first-token time"}
    return {"model": model, "ttft_s": spans[model], "reason": None}


def _cheapest(sides: Sequence[Finished], timing: Judgement) -> dict[str, Any]:
    nothing = {"model": None, "amount": None, "currency": None, "basis": None}
    why = next((why for why in (check(sides, timing) for check in _COST_CHECKS) if why is not None), None)
    if why is not None:
        return {**nothing, "reason": why}
    amounts = {side.model: side.cost.amount for side in sides if side.cost.amount is not None}
    model = _only_least(amounts)
    if model is None:
        return {**nothing, "reason": "more than one side had the lowest cost"}
    cost = sides[0].cost
    return {
        "model": model,
        "amount": f"{amounts[model]:f}",
        "currency": cost.currency,
        "basis": cost.basis,
        "reason": None,
    }


def _why_incomplete(sides: Sequence[Finished], _timing: Judgement) -> str | None:
    failed = [side.model for side in sides if not side.is_ok]
    return f"{_listed(failed)} gave no complete answer" if failed else None


def _why_unpriced(sides: Sequence[Finished], _timing: Judgement) -> str | None:
    unknown = [side.model for side in sides if side.cost.amount is None]
    return f"the cost of {_listed(unknown)} is unknown" if unknown else None


def _why_unlike(sides: Sequence[Finished], timing: Judgement) -> str | None:
    """Costs that rest on different things; GPU time is a timing and stands or falls with these."""
    if len({(side.cost.currency, side.cost.basis) for side in sides}) > 1:
        told = (f"{side.model} {side.cost.currency} by {side.cost.basis}" for side in sides)
        return f"costs differ in currency or basis ({', '.join(told)})"
    obstacle = next(_mixed_provenance(sides), None)
    if obstacle is None and sides[0].cost.basis in GPU_TIME_BASES and not timing.comparable:
        return f"GPU time is not comparable: {timing.reason}"
    return obstacle


_COST_CHECKS: tuple[Callable[[Sequence[Finished], Judgement], str | None], ...] = (
    _why_incomplete,
    _why_unpriced,
    _why_unlike,
)


def _only_least(values: Mapping[str, float] | Mapping[str, Decimal]) -> str | None:
    """The name with the least value; None when several share it."""
    least = min(values.values())
    names = [name for name, value in values.items() if value == least]
    return names[0] if len(names) == 1 else None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
