"""The search for the highest load that meets every objective: double until it fails, then bisect. Sans-I/O.

`next_level` is asked, the level is measured, `tell` is told what came of it; so the same search runs against an
engine, in a test, and on from where an interrupted run stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor

from loadtests.plan import Search

MOST_HALVINGS = 6
"""Below the first level, when already that fails: down to a 64th of it."""
LEAST_RATE = 0.01


@dataclass(slots=True)
class LoadSearch:
    """Between the highest level that held and the lowest that did not."""

    plan: Search
    highest_met: float | None = None
    lowest_failed: float | None = None
    ended: str | None = None
    """found | at_most | below_begin | invalid; None while it goes on."""
    why: str | None = None
    _tried: set[float] = field(default_factory=set)
    _halvings: int = 0

    def next_level(self) -> float | None:
        """What to measure next: requests a second, or whole users. None: it has ended."""
        if self.ended is not None:
            return None
        level = self._wanted()
        if level is None or level in self._tried:
            self._end()
            return None
        return level

    def tell(self, level: float, met: bool | None, why: str | None = None) -> None:
        """What came of a level. None = it could not be measured validly: the search ends there, and says so."""
        self._tried.add(level)
        if met is None:
            self.ended, self.why = "invalid", why
        elif met:
            self.highest_met = max(level, self.highest_met or level)
        else:
            self.lowest_failed = min(level, self.lowest_failed if self.lowest_failed is not None else level)

    def _wanted(self) -> float | None:
        low, high = self.highest_met, self.lowest_failed
        if low is None and high is None:
            return self._rounded(min(self.plan.begin, self.plan.most))
        if high is None:
            assert low is not None
            return None if low >= self.plan.most else self._rounded(min(low * 2, self.plan.most))
        if low is None:
            return self._lower(high)
        if high <= low * (1 + self.plan.tolerance) or (self._is_whole and high - low <= 1):
            return None
        return self._rounded((low + high) / 2)

    def _lower(self, failed: float) -> float | None:
        """Half of what failed, while nothing has held yet."""
        least = 1.0 if self._is_whole else LEAST_RATE
        if self._halvings >= MOST_HALVINGS or failed <= least:
            return None
        self._halvings += 1
        return self._rounded(max(failed / 2, least))

    def _end(self) -> None:
        if self.highest_met is None:
            self.ended, self.why = "below_begin", "the lowest load that was tried does not meet the objectives"
        elif self.lowest_failed is None:
            self.ended, self.why = "at_most", f"the highest load of the plan, {self.plan.most:g}, meets them all"
        else:
            self.ended = "found"

    @property
    def _is_whole(self) -> bool:
        return self.plan.over == "users"

    def _rounded(self, level: float) -> float:
        if self._is_whole:
            return float(max(1, floor(level)))
        return float(f"{level:.4g}")
