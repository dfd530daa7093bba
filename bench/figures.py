"""The five figures: what is measured, how often, and the target that each is held against.

Each function runs one measurement against a running engine and gateway and gives `Figure`s. Starting processes and
showing results belong elsewhere.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter

from bench import load
from bench.fast_engine import MODEL
from bench.gateway_process import Gateway
from bench.measure import calibration_s, cpu_s, main_thread_cpu_s, median_interval, percentile, rss_bytes, slope

ADDED_P50_MAX_MS = 1.0
CPU_PER_ANSWER_MAX_US = 250.0
CPU_PER_EVENT_MAX_US = 60.0
RSS_SLOPE_MAX_KIB = 32.0
"""Per 1,000 calls: 3 MiB over 100,000. Smaller slopes are the allocator's noise; 33 bytes lost a call exceed it."""
WARM_UP_SHARE = 0.3
CLIENTS = 16


@dataclass(frozen=True)
class Plan:
    """How long each measurement takes."""

    latency_rounds: int = 12
    latency_requests: int = 300
    cpu_rounds: int = 5
    cpu_requests: int = 4000
    stream_s: float = 20.0
    memory_calls: int = 100_000
    memory_step: int = 5_000
    judges_memory: bool = True


QUICK = Plan(
    latency_rounds=6,
    latency_requests=100,
    cpu_rounds=3,
    cpu_requests=1000,
    stream_s=4.0,
    memory_calls=5_000,
    memory_step=500,
    judges_memory=False,  # the slope of so few calls is the warm-up's
)


@dataclass(frozen=True)
class Figure:
    """One measured value beside its target; `is_met` is None where the value is only reported.

    `value` is None where nothing succeeded that could be measured; the details then say what went wrong.
    """

    name: str
    value: float | None
    unit: str
    target: str
    is_met: bool | None
    details: dict[str, object] = field(default_factory=dict)


async def added_latency(engine_url: str, gateway: Gateway, plan: Plan) -> Figure:
    """One client, whole answers: p50 through the gateway less p50 straight to the engine, in interleaved rounds."""
    engine = load.Target(engine_url)
    latencies: dict[load.Target, list[float]] = {engine: [], gateway.target: []}
    added_ms: list[float] = []
    errors: Counter[str] = Counter()
    for round_ in range(-1, plan.latency_rounds):
        p50_ms: dict[load.Target, float] = {}
        for target in (engine, gateway.target) if round_ % 2 else (gateway.target, engine):
            result = await load.whole_answers(target, MODEL, clients=1, count=plan.latency_requests)
            errors += result.errors
            if result.latencies_s and round_ >= 0:  # the round before the first warms up
                p50_ms[target] = statistics.median(result.latencies_s) * 1e3
                latencies[target] += result.latencies_s
        if len(p50_ms) == len(latencies):
            added_ms.append(p50_ms[gateway.target] - p50_ms[engine])
    value, low, high = median_interval(added_ms) if added_ms else (None, None, None)
    return Figure(
        "added p50, one client",
        value,
        "ms",
        f"<= {ADDED_P50_MAX_MS:g}",
        value is not None and value <= ADDED_P50_MAX_MS and not errors,
        {
            "interval_95_ms": [low, high],
            "rounds": len(added_ms),
            "direct_ms": _percentiles_ms(latencies[engine]),
            "gateway_ms": _percentiles_ms(latencies[gateway.target]),
            "n": len(latencies[gateway.target]),
            "errors": dict(errors),
        },
    )


async def cpu_per_answer(gateway: Gateway, plan: Plan) -> Figure:
    """Whole answers, sixteen clients: the gateway's CPU time a request, as the median of rounds."""
    rounds_us: list[float] = []
    loop_us: list[float] = []
    rates: list[float] = []
    errors: Counter[str] = Counter()
    calibration_us = calibration_s() * 1e6
    for round_ in range(-1, plan.cpu_rounds):
        before_s, loop_before_s = cpu_s(gateway.pid), main_thread_cpu_s(gateway.pid)
        result = await load.whole_answers(gateway.target, MODEL, clients=CLIENTS, count=plan.cpu_requests)
        used_s, loop_s = cpu_s(gateway.pid) - before_s, main_thread_cpu_s(gateway.pid) - loop_before_s
        errors += result.errors
        if round_ >= 0:
            rounds_us.append(used_s / plan.cpu_requests * 1e6)
            loop_us.append(loop_s / plan.cpu_requests * 1e6)
            rates.append(len(result.latencies_s) / result.wall_s)
    value = statistics.median(rounds_us)
    return Figure(
        "CPU per whole answer",
        value,
        "us",
        f"<= {CPU_PER_ANSWER_MAX_US:g}",
        value <= CPU_PER_ANSWER_MAX_US and not errors,
        {
            "range_us": [min(rounds_us), max(rounds_us)],
            "rounds": len(rounds_us),
            "event_loop_us": statistics.median(loop_us),
            "requests_per_s": statistics.median(rates),
            "calibration_loops": value / calibration_us,
            "errors": dict(errors),
        },
    )


