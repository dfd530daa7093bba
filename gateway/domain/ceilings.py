"""What a model on so many GPUs cannot exceed, and what to expect of it: latency, tokens a second, batch, memory, cost.

A ceiling is at the full bandwidth and operations of the data sheet, with no time for communication between GPUs: it
refutes a claim and never proves one. An expectation is at 0.8 of the bandwidth and half the operations, and refutes
nothing. Their derivations are in ceiling_lines. How fast a load goes on a roofline belongs to pace; what follows for a
claim belongs to claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import TypedDict

from gateway.domain.cost import cost_per_mtok
from gateway.domain.feasibility import Verdict, estimate
from gateway.domain.kv_layers import KV_DTYPES
from gateway.domain.memory import GIB, number_format
from gateway.domain.pace import (
    MOST_AT_ONCE,
    Load,
    Pace,
    best_concurrency,
    decode_context,
    pace_of,
    require_at_least,
    what_limits,
)
from gateway.domain.records import Gpu, Model
from gateway.domain.roofline import (
    LEAST_FORMAT,
    Roofline,
    build_bound,
    expect_roofline,
    least_weights_bytes,
)
from gateway.domain.serving_plan import ServingPlan

MEMORY_AT_MOST = Fraction(2**30, 10**9)
"""The registry's memory may be a nominal size read as 10⁹ bytes a GB; a refutation allows for the larger reading."""
KV_ALIASES = {"bf16": "bfloat16", "fp16": "float16"}
"""Short names of number formats, and what vLLM's --kv-cache-dtype calls them."""
LEAST_KV = "int4_per_token_head"
"""No format of the KV cache has fewer bits."""


@dataclass(frozen=True, slots=True)
class Setup:
    """On what it runs. GPUs share all work evenly."""

    gpu: Gpu
    gpus: int
    weights_format: str
    """A number format of `memory.BYTES_PER_PARAM`, or for a bound the least one."""
    kv_dtype: str = "auto"
    """A name of vLLM's --kv-cache-dtype, or a short one of `KV_ALIASES`."""

    @property
    def kv_element_bytes(self) -> float:
        """Least bytes of one element of the cache; scales are left out."""
        if self.kv_dtype.startswith(("int4", "nvfp4")):
            return 0.5
        return 2 if self.plan_kv_dtype in ("auto", "bfloat16", "float16") else 1

    @property
    def plan_kv_dtype(self) -> str:
        return KV_ALIASES.get(self.kv_dtype, self.kv_dtype)

    def __post_init__(self) -> None:
        require_at_least(1, gpus=self.gpus)
        if number_format(self.weights_format) is None and self.weights_format != LEAST_FORMAT:
            raise ValueError(f"weights_format: expected a number format such as bf16 or fp8, got {self.weights_format}")
        if self.plan_kv_dtype not in KV_DTYPES:
            known = ", ".join(sorted((*KV_DTYPES, *KV_ALIASES)))
            raise ValueError(f"kv_dtype: expected one of {known}, got {self.kv_dtype}")


class _Cut(TypedDict):
    """What a roofline is built for besides the model and the GPU."""

    gpus: int
    weights_format: str
    kv_dtype_bytes: float


@dataclass(frozen=True, slots=True)
class CostRange:
    """Price of a million output tokens over the listed prices of one currency; the prompts' work is in it."""

    low: Decimal
    high: Decimal
    currency: str
    hourly_low: Decimal
    hourly_high: Decimal
    prices: int


