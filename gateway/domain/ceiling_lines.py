"""Ceilings and expectations as lines to print: formula, numbers put in, result, sources of the inputs.

Words only; every figure is computed in ceilings.
"""

from __future__ import annotations

from decimal import Decimal

from gateway.domain.ceilings import Ceilings, Speed
from gateway.domain.pace import MOST_AT_ONCE, Load, decode_context
from gateway.domain.records import Sourced
from gateway.domain.roofline import EXPECTED, PEAK, Work, flops_at_best


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
                f"({_source(shape.facts.get('moe'))}); the ceiling reads those of one token, the expectation those "
                "chosen evenly"
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
    sign, context = "≥" if is_bound else "≈", decode_context(load, speed.basis)
    weights = roofline.weights_read_bytes(speed.at_once)
    cache, flops = roofline.cache.read_bytes(context), roofline.request_flops(Work(1, context))
    prompt_flops, uncached = roofline.request_flops(load.prompt), load.input_tokens - load.cached_tokens
    accepted = f" ÷ {load.accepted_length:g} accepted" if load.accepted_length > 1 else ""
    prompt_read = roofline.weights_read_bytes(uncached) + roofline.cache.read_bytes(load.cached_tokens)
    lines = [
        f"{name}, at {rates.bandwidth:g} × bandwidth and {rates.flops:g} × operations:",
        f"TPOT {sign} max((weights read + batch × cache) / bandwidth{accepted}, batch × operations a token / rate) = "
        f"max(({_gb(weights)} + {speed.at_once:,} × {_gb(cache)}) / {_gb(roofline.bytes_per_s)}/s{accepted}, "
        f"{speed.at_once:,} × {_ops(flops)} / {_ops(roofline.flops_per_s)}/s) = {_ms(speed.tpot_s)}, "
        f"with {context:,} tokens in each cache.",
        f"TTFT {sign} max(read / bandwidth, operations of {uncached:,} uncached tokens / rate) = "
        f"max({_gb(prompt_read)} / {_gb(roofline.bytes_per_s)}/s, "
        f"{_ops(prompt_flops)} / {_ops(roofline.flops_per_s)}/s) = {_ms(speed.ttft_s)}, alone on the machine.",
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
        f"{_span(cost.low, cost.high)} {cost.currency} for {_span(cost.hourly_low, cost.hourly_high)} "
        f"{cost.currency} an hour (prices listed: {cost.prices}; {sources}, {first.on}); no idle time."
    )


def _source(sourced: Sourced | None) -> str:
    return "no source" if sourced is None else f"{sourced.source}, {sourced.confidence.value}"


def _span(low: Decimal, high: Decimal) -> str:
    shown = [f"{digits(float(value))}" for value in (low, high)]
    return shown[0] if low == high else " to ".join(shown)


def _at_once(count: int) -> str:
    return f"{count:,} at a time" if count < MOST_AT_ONCE else "more than anybody asks for"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.4g} GB" if size >= 1e8 else f"{size / 1e6:,.4g} MB"


def _ops(count: float) -> str:
    """Operations."""
    return f"{count / 1e12:,.4g} T" if count >= 1e12 else f"{count / 1e9:,.4g} G"


def _ms(seconds: float) -> str:
    return f"{digits(seconds * 1000)} ms"


def digits(value: float) -> str:
    """Four digits, never as an exponent where there are more before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
