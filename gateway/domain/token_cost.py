"""What tokens cost on GPUs that are paid for by the hour: per million of them, at a load that is named.

Throughput and price in, figures out; each says which tokens it counts, at which load, and why it is unknown where it
is. Sums of what was really used belong in `cost_sums`, the cost of calls in `cost` and `settlement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from gateway.domain.settlement import DEFAULT_WEIGHT

BLENDED_RATIO = 3
"""Input to output tokens of a blended price, by custom 3:1; it is always named."""
_MILLION = Decimal(1_000_000)
_HOUR_S = Decimal(3600)


@dataclass(frozen=True, slots=True)
class Load:
    """What one replica does in a second, and what its GPUs cost in an hour."""

    name: str
    """at_full (the highest rate that meets the objectives) | claimed | seen, or words of the caller's own."""
    output_tokens_per_s: Decimal
    input_tokens_per_s: Decimal
    """Uncached."""
    per_hour: Decimal
    gpus: int = 1
    utilisation: Decimal = Decimal(1)
    """Share of the paid time that is spent at that rate."""
    weight: Decimal = DEFAULT_WEIGHT
    """What an uncached input token costs, in output tokens; only the blended figure depends on it."""


@dataclass(frozen=True, slots=True)
class TokenCost:
    """One figure: `amount` is None where it is unknown, with the reason."""

    name: str
    load: str
    amount: Decimal | None
    unit: str
    definition: str
    reason: str | None = None


def cost_per_million(load: Load) -> list[TokenCost]:
    """All money on the output tokens; on input and output tokens alike; and blended 3:1.

    The first is price × GPUs ÷ (tokens/s × 3600) × 10⁶ ÷ utilisation. Blended: an output token costs p with
    p × (output + weight × input tokens) = the money, an input token weight × p, and three of these with one of those
    are averaged. Raises ValueError for numbers that cannot be.
    """
    _require_load(load)
    money = load.per_hour * load.gpus / (_HOUR_S * load.utilisation)
    outward, inward = load.output_tokens_per_s, load.input_tokens_per_s
    weighted = outward + load.weight * inward
    each = money / weighted * _MILLION if weighted else None
    blended = each * (BLENDED_RATIO * load.weight + 1) / (BLENDED_RATIO + 1) if each is not None else None
    return [
        _figure("output", load, _quotient(money, outward), "all GPU money ÷ output tokens"),
        _figure("input_and_output", load, _quotient(money, outward + inward), "all GPU money ÷ (input + output)"),
        _figure(
            f"blended_{BLENDED_RATIO}_to_1",
            load,
            blended,
            f"{BLENDED_RATIO} input tokens to 1 output token, an input token at {load.weight:f} of an output token",
        ),
    ]


def cost_per_thousand_characters(
    output_cost: TokenCost, characters: int | None, tokens: int | None, *, counted: str = "characters"
) -> TokenCost:
    """Output cost × tokens ÷ characters of the same answers × 1,000, so that tokenizers can be compared.

    `counted` names what characters are counted. Unknown where no answers of the model are at hand.
    """
    name, unit = "per_1000_characters", f"per 1,000 {counted}"
    definition = "cost per output token × tokens per character × 1,000"
    if output_cost.amount is None:
        return TokenCost(name, output_cost.load, None, unit, definition, output_cost.reason)
    if not characters or not tokens:
        why = "no answers are at hand of which both characters and tokens are known"
        return TokenCost(name, output_cost.load, None, unit, definition, why)
    if characters < 0 or tokens < 0:
        raise ValueError(f"characters, tokens: expected more than 0, got {characters} and {tokens}")
    amount = output_cost.amount / _MILLION * tokens / characters * 1000
    return TokenCost(name, output_cost.load, amount, unit, definition)


def energy_per_token(joules: Decimal | None, tokens: int | None) -> TokenCost:
    """J a token, from a counter of the GPUs read before and after; never from a data sheet's watts."""
    definition = "difference of the GPUs' energy counters ÷ output tokens"
    if joules is None or not tokens:
        why = "no NVML or DCGM energy counter was read" if joules is None else "no output token was counted"
        return TokenCost("energy", "seen", None, "J/token", definition, why)
    if not joules.is_finite() or joules < 0:
        raise ValueError(f"joules: expected 0 or more, got {joules}")
    return TokenCost("energy", "seen", joules / tokens, "J/token", definition)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What one change of one input makes of the figures."""

    changed: str
    amounts: Mapping[str, Decimal | None]
    """By the figures' names."""
    changes: Mapping[str, Decimal | None]
    """The same as a share of the figure without the change: 0.2 is a fifth more."""


def sensitivity(load: Load, *, prices: Sequence[Decimal] = (), share: Decimal = Decimal("0.2")) -> list[Sensitivity]:
    """What price, utilisation and weight change by how much: each by ± `share`, and the price to each of `prices`.

    A utilisation stays at most 1. A weight of half and of twice is shown as well, since it is often assumed.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: expected a number between 0 and 1, got {share}")
    less, more, percent = 1 - share, 1 + share, f"{share:.0%}"
    variants: list[tuple[str, Load]] = [
        (f"price -{percent}", replace(load, per_hour=load.per_hour * less)),
        (f"price +{percent}", replace(load, per_hour=load.per_hour * more)),
        (f"utilisation -{percent}", replace(load, utilisation=load.utilisation * less)),
        (f"utilisation +{percent}", replace(load, utilisation=min(Decimal(1), load.utilisation * more))),
        ("weight × 0.5", replace(load, weight=load.weight / 2)),
        ("weight × 2", replace(load, weight=load.weight * 2)),
    ]
    variants += [(f"price {price:f}", replace(load, per_hour=price)) for price in prices]
    before = {figure.name: figure.amount for figure in cost_per_million(load)}
    rows = []
    for words, variant in variants:
        after = {figure.name: figure.amount for figure in cost_per_million(variant)}
        rows.append(Sensitivity(words, after, {name: _change(before[name], after[name]) for name in after}))
    return rows


def _change(before: Decimal | None, after: Decimal | None) -> Decimal | None:
    return after / before - 1 if before and after is not None else None


def _quotient(money_per_s: Decimal, tokens_per_s: Decimal) -> Decimal | None:
    return money_per_s / tokens_per_s * _MILLION if tokens_per_s else None


def _figure(name: str, load: Load, amount: Decimal | None, definition: str) -> TokenCost:
    reason = None if amount is not None else "there were no such tokens"
    return TokenCost(name, load.name, amount, "per 10⁶ tokens", definition, reason)


def _require_load(load: Load) -> None:
    for name in ("output_tokens_per_s", "input_tokens_per_s", "per_hour", "weight"):
        value: Decimal = getattr(load, name)
        if not value.is_finite() or value < 0:
            raise ValueError(f"{name}: expected 0 or more, got {value}")
    if load.gpus < 1:
        raise ValueError(f"gpus: expected at least 1, got {load.gpus}")
    if not (load.utilisation.is_finite() and 0 < load.utilisation <= 1):
        raise ValueError(f"utilisation: expected a share above 0 and up to 1, got {load.utilisation}")
