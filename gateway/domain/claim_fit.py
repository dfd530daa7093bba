"""Claims about memory: refuted where even the least cannot fit; everything else an engine has to show.

What is predicted is `feasibility`'s answer; bytes and budgets of a refutation come from ceilings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from gateway.domain.ceilings import LEAST_KV, Setup, memory_at_most, plan_of
from gateway.domain.claim_evidence import Evidence, EvidenceKind, needed_run
from gateway.domain.claim_outcome import (
    SMALLEST_FORMAT,
    Arithmetic,
    Outcome,
    cited,
    context_of,
    gb,
    gib,
    low_ones,
    lowest,
    rounding_of,
    setup_words,
)
from gateway.domain.claim_workings import Workings
from gateway.domain.feasibility import SHORTEST_USEFUL_CONTEXT, memory_case
from gateway.domain.memory import GIB, number_format
from gateway.domain.memory_case import MemoryCase
from gateway.domain.records import Claim, Confidence, Gpu, Model, Provenance, Sourced
from gateway.domain.roofline import LEAST_FORMAT, least_cache_bytes, least_weights_bytes, published_or_as
from gateway.domain.serving_plan import GPU_MEMORY_UTILIZATION


@dataclass(frozen=True, slots=True)
class _Fitting:
    """One model on one set of GPUs, at its least and as it is predicted."""

    setup: Setup
    least_weights: int | None
    """In what favours the claim; None = unknown."""
    least_cache: int
    four_bit_bytes: int | None
    """Weights and caches in 4 bits, where the claim leaves it open."""
    published_bytes: int | None
    """With the weights as published and a 16-bit cache, or as the claim says."""
    context: int
    """Tokens of each request that the prediction is about."""
    concurrency: int
    case: MemoryCase | str
    """What the prediction is computed from, or why there is none."""
    doubt: float
    """Share by which the weights may be smaller, because their count is rounded."""

    @property
    def room(self) -> int:
        return memory_at_most(self.setup)

    @property
    def least_bytes(self) -> int | None:
        return None if self.least_weights is None else self.least_weights + self.least_cache

    @property
    def headroom_low(self) -> int | None:
        """Predicted cache left over on each GPU with the high guess at the overhead; None = unknown."""
        return None if isinstance(self.case, str) else self.case.headroom(self.case.weights, self.case.overhead.high)

    @property
    def headroom_likely(self) -> int | None:
        return None if isinstance(self.case, str) else self.case.headroom(self.case.weights, self.case.overhead.likely)

    @property
    def is_impossible(self) -> bool:
        return self.least_bytes is not None and self.least_bytes * (1 - self.doubt) > self.room

    @property
    def is_impossible_by_weights(self) -> bool:
        return self.least_weights is not None and self.least_weights * (1 - self.doubt) > self.room

    @property
    def is_impossible_in_4_bits(self) -> bool:
        return self.four_bit_bytes is not None and self.four_bit_bytes * (1 - self.doubt) > self.room

    @property
    def is_impossible_as_published(self) -> bool:
        return self.published_bytes is not None and self.published_bytes > self.room

    @property
    def fits_by_size(self) -> bool:
        return self.headroom_low is not None and self.headroom_low >= 0


def judge_fit(
    claim: Claim, model: Model, gpus: Mapping[str, Gpu], assumed_gpu: str | None, workings: Workings
) -> Arithmetic:
    count = claim.gpus or 1
    name = claim.gpu or assumed_gpu
    devices = [gpus[name]] if name is not None else sorted(gpus.values(), key=lambda gpu: gpu.memory_bytes)
    if not devices:
        return Arithmetic(Outcome.OPEN, ("Unknown: the registry has no GPUs.",), left_open=(needed_run(claim),))
    found = [_fitting(claim, model, gpu, count, workings) for gpu in devices]
    told = _FitWords(claim, model, found, assumed=name is not None and claim.gpu is None)
    if claim.gpu is not None and found[0].is_impossible:
        return told.doubted() or told.refuted()
    return told.left_open()


def _fitting(claim: Claim, model: Model, gpu: Gpu, count: int, workings: Workings) -> _Fitting:
    asked = (count, claim.quantisation, claim.kv_dtype, context_of(claim), claim.concurrency)
    return workings.once(lambda: _fit(claim, model, gpu, count, workings), (model, gpu), "fit", *asked)


def _fit(claim: Claim, model: Model, gpu: Gpu, count: int, workings: Workings) -> _Fitting:
    published = number_format(model.weights.dtype) or "bf16"
    setup = Setup(gpu, count, claim.quantisation or published, claim.kv_dtype or "auto")
    light = Setup(gpu, count, claim.quantisation or LEAST_FORMAT, claim.kv_dtype or LEAST_KV)
    context, requests = context_of(claim) or 1, claim.concurrency or 1

    def caches(element_bytes: float) -> int:
        once = workings.once
        return requests * once(
            lambda: least_cache_bytes(model, context, kv_dtype_bytes=element_bytes),
            (model,),
            "cache",
            context,
            element_bytes,
        )

    def least(name: str) -> int | None:
        return workings.once(lambda: least_weights_bytes(model, name), (model,), "least weights", name)

    four_bits = least(claim.quantisation or SMALLEST_FORMAT)
    name = setup.weights_format
    as_published = workings.once(lambda: published_or_as(model, name), (model,), "published", name)
    length = context_of(claim) or _useful(model)
    case = memory_case(model, gpu, context=length, concurrency=requests, plan=plan_of(model, setup))
    return _Fitting(
        setup=setup,
        least_weights=least(light.weights_format),
        least_cache=caches(light.kv_element_bytes),
        four_bit_bytes=None if four_bits is None else four_bits + caches(light.kv_element_bytes),
        published_bytes=None if as_published is None else as_published + caches(setup.kv_element_bytes),
        context=length if isinstance(case, str) else case.context,
        concurrency=requests,
        case=case,
        doubt=rounding_of(model),
    )


@dataclass(frozen=True, slots=True)
class _FitWords:
    claim: Claim
    model: Model
    found: Sequence[_Fitting]
    assumed: bool
    """Whether the GPU was named by whoever asks, not by the claim."""

    def refuted(self) -> Arithmetic:
        (one,) = self.found
        least = one.least_bytes or 0
        return self._result(Outcome.REFUTED, (self._cannot_fit(one),), margin=(one.room - least) / least)

    def doubted(self) -> Arithmetic | None:
        """Open, where a fact that decides is of low confidence; None where all are sound."""
        (one,) = self.found
        low = low_ones(self._deciding(one))
        if not low:
            return None
        why = f"That refutes nothing, because what decides has low confidence or no source: {', '.join(low)}."
        return self._result(Outcome.OPEN, (self._cannot_fit(one), why), left_open=(needed_run(self.claim),))

    def _cannot_fit(self, one: _Fitting) -> str:
        fewest = f"{LEAST_FORMAT} a parameter, fewer than any format in use"
        return (
            f"It cannot fit: weights in {self.claim.quantisation or fewest}, with {self._cache_words()}, take "
            f"{gb(one.least_bytes or 0)}, and {setup_words(one.setup)} can have {gb(one.room)} at most."
        )

    def _deciding(self, one: _Fitting) -> dict[str, Sourced | None]:
        facts = {"gpu": one.setup.gpu.sourced, **_size_facts(self.model)}
        weights_only = ("gpu", "params", "weights.size_bytes")
        if not one.is_impossible_by_weights:
            return facts
        return {name: fact for name, fact in facts.items() if name in weights_only}

    def left_open(self) -> Arithmetic:
        best = self._most_telling()
        reasons = [f"It names no GPU; read as on {setup_words(best.setup)}."] if self.assumed else []
        margin = None
        if best.is_impossible:
            least, room = gb(best.least_bytes or 0), gb(best.room)
            where = "There" if self.assumed else f"On {setup_words(best.setup)}"
            reasons.append(f"{where} it cannot fit: it takes {least} at least, of at most {room}.")
        elif best.is_impossible_in_4_bits and self.claim.quantisation is None:
            reasons.append(
                f"In 4 bits or more it cannot fit {setup_words(best.setup)}: it takes {gb(best.four_bit_bytes or 0)} "
                f"at least, of at most {gb(best.room)}. With fewer bits it could, and the claim names no quantisation."
            )
        elif best.is_impossible_as_published and self.claim.quantisation is None:
            reasons.append(
                f"As published it cannot fit {setup_words(best.setup)}: it takes {gb(best.published_bytes or 0)}, of "
                f"at most {gb(best.room)}. With fewer bits it could, and the claim names no quantisation."
            )
        elif best.fits_by_size and len(self.found) > 1:
            reasons.append(self._by_size(best))
            margin = (best.headroom_low or 0) / best.room
        else:
            reasons.append(self._prediction(best))
        if not self.model.is_servable:
            reasons.append(f"Not servable by current vLLM: {self.model.serving.reason or 'nothing serves it.'}")
        return self._result(Outcome.OPEN, tuple(reasons), margin=margin, left_open=(needed_run(self.claim),))

    def _most_telling(self) -> _Fitting:
        """The only one, or the smallest that it is predicted to fit, or could as published, or the largest."""
        roomy = [one for one in self.found if one.fits_by_size]
        holding = roomy or [one for one in self.found if not one.is_impossible_as_published]
        return holding[0] if holding else self.found[-1]

    def _by_size(self, smallest: _Fitting) -> str:
        size = published_or_as(self.model, smallest.setup.weights_format) or 0
        stated = self.claim.quantisation or f"{smallest.setup.weights_format}, as published"
        full = published_or_as(self.model, "fp32")
        wide = f"; {gb(full)} in fp32" if full is not None and not self.claim.quantisation else ""
        roomy = sum(one.fits_by_size for one in self.found)
        return (
            f"By size alone it fits: weights of {gb(size)} ({stated}{wide}), the cache of "
            f"{self._predicted_load(smallest)} and the high guess at the overhead fit {setup_words(smallest.setup)}, "
            f"with {gib(smallest.headroom_low)} to spare on each, and {roomy} of the {len(self.found)} GPUs of the "
            "table. The overhead is a guess, and no engine was started."
        )

    def _predicted_load(self, one: _Fitting) -> str:
        plural = "one request" if one.concurrency == 1 else f"{one.concurrency:,} requests"
        return f"{plural} of {one.context:,} tokens"

    def _prediction(self, best: _Fitting) -> str:
        if best.headroom_low is None or best.headroom_likely is None:
            size = published_or_as(self.model, best.setup.weights_format)
            weights = "of unknown size" if size is None else f"of {gb(size)}"
            return (
                f"Weights {weights} stand against {gb(best.setup.gpus * best.setup.gpu.memory_bytes)} on "
                f"{setup_words(best.setup)}; whether they fit is not predicted. {best.case}"
            )
        if best.headroom_low >= 0:
            word = "It is predicted to fit"
        elif best.headroom_likely >= 0:
            word = "It is predicted to fit, but not with the high guess at the overhead"
        else:
            word = "It is predicted not to fit, which a guess at the overhead decides, not arithmetic"
        asked, limit = context_of(self.claim), best.context
        cut = f" It asks for {asked:,} tokens; the model takes {limit:,} at most." if (asked or 0) > limit else ""
        return (
            f"{word}: {setup_words(best.setup)} with {self._predicted_load(best)} leave {gib(best.headroom_low)} (high "
            f"overhead) to {gib(best.headroom_likely)} (likely) of cache on each GPU.{cut}"
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
        left_open: tuple[str, ...] = (),
    ) -> Arithmetic:
        named: list[Sourced | None] = [one.setup.gpu.sourced for one in self.found] if self.claim.gpu else []
        return Arithmetic(
            outcome=outcome,
            reasons=reasons,
            margin=margin,
            left_open=left_open,
            derivation=_size_lines(self.claim, self.model, self.found, self._most_telling()),
            evidence=tuple(_fit_evidence(self.claim, one) for one in self.found if one.headroom_low is not None),
            confidence=self._confidence(outcome, named),
        )

    def _confidence(self, outcome: Outcome, named: list[Sourced | None]) -> Confidence | None:
        """Low where the guess at the overhead decides, else the lowest among the facts that decide."""
        if outcome is Outcome.REFUTED:
            return lowest(self._deciding(self.found[0]).values())
        if any(one.headroom_low is not None for one in self.found):
            return Confidence.LOW
        return lowest([*_size_facts(self.model).values(), *named])


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
    gpu, found = one.setup.gpu, one.case
    memory = f"{setup_words(one.setup)}: {gpu.memory_bytes / GIB:,.1f} GiB each ({cited(gpu.sourced)})"
    if isinstance(found, str) or one.headroom_low is None:
        return f"{memory}; what is left for the cache is unknown."
    weights = max(found.stage_weights(found.weights))
    cache = found.blocks_per_request * max(found.stage_block_bytes)
    return (
        f"{memory} × {GPU_MEMORY_UTILIZATION:g} - weights {weights / GIB:,.1f} - overhead "
        f"{found.overhead.high / GIB:,.1f} (likely {found.overhead.likely / GIB:,.1f}; a guess) - "
        f"{found.concurrency:,} × cache {cache / GIB:,.2f} and one block = "
        f"{one.headroom_low / GIB:,.1f} GiB (likely {(one.headroom_likely or 0) / GIB:,.1f}) left on each."
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
        source="feasibility: vLLM's budget from registry facts",
        quantisation=one.setup.weights_format,
        context_tokens=context_of(claim),
        concurrency=claim.concurrency,
    )


def _size_facts(model: Model) -> dict[str, Sourced | None]:
    shape = model.shape
    if shape is None:
        return {"weights.size_bytes": model.weights.sourced}
    names = ["layers", *(["mla"] if shape.mla is not None else ["kv_heads", "head_dim"])]
    if shape.sliding_window is not None or shape.attention_chunk is not None:
        names.append("global_layers")
    facts: dict[str, Sourced | None] = {name: shape.facts.get(name) for name in names}
    facts["params"] = shape.facts.get("params")
    if shape.params is None:
        del facts["params"]
    if shape.params is None or model.weights.size_bytes:
        facts["weights.size_bytes"] = model.weights.sourced
    return facts
