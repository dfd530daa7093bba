"""What GPUs' own energy counters say: two readings -> energy by the minute, and what tokens took of it.

A counter only ever rises; one that is lower than before began anew, and what it counted in between is not known. Energy
is never estimated: time that no two readings enclose is not covered, and the figures say how much was. Reading the
counters belongs in `energy_reports`, keeping them in `energy_records`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal

MINUTE = timedelta(minutes=1)
MOST_GAP = timedelta(minutes=10)
"""Between two readings; after a longer time nobody knows what went on meanwhile."""
BEGAN_ANEW = "an energy counter was lower than before: it began anew, and what it counted meanwhile is not known"
NO_PAIR = "it was read once; energy is the difference of two readings"
NO_READING = "no energy counter was read in that time"
NO_TOKENS = "the engine's own counter of output tokens did not rise, or could not be read, while energy was"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """The counters of a replica's GPUs at one moment, and its engine's own count of tokens then."""

    at: datetime
    millijoules: tuple[int, ...] | None
    """One a GPU, in the registry's order; None where they could not be read."""
    output_tokens: int | None = None
    engine_started_at_s: float | None = None
    reason: str | None = None
    """Why there are no counters, where there are none."""


@dataclass(frozen=True, slots=True)
class Metered:
    """What readings of one replica add up to. Energy is of the covered time alone; nothing is scaled up to the rest."""

    readings: int = 0
    up_us: int = 0
    """Microseconds for which the replica was up while it was looked at."""
    covered_us: int = 0
    """Of these, those between two good readings."""
    millijoules: int = 0
    """Of the covered time."""
    counted_millijoules: int = 0
    """The part of it in which the engine's count of tokens is known as well."""
    output_tokens: int = 0
    """What the engine counted in that part, whoever asked for them."""
    resets: int = 0
    """Times that a counter began anew."""
    reason: str | None = None
    """Why not all of the time is covered, as last seen."""

    def __add__(self, other: Metered) -> Metered:
        sums = {each: getattr(self, each) + getattr(other, each) for each in SUMMED}
        return Metered(**sums, reason=other.reason or self.reason)

    @property
    def joules(self) -> Decimal | None:
        return Decimal(self.millijoules).scaleb(-3) if self.covered_us else None

    @property
    def kwh(self) -> Decimal | None:
        """1 kWh = 3.6 × 10⁹ mJ."""
        return Decimal(self.millijoules) / Decimal(3_600_000_000) if self.covered_us else None

    @property
    def joules_per_output_token(self) -> Decimal | None:
        return Decimal(self.counted_millijoules) / 1000 / self.output_tokens if self.output_tokens else None

    @property
    def wh_per_thousand_output_tokens(self) -> Decimal | None:
        """J/token × 1,000 ÷ 3,600, idle time included: all energy of the time in which so many tokens were made."""
        each = self.joules_per_output_token
        return None if each is None else each * 1000 / 3600

    @property
    def coverage(self) -> float | None:
        """Share of the time looked at for which energy is known, 0 to 1."""
        return self.covered_us / self.up_us if self.up_us else None

    @property
    def why_unknown(self) -> str | None:
        """Why there is no energy; None where there is."""
        if self.covered_us:
            return None
        return self.reason or (NO_PAIR if self.readings else NO_READING)

    @property
    def why_no_token(self) -> str | None:
        """Why no energy a token is known; None where it is."""
        return None if self.output_tokens else self.why_unknown or NO_TOKENS


SUMMED = tuple(each.name for each in fields(Metered) if each.name != "reason")


def metered(before: EnergyReading | None, now: EnergyReading) -> Iterator[tuple[datetime, Metered]]:
    """(start of a minute of UTC, what belongs in it): all that the reading `now` adds to those before.

    Energy and tokens between two readings are spread evenly over the time between them; the shares of the minutes add
    up to the whole exactly.
    """
    whole = _between(before, now)
    if before is None or not whole.up_us:
        yield _minute_of(now.at), whole
        return
    start = before.at
    while start < now.at:
        end = min(_minute_of(start) + MINUTE, now.at)
        yield _minute_of(start), _share(whole, (start - before.at) // _MICROSECOND, (end - before.at) // _MICROSECOND)
        start = end
    yield _minute_of(now.at), Metered(readings=whole.readings, resets=whole.resets, reason=whole.reason)


def _between(before: EnergyReading | None, now: EnergyReading) -> Metered:
    readings = int(now.millijoules is not None)
    if before is None or not timedelta(0) < now.at - before.at <= MOST_GAP:
        return Metered(readings=readings, reason=now.reason)
    up_us = (now.at - before.at) // _MICROSECOND
    if before.millijoules is None or now.millijoules is None:
        return Metered(readings=readings, up_us=up_us, reason=now.reason or before.reason)
    if len(before.millijoules) != len(now.millijoules) or _any_lower(before.millijoules, now.millijoules):
        return Metered(readings=readings, up_us=up_us, resets=1, reason=BEGAN_ANEW)
    used = sum(now.millijoules) - sum(before.millijoules)
    tokens = _tokens(before, now)
    return Metered(
        readings=readings,
        up_us=up_us,
        covered_us=up_us,
        millijoules=used,
        counted_millijoules=0 if tokens is None else used,
        output_tokens=tokens or 0,
    )


def _any_lower(before: tuple[int, ...], now: tuple[int, ...]) -> bool:
    return any(new < old for old, new in zip(before, now, strict=True))


def _tokens(before: EnergyReading, now: EnergyReading) -> int | None:
    """What the engine made between two readings; None where it does not say, or is another process."""
    if before.output_tokens is None or now.output_tokens is None:
        return None
    if before.engine_started_at_s != now.engine_started_at_s or now.output_tokens < before.output_tokens:
        return None
    return now.output_tokens - before.output_tokens


def _share(whole: Metered, from_us: int, to_us: int) -> Metered:
    """What lies between two moments of the span, counted in whole units from its start on, so that nothing is lost."""

    def part(amount: int) -> int:
        return amount * to_us // whole.up_us - amount * from_us // whole.up_us

    return Metered(
        up_us=to_us - from_us,
        covered_us=to_us - from_us if whole.covered_us else 0,
        millijoules=part(whole.millijoules),
        counted_millijoules=part(whole.counted_millijoules),
        output_tokens=part(whole.output_tokens),
        reason=whole.reason,
    )


def _minute_of(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
