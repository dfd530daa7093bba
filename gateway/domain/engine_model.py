"""Continuous batching as a state machine: who waits, who runs, who is preempted, and how long each step takes.

It follows vLLM's V1 scheduler: one token budget for prompts and answers alike, prompts cut into chunks, KV blocks
taken as they are needed, the newest running request preempted and recomputed when blocks run out, no prefix cache.
It holds counts only: no text, no clock, no tasks; the caller decides when a step is over and what its tokens say.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from gateway.domain.feasibility import estimate
from gateway.domain.kv_cache import KvLayout
from gateway.domain.kv_groups import KvGroup, Paging
from gateway.domain.kv_layers import Keeps
from gateway.domain.memory import GIB
from gateway.domain.records import Gpu, Model
from gateway.domain.roofline import Roofline, Work, build_roofline
from gateway.domain.serving_plan import GPU_MEMORY_UTILIZATION as GPU_MEMORY_UTILIZATION

ASSUMED_CONTEXT = 8192
"""Longest request, in tokens, of a model whose own limit nobody knows."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What an engine resolves at start; vLLM's names."""

    num_gpu_blocks: int
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    block_size: int = 16
    batches_in_flight: int = 2

    @property
    def paging(self) -> Paging:
        return Paging(self.block_size, self.max_num_batched_tokens, self.batches_in_flight)


