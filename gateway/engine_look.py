"""One look at an engine: what it is asked, and what its answers say of it; `ReplicaState` takes that over.

When to look, and what follows from it, is the fleet's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from gateway.domain.engine_facts import EngineGlance, one_after_the_other, one_look
from gateway.engine_reports import (
    cache_config_lines,
    legible,
    listed_models,
    read_glance,
    read_version,
    resolve_engine,
)
from gateway.errors import UpstreamError
from gateway.provenance import read_provenance
from gateway.replica_state import ReplicaState
from gateway.upstream import Upstream

_LONGEST_QUOTE = 200
"""Characters of what an engine sent that a reason repeats."""


class EngineLook:
    def __init__(self, upstream: Upstream, timeout_s: float, now: Callable[[], float]) -> None:
        self._upstream = upstream
        self._timeout_s = timeout_s
        """For each question."""
        self._now = now
        self._log = structlog.get_logger("simsa.fleet")

    async def check(self, state: ReplicaState) -> None:
        """Raise UpstreamError unless the engine is healthy and serves our model; take over what it says of it."""
        if not state.is_remote:
            status, _ = await self._get(state, b"/health")
            if status != 200:
                raise UpstreamError(f"GET /health answered {status}")
        adapter = state.model.serving.adapter
        if adapter is not None and adapter.health_path is not None:
            await self._get_ok(state, adapter.health_path)
        if adapter is None or adapter.lists_models:
            self._read_models(state, await self._get_ok(state, "/models"))
        else:
            await self._knock(state, adapter.health_path)

    async def _get_ok(self, state: ReplicaState, path: str) -> bytes:
        """What the engine answers below its base path. Raises UpstreamError unless that is 200."""
        whole = state.replica.base_path + path
        status, body = await self._get(state, whole.encode())
        if status != 200:
            raise UpstreamError(f"GET {whole} answered {status}")
        return body

    async def _knock(self, state: ReplicaState, health_path: str | None) -> None:
        """Of an API without a list of models: without a health path either, it is well if it answers sensibly."""
        if health_path is None:
            status, _ = await self._get(state, state.replica.base_path.encode() or b"/")
            if status >= 500 or status in (401, 403):
                raise UpstreamError(f"GET {state.replica.base_path or '/'} answered {status}")
        found = read_provenance(state.model, state.origin, None, None)
        state.provenance, state.provenance_reason = found

    async def _get(self, state: ReplicaState, path: bytes) -> tuple[int, bytes]:
        return await self._upstream.fetch(state.origin, path, headers=state.auth, timeout_s=self._timeout_s)

    def _read_models(self, state: ReplicaState, body: bytes) -> None:
        """Take over what the engine says it serves. Raises UpstreamError when our model is not among it."""
        served = state.model.serving.served_model_name
        listed = listed_models(body)
        entry = listed.get(served)
        if entry is None:
            names = ", ".join(sorted(listed)[:5])[:_LONGEST_QUOTE] or "nothing"
            raise UpstreamError(f"the engine serves {names}, not '{served}'")
        state.owned_by = _text(entry.get("owned_by"))
        state.root = _text(entry.get("root"))
        length = entry.get("max_model_len")
        state.max_model_len = length if isinstance(length, int) else None
        found = read_provenance(state.model, state.origin, state.owned_by, state.root)
        state.provenance, state.provenance_reason = found

    async def read_metrics(self, state: ReplicaState) -> None:
        """Engine gauges help routing; an engine without them stays up and is routed by in-flight counts alone.

        What it resolved at start, and what this look adds to what was observed, is taken over as well.
        """
        problem: str | None = None
        glance: EngineGlance | None = None
        lines: tuple[bytes, ...] = ()
        try:
            status, body = await self._get(state, b"/metrics")
            if status != 200:
                raise UpstreamError(f"GET /metrics answered {status}")
            glance, lines = read_glance(body), cache_config_lines(body)
        except UpstreamError as error:
            problem = error.message
        except ValueError as error:
            problem = f"GET /metrics: {error}"[:_LONGEST_QUOTE]
        if (problem is None) is not (state.metrics_problem is None):
            log = self._log.bind(model=state.model.id, replica=state.replica.id)
            if problem is not None:
                log.warning("engine metrics unreadable", reason=problem)
            else:
                log.info("engine metrics readable again")
        await self._take_resolved(state, lines if glance is not None else state.cache_lines, glance)
        state.metrics_problem = problem
        state.engine_gauges = _gauges(glance)
        state.gauges_at_s = self._now() if glance is not None else None
        _take_look(state, glance)

    async def _take_resolved(self, state: ReplicaState, lines: tuple[bytes, ...], glance: EngineGlance | None) -> None:
        """What the engine is by now. Its version is asked for once, and again when it may be another engine."""
        if lines != state.cache_lines or _is_another_process(state.glance, glance):
            state.is_version_known = False
        if not state.is_version_known:
            state.version = await self._ask_version(state)
            state.is_version_known = True
        resolved = resolve_engine(
            lines,
            version=state.version,
            max_model_len=state.max_model_len,
            root=None if state.root is None else legible(state.root),
            owned_by=None if state.owned_by is None else legible(state.owned_by),
        )
        state.cache_lines = lines
        if resolved != state.resolved:
            state.resolved, state.report_id, state.observed = resolved, None, None

    async def _ask_version(self, state: ReplicaState) -> str | None:
        try:
            status, body = await self._get(state, b"/version")
        except UpstreamError:
            return None  # not every engine has one; whether it is up, the look itself has found
        return read_version(body) if status == 200 else None


def _take_look(state: ReplicaState, glance: EngineGlance | None) -> None:
    if glance is None:
        state.last_look = None
        return
    look = one_look(state.glance, glance, at=datetime.now(UTC), own_calls=state.in_flight)
    state.glance, state.last_look = glance, look
    state.observed = look if state.observed is None else one_after_the_other(state.observed, look)


def _gauges(glance: EngineGlance | None) -> dict[str, float]:
    """vLLM's gauges by name, those that are there."""
    if glance is None:
        return {}
    named = {
        "num_requests_running": glance.running,
        "num_requests_waiting": glance.waiting,
        "kv_cache_usage_perc": glance.kv_usage,
    }
    return {name: value for name, value in named.items() if value is not None}


def _is_another_process(before: EngineGlance | None, now: EngineGlance | None) -> bool:
    return before is not None and now is not None and before.started_at_s != now.started_at_s


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
