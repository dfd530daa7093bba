"""Blind review rounds over HTTP, for those who run them: plan, answers, seal, open, watch, close, reveal.

Reviewers never come here: their side is `review`, which knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from gateway.access import permit_roles
from gateway.api.bodies import read_json
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, Services, require_roles
from gateway.api.refusals import refusals
from gateway.api.round_schemas import (
    ExclusionIn,
    LinkList,
    LinkOut,
    PlanIn,
    RevealOut,
    ReviewersIn,
    RoundList,
    RoundOut,
)
from gateway.api.schemas import body_of
from gateway.domain.accounts import Caller
from gateway.domain.rounds import AFTER_CLOSING, AFTER_REVEAL, Reviewer, Round, RoundStatus, plan_document
from gateway.errors import Conflict, ModelNotFound
from gateway.near_names import no_such
from gateway.review_address import warn_of_shared_address
from gateway.rounds.life import LEADING, OPERATING, READING, REVEAL
from gateway.rounds.links import LINK_KEY, link_path, make_token
from gateway.rounds.views import (
    access_object,
    answering_object,
    exclusion_object,
    progress_object,
    round_object,
    without_models,
)

router = APIRouter(prefix="/api/rounds", tags=["blind review rounds"], dependencies=[RequireKey, DescribeKey])
MAY_READ, MAY_LEAD, MAY_OPERATE = require_roles(READING), require_roles(LEADING), require_roles(OPERATING)


@router.post(
    "",
    summary="Draft a round",
    status_code=201,
    response_model=RoundOut,
    responses=refusals(404, 409, 413, 503),
    openapi_extra=body_of(PlanIn),
    dependencies=[MAY_LEAD],
)
async def create_round(request: Request, services: Gateway, caller: CheckedCaller) -> Any:
    """Everything of the plan is fixed when the round is sealed; until its answers are asked for it can be replaced."""
    asked = await read_json(request, services, PlanIn)
    _require_models(services, asked.models)
    return await _shown(services, await services.rounds.life.create(asked.name, asked.plan(), caller))


@router.get("", summary="Rounds, newest first", response_model=RoundList, responses=refusals(503))
async def list_rounds(
    services: Gateway,
    caller: CheckedCaller,
    limit: Annotated[int, Query(ge=1, le=100, description="Rounds at most.")] = 20,
) -> dict[str, Any]:
    permit_roles(caller, READING)
    found = await services.rounds.store.newest(limit, organisation=caller.own_only)
    return {"data": [await _shown(services, one) for one in found]}


@router.get(
    "/{round_id}",
    summary="How a round stands",
    response_model=RoundOut,
    responses=refusals(404, 503),
    dependencies=[MAY_READ],
)
async def get_round(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    return await _shown(services, await services.rounds.life.found(round_id, caller))


@router.get("/{round_id}/plan", summary="A round's plan", responses=refusals(404, 503), dependencies=[MAY_LEAD])
async def get_plan(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    return plan_document((await services.rounds.life.found(round_id, caller)).plan)


@router.put(
    "/{round_id}/plan",
    summary="Replace the plan of a draft",
    response_model=RoundOut,
    responses=refusals(404, 409, 413, 503),
    openapi_extra=body_of(PlanIn),
    dependencies=[MAY_LEAD],
)
async def replace_plan(round_id: str, request: Request, services: Gateway, caller: CheckedCaller) -> Any:
    """Only while nothing was asked of any model for it. The name stays as it is."""
    asked = await read_json(request, services, PlanIn)
    one = await services.rounds.life.found(round_id, caller)
    _require_models(services, asked.models)
    return await _shown(services, await services.rounds.life.replace_plan(one, asked.plan(), caller))


# --- answers ------------------------------------------------------------------------------------------------


@router.post(
    "/{round_id}/answers",
    summary="Have the answers made",
    responses=refusals(404, 409, 503),
    dependencies=[MAY_OPERATE],
)
async def begin_answers(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Every model answers every prompt through a comparison, in the class of batches. Again: failures that pass are
    asked once more. After a restart it goes on by itself."""
    one = _draft(await services.rounds.life.found(round_id, caller))
    await services.rounds.life.note(one, caller, "answers.begin")
    return answering_object(await services.rounds.answering.begin(one), await services.rounds.store.answers(one.id))


