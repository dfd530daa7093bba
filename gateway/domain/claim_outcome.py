"""What arithmetic finds about a claim, as a value, and the words and readings that its parts share.

Refuting takes what favours the claim wherever it leaves something open: weights of 2 bits, a cache of 4, the
larger reading of the memory, the shortest prompt. What is rounded needs a margin, what is doubtful refutes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.domain.ceiling_lines import digits
from gateway.domain.ceilings import Setup
from gateway.domain.claim_evidence import Evidence
from gateway.domain.claim_terms import METRICS, MetricKind
from gateway.domain.memory import GIB
from gateway.domain.records import Claim, Confidence, Model, Sourced

SMALLEST_FORMAT = "int4"
"""The smallest format in common use."""
ROUND_UNITS = (10**9, 10**8, 10**7, 10**6)
LEAST_DOUBT = 0.03
"""Share by which a rounded or inferred figure may be wrong at least."""
CONFIDENCES = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)


class Outcome(StrEnum):
    REFUTED = "refuted"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    outcome: Outcome
    reasons: tuple[str, ...]
    margin: float | None = None
    left_open: tuple[str, ...] = ()
    derivation: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    confidence: Confidence | None = None


def rounding_of(model: Model) -> float:
    """By which share a bound may be wrong because counts of parameters are rounded or inferred; 0 where they are exact.

    A count of whole millions or more is taken as rounded: by half of its last digit, and by 3 % at least.
    """
    shape = model.shape
    if shape is None:
        return 0.0
    counts = {"params": shape.params, "active_params": shape.active_params}
    return max((_rounding(count, shape.facts.get(name)) for name, count in counts.items() if count), default=0.0)


def _rounding(count: int, sourced: Sourced | None) -> float:
    unit = next((unit for unit in ROUND_UNITS if count % unit == 0), 0)
    is_inferred = sourced is not None and "inferred" in sourced.source
    return max(LEAST_DOUBT, unit / 2 / count) if unit or is_inferred else 0.0


def low_ones(facts: Mapping[str, Sourced | None]) -> tuple[str, ...]:
    """Names of those of low confidence; a fact without a source counts as such."""
    return tuple(name for name, fact in facts.items() if fact is None or fact.confidence is Confidence.LOW)


def context_of(claim: Claim) -> int | None:
    """Tokens of one request, prompt and answer, where the claim says."""
    if claim.context_tokens is not None:
        return claim.context_tokens
    if claim.input_tokens is None and claim.output_tokens is None:
        return None
    return (claim.input_tokens or 0) + (claim.output_tokens or 0)


def lowest(facts: Iterable[Sourced | None]) -> Confidence | None:
    """The lowest confidence; a fact without a source counts as low."""
    levels = [Confidence.LOW if fact is None else fact.confidence for fact in facts]
    return min(levels, key=CONFIDENCES.index) if levels else None


def figure(claim: Claim, value: float | None) -> str:
    if value is None:
        return "unknown"
    kind = METRICS[claim.metric or ""].kind
    if kind is MetricKind.LATENCY:
        return f"{digits(value * 1000)} ms"
    return f"{digits(value)} {claim.unit or METRICS[claim.metric or ''].unit or ''}".rstrip()


def setup_words(setup: Setup) -> str:
    return f"{setup.gpus} × {setup.gpu.name}"


def cited(sourced: Sourced | None) -> str:
    return "no source" if sourced is None else f"{sourced.source}, confidence {sourced.confidence.value}"


def gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def gib(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size / GIB:,.1f} GiB"
