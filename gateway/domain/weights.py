"""How many bytes a checkpoint's weights take, in which number format, and on which GPU of a parallel set.

Pure arithmetic over registry facts. Where the published size is known it decides, and the shape only says how it is
shared out. The KV cache belongs to kv_cache, what an engine needs beside both to memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from gateway.domain.kv_layers import pipeline_stages
from gateway.domain.records import Model, ModelShape, Weights
from gateway.domain.shapes import mla_latent_width

VOCAB_PADDING = 64
"""vLLM brings the rows of embedding and output head to a multiple of this."""
SIXTEEN_BITS = 2
SCALE_BYTES = 4
"""A 32-bit scale of the 8-bit formats."""

BYTES_PER_PARAM: dict[str, Fraction] = {
    "fp32": Fraction(4),
    "bf16": Fraction(2),
    "fp16": Fraction(2),
    "fp8": Fraction(1),
    "int8": Fraction(1),
    "int4": Fraction(1, 2) + Fraction(2, 128),
    "awq": Fraction(1, 2) + Fraction(5, 2) / 128,
    "gptq": Fraction(1, 2) + Fraction(5, 2) / 128,
    "nvfp4": Fraction(9, 16),
    "mxfp4": Fraction(17, 32),
}
"""Bytes per parameter in the format's usual groups. int4 has groups of 128 with a 16-bit scale each, awq and gptq have
4-bit zero points as well, nvfp4 an 8-bit scale for 16, mxfp4 one for 32; the scales of fp8 and int8 depend on the
layer's size (see `bytes_per_param`)."""

_ALIASES = {
    "float32": "fp32",
    "float": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
}
_UNQUANTISED = frozenset(("fp32", "bf16", "fp16"))
_EIGHT_BITS = frozenset(("fp8", "int8"))
_GROUPED = {
    "int4": Fraction(2),
    "awq": Fraction(5, 2),
    "gptq": Fraction(5, 2),
    "nvfp4": Fraction(1),
    "mxfp4": Fraction(1),
}
"""Bytes beside the 4-bit values of a group: its scale, and its zero point where the format has one."""


def number_format(dtype: str) -> str | None:
    """The key of BYTES_PER_PARAM that a checkpoint's dtype name means; None for a name not known here."""
    name = dtype.lower().removeprefix("torch.")
    name = _ALIASES.get(name, name)
    return name if name in BYTES_PER_PARAM else None


def bytes_per_param(name: str, *, group_size: int | None = None, hidden: int | None = None) -> Fraction:
    """Bytes per parameter of a number format, its scales included.

    `group_size` is what shares a scale where the checkpoint says so: parameters in a row for the 4-bit formats, the
    side of a square block for fp8 and int8. Without it an 8-bit row of `hidden` parameters shares one.
    """
    if name in _EIGHT_BITS:
        if group_size:
            return 1 + Fraction(SCALE_BYTES, group_size * group_size)
        return 1 + Fraction(SCALE_BYTES, hidden) if hidden and hidden > 0 else Fraction(1)
    if name in _GROUPED and group_size:
        return Fraction(1, 2) + _GROUPED[name] / group_size
    return BYTES_PER_PARAM[name]


def weights_bytes(model: Model) -> int | None:
    """Bytes of the weights on the device: the published size, else parameters × bytes per parameter.

    All experts of a mixture are resident. None where neither size nor parameter count and dtype are known.
    """
    if _positive(model.weights.size_bytes):
        return model.weights.size_bytes
    if model.shape is None:
        return None
    return weights_bytes_as(model.shape, model.weights.dtype, published=model.weights)


def weights_bytes_as(shape: ModelShape, dtype: str, *, published: Weights | None = None) -> int | None:
    """Bytes of the weights if they were stored as `dtype`; groups and kept parameters as `published` has them.

    Quantised checkpoints usually leave the embedding, the output head, norms, router and image encoder in 16 bits, so
    these are counted at 2 bytes where their size is known, the embedding once if tied, twice if not or if nobody said.
    """
    name = number_format(dtype)
    if name is None or shape.params is None or shape.params <= 0:
        return None
    if name in _UNQUANTISED:
        return ceil(shape.params * BYTES_PER_PARAM[name])
    same = published is not None and number_format(published.dtype) == name
    group = published.group_size if published is not None and same else None
    kept = published.unquantised_params if published is not None and same else None
    if kept is None:
        kept = sum(part.params for part in parts_of(shape) if part.stays_in_16_bits)
    kept = min(shape.params, kept)
    rate = bytes_per_param(name, group_size=group, hidden=shape.hidden)
    return ceil((shape.params - kept) * rate + kept * SIXTEEN_BITS)


