"""What models' answers cost, with the idle time of GPUs as lines of its own.

For organisations their own calls, for overseers everybody's and the GPUs' money. The sums are `cost_sums`, the lines
`cost_lines`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from gateway.access import permit_roles
from gateway.answer_lengths import korean_lengths
from gateway.api.cost_lines import GpuTime, busy_lines, calls_line, cells_of, idle_lines
from gateway.api.cost_schemas import By, CostLine, CostsOut
from gateway.api.day_queries import (
    AS_TABLE,
    Format,
    OfModel,
    OfOrganisation,
    Since,
    Until,
    as_table,
    span_of_days,
    visible_organisation,
)
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, Services
from gateway.api.energy import energy_lines
from gateway.api.refusals import refusals
from gateway.api.token_figures import figures_as_used
from gateway.cost_sums import CostSums
from gateway.domain.accounts import OVERSEEING
from gateway.energy_records import EnergySum

router = APIRouter(prefix="/api/costs", tags=["costs"], dependencies=[RequireKey, DescribeKey])


@router.get(
    "",
    summary="What calls cost by model, organisation, run, replica or day, and idle GPU time",
    response_model=CostsOut,
    responses={**AS_TABLE, **refusals(503)},
)
async def get_costs(
    services: Gateway,
    caller: CheckedCaller,
    by: Annotated[By, Query(description="What to group by; replica for operators, auditors and admins.")] = "model",
    since: Since = None,
    until: Until = None,
    organisation: OfOrganisation = None,
    model: OfModel = None,
    format: Format = "json",  # noqa: A002  the query's name
) -> Response:
    """Calls count on the day on which they began, GPU time on the day of its minute. All amounts without VAT."""
    first, last = span_of_days(since, until)
    if by == "replica":
        permit_roles(caller, OVERSEEING)
    sees_all = caller.has_any(OVERSEEING)
    sums = CostSums(services.store)
    spent = await sums.spent(first, last, by=by, organisation=visible_organisation(caller, organisation), model=model)
    gpu_time = await sums.gpu_time(first, last, model=model)
    if not sees_all:  # a share of what they use, not what else there is
        used = {row.model for row in spent}
        gpu_time = [row for row in gpu_time if row.model in used]
    count, begin = await sums.unsettled(datetime.combine(last + timedelta(days=1), time(), UTC))
    used_time = GpuTime(gpu_time, by)
    lines = [calls_line(services.registry.current, row, used_time.of(row)) for row in spent]
    lines += idle_lines(gpu_time, by, sees_all=sees_all)
    if sees_all:
        lines += busy_lines(await sums.unattributed(first, last, model=model), by)
    if format == "csv":
        return as_table("costs", first, last, tuple(CostLine.model_fields), map(cells_of, lines))
    shows_figures = by == "model" and sees_all and organisation is None
    lengths = await korean_lengths(services.store) if shows_figures and gpu_time else {}
    sees_energy = sees_all and organisation is None
    energy = await _energy_of(services, first, last, model) if sees_energy else []
    answer = CostsOut(
        since=str(first),
        until=str(last),
        time_zone="UTC",
        by=by,
        tax="excluded",
        unsettled_windows=count,
        unsettled_since=begin.isoformat() if begin is not None else None,
        data=lines,
        figures=figures_as_used(spent, gpu_time, lengths, energy) if shows_figures else [],
        energy=energy_lines(energy, services.registry.current, by, model=model) if sees_energy else [],
    )
    return Response(answer.model_dump_json(), media_type="application/json")


async def _energy_of(services: Services, first: date, last: date, model: str | None) -> list[EnergySum]:
    await services.energy_watch.flush()
    return await services.energy_records.sums(first, last, model=model)
