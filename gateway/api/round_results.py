"""The result of a closed round over HTTP: as JSON, as a report to be read, and as tables for spreadsheets.

Codes stand for models until the round is revealed. Moving a round on is `rounds`' subject.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, Services, require_roles
from gateway.api.refusals import refusals
from gateway.domain.accounts import Caller
from gateway.errors import NotFound
from gateway.rounds.conclusion_words import Language
from gateway.rounds.conclusions import conclusions, result_title
from gateway.rounds.life import READING
from gateway.rounds.report import POLICY, TABLES, report_page, table_csv
from gateway.rounds.standings import round_result

router = APIRouter(prefix="/api/rounds", tags=["blind review rounds"], dependencies=[RequireKey, DescribeKey])
MAY_READ = require_roles(READING)
_LANGUAGES: tuple[Language, ...] = ("ko", "en")
_NO_STORE = {"cache-control": "no-store"}


@router.get(
    "/{round_id}/results",
    summary="The result of a closed round",
    responses=refusals(404, 409, 503),
    dependencies=[MAY_READ],
)
async def get_results(round_id: str, services: Gateway, caller: CheckedCaller) -> dict[str, Any]:
    """Its analysis, and what may be said of it in both languages. With names, consortia and licence notices once the
    round is revealed, by code before. One that does not rest on real answers says in its title that it is no ranking.
    """
    result = await read_result(round_id, services, caller)
    return {
        "title": {language: result_title(result, language=language) for language in _LANGUAGES},
        "is_ranking": result["analysis"]["is_ranking"],
        "conclusions": {
            language: [
                {"topic": one.topic, "text": one.text, "is_caution": one.is_caution}
                for one in conclusions(result, language=language)
            ]
            for language in _LANGUAGES
        },
        "tables": list(TABLES),
        **result,
    }


@router.get(
    "/{round_id}/report",
    summary="The report of a closed round, to be read and printed",
    response_class=Response,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}, **refusals(404, 409, 503)},
    dependencies=[MAY_READ],
)
async def get_report(
    round_id: str,
    services: Gateway,
    caller: CheckedCaller,
    lang: Annotated[Language, Query(description="Language of the page.")] = "ko",
) -> Response:
    """One HTML file with everything in it: it fetches and runs nothing."""
    result = await read_result(round_id, services, caller)
    page = report_page(result, language=lang)
    headers = {**_NO_STORE, "content-security-policy": POLICY, "content-language": lang}
    return Response(page.encode(), media_type="text/html", headers=headers)


@router.get(
    "/{round_id}/tables/{table}",
    summary="A table of a closed round's result",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, **refusals(404, 409, 503)},
    dependencies=[MAY_READ],
)
async def get_table(round_id: str, table: str, services: Gateway, caller: CheckedCaller) -> Response:
    """CSV with a byte order mark. Which tables there are is said by the result."""
    if table not in TABLES:
        raise NotFound(f"There is no table '{table[:64]}': known are {', '.join(TABLES)}.", param="table")
    result = await read_result(round_id, services, caller)
    headers = {**_NO_STORE, "content-disposition": f'attachment; filename="{table}.csv"'}
    return Response(table_csv(result, table), media_type="text/csv", headers=headers)


async def read_result(round_id: str, services: Services, caller: Caller) -> dict[str, Any]:
    """The result, for whom it concerns; that they read it is noted."""
    one = await services.rounds.life.found(round_id, caller)
    result = await round_result(services.rounds.store, one, services.long_work.run)
    await services.rounds.life.note(one, caller, "results.read")
    return result