@router.get(
    "/{round_id}/answers",
    summary="How far the answers are",
    responses=refusals(404, 503),
    dependencies=[MAY_LEAD],
)
async def get_answers(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Counts only; a chair sees no model's failures before the reveal."""
    one = await services.rounds.life.found(round_id, caller)
    progress = await services.rounds.answering.progress(one)
    shown = answering_object(progress, await services.rounds.store.answers(one.id))
    return shown if caller.has_any(OPERATING) else without_models(shown)


@router.post(
    "/{round_id}/answers/collect",
    summary="Redact and keep what came",
    responses=refusals(404, 409, 503),
    dependencies=[MAY_OPERATE],
)
async def collect_answers(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """May be repeated until the round is sealed. A model without an answer is never replaced by another: the pairs
    that need it are put aside."""
    one = _draft(await services.rounds.life.found(round_id, caller))
    progress = await services.rounds.answering.progress(one)
    if not progress.is_over:
        raise Conflict("The answers are not all there yet: GET this round's answers tells how far they are.")
    answers = await services.rounds.collect(one)
    await services.rounds.life.note(one, caller, "answers.collect")
    return answering_object(progress, answers)


@router.delete(
    "/{round_id}/answers", summary="Stop asking", responses=refusals(404, 409, 503), dependencies=[MAY_OPERATE]
)
async def stop_answers(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    one = _draft(await services.rounds.life.found(round_id, caller))
    await services.rounds.life.note(one, caller, "answers.stop")
    return answering_object(await services.rounds.answering.cancel(one), await services.rounds.store.answers(one.id))


# --- reviewers ----------------------------------------------------------------------------------------------


@router.post(
    "/{round_id}/reviewers",
    summary="Invite reviewers",
    status_code=201,
    response_model=LinkList,
    responses=refusals(404, 409, 413, 503),
    openapi_extra=body_of(ReviewersIn),
    dependencies=[MAY_LEAD],
)
async def invite_reviewers(round_id: str, request: Request, services: Gateway, caller: CheckedCaller) -> Any:
    """Each gets a link of their own, which is in this answer only: a new one can be made, an old one not be read."""
    asked = await read_json(request, services, ReviewersIn)
    one = _draft(await services.rounds.life.found(round_id, caller))
    people = [reviewer.model_dump(mode="json") for reviewer in asked.reviewers]
    invited = await services.rounds.life.invite(one, people, caller)
    return {"data": [await link_object(services, request, one, reviewer) for reviewer in invited]}


@router.get(
    "/{round_id}/progress",
    summary="How far the reviewers are",
    responses=refusals(404, 503),
    dependencies=[MAY_LEAD],
)
async def get_progress(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """By reviewer and stratum, with what was put aside and why; never what anybody chose."""
    one = await services.rounds.life.found(round_id, caller)
    store = services.rounds.store
    return progress_object(
        await store.reviewers(one.id),
        await store.items(one.id),
        await store.votes(one.id),
        await store.exclusions(one.id),
        now=datetime.now(UTC),
    )


@router.post(
    "/{round_id}/reviewers/{reviewer_id}/link",
    summary="Make a reviewer a new link",
    response_model=LinkOut,
    responses=refusals(404, 503),
    dependencies=[MAY_LEAD],
)
async def renew_link(
    round_id: str, reviewer_id: str, request: Request, services: Gateway, caller: CheckedCaller
) -> dict[str, Any]:
    """All older links of theirs are void from now on, and their session ends. What they judged stays."""
    one = await services.rounds.life.found(round_id, caller)
    renewed = await services.rounds.life.renew_link(one, reviewer_id, caller)
    return await link_object(services, request, one, renewed)


@router.delete(
    "/{round_id}/reviewers/{reviewer_id}",
    summary="Let a reviewer in no more",
    status_code=204,
    responses=refusals(404, 503),
    dependencies=[MAY_LEAD],
)
async def revoke_reviewer(round_id: str, reviewer_id: str, services: Gateway, caller: CheckedCaller) -> Response:
    """What they judged stays and counts: to leave it out, exclude them, with the reason."""
    await services.rounds.life.revoke(await services.rounds.life.found(round_id, caller), reviewer_id, caller)
    return Response(status_code=204)


@router.get(
    "/{round_id}/exclusions", summary="What does not count", responses=refusals(404, 503), dependencies=[MAY_READ]
)
async def list_exclusions(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    one = await services.rounds.life.found(round_id, caller)
    return {"data": [exclusion_object(each) for each in await services.rounds.store.exclusions(one.id)]}


@router.post(
    "/{round_id}/exclusions",
    summary="Leave something out of the result",
    status_code=201,
    responses=refusals(404, 409, 413, 503),
    openapi_extra=body_of(ExclusionIn),
    dependencies=[MAY_LEAD],
)
async def exclude(round_id: str, request: Request, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """A reviewer, an item or a prompt, with rule and reason, which the audit bundle shows. Not after closing."""
    asked = await read_json(request, services, ExclusionIn)
    one = await services.rounds.life.found(round_id, caller)
    return exclusion_object(await services.rounds.life.exclude(one, caller, **asked.model_dump()))


@router.get(
    "/{round_id}/access", summary="Who did and read what", responses=refusals(404, 409, 503), dependencies=[MAY_READ]
)
async def list_accesses(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """For those who lead a round at any time, for an auditor once it is closed."""
    one = await services.rounds.life.found(round_id, caller)
    if one.status not in AFTER_CLOSING and not caller.has_any(LEADING):
        raise Conflict("An auditor sees everything of a round once it is closed.", code="wrong_status")
    return {"data": [access_object(each) for each in await services.rounds.store.accesses(one.id)]}


# --- steps --------------------------------------------------------------------------------------------------


@router.post(
    "/{round_id}/seal",
    summary="Fix everything and publish the commitment",
    response_model=RoundOut,
    responses=refusals(404, 409, 503),
    dependencies=[MAY_LEAD],
)
async def seal_round(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Draws the queues from a fresh seed. Needs answers, reviewers, and a dry run that passed on this very draft."""
    one = await services.rounds.life.found(round_id, caller)
    return await _shown(services, await services.rounds.seal(one, caller))


@router.post(
    "/{round_id}/dry-run",
    summary="Rehearse the round with made-up votes",
    response_model=RoundOut,
    responses=refusals(404, 409, 503),
    dependencies=[MAY_LEAD],
)
async def dry_run(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Made-up votes go through export, import and verification, without touching the round."""
    one = _draft(await services.rounds.life.found(round_id, caller))
    return await _shown(services, await services.rounds.rehearse(one, caller))


@router.post(
    "/{round_id}/reveal",
    summary="Approve that the names are opened",
    response_model=RevealOut,
    responses=refusals(404, 409, 503),
    dependencies=[MAY_LEAD],
)
async def reveal_round(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """It takes two people: a chair and an operator, each with a key of their own."""
    one = await services.rounds.life.found(round_id, caller)
    after, missing = await services.rounds.life.approve_reveal(one, caller)
    return {"round": await _shown(services, after), "missing": missing}


@router.post(
    "/{round_id}/open",
    summary="Open a sealed or paused round",
    response_model=RoundOut,
    responses=refusals(404, 409, 503),
    dependencies=[MAY_LEAD],
)
async def open_round(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Reviewers may judge from now on."""
    one = await services.rounds.life.found(round_id, caller)
    return await _shown(services, await open_to_reviewers(services, one, caller))


@router.post(
    "/{round_id}/pause",
    summary="Pause an open round",
    response_model=RoundOut,
    responses=refusals(404, 409, 503),
    dependencies=[MAY_LEAD],
)
async def pause_round(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Reviewers see that it rests; what they wrote stays. Opening it again goes on."""
    one = await services.rounds.life.found(round_id, caller)
    return await _shown(services, await services.rounds.life.move(one, RoundStatus.PAUSED, caller))


@router.post(
    "/{round_id}/close",
    summary="Close a round",
    response_model=RoundOut,
    responses=refusals(404, 409, 503),
    dependencies=[MAY_LEAD],
)
async def close_round(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Publishes the chain's head and the closing root; nothing is judged or excluded afterwards."""
    one = await services.rounds.life.found(round_id, caller)
    return await _shown(services, await services.rounds.close(one, caller))


@router.post(
    "/{round_id}/archive",
    summary="Archive a revealed round",
    response_model=RoundOut,
    responses=refusals(404, 409, 503),
    dependencies=[MAY_LEAD],
)
async def archive_round(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """It can be read as before, and nothing of it changes any more."""
    one = await services.rounds.life.found(round_id, caller)
    return await _shown(services, await services.rounds.life.move(one, RoundStatus.ARCHIVED, caller))


# --- small parts --------------------------------------------------------------------------------------------


async def _shown(services: Services, one: Round) -> dict[str, Any]:
    desk = services.rounds
    return round_object(
        one,
        reviewers=await desk.store.count_reviewers(one.id),
        closing=await desk.closing(one),
        approvals=await desk.store.approvals(one.id, REVEAL) if one.status in AFTER_REVEAL else (),
    )


async def open_to_reviewers(services: Services, one: Round, caller: Caller) -> Round:
    """Open a round, and tell the operator where its reviewers can reach more than their pages."""
    opened = await services.rounds.life.move(one, RoundStatus.OPEN, caller)
    warn_of_shared_address(services.settings, opened.name)
    return opened


async def link_object(services: Services, request: Request, one: Round, reviewer: Reviewer) -> dict[str, Any]:
    """A reviewer with their link, under reviewers' own address or else the one that people call the gateway by."""
    expires_at = datetime.now(UTC) + timedelta(days=services.settings.review_link_days)
    key = (await services.rounds.store.secrets(one.id))[LINK_KEY]
    settings = services.settings
    base = (settings.review_url or settings.public_url or str(request.base_url)).rstrip("/")
    path = link_path(make_token(key, one.id, reviewer, expires_at=expires_at))
    return {
        "id": reviewer.id,
        "label": reviewer.label,
        "stratum": reviewer.stratum,
        "link": base + path,
        "expires_at": expires_at.isoformat(),
    }


def _draft(one: Round) -> Round:
    if one.status is not RoundStatus.DRAFT:
        raise Conflict(f"This is done while a round is a draft; this one is {one.status}.", code="wrong_status")
    return one


def _require_models(services: Services, models: Sequence[str]) -> None:
    known = services.registry.current.models
    for model in models:
        if model not in known:
            raise ModelNotFound(no_such("model", model, known), param="models")
