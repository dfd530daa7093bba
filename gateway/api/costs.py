"""What models' answers cost, with the idle time of GPUs as lines of its own, and what a million tokens cost at a load.

For organisations their own calls, for overseers everybody's and the GPUs' money. The sums are `cost_sums`, the
arithmetic is `domain.token_cost`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from gateway.access import permit_roles
from gateway.answer_lengths import Lengths, korean_lengths
from gateway.api.bodies import read_json
from gateway.api.cost_schemas import (
    By,
    CostLine,
    CostsOut,
    PriceOut,
    SensitivityOut,
    TokenCostsOut,
    TokenFigure,
    WeightIn,
    WeightOut,
)
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey, Services
from gateway.api.energy import energy_figure, energy_lines
from gateway.api.refusals import refusals
from gateway.api.schemas import body_of
from gateway.api.usage import span_of_days, visible_organisation
from gateway.cost_sums import CostSums, GpuTimeRow, SpentRow, UnattributedRow
from gateway.domain.accounts import CALLING, OVERSEEING, Role
from gateway.domain.cost import is_stale, price_in_force
from gateway.domain.settlement import DEFAULT_WEIGHT, WeightCell, fit_prompt_weight
from gateway.domain.token_cost import (
    Load,
    TokenCost,
    cost_per_million,
    cost_per_thousand_characters,
    energy_per_token,
    sensitivity,
)
from gateway.energy_records import EnergySum
from gateway.errors import NotFound
from gateway.settlements import Settlements
from gateway.spreadsheet import BOM, table_rows

router = APIRouter(prefix="/api/costs", tags=["costs"], dependencies=[RequireKey, DescribeKey])

HIDDEN = "what idle time cost is shown to operators, auditors and admins only"
UNATTRIBUTED = "busy, not attributed to a settled call: another minute of these calls has no price, or is not settled"
NO_ENERGY = "no joules were given; what counters showed is in the energy of GET /api/costs"
MOST = 1e9
LEAST = 1e-6
"""Of a rate and a utilisation: an engine that makes less in a second is not at work."""
_WIDE = Context(prec=200)
"""For amounts of any length: what is asked for may be extreme, and has an answer."""
_WEIGHING = frozenset({Role.OPERATOR, Role.ADMIN})


@router.get(
    "",
    summary="What calls cost by model, organisation, run, replica or day, and idle GPU time",
    response_model=CostsOut,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, **refusals(503)},
)
async def get_costs(
    services: Gateway,
    caller: CheckedCaller,
    by: Annotated[By, Query(description="What to group by; replica for operators, auditors and admins.")] = "model",
    since: Annotated[date | None, Query(description="First day of UTC; by default the month's.")] = None,
    until: Annotated[date | None, Query(description="Last day of UTC, included; by default today.")] = None,
    organisation: Annotated[str | None, Query(description="Only this one's.")] = None,
    model: Annotated[str | None, Query(description="Only this model's.")] = None,
    format: Annotated[  # noqa: A002  the query's name
        Literal["json", "csv"], Query(description="csv: a table for spreadsheets.")
    ] = "json",
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
    lines = [_calls_line(services, row, gpu_time, by) for row in spent]
    lines += _idle_lines(gpu_time, by, sees_all=sees_all)
    if sees_all:
        lines += _busy_lines(await sums.unattributed(first, last, model=model), by)
    if format == "csv":
        headers = {"content-disposition": f'attachment; filename="costs-{first}-{last}.csv"'}
        return Response(_as_csv(lines), media_type="text/csv; charset=utf-8", headers=headers)
    shows_figures = by == "model" and sees_all and organisation is None
    lengths = await korean_lengths(services.store) if shows_figures and gpu_time else {}
    energy = await _energy_of(services, first, last, model) if sees_all and organisation is None else []
    answer = CostsOut(
        since=str(first),
        until=str(last),
        time_zone="UTC",
        by=by,
        tax="excluded",
        unsettled_windows=count,
        unsettled_since=begin.isoformat() if begin is not None else None,
        data=lines,
        figures=_figures(spent, gpu_time, lengths, energy) if shows_figures else [],
        energy=energy_lines(energy, services.registry.current, by, model=model)
        if sees_all and organisation is None
        else [],
    )
    return Response(answer.model_dump_json(), media_type="application/json")


@router.get(
    "/tokens",
    summary="What a million tokens cost on a GPU at a load that is given",
    response_model=TokenCostsOut,
    responses=refusals(404),
)
async def get_token_costs(
    services: Gateway,
    caller: CheckedCaller,
    gpu: Annotated[str, Query(description="Id of the registry.")],
    output_tokens_per_s: Annotated[
        float, Query(ge=LEAST, le=MOST, description="The whole replica's, at the load that `load` names.")
    ],
    load: Annotated[
        Literal["at_full", "claimed", "seen"],
        Query(description="at_full: the highest rate that meets the objectives."),
    ] = "at_full",
    input_tokens_per_s: Annotated[float, Query(ge=0, le=MOST, description="Uncached.")] = 0.0,
    gpus: Annotated[int, Query(ge=1, le=100_000)] = 1,
    utilisation: Annotated[float, Query(ge=LEAST, le=1, description="Share of paid time that is spent so.")] = 1.0,
    weight: Annotated[
        float | None,
        Query(ge=0, le=1000, description="Of an input token, in output tokens; 0.25 if not given."),
    ] = None,
    characters: Annotated[
        int | None, Query(ge=1, le=10**15, description="Of answers, for the cost per 1,000 characters.")
    ] = None,
    tokens: Annotated[int | None, Query(ge=1, le=10**15, description="Output tokens of the same answers.")] = None,
    joules: Annotated[
        float | None,
        Query(ge=0, le=1e18, description="By which the GPUs' own energy counters rose while `tokens` were made."),
    ] = None,
) -> TokenCostsOut:
    """Arithmetic with the registry's prices in force today; nothing is measured. Without VAT."""
    permit_roles(caller, CALLING | OVERSEEING)
    device = services.registry.current.gpus.get(gpu)
    if device is None:
        raise NotFound(f"There is no GPU '{gpu[:100]}' in the registry.", param="gpu")
    today = datetime.now(UTC).date()
    found = price_in_force(device, today, tier=services.settings.gpu_price_tier)
    price = found.price
    asked = Load(
        name=load,
        output_tokens_per_s=_exact(output_tokens_per_s),
        input_tokens_per_s=_exact(input_tokens_per_s),
        per_hour=price.per_hour if price is not None else Decimal(0),
        gpus=gpus,
        utilisation=_exact(utilisation),
        weight=DEFAULT_WEIGHT if weight is None else _exact(weight),
    )
    figures = cost_per_million(asked)
    figures.append(cost_per_thousand_characters(figures[0], characters, tokens))
    if price is None:
        figures = [TokenCost(f.name, f.load, None, f.unit, f.definition, found.reason) for f in figures]
    figures.append(_no_energy() if joules is None else energy_per_token(_exact(joules), tokens))
    currency = price.currency if price is not None else None
    others = [p.per_hour for p in device.prices if price is not None and p != price and p.currency == price.currency]
    return TokenCostsOut(
        gpu=gpu,
        gpus=gpus,
        price=None
        if price is None
        else PriceOut(
            kind="gpu_hour",
            gpu=gpu,
            per_hour=_plain(price.per_hour),
            currency=price.currency,
            tier=price.tier,
            provider=price.provider,
            date=str(price.on),
            source=price.sourced.source,
            is_stale=is_stale(price.on, today),
        ),
        weight=_plain(asked.weight),
        weight_basis="assumed" if weight is None else "given",
        figures=[_figure_out(figure, currency) for figure in figures],
        sensitivity=[
            SensitivityOut(
                changed=row.changed,
                amounts={name: _rounded(amount) for name, amount in row.amounts.items()},
                changes={n: None if share is None else round(float(share), 6) for n, share in row.changes.items()},
            )
            for row in (sensitivity(asked, prices=others) if price is not None else ())
        ],
    )


