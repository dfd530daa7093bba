"""What arithmetic alone says to a claim: refuted, or open; it never makes one hold.

Here the kinds of claims are told apart, and those that need no bound are judged: list prices and published facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from gateway.domain.claim_evidence import meets, needed_run
from gateway.domain.claim_fit import judge_fit
from gateway.domain.claim_outcome import Arithmetic, Outcome, cited, lowest
from gateway.domain.claim_speed import judge_cost, judge_speed
from gateway.domain.claim_terms import METRICS, MetricKind
from gateway.domain.claim_workings import Workings
from gateway.domain.records import Claim, Gpu, Model, ServingKind


def work_out(
    claim: Claim, model: Model, gpus: Mapping[str, Gpu], *, assumed_gpu: str | None, workings: Workings
) -> Arithmetic:
    """What arithmetic says to a claim with a testable metric; `assumed_gpu` where the claim names none."""
    kind = METRICS[claim.metric or ""].kind
    if kind is MetricKind.FACT:
        return _fact(claim, model)
    if kind is MetricKind.PRICE and claim.gpu is None:
        return _listed_price(claim, model)
    if (why := _no_weights(model)) is not None:
        return Arithmetic(Outcome.OPEN, (why,))
    if kind is MetricKind.FIT:
        return judge_fit(claim, model, gpus, assumed_gpu, workings)
    name = claim.gpu or assumed_gpu
    if name is None:
        why = "It names no GPU, so arithmetic cannot speak to it; name one with --gpu to see what holds there."
        return Arithmetic(Outcome.OPEN, (why,))
    read = replace(claim, gpu=name)
    judge = judge_cost if kind is MetricKind.PRICE else judge_speed
    found = judge(read, model, gpus[name], workings)
    if claim.gpu is not None:
        return found
    read_as = f"It names no GPU; read as on {name}."
    outcome = Outcome.OPEN if found.outcome is Outcome.REFUTED else found.outcome
    return replace(found, outcome=outcome, reasons=(read_as, *found.reasons))


def _no_weights(model: Model) -> str | None:
    if model.weights.repo is None and model.weights.size_bytes is None and model.serving.kind is not ServingKind.VLLM:
        return "There are no public weights, so arithmetic cannot speak to it; a load run over its API can."
    if model.shape is None and model.weights.size_bytes is None:
        return "Unknown: neither the shape nor the size of the model is in the registry."
    return None


def _listed_price(claim: Claim, model: Model) -> Arithmetic:
    price = model.price
    if price is None:
        why = "Unknown: the registry has no list price for it, and the claim names no GPU on which it would cost that."
        return Arithmetic(Outcome.OPEN, (why,))
    if claim.unit != price.currency:
        why = f"Unknown: it is in {claim.unit}, the list price in {price.currency}, and no rate is applied."
        return Arithmetic(Outcome.OPEN, (why,))
    listed = price.input_per_mtok if claim.metric == "price_per_mtok_in" else price.output_per_mtok
    when = f"of {price.on}" if price.on else "of an unknown day"
    line = f"The price list {when} ({cited(price.sourced)}) says {listed:f} {price.currency} a million tokens."
    confidence = lowest([price.sourced])
    limit = claim.value or Decimal(0)
    margin = None if not limit else float((limit - listed) / limit)
    if meets(claim, listed):
        why = "That is the claim, before tax; a list shows what is asked for, not what is paid."
    else:
        why = "Not at any listed price; prices change and are agreed, so that refutes nothing."
    return Arithmetic(
        Outcome.OPEN, (line, why), margin, left_open=(needed_run(claim),), derivation=(line,), confidence=confidence
    )


def _fact(claim: Claim, model: Model) -> Arithmetic:
    shape = model.shape
    name = claim.metric or ""
    value = None if shape is None else getattr(shape, name)
    left = (needed_run(claim),)
    if shape is None or value is None:
        return Arithmetic(
            Outcome.OPEN, (f"Unknown: the registry does not know its {METRICS[name].words}.",), left_open=left
        )
    origin = cited(shape.facts.get(name))
    agrees = "The same" if meets(claim, Decimal(value)) else "Something else"
    why = (
        f"{agrees} stands in the registry, {value:,} {METRICS[name].unit} ({origin}), which repeats what was published "
        "and proves nothing."
    )
    return Arithmetic(Outcome.OPEN, (why,), left_open=left, confidence=lowest([shape.facts.get(name)]))
