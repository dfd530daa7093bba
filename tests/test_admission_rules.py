"""Admission over any sequence of arrivals, endings, departures and failures, with the clock in the test's hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import uvloop
from gateways import entry, registry_text
from guards import HANG_S
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission import Admission, Place, Turn
from gateway.domain.breaker import CLOSED, Outcome
from gateway.domain.queueing import RANKS
from gateway.domain.records import Priority
from gateway.errors import NoReplica, SimsaError, Unavailable
from gateway.fleet import Fleet
from gateway.registry import parse_registry
from gateway.replica_state import ReplicaState
from gateway.settings import Settings
from gateway.telemetry import Telemetry
from gateway.upstream import Upstream


class Rig:
    """Two replicas that are up because the test says so, and everything that was asked of the admission."""

    def __init__(self, caps: Sequence[int], **changes: Any) -> None:
        self.clock = 0.0
        self.telemetry = Telemetry()
        chosen = Settings(**{"queue_wait_s": 1000.0, "breaker_faults": 2, **changes})
        upstream = Upstream(idle_connections=0, now=lambda: self.clock)
        self.fleet = Fleet(settings=chosen, upstream=upstream, telemetry=self.telemetry, now=lambda: self.clock)
        self.admission = Admission(settings=chosen, fleet=self.fleet, telemetry=self.telemetry, now=lambda: self.clock)
        self.caps = caps
        self.limit = chosen.queue_max_waiting
        self.calls: dict[asyncio.Task[None], Turn] = {}
        self.places: dict[Turn, Place] = {}
        self.served: list[Turn] = []
        self.refused: Counter[str | None] = Counter()

    async def start(self) -> None:
        model = entry("m")
        model["replicas"] = [
            {"url": f"http://127.0.0.1:{n + 1}", "max_in_flight": cap} for n, cap in enumerate(self.caps)
        ]
        self.fleet.apply(parse_registry(registry_text([model]).encode(), path="test"))
        await self.fleet.stop()  # nobody looks at them
        for state in self.states:
            state.is_up = True

    @property
    def states(self) -> list[ReplicaState]:
        return self.fleet.states_of("m")

    @property
    def waiting(self) -> list[Turn]:
        return [turn for task, turn in self.calls.items() if not task.done() and turn not in self.places]

    def call(
        self, priority: Priority, organisation: str = "", session: str | None = None, home: int | None = None
    ) -> Turn:
        """`home`: the number of the only replica that can answer it."""
        turn = Turn("m", priority, organisation, session, None if home is None else self.states[home].replica.address)
        self.calls[asyncio.create_task(self._get_place(turn))] = turn
        return turn

    async def _get_place(self, turn: Turn) -> None:
        place: Place | None = None
        words = ""
        try:
            place = self.admission.place_now(turn) or await self.admission.wait(turn)
        except SimsaError as error:
            self.refused[error.code] += 1
            words = error.message
        if place is None:
            assert "already do" not in words or not self.free_for(turn), "nobody finds it full beside a free place"
            return
        assert turn not in self.places
        assert place.state not in turn.tried
        self.places[turn] = place
        self.served.append(turn)

    def finish(self, turn: Turn, outcome: Outcome, *, again: bool = False) -> None:
        """End a call's attempt; where `again`, it then asks for another replica."""
        place = self.places.pop(turn)
        place.judge(outcome)
        place.judge(Outcome.FAULT)  # the first word counts
        place.end()
        place.end()
        if again:
            turn.tried.append(place.state)
            self.calls[asyncio.create_task(self._get_place(turn))] = turn

    def leave(self, turn: Turn) -> None:
        next(task for task, other in self.calls.items() if other is turn and not task.done()).cancel()

    async def settle(self) -> None:
        """Let everybody go on who can."""
        for _ in range(4):
            await asyncio.sleep(0)
        for task in self.calls:
            if task.done() and not task.cancelled():
                task.result()

    def keeps_the_rules(self) -> None:
        taken = Counter(place.state.replica.id for place in self.places.values())
        for state, cap in zip(self.states, self.caps, strict=True):
            assert state.in_flight == taken[state.replica.id] <= cap
        for turn in self.waiting:
            assert not self.free_for(turn), "nobody waits beside a free place"
        assert all(count <= self.limit for count in Counter(turn.bound for turn in self.waiting).values())
        for priority in Priority:
            depth = self.telemetry.queue_depth.at("m", priority.value).value
            assert depth == sum(turn.priority is priority for turn in self.waiting)

    def free_for(self, turn: Turn) -> list[ReplicaState]:
        """Replicas that have a place for the call, and that nothing speaks against."""
        return [
            state
            for state in self.states
            if state.is_up
            and state.in_flight < state.places[RANKS[turn.priority]]
            and state.breaker is CLOSED
            and state not in turn.tried
            and turn.home in (None, state.replica.address)
        ]

    async def end_all(self) -> None:
        for turn in list(self.places):
            self.finish(turn, Outcome.GOOD)
        while any(not task.done() for task in self.calls):
            for turn in self.waiting:
                self.leave(turn)
            await self.settle()
            for turn in list(self.places):
                self.finish(turn, Outcome.GOOD)
        assert all(state.in_flight == 0 for state in self.states)
        assert all(self.telemetry.queue_depth.at("m", priority.value).value == 0 for priority in Priority)
        await self.fleet.stop()


