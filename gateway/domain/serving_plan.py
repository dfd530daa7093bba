"""How an engine would be started, as far as memory depends on it: vLLM's own options, with its defaults.

What the options do belongs to kv_cache, weights and memory; whether a model fits under a plan, to feasibility.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.kv_groups import KvRules, Paging
from gateway.domain.memory import ByteRange, default_batched_tokens, default_batches_in_flight, default_block
from gateway.domain.records import Gpu, ModelShape

GPU_MEMORY_UTILIZATION = 0.92
"""vLLM's default since 0.22."""


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """None = what vLLM would take by itself."""

    quantisation: str | None = None
    """Number format of the weights, where it is not the published one."""
    kv_dtype: str = "auto"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: bool = False
    """Whole experts on each GPU of the tensor-parallel set instead of a piece of each."""
    gpu_memory_utilization: float = GPU_MEMORY_UTILIZATION
    max_batched_tokens: int | None = None
    block: int | None = None
    """Tokens."""
    batches_in_flight: int | None = None
    """2 with asynchronous scheduling, one more than the stages of a pipeline, 1 on the CPU."""
    hybrid_kv: bool = True
    """Whether the hybrid KV cache manager is on: else window and chunk layers are charged as full attention."""
    overhead_bytes: ByteRange | None = None
    """Measured, beside weights and KV cache, on one GPU of this type; None = a guess is made."""
    state_pages: int = 2
    """Pages that a request has of a state layer: 2 with prefix caching, 3 for Mamba-2 layers then, 1 without it."""

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def rules(self) -> KvRules:
        return KvRules(hybrid=self.hybrid_kv, state_pages=self.state_pages)

    def paging(self, gpu: Gpu, shape: ModelShape | None) -> Paging:
        """The settings as vLLM's server would resolve them on this GPU."""
        batched = self.max_batched_tokens or default_batched_tokens(f"{gpu.id} {gpu.name}", gpu.memory_bytes)
        block = self.block or default_block(shape or ModelShape())
        return Paging(block, batched, self.batches_in_flight or default_batches_in_flight(self.pipeline_parallel))


def require_sensible(plan: ServingPlan) -> None:
    """Raises ValueError for a plan that nobody can mean."""
    counts = {
        "tensor_parallel": plan.tensor_parallel,
        "pipeline_parallel": plan.pipeline_parallel,
        "max_batched_tokens": plan.max_batched_tokens,
        "block": plan.block,
        "batches_in_flight": plan.batches_in_flight,
        "state_pages": plan.state_pages,
    }
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    if not 0 < plan.gpu_memory_utilization <= 1:
        share = plan.gpu_memory_utilization
        raise ValueError(f"gpu_memory_utilization: expected above 0 and up to 1, got {share}")
    overhead = plan.overhead_bytes
    if overhead is not None and not 0 <= overhead.low <= overhead.likely <= overhead.high:
        raise ValueError("overhead_bytes: expected 0 <= low <= likely <= high")