@router.post(
    "/weights",
    summary="Fit the weight of a prompt token to measured loads, and settle with it from now on",
    response_model=WeightOut,
    responses=refusals(404, 413, 503),
    openapi_extra=body_of(WeightIn),
)
async def keep_weight(request: Request, services: Gateway, caller: CheckedCaller) -> WeightOut:
    """Kept only where the loads give one: four or more, of different proportions. Settled minutes stay as they are."""
    permit_roles(caller, _WEIGHING)
    asked = await read_json(request, services, WeightIn)
    registry = services.registry.current
    for kind, name, known in (("model", asked.model, registry.models), ("gpu", asked.gpu, registry.gpus)):
        if name not in known:
            raise NotFound(f"There is no {kind} '{name[:100]}' in the registry.", param=kind)
    cells = [WeightCell(c.uncached_prompt_tokens, c.completion_tokens, c.busy_s) for c in asked.cells]
    weight = fit_prompt_weight(cells)
    if weight.basis == "fitted":
        await Settlements(services.store).keep_weight(
            asked.model,
            asked.gpu,
            weight,
            provenance=asked.provenance,
            at=datetime.now(UTC),
            source=asked.source.replace("\0", "?"),
        )
    return WeightOut(
        weight=_plain(weight.value),
        basis=weight.basis,
        cells=weight.cells,
        r_squared=weight.r_squared,
        standard_error=weight.standard_error,
        reason=weight.reason,
    )


