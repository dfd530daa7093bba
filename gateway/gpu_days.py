"""GPU time summed up by day while windows are settled: a row a day, replica, price and weight.

The sums change in the transaction that settles a window, by the difference between what its row says now and what it
said before, so settling again changes nothing and a month costs a few rows a replica instead of one a minute. They
stay when the windows' own rows are removed. What a window costs is `settlements`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from hashlib import sha256
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cost_tables import gpu_days
from gateway.day_sums import DayChange, SummedTable

FACTS = (
    "replica",
    "model",
    "provenance",
    "gpu",
    "gpus",
    "currency",
    "price_per_hour",
    "price_tier",
    "price_provider",
    "price_on",
    "price_source",
    "weight",
    "weight_basis",
    "reason",
)
"""What windows that are summed up together have in common, beside their day."""
_SUMMED = ("paid_us", "busy_us", "money_nanos", "busy_nanos", "idle_nanos")
_DAYS = SummedTable(gpu_days, 2 + len(_SUMMED))


class GpuDayChange:
    """How the sums change by the windows that are written in one transaction."""

    def __init__(self) -> None:
        self._days = DayChange(_DAYS)

    def add(self, window: Mapping[Any, Any]) -> None:
        self._days.add(_place(window), _share(window), _facts(window))

    def take_back(self, window: Mapping[Any, Any]) -> None:
        self._days.take_back(_place(window), _share(window), _facts(window))

    def keep_unattributed(self, window: Mapping[Any, Any], nanos: int) -> None:
        """Remember what a window whose row goes away charged to calls that have no settled cost."""
        self._days.add(_place(window), [0, *(0 for _ in _SUMMED), nanos], _facts(window))

    async def write(self, connection: AsyncConnection) -> None:
        await self._days.write(connection)


def kind_of(window: Mapping[Any, Any]) -> str:
    """The same for equal facts, whatever form a database keeps its numbers in."""
    facts = [_text(window[name]) for name in FACTS]
    return sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _text(value: Any) -> str | int | None:
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value) if isinstance(value, date) else value


def _place(window: Mapping[Any, Any]) -> tuple[date, str]:
    return window["day"], kind_of(window)


def _facts(window: Mapping[Any, Any]) -> list[Any]:
    return [window[name] for name in FACTS]


def _share(window: Mapping[Any, Any]) -> list[int | Decimal]:
    return [1, *(window[name] or 0 for name in _SUMMED), 0]
