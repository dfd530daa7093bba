"""Which of several gateways does what only one may do: settling costs, working off batches, removing what is old.

The database gives the duty to one, and to another as soon as the session of the first has ended. A gateway that is the
only one always has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gateway.background import end_all
from gateway.errors import Unavailable

LOOK_S = 1.0


class Duty:
    """`run` until cancelled, beside the work that is wrapped by `only`."""

    def __init__(self, has_duty: Callable[[], Awaitable[bool]], *, is_one_of_several: bool) -> None:
        """`has_duty`: asks the database, and takes the duty where nobody has it. May raise Unavailable."""
        self._has_duty = has_duty
        self._is_one_of_several = is_one_of_several
        self._held = asyncio.Event()
        self._lost = asyncio.Event()
        if not is_one_of_several:
            self._held.set()
        self._log = structlog.get_logger("simsa.duty")

    @property
    def is_held(self) -> bool:
        return self._held.is_set()

    async def run(self) -> None:
        """See who has it. While the database is away nothing is known and nothing changes: what is under way waits."""
        while self._is_one_of_several:
            try:
                is_ours = await self._has_duty()
            except Unavailable:
                is_ours = self.is_held
            if is_ours != self.is_held:
                self._log.info("this gateway is on duty" if is_ours else "this gateway is off duty")
                (self._held if is_ours else self._lost).set()
                (self._lost if is_ours else self._held).clear()
            await asyncio.sleep(LOOK_S)

    def only(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """The work, done while this gateway has the duty: begun anew each time that it gets it."""
        return self._while_held(work) if self._is_one_of_several else work

    def _while_held(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def on_duty() -> None:
            while True:
                await self._held.wait()
                task = asyncio.ensure_future(work())
                lost = asyncio.ensure_future(self._lost.wait())
                try:
                    await asyncio.wait((task, lost), return_when=asyncio.FIRST_COMPLETED)
                    if task.done():
                        return task.result()
                finally:
                    await end_all((task, lost))

        return on_duty
