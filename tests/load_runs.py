"""Load runs made by a small model of an engine under load: for tests of reports, and to look at.

An engine has a pace and a number of requests that it serves well at once; beyond it requests wait. Values are drawn
with a seed and summarised as a real run's are, so that the same call gives the same run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.domain.stats import percentile, summarise
from loadtests.cells import (
    VERSION,
    Calibration,
    CellSeen,
    Check,
    DoorShare,
    EngineSeen,
    Figure,
    Latencies,
    ObjectiveSeen,
    Rates,
    Repeat,
    Run,
    SearchSeen,
    TimelinePoint,
    Verdict,
)
from loadtests.report import Distribution, distribution_of

Values = NDArray[np.float64]
OUTPUT_TOKENS = 200
PLAN = """name: {name}
target:
  model: {model}
  through: gateway
workload:
  kind: chat
  language: ko
  input_tokens: 1024
  output_tokens: 200
objectives:
  - {{metric: ttft_s, statistic: p95, limit: 2}}
  - {{metric: tpot_s, statistic: p95, limit: 0.05}}
repeats: 3
seed: {seed}
"""
OBJECTIVES = (("ttft_s", "p95", "2"), ("tpot_s", "p95", "0.05"))


@dataclass(frozen=True)
class Engine:
    """How fast a candidate is: `served_at_once` requests before waiting begins, `rate_per_s` at the most."""

    model: str = "sim-dense-32b"
    first_s: float = 0.28
    token_s: float = 0.026
    rate_per_s: float = 8.0
    served_at_once: int = 44
    gpu_hour: float = 2.95
    tells_metrics: bool = True
    has_price: bool = True


@dataclass
class Made:
    """What is drawn for a run while it is built."""

    engine: Engine
    seed: int = 7
    provenance: str = "simulated"
    requests: int = 600
    seconds: int = 60
    repeats: int = 3
    distributions: list[Distribution] = field(default_factory=list)

    def cell(
        self,
        identity: str,
        *,
        kind: str = "closed",
        level: float = 40,
        door: str = "gateway",
        claim: str | None = None,
        search: str | None = None,
        failed: Sequence[Check] = (),
        is_steady: bool = True,
    ) -> CellSeen:
        level = float(level)
        load = f"{level:g} users at once" if kind == "closed" else f"Poisson, {level:g} requests/s"
        made = [self._repeat(identity, kind, level, door, number, failed) for number in range(1, self.repeats + 1)]
        cell = CellSeen(
            id=identity,
            door=door,
            load=load if is_steady else "2 to 60 users in 60 s",
            kind=kind,
            level=level if is_steady else None,
            is_steady=is_steady,
            claim=claim,
            repeats=[repeat for repeat, _ in made],
            checks=[
                Check(name="repeats", passed=True, limit="at least 3 repeats", seen=f"{self.repeats} repeats"),
                Check(name="spread", passed=True, limit="p95 within 15 %", seen="p95 within 4.2 %"),
            ],
            search=search,
        )
        if cell.is_valid and is_steady:
            for metric in ("scheduled_ttft_s" if kind == "open" else "ttft_s", "tpot_s"):
                values = np.concatenate([drawn[metric] for _, drawn in made])
                self.distributions.append(distribution_of(self.run_id, identity, door, metric, values))
        return cell

    @property
    def run_id(self) -> str:
        return f"run-{self.engine.model}"

    def _repeat(
        self, identity: str, kind: str, level: float, door: str, number: int, failed: Sequence[Check]
    ) -> tuple[Repeat, dict[str, Values]]:
        seed = self.seed * 1000 + number
        rng = np.random.default_rng([seed, int(sha256(f"{self.engine.model} {identity}".encode()).hexdigest()[:8], 16)])
        drawn, per_s = self._drawn(rng, kind, level, door)
        ok = len(drawn["tpot_s"])
        offered = ok + (3 if per_s >= self.engine.rate_per_s * 0.95 else 0)
        tokens_per_s = per_s * OUTPUT_TOKENS
        met = float(np.mean((drawn["ttft_s"] <= 2) & (drawn["tpot_s"] <= 0.05))) * ok / offered
        latencies = Latencies(
            **{name: figure(drawn[name]) for name in drawn},
            tokens_per_event=1.02,
        )
        price = self.engine.gpu_hour / 3600 / tokens_per_s * 1e6
        repeat = Repeat(
            number=number,
            door=door,
            run_id=f"{self.run_id}.{identity}-{door}-{number}",
            seed=seed,
            began_at=f"2026-03-02T0{number}:15:00Z",
            outcomes={"ok": ok, **({"timeout": offered - ok} if offered > ok else {})},
            latencies=latencies,
            rates=Rates(
                window_s=float(self.seconds),
                offered=offered,
                offered_per_s=offered / self.seconds,
                requests_per_s=per_s,
                output_tokens_per_s=tokens_per_s,
                output_tokens_per_s_per_gpu=tokens_per_s,
                input_tokens_per_s=per_s * 1024,
                characters_per_s=tokens_per_s * 1.9,
                goodput_per_s=per_s * met,
                attainment_percent=100 * met,
                cached_share=0.012 if self.engine.tells_metrics else None,
            ),
            objectives=[objective(latencies, kind, *one) for one in OBJECTIVES],
            checks=[*passed_checks(), *failed],
            timeline=self._timeline(rng, kind, level, per_s),
            provenance=self.provenance,
            errors={"the stream took longer than 600 s": offered - ok} if offered > ok else {},
            cost_per_mtok_out=f"{price:.4f}" if self.engine.has_price else None,
            currency="USD" if self.engine.has_price else None,
            gpu_seconds=float(self.seconds) if self.engine.has_price else None,
        )
        return repeat, drawn

    def _drawn(self, rng: np.random.Generator, kind: str, level: float, door: str) -> tuple[dict[str, Values], float]:
        """Spans of every answered request, and how many were answered a second."""
        engine = self.engine
        pace = engine.first_s + OUTPUT_TOKENS * engine.token_s
        at_once = level if kind == "closed" else level * pace * 1.3
        crowd = 1 + (at_once / engine.served_at_once) ** 2 * 0.55
        waiting = max(0.0, at_once / engine.served_at_once - 1) * 4.5
        per_s = min(level, engine.rate_per_s) if kind == "open" else min(engine.rate_per_s, level / (pace * crowd))
        per_s *= rng.normal(1, 0.012)
        n = self.requests
        first = engine.first_s * crowd * rng.lognormal(0, 0.22, n) + rng.exponential(waiting + 1e-9, n)
        token = engine.token_s * crowd * rng.lognormal(0, 0.07, n)
        lag = rng.exponential(0.0006, n)
        on_the_way = abs(rng.normal(0.0042, 0.0003)), rng.lognormal(0.0002, 0.0004)
        if door == "gateway":
            first, token = first + on_the_way[0], token * on_the_way[1]
        whole = first + token * (OUTPUT_TOKENS - 1)
        found = {
            "ttft_s": first,
            "ttfot_s": first,
            "tpot_s": token,
            "itl_s": token * rng.lognormal(0, 0.15, n),
            "e2e_s": whole,
            "scheduled_ttft_s": first + lag,
            "scheduled_e2e_s": whole + lag,
            "output_tokens_per_s_per_user": 1 / token,
        }
        return found, per_s

    def _timeline(self, rng: np.random.Generator, kind: str, level: float, per_s: float) -> list[TimelinePoint]:
        steady = level if kind == "closed" else level * 6.5
        sent = rng.poisson(per_s, self.seconds)
        ended = rng.poisson(per_s, self.seconds)
        points = []
        for second in range(self.seconds):
            at_once = round(min(steady, steady * (second + 1) / 12) + rng.normal(0, 1.2))
            running = min(max(at_once, 0), self.engine.served_at_once)
            told = {
                "engine_running": running,
                "engine_waiting": max(0, at_once - self.engine.served_at_once),
                "engine_kv_usage": min(1.0, running / (self.engine.served_at_once * 1.15)),
                "engine_preemptions": 0,
                "engine_generation_tokens": int(per_s * OUTPUT_TOKENS * second),
                "engine_prefix_hit_share": 0.012,
            }
            points.append(
                TimelinePoint(
                    at_s=float(second),
                    sent=int(sent[second]),
                    ended=int(ended[second]),
                    failed=0,
                    in_flight=max(at_once, 0),
                    output_tokens=int(per_s * OUTPUT_TOKENS * rng.normal(1, 0.06)),
                    ttft_p50_s=float(self.engine.first_s * rng.lognormal(0, 0.1)) if sent[second] else None,
                    **(told if self.engine.tells_metrics else {}),
                )
            )
        return points

    def run(self, cells: Sequence[CellSeen], verdicts: Sequence[Verdict], **more: object) -> Run:
        plan = PLAN.format(name="민원 상담 40명", model=self.engine.model, seed=self.seed)
        told = {"num_gpu_blocks": "5891", "block_size": "16", "cache_dtype": "auto", "gpu_memory_utilization": "0.92"}
        sources = {cell.id: cell.source(self.run_id) for cell in cells}
        verdicts = [
            msgspec.structs.replace(one, cells=[sources.get(cell, cell) for cell in one.cells]) for one in verdicts
        ]
        values: dict[str, object] = {
            "v": VERSION,
            "id": self.run_id,
            "name": "민원 상담 40명",
            "state": "complete",
            "began_at": "2026-03-02T01:10:00Z",
            "ended_at": "2026-03-02T03:42:10Z",
            "plan": plan,
            "plan_sha256": sha256(plan.encode()).hexdigest(),
            "workload_sha256": sha256(b"chat, ko, 1024, 200").hexdigest(),
            "seed": self.seed,
            "model": self.engine.model,
            "gpu": "h100-sxm",
            "gpus": 1,
            "provenance": self.provenance,
            "versions": {"simsa": "0.1.0", "locust": "2.47.0", "gevent": "25.9.1", "python": "3.11.9"},
            "gateway": {"version": "0.1.0", "registry": "sha256:0f3a5c"},
            "engines": [
                EngineSeen(
                    replica=f"{self.engine.model}-0",
                    gpu="h100-sxm",
                    gpus=1,
                    provenance=self.provenance,
                    version="0.32.0",
                    max_model_len=8192,
                    resolved=told if self.engine.tells_metrics else {},
                )
            ],
            "calibration": Calibration(
                events_per_s=8140.0,
                lag_p99_s=0.0061,
                ttft_error_p99_s=0.0007,
                cpu_share=0.52,
                needed_events_per_s=1100.0,
                passed=True,
            ),
            "cells": list(cells),
            "searches": [],
            "doors": [],
            "verdicts": list(verdicts),
            "notes": [],
        }
        return Run(**{**values, **more})  # type: ignore[arg-type]


# --- parts --------------------------------------------------------------------------------------------------


def figure(values: Values) -> Figure:
    """The summary of raw values, as a run holds it."""
    found = summarise(values)
    ends = {}
    for name in ("p50", "p90", "p95", "p99"):
        span = getattr(found, f"{name}_interval")
        ends[f"{name}_low"], ends[f"{name}_high"] = (None, None) if span is None else (span.low, span.high)
    plain = {name: getattr(found, name) for name in ("n", "min", "mean", "p50", "p90", "p95", "p99", "max")}
    return Figure(**plain, **ends)


def objective(latencies: Latencies, kind: str, metric: str, statistic: str, limit: str) -> ObjectiveSeen:
    found: Figure = getattr(latencies, "scheduled_ttft_s" if (kind, metric) == ("open", "ttft_s") else metric)
    value = getattr(found, statistic)
    return ObjectiveSeen(
        metric=metric,
        statistic=statistic,
        limit=limit,
        attainment_percent=None,
        value=value,
        low=getattr(found, f"{statistic}_low"),
        high=getattr(found, f"{statistic}_high"),
        n=found.n,
        met=None if value is None else value <= float(limit),
        why="no value" if value is None else None,
    )


def passed_checks() -> list[Check]:
    return [
        Check(name="client_cpu", passed=True, limit="below 60 % of a core", seen="41 %"),
        Check(name="schedule_lag", passed=True, limit="p99 below 10 ms", seen="p99 2.1 ms"),
        Check(name="records_complete", passed=True, limit="a footer of every worker", seen="1 of 1"),
        Check(name="clock", passed=True, limit="within 50 ms", seen="0.3 ms"),
        Check(name="token_source", passed=True, limit="the engine's usage", seen="engine: 600 of 600"),
        Check(name="steady_state", passed=None, limit="halves within 10 %", seen="the window is too short to halve"),
    ]


BUSY_CLIENT = Check(name="client_cpu", passed=False, limit="below 60 % of a core", seen="87 % in worker 0")


def searched(made: Made, begin: float, most: float = 16) -> tuple[list[CellSeen], SearchSeen]:
    """Cells of a search over the rate, doubling and then halving to a tenth, and how it ended."""
    cells: list[CellSeen] = []
    highest: float | None = None
    lowest: float | None = None
    level = begin
    while level <= most and (highest is None or lowest is None or lowest > highest * 1.1):
        cell = made.cell(f"knee-{level:g}", kind="open", level=level, search="knee")
        cells.append(cell)
        highest, lowest = (level, lowest) if cell.meets_objectives else (highest, level)
        if highest is None:
            break
        level = 2 * level if lowest is None else round((highest + lowest) / 2, 3)
    return cells, SearchSeen(
        id="knee",
        door="gateway",
        over="rate",
        tried=[cell.id for cell in cells],
        highest_met=highest,
        lowest_failed=lowest,
        ended="at_most" if lowest is None else "below_begin" if highest is None else "found",
    )


def door_share(cell: str, metric: str, direct: CellSeen, gateway: CellSeen) -> DoorShare:
    medians = [[getattr(repeat.latencies, metric).p50 for repeat in one.repeats] for one in (direct, gateway)]
    added = [through - to for to, through in zip(*medians, strict=True)]
    is_bounded = len(added) > 1
    return DoorShare(
        cell=cell,
        metric=metric,
        direct_p50_s=percentile(medians[0], 50),
        gateway_p50_s=percentile(medians[1], 50),
        added_s=percentile(added, 50),
        added_low_s=min(added) if is_bounded else None,
        added_high_s=max(added) if is_bounded else None,
        pairs=len(added),
    )


def verdict(claim: str, text: str, verdict: str, cells: Sequence[str] = (), **more: object) -> Verdict:
    values: dict[str, object] = {"reasons": [], "margin": None, "holds_for": None, "left_open": [], **more}
    return Verdict(claim=claim, text=text, verdict=verdict, cells=list(cells), **values)  # type: ignore[arg-type]


# --- whole runs ---------------------------------------------------------------------------------------------


def made_run(
    *, engine: Engine | None = None, provenance: str = "simulated", is_small: bool = False, **more: object
) -> tuple[Run, list[Distribution]]:
    """One candidate: a claim, a search with its knee, both doors, a ramp, an invalid cell."""
    made = Made(engine or Engine(), provenance=provenance, **({"requests": 120, "seconds": 20} if is_small else {}))
    lightest = (1,) if is_small else (1, 8, 80)
    claimed = made.cell("claim-ttft", level=40, claim="ttft")
    busy = made.cell("users-160", level=160, failed=[BUSY_CLIENT])
    light = [made.cell(f"users-{level}", level=level) for level in lightest]
    ramp = made.cell("ramp", is_steady=False)
    direct, gateway = (made.cell("both", level=8, door=door) for door in ("direct", "gateway"))
    cells, search = searched(made, made.engine.rate_per_s / 8)
    is_met = claimed.meets_objectives
    real = provenance == "real"
    words = (
        ("holds" if real else "plausible (simulated)")
        if is_met
        else ("refuted (measured)" if real else "not met (simulated)")
    )
    value = max(repeat.latencies.ttft_s.p95 or 0.0 for repeat in claimed.repeats)
    verdicts = [
        verdict(
            "ttft",
            "동시 사용자 40명에서 첫 토큰까지의 시간 p95 2초 이하",
            words,
            ["claim-ttft"],
            margin=(2 - value) / 2,
            reasons=[f"p95 {value:.3g} s in the worst of 3 repeats."],
            holds_for="as measured, under the load claimed" if words == "holds" else None,
            left_open=[] if real else ["A load run on 1 × h100-sxm would settle it."],
        ),
        verdict(
            "busy",
            "동시 사용자 160명에서 25 tokens/s",
            "holds" if real else "plausible (simulated)",
            ["users-160"],
            margin=0.31,
        ),
        verdict("rank", "공개 순위 1위", "not testable here", reasons=["A rank is the list's to show."]),
    ]
    shares = [door_share("both", metric, direct, gateway) for metric in ("ttft_s", "tpot_s", "e2e_s")]
    values: dict[str, object] = {"searches": [search], "doors": shares, **more}
    run = made.run([claimed, *light, busy, ramp, direct, gateway, *cells], verdicts, **values)
    return run, made.distributions


def made_campaign(*, is_small: bool = False) -> tuple[list[Run], list[Distribution]]:
    """Three candidates on one workload: a claim that is plausible, one that is not met, one that arithmetic refutes."""
    first, spreads = made_run(is_small=is_small)
    slow = Engine("sim-dense-70b", first_s=0.7, token_s=0.041, rate_per_s=2.2, served_at_once=20)
    second, of_second = made_run(engine=slow, is_small=is_small)
    impossible = Engine(
        "sim-moe-200b", first_s=0.5, token_s=0.031, rate_per_s=6.0, tells_metrics=False, has_price=False
    )
    third, of_third = made_run(engine=impossible, is_small=is_small)
    refuted = verdict(
        "pace",
        "H100 1장에서 요청 하나에 400 tokens/s",
        "refuted (arithmetic)",
        margin=-0.42,
        reasons=["Reading the active weights once a token takes 4.3 ms at the full bandwidth of 1 × h100-sxm."],
    )
    third = type(third)(**{name: getattr(third, name) for name in third.__struct_fields__} | {
        "verdicts": [refuted, *third.verdicts[2:]], "notes": ["The engine's /metrics were not open to the client."],
    })  # fmt: skip
    return [first, second, third], [*spreads, *of_second, *of_third]


def hour_long_run(repeats: int = 12) -> Run:
    """A soak of an hour, so many times: 3,600 seconds a repeat."""
    made = Made(Engine(), seconds=3600, requests=400, repeats=repeats)
    return made.run([made.cell("soak", level=24)], [])
