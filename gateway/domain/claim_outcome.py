"""What arithmetic finds about a claim, as a value, and the words and readings that its parts share.

Refuting takes what favours the claim wherever it leaves something open: the smallest weights, an 8-bit cache, the
larger reading of the memory, the shortest prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from gateway.domain.ceiling_lines import digits
from gateway.domain.ceilings import Setup
from gateway.domain.claim_evidence import Evidence
from gateway.domain.claim_terms import METRICS, MetricKind
from gateway.domain.memory import GIB, number_format
from gateway.domain.records import Claim, Confidence, Model, Sourced
from gateway.domain.roofline import least_weights_bytes

SMALLEST_FORMAT = "int4"
"""The format that favours a claim most which names none."""
CONFIDENCES = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)


class Outcome(StrEnum):
    REFUTED = "refuted"
    HOLDS = "holds"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    outcome: Outcome
    reasons: tuple[str, ...]
    margin: float | None = None
    holds_for: str | None = None
    left_open: tuple[str, ...] = ()
    derivation: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    confidence: Confidence | None = None


def most_favourable_format(model: Model, published: str) -> str:
    """The format that favours a claim which names none: 4 bits, unless the published weights are smaller still."""
    sizes = {name: least_weights_bytes(model, name) for name in (published, SMALLEST_FORMAT)}
    known = {name: size for name, size in sizes.items() if size is not None}
    return min(known, key=lambda name: known[name]) if known else published


def kv_bytes_of(claim: Claim, unsaid: int) -> int:
    if claim.kv_dtype is None:
        return unsaid
    return 1 if number_format(claim.kv_dtype) == "fp8" else 2


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
