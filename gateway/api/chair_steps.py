"""Steps that are taken with rounds on their pages: each is asked about once more before it is taken.

What a step makes sure of is `rounds.life`'s and `rounds.desk`'s business, here as over /api/rounds. Links of reviewers
stand in one answer only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from gateway.access import permit_roles
from gateway.api.chair_door import HOME, ChairRoute, Seat, read_seated_form, render
from gateway.api.deps import Gateway, Services
from gateway.api.review_door import first, go_to
from gateway.api.round_schemas import ClearanceIn, ExclusionIn, ReviewersIn
from gateway.api.rounds import link_object, open_to_reviewers
from gateway.domain.rounds import Round, RoundStatus
from gateway.errors import Conflict, InvalidRequest, RouteNotFound
from gateway.rounds.chair_steps import STEPS, Step
from gateway.rounds.chair_view import KINDS

router = APIRouter(prefix="/rounds", route_class=ChairRoute, include_in_schema=False)
_KEPT_FIELDS = ("labels", "stratum", "language", "reviewer", "kind", "subject", "rule", "reason", "entry")
"""What forms of steps hold, and the page that asks for confirmation holds again."""
MOST_SHOWN = 12
_NOTHING: Mapping[str, Any] = {"people": (), "count": 0, "exclusion": None, "reviewer": None, "cleared": ()}


@dataclass(frozen=True, slots=True)
class _Taking:
    """A step on its way: who takes it, with what round, by which form."""

    services: Services
    request: Request
    seat: Seat
    round: Round
    fields: Mapping[str, list[str]] = field(default_factory=dict)

    def said(self, name: str) -> str:
        return first(self.fields, name).strip()


Links = list[dict[str, Any]]
Take = Callable[[_Taking], Awaitable[Links | None]]


@router.post("/{round_id}/steps/{name}")
async def post_step(services: Gateway, request: Request, round_id: str, name: str) -> Response:
    """The first time it asks whether it is meant; with `sure` it is taken."""
    seat, fields = await read_seated_form(request, services)
    step = STEPS.get(name)
    if step is None:
        raise RouteNotFound("There is no such step.")
    permit_roles(seat.caller, step.roles)
    one = await services.rounds.life.found(round_id, seat.caller)
    if one.status not in step.statuses:
        raise Conflict(f"This cannot be done with a round that is {one.status}.", code="wrong_status")
    taking = _Taking(services, request, seat, one, fields)
    if first(fields, "sure") != "yes":
        return await _asked(taking, step)
    links = await _TAKE[name](taking)
    if links is not None:
        return render(services, request, seat, "rounds_links.html", of=one, links=links, done=step.done)
    return go_to(f"{HOME}/{quote(round_id)}?done={name}")


async def _asked(taking: _Taking, step: Step) -> Response:
    """The page that says what the step means, with the form once more."""
    kept = [(name, value) for name in _KEPT_FIELDS for value in taking.fields.get(name, ())]
    return render(
        taking.services,
        taking.request,
        taking.seat,
        "rounds_confirm.html",
        of=taking.round,
        title=taking.round.plan.title.document()[taking.seat.language],
        step=step,
        kept=kept,
        shown={**_NOTHING, **await _about(taking, step.name)},
        kinds=KINDS,
    )


async def _about(taking: _Taking, name: str) -> dict[str, Any]:
    """What the step is about, for the page that asks; raises InvalidRequest where the form is not as it should be."""
    match name:
        case "invite":
            people = _people(taking)
            return {"people": people[:MOST_SHOWN], "count": len(people)}
        case "exclude":
            return {"exclusion": _exclusion(taking)}
        case "clear":
            return {"cleared": _entries(taking)}
        case "renew" | "revoke":
            found = await taking.services.rounds.store.reviewer(taking.round.id, taking.said("reviewer"))
            if found is None:
                raise InvalidRequest("This round has no such reviewer.")
            return {"reviewer": found.label}
        case _:
            return {}


# --- taking them --------------------------------------------------------------------------------------------


async def _begin_answers(it: _Taking) -> None:
    await it.services.rounds.life.note(it.round, it.seat.caller, "answers.begin")
    await it.services.rounds.answering.begin(it.round)


async def _collect(it: _Taking) -> None:
    if not (await it.services.rounds.answering.progress(it.round)).is_over:
        raise Conflict("The answers are not all there yet.")
    await it.services.rounds.collect(it.round)
    await it.services.rounds.life.note(it.round, it.seat.caller, "answers.collect")


async def _stop(it: _Taking) -> None:
    await it.services.rounds.life.note(it.round, it.seat.caller, "answers.stop")
    await it.services.rounds.answering.cancel(it.round)


async def _invite(it: _Taking) -> Links:
    invited = await it.services.rounds.life.invite(it.round, _people(it), it.seat.caller)
    return [await link_object(it.services, it.request, it.round, reviewer) for reviewer in invited]


async def _renew(it: _Taking) -> Links:
    renewed = await it.services.rounds.life.renew_link(it.round, it.said("reviewer"), it.seat.caller)
    return [await link_object(it.services, it.request, it.round, renewed)]


async def _revoke(it: _Taking) -> None:
    await it.services.rounds.life.revoke(it.round, it.said("reviewer"), it.seat.caller)


async def _exclude(it: _Taking) -> None:
    await it.services.rounds.life.exclude(it.round, it.seat.caller, **_exclusion(it))


async def _clear(it: _Taking) -> None:
    await it.services.rounds.life.clear(it.round, _entries(it), it.seat.caller)


async def _rehearse(it: _Taking) -> None:
    await it.services.rounds.rehearse(it.round, it.seat.caller)


async def _seal(it: _Taking) -> None:
    await it.services.rounds.seal(it.round, it.seat.caller)


async def _reveal(it: _Taking) -> None:
    await it.services.rounds.life.approve_reveal(it.round, it.seat.caller)


async def _close(it: _Taking) -> None:
    await it.services.rounds.close(it.round, it.seat.caller)


async def _open(it: _Taking) -> None:
    await open_to_reviewers(it.services, it.round, it.seat.caller)


def _move(after: RoundStatus) -> Take:
    async def move(it: _Taking) -> None:
        await it.services.rounds.life.move(it.round, after, it.seat.caller)

    return move


_TAKE: Mapping[str, Take] = {
    "answers": _begin_answers,
    "collect": _collect,
    "stop": _stop,
    "invite": _invite,
    "renew": _renew,
    "revoke": _revoke,
    "exclude": _exclude,
    "clear": _clear,
    "dry-run": _rehearse,
    "seal": _seal,
    "reveal": _reveal,
    "open": _open,
    "pause": _move(RoundStatus.PAUSED),
    "close": _close,
    "archive": _move(RoundStatus.ARCHIVED),
}


def _people(it: _Taking) -> list[dict[str, str]]:
    """A reviewer for each line that is not empty, all of one stratum and language. Raises InvalidRequest."""
    labels = [label for line in first(it.fields, "labels").splitlines() if (label := line.strip())]
    common = {"stratum": it.said("stratum") or "reviewer", "language": it.said("language") or "ko"}
    try:
        asked = ReviewersIn.model_validate({"reviewers": [{"label": label, **common} for label in labels]})
    except ValidationError as error:
        raise InvalidRequest(f"reviewers: {_told(error)}") from error
    return [one.model_dump(mode="json") for one in asked.reviewers]


def _exclusion(it: _Taking) -> dict[str, str]:
    """What the form leaves out, and why. Raises InvalidRequest."""
    given = {name: it.said(name) for name in ("kind", "subject", "reason")}
    try:
        asked = ExclusionIn.model_validate({**given, "rule": it.said("rule") or "chair"})
    except ValidationError as error:
        raise InvalidRequest(_told(error)) from error
    return asked.model_dump()


def _entries(it: _Taking) -> list[int]:
    """The comments that were ticked. Raises InvalidRequest where none were."""
    try:
        return ClearanceIn.model_validate({"entries": it.fields.get("entry", [])}).entries
    except ValidationError as error:
        raise InvalidRequest(_told(error)) from error


def _told(error: ValidationError) -> str:
    first_one = error.errors()[0]
    return f"{'.'.join(str(part) for part in first_one['loc'])}: {first_one['msg']}"
