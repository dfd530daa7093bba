"""How another host's clocks stand to this one's, from questions and answers over the network.

An answer was made at some moment between the question and its arrival; so the clock that it tells is known to within
half of that time, whatever the way there and back took. The quickest answer of several says it best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Answered(NamedTuple):
    """One question that was answered."""

    asked_s: float
    """Of this host's monotonic clock."""
    came_s: float
    wall_s: float
    """Of this host's wall clock, when the answer came."""
    their_monotonic_s: float
    their_wall_s: float


class ClockSeen(NamedTuple):
    """How far the other host's clocks are ahead of this one's."""

    monotonic_ahead_s: float
    wall_ahead_s: float
    within_s: float
    """Either may be off by so much."""


def clock_of(answers: Sequence[Answered]) -> ClockSeen | None:
    """What the quickest answer says; None where none came."""
    if not answers:
        return None
    best = min(answers, key=lambda one: one.came_s - one.asked_s)
    half_s = (best.came_s - best.asked_s) / 2
    return ClockSeen(
        monotonic_ahead_s=best.their_monotonic_s - (best.came_s - half_s),
        wall_ahead_s=best.their_wall_s - (best.wall_s - half_s),
        within_s=half_s,
    )
