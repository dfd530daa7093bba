"""What a model on so many GPUs cannot exceed, and what to expect of it: latency, tokens a second, batch, memory, cost.

A ceiling is at the full bandwidth and operations of the data sheet, with no time for communication between GPUs: it
refutes a claim and never proves one. An expectation is at 0.8 of the bandwidth and half the operations, and refutes
nothing. Each comes with its derivation as lines to print. How long one step takes belongs to roofline; what follows for
a claim belongs to claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from gateway.domain.cost import cost_per_mtok
from gateway.domain.memory import (
    GIB,
    ByteRange,
    Paging,
    default_batched_tokens,
    kv_budget_bytes,
    kv_layout,
    number_format,
    overhead_bytes,
    weights_bytes,
    weights_bytes_as,
)
from gateway.domain.records import Gpu, Model, Sourced
from gateway.domain.roofline import (
    EXPECTED,
    PEAK,
    Roofline,
    Work,
    build_bound,
    expect_roofline,
    flops_at_best,
    least_weights_bytes,
)

MEMORY_AT_MOST = Fraction(2**30, 10**9)
"""The registry's memory may be a nominal size read as 10⁹ bytes a GB; a refutation allows for the larger reading."""
ENOUGH = 0.99
"""Share of the highest rate at which a larger batch is said to gain nothing more."""
MOST_AT_ONCE = 2**20
GPU_MEMORY_UTILIZATION = 0.92
"""vLLM's default since 0.22."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the engine at a time. Tokens are those of one request."""

    input_tokens: int
    output_tokens: int
    batch: int = 1
    """Requests in flight."""
    cached_tokens: int = 0
    """Of the input, those whose cache is kept from earlier requests."""
    accepted_length: float = 1.0
    """Tokens that one decode step gives a request: above 1 with speculative decoding."""

    def __post_init__(self) -> None:
        _at_least(1, input_tokens=self.input_tokens, output_tokens=self.output_tokens, batch=self.batch)
        if not 0 <= self.cached_tokens < self.input_tokens:
            raise ValueError(
                f"cached_tokens: expected 0 or more and fewer than the input's {self.input_tokens}, "
                f"got {self.cached_tokens}"
            )
        if not 1 <= self.accepted_length <= 1000:
            raise ValueError(f"accepted_length: expected 1 or more tokens a step, got {self.accepted_length}")


@dataclass(frozen=True, slots=True)
class Setup:
    """On what it runs. GPUs share all work evenly."""

    gpu: Gpu
    gpus: int
    weights_format: str
    """A number format of `memory.BYTES_PER_PARAM`."""
    kv_dtype_bytes: int = 2

    def __post_init__(self) -> None:
        _at_least(1, gpus=self.gpus)
        if number_format(self.weights_format) is None:
            raise ValueError(f"weights_format: expected a number format such as bf16 or fp8, got {self.weights_format}")
        if self.kv_dtype_bytes not in (1, 2):
            raise ValueError(f"kv_dtype_bytes: expected 1 (fp8) or 2 (16 bits), got {self.kv_dtype_bytes}")


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
    roofline = build_bound(
        model,
        setup.gpu,
        gpus=setup.gpus,
        weights_format=setup.weights_format,
        kv_dtype_bytes=setup.kv_dtype_bytes,
    )
    room = memory_at_most(setup) - (least_weights_bytes(model, setup.weights_format) or 0)
    most = _fitting(room, roofline.cache.read_bytes(load.input_tokens))
    if most < 1:
        raise NoRoom(_no_room(model, setup, load))
    pace, at_once = _pace(roofline, load, load.input_tokens), min(load.batch, most)
    rate, best = pace.most_requests_per_s(at_once), _best_concurrency(pace.most_requests_per_s, most)
    return Speed(
        basis="ceiling",
        ttft_s=pace.ttft_s,
        tpot_s=pace.tpot_s(at_once),
        e2e_s=pace.lone_e2e_s(),
        requests_per_s=rate,
        output_tokens_per_s=rate * load.output_tokens,
        at_once=at_once,
        most_at_once=most,
        best_concurrency=best,
        best_output_tokens_per_s=pace.most_requests_per_s(best) * load.output_tokens,
        limit=_what_limits(best, most),
        cost=_cost_range(setup, rate * load.output_tokens),
        roofline=roofline,
    )


