"""The lines of /api/costs: calls, idle GPU time, busy time of no settled call, each with the prices that were used.

From sums to what is shown. Which lines a caller may see is the route's question; figures by the token are
`token_figures`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from gateway.api.cost_schemas import By, CostLine, PriceOut
from gateway.cost_sums import GpuTimeRow, SpentRow, UnattributedRow
from gateway.domain.cost import is_stale
from gateway.domain.records import Registry

HIDDEN = "what idle time cost is shown to operators, auditors and admins only"
UNATTRIBUTED = "busy, not attributed to a settled call: another minute of these calls has no price, or is not settled"
Place = tuple[str, str | None, str | None]
"""Model, currency, and the group where GPU time has one."""


class GpuTime:
    """Rows of GPU time by what calls are matched with."""

    def __init__(self, rows: Iterable[GpuTimeRow], by: By) -> None:
        self._by = by
        self._places: dict[Place, list[GpuTimeRow]] = defaultdict(list)
        for row in rows:
            self._places[row.model, row.currency, group_of(row, by) if by != "model" else None].append(row)

    def of(self, spent: SpentRow) -> Sequence[GpuTimeRow]:
        """Of the same model, currency and, grouped by replica or day, group."""
        group = spent.group if self._by in ("replica", "day") else None
        return self._places.get((spent.model, spent.currency, group), ())


def group_of(row: GpuTimeRow | UnattributedRow, by: By) -> str | None:
    """None where GPU time has no such thing: organisations and runs share it."""
    return {"model": row.model, "replica": row.replica, "day": str(row.day)}.get(by)


def calls_line(registry: Registry, row: SpentRow, of_gpu: Sequence[GpuTimeRow]) -> CostLine:
    """`of_gpu`: the GPU time that the calls are settled with."""
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
        cost=None if row.cost is None else plain(row.cost),
        calls=row.calls,
        calls_without_cost=row.calls_without_cost,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        cached_tokens=row.cached_tokens,
        gpu_seconds=None,
        idle_share=None,
        weights=_weights(of_gpu) if is_settled else [],
        prices=_gpu_prices(of_gpu) if is_settled else _api_prices(registry, row),
        reason=reason,
    )


@dataclass(slots=True)
class PaidTime:
    """GPU time of one kind."""

    rows: list[GpuTimeRow]

    def total(self, name: str) -> Decimal:
        return sum((getattr(row, name) or Decimal(0) for row in self.rows), Decimal(0))


def idle_lines(gpu_time: Iterable[GpuTimeRow], by: By, *, sees_all: bool) -> list[CostLine]:
    groups: dict[tuple[str | None, str, str, str | None, str | None], PaidTime] = defaultdict(lambda: PaidTime([]))
    for row in gpu_time:
        groups[group_of(row, by), row.model, row.provenance, row.currency, row.reason].rows.append(row)
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
                cost=plain(rest) if sees_all and currency is not None else None,
                calls=0,
                calls_without_cost=0,
                prompt_tokens=0,
                completion_tokens=0,
                cached_tokens=0,
                gpu_seconds=plain(idle_s) if sees_all else None,
                idle_share=round(float(rest / money), 6) if money else None,
                weights=_weights(idle.rows),
                prices=_gpu_prices(idle.rows),
                reason=reason if sees_all else HIDDEN,
            )
        )
    return lines


def busy_lines(rows: Iterable[UnattributedRow], by: By) -> list[CostLine]:
    groups: dict[tuple[str | None, str, str, str], list[UnattributedRow]] = defaultdict(list)
    for row in rows:
        groups[group_of(row, by), row.model, row.provenance, row.currency].append(row)
    return [
        CostLine(
            kind="busy",
            group=group,
            model=model,
            provenance=provenance,
            basis="gpu_time",
            currency=currency,
            cost=plain(sum((row.cost for row in found), Decimal(0))),
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


def _weights(rows: Iterable[GpuTimeRow]) -> list[str]:
    return sorted({f"{plain(row.weight)} ({row.weight_basis})" for row in rows})


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
            per_hour=plain(per_hour),
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


def _api_prices(registry: Registry, row: SpentRow) -> list[PriceOut]:
    """The registry's present one; each call was charged with that of its own time."""
    model = registry.models.get(row.model)
    price = model.price if model is not None else None
    if row.basis != "api_price" or price is None or price.currency != row.currency:
        return []
    cached = price.cached_input_per_mtok
    return [
        PriceOut(
            kind="api",
            input_per_mtok=plain(price.input_per_mtok),
            cached_input_per_mtok=None if cached is None else plain(cached),
            output_per_mtok=plain(price.output_per_mtok),
            currency=price.currency,
            date=str(price.on) if price.on is not None else None,
            source=price.sourced.source if price.sourced is not None else None,
            is_stale=is_stale(price.on, datetime.now(UTC).date()),
        )
    ]


def plain(amount: Decimal) -> str:
    """All its digits."""
    return f"{amount:f}"


def cells_of(line: CostLine) -> list[Any]:
    """A row of a table for spreadsheets, with a cell a field."""
    return [_cell(name, getattr(line, name)) for name in CostLine.model_fields]


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
