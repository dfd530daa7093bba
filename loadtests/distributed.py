"""One cell over several hosts, as Locust's master and workers: what both sides know of what goes between them.

The master (`leading`) deals out the order, finds out how every host's clock stands to its own, starts everybody at one
moment and writes one file a worker; workers (`following`) need nothing but its address and, where the target wants one,
the key in their own environment. What comes back comes in bounded pieces, each with its place and the digest of
everything up to its end.

A worker says that it is here when it can hear, and again and again until it is told something: what Locust sends to one
that has only just connected may go unheard. Who is told that the run is over says that it heard.

Nobody is asked for a password: whoever reaches the master's port can take part. It listens on loopback unless told
otherwise. What comes from somebody who was dealt nothing is ignored.
"""

from __future__ import annotations

from enum import StrEnum

NOT_THIS_CELL = "the cell that runs there has its workers"


class Word(StrEnum):
    """Kinds of messages, in the order in which a cell has them."""

    HERE = "simsa_here"
    TRACE = "simsa_trace"
    ORDER = "simsa_order"
    READY = "simsa_ready"
    ASK = "simsa_ask"
    CLOCK = "simsa_clock"
    BEGIN = "simsa_begin"
    LINES = "simsa_lines"
    STOP = "simsa_stop"
    END = "simsa_end"
    OVER = "simsa_over"
    HEARD = "simsa_heard"


class Missing(Exception):
    """Somebody did not come in time, so that nothing was begun; the message says who."""


class RunOver(Exception):
    """The master has nothing more to run."""