@dataclass(slots=True, eq=False)
class _Sequence:
    """One request in the engine. `known` = prompt and answer so far; `computed` of them are in the KV cache."""

    id: str
    known: int
    computed: int = 0
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One step as planned. Empty when nothing can run."""

    duration_s: float = 0.0
    works: tuple[tuple[str, Work], ...] = ()
    admitted: tuple[str, ...] = ()
    """Requests that run for the first time or again."""
    preempted: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        return sum(work.new_tokens for _, work in self.works)


class Scheduler:
    """The state of one engine. `begin_step` plans, `end_step` says who got a token; `add`, `finish` between them.

    Invariant: free blocks + blocks held by running requests = all blocks; waiting requests hold none.
    """

    def __init__(self, limits: EngineLimits, roofline: Roofline) -> None:
        self.limits = limits
        self._roofline = roofline
        self._free = limits.num_gpu_blocks
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._by_id: dict[str, _Sequence] = {}
        self._step = Step()

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def free_blocks(self) -> int:
        return self._free

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return 1.0 - self._free / self.limits.num_gpu_blocks

    def add(self, request_id: str, prompt_tokens: int) -> None:
        """Queue a request. Raises ValueError when it can never run: empty, too long, or an id already here."""
        if not 1 <= prompt_tokens <= self.limits.max_model_len:
            raise ValueError(
                f"{request_id}: expected 1 to {self.limits.max_model_len} prompt tokens, got {prompt_tokens}"
            )
        if request_id in self._by_id:
            raise ValueError(f"{request_id}: a request of this id is in the engine already")
        self._by_id[request_id] = sequence = _Sequence(request_id, known=prompt_tokens)
        self._waiting.append(sequence)

    def finish(self, request_id: str) -> None:
        """Let a request go and free its blocks, whether it is done or its client left; unknown ids are ignored."""
        sequence = self._by_id.pop(request_id, None)
        if sequence is None:
            return
        self._release(sequence)
        if sequence in self._running:
            self._running.remove(sequence)
        else:
            self._waiting.remove(sequence)

    def begin_step(self) -> Step:
        """Plan the next step: running requests first, in order of admission, then waiting ones as far as room is."""
        works: dict[str, Work] = {}
        budget, preempted = self._schedule_running(works)
        admitted = [] if preempted else self._admit(works, budget)
        self._step = Step(
            duration_s=self._roofline.step_seconds(works.values()),
            works=tuple(works.items()),
            admitted=tuple(admitted),
            preempted=tuple(preempted),
        )
        return self._step

    def end_step(self) -> tuple[str, ...]:
        """Count the planned step as done; the ids that got one token each, in scheduling order."""
        got: list[str] = []
        for request_id, work in self._step.works:
            sequence = self._by_id.get(request_id)
            if sequence is None:
                continue  # left while the step ran
            sequence.computed += work.new_tokens
            if sequence.computed == sequence.known:
                sequence.known += 1
                got.append(request_id)
        self._step = Step()
        return tuple(got)

    def _schedule_running(self, works: dict[str, Work]) -> tuple[int, list[str]]:
        budget = self.limits.max_num_batched_tokens
        preempted: list[str] = []
        index = 0
        while index < len(self._running) and budget > 0:
            sequence = self._running[index]
            count = min(sequence.known - sequence.computed, budget)
            while not self._allocate(sequence, count):
                victim = self._running.pop()
                preempted.append(victim.id)
                self._preempt(victim)
                if victim is sequence:
                    return budget, preempted
            works[sequence.id] = _work(sequence, count)
            budget -= count
            index += 1
        return budget, preempted

    def _admit(self, works: dict[str, Work], budget: int) -> list[str]:
        admitted: list[str] = []
        while self._waiting and budget > 0 and len(self._running) < self.limits.max_num_seqs:
            sequence = self._waiting[0]
            if self._blocks_to_admit(sequence.known) > self._free:
                break
            count = min(sequence.known, budget)
            self._allocate(sequence, count)
            self._waiting.popleft()
            self._running.append(sequence)
            works[sequence.id] = _work(sequence, count)
            admitted.append(sequence.id)
            budget -= count
        return admitted

    def _blocks_to_admit(self, known: int) -> int:
        """vLLM admits a request only when its whole prompt has room: fewer preemptions."""
        whole = self._roofline.kv.blocks_per_request(known, self.limits.paging)
        return min(self._blocks_for(0, known), whole)

    def _preempt(self, victim: _Sequence) -> None:
        self._release(victim)
        victim.computed = 0
        self._waiting.appendleft(victim)

    def _allocate(self, sequence: _Sequence, count: int) -> bool:
        """Give `sequence` the blocks for `count` more tokens, and take those that its window left behind."""
        extra = self._blocks_for(sequence.computed, count) - sequence.blocks
        if extra > self._free:
            return False
        self._free -= extra
        sequence.blocks += extra
        return True

    def _release(self, sequence: _Sequence) -> None:
        self._free += sequence.blocks
        sequence.blocks = 0

    def _blocks_for(self, computed: int, count: int) -> int:
        return resident_blocks(self._roofline.kv, self.limits.block_size, computed, count)


def _work(sequence: _Sequence, count: int) -> Work:
    return Work(count, sequence.computed, samples=sequence.computed + count == sequence.known)


def resident_blocks(layout: KvLayout, block: int, computed: int, count: int) -> int:
    """Blocks of a request that has `computed` tokens and computes `count` more: window layers keep w - 1 behind."""
    groups = layout.groups(Paging(block))
    return sum(_resident(group, layout.rules.state_pages, computed, count) for group in groups)


def _resident(group: KvGroup, state_pages: int, computed: int, count: int) -> int:
    held = -(-(computed + count) // group.block)
    span = group.layer.span or 0
    match group.layer.keeps:
        case Keeps.STATE:
            return state_pages
        case Keeps.WINDOW:
            return held - max(0, computed - span + 1) // group.block
        case Keeps.CHUNK:
            return held - computed // span * span // group.block
        case _:
            return held


def resolve_limits(
    model: Model, gpu: Gpu, *, max_model_len: int | None = None, max_num_seqs: int | None = None
) -> EngineLimits:
    """What vLLM would resolve when it starts `model` on one `gpu`.

    Without `max_model_len` it is the model's context (ASSUMED_CONTEXT where that is unknown), or what the KV cache
    holds where that is less (vLLM's `--max-model-len auto`). Raises ValueError, with the figures, for unknown facts,
    weights that leave no room for the cache, or a length asked that one request could not have.
    """
    roofline = build_roofline(model, gpu)
    own_limit = None if model.shape is None else model.shape.context
    if max_model_len is not None and not 1 <= max_model_len <= (own_limit or max_model_len):
        raise ValueError(f"{model.id}: max_model_len must be 1 to {own_limit}, got {max_model_len}")
    context = max_model_len or own_limit or ASSUMED_CONTEXT
    answer = estimate(model, gpu, context=context)
    paging = answer.inputs.paging
    available = answer.kv_available_bytes
    blocks = 0 if available is None else roofline.kv.blocks_in(available.likely, paging)
    longest = roofline.kv.longest_context(blocks, paging, limit=context)
    if longest < (max_model_len or 1):
        raise ValueError(f"{model.id} does not run on one {gpu.id}: {' '.join(answer.reasons[:2])}")
    return EngineLimits(
        num_gpu_blocks=blocks,
        max_model_len=longest,
        max_num_batched_tokens=paging.max_batched_tokens,
        max_num_seqs=max_num_seqs or _default_max_num_seqs(gpu),
        block_size=paging.block,
        batches_in_flight=paging.batches_in_flight,
    )


def max_concurrency(limits: EngineLimits, layout: KvLayout) -> float:
    """Requests of full length that the KV cache holds at once; vLLM's `kv_cache_max_concurrency`."""
    return limits.num_gpu_blocks / layout.blocks_per_request(limits.max_model_len, limits.paging)


def _default_max_num_seqs(gpu: Gpu) -> int:
    """vLLM's server default: 1,024 from 70 GiB (not on an A100), else 256."""
    return 256 if gpu.memory_bytes < 70 * GIB or "a100" in f"{gpu.id} {gpu.name}".lower() else 1024
