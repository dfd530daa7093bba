"""The background look at the engines: who is up, what they serve, how busy they are.

Each replica of the registry has one state and one watching task. Routing reads the states; calls move their in-flight
counts through one `Presence` each, so the counts cannot drift. Which replica to choose is `domain.routing`'s question.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import structlog

from gateway.domain.cost import SharedTime
from gateway.domain.records import Model, Provenance, Registry, Replica, ServingKind
from gateway.domain.routing import Load
from gateway.errors import UpstreamError
from gateway.settings import Settings, secret_from_environment
from gateway.telemetry import Telemetry
from gateway.upstream import Headers, Origin, Upstream, parse_origin

SIMULATOR_OWNER = "simsa-simulator"
STAND_IN_PREFIX = "simsa-stand-in-"
REMOTE_INTERVAL_S = 60.0
_GAUGE = re.compile(rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc)(?:\{[^}]*\})? (\S+)", re.M)


@dataclass(slots=True)
class ReplicaState:
    """What is known of one replica now. Only the fleet writes it, but for the counts in `serving`."""

    replica: Replica
    model: Model
    origin: Origin
    auth: Headers
    is_up: bool = False
    reason: str = "not looked at yet"
    """Why it is down, in words for an operator."""
    provenance: Provenance = Provenance.UNKNOWN
    provenance_reason: str = "the engine was not asked yet"
    owned_by: str | None = None
    root: str | None = None
    max_model_len: int | None = None
    shared_time: SharedTime = field(default_factory=SharedTime)
    engine_gauges: dict[str, float] = field(default_factory=dict)
    gauges_at_s: float | None = None

    def load(self, now: float) -> Load:
        return Load(
            in_flight=self.in_flight,
            weight=self.replica.weight,
            engine_waiting=self.engine_gauges.get("num_requests_waiting"),
            metrics_age_s=now - self.gauges_at_s if self.gauges_at_s is not None else None,
        )

    @property
    def in_flight(self) -> int:
        """Calls of this gateway that it is serving."""
        return self.shared_time.in_flight


class Presence:
    """One call's presence on a replica: counted from `__init__` until `end`, which may be called again."""

    __slots__ = ("_mark", "_now", "_state", "share_s")

    def __init__(self, state: ReplicaState, now: Callable[[], float]) -> None:
        self._now = now
        self._state: ReplicaState | None = state
        self._mark = state.shared_time.enter(now())
        self.share_s = 0.0
        """Seconds of the replica's busy time that fall to the call; known after `end`."""

    def end(self) -> None:
        if self._state is not None:
            self.share_s = self._state.shared_time.leave(self._now(), self._mark)
            self._state = None


