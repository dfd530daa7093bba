"""The reviewers' pages: from a link to a receipt, by /review/* alone.

Only what is named here reaches a reviewer: prompts, slots A and B with their texts, the reviewer's own judgements.
Models, calls and timings do not come near these templates. The script's one route is `…/judgement`: it takes
`{form, judgement, base_revision}` and answers `{revision, complete}`, or 409 with the revision that came in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from gateway.api.deps import Gateway, Services
from gateway.api.review_door import (
    COOKIE,
    NoSession,
    ReviewRoute,
    accepted_language,
    address_of,
    first,
    go_to,
    json_answer,
    keep_session,
    page,
    read_fields,
    read_visited_form,
    read_visited_json,
    report_answer,
    same_length,
    visit_of,
)
from gateway.domain.rounds import Choice
from gateway.errors import InvalidRequest, NotFound, RouteNotFound
from gateway.rounds.figure_words import KOREA
from gateway.rounds.judgement import is_complete
from gateway.rounds.links import ENTRANCE, LinkRefused
from gateway.rounds.markdown import render_markdown, render_plain
from gateway.rounds.report import report_page
from gateway.rounds.standings import round_result
from gateway.rounds.visits import Pair, QueueEntry, Stage, Visit, seconds_left
from gateway.rounds.voting import RECOGNISED, Overtaken
from gateway.web import LANGUAGES, language_of, word

router = APIRouter(prefix="/review", route_class=ReviewRoute, include_in_schema=False)

RESULT = "/rounds/{round_id}/result"
"""Where a revealed round's result stands; reviewers are led on from there to OWN_RESULT."""
OWN_RESULT = "/review/result"
"""Where it stands at the reviewers' own address, which has no other."""
_HANGUL = range(0xAC00, 0xD7A4)


# --- coming in and going ------------------------------------------------------------------------------------


@router.get("/static/{name}")
async def get_asset(services: Gateway, name: str) -> Response:
    asset = services.web.assets.get(name)
    if asset is None:
        raise NotFound("There is no such file.")
    return Response(asset.content, media_type=asset.media_type)


@router.get("/enter")
async def get_entrance(services: Gateway, request: Request, link: str = "") -> Response:
    """Taking a link ends another session, so it takes a click: programs that read mail look at links, too."""
    return page(_entrance(services, request, token=link[:1200]))


@router.post("/enter")
async def post_entrance(services: Gateway, request: Request) -> Response:
    """A link that is right opens whatever strangers at the same address tried: only wrong ones are counted."""
    fields = await read_fields(request)
    token = first(fields, "link").strip().rpartition("#")[2].rpartition("link=")[2]
    try:
        entrance = await services.reviewing.enter(token, may_enter=services.review_limits.check_entrance)
    except LinkRefused:
        services.review_limits.charge_stranger(address_of(request))
        raise
    where = "/review/?ended=1" if entrance.ended_another else "/review/"
    return keep_session(go_to(where), entrance.session.secret, request)


@router.post("/leave")
async def post_leave(services: Gateway, request: Request) -> Response:
    visit, _ = await read_visited_form(request, services)
    await services.reviewing.leave(visit)
    response = go_to(ENTRANCE)
    response.delete_cookie(COOKIE, path="/review", httponly=True, samesite="strict")
    return response


@router.post("/language")
async def post_language(services: Gateway, request: Request) -> Response:
    visit, fields = await read_visited_form(request, services)
    await services.reviewing.speak(visit, _language(fields))
    back = first(fields, "back")
    return go_to(back if back.startswith("/review/") and "//" not in back and back.isprintable() else "/review/")


@router.get("")
async def get_bare() -> Response:
    return go_to("/review/")


@router.get("/")
async def get_review(services: Gateway, request: Request, ended: str = "") -> Response:
    """Whatever the reviewer is to do next."""
    visit = await visit_of(request, services)
    ended_another = ended == "1"
    match visit.stage:
        case Stage.CONSENT:
            return await _consent(services, visit, ended_another=ended_another)
        case Stage.TRAINING:
            return await _training(services, visit, 1, ended_another=ended_another)
        case Stage.JUDGING:
            return await _queue(services, visit, ended_another=ended_another)
        case Stage.QUESTIONNAIRE | Stage.DONE:
            return go_to("/review/receipt")
        case _:
            return _resting(services, visit)


