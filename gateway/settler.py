"""Keeps settlement going: notes which replicas are up, and settles minutes once their records can be expected.

A replica's time is paid for from when the gateway saw it up until it saw it go, or last saw it. What a minute costs is
`settlements`' work, what a price is the registry's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import structlog

from gateway.domain.cost import PriceInForce, price_in_force, prices_fingerprint
from gateway.domain.records import Provenance, Registry
from gateway.errors import Unavailable
from gateway.fleet import Fleet
from gateway.replica_state import ReplicaState
from gateway.settings import Settings
from gateway.settled_shares import WindowKey
from gateway.settlements import Presence, Settlements
from gateway.store import RowRefused
from gateway.telemetry import Telemetry

WINDOWS_AT_ONCE = 100
BATCH_S = 10.0
"""After so long the next look at the fleet comes before more windows."""
LOOKS_MISSED = 6
"""So many intervals after a look it is still believed that what was up then was up all the time."""
LEAST_GAP_S = 60.0
"""Shorter times without a look are believed at any interval: a database may take as long to answer."""


@dataclass(slots=True)
class _Seen:
    """A presence, and how far the database knows it."""

    presence: Presence
    up_since: datetime | None
    kept_until: datetime


class Settler:
    """`run` until cancelled, then `note_presences` once more."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        settlements: Settlements,
        telemetry: Telemetry,
        settings: Settings,
        registry: Callable[[], Registry],
        charge: Callable[[str, date, Mapping[str, Decimal], int], None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`charge`: told of keys whose calls' charges a settlement changes; see `Books.correct`."""
        self._fleet = fleet
        self._settlements = settlements
        self._telemetry = telemetry
        self._settings = settings
        self._registry = registry
        self._charge = charge
        self._now = now
        self._seen: dict[ReplicaState, _Seen] = {}
        self._over: list[_Seen] = []
        self._looked_at: datetime | None = None
        self._most_gap = timedelta(seconds=max(LEAST_GAP_S, LOOKS_MISSED * settings.presence_interval_s))
        self._prices_seen: Registry | None = None
        """The registry whose prices refused windows were last looked at with."""
        self._is_failing = False
        self._log = structlog.get_logger("simsa.settlement")

    async def run(self) -> None:
        while True:
            await self.note_presences()
            if await self.settle_due() < WINDOWS_AT_ONCE:
                await asyncio.sleep(self._settings.presence_interval_s)

    async def note_presences(self) -> None:
        """Keep which replicas are up now. While the database is away it waits in memory."""
        self._look()
        noted = [*self._over, *self._seen.values()]
        try:
            await self._settlements.note_presences([(seen.presence, seen.kept_until) for seen in noted])
        except (Unavailable, RowRefused) as error:
            self._note_failure(error)
            return
        for seen in noted:
            seen.kept_until = seen.presence.until
        self._over = []
        self._is_failing = False

    async def settle_due(self) -> int:
        """Settle what is due, the oldest first, one batch at most; how many windows.

        Those that were refused, for want of a price or by the database, are due again once their GPU has other prices:
        some at a time, when nothing else is due.
        """
        before = self._now() - timedelta(seconds=self._settings.settle_after_s)
        stop_s = time.monotonic() + BATCH_S
        settled = 0
        try:
            while True:
                due = await self._settlements.list_due(before, limit=WINDOWS_AT_ONCE)
                if not due and not await self._reopen_refused():
                    self._telemetry.settled_up.set(self._now().timestamp())
                    return settled
                for key in due:
                    settled += await self._settle(key)
                    if settled >= WINDOWS_AT_ONCE or time.monotonic() > stop_s:
                        return settled
        except Unavailable as error:
            self._note_failure(error)
        return settled

    async def _reopen_refused(self) -> bool:
        """Whether there were any. Until there are none for each registry: nothing else can change what was refused."""
        registry = self._registry()
        if registry is self._prices_seen:
            return False
        reopened = await self._settlements.reopen_refused(self._prices_of, self.find_price)
        if reopened:
            self._log.info("windows are settled anew, their GPUs have other prices", windows=reopened)
        else:
            self._prices_seen = registry
        return reopened > 0

    async def _settle(self, key: WindowKey) -> bool:
        """False where the database will not take what came of it: the window is refused, others go on."""
        try:
            changes = await self._settlements.settle(key, self.find_price, prices=self._prices_of(key.gpu))
        except RowRefused as error:
            self._log.error(
                "a window cannot be settled", replica=key.replica, window=str(key.window_at), why=str(error)
            )
            await self._settlements.refuse(key, str(error), prices=self._prices_of(key.gpu))
            return False
        for change in changes:
            self._telemetry.count_settled(change.model, change.currency, change.amount)
            if self._charge is not None and change.key is not None:
                self._charge(change.key, change.began_on, change.charged, change.without_cost)
        return True

    def _prices_of(self, gpu_id: str) -> str:
        return prices_fingerprint(self._registry().gpus.get(gpu_id), tier=self._settings.gpu_price_tier)

    def find_price(self, gpu_id: str, on: date) -> PriceInForce:
        gpu = self._registry().gpus.get(gpu_id)
        if gpu is None:
            return PriceInForce(None, f"the registry does not know the GPU '{gpu_id}'")
        return price_in_force(gpu, on, tier=self._settings.gpu_price_tier)

    def _look(self) -> None:
        """Move presences on to now; end those of replicas that went, or are described otherwise.

        After a time without looks, or a clock that was set, nobody knows what was up meanwhile: presences end with the
        look before, and others begin.
        """
        now, before = self._now(), self._looked_at
        self._looked_at = now
        is_unbroken = before is None or abs(now - before) <= self._most_gap
        states = {state for state in self._fleet.states if state.is_up and not state.is_remote and state.replica.gpu}
        for state, seen in list(self._seen.items()):
            is_still_up = state in states and state.up_since == seen.up_since
            if is_still_up and is_unbroken:
                seen.presence = replace(seen.presence, until=max(seen.presence.until, now))
            if not (is_still_up and is_unbroken and self._identity(state) == _identity_of(seen)):
                if is_unbroken and not is_still_up:
                    self._end(seen, state, now)
                self._over.append(self._seen.pop(state))
                if is_still_up:
                    since = seen.presence.until if is_unbroken else now
                    self._seen[state] = self._begin(state, since, now)
        for state in states - self._seen.keys():
            came_at = state.up_since if before is None or (state.up_since and state.up_since > before) else None
            self._seen[state] = self._begin(state, min(now, came_at or now), now)

    @staticmethod
    def _end(seen: _Seen, state: ReplicaState, now: datetime) -> None:
        """It went: until then where that is known, else until it was last seen."""
        if state.down_since is not None and seen.up_since is not None and state.down_since > seen.up_since:
            until = max(seen.presence.until, min(now, state.down_since))
            seen.presence = replace(seen.presence, until=until)

    def _begin(self, state: ReplicaState, since: datetime, now: datetime) -> _Seen:
        replica_id, gpu, gpus, model, provenance = self._identity(state)
        presence = Presence(str(uuid4()), replica_id, gpu, gpus, model, provenance, since, max(since, now))
        return _Seen(presence, state.up_since, since)

    @staticmethod
    def _identity(state: ReplicaState) -> tuple[str, str, int, str, Provenance]:
        """What a presence is of: where any of it changes another one begins."""
        replica = state.replica
        return replica.id, replica.gpu or "", replica.gpus, state.model.id, state.provenance

    def _note_failure(self, error: Exception) -> None:
        if not self._is_failing:
            self._log.warning("settlement waits for the database", why=str(error))
        self._is_failing = True


def _identity_of(seen: _Seen) -> tuple[str, str, int, str, Provenance]:
    presence = seen.presence
    return presence.replica, presence.gpu, presence.gpus, presence.model, presence.provenance
