"""The shapes of /api/costs: lines of calls and idle time, prices that were used, figures by the token."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from gateway.api.schemas import Amount, Asked, ModelId
from gateway.domain.records import Provenance

By = Literal["model", "organisation", "run", "replica", "day"]


class PriceOut(BaseModel):
    """A price that was used. GPU prices are by the hour, API prices by the million tokens; both without VAT."""

    kind: Literal["gpu_hour", "api"]
    gpu: str | None = None
    per_hour: Amount | None = None
    input_per_mtok: Amount | None = None
    cached_input_per_mtok: Amount | None = None
    output_per_mtok: Amount | None = None
    currency: str
    tier: str | None = None
    provider: str | None = None
    date: str | None = Field(description="When it was seen.")
    source: str | None
    is_stale: bool = Field(description="More than 90 days older than its use, or of no known date.")


class CostLine(BaseModel):
    """Calls that have group, model, provenance, basis and currency in common; or a model's idle GPU time; or busy
    time that is in no settled call. Settled calls, idle and busy lines together are the GPUs' money."""

    kind: Literal["calls", "idle", "busy"] = Field(
        description="busy: what settled minutes charge to calls that have no settled cost; for overseers."
    )
    group: str | None = Field(description="Of what was asked to group by; null where there is none, as for idle time.")
    model: str
    provenance: str | None
    basis: Literal["api_price", "gpu_time", "gpu_time_provisional", "unknown"] | None = Field(
        description="gpu_time is settled, gpu_time_provisional is not yet."
    )
    currency: str | None
    cost: Amount | None
    calls: int
    calls_without_cost: int
    prompt_tokens: int = Field(description="Of calls that somebody counted; so are the other two.")
    completion_tokens: int
    cached_tokens: int
    gpu_seconds: Amount | None = Field(description="Idle lines: GPU time that nothing used. GPUs × seconds.")
    idle_share: float | None = Field(description="Idle lines: their part of all GPU money, from 0 to 1.")
    weights: list[str] = Field(description="What an uncached prompt token counted for, in completion tokens.")
    prices: list[PriceOut]
    reason: str | None


class TokenFigure(BaseModel):
    """What tokens cost at a load that is named."""

    model: str | None
    provenance: str | None
    name: str = Field(description="output, input_and_output, blended_3_to_1, per_1000_characters or energy.")
    load: str = Field(description="at_full, claimed, seen (idle time included) or while_busy (without it).")
    amount: Amount | None
    currency: str | None
    unit: str
    definition: str
    calls: int | None = Field(description="Of how many calls; null where the load was given, and of energy.")
    reason: str | None


class ElectricityOut(BaseModel):
    """The registry's price of a kWh, which is in no other figure here."""

    per_kwh: Amount
    currency: str
    date: str
    source: str
    is_stale: bool = Field(description="More than 90 days old today.")


class EnergyLine(BaseModel):
    """What the energy counters of GPUs showed while their replicas were up, idle time included."""

    group: str | None
    model: str
    provenance: str | None
    replicas: list[str] = Field(description="Whose counters were read.")
    joules: Amount | None = Field(description="Of the time that is covered; nothing is scaled up to the rest.")
    kwh: Amount | None
    wh_per_1000_output_tokens: Amount | None = Field(
        description="Energy of covered time ÷ output tokens that the engines themselves counted in the same time."
    )
    output_tokens: int | None = Field(description="That count, whoever asked for them.")
    tokens_reason: str | None = Field(description="Why nothing is known by the token.")
    readings: int
    covered_s: Amount = Field(description="Seconds between two good readings.")
    up_s: Amount = Field(description="Seconds for which the replicas were up while their counters were looked at.")
    coverage: float | None = Field(description="The one as a share of the other, 0 to 1.")
    resets: int = Field(description="Times that a counter began anew.")
    electricity_cost: Amount | None = Field(description="kWh × the registry's price; in no other amount here.")
    electricity: ElectricityOut | None
    reason: str | None = Field(description="Why it is unknown, or not of all the time or all replicas.")


class CostsOut(BaseModel):
    since: str = Field(json_schema_extra={"format": "date"})
    until: str = Field(json_schema_extra={"format": "date"}, description="The last day, included.")
    time_zone: Literal["UTC"]
    by: By
    tax: Literal["excluded"]
    unsettled_windows: int = Field(description="Minutes of replicas' time that are yet to be settled, or anew.")
    unsettled_since: str | None = Field(description="When the first of them begins.")
    data: list[CostLine]
    figures: list[TokenFigure] = Field(description="By model, for overseers; empty for other groupings.")
    energy: list[EnergyLine] = Field(description="By model, replica or day, else by model; for overseers.")


class SensitivityOut(BaseModel):
    changed: str
    amounts: dict[str, Amount | None]
    changes: dict[str, float | None] = Field(description="As a share: 0.2 is a fifth more.")


class TokenCostsOut(BaseModel):
    gpu: str
    gpus: int
    price: PriceOut | None
    weight: Amount
    weight_basis: Literal["assumed", "given"]
    figures: list[TokenFigure]
    sensitivity: list[SensitivityOut]


class WeightCellIn(Asked):
    """One measured load; at least one of the lengths differs from load to load."""

    uncached_prompt_tokens: float = Field(ge=0, le=1e15)
    completion_tokens: float = Field(ge=0, le=1e15)
    busy_s: float = Field(gt=0, le=1e9, description="Seconds in which at least one call was on its way.")


class WeightIn(Asked):
    """Measured loads of one model on one kind of GPU."""

    model: ModelId
    gpu: str = Field(min_length=1, max_length=200)
    provenance: Provenance = Field(description="Of the engine measured: the weight counts for such engines alone.")
    source: str = Field(min_length=1, max_length=200, description="Where the loads are from, e.g. a run's id.")
    cells: list[WeightCellIn] = Field(min_length=1, max_length=1000)


class WeightOut(BaseModel):
    weight: Amount = Field(description="What an uncached prompt token counts for, in completion tokens.")
    basis: Literal["assumed", "fitted"] = Field(description="assumed: the loads give no weight, nothing was kept.")
    cells: int
    r_squared: float | None
    standard_error: float | None
    reason: str | None