async def _energy_of(services: Services, first: date, last: date, model: str | None) -> list[EnergySum]:
    await services.energy_watch.flush()
    return await services.energy_records.sums(first, last, model=model)


# --- lines --------------------------------------------------------------------------------------------------


def _calls_line(services: Services, row: SpentRow, gpu_time: Sequence[GpuTimeRow], by: By) -> CostLine:
    of_gpu = [
        time_row
        for time_row in gpu_time
        if time_row.model == row.model
        and time_row.currency == row.currency
        and (by != "replica" or time_row.replica == row.group)
        and (by != "day" or str(time_row.day) == row.group)
    ]
    is_settled = row.basis == "gpu_time"
    reason = None
    if row.basis == "gpu_time_provisional":
        reason = "not settled yet: each call's share of busy time, without idle time and tokens"
    elif row.cost is None:
        reason = "no price, no token counts, or no engine was reached; each call's record says which"
    elif row.calls_without_cost:
        reason = f"the cost of {row.calls_without_cost} calls is unknown"
    return CostLine(
        kind="calls",
        group=row.group,
        model=row.model,
        provenance=row.provenance,
        basis=row.basis,
        currency=row.currency,
        cost=None if row.cost is None else _plain(row.cost),
        calls=row.calls,
        calls_without_cost=row.calls_without_cost,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        cached_tokens=row.cached_tokens,
        gpu_seconds=None,
        idle_share=None,
        weights=_weights(of_gpu) if is_settled else [],
        prices=_gpu_prices(of_gpu) if is_settled else _api_prices(services, row),
        reason=reason,
    )


@dataclass(slots=True)
class _Idle:
    rows: list[GpuTimeRow]

    def total(self, name: str) -> Decimal:
        return sum((getattr(row, name) or Decimal(0) for row in self.rows), Decimal(0))


