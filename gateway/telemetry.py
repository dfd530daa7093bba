"""What an operator sees from outside: Prometheus series and one structured log line a request.

Labels come from closed sets: registered models (anything else is `_other`), our own routes, status classes. No key,
prompt or raw path is ever a label or in a log line; of a key the line has the id, never the secret.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from decimal import Decimal

import structlog
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest

from gateway.domain.records import Call, CallStatus, Priority
from gateway.log import call_logger, log_stream
from gateway.series import Distribution, Distributions, Number, Numbers

OTHER = "_other"
INTERNAL_ERROR, QUEUE_FULL = "internal_error", "queue_full"
BACKGROUND_QUEUE_FULL = "queue_full_background"
"""A batch or a load test found the queue full: it is to wait behind everybody, so that is nobody's bad answer."""
_BACKGROUND = (Priority.BATCH, Priority.LOAD_TEST)
FAILURES = (
    "upstream_error",
    "upstream_unreachable",
    "upstream_timeout",
    "upstream_truncated",
    "upstream_auth",
    "upstream_busy",
    "no_replica",
    QUEUE_FULL,
    BACKGROUND_QUEUE_FULL,
    "recorder_unavailable",
    "draining",
    "client_too_slow",
    INTERNAL_ERROR,
    OTHER,
)
"""The codes under which requests fail that are no caller's mistake; any other counts as the last."""
# To 120 s and beyond: a reasoning model on a busy node takes that long to say its first word.
_LATENCY_BUCKETS = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,
    0.35,
    0.5,
    0.75,
    1,
    1.5,
    2,
    3,
    5,
    7.5,
    10,
    15,
    20,
    30,
    45,
    60,
    90,
    120,
    180,
    300,
)
_DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
_TPOT_BUCKETS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


@dataclass(slots=True)
class _ModelSeries:
    """One model's numbers, looked up once."""

    inflight: Number
    ttft: Distribution
    tpot: Distribution
    duration: Distribution
    prompt_tokens: Number
    completion_tokens: Number


