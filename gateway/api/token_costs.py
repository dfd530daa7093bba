"""What a million tokens cost on a GPU at a load that is given, and the weight of a prompt token from measured loads."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from gateway.access import permit_roles
from gateway.api.bodies import read_json
from gateway.api.cost_lines import plain
from gateway.api.cost_schemas import PriceOut, SensitivityOut, TokenCostsOut, WeightIn, WeightOut
from gateway.api.deps import CheckedCaller, DescribeKey, Gateway, RequireKey
from gateway.api.refusals import refusals
from gateway.api.schemas import body_of
from gateway.api.token_figures import figure_out, no_energy, rounded
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
from gateway.errors import NotFound
from gateway.settlements import Settlements

router = APIRouter(prefix="/api/costs", tags=["costs"], dependencies=[RequireKey, DescribeKey])

MOST = 1e9
LEAST = 1e-6
"""Of a rate and a utilisation: an engine that makes less in a second is not at work."""
_WEIGHING = frozenset({Role.OPERATOR, Role.ADMIN})


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
    figures.append(no_energy() if joules is None else energy_per_token(_exact(joules), tokens))
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
            per_hour=plain(price.per_hour),
            currency=price.currency,
            tier=price.tier,
            provider=price.provider,
            date=str(price.on),
            source=price.sourced.source,
            is_stale=is_stale(price.on, today),
        ),
        weight=plain(asked.weight),
        weight_basis="assumed" if weight is None else "given",
        figures=[figure_out(figure, currency) for figure in figures],
        sensitivity=[
            SensitivityOut(
                changed=row.changed,
                amounts={name: rounded(amount) for name, amount in row.amounts.items()},
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
        weight=plain(weight.value),
        basis=weight.basis,
        cells=weight.cells,
        r_squared=weight.r_squared,
        standard_error=weight.standard_error,
        reason=weight.reason,
    )


def _exact(value: float) -> Decimal:
    return Decimal(str(value))