def _idle_lines(gpu_time: Iterable[GpuTimeRow], by: By, *, sees_all: bool) -> list[CostLine]:
    groups: dict[tuple[str | None, str, str, str | None, str | None], _Idle] = defaultdict(lambda: _Idle([]))
    for row in gpu_time:
        group = {"model": row.model, "replica": row.replica, "day": str(row.day)}.get(by)
        groups[group, row.model, row.provenance, row.currency, row.reason].rows.append(row)
    lines = []
    for (group, model, provenance, currency, reason), idle in sorted(groups.items(), key=lambda item: str(item[0])):
        money, rest = idle.total("money"), idle.total("idle")
        idle_s = sum(((row.paid_s - row.busy_s) * row.gpus for row in idle.rows), Decimal(0))
        lines.append(
            CostLine(
                kind="idle",
                group=group,
                model=model,
                provenance=provenance,
                basis="gpu_time" if currency is not None else "unknown",
                currency=currency,
                cost=_plain(rest) if sees_all and currency is not None else None,
                calls=0,
                calls_without_cost=0,
                prompt_tokens=0,
                completion_tokens=0,
                cached_tokens=0,
                gpu_seconds=_plain(idle_s) if sees_all else None,
                idle_share=round(float(rest / money), 6) if money else None,
                weights=_weights(idle.rows),
                prices=_gpu_prices(idle.rows),
                reason=reason if sees_all else HIDDEN,
            )
        )
    return lines


def _busy_lines(rows: Iterable[UnattributedRow], by: By) -> list[CostLine]:
    groups: dict[tuple[str | None, str, str, str], list[UnattributedRow]] = defaultdict(list)
    for row in rows:
        group = {"model": row.model, "replica": row.replica, "day": str(row.day)}.get(by)
        groups[group, row.model, row.provenance, row.currency].append(row)
    return [
        CostLine(
            kind="busy",
            group=group,
            model=model,
            provenance=provenance,
            basis="gpu_time",
            currency=currency,
            cost=_plain(sum((row.cost for row in found), Decimal(0))),
            calls=0,
            calls_without_cost=0,
            prompt_tokens=0,
            completion_tokens=0,
            cached_tokens=0,
            gpu_seconds=None,
            idle_share=None,
            weights=[],
            prices=[],
            reason=UNATTRIBUTED,
        )
        for (group, model, provenance, currency), found in sorted(groups.items(), key=lambda item: str(item[0]))
    ]


def _figures(
    spent: Sequence[SpentRow],
    gpu_time: Sequence[GpuTimeRow],
    lengths: Mapping[tuple[str, str], Lengths],
    energy: Sequence[EnergySum],
) -> list[TokenFigure]:
    """What a model's tokens cost as it was used: all settled GPU money, and without idle time."""
    groups: dict[tuple[str, str, str], _Idle] = defaultdict(lambda: _Idle([]))
    for row in gpu_time:
        if row.currency is not None:
            groups[row.model, row.provenance, row.currency].rows.append(row)
    figures = []
    for (model, provenance, currency), idle in sorted(groups.items()):
        calls = [r for r in spent if (r.model, r.provenance, r.currency) == (model, provenance, currency)]
        settled = [row for row in calls if row.basis == "gpu_time"]
        paid_s, hours = idle.total("paid_s"), idle.total("paid_s") / 3600
        outward = sum(row.completion_tokens for row in settled)
        inward = sum(row.prompt_tokens - row.cached_tokens for row in settled)
        for name, money in (("seen", "money"), ("while_busy", "busy")):
            if not paid_s:
                continue
            load = Load(
                name=name,
                output_tokens_per_s=outward / paid_s,
                input_tokens_per_s=max(0, inward) / paid_s,
                per_hour=idle.total(money) / hours,
                weight=idle.rows[-1].weight,
            )
            n = sum(row.calls for row in settled)
            costs = cost_per_million(load)
            figures += [_figure_out(f, currency, model, provenance, n) for f in costs]
            korean = lengths.get((model, provenance), Lengths())
            of_text = cost_per_thousand_characters(
                costs[0], korean.characters, korean.tokens, counted="characters of Korean answers"
            )
            figures.append(_figure_out(of_text, currency, model, provenance, korean.answers))
        figures.append(_figure_out(energy_figure(energy, model, provenance), None, model, provenance))
    return figures


