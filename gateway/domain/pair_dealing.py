"""Which pairs of models each reviewer judges: counts of pairs in which everything is even at once.

Works on numbers of models and reviewers; names, prompts, and which model stands on the left belong to other modules.

The method is Baranyai's. All models begin as one heap with all of a reviewer's votes inside it; then one model after
another is taken out. A heap of k models that holds y votes within and x votes with an earlier model gives, on average,
2y/k and x/k of them to the model that is taken out; these fractions are rounded in one network, so that each count
and each of the sums that `deal_pairs` promises is the whole number below or above its fair share. Since the shares of
what remains lie between the same two whole numbers, that holds for the last model as for the first (D. Bryant, On
almost-regular edge colourings of hypergraphs, Electronic J. Combinatorics 23(4), 2016, shows that it can always be).
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.domain.fair_rounding import round_table
from gateway.domain.seeded_stream import SeededStream

Pair = tuple[int, int]
"""Two models by number, the lower first."""


def deal_pairs(
    quotas: Sequence[int], groups: Sequence[int], *, models: int, stream: SeededStream
) -> list[dict[Pair, int]]:
    """How often each reviewer judges each pair. `quotas` are votes by reviewer, `groups` their strata by number.

    Promised for any quotas: within one reviewer, within one stratum and overall, the counts of models differ by at
    most 1, and so do the counts of pairs.
    """
    heap = _Heap(quotas, groups, models)
    order = stream.shuffled(range(models))
    for size in range(models, 1, -1):
        heap.take_out(size, stream)
    return [
        {_pair(order[a], order[b]): count for (a, b), count in sorted(counts.items()) if count} for counts in heap.dealt
    ]


def _pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)


class _Heap:
    """Votes of each reviewer whose models are not all known yet."""

    def __init__(self, quotas: Sequence[int], groups: Sequence[int], models: int) -> None:
        self.groups, self.models = groups, models
        self.within = list(quotas)
        """Votes with both models in the heap."""
        self.beside: list[list[int]] = [[] for _ in quotas]
        """Votes with one model in the heap, by the number of the other."""
        self.dealt: list[dict[Pair, int]] = [{} for _ in quotas]

    def take_out(self, size: int, stream: SeededStream) -> None:
        """The next model leaves a heap of `size`."""
        model = self.models - size
        shares = [[*beside, 2 * within] for beside, within in zip(self.beside, self.within, strict=True)]
        for reviewer, counts in enumerate(round_table(shares, size, row_groups=self.groups, stream=stream)):
            for other in range(model):
                self.dealt[reviewer][other, model] = counts[other]
                self.beside[reviewer][other] -= counts[other]
            self.within[reviewer] -= counts[model]
            self.beside[reviewer].append(counts[model])
            if size == 2:  # the heap is the last model
                for other in range(self.models - 1):
                    self.dealt[reviewer][other, self.models - 1] = self.beside[reviewer][other]
