"""vLLM's accounting of the KV cache, from a description of layers: groups, pages, blocks, requests held at once.

It follows the rules of vLLM 0.32 (`v1/core/kv_cache_utils.py`, `v1/kv_cache_interface.py`) for layouts that keep each
layer's cache apart, its default on every GPU and on the CPU: tests/vllm/test_kv_grid.py sets it beside vLLM's own
numbers. How a model's layers come to be described belongs to memory; whether there is room, to feasibility.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

PER_HEAD_SCALES_BYTES = 8
"""Two 32-bit scales, of key and value, beside each head of the `..._per_token_head` formats."""
PACKED_LATENT_BYTES = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}
"""One token of a latent of 512 + 64 with its scales, as DeepSeek's sparse kernels read it."""
INDEX_SCALE_GROUP = 128
"""Elements of an indexer's key that share a 32-bit scale."""
MLA_STATE_BLOCK = 128
"""Latent attention beside state layers has blocks of a multiple of this many tokens."""

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


@dataclass(frozen=True, slots=True)
class Paging:
    """The engine settings that decide how many blocks there are and how many a request takes."""

    block: int = 16
    """Tokens in a block."""
    max_batched_tokens: int = 8192
    """vLLM's max_num_batched_tokens: most tokens in one step."""
    batches_in_flight: int = 2
    """2 with asynchronous scheduling (the default on one GPU), one more than a pipeline's stages, 1 on the CPU."""

    @property
    def tokens_in_flight(self) -> int:
        return self.max_batched_tokens * self.batches_in_flight


@dataclass(frozen=True, slots=True)
class KvRules:
    """How vLLM is told to group."""

    hybrid: bool = True
    """Off: window and chunk layers are charged as full ones, and state layers are refused beside attention."""
    state_pages: int = 2
    """Pages of a request's state: 2 with prefix caching (its default, cache mode "align"), 3 for Mamba-2 layers then,
    1 without."""
    kernel_block: int = 16
    """Tokens of the attention kernel's smallest block."""


class KvRefused(ValueError):
    """vLLM does not start with such layers; says why."""


