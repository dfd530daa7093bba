"""Whether a gateway that has just begun knows its engines yet.

Until then it would refuse calls that another gateway, or this one a moment later, can have answered. So it is not
ready before every name that it had to ask for was answered once, and every engine then known was looked at once,
whatever the answer and the look were; and it waits for no straggler without end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

PATIENCE_S = 30.0
"""A busy engine may take longer for its first token; the gateway then serves with those that it knows."""


class Watched(Protocol):
    """What names and engines say of themselves."""

    @property
    def was_seen_through(self) -> bool:
        """Everything that there is to ask was asked once, and answered or given up."""


class FirstLooks:
    """Over once and for all: what comes later is found beside the calls."""

    def __init__(self, *watched: Watched, now: Callable[[], float]) -> None:
        """`now`: seconds of a clock that only runs on. It begins here."""
        self._watched = watched
        self._now = now
        self._latest_s = now() + PATIENCE_S
        self._are_over = False

    @property
    def are_over(self) -> bool:
        if not self._are_over:
            seen = all(one.was_seen_through for one in self._watched)
            self._are_over = seen or self._now() >= self._latest_s
        return self._are_over
