"""Lengths in tokens drawn from `plan.Lengths`. Pure: the caller's generator is the only source of chance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from loadtests.plan import Lengths, Shape


def draw_lengths(lengths: Lengths, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """`count` independent lengths, each from `least` to `most`, both included.

    LOGNORMAL is truncated as if by rejection: what lies outside is never drawn and piles up nowhere. It is done by
    inverting the distribution between the bounds, so every length costs exactly one number of the generator. `median`
    is that of the distribution before it was truncated; bounds that lie unevenly about it move the median of what is
    drawn. FIXED takes nothing from the generator. Raises ValueError as `check_lengths` does.
    """
    check_lengths(lengths)
    match lengths.shape:
        case Shape.FIXED:
            return np.full(count, lengths.median, dtype=np.int64)
        case Shape.UNIFORM:
            return rng.integers(lengths.least, lengths.most, size=count, endpoint=True, dtype=np.int64)
        case Shape.LOGNORMAL:
            return _lognormal(lengths, rng.random(count))


def check_lengths(lengths: Lengths) -> None:
    """Raise ValueError unless 1 ≤ least ≤ median ≤ most, FIXED is one length, and sigma is finite and not negative."""
    if not 1 <= lengths.least <= lengths.median <= lengths.most:
        raise ValueError(
            "lengths: expected 1 <= least <= median <= most; "
            f"got least {lengths.least}, median {lengths.median}, most {lengths.most}"
        )
    if lengths.shape is Shape.FIXED and lengths.least != lengths.most:
        raise ValueError(f"lengths: a fixed length is one length; got {lengths.least} to {lengths.most}")
    if not (math.isfinite(lengths.sigma) and lengths.sigma >= 0):
        raise ValueError(f"lengths: expected sigma of 0 or more; got {lengths.sigma}")


def _lognormal(lengths: Lengths, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """`shares` are the places in the truncated distribution, from 0 to below 1.

    A whole number stands for what rounds to it, so the bounds are half a token further out.
    """
    if lengths.sigma == 0:
        return np.full(len(shares), lengths.median, dtype=np.int64)
    centre = math.log(lengths.median)
    low = float(ndtr((math.log(lengths.least - 0.5) - centre) / lengths.sigma))
    high = float(ndtr((math.log(lengths.most + 0.5) - centre) / lengths.sigma))
    drawn: NDArray[np.float64] = np.exp(centre + lengths.sigma * ndtri(low + shares * (high - low)))
    return np.clip(np.rint(drawn), lengths.least, lengths.most).astype(np.int64)