async def cpu_per_event(engine_url: str, gateway: Gateway, plan: Plan) -> Figure:
    """A hundred streams of fifty events a second: the gateway's CPU time an event, and how late events come."""
    calibration_us = calibration_s() * 1e6
    direct = await load.streams(
        load.Target(engine_url), MODEL, count=100, rate_per_s=50.0, seconds=min(plan.stream_s, 4.0)
    )
    before_s = cpu_s(gateway.pid)
    result = await load.streams(gateway.target, MODEL, count=100, rate_per_s=50.0, seconds=plan.stream_s)
    value = _per_event_us(cpu_s(gateway.pid) - before_s, result)
    return Figure(
        "CPU per stream event, 100 x 50/s",
        value,
        "us",
        f"<= {CPU_PER_EVENT_MAX_US:g}",
        value is not None and value <= CPU_PER_EVENT_MAX_US and not result.errors,
        {
            **_stream_details(result),
            "direct_lag_ms": _percentiles_ms(direct.lags_s),
            "calibration_loops": value / calibration_us if value is not None else None,
        },
    )


async def many_streams(gateway: Gateway, plan: Plan) -> Figure:
    """Five hundred streams of ten events a second: how many did not end as they should."""
    before_s = cpu_s(gateway.pid)
    result = await load.streams(gateway.target, MODEL, count=500, rate_per_s=10.0, seconds=plan.stream_s)
    used_s = cpu_s(gateway.pid) - before_s
    failed = sum(result.errors.values())
    return Figure(
        "errors, 500 streams x 10/s",
        failed,
        "errors",
        "0",
        failed == 0 and result.streams == 500,
        {**_stream_details(result), "cpu_us_per_event": _per_event_us(used_s, result)},
    )


async def memory(gateway: Gateway, plan: Plan, progress: Callable[[int], None]) -> Figure:
    """Resident memory over many calls, nine whole answers to one short stream: the slope after the warm-up."""
    calls, rss = [0], [rss_bytes(gateway.pid)]
    errors: Counter[str] = Counter()
    streamed = plan.memory_step // 10
    started_s = perf_counter()
    while calls[-1] < plan.memory_calls:
        for asked in (
            load.whole_answers(gateway.target, MODEL, clients=CLIENTS, count=plan.memory_step - streamed),
            load.short_streams(gateway.target, MODEL, clients=CLIENTS, count=streamed),
        ):
            errors += await _errors_of(asked)
        calls.append(calls[-1] + plan.memory_step)
        rss.append(rss_bytes(gateway.pid))
        progress(calls[-1])
    warm = next(i for i, done in enumerate(calls) if done >= WARM_UP_SHARE * plan.memory_calls)
    value = slope([done / 1000 for done in calls[warm:]], [size / 1024 for size in rss[warm:]])
    is_flat = value <= RSS_SLOPE_MAX_KIB and not errors
    return Figure(
        f"RSS slope over {calls[-1]:,} calls",
        value,
        "KiB/1k calls",
        f"<= {RSS_SLOPE_MAX_KIB:g}" if plan.judges_memory else "not judged",
        is_flat if plan.judges_memory else None,
        {
            "first_mib": rss[0] / 2**20,
            "after_warm_up_mib": rss[warm] / 2**20,
            "last_mib": rss[-1] / 2**20,
            "warm_up_calls": calls[warm],
            "calls_per_s": calls[-1] / (perf_counter() - started_s),
            "samples_mib": [round(size / 2**20, 2) for size in rss],
            "errors": dict(errors),
        },
    )


def _per_event_us(used_s: float, result: load.StreamResult) -> float | None:
    return used_s / result.events * 1e6 if result.events else None


async def _errors_of(asked: Awaitable[load.WholeResult | load.StreamResult]) -> Counter[str]:
    return (await asked).errors


def _stream_details(result: load.StreamResult) -> dict[str, object]:
    return {
        "events": result.events,
        "streams": result.streams,
        "lag_ms": _percentiles_ms(result.lags_s),
        "wall_s": result.wall_s,
        "errors": dict(result.errors),
    }


def _percentiles_ms(values_s: list[float]) -> dict[str, float] | None:
    if not values_s:
        return None
    return {"p50": percentile(values_s, 0.5) * 1e3, "p99": percentile(values_s, 0.99) * 1e3}
