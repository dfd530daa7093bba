"""What GPUs used of electricity, as lines beside those of money: read from counters, by model, replica or day.

Unknown has its reason, and what was read says how much of the time it covers; nothing is scaled up. Sums come from
`energy_records`, the arithmetic from `domain.energy`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from gateway.api.cost_schemas import By, ElectricityOut, EnergyLine
from gateway.domain.cost import is_stale
from gateway.domain.energy import Metered
from gateway.domain.records import ElectricityPrice, Registry, Replica, ServingKind
from gateway.domain.token_cost import TokenCost, energy_per_token
from gateway.energy_records import EnergySum

NO_COUNTERS = "the registry names no energy counters (energy) for it"
_PLACES = Decimal("1e-9")
_Group = tuple[str | None, str, str | None]
"""Group, model and provenance of a line."""


def energy_lines(sums: Sequence[EnergySum], registry: Registry, by: By, *, model: str | None) -> list[EnergyLine]:
    """A line each group, model and provenance that was read, and one each model or replica of which nothing was."""
    groups: dict[_Group, list[EnergySum]] = defaultdict(list)
    for row in sums:
        groups[_group_of(by, row.model, row.replica, str(row.day)), row.model, row.provenance].append(row)
    own = _own_replicas(registry, model)
    lines = []
    for (group, name, provenance), rows in sorted(groups.items(), key=lambda item: str(item[0])):
        found = sum((row.metered for row in rows), Metered())
        unread = _unread(own.get(name, ()), rows) if by != "replica" else None
        reasons = [found.why_unknown or (found.reason if found.covered_us < found.up_us else None), unread]
        read = sorted({row.replica for row in rows})
        reason = "; ".join(filter(None, reasons)) or None
        lines.append(_line(group, name, provenance, read, found, registry.electricity, reason))
    return lines + (_silent_lines(own, sums, by) if by != "day" else [])


def energy_figure(sums: Iterable[EnergySum], model: str, provenance: str) -> TokenCost:
    """J a token of a model's engines, idle time included, or why that is unknown."""
    rows = [row.metered for row in sums if (row.model, row.provenance) == (model, provenance)]
    found = sum(rows, Metered())
    is_known = bool(found.output_tokens)
    figure = energy_per_token(Decimal(found.counted_millijoules).scaleb(-3) if is_known else None, found.output_tokens)
    if is_known:
        return figure
    reason = (found.why_unknown or found.why_no_token) if rows else NO_COUNTERS
    return TokenCost(figure.name, figure.load, None, figure.unit, figure.definition, reason)


def _group_of(by: By, model: str, replica: str, day: str) -> str | None:
    return {"model": model, "replica": replica, "day": day}.get(by)


def _own_replicas(registry: Registry, model: str | None) -> Mapping[str, tuple[Replica, ...]]:
    """Replicas of engines of our own by model id; those of hosted APIs have no counters."""
    return {
        one.id: one.replicas
        for one in registry.routable()
        if one.serving.kind is not ServingKind.OPENAI_API and model in (None, one.id)
    }


def _unread(replicas: Sequence[Replica], rows: Sequence[EnergySum]) -> str | None:
    """Which replicas of a model are not in its sum."""
    read = {row.replica for row in rows}
    rest = [replica.id for replica in replicas if replica.id not in read]
    return f"without {', '.join(rest)}: no counter of it was read" if rest else None


def _silent_lines(own: Mapping[str, Sequence[Replica]], sums: Sequence[EnergySum], by: By) -> list[EnergyLine]:
    """Of what nothing was read: a line a replica, or a model."""
    read = {row.replica for row in sums}
    lines = []
    for name, replicas in own.items():
        silent = [replica for replica in replicas if replica.id not in read]
        if by != "replica" and len(silent) < len(replicas):
            continue
        for replica in silent if by == "replica" else silent[:1]:
            has_counters = any(one.energy is not None for one in ([replica] if by == "replica" else silent))
            reason = Metered().why_unknown if has_counters else NO_COUNTERS
            lines.append(_line(_group_of(by, name, replica.id, ""), name, None, [], Metered(), None, reason))
    return lines


def _line(
    group: str | None,
    model: str,
    provenance: str | None,
    replicas: list[str],
    found: Metered,
    price: ElectricityPrice | None,
    reason: str | None,
) -> EnergyLine:
    kwh, each = found.kwh, found.wh_per_thousand_output_tokens
    money = None if price is None or kwh is None else kwh * price.per_kwh
    return EnergyLine(
        group=group,
        model=model,
        provenance=provenance,
        replicas=replicas,
        joules=None if found.joules is None else f"{found.joules:f}",
        kwh=_rounded(kwh),
        wh_per_1000_output_tokens=_rounded(each),
        output_tokens=found.output_tokens if found.covered_us else None,
        tokens_reason=None if each is not None else found.why_no_token if found.covered_us else reason,
        readings=found.readings,
        covered_s=f"{Decimal(found.covered_us).scaleb(-6):f}",
        up_s=f"{Decimal(found.up_us).scaleb(-6):f}",
        coverage=None if found.coverage is None else round(found.coverage, 6),
        resets=found.resets,
        electricity_cost=_rounded(money),
        electricity=None if price is None or money is None else _price(price),
        reason=reason,
    )


def _price(price: ElectricityPrice) -> ElectricityOut:
    return ElectricityOut(
        per_kwh=f"{price.per_kwh:f}",
        currency=price.currency,
        date=str(price.on),
        source=price.sourced.source,
        is_stale=is_stale(price.on, datetime.now(UTC).date()),
    )


def _rounded(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount.quantize(_PLACES):f}"
