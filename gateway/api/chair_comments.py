"""The page on which those who run a round read what reviewers wrote, and choose what public bundles may show.

What looks like personal data is marked and cannot be chosen. Clearing is a step like others: `chair_steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.api.chair_door import ChairRoute, render, seat_of
from gateway.api.deps import Gateway
from gateway.rounds.chair_steps import STEPS
from gateway.rounds.chair_view import moment
from gateway.rounds.clearing import Comment
from gateway.web import word

router = APIRouter(prefix="/rounds", route_class=ChairRoute, include_in_schema=False)
MOST_SHOWN = 200
"""Comments on one page."""
FIELDS: Mapping[str, str] = {"reason": word("Why it cannot be judged"), "comment": word("Comment")}
DATA_KINDS: Mapping[str, str] = {
    "resident_number": word("resident number"),
    "foreigner_number": word("foreigner number"),
    "phone": word("telephone number"),
    "passport": word("passport number"),
    "driving_licence": word("driving licence number"),
    "email": word("e-mail address"),
    "card": word("card number"),
}


@router.get("/{round_id}/comments")
async def get_comments(services: Gateway, request: Request, round_id: str, after: int = 0) -> Response:
    """Those behind entry `after`, as many as a page holds."""
    seat = seat_of(request, services)
    one = await services.rounds.life.found(round_id, seat.caller)
    found = await services.rounds.life.comments(one, seat.caller)
    ahead = [comment for comment in found if comment.number > after]
    return render(
        services,
        request,
        seat,
        "rounds_comments.html",
        of=one,
        title=one.plan.title.document()[seat.language],
        rows=[_row(comment) for comment in ahead[:MOST_SHOWN]],
        count=len(found),
        cleared=sum(1 for comment in found if comment.clearance is not None),
        following=ahead[MOST_SHOWN - 1].number if len(ahead) > MOST_SHOWN else None,
        may_clear=STEPS["clear"].is_for(one, seat.caller),
    )


def _row(one: Comment) -> dict[str, Any]:
    return {
        "entry": one.number,
        "reviewer": one.reviewer,
        "words": [(FIELDS[name], text) for name, text in one.words.items()],
        "findings": [(DATA_KINDS[found.kind], found.masked) for found in one.findings],
        "cleared": moment(one.clearance.at) if one.clearance is not None else None,
        "by": one.clearance.by if one.clearance is not None else None,
    }
