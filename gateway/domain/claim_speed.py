"""Claims about speed, and about what it costs: refuted where no engine could do it, open everywhere else.

The bounds and expectations come from ceilings; a load run settles what they leave open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

from gateway.domain.ceiling_lines import derive
from gateway.domain.ceilings import LEAST_KV, Ceilings, Setup, Speed, compute_ceilings, memory_at_most
from gateway.domain.claim_evidence import TOLERANCE, Evidence, EvidenceKind, comparison_of, meets, needed_run
from gateway.domain.claim_outcome import (
    SMALLEST_FORMAT,
    Arithmetic,
    Outcome,
    figure,
    low_ones,
    lowest,
    rounding_of,
    setup_words,
)
from gateway.domain.claim_terms import METRICS, MetricKind
from gateway.domain.claim_workings import Workings
from gateway.domain.memory import number_format
from gateway.domain.pace import MOST_AT_ONCE, Load
from gateway.domain.records import Claim, Gpu, Model, Provenance, Sourced
from gateway.domain.roofline import LEAST_FORMAT, least_cache_bytes, least_weights_bytes

LONG_ANSWER = 1_000_000
"""Tokens of an answer of unknown length that favours a rate most."""


PACES = ("tpot_s", "itl_s", "output_tokens_per_s_per_user")
"""What an engine can always give to one request by letting the others wait: only the pace of a lone one is a bound."""


def judge_speed(claim: Claim, model: Model, gpu: Gpu, workings: Workings) -> Arithmetic:
    """Refuted where the claim is out of reach in whatever favours it; else open, with what stands in its way."""

    def worked_out(model: Model, setup: Setup, load: Load) -> Ceilings:
        asked = (setup.gpus, setup.weights_format, setup.kv_dtype, load)
        return workings.once(lambda: compute_ceilings(model, setup, load), (model, setup.gpu), "ceilings", *asked)

    published = number_format(model.weights.dtype) or "bf16"
    setup = Setup(gpu, claim.gpus or 1, claim.quantisation or published, claim.kv_dtype or "auto")
    light, load = _most_favourable(claim, setup), _favourable_load(claim)
    as_stated = _with_lengths(claim, worked_out(model, setup, load))
    crowded = _with_lengths(claim, worked_out(model, light, load))
    best = crowded
    if claim.metric in PACES and load.batch > 1:
        best = _with_lengths(claim, worked_out(model, light, replace(load, batch=1)))
    if _is_refuted(claim, best):
        low = low_ones(_speed_facts(model, gpu))
        if low:
            why = f"That refutes nothing, because facts have low confidence or no source: {', '.join(low)}."
            return _arithmetic(claim, Outcome.OPEN, best, (_refutation(claim, best), why))
        return _arithmetic(claim, Outcome.REFUTED, best, (_refutation(claim, best), *_assumptions(claim, best)))
    if _is_refuted(claim, crowded):
        waits = "One alone could be served so fast: it can be met only where some wait, which TTFT and throughput show."
        return _arithmetic(claim, Outcome.OPEN, crowded, (_too_crowded(claim, crowded), waits))
    if claim.quantisation is None:
        four = _with_lengths(claim, worked_out(model, replace(light, weights_format=SMALLEST_FORMAT), best.load))
        if _is_refuted(claim, four):
            fewer = "With fewer it could, which the claim does not rule out."
            bits = f"In 4 bits or more: {_refutation(claim, four)} {fewer}"
            return _arithmetic(claim, Outcome.OPEN, four, (bits,))
    if _is_refuted(claim, as_stated):
        bits = f"{_refutation(claim, as_stated)} With fewer bits it could, which the claim does not rule out."
        return _arithmetic(claim, Outcome.OPEN, as_stated, (bits,))
    said = (_not_refuted(claim, as_stated), *_assumptions(claim, as_stated))
    return _arithmetic(claim, Outcome.OPEN, as_stated, said)


def _arithmetic(claim: Claim, outcome: Outcome, found: Ceilings, reasons: tuple[str, ...]) -> Arithmetic:
    return Arithmetic(
        outcome,
        reasons,
        margin=_speed_margin(claim, found.ceiling),
        left_open=() if outcome is Outcome.REFUTED else (needed_run(claim),),
        derivation=derive(found),
        evidence=_speed_evidence(claim, found),
        confidence=lowest(_speed_facts(found.model, found.setup.gpu).values()),
    )


def _too_crowded(claim: Claim, found: Ceilings) -> str:
    at_once = found.ceiling.at_once if found.ceiling is not None else 0
    limit, claimed = figure(claim, _limit(claim, found.ceiling)), figure(claim, float(claim.value or 0))
    words = METRICS[claim.metric or ""].words
    return f"With {at_once:,} requests decoding at once the {words} is {limit} at best, and {claimed} is claimed."


def _favourable_load(claim: Claim) -> Load:
    """The load that the claim states, and what favours it wherever it states nothing."""
    wants_rate = claim.metric in ("output_tokens_per_s", "price_per_mtok_out")
    tokens = claim.input_tokens or 1
    cached = min(claim.cached_tokens or 0, tokens - 1)
    most = MOST_AT_ONCE if METRICS[claim.metric or ""].kind is not MetricKind.LATENCY else 1
    batch = claim.concurrency or (1 if claim.metric == "output_tokens_per_s_per_user" else most)
    return Load(
        input_tokens=tokens,
        output_tokens=claim.output_tokens or (LONG_ANSWER if wants_rate else 1),
        batch=batch,
        cached_tokens=cached,
        accepted_length=float(claim.accepted_length or 1),
    )


def _with_lengths(claim: Claim, found: Ceilings) -> Ceilings:
    """Without the expectation where the claim does not state its lengths: what favours it most is not expected."""
    needs_output = claim.metric not in ("ttft_s", *PACES)
    if claim.input_tokens is not None and (claim.output_tokens is not None or not needs_output):
        return found
    return replace(found, expected=None, why_not_expected="None: the claim does not state its lengths.")


def _most_favourable(claim: Claim, setup: Setup) -> Setup:
    return replace(setup, weights_format=claim.quantisation or LEAST_FORMAT, kv_dtype=claim.kv_dtype or LEAST_KV)


def _is_refuted(claim: Claim, found: Ceilings) -> bool:
    doubt = Decimal(str(rounding_of(found.model)))
    if not found.has_room:
        return _lacks_room(found, float(doubt))
    limit = _exact(_limit(claim, found.ceiling))
    if limit is None or claim.value is None or not _can_be_refuted(claim):
        return False
    slack = TOLERANCE if comparison_of(claim) == "equals" else Decimal(0)
    if METRICS[claim.metric or ""].kind is MetricKind.LATENCY:
        return claim.value * (1 + slack) < limit * (1 - doubt)
    return claim.value * (1 - slack) > limit * (1 + doubt)


def _exact(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def _lacks_room(found: Ceilings, doubt: float) -> bool:
    """Whether one request cannot fit either where the parameters are as few as their rounding allows."""
    model, setup = found.model, found.setup
    cache = least_cache_bytes(model, found.load.input_tokens, kv_dtype_bytes=setup.kv_element_bytes)
    weights = least_weights_bytes(model, setup.weights_format) or 0
    return weights * (1 - doubt) + cache > memory_at_most(setup)


def _can_be_refuted(claim: Claim) -> bool:
    """Events may bundle tokens and arrive in bursts, so of the gaps between them only the mean has a floor.

    At an attainment of 0 % nobody need meet the value. What a token costs depends on a price that may be agreed.
    """
    if METRICS[claim.metric or ""].kind is MetricKind.PRICE:
        return False
    if claim.metric == "itl_s" and claim.statistic != "mean":
        return False
    return claim.statistic != "attainment" or (claim.attainment_percent or 0) > 0


def _limit(claim: Claim, speed: Speed | None) -> float | None:
    """The figure of one side that the claim's metric is about."""
    if speed is None:
        return None
    match claim.metric:
        case "ttft_s":
            return speed.ttft_s
        case "tpot_s" | "itl_s":
            return speed.tpot_s
        case "e2e_s":
            return speed.e2e_s
        case "output_tokens_per_s":
            return speed.output_tokens_per_s
        case "output_tokens_per_s_per_user":
            return speed.tokens_per_s_per_user
        case "requests_per_s":
            return speed.requests_per_s
        case "price_per_mtok_out":
            return None if speed.cost is None else float(speed.cost.low)
    return None


