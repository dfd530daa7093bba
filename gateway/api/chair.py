"""The pages of those who run rounds: signing in, the rounds, how one stands, the planner, the result.

What a page shows depends on who looks: a chair sees no model's failures, an auditor nothing of the votes before
closing, nobody a standing before that or a model's name beside an answer before the reveal. Taking steps belongs in
`chair_steps`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.api.chair_door import (
    COOKIE,
    LANGUAGE_COOKIE,
    SIGN_IN,
    ChairRoute,
    Seat,
    drop_session,
    find_seat,
    keep_cookie,
    own_page,
    read_seated_form,
    render,
    seat_of,
    shown_key,
)
from gateway.api.deps import Gateway, Services
from gateway.api.review_door import address_of, first, go_to, read_fields, report_answer
from gateway.api.round_results import read_result
from gateway.domain.rounds import AFTER_CLOSING, AFTER_REVEAL, AnswerStatus, Round, RoundStatus
from gateway.errors import AuthenticationFailed, InvalidRequest, NotFound, PermissionDenied
from gateway.rounds.bundle import BundleKind
from gateway.rounds.chair_steps import STEPS, Facts, next_step, open_to
from gateway.rounds.chair_view import (
    KINDS,
    PROVENANCE,
    STATES,
    STATUS,
    exclusion_rows,
    life_line,
    moment,
    round_row,
    rule_rows,
    set_aside_rows,
)
from gateway.rounds.life import LEADING, OPERATING, REVEAL
from gateway.rounds.planner_page import FIELDS, HEIGHT, LEFT, RIGHT, WIDTH, chart, planned, read_sizes, warnings
from gateway.rounds.report import TABLES, report_page, table_csv
from gateway.rounds.sealed import draft_digest
from gateway.rounds.views import answering_object, progress_object
from gateway.web import LANGUAGES, language_of, word

router = APIRouter(prefix="/rounds", route_class=ChairRoute, include_in_schema=False)
MOST_ROUNDS = 100
MOST_ACCESSES = 30
REVIEWERS_RESULT = "/review/result"
"""Where a reviewer's own session counts: its cookie is sent nowhere else."""
_FAILED_SIGN_IN = word("This key does not open these pages: it is unknown, ended, or has none of the roles needed.")


# --- coming in and going ------------------------------------------------------------------------------------


@router.get("/static/{name}")
async def get_asset(services: Gateway, name: str) -> Response:
    asset = services.web.assets.get(name)
    if asset is None:
        raise NotFound("There is no such file.")
    return Response(asset.content, media_type=asset.media_type)


@router.get("/sign-in")
async def get_sign_in(services: Gateway, request: Request, ended: str = "") -> Response:
    onward = own_page(request.query_params.get("next", ""))
    problem = word("Your session has ended. Please sign in again.") if ended == "1" else None
    return _sign_in(services, request, onward=onward, problem=problem)


@router.post("/sign-in")
async def post_sign_in(services: Gateway, request: Request) -> Response:
    fields = await read_fields(request)
    onward = own_page(first(fields, "next"))
    try:
        caller = shown_key(request, services, first(fields, "key").strip())
    except (AuthenticationFailed, PermissionDenied) as error:
        services.chair_limits.charge_stranger(address_of(request))
        response = _sign_in(services, request, onward=onward, problem=_FAILED_SIGN_IN)
        response.status_code = error.status
        return response
    return keep_cookie(go_to(onward), request, COOKIE, (await services.chairs.begin(caller)).secret)


@router.post("/sign-out")
async def post_sign_out(services: Gateway, request: Request) -> Response:
    seat, _ = await read_seated_form(request, services)
    await services.chairs.end(seat.session)
    return drop_session(go_to(SIGN_IN))


@router.post("/language")
async def post_language(request: Request) -> Response:
    """Changes nothing but what the browser itself keeps, so it takes no session."""
    fields = await read_fields(request)
    chosen = first(fields, "language")
    if chosen not in LANGUAGES:
        raise InvalidRequest("language: expected ko or en", param="language")
    return keep_cookie(go_to(own_page(first(fields, "back"))), request, LANGUAGE_COOKIE, chosen)


