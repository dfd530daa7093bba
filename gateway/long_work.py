"""Answers that take a core a second or more: one at a time, on a thread of their own, so that calls are not held up.

A few may wait, the rest is refused at once. Answers that stay as they are can be kept for whoever asks next. What is
worked out belongs to the callers.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Semaphore
from typing import TypeVar

from gateway.errors import Unavailable

MOST_WAITING = 4
RETRY_AFTER_S = 5
KEPT_BYTES = 32 * 1024 * 1024
PAUSE_S = 0.001
T = TypeVar("T")


def give_way() -> None:
    """Let the event loop go first, now and then in the middle of long arithmetic. Not for the loop's own thread.

    Sleeping for no time gives the interpreter back and takes it again before anyone else wakes up.
    """
    time.sleep(PAUSE_S)


class LongWork:
    """One thread, a short line before it, and the latest answers."""

    def __init__(self, *, most_waiting: int = MOST_WAITING, kept_bytes: int = KEPT_BYTES) -> None:
        self._most_waiting = most_waiting
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simsa-long-work")
        self._places = Semaphore(1 + most_waiting)
        self._kept = _Kept(kept_bytes)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Raises Unavailable where as many wait as may."""
        if not self._places.acquire(blocking=False):
            raise Unavailable(
                f"{self._most_waiting} long answers wait already, and one is worked out at a time: try again later.",
                code="queue_full",
                retry_after_s=RETRY_AFTER_S,
            )
        try:
            future = self._thread.submit(work)
        except RuntimeError as error:  # closed
            self._places.release()
            raise Unavailable("The gateway is shutting down.", code="draining") from error
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    async def answer(self, key: Hashable, work: Callable[[], bytes]) -> bytes:
        """What `work` returns, or returned before under this key, which has to name everything that it depends on."""
        found = self._kept.get(key)
        return found if found is not None else await self.run(lambda: self._worked_out(key, work))

    def close(self) -> None:
        """Drop what waits; what is being worked out ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _worked_out(self, key: Hashable, work: Callable[[], bytes]) -> bytes:
        found = self._kept.get(key)  # whoever went before may have asked the same
        if found is None:
            found = work()
            self._kept.put(key, found)
        return found


class _Kept:
    """Answers by key, the least lately used of them dropped where all take too many bytes. For several threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._answers: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def put(self, key: Hashable, answer: bytes) -> None:
        with self._lock:
            self._bytes += len(answer) - len(self._answers.pop(key, b""))
            self._answers[key] = answer
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._answers.popitem(last=False)[1])
