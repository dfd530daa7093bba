"""When a replica that keeps failing is left alone, and how it is tried again: a breaker as a value.

Every change gives a new `Breaker`; the clock is an argument. It counts what speaks against the engine alone: transport
errors, 5xx, no first token in time. An engine that says it is busy is none of these, and a 4xx says nothing about it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Outcome(Enum):
    """What one call says of its replica."""

    GOOD = "good"
    FAULT = "fault"
    NEUTRAL = "neutral"
    """Nothing: the client left or asked for something impossible, or the engine was busy."""


class Admits(Enum):
    """Whether a replica may be given a call."""

    NOW = "now"
    LATER = "later"
    """It is busy: worth waiting for."""
    NOT = "not"
    """It has failed too often."""


@dataclass(frozen=True, slots=True)
class BreakerRule:
    faults: int
    """Faults in a row that open it."""
    rest_s: float
    """Seconds without calls after it opened; twice as many each time that a trial fails."""
    longest_rest_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """Closed, open, or open with a trial due (half-open). Moments are seconds of one monotonic clock."""

    faults: int = 0
    """In a row."""
    is_open: bool = False
    trips: int = 0
    """How often it has opened since the last good call; also the number of the trial that may close it."""
    until_s: float = float("-inf")
    """No call before that moment: it has opened, or the engine asked for a pause."""
    is_on_trial: bool = False
    """A call is under way that decides whether it closes."""

    def admits(self, now: float) -> Admits:
        if now < self.until_s:
            return Admits.NOT if self.is_open else Admits.LATER
        return Admits.LATER if self.is_on_trial else Admits.NOW

    @property
    def trial(self) -> int:
        """The number to hand to `judged` for a call that is given the replica now; 0 where that is no trial."""
        return self.trips if self.is_open else 0

    def taken(self) -> Breaker:
        """A call was given the replica: while open, that is the trial."""
        return replace(self, is_on_trial=True) if self.is_open else self

    def began(self, trial: int, rule: BreakerRule) -> Breaker:
        """The engine has begun to answer the trial: others may come, but one fault more opens it again."""
        if not self._is_decided_by(trial):
            return self
        return replace(self, is_open=False, is_on_trial=False, faults=rule.faults - 1)

    def judged(self, outcome: Outcome, trial: int, now: float, rule: BreakerRule) -> Breaker:
        """A call is over. While open only the trial counts: the others' news are old."""
        if self.is_open and not self._is_decided_by(trial):
            return self
        match outcome:
            case Outcome.GOOD:
                return replace(CLOSED, until_s=self.until_s) if now < self.until_s else CLOSED
            case Outcome.NEUTRAL:
                return replace(self, is_on_trial=False) if self.is_open else self
            case Outcome.FAULT:
                faults = self.faults + 1
                if not self.is_open and faults < rule.faults:
                    return replace(self, faults=faults)
                rest_s = min(rule.longest_rest_s, rule.rest_s * 2 ** min(self.trips, 32))
                until_s = max(self.until_s, now + rest_s)
                return Breaker(faults, is_open=True, trips=self.trips + 1, until_s=until_s)

    def paused(self, until_s: float) -> Breaker:
        """The engine asked to be left alone until then."""
        return replace(self, until_s=max(self.until_s, until_s))

    def _is_decided_by(self, trial: int) -> bool:
        return self.is_on_trial and trial == self.trips


CLOSED = Breaker()
"""The same object whenever nothing speaks against a replica, so that the usual case is one comparison."""