class Telemetry:
    """All series of one gateway, in a registry of its own."""

    def __init__(self, *, log_level: str = "INFO") -> None:
        self._log_call = call_logger(log_level)
        self.registry = registry = CollectorRegistry()
        self.requests = Numbers(
            CounterMetricFamily, "simsa_requests", "Requests answered.", ("model", "endpoint", "status_class"), registry
        )
        self.calls = Numbers(
            CounterMetricFamily,
            "simsa_calls",
            "Calls that ended, by how, by what the answering engine is, and by their class.",
            ("model", "status", "provenance", "priority"),
            registry,
        )
        self.failures = Numbers(
            CounterMetricFamily,
            "simsa_failures",
            "Requests answered with 5xx and streams cut after their beginning, by the code of the error.",
            ("model", "code"),
            registry,
        )
        self.model_expected = Gauge(
            "simsa_model_expected", "1 for each model that is to have a live replica.", ["model"], registry=registry
        )
        self.inflight = Numbers(
            GaugeMetricFamily, "simsa_inflight_requests", "Calls being served.", ("model",), registry
        )
        self.queue = Distributions(
            "simsa_queue_seconds", "Time in the gateway's own queue.", (), _LATENCY_BUCKETS, registry
        ).at()
        self.ttft = Distributions(
            "simsa_time_to_first_token_seconds",
            "First token-bearing event minus request accepted, streamed calls.",
            ("model",),
            _LATENCY_BUCKETS,
            registry,
        )
        self.tpot = Distributions(
            "simsa_time_per_output_token_seconds",
            "(last - first event) / (tokens - tokens of the first event), streamed calls.",
            ("model",),
            _TPOT_BUCKETS,
            registry,
        )
        self.duration = Distributions(
            "simsa_request_duration_seconds",
            "Request accepted to end of the answer.",
            ("model",),
            _DURATION_BUCKETS,
            registry,
        )
        self.overhead = Distributions(
            "simsa_overhead_seconds",
            "Gateway time before the engine, queue excluded.",
            (),
            _OVERHEAD_BUCKETS,
            registry,
        ).at()
        self.tokens = Numbers(
            CounterMetricFamily, "simsa_tokens", "Tokens, by the engines' own counts.", ("model", "kind"), registry
        )
        self.cost = Numbers(
            CounterMetricFamily,
            "simsa_cost",
            "Settled cost of finished calls: hosted APIs' at their end, GPU time's once its minute is settled.",
            ("model", "currency", "basis"),
            registry,
        )
        self.provisional_cost = Numbers(
            CounterMetricFamily,
            "simsa_provisional_cost",
            "Cost of finished calls by GPU time, as known at their end and before settlement.",
            ("model", "currency", "basis"),
            registry,
        )
        self.replica_up = Gauge(
            "simsa_replica_up", "1 when the replica answers its health check.", ["model", "replica"], registry=registry
        )
        self.replica_breaker = Gauge(
            "simsa_replica_breaker",
            "1 while the replica is left alone, but for trials, because it failed too often.",
            ["model", "replica"],
            registry=registry,
        )
        self.name_lookups = Numbers(
            CounterMetricFamily,
            "simsa_name_lookups",
            "Questions to name servers about replicas' names, by what came of them.",
            ("outcome",),
            registry,
        )
        self.name_failing = Gauge(
            "simsa_name_failing",
            "1 while name servers give no answer about a name of replicas; its last addresses stay in use.",
            ["name"],
            registry=registry,
        )
        self.queue_depth = Numbers(
            GaugeMetricFamily, "simsa_queue_depth", "Calls waiting for a replica.", ("model", "priority"), registry
        )
        self.feasibility_headroom = Gauge(
            "simsa_feasibility_headroom_bytes",
            "Predicted memory left on one GPU at the settings' context, likely overhead; a prediction.",
            ["model", "gpu"],
            registry=registry,
        )
        self.feasibility_fits = Gauge(
            "simsa_feasibility_fits",
            "1 when the model is predicted to fit one GPU.",
            ["model", "gpu"],
            registry=registry,
        )
        self.registry_valid = Gauge(
            "simsa_registry_valid", "0 when the registry file on disk is broken and the old one is in use.",
            registry=registry,
        )  # fmt: skip
        self.registry_info = Gauge(
            "simsa_registry_info", "1, labelled with the registry in use.", ["sha256"], registry=registry
        )
        self.loop_lag = Gauge(
            "simsa_event_loop_lag_seconds", "How late the event loop ran its last timer.", registry=registry
        )
        self.recorder_queued = Gauge("simsa_recorder_queued", "Records not yet in the database.", registry=registry)
        self.recorder_lag = Gauge(
            "simsa_recorder_lag_seconds", "Age of the oldest record not yet in the database.", registry=registry
        )
        self.recorder_capacity = Gauge(
            "simsa_recorder_capacity", "Records that may wait before new calls are refused.", registry=registry
        )
        self.recorder_spooled = Gauge(
            "simsa_recorder_spooled_bytes", "Size of the spool on the disk.", registry=registry
        )
        self.recorder_written = Gauge("simsa_recorder_written", "Records written since the start.", registry=registry)
        self.recorder_lost = Gauge("simsa_recorder_lost", "Records that could not be kept.", registry=registry)
        self.recorder_interrupted = Gauge(
            "simsa_recorder_interrupted", "Calls found unfinished from an earlier process.", registry=registry
        )
        self.workers = Gauge(
            "simsa_workers",
            "Processes that serve on this machine (--workers), this one among them.",
            registry=registry,
        )
        self.workers.set(1)
        self.interrupted_at = Gauge(
            "simsa_recorder_interrupted_timestamp_seconds",
            "When calls were last found that their gateway had not ended; 0 before.",
            registry=registry,
        )
        self.recorder_failing = Gauge(
            "simsa_recorder_failing", "1 while the part cannot be written.", ["part"], registry=registry
        )
        self.settled_up = Gauge(
            "simsa_settlement_caught_up_timestamp_seconds",
            "When no minute of GPU time was due for settlement the last time; 0 before.",
            registry=registry,
        )
        self._background_failures = Numbers(
            CounterMetricFamily,
            "simsa_background_failures",
            "Unexpected failures of work in the background; it was begun anew each time.",
            ("work",),
            registry,
        )
        self.spans = Numbers(
            CounterMetricFamily, "simsa_spans", "Spans of traces, by what became of them.", ("outcome",), registry
        )
        self._log_lines_lost = Numbers(
            CounterMetricFamily, "simsa_log_lines_lost", "Log lines that could not be written.", (), registry
        ).at()
        self._models: dict[str, _ModelSeries] = {}
        self._overcounted: dict[tuple[str, str], Decimal] = {}
        """What settling anew took off costs that are counted already; a counter cannot go back, so it waits."""
        self._log = structlog.get_logger("simsa")

    def show_sharing(self, is_shared: Callable[[], bool], peers: Callable[[], tuple[int, bool]]) -> None:
        """Show how several gateways stand together. `peers`: how many, and whether one has another registry."""
        limits = Gauge(
            "simsa_limits_shared",
            "1 while limits are counted by all gateways together, 0 while by each in its share.",
            registry=self.registry,
        )
        gateways = Gauge("simsa_gateways", "Gateways that serve this database.", registry=self.registry)
        differs = Gauge(
            "simsa_registry_differs", "1 while gateways serve by different registries.", registry=self.registry
        )
        limits.set_function(lambda: float(is_shared()))
        gateways.set_function(lambda: float(peers()[0]))
        differs.set_function(lambda: float(peers()[1]))

    def expect_models(self, models: Collection[str], endpoints: Collection[str]) -> None:
        """The models that are to be served from now on. Each has its series at once, at zero: of a counter that
        appears with its first failure nobody sees that it rose.
        """
        self.model_expected.clear()
        for model in models:
            self.model_expected.labels(model).set(1)
            self.series_of(model)
            for code in FAILURES:
                self.failures.at(model, code)
            for endpoint in endpoints:
                self.requests.at(model, endpoint, status_class(500))
            for priority in Priority:
                self.queue_depth.at(model, priority.value)

    def series_of(self, model: str) -> _ModelSeries:
        series = self._models.get(model)
        if series is None:
            series = self._models[model] = _ModelSeries(
                inflight=self.inflight.at(model),
                ttft=self.ttft.at(model),
                tpot=self.tpot.at(model),
                duration=self.duration.at(model),
                prompt_tokens=self.tokens.at(model, "prompt"),
                completion_tokens=self.tokens.at(model, "completion"),
            )
        return series

    def expect_own_routes(self, groups: Collection[str]) -> None:
        """The groups of our own routes, and what may break before a call has a model: all at zero, as models are."""
        for group in groups:
            self.requests.at(OTHER, group, status_class(500))
        self.failures.at(OTHER, INTERNAL_ERROR)

    def observe_call(self, call: Call, priority: Priority) -> None:
        """Count one finished call and write its log line."""
        opened, timing, usage = call.opened, call.timing, call.usage
        series = self.series_of(opened.model)
        self.requests.at(opened.model, opened.endpoint, status_class(call.http_status)).value += 1
        self.calls.at(opened.model, call.status.value, call.provenance.value, priority.value).value += 1
        if call.status is CallStatus.TRUNCATED or (call.http_status or 0) >= 500:
            is_put_off = call.error_code == QUEUE_FULL and priority in _BACKGROUND
            self._count_failure(opened.model, BACKGROUND_QUEUE_FULL if is_put_off else call.error_code)
        if timing.ttft_s is not None:
            series.ttft.observe(timing.ttft_s)
        if timing.tpot_s is not None:
            series.tpot.observe(timing.tpot_s)
        if timing.e2e_s is not None:
            series.duration.observe(timing.e2e_s)
        if timing.overhead_s is not None:
            self.overhead.observe(timing.overhead_s)
        if timing.queue_s is not None:
            self.queue.observe(timing.queue_s)
        if usage.prompt_tokens:
            series.prompt_tokens.value += usage.prompt_tokens
        if usage.completion_tokens:
            series.completion_tokens.value += usage.completion_tokens
        cost = call.cost
        if cost.amount is not None and cost.currency is not None:
            counter = self.provisional_cost if cost.basis == "gpu_time_provisional" else self.cost
            counter.at(opened.model, cost.currency, cost.basis).value += float(cost.amount)
        self._log_call(
            {
                "event": "call",
                "timestamp": call.ended_at,
                "request_id": opened.request_id,
                "call_id": opened.id,
                "organisation": opened.organisation,
                "key": opened.key,
                "model": opened.model,
                "replica": call.replica,
                "endpoint": opened.endpoint,
                "streamed": opened.streamed,
                "status": call.status,
                "http_status": call.http_status,
                "error": call.error_code,
                "attempts": call.attempts,
                "provenance": call.provenance,
                "ttft_s": _rounded(timing.ttft_s),
                "e2e_s": _rounded(timing.e2e_s),
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
            }
        )

    def count_settled(self, model: str, currency: str, amount: Decimal) -> None:
        """Count what settlement added to, or took off, the settled cost of a model's calls."""
        net = amount - self._overcounted.pop((model, currency), Decimal(0))
        if net < 0:
            self._overcounted[model, currency] = -net
        else:
            self.cost.at(model, currency, "gpu_time").value += float(net)

    def observe_refusal(
        self, endpoint: str, status: int, code: str | None, request_id: str, model: str = OTHER
    ) -> None:
        """Count and log a request that was answered before it became a call."""
        self.requests.at(model, endpoint, status_class(status)).value += 1
        if status >= 500:
            self._count_failure(model, code)
        self._log.info("refused", request_id=request_id, endpoint=endpoint, http_status=status, error=code)

    def count_own(self, endpoint: str, status: int) -> None:
        """Count a request to one of our own routes."""
        self.requests.at(OTHER, endpoint, status_class(status)).value += 1

    def _count_failure(self, model: str, code: str | None) -> None:
        self.failures.at(model, code if code in FAILURES else OTHER).value += 1

    def count_background_failure(self, work: str) -> None:
        self._background_failures.at(work).value += 1

    def forget_replica(self, model: str, replica: str) -> None:
        """Drop the series of a replica that is gone from the registry."""
        for gauge in (self.replica_up, self.replica_breaker):
            if (model, replica) in gauge._metrics:
                gauge.remove(model, replica)

    def forget_name(self, name: str) -> None:
        """Drop the series of a name that is gone from the registry."""
        if (name,) in self.name_failing._metrics:
            self.name_failing.remove(name)

    def render(self) -> bytes:
        self._log_lines_lost.value = log_stream().lost
        return generate_latest(self.registry)


def status_class(status: int | None) -> str:
    return f"{status // 100}xx" if status else "none"


def _rounded(seconds: float | None) -> float | None:
    return round(seconds, 6) if seconds is not None else None
