"""Claims about memory: refuted where even the least cannot fit, holding where a claim is about size alone.

What stands between the two, an engine has to show. Bytes and budgets come from ceilings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from gateway.domain.ceilings import (
    GPU_MEMORY_UTILIZATION,
    PredictedNeed,
    Setup,
    memory_at_most,
    predicted_need,
)
from gateway.domain.claim_evidence import Evidence, EvidenceKind, needed_run
from gateway.domain.claim_outcome import (
    SMALLEST_FORMAT,
    Arithmetic,
    Outcome,
    cited,
    context_of,
    gb,
    gib,
    kv_bytes_of,
    lowest,
    most_favourable_format,
    setup_words,
)
from gateway.domain.feasibility import SHORTEST_USEFUL_CONTEXT
from gateway.domain.memory import GIB, missing_kv_fields, number_format
from gateway.domain.records import Claim, Gpu, Model, Provenance, Sourced
from gateway.domain.roofline import least_cache_bytes, least_weights_bytes, published_or_as


@dataclass(frozen=True, slots=True)
class _Fitting:
    """One model on one set of GPUs, at its least and as published."""

    setup: Setup
    least_bytes: int | None
    """Of weights and caches, in what favours the claim; None where the weights are unknown."""
    published_bytes: int | None
    """The same with the weights as published and a 16-bit cache."""
    need: PredictedNeed | None
    """By vLLM's budget; None = unknown."""
    requests: int

    @property
    def headroom_low(self) -> int | None:
        """Predicted cache left over on each GPU with the high guess at the overhead; None = unknown."""
        return None if self.need is None else self.need.headroom(self.requests).low

    @property
    def headroom_likely(self) -> int | None:
        return None if self.need is None else self.need.headroom(self.requests).likely

    @property
    def is_impossible(self) -> bool:
        return self.least_bytes is not None and self.least_bytes > memory_at_most(self.setup)

    @property
    def is_impossible_as_published(self) -> bool:
        return self.published_bytes is not None and self.published_bytes > memory_at_most(self.setup)

    @property
    def fits_by_size(self) -> bool:
        return self.headroom_low is not None and self.headroom_low >= 0


def judge_fit(claim: Claim, model: Model, gpus: Mapping[str, Gpu], assumed_gpu: str | None) -> Arithmetic:
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
    setup = Setup(gpu, count, chosen, kv_bytes_of(claim, 2))
    least_format = claim.quantisation or most_favourable_format(model, published)
    weights, kv_bytes = least_weights_bytes(model, least_format), kv_bytes_of(claim, 1)
    requests, context = claim.concurrency or 1, context_of(claim) or 1
    least_cache = requests * least_cache_bytes(model, context, kv_dtype_bytes=kv_bytes)
    as_published, cache = published_or_as(model, chosen), kv_bytes_of(claim, 2) // kv_bytes * least_cache
    need = predicted_need(model, setup, context=context_of(claim) or _useful(model))
    return _Fitting(
        setup=setup,
        least_bytes=None if weights is None else weights + least_cache,
        published_bytes=None if as_published is None else as_published + cache,
        need=need,
        requests=requests,
    )


