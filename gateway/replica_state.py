"""What is known of one replica at this moment: the fleet writes it, calls and pages read it.

How it comes to be known is `fleet`'s work, which call gets the replica `admission`'s.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from math import inf

from gateway.domain.breaker import CLOSED, Breaker
from gateway.domain.cost import SharedTime
from gateway.domain.engine_facts import EngineGlance, ObservedLoad, ResolvedEngine
from gateway.domain.records import Model, Provenance, Replica, ServingKind
from gateway.domain.routing import Load
from gateway.upstream import Headers, Origin, request_head

BEARER = b"Bearer "


@dataclass(slots=True, eq=False)
class ReplicaState:
    """What is known of one replica now. Only the fleet writes it, but for what calls find out (`admission`):
    `shared_time`, `breaker` and `is_proven`.
    """

    replica: Replica
    model: Model
    origin: Origin
    auth: Headers
    places: tuple[int, ...] = ()
    """How many calls may be in flight for one more to be let in, by rank of its class; see `place_limits`."""
    is_up: bool = False
    up_since: datetime | None = None
    """When it came up last."""
    down_since: datetime | None = None
    """When it was last found to be down, or not to be reached."""
    reason: str = "not looked at yet"
    """Why it is down, in words for an operator."""
    was_looked_at: bool = False
    """Whatever that showed."""
    misses: int = 0
    """Looks in a row that it did not answer in time."""
    is_proven: bool = False
    """It has answered a call since it came up: it need not be tried out again because one other failed."""
    doubted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a call that could not reach it: the next look is due at once."""
    is_in_doubt: bool = False
    """A look that is due at once, or soon, decides whether it is up: calls may wait for that."""
    hurried_s: float = -inf
    """When a look was last brought forward by a doubt."""
    provenance: Provenance = Provenance.UNKNOWN
    provenance_reason: str = "the engine was not asked yet"
    owned_by: str | None = None
    root: str | None = None
    max_model_len: int | None = None
    shared_time: SharedTime = field(default_factory=SharedTime)
    breaker: Breaker = CLOSED
    engine_gauges: dict[str, float] = field(default_factory=dict)
    gauges_at_s: float | None = None
    metrics_problem: str | None = None
    """Why there are no gauges, where that is so."""
    resolved: ResolvedEngine | None = None
    """What the engine settled at start; the same object as long as it says the same."""
    report_id: str | None = None
    """The row under which that is stored."""
    glance: EngineGlance | None = None
    """The last reading of its metrics."""
    last_look: ObservedLoad | None = None
    """What the last look at its metrics showed; None where they could not be read."""
    observed: ObservedLoad | None = None
    """What all looks showed since it came into use as it is now."""
    cache_lines: tuple[bytes, ...] = ()
    """How the engine described its cache, as it stood there."""
    version: str | None = None
    is_version_known: bool = False
    """Whether it was asked for its version since it came up or changed."""
    _heads: dict[tuple[bytes, bool], bytes] = field(default_factory=dict)

    def take_over(self, model: Model, replica: Replica, auth: Headers, places: tuple[int, ...]) -> None:
        """What the registry says by now of the same engine; what was found out about it stays."""
        if auth != self.auth:
            self._heads.clear()
        self.model, self.replica, self.auth, self.places = model, replica, auth, places

    @property
    def is_remote(self) -> bool:
        """A hosted API: it has neither /health nor metrics of its engine, and is asked less often."""
        return self.model.serving.kind is ServingKind.OPENAI_API

    def forget_connection(self) -> None:
        """It comes into use (again): it is to be asked anew what it is, and what is seen counts from here."""
        self.observed = self.last_look = None
        self.is_version_known = False

    def post_head(self, path: bytes, *, below_base: bool = True) -> bytes:
        """The head of a POST of JSON to `path`, made once; see `request_head`.

        `path` stands below the replica's base path, or else directly below its URL.
        """
        head = self._heads.get((path, below_base))
        if head is None:
            headers = [(b"content-type", b"application/json"), *self.auth]
            base = self.replica.base_path.encode() if below_base else b""
            head = request_head(self.origin, b"POST", base + path, headers)
            self._heads[path, below_base] = head
        return head

    def hide_key(self, words: bytes) -> bytes:
        """What the engine said of a failure, without the key that opens it: some quote what they were sent."""
        for _, value in self.auth:
            words = words.replace(value.removeprefix(BEARER), b"[key]")
        return words

    def load(self, now: float) -> Load:
        return Load(
            in_flight=self.in_flight,
            weight=self.replica.weight,
            engine_waiting=self.engine_gauges.get("num_requests_waiting"),
            metrics_age_s=now - self.gauges_at_s if self.gauges_at_s is not None else None,
        )

    @property
    def in_flight(self) -> int:
        """Calls of this gateway that it is serving."""
        return self.shared_time.in_flight
