"""Which prompt each vote is about, once it is known who judges which pair in which order.

Two steps. A table of reviewers by prompts is rounded, so that everybody's prompts and every prompt's votes are even.
Within that table votes then change prompts with one another: first so that some questions are asked of three reviewers,
then so that every prompt shows each model on both sides alike. The first step's promises hold through the second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.domain.fair_rounding import round_table
from gateway.domain.pair_dealing import Pair
from gateway.domain.seeded_stream import SeededStream

SHARED_BY = 3
"""Reviewers who are asked the same question, at least, so that it counts as shared."""
_PATIENCE = 30
"""Passes over what is at fault, after the last one that left less of it."""
_STRANGERS = 24
"""Votes of other reviewers that are tried as partners of a change."""
_SLACK = 8
"""How much worse every fourth change may make it, so that the search does not end in the first hollow."""
_SIDES, _CROWD, _TWICE, _ABSENT = 4, 8, 40, 400
"""What one unit of each fault weighs when two votes change prompts."""


@dataclass(frozen=True, slots=True)
class Table:
    """What is dealt into, by number."""

    models: int
    reviewer_groups: Sequence[int]
    prompt_groups: Sequence[int]
    absent: Collection[tuple[int, int]] = frozenset()
    """(prompt, model) without an answer."""


def deal_prompts(
    votes: Sequence[Sequence[Pair]], table: Table, *, shared_votes: int, stream: SeededStream
) -> list[list[int]]:
    """A prompt for each reviewer's votes, in their order.

    Promised: a reviewer's votes are on prompts whose counts differ by at most 1 (so on different ones when there are
    enough), on each stratum in proportion to its prompts, rounded down or up; a prompt's votes differ from another's
    by at most 1, and so they do within each stratum of reviewers.
    Sought: about `shared_votes` votes on questions of which each is asked of `SHARED_BY` reviewers, few others that
    are; on every prompt each model as often left as right but for one; no vote on an absent answer.
    """
    prompts = len(table.prompt_groups)
    counts = round_table(
        [[len(own)] * prompts for own in votes],
        prompts,
        row_groups=table.reviewer_groups,
        column_groups=table.prompt_groups,
        stream=stream,
    )
    dealt = [stream.shuffled([p for p, count in enumerate(row) for _ in range(count)]) for row in counts]
    exchange = _Exchange(votes, dealt, table, stream)
    exchange.share(shared_votes)
    exchange.mend()
    return exchange.by_reviewer()


class _Exchange:
    """Votes in one row, their prompts, and how often each prompt shows what."""

    def __init__(
        self, votes: Sequence[Sequence[Pair]], dealt: Sequence[Sequence[int]], table: Table, stream: SeededStream
    ) -> None:
        self.table, self.stream, self.models = table, stream, table.models
        self.owner = [reviewer for reviewer, own in enumerate(votes) for _ in own]
        self.left = [left for own in votes for left, _ in own]
        self.right = [right for own in votes for _, right in own]
        self.pair = [min(a, b) * self.models + max(a, b) for a, b in zip(self.left, self.right, strict=True)]
        self.prompt = [prompt for own in dealt for prompt in own]
        self.own: list[list[int]] = [[] for _ in votes]
        for vote, reviewer in enumerate(self.owner):
            self.own[reviewer].append(vote)
        self.fixed = [False] * len(self.owner)
        self.planned: set[tuple[int, int]] = set()
        cells = len(table.prompt_groups) * self.models
        self.lefts, self.rights = [0] * cells, [0] * cells
        self.crowd: dict[tuple[int, int], int] = {}
        """Votes by (prompt, pair)."""
        self.asked: dict[tuple[int, int, int], int] = {}
        """Votes by (reviewer, prompt, pair)."""
        self.held: dict[tuple[int, int], int] = {}
        """Votes by (reviewer, prompt)."""
        self.at: list[dict[int, None]] = [{} for _ in table.prompt_groups]
        """The votes on each prompt, in an order that does not hang on hashes."""
        self.shuns_crowds = len(self.owner) * 2 <= (SHARED_BY - 1) * len(table.prompt_groups) * self.models * (
            self.models - 1
        )
        """Whether there are questions enough that each can be asked of fewer than `SHARED_BY`."""
        self.hopeless = self._never_answered()
        """Pairs that no prompt has both answers of."""
        for vote in range(len(self.owner)):
            self._count(vote, 1)

    def by_reviewer(self) -> list[list[int]]:
        return [[self.prompt[vote] for vote in own] for own in self.own]

    def _count(self, vote: int, by: int) -> None:
        prompt, reviewer, pair = self.prompt[vote], self.owner[vote], self.pair[vote]
        if by > 0:
            self.at[prompt][vote] = None
        else:
            del self.at[prompt][vote]
        self.lefts[prompt * self.models + self.left[vote]] += by
        self.rights[prompt * self.models + self.right[vote]] += by
        self.crowd[prompt, pair] = self.crowd.get((prompt, pair), 0) + by
        self.asked[reviewer, prompt, pair] = self.asked.get((reviewer, prompt, pair), 0) + by
        self.held[reviewer, prompt] = self.held.get((reviewer, prompt), 0) + by

    def _exchange(self, vote: int, other: int) -> None:
        if self.prompt[vote] == self.prompt[other]:
            return
        self._count(vote, -1)
        self._count(other, -1)
        self.prompt[vote], self.prompt[other] = self.prompt[other], self.prompt[vote]
        self._count(vote, 1)
        self._count(other, 1)

    # --- questions for three ------------------------------------------------------------------------------------

    def share(self, wanted: int) -> None:
        """Plan questions of three votes each until `wanted` votes are planned or no more can be."""
        load = [0] * len(self.own)
        used: dict[int, int] = {}
        left, progress = wanted // SHARED_BY, True
        while left and progress:
            progress = False
            for prompt in self.stream.shuffled(range(len(self.table.prompt_groups))):
                if left and self._plan(prompt, load, used):
                    left, progress = left - 1, True

    def _plan(self, prompt: int, load: list[int], used: dict[int, int]) -> bool:
        """One more shared question on the prompt: of the pairs that can be, one that is shared least so far."""
        here = [v for v in self.at[prompt] if not self.fixed[v]]
        holders: dict[int, dict[int, int]] = {}
        for at in here:
            for vote in self.own[self.owner[at]]:
                if not self.fixed[vote] and self._is_present(vote, prompt):
                    holders.setdefault(self.pair[vote], {})[self.owner[at]] = vote
        able = [p for p in sorted(holders) if (prompt, p) not in self.planned and self._is_shareable(holders[p])]
        if not able:
            return False
        least = min(used.get(pair, 0) for pair in able)
        pair = self.stream.choice([pair for pair in able if used.get(pair, 0) == least])
        chosen = self._in_both_orders(holders[pair], load)
        at_prompt = {self.owner[vote]: vote for vote in here}
        for reviewer in chosen:
            self._exchange(at_prompt[reviewer], holders[pair][reviewer])
            self.fixed[holders[pair][reviewer]] = True
            load[reviewer] += 1
        self.planned.add((prompt, pair))
        used[pair] = used.get(pair, 0) + 1
        return True

    def _is_shareable(self, holders: Mapping[int, int]) -> bool:
        orders = [self.left[vote] < self.right[vote] for vote in holders.values()]
        return len(orders) >= SHARED_BY and 0 < sum(orders) < len(orders)

    def _in_both_orders(self, holders: Mapping[int, int], load: Sequence[int]) -> list[int]:
        """Reviewers who share least so far, not all with the same model on the left."""
        ranked = sorted(self.stream.shuffled(sorted(holders)), key=load.__getitem__)
        first = self.left[holders[ranked[0]]]
        turned = next(reviewer for reviewer in ranked if self.left[holders[reviewer]] != first)
        others = [reviewer for reviewer in ranked if reviewer != turned]
        return [*others[: SHARED_BY - 1], turned]

    def _is_present(self, vote: int, prompt: int) -> bool:
        absent = self.table.absent
        return not absent or ((prompt, self.left[vote]) not in absent and (prompt, self.right[vote]) not in absent)

    def _never_answered(self) -> set[int]:
        if not self.table.absent:
            return set()
        prompts = range(len(self.table.prompt_groups))
        one_vote = {pair: vote for vote, pair in enumerate(self.pair)}
        return {pair for pair, vote in one_vote.items() if not any(self._is_present(vote, p) for p in prompts)}

    # --- exchanges ----------------------------------------------------------------------------------------------

    def mend(self) -> None:
        """Exchange prompts until nothing is at fault, or for a set number of passes."""
        fewest, patience = len(self.owner) + 1, _PATIENCE
        while patience and (faulty := self.stream.shuffled(list(self._faulty()))):
            patience = _PATIENCE if len(faulty) < fewest else patience - 1
            fewest = min(fewest, len(faulty))
            for vote in faulty:
                if self._is_faulty(vote):
                    self._improve(vote)

    def _faulty(self) -> Iterator[int]:
        return (vote for vote in range(len(self.owner)) if not self.fixed[vote] and self._is_faulty(vote))

    def _is_faulty(self, vote: int) -> bool:
        prompt, pair = self.prompt[vote], self.pair[vote]
        left, right = prompt * self.models + self.left[vote], prompt * self.models + self.right[vote]
        return (
            self.lefts[left] - self.rights[left] >= 2
            or self.rights[right] - self.lefts[right] >= 2
            or (self.shuns_crowds and self.crowd[prompt, pair] > self._allowed(prompt, pair))
            or self.asked[self.owner[vote], prompt, pair] > 1
            or (pair not in self.hopeless and not self._is_present(vote, prompt))
        )

    def _allowed(self, prompt: int, pair: int) -> int:
        return SHARED_BY if (prompt, pair) in self.planned else SHARED_BY - 1

    def _improve(self, vote: int) -> None:
        """Exchange with the partner after which least is at fault, if that is not (much) worse than now."""
        best, found = _SLACK * (self.stream.below(4) == 0), list[int]()
        for other in self._partners(vote):
            before = self._fault(vote, other)
            self._exchange(vote, other)
            change = self._fault(vote, other) - before
            self._exchange(vote, other)
            if change < best:
                best, found = change, [other]
            elif change == best:
                found.append(other)
        if found:
            self._exchange(vote, self.stream.choice(found))

    def _partners(self, vote: int) -> Iterator[int]:
        """The reviewer's other votes, and some of others for whom the exchange breaks no promise."""
        prompt, reviewer, table = self.prompt[vote], self.owner[vote], self.table
        for other in self.own[reviewer]:
            if not self.fixed[other] and self.prompt[other] != prompt:
                yield other
        for _ in range(min(_STRANGERS, len(self.owner))):
            other = self.stream.below(len(self.owner))
            theirs, stranger = self.prompt[other], self.owner[other]
            if (
                not self.fixed[other]
                and table.reviewer_groups[stranger] == table.reviewer_groups[reviewer]
                and table.prompt_groups[theirs] == table.prompt_groups[prompt]
                and self.held.get((reviewer, theirs), 0) < self.held[reviewer, prompt]
                and self.held.get((stranger, prompt), 0) < self.held[stranger, theirs]
            ):
                yield other

    def _fault(self, vote: int, other: int) -> int:
        """What is at fault where these two are now; only differences of it mean something."""
        total = 0
        models = {self.left[vote], self.right[vote], self.left[other], self.right[other]}
        for prompt in (self.prompt[vote], self.prompt[other]):
            for model in models:
                lefts, rights = self.lefts[prompt * self.models + model], self.rights[prompt * self.models + model]
                total += _SIDES * (lefts - rights) ** 2
            for pair in {self.pair[vote], self.pair[other]}:
                over = self.crowd.get((prompt, pair), 0) - self._allowed(prompt, pair)
                total += _CROWD * over * over if over > 0 else 0
        for each in (vote, other):
            total += _ABSENT * (not self._is_present(each, self.prompt[each]))
            total += _TWICE * (self.asked[self.owner[each], self.prompt[each], self.pair[each]] - 1)
        return total
