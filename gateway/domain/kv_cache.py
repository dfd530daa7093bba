"""vLLM's accounting of the KV cache, from a description of layers: blocks, requests held at once, what a step reads.

It follows the rules of vLLM 0.32 for layouts that keep each layer's cache apart, its default on every GPU and on the
CPU: tests/vllm/test_kv_grid.py sets it beside vLLM's own numbers. How a model's layers come to be described belongs to
memory; whether there is room, to feasibility.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.kv_groups import DEFAULT_RULES, KvGroup, KvRefused, KvRules, Paging, group_demand, group_layers
from gateway.domain.kv_layers import Keeps, KvLayer, KvLayers


@dataclass(frozen=True, slots=True)
class KvLayout:
    """A model's layers as vLLM's cache sees them, on one GPU of each pipeline stage.

    Each group has its own block table and all draw from one pool, whose blocks are as large as the largest group;
    short groups are padded. So a hybrid model reserves more than the plain sum over its layers.
    """

    layers: tuple[KvLayers, ...]
    rules: KvRules = DEFAULT_RULES

    def groups(self, paging: Paging) -> tuple[KvGroup, ...]:
        """Raises KvRefused for layers that vLLM does not serve together."""
        return group_layers(self.layers, self.rules, paging.block)

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
        pages, demand = self.rules.state_pages, group_demand(self.layers, self.rules, paging.block)
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
        pages, demand = self.rules.state_pages, group_demand(self.layers, self.rules, paging.block)
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


def _plain(layer: KvLayer, context: int) -> int:
    held = context if layer.span is None else min(layer.span, context)
    return layer.state_bytes + layer.token_bytes * held
