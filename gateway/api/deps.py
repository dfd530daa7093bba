"""What a handler may ask for: the gateway's parts, and that the caller's key is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from gateway.access import Access
from gateway.batches import Batches
from gateway.comparison import Comparisons
from gateway.dispatch import Dispatcher
from gateway.fleet import Fleet
from gateway.live_registry import LiveRegistry
from gateway.recorder import Recorder
from gateway.settings import Settings
from gateway.store import Store
from gateway.telemetry import Telemetry


@dataclass(slots=True)
class Services:
    """The running gateway's parts, built once in `app`."""

    settings: Settings
    registry: LiveRegistry
    fleet: Fleet
    dispatcher: Dispatcher
    store: Store
    recorder: Recorder
    telemetry: Telemetry
    comparisons: Comparisons
    batches: Batches
    access: Access
    now: Callable[[], float]
    is_draining: bool = field(default=False)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Gateway = Annotated[Services, Depends(_services)]


def _require_key(request: Request, services: Gateway) -> None:
    services.access.check(request.scope["headers"])


RequireKey = Depends(_require_key)
"""Raises AuthenticationFailed unless the request carries the key."""
