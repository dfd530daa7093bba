"""Keeps work in the background going past its own defects. What it is, and what counts them, is its owner's part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

RESTART_S = 1.0
"""Pause before background work that failed goes on."""


async def keep_running(name: str, work: Callable[[], Awaitable[None]], count_failure: Callable[[str], None]) -> None:
    """Run `work` until it returns or this is cancelled; whatever it raises is counted and logged, and it begins anew.

    A CancelledError that nobody asked for, out of some library, is a failure like others.
    """
    this = asyncio.current_task()
    assert this is not None
    while True:
        try:
            return await work()
        except (Exception, asyncio.CancelledError) as error:  # the owner of the loop
            if this.cancelling():
                raise
            count_failure(name)
            with suppress(Exception):  # it may be the log that fails
                structlog.get_logger("simsa").error("background work failed, it begins anew", work=name, exc_info=error)
        await asyncio.sleep(RESTART_S)
