"""A checkpoint's configuration and the headers of its weights, put together into one model of the registry's kind.

Where both speak, the headers win: they are what an engine loads. Where they differ, the fact says so. Reading either
belongs to `checkpoint_facts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from gateway.domain.model_config import ParamCount, count_params, read_weights, shape_of_config
from gateway.domain.records import Confidence, Model, ModelShape, Serving, ServingKind, Sourced, VisionShape, Weights
from gateway.domain.safetensors import Tensor
from gateway.domain.tensor_sums import TensorSums, sum_tensors

_PACKED_BITS = {"int4": 4, "int8": 8}


def checkpoint_model(
    model_id: str, source: str, *, config: Mapping[str, Any] | None, tensors: Iterable[Tensor] | None
) -> Model:
    """The model that a checkpoint is, served by vLLM. `source` names the checkpoint in facts.

    At least one of `config` and `tensors` must be there. Raises ValueError for what cannot be, field by field.
    """
    at = f"config.json of {source}"
    shape, weights = ModelShape(), Weights()
    counted = None
    if config is not None:
        shape, weights = shape_of_config(config, source=at), read_weights(config, source=at)
        counted = count_params(config, source=at)
    if tensors is not None:
        sums = sum_tensors(
            tensors, layers=shape.layers, tied=shape.tied_embeddings, packed_bits=_PACKED_BITS.get(weights.dtype)
        )
        headers = f"safetensors headers of {source}"
        shape = _measured_shape(shape, sums, counted, headers)
        weights = _measured_weights(weights, sums, headers)
    return Model(
        id=model_id,
        serving=Serving(ServingKind.VLLM, served_model_name=model_id),
        weights=weights,
        shape=shape,
        capabilities=frozenset({"vision"}) if shape.vision is not None else frozenset(),
    )


def _measured_shape(shape: ModelShape, sums: TensorSums, counted: ParamCount | None, source: str) -> ModelShape:
    facts = dict(shape.facts)
    if sums.unknown:
        few = ", ".join(sums.unknown[:3]) + (", ..." if len(sums.unknown) > 3 else "")
        reason = f"Not known: {len(sums.unknown)} tensors are in no format known here ({few})."
        facts["params"] = facts["active_params"] = Sourced(source, Confidence.HIGH, reason)
        return replace(shape, params=None, active_params=None, facts=facts)
    language = sums.params - sums.vision_params
    facts["params"] = Sourced(source, Confidence.HIGH, _difference(language, counted))
    active: int | None = sums.params
    facts["active_params"] = Sourced(source, Confidence.HIGH)
    if counted is not None and counted.active != counted.total:
        active = sums.params - (counted.total - counted.active)
        facts["active_params"] = Sourced(
            "arithmetic", Confidence.HIGH, "The headers' parameters but for the experts that a token leaves out."
        )
    elif counted is None and ("moe" in facts or "layers" not in facts):
        active = None
        reason = "Not known: the experts that a token leaves out do not follow from the configuration."
        facts["active_params"] = Sourced(source, Confidence.HIGH, reason)
    vision = shape.vision
    if sums.vision_params:
        vision = replace(vision or VisionShape(), params=sums.vision_params)
        facts["vision"] = Sourced(source, Confidence.HIGH, "Parameters by the names of the tensors.")
    tied = shape.tied_embeddings
    if sums.embedding_params and not sums.has_head and tied is not True:
        tied = True
        facts["tied_embeddings"] = Sourced(source, Confidence.HIGH, "There is no output head among the tensors.")
    elif sums.has_head and tied is None:
        tied = False
        facts["tied_embeddings"] = Sourced(source, Confidence.HIGH, "There is an output head among the tensors.")
    return replace(shape, params=sums.params, active_params=active, vision=vision, tied_embeddings=tied, facts=facts)


def _difference(params: int, counted: ParamCount | None) -> str | None:
    if counted is None or counted.total == params:
        return None
    return f"The configuration leads to {counted.total:,} for the language model, the tensors to {params:,}."


def _measured_weights(weights: Weights, sums: TensorSums, source: str) -> Weights:
    dtype = sums.dtype or weights.dtype
    by_dtype = ", ".join(f"{name} {size:,}" for name, size in sums.bytes_by_dtype.items())
    notes = [f"Bytes by stored format: {by_dtype}."]
    if weights.sourced is not None and dtype != weights.dtype:
        notes.append(f"The configuration says {weights.dtype}.")
    if sums.draft_bytes:
        notes.append(f"Without {sums.draft_bytes:,} bytes of draft layers, which are loaded for speculation only.")
    if sums.tied_bytes:
        notes.append(f"Without {sums.tied_bytes:,} bytes of an output head that is the embedding.")
    return replace(
        weights,
        dtype=dtype,
        size_bytes=sums.total_bytes,
        group_size=sums.group_size or weights.group_size,
        unquantised_params=sums.unquantised_params,
        sourced=Sourced(source, Confidence.HIGH, " ".join(notes)),
    )
