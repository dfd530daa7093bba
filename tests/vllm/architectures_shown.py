"""Which candidates the suite serves to show an architecture, and what it shows: the columns of docs/candidates.md."""

from __future__ import annotations

from collections.abc import Mapping

from real_engines import HYBRID, LLAMA, MORTAL, REGISTRY

from gateway.checkpoints import checkpoint_config, fingerprint, has_stand_in
from gateway.domain.records import Model


def _one_of_each() -> Mapping[str, Model]:
    """One candidate for each stand-in that differs from the others by more than its name."""
    able = [model for model in REGISTRY.models.values() if model.is_servable and has_stand_in(model)]
    able.sort(key=lambda model: (model.id not in (LLAMA, HYBRID), model.id == MORTAL))
    chosen: dict[str, Model] = {}
    for model in able:
        chosen.setdefault(fingerprint(model), model)
    return {model.id: model for model in chosen.values()}


CANDIDATES = _one_of_each()
EYES = [name for name, model in CANDIDATES.items() if "vision" in model.capabilities]
SWITCHES = [name for name, model in CANDIDATES.items() if model.reasoning is not None]
PARSERS = [name for name, model in CANDIDATES.items() if model.reasoning_parser is not None]
WINDOWED = [
    name
    for name, model in CANDIDATES.items()
    if checkpoint_config(model, vocab=1, max_model_len=1).get("sliding_window") is not None
]