# --- before the queue ---------------------------------------------------------------------------------------


@router.post("/consent")
async def post_consent(services: Gateway, request: Request) -> Response:
    visit, fields = await read_visited_form(request, services)
    if visit.stage is not Stage.CONSENT:
        return go_to("/review/")
    conflicts, has_none = fields.get("conflicts", []), first(fields, "no_conflict") == "yes"
    problem = None
    if has_none == bool(conflicts):
        problem = word("Please mark the consortia that you have a conflict with, or that you have none; not both.")
    elif first(fields, "confidential") != "yes" or first(fields, "consent") != "yes":
        problem = word("Without both agreements you cannot take part.")
    if problem is not None:
        return await _consent(services, visit, problem=problem, chosen=conflicts, no_conflict=has_none)
    await services.reviewing.speak(visit, _language(fields))
    await services.reviewing.consent(visit, conflicts)
    return go_to("/review/")


@router.get("/training/{number}")
async def get_training(services: Gateway, request: Request, number: str, plain: str = "") -> Response:
    visit = await visit_of(request, services)
    if visit.stage is not Stage.TRAINING:
        return go_to("/review/")
    return await _training(services, visit, _number(number), plain=plain == "1")


@router.post("/training/finish")
async def post_training_finished(services: Gateway, request: Request) -> Response:
    visit, _ = await read_visited_form(request, services)
    if visit.stage is Stage.TRAINING:
        await services.reviewing.finish_training(visit)
    return go_to("/review/")


@router.post("/training/{number}")
async def post_training(services: Gateway, request: Request, number: str) -> Response:
    visit, fields = await read_visited_form(request, services)
    if visit.stage is not Stage.TRAINING:
        return go_to("/review/")
    judgement = _judgement(fields)
    if judgement.get("choice") not in [choice.value for choice in Choice]:
        problem = word("Please choose an overall judgement first.")
        return await _training(services, visit, _number(number), judgement=judgement, problem=problem)
    return await _training(services, visit, _number(number), judgement=judgement, answered=True)


# --- items --------------------------------------------------------------------------------------------------


@router.get("/items/{item_id}")
async def get_item(services: Gateway, request: Request, item_id: str, plain: str = "") -> Response:
    visit = await visit_of(request, services)
    if visit.stage is not Stage.JUDGING:
        return go_to("/review/")
    return await _item(services, visit, item_id, plain=plain == "1")


@router.post("/items/{item_id}")
async def post_item(services: Gateway, request: Request, item_id: str, plain: str = "") -> Response:
    """The same as the script's way, for browsers without it; then on to the item that the button names."""
    visit, fields = await read_visited_form(request, services)
    if visit.stage is not Stage.JUDGING:
        return go_to("/review/")
    judgement, is_plain = _judgement(fields), plain == "1"
    try:
        base = _number(first(fields, "base_revision"))
        if base or any(said for name, said in judgement.items() if name != "seconds"):
            await services.reviewing.save(visit, item_id, judgement, base_revision=base)
    except Overtaken as error:
        words = word(
            "This item was changed in another window meanwhile. Below stands what you sent just now: "
            "save it to have it count instead."
        )
        return await _item(
            services, visit, item_id, plain=is_plain, sent=judgement, revision=error.current.revision, problem=words
        )
    except InvalidRequest as error:
        if error.code != "judgement_invalid":
            raise
        return await _item(
            services,
            visit,
            item_id,
            plain=is_plain,
            sent=judgement,
            problem=word("This was not accepted: it is too long, or holds characters that cannot be kept."),
        )
    go = first(fields, "go")
    known = {entry.item.id for entry in await services.reviewing.queue(visit)}
    return go_to(f"/review/items/{go}{'?plain=1' if is_plain else ''}" if go in known else "/review/")


class Saving(msgspec.Struct, forbid_unknown_fields=True):
    """What the script sends."""

    form: str
    judgement: dict[str, Any]
    base_revision: int


