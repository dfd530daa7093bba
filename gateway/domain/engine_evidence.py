"""What engines showed of themselves, as evidence for or beside a claim about memory or context.

An engine that holds what is claimed speaks for the claim. One that holds less speaks against nothing: how much memory
and context it takes is its operator's choice. Pure; which engines were seen is looked up elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from gateway.domain.claim_evidence import Evidence, EvidenceKind, meets
from gateway.domain.claim_outcome import context_of
from gateway.domain.claim_terms import METRICS, MetricKind
from gateway.domain.engine_facts import ObservedLoad, ResolvedEngine
from gateway.domain.records import Claim, Provenance
from gateway.domain.settled_fit import settle_fit

CONTEXT = "context"
_NOT_REAL = {
    Provenance.STAND_IN: "a stand-in with small random weights, so its figures are not the model's",
    Provenance.SIMULATED: "a simulated engine, which computes what it resolves as the prediction does",
    Provenance.UNKNOWN: "nothing proves what the engine serves",
}


@dataclass(frozen=True, slots=True)
class SeenEngine:
    """One configuration of an engine of the claim's model, live or stored."""

    report: str
    replica: str
    gpu: str | None
    gpus: int
    provenance: Provenance
    resolved: ResolvedEngine
    observed: ObservedLoad | None
    weights_format: str | None
    """By the registry: the engine does not say."""
    is_of_todays_weights: bool = True
    """False where the registry names other weights by now than this engine served."""


def speaks_to(claim: Claim) -> bool:
    """Whether an engine's start and load can say something about a claim."""
    metric = METRICS.get(claim.metric or "")
    return metric is not None and (metric.kind is MetricKind.FIT or claim.metric == CONTEXT)


def engine_evidence(claim: Claim, engines: Iterable[SeenEngine]) -> tuple[Evidence, ...]:
    """What each engine resolved, and what was seen of it under a load that filled it; what cannot count, with why."""
    if not speaks_to(claim):
        return ()
    return tuple(one for engine in engines for one in _of_one(claim, engine))


def _of_one(claim: Claim, engine: SeenEngine) -> Iterator[Evidence]:
    if claim.metric == CONTEXT:
        yield _evidence(claim, engine, EvidenceKind.RESOLVED, engine.resolved.max_model_len, "its max_model_len")
        return
    context = engine.resolved.max_model_len
    words = "kv_cache_max_concurrency" + ("" if context is None else f" at {context:,} tokens")
    held = engine.resolved.kv_cache_max_concurrency
    yield _evidence(claim, engine, EvidenceKind.RESOLVED, held, words, holds_up_to=context)
    load = engine.observed
    if load is not None and settle_fit(engine.resolved, load, provenance=engine.provenance).fits:
        words = f"most that ran at once under a load that filled it, in {load.looks:,} looks"
        yield _evidence(claim, engine, EvidenceKind.OBSERVED, load.peak_running, words)


def _evidence(
    claim: Claim,
    engine: SeenEngine,
    kind: EvidenceKind,
    found: float | None,
    words: str,
    *,
    holds_up_to: int | None = None,
) -> Evidence:
    """`holds_up_to`: tokens of each request that `found` is about; as many shorter ones fit at least."""
    value = None if found is None else Decimal(str(found))
    is_fit, asked = claim.metric != CONTEXT, context_of(claim)
    covers = is_fit and asked is not None and holds_up_to is not None and asked <= holds_up_to
    return Evidence(
        kind=kind,
        provenance=engine.provenance,
        metric=claim.metric or "",
        gpu=engine.gpu,
        gpus=engine.gpus,
        value=value,
        source=f"engine {engine.replica}, report {engine.report}: {words}",
        unit="requests at once" if is_fit else "tokens",
        quantisation=engine.weights_format,
        context_tokens=claim.context_tokens if covers else holds_up_to,
        input_tokens=claim.input_tokens if covers else None,
        output_tokens=claim.output_tokens if covers else None,
        concurrency=claim.concurrency if is_fit else None,
        invalid=_why_aside(claim, engine, value),
    )


def _why_aside(claim: Claim, engine: SeenEngine, value: Decimal | None) -> str | None:
    """Why what this engine showed cannot support the claim; None where it can."""
    if engine.provenance is not Provenance.REAL:
        return _NOT_REAL[engine.provenance]
    if not engine.is_of_todays_weights:
        return f"it served {engine.resolved.root}, and the registry names other weights by now"
    if engine.gpu is None:
        return "the registry does not say on which GPU it runs"
    if claim.metric == "fits_single_gpu" and engine.gpus != 1:
        return f"it runs on {engine.gpus} GPUs"
    if value is None:
        return "the engine does not say"
    if claim.metric != CONTEXT and (why := _other_cache(claim, engine)) is not None:
        return why
    if not meets(claim, value):
        return "it is less than claimed, but by its operator's settings, which refute nothing"
    return None


def _other_cache(claim: Claim, engine: SeenEngine) -> str | None:
    if claim.kv_dtype is None:
        return None
    found = engine.resolved.cache_dtype
    has_eight_bits = found is not None and found.startswith("fp8")
    if found is None or has_eight_bits != (claim.kv_dtype == "fp8"):
        return f"its KV cache is in {found or 'an unknown format'}, not in the {claim.kv_dtype} claimed"
    return None