# --- shares of a parallel set -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """Parameters of one kind, and how engines that work together share them."""

    name: str
    params: int
    stays_in_16_bits: bool = False
    whole_on_each: bool = False
    """Not cut by tensor parallelism."""
    stages: str = "all"
    """first | last | all: which pipeline stages have it; "all" is by layers."""
    spread: int | None = None
    """Most GPUs that it is cut over; more GPUs hold repeats of it."""


def parts_of(shape: ModelShape) -> tuple[Part, ...]:
    """The parameters by how they are shared out; what is not known by its own size is cut evenly.

    vLLM cuts embedding, output head, projections and experts; norms, router and the projections into a latent are
    whole on every GPU, and so is the image encoder here, as many are not cut. Key and value heads are repeated where
    there are fewer heads than GPUs.
    """
    params, hidden, layers = max(shape.params or 0, 0), shape.hidden or 0, shape.layers or 0
    embedding = max(0, (shape.vocab or 0) * hidden)
    parts = [Part("embedding", embedding, stays_in_16_bits=True, stages="first")]
    if not shape.tied_embeddings:
        parts.append(Part("output head", embedding, stays_in_16_bits=True, stages="last"))
    if shape.vision is not None and shape.vision.params:
        parts.append(
            Part("image encoder", shape.vision.params, stays_in_16_bits=True, whole_on_each=True, stages="first")
        )
    parts.append(Part("norms", max(0, 2 * hidden * layers), stays_in_16_bits=True, whole_on_each=True))
    if shape.moe is not None:
        sparse = max(0, layers - shape.moe.dense_layers)
        router = max(0, sparse * shape.moe.experts * hidden)
        parts.append(Part("router", router, stays_in_16_bits=True, whole_on_each=True))
        experts = 3 * hidden * (shape.moe.expert_ffn or 0) * shape.moe.experts * sparse
        parts.append(Part("experts", max(0, experts)))
    if shape.mla is not None:
        down = hidden * (mla_latent_width(shape) + (shape.mla.q_lora_rank or 0)) * layers
        parts.append(Part("projections into the latent", max(0, down), whole_on_each=True))
    elif shape.kv_heads and shape.head_dim:
        keys = hidden * shape.kv_heads * (shape.head_dim + (shape.v_head_dim or shape.head_dim)) * layers
        parts.append(Part("key and value projections", max(0, keys), spread=shape.kv_heads))
    fitting: list[Part] = []
    left = params
    for part in parts:
        if 0 < part.params <= left:
            fitting.append(part)
            left -= part.params
    return (*fitting, Part("all else", left))


def weights_by_stage(
    shape: ModelShape,
    total: int,
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    expert_parallel: bool = False,
) -> tuple[int, ...]:
    """Bytes of the weights on the fullest GPU of each pipeline stage, where all of them together are `total` bytes.

    With expert parallelism a GPU has whole experts, as many as come to it, instead of a piece of each.
    """
    if tensor_parallel == pipeline_parallel == 1:
        return (total,)
    params = max(1, shape.params or 0)
    layers = max(1, shape.layers or 0)
    counts = pipeline_stages(layers, pipeline_parallel)
    stages = [Fraction(0)] * pipeline_parallel
    for part in parts_of(shape) if shape.params else (Part("all", params),):
        size = _padded_rows(part, shape) * Fraction(total, params)
        size *= _share(part, shape, tensor_parallel, expert_parallel=expert_parallel)
        for stage, count in enumerate(counts):
            if part.stages == "all":
                stages[stage] += size * Fraction(count, layers)
            elif stage == (0 if part.stages == "first" else pipeline_parallel - 1):
                stages[stage] += size
    if shape.tied_embeddings and pipeline_parallel > 1:
        # The last stage needs the embedding as its output head, so it has a copy.
        copy = next((part for part in parts_of(shape) if part.name == "embedding"), None)
        stages[-1] += Fraction(0) if copy is None else copy.params * Fraction(total, params) / tensor_parallel
    return tuple(ceil(size) for size in stages)


def _share(part: Part, shape: ModelShape, gpus: int, *, expert_parallel: bool) -> Fraction:
    """What of a part one of so many GPUs has."""
    if part.whole_on_each:
        return Fraction(1)
    if part.name == "experts" and expert_parallel and shape.moe is not None:
        return Fraction(-(-shape.moe.experts // gpus), shape.moe.experts)
    return Fraction(1, min(gpus, part.spread or gpus))


def _padded_rows(part: Part, shape: ModelShape) -> int:
    """Parameters of a part with the rows that vLLM adds to a vocabulary."""
    if part.name not in ("embedding", "output head"):
        return part.params
    vocab = shape.vocab or 0
    return part.params + (-vocab % VOCAB_PADDING) * (shape.hidden or 0)


def _positive(value: int | None) -> bool:
    return value is not None and value > 0
