"""What a running engine says of itself, as values: the configuration that it resolved, and what each look at it showed.

Looks add up to loads, over any span and whoever looked. Reading these out of an engine's documents belongs in
`engine_reports`, what they mean beside a prediction in `columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TypeVar

import numpy as np

T = TypeVar("T", int, float)

NO_LABEL = "None"
"""How vLLM writes a setting that it has not."""
FULL_KV_USAGE = 0.95
"""Share of the KV blocks from which the cache counts as full: the last blocks wait for a request that fits them."""
LOOKS_WAITING = 3
"""Looks that must have seen the engine's own queue: at one alone a request may just have come."""


@dataclass(frozen=True, slots=True)
class ResolvedEngine:
    """What an engine settled at start, in vLLM's words. None = it does not say; see `why_unknown`."""

    version: str | None = None
    max_model_len: int | None = None
    root: str | None = None
    owned_by: str | None = None
    num_gpu_blocks: int | None = None
    block_size: int | None = None
    kv_cache_size_tokens: int | None = None
    kv_cache_max_concurrency: float | None = None
    gpu_memory_utilization: float | None = None
    cache_dtype: str | None = None
    enable_prefix_caching: bool | None = None
    sliding_window: int | None = None
    """None for models that also have full attention, whatever their windows."""
    kv_cache_memory_bytes: int | None = None
    """Where the operator gave the cache's size: then the utilization decides nothing."""
    num_gpu_blocks_override: int | None = None
    engines: int = 0
    """Engines of one address (data parallel) whose cache is described; figures are of each."""
    labels: tuple[tuple[str, str], ...] = ()
    """Every label of cache_config_info by name, as it was said; those in which several engines differ are not here."""

    def why_unknown(self, name: str) -> str:
        """Why a field is None, in words."""
        if name in ("max_model_len", "root", "owned_by"):
            return f"the engine's list of models has no {name}"
        if name == "version":
            return "the engine does not answer /version"
        if not self.engines:
            return "the engine shows no vllm:cache_config_info"
        said = dict(self.labels).get(name)
        if said is None:
            return f"the engine's vllm:cache_config_info has no label {name}, or its engines differ in it"
        return f"the engine says {name}={said}"


@dataclass(frozen=True, slots=True)
class EngineGlance:
    """One reading of an engine's gauges and counters. None = the family is not there, or no quantity."""

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    """Share of the KV blocks in use, 0 to 1; of the fullest where one address has several engines."""
    preemptions: int | None = None
    prefix_queries: int | None = None
    prefix_hits: int | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    started_at_s: float | None = None
    """When its process began, as it says itself: another value is another process, whose counters began at 0."""


FAMILIES: Mapping[str, str] = {
    "peak_running": "vllm:num_requests_running",
    "peak_waiting": "vllm:num_requests_waiting",
    "peak_kv_usage": "vllm:kv_cache_usage_perc",
    "preemptions": "vllm:num_preemptions_total",
    "prefix_queries": "vllm:prefix_cache_queries_total",
    "prefix_hits": "vllm:prefix_cache_hits_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
}
"""Where each figure of an `ObservedLoad` comes from."""
COUNTERS = ("preemptions", "prefix_queries", "prefix_hits", "prompt_tokens", "generation_tokens")


@dataclass(frozen=True, slots=True)
class ObservedLoad:
    """What looks at an engine showed over a span. Peaks are of the looks: what was higher between two is not seen."""

    looks: int
    first_look: datetime
    last_look: datetime
    peak_running: int | None = None
    peak_waiting: int | None = None
    peak_kv_usage: float | None = None
    peak_own_calls: int | None = None
    """Calls of the gateway itself that it was serving at a look."""
    looks_waiting: int = 0
    """Looks at which requests waited in the engine's own queue."""
    preemptions: int | None = None
    """Since the look before the first one, as are the others; an engine that began anew counts from its own 0."""
    prefix_queries: int | None = None
    prefix_hits: int | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    restarts: int = 0
    """Times that the engine's counters began anew."""

    @property
    def hit_rate(self) -> float | None:
        """Share of the prompt tokens looked up that were in the prefix cache; None where none was looked up."""
        if self.prefix_queries is None or self.prefix_hits is None or not self.prefix_queries:
            return None
        return self.prefix_hits / self.prefix_queries

    @property
    def is_saturated(self) -> bool:
        """Whether a load filled the engine: requests were preempted, the cache was full, or a queue stood for long."""
        is_full = self.peak_kv_usage is not None and self.peak_kv_usage >= FULL_KV_USAGE
        return bool(self.preemptions) or is_full or self.looks_waiting >= LOOKS_WAITING

    @property
    def is_idle(self) -> bool:
        """Whether nothing was seen at work."""
        figures = (self.peak_running, self.peak_waiting, self.peak_own_calls, self.prompt_tokens, self.restarts)
        return not any((*figures, self.generation_tokens, self.preemptions))

    def why_unknown(self, name: str) -> str:
        """Why a figure is None, in words."""
        if name == "hit_rate" and self.prefix_queries == 0:
            return "no prompt token was looked up in the prefix cache"
        family = FAMILIES.get("prefix_queries" if name == "hit_rate" else name, name)
        return f"the engine's metrics have no readable {family}"


