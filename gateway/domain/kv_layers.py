"""What a layer keeps of a request, and in how many bytes: the words in which a model is described to vLLM's KV cache.

The rules are those of vLLM 0.32 (`v1/kv_cache_interface.py`). How layers share memory belongs to kv_groups; how a model
comes to be described so, to memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PER_HEAD_SCALES_BYTES = 8
"""Two 32-bit scales, of key and value, beside each head of the `..._per_token_head` formats."""
PACKED_LATENT_BYTES = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}
"""One token of a latent of 512 + 64 with its scales, as DeepSeek's sparse kernels read it."""
INDEX_SCALE_GROUP = 128
"""Elements of an indexer's key that share a 32-bit scale."""

_ELEMENT_BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "fp8_inc": 1}
_PER_HEAD_BITS = {"fp8_per_token_head": 8, "int8_per_token_head": 8, "int4_per_token_head": 4}
_NVFP4 = frozenset(("nvfp4", "nvfp4_4over6"))

KV_DTYPES = frozenset((*_ELEMENT_BYTES, *_PER_HEAD_BITS, *_NVFP4, *PACKED_LATENT_BYTES))
"""Names of vLLM's `--kv-cache-dtype` that are known here; "auto" is the 16 bits that every served model computes in."""


class Keeps(StrEnum):
    """What a layer keeps of a request."""

    FULL = "full"
    """Keys and values of every token."""
    LATENT = "latent"
    """One compressed vector of every token, shared by all heads (MLA), or a sparse indexer's key."""
    WINDOW = "window"
    """Keys and values of the last `span` tokens."""
    CHUNK = "chunk"
    """Keys and values of the current chunk of `span` tokens."""
    STATE = "state"
    """A state of constant size."""


@dataclass(frozen=True, slots=True)
class KvLayer:
    """What one layer keeps, on one GPU of a tensor-parallel set."""

    keeps: Keeps
    token_bytes: int = 0
    """Bytes of one token; 0 for a state."""
    span: int | None = None
    """Tokens of a window or a chunk."""
    state_bytes: int = 0
    """Bytes of one request's state."""


@dataclass(frozen=True, slots=True)
class KvLayers:
    """Layers that keep the same."""

    layer: KvLayer
    counts: tuple[int, ...]
    """How many each pipeline stage has; one number without a pipeline."""

    @property
    def count(self) -> int:
        return sum(self.counts)


def pipeline_stages(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each stage as vLLM cuts them: evenly, the rest to the stages before the last one."""
    counts = [layers // stages] * stages
    for back in range(2, layers % stages + 2):
        counts[-back] += 1
    return tuple(counts)


def attention_token_bytes(*, kv_heads: int, key: int, value: int, kv_dtype: str) -> int:
    """Bytes of one token in one layer with `kv_heads` heads of this size on a GPU. ValueError for an unknown dtype."""
    if kv_dtype in _ELEMENT_BYTES:
        return kv_heads * (key + value) * _ELEMENT_BYTES[kv_dtype]
    if kv_dtype in _PER_HEAD_BITS:
        elements = key + value if _PER_HEAD_BITS[kv_dtype] == 8 else key // 2 + value // 2
        return kv_heads * (elements + PER_HEAD_SCALES_BYTES)
    if kv_dtype in _NVFP4:
        if key != value:
            raise ValueError(f"kv_dtype {kv_dtype}: keys and values must be of one size, got {key} and {value}")
        return 2 * kv_heads * (key // 2 + key // 16)
    raise ValueError(_unknown(kv_dtype, "attention with keys and values"))


def latent_token_bytes(width: int, *, kv_dtype: str, sparse: bool = False) -> int:
    """Bytes of one token's latent of `width` elements. ValueError for a dtype that does not go with it.

    Where the attention is sparse, 8-bit floats mean DeepSeek's own packing (the FlashMLA kernels of Hopper).
    """
    if sparse and kv_dtype.startswith("fp8") and kv_dtype in _ELEMENT_BYTES:
        kv_dtype = "fp8_ds_mla"
    if kv_dtype in PACKED_LATENT_BYTES:
        return PACKED_LATENT_BYTES[kv_dtype]
    if kv_dtype in _ELEMENT_BYTES:
        return width * _ELEMENT_BYTES[kv_dtype]
    if kv_dtype in _PER_HEAD_BITS:
        return (width if _PER_HEAD_BITS[kv_dtype] == 8 else width // 2) + PER_HEAD_SCALES_BYTES
    raise ValueError(_unknown(kv_dtype, "a latent"))


def index_token_bytes(head_dim: int) -> int:
    """Bytes of one token's key in a sparse indexer: 8 bits an element, and a 32-bit scale a group of 128."""
    return head_dim + head_dim // INDEX_SCALE_GROUP * 4


def _unknown(kv_dtype: str, what: str) -> str:
    return f"kv_dtype {kv_dtype!r} is not known for {what}; known are {', '.join(sorted(KV_DTYPES))}"
