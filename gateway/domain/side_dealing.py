"""Which model of a pair stands on the left, so that no side is favoured: within each pair, and within each reviewer.

A reviewer's votes are lines between models; a walk that uses each once passes through every model, so that giving
each vote the walk's direction puts a model on the left as often as on the right. Turning a round trip of votes around
keeps that, and is used to bring the pairs into balance too. Prompts do not belong here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush

from gateway.domain.pair_dealing import Pair
from gateway.domain.seeded_stream import SeededStream

_OUTSIDE = -1
"""Joined to every model that a reviewer meets an odd number of times, so that walks can end there."""


def deal_sides(dealt: Sequence[Mapping[Pair, int]], *, models: int, stream: SeededStream) -> list[list[Pair]]:
    """Each reviewer's votes as (left, right).

    Promised: with one reviewer each model stands on the left as often as on the right, but for one vote where it is
    met an odd number of times. Sought, and reached but for a few of the smallest designs: the same for the two models
    of each pair over all reviewers; `worst_order` says what was reached.
    """
    sides = _Sides([_walked(pairs, stream) for pairs in dealt], models, stream)
    sides.mend()
    return sides.votes


def worst_order(votes: Iterable[Sequence[Pair]]) -> int:
    """The largest difference between how often the one and the other model of a pair stands on the left."""
    surplus: dict[Pair, int] = {}
    for own in votes:
        for left, right in own:
            key, sign = ((left, right), 1) if left < right else ((right, left), -1)
            surplus[key] = surplus.get(key, 0) + sign
    return max(map(abs, surplus.values()), default=0)


def _walked(pairs: Mapping[Pair, int], stream: SeededStream) -> list[Pair]:
    lines = [pair for pair, count in pairs.items() for _ in range(count)]
    stream.shuffle(lines)
    beside: dict[int, list[int]] = {}
    for number, (a, b) in enumerate(lines):
        beside.setdefault(a, []).append(number)
        beside.setdefault(b, []).append(number)
    for model in [model for model in sorted(beside) if len(beside[model]) % 2]:
        beside[model].append(len(lines))
        beside.setdefault(_OUTSIDE, []).append(len(lines))
        lines.append((_OUTSIDE, model))
    used = [False] * len(lines)
    votes = []
    for start in stream.shuffled(sorted(beside)):
        here = start
        while beside[here]:
            number = beside[here].pop()
            if used[number]:
                continue
            used[number] = True
            a, b = lines[number]
            there = b if a == here else a
            if _OUTSIDE not in (a, b):
                votes.append((here, there))
            here = there
    return votes


class _Sides:
    """Votes of every reviewer, and by how much each order of each pair is more frequent than the other."""

    def __init__(self, votes: list[list[Pair]], models: int, stream: SeededStream) -> None:
        self.votes, self.models, self.stream = votes, models, stream
        self.surplus = [[0] * models for _ in range(models)]
        for own in votes:
            for left, right in own:
                self.surplus[left][right] += 1
                self.surplus[right][left] -= 1

    def mend(self) -> None:
        """Turn round trips around until no order is 2 ahead, or nothing has helped for long."""
        patience = 40 * self.models
        while patience and (pair := self._worst()):
            if not self._turn_one(pair):
                patience -= 1

    def _worst(self) -> Pair | None:
        found = [(a, b) for a in range(self.models) for b in range(self.models) if self.surplus[a][b] >= 2]
        return self.stream.choice(found) if found else None

    def _turn_one(self, pair: Pair) -> bool:
        """Turn one of the votes in that order; True if that made the whole more even, not only different."""
        gain = self.surplus[pair[0]][pair[1]] - 1
        even: list[tuple[int, list[int]]] = []
        holders = [(reviewer, number) for reviewer, own in enumerate(self.votes) for number in _of(own, pair)]
        for reviewer, number in self.stream.shuffled(holders):
            trip = self._way_back(reviewer, pair)
            if trip is None or trip[0] > gain:
                continue
            if trip[0] < gain:
                self._turn(reviewer, [number, *trip[1]])
                return True
            even.append((reviewer, [number, *trip[1]]))
        if even:
            self._turn(*self.stream.choice(even))
        return False

    def _way_back(self, reviewer: int, pair: Pair) -> tuple[int, list[int]] | None:
        """The cheapest votes of one reviewer that lead from the right model back to the left one.

        Turning a vote whose order is s ahead changes the sum of squares of all surpluses by 4(1 - s).
        """
        own, (goal, start) = self.votes[reviewer], pair
        ways = self._ways(own)
        seen: set[int] = set()
        queue: list[tuple[int, int, int, list[int]]] = [(0, 0, start, [])]
        tie = 0
        while queue:
            cost, _, model, path = heappop(queue)
            if model == goal:
                return cost, path
            if model in seen:
                continue
            seen.add(model)
            for number, there in ways.get(model, ()):
                if there in seen or {model, there} == set(pair):
                    continue
                tie += 1
                step = max(0, 1 - self.surplus[model][there]) if number >= 0 else 0
                heappush(queue, (cost + step, tie, there, [*path, number] if number >= 0 else path))
        return None

    def _ways(self, own: Sequence[Pair]) -> dict[int, list[tuple[int, int]]]:
        ways: dict[int, list[tuple[int, int]]] = {}
        lead = [0] * self.models
        for number, (left, right) in enumerate(own):
            ways.setdefault(left, []).append((number, right))
            lead[left] += 1
            lead[right] -= 1
        for model, ahead in enumerate(lead):
            if ahead == 1:
                ways.setdefault(_OUTSIDE, []).append((-1, model))
            elif ahead == -1:
                ways.setdefault(model, []).append((-1, _OUTSIDE))
        for options in ways.values():
            self.stream.shuffle(options)
        return ways

    def _turn(self, reviewer: int, numbers: Iterable[int]) -> None:
        own = self.votes[reviewer]
        for number in numbers:
            left, right = own[number]
            own[number] = (right, left)
            self.surplus[left][right] -= 2
            self.surplus[right][left] += 2


def _of(votes: Sequence[Pair], order: Pair) -> list[int]:
    return [number for number, vote in enumerate(votes) if vote == order]