@dataclass(frozen=True, slots=True)
class _FitWords:
    claim: Claim
    model: Model
    found: Sequence[_Fitting]
    assumed: bool
    """Whether the GPU was named by whoever asks, not by the claim."""

    @property
    def names_a_load(self) -> bool:
        return context_of(self.claim) is not None or self.claim.concurrency is not None

    def refuted(self) -> Arithmetic:
        largest = max(self.found, key=lambda one: memory_at_most(one.setup))
        least, room = largest.least_bytes or 0, memory_at_most(largest.setup)
        format_words = self.claim.quantisation or f"{SMALLEST_FORMAT}, the smallest format tried"
        why = (
            f"It cannot fit: weights in {format_words}, with {self._cache_words()}, take {gb(least)}, and "
            f"{setup_words(largest.setup)} can have {gb(room)} at most."
        )
        return self._result(Outcome.REFUTED, (why,), margin=(room - least) / least)

    def holds(self, roomy: Sequence[_Fitting]) -> Arithmetic:
        smallest = roomy[0]
        size = published_or_as(self.model, smallest.setup.weights_format) or 0
        stated = self.claim.quantisation or f"{smallest.setup.weights_format}, as published"
        full = published_or_as(self.model, "fp32")
        wide = f"; {gb(full)} in fp32" if full is not None and not self.claim.quantisation else ""
        context = gib(smallest.headroom_low)
        what = (
            f"by size alone: weights of {gb(size)} ({stated}{wide}), the cache of one request of "
            f"{_useful(self.model):,} tokens and the high guess at the overhead fit "
            f"{setup_words(smallest.setup)}, with {context} to spare on each"
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
        best = self._most_telling()
        reasons = [f"It names no GPU; read as on {setup_words(best.setup)}."] if self.assumed else []
        if best.is_impossible:
            least, room = gb(best.least_bytes or 0), gb(memory_at_most(best.setup))
            reasons.append(f"There it cannot fit: it takes {least} at least, of at most {room}.")
        elif best.is_impossible_as_published:
            room = gb(memory_at_most(best.setup))
            reasons.append(
                f"As published it cannot fit {setup_words(best.setup)}: it takes {gb(best.published_bytes or 0)}, of "
                f"at most {room}. With fewer bits it could, and the claim names no quantisation."
            )
        else:
            reasons.append(self._prediction(best))
        if not self.model.is_servable:
            reasons.append(f"No supported engine serves it: {self.model.serving.reason or 'nothing serves it'}")
        return self._result(Outcome.OPEN, tuple(reasons), left_open=(needed_run(self.claim),))

    def _most_telling(self) -> _Fitting:
        """The only one, or the smallest that could hold it as published, or the largest."""
        holding = [one for one in self.found if not one.is_impossible_as_published]
        return holding[0] if holding else self.found[-1]

    def _prediction(self, best: _Fitting) -> str:
        shape = self.model.shape
        if best.headroom_low is None or best.headroom_likely is None:
            missing = "the shape" if shape is None else ", ".join(missing_kv_fields(shape)) or "hidden or heads"
            size = published_or_as(self.model, best.setup.weights_format)
            weights = "of unknown size" if size is None else f"of {gb(size)}"
            return (
                f"Weights {weights} stand against {gb(best.setup.gpus * best.setup.gpu.memory_bytes)} on "
                f"{setup_words(best.setup)}; the cache is unknown, because the registry does not know {missing}."
            )
        if best.headroom_low >= 0:
            word = "It is predicted to fit"
        elif best.headroom_likely >= 0:
            word = "It is predicted to fit, but not with the high guess at the overhead"
        else:
            word = "It is predicted not to fit, which a guess at the overhead decides, not arithmetic"
        return (
            f"{word}: {setup_words(best.setup)} with {self._cache_words()} leave {gib(best.headroom_low)} (high "
            f"overhead) to {gib(best.headroom_likely)} (likely) of cache on each GPU."
        )

    def _cache_words(self) -> str:
        context, requests = context_of(self.claim), self.claim.concurrency or 1
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
            derivation=_size_lines(self.claim, self.model, self.found, self._most_telling()),
            evidence=tuple(_fit_evidence(self.claim, one) for one in self.found if one.need is not None),
            confidence=lowest([*_size_facts(self.model), *named]),
        )


def _useful(model: Model) -> int:
    return min(SHORTEST_USEFUL_CONTEXT, (model.shape and model.shape.context) or SHORTEST_USEFUL_CONTEXT)


def _size_lines(claim: Claim, model: Model, found: Sequence[_Fitting], telling: _Fitting) -> tuple[str, ...]:
    """The weights in the formats that matter, the budget on the most telling GPUs, and which others it would fit."""
    published = number_format(model.weights.dtype) or "bf16"
    formats = [claim.quantisation] if claim.quantisation else list(dict.fromkeys((published, "fp32", SMALLEST_FORMAT)))
    lines = []
    params = model.shape.params if model.shape is not None else None
    for name in formats:
        size = published_or_as(model, name)
        if size is None:
            lines.append(f"Weights in {name}: unknown.")
        elif name == published and model.weights.size_bytes:
            lines.append(f"Weights in {name}: {gb(size)}, the published files ({cited(model.weights.sourced)}).")
        else:
            origin = cited(model.shape.facts.get("params") if model.shape is not None else None)
            lines.append(
                f"Weights in {name}{', as published' if name == published else ''}: {params or 0:,} parameters "
                f"({origin}) × {size / (params or 1):.4g} bytes = {gb(size)}."
            )
    others = [one.setup.gpu.id for one in found if one.fits_by_size and one is not telling]
    if others:
        lines.append(f"With the high guess at the overhead it is predicted to fit as well: {', '.join(others)}.")
    return (*lines[:-1], _room_line(telling), lines[-1]) if others else (*lines, _room_line(telling))


def _room_line(one: _Fitting) -> str:
    gpu, need = one.setup.gpu, one.need
    memory = f"{setup_words(one.setup)}: {gpu.memory_bytes / GIB:,.1f} GiB each ({cited(gpu.sourced)})"
    if need is None or one.headroom_low is None:
        return f"{memory}; what is left for the cache is unknown."
    return (
        f"{memory} × {GPU_MEMORY_UTILIZATION:g} - weights {need.weights / GIB:,.1f} - overhead "
        f"{need.overhead.high / GIB:,.1f} (likely {need.overhead.likely / GIB:,.1f}; a guess) - "
        f"{one.requests:,} × cache {need.per_request / GIB:,.2f} = {one.headroom_low / GIB:,.1f} GiB "
        f"(likely {(one.headroom_likely or 0) / GIB:,.1f}) left on each."
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
        context_tokens=context_of(claim),
        concurrency=claim.concurrency,
    )


def _size_facts(model: Model) -> list[Sourced | None]:
    shape = model.shape
    if shape is None:
        return [model.weights.sourced]
    names = ["layers", *(["mla"] if shape.mla is not None else ["kv_heads", "head_dim"])]
    weights = model.weights.sourced if model.weights.size_bytes else shape.facts.get("params")
    return [weights, *(shape.facts.get(name) for name in names)]