@dataclass(frozen=True, slots=True)
class KvGroup:
    """Layers that share a block table."""

    layer: KvLayer
    """What decides its blocks."""
    block: int
    """Tokens in one block."""
    stage_bytes: tuple[int, ...]
    """Bytes of one block in all layers of the group, by pipeline stage."""
    layers: int
    """All stages together."""

    def blocks_per_request(self, context: int, paging: Paging, state_pages: int) -> int:
        """Blocks of a request of `context` tokens: what vLLM sets aside at start, the same that admits it later.

        A window of w keeps w - 1 tokens and those in flight, and a block more as it may start within one.
        """
        keeps, span = self.layer.keeps, self.layer.span or 0
        if keeps is Keeps.FULL or keeps is Keeps.LATENT:
            return -(-context // self.block)
        if keeps is Keeps.WINDOW:
            return -(-min(span - 1 + paging.tokens_in_flight, context) // self.block) + 1
        if keeps is Keeps.CHUNK:
            return -(-min(span + paging.tokens_in_flight, context) // self.block)
        return state_pages


@dataclass(frozen=True, slots=True)
class KvLayout:
    """A model's layers as vLLM's cache sees them, on one GPU of each pipeline stage.

    Each group has its own block table and all draw from one pool, whose blocks are as large as the largest group;
    short groups are padded. So a hybrid model reserves more than the plain sum over its layers.
    """

    layers: tuple[KvLayers, ...]
    rules: KvRules = KvRules()

    def groups(self, paging: Paging) -> tuple[KvGroup, ...]:
        """Raises KvRefused for layers that vLLM does not serve together."""
        return _groups(self.layers, self.rules, paging.block)

    def stage_block_bytes(self, paging: Paging) -> tuple[int, ...]:
        """Bytes of one block of the pool on a GPU of each pipeline stage. Raises KvRefused."""
        sizes = tuple(max(sizes) for sizes in zip(*(g.stage_bytes for g in self.groups(paging)), strict=True))
        if not all(sizes):
            raise KvRefused("a pipeline stage would have no layer with a KV cache")
        return sizes

    def block_bytes(self, paging: Paging) -> int:
        """Bytes of one block on a GPU of the pipeline stage where it is largest. Raises KvRefused."""
        return max(self.stage_block_bytes(paging))

    def blocks_in(self, kv_bytes: int, paging: Paging) -> int:
        """vLLM's num_gpu_blocks with `kv_bytes` on every GPU; 0 when there are none left. Raises KvRefused."""
        return max(0, kv_bytes) // self.block_bytes(paging)

    def blocks_in_stages(self, kv_bytes: Sequence[int], paging: Paging) -> int:
        """The same with memory by pipeline stage: the poorest stage decides for all. Raises KvRefused."""
        sizes = self.stage_block_bytes(paging)
        return min(max(0, left) // size for left, size in zip(kv_bytes, sizes, strict=True))

    def blocks_per_request(self, context: int, paging: Paging) -> int:
        """Blocks for one request of `context` tokens, all groups together. Grows with `context`. Raises KvRefused."""
        pages, demand = self.rules.state_pages, _demand(self.layers, self.rules, paging.block)
        return sum(alike * group.blocks_per_request(context, paging, pages) for group, alike in demand)

    def max_concurrency(self, blocks: int, context: int, paging: Paging) -> float:
        """vLLM's kv_cache_max_concurrency: requests of full length that `blocks` blocks are worth, as a fraction."""
        return blocks / self.blocks_per_request(context, paging)

    def kv_tokens(self, blocks: int, context: int, paging: Paging) -> int:
        """vLLM's kv_cache_size_tokens, with its own rounding; no constant of the model, as `context` counts."""
        return int(self.max_concurrency(blocks, context, paging) * context)

    def requests_held(self, blocks: int, context: int, paging: Paging) -> int:
        """Whole requests of `context` tokens at once. One block is vLLM's own and never given to a request."""
        return max(0, blocks - 1) // self.blocks_per_request(context, paging)

    def longest_context(self, blocks: int, paging: Paging, *, limit: int) -> int:
        """Most tokens, up to `limit`, of a request that `blocks` blocks can hold; 0 when none fits."""
        low, high = 0, limit
        pages, demand = self.rules.state_pages, _demand(self.layers, self.rules, paging.block)
        while low < high:
            middle = (low + high + 1) // 2
            if sum(alike * group.blocks_per_request(middle, paging, pages) for group, alike in demand) <= blocks:
                low = middle
            else:
                high = middle - 1
        return low

    def effective_block(self, paging: Paging) -> int:
        """Tokens in a block once vLLM has aligned it: the label `block_size`. Raises KvRefused."""
        return min(group.block for group in self.groups(paging))

    def plain_bytes(self, context: int) -> int:
        """KV bytes of one request summed layer by layer, without blocks, groups or tokens in flight."""
        return sum(layers.count * _plain(layers.layer, context) for layers in self.layers)

    # What a step reads of the cache, for rooflines.

    @property
    def full_layers(self) -> int:
        """Layers that keep every token."""
        return sum(layers.count for layers in self._attention if layers.layer.span is None)

    @property
    def window_layers(self) -> int:
        """Layers with a window or a chunk."""
        return sum(layers.count for layers in self._attention if layers.layer.span is not None)

    @property
    def state_layers(self) -> int:
        return sum(layers.count for layers in self.layers if layers.layer.keeps is Keeps.STATE)

    @property
    def window(self) -> int | None:
        """Tokens of the window or chunk; None without such layers."""
        return next((layers.layer.span for layers in self.layers if layers.layer.span is not None), None)

    @property
    def token_bytes(self) -> int:
        """KV bytes of one token in one attention layer on this GPU, a sparse indexer's left out."""
        return max((layers.layer.token_bytes for layers in self.layers), default=0)

    @property
    def state_bytes(self) -> int:
        """Bytes of one request's state in one state layer on this GPU."""
        return max((layers.layer.state_bytes for layers in self.layers), default=0)

    @property
    def _attention(self) -> list[KvLayers]:
        """An indexer's layers, which are smaller than those that they belong to, are not counted again."""
        largest = self.token_bytes
        return [
            layers
            for layers in self.layers
            if layers.layer.token_bytes
            and (layers.layer.keeps is not Keeps.LATENT or layers.layer.token_bytes == largest)
        ]


# --- bytes of one token -------------------------------------------------------------------------------------


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


# --- pipeline -----------------------------------------------------------------------------------------------


def pipeline_stages(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each stage as vLLM cuts them: evenly, the rest to the stages before the last one."""
    counts = [layers // stages] * stages
    for back in range(2, layers % stages + 2):
        counts[-back] += 1
    return tuple(counts)


# --- groups -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Spec:
    """One layer's page: vLLM's KVCacheSpec."""

    layer: KvLayer
    block: int
    padded: int | None = None

    @property
    def page(self) -> int:
        return self.padded or self.layer.state_bytes or self.layer.token_bytes * self.block


_Pages = tuple[tuple[_Spec, tuple[int, ...]], ...]
"""Specs, each with the number of its layers by pipeline stage."""
_EVERY_TOKEN = frozenset((Keeps.FULL, Keeps.LATENT))


@lru_cache(maxsize=4096)
def _groups(layers: tuple[KvLayers, ...], rules: KvRules, block: int) -> tuple[KvGroup, ...]:
    """vLLM's get_kv_cache_groups, after its alignment of blocks with states."""
    if not any(kind.count for kind in layers):
        raise KvRefused("no layer keeps anything")
    pages = _aligned([kind for kind in layers if kind.count], rules, block)
    if not rules.hybrid:
        pages = _promoted(pages)
        if not _of_one_type(pages):
            raise KvRefused("without the hybrid KV cache manager vLLM refuses layers of kinds that it cannot unify")
    if _of_one_type(pages):
        return (_whole_group(pages),)
    try:
        pages = _unified(pages)
    except KvRefused:
        if any(spec.layer.keeps is Keeps.CHUNK for spec, _ in pages):
            raise
        pages = _promoted(pages)
        if not _of_one_type(pages):
            raise
        return (_whole_group(pages),)
    return _equal_groups(pages)


@lru_cache(maxsize=4096)
def _demand(layers: tuple[KvLayers, ...], rules: KvRules, block: int) -> tuple[tuple[KvGroup, int], ...]:
    """The groups that ask for blocks in different ways, each with how many there are of it."""
    found: dict[tuple[KvLayer, int], list[KvGroup]] = {}
    for group in _groups(layers, rules, block):
        found.setdefault((group.layer, group.block), []).append(group)
    return tuple((alike[0], len(alike)) for alike in found.values())


def _aligned(layers: Sequence[KvLayers], rules: KvRules, block: int) -> _Pages:
    """Pages before grouping. Beside state layers, blocks grow until an attention page holds a state."""
    attention = [kind.layer for kind in layers if kind.layer.keeps is not Keeps.STATE]
    state = max((kind.layer.state_bytes for kind in layers), default=0)
    if not state or not attention:
        return tuple((_Spec(kind.layer, block), kind.counts) for kind in layers)
    kernel = max(rules.kernel_block, block)
    if any(layer.keeps is Keeps.LATENT for layer in attention):
        kernel = max(kernel, MLA_STATE_BLOCK)
    token = max(layer.token_bytes for layer in attention)
    least = kernel * _cdiv(state, kernel * token)
    block = max(block, rules.kernel_block * _cdiv(least, rules.kernel_block))
    page = block * token
    padded = page if page != state else None
    return tuple(
        (_Spec(kind.layer, block, padded if kind.layer.keeps is Keeps.STATE else None), kind.counts) for kind in layers
    )


def _of_one_type(pages: _Pages) -> bool:
    """Whether all layers need the same number of blocks, whatever their size, and so share one block table."""
    first = pages[0][0]
    kinds = {spec.layer.keeps for spec, _ in pages}
    if len({spec.block for spec, _ in pages}) > 1:
        return False
    if kinds <= _EVERY_TOKEN:
        return True
    if kinds == {Keeps.STATE}:
        return len({spec.page for spec, _ in pages}) == 1
    return len(kinds) == 1 and all(spec.layer.span == first.layer.span for spec, _ in pages)


def _promoted(pages: _Pages) -> _Pages:
    """Window and chunk layers charged as full ones, where there are full ones at all."""
    if _of_one_type(pages) or not any(spec.layer.keeps in _EVERY_TOKEN for spec, _ in pages):
        return pages
    blocks = {spec.block for spec, _ in pages if spec.layer.keeps in _EVERY_TOKEN}
    block = blocks.pop() if len(blocks) == 1 else None
    return tuple(
        (_Spec(replace(spec.layer, keeps=Keeps.FULL, span=None), block or spec.block), counts)
        if spec.layer.keeps in (Keeps.WINDOW, Keeps.CHUNK)
        else (spec, counts)
        for spec, counts in pages
    )


def _unified(pages: _Pages) -> _Pages:
    """All pages of one size: smaller ones get longer blocks, or are padded where that does not come out even."""
    largest = max(spec.page for spec, _ in pages)
    return tuple((_grown(spec, largest), counts) for spec, counts in pages)


def _grown(spec: _Spec, largest: int) -> _Spec:
    if spec.page == largest:
        return spec
    if spec.layer.keeps is Keeps.STATE:
        return replace(spec, padded=largest)
    if largest % spec.page == 0:
        return replace(spec, block=spec.block * (largest // spec.page))
    if spec.layer.keeps is Keeps.LATENT:
        raise KvRefused("the pages of latent layers cannot be brought to the size of the other layers' pages")
    return replace(spec, padded=largest)


def _whole_group(pages: _Pages) -> KvGroup:
    stages = range(len(pages[0][1]))
    sizes = tuple(sum(spec.page * counts[stage] for spec, counts in pages) for stage in stages)
    return KvGroup(pages[0][0].layer, pages[0][0].block, sizes, sum(sum(counts) for _, counts in pages))


def _equal_groups(pages: _Pages) -> tuple[KvGroup, ...]:
    """Groups of as many layers as the rarest kind has; as the commonest has where that is below 1.5 times as many.

    The layers of a kind are dealt out in turn, so that each pipeline stage has its share of every group.
    """
    totals = [sum(counts) for _, counts in pages]
    size = max(totals) if max(totals) < min(totals) * 1.5 else min(totals)
    groups = []
    for (spec, counts), total in zip(pages, totals, strict=True):
        number = _cdiv(total, size)
        for group in range(number):
            shares = _dealt(counts, group, number)
            groups.append(KvGroup(spec.layer, spec.block, tuple(spec.page * n for n in shares), sum(shares)))
    return tuple(groups)


def _dealt(counts: tuple[int, ...], group: int, groups: int) -> tuple[int, ...]:
    """Layers of each stage in this group where layer k of a kind goes to group k mod `groups`."""
    shares, before = [], 0
    for count in counts:
        shares.append(len(range((group - before) % groups, count, groups)))
        before += count
    return tuple(shares)


def _plain(layer: KvLayer, context: int) -> int:
    held = context if layer.span is None else min(layer.span, context)
    return layer.state_bytes + layer.token_bytes * held


def _cdiv(value: int, by: int) -> int:
    return -(-value // by)
