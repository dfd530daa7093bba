"""Who is next where engines are full: priority classes, fairness between organisations, and places kept free.

A class goes before the lower ones; inside a class organisations take turns, one call each; inside an organisation the
first come is served first. No clock and no replica is known here: how long anybody may wait, and which engine a call
gets, is decided by whoever keeps the line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from gateway.domain.records import Priority

PRIORITIES = tuple(Priority)
RANKS: Mapping[Priority, int] = {priority: rank for rank, priority in enumerate(PRIORITIES)}
"""0 goes first."""
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
    """Those who wait for one model, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._classes = {priority: _Class[Waiting]() for priority in PRIORITIES}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiting]:
        for waiting in self._classes.values():
            yield from waiting

    def depth(self, priority: Priority) -> int:
        return self._classes[priority].count

    def is_before(self, priority: Priority) -> bool:
        """Whether anybody waits who goes before a newcomer of this class."""
        return any(self._classes[above].count for above in PRIORITIES[: RANKS[priority] + 1])

    def join(
        self, item: Waiting, priority: Priority, organisation: str, *, has_had_turn: bool = False
    ) -> Waiting | None:
        """Stand in line; whoever had to leave it for that, or None.

        Who `has_had_turn` (its replica failed it) stands before all others of its class. In a full line a newcomer
        takes the place of the last one of a lower class, else of the organisation of its own class that has most
        waiting, if that are at least two more than its own. Raises LineFull where there is no such one.
        """
        displaced = None
        if self._count >= self._limit:
            displaced = self._make_room(priority, organisation, has_had_turn=has_had_turn)
        self._classes[priority].add(item, None if has_had_turn else organisation)
        self._count += 1
        return displaced

    def leave(self, item: Waiting, priority: Priority, organisation: str) -> None:
        """Wait no longer; nothing happens where the item is not in the line (any more)."""
        if self._classes[priority].remove(item, organisation):
            self._count -= 1

    def take_next(self, has_room: Callable[[Priority], bool], fits: Callable[[Waiting], bool]) -> Waiting | None:
        """Take the next one out of the line: the first in order of a class that `has_room`; None where there is none.

        Whom nothing `fits` of the room there is (only one replica can answer it, or all that are free have failed it)
        is passed over and keeps its place in the order.
        """
        for priority in PRIORITIES:
            waiting = self._classes[priority]
            if waiting.count and has_room(priority):
                item = waiting.take(fits)
                if item is not None:
                    self._count -= 1
                    return item
        return None

    def _make_room(self, priority: Priority, organisation: str, *, has_had_turn: bool) -> Waiting:
        for below in reversed(PRIORITIES[RANKS[priority] + 1 :]):
            if self._classes[below].count:
                self._count -= 1
                return self._classes[below].take_last()
        own = self._classes[priority]
        if not own.longest or (not has_had_turn and own.longest <= own.waiting_of(organisation) + 1):
            raise LineFull
        self._count -= 1
        return own.take_last()


class _Class(Generic[Waiting]):
    """Those of one class: first who had a turn before, then the organisations in rotation."""

    def __init__(self) -> None:
        self.count = 0
        self._returned: OrderedDict[Waiting, None] = OrderedDict()
        self._rotation: OrderedDict[str, OrderedDict[Waiting, None]] = OrderedDict()
        """By organisation, the next one first; only those that wait for something."""

    def __iter__(self) -> Iterator[Waiting]:
        yield from self._returned
        for items in self._rotation.values():
            yield from items

    @property
    def longest(self) -> int:
        """How many the organisation has that has most waiting."""
        return max(map(len, self._rotation.values()), default=0)

    def waiting_of(self, organisation: str) -> int:
        return len(self._rotation.get(organisation, ()))

    def add(self, item: Waiting, organisation: str | None) -> None:
        """`organisation` None: before all others."""
        if organisation is None:
            self._returned[item] = None
        else:
            self._rotation.setdefault(organisation, OrderedDict())[item] = None
        self.count += 1

    def remove(self, item: Waiting, organisation: str) -> bool:
        items = self._rotation.get(organisation)
        if items is not None and item in items:
            del items[item]
            if not items:
                del self._rotation[organisation]
        elif item in self._returned:
            del self._returned[item]
        else:
            return False
        self.count -= 1
        return True

    def take(self, fits: Callable[[Waiting], bool]) -> Waiting | None:
        item = next(filter(fits, self._returned), None)
        if item is not None:
            del self._returned[item]
            self.count -= 1
            return item
        for organisation, items in self._rotation.items():
            item = next(filter(fits, items), None)
            if item is not None:
                del items[item]
                self._rotation.move_to_end(organisation)
                if not items:
                    del self._rotation[organisation]
                self.count -= 1
                return item
        return None

    def take_last(self) -> Waiting:
        """The newest of the organisation that has most waiting; one that had a turn only where nobody else waits."""
        self.count -= 1
        if not self._rotation:
            return self._returned.popitem()[0]
        organisation, items = max(self._rotation.items(), key=lambda entry: len(entry[1]))
        item, _ = items.popitem()
        if not items:
            del self._rotation[organisation]
        return item
