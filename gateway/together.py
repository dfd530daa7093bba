"""What makes several gateways on one database act as one, put together in one place; or what one gateway does alone.

Limits are counted in Redis, places on replicas are shared out, news of keys and batches go round, and one gateway at a
time has the duty. Each part is a module of its own: `redis_link`, `shared_books`, `duty`.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Sequence, Set
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from gateway import __version__
from gateway.accounts import Accounts
from gateway.books import Books, OwnBooks
from gateway.domain.records import Call, CallOpened
from gateway.duty import Duty
from gateway.errors import Unavailable
from gateway.fleet import Fleet
from gateway.live_registry import LiveRegistry
from gateway.recorder import Recorder
from gateway.redis_link import LinkDown, Peer, RedisLink
from gateway.roll_call import RollCall
from gateway.settings import Settings
from gateway.shared_books import SharedBooks
from gateway.store import RowRefused, Store
from gateway.telemetry import Telemetry

KEYS, BATCHES = "keys", "batches"
"""What news are told of."""
LAST_RECORDS_S = 2.0
"""How long records are waited for at the end, so that others are told that they are written."""
BURY_S = 1.0
"""How often it is looked for gateways that are gone: one that Redis never heard of must live longer to be missed."""


class Together:
    """`start` before the first call; `works` in the background; `stop` after the last call."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        accounts: Accounts,
        registry: LiveRegistry,
        fleet: Fleet,
        recorder: Recorder,
        telemetry: Telemetry,
        now: Callable[[], float],
    ) -> None:
        """`recorder`: has not started yet; it tells of records that are written, and ends calls of who is gone."""
        self._recorder = recorder
        self._fleet = fleet
        self._store = store
        self._accounts = accounts
        self._registry = registry
        self._now = now
        self._roll_call = RollCall()
        self._since = datetime.now(UTC)
        self._log = structlog.get_logger("simsa")
        self.duty = Duty(store.has_duty, is_one_of_several=settings.is_one_of_several)
        self.link: RedisLink | None = None
        self._own: OwnBooks | None = None
        self._shared: SharedBooks | None = None
        telemetry.show_sharing(lambda: self._shared is None or self._shared.is_shared, self._peers)
        if settings.redis_url is None:
            self._own = OwnBooks(now=now)
            return
        self.link = RedisLink(
            settings.redis_url.get_secret_value(),
            prefix=settings.redis_prefix,
            timeout_s=settings.redis_timeout_s,
            connections=settings.redis_connections,
            describe=self._describe,
        )
        self.link.on_peers = fleet.share_with
        self._shared = SharedBooks(self.link, self._accounts.spent, now=now)
        recorder.on_written = self._note_written
        recorder.on_interrupted = self._shared.doubt_all

    @property
    def books(self) -> Books:
        books = self._shared or self._own
        assert books is not None, "one of both is made"
        return books

    async def start(self) -> None:
        """Say hello to the others, or take over what an earlier process spent. Raises StartRefused."""
        if self.link is not None:
            with suppress(Unavailable):
                self.link.assumed = max(1, len(await self._store.living()))
            if self._shared is not None and self.link.assumed == 1:
                self._shared.doubt_all()  # one without Redis may have been here since others were
            await self.link.start()
            self._fleet.share_with(self.link.live)
        if self._own is not None:
            await self._restore(self._own)

    def hear(self, subject: str, told: Callable[[], Awaitable[None] | None]) -> None:
        """Call `told` when another gateway changed something of this subject."""
        if self.link is not None:
            self.link.hear(subject, told)

    async def tell(self, subject: str) -> None:
        """Tell the others; for one gateway nothing."""
        if self.link is not None:
            await self.link.tell(subject)

    def works(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Background work, by name."""
        if self.link is None or self._shared is None:
            return []
        return [
            ("redis", self.link.run),
            ("news", self.link.listen),
            ("limits", self._shared.run),
            ("duty", self.duty.run),
            ("burial", self._bury_forever),
        ]

    async def stop(self) -> None:
        """Hand in what was spent last, and go."""
        if self.link is None or self._shared is None:
            return
        await self._recorder.drain(LAST_RECORDS_S)
        if await self._shared.leave():
            await self.link.farewell()  # else another gateway lets go of what is left here, once this one is gone

    async def close(self) -> None:
        if self.link is not None:
            await self.link.close()

    def peers(self) -> list[Peer]:
        """The gateways that serve this database, as far as they are known; this one alone where there are no others."""
        found = list(self.link.peers.values()) if self.link is not None else []
        return found or [self._describe(self.link.id if self.link is not None else "")]

    async def _bury_forever(self) -> None:
        """Who goes, however it goes, may have written what it told nobody; and who had the duty, settled it.

        Every gateway looks, as any one may be without Redis; twice done is as good as once.
        """
        assert self._shared is not None
        while True:
            try:
                looked = self._roll_call.look(await self._store.living(), self._now())
                if looked.is_news or looked.gone:  # again then: what it had under way in the database has ended by now
                    self._shared.doubt_all()
                await self._recorder.end_orphans(spare=looked.spared)
                await self._bury(looked.spared)
            except (LinkDown, Unavailable, RowRefused) as error:
                self._log.warning("gateways that are gone wait for their burial", why=str(error))
            await asyncio.sleep(BURY_S)

    async def _bury(self, spared: Set[int]) -> None:
        """Gone is who holds no lock in the database any more; Redis alone would take a cut network for death."""
        assert self.link is not None
        assert self._shared is not None
        for peer in list(self.link.silent.values()):
            if peer.number not in spared:
                await self._shared.release(peer.id)
                await self.link.forget(peer.id)
                self._shared.doubt_all()  # it may have come and gone between two looks at who lives
                self._log.warning("a gateway is gone", gateway=peer.id, host=peer.host)

    def _note_written(self, records: Sequence[Call | CallOpened], are_left: bool, had_ended: Sequence[str]) -> None:
        assert self._shared is not None
        again = frozenset(had_ended)
        for record in records:
            if isinstance(record, Call) and record.opened.key is not None:
                self._shared.written(record.opened.key, record.opened.id, is_left=are_left)
                if record.opened.id in again:  # it was in the sums with something else
                    self._shared.doubt(record.opened.key)

    def _peers(self) -> tuple[int, bool]:
        """How many there are, and whether one serves by another registry."""
        peers = self.peers()
        return len(peers), len({peer.registry for peer in peers}) > 1

    def _describe(self, gateway_id: str) -> Peer:
        return Peer(
            id=gateway_id,
            version=__version__,
            registry=self._registry.current.sha256,
            host=platform.node(),
            since=self._since.isoformat(timespec="seconds"),
            number=self._store.number,
        )

    async def _restore(self, books: OwnBooks) -> None:
        """Give each key what it spent this month. A gateway that cannot know goes on, and says what that means."""
        today = datetime.now(UTC).date()
        try:
            await books.restore(self._accounts.usage(today.replace(day=1), today))
        except (Unavailable, RowRefused) as error:
            self._log.error(
                "what keys spent before this start is not known in full: their budgets have more left than they should "
                "until the next start",
                why=str(error),
            )