def run(story: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story)


STEPS = st.tuples(
    st.sampled_from(["call"] * 4 + ["end", "end", "fault", "retry", "leave", "down", "up", "time", "pause"]),
    st.sampled_from(Priority),
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 30),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 8), st.lists(STEPS, max_size=60), st.booleans()
)
def test_caps_hold_nobody_waits_in_vain_and_every_gauge_ends_at_zero(
    caps: list[int], limit: int, steps: list[tuple[str, Priority, str, int]], settles: bool
) -> None:
    async def story() -> None:
        rig = Rig(caps, queue_max_waiting=limit)
        await rig.start()
        for what, priority, organisation, number in steps:
            state = rig.states[number % len(caps)]
            running = list(rig.places)
            if what == "call":
                home = number % len(caps) if number % 3 == 0 else None
                rig.call(priority, organisation, session=organisation if number % 2 else None, home=home)
            elif what == "leave" and rig.waiting:
                rig.leave(rig.waiting[number % len(rig.waiting)])
            elif what in ("down", "up"):
                state.is_up = what == "up"
                rig.fleet.on_news("m")
            elif what == "time":
                rig.clock += number
                rig.admission.serve("m")
            elif what in ("end", "fault", "retry", "pause") and running:
                turn = running[number % len(running)]
                if what == "pause":
                    rig.places[turn].pause(number)
                outcome = Outcome.FAULT if what in ("fault", "retry") else Outcome.GOOD
                rig.finish(turn, outcome, again=what == "retry")
            if settles:
                await rig.settle()
                rig.keeps_the_rules()
        await rig.settle()
        rig.keeps_the_rules()
        await rig.end_all()

    run(story())


def test_organisations_take_turns_at_the_places_of_a_class() -> None:
    async def story() -> None:
        rig = Rig([1])
        await rig.start()
        first = rig.call(Priority.BATCH, "a")
        await rig.settle()
        names = {}
        for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
            names[rig.call(Priority.BATCH, name[0])] = name
            await rig.settle()
        rig.finish(first, Outcome.GOOD)
        for _ in names:
            await rig.settle()
            (turn,) = rig.places
            rig.finish(turn, Outcome.GOOD)
        assert [names[turn] for turn in rig.served[1:]] == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
        await rig.end_all()

    run(story())


@pytest.mark.parametrize("cap", [2, 8, 20])
def test_load_test_of_five_times_the_places_never_makes_a_reviewer_wait(cap: int) -> None:
    """Reviewers who take no more places than are kept for them find one free at any moment."""

    async def story() -> None:
        rig = Rig([cap])
        await rig.start()
        kept = cap - rig.states[0].places[RANKS[Priority.LOAD_TEST]]
        for number in range(5 * cap):
            rig.call(Priority.LOAD_TEST, "load")
            await rig.settle()
            if number % 3 == 2:
                rig.finish(rig.served[-1] if rig.served[-1] in rig.places else next(iter(rig.places)), Outcome.GOOD)
                await rig.settle()
            reviewers = [turn for turn in rig.places if turn.priority is Priority.REVIEWER]
            if len(reviewers) == kept:
                rig.finish(reviewers[0], Outcome.GOOD)
            reviewer = rig.call(Priority.REVIEWER, "review")
            await rig.settle()
            assert reviewer in rig.places
            assert reviewer.waited_s == 0.0
        await rig.end_all()

    run(story())


def test_place_that_is_granted_in_the_moment_its_client_leaves_goes_to_the_next() -> None:
    async def story() -> None:
        rig = Rig([1])
        await rig.start()
        running = rig.call(Priority.INTERACTIVE)
        await rig.settle()
        leaves, stays = rig.call(Priority.INTERACTIVE), rig.call(Priority.INTERACTIVE)
        await rig.settle()
        rig.finish(running, Outcome.GOOD)  # grants the place to the first in line ...
        rig.leave(leaves)  # ... which is gone before it can know
        await rig.settle()
        assert list(rig.places) == [stays]
        await rig.end_all()

    run(story())


