"""One cell over several hosts, as Locust's master and workers: what both sides know of what goes between them.

The master (`leading`) deals out the order, finds out how every host's clock stands to its own, starts everybody at one
moment and writes one file a worker; workers (`following`) need nothing but its address and, where the target wants one,
the key in their own environment. What comes back comes in bounded pieces, each with its place and the digest of
everything up to its end.

Nobody is asked for a password: whoever reaches the master's port can take part. It listens on loopback unless told
otherwise. What comes from somebody who was dealt nothing is ignored.
"""

from __future__ import annotations

TRACE, ORDER, READY, ASK, CLOCK, BEGIN, LINES, STOP, END, OVER = (
    f"simsa_{word}" for word in ("trace", "order", "ready", "ask", "clock", "begin", "lines", "stop", "end", "over")
)
"""Kinds of messages."""
NOT_THIS_CELL = "the cell that runs there has its workers"


class Missing(Exception):
    """Somebody did not come in time, so that nothing was begun; the message says who."""


class RunOver(Exception):
    """The master has nothing more to run."""
