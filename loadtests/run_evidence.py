"""A run's cells as evidence, and the verdicts on the model's claims; the reasoning is `gateway.domain.claims`'.

Only cells of one steady load speak to claims. An invalid cell is handed on with the reason and settles nothing; a
simulated one can make a claim plausible at best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from statistics import median_low

from gateway.domain.claim_evidence import Evidence, EvidenceKind
from gateway.domain.claim_terms import METRICS, MetricKind
from gateway.domain.claim_workings import Workings
from gateway.domain.claims import check_claim
from gateway.domain.records import Claim, Model, Provenance, Registry
from loadtests.cells import CellSeen, ObjectiveSeen, Run, Verdict
from loadtests.plan import OF_REQUESTS, OF_WINDOWS, Objective

PRICE_OUT = "price_per_mtok_out"
LEAST_REPEATS = 3
_DEFAULT_STATISTIC = {MetricKind.LATENCY: "p50", MetricKind.RATE: "mean"}


def claimed_objective(claim: Claim) -> Objective | None:
    """What a claim says as an objective, so that it is measured like one; None where no load run can test it."""
    metric = METRICS.get(claim.metric or "")
    if metric is None or claim.metric not in (*OF_REQUESTS, *OF_WINDOWS) or not claim.value or claim.value <= 0:
        return None
    statistic = claim.statistic or ("p50" if "p50" in metric.statistics else _DEFAULT_STATISTIC[metric.kind])
    return Objective(claim.metric, statistic, claim.value, claim.attainment_percent)


def is_tested(claim: Claim) -> bool:
    """Whether cells can speak to it."""
    return claimed_objective(claim) is not None or claim.metric == PRICE_OUT


def evidence_in(runs: Iterable[Run], claim: Claim) -> list[Evidence]:
    """What several runs' cells say of a claim."""
    return [one for run in runs for one in evidence_of(run, claim)] if is_tested(claim) else []


def evidence_of(run: Run, claim: Claim) -> list[Evidence]:
    """What a run's cells say of a claim; through both doors the direct one speaks, as claims are about engines."""
    direct = {cell.id for cell in run.cells if cell.door == "direct"}
    cached = run.engines[0].resolved.get("cache_dtype") if run.engines else None
    return evidence_for(
        claim,
        [cell for cell in run.cells if cell.door == "direct" or cell.id not in direct],
        run_id=run.id,
        gpu=run.gpu,
        gpus=run.gpus,
        weights=run.weights,
        kv_dtype=None if cached == "auto" else cached,  # vLLM's `auto` is the weights' own and says nothing here
        timeout_s=run.timeout_s,
    )


def evidence_for(
    claim: Claim,
    cells: Iterable[CellSeen],
    *,
    run_id: str,
    gpu: str | None,
    gpus: int | None,
    weights: str | None,
    kv_dtype: str | None,
    timeout_s: float,
) -> list[Evidence]:
    """What the steady cells say of a claim: those that were made for it, or all where none was.

    `weights`, `kv_dtype`: number formats that the engines served with, None where unknown. `gpus`: of all replicas;
    None = not known, and then nothing of it speaks to a claim. A request that failed was never answered: a percentile
    that ends among such is given as `timeout_s`, or as twice what is claimed where that is more. Users who think are
    not in flight all the time, so their number is no concurrency.
    """
    steady = [cell for cell in cells if cell.is_steady and cell.repeats]
    own = [cell for cell in steady if cell.claim == claim.id]
    found = []
    for cell in own or [cell for cell in steady if cell.claim is None]:
        values, statistic, unit, n = _values(claim, cell, timeout_s)
        provenance = _provenance(cell)
        simulated = provenance is Provenance.SIMULATED
        total = (
            None if cell.input_tokens is None or cell.output_tokens is None else cell.input_tokens + cell.output_tokens
        )
        found.append(
            Evidence(
                kind=EvidenceKind.SIMULATED if simulated else EvidenceKind.MEASURED,
                provenance=provenance,
                metric=claim.metric or "",
                gpu=None if gpus is None else gpu,
                gpus=gpus or 1,
                value=median_low(values) if values else None,
                source=cell.source(run_id),
                statistic=statistic,
                n=n,
                repeats=tuple(values),
                unit=unit,
                quantisation=weights,
                kv_dtype=kv_dtype,
                context_tokens=total,
                input_tokens=cell.input_tokens,
                output_tokens=cell.output_tokens,
                concurrency=_concurrency(cell),
                rate_per_s=Decimal(str(cell.level)) if cell.kind == "open" and cell.level is not None else None,
                invalid=why_invalid(cell) or _why_too_few(cell) or _why_too_good(claim, cell),
            )
        )
    return found


