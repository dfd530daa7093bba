"""`make bench`: what the gateway costs, each figure beside its target; exit code 1 when one is missed.

The gateway runs alone on one core; the engine and the client share another, so that they cannot slow it. Prints a table
on a terminal, JSON into a pipe or with --json; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from time import perf_counter

import uvloop
from rich.console import Console
from rich.table import Table

from bench import figures
from bench.figures import Figure, Plan
from bench.gateway_process import ROOT, Gateway, GatewayFailed, gateway
from bench.measure import calibration_s, fast_engine, waited_for_core_s

TIME_LIMIT_S = 900.0
DISTURBED_SHARE = 0.1
PARTS = ("latency", "answers", "events", "streams", "memory")


async def measure(engine_url: str, core: int, parts: list[str], plan: Plan, note: Console) -> list[Figure]:
    """Take the figures asked for, one after the other, from a gateway on `core`.

    Memory is measured on a gateway of its own: one that has served five hundred streams at once keeps the memory of
    that moment, and a leak could fill it for a long time before anything grew.
    """
    async with asyncio.timeout(TIME_LIMIT_S):
        taken: list[Figure] = []
        if costs := [part for part in PARTS if part in parts and part != "memory"]:
            async with gateway(engine_url, cpu=core) as running:
                for part in costs:
                    note.print(f"measuring {part} ...", style="dim")
                    taken.append(await _undisturbed(_take(part, engine_url, running, plan), running, note))
        if "memory" in parts:
            note.print("measuring memory ...", style="dim")
            async with gateway(engine_url, cpu=core) as running:
                taken.append(await _undisturbed(figures.memory(running, plan, _progress(plan, note)), running, note))
        return taken


async def _undisturbed(measuring: Awaitable[Figure], running: Gateway, note: Console) -> Figure:
    """The figure, with the share of time that others kept the gateway from its core; said aloud when it is large."""
    started_s, waited_s = perf_counter(), waited_for_core_s(running.pid)
    figure = await measuring
    share = (waited_for_core_s(running.pid) - waited_s) / (perf_counter() - started_s)
    if share > DISTURBED_SHARE:
        note.print(f"  disturbed: for {share:.0%} of the time the gateway waited for a core that others used")
    return replace(figure, details={**figure.details, "waited_for_core_percent": share * 100})


async def _take(part: str, engine_url: str, running: Gateway, plan: Plan) -> Figure:
    match part:
        case "latency":
            return await figures.added_latency(engine_url, running, plan)
        case "answers":
            return await figures.cpu_per_answer(running, plan)
        case "events":
            return await figures.cpu_per_event(engine_url, running, plan)
        case _:
            return await figures.many_streams(running, plan)


def _progress(plan: Plan, note: Console) -> Callable[[int], None]:
    """A line every tenth of the way."""

    def show(calls: int) -> None:
        if calls * 10 // plan.memory_calls > (calls - plan.memory_step) * 10 // plan.memory_calls:
            note.print(f"  {calls:,} of {plan.memory_calls:,} calls", style="dim", highlight=False)

    return show


def table_of(taken: list[Figure], calibration_us: float) -> Table:
    table = Table(title="Gateway overhead", caption=f"calibration loop: {calibration_us:.0f} us of CPU")
    for column, justify in (
        ("figure", "left"),
        ("value", "right"),
        ("target", "right"),
        ("", "left"),
        ("details", "left"),
    ):
        table.add_column(column, justify="right" if justify == "right" else "left", no_wrap=column != "details")
    for figure in taken:
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: "[dim]reported[/]"}[figure.is_met]
        table.add_row(
            figure.name,
            _value(figure),
            figure.target,
            verdict,
            "\n".join(_detail_lines(figure.details)),
        )
    return table


def _value(figure: Figure) -> str:
    if figure.value is None:
        return "not measured"
    return f"{figure.value:.0f}" if figure.unit == "errors" else f"{figure.value:,.2f} {figure.unit}"


def _detail_lines(details: dict[str, object]) -> list[str]:
    return [f"{name}: {_short(value)}" for name, value in details.items() if name != "samples_mib" and value]


def _short(value: object) -> str:
    match value:
        case float():
            return f"{value:,.2f}"
        case list():
            return " to ".join(_short(item) for item in value)
        case dict():
            return ", ".join(f"{name} {_short(item)}" for name, item in value.items())
        case _:
            return str(value)


def report_of(taken: list[Figure], calibration_us: float) -> dict[str, object]:
    return {
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "calibration_us": calibration_us,
        },
        "figures": [asdict(figure) for figure in taken],
        "met": all(figure.is_met is not False for figure in taken),
    }


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measure what the gateway costs.")
    parser.add_argument("--quick", action="store_true", help="a short version, about half a minute")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--calls", type=int, help="calls of the memory measurement (100,000 unless --quick)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="take only these figures")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    plan = figures.QUICK if options.quick else Plan()
    if options.calls is not None:
        plan = replace(plan, memory_calls=options.calls, judges_memory=True)
    note = Console(stderr=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that being stopped stops the children too
    try:
        return _run(options, plan, note)
    except KeyboardInterrupt:
        note.print("stopped: nothing is reported")
        return 130


def _run(options: argparse.Namespace, plan: Plan, note: Console) -> int:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        note.print("one core only: gateway, engine and client share it, and every latency is theirs together")
    with fast_engine(cpu=cores[1 % len(cores)], cwd=ROOT) as (_, engine_url):
        os.sched_setaffinity(0, {cores[-1]})
        calibration_us = calibration_s() * 1e6
        gc.freeze()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                taken = runner.run(measure(engine_url, cores[0], options.only, plan, note))
        except GatewayFailed as failure:
            note.print(str(failure), markup=False, highlight=False, soft_wrap=True)
            return 2
        except TimeoutError:
            note.print(f"not finished after {TIME_LIMIT_S:.0f} s: nothing is reported")
            return 1
    if options.json or not sys.stdout.isatty():
        sys.stdout.write(json.dumps(report_of(taken, calibration_us), ensure_ascii=False, indent=2) + "\n")
    else:
        Console().print(table_of(taken, calibration_us))
    return 1 if any(figure.is_met is False for figure in taken) else 0


if __name__ == "__main__":
    sys.exit(main())
