"""How fast a model decodes on one type of GPU, at most and as expected, and what a token would then cost.

Whether that many requests fit is `feasibility`'s answer and how long a step takes is `roofline`'s. `matrix` asks for
every cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from gateway.domain.cost import cost_per_mtok
from gateway.domain.kv_layers import Keeps
from gateway.domain.memory import kv_layout
from gateway.domain.records import Gpu, Model
from gateway.domain.roofline import Roofline, Work, build_bound, expect_roofline, missing_bound_facts, missing_facts
from gateway.domain.weights import number_format

_PLAIN_KV_BYTES = 2
"""An element of the KV cache where no other format is asked for."""


@dataclass(frozen=True, slots=True)
class CostRange:
    """Money per million output tokens, over all listed prices of the GPU."""

    low: Decimal
    high: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """Output tokens per second while `requests` requests, each with its whole context in cache, get their next token.

    No prefill in between: requests ÷ time of one decode step. The ceiling is `build_bound`'s, which no engine beats at
    this context; the expectation `expect_roofline`'s, with 0.8 of the bandwidth and 0.5 of the operations.
    """

    requests: int
    ceiling_tokens_per_s: float | None
    """None where a fact is unknown that a bound needs; the pace says which."""
    expected_tokens_per_s: float
    cost_per_mtok: CostRange | None
    """At the expected rate, kept up all the time; None has its reason beside it."""


@dataclass(frozen=True, slots=True)
class DecodingPace:
    """How fast decoding goes: what to expect and what no engine beats, for the last token of each request."""

    expected: Roofline
    bound: Roofline | None
    why_no_bound: str | None
    work: Work

    def ceiling(self, requests: int) -> float | None:
        return None if self.bound is None else self._tokens_per_s(self.bound, requests)

    def expectation(self, requests: int) -> float:
        return self._tokens_per_s(self.expected, requests)

    def _tokens_per_s(self, roofline: Roofline, requests: int) -> float:
        """As `Roofline.step_seconds` of so many equal works, without going through them one by one."""
        cache = roofline.cache.read_bytes(self.work.past_tokens)
        read_s = (roofline.weights_read_bytes(requests) + requests * cache) / roofline.bytes_per_s
        return requests / max(read_s, requests * roofline.request_flops(self.work) / roofline.flops_per_s)


def decoding_pace(variant: Model, gpu: Gpu, *, gpus: int, kv_dtype: str, context: int) -> DecodingPace | None:
    """For requests of `context` tokens; None where facts are missing that an expectation needs."""
    if missing_facts(variant, gpu):
        return None
    expected = expect_roofline(
        variant, gpu, gpus=gpus, weights_format=variant.weights.dtype, kv_dtype_bytes=_PLAIN_KV_BYTES
    )
    bound, why = _bound(variant, gpu, gpus)
    return DecodingPace(
        expected=_with_cache(expected, variant, kv_dtype),
        bound=None if bound is None else _with_cache(bound, variant, kv_dtype),
        why_no_bound=why,
        work=Work(new_tokens=1, past_tokens=context - 1),
    )


def _bound(variant: Model, gpu: Gpu, gpus: int) -> tuple[Roofline | None, str | None]:
    """What no engine beats, or why that is not known."""
    missing = missing_bound_facts(variant, gpu)
    if number_format(variant.weights.dtype) is None:
        missing = (*missing, "weights.dtype")
    if missing:
        return None, f"The ceiling cannot be computed: unknown {', '.join(missing)}."
    bound = build_bound(variant, gpu, gpus=gpus, weights_format=variant.weights.dtype, kv_dtype_bytes=_PLAIN_KV_BYTES)
    return bound, None


def _with_cache(roofline: Roofline, variant: Model, kv_dtype: str) -> Roofline:
    """The same with the KV cache in the format asked for, its scales included."""
    shape = variant.shape
    layout = None if kv_dtype == "auto" or shape is None else kv_layout(shape, kv_dtype=kv_dtype)
    if layout is None:
        return roofline
    sizes = [each.layer.token_bytes for each in layout.layers if each.layer.keeps is not Keeps.STATE]
    return replace(roofline, cache=replace(roofline.cache, token_bytes=max(sizes, default=0)), kv=layout)


def decode_at(pace: DecodingPace, gpu: Gpu, *, gpus: int, requests: int) -> tuple[Decoding, str | None]:
    """Rates and cost with so many requests at once, and why there is no cost where there is none."""
    expected = pace.expectation(requests)
    cost, reason = _cost_range(gpu, gpus, expected)
    return Decoding(requests, pace.ceiling(requests), expected, cost), reason


def _cost_range(gpu: Gpu, gpus: int, tokens_per_s: float) -> tuple[CostRange | None, str | None]:
    """Lowest and highest over the listed prices, or why there is none."""
    currencies = sorted({price.currency for price in gpu.prices})
    if not currencies:
        return None, f"The registry has no hourly price for {gpu.id}."
    if len(currencies) > 1:
        return None, f"{gpu.id} is priced in {' and '.join(currencies)}, and no exchange rate is applied."
    costs = [cost_per_mtok(price.per_hour, gpus, tokens_per_s) for price in gpu.prices]
    return CostRange(min(costs), max(costs), currencies[0]), None
