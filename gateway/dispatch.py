"""What all calls share: the parts they use, which are in flight, and how the gateway becomes idle.

One call's way from the door to its record is `active_call`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import structlog

from gateway.admission import Admission
from gateway.calibration_file import CalibrationBook
from gateway.domain.records import EngineAddress, Priority, Registry
from gateway.engine_answers import RETRY_AFTER_S
from gateway.errors import SimsaError, Unavailable
from gateway.evidence import OneGpuVerdicts
from gateway.fleet import Fleet
from gateway.limits import Limiter
from gateway.recorder import Recorder
from gateway.settings import Settings
from gateway.telemetry import Telemetry
from gateway.tracing import Tracer
from gateway.trail import Trail
from gateway.upstream import Upstream


class CallContext(NamedTuple):
    """Where a call belongs."""

    request_id: str
    accepted_s: float
    """Monotonic moment at which the request was accepted: whole, so that its upload is the client's time."""
    comparison_id: str | None = None
    run_id: str | None = None
    client_retry: int | None = None
    priority: Priority = Priority.INTERACTIVE
    organisation: str | None = None
    session: str | None = None
    """Calls of one session go to the same replica while it is there and has room."""
    key: str | None = None
    """The key's id."""
    headers: bytes = b""
    """Header lines of the client that go on to the engine, each with its line end."""
    home: EngineAddress | None = None
    """The only engine that can answer, because it keeps what the request refers to."""
    keep: Callable[[EngineAddress, str], object] | None = None
    """Told the engine and the id of a reply that it may keep."""
    trail: Trail | None = None
    """Where calls are traced."""


class Abortable:
    """Work of one task for a client, which can be ended from outside with an error that the client is told."""

    def __init__(self) -> None:
        self._owner: asyncio.Task[object] | None = None
        self._abort_error: SimsaError | None = None

    def abort(self, error: SimsaError) -> None:
        """End it from outside; the first one who does so says why."""
        if self._owner is not None and self._abort_error is None:
            self._abort_error = error
            self._owner.cancel()

    def _begin(self) -> None:
        """From now on the current task can be ended."""
        self._owner = asyncio.current_task()

    def _told(self, error: BaseException | None) -> SimsaError | None:
        """What `abort` gave to be told, where `error` is its doing."""
        return self._abort_error if isinstance(error, asyncio.CancelledError) else None

    def _resumes(self) -> bool:
        """Whether the task, once aborted, can go on and tell; not where its client left in the same moment."""
        return self._owner is not None and self._owner.uncancel() == 0


class Dispatcher:
    """Makes calls. Holds what every call needs; one per gateway."""

    def __init__(
        self,
        *,
        settings: Settings,
        upstream: Upstream,
        fleet: Fleet,
        admission: Admission,
        recorder: Recorder,
        telemetry: Telemetry,
        limiter: Limiter,
        registry: Callable[[], Registry],
        calibration: CalibrationBook,
        now: Callable[[], float],
        tracer: Tracer | None = None,
    ) -> None:
        """`tracer`: None where nothing is traced."""
        self.settings = settings
        self.upstream = upstream
        self.fleet = fleet
        self.admission = admission
        self.recorder = recorder
        self.telemetry = telemetry
        self.limiter = limiter
        self.registry = registry
        self.calibration = calibration
        self.verdicts = OneGpuVerdicts(settings, registry, calibration)
        self.now = now
        self.tracer = tracer
        self.in_flight: set[Abortable] = set()
        self._holds = 0
        self._is_idle = asyncio.Event()
        self.log = structlog.get_logger("simsa.dispatch")

    async def until_idle(self) -> None:
        """Wait until no call is in flight and nobody holds the gateway open for further ones."""
        while self.in_flight or self._holds:
            self._is_idle.clear()
            await self._is_idle.wait()

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block lasts the gateway is not idle: its work makes one call after the other."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._announce_idle()

    def finished(self, call: Abortable) -> None:
        self.in_flight.discard(call)
        self._announce_idle()

    def _announce_idle(self) -> None:
        if not self.in_flight and not self._holds:
            self._is_idle.set()

    def abort_all(self, reason: str) -> None:
        """End every call in flight with an error that its client is told (the grace of a shutdown is over)."""
        for call in list(self.in_flight):
            call.abort(Unavailable(reason, code="draining", retry_after_s=RETRY_AFTER_S))
