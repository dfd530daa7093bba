"""A model's facts as an entry of model_registry.yaml, ready to be pasted: the registry's reading, backwards.

Only what a checkpoint tells is written: weights and shape, each fact with its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

from gateway.domain.records import Model, ModelShape, Sourced, Weights
from gateway.registry.schema import ShapeBlock, WeightsBlock

_BLOCKS = ("mla", "moe", "linear", "vision")
_DTYPES = frozenset(get_args(WeightsBlock.model_fields["dtype"].annotation))


def registry_entry(model: Model) -> dict[str, Any]:
    """What stands below `models:` for this model. Read back by the registry it gives the same shape and weights."""
    entry: dict[str, Any] = {"id": model.id, "serving": {"kind": model.serving.kind.value}}
    if weights := _weights(model.weights):
        entry["weights"] = weights
    if model.shape is not None and (shape := _shape(model.shape)):
        entry["shape"] = shape
    if model.capabilities:
        entry["capabilities"] = {"value": sorted(model.capabilities), **_origin(_first(model.shape))}
    return entry


def _weights(weights: Weights) -> dict[str, Any]:
    dtype = weights.dtype if weights.dtype in _DTYPES else None
    note = weights.sourced.note if weights.sourced else None
    if dtype is None:
        note = " ".join(filter(None, (note, f"Stored as {weights.dtype}, which the registry has no word for.")))
    said = {
        "repo": weights.repo,
        "revision": weights.revision,
        "architecture": weights.architecture,
        "dtype": dtype,
        "size": weights.size_bytes,
        "group_size": weights.group_size,
        "unquantised_params": weights.unquantised_params or None,
    }
    known = {name: value for name, value in said.items() if value is not None}
    return {**known, **_origin(weights.sourced), **({"note": note} if note else {})} if known else {}


def _shape(shape: ModelShape) -> dict[str, Any]:
    usual = _first(shape)
    facts: dict[str, Any] = {}
    for name in ShapeBlock.model_fields:
        if name in ("source", "confidence", "note"):
            continue
        value, sourced = getattr(shape, name), shape.facts.get(name)
        if name in _BLOCKS:
            facts |= {name: _block(value, sourced, usual)} if value is not None else {}
        elif value is not None or sourced is not None:
            facts[name] = _fact(value, sourced, usual)
    return {**facts, **_origin(usual)} if facts else {}


def _fact(value: Any, sourced: Sourced | None, usual: Sourced | None) -> Any:
    if value is not None and (sourced is None or sourced == usual):
        return value
    return {"value": value, **_differing(sourced, usual)}


def _block(value: Any, sourced: Sourced | None, usual: Sourced | None) -> dict[str, Any]:
    known = {name: part for name, part in asdict(value).items() if part is not None}
    return {**known, **(_differing(sourced, usual) if sourced != usual else {})}


def _differing(sourced: Sourced | None, usual: Sourced | None) -> dict[str, Any]:
    """A fact's own origin, without what its block says already."""
    if sourced is None:
        return {}
    is_elsewhere = usual is None or (sourced.source, sourced.confidence) != (usual.source, usual.confidence)
    return {**(_origin(sourced) if is_elsewhere else {}), **({"note": sourced.note} if sourced.note else {})}


def _origin(sourced: Sourced | None) -> Mapping[str, Any]:
    return {} if sourced is None else {"source": sourced.source, "confidence": sourced.confidence.value}


def _first(shape: ModelShape | None) -> Sourced | None:
    """The origin of most facts."""
    if shape is None:
        return None
    plain = [Sourced(fact.source, fact.confidence) for fact in shape.facts.values()]
    return max(plain, key=plain.count, default=None)
