"""The registry in use, and the watch on its file: a good change is taken over without a restart, a bad one is refused.

What the registry says is `registry`'s subject; what follows from a change (the fleet's replicas) is told by a callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.domain.records import Registry
from gateway.errors import RegistryInvalid
from gateway.registry import load_registry

Stamp = tuple[int, int, int]


class LiveRegistry:
    """Holds the last valid registry. `problem` says why the file on disk is not the one in use, None when it is."""

    def __init__(self, path: Path, on_change: Callable[[Registry], None]) -> None:
        """Read the file for the first time. Raises RegistryInvalid when it is broken: there is no old one to keep."""
        self._path = path
        self._on_change = on_change
        self._stamp = _stamp(path)
        self.current = load_registry(path)
        self.problem: str | None = None
        self._log = structlog.get_logger("simsa.registry")

    async def watch(self, interval_s: float) -> None:
        """Look at the file until cancelled. The path is resolved anew each time, so a swapped directory is seen."""
        while True:
            await asyncio.sleep(interval_s)
            await self.look()

    async def look(self) -> None:
        """Take the file over if it changed."""
        stamp = await asyncio.to_thread(_stamp, self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        before = self.current
        try:
            fresh = await asyncio.to_thread(load_registry, self._path)
            self._use(fresh, problem=None)
        except RegistryInvalid as error:
            self._log.error("registry refused, the old one stays in use", problems=error.problems[:20])
            self._use(before, problem=str(error))
        except Exception as error:  # a mistake of ours, for the watch's owner to tell; tried again with the next change
            self._use(before, problem=f"the change could not be taken over: {error!r}")
            raise
        else:
            if fresh.sha256 != before.sha256:
                self._log.info("registry reloaded", sha256=fresh.sha256, models=len(fresh.models))

    def _use(self, registry: Registry, problem: str | None) -> None:
        self.problem = problem
        self.current = registry
        self._on_change(registry)


def _stamp(path: Path) -> Stamp | None:
    """Changes when the file does; None while it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
