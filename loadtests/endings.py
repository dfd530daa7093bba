"""How a worker's process ends: its exit codes, which tell whoever started it what is to be done next.

The reason stands in words in the last line of its standard error.
"""

from __future__ import annotations

from enum import IntEnum


class Ending(IntEnum):
    """Exit codes of `python -m loadtests.worker`."""

    RAN = 0
    """The cell ran to its end."""
    EARLY = 1
    """It ended early; what was measured is kept, and its footer says why."""
    REFUSED = 2
    """An order that cannot be run, or an address that cannot be listened on."""
    NOT_KEPT = 3
    """What was measured could not be written: nothing more can be measured either."""
    MISSING = 4
    """Of several hosts: somebody did not come in time, so nothing was begun."""
    OVER = 5
    """Of a worker on another host: the run is over, there is nothing more to do."""
