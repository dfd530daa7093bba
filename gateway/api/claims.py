"""What is claimed of the candidates and what is known about it; an assessor's own claims, checked and not kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from gateway.access import permit_roles
from gateway.api.bodies import read_json
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, Services
from gateway.api.refusals import refusals
from gateway.api.schemas import Asked, body_of
from gateway.claim_checks import EvidenceOf, check_claims, claim_object, registry_claims, shown_by
from gateway.domain.accounts import CALLING, OVERSEEING
from gateway.domain.claims import ClaimVerdict
from gateway.domain.engine_evidence import speaks_to
from gateway.domain.records import Registry
from gateway.engine_sightings import engines_by_model
from gateway.errors import InvalidRequest, NotFound, RegistryInvalid, Unavailable
from gateway.registry.claims_file import MOST_CLAIMS, StatedClaim, parse_claims
from loadtests.run_evidence import is_tested

router = APIRouter(prefix="/api/claims", tags=["claims"], dependencies=[RequireKey, DescribeKey])


class ClaimVerdictOut(BaseModel):
    """One claim and its verdict, with everything that led to it."""

    model: str | None = Field(description="null where the claim is about a consortium.")
    consortium: str | None
    claim: dict[str, Any] = Field(description="As it is stated; what it does not say is null.")
    verdict: ClaimVerdict
    reasons: list[str] = Field(description="The deciding one first.")
    margin: float | None = Field(
        description="By which share of the claimed value, or of the memory, it is met (above 0) or missed (below 0)."
    )
    holds_for: str | None = Field(description="What exactly holds, where the verdict is holds.")
    left_open: list[str] = Field(description="What the verdict does not say, and what would settle it.")
    derivation: list[str] = Field(description="Formulas with their numbers and sources, a line each.")
    evidence: list[dict[str, Any]]
    confidence: Literal["high", "medium", "low"] | None = Field(description="The lowest among the facts used.")


class ClaimsOut(BaseModel):
    registry_sha256: str
    left_out: str | None = Field(description="Evidence that could not be looked at, and why; null where all could.")
    data: list[ClaimVerdictOut]


class ClaimsRequest(Asked):
    """Claims of an assessor's own: each names `model` or `consortium`, `metric`, and its figures as in the registry."""

    claims: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_CLAIMS, description="See docs/claims.en.md.")
    gpu: str | None = Field(None, max_length=128, description="The GPU to take where a claim names none.")


@router.get("", summary="Every claim with its verdict", response_model=ClaimsOut, responses=refusals(404))
async def list_claims(
    services: Gateway,
    caller: CheckedCaller,
    model: Annotated[str | None, Query(description="Only about this model.")] = None,
    consortium: Annotated[str | None, Query(description="Only about this one and its models.")] = None,
    verdict: Annotated[ClaimVerdict | None, Query(description="Only with this verdict.")] = None,
    gpu: Annotated[str | None, Query(description="The GPU to take where a claim names none.")] = None,
) -> dict[str, Any]:
    """By arithmetic over registry facts, by what engines of the model resolved at start and showed under a load that
    filled them, and by the model's kept load runs. Only a real engine on a named GPU supports a claim; others are
    listed, with the reason."""
    permit_roles(caller, CALLING | OVERSEEING)
    registry = services.registry.current
    if model is not None and model not in registry.models:
        raise NotFound(f"There is no model '{model[:128]}'. See GET /api/models.", param="model")
    if consortium is not None and consortium not in registry.consortia:
        known = ", ".join(sorted(registry.consortia)) or "none"
        raise NotFound(f"There is no consortium '{consortium[:128]}': known are {known}.", param="consortium")
    _known_gpu(registry, gpu)
    stated = registry_claims(registry, about=None if consortium is None else {consortium})
    asked = [one for one in stated if model in (None, one.about)]
    shown, left_out = await _evidence(asked, services, registry)
    found = await services.long_work.run(lambda: check_claims(asked, registry, gpu=gpu, evidence_of=shown))
    chosen = [one for one in found if verdict in (None, one.verdict)]
    data = [claim_object(one, registry) for one in chosen]
    return {"registry_sha256": registry.sha256, "left_out": left_out, "data": data}


@router.post(
    "",
    summary="Check claims without keeping them",
    response_model=ClaimsOut,
    responses=refusals(413, 503),
    openapi_extra=body_of(ClaimsRequest),
)
async def check_stated_claims(request: Request, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """All mistakes are told at once, each with its field and what would be right; then nothing is checked."""
    permit_roles(caller, CALLING | OVERSEEING)
    asked = await read_json(request, services, ClaimsRequest)
    registry = services.registry.current
    _known_gpu(registry, asked.gpu)
    stated = await services.long_work.run(lambda: _stated(asked, registry))
    shown, left_out = await _evidence(stated, services, registry)
    found = await services.long_work.run(lambda: check_claims(stated, registry, gpu=asked.gpu, evidence_of=shown))
    data = [claim_object(one, registry) for one in found]
    return {"registry_sha256": registry.sha256, "left_out": left_out, "data": data}


async def _evidence(
    stated: Iterable[StatedClaim], services: Services, registry: Registry
) -> tuple[EvidenceOf, str | None]:
    """Looked up once for all claims that an engine or a load run can speak to; and what could not be looked at.

    Arithmetic and live engines speak without the database.
    """
    models = {one.about for one in stated if speaks_to(one.claim)}
    if models:
        await services.engine_diary.flush()
    seen = await engines_by_model(models, registry, services.fleet.all_states(), services.engine_records)
    tested = {one.about for one in stated if is_tested(one.claim)} & registry.models.keys()
    weights = {name: registry.models[name].weights.repo for name in tested}
    try:
        return shown_by(seen, await services.load_runs.findings_of(weights)), None
    except Unavailable:
        return shown_by(seen, {}), "The database is away: stored engines and load runs were not looked at."


def _stated(asked: ClaimsRequest, registry: Registry) -> list[StatedClaim]:
    body = json.dumps({"claims": asked.claims}, ensure_ascii=False).encode()  # JSON is YAML
    try:
        return parse_claims(body, path="body", registry=registry)
    except RegistryInvalid as error:
        told = "; ".join(line.removeprefix("body: ").removesuffix(" (line 1)") for line in error.problems)
        raise InvalidRequest(told, param="claims") from error


def _known_gpu(registry: Registry, gpu: str | None) -> None:
    if gpu is not None and gpu not in registry.gpus:
        known = ", ".join(sorted(registry.gpus)) or "none"
        raise InvalidRequest(f"There is no GPU '{gpu[:128]}': known are {known}.", param="gpu")