@dataclass(frozen=True, slots=True)
class Speed:
    """The figures of one side: the least times and the highest rates as ceiling, or the expected ones."""

    basis: str
    """ceiling | expected"""
    ttft_s: float
    """Of a request alone on the machine: others can only add to it."""
    tpot_s: float
    """With `at_once` requests decoding."""
    e2e_s: float
    """Ceiling: alone on the machine. Expected: TTFT + TPOT × (output - 1)."""
    requests_per_s: float
    output_tokens_per_s: float
    """All requests together."""
    at_once: int
    """The batch asked for, or what the KV cache holds where that is less."""
    most_at_once: int
    """Requests that the memory holds at a time, up to MOST_AT_ONCE."""
    best_concurrency: int
    """The batch beyond which the rate no longer grows by more than a hundredth, or the cache runs out."""
    best_output_tokens_per_s: float
    limit: str
    """What keeps the rate from growing there."""
    cost: CostRange | None
    """None where the GPU has no listed price."""
    roofline: Roofline

    @property
    def tokens_per_s_per_user(self) -> float:
        """The pace of one stream once it has begun: 1 / TPOT."""
        return 1.0 / self.tpot_s


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Both sides for one model, setup and load; a side is None where a fact is missing, and the reason says which."""

    model: Model
    setup: Setup
    load: Load
    ceiling: Speed | None
    why_no_ceiling: str | None
    has_room: bool
    """False where even the least weights and one request's cache exceed the memory."""
    expected: Speed | None
    why_not_expected: str | None


def compute_ceilings(model: Model, setup: Setup, load: Load) -> Ceilings:
    """Ceiling and expectation of `model` on `setup` under `load`. Missing facts make a side None, with the reason."""
    ceiling, why_no_ceiling = _side(lambda: _ceiling(model, setup, load))
    expected, why_not_expected = _side(lambda: _expected(model, setup, load))
    has_room = ceiling is not None or not isinstance(why_no_ceiling, NoRoom)
    return Ceilings(
        model=model,
        setup=setup,
        load=load,
        ceiling=ceiling,
        why_no_ceiling=None if why_no_ceiling is None else f"None: {why_no_ceiling}.",
        has_room=has_room,
        expected=expected,
        why_not_expected=None if why_not_expected is None else f"None: {why_not_expected}.",
    )


class NoRoom(ValueError):
    """The memory cannot hold it, whatever the engine does."""


def _side(compute: Callable[[], Speed]) -> tuple[Speed | None, ValueError | None]:
    try:
        return compute(), None
    except ValueError as error:
        return None, error


# --- ceilings -----------------------------------------------------------------------------------------------


def _ceiling(model: Model, setup: Setup, load: Load) -> Speed:
    roofline = build_bound(model, setup.gpu, **_cut_of(setup))
    room = memory_at_most(setup) - (least_weights_bytes(model, setup.weights_format) or 0)
    own, shared = _own_and_shared(roofline, load, load.input_tokens)
    most = _fitting(room - shared, own)
    if most < 1:
        raise NoRoom(_no_room(model, setup, load))
    pace = pace_of(roofline, load, decode_context(load, "ceiling"))
    pace, at_once = replace(pace, cache_bytes=own, shared_bytes=shared), min(load.batch, most)
    return _speed("ceiling", pace, setup, pace.most_requests_per_s, at_once=at_once, most=most, e2e_s=pace.lone_e2e_s())


def _own_and_shared(roofline: Roofline, load: Load, context: int) -> tuple[int, int]:
    """Bytes of the cache that each request needs for itself, and those that all share where a prefix was kept."""
    own = roofline.cache.read_bytes(context - load.cached_tokens)
    return own, roofline.cache.read_bytes(context) - own


def memory_at_most(setup: Setup) -> int:
    """Bytes that the GPUs can have together, by the larger reading of their size."""
    return int(setup.gpus * setup.gpu.memory_bytes * MEMORY_AT_MOST)


def _no_room(model: Model, setup: Setup, load: Load) -> str:
    return (
        f"{model.id} in {setup.weights_format} leaves no room for a cache of {load.input_tokens:,} tokens in "
        f"{memory_at_most(setup) / GIB:,.1f} GiB, the most that {setup.gpus} × {setup.gpu.id} can have"
    )


# --- expectations -------------------------------------------------------------------------------------------