def _no_energy() -> TokenCost:
    figure = energy_per_token(None, None)
    return TokenCost(figure.name, figure.load, None, figure.unit, figure.definition, NO_ENERGY)


def _figure_out(
    figure: TokenCost,
    currency: str | None,
    model: str | None = None,
    provenance: str | None = None,
    calls: int | None = None,
) -> TokenFigure:
    return TokenFigure(
        model=model,
        provenance=provenance,
        name=figure.name,
        load=figure.load,
        amount=_rounded(figure.amount),
        currency=currency,
        unit=figure.unit,
        definition=figure.definition,
        calls=calls,
        reason=figure.reason,
    )


def _weights(rows: Iterable[GpuTimeRow]) -> list[str]:
    return sorted({f"{_plain(row.weight)} ({row.weight_basis})" for row in rows})


def _gpu_prices(rows: Iterable[GpuTimeRow]) -> list[PriceOut]:
    """Each once; stale where any day's use of it was."""
    found: dict[tuple[Any, ...], bool] = {}
    for row in rows:
        if row.price_per_hour is not None:
            facts = (row.gpu, row.price_per_hour, row.currency, row.price_tier, row.price_provider, row.price_on)
            at = (*facts, row.price_source)
            found[at] = found.get(at, False) or is_stale(row.price_on, row.day)
    return [
        PriceOut(
            kind="gpu_hour",
            gpu=gpu,
            per_hour=_plain(per_hour),
            currency=currency,
            tier=tier,
            provider=provider,
            date=str(on) if on is not None else None,
            source=source,
            is_stale=stale,
        )
        for (gpu, per_hour, currency, tier, provider, on, source), stale in sorted(
            found.items(), key=lambda item: str(item[0])
        )
    ]


def _api_prices(services: Services, row: SpentRow) -> list[PriceOut]:
    """The registry's present one; each call was charged with that of its own time."""
    model = services.registry.current.models.get(row.model)
    price = model.price if model is not None else None
    if row.basis != "api_price" or price is None or price.currency != row.currency:
        return []
    cached = price.cached_input_per_mtok
    return [
        PriceOut(
            kind="api",
            input_per_mtok=_plain(price.input_per_mtok),
            cached_input_per_mtok=None if cached is None else _plain(cached),
            output_per_mtok=_plain(price.output_per_mtok),
            currency=price.currency,
            date=str(price.on) if price.on is not None else None,
            source=price.sourced.source if price.sourced is not None else None,
            is_stale=is_stale(price.on, datetime.now(UTC).date()),
        )
    ]


def _exact(value: float) -> Decimal:
    return Decimal(str(value))


def _plain(amount: Decimal) -> str:
    return f"{amount:f}"


def _rounded(amount: Decimal | None) -> str | None:
    """A quotient, whose further digits say nothing."""
    return None if amount is None else _plain(amount.quantize(Decimal("1e-9"), context=_WIDE))


def _as_csv(lines: Sequence[CostLine]) -> bytes:
    columns = tuple(CostLine.model_fields)
    rows = [[_cell(name, getattr(line, name)) for name in columns] for line in lines]
    return BOM + table_rows([columns, *rows])


def _cell(name: str, value: Any) -> Any:
    if name == "prices":
        return "; ".join(_price_words(price) for price in value)
    return "; ".join(value) if name == "weights" else value


def _price_words(price: PriceOut) -> str:
    stale = ", stale" if price.is_stale else ""
    amount = (
        f"{price.per_hour} {price.currency}/h {price.gpu}, {price.tier}, {price.provider}"
        if price.kind == "gpu_hour"
        else f"{price.input_per_mtok} in, {price.output_per_mtok} out {price.currency} per 10⁶ tokens"
    )
    return f"{amount}, {price.date}, {price.source}{stale}"
