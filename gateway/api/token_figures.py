"""What a million tokens cost, as /api/costs shows it: as models were used, or at a load that is given.

The arithmetic is `domain.token_cost`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal

from gateway.answer_lengths import Lengths
from gateway.api.cost_lines import PaidTime, plain
from gateway.api.cost_schemas import TokenFigure
from gateway.api.energy import energy_figure
from gateway.cost_sums import GpuTimeRow, SpentRow
from gateway.domain.token_cost import (
    Load,
    TokenCost,
    cost_per_million,
    cost_per_thousand_characters,
    energy_per_token,
)
from gateway.energy_records import EnergySum

NO_ENERGY = "no joules were given; what counters showed is in the energy of GET /api/costs"
_WIDE = Context(prec=200)
"""For amounts of any length: what is asked for may be extreme, and has an answer."""


def figures_as_used(
    spent: Sequence[SpentRow],
    gpu_time: Sequence[GpuTimeRow],
    lengths: Mapping[tuple[str, str], Lengths],
    energy: Sequence[EnergySum],
) -> list[TokenFigure]:
    """What a model's tokens cost as it was used: all settled GPU money, and without idle time."""
    groups: dict[tuple[str, str, str], PaidTime] = defaultdict(lambda: PaidTime([]))
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
            figures += [figure_out(f, currency, model, provenance, n) for f in costs]
            korean = lengths.get((model, provenance), Lengths())
            of_text = cost_per_thousand_characters(
                costs[0], korean.characters, korean.tokens, counted="characters of Korean answers"
            )
            figures.append(figure_out(of_text, currency, model, provenance, korean.answers))
        figures.append(figure_out(energy_figure(energy, model, provenance), None, model, provenance))
    return figures


def no_energy() -> TokenCost:
    """The figure's name and definition, with the reason why there is none."""
    figure = energy_per_token(None, None)
    return TokenCost(figure.name, figure.load, None, figure.unit, figure.definition, NO_ENERGY)


def figure_out(
    figure: TokenCost,
    currency: str | None,
    model: str | None = None,
    provenance: str | None = None,
    calls: int | None = None,
) -> TokenFigure:
    """`calls`: of how many; None where the load was given."""
    return TokenFigure(
        model=model,
        provenance=provenance,
        name=figure.name,
        load=figure.load,
        amount=rounded(figure.amount),
        currency=currency,
        unit=figure.unit,
        definition=figure.definition,
        calls=calls,
        reason=figure.reason,
    )


def rounded(amount: Decimal | None) -> str | None:
    """A quotient, whose further digits say nothing."""
    return None if amount is None else plain(amount.quantize(Decimal("1e-9"), context=_WIDE))
