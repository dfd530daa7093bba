"""Runs the gateway as a process: one socket, a graceful stop, one line when it will not start."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
from types import FrameType
from typing import cast

import structlog
import uvicorn

from gateway.app import GatewayApp, create_app
from gateway.downstream import ClientProtocol, client_protocol
from gateway.errors import RegistryInvalid, StartRefused
from gateway.listening import BACKLOG, listen
from gateway.log import close_log, configure_logging, take_library_lines
from gateway.settings import Settings
from gateway.workers import WorkerPlace

ABORT_WAIT_S = 3.0


def serve(settings: Settings, place: WorkerPlace | None = None) -> None:
    """Serve until a signal. Raises StartRefused or RegistryInvalid when the gateway will not start.

    `place`: which worker of a parent this is, whose socket it listens on.

    SIGTERM and SIGINT: not ready, no new calls, those in flight get `shutdown_grace_s`, the rest an error; then the
    records are flushed. A second signal stops the waiting.
    """
    settings.refuse_open_door()
    configure_logging(settings.log_level, worker=None if place is None else place.number)
    take_library_lines()
    listener = listen(settings) if place is None else socket.socket(fileno=place.listener_fd)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    app = create_app(settings, place)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=client_protocol(settings),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config, app, parent=None if place is None else place.parent)
    _raise_file_limit()
    _calm_garbage_collector()
    try:
        with listener, contextlib.suppress(SystemExit):  # how uvicorn ends a start that failed; the app knows why
            server.run(sockets=[listener])
    finally:
        close_log()
    if isinstance(app.start_error, StartRefused | RegistryInvalid):
        raise app.start_error
    if app.start_error is not None:
        raise StartRefused(f"the gateway failed: {app.start_error}") from app.start_error


class _Server(uvicorn.Server):
    """uvicorn's server with a stop that lets calls in flight finish while readiness already says no."""

    def __init__(self, config: uvicorn.Config, app: GatewayApp, *, parent: int | None = None) -> None:
        """`parent`: the process without which this one is to end."""
        super().__init__(config)
        self._app = app
        self._parent = parent
        self._drain: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("simsa.server")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._log.info("listening", host=host, port=port)

    async def on_tick(self, counter: int) -> bool:
        if self._parent is not None and os.getppid() != self._parent and self._drain is None:
            self.handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain is not None or not self.started:
            self.force_exit = self._drain is not None and sig == signal.SIGINT
            self.should_exit = True
            return
        loop = asyncio.get_running_loop()
        self._drain = loop.create_task(self._drain_calls(signal.Signals(sig).name), name="drain")

    async def _drain_calls(self, why: str) -> None:
        services = self._app.services
        assert services is not None
        self._app.begin_draining()
        for connection in list(self.server_state.connections):
            cast("ClientProtocol", connection).end_with_answer()
        try:
            self._log.info("stopping", signal=why, in_flight=len(services.dispatcher.in_flight))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(services.settings.shutdown_grace_s):
                    await services.dispatcher.until_idle()
            services.dispatcher.abort_all("The gateway is shutting down and the answer was not finished in time.")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ABORT_WAIT_S):
                    await services.dispatcher.until_idle()
        except Exception:  # noqa: BLE001 - whatever goes wrong with the calls, the process ends and keeps its records
            services.telemetry.count_background_failure("drain")
            self._log.exception("the calls in flight could not be ended in order")
        finally:
            self.should_exit = True


def _raise_file_limit() -> None:
    """Use all the file descriptors that the system allows; many shells start with fewer than SIMSA_MAX_CONNECTIONS."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems name a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _calm_garbage_collector() -> None:
    """Leave what was made at the start alone and look at young objects less often.

    Calls make no reference cycles; looking for some took 7 % of the processor time of each.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
