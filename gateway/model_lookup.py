"""Finds the model that a request names; who names one that is not there is told what may have been meant.

Only what the caller may call, and what has an engine, is ever proposed. Whether they may call what was found is
`access`'s question.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from gateway.domain.accounts import CALLING, Caller
from gateway.domain.records import Model, Registry
from gateway.errors import ModelNotFound
from gateway.fleet import Fleet

_MOST_NAMES = 3
_LONGEST_NAME = 128


def find_model(registry: Registry, fleet: Fleet, caller: Caller, model_id: str) -> Model:
    """The model to call. Raises ModelNotFound with the reason, or with near names that the caller may call."""
    model = registry.models.get(model_id)
    if model is None:
        near = near_names(model_id, _names_for(registry, fleet, caller))
        hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else " See GET /v1/models."
        raise ModelNotFound(f"There is no model '{model_id[:_LONGEST_NAME]}'.{hint}", param="model")
    if not model.is_servable:
        reason = model.serving.reason or "nothing serves it"
        raise ModelNotFound(f"The model '{model_id}' cannot be called: {reason}", param="model")
    if not model.has_place:
        raise ModelNotFound(f"The model '{model_id}' is listed, but no engine is configured for it.", param="model")
    return model


def near_names(asked: str, names: Sequence[str]) -> list[str]:
    """The names most like the one asked for, whatever their case: first those that begin with it, or it with them."""
    sought = asked.lower()[:_LONGEST_NAME]
    lowered = {name.lower(): name for name in names}
    begun = sorted((low for low in lowered if low.startswith(sought) or sought.startswith(low)), key=len)
    similar = [low for low in get_close_matches(sought, lowered, n=_MOST_NAMES) if low not in begun]
    return [lowered[low] for low in (*begun, *similar)[:_MOST_NAMES]]


def _names_for(registry: Registry, fleet: Fleet, caller: Caller) -> list[str]:
    if not caller.has_any(CALLING):  # a reviewer is told no names
        return []
    return [model.id for model in registry.routable() if fleet.states_of(model.id) and caller.may_call(model)]
