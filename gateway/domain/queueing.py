"""Who is next where engines are full: priority classes, fairness between organisations, and places kept free.

A class goes before the lower ones; inside a class organisations take turns, one call each; inside an organisation the
first come is served first. Who is bound to some of the engines stands aside of all others: in the same order, but in
places of their own. No clock and no replica is known here: how long anybody may wait, what a bound means, and which
engine a call gets, is decided by whoever keeps the line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

from gateway.domain.records import Priority

PRIORITIES = tuple(Priority)
RANKS: Mapping[Priority, int] = {priority: rank for rank, priority in enumerate(PRIORITIES)}
"""0 goes first."""
Bound = Hashable
"""Names the engines that can be of use to who waits; the same bound, the same engines. None: all of them."""
Waiting = TypeVar("Waiting", bound=Hashable)


class LineFull(Exception):
    """Nobody may join: everybody in the line has at least as good a right to a place in it."""


def place_limits(places: int, shares: Mapping[Priority, float]) -> tuple[int, ...]:
    """How many calls may be in flight on a replica for one more of a class to be let in, by rank.

    `shares` are parts of `places`, 1 where a class is not named. What a class leaves free is free for those above it
    at any moment, so they need not wait for its calls to end ("trunk reservation"). At least 1 for every class.
    """
    return tuple(max(1, int(places * shares.get(priority, 1.0) + 1e-9)) for priority in PRIORITIES)


class WaitingLine(Generic[Waiting]):
    """Those who wait for one model, at most `limit` of each bound.

    So who is bound to a few engines neither displaces nor keeps out those who need none of these.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._classes = {priority: _Class[Waiting]() for priority in PRIORITIES}
        self._standing: dict[Waiting, _Standing] = {}
        """Who is in the line, in order of arrival."""
        self._counts: dict[Bound, int] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._standing)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._standing)

    def by_bound(self) -> dict[Bound, list[Waiting]]:
        """Who waits, in groups for which the same engines are of use."""
        groups: dict[Bound, list[Waiting]] = {}
        for item, standing in self._standing.items():
            groups.setdefault(standing.bound, []).append(item)
        return groups

    def depth(self, priority: Priority) -> int:
        return self._classes[priority].count

    def join(
        self,
        item: Waiting,
        priority: Priority,
        organisation: str,
        *,
        bound: Bound = None,
        has_had_turn: bool = False,
    ) -> Waiting | None:
        """Stand in line; whoever had to leave it for that, or None.

        Who `has_had_turn` (its replica failed it) stands before all others of its class. Where as many of the same
        `bound` wait as may, a newcomer takes the place of the last of them in a lower class, else of the organisation
        of its own class that has most of them waiting, if that are at least two more than its own. Raises LineFull
        where there is no such one.
        """
        standing = _Standing(priority, None if has_had_turn else organisation, bound)
        displaced = None
        if self._counts.get(bound, 0) >= self._limit:
            displaced = self._last_to_yield(standing)
            self.leave(displaced)
        self._arrivals += 1
        self._standing[item] = standing
        self._classes[priority].add(item, standing, self._arrivals)
        self._counts[bound] = self._counts.get(bound, 0) + 1
        return displaced

    def leave(self, item: Waiting) -> None:
        """Wait no longer; nothing happens where the item is not in the line (any more)."""
        standing = self._standing.pop(item, None)
        if standing is None:
            return
        self._classes[standing.priority].remove(item, standing)
        self._counts[standing.bound] -= 1
        if not self._counts[standing.bound]:
            del self._counts[standing.bound]

    def take_next(self, has_room: Callable[[Priority], bool], fits: Callable[[Waiting], bool]) -> Waiting | None:
        """Take the next one out of the line: the first in order of a class that `has_room`; None where there is none.

        Whom nothing `fits` of the room there is (only one replica can answer it, or all that are free have failed it)
        is passed over and keeps its place in the order. `fits` is asked of one of each class and bound at most: what
        it says holds for all of them.
        """
        for priority in PRIORITIES:
            waiting = self._classes[priority]
            if waiting.count and has_room(priority):
                item = waiting.next(fits)
                if item is not None:
                    waiting.end_turn(self._standing[item])
                    self.leave(item)
                    return item
        return None

    def _last_to_yield(self, newcomer: _Standing) -> Waiting:
        for below in reversed(PRIORITIES[RANKS[newcomer.priority] + 1 :]):
            last = self._classes[below].last(newcomer.bound)
            if last is not None:
                return last
        own = self._classes[newcomer.priority]
        longest = own.longest(newcomer.bound)
        if longest is None or (
            newcomer.organisation is not None
            and longest.count(newcomer.bound) <= own.waiting_of(newcomer.organisation, newcomer.bound) + 1
        ):
            raise LineFull
        return longest.last(newcomer.bound)


