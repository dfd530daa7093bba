"""A claim and what is known about it -> a verdict, with the reasons, the margin and the derivation.

Arithmetic may refute a claim and never proves one. A measurement counts when it is real, valid, on the GPU claimed and
under the load claimed; it refutes only where the claim names all that the run varies. What may be claimed is in
claim_terms, the arithmetic in claim_arithmetic; gathering evidence belongs elsewhere: it is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from gateway.domain.claim_arithmetic import work_out
from gateway.domain.claim_evidence import Evidence, EvidenceKind, comparison_of, in_words, meets, needed_run
from gateway.domain.claim_outcome import Arithmetic, Outcome
from gateway.domain.claim_terms import LEAST_N, METRICS, MetricKind
from gateway.domain.claim_workings import Workings
from gateway.domain.records import Claim, Confidence, Gpu, Model, Provenance

LEAST_REPEATS = 3
"""Repeats without which a measurement settles nothing, for a claim or against it."""
VARIED = ("quantisation", "kv_dtype", "context_tokens", "input_tokens", "output_tokens", "concurrency", "rate_per_s")
"""What a run may vary besides its GPUs; it speaks to a claim that names another value of it in no way."""


class ClaimVerdict(StrEnum):
    REFUTED_ARITHMETIC = "refuted (arithmetic)"
    REFUTED_MEASURED = "refuted (measured)"
    HOLDS = "holds"
    NOT_TESTABLE = "not testable here"
    PLAUSIBLE = "plausible (simulated)"
    NOT_MET = "not met (simulated)"
    OPEN = "open"
    """Testable, and not settled by what is known; `left_open` says what would settle it."""


REFUTED = frozenset({ClaimVerdict.REFUTED_ARITHMETIC, ClaimVerdict.REFUTED_MEASURED})


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A verdict that can be defended: what was said, what was found, and what is left."""

    claim: Claim
    about: str
    """Id of the model or the consortium."""
    verdict: ClaimVerdict
    reasons: tuple[str, ...]
    """Plain English sentences, the deciding one first."""
    margin: float | None = None
    """By which share of the claimed value it is met (above 0) or missed (below 0), at the worst repeat."""
    holds_for: str | None = None
    """What exactly holds, where the verdict is `holds`."""
    left_open: tuple[str, ...] = ()
    """What this verdict does not say, and what would settle it."""
    derivation: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    confidence: Confidence | None = None
    """The lowest among the facts used; None where none was."""


def check_claim(
    claim: Claim,
    about: Model | str,
    gpus: Mapping[str, Gpu],
    *,
    evidence: Sequence[Evidence] = (),
    gpu: str | None = None,
    workings: Workings | None = None,
) -> CheckedClaim:
    """The verdict on `claim` about a model, or about a consortium by its id.

    `evidence` is of this claim's model; what does not fit the claim is set aside, with the reason. `gpu`: where the
    claim names none, it is read as on this one; such a reading refutes nothing. `workings`: what earlier
    claims of the same models and GPUs needed is not computed again. Raises ValueError for a GPU that `gpus` does not
    know.
    """
    metric = METRICS.get(claim.metric or "")
    if metric is None or metric.kind is MetricKind.OTHER or isinstance(about, str):
        why = metric.why_not if metric is not None and metric.why_not else "No figure is claimed that a run could test."
        name = about if isinstance(about, str) else about.id
        return CheckedClaim(claim, name, ClaimVerdict.NOT_TESTABLE, tuple(filter(None, (why, claim.sourced.note))))
    for named in (claim.gpu, gpu):
        if named is not None and named not in gpus:
            raise ValueError(f"gpu: there is no GPU '{named}'; known are {', '.join(sorted(gpus))}")
    arithmetic = work_out(claim, about, gpus, assumed_gpu=gpu, workings=workings or Workings())
    weighed = _weigh(claim, evidence)
    return _conclude(claim, about.id, arithmetic, weighed, evidence)


# --- what measurements say ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Weighed:
    """What the evidence says; verdict None where it settles nothing."""

    verdict: ClaimVerdict | None = None
    reasons: tuple[str, ...] = ()
    margin: float | None = None
    set_aside: tuple[str, ...] = ()
    on: str = ""
    """The GPUs of the runs that count, in words."""


def _weigh(claim: Claim, evidence: Sequence[Evidence]) -> _Weighed:
    real, simulated, aside = [], [], []
    for one in evidence:
        if one.kind in (EvidenceKind.PREDICTED, EvidenceKind.CEILING):
            continue
        if why := _why_not_used(claim, one):
            aside.append(f"Not counted: {one.source} ({why}).")
        elif one.is_simulated:
            simulated.append(one)
        else:
            real.append(one)
    weighed = replace(_weigh_real(claim, real), on=" and ".join(sorted({f"{one.gpus} × {one.gpu}" for one in real})))
    if weighed.verdict is None and not weighed.reasons and simulated:
        weighed = _weigh_simulated(claim, simulated)
    return replace(weighed, set_aside=tuple(aside))