@router.post("/items/{item_id}/judgement")
async def post_judgement(services: Gateway, request: Request, item_id: str) -> Response:
    visit, body = await read_visited_json(request, services, Saving)
    entry = await services.reviewing.save(visit, item_id, body.judgement, base_revision=body.base_revision)
    return json_answer(
        {
            "revision": entry.revision,
            "complete": is_complete(entry.judgement),
            "number": entry.number,
            "hash": entry.hash,
        }
    )


# --- the end ------------------------------------------------------------------------------------------------


@router.post("/submit")
async def post_submit(services: Gateway, request: Request) -> Response:
    visit, fields = await read_visited_form(request, services)
    if visit.stage is not Stage.JUDGING:
        return go_to("/review/")
    if first(fields, "sure") != "yes":
        return await _queue(services, visit, problem=word("Please confirm that you have finished."))
    if await services.reviewing.submit(visit):
        return await _queue(services, visit, problem=word("Some items have no overall judgement yet."))
    return go_to("/review/receipt")


@router.get("/receipt")
async def get_receipt(services: Gateway, request: Request) -> Response:
    visit = await visit_of(request, services)
    if visit.reviewer.submitted_at is None:
        return go_to("/review/")
    receipt = await services.reviewing.receipt(visit)
    submitted = visit.reviewer.submitted_at.astimezone(KOREA).strftime("%Y-%m-%d %H:%M:%S KST")
    asks = visit.stage is Stage.QUESTIONNAIRE
    return _page(services, visit, "receipt.html", receipt=receipt, submitted=submitted, asks=asks)


@router.get("/receipt.json")
async def get_receipt_file(services: Gateway, request: Request) -> Response:
    visit = await visit_of(request, services)
    response = json_answer(await services.reviewing.receipt(visit))
    response.headers["content-disposition"] = 'attachment; filename="review-receipt.json"'
    return response


@router.get("/questionnaire")
async def get_questionnaire(services: Gateway, request: Request) -> Response:
    visit = await visit_of(request, services)
    if visit.stage is not Stage.QUESTIONNAIRE:
        return go_to("/review/")
    return await _questionnaire(services, visit)


@router.post("/questionnaire")
async def post_questionnaire(services: Gateway, request: Request) -> Response:
    visit, fields = await read_visited_form(request, services)
    if visit.stage is not Stage.QUESTIONNAIRE:
        return go_to("/review/")
    recognised = first(fields, "recognised")
    if recognised not in RECOGNISED:
        return await _questionnaire(services, visit, problem=word("Please answer the first question."))
    guesses = {
        entry.item.id: {
            "a": first(fields, f"a.{entry.item.id}") or None,
            "b": first(fields, f"b.{entry.item.id}") or None,
            "confidence": _whole(first(fields, f"confidence.{entry.item.id}")),
        }
        for entry in await services.reviewing.asked_items(visit)
    }
    await services.reviewing.answer_questionnaire(visit, recognised, guesses)
    return go_to("/review/receipt")


@router.get("/result")
async def get_result(services: Gateway, request: Request, lang: str = "") -> Response:
    """The report, once the names are open: for the round's reviewers, whose cookie comes to /review alone.

    Whoever has no session may be somebody who runs rounds: they are asked to sign in, unless they have another address.
    """
    try:
        visit = await visit_of(request, services)
    except NoSession:
        if services.settings.review_url is not None:
            raise
        return go_to("/rounds/sign-in")
    if visit.stage is not Stage.REVEALED:
        return go_to("/review/")
    result = await round_result(services.rounds.store, visit.round, services.long_work.run)
    await services.reviewing.note_result_read(visit)
    language = language_of(lang or visit.reviewer.language)
    return report_answer(await asyncio.to_thread(report_page, result, language=language), language)


