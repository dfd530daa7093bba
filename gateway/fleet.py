"""The background look at the engines: who is up, what they serve, how busy they are.

Each replica of the registry has one state and one watching task. Which call gets which replica, and how many it may
have, is decided in `admission`; looks ask nobody: a full engine is busy, not dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from math import ceil

import structlog

from gateway.background import end_all, keep_running
from gateway.domain.breaker import CLOSED, Breaker
from gateway.domain.queueing import place_limits
from gateway.domain.records import EngineAddress, Provenance, Registry, Replica
from gateway.engine_look import EngineLook
from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.first_token import ask_for_a_token
from gateway.replica_state import BEARER, ReplicaState
from gateway.settings import Settings, secret_from_environment
from gateway.telemetry import Telemetry
from gateway.upstream import Headers, Upstream, parse_origin

REMOTE_INTERVAL_S = 60.0
"""Seconds between looks at a hosted API that is up, and the longest between looks at one that is not."""
MISSES = 3
"""Looks in a row that an engine which is up may leave unanswered in time before it counts as down: one that compiles
or prefills a long prompt is late, not dead. A refused connection or a wrong answer counts at once."""


class Fleet:
    """All replicas of the registry in use. `run` watches until cancelled; `apply` takes a new registry at any time."""

    def __init__(
        self, *, settings: Settings, upstream: Upstream, telemetry: Telemetry, now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._telemetry = telemetry
        self._now = now
        self._gateways = 1
        """How many share each replica's places."""
        self._engine_look = EngineLook(upstream, settings.health_timeout_s, now)
        self._states: dict[str, list[ReplicaState]] = {}
        self._without_key: set[str] = set()
        """Models none of whose APIs' keys are in the environment."""
        self._named: set[str] = set()
        """Models with names behind which replicas may come up."""
        self._watchers: dict[ReplicaState, asyncio.Task[None]] = {}
        self.on_news: Callable[[str], None] = _ignore
        """Called with a model's id after each look at one of its replicas, and when they are others than before."""
        self.on_metrics: Callable[[ReplicaState], None] = _ignore_state
        """Called after each look at an engine's metrics, whether they could be read or not."""
        self._log = structlog.get_logger("simsa.fleet")

    def states_of(self, model_id: str) -> list[ReplicaState]:
        return self._states.get(model_id, [])

    def live(self, model_id: str) -> list[ReplicaState]:
        return [state for state in self._states.get(model_id, ()) if state.is_up]

    def all_states(self) -> list[ReplicaState]:
        return [state for states in self._states.values() for state in states]

    @property
    def states(self) -> list[ReplicaState]:
        """Of all models."""
        return [state for states in self._states.values() for state in states]

    @property
    def has_live_replica(self) -> bool:
        return any(state.is_up for states in self._states.values() for state in states)

    @property
    def was_seen_through(self) -> bool:
        """Every replica was looked at once, whatever that showed."""
        return all(state.was_looked_at for states in self._states.values() for state in states)

    def reasons(self) -> dict[str, str]:
        """Why each replica that is down is so."""
        return {s.replica.id: s.reason for states in self._states.values() for s in states if not s.is_up}

    def apply(self, registry: Registry) -> None:
        """Watch this registry's replicas. An engine keeps its state, whatever else is now said of it or in which
        place of the list; gone ones are dropped.
        """
        before = [state for states in self._states.values() for state in states]
        shown = {state: state.replica.id for state in before}
        kept = _by_engine(before)
        after: dict[str, list[ReplicaState]] = {}
        self._without_key = set()
        self._named = {model.id for model in registry.routable() if model.named_replicas}
        for model in registry.routable():
            for replica in model.replicas:
                auth = _auth(replica)
                if auth is None:
                    self._without_key.add(model.id)
                    continue
                same = kept.get((model.id, replica.address))
                state = same.pop(0) if same else ReplicaState(replica, model, parse_origin(replica.url), auth)
                state.take_over(model, replica, auth, self._places_of(replica))
                after.setdefault(model.id, []).append(state)
        self._states = after
        for state in (state for same in kept.values() for state in same):
            self._drop(state)
        self._show_renamed(shown)
        for states in after.values():
            for state in states:
                self._ensure_watcher(state)
        for model_id in {state.model.id for state in before} | set(after):
            self.on_news(model_id)

    def share_with(self, gateways: int) -> None:
        """Leave as many places of each replica to each of so many gateways."""
        self._gateways = gateways
        for state in self.states:
            state.places = self._places_of(state.replica)
            self.on_news(state.model.id)

    def _places_of(self, replica: Replica) -> tuple[int, ...]:
        """This gateway's part of them, rounded up, by class."""
        most = replica.max_in_flight or self._settings.replica_max_in_flight
        return place_limits(ceil(most / self._gateways), self._settings.place_shares)

    def lacks_key(self, model_id: str) -> bool:
        """Whether the model has no replica because nobody gave the key of its API."""
        return model_id in self._without_key and not self._states.get(model_id)

    def may_find(self, model_id: str) -> bool:
        """Whether a model without any replica may have one soon: it has a name, which has no address now."""
        return model_id in self._named

    def why_none(self, model_id: str) -> str:
        """Why a model has no replica at all, in words."""
        if model_id in self._without_key:
            return "the key of its API is not in the environment"
        return "the registry lists no engine for it any more"

    def mark_down(self, state: ReplicaState, reason: str) -> None:
        """A call could not reach it: no further calls until a look finds it up, and the next look comes at once."""
        if state.is_up:
            state.doubted.set()
            due_s = state.hurried_s + self._settings.health_interval_s - self._now()
            state.is_in_doubt = due_s < self._settings.queue_wait_s
        self._take_out(state, reason)

    async def stop(self) -> None:
        watchers = list(self._watchers.values())
        self._watchers.clear()
        await end_all(watchers)

    def _ensure_watcher(self, state: ReplicaState) -> None:
        if state not in self._watchers:
            watch = keep_running("replica watch", lambda: self._watch(state), self._telemetry.count_background_failure)
            self._watchers[state] = asyncio.create_task(watch, name=f"watch {state.replica.id}")

    def _drop(self, state: ReplicaState) -> None:
        watcher = self._watchers.pop(state, None)
        if watcher is not None:
            watcher.cancel()
        self._upstream.forget(state.origin)

    def _show_renamed(self, shown: Mapping[ReplicaState, str]) -> None:
        """Take away the series of ids that are now another's or nobody's, and show what is known under the new ones."""
        renamed = [
            state
            for state, old_id in shown.items()
            if state.replica.id != old_id or state not in self.states_of(state.model.id)
        ]
        for state in renamed:
            self._telemetry.forget_replica(state.model.id, shown[state])
        for state in renamed:
            self._show(state)

    def _show(self, state: ReplicaState) -> None:
        if state in self.states_of(state.model.id):  # else its series are gone with it
            model_id, replica_id = state.model.id, state.replica.id
            self._telemetry.replica_up.labels(model_id, replica_id).set(state.is_up)
            self._telemetry.replica_breaker.labels(model_id, replica_id).set(state.breaker.is_open)

    async def _watch(self, state: ReplicaState) -> None:
        """Look, pause, look again; a call's doubt ends the pause.

        Hurried looks keep the short interval between each other, so an engine that answers looks but fails calls is
        neither looked at without pause nor given calls all the time.
        """
        short = self._settings.health_interval_s
        retry_s = short
        while True:
            state.doubted.clear()
            await self._look(state)
            if state.is_up:
                retry_s = short
                pause_s = REMOTE_INTERVAL_S if state.is_remote and not state.misses else short
            else:
                pause_s = retry_s
                if state.is_remote:
                    retry_s = max(short, min(2 * retry_s, REMOTE_INTERVAL_S))
            if await _is_set_within(state.doubted, pause_s):
                await asyncio.sleep(state.hurried_s + short - self._now())
                state.hurried_s = self._now()

    async def _look(self, state: ReplicaState) -> None:
        """Look once and note what was found; it never raises, so that one odd reply does not end the watching."""
        try:
            await self._engine_look.check(state)
            if not state.is_up and not state.is_proven:
                await self._try_out(state)
            self._bring_in(state)
            if not state.is_remote:
                await self._engine_look.read_metrics(state)
                self.on_metrics(state)
        except UpstreamTimeout as error:
            self._miss(state, error.message)
        except UpstreamError as error:
            self._find_down(state, error.message)
        except Exception as error:  # noqa: BLE001  the loop's owner
            self._telemetry.count_background_failure("look")
            self._log.exception("look failed", replica=state.replica.id)
            self._find_down(state, f"the look at the engine failed: {error}")
        if not state.doubted.is_set():  # else by a call that failed since: the next look decides
            state.is_in_doubt = False
        self.on_news(state.model.id)

    def set_breaker(self, state: ReplicaState, breaker: Breaker) -> None:
        state.breaker = breaker
        self._show(state)

    async def _try_out(self, state: ReplicaState) -> None:
        """Raise UpstreamError unless an engine that was not in use generates a token. A hosted API would bill."""
        if state.is_remote or not self._settings.probe_on_connect:
            return
        state.is_in_doubt = False  # a token may take its time in the engine's queue: nobody is to wait for it
        try:
            await ask_for_a_token(
                self._upstream,
                state.origin,
                head=state.post_head(b"/completions"),
                served_model_name=state.model.serving.served_model_name,
                connect_s=state.model.timeouts.connect_s,
                within_s=state.model.timeouts.first_token_s,
                hide_key=state.hide_key,
            )
        except UpstreamError as error:
            if error.message != state.reason:
                self._log.warning(
                    "first token failed", model=state.model.id, replica=state.replica.id, reason=error.message
                )
            raise

    def _bring_in(self, state: ReplicaState) -> None:
        if not state.is_up:
            state.forget_connection()
            self._log.info("replica up", model=state.model.id, replica=state.replica.id, provenance=state.provenance)
            state.up_since = datetime.now(UTC)
        state.is_up = state.was_looked_at = True
        state.reason = ""
        state.misses = 0
        self._show(state)

    def _miss(self, state: ReplicaState, reason: str) -> None:
        state.misses += 1
        if state.is_up and state.misses < MISSES:
            self._log.warning(
                "look missed",
                model=state.model.id,
                replica=state.replica.id,
                reason=reason,
                misses=state.misses,
            )
        else:
            self._find_down(state, f"{reason} ({state.misses} looks in a row)")

    def _find_down(self, state: ReplicaState, reason: str) -> None:
        """A look found it so: when it comes back, it starts anew."""
        self._take_out(state, reason)
        state.was_looked_at = True
        state.is_proven = False
        self.set_breaker(state, CLOSED)

    def _take_out(self, state: ReplicaState, reason: str) -> None:
        if state.is_up or state.reason != reason:
            self._log.warning("replica down", model=state.model.id, replica=state.replica.id, reason=reason)
        if state.provenance is Provenance.UNKNOWN:
            state.provenance_reason = f"it is down: {reason}"
        if state.is_up:
            state.down_since = datetime.now(UTC)
        state.is_up = False
        state.reason = reason
        self._show(state)


def _ignore(_model_id: str) -> None:
    """Nobody wants to know."""


def _ignore_state(_state: ReplicaState) -> None:
    """The same."""


def _by_engine(states: Iterable[ReplicaState]) -> dict[tuple[str, EngineAddress], list[ReplicaState]]:
    """The states by what makes a replica the same one; an engine may be listed more than once."""
    found: dict[tuple[str, EngineAddress], list[ReplicaState]] = {}
    for state in states:
        found.setdefault((state.model.id, state.replica.address), []).append(state)
    return found


async def _is_set_within(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _auth(replica: Replica) -> Headers | None:
    """Headers that open the engine; None when its key is not in the environment, so it cannot be used."""
    if replica.api_key_env is None:
        return ()
    key = secret_from_environment(replica.api_key_env)
    return ((b"authorization", BEARER + key.encode()),) if key else None