def _speed_margin(claim: Claim, speed: Speed | None) -> float | None:
    limit = _exact(_limit(claim, speed))
    if limit is None or not claim.value:
        return None
    share = float((claim.value - limit) / claim.value)
    return share if METRICS[claim.metric or ""].kind in (MetricKind.LATENCY, MetricKind.PRICE) else -share


def _refutation(claim: Claim, found: Ceilings) -> str:
    where = f"{setup_words(found.setup)} in {found.setup.weights_format}"
    if not found.has_room:
        return f"It cannot run: {(found.why_no_ceiling or '').removeprefix('None: ')}"
    limit = figure(claim, _limit(claim, found.ceiling))
    is_least = METRICS[claim.metric or ""].kind in (MetricKind.LATENCY, MetricKind.PRICE)
    return (
        f"No engine can do it: on {where} the {METRICS[claim.metric or ''].words} is {limit} at "
        f"{'least' if is_least else 'most'}, and {figure(claim, float(claim.value or 0))} is claimed."
    )


def _not_refuted(claim: Claim, found: Ceilings) -> str:
    if found.ceiling is None:
        return f"Arithmetic cannot speak to it: {(found.why_no_ceiling or '').removeprefix('None: ')}"
    is_least = METRICS[claim.metric or ""].kind in (MetricKind.LATENCY, MetricKind.PRICE)
    limit = figure(claim, _limit(claim, found.ceiling))
    sentence = (
        f"Arithmetic does not refute it: on {setup_words(found.setup)} in {found.setup.weights_format} the "
        f"{METRICS[claim.metric or ''].words} is {limit} at {'least' if is_least else 'most'}; "
        f"{figure(claim, float(claim.value or 0))} is claimed"
    )
    expected = _limit(claim, found.expected)
    if expected is None:
        return f"{sentence}."
    is_met = meets(replace(claim, statistic=None), Decimal(str(expected)))
    how = "meets it" if is_met else "misses it, which refutes nothing"
    return f"{sentence}. The expectation, {figure(claim, expected)}, {how}."


