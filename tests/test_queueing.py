"""Who is next: properties of the waiting line over any sequence of comings and goings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.queueing import PRIORITIES, RANKS, LineFull, WaitingLine, place_limits
from gateway.domain.records import Priority

SHARES = {Priority.INTERACTIVE: 0.9, Priority.BATCH: 0.75, Priority.LOAD_TEST: 0.5}
REVIEWER, INTERACTIVE, BATCH, LOAD_TEST = PRIORITIES


@dataclass(frozen=True, eq=False)
class Caller:
    number: int
    priority: Priority
    organisation: str
    is_back: bool = False
    bound: str | None = None
    """Which engines alone are of use to it."""


@dataclass
class Observed:
    """A line, and a plain list of who stands in it in order of arrival: what the properties are told from."""

    line: WaitingLine[Caller]
    limit: int
    waiting: list[Caller] = field(default_factory=list)
    overtaken: Counter[tuple[str, str, Priority]] = field(default_factory=Counter)
    """How often an organisation was served since another one of its class began to wait or was served."""

    def depth(self, caller: Caller, organisation: str) -> int:
        """How many of an organisation wait as this caller does: of its class, and for the same engines."""
        sought = (caller.priority, organisation, caller.bound, False)
        return sum((c.priority, c.organisation, c.bound, c.is_back) == sought for c in self.waiting)

    def join(self, caller: Caller) -> None:
        peers = [c for c in self.waiting if c.bound == caller.bound]
        own = self.depth(caller, caller.organisation)
        longest = max((self.depth(caller, c.organisation) for c in peers), default=0)
        lower = [c for c in peers if RANKS[c.priority] > RANKS[caller.priority]]
        was_full = len(peers) == self.limit
        waits = any(
            (c.priority, c.organisation, c.is_back) == (caller.priority, caller.organisation, False)
            for c in self.waiting
        )
        try:
            displaced = self.line.join(
                caller, caller.priority, caller.organisation, bound=caller.bound, has_had_turn=caller.is_back
            )
        except LineFull:
            assert was_full
            assert not lower, "a lower class makes room"
            assert longest <= own + 1 or (caller.is_back and not longest)
            return
        assert (displaced is not None) is was_full
        if displaced is not None:
            assert displaced.bound == caller.bound, "nobody makes room for who needs other engines"
            self.waiting.remove(displaced)
            if lower:
                assert displaced.priority == max(lower, key=lambda c: RANKS[c.priority]).priority
            else:
                assert displaced.priority is caller.priority
                assert caller.is_back or self.depth(displaced, displaced.organisation) + 1 == longest > own + 1
        if not waits and not caller.is_back:
            for other in "abc":
                self.overtaken[other, caller.organisation, caller.priority] = 0
        self.waiting.append(caller)

    def leave(self, caller: Caller) -> None:
        self.line.leave(caller)
        self.line.leave(caller)
        self.waiting.remove(caller)

    def take(self, classes: int, free: str) -> None:
        """Take the next one where the upper `classes` have room, on an engine that is of use to those bound to it."""
        having_room = PRIORITIES[:classes]
        asked: list[tuple[Priority, str | None]] = []

        def fits(caller: Caller) -> bool:
            asked.append((caller.priority, caller.bound))
            return caller.bound in (None, free)

        caller = self.line.take_next(having_room.__contains__, fits)
        assert len(asked) == len(set(asked)), "one of each class and bound is asked for, however many wait"
        usable = [c for c in self.waiting if c.priority in having_room and c.bound in (None, free)]
        if caller is None:
            assert not usable, "somebody could have been served"
            return
        assert caller in usable
        assert RANKS[caller.priority] == min(RANKS[c.priority] for c in usable), "a higher class goes first"
        peers = [c for c in usable if c.priority is caller.priority]
        assert caller.is_back or not any(c.is_back for c in peers), "who had a turn goes before its class"
        same = [c for c in peers if c.is_back] or [c for c in peers if c.organisation == caller.organisation]
        assert same[0] is caller, "first come, first served within an organisation"
        self.waiting.remove(caller)
        if not caller.is_back:
            for other in {c.organisation for c in peers if not c.is_back} - {caller.organisation}:
                key = (caller.organisation, other, caller.priority)
                self.overtaken[key] += 1
                assert self.overtaken[key] <= 1, "nobody is served twice while another organisation waits"
                self.overtaken[other, caller.organisation, caller.priority] = 0

    def agrees(self) -> None:
        assert len(self.line) == len(self.waiting)
        groups = self.line.by_bound()
        assert all(len(group) <= self.limit for group in groups.values())
        assert groups == {b: [c for c in self.waiting if c.bound == b] for b in {c.bound for c in self.waiting}}
        assert set(self.line) == set(self.waiting)
        for priority in PRIORITIES:
            assert self.line.depth(priority) == sum(c.priority is priority for c in self.waiting)


@given(
    limit=st.integers(1, 12),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["join", "join", "join", "back", "leave", "take", "take"]),
            st.sampled_from(PRIORITIES),
            st.sampled_from("abc"),
            st.integers(0, 4),
            st.sampled_from([None, None, "x", "y"]),
        ),
        max_size=80,
    ),
)
def test_line_keeps_its_rules_whoever_comes_and_goes(
    limit: int, steps: list[tuple[str, Priority, str, int, str | None]]
) -> None:
    seen = Observed(WaitingLine(limit), limit)
    for number, (what, priority, organisation, amount, bound) in enumerate(steps):
        if what in ("join", "back"):
            seen.join(Caller(number, priority, organisation, is_back=what == "back", bound=bound))
        elif what == "take":
            seen.take(amount, bound or "x")
        elif seen.waiting:
            seen.leave(seen.waiting[amount % len(seen.waiting)])
        seen.agrees()


def served(line: WaitingLine[str]) -> list[str]:
    order: list[str] = []
    while (item := line.take_next(lambda _: True, lambda _: True)) is not None:
        order.append(item)
    return order


def test_organisations_take_turns_however_many_one_of_them_sends() -> None:
    line: WaitingLine[str] = WaitingLine(100)
    for item in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        line.join(item, BATCH, item[0])
    assert served(line) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_who_had_a_turn_goes_before_its_class_but_not_before_a_higher_one() -> None:
    line: WaitingLine[str] = WaitingLine(100)
    line.join("first", BATCH, "a")
    line.join("returned", BATCH, "b", has_had_turn=True)
    line.join("reviewer", REVIEWER, "c")
    assert served(line) == ["reviewer", "returned", "first"]


def test_full_line_makes_room_for_a_higher_class_from_below() -> None:
    line: WaitingLine[str] = WaitingLine(3)
    for item in ("l1", "l2", "l3"):
        line.join(item, LOAD_TEST, "load")
    assert line.join("r1", REVIEWER, "r") == "l3", "the last one goes"
    with pytest.raises(LineFull):
        line.join("l4", LOAD_TEST, "load")
    assert served(line) == ["r1", "l1", "l2"]


def test_one_organisation_cannot_keep_the_line_full_for_others() -> None:
    line: WaitingLine[str] = WaitingLine(4)
    for item in ("a1", "a2", "a3", "a4"):
        line.join(item, INTERACTIVE, "a")
    assert [line.join(item, INTERACTIVE, "b") for item in ("b1", "b2")] == ["a4", "a3"]
    with pytest.raises(LineFull):
        line.join("b3", INTERACTIVE, "b")


def test_who_is_bound_to_one_engine_neither_keeps_out_nor_displaces_the_others() -> None:
    line: WaitingLine[str] = WaitingLine(2)
    line.join("load", LOAD_TEST, "a")
    for item in ("r1", "r2"):
        assert line.join(item, REVIEWER, "b", bound="x") is None
    with pytest.raises(LineFull):
        line.join("r3", REVIEWER, "b", bound="x")
    assert line.join("batch", BATCH, "c") is None
    assert line.join("y1", BATCH, "c", bound="y") is None, "each bound has its own places"
    assert served(line) == ["r1", "r2", "batch", "y1", "load"]


def test_hundreds_who_are_bound_cost_as_many_questions_as_one() -> None:
    line: WaitingLine[str] = WaitingLine(1000)
    for number in range(900):
        line.join(f"bound {number}", INTERACTIVE, f"org {number % 30}", bound="x")
    line.join("stranger", INTERACTIVE, "z")
    asked: list[str] = []

    def fits(item: str) -> bool:
        asked.append(item)
        return item == "stranger"

    assert line.take_next(lambda _: True, fits) == "stranger"
    assert len(asked) == 2


@given(st.integers(1, 5000))
def test_every_class_has_a_place_and_leaves_some_to_those_above(places: int) -> None:
    limits = place_limits(places, SHARES)
    assert limits[0] == places
    assert list(limits) == sorted(limits, reverse=True)
    assert min(limits) >= 1
    for limit, priority in zip(limits, PRIORITIES, strict=True):
        assert limit == 1 or limit <= places * SHARES.get(priority, 1.0) + 1e-6
    assert places == 1 or limits[1] < places, "a place of every replica is the reviewers' own"


def test_places_are_as_documented() -> None:
    assert place_limits(256, SHARES) == (256, 230, 192, 128)
    assert place_limits(10, SHARES) == (10, 9, 7, 5)
    assert place_limits(2, SHARES) == (2, 1, 1, 1)
    assert place_limits(1, SHARES) == (1, 1, 1, 1)