def one_look(before: EngineGlance | None, now: EngineGlance, *, at: datetime, own_calls: int) -> ObservedLoad:
    """What one look adds, the look before it being `before`: None at first, when counters have no span to count yet."""
    restarted = before is not None and _began_anew(before, now)
    counted = {name: _counted(before, now, name, restarted=restarted) for name in COUNTERS}
    return ObservedLoad(
        looks=1,
        first_look=at,
        last_look=at,
        peak_running=now.running,
        peak_waiting=now.waiting,
        peak_kv_usage=now.kv_usage,
        peak_own_calls=own_calls,
        looks_waiting=int(bool(now.waiting)),
        restarts=int(restarted),
        **counted,
    )


def one_after_the_other(first: ObservedLoad, second: ObservedLoad) -> ObservedLoad:
    """Both spans together, where no look is in both: the higher peak, the sum of what was counted."""
    return _joined(first, second, _sum, restarts=first.restarts + second.restarts)


def side_by_side(one: ObservedLoad, other: ObservedLoad) -> ObservedLoad:
    """What two who looked at the same engine at the same time saw: nothing counts twice."""
    return _joined(one, other, _most, restarts=max(one.restarts, other.restarts))


def joined_loads(by_seer: Iterable[tuple[str, ObservedLoad]]) -> ObservedLoad | None:
    """One engine's loads as one, from all who looked: each one's own spans follow each other, others' may overlap."""
    seers: dict[str, ObservedLoad] = {}
    for seer, load in by_seer:
        seen = seers.get(seer)
        seers[seer] = load if seen is None else one_after_the_other(seen, load)
    whole: ObservedLoad | None = None
    for load in sorted(seers.values(), key=lambda each: each.first_look):
        if whole is None:
            whole = load
        elif load.first_look <= whole.last_look:
            whole = side_by_side(whole, load)
        else:
            whole = one_after_the_other(whole, load)
    return whole


def most_at_once(begins_us: Sequence[int], ends_us: Sequence[int]) -> int:
    """The most of these spans, in microseconds, that hold one moment; one that ends when another begins is not beside
    it. A hundred thousand spans take some ten milliseconds, most of them without the interpreter."""
    begins, ends = np.asarray(begins_us, dtype=np.int64), np.asarray(ends_us, dtype=np.int64)
    has_length = ends > begins
    begins, ends = np.sort(begins[has_length]), np.sort(ends[has_length])
    if not begins.size:
        return 0
    over = np.searchsorted(ends, begins, side="right")  # that have ended when each begins
    return int((np.arange(1, begins.size + 1) - over).max())


def _began_anew(before: EngineGlance, now: EngineGlance) -> bool:
    if None not in (before.started_at_s, now.started_at_s) and before.started_at_s != now.started_at_s:
        return True
    pairs = ((getattr(before, name), getattr(now, name)) for name in COUNTERS)
    return any(old is not None and new is not None and new < old for old, new in pairs)


def _counted(before: EngineGlance | None, now: EngineGlance, name: str, *, restarted: bool) -> int | None:
    new: int | None = getattr(now, name)
    if new is None or before is None:
        return None if new is None else 0
    old: int | None = getattr(before, name)
    if restarted:
        return new
    return 0 if old is None else new - old


def _joined(
    one: ObservedLoad, other: ObservedLoad, count: Callable[[int | None, int | None], int | None], *, restarts: int
) -> ObservedLoad:
    return ObservedLoad(
        looks=one.looks + other.looks,
        first_look=min(one.first_look, other.first_look),
        last_look=max(one.last_look, other.last_look),
        peak_running=_most(one.peak_running, other.peak_running),
        peak_waiting=_most(one.peak_waiting, other.peak_waiting),
        peak_kv_usage=_most(one.peak_kv_usage, other.peak_kv_usage),
        peak_own_calls=_most(one.peak_own_calls, other.peak_own_calls),
        looks_waiting=one.looks_waiting + other.looks_waiting,
        preemptions=count(one.preemptions, other.preemptions),
        prefix_queries=count(one.prefix_queries, other.prefix_queries),
        prefix_hits=count(one.prefix_hits, other.prefix_hits),
        prompt_tokens=count(one.prompt_tokens, other.prompt_tokens),
        generation_tokens=count(one.generation_tokens, other.generation_tokens),
        restarts=restarts,
    )


def _most(one: T | None, other: T | None) -> T | None:
    known = [each for each in (one, other) if each is not None]
    return max(known) if known else None


def _sum(one: int | None, other: int | None) -> int | None:
    known = [each for each in (one, other) if each is not None]
    return sum(known) if known else None


LOAD_FIELDS = tuple(each.name for each in fields(ObservedLoad))
