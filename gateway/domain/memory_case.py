"""One model on GPUs of one type under one plan, every input known: what each GPU holds and what is left for requests.

The arithmetic that verdict and derivation share. Finding out what is unknown, judging and wording belong to
feasibility.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.domain.kv_cache import KvLayout
from gateway.domain.kv_groups import Paging
from gateway.domain.memory import ByteRange, kv_budget_bytes, kv_layout
from gateway.domain.records import Gpu, Model, ModelShape
from gateway.domain.serving_plan import ServingPlan
from gateway.domain.weights import weights_by_stage


@dataclass(frozen=True, slots=True)
class MemoryCase:
    model: Model
    shape: ModelShape
    gpu: Gpu
    context: int
    concurrency: int
    plan: ServingPlan
    paging: Paging
    weights: int
    """Bytes of all weights, in the plan's number format."""
    overhead: ByteRange
    """On one GPU."""
    layout: KvLayout
    blocks_per_request: int
    stage_block_bytes: tuple[int, ...]
    """Bytes of one block on a GPU of each pipeline stage."""

    def over(self, tensor_parallel: int) -> MemoryCase:
        """The same over so many GPUs instead of the plan's."""
        if tensor_parallel == self.plan.tensor_parallel:
            return self
        plan = replace(self.plan, tensor_parallel=tensor_parallel)
        layout = layout_under(self.shape, plan)
        assert layout is not None
        return replace(
            self,
            plan=plan,
            layout=layout,
            blocks_per_request=layout.blocks_per_request(self.context, self.paging),
            stage_block_bytes=layout.stage_block_bytes(self.paging),
        )

    def stage_weights(self, weights: int) -> tuple[int, ...]:
        """Bytes of the weights on one GPU of each stage."""
        plan = self.plan
        if plan.tensor_parallel == plan.pipeline_parallel == 1:
            return (weights,)
        return weights_by_stage(
            self.shape,
            weights,
            tensor_parallel=plan.tensor_parallel,
            pipeline_parallel=plan.pipeline_parallel,
            expert_parallel=plan.expert_parallel,
        )

    def kv_available(self, weights: int, overhead: int) -> tuple[int, ...]:
        """Bytes left for the KV cache on one GPU of each stage; negative where overdrawn."""
        share = self.plan.gpu_memory_utilization
        return tuple(
            kv_budget_bytes(self.gpu.memory_bytes, share, own, overhead) for own in self.stage_weights(weights)
        )

    def blocks(self, weights: int, overhead: int) -> int:
        """vLLM's num_gpu_blocks: what the poorest stage has room for."""
        left = self.kv_available(weights, overhead)
        return min(max(0, have) // size for have, size in zip(left, self.stage_block_bytes, strict=True))

    def poorest_stage(self, weights: int, overhead: int) -> int:
        """The index of the pipeline stage that decides how many blocks there are."""
        left = self.kv_available(weights, overhead)
        room = [have / size for have, size in zip(left, self.stage_block_bytes, strict=True)]
        return room.index(min(room))

    def headroom(self, weights: int, overhead: int) -> int:
        """KV bytes left beside the requests asked for and the one block that vLLM keeps to itself."""
        blocks = self.concurrency * self.blocks_per_request + 1
        left = self.kv_available(weights, overhead)
        return min(have - blocks * size for have, size in zip(left, self.stage_block_bytes, strict=True))

    def requests_held(self, weights: int, overhead: int) -> int:
        """Requests of full length at once."""
        return max(0, self.blocks(weights, overhead) - 1) // self.blocks_per_request

    def context_held(self, weights: int, concurrency: int) -> int:
        """Longest context at this many requests at once, with the likely overhead, up to the model's own."""
        blocks = max(0, self.blocks(weights, self.overhead.likely) - 1) // concurrency
        limit = self.shape.context or self.context
        return self.layout.longest_context(blocks, self.paging, limit=limit)

    def fits(self, weights: int, overhead: int | None = None) -> bool:
        guess = self.overhead.likely if overhead is None else overhead
        return self.requests_held(weights, guess) >= self.concurrency


def layout_under(shape: ModelShape, plan: ServingPlan) -> KvLayout | None:
    """Raises ValueError for a KV dtype that does not go with the attention."""
    return kv_layout(
        shape,
        tensor_parallel=plan.tensor_parallel,
        pipeline_parallel=plan.pipeline_parallel,
        kv_dtype=plan.kv_dtype,
        rules=plan.rules,
    )