def _assumptions(claim: Claim, found: Ceilings) -> Iterable[str]:
    """How the claim was read where it says nothing, and what would change that."""
    if claim.kv_dtype is None and found.setup.kv_dtype == LEAST_KV:
        yield "In its favour a cache of 4 bits was taken, which it does not rule out."
    if claim.quantisation is None and found.setup.weights_format == LEAST_FORMAT:
        yield f"In its favour weights in {LEAST_FORMAT} were taken, as it names no quantisation."
    if doubt := rounding_of(found.model):
        yield f"Its parameters are rounded or inferred, so only a miss by more than {doubt:.0%} refutes."
    if claim.gpus is None:
        yield "It names no number of GPUs; read as one."
    silent = [
        words
        for words, value in (
            ("the prompt's length (one token)", claim.input_tokens),
            ("the answer's length (whatever favours it)", claim.output_tokens),
            ("requests at once (whatever favours it)", claim.concurrency or claim.rate_per_s),
        )
        if value is None
    ]
    if silent:
        yield f"It is silent on {', '.join(silent)}."
    if _is_refuted(claim, found):
        yield from _what_would_change_it(claim, found)


def _what_would_change_it(claim: Claim, found: Ceilings) -> Iterable[str]:
    """What the claim does not mention, was read as absent, and would have to be there."""
    if claim.cached_tokens is None and claim.metric not in PACES and (claim.input_tokens or 1) > 1:
        yield "No token of the prompt is taken as kept from an earlier request; cached_tokens would say otherwise."
    if claim.accepted_length is not None or claim.metric == "ttft_s":
        return
    read_as = "It is read as without speculative decoding, which it does not mention"
    limit, value = _limit(claim, found.ceiling), float(claim.value or 0)
    if claim.metric in PACES and limit and value:
        ratio = limit / value if claim.metric != "output_tokens_per_s_per_user" else value / limit
        yield f"{read_as}: with it, {ratio:.2g} tokens accepted a step or more would be needed (accepted_length)."
    else:
        yield f"{read_as}; accepted_length would say otherwise."


