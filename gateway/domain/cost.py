"""What a call costs, by a hosted API's price list or by its share of GPU time, and what a million tokens cost.

Money is Decimal in the price's own currency; converting currencies and settling whole windows do not belong here.
An unknown price or token count gives no amount and a reason, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal, localcontext
from hashlib import sha256
from math import isfinite

from gateway.domain.records import (
    ApiPrice,
    Cost,
    CurrencyRate,
    Gpu,
    GpuPrice,
    Model,
    Replica,
    ServingKind,
    Usage,
)

_EXACT = Context(prec=60)
_PROVISIONAL_STEP = Decimal("1e-12")
"""Smallest part of a currency unit that a provisional GPU cost distinguishes."""
STALE_DAYS = 90
"""A price or a rate that is older than this when it is used is marked."""


@dataclass(frozen=True, slots=True)
class PriceInForce:
    """The hourly price of a GPU on a day; `price` None with the reason where there is none."""

    price: GpuPrice | None
    reason: str | None = None


def price_in_force(gpu: Gpu | None, on: date, *, tier: str | None = None) -> PriceInForce:
    """The first price of the GPU, or its first of a tier: of several dates the last one up to `on`.

    Prices of one tier, provider and currency with different dates are one list that changed. Where all of them are of
    later dates the earliest is taken: it was seen later, but nothing else is known.
    """
    if gpu is None:
        return PriceInForce(None, "the registry does not know the GPU that the replica runs on")
    wanted = [price for price in gpu.prices if tier is None or price.tier == tier]
    if not wanted:
        of_tier = f" of tier {tier}" if tier is not None else ""
        return PriceInForce(None, f"the registry has no hourly price{of_tier} for {gpu.id}")
    first = wanted[0]
    same = [p for p in wanted if (p.provider, p.tier, p.currency) == (first.provider, first.tier, first.currency)]
    past = [price for price in same if price.on <= on]
    chosen = max(past, key=lambda price: price.on) if past else min(same, key=lambda price: price.on)
    _require_money(chosen.per_hour, "per_hour")
    return PriceInForce(chosen)


def prices_fingerprint(gpu: Gpu | None, *, tier: str | None = None) -> str:
    """The same while `price_in_force` finds the same of a GPU on every day; "" where the registry does not know it."""
    if gpu is None:
        return ""
    wanted = [price for price in gpu.prices if tier is None or price.tier == tier]
    facts = [(str(p.per_hour), p.currency, p.tier, p.provider, str(p.on)) for p in wanted]
    return sha256(repr((tier, facts)).encode()).hexdigest()[:16]


def is_stale(dated: date | None, on: date) -> bool:
    """Whether a price of the day `dated` is too old to be used on another day without a word; undated ones are."""
    return dated is None or (on - dated).days > STALE_DAYS


def convert(amount: Decimal, currency: str, to: str, rates: Sequence[CurrencyRate], on: date) -> Cost:
    """An amount in another currency by the latest rate up to the day `on`, which the reason names with its date.

    Unknown where there is no dated rate between the two: currencies are never mixed without one.
    """
    if currency == to:
        return Cost(amount, to, "converted", None)
    usable = [rate for rate in rates if {rate.base, rate.quote} == {currency, to} and rate.on <= on]
    if not usable:
        return _unknown(
            f"there is no rate between {currency} and {to} of {on} or earlier: add one to the registry's `rates`", to
        )
    rate = max(usable, key=lambda rate: rate.on)
    if not (rate.rate.is_finite() and rate.rate > 0):
        raise ValueError(f"rate: expected a number above 0, got {rate.rate}")
    with localcontext(_EXACT):
        converted = amount * rate.rate if rate.base == currency else amount / rate.rate
        converted = converted.quantize(_PROVISIONAL_STEP)
    stale = f", more than {STALE_DAYS} days old" if is_stale(rate.on, on) else ""
    words = f"at {rate.rate} {rate.quote} a {rate.base} of {rate.on} ({rate.sourced.source}){stale}"
    return Cost(converted, to, "converted", words)


def call_cost(
    model: Model,
    replica: Replica,
    gpu: Gpu | None,
    usage: Usage,
    shared_s: float,
    *,
    on: date | None = None,
    tier: str | None = None,
) -> Cost:
    """What one call cost, as known at its end: the API's price, or its share of the replica's GPU time.

    `gpu` is what the registry knows of the replica's GPU, `on` the day for its price (`price_in_force`); the last one
    where it is None. Unknown, with the reason, where a price or the GPU is not known.
    """
    if model.serving.kind is ServingKind.OPENAI_API:
        return api_cost(model.price, usage)
    if gpu is None:
        return _unknown("the registry does not say which GPU the replica runs on")
    found = price_in_force(gpu, on or date.max, tier=tier)
    if found.price is None:
        return Cost(amount=None, currency=None, basis="unknown", reason=found.reason)
    return gpu_time_cost(found.price, replica.gpus, shared_s)


def api_cost(price: ApiPrice | None, usage: Usage) -> Cost:
    """Uncached prompt × input price + cached prompt × cached price + completion × output price, per million tokens.

    Reasoning tokens are part of the completion. Where the cached share or its price is unknown the input price holds
    for the whole prompt, and the reason says so. Exact. Raises ValueError for negative numbers.
    """
    if price is None:
        return _unknown("the API's price is unknown")
    _require_sensible_usage(usage)
    _require_money(price.input_per_mtok, "input_per_mtok")
    _require_money(price.output_per_mtok, "output_per_mtok")
    prompt, completion, cached = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens or 0
    if prompt is None or completion is None:
        missing = "prompt" if prompt is None else "completion"
        return _unknown(f"the number of {missing} tokens is unknown", price.currency)
    if cached > prompt:
        return _unknown(f"{cached} cached tokens of a prompt of {prompt} make no sense", price.currency)
    cached_price = price.input_per_mtok if price.cached_input_per_mtok is None else price.cached_input_per_mtok
    _require_money(cached_price, "cached_input_per_mtok")
    with localcontext(_EXACT):
        inward = (prompt - cached) * price.input_per_mtok + cached * cached_price
        amount = (inward + completion * price.output_per_mtok).scaleb(-6)
    return Cost(amount, price.currency, "api_price", _assumptions(price, usage))


def gpu_time_cost(price: GpuPrice | None, gpus: int, shared_s: float | None) -> Cost:
    """Provisional cost of a self-hosted call: GPU-hour price × GPUs × its seconds of the replica's time / 3600.

    `shared_s` comes from SharedTime; it is the call's share, not its duration. Rounded to 10^-12 of a unit.
    """
    if price is None:
        return _unknown("the GPU's hourly price is unknown")
    if shared_s is None:
        return _unknown("the call's share of GPU time is unknown", price.currency)
    _require_money(price.per_hour, "per_hour")
    _require_gpus(gpus)
    _require_span(shared_s, "shared_s")
    with localcontext(_EXACT):
        amount = (price.per_hour * gpus * Decimal(shared_s) / 3600).quantize(_PROVISIONAL_STEP)
    return Cost(amount, price.currency, "gpu_time_provisional")


def cost_per_mtok(per_hour: Decimal, gpus: int, tokens_per_s: float, utilisation: float = 1.0) -> Decimal:
    """per_hour × gpus / (tokens_per_s × 3600) × 10^6 / utilisation, in the currency of `per_hour`.

    `tokens_per_s` is the whole replica's throughput; say which tokens and at which load. `utilisation` is the share
    of paid time that is spent at that load: idle time is not free.
    """
    _require_money(per_hour, "per_hour")
    _require_gpus(gpus)
    if not (isfinite(tokens_per_s) and tokens_per_s > 0):
        raise ValueError(f"tokens_per_s: expected a number above 0, got {tokens_per_s}")
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation: expected a share above 0 and up to 1, got {utilisation}")
    tokens_per_paid_hour = Decimal(str(tokens_per_s)) * 3600 * Decimal(str(utilisation))
    return per_hour * gpus * 1_000_000 / tokens_per_paid_hour


class SharedTime:
    """Splits one replica's busy time over the calls in flight: S(t) = integral of dt / in_flight(t).

    A call's share is S(its end) - S(its start), so the shares of all calls add up to the time in which at least one
    was in flight: fifty streams at once do not bill a GPU fifty times. Moments are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._in_flight = 0
        self._last = float("-inf")
        self._shared = 0.0

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def enter(self, now: float) -> float:
        """A call was dispatched. Returns the mark to hand to `leave`."""
        self._advance(now)
        self._in_flight += 1
        return self._shared

    def leave(self, now: float, mark: float) -> float:
        """The call that got `mark` has ended. Returns its share in seconds."""
        if self._in_flight == 0:
            raise ValueError("a call left that had not entered")
        self._advance(now)
        self._in_flight -= 1
        return self._shared - mark

    def _advance(self, now: float) -> None:
        if not isfinite(now) or now < self._last:
            raise ValueError(f"now: expected a moment not before {self._last}, got {now}")
        if self._in_flight:
            self._shared += (now - self._last) / self._in_flight
        self._last = now


