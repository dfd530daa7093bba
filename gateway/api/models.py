"""Which models there are: the OpenAI list of what answers now, and our own list of every candidate with its reasons."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from gateway.access import permit_model, permit_roles
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, Services
from gateway.api.refusals import refusals
from gateway.domain.accounts import CALLING, OVERSEEING
from gateway.domain.records import Model, NamedReplicas, Provenance
from gateway.errors import ModelNotFound
from gateway.model_lookup import find_model
from gateway.replica_state import ReplicaState

router = APIRouter(dependencies=[RequireKey, DescribeKey])


@router.get("/v1/models", tags=["openai"], summary="Models that answer now", responses=refusals())
async def list_models(services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Those that the caller's key may call; whose role calls none by name, a reviewer's say, sees none."""
    entries = [
        _openai_entry(services, model, live)
        for model in services.registry.current.routable()
        if caller.calls_models and caller.may_call(model) and (live := services.fleet.live(model.id))
    ]
    return {"object": "list", "data": entries}


@router.get(
    "/v1/models/{model_id:path}", tags=["openai"], summary="One model that answers now", responses=refusals(404)
)
async def get_model(model_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    model = find_model(services.registry.current, services.fleet, caller, model_id)
    permit_model(caller, model)
    live = services.fleet.live(model.id)
    if not live:
        raise ModelNotFound(f"No live replica serves '{model_id}' at the moment.", param="model")
    return _openai_entry(services, model, live)


@router.get(
    "/api/models",
    tags=["models"],
    summary="Every candidate of the registry, servable or not",
    responses=refusals(),
)
async def list_candidates(services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Replicas with their load and troubles are shown to operators, auditors and admins only."""
    permit_roles(caller, CALLING | OVERSEEING)
    registry = services.registry.current
    sees_replicas = caller.has_any(OVERSEEING)
    return {
        "as_of": registry.as_of,
        "registry_sha256": registry.sha256,
        "data": [_candidate(services, model, sees_replicas=sees_replicas) for model in registry.models.values()],
    }


def _openai_entry(services: Services, model: Model, live: list[ReplicaState]) -> dict[str, Any]:
    lengths = [state.max_model_len for state in live if state.max_model_len is not None]
    released = model.released
    created = int(datetime(released.year, released.month, released.day, tzinfo=UTC).timestamp()) if released else 0
    return {
        "id": model.id,
        "object": "model",
        "created": created,
        "owned_by": model.consortium_id or "simsa",
        "root": live[0].root,
        "max_model_len": min(lengths) if lengths else None,
        "simsa": {
            "name": model.name,
            "consortium": _consortium(services, model),
            "provenance": _provenance(live),
            "simulated": any(state.provenance is Provenance.SIMULATED for state in live),
            "licence": _licence(model),
            "replicas": len(live),
        },
    }


def _candidate(services: Services, model: Model, *, sees_replicas: bool) -> dict[str, Any]:
    states = services.fleet.states_of(model.id)
    live = [state for state in states if state.is_up]
    return {
        "id": model.id,
        "name": model.name,
        "consortium": _consortium(services, model),
        "serving": model.serving.kind.value,
        "answers_now": bool(live),
        "reason": None if live else _why_silent(services, model, states, sees_replicas=sees_replicas),
        "provenance": _provenance(live),
        "replicas": [
            {
                "id": state.replica.id,
                "up": state.is_up,
                "reason": state.reason or None,
                "provenance": state.provenance.value,
                "provenance_reason": state.provenance_reason,
                "in_flight": state.in_flight,
                "max_in_flight": state.places[0],
                "left_alone": state.breaker.is_open,
                "gpu": state.replica.gpu,
            }
            for state in states
        ]
        if sees_replicas
        else None,
        "replica_names": [_name(services, named) for named in model.named_replicas] if sees_replicas else None,
        "licence": _licence(model),
        "capabilities": sorted(model.capabilities),
        "rates": _published_rates(model),
        "context": model.shape.context if model.shape else None,
        "params": model.shape.params if model.shape else None,
    }


def _published_rates(model: Model) -> dict[str, int | None] | None:
    """What a hosted API lets its lowest tier ask for, where that is known; the gateway does not enforce it."""
    adapter = model.serving.adapter
    if adapter is None:
        return None
    return {"requests_per_min": adapter.requests_per_min, "tokens_per_min": adapter.tokens_per_min}


def _name(services: Services, named: NamedReplicas) -> dict[str, Any]:
    """A name whose addresses are replicas: which it has now, and what is wrong with it."""
    return {
        "dns": named.name,
        "port": named.port,
        "addresses": services.names.addresses_of(named.name),
        "problem": services.names.problem_of(named.name),
    }


def _why_silent(services: Services, model: Model, states: list[ReplicaState], *, sees_replicas: bool) -> str:
    """Why a listed model does not answer now, in words."""
    if not model.is_servable:
        return model.serving.reason or "nothing serves it"
    if states and sees_replicas:
        return "; ".join(f"{state.replica.id}: {state.reason}" for state in states)
    if states or model.named_replicas:
        problems = [services.names.problem_of(named.name) for named in model.named_replicas] if sees_replicas else []
        return "; ".join(problem for problem in problems if problem) or "no engine of it answers at the moment"
    if model.replicas:
        return "the key of its API is not in the environment"
    return "no engine is configured for it"


def _consortium(services: Services, model: Model) -> dict[str, str] | None:
    consortium = services.registry.current.consortia.get(model.consortium_id or "")
    if consortium is None:
        return None
    return {"id": consortium.id, "name_ko": consortium.name_ko, "name_en": consortium.name_en}


def _provenance(live: list[ReplicaState]) -> str:
    """The replicas' common provenance; unknown where they differ, because nobody can say which one answers."""
    kinds = {state.provenance for state in live}
    return kinds.pop().value if len(kinds) == 1 else Provenance.UNKNOWN.value


def _licence(model: Model) -> dict[str, Any]:
    return {"id": model.licence.id, "commercial": model.licence.commercial, "notice": model.licence.notice}
