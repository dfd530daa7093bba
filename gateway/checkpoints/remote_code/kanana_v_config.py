"""The configuration that vLLM's KananaV reads, as remote code beside a stand-in's config.json.

Runs in the engine's environment, never in the gateway's.
"""

from typing import Any

from transformers import LlamaConfig, PretrainedConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig


class KananaVConfig(PretrainedConfig):  # type: ignore[misc]
    """A Llama that reads what a Qwen2-VL encoder sees, by way of a projector."""

    model_type = "kanana-1.5-v"

    def __init__(
        self,
        vision_config: dict[str, Any] | None = None,
        projector_config: dict[str, Any] | None = None,
        text_config: dict[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        self.vision_config = Qwen2VLVisionConfig(**(vision_config or {}))
        self.projector_config = PretrainedConfig(**(projector_config or {}))
        self.text_config = LlamaConfig(**(text_config or {}))
        super().__init__(**rest)
