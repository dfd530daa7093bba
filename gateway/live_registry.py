"""The registry in use, and the watch on its files: a good change is taken over without a restart, a bad one is refused.

What the registry says is `registry`'s subject, which addresses its names have `name_watch`'s; what follows from a
change (the fleet's replicas) is told by callbacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.domain.discovery import Addresses, questions_of, with_addresses
from gateway.domain.records import Registry
from gateway.errors import RegistryInvalid
from gateway.registry import load_registry

Stamp = tuple[int, int, int]


class LiveRegistry:
    """Holds the last valid registry. `problem` says why the files on disk are not those in use, None when they are.

    `current` is what the files say, with a replica for each address that is known of their names.
    """

    def __init__(
        self,
        path: Path,
        on_change: Callable[[Registry], None],
        *,
        replicas_file: Path | None = None,
        on_addresses: Callable[[Registry], None] = lambda _: None,
    ) -> None:
        """Read the files for the first time. Raises RegistryInvalid when one is broken: there is no old one to keep.

        `on_change` is told of other files, `on_addresses` of a registry that differs in its names' addresses alone.
        """
        self._path = path
        self._replicas_file = replicas_file
        self._on_change = on_change
        self._on_addresses = on_addresses
        self._addresses: Addresses = {}
        self._stamps = self._stamps_now()
        self._stated = self.current = self._load()
        self.problem: str | None = None
        self._log = structlog.get_logger("simsa.registry")

    async def watch(self, interval_s: float) -> None:
        """Look at the files until cancelled. The paths are resolved anew each time, so a swapped directory is seen."""
        while True:
            await asyncio.sleep(interval_s)
            await self.look()

    async def look(self) -> None:
        """Take the files over if one changed."""
        stamps = await asyncio.to_thread(self._stamps_now)
        if stamps == self._stamps:
            return
        self._stamps = stamps
        before = self._stated
        try:
            fresh = await asyncio.to_thread(self._load)
            self._use(fresh, problem=None)
        except RegistryInvalid as error:
            self._log.error("registry refused, the old one stays in use", problems=error.problems[:20])
            self._use(before, problem=str(error))
        except Exception as error:  # a mistake of ours, for the watch's owner to tell; tried again with the next change
            self._use(before, problem=f"the change could not be taken over: {error!r}")
            raise
        else:
            if fresh != before:
                self._log.info("registry reloaded", sha256=fresh.sha256, models=len(fresh.models))

    def take_addresses(self, addresses: Addresses) -> None:
        """Its names have these addresses by now."""
        self._addresses = addresses
        self.current = with_addresses(self._stated, addresses)
        self._on_addresses(self.current)

    def _use(self, stated: Registry, problem: str | None) -> None:
        self.problem = problem
        self._stated = stated
        asked = questions_of(stated)
        self._addresses = {question: known for question, known in self._addresses.items() if question in asked}
        self.current = with_addresses(stated, self._addresses)
        self._on_change(self.current)

    def _load(self) -> Registry:
        return load_registry(self._path, replicas_file=self._replicas_file)

    def _stamps_now(self) -> tuple[Stamp | None, ...]:
        paths = (self._path,) if self._replicas_file is None else (self._path, self._replicas_file)
        return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> Stamp | None:
    """Changes when the file does; None while it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
