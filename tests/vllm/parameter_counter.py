"""Run by the engine's Python: configurations on standard input, what transformers makes of each on standard output.

Models are built on torch's meta device, so that 671 billion parameters take no memory. Nothing of ours is imported.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


def counted(fields: dict[str, Any]) -> dict[str, Any]:
    """Parameters by name and in all, those of the input embedding, and how many layers of each type there are."""
    given = {name: value for name, value in fields.items() if name != "model_type"}
    config = CONFIG_MAPPING[fields["model_type"]](**given)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {
        "params": model.num_parameters(),
        "embedding": model.get_input_embeddings().weight.numel(),
        "layer_types": dict(Counter(getattr(config, "layer_types", None) or [])),
        "tied": bool(config.tie_word_embeddings),
        "tensors": {name: list(weight.shape) for name, weight in model.named_parameters()},
    }


if __name__ == "__main__":
    json.dump([counted(fields) for fields in json.load(sys.stdin)], sys.stdout)
