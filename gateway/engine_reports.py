"""What an engine reports of itself, read from its own documents: its metrics, its list of models, its version.

Bytes in, values out: V1 names with and without `_total`, names of before, and whatever is missing is None. Asking for
the documents, and what follows, is `fleet`'s part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import msgspec

from gateway.domain.engine_facts import NO_LABEL, EngineGlance, ResolvedEngine
from gateway.metrics_text import LABELS, SAMPLE, found_after, label_pairs

MOST_LABELS = 100
LONGEST_WORD = 200
"""Characters of a name or value that are kept of what an engine says."""
MOST_COUNTED = 2**53
"""Beyond it a metric, which is a float, is no count of anything."""

_ALIASES: Mapping[str, tuple[str, ...]] = {
    "running": ("num_requests_running",),
    "waiting": ("num_requests_waiting",),
    "kv_usage": ("kv_cache_usage_perc", "gpu_cache_usage_perc"),
    "preemptions": ("num_preemptions_total", "num_preemptions"),
    "prefix_queries": (
        *("prefix_cache_queries_total", "prefix_cache_queries"),
        *("gpu_prefix_cache_queries_total", "gpu_prefix_cache_queries"),
    ),
    "prefix_hits": (
        *("prefix_cache_hits_total", "prefix_cache_hits"),
        *("gpu_prefix_cache_hits_total", "gpu_prefix_cache_hits"),
    ),
    "prompt_tokens": ("prompt_tokens_total", "prompt_tokens"),
    "generation_tokens": ("generation_tokens_total", "generation_tokens"),
}
"""Each figure's names, the newest first: of several that are there only the first counts."""
_GAUGES = ("running", "waiting", "kv_usage")
_STARTED = b"process_start_time_seconds"
_CACHE_CONFIG = (b"vllm:cache_config_info", b"vllm:cache_config_info_info")
_CACHE_LABELS = re.compile(rb"(" + LABELS + rb") \S+")
_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LABEL_ALIASES = {
    "gpu_memory_utilization": "device_memory_utilization",
    "cache_dtype": "kv_cache_dtype",
    "num_gpu_blocks": "num_device_blocks",
    "kv_cache_size_tokens": "kv_cache_tokens",
}
"""What a label may be called instead: vLLM already knows the first by both names."""


def read_glance(body: bytes) -> EngineGlance:
    """The engine's gauges and counters, summed over labels; of the cache's use the highest.

    Raises ValueError when none of the gauges is there or one is no quantity; such a counter is only unknown.
    """
    found = {figure: _first_of(names, body) for figure, names in _ALIASES.items()}
    gauges = {name: _quantities(name, found[name] or ()) for name in _GAUGES}
    if not any(gauges.values()):
        raise ValueError("none of vLLM's gauges is among it")
    counters = {name: _count(values) for name, values in found.items() if name not in _GAUGES}
    return EngineGlance(
        running=round(sum(gauges["running"])) if gauges["running"] else None,
        waiting=round(sum(gauges["waiting"])) if gauges["waiting"] else None,
        kv_usage=max(gauges["kv_usage"], default=None),
        started_at_s=_started_at_s(body),
        **counters,
    )


def cache_config_lines(body: bytes) -> tuple[bytes, ...]:
    """The labels of `vllm:cache_config_info` as they stand there, one for each engine behind the address."""
    return tuple(line for name in _CACHE_CONFIG for line in _after(name, _CACHE_LABELS, body))


def resolve_engine(
    lines: Iterable[bytes],
    *,
    version: str | None,
    max_model_len: int | None = None,
    root: str | None = None,
    owned_by: str | None = None,
) -> ResolvedEngine:
    """What the engine resolved, from the lines above and what its other documents say. Never fails."""
    engines = [_labels(line) for line in lines]
    said = _common(engines)

    def label(name: str) -> str | None:
        value = said.get(name, said.get(_LABEL_ALIASES.get(name, name)))
        return None if value in (None, NO_LABEL, "") else value

    return ResolvedEngine(
        version=version,
        max_model_len=max_model_len if max_model_len is not None and 0 < max_model_len <= MOST_COUNTED else None,
        root=root,
        owned_by=owned_by,
        num_gpu_blocks=_whole(label("num_gpu_blocks")),
        block_size=_whole(label("block_size")),
        kv_cache_size_tokens=_whole(label("kv_cache_size_tokens")),
        kv_cache_max_concurrency=_real(label("kv_cache_max_concurrency")),
        gpu_memory_utilization=_real(label("gpu_memory_utilization")),
        cache_dtype=label("cache_dtype"),
        enable_prefix_caching={"True": True, "False": False}.get(label("enable_prefix_caching") or ""),
        sliding_window=_whole(label("sliding_window")),
        kv_cache_memory_bytes=_whole(label("kv_cache_memory_bytes")),
        num_gpu_blocks_override=_whole(label("num_gpu_blocks_override")),
        engines=len(engines),
        labels=tuple(sorted(said.items())),
    )


def read_version(body: bytes) -> str | None:
    """What `/version` says; None where the body says no such thing."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    version = data.get("version") if isinstance(data, dict) else None
    return legible(version) or None if isinstance(version, str) else None


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


def legible(text: str) -> str:
    """An engine's own words, such as may be stored and shown."""
    return _UNREADABLE.sub("", text[:LONGEST_WORD])


def _first_of(names: Iterable[str], body: bytes) -> list[bytes] | None:
    """The samples of the first name that has some."""
    return next(filter(None, (_after(f"vllm:{name}".encode(), SAMPLE, body) for name in names)), None)


def _after(name: bytes, pattern: re.Pattern[bytes], body: bytes) -> list[bytes]:
    return [match[1] for match in found_after(name, pattern, body)]


def _quantities(name: str, values: Iterable[bytes]) -> list[float]:
    found = [float(value) for value in values]
    for value in found:
        if not 0 <= value <= MOST_COUNTED:
            raise ValueError(f"{name} is {value}")
    return found


def _count(values: list[bytes] | None) -> int | None:
    try:
        total = sum(_quantities("", values or ()))
    except ValueError:
        return None
    return None if values is None or total > MOST_COUNTED else round(total)


def _started_at_s(body: bytes) -> float | None:
    values = _after(_STARTED, SAMPLE, body)
    return _real(values[0].decode("utf-8", "replace")) if values else None


def _labels(line: bytes) -> dict[str, str]:
    """Names and values of one line, but for the engine's number; no more of them, and no longer, than are kept."""
    pairs = label_pairs(line)
    found = {name[:LONGEST_WORD]: legible(value) for name, value in pairs[:MOST_LABELS]}
    found.pop("engine", None)
    return found


def _common(engines: list[dict[str, str]]) -> dict[str, str]:
    """What all say alike."""
    first = engines[0] if engines else {}
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in engines)}


def _whole(text: str | None) -> int | None:
    """A count from 0 on; vLLM may write one as a float."""
    value = _real(text)
    return int(value) if value is not None and value == int(value) else None


def _real(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= MOST_COUNTED else None
