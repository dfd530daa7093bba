"""Keeps settlement going: notes which replicas are up, and settles minutes once their records can be expected.

A replica's time is paid for from when the gateway saw it up until it saw it go, or last saw it. What a minute costs is
`settlements`' work, what a price is the registry's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import structlog

from gateway.domain.cost import PriceInForce, price_in_force
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


@dataclass(slots=True)
class _Seen:
    """A presence, and how far the database knows it."""

    presence: Presence
    up_since: datetime
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
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._fleet = fleet
        self._settlements = settlements
        self._telemetry = telemetry
        self._settings = settings
        self._registry = registry
        self._now = now
        self._seen: dict[ReplicaState, _Seen] = {}
        self._over: list[_Seen] = []
        self._is_failing = False
        self._log = structlog.get_logger("simsa.settlement")

    async def run(self) -> None:
        while True:
            await self.note_presences()
            await self.settle_due()
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
        """Settle what is due, the oldest first; how many windows."""
        before = self._now() - timedelta(seconds=self._settings.settle_after_s)
        settled = 0
        try:
            while due := await self._settlements.list_due(before, limit=WINDOWS_AT_ONCE):
                done = sum([await self._settle(key) for key in due])
                settled += done
                if not done:
                    break
        except Unavailable as error:
            self._note_failure(error)
        return settled

    async def _settle(self, key: WindowKey) -> bool:
        """False where the database will not take what came of it: the window stays due, others go on."""
        try:
            changes = await self._settlements.settle(key, self.find_price)
        except RowRefused as error:
            self._log.error(
                "a window cannot be settled", replica=key.replica, window=str(key.window_at), why=str(error)
            )
            return False
        for change in changes:
            self._telemetry.count_settled(change.model, change.currency, change.amount)
        return True

    def find_price(self, gpu_id: str, on: date) -> PriceInForce:
        gpu = self._registry().gpus.get(gpu_id)
        if gpu is None:
            return PriceInForce(None, f"the registry does not know the GPU '{gpu_id}'")
        return price_in_force(gpu, on, tier=self._settings.gpu_price_tier)

    def _look(self) -> None:
        """Move presences on to now; end those of replicas that went, or are described otherwise."""
        now = self._now()
        states = {state for state in self._fleet.states if state.is_up and not state.is_remote and state.replica.gpu}
        for state, seen in list(self._seen.items()):
            if state not in states or self._identity(state) != _identity_of(seen):
                went_at = state.down_since if state.down_since and state.down_since > seen.up_since else None
                until = min(now, went_at) if went_at else seen.presence.until
                if state in states and went_at is None:  # still up, described otherwise
                    until = now
                seen.presence = replace(seen.presence, until=max(seen.presence.until, until))
                self._over.append(self._seen.pop(state))
        for state in states:
            known = self._seen.get(state)
            if known is None:
                self._seen[state] = self._begin(state, now)
            elif now > known.presence.until:
                known.presence = replace(known.presence, until=now)

    def _begin(self, state: ReplicaState, now: datetime) -> _Seen:
        up_since = state.up_since or now
        before = [seen.presence.until for seen in self._over if seen.presence.replica == state.replica.id]
        since = min(now, max([up_since, *before]))
        replica_id, gpu, gpus, model, provenance, _ = self._identity(state)
        presence = Presence(str(uuid4()), replica_id, gpu, gpus, model, provenance, since, now)
        return _Seen(presence, up_since, since)

    @staticmethod
    def _identity(state: ReplicaState) -> tuple[str, str, int, str, Provenance, datetime | None]:
        """What a presence is of: where any of it changes another one begins."""
        replica = state.replica
        return replica.id, replica.gpu or "", replica.gpus, state.model.id, state.provenance, state.up_since

    def _note_failure(self, error: Exception) -> None:
        if not self._is_failing:
            self._log.warning("settlement waits for the database", why=str(error))
        self._is_failing = True


def _identity_of(seen: _Seen) -> tuple[str, str, int, str, Provenance, datetime | None]:
    presence = seen.presence
    return presence.replica, presence.gpu, presence.gpus, presence.model, presence.provenance, seen.up_since
