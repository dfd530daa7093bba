"""Which replica takes a call, given a snapshot of the fleet.

Power of two choices: two replicas drawn by weight, the less loaded one wins. It needs no global view to keep loads
even, and two gateways with slightly different snapshots do not herd onto the same replica (Mitzenmacher 2001). Calls
of one session go to the replica that a hash of both ranks first, so that they meet its warm cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import log


@dataclass(frozen=True, slots=True)
class Load:
    """What is known of one live replica."""

    in_flight: int
    """Calls of this gateway that it is serving."""
    weight: float = 1.0
    """Its share of the traffic relative to the others; > 0."""
    engine_waiting: float | None = None
    """Requests queued inside the engine when it was last asked."""
    metrics_age_s: float | None = None

    def score(self) -> float:
        """Calls per unit of weight; the engine's own queue counts while it is fresh and fades over ten seconds."""
        waiting = 0.0
        if self.engine_waiting is not None and self.metrics_age_s is not None:
            waiting = self.engine_waiting * max(0.0, 1.0 - self.metrics_age_s / 10.0)
        return (self.in_flight + waiting) / self.weight


def pick_replica(loads: Sequence[Load], draws: tuple[float, float]) -> int:
    """Index of the replica to use. `draws` are two uniform numbers in [0, 1).

    Raises ValueError for an empty sequence: whether somebody is live is the caller's question.
    """
    if not loads:
        raise ValueError("no replica to pick from")
    if len(loads) == 1:
        return 0
    first = _draw(loads, draws[0], without=None)
    second = _draw(loads, draws[1], without=first)
    return second if loads[second].score() < loads[first].score() else first


def _draw(loads: Sequence[Load], draw: float, *, without: int | None) -> int:
    """An index drawn by weight, never `without`."""
    indices = [index for index in range(len(loads)) if index != without]
    target = draw * sum(loads[index].weight for index in indices)
    for index in indices:
        target -= loads[index].weight
        if target < 0:
            return index
    return indices[-1]


def pick_for_session(session: str, replicas: Sequence[tuple[str, float]]) -> int:
    """Index of the (name, weight) that a session belongs to: weighted rendezvous hashing (Thaler, Ravishankar 1998).

    When a replica goes, only its own sessions move; when it comes back, they return. Raises ValueError for none.
    """
    return max(range(len(replicas)), key=lambda index: _session_score(session, *replicas[index]))


def _session_score(session: str, name: str, weight: float) -> float:
    digest = blake2b(f"{session}\0{name}".encode(), digest_size=8).digest()
    draw = ((int.from_bytes(digest) >> 12) + 0.5) / 2**52  # in (0, 1), both ends excluded
    return -weight / log(draw)