def _sign_in(services: Services, request: Request, *, onward: str, problem: str | None) -> Response:
    asks = services.access.asks_for_key
    return render(services, request, None, "rounds_sign_in.html", onward=onward, problem=problem, asks=asks)


# --- pages --------------------------------------------------------------------------------------------------


@router.get("")
async def get_rounds(services: Gateway, request: Request) -> Response:
    seat = seat_of(request, services)
    store = services.rounds.store
    found = await store.newest(MOST_ROUNDS, organisation=seat.caller.own_only)
    rows = [round_row(one, language=seat.language, reviewers=await store.count_reviewers(one.id)) for one in found]
    return render(services, request, seat, "rounds_list.html", rounds=rows)


@router.get("/planner")
async def get_planner(services: Gateway, request: Request) -> Response:
    """Works without a script: the form asks for this page again."""
    seat = seat_of(request, services)
    sizes, wrong = read_sizes(request.query_params)
    plan = planned(sizes)
    return render(
        services,
        request,
        seat,
        "rounds_planner.html",
        fields=FIELDS,
        sizes=sizes,
        wrong=wrong,
        plan=plan,
        warnings=warnings(sizes, plan),
        chart=await asyncio.to_thread(chart, sizes),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=RIGHT,
    )


@router.get("/{round_id}")
async def get_round(services: Gateway, request: Request, round_id: str, done: str = "") -> Response:
    seat = seat_of(request, services)
    one = await services.rounds.life.found(round_id, seat.caller)
    sees_progress = seat.caller.has_any(LEADING) or one.status in AFTER_CLOSING
    parts = await _gathered(services, seat, one) if sees_progress else {"progress": None}
    return render(
        services,
        request,
        seat,
        "rounds_one.html",
        of=one,
        title=one.plan.title.document()[seat.language],
        status=STATUS[one.status.value],
        line=life_line(one),
        provenance=PROVENANCE.get(one.provenance, PROVENANCE["unknown"]),
        head=one.head if one.status in AFTER_CLOSING else None,
        closing=await services.rounds.closing(one),
        done=STEPS[done].done if done in STEPS else None,
        is_closed=one.status in AFTER_CLOSING,
        is_revealed=one.status in AFTER_REVEAL,
        reviewers=await services.rounds.store.count_reviewers(one.id),
        tables=list(TABLES),
        leads=seat.caller.has_any(LEADING),
        **parts,
    )


@router.get("/{round_id}/result")
async def get_result(services: Gateway, request: Request, round_id: str, lang: str = "") -> Response:
    """The report: for those who are signed in once the round is closed, for its reviewers once it is revealed."""
    seat = find_seat(request)
    if seat is None and services.settings.review_url is None:
        return go_to(REVIEWERS_RESULT)
    seat = seat_of(request, services)
    result = await read_result(round_id, services, seat.caller)
    language = language_of(lang) if lang in LANGUAGES else seat.language
    return report_answer(await asyncio.to_thread(report_page, result, language=language), language)


@router.get("/{round_id}/tables/{table}.csv")
async def get_table(services: Gateway, request: Request, round_id: str, table: str) -> Response:
    seat = seat_of(request, services)
    if table not in TABLES:
        raise NotFound("There is no such table.")
    result = await read_result(round_id, services, seat.caller)
    headers = {"content-disposition": f'attachment; filename="{table}.csv"'}
    return Response(table_csv(result, table), media_type="text/csv", headers=headers)


@router.get("/{round_id}/bundle/{kind}.zip")
async def get_bundle(services: Gateway, request: Request, round_id: str, kind: BundleKind) -> Response:
    """What `simsa round verify` checks without the gateway."""
    seat = seat_of(request, services)
    one = await services.rounds.life.found(round_id, seat.caller)
    bundle = await services.rounds.export(one, kind, seat.caller)
    headers = {"content-disposition": f'attachment; filename="round-{one.id}-{kind}.zip"'}
    return Response(bundle.data, media_type="application/zip", headers=headers)


@router.api_route("/{rest:path}", methods=["GET", "HEAD"])
async def get_nothing(services: Gateway, request: Request, rest: str) -> Response:
    seat_of(request, services)
    raise NotFound("There is no such page.")


# --- what stands on a round's page --------------------------------------------------------------------------