def _assumptions(price: ApiPrice, usage: Usage) -> str | None:
    notes = []
    if usage.cached_tokens and price.cached_input_per_mtok is None:
        notes.append("no price for cached tokens is known: charged at the input price")
    if usage.cached_tokens is None and price.cached_input_per_mtok is not None:
        notes.append("the number of cached tokens is unknown: the whole prompt charged at the input price")
    if usage.source != "engine":
        notes.append(f"token counts are not the engine's own ({usage.source})")
    return "; ".join(notes) or None


def _unknown(reason: str, currency: str | None = None) -> Cost:
    return Cost(amount=None, currency=currency, basis="unknown", reason=reason)


def _require_sensible_usage(usage: Usage) -> None:
    counts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
    }
    for name, count in counts.items():
        if count is not None and count < 0:
            raise ValueError(f"{name}: expected 0 or more tokens, got {count}")


def _require_money(amount: Decimal, name: str) -> None:
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{name}: expected 0 or more, got {amount}")


def _require_gpus(gpus: int) -> None:
    if gpus < 1:
        raise ValueError(f"gpus: expected at least 1, got {gpus}")


def _require_span(seconds: float, name: str) -> None:
    if not isfinite(seconds) or seconds < 0:
        raise ValueError(f"{name}: expected 0 or more seconds, got {seconds}")
