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
    """How often it has opened since the last good call."""
    until_s: float = float("-inf")
    """No call before that moment: it has opened, or the engine asked for a pause."""
    opened_s: float = float("-inf")
    """When it opened last."""
    rest_s: float = 0.0
    """How long it rested then before its first trial, and rests between two."""
    trials: int = 0
    """Calls under way that decide whether it closes."""
    tried_s: float = float("-inf")
    """When the last of them was given the replica."""

    def admits(self, now: float) -> Admits:
        if now < self.until_s:
            return Admits.NOT if self.is_open else Admits.LATER
        return Admits.NOW if now >= self.admits_from_s else Admits.LATER

    @property
    def admits_from_s(self) -> float:
        """The moment from which it may be given a call, if nothing is heard of it before.

        A trial keeps the others out for one rest, then there is another: a long answer whose end alone would tell
        keeps nobody out for good, and an engine that swallows its calls gets no more of them than one a rest.
        """
        return max(self.until_s, self.tried_s + self.rest_s) if self.trials else self.until_s

    @property
    def trial(self) -> float | None:
        """What to hand to `judged` for a call that is given the replica now: of which opening it is a trial, if any."""
        return self.opened_s if self.is_open else None

    def taken(self, now: float) -> Breaker:
        """A call was given the replica: while open, that is a trial."""
        return replace(self, trials=self.trials + 1, tried_s=now) if self.is_open else self

    def began(self, trial: float, rule: BreakerRule) -> Breaker:
        """The engine has begun to answer a trial: others may come, but one fault more opens it again."""
        if not self._is_decided_by(trial):
            return self
        return replace(self, is_open=False, trials=0, faults=rule.faults - 1)

    def judged(self, outcome: Outcome, trial: float | None, now: float, rule: BreakerRule) -> Breaker:
        """A call is over. While open only its trials count: the others' news are old."""
        if self.is_open and not self._is_decided_by(trial):
            return self
        match outcome:
            case Outcome.GOOD:
                return replace(CLOSED, until_s=self.until_s) if now < self.until_s else CLOSED
            case Outcome.NEUTRAL:
                return replace(self, trials=self.trials - 1) if self.is_open else self
            case Outcome.FAULT:
                faults = self.faults + 1
                if not self.is_open and faults < rule.faults:
                    return replace(self, faults=faults)
                rest_s = min(rule.longest_rest_s, rule.rest_s * 2 ** min(self.trips, 32))
                until_s = max(self.until_s, now + rest_s)
                return Breaker(faults, True, self.trips + 1, until_s, opened_s=now, rest_s=rest_s)

    def paused(self, until_s: float) -> Breaker:
        """The engine asked to be left alone until then."""
        return replace(self, until_s=max(self.until_s, until_s))

    def _is_decided_by(self, trial: float | None) -> bool:
        return self.is_open and trial == self.opened_s


CLOSED = Breaker()
"""The same object whenever nothing speaks against a replica, so that the usual case is one comparison."""
