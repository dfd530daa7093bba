"""Fractions to whole numbers, in a network, so that every sum that the network knows is rounded to a neighbour too.

Given a circulation (what flows into a node flows out again) with fractional flows, each flow becomes the whole number
just below or above, whole ones stay, and nothing is lost at any node. Which of the two it becomes is drawn so that
its expected value is the fraction. What nodes mean belongs to the callers.

Wherever some flow at a node is fractional, another one is: so fractional edges always close a cycle, and pushing along
it until one of them is whole leaves fewer (R. Gandhi et al., Dependent rounding and its applications to approximation
algorithms, J. ACM 53, 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.domain.seeded_stream import SeededStream


class Edge(NamedTuple):
    tail: int
    head: int
    numerator: int
    """The flow from tail to head times the common denominator."""


def round_circulation(edges: Sequence[Edge], denominator: int, stream: SeededStream) -> list[int]:
    """The whole flow of each edge, in order. Raises ValueError if a node gets other than it gives."""
    _require_balance(edges)
    return _Rounding(edges, denominator, stream).rounded()


def round_table(
    shares: Sequence[Sequence[int]],
    denominator: int,
    *,
    row_groups: Sequence[int],
    column_groups: Sequence[int] | None = None,
    stream: SeededStream,
) -> list[list[int]]:
    """A table of numerators to whole numbers; groups are numbered from 0, by row and by column.

    Each of these becomes a whole number just below or above its share, or stays: a cell, a row, a column, the rows of
    a group, a column within a group of rows, a row within a group of columns, the columns of a group, the whole table.
    """
    rows, width = len(shares), len(shares[0])
    column_groups = column_groups or [0] * width
    row_group_count, column_group_count = max(row_groups) + 1, max(column_groups) + 1
    row_group = 1
    row = row_group + row_group_count
    row_part = row + rows
    column_part = row_part + rows * column_group_count
    column = column_part + row_group_count * width
    column_group = column + width
    source = column_group + column_group_count  # 0 is the sink: what comes between them is the whole table
    flows: dict[tuple[int, int], int] = {}
    cells = []
    for r, numerators in enumerate(shares):
        for c, numerator in enumerate(numerators):
            part = row_part + r * column_group_count + column_groups[c]
            group_part = column_part + row_groups[r] * width + c
            cells.append(Edge(part, group_part, numerator))
            if numerator:
                for way in (
                    (0, source),
                    (source, row_group + row_groups[r]),
                    (row_group + row_groups[r], row + r),
                    (row + r, part),
                    (group_part, column + c),
                    (column + c, column_group + column_groups[c]),
                    (column_group + column_groups[c], 0),
                ):
                    flows[way] = flows.get(way, 0) + numerator
    sums = [Edge(tail, head, numerator) for (tail, head), numerator in flows.items()]
    whole = round_circulation([*cells, *sums], denominator, stream)
    return [whole[r * width : (r + 1) * width] for r in range(rows)]


def _require_balance(edges: Sequence[Edge]) -> None:
    surplus: dict[int, int] = {}
    for edge in edges:
        surplus[edge.head] = surplus.get(edge.head, 0) + edge.numerator
        surplus[edge.tail] = surplus.get(edge.tail, 0) - edge.numerator
    for node, amount in surplus.items():
        if amount:
            raise ValueError(f"node {node}: expected inflow to equal outflow, got a difference of {amount}")


class _Rounding:
    """The fractional part of every edge in units of 1/denominator; 0 and denominator are whole."""

    def __init__(self, edges: Sequence[Edge], denominator: int, stream: SeededStream) -> None:
        self.edges, self.denominator, self.stream = edges, denominator, stream
        self.part = [edge.numerator % denominator for edge in edges]
        self.open: dict[int, list[int]] = {}
        """Edges by node, of which some may have become whole since."""
        for number, edge in enumerate(edges):
            if self.part[number]:
                self.open.setdefault(edge.tail, []).append(number)
                self.open.setdefault(edge.head, []).append(number)

    def rounded(self) -> list[int]:
        for start in self.open:
            self._walk(start)
        whole = self.denominator
        return [edge.numerator // whole + part // whole for edge, part in zip(self.edges, self.part, strict=True)]

    def _walk(self, start: int) -> None:
        """Follow fractional edges from `start`, closing every cycle that is met, until none is left there."""
        nodes, path = [start], list[int]()
        place = {start: 0}
        while (number := self._next_edge(nodes[-1], path[-1] if path else -1)) is not None:
            edge = self.edges[number]
            node = edge.head if edge.tail == nodes[-1] else edge.tail
            path.append(number)
            if node not in place:
                place[node] = len(nodes)
                nodes.append(node)
                continue
            first = place[node]
            self._push(path[first:], node)
            for left in nodes[first + 1 :]:
                del place[left]
            del nodes[first + 1 :], path[first:]

    def _next_edge(self, node: int, came_by: int) -> int | None:
        candidates = self.open.get(node, [])
        at = len(candidates) - 1
        while at >= 0:
            number = candidates[at]
            if self.part[number] in (0, self.denominator):
                candidates[at] = candidates[-1]
                candidates.pop()
            elif number != came_by:
                return number
            at -= 1
        return None

    def _push(self, cycle: Sequence[int], start: int) -> None:
        signs, node = [], start
        for number in cycle:
            edge = self.edges[number]
            forward = edge.tail == node
            signs.append(1 if forward else -1)
            node = edge.head if forward else edge.tail
        up = min(self._room(number, sign) for number, sign in zip(cycle, signs, strict=True))
        down = min(self._room(number, -sign) for number, sign in zip(cycle, signs, strict=True))
        amount = up if self.stream.below(up + down) < down else -down
        for number, sign in zip(cycle, signs, strict=True):
            self.part[number] += sign * amount

    def _room(self, number: int, sign: int) -> int:
        return self.denominator - self.part[number] if sign > 0 else self.part[number]