class Fleet:
    """All replicas of the registry in use. `run` watches until cancelled; `apply` takes a new registry at any time."""

    def __init__(
        self, *, settings: Settings, upstream: Upstream, telemetry: Telemetry, now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._telemetry = telemetry
        self._now = now
        self._states: dict[str, list[ReplicaState]] = {}
        self._watchers: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._log = structlog.get_logger("simsa.fleet")

    def states_of(self, model_id: str) -> list[ReplicaState]:
        return self._states.get(model_id, [])

    def live(self, model_id: str) -> list[ReplicaState]:
        return [state for state in self._states.get(model_id, ()) if state.is_up]

    @property
    def has_live_replica(self) -> bool:
        return any(state.is_up for states in self._states.values() for state in states)

    def apply(self, registry: Registry) -> None:
        """Watch this registry's replicas: unchanged ones keep their state, gone ones are dropped."""
        before = {(s.model.id, s.replica): s for states in self._states.values() for s in states}
        after: dict[str, list[ReplicaState]] = {}
        for model in registry.routable():
            for replica in model.replicas:
                auth = _auth(replica)
                if auth is None:
                    continue
                state = before.pop((model.id, replica), None)
                if state is None:
                    state = ReplicaState(replica, model, parse_origin(replica.url), auth)
                state.model = model
                after.setdefault(model.id, []).append(state)
        self._states = after
        for state in before.values():
            self._drop(state)
        for states in after.values():
            for state in states:
                self._ensure_watcher(state)

    def mark_down(self, state: ReplicaState, reason: str) -> None:
        """A call could not reach it: no further calls until the next look finds it up."""
        if state.is_up:
            self._log.warning("replica down", model=state.model.id, replica=state.replica.id, reason=reason)
        state.is_up = False
        state.reason = reason
        self._telemetry.replica_up.labels(state.model.id, state.replica.id).set(0)

    async def stop(self) -> None:
        watchers = list(self._watchers.values())
        self._watchers.clear()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    def _ensure_watcher(self, state: ReplicaState) -> None:
        key = (state.model.id, state.replica.id)
        if key not in self._watchers:
            self._watchers[key] = asyncio.create_task(self._watch(state), name=f"watch {state.replica.id}")

    def _drop(self, state: ReplicaState) -> None:
        watcher = self._watchers.pop((state.model.id, state.replica.id), None)
        if watcher is not None:
            watcher.cancel()
        self._upstream.forget(state.origin)
        self._telemetry.forget_replica(state.model.id, state.replica.id)

    async def _watch(self, state: ReplicaState) -> None:
        is_remote = state.model.serving.kind is ServingKind.OPENAI_API
        interval = REMOTE_INTERVAL_S if is_remote else self._settings.health_interval_s
        while True:
            try:
                await self._look(state, is_remote=is_remote)
            except UpstreamError as error:
                self.mark_down(state, error.message)
            except Exception as error:  # noqa: BLE001  the loop's owner: one odd reply must not end the watching
                self._log.exception("look failed", replica=state.replica.id)
                self.mark_down(state, f"the look at the engine failed: {error}")
            await asyncio.sleep(interval if state.is_up else min(interval, self._settings.health_interval_s))

    async def _look(self, state: ReplicaState, *, is_remote: bool) -> None:
        if not is_remote:
            status, _ = await self._get(state, b"/health")
            if status != 200:
                self.mark_down(state, f"GET /health answered {status}")
                return
        status, body = await self._get(state, state.replica.base_path.encode() + b"/models")
        if status != 200:
            self.mark_down(state, f"GET {state.replica.base_path}/models answered {status}")
            return
        if not self._read_models(state, body):
            return
        if not is_remote:
            await self._read_metrics(state)
        if not state.is_up:
            self._log.info("replica up", model=state.model.id, replica=state.replica.id, provenance=state.provenance)
        state.is_up = True
        state.reason = ""
        self._telemetry.replica_up.labels(state.model.id, state.replica.id).set(1)

    async def _get(self, state: ReplicaState, path: bytes) -> tuple[int, bytes]:
        return await self._upstream.fetch(
            state.origin, path, headers=state.auth, timeout_s=self._settings.health_timeout_s
        )

    def _read_models(self, state: ReplicaState, body: bytes) -> bool:
        """Take over what the engine says it serves; False and down when our model is not among it."""
        served = state.model.serving.served_model_name
        listed = _listed_models(body)
        entry = listed.get(served)
        if entry is None:
            names = ", ".join(sorted(listed)[:5]) or "nothing"
            self.mark_down(state, f"the engine serves {names}, not '{served}'")
            return False
        state.owned_by = _text(entry.get("owned_by"))
        state.root = _text(entry.get("root"))
        length = entry.get("max_model_len")
        state.max_model_len = length if isinstance(length, int) else None
        state.provenance, state.provenance_reason = read_provenance(state.model, state.owned_by, state.root)
        return True

    async def _read_metrics(self, state: ReplicaState) -> None:
        """Engine gauges help routing; an engine without them is routed by in-flight counts alone."""
        status, body = await self._get(state, b"/metrics")
        gauges: dict[str, float] = {}
        if status == 200:
            for name, value in _GAUGE.findall(body):
                gauges[name.decode()] = gauges.get(name.decode(), 0.0) + float(value)
        state.engine_gauges = gauges
        state.gauges_at_s = self._now() if gauges else None


def read_provenance(model: Model, owned_by: str | None, root: str | None) -> tuple[Provenance, str]:
    """What the engine's own model list says it is, and why; the registry is only compared with, never believed."""
    if owned_by == SIMULATOR_OWNER:
        return Provenance.SIMULATED, f"the engine says so (owned_by {owned_by}, root {root})"
    if root is not None and root.rstrip("/").rpartition("/")[2].startswith(STAND_IN_PREFIX):
        return Provenance.STAND_IN, "the engine serves the project's random weights"
    if model.serving.kind is ServingKind.OPENAI_API:
        return Provenance.REAL, f"the vendor's own API lists it (owned_by {owned_by})"
    if owned_by == "vllm" and root is not None and root == model.weights.repo:
        return Provenance.REAL, f"the engine serves {root}"
    wanted = model.weights.repo or "no weights the registry knows of"
    return Provenance.UNKNOWN, f"the engine serves root {root} (owned_by {owned_by}), the registry expects {wanted}"


def _listed_models(body: bytes) -> Mapping[str, dict[str, object]]:
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    entries = data.get("data") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        return {}
    return {entry["id"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)}


def _auth(replica: Replica) -> Headers | None:
    """Headers that open the engine; None when its key is not in the environment, so it cannot be used."""
    if replica.api_key_env is None:
        return ()
    key = secret_from_environment(replica.api_key_env)
    return ((b"authorization", b"Bearer " + key.encode()),) if key else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
