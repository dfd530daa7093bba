"""What an assessor wants measured, as frozen values: target, workload, load, objectives, and when to stop.

Reading a plan from YAML is `plan_file`'s subject; which moments a load means is `arrivals`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Through(StrEnum):
    """Which door the requests go to."""

    GATEWAY = "gateway"
    DIRECT = "direct"
    """The engine itself."""
    BOTH = "both"
    """Every cell through either, interleaved: what the gateway adds is a figure of the run."""


class Route(StrEnum):
    CHAT = "chat"
    """/v1/chat/completions, streamed."""
    COMPLETIONS = "completions"
    """/v1/completions, streamed."""
    COMPARISON = "comparison"
    """/api/comparisons, streamed: one question to several models."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    model: str
    """The gateway's id of the model; for a comparison the first of `models`."""
    through: Through = Through.GATEWAY
    route: Route = Route.CHAT
    gateway: str | None = None
    """The gateway's address; None = that of the settings."""
    engine: str | None = None
    """The engine's own address, for DIRECT and BOTH; None = the model's only replica in the registry."""
    engine_model: str | None = None
    """What the engine calls the model; None = as the registry says."""
    models: tuple[str, ...] = ()
    """Of a comparison: all its models."""
    metrics: tuple[str, ...] = ()
    """Addresses of the engines whose /metrics are read through the run; empty = the model's replicas."""


# --- the work -----------------------------------------------------------------------------------------------


class Shape(StrEnum):
    FIXED = "fixed"
    UNIFORM = "uniform"
    LOGNORMAL = "lognormal"


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many tokens; whole numbers from `least` to `most`, both included."""

    shape: Shape
    least: int
    most: int
    median: int
    """Of LOGNORMAL; of FIXED the length itself; of UNIFORM the middle."""
    sigma: float = 0.0
    """Of LOGNORMAL: the standard deviation of the logarithm."""


def exactly(tokens: int) -> Lengths:
    """Always so many tokens."""
    return Lengths(Shape.FIXED, tokens, tokens, tokens)


class WorkKind(StrEnum):
    """What is asked. Each has texts of its own in `workloads`."""

    CHAT = "chat"
    DOCUMENT_QA = "document_qa"
    """Questions about long documents; all questions about one share it as a prefix."""
    SUMMARY = "summary"
    MULTI_TURN = "multi_turn"
    """Conversations whose context grows with every turn."""
    REASONING = "reasoning"
    TOOLS = "tools"
    STRUCTURED = "structured"
    """Answers by a JSON schema."""
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Workload:
    kind: WorkKind = WorkKind.CHAT
    language: str = "ko"
    """ko | en | mixed (half and half)."""
    industries: tuple[str, ...] = ()
    """Names of `workloads.INDUSTRIES`; empty = all of them."""
    input_tokens: Lengths | None = None
    """Of a request's whole prompt, shared prefix included; None = as the texts are."""
    output_tokens: Lengths | None = None
    """None = as long as the model likes, up to `max_output_tokens`."""
    is_pinned: bool = True
    """Output lengths are forced (`ignore_eos`, `min_tokens` = `max_tokens`): capacity. Else limits: realism."""
    max_output_tokens: int = 1024
    shared_prefix_tokens: int = 0
    """Of each prompt, those that are the same in `prefix_groups` groups of requests."""
    prefix_groups: int = 1
    turns: Lengths = field(default_factory=lambda: exactly(1))
    """Of MULTI_TURN: requests of one conversation."""
    temperature: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields added to every request's body."""


# --- the load -----------------------------------------------------------------------------------------------


RECORDS = "records:"
"""Begins a trace that is made of the gateway's own records; the model's id follows."""


class Arrivals(StrEnum):
    """How the moments of an open loop are drawn."""

    POISSON = "poisson"
    CONSTANT = "constant"
    TRACE = "trace"


@dataclass(frozen=True, slots=True)
class Rate:
    """A span of an open loop: from one rate to another, in straight line. Equal = steady."""

    begin_per_s: float
    end_per_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Open:
    """Requests come when they come, whatever the engine does."""

    arrivals: Arrivals
    rates: tuple[Rate, ...] = ()
    """One after the other; of TRACE none."""
    trace: str | None = None
    """Of TRACE: a file of moments (one JSON object a line, `at_s`, `input_tokens`, `output_tokens`), or
    `records:MODEL` for the calls that the gateway's own database holds."""
    speed: float = 1.0
    """Of TRACE: 2 = twice as fast as it was."""


@dataclass(frozen=True, slots=True)
class Users:
    """A span of a closed loop: so many users at once, each waiting for its answer before it asks again."""

    begin: int
    end: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Closed:
    users: tuple[Users, ...]
    think_s: float = 0.0
    """Mean time between an answer and the next question; exponential."""


Load = Open | Closed


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting that is measured, `repeats` times, with a fresh seed each time."""

    id: str
    load: Load
    warm_up_s: float
    """Requests that are sent in this first part count for nothing."""
    is_steady: bool = True
    """One load from begin to end: figures of the window mean something and claims may rest on them. Ramps, steps,
    bursts and traces are for looking at."""
    claim: str | None = None
    """The id of the claim whose load this is."""


@dataclass(frozen=True, slots=True)
class Search:
    """Looks for the highest load that meets all objectives: doubles from `begin`, then bisects."""

    id: str
    over: str
    """rate (requests a second, open loop) | users (closed loop)."""
    begin: float
    most: float
    """Beyond it nothing is tried."""
    arrivals: Arrivals = Arrivals.POISSON
    think_s: float = 0.0
    tolerance: float = 0.1
    """Ends when the lowest load that failed is at most this share above the highest that did not."""
    for_s: float = 60.0
    warm_up_s: float = 10.0


# --- what must hold -----------------------------------------------------------------------------------------


OF_REQUESTS = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "output_tokens_per_s_per_user")
"""Metrics that single requests have; of ITL a request has the mean of its gaps."""
OF_WINDOWS = ("output_tokens_per_s", "requests_per_s")


@dataclass(frozen=True, slots=True)
class Objective:
    """One figure that must hold. Every one names its statistic."""

    metric: str
    """One of `OF_REQUESTS` or `OF_WINDOWS`, as `gateway.domain.claim_terms.METRICS` defines it."""
    statistic: str
    """p50 | p95 | p99 | mean | attainment."""
    limit: Decimal
    """In the metric's unit: at most for latencies, at least for rates."""
    attainment_percent: Decimal | None = None
    """With the statistic attainment: the share of offered requests that must meet the limit."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole campaign."""

    name: str
    target: Target
    workload: Workload
    cells: tuple[Cell, ...]
    searches: tuple[Search, ...]
    objectives: tuple[Objective, ...]
    preset: str | None = None
    """Which of `presets.PRESETS` the objectives are; None = the plan's own."""
    claims: tuple[str, ...] = ()
    """Ids of the model's claims in the registry that the run is to answer; empty = all that its cells fit."""
    gpu: str | None = None
    """A GPU id of the registry on which the engines stand; None = as the registry's replicas say."""
    gpus: int | None = None
    """GPUs of one replica."""
    repeats: int = 3
    seed: int = 1
    drain_s: float = 60.0
    """After the last request was sent, how long answers may take before they count as given up."""
    timeout_s: float = 600.0
    """How long one answer may take."""
    workers: int = 1
    calibrates: bool = True
    """Whether the client shows on a stand-in first that it can send this load."""