def _expected(model: Model, setup: Setup, load: Load) -> Speed:
    if setup.weights_format == LEAST_FORMAT:
        raise ValueError("weights of 2 bits are a bound, and nobody is expected to serve them")
    roofline = expect_roofline(model, setup.gpu, **_cut_of(setup))
    most = _expected_at_once(model, setup, load)
    if most < 1:
        raise ValueError(
            f"{model.id} in {setup.weights_format} is not expected to hold one request of "
            f"{load.input_tokens + load.output_tokens:,} tokens on {setup.gpus} × {setup.gpu.id}"
        )
    pace, at_once = pace_of(roofline, load, decode_context(load, "expected")), min(load.batch, most)
    e2e_s = pace.ttft_s + (load.output_tokens - 1) * pace.tpot_s(at_once)
    return _speed("expected", pace, setup, pace.expected_requests_per_s, at_once=at_once, most=most, e2e_s=e2e_s)


def _expected_at_once(model: Model, setup: Setup, load: Load) -> int:
    """Requests of full length that vLLM's budget holds, with the likely overhead; raises ValueError where unknown."""
    found = estimate(model, setup.gpu, context=load.input_tokens + load.output_tokens, plan=plan_of(model, setup))
    if found.verdict is Verdict.UNKNOWN or found.max_concurrency is None:
        raise ValueError(found.reasons[0].removeprefix("Unknown: ").rstrip("."))
    return min(MOST_AT_ONCE, found.max_concurrency)


def plan_of(model: Model, setup: Setup) -> ServingPlan:
    """The setup as an engine would be started: its GPUs as a tensor-parallel set."""
    is_published = number_format(model.weights.dtype) == number_format(setup.weights_format)
    return ServingPlan(
        quantisation=None if is_published else setup.weights_format,
        kv_dtype=setup.plan_kv_dtype,
        tensor_parallel=setup.gpus,
    )


# --- what both share ----------------------------------------------------------------------------------------


def _speed(
    basis: str,
    pace: Pace,
    setup: Setup,
    requests_per_s: Callable[[int], float],
    *,
    at_once: int,
    most: int,
    e2e_s: float,
) -> Speed:
    """The figures of one side. `requests_per_s`: its rate by the number of requests at once."""
    rate, best, tokens = requests_per_s(at_once), best_concurrency(requests_per_s, most), pace.load.output_tokens
    return Speed(
        basis=basis,
        ttft_s=pace.ttft_s,
        tpot_s=pace.tpot_s(at_once),
        e2e_s=e2e_s,
        requests_per_s=rate,
        output_tokens_per_s=rate * tokens,
        at_once=at_once,
        most_at_once=most,
        best_concurrency=best,
        best_output_tokens_per_s=requests_per_s(best) * tokens,
        limit=what_limits(best, most),
        cost=_cost_range(setup, rate * tokens),
        roofline=pace.roofline,
    )


def _cut_of(setup: Setup) -> _Cut:
    return {"gpus": setup.gpus, "weights_format": setup.weights_format, "kv_dtype_bytes": setup.kv_element_bytes}


def _fitting(room: int, per_request: int) -> int:
    if room <= 0:
        return 0
    return MOST_AT_ONCE if per_request <= 0 else min(MOST_AT_ONCE, room // per_request)


def _cost_range(setup: Setup, tokens_per_s: float) -> CostRange | None:
    """Over the listed prices in the currency of the first; those in others are not mixed in."""
    prices = setup.gpu.prices
    if not prices:
        return None
    currency = prices[0].currency
    hourly = [price.per_hour for price in prices if price.currency == currency]
    low, high = min(hourly), max(hourly)
    return CostRange(
        low=cost_per_mtok(low, setup.gpus, tokens_per_s),
        high=cost_per_mtok(high, setup.gpus, tokens_per_s),
        currency=currency,
        hourly_low=low,
        hourly_high=high,
        prices=len(hourly),
    )
