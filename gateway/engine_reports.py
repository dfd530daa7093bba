"""What an engine reports of itself, read from its own documents: its gauges and its list of models.

Asking for them, and what follows, is `fleet`'s part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

_GAUGE = re.compile(rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc)(?:\{[^}]*\})? (\S+)", re.M)


def read_gauges(body: bytes) -> dict[str, float]:
    """The engine's gauges by name, summed over labels. Raises ValueError when there are none or one is no quantity."""
    gauges: dict[str, float] = {}
    for raw_name, raw_value in _GAUGE.findall(body):
        name, value = raw_name.decode(), float(raw_value)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}")
        gauges[name] = gauges.get(name, 0.0) + value
    if not gauges:
        raise ValueError("none of vLLM's gauges is among it")
    return gauges


def listed_models(body: bytes) -> Mapping[str, dict[str, object]]:
    """The entries of its model list by id; none where the body is no such list."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    entries = data.get("data") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        return {}
    return {entry["id"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)}
