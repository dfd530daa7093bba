"""What leaves the house of a closed round: its bundle, and its votes for a spreadsheet.

What stands in them is decided in `rounds.bundle`.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, require_roles
from gateway.api.refusals import refusals
from gateway.rounds.bundle import BundleKind
from gateway.rounds.life import READING

router = APIRouter(prefix="/api/rounds", tags=["blind review rounds"], dependencies=[RequireKey, DescribeKey])
MAY_READ = require_roles(READING)
ROOT_HEADER = "x-simsa-bundle-root"


@router.get(
    "/{round_id}/export",
    summary="A closed round's bundle",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "a bundle"}, **refusals(404, 409, 503)},
    dependencies=[MAY_READ],
)
async def export_bundle(
    round_id: str,
    services: Gateway,
    caller: CheckedCaller,
    kind: Annotated[
        BundleKind, Query(description="Everything, or nothing of persons and of their words what was cleared.")
    ] = (BundleKind.AUDIT),
) -> Response:
    """A ZIP archive that `simsa round verify` checks without the gateway. Names of models stand in it once they are
    revealed. Its root is in the header `x-simsa-bundle-root` and in the access log."""
    one = await services.rounds.life.found(round_id, caller)
    bundle = await services.rounds.export(one, kind, caller)
    headers = {ROOT_HEADER: bundle.root, "content-disposition": f'attachment; filename="round-{one.id}-{kind}.zip"'}
    return Response(bundle.data, media_type="application/zip", headers=headers)


@router.get(
    "/{round_id}/votes.csv",
    summary="A closed round's votes as CSV",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}, "description": "a table"}, **refusals(404, 409, 503)},
    dependencies=[MAY_READ],
)
async def export_votes(round_id: str, services: Gateway, caller: CheckedCaller) -> Response:
    """Every entry of the chain by pseudonym and code, with a byte order mark for spreadsheets; nobody's own words."""
    one = await services.rounds.life.found(round_id, caller)
    headers = {"content-disposition": f'attachment; filename="round-{one.id}-votes.csv"'}
    return Response(await services.rounds.votes_table(one, caller), media_type="text/csv", headers=headers)
