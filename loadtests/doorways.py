"""Where a plan's requests go: the gateway's address, the engine's own, or both, with the name of each's key.

Keys themselves stay in the environment. What stands behind an address is `sighting`'s subject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.domain.records import Model, Registry, Replica
from gateway.settings import Settings
from loadtests.plan import Plan, Route, Through

OWN_KEY, ADMIN_KEY = "SIMSA_KEY", "SIMSA_ADMIN_KEY"


class TargetUnknown(Exception):
    """The plan does not say where requests go, and the registry cannot; the message says how to mend it."""


@dataclass(frozen=True, slots=True)
class Doorway:
    """One door of a plan."""

    door: str
    """gateway | direct."""
    address: str
    """Without the route's path and without a slash at its end."""
    model: str
    """As this door calls it."""
    key_variable: str | None


def doorways(
    plan: Plan, registry: Registry, settings: Settings, *, is_set: Callable[[str], bool]
) -> tuple[Doorway, ...]:
    """The plan's doors, the direct one first: so the gateway's share is measured against it. Raises TargetUnknown."""
    found = []
    if plan.target.through in (Through.DIRECT, Through.BOTH):
        found.append(_direct(plan, registry))
    if plan.target.through in (Through.GATEWAY, Through.BOTH):
        address = plan.target.gateway or f"http://{settings.host}:{settings.port}"
        key = next((name for name in (OWN_KEY, ADMIN_KEY) if is_set(name)), None)
        found.append(Doorway("gateway", address, plan.target.model, key))
    return tuple(found)


def engine_addresses(plan: Plan, registry: Registry) -> tuple[str, ...]:
    """Whose /metrics are read through the run: as the plan says, its engine, or the registry's replicas.

    Of a comparison those of its first model, whose side is measured.
    """
    if plan.target.metrics:
        return plan.target.metrics
    if plan.target.engine is not None:
        return (_root(plan.target.engine),)
    return tuple(dict.fromkeys(replica.url for replica in _replicas(registry, plan.target.model)))


def _direct(plan: Plan, registry: Registry) -> Doorway:
    model = registry.models.get(plan.target.model)
    served = plan.target.engine_model or (model.serving.served_model_name if model else plan.target.model)
    if plan.target.engine is not None:
        known = next((one for one in _replicas(registry, plan.target.model) if one.url == plan.target.engine), None)
        return Doorway("direct", _root(plan.target.engine), served, known.api_key_env if known else None)
    replicas = _replicas(registry, plan.target.model)
    if len(replicas) != 1:
        count = "no replica" if not replicas else f"{len(replicas)} replicas"
        raise TargetUnknown(
            f"target.engine: the registry has {count} of {plan.target.model}; name the engine's address in the plan"
        )
    (replica,) = replicas
    if replica.base_path != "/v1" and plan.target.route is not Route.COMPARISON:
        raise TargetUnknown(
            f"target.through: {plan.target.model} stands behind {replica.base_path}; only engines below /v1 are "
            "asked directly"
        )
    return Doorway("direct", replica.url, served, replica.api_key_env)


def _replicas(registry: Registry, name: str) -> tuple[Replica, ...]:
    model: Model | None = registry.models.get(name)
    return () if model is None else tuple(model.replicas)


def _root(address: str) -> str:
    """The engine's address without /v1, which routes carry themselves."""
    return address.removesuffix("/v1")
