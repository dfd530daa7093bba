"""What all tests share: the event loop that production runs on, and no deadlines: machines are shared and noisy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import hypothesis
import uvloop

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