class _Standing(NamedTuple):
    """As what somebody waits. `organisation` None: had a turn before, and goes before its class."""

    priority: Priority
    organisation: str | None
    bound: Bound


class _Party(Generic[Waiting]):
    """Those of one class who have one turn between them, by bound, each with the number of its arrival."""

    def __init__(self) -> None:
        self._groups: dict[Bound, OrderedDict[Waiting, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def count(self, bound: Bound) -> int:
        return len(self._groups.get(bound, ()))

    def add(self, item: Waiting, bound: Bound, arrival: int) -> None:
        self._groups.setdefault(bound, OrderedDict())[item] = arrival

    def remove(self, item: Waiting, bound: Bound) -> None:
        group = self._groups[bound]
        del group[item]
        if not group:
            del self._groups[bound]

    def first(self, is_open: Callable[[Bound, Waiting], bool]) -> Waiting | None:
        """Who came first of those whose bound is open; `is_open` is asked with the first of each group."""
        firsts = [(bound, *next(iter(group.items()))) for bound, group in self._groups.items()]
        served = [(arrival, item) for bound, item, arrival in firsts if is_open(bound, item)]
        return min(served, key=lambda entry: entry[0])[1] if served else None

    def last(self, bound: Bound) -> Waiting:
        return next(reversed(self._groups[bound]))


class _Class(Generic[Waiting]):
    """Those of one class: first who had a turn before, then the organisations in rotation."""

    def __init__(self) -> None:
        self.count = 0
        self._returned = _Party[Waiting]()
        self._rotation: OrderedDict[str, _Party[Waiting]] = OrderedDict()
        """By organisation, the next one first; only those that wait for something."""

    def longest(self, bound: Bound) -> _Party[Waiting] | None:
        """The organisation that has most of this bound waiting; None where none has any."""
        longest = max(self._rotation.values(), key=lambda party: party.count(bound), default=None)
        return longest if longest is not None and longest.count(bound) else None

    def waiting_of(self, organisation: str, bound: Bound) -> int:
        party = self._rotation.get(organisation)
        return party.count(bound) if party is not None else 0

    def add(self, item: Waiting, standing: _Standing, arrival: int) -> None:
        if standing.organisation is None:
            party = self._returned
        else:
            party = self._rotation.setdefault(standing.organisation, _Party())
        party.add(item, standing.bound, arrival)
        self.count += 1

    def remove(self, item: Waiting, standing: _Standing) -> None:
        if standing.organisation is None:
            self._returned.remove(item, standing.bound)
        else:
            party = self._rotation[standing.organisation]
            party.remove(item, standing.bound)
            if not party:
                del self._rotation[standing.organisation]
        self.count -= 1

    def next(self, fits: Callable[[Waiting], bool]) -> Waiting | None:
        """Who is to be served next, if anybody can be."""
        known: dict[Bound, bool] = {}

        def is_open(bound: Bound, item: Waiting) -> bool:
            found = known.get(bound)
            if found is None:
                found = known[bound] = fits(item)
            return found

        for party in chain((self._returned,), self._rotation.values()):
            item = party.first(is_open)
            if item is not None:
                return item
        return None

    def end_turn(self, standing: _Standing) -> None:
        """Somebody was served: the others' turns come first."""
        if standing.organisation is not None:
            self._rotation.move_to_end(standing.organisation)

    def last(self, bound: Bound) -> Waiting | None:
        """The newest of the organisation that has most waiting; one that had a turn only where nobody else waits."""
        longest = self.longest(bound)
        if longest is None:
            longest = self._returned if self._returned.count(bound) else None
        return longest.last(bound) if longest is not None else None
