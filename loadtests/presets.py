"""Objectives by size class: MLPerf Inference's latency limits for servers, as p99 of TTFT and TPOT.

Source: MLPerf Inference rules, server and interactive scenarios, as listed in docs/measurement.md.
"""

from __future__ import annotations

from decimal import Decimal

from loadtests.plan import Objective

_LIMITS_MS = {
    "llama3.1-8b": (2000, 100),
    "llama3.1-8b-interactive": (500, 30),
    "llama2-70b": (2000, 200),
    "llama2-70b-interactive": (450, 40),
    "llama3.1-405b": (6000, 175),
    "llama3.1-405b-interactive": (4500, 80),
    "deepseek-r1": (2000, 80),
    "deepseek-r1-interactive": (1500, 15),
}
"""Milliseconds: (TTFT, TPOT)."""


def _objectives(ttft_ms: int, tpot_ms: int) -> tuple[Objective, ...]:
    return (
        Objective("ttft_s", "p99", Decimal(ttft_ms) / 1000),
        Objective("tpot_s", "p99", Decimal(tpot_ms) / 1000),
    )


PRESETS: dict[str, tuple[Objective, ...]] = {name: _objectives(*limits) for name, limits in _LIMITS_MS.items()}
