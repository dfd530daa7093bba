"""Layers gathered into vLLM's groups: which of them share a block table, and how large their blocks are.

It follows vLLM 0.32 (`v1/core/kv_cache_utils.py`) for layouts that keep each layer's cache apart. What one layer keeps
is kv_layers'; how many blocks there are and how many requests they hold, kv_cache's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from gateway.domain.kv_layers import Keeps, KvLayer, KvLayers

MLA_STATE_BLOCK = 128
"""Latent attention beside state layers has blocks of a multiple of this many tokens."""


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


DEFAULT_RULES = KvRules()
"""What vLLM does unless told otherwise."""


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


@lru_cache(maxsize=4096)
def group_layers(layers: tuple[KvLayers, ...], rules: KvRules, block: int) -> tuple[KvGroup, ...]:
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
def group_demand(layers: tuple[KvLayers, ...], rules: KvRules, block: int) -> tuple[tuple[KvGroup, int], ...]:
    """The groups that ask for blocks in different ways, each with how many there are of it."""
    found: dict[tuple[KvLayer, int], list[KvGroup]] = {}
    for group in group_layers(layers, rules, block):
        found.setdefault((group.layer, group.block), []).append(group)
    return tuple((alike[0], len(alike)) for alike in found.values())


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


def _cdiv(value: int, by: int) -> int:
    return -(-value // by)
