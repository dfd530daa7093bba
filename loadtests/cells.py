"""What a load run showed, as values that are written down, stored, drawn and compared: figures, checks, verdicts.

Every figure has its unit in its name; None = unknown or not to be shown, never 0. How figures come from records is
`figures`' subject, whether a cell may be believed `validity`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

VERSION = 1


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What n values say, in the unit of the metric's name. As `gateway.domain.stats.Summary`, with intervals of 95 %.

    Exact, from raw records. p99 and its interval are None below 500 values.
    """

    n: int
    min: float | None = None
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    p50_low: float | None = None
    p50_high: float | None = None
    p90_low: float | None = None
    p90_high: float | None = None
    p95_low: float | None = None
    p95_high: float | None = None
    p99_low: float | None = None
    p99_high: float | None = None


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One condition of validity, looked at before any number is shown."""

    name: str
    """client_cpu | schedule_lag | achieved_rate | records_complete | clock | token_source | lengths | cache_hits |
    steady_state | in_flight | running | stream | repeats | spread | provenance | engine_restart | calibration |
    hosts | same_engines."""
    passed: bool | None
    """None = could not be looked at; `seen` says why. Only False makes a cell invalid."""
    limit: str
    """What is demanded, in words with figures."""
    seen: str
    """What was found, in words with figures."""


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, by docs/measurement.md; those from t_sched are what verdicts of an open loop rest on."""

    ttft_s: Figure
    ttfot_s: Figure
    tpot_s: Figure
    itl_s: Figure
    e2e_s: Figure
    scheduled_ttft_s: Figure
    scheduled_e2e_s: Figure
    output_tokens_per_s_per_user: Figure
    """1 / TPOT of each request."""
    tokens_per_event: float | None
    """(ΣN) / (events with tokens): how many tokens a gap of ITL stands for."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Of the window, which is the time after warm-up up to the last moment of the load."""

    window_s: float
    offered: int
    """Requests due in the window."""
    offered_per_s: float
    requests_per_s: float
    """Answered well, by their end in the window."""
    output_tokens_per_s: float | None
    """ΣN of tokens that came in the window / window; None where N is unknown of some answer."""
    output_tokens_per_s_per_gpu: float | None
    input_tokens_per_s: float | None
    characters_per_s: float | None
    goodput_per_s: float | None
    """Requests that met every objective / window; None without objectives."""
    attainment_percent: float | None
    """Of offered requests, those that met every objective."""
    cached_share: float | None
    """Of prompt tokens, those that the engine had kept."""


class ObjectiveSeen(msgspec.Struct, frozen=True, kw_only=True):
    metric: str
    statistic: str
    limit: str
    """Decimal as text, in the metric's unit."""
    attainment_percent: str | None
    value: float | None
    """None = cannot be said (`why`)."""
    low: float | None
    high: float | None
    n: int
    met: bool | None
    why: str | None


class TimelinePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One second of a repeat, client and engines side by side. Of several engines the sum; of KV use the most."""

    at_s: float
    sent: int
    ended: int
    failed: int
    in_flight: int
    output_tokens: int
    ttft_p50_s: float | None
    """Of requests sent in this second."""
    engine_running: int | None = None
    engine_waiting: int | None = None
    engine_kv_usage: float | None = None
    engine_preemptions: int | None = None
    """Since the repeat began."""
    engine_generation_tokens: int | None = None
    """Since the repeat began."""
    engine_prefix_hit_share: float | None = None
    """Of the tokens asked of the prefix cache since the repeat began."""


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a cell through one door."""

    number: int
    door: str
    run_id: str
    seed: int
    began_at: str
    outcomes: dict[str, int]
    """Offered requests of the window by `records.Outcome`."""
    latencies: Latencies
    rates: Rates
    objectives: list[ObjectiveSeen]
    """Those of the plan."""
    checks: list[Check]
    timeline: list[TimelinePoint]
    provenance: str
    """real | stand_in | simulated | unknown: of the answers themselves."""
    errors: dict[str, int] = {}
    """The most frequent errors in words, at most 10."""
    claimed: dict[str, ObjectiveSeen] = {}
    """What became of the figure of each claim that a run can test, by the claim's id."""
    is_overloaded: bool = False
    """Work piled up: figures that look good would look worse in a longer window, and settle nothing."""
    load_s: float | None = None
    """From second 0 to the last moment of the load, warm-up included."""
    attempt: int = 1
    """2: it was run once more, because a moment's disturbance had made it invalid."""
    cost_per_mtok_out: str | None = None
    """GPU money of the window / tokens put out in it, per million."""
    currency: str | None = None
    gpu_seconds: float | None = None

    @property
    def is_valid(self) -> bool:
        return all(check.passed is not False for check in self.checks)


class CellSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A cell through one door: its repeats, and what they say together."""

    id: str
    door: str
    load: str
    """In words: "40 users at once", "Poisson, 2.5 requests/s"."""
    kind: str
    """open | closed."""
    level: float | None
    """The load as one number, requests a second or users; None where it changes on the way."""
    is_steady: bool
    claim: str | None
    repeats: list[Repeat]
    checks: list[Check]
    """Of all repeats together: their number and their spread."""
    search: str | None = None
    """Which search tried it."""
    think_s: float = 0.0
    """Of a closed loop: mean pause of a user, who is not in flight meanwhile."""
    input_tokens: int | None = None
    """Of each prompt, where the plan fixes it."""
    output_tokens: int | None = None
    """Of each answer, where the plan fixes it."""

    @property
    def is_valid(self) -> bool:
        return (
            bool(self.repeats)
            and all(check.passed is not False for check in self.checks)
            and all(repeat.is_valid for repeat in self.repeats)
        )

    def source(self, run_id: str) -> str:
        """How evidence from this cell is named."""
        return f"cell {self.id} ({self.door}) of run {run_id}"

    @property
    def meets_objectives(self) -> bool | None:
        """True: every objective in every repeat; False: some objective in some repeat not; None: cannot be said."""
        seen = [one.met for repeat in self.repeats for one in repeat.objectives]
        if not self.is_valid or not seen or None in seen:
            return None
        return all(seen)


def common_provenance(cells: Sequence[CellSeen], otherwise: str) -> str:
    """Of all repeats; `mixed` where they differ, `otherwise` where there is none yet.

    A repeat whose answers nobody vouches for is invalid, and shows no figure; so it says nothing of the others.
    """
    kinds = {repeat.provenance for cell in cells for repeat in cell.repeats}
    known = kinds - {"unknown"} or kinds
    if len(known) > 1:
        return "mixed"
    return known.pop() if known else otherwise


class SearchSeen(msgspec.Struct, frozen=True, kw_only=True):
    """How a search went. The knee is the highest load that met every objective in every repeat."""

    id: str
    door: str
    over: str
    tried: list[str]
    """Ids of the cells, in order."""
    highest_met: float | None
    lowest_failed: float | None
    ended: str
    """found | at_most (the plan's limit met them all) | below_begin (the first failed, down to the least) | invalid |
    stopped."""
    why: str | None = None


class EngineSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An engine as it described itself when the run began."""

    replica: str
    gpu: str | None
    gpus: int
    provenance: str
    version: str | None
    max_model_len: int | None
    resolved: dict[str, str]
    """The labels of vLLM's cache_config_info."""
    restarts: int = 0
    """Seen during the run."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one claim. As `gateway.domain.claims.CheckedClaim`, in text."""

    claim: str
    text: str
    verdict: str
    reasons: list[str]
    cells: list[str]
    margin: float | None
    holds_for: str | None
    left_open: list[str]


class DoorShare(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway adds: the same cell through both doors, repeat by repeat. Seconds."""

    cell: str
    metric: str
    direct_p50_s: float
    gateway_p50_s: float
    added_s: float
    added_low_s: float | None
    added_high_s: float | None
    pairs: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What this client can send and read, shown on a stand-in with a known schedule before the run."""

    events_per_s: float
    lag_p99_s: float
    ttft_error_p99_s: float
    cpu_share: float
    """Of one core, at that rate."""
    needed_events_per_s: float | None
    passed: bool
    host: str | None = None
    """A digest that tells one host from another, and names none; None in runs from before it was kept."""
    of_run: str | None = None
    """The run before this one that showed it, where it was taken over from there."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A whole campaign: what is stored, reported, listed and compared."""

    v: int
    id: str
    name: str
    state: str
    """running | complete | stopped | failed (the last note says why)."""
    began_at: str
    ended_at: str | None
    plan: str
    """The plan's own text, as it was read."""
    plan_sha256: str
    workload_sha256: str
    seed: int
    model: str
    gpu: str | None
    gpus: int | None
    """Of all replicas together; None where it is not known, and then nothing is said of one GPU."""
    provenance: str
    """real | stand_in | simulated | unknown, of all repeats; `mixed` where they differ; of the engines as they were
    seen before the first one."""
    versions: dict[str, str]
    """simsa, locust, gevent, python."""
    gateway: dict[str, str]
    """What the gateway said of itself: version, registry hash. Empty where it was not in the way."""
    engines: list[EngineSeen]
    calibration: Calibration | None
    cells: list[CellSeen]
    searches: list[SearchSeen]
    doors: list[DoorShare]
    verdicts: list[Verdict]
    notes: list[str]
    """What a reader must know: stopped early, workers lost, assumptions."""
    replicas: int | None = None
    """Engines that answered together; None where it is not known."""
    workers: int = 1
    timeout_s: float = 600.0
    """How long one answer might take."""
    weights: str | None = None
    """Number format of the weights by the registry of the day; engines do not say. None = not known."""
    weights_repo: str | None = None
    """Their repository by the same registry, which real engines are held against."""
