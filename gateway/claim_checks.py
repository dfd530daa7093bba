"""The verdicts on all claims of a registry, or on an assessor's own, and their form as JSON values.

The reasoning stands in `domain.claims`; here claims are chosen and evidence is put to them. Nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from typing import Any

from gateway.domain.claim_evidence import Evidence
from gateway.domain.claim_terms import METRICS
from gateway.domain.claim_workings import Workings
from gateway.domain.claims import CheckedClaim, check_claim
from gateway.domain.engine_evidence import SeenEngine, engine_evidence
from gateway.domain.records import Claim, Registry
from gateway.registry.claims_file import StatedClaim
from loadtests.cells import Run
from loadtests.run_evidence import evidence_in

EvidenceOf = Callable[[StatedClaim], Sequence[Evidence]]
"""What was run that speaks to a claim."""
_SAID = (
    *("id", "text", "metric", "value", "unit", "comparison", "statistic", "attainment_percent"),
    *("gpu", "gpus", "quantisation", "kv_dtype", "context_tokens", "input_tokens", "output_tokens", "cached_tokens"),
    *("concurrency", "rate_per_s", "accepted_length", "said_by", "on", "original"),
)


def no_evidence(_stated: StatedClaim) -> Sequence[Evidence]:
    """Where nothing was run: arithmetic alone speaks."""
    return ()


def shown_by(engines: Mapping[str, Sequence[SeenEngine]], runs: Mapping[str, Sequence[Run]]) -> EvidenceOf:
    """What engines of a claim's model resolved and showed, and what its kept load runs found; both by model id."""

    def found(one: StatedClaim) -> Sequence[Evidence]:
        by_engines = engine_evidence(one.claim, engines.get(one.about, ()))
        return (*by_engines, *evidence_in(runs.get(one.about, ()), one.claim))

    return found


def registry_claims(registry: Registry, *, about: Collection[str] | None = None) -> list[StatedClaim]:
    """Every claim of the registry, consortium by consortium: its own, then its models'; or those about some ids.

    A consortium's id stands for its models too.
    """
    found = [StatedClaim(one.id, claim) for one in registry.consortia.values() for claim in one.claims]
    found += [StatedClaim(model.id, claim) for model in registry.models.values() for claim in model.claims]
    order = {name: n for n, name in enumerate(registry.consortia)}
    chosen = [one for one in found if about is None or not {one.about, consortium_of(registry, one)}.isdisjoint(about)]
    return sorted(chosen, key=lambda one: order.get(consortium_of(registry, one) or "", len(order)))


def consortium_of(registry: Registry, stated: StatedClaim) -> str | None:
    """The consortium that a claim is about, or whose model it is about."""
    if stated.about in registry.models:
        return registry.models[stated.about].consortium_id
    return stated.about


def check_claims(
    stated: Iterable[StatedClaim],
    registry: Registry,
    *,
    gpu: str | None = None,
    evidence_of: EvidenceOf = no_evidence,
) -> list[CheckedClaim]:
    """The verdict on each, in the same order. `gpu` is taken where a claim names none."""
    workings = Workings()
    return [
        check_claim(
            one.claim,
            registry.models.get(one.about, one.about),
            registry.gpus,
            evidence=evidence_of(one),
            gpu=gpu,
            workings=workings,
        )
        for one in stated
    ]


def claim_object(found: CheckedClaim, registry: Registry) -> dict[str, Any]:
    """A checked claim as JSON values; what was not said or is not known is null."""
    is_model = found.about in registry.models
    claim = found.claim
    return {
        "model": found.about if is_model else None,
        "consortium": registry.models[found.about].consortium_id if is_model else found.about,
        "claim": _said(claim),
        "verdict": found.verdict.value,
        "reasons": list(found.reasons),
        "margin": None if found.margin is None else round(found.margin, 4),
        "holds_for": found.holds_for,
        "left_open": list(found.left_open),
        "derivation": list(found.derivation),
        "evidence": [_evidence_object(one) for one in found.evidence],
        "confidence": None if found.confidence is None else found.confidence.value,
    }


def _said(claim: Claim) -> dict[str, Any]:
    said = {name: _plain(getattr(claim, name)) for name in _SAID}
    metric = METRICS.get(claim.metric or "")
    if metric is not None and claim.comparison is None and claim.value is not None:
        said["comparison"] = metric.comparison
    said |= {"source": claim.sourced.source, "source_confidence": claim.sourced.confidence.value}
    return {**said, "note": claim.sourced.note}


def _evidence_object(one: Evidence) -> dict[str, Any]:
    made = {field.name: _plain(getattr(one, field.name)) for field in fields(one)}
    return {**made, "kind": one.kind.value, "provenance": one.provenance.value}


def _plain(value: Any) -> Any:
    """Decimals and days as text, so that no digit is lost."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