def _weigh_real(claim: Claim, real: Sequence[Evidence]) -> _Weighed:
    values = [value for one in real for value in one.values]
    if not values:
        return _Weighed()
    missed = [value for value in values if not meets(claim, value)]
    margin = min(_margin(claim, value) for value in values)
    shown = f"{', '.join(in_words(claim, value) for value in values)} ({'; '.join(one.source for one in real)})"
    if len(missed) == len(values):
        return _weigh_missed(claim, real, shown, margin)
    if missed:
        return _Weighed(
            ClaimVerdict.OPEN, (f"Repeats disagree, {len(missed)} of {len(values)} miss it: {shown}.",), margin
        )
    if _is_fact(claim):
        return _Weighed(ClaimVerdict.HOLDS, (f"It says so itself: {shown}.",), margin)
    repeats = _most_repeats([one for one in real if one.kind is not EvidenceKind.RESOLVED])
    if repeats == 0:
        return _Weighed(None, (f"An engine that started says so: {shown}; a saturating load is left.",), margin)
    if repeats < LEAST_REPEATS:
        why = f"Measured as claimed in {repeats} of {LEAST_REPEATS} repeats that it takes: {shown}."
        return _Weighed(None, (why,), margin)
    return _Weighed(ClaimVerdict.HOLDS, (f"Measured as claimed in every repeat: {shown}.",), margin)


def _weigh_missed(claim: Claim, real: Sequence[Evidence], shown: str, margin: float) -> _Weighed:
    """Every value misses the claim: refuted, unless the claim leaves open what the runs vary or the repeats are few."""
    if claim.metric == "context" and all(one.kind is not EvidenceKind.CONFIG for one in real):
        why = f"An engine was started with less: {shown}. Whoever starts it chooses that, so it refutes nothing."
        return _Weighed(ClaimVerdict.OPEN, (why,), margin)
    if _is_fact(claim):
        return _Weighed(ClaimVerdict.REFUTED_MEASURED, (f"It says otherwise itself: {shown}.",), margin)
    unsaid = sorted({name for one in real for name in _unsaid(claim, one)})
    if unsaid:
        why = f"Measured otherwise: {shown}. That refutes nothing, because the claim does not name {', '.join(unsaid)}."
        return _Weighed(ClaimVerdict.OPEN, (why,), margin)
    repeats = _most_repeats(real)
    if repeats < LEAST_REPEATS:
        why = f"Measured otherwise in {repeats} of {LEAST_REPEATS} repeats that it takes: {shown}."
        return _Weighed(ClaimVerdict.OPEN, (why,), margin)
    return _Weighed(ClaimVerdict.REFUTED_MEASURED, (f"Measured in every repeat otherwise: {shown}.",), margin)


def _is_fact(claim: Claim) -> bool:
    return METRICS[claim.metric or ""].kind is MetricKind.FACT


def _unsaid(claim: Claim, one: Evidence) -> list[str]:
    """What the run varies and the claim does not name."""
    names = [name for name in VARIED if getattr(one, name) is not None and getattr(claim, name) is None]
    if claim.gpu is None:
        names.append("gpu")
    if claim.gpus is None:
        names.append("gpus")
    if claim.statistic is None and one.statistic is not None and METRICS[claim.metric or ""].statistics != ("mean",):
        names.append("statistic")
    return names


def _most_repeats(real: Sequence[Evidence]) -> int:
    """Repeats of one and the same setting."""
    repeats: dict[tuple[object, ...], int] = {}
    for one in real:
        setting = (one.gpu, one.gpus, *(getattr(one, name) for name in VARIED))
        repeats[setting] = repeats.get(setting, 0) + len(one.values)
    return max(repeats.values(), default=0)


def _weigh_simulated(claim: Claim, simulated: Sequence[Evidence]) -> _Weighed:
    values = [value for one in simulated for value in one.values]
    met = all(meets(claim, value) for value in values)
    shown = ", ".join(in_words(claim, value) for value in values)
    verdict = ClaimVerdict.PLAUSIBLE if met else ClaimVerdict.NOT_MET
    sentence = f"Simulated{'' if met else ' otherwise'}: {shown}; a simulation proves and refutes nothing."
    return _Weighed(verdict, (sentence,), min(_margin(claim, value) for value in values))