@dataclass(frozen=True, slots=True)
class _Pace:
    """What one load takes on one roofline, worked out once for all batches."""

    roofline: Roofline
    load: Load
    ttft_s: float
    prompt_flops: float
    decode_flops: float
    cache_bytes: int
    """Read by a decode step for each request."""

    def tpot_s(self, batch: int) -> float:
        """A decode step of `batch` requests, for each token that it gives one of them.

        Speculation saves reading, not operations: every accepted token has to be computed.
        """
        roofline = self.roofline
        read = roofline.weights_read_bytes(batch) + batch * self.cache_bytes
        read_s = read / roofline.bytes_per_s / self.load.accepted_length
        return max(read_s, batch * self.decode_flops / roofline.flops_per_s)

    def most_requests_per_s(self, batch: int) -> float:
        """The least of three limits, each of which holds for every schedule with at most `batch` requests in flight.

        Bytes: a decode step reads the weights once for `batch` requests, and each request's own cache. Operations:
        those of the prompt and of every token. Time: a request takes at least as long as alone. Prompts may ride
        along with decode steps, so no limit adds the time of one to that of the other.
        """
        roofline, tokens = self.roofline, self.load.output_tokens - 1
        step = roofline.weights_read_bytes(batch) / batch + self.cache_bytes
        read_s = tokens / self.load.accepted_length * step / roofline.bytes_per_s
        flops_s = (self.prompt_flops + tokens * self.decode_flops) / roofline.flops_per_s
        return min(batch / self.lone_e2e_s(), 1.0 / max(read_s, flops_s))

    def expected_requests_per_s(self, batch: int) -> float:
        """All prompts take their turn, then all requests decode together."""
        return batch / (batch * self.ttft_s + self.tpot_s(batch) * (self.load.output_tokens - 1))

    def lone_e2e_s(self) -> float:
        return self.ttft_s + (self.load.output_tokens - 1) * self.tpot_s(1)


def _pace(roofline: Roofline, load: Load, context: int) -> _Pace:
    """`context`: tokens in the cache of a request that decodes."""
    prompt, decode = _prompt(load), Work(1, context)
    return _Pace(
        roofline=roofline,
        load=load,
        ttft_s=roofline.step_seconds([prompt]),
        prompt_flops=roofline.request_flops(prompt),
        decode_flops=roofline.request_flops(decode),
        cache_bytes=roofline.cache.read_bytes(context),
    )


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
    roofline = expect_roofline(
        model,
        setup.gpu,
        gpus=setup.gpus,
        weights_format=setup.weights_format,
        kv_dtype_bytes=setup.kv_dtype_bytes,
    )
    most = _expected_at_once(model, setup, load)
    if most < 1:
        raise ValueError(
            f"{model.id} in {setup.weights_format} is not expected to hold one request of "
            f"{load.input_tokens + load.output_tokens:,} tokens on {setup.gpus} × {setup.gpu.id}"
        )
    pace, at_once = _pace(roofline, load, _middle(load)), min(load.batch, most)
    rate, best = pace.expected_requests_per_s(at_once), _best_concurrency(pace.expected_requests_per_s, most)
    tpot_s = pace.tpot_s(at_once)
    return Speed(
        basis="expected",
        ttft_s=pace.ttft_s,
        tpot_s=tpot_s,
        e2e_s=pace.ttft_s + (load.output_tokens - 1) * tpot_s,
        requests_per_s=rate,
        output_tokens_per_s=rate * load.output_tokens,
        at_once=at_once,
        most_at_once=most,
        best_concurrency=best,
        best_output_tokens_per_s=pace.expected_requests_per_s(best) * load.output_tokens,
        limit=_what_limits(best, most),
        cost=_cost_range(setup, rate * load.output_tokens),
        roofline=roofline,
    )


def _middle(load: Load) -> int:
    """Tokens in the cache in the middle of the answer."""
    return load.input_tokens + load.output_tokens // 2


