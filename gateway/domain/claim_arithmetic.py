"""What arithmetic alone says to a claim: refuted, or open; and where the claim is about size or a listed price, that
it holds.

Refuting takes what favours the claim wherever it leaves something open: the smallest weights, an 8-bit cache, the
larger reading of the memory, the shortest prompt. The bounds themselves are in ceilings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from gateway.domain.ceilings import (
    MOST_AT_ONCE,
    Ceilings,
    Load,
    Setup,
    Speed,
    compute_ceilings,
    derive,
    memory_at_most,
    predicted_need,
    published_or_as,
)
from gateway.domain.claim_evidence import TOLERANCE, Evidence, EvidenceKind, comparison_of, meets, needed_run
from gateway.domain.claim_terms import METRICS, MetricKind
from gateway.domain.feasibility import SHORTEST_USEFUL_CONTEXT
from gateway.domain.memory import GIB, missing_kv_fields, number_format
from gateway.domain.records import Claim, Confidence, Gpu, Model, Provenance, ServingKind, Sourced
from gateway.domain.roofline import least_cache_bytes, least_weights_bytes

SMALLEST_FORMAT = "int4"
"""The format that favours a claim most which names none."""
LONG_ANSWER = 1_000_000
"""Tokens of an answer of unknown length that favours a rate most."""
_ORDER = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)


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


def work_out(claim: Claim, model: Model, gpus: Mapping[str, Gpu], *, assumed_gpu: str | None) -> Arithmetic:
    """What arithmetic says to a claim with a testable metric; `assumed_gpu` where the claim names none."""
    kind = METRICS[claim.metric or ""].kind
    if kind is MetricKind.FACT:
        return _fact(claim, model)
    if kind is MetricKind.PRICE and claim.gpu is None:
        return _listed_price(claim, model)
    if (why := _no_weights(model)) is not None:
        return Arithmetic(Outcome.OPEN, (why,))
    if kind is MetricKind.FIT:
        return _fit(claim, model, gpus, assumed_gpu)
    name = claim.gpu or assumed_gpu
    if name is None:
        why = "It names no GPU, so arithmetic cannot speak to it; name one with --gpu to see what holds there."
        return Arithmetic(Outcome.OPEN, (why,))
    read = replace(claim, gpu=name)
    found = _cost(read, model, gpus[name]) if kind is MetricKind.PRICE else _speed(read, model, gpus[name])
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


# --- memory -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fitting:
    """One model on one set of GPUs, at its least and as published."""

    setup: Setup
    least_bytes: int | None
    """Of weights and caches, in what favours the claim; None where the weights are unknown."""
    published_bytes: int | None
    """The same with the weights as published and a 16-bit cache."""
    headroom_low: int | None
    """Predicted cache left over on each GPU with the high guess at the overhead; None = unknown."""
    headroom_likely: int | None

    @property
    def is_impossible(self) -> bool:
        return self.least_bytes is not None and self.least_bytes > memory_at_most(self.setup)

    @property
    def is_impossible_as_published(self) -> bool:
        return self.published_bytes is not None and self.published_bytes > memory_at_most(self.setup)

    @property
    def fits_by_size(self) -> bool:
        return self.headroom_low is not None and self.headroom_low >= 0


def _fit(claim: Claim, model: Model, gpus: Mapping[str, Gpu], assumed_gpu: str | None) -> Arithmetic:
    count = claim.gpus or 1
    name = claim.gpu or assumed_gpu
    devices = [gpus[name]] if name is not None else sorted(gpus.values(), key=lambda gpu: gpu.memory_bytes)
    if not devices:
        return Arithmetic(Outcome.OPEN, ("Unknown: the registry has no GPUs.",))
    found = [_fitting(claim, model, gpu, count) for gpu in devices]
    told = _FitWords(claim, model, found, assumed=name is not None and claim.gpu is None)
    if all(one.is_impossible for one in found) and not told.assumed:
        return told.refuted()
    roomy = [one for one in found if one.fits_by_size]
    if claim.gpu is None and not told.names_a_load and roomy:
        return told.holds(roomy)
    return told.left_open()


def _fitting(claim: Claim, model: Model, gpu: Gpu, count: int) -> _Fitting:
    published = number_format(model.weights.dtype) or "bf16"
    chosen = claim.quantisation or published
    setup = Setup(gpu, count, chosen, _kv_bytes(claim, 2))
    least_format = claim.quantisation or _smaller(model, published)
    weights, kv_bytes = least_weights_bytes(model, least_format), _kv_bytes(claim, 1)
    requests, context = claim.concurrency or 1, _context(claim) or 1
    least_cache = requests * least_cache_bytes(model, context, kv_dtype_bytes=kv_bytes)
    as_published, cache = published_or_as(model, chosen), _kv_bytes(claim, 2) // kv_bytes * least_cache
    useful = min(SHORTEST_USEFUL_CONTEXT, (model.shape and model.shape.context) or SHORTEST_USEFUL_CONTEXT)
    need = predicted_need(model, setup, context=_context(claim) or useful)
    headroom = None if need is None else need.headroom(requests)
    return _Fitting(
        setup=setup,
        least_bytes=None if weights is None else weights + least_cache,
        published_bytes=None if as_published is None else as_published + cache,
        headroom_low=None if headroom is None else headroom.low,
        headroom_likely=None if headroom is None else headroom.likely,
    )


def _smaller(model: Model, published: str) -> str:
    """The format that favours a claim which names none: 4 bits, unless the published weights are smaller still."""
    sizes = {name: least_weights_bytes(model, name) for name in (published, SMALLEST_FORMAT)}
    known = {name: size for name, size in sizes.items() if size is not None}
    return min(known, key=lambda name: known[name]) if known else published


@dataclass(frozen=True, slots=True)
class _FitWords:
    claim: Claim
    model: Model
    found: Sequence[_Fitting]
    assumed: bool
    """Whether the GPU was named by whoever asks, not by the claim."""

    @property
    def names_a_load(self) -> bool:
        return _context(self.claim) is not None or self.claim.concurrency is not None

    def refuted(self) -> Arithmetic:
        largest = max(self.found, key=lambda one: memory_at_most(one.setup))
        least, room = largest.least_bytes or 0, memory_at_most(largest.setup)
        format_words = self.claim.quantisation or f"{SMALLEST_FORMAT}, the smallest format tried"
        why = (
            f"It cannot fit: weights in {format_words}, with {self._cache_words()}, take {_gb(least)}, and "
            f"{_on(largest.setup)} can have {_gb(room)} at most."
        )
        return self._result(Outcome.REFUTED, (why,), margin=(room - least) / least)

    def holds(self, roomy: Sequence[_Fitting]) -> Arithmetic:
        smallest = roomy[0]
        size = published_or_as(self.model, smallest.setup.weights_format) or 0
        stated = self.claim.quantisation or f"{smallest.setup.weights_format}, as published"
        context = _gib_or_none(smallest.headroom_low)
        what = (
            f"by size alone: weights of {_gb(size)} ({stated}), the cache of one request of "
            f"{_useful(self.model):,} tokens and the high guess at the overhead fit "
            f"{_on(smallest.setup)}, with {context} to spare on each"
        )
        tables = "" if len(self.found) == 1 else f", and {len(roomy)} of the {len(self.found)} GPUs of the table"
        why = f"It holds {what}{tables}. The claim names no GPU, no context and no number of requests."
        left = ["That an engine starts with it and answers: nothing was run.", "How fast it is."]
        if not self.model.is_servable:
            reason = self.model.serving.reason or "nothing serves it"
            left.insert(0, f"Serving it: {reason}")
        margin = (smallest.headroom_low or 0) / memory_at_most(smallest.setup)
        return self._result(Outcome.HOLDS, (why,), margin=margin, holds_for=what, left_open=tuple(left))

    def left_open(self) -> Arithmetic:
        best = max(self.found, key=lambda one: memory_at_most(one.setup))
        reasons = [f"It names no GPU; read as on {_on(best.setup)}."] if self.assumed else []
        if best.is_impossible:
            reasons.append(f"There it cannot fit: it takes {_gb(best.least_bytes or 0)} at least.")
        elif best.is_impossible_as_published:
            reasons.append(
                f"As published it cannot fit {_on(best.setup)}: it takes {_gb(best.published_bytes or 0)}, of at most "
                f"{_gb(memory_at_most(best.setup))}. With fewer bits it could, and the claim names no quantisation."
            )
        reasons.append(self._prediction(best))
        if not self.model.is_servable:
            reasons.append(f"No supported engine serves it: {self.model.serving.reason or 'nothing serves it'}")
        return self._result(Outcome.OPEN, tuple(reasons), left_open=(needed_run(self.claim),))

    def _prediction(self, best: _Fitting) -> str:
        shape = self.model.shape
        if best.headroom_low is None or best.headroom_likely is None:
            missing = "the shape" if shape is None else ", ".join(missing_kv_fields(shape)) or "hidden or heads"
            size = published_or_as(self.model, best.setup.weights_format)
            weights = "of unknown size" if size is None else f"of {_gb(size)}"
            return (
                f"Weights {weights} stand against {_gb(best.setup.gpus * best.setup.gpu.memory_bytes)} on "
                f"{_on(best.setup)}; the cache is unknown, because the registry does not know {missing}."
            )
        if best.headroom_low >= 0:
            word = "It is predicted to fit"
        elif best.headroom_likely >= 0:
            word = "It is predicted to fit, but not with the high guess at the overhead"
        else:
            word = "It is predicted not to fit, which a guess at the overhead decides, not arithmetic"
        return (
            f"{word}: {_on(best.setup)} with {self._cache_words()} leave {_gib_or_none(best.headroom_low)} (high "
            f"overhead) to {_gib_or_none(best.headroom_likely)} (likely) of cache on each GPU."
        )

    def _cache_words(self) -> str:
        context, requests = _context(self.claim), self.claim.concurrency or 1
        if context is None and not self.claim.concurrency:
            return "one short request"
        plural = "request" if requests == 1 else "requests"
        return f"{requests:,} {plural} of {context:,} tokens" if context else f"{requests:,} short {plural}"

    def _result(
        self,
        outcome: Outcome,
        reasons: tuple[str, ...],
        *,
        margin: float | None = None,
        holds_for: str | None = None,
        left_open: tuple[str, ...] = (),
    ) -> Arithmetic:
        named = [one.setup.gpu.sourced for one in self.found] if self.claim.gpu else []
        return Arithmetic(
            outcome=outcome,
            reasons=reasons,
            margin=margin,
            holds_for=holds_for,
            left_open=left_open,
            derivation=_size_lines(self.claim, self.model, self.found),
            evidence=tuple(_fit_evidence(self.claim, one) for one in self.found if one.headroom_likely is not None),
            confidence=_lowest([*_size_facts(self.model), *named]),
        )


def _useful(model: Model) -> int:
    return min(SHORTEST_USEFUL_CONTEXT, (model.shape and model.shape.context) or SHORTEST_USEFUL_CONTEXT)


def _size_lines(claim: Claim, model: Model, found: Sequence[_Fitting]) -> tuple[str, ...]:
    """The weights in the formats that matter, then each set of GPUs from the smallest up."""
    published = number_format(model.weights.dtype) or "bf16"
    formats = [claim.quantisation] if claim.quantisation else list(dict.fromkeys((published, "fp32", SMALLEST_FORMAT)))
    lines = []
    params = model.shape.params if model.shape is not None else None
    for name in formats:
        size = published_or_as(model, name)
        if size is None:
            lines.append(f"Weights in {name}: unknown.")
        elif name == published and model.weights.size_bytes:
            lines.append(f"Weights in {name}: {_gb(size)}, the published files ({_cited(model.weights.sourced)}).")
        else:
            cited = _cited(model.shape.facts.get("params") if model.shape is not None else None)
            lines.append(
                f"Weights in {name}{', as published' if name == published else ''}: {params or 0:,} parameters "
                f"({cited}) × {size / (params or 1):.4g} bytes = {_gb(size)}."
            )
    return (*lines, *(_room_line(one) for one in found))


def _room_line(one: _Fitting) -> str:
    gpu = one.setup.gpu
    memory = f"{_on(one.setup)}: {gpu.memory_bytes / GIB:,.1f} GiB each ({_cited(gpu.sourced)})"
    if one.headroom_low is None:
        return f"{memory}; what is left for the cache is unknown."
    return (
        f"{memory}: 0.92 × memory - weights - overhead - cache of the load = {_gib_or_none(one.headroom_low)} to "
        f"{_gib_or_none(one.headroom_likely)} left on each, with the high and the likely guess at the overhead."
    )


def _fit_evidence(claim: Claim, one: _Fitting) -> Evidence:
    return Evidence(
        kind=EvidenceKind.PREDICTED,
        provenance=Provenance.UNKNOWN,
        metric=claim.metric or "",
        gpu=one.setup.gpu.id,
        gpus=one.setup.gpus,
        value=Decimal(f"{(one.headroom_likely or 0) / GIB:.3f}"),
        unit="GiB of cache left on each GPU, with the likely overhead",
        source="vLLM's budget from registry facts",
        quantisation=one.setup.weights_format,
        context_tokens=_context(claim),
        concurrency=claim.concurrency,
    )


def _size_facts(model: Model) -> list[Sourced | None]:
    shape = model.shape
    if shape is None:
        return [model.weights.sourced]
    names = ["layers", *(["mla"] if shape.mla is not None else ["kv_heads", "head_dim"])]
    weights = model.weights.sourced if model.weights.size_bytes else shape.facts.get("params")
    return [weights, *(shape.facts.get(name) for name in names)]


# --- speed --------------------------------------------------------------------------------------------------


def _speed(claim: Claim, model: Model, gpu: Gpu) -> Arithmetic:
    load = _favourable_load(claim)
    published = number_format(model.weights.dtype) or "bf16"
    setup = Setup(gpu, claim.gpus or 1, claim.quantisation or published, _kv_bytes(claim, 2))
    as_stated = compute_ceilings(model, setup, load)
    best = compute_ceilings(model, _most_favourable(claim, model, setup), load)
    facts = _speed_facts(model, gpu)
    derivation = derive(best if _is_refuted(claim, best) and claim.quantisation is None else as_stated)
    if _is_refuted(claim, best):
        return Arithmetic(
            Outcome.REFUTED,
            (_refutation(claim, best), *_assumptions(claim, best)),
            margin=_speed_margin(claim, best.ceiling),
            derivation=derivation,
            evidence=_speed_evidence(claim, best),
            confidence=_lowest(facts),
        )
    reasons = [_not_refuted(claim, as_stated)]
    if _is_refuted(claim, as_stated):
        reasons = [f"{_refutation(claim, as_stated)} With fewer bits it could, and the claim names no quantisation."]
    return Arithmetic(
        Outcome.OPEN,
        (*reasons, *_assumptions(claim, as_stated)),
        margin=_speed_margin(claim, as_stated.ceiling),
        left_open=(needed_run(claim),),
        derivation=derivation,
        evidence=_speed_evidence(claim, as_stated),
        confidence=_lowest(facts),
    )


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


def _most_favourable(claim: Claim, model: Model, setup: Setup) -> Setup:
    smallest = claim.quantisation or _smaller(model, setup.weights_format)
    return replace(setup, weights_format=smallest, kv_dtype_bytes=_kv_bytes(claim, 1))


def _is_refuted(claim: Claim, found: Ceilings) -> bool:
    if not found.has_room:
        return True
    limit = _limit(claim, found.ceiling)
    if limit is None or claim.value is None or not _can_be_refuted(claim):
        return False
    wants_less = METRICS[claim.metric or ""].kind in (MetricKind.LATENCY, MetricKind.PRICE)
    slack = float(TOLERANCE) if comparison_of(claim) == "equals" else 0.0
    value = float(claim.value)
    return value * (1 + slack) < limit if wants_less else value * (1 - slack) > limit


def _can_be_refuted(claim: Claim) -> bool:
    """Events may bundle tokens and arrive in bursts, so of the gaps between them only the mean has a floor.

    At an attainment of 0 % nobody need meet the value.
    """
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
    limit = _limit(claim, speed)
    if limit is None or not claim.value:
        return None
    share = (float(claim.value) - limit) / float(claim.value)
    return share if METRICS[claim.metric or ""].kind in (MetricKind.LATENCY, MetricKind.PRICE) else -share


def _refutation(claim: Claim, found: Ceilings) -> str:
    where = f"{_on(found.setup)} in {found.setup.weights_format}"
    if not found.has_room:
        return f"It cannot run: {(found.why_no_ceiling or '').removeprefix('None: ')}"
    figure = _figure(claim, _limit(claim, found.ceiling))
    is_least = METRICS[claim.metric or ""].kind in (MetricKind.LATENCY, MetricKind.PRICE)
    return (
        f"No engine can do it: on {where} the {METRICS[claim.metric or ''].words} is {figure} at "
        f"{'least' if is_least else 'most'}, and {_figure(claim, float(claim.value or 0))} is claimed."
    )


def _not_refuted(claim: Claim, found: Ceilings) -> str:
    if found.ceiling is None:
        return f"Arithmetic cannot speak to it. {(found.why_no_ceiling or '').removeprefix('None: ').capitalize()}"
    is_least = METRICS[claim.metric or ""].kind in (MetricKind.LATENCY, MetricKind.PRICE)
    limit = _figure(claim, _limit(claim, found.ceiling))
    sentence = (
        f"Arithmetic does not refute it: {_on(found.setup)} in {found.setup.weights_format} reach {limit} at "
        f"{'least' if is_least else 'most'}; {_figure(claim, float(claim.value or 0))} is claimed"
    )
    expected = _limit(claim, found.expected)
    if expected is None:
        return f"{sentence}."
    is_met = meets(replace(claim, statistic=None), Decimal(str(expected)))
    how = "meets it" if is_met else "misses it, which refutes nothing"
    return f"{sentence}. The expectation, {_figure(claim, expected)}, {how}."


def _assumptions(claim: Claim, found: Ceilings) -> Iterable[str]:
    """How the claim was read where it says nothing, and what would change that."""
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
    if claim.accepted_length is None and claim.metric in ("tpot_s", "itl_s", "output_tokens_per_s_per_user"):
        limit, value = _limit(claim, found.ceiling), float(claim.value or 0)
        if limit and value and _is_refuted(claim, found):
            ratio = limit / value if claim.metric != "output_tokens_per_s_per_user" else value / limit
            yield (
                f"Read as without speculative decoding, which the claim does not mention: with it, {ratio:.2g} tokens "
                "accepted a step or more would be needed; a claim with accepted_length is judged with it."
            )


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


def _speed_facts(model: Model, gpu: Gpu) -> list[Sourced | None]:
    shape = model.shape
    names = ["params", "layers", "hidden", "vocab", "heads"]
    if shape is not None and shape.moe is not None:
        names += ["active_params", "moe"]
    if shape is not None and shape.mla is not None:
        names += ["mla"]
    else:
        names += ["kv_heads", "head_dim"]
    return [gpu.sourced, *(None if shape is None else shape.facts.get(name) for name in names)]


# --- money --------------------------------------------------------------------------------------------------


def _cost(claim: Claim, model: Model, gpu: Gpu) -> Arithmetic:
    """What a million output tokens cost at least on the GPU claimed, at the lowest listed hourly price."""
    if not gpu.prices:
        return Arithmetic(Outcome.OPEN, (f"Unknown: the registry has no hourly price for {gpu.id}.",))
    currency = gpu.prices[0].currency
    if claim.unit != currency:
        why = f"Unknown: it is in {claim.unit}, the prices of {gpu.id} are in {currency}, and no rate is applied."
        return Arithmetic(Outcome.OPEN, (why,))
    found = _speed(claim, model, gpu)
    low = min(price.per_hour for price in gpu.prices if price.currency == currency)
    cheapest = f"At {low:g} {currency} an hour for each GPU, the lowest listed price, and no idle time."
    prices = [price.sourced for price in gpu.prices]
    lowest = _lowest(prices)
    both = [one for one in (found.confidence, lowest) if one is not None]
    return replace(found, reasons=(*found.reasons, cheapest), confidence=min(both, key=_ORDER.index) if both else None)


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
    line = f"The price list {when} ({_cited(price.sourced)}) says {listed:f} {price.currency} a million tokens."
    confidence = _lowest([price.sourced])
    limit = claim.value or Decimal(0)
    margin = None if not limit else float((limit - listed) / limit)
    if meets(claim, listed):
        what = f"by the price list {when}, before tax"
        return Arithmetic(Outcome.HOLDS, (line,), margin, what, derivation=(line,), confidence=confidence)
    if price.on is not None and (claim.on is None or claim.on >= price.on):
        return Arithmetic(Outcome.REFUTED, (line,), margin, derivation=(line,), confidence=confidence)
    why = "The list is younger than the claim, or of an unknown day, and prices change."
    return Arithmetic(Outcome.OPEN, (line, why), margin, derivation=(line,), confidence=confidence)


# --- facts of the checkpoint --------------------------------------------------------------------------------


def _fact(claim: Claim, model: Model) -> Arithmetic:
    shape = model.shape
    name = claim.metric or ""
    value = None if shape is None else getattr(shape, name)
    left = (needed_run(claim),)
    if shape is None or value is None:
        return Arithmetic(
            Outcome.OPEN, (f"Unknown: the registry does not know its {METRICS[name].words}.",), left_open=left
        )
    cited = _cited(shape.facts.get(name))
    agrees = "The same" if meets(claim, Decimal(value)) else "Something else"
    why = (
        f"{agrees} stands in the registry, {value:,} {METRICS[name].unit} ({cited}), which repeats what was published "
        "and proves nothing."
    )
    return Arithmetic(Outcome.OPEN, (why,), left_open=left, confidence=_lowest([shape.facts.get(name)]))


# --- words --------------------------------------------------------------------------------------------------


def _kv_bytes(claim: Claim, unsaid: int) -> int:
    if claim.kv_dtype is None:
        return unsaid
    return 1 if number_format(claim.kv_dtype) == "fp8" else 2


def _context(claim: Claim) -> int | None:
    """Tokens of one request, prompt and answer, where the claim says."""
    if claim.context_tokens is not None:
        return claim.context_tokens
    if claim.input_tokens is None and claim.output_tokens is None:
        return None
    return (claim.input_tokens or 0) + (claim.output_tokens or 0)


def _lowest(facts: Iterable[Sourced | None]) -> Confidence | None:
    """The lowest confidence; a fact without a source counts as low."""
    levels = [Confidence.LOW if fact is None else fact.confidence for fact in facts]
    return min(levels, key=_ORDER.index) if levels else None


def _figure(claim: Claim, value: float | None) -> str:
    if value is None:
        return "unknown"
    kind = METRICS[claim.metric or ""].kind
    if kind is MetricKind.LATENCY:
        return f"{value * 1000:,.4g} ms"
    return f"{value:,.4g} {claim.unit or METRICS[claim.metric or ''].unit or ''}".rstrip()


def _on(setup: Setup) -> str:
    return f"{setup.gpus} × {setup.gpu.name}"


def _cited(sourced: Sourced | None) -> str:
    return "no source" if sourced is None else f"{sourced.source}, confidence {sourced.confidence.value}"


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def _gib_or_none(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size / GIB:,.1f} GiB"
