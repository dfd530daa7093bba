"""How many load runs a key names in a day: each is rows of its own in the sums of days, which every write looks into.

Counted in memory, so a gateway that starts anew begins anew. Who may name a run at all is `access`' question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime

from gateway.domain.accounts import Caller
from gateway.errors import PermissionDenied

MOST_RUNS_A_DAY = 1000
"""Of one key: more than anybody measures, and few enough to sum up."""


class RunNames:
    """The runs that each key named on this day of UTC."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._day: date | None = None
        self._named: dict[str, set[str]] = defaultdict(set)

    def note(self, caller: Caller, run: str) -> None:
        """Raises PermissionDenied for one run too many. The admin key names as many as it likes."""
        if caller.key is None:
            return
        today = self._now().date()
        if today != self._day:
            self._day = today
            self._named.clear()
        named = self._named[caller.key]
        if run not in named and len(named) >= MOST_RUNS_A_DAY:
            raise PermissionDenied(
                f"This key has named {MOST_RUNS_A_DAY} runs today, the most that are summed up: name one of them, "
                "leave 'x-simsa-run-id' out, or go on tomorrow (UTC).",
                code="too_many_runs",
            )
        named.add(run)