def test_who_waits_for_one_replica_keeps_nobody_from_another() -> None:
    async def story() -> None:
        rig = Rig([1, 1], queue_max_waiting=2)
        await rig.start()
        running = rig.call(Priority.INTERACTIVE, "a", home=0)
        await rig.settle()
        for _ in range(4):
            rig.call(Priority.REVIEWER, "a", home=0)
        await rig.settle()
        assert (len(rig.waiting), rig.refused["queue_full"]) == (2, 2), "they have places of their own to wait in"
        stranger = rig.call(Priority.LOAD_TEST, "b")
        await rig.settle()
        assert stranger in rig.places
        later = [rig.call(Priority.LOAD_TEST, "b") for _ in range(2)]
        await rig.settle()
        assert (len(rig.waiting), rig.refused["queue_full"]) == (4, 2), "and take no other's place in the queue"
        rig.finish(stranger, Outcome.GOOD)
        await rig.settle()
        assert later[0] in rig.places
        rig.finish(running, Outcome.GOOD)
        await rig.settle()
        assert rig.served[-1].priority is Priority.REVIEWER
        await rig.end_all()

    run(story())


def test_calls_wait_for_the_look_that_a_doubt_brings_forward() -> None:
    async def story() -> None:
        rig = Rig([2], health_interval_s=2.0, queue_wait_s=1.0)
        await rig.start()
        (state,) = rig.states
        rig.fleet.mark_down(state, "a call could not reach it")
        waits = rig.call(Priority.INTERACTIVE)
        await rig.settle()
        assert rig.waiting == [waits]
        state.is_up, state.is_in_doubt, state.hurried_s = True, False, rig.clock
        rig.fleet.on_news("m")
        await rig.settle()
        assert waits in rig.places
        rig.fleet.mark_down(state, "again, and no look is due in time")
        rig.call(Priority.INTERACTIVE)
        await rig.settle()
        assert rig.refused["no_replica"] == 1
        await rig.end_all()

    run(story())


def test_trial_that_takes_long_lets_another_in_after_a_rest() -> None:
    async def story() -> None:
        rig = Rig([4], breaker_faults=1, breaker_rest_s=0.02)
        await rig.start()
        failing = rig.call(Priority.INTERACTIVE)
        await rig.settle()
        rig.finish(failing, Outcome.FAULT)
        rig.clock += 0.02
        long = rig.call(Priority.INTERACTIVE)
        await rig.settle()
        waits = rig.call(Priority.INTERACTIVE)
        await rig.settle()
        assert rig.waiting == [waits]
        rig.clock += 0.02  # the alarm of the queue rings at that moment
        async with asyncio.timeout(HANG_S):
            while waits not in rig.places:
                await asyncio.sleep(0.001)
        rig.finish(waits, Outcome.GOOD)
        assert rig.states[0].breaker is CLOSED
        rig.finish(long, Outcome.GOOD)
        await rig.end_all()

    run(story())


def test_wait_over_all_attempts_is_told_and_limited() -> None:
    async def story() -> None:
        rig = Rig([1, 1], queue_wait_s=10.0)
        await rig.start()
        first, second = rig.call(Priority.INTERACTIVE), rig.call(Priority.INTERACTIVE)
        await rig.settle()
        waits = rig.call(Priority.INTERACTIVE)
        await rig.settle()
        rig.clock = 4.0
        rig.finish(first, Outcome.GOOD)
        await rig.settle()
        assert waits.waited_s == 4.0
        rig.finish(waits, Outcome.FAULT, again=True)
        await rig.settle()
        rig.clock = 7.0
        rig.finish(second, Outcome.GOOD)
        await rig.settle()
        assert waits.waited_s == 7.0
        await rig.end_all()

    run(story())


def test_refusals_say_when_to_come_back() -> None:
    async def story() -> None:
        rig = Rig([1], queue_max_waiting=1, breaker_rest_s=30.0)
        await rig.start()
        running = rig.call(Priority.REVIEWER)
        rig.call(Priority.REVIEWER)
        await rig.settle()
        with pytest.raises(Unavailable) as full:
            await rig.admission.wait(Turn("m", Priority.REVIEWER))
        assert (full.value.code, full.value.retry_after_s) == ("queue_full", 120)
        rig.states[0].breaker = CLOSED.judged(Outcome.FAULT, 0, 0.0, rig.admission.rule)
        rig.finish(running, Outcome.FAULT)
        await rig.settle()
        assert rig.refused["no_replica"] == 1, "who waited is told at once"
        with pytest.raises(NoReplica) as alone:
            rig.admission.place_now(Turn("m"))
        assert alone.value.retry_after_s == 30
        await rig.end_all()

    run(story())


@pytest.mark.parametrize("shares", [{"batch_share": 0.2}, {"load_test_share": 0.8}, {"interactive_share": 0.5}])
def test_lower_class_cannot_be_given_more_places_than_a_higher_one(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="may not fill more than a higher one"):
        Settings(**shares)  # type: ignore[arg-type]
