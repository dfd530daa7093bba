"""What reviewers of a closed round wrote in their own words, over HTTP, and which of it public bundles may show.

What looks like personal data is decided in `rounds.clearing`, what a bundle shows in `rounds.bundle`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from gateway.api.bodies import read_json
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, require_roles
from gateway.api.refusals import refusals
from gateway.api.round_schemas import ClearanceIn, ClearanceList, CommentList
from gateway.api.schemas import body_of
from gateway.rounds.life import LEADING, READING
from gateway.rounds.views import clearance_object, comment_object

router = APIRouter(prefix="/api/rounds", tags=["blind review rounds"], dependencies=[RequireKey, DescribeKey])


@router.get(
    "/{round_id}/comments",
    summary="What reviewers wrote, with what looks like personal data",
    response_model=CommentList,
    responses=refusals(404, 409, 503),
    dependencies=[require_roles(READING)],
)
async def list_comments(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """The free words of each item's last revision, and which of them are cleared. Not before the round is closed."""
    one = await services.rounds.life.found(round_id, caller)
    return {"data": [comment_object(each) for each in await services.rounds.life.comments(one, caller)]}


@router.post(
    "/{round_id}/clearances",
    summary="Let comments into public bundles",
    status_code=201,
    response_model=ClearanceList,
    responses=refusals(404, 409, 413, 503),
    openapi_extra=body_of(ClearanceIn),
    dependencies=[require_roles(LEADING)],
)
async def clear_comments(round_id: str, request: Request, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """For good, each noted with who and when. Those that were not cleared before are in the answer."""
    asked = await read_json(request, services, ClearanceIn)
    one = await services.rounds.life.found(round_id, caller)
    return {"data": [clearance_object(each) for each in await services.rounds.life.clear(one, asked.entries, caller)]}