def _expected_at_once(model: Model, setup: Setup, load: Load) -> int:
    """Requests of full length that vLLM's budget holds, with the likely overhead; raises ValueError where unknown."""
    need = predicted_need(model, setup, context=load.input_tokens + load.output_tokens)
    if need is None:
        raise ValueError(f"the KV cache of {model.id} cannot be computed")
    return min(MOST_AT_ONCE, max(0, need.available.likely) // max(1, need.per_request))


@dataclass(frozen=True, slots=True)
class PredictedNeed:
    """The KV cache of one GPU of a set, by vLLM's budget: what is there and what a request takes. A prediction."""

    available: ByteRange
    """With the high, the likely and the low guess at the overhead."""
    per_request: int

    def headroom(self, concurrency: int) -> ByteRange:
        needed = concurrency * self.per_request
        room = self.available
        return ByteRange(room.low - needed, room.likely - needed, room.high - needed)


def predicted_need(model: Model, setup: Setup, *, context: int) -> PredictedNeed | None:
    """What vLLM would have for its cache and set aside for a request of `context` tokens; None where unknown."""
    shape, gpu = model.shape, setup.gpu
    weights = published_or_as(model, setup.weights_format)
    if shape is None or weights is None:
        return None
    paging = Paging(max_batched_tokens=default_batched_tokens(f"{gpu.id} {gpu.name}", gpu.memory_bytes))
    layout = kv_layout(shape, tensor_parallel=setup.gpus, dtype_bytes=setup.kv_dtype_bytes)
    overhead = overhead_bytes(shape, paging)
    if layout is None or overhead is None:
        return None
    share = -(-weights // setup.gpus)
    budgets = (
        kv_budget_bytes(gpu.memory_bytes, GPU_MEMORY_UTILIZATION, share, guess)
        for guess in (overhead.high, overhead.likely, overhead.low)
    )
    per_request = layout.blocks_per_request(context, paging) * layout.block_bytes(paging)
    return PredictedNeed(ByteRange(*budgets), per_request)


def published_or_as(model: Model, weights_format: str) -> int | None:
    """Bytes of the weights as published where that is the format, else what they would take in it."""
    if number_format(model.weights.dtype) == number_format(weights_format):
        return weights_bytes(model)
    return None if model.shape is None else weights_bytes_as(model.shape, weights_format)


# --- what both share ----------------------------------------------------------------------------------------


def _prompt(load: Load) -> Work:
    return Work(load.input_tokens - load.cached_tokens, load.cached_tokens)


def _fitting(room: int, per_request: int) -> int:
    if room <= 0:
        return 0
    return MOST_AT_ONCE if per_request <= 0 else min(MOST_AT_ONCE, room // per_request)


def _best_concurrency(requests_per_s: Callable[[int], float], most: int) -> int:
    """The smallest batch that reaches ENOUGH of the rate with `most`; the rate grows with the batch."""
    enough = ENOUGH * requests_per_s(most)
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if requests_per_s(middle) >= enough:
            high = middle
        else:
            low = middle + 1
    return low


def _what_limits(best: int, most: int) -> str:
    if best >= ENOUGH * most and most < MOST_AT_ONCE:
        return "the KV cache is full"
    return "operations or reads of the cache, which grow with the batch"


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


def _at_least(low: int, **values: int) -> None:
    for name, value in values.items():
        if value < low:
            raise ValueError(f"{name}: expected {low} or more, got {value}")


# --- derivations --------------------------------------------------------------------------------------------


def derive(found: Ceilings) -> tuple[str, ...]:
    """The ceilings and expectations as lines to print: formula, numbers put in, result, sources of the inputs."""
    lines = list(_inputs(found))
    for name, speed, unknown in (
        ("Ceiling", found.ceiling, found.why_no_ceiling),
        ("Expected", found.expected, found.why_not_expected),
    ):
        if speed is None:
            lines.append(f"{name}: {unknown}")
            continue
        lines += _speed_lines(name, speed, found)
    return tuple(lines)


def _inputs(found: Ceilings) -> list[str]:
    gpu, setup, shape = found.setup.gpu, found.setup, found.model.shape
    flops = flops_at_best(gpu, setup.weights_format)
    rates = "operations unknown" if flops is None else f"{flops / 1e12:,.0f} × 10¹² operations/s at best"
    lines = [
        f"{setup.gpus} × {gpu.name}: {gpu.bandwidth_bytes_per_s / 1e12:g} TB/s and {rates} in {setup.weights_format} "
        f"each ({_source(gpu.sourced)})."
    ]
    if shape is not None:
        names = ("params", "active_params", "layers", "heads", "kv_heads", "head_dim", "hidden", "vocab", "moe", "mla")
        known = [(name, getattr(shape, name)) for name in names if name in shape.facts]
        shown = [
            f"{name} {value:,} ({_source(shape.facts.get(name))})" for name, value in known if isinstance(value, int)
        ]
        if shape.moe is not None:
            shown.append(
                f"{shape.moe.experts_per_token} of {shape.moe.experts} experts a token "
                f"({_source(shape.facts.get('moe'))}), chosen evenly"
            )
        if shape.mla is not None:
            shown.append(
                f"latent of {shape.mla.kv_lora_rank} + {shape.mla.qk_rope_head_dim} ({_source(shape.facts.get('mla'))})"
            )
        lines.append(f"{found.model.id}: {'; '.join(shown)}.")
    return lines


def _speed_lines(name: str, speed: Speed, found: Ceilings) -> list[str]:
    load, roofline, is_bound = found.load, speed.roofline, speed.basis == "ceiling"
    rates = PEAK if is_bound else EXPECTED
    sign, context = ("≥", load.input_tokens) if is_bound else ("≈", _middle(load))
    weights = roofline.weights_read_bytes(speed.at_once)
    cache, flops = roofline.cache.read_bytes(context), roofline.request_flops(Work(1, context))
    prompt_flops, uncached = roofline.request_flops(_prompt(load)), load.input_tokens - load.cached_tokens
    accepted = f" ÷ {load.accepted_length:g} accepted" if load.accepted_length > 1 else ""
    prompt_read = roofline.weights_read_bytes(uncached) + roofline.cache.read_bytes(load.cached_tokens)
    lines = [
        f"{name}, at {rates.bandwidth:g} × bandwidth and {rates.flops:g} × operations:",
        f"TPOT {sign} max((weights read + batch × cache) / bandwidth{accepted}, batch × operations a token / rate) = "
        f"max(({_gb(weights)} + {speed.at_once:,} × {_gb(cache)}) / {_gb(roofline.bytes_per_s)}/s{accepted}, "
        f"{speed.at_once:,} × {flops:.3g} / {roofline.flops_per_s:.3g}/s) = {_ms(speed.tpot_s)}, "
        f"with {context:,} tokens in each cache.",
        f"TTFT {sign} max(read / bandwidth, operations of {uncached:,} uncached tokens / rate) = "
        f"max({_gb(prompt_read)} / {_gb(roofline.bytes_per_s)}/s, {prompt_flops:.3g} / {roofline.flops_per_s:.3g}/s) = "
        f"{_ms(speed.ttft_s)}, alone on the machine.",
        _rate_line(speed, load),
        f"Best concurrency: {speed.best_concurrency:,} requests at once, {speed.best_output_tokens_per_s:,.0f} output "
        f"tokens/s; beyond it: {speed.limit}. The memory holds {_at_once(speed.most_at_once)}.",
    ]
    return [*lines, _cost_line(speed, found)]


def _rate_line(speed: Speed, load: Load) -> str:
    if speed.basis == "expected":
        return (
            f"Output tokens/s ≈ B × OSL / (B × TTFT + TPOT × (OSL - 1)) = {speed.at_once:,} × {load.output_tokens:,} / "
            f"({speed.at_once:,} × {_ms(speed.ttft_s)} + {_ms(speed.tpot_s)} × {load.output_tokens - 1:,}) = "
            f"{speed.output_tokens_per_s:,.0f}: all prompts take their turn."
        )
    return (
        f"Output tokens/s ≤ OSL × min(B / E2E alone, bandwidth / bytes a request, rate / operations a request) = "
        f"{load.output_tokens:,} × {speed.requests_per_s:.4g}/s = {speed.output_tokens_per_s:,.0f} with B = "
        f"{speed.at_once:,}; E2E alone ≥ {_ms(speed.e2e_s)}."
    )


def _cost_line(speed: Speed, found: Ceilings) -> str:
    cost, gpu = speed.cost, found.setup.gpu
    if cost is None:
        return f"Cost: unknown, the registry has no hourly price for {gpu.id}."
    first = gpu.prices[0]
    sources = ", ".join(dict.fromkeys(price.sourced.source for price in gpu.prices))
    what = "at least" if speed.basis == "ceiling" else "about"
    rate = f"{speed.output_tokens_per_s:,.0f}"
    return (
        f"Cost of a million output tokens, {what}: hourly price × {found.setup.gpus} / ({rate} × 3600) × 10⁶ = "
        f"{cost.low:.4g} to {cost.high:.4g} {cost.currency} for {cost.hourly_low:g} to {cost.hourly_high:g} "
        f"{cost.currency} an hour ({cost.prices} listed prices, {sources}, {first.on}); no idle time."
    )


def _source(sourced: Sourced | None) -> str:
    return "no source" if sourced is None else f"{sourced.source}, {sourced.confidence.value}"


def _at_once(count: int) -> str:
    return f"{count:,} at a time" if count < MOST_AT_ONCE else "more than anybody asks for"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.4g} GB" if size >= 1e8 else f"{size / 1e6:,.4g} MB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.4g} ms"
