"""What speaks to a claim, as values: a prediction, a ceiling, what an engine resolved, what was observed or measured.

With it, whether a value meets a claim, and which run would settle one. Weighing it all belongs to claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from gateway.domain.claim_terms import LEAST_N, METRICS, MetricKind
from gateway.domain.records import Claim, Provenance

TOLERANCE = Decimal("0.05")
"""Within this share, `equals` is met."""


class EvidenceKind(StrEnum):
    PREDICTED = "predicted"
    """From configuration; settles nothing."""
    CEILING = "ceiling"
    """What cannot be exceeded: refutes, never proves."""
    CONFIG = "config"
    """What the checkpoint's own files say."""
    RESOLVED = "resolved"
    """What an engine said when it had started."""
    OBSERVED = "observed"
    """What an engine showed under load."""
    MEASURED = "measured"
    """A valid cell of a load run."""
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing known about a model that a claim can be held against. None = not known, which fits no claim about it.

    For the metrics fits_single_gpu and fits_gpus a value is how many requests of `context_tokens` were held at once
    (vLLM's kv_cache_max_concurrency, or the most that ran); 0 = it did not start. For the statistic attainment a
    value is the share of offered requests, in percent, that met the claim's value.
    """

    kind: EvidenceKind
    provenance: Provenance
    metric: str
    gpu: str | None
    gpus: int
    value: Decimal | None
    """The figure to show: of several repeats the middle one."""
    source: str
    """Which run, page or formula, in words."""
    statistic: str | None = None
    n: int | None = None
    """Requests behind each value."""
    repeats: tuple[Decimal, ...] = ()
    """The value of each repeat, where there were several."""
    unit: str | None = None
    quantisation: str | None = None
    kv_dtype: str | None = None
    context_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    concurrency: int | None = None
    rate_per_s: Decimal | None = None
    invalid: str | None = None
    """Why the cell is invalid, in words; None for a valid one."""

    @property
    def values(self) -> tuple[Decimal, ...]:
        if self.repeats:
            return self.repeats
        return () if self.value is None else (self.value,)

    @property
    def is_simulated(self) -> bool:
        return self.kind is EvidenceKind.SIMULATED or self.provenance is Provenance.SIMULATED


def comparison_of(claim: Claim) -> str:
    return claim.comparison or METRICS[claim.metric or ""].comparison


def meets(claim: Claim, value: Decimal) -> bool:
    """Whether a measured value is what the claim says."""
    if METRICS[claim.metric or ""].kind is MetricKind.FIT:
        return value >= (claim.concurrency or 1)
    if claim.statistic == "attainment":
        return claim.attainment_percent is not None and value >= claim.attainment_percent
    if claim.value is None:
        return False
    match comparison_of(claim):
        case "at_most":
            return value <= claim.value
        case "at_least":
            return value >= claim.value
    return abs(value - claim.value) <= TOLERANCE * abs(claim.value)


def in_words(claim: Claim, value: Decimal) -> str:
    """A value of the claim's metric with its unit."""
    metric = METRICS[claim.metric or ""]
    if metric.kind is MetricKind.FIT:
        return f"{value:.4g} requests at once" if value else "did not start"
    if claim.statistic == "attainment":
        return f"{value:.4g} % of the offered requests"
    return f"{value:.6g} {claim.unit or metric.unit or ''}".rstrip()


def needed_run(claim: Claim) -> str:
    """Which run would settle the claim, in one sentence."""
    metric = METRICS[claim.metric or ""]
    on = f"{claim.gpus or 1} × {claim.gpu}" if claim.gpu else "a named GPU"
    load = ", ".join(
        words
        for words, value in (
            (f"context of {claim.context_tokens:,} tokens" if claim.context_tokens else "", claim.context_tokens),
            (f"{claim.input_tokens:,} input tokens" if claim.input_tokens else "", claim.input_tokens),
            (f"{claim.output_tokens:,} output tokens" if claim.output_tokens else "", claim.output_tokens),
            (f"{claim.concurrency:,} requests at once" if claim.concurrency else "", claim.concurrency),
            (f"{claim.rate_per_s} requests a second" if claim.rate_per_s else "", claim.rate_per_s),
        )
        if value
    )
    under = f" with {load}" if load else ""
    if metric.kind is MetricKind.FIT:
        return f"Starting the published weights on {on}{under}, and a load that fills the cache, would settle it."
    if metric.kind is MetricKind.PRICE and claim.gpu is None:
        return "A bill of the day that it is claimed for would settle it."
    if metric.kind is MetricKind.FACT:
        return "The checkpoint's own files would settle it, or what an engine resolves when it has started."
    least = f", {LEAST_N[claim.statistic]} requests or more each" if claim.statistic in LEAST_N else ""
    return f"A load run on {on}{under} would settle it: three valid repeats{least}."
