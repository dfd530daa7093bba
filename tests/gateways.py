"""The gateway as production builds it, on a loopback port inside the test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fresh_sqlite import put_fresh_sqlite
from guards import HANG_S

from gateway.api.deps import Services
from gateway.app import GatewayApp, create_app
from gateway.domain.accounts import Terms
from gateway.domain.records import Call, CallOpened
from gateway.downstream import client_protocol
from gateway.settings import Settings

Entry = Mapping[str, Any]


@dataclass
class RunningGateway:
    url: str
    app: GatewayApp
    registry_path: Path

    @property
    def services(self) -> Services:
        assert self.app.services is not None
        return self.app.services

    async def until_live(self, *model_ids: str, replicas: int = 1) -> None:
        """Wait until so many replicas of each model are up."""
        await self.until(lambda: all(len(self.services.fleet.live(m)) >= replicas for m in model_ids))

    async def until(self, holds: Any) -> None:
        """Wait until `holds()`; nothing announces these changes, so the loop is given turns until they show."""
        async with asyncio.timeout(HANG_S):
            while not holds():
                await asyncio.sleep(0.002)

    async def calls(self, count: int = 1) -> list[Call]:
        """The finished calls in the database, once there are `count`."""
        async with asyncio.timeout(HANG_S):
            while True:
                found: Sequence[Call | CallOpened] = await self.services.store.list_calls()
                finished = [call for call in found if isinstance(call, Call)]
                if len(finished) >= count:
                    return finished
                await asyncio.sleep(0.01)

    async def call(self) -> Call:
        """The only finished call."""
        (only,) = await self.calls()
        return only

    async def key_of(self, organisation: str, terms: Terms = Terms()) -> str:  # noqa: B008 - it is frozen
        """The secret of a new key of a new organisation."""
        await self.services.keys.create_organisation(organisation, organisation)
        _, secret = await self.services.keys.create_key(organisation, "test", terms, None)
        return secret

    def write_registry(self, models: Sequence[Entry], **sections: Any) -> None:
        self.registry_path.write_text(registry_text(models, **sections))


def entry(model_id: str, *urls: str, **fields: Any) -> dict[str, Any]:
    """The least that a registry entry needs."""
    return {"id": model_id, "serving": {"kind": "vllm"}, "replicas": [{"url": url} for url in urls], **fields}


def registry_text(models: Sequence[Entry], **sections: Any) -> str:
    """A registry file; JSON is YAML."""
    return json.dumps({"models": list(models), **sections}, ensure_ascii=False)


@asynccontextmanager
async def running_gateway(
    directory: Path, models: Sequence[Entry], *, sections: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[RunningGateway]:
    """A gateway on a free port until the block ends. `settings` are those of gateway.settings, by name."""
    directory.mkdir(parents=True, exist_ok=True)
    registry_path = directory / "registry.yaml"
    registry_path.write_text(registry_text(models, **(sections or {})))
    chosen = {"registry": registry_path, "data_dir": directory / "data", "health_interval_s": 0.05}
    chosen |= {"registry_poll_s": 0.02, "recorder_flush_s": 0.01, "log_level": "ERROR", "admin_key": None}
    chosen_settings = Settings(**{**chosen, **settings})
    if not settings.keys() & {"data_dir", "database_url"}:
        await put_fresh_sqlite(directory / "data")
    app = create_app(chosen_settings)
    http = client_protocol(chosen_settings)
    lasts_s = int(HANG_S)  # what a test that failed left open keeps nobody waiting
    config = uvicorn.Config(
        app, port=0, http=http, ws="none", lifespan="on", log_config=None, timeout_graceful_shutdown=lasts_s
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with suppress(SystemExit):  # how uvicorn ends a start that failed; the app knows why
        await server.startup()
    if not server.started:
        assert app.start_error is not None
        raise app.start_error
    main = asyncio.create_task(server.main_loop())
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield RunningGateway(f"http://127.0.0.1:{port}", app, registry_path)
    finally:
        server.should_exit = True
        await main
        await server.shutdown()