async def _gathered(services: Services, seat: Seat, one: Round) -> dict[str, Any]:
    store, now = services.rounds.store, datetime.now(UTC)
    reviewers, exclusions = await store.reviewers(one.id), await store.exclusions(one.id)
    progress = progress_object(reviewers, await store.items(one.id), await store.votes(one.id), exclusions, now=now)
    answers = await _answers(services, one)
    approvals = await store.approvals(one.id, REVEAL)
    facts = Facts(
        is_asked=answers.is_asked,
        is_over=answers.is_over,
        kept=answers.shown["kept"]["answers"],
        invited=len(reviewers),
        submitted=sum(1 for row in progress["reviewers"] if row["state"] == "submitted"),
        is_rehearsed=answers.is_rehearsed,
        approved={given.role for given in approvals},
    )
    leads, operates = seat.caller.has_any(LEADING), seat.caller.has_any(OPERATING)
    labels = {one.id: one.label for one in reviewers} if leads else {}
    return {
        "progress": progress,
        "rows": [_reviewer_row(row, leads=leads) for row in progress["reviewers"]],
        "set_aside": set_aside_rows(progress["set_aside"]),
        "exclusions": exclusion_rows(exclusions, labels),
        "by_rule": rule_rows(exclusions),
        "answers": answers.shown,
        "answers_waiting": bool(answers.shown["waiting_for"]),
        "failures": answers.shown["failures"] if operates else None,
        "health": _health(services, one, names_models=operates),
        "next": next_step(one, facts),
        "steps": [step for step in open_to(one, seat.caller) if not step.has_form],
        "takes": {step.name for step in open_to(one, seat.caller)},
        "kinds": KINDS,
        "approvals": [{"by": await _name(services, given.who), "role": given.role} for given in approvals],
        "accesses": await _accesses(services, one),
    }


@dataclass(frozen=True, slots=True)
class _Answers:
    shown: Mapping[str, Any]
    is_asked: bool
    is_over: bool
    is_rehearsed: bool


async def _answers(services: Services, one: Round) -> _Answers:
    progress = await services.rounds.answering.progress(one)
    answers = await services.rounds.store.answers(one.id)
    is_rehearsed = False
    if one.status is RoundStatus.DRAFT and one.dry_run is not None and one.dry_run.get("passed"):
        reviewers = await services.rounds.store.reviewers(one.id)
        digest = await asyncio.to_thread(draft_digest, one, answers, reviewers)
        is_rehearsed = one.dry_run.get("digest") == digest
    shown = answering_object(progress, answers)
    shown["kept"]["ok"] = sum(1 for answer in answers if answer.status is AnswerStatus.OK)
    return _Answers(shown, progress.asks_nobody or bool(progress.batches), progress.is_over, is_rehearsed)


def _reviewer_row(row: Mapping[str, Any], *, leads: bool) -> dict[str, Any]:
    """Labels stay with those who lead the round; an auditor sees pseudonyms."""
    return {
        **row,
        "label": row["label"] if leads else row["id"],
        "state_words": STATES[row["state"]],
        "seen": moment(row["last_seen"]),
    }


def _health(services: Services, one: Round, *, names_models: bool) -> dict[str, Any]:
    """Whether what the round needs works. Which model does not is for operators alone."""
    stats = services.recorder.stats()
    down = [model for model in one.plan.models if not services.fleet.live(model)]
    return {
        "models": len(one.plan.models),
        "live": len(one.plan.models) - len(down),
        "down": down if names_models else [],
        "recorder": services.recorder.accepting and stats.spool_failing is None,
        "database": services.database_failing is None,
        "queued": stats.queued,
        "lost": stats.lost,
        "shares_address": services.settings.reviewers_share_address and one.status not in AFTER_CLOSING,
    }


async def _name(services: Services, who: str) -> str:
    """What the key of somebody is called."""
    keys = {key.id: key.name for key in await services.accounts.list_keys()}
    return f"{keys[who]} ({who})" if who in keys else who


async def _accesses(services: Services, one: Round) -> list[dict[str, Any]]:
    found = await services.rounds.store.accesses(one.id)
    return [
        {"at": moment(each.at), "who": each.who, "role": each.role, "action": each.action, "subject": each.subject}
        for each in found[: -MOST_ACCESSES - 1 : -1]
    ]