def _concurrency(cell: CellSeen) -> int | None:
    """Requests in flight: of a closed loop without thinking its users."""
    return int(cell.level) if cell.kind == "closed" and cell.level is not None and not cell.think_s else None


def _why_too_few(cell: CellSeen) -> str | None:
    """A search leaves a load that misses after its first repeat: enough for the search, not for a claim."""
    n = len(cell.repeats)
    return None if n >= LEAST_REPEATS else f"a claim takes {LEAST_REPEATS} repeats of one cell, and this has {n}"


def _why_too_good(claim: Claim, cell: CellSeen) -> str | None:
    """Why figures of an overloaded cell do not speak for a claim; those that miss it would miss it further."""
    if not any(repeat.is_overloaded for repeat in cell.repeats):
        return None
    seen = [repeat.claimed.get(claim.id) for repeat in cell.repeats]
    if claim.metric != PRICE_OUT and all(one is not None and one.met is False for one in seen):
        return None
    return "work piled up: a longer window would show worse figures"


def why_invalid(cell: CellSeen) -> str | None:
    """The failed checks of a cell in words; None for a valid one."""
    if cell.is_valid:
        return None
    failed = [(f"repeat {repeat.number}", check) for repeat in cell.repeats for check in repeat.checks]
    failed += [("", check) for check in cell.checks]
    words = [f"{where} {check.name}: {check.seen}".strip() for where, check in failed if check.passed is False]
    return "; ".join(words) or "it has no repeat"


def verdicts(
    model: Model, registry: Registry, claims: Sequence[Claim], evidence: dict[str, list[Evidence]], *, gpu: str | None
) -> list[Verdict]:
    """The answer to each claim, from arithmetic and from `evidence` by claim id. `gpu`: where a claim names none."""
    workings = Workings()
    found = []
    for claim in claims:
        shown = evidence.get(claim.id, [])
        checked = check_claim(claim, model, registry.gpus, evidence=shown, gpu=gpu, workings=workings)
        found.append(
            Verdict(
                claim=claim.id,
                text=claim.text,
                verdict=checked.verdict.value,
                reasons=list(checked.reasons),
                cells=[one.source for one in shown],
                margin=checked.margin,
                holds_for=checked.holds_for,
                left_open=list(checked.left_open),
            )
        )
    return found


def _values(claim: Claim, cell: CellSeen, timeout_s: float) -> tuple[list[Decimal], str | None, str | None, int]:
    """Each repeat's value, its statistic, its unit, and requests behind each; no values where one repeat has none."""
    if claim.metric == PRICE_OUT:
        prices = [repeat.cost_per_mtok_out if repeat.currency == claim.unit else None for repeat in cell.repeats]
        known = [Decimal(price) for price in prices if price is not None]
        n = min(repeat.rates.offered for repeat in cell.repeats)
        return (known if len(known) == len(prices) else []), None, claim.unit, n
    seen = [_of_claim(claim, repeat.claimed.get(claim.id)) for repeat in cell.repeats]
    values = [None if one is None else _value(claim, one, timeout_s) for one in seen]
    known = [value for value in values if value is not None]
    told = [one for one in seen if one is not None]
    statistic = told[0].statistic if told else None
    unit = METRICS[claim.metric or ""].unit
    return (known if len(known) == len(values) else []), statistic, unit, min((one.n for one in told), default=0)


def _of_claim(claim: Claim, one: ObjectiveSeen | None) -> ObjectiveSeen | None:
    """None where what was measured under the claim's id was another claim, which its registry stated then."""
    wanted = claimed_objective(claim)
    if one is None or wanted is None or (one.metric, one.statistic) != (wanted.metric, wanted.statistic):
        return None
    is_share = wanted.statistic == "attainment"
    return None if is_share and Decimal(one.limit) != wanted.limit else one


def _value(claim: Claim, one: ObjectiveSeen, timeout_s: float) -> Decimal | None:
    """A mean beside failures is the survivors', so it counts as missed, like a percentile that ends among failures."""
    is_of_survivors = one.statistic == "mean" and one.met is False and one.why is not None
    if one.value is not None and not is_of_survivors:
        return Decimal(repr(one.value))
    if one.met is not False or METRICS[one.metric].kind is not MetricKind.LATENCY:
        return None
    return max(Decimal(repr(timeout_s)), 2 * (claim.value or Decimal(one.limit)))


def _provenance(cell: CellSeen) -> Provenance:
    kinds = {repeat.provenance for repeat in cell.repeats}
    return Provenance(kinds.pop()) if len(kinds) == 1 else Provenance.UNKNOWN