def _speed_evidence(claim: Claim, found: Ceilings) -> tuple[Evidence, ...]:
    made = []
    for kind, speed in ((EvidenceKind.CEILING, found.ceiling), (EvidenceKind.PREDICTED, found.expected)):
        value = _limit(claim, speed)
        if value is not None:
            made.append(
                Evidence(
                    kind=kind,
                    provenance=Provenance.UNKNOWN,
                    metric=claim.metric or "",
                    gpu=found.setup.gpu.id,
                    gpus=found.setup.gpus,
                    value=Decimal(f"{value:.6g}"),
                    unit=claim.unit or METRICS[claim.metric or ""].unit,
                    source="roofline of the data sheet" if kind is EvidenceKind.CEILING else "expected efficiencies",
                    quantisation=found.setup.weights_format,
                    input_tokens=claim.input_tokens,
                    output_tokens=claim.output_tokens,
                    concurrency=claim.concurrency,
                )
            )
    return tuple(made)


def _speed_facts(model: Model, gpu: Gpu) -> dict[str, Sourced | None]:
    shape = model.shape
    names = ["params", "layers", "hidden", "vocab", "heads"]
    if shape is not None and shape.moe is not None:
        names += ["active_params", "moe"]
    if shape is not None and shape.mla is not None:
        names += ["mla"]
    else:
        names += ["kv_heads", "head_dim"]
    if shape is None:
        return {"gpu": gpu.sourced, "shape": None}
    if shape.sliding_window is not None or shape.attention_chunk is not None:
        names += ["global_layers"]
    return {"gpu": gpu.sourced, **{name: shape.facts.get(name) for name in names}}


def judge_cost(claim: Claim, model: Model, gpu: Gpu, workings: Workings) -> Arithmetic:
    """What a million output tokens cost at least on the GPU claimed, at the lowest listed hourly price."""
    if not gpu.prices:
        return Arithmetic(Outcome.OPEN, (f"Unknown: the registry has no hourly price for {gpu.id}.",))
    currency = gpu.prices[0].currency
    if claim.unit != currency:
        why = f"Unknown: it is in {claim.unit}, the prices of {gpu.id} are in {currency}, and no rate is applied."
        return Arithmetic(Outcome.OPEN, (why,))
    found = judge_speed(claim, model, gpu, workings)
    low = min(price.per_hour for price in gpu.prices if price.currency == currency)
    limit = next((one.value for one in found.evidence if one.kind is EvidenceKind.CEILING), None)
    if found.outcome is Outcome.OPEN and limit is not None and claim.value is not None and claim.value < limit:
        agreed = "Another price may be agreed, so it refutes nothing."
        never = f"Not at any listed price: {_price_words(claim, limit)} {agreed}"
        found = replace(found, reasons=(never, *found.reasons[1:]))
    cheapest = f"At {low:g} {currency} an hour for each GPU, the lowest listed price, and no idle time."
    prices = [price.sourced for price in gpu.prices]
    return replace(
        found, reasons=(*found.reasons, cheapest), confidence=lowest([*_speed_facts(model, gpu).values(), *prices])
    )


def _price_words(claim: Claim, limit: Decimal) -> str:
    least, claimed = figure(claim, float(limit)), figure(claim, float(claim.value or 0))
    return f"{claim.gpus or 1} × {claim.gpu} at their full speed cost {least} at least, and {claimed} is claimed."
