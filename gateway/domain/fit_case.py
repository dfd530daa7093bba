"""One model's facts and one plan made into a case for the arithmetic, or one sentence that says why there is none.

What each GPU then holds is memory_case's; what follows for the verdict, feasibility's.
"""

from __future__ import annotations

from gateway.domain.kv_groups import KvRefused, Paging
from gateway.domain.kv_layers import KV_DTYPES
from gateway.domain.memory import missing_kv_fields, overhead_bytes, splits_over
from gateway.domain.memory_case import MemoryCase, layout_under
from gateway.domain.records import Gpu, Model, ModelShape, ServingKind
from gateway.domain.serving_plan import ServingPlan
from gateway.domain.shapes import contradictions
from gateway.domain.weights import number_format, weights_bytes, weights_bytes_as


def build_case(
    model: Model, gpu: Gpu, *, context: int, concurrency: int, plan: ServingPlan, paging: Paging
) -> MemoryCase | str:
    """All that the arithmetic needs, or one sentence that says why there is no estimate."""
    shape, weights = model.shape, planned_weights(model, plan)
    obstacle = _obstacle(model, plan)
    overhead = plan.overhead_bytes or (None if shape is None else overhead_bytes(shape, paging))
    if obstacle is not None or shape is None or weights is None or overhead is None:
        return obstacle or "Unknown: facts are missing."
    length = min(context, shape.context or context)
    try:
        layout = layout_under(shape, plan)
        assert layout is not None
        return MemoryCase(
            model=model,
            shape=shape,
            gpu=gpu,
            context=length,
            concurrency=concurrency,
            plan=plan,
            paging=paging,
            weights=weights,
            overhead=overhead,
            layout=layout,
            blocks_per_request=layout.blocks_per_request(length, paging),
            stage_block_bytes=layout.stage_block_bytes(paging),
        )
    except KvRefused as refusal:
        return f"Unknown: vLLM would not start: {refusal}."
    except ValueError as error:
        return f"Unknown: {error}."


def planned_weights(model: Model, plan: ServingPlan) -> int | None:
    """Bytes of all weights in the plan's number format; the published ones where that is theirs."""
    asked = plan.quantisation
    if asked is None or number_format(asked) == number_format(model.weights.dtype):
        return weights_bytes(model)
    return None if model.shape is None else weights_bytes_as(model.shape, asked)


def _obstacle(model: Model, plan: ServingPlan) -> str | None:
    """Why no estimate can be made, in one sentence; None when it can."""
    unpublished = model.weights.repo is None and model.weights.size_bytes is None
    if unpublished and model.serving.kind is not ServingKind.VLLM:
        return "There are no public weights, so nothing can be said about a GPU of one's own."
    if model.shape is None:
        return "Unknown: the model's shape (layers, kv_heads, head_dim) is not in the registry."
    missing = _missing(model, model.shape, plan)
    if missing:
        return f"Unknown: the registry has no usable value for {', '.join(missing)}."
    wrong = contradictions(model.shape, architecture=model.weights.architecture)
    if wrong:
        return f"Unknown: the registry's facts contradict each other or cannot be: {'; '.join(wrong)}."
    return _unservable(model.shape, plan)


def _missing(model: Model, shape: ModelShape, plan: ServingPlan) -> list[str]:
    missing = list(missing_kv_fields(shape))
    if plan.quantisation is not None and number_format(plan.quantisation) is None:
        missing.append(f"the format asked for ({plan.quantisation!r})")
    elif planned_weights(model, plan) is None:
        known = plan.quantisation is not None or number_format(model.weights.dtype) is not None
        missing.append("weights.size_bytes or params" if known else f"weights.dtype ({model.weights.dtype!r})")
    if plan.overhead_bytes is None and overhead_bytes(shape, Paging()) is None:
        missing.append("heads and head_dim, or hidden")
    if shape.context is not None and shape.context < 1:
        missing.append("context")
    return missing


def _unservable(shape: ModelShape, plan: ServingPlan) -> str | None:
    """Why vLLM does not start this model under this plan, whatever the memory."""
    size, stages = plan.tensor_parallel, plan.pipeline_parallel
    if plan.kv_dtype not in KV_DTYPES:
        return f"Unknown: kv_dtype {plan.kv_dtype!r} is not known; known are {', '.join(sorted(KV_DTYPES))}."
    if not splits_over(shape, size):
        heads = f"{shape.heads} heads" + (f" and {shape.kv_heads} KV heads" if shape.mla is None else "")
        return f"Unknown: vLLM cannot cut {heads} over {size} GPUs."
    if shape.ffn and shape.ffn % size:
        return f"Unknown: vLLM cannot cut feed-forward layers of {shape.ffn:,} over {size} GPUs."
    if stages > (shape.layers or 0):
        return f"Unknown: {shape.layers} layers cannot be cut into {stages} pipeline stages."
    if plan.expert_parallel and shape.moe is None:
        return "Unknown: expert parallelism was asked for, but the model has no experts."
    return None
