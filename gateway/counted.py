"""Amounts as Redis counts them: whole tokens, or billionths of a currency, as far as its numbers go."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from gateway.domain.accounts import TOKENS
from gateway.domain.limits import Amount

_NANO = 10**9
_MOST = 2**62


def whole(unit: str, amount: Amount) -> int:
    """`unit`: "tokens" or a currency."""
    return clamped(int(amount)) if unit == TOKENS else nano(Decimal(amount))


def amount_of(unit: str, value: bytes) -> Amount:
    """What Redis says of an amount."""
    return int(value) if unit == TOKENS else Decimal(int(value)) / _NANO


def nano(amount: Decimal) -> int:
    return clamped(int((amount * _NANO).to_integral_value(ROUND_HALF_EVEN)))


def clamped(amount: int) -> int:
    return max(-_MOST, min(_MOST, amount))
