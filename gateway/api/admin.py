"""Organisations and keys over HTTP: made, listed and revoked by admins, listed by auditors.

A key's secret is in one answer only, the one that makes it; afterwards its first characters are all that anybody can
read. What keys mean is `domain.accounts`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from gateway.api.account_schemas import (
    KeyChange,
    KeyList,
    KeyOut,
    KeyRequest,
    NewKeyOut,
    OrganisationList,
    OrganisationOut,
    OrganisationRequest,
)
from gateway.api.bodies import read_json
from gateway.api.deps import DescribeKey, Gateway, RequireKey, Services, require_roles
from gateway.api.refusals import refusals
from gateway.api.schemas import body_of
from gateway.books import Use
from gateway.comparison import ROUTE as COMPARISONS
from gateway.domain.accounts import ADMINISTERING, INSPECTING, Budget, Caller, Key, Organisation, Period
from gateway.endpoints import ENDPOINTS
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/api/admin", tags=["organisations and keys"], dependencies=[RequireKey, DescribeKey])
MAY_READ, MAY_WRITE = require_roles(INSPECTING), require_roles(ADMINISTERING)


@router.get(
    "/orgs",
    summary="Organisations",
    response_model=OrganisationList,
    responses=refusals(503),
    dependencies=[MAY_READ],
)
async def list_organisations(services: Gateway) -> dict[str, Any]:
    return {"data": [_organisation(found) for found in await services.accounts.list_organisations()]}


@router.post(
    "/orgs",
    summary="Add an organisation",
    response_model=OrganisationOut,
    responses=refusals(413, 503),
    openapi_extra=body_of(OrganisationRequest),
    dependencies=[MAY_WRITE],
)
async def create_organisation(request: Request, services: Gateway) -> dict[str, Any]:
    asked = await read_json(request, services, OrganisationRequest)
    return _organisation(await services.keys.create_organisation(asked.id, asked.name))


@router.post(
    "/orgs/{organisation_id}/revoke",
    summary="End an organisation's access",
    response_model=OrganisationOut,
    responses=refusals(404, 503),
    dependencies=[MAY_WRITE],
)
async def revoke_organisation(organisation_id: str, services: Gateway) -> dict[str, Any]:
    """None of its keys counts any more. What it used stays on record."""
    return _organisation(await services.keys.revoke_organisation(organisation_id))


@router.get(
    "/keys",
    summary="Keys, without their secrets",
    response_model=KeyList,
    responses=refusals(503),
    dependencies=[MAY_READ],
)
async def list_keys(
    services: Gateway, organisation: Annotated[str | None, Query(description="Only this one's.")] = None
) -> dict[str, Any]:
    return {"data": [await _key(services, key) for key in await services.accounts.list_keys(organisation)]}


@router.post(
    "/keys",
    summary="Make a key",
    response_model=NewKeyOut,
    responses=refusals(404, 413, 503),
    openapi_extra=body_of(KeyRequest),
    dependencies=[MAY_WRITE],
)
async def create_key(request: Request, services: Gateway) -> dict[str, Any]:
    """The answer is the only place where the secret is ever shown."""
    asked = await read_json(request, services, KeyRequest)
    _refuse_unknown(asked, services)
    key, secret = await services.keys.create_key(asked.organisation, asked.name, asked.terms(), asked.expires_at)
    return {**await _key(services, key), "secret": secret}


@router.patch(
    "/keys/{key_id}",
    summary="Change what a key says",
    response_model=KeyOut,
    responses=refusals(404, 413, 503),
    openapi_extra=body_of(KeyChange),
    dependencies=[MAY_WRITE],
)
async def change_key(key_id: str, request: Request, services: Gateway) -> dict[str, Any]:
    """The secret stays, and so does what was used. The change counts from the next call on."""
    asked = await read_json(request, services, KeyChange)
    _refuse_unknown(asked, services)

    def change(key: Key) -> Key:
        if key.revoked_at is not None:
            raise InvalidRequest(f"'{key.id}' is revoked: make a new key.", param="key_id")
        return asked.applied(key)

    return await _key(services, await services.keys.change_key(key_id, change))


@router.post(
    "/keys/{key_id}/revoke",
    summary="Revoke a key",
    response_model=KeyOut,
    responses=refusals(404, 503),
    dependencies=[MAY_WRITE],
)
async def revoke_key(key_id: str, services: Gateway) -> dict[str, Any]:
    """It does not count from now on; calls in flight end as they would."""
    return await _key(services, await services.keys.revoke_key(key_id))


def _refuse_unknown(asked: KeyRequest | KeyChange, services: Services) -> None:
    """A misspelt scope would shut out its owner, or let in more than was meant; so would an end that is over."""
    if asked.expires_at is not None and asked.expires_at <= datetime.now(UTC):
        raise InvalidRequest(f"'expires_at' ({asked.expires_at}) is over already", param="expires_at")
    models = services.registry.current.models
    licences = {model.licence.id for model in models.values() if model.licence.id is not None}
    routes = {endpoint.name for endpoint in ENDPOINTS.values()} | {COMPARISONS}
    _known(asked.models or (), models, "models", "model")
    _known(asked.routes or (), routes, "routes", "route")
    _known(asked.licences or (), licences | set(models), "licences", "licence")


def _known(names: Collection[str], known: Collection[str], param: str, what: str) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(name[:200], known, n=3) or sorted(known)[:20]
            raise InvalidRequest(
                f"{param}: there is no {what} '{name[:200]}'; known are {', '.join(near)}", param=param
            )


def _organisation(found: Organisation) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "created_at": found.created_at.isoformat(),
        "revoked_at": _text(found.revoked_at),
    }


async def _key(services: Services, key: Key) -> dict[str, Any]:
    terms = key.terms
    use = await services.dispatcher.limiter.books.use(key.id)
    is_over = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    return {
        "id": key.id,
        "organisation": key.organisation,
        "name": key.name,
        "prefix": key.prefix,
        "status": "revoked" if key.revoked_at is not None else "expired" if is_over else "active",
        "created_at": key.created_at.isoformat(),
        "expires_at": _text(key.expires_at),
        "revoked_at": _text(key.revoked_at),
        "roles": sorted(terms.roles),
        "models": _sorted(terms.models),
        "routes": _sorted(terms.routes),
        "licences": sorted(terms.licences),
        "models_without_licence": _without_licence(services, key),
        "priority": terms.priority,
        "may_set_priority": terms.may_set_priority,
        "may_use_background": terms.may_use_background,
        "limits": {
            "requests_per_min": terms.limits.requests_per_min,
            "tokens_per_min": terms.limits.tokens_per_min,
            "concurrent": terms.limits.concurrent,
            "default_max_tokens": terms.limits.default_max_tokens,
            "budgets": [_budget(budget, use) for budget in terms.limits.budgets],
        },
        "in_flight": use.in_flight if use is not None else 0,
        "calls_without_cost_this_month": use.month.unpriced if use is not None else 0,
    }


def _without_licence(services: Services, key: Key) -> list[str]:
    """Models with an engine that the key's scope names and its licences do not."""
    caller, scope = Caller(key.id, key.organisation, key.terms), key.terms.models
    models = services.registry.current.routable()
    return sorted(m.id for m in models if (scope is None or m.id in scope) and caller.lacks_licence(m))


def _budget(budget: Budget, use: Use | None) -> dict[str, Any]:
    spent = held = Decimal(0)
    if use is not None:
        period = use.day if budget.period is Period.DAY else use.month
        spent, held = Decimal(period.spent.get(budget.unit, 0)), Decimal(period.held.get(budget.unit, 0))
    shown = {"amount": budget.amount, "spent": spent, "reserved": held}
    return {
        "period": budget.period,
        "unit": budget.unit,
        **{name: f"{value.normalize():f}" for name, value in shown.items()},
    }


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