@router.api_route("/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def get_nothing(rest: str) -> Response:
    raise NotFound("There is no such page.")


# --- pages --------------------------------------------------------------------------------------------------


def _entrance(services: Services, request: Request, *, token: str) -> str:
    language = accepted_language(request)
    return services.web.render(
        "enter.html", language, round_title="", form_token="", back="", token=token, problem=None
    )


async def _consent(
    services: Services,
    visit: Visit,
    *,
    problem: str | None = None,
    chosen: list[str] | None = None,
    no_conflict: bool = False,
    ended_another: bool = False,
) -> Response:
    language, notice = language_of(visit.reviewer.language), visit.round.plan.notice
    return _page(
        services,
        visit,
        "consent.html",
        notice=None if notice is None else notice.document()[language],
        consortia=services.reviewing.consortia(),
        chosen=chosen or [],
        no_conflict=no_conflict,
        problem=problem,
        ended_another=ended_another,
    )


async def _training(
    services: Services,
    visit: Visit,
    number: int,
    *,
    judgement: Mapping[str, Any] | None = None,
    answered: bool = False,
    plain: bool = False,
    problem: str | None = None,
    ended_another: bool = False,
) -> Response:
    made = services.reviewing.practice(visit, number)
    said = judgement or {}
    return _page(
        services,
        visit,
        "training.html",
        back=f"/review/training/{number}",
        here=f"/review/training/{number}",
        number=number,
        total=len(visit.round.plan.training),
        pair=await _reading(Pair(made.language, made.text, made.a, made.b), plain=plain),
        plain=plain,
        rubric=_rubric(visit),
        judgement=said,
        answered=answered,
        is_right=said.get("choice") == made.better.value,
        why=made.why.document()[language_of(visit.reviewer.language)],
        problem=problem,
        ended_another=ended_another,
    )


async def _queue(
    services: Services, visit: Visit, *, problem: str | None = None, ended_another: bool = False
) -> Response:
    entries = await services.reviewing.queue(visit)
    return _page(
        services,
        visit,
        "queue.html",
        entries=[{"id": entry.item.id, "state": entry.state} for entry in entries],
        first_open=next((entry.item.id for entry in entries if not entry.is_done), None),
        queue=_queue_name(visit),
        problem=problem,
        ended_another=ended_another,
        **_progress(entries),
    )


async def _item(
    services: Services,
    visit: Visit,
    item_id: str,
    *,
    plain: bool,
    sent: Mapping[str, Any] | None = None,
    revision: int | None = None,
    problem: str | None = None,
) -> Response:
    """`sent`: what the reviewer just sent and was not kept; it stands in the form instead of what is kept."""
    entries = await services.reviewing.queue(visit)
    at = next((n for n, entry in enumerate(entries) if entry.item.id == item_id), None)
    if at is None:
        raise NotFound("There is no such item in your queue.")
    entry = entries[at]
    response = _page(
        services,
        visit,
        "item.html",
        back=f"/review/items/{item_id}",
        here=f"/review/items/{item_id}",
        item=item_id,
        number=at + 1,
        queue=_queue_name(visit),
        pair=await _reading(await services.reviewing.pair(visit, entry.item), plain=plain),
        plain=plain,
        rubric=_rubric(visit),
        judgement=entry.judgement if sent is None else sent,
        revision=entry.revision if revision is None else revision,
        previous=entries[at - 1].item.id if at > 0 else None,
        next=entries[at + 1].item.id if at + 1 < len(entries) else "list",
        problem=problem,
        **_progress(entries),
    )
    response.status_code = 200 if problem is None else 409 if revision is not None else 400
    return response


async def _questionnaire(services: Services, visit: Visit, *, problem: str | None = None) -> Response:
    numbers = {entry.item.id: n for n, entry in enumerate(await services.reviewing.queue(visit), 1)}
    items = [
        {
            "id": entry.item.id,
            "number": numbers[entry.item.id],
            "pair": await _reading(await services.reviewing.pair(visit, entry.item), plain=False),
        }
        for entry in await services.reviewing.asked_items(visit)
    ]
    consortia = services.reviewing.consortia()
    response = _page(services, visit, "questionnaire.html", items=items, consortia=consortia, problem=problem)
    response.status_code = 200 if problem is None else 400
    return response


def _resting(services: Services, visit: Visit) -> Response:
    """Nothing to do now, and why."""
    web, language = services.web, language_of(visit.reviewer.language)
    heading, words = _RESTING[visit.stage]
    link = None
    if visit.stage is Stage.REVEALED:
        place = RESULT.format(round_id=visit.round.id) if services.settings.review_url is None else OWN_RESULT
        link = (place, web.say(language, word("To the result")))
    return _page(
        services,
        visit,
        "message.html",
        heading=web.say(language, heading),
        lines=[web.say(language, line) for line in words],
        link=link,
    )


_RESTING = {
    Stage.NOT_OPEN: (
        word("The review has not begun yet"),
        (word("You are expected. Please come back with the same link once the organisers tell you that it is open."),),
    ),
    Stage.HELD: (
        word("The organisers look at your conflicts of interest"),
        (
            word("You declared more conflicts than can be set aside without a decision of the chair."),
            word("They will get in touch with you; until then there is nothing for you to do."),
        ),
    ),
    Stage.PAUSED: (
        word("The review is paused"),
        (word("Everything that you saved stays as it is. Please come back later with the same link."),),
    ),
    Stage.CLOSED: (
        word("The review is closed"),
        (word("No more judgements are taken. What you saved before counts."), word("Thank you for your work.")),
    ),
    Stage.REVEALED: (word("The result is published"), (word("Thank you for your part in it."),)),
}


def _page(services: Services, visit: Visit, template: str, **values: Any) -> Response:
    language = language_of(visit.reviewer.language)
    if values.get("problem"):
        values["problem"] = services.web.say(language, values["problem"])
    common = {
        "round_title": visit.round.plan.title.document()[language],
        "form_token": visit.session.form_token,
        "back": "/review/",
    }
    return page(services.web.render(template, language, **{**common, **values}))


# --- what stands on them ------------------------------------------------------------------------------------


async def _reading(pair: Pair, *, plain: bool) -> Mapping[str, Any]:
    """A pair as templates show it: both sides rendered the same way and as long as one another."""
    render = render_plain if plain else render_markdown
    html = same_length((await asyncio.to_thread(render, pair.a), await asyncio.to_thread(render, pair.b)))
    return {
        "language": pair.language,
        "prompt": pair.prompt,
        "sides": [
            {"slot": slot, "html": Markup(side), "language": _written_in(text)}  # noqa: S704  made by rounds.markdown
            for slot, side, text in zip("ab", html, (pair.a, pair.b), strict=True)
        ],
    }


def _written_in(text: str) -> str:
    """Korean where at least a tenth of the letters are Hangul, else English: how a screen reader is to speak it."""
    letters = [sign for sign in text if sign.isalpha()]
    return "ko" if sum(ord(sign) in _HANGUL for sign in letters) * 10 >= max(1, len(letters)) else "en"


def _rubric(visit: Visit) -> list[dict[str, Any]]:
    return [
        {"id": criterion.id, "title": criterion.title.document(), "question": criterion.question.document()}
        for criterion in visit.round.plan.rubric
    ]


def _progress(entries: list[QueueEntry]) -> dict[str, Any]:
    left = seconds_left(entries)
    minutes = None if not left else max(1, round(left / 60))
    return {"done": sum(entry.is_done for entry in entries), "total": len(entries), "minutes_left": minutes}


def _queue_name(visit: Visit) -> str:
    """Under which the script keeps what could not be sent yet: the same in every session of a reviewer."""
    return sha256(f"{visit.round.id} {visit.reviewer.id}".encode()).hexdigest()[:16]


def _judgement(fields: Mapping[str, list[str]]) -> dict[str, Any]:
    """A form's fields as the script would send them; what was left open is absent."""
    grades = {name.removeprefix("grade."): _whole(first(fields, name)) for name in fields if name.startswith("grade.")}
    said = {
        "choice": first(fields, "choice") or None,
        "grades": grades,
        "reason": first(fields, "reason"),
        "comment": first(fields, "comment"),
        "recognised": first(fields, "recognised") == "yes",
        "seconds": _whole(first(fields, "seconds")),
    }
    return {name: value for name, value in said.items() if value is not None}


def _language(fields: Mapping[str, list[str]]) -> str:
    chosen = first(fields, "language")
    if chosen not in LANGUAGES:
        raise InvalidRequest("language: expected ko or en", param="language")
    return chosen


def _whole(text: str) -> int | None:
    """A small whole number, None where it is none."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    return sign * int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def _number(text: str) -> int:
    number = _whole(text)
    if number is None:
        raise RouteNotFound("There is no such page.")
    return number
