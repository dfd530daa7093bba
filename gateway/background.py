"""Keeps work in the background going past its own defects. What it is, and what counts them, is its owner's part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import structlog

RESTART_S = 1.0
"""Pause before background work that failed goes on."""
CANCEL_AGAIN_S = 5.0
"""Longer than any work takes to put away what it has in hand."""


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


async def end_all(tasks: Iterable[asyncio.Future[Any]], again_s: float = CANCEL_AGAIN_S) -> None:
    """Cancel tasks until they have ended, whatever they end with.

    Once is not enough: `asyncio.wait_for`, by which libraries wait, forgets at some moments that it was cancelled
    (Python 3.11), and work that goes on for ever then would keep its gateway from stopping.
    """
    every = frozenset(tasks)
    left, cancelled = set(every), False
    while left:
        for task in left:
            task.cancel()
        try:
            await asyncio.wait(left, timeout=again_s)
        except asyncio.CancelledError:
            cancelled = True  # whoever waits for us is as impatient: cancel again, and leave nothing behind
        left = {task for task in left if not task.done()}
    for task in every:
        if not task.cancelled():
            task.exception()  # or the loop complains that nobody asked
    if cancelled:
        raise asyncio.CancelledError


def heed_cancelling() -> None:
    """Raise the CancelledError that something which this task waited for has forgotten, if there is one.

    Not in what is done after a cancelling: the task is being cancelled there, and nothing is forgotten.
    """
    this = asyncio.current_task()
    if this is not None and this.cancelling():
        raise asyncio.CancelledError
