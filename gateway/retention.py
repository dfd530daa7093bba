"""Removes what is kept by the minute once it is old: GPU time, and what looks at engines showed.

Now and then, in small transactions with pauses between, so that nobody who writes has to wait. What may be removed and
what stays instead is `kept_minutes`' and `engine_records`' part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from gateway.engine_records import EngineRecords
from gateway.errors import Unavailable
from gateway.kept_minutes import KeptMinutes
from gateway.settings import Settings

FIRST_AFTER_S = 60.0
"""After the start: a gateway that never runs for an hour removes what is old, too."""
INTERVAL_S = 3600.0
PAUSE_S = 0.05


class Retention:
    """`run` until cancelled; `remove_old` once."""

    def __init__(
        self,
        *,
        minutes: KeptMinutes,
        engine_records: EngineRecords,
        settings: Settings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`wait`: for so many seconds until the first time and the next."""
        self._minutes = minutes
        self._engine_records = engine_records
        self._settings = settings
        self._now = now
        self._wait = wait
        self._log = structlog.get_logger("simsa.retention")

    async def run(self) -> None:
        await self._wait(FIRST_AFTER_S)
        while True:
            try:
                await self.remove_old()
            except Unavailable as error:
                self._log.warning("old rows are not removed, the database is away", why=str(error))
            await self._wait(INTERVAL_S)

    async def remove_old(self) -> None:
        """Everything that is old by now. Raises Unavailable."""
        now, settings = self._now(), self._settings
        horizon = await self._minutes.close(now, timedelta(days=settings.settled_minutes_keep_days))
        if horizon > now:
            self._log.error(
                "nothing is settled: minutes are closed up to a moment that is yet to come, by a clock that was wrong",
                closed_before=str(horizon),
                now=str(now),
            )
        await _until_none(lambda: self._minutes.remove_some(horizon))
        last = now - timedelta(days=settings.engine_loads_keep_days)
        await _until_none(lambda: self._engine_records.remove_some_loads(last))


async def _until_none(remove_some: Callable[[], Awaitable[int]]) -> None:
    is_over = False
    while not is_over:
        is_over = await remove_some() == 0
        await asyncio.sleep(PAUSE_S)
