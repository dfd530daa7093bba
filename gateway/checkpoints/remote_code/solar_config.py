"""What vLLM's Solar reads of its configuration, as remote code beside a stand-in's config.json.

Runs in the engine's environment, never in the gateway's.
"""

from transformers import PretrainedConfig


class SolarConfig(PretrainedConfig):  # type: ignore[misc]
    """Every field comes from config.json; only the name is needed here."""

    model_type = "solar"
