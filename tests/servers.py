"""Any ASGI app on a real loopback socket, served by uvicorn in a thread of its own for the length of a block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from guards import HANG_S


class _AnnouncedServer(uvicorn.Server):
    """Says when it listens, or that it never will."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


@contextmanager
def serve(app: Any, *, port: int = 0, grace_s: int = 1, **options: Any) -> Iterator[str]:
    """`with serve(app) as url`: the app, its lifespan included, at `url` until the block ends; port 0 is a free one.

    `options` are uvicorn's, e.g. `http`.
    """
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=grace_s,
        **options,
    )
    server = _AnnouncedServer(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert server.settled.wait(HANG_S), "the server did not start in time"
        assert server.started, "the app refused to start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(HANG_S)
