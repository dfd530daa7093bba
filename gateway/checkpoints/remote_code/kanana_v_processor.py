"""Turns an image into the patches that vLLM's KananaV expects, as remote code beside a stand-in's config.json.

Written from what vLLM asks of it, not from the candidate's own processor: sizes are small so that an image costs a
handful of tokens. Runs in the engine's environment, never in the gateway's.
"""

import math
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from transformers import ProcessorMixin
from transformers.processing_utils import ImagesKwargs

PATCH, MERGE, FRAMES = 14, 2, 2
MIN_PIXELS, MAX_PIXELS = (2 * PATCH * MERGE) ** 2, (4 * PATCH * MERGE) ** 2


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The nearest size whose sides are multiples of `factor` and whose area lies between the limits."""
    scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    scale = max(scale, math.sqrt(min_pixels / (height * width)))
    fit = math.floor if scale < 1 else math.ceil
    rows, columns = (max(1, fit(side * scale / factor)) for side in (height, width))
    while rows * columns * factor**2 > max_pixels:
        rows, columns = (rows - 1, columns) if rows > columns else (rows, columns - 1)
    return rows * factor, columns * factor


class PatchImages:
    """One image at a time: its patches as rows, and how many there are in each direction."""

    min_pixels, max_pixels = MIN_PIXELS, MAX_PIXELS
    valid_kwargs = ImagesKwargs

    def __call__(self, image: Image) -> dict[str, Any]:
        height, width = smart_resize(image.height, image.width, PATCH * MERGE, self.min_pixels, self.max_pixels)
        pixels = np.asarray(image.convert("RGB").resize((width, height)), dtype=np.float32) / 255
        rows, columns = height // PATCH, width // PATCH
        patches = pixels.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 4, 1, 3)
        # A still image is FRAMES equal frames.
        frames = np.repeat(patches[:, :, :, None], FRAMES, axis=3)
        return {
            "pixel_values": torch.from_numpy(frames.reshape(rows * columns, -1)),
            "image_meta": {
                "vision_grid_thw": (1, rows, columns),
                "image_token_thw": (1, rows // MERGE, columns // MERGE),
            },
        }


class KananaVProcessor(ProcessorMixin):  # type: ignore[misc]
    """A tokenizer and `PatchImages`, under the names that vLLM looks for."""

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None, **rest: Any) -> None:
        super().__init__(tokenizer, chat_template=chat_template)
        self.image_processor = PatchImages()