def _why_not_used(claim: Claim, one: Evidence) -> str | None:
    """Why this evidence does not speak to the claim; None where it does."""
    if one.invalid is not None:
        return f"invalid: {one.invalid}"
    if one.metric != claim.metric:
        return f"it is of {one.metric}"
    if not one.values:
        return "it has no value"
    if any(not _is_possible(claim, value) for value in one.values):
        return "a value of it is no possible one"
    if one.provenance not in (Provenance.REAL, Provenance.SIMULATED):
        return f"its provenance is {one.provenance.value}"
    if one.gpu is None and not _is_fact(claim):
        return f"on {one.gpus} × an unknown GPU"
    if claim.gpu is not None and (one.gpu, one.gpus) != (claim.gpu, claim.gpus or 1):
        return f"on {one.gpus} × {one.gpu or 'an unknown GPU'}, not the {claim.gpus or 1} × {claim.gpu} claimed"
    if claim.gpus is not None and one.gpus != claim.gpus:
        return f"on {one.gpus} GPUs, not the {claim.gpus} claimed"
    if claim.statistic is not None and one.statistic != claim.statistic:
        return f"it is the {one.statistic or 'unnamed statistic'}, not the {claim.statistic} claimed"
    least = LEAST_N.get(one.statistic or "", 0)
    if least and (one.n or 0) < least:
        return f"{one.statistic} of {one.n or 'an unknown number of'} requests; it takes {least}"
    return _other_load(claim, one)


def _is_possible(claim: Claim, value: Decimal) -> bool:
    """A finite value above 0. An engine that does not start holds 0 requests, and nobody may meet an objective."""
    if not value.is_finite():
        return False
    if claim.statistic == "attainment":
        return 0 <= value <= 100
    return value > 0 or (value == 0 and METRICS[claim.metric or ""].kind is MetricKind.FIT)


def _other_load(claim: Claim, one: Evidence) -> str | None:
    for name in VARIED:
        wanted, found = getattr(claim, name), getattr(one, name)
        if wanted is not None and found != wanted:
            return f"{name} {'unknown' if found is None else found}, not the {wanted} claimed"
    return None


def _margin(claim: Claim, value: Decimal) -> float:
    if METRICS[claim.metric or ""].kind is MetricKind.FIT:
        limit, comparison = Decimal(claim.concurrency or 1), "at_least"
    elif claim.statistic == "attainment":
        limit, comparison = claim.attainment_percent or Decimal(100), "at_least"
    else:
        limit, comparison = claim.value or Decimal(0), comparison_of(claim)
    if limit == 0:
        return 0.0
    share = float((value - limit) / limit)
    return {"at_most": -share, "at_least": share, "equals": -abs(share)}[comparison]


def _holds_for(claim: Claim, weighed: _Weighed) -> str:
    if _is_fact(claim):
        return "as resolved by an engine or stated in the checkpoint's files"
    if claim.gpu is not None:
        return "as measured, under the load claimed"
    return f"as measured, on {weighed.on}, which the claim does not name"


# --- the conclusion -----------------------------------------------------------------------------------------


def _conclude(
    claim: Claim, about: str, arithmetic: Arithmetic, weighed: _Weighed, evidence: Sequence[Evidence]
) -> CheckedClaim:
    found = CheckedClaim(
        claim=claim,
        about=about,
        verdict=ClaimVerdict.OPEN,
        reasons=(),
        left_open=arithmetic.left_open,
        derivation=arithmetic.derivation,
        evidence=(*arithmetic.evidence, *evidence),
        confidence=arithmetic.confidence,
    )
    refuted, measured = arithmetic.outcome is Outcome.REFUTED, weighed.verdict
    said = (*arithmetic.reasons, *weighed.reasons, *weighed.set_aside)
    if refuted and measured is ClaimVerdict.HOLDS:
        why = "Measurement and arithmetic contradict each other: a fact in the registry, or the measurement, is wrong."
        return replace(found, reasons=(why, *said), left_open=("Which of the two is wrong.",))
    if refuted:
        return replace(found, verdict=ClaimVerdict.REFUTED_ARITHMETIC, reasons=said, margin=arithmetic.margin)
    measured_first = (*weighed.reasons, *arithmetic.reasons, *weighed.set_aside)
    if measured in (ClaimVerdict.HOLDS, ClaimVerdict.REFUTED_MEASURED):
        return replace(
            found,
            verdict=measured,
            reasons=measured_first,
            margin=weighed.margin,
            holds_for=_holds_for(claim, weighed) if measured is ClaimVerdict.HOLDS else None,
            left_open=(),
            confidence=Confidence.HIGH,
        )
    run = needed_run(claim)
    left_open = arithmetic.left_open or (run,)
    if measured in (ClaimVerdict.PLAUSIBLE, ClaimVerdict.NOT_MET):
        return replace(found, verdict=measured, reasons=measured_first, margin=weighed.margin, left_open=left_open)
    margin = weighed.margin if weighed.reasons else arithmetic.margin
    return replace(found, reasons=measured_first, margin=margin, left_open=left_open)
