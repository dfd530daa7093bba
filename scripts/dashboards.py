"""Writes the Grafana dashboards, deploy/helm/files/dashboards/*.json, from the descriptions below.

The description says what is looked at: title, unit, queries, and one sentence on how to read it. All that Grafana wants
besides (identifiers, places, colours, its schema of version 11 and 12) is added here, alike for every panel.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "deploy" / "helm" / "files" / "dashboards"
SCHEMA_VERSION = 39
"""Grafana 11.0's; later ones read it and bring it up to date themselves."""
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
ALL = {"text": ["All"], "value": ["$__all"]}

Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """`kind`: timeseries, stat, table, state-timeline. `steps`: from which value on it has which colour, `lowest`
    before the first.
    """

    title: str
    unit: str
    text: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    steps: Mapping[float, str] = field(default_factory=dict)
    lowest: str = "green"
    most: float | None = None
    is_stacked: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """Choices read from the labels of a series."""

    name: str
    label: str
    series: str
    of: str


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    text: str
    variables: Sequence[Variable]
    rows: Sequence[Row]


RELEASE = 'namespace=~"$namespace",job=~"$job"'
MODEL = f'{RELEASE},model=~"$model"'
REPLICA = f'{MODEL},replica=~"$replica"'
ENGINE = f'{RELEASE},model_name=~"$model",instance=~"$instance"'
GOOD_AT_1: Json = {"lowest": "red", "steps": {1: "green"}}
BAD_FROM_1: Json = {"steps": {1: "red"}}

GATEWAY = Dashboard(
    uid="simsa-gateway",
    title="Simsa / gateway",
    text="What callers get, how fast, from whom, and whether it is kept. Alerts: docs/runbook.md.",
    variables=(
        Variable("namespace", "Namespace", "simsa_registry_info", "namespace"),
        Variable("job", "Job", 'simsa_registry_info{namespace=~"$namespace"}', "job"),
        Variable("model", "Model", f"simsa_model_expected{{{RELEASE}}}", "model"),
        Variable("replica", "Replica", f"simsa_replica_up{{{MODEL}}}", "replica"),
    ),
    rows=(
        Row(
            "At a glance",
            (
                Panel(
                    "Models without a replica",
                    "short",
                    "Models that are to be served and that no gateway sees a live replica of: calls to them get 503.",
                    (
                        Query(
                            f"count(group by (namespace, job, model) (simsa_model_expected{{{MODEL}}}) unless on"
                            " (namespace, job, model) group by (namespace, job, model) (simsa_replica_up == 1))"
                            f" or 0 * count(simsa_model_expected{{{MODEL}}})"
                        ),
                    ),
                    kind="stat",
                    width=4,
                    height=4,
                    **BAD_FROM_1,
                ),
                Panel(
                    "Answers that fail",
                    "percentunit",
                    "Share of answers (2xx and 5xx) in 5 minutes that were a 5xx or a stream cut after its beginning.",
                    (
                        Query(
                            f"sum(job_model:simsa_failures:rate5m{{{MODEL}}})"
                            f" / (sum(job_model:simsa_answers:rate5m{{{MODEL}}}) > 0)"
                        ),
                    ),
                    kind="stat",
                    width=4,
                    height=4,
                    steps={0.01: "orange", 0.144: "red"},
                ),
                Panel(
                    "Requests a second",
                    "reqps",
                    "All requests to models in 5 minutes, whatever became of them.",
                    (Query(f"sum(job_model_status_class:simsa_requests:rate5m{{{MODEL}}})"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Calls that wait",
                    "short",
                    "Calls in the gateway's queues for want of a place on a replica.",
                    (Query(f"sum(job_model_priority:simsa_queue_depth:sum{{{MODEL}}})"),),
                    kind="stat",
                    width=4,
                    height=4,
                    steps={5: "orange", 100: "red"},
                ),
                Panel(
                    "Room for records",
                    "percentunit",
                    "How much of the room for records that wait for the database is used; at 100 % calls are refused.",
                    (Query(f"max(simsa_recorder_queued{{{RELEASE}}} / simsa_recorder_capacity{{{RELEASE}}})"),),
                    kind="stat",
                    width=4,
                    height=4,
                    steps={0.1: "orange", 0.5: "red"},
                ),
                Panel(
                    "Gateways",
                    "short",
                    "Gateways that are scraped.",
                    (Query(f"count(simsa_registry_info{{{RELEASE}}})"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Alerts",
                    "short",
                    "Simsa's alerts, pending and firing, each with its section in docs/runbook.md.",
                    (
                        Query(
                            'sum by (alertname, alertstate, severity, model, instance) (ALERTS{alertname=~"Simsa.+"})'
                        ),
                    ),
                    kind="table",
                    width=12,
                ),
                Panel(
                    "Provenance: what the answers are worth",
                    "short",
                    "Calls in the time shown, by what the answering engine is. Only `real` (the registry's weights on "
                    "the hardware named) may feed verdicts and rankings; `stand_in` and `simulated` are for trying; of "
                    "`unknown` nothing proves what it is. Every other panel mixes them.",
                    (Query(f"sum by (model, provenance) (increase(simsa_calls_total{{{MODEL}}}[$__range])) > 0"),),
                    kind="table",
                    width=12,
                ),
            ),
        ),
        Row(
            "Calls",
            (
                Panel(
                    "Requests by status class",
                    "reqps",
                    "4xx are callers' mistakes and limits, and callers who left; 5xx are ours or an engine's.",
                    (
                        Query(
                            f"sum by (status_class) (job_model_status_class:simsa_requests:rate5m{{{MODEL}}})",
                            "{{status_class}}",
                        ),
                    ),
                    is_stacked=True,
                ),
                Panel(
                    "Failures by code",
                    "reqps",
                    "What failed, by the code that callers see (docs/behaviour.md, Errors).",
                    (
                        Query(
                            f"sum by (code) (rate(simsa_failures_total{{{MODEL}}}[$__rate_interval])) > 0", "{{code}}"
                        ),
                    ),
                    is_stacked=True,
                ),
                Panel(
                    "Share of answers that fail",
                    "percentunit",
                    "The objective is 1 % over a month; 14.4 % over an hour wakes somebody, 6 % over six hours is for "
                    "tomorrow.",
                    (
                        Query(f"job_model:simsa_failures:ratio_rate5m{{{MODEL}}}", "{{model}} 5 min"),
                        Query(f"job_model:simsa_failures:ratio_rate1h{{{MODEL}}}", "{{model}} 1 h"),
                        Query(f"job_model:simsa_failures:ratio_rate6h{{{MODEL}}}", "{{model}} 6 h"),
                    ),
                    steps={0.06: "orange", 0.144: "red"},
                    most=1,
                ),
                Panel(
                    "Calls by ending",
                    "reqps",
                    "`ok`, `error`, `upstream_truncated` (cut after its beginning, under status 200), `cancelled` (the "
                    "caller left).",
                    (
                        Query(
                            f"sum by (status) (rate(simsa_calls_total{{{MODEL}}}[$__rate_interval]))",
                            "{{status}}",
                        ),
                    ),
                    is_stacked=True,
                ),
                Panel(
                    "In flight",
                    "short",
                    "Calls being served, by model; those that wait in the queue are among them.",
                    (Query(f"sum by (model) (simsa_inflight_requests{{{MODEL}}})", "{{model}}"),),
                ),
                Panel(
                    "Waiting, by class",
                    "short",
                    "Reviewers go before interactive callers, these before batches, these before load tests, which "
                    "wait on purpose.",
                    (
                        Query(
                            f"sum by (priority) (job_model_priority:simsa_queue_depth:sum{{{MODEL}}})", "{{priority}}"
                        ),
                    ),
                    is_stacked=True,
                ),
            ),
        ),
        Row(
            "Speed",
            (
                Panel(
                    "Time to first token, p95",
                    "s",
                    "Streamed calls, from request accepted to the first event with a token: 95 of 100 had it by then.",
                    (
                        Query(
                            f"job_model:simsa_time_to_first_token_seconds:p95_rate5m{{{MODEL}}}",
                            "{{model}}",
                        ),
                    ),
                ),
                Panel(
                    "Streams that begin late",
                    "percentunit",
                    "Share of streamed calls whose first token took more than 5 s. The objective is 5 %.",
                    (Query(f"job_model:simsa_first_tokens_late:ratio_rate1h{{{MODEL}}}", "{{model}} 1 h"),),
                    steps={0.1: "orange", 0.5: "red"},
                    most=1,
                ),
                Panel(
                    "Time per output token, median",
                    "s",
                    "Streamed calls, first event to last, per token after the first event. 1 ÷ it is a reader's tokens "
                    "a second.",
                    (
                        Query(
                            f"job_model:simsa_time_per_output_token_seconds:p50_rate5m{{{MODEL}}}",
                            "{{model}}",
                        ),
                    ),
                ),
                Panel(
                    "Duration, median and p95",
                    "s",
                    "Request accepted to end of the answer.",
                    tuple(
                        Query(
                            f"histogram_quantile({quantile}, sum by (model, le)"
                            f" (rate(simsa_request_duration_seconds_bucket{{{MODEL}}}[$__rate_interval])))",
                            "{{model}} " + name,
                        )
                        for quantile, name in ((0.5, "median"), (0.95, "p95"))
                    ),
                ),
                Panel(
                    "Time in the queue, p95",
                    "s",
                    "All models together; who waits for SIMSA_QUEUE_WAIT_S (30 s) gets 503.",
                    (Query(f"job:simsa_queue_seconds:p95_rate5m{{{RELEASE}}}", "{{job}}"),),
                ),
                Panel(
                    "The gateway's own time, p99",
                    "s",
                    "Before the engine is asked, queue excluded.",
                    (Query(f"job:simsa_overhead_seconds:p99_rate5m{{{RELEASE}}}", "{{job}}"),),
                    steps={0.05: "red"},
                ),
            ),
        ),
        Row(
            "Tokens and money",
            (
                Panel(
                    "Tokens a second",
                    "short",
                    "By the engines' own counts, as calls end. Tokens of two models are not the same amount of text.",
                    (
                        Query(
                            f"sum by (model, kind) (job_model_kind:simsa_tokens:rate5m{{{MODEL}}})",
                            "{{model}} {{kind}}",
                        ),
                    ),
                ),
                Panel(
                    "Settled cost in the time shown",
                    "short",
                    "Hosted APIs at their price, GPU time once its minutes are settled; in the currency named.",
                    (
                        Query(
                            f"sum by (model, currency, basis) (increase(simsa_cost_total{{{MODEL}}}[$__range])) > 0",
                        ),
                    ),
                    kind="table",
                ),
                Panel(
                    "One GPU: predicted",
                    "short",
                    "1 where the model is predicted to fit the GPU named at the settings' context. A prediction, never "
                    "a measurement.",
                    (Query(f"max by (model, gpu) (simsa_feasibility_fits{{{MODEL}}})"),),
                    kind="table",
                ),
            ),
        ),
        Row(
            "Replicas",
            (
                Panel(
                    "Up",
                    "short",
                    "1: at least one gateway sees the replica up.",
                    (
                        Query(
                            f"max by (model, replica) (simsa_replica_up{{{REPLICA}}})",
                            "{{model}} {{replica}}",
                        ),
                    ),
                    kind="state-timeline",
                    **GOOD_AT_1,
                    width=12,
                ),
                Panel(
                    "Left alone",
                    "short",
                    "1: its calls failed in a row, so it gets trials only (docs/behaviour.md, Replicas that fail).",
                    (
                        Query(
                            f"max by (model, replica) (simsa_replica_breaker{{{REPLICA}}})",
                            "{{model}} {{replica}}",
                        ),
                    ),
                    kind="state-timeline",
                    **BAD_FROM_1,
                    width=12,
                ),
            ),
        ),
        Row(
            "Records",
            (
                Panel(
                    "Records that wait",
                    "short",
                    "Not yet in the database, beside the number at which calls are refused.",
                    (
                        Query(f"simsa_recorder_queued{{{RELEASE}}}", "{{instance}}"),
                        Query(f"min(simsa_recorder_capacity{{{RELEASE}}})", "refused at"),
                    ),
                ),
                Panel(
                    "Oldest record that waits",
                    "s",
                    "Grows while the database is away; a quarter of a second else.",
                    (Query(f"simsa_recorder_lag_seconds{{{RELEASE}}}", "{{instance}}"),),
                ),
                Panel(
                    "Spool",
                    "bytes",
                    "What of the records lies on the gateway's disk.",
                    (Query(f"simsa_recorder_spooled_bytes{{{RELEASE}}}", "{{instance}}"),),
                ),
                Panel(
                    "Failing",
                    "short",
                    "1 while database or spool cannot be written.",
                    (Query(f"simsa_recorder_failing{{{RELEASE}}}", "{{instance}} {{part}}"),),
                    kind="state-timeline",
                    **BAD_FROM_1,
                ),
                Panel(
                    "Lost and interrupted since the start",
                    "short",
                    "Records that could not be kept; calls that an earlier process had not ended.",
                    (
                        Query(f"simsa_recorder_lost{{{RELEASE}}}", "{{instance}} lost"),
                        Query(f"simsa_recorder_interrupted{{{RELEASE}}}", "{{instance}} interrupted"),
                    ),
                ),
                Panel(
                    "Settlement is behind by",
                    "s",
                    "Since some gateway was last through with the minutes of GPU time that were due.",
                    (
                        Query(
                            "time() - max by (namespace, job)"
                            f" (simsa_settlement_caught_up_timestamp_seconds{{{RELEASE}}} > 0)",
                            "{{job}}",
                        ),
                    ),
                    steps={1800: "red"},
                ),
            ),
        ),
        Row(
            "Gateways",
            (
                Panel(
                    "Event loop runs late by",
                    "s",
                    "Every stream through the gateway stutters by as much.",
                    (Query(f"simsa_event_loop_lag_seconds{{{RELEASE}}}", "{{instance}}"),),
                    steps={0.1: "red"},
                ),
                Panel(
                    "Registry in use",
                    "short",
                    "One digest for all gateways, or they answer differently.",
                    (Query(f"count by (sha256) (simsa_registry_info{{{RELEASE}}})"),),
                    kind="table",
                ),
                Panel(
                    "Registry valid, limits shared",
                    "short",
                    "0: the file on the disk is broken and the one before is in use; each gateway counts limits alone.",
                    (
                        Query(f"simsa_registry_valid{{{RELEASE}}}", "{{instance}} valid"),
                        Query(f"simsa_limits_shared{{{RELEASE}}}", "{{instance}} shared"),
                    ),
                    kind="state-timeline",
                    **GOOD_AT_1,
                ),
                Panel(
                    "Background work that failed",
                    "short",
                    "Unexpected failures, each begun anew after a second; the log has the traceback.",
                    (
                        Query(
                            "sum by (instance, work)"
                            f" (increase(simsa_background_failures_total{{{RELEASE}}}[$__rate_interval]))",
                            "{{instance}} {{work}}",
                        ),
                    ),
                ),
                Panel(
                    "Log lines lost",
                    "short",
                    "Lines that could not be written; calls and records are not affected.",
                    (Query(f"increase(simsa_log_lines_lost_total{{{RELEASE}}}[$__rate_interval])", "{{instance}}"),),
                ),
            ),
        ),
    ),
)


def over_time(series: str, quantile: float) -> str:
    """A quantile of one of the engines' histograms."""
    return f"histogram_quantile({quantile}, sum by (model_name, le) (rate({series}{{{ENGINE}}}[$__rate_interval])))"


ENGINES = Dashboard(
    uid="simsa-engines",
    title="Simsa / engines",
    text="What vLLM engines say of themselves (series of vLLM 0.32). What callers see of them is on Simsa / gateway.",
    variables=(
        Variable("namespace", "Namespace", "vllm:num_requests_running", "namespace"),
        Variable("job", "Job", 'vllm:num_requests_running{namespace=~"$namespace"}', "job"),
        Variable("model", "Served model name", f"vllm:num_requests_running{{{RELEASE}}}", "model_name"),
        Variable("instance", "Replica", f'vllm:num_requests_running{{{RELEASE},model_name=~"$model"}}', "instance"),
    ),
    rows=(
        Row(
            "At a glance",
            (
                Panel(
                    "Engines",
                    "short",
                    "Engines that are scraped.",
                    (Query(f"count(group by (instance, engine) (vllm:num_requests_running{{{ENGINE}}}))"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Running",
                    "short",
                    "Requests in the engines' batches.",
                    (Query(f"sum(vllm:num_requests_running{{{ENGINE}}})"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Waiting",
                    "short",
                    "Requests inside engines that are in no batch yet; here the gateway's classes do not count.",
                    (Query(f"sum(vllm:num_requests_waiting{{{ENGINE}}})"),),
                    kind="stat",
                    width=4,
                    height=4,
                    steps={10: "orange", 100: "red"},
                ),
                Panel(
                    "Fullest KV cache",
                    "percentunit",
                    "Of the engine that has least room.",
                    (Query(f"max(vllm:kv_cache_usage_perc{{{ENGINE}}})"),),
                    kind="stat",
                    width=4,
                    height=4,
                    steps={0.8: "orange", 0.95: "red"},
                ),
                Panel(
                    "Tokens made a second",
                    "short",
                    "Generated tokens of all engines in 5 minutes.",
                    (Query(f"sum(rate(vllm:generation_tokens_total{{{ENGINE}}}[5m]))"),),
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Restarts in the time shown",
                    "short",
                    "Times that engines began anew.",
                    (
                        Query(
                            f"sum(changes(process_start_time_seconds{{{RELEASE}}}[$__range])"
                            f" and on (namespace, job, instance) vllm:num_requests_running{{{ENGINE}}})"
                        ),
                    ),
                    kind="stat",
                    width=4,
                    height=4,
                    **BAD_FROM_1,
                ),
                Panel(
                    "Provenance: what these figures are worth",
                    "short",
                    "Calls through the gateway in the time shown, by what the answering engine is. Figures of engines "
                    "that are `stand_in` (random weights) or `simulated` say nothing about a candidate.",
                    (Query("sum by (model, provenance) (increase(simsa_calls_total[$__range])) > 0"),),
                    kind="table",
                    width=12,
                ),
                Panel(
                    "KV cache as resolved at the start",
                    "short",
                    "Blocks, block size, tokens and the dtype that each engine settled on.",
                    (
                        Query(
                            "max by (instance, engine, num_gpu_blocks, block_size, kv_cache_size_tokens, cache_dtype,"
                            " gpu_memory_utilization, enable_prefix_caching)"
                            f' (vllm:cache_config_info{{{RELEASE},instance=~"$instance"}})'
                        ),
                    ),
                    kind="table",
                    width=12,
                ),
            ),
        ),
        Row(
            "Load",
            (
                Panel(
                    "Running",
                    "short",
                    "Requests in the batch of each engine.",
                    (Query(f"vllm:num_requests_running{{{ENGINE}}}", "{{model_name}} {{instance}}"),),
                ),
                Panel(
                    "Waiting",
                    "short",
                    "Requests in no batch yet. The gateway keeps them in its own queue as long as max_in_flight fits.",
                    (Query(f"vllm:num_requests_waiting{{{ENGINE}}}", "{{model_name}} {{instance}}"),),
                ),
                Panel(
                    "KV cache in use",
                    "percentunit",
                    "Above 95 % new requests wait and running ones are preempted.",
                    (Query(f"vllm:kv_cache_usage_perc{{{ENGINE}}}", "{{model_name}} {{instance}}"),),
                    steps={0.95: "red"},
                    most=1,
                ),
                Panel(
                    "Preemptions a second",
                    "short",
                    "Requests put back into the queue for want of cache, and computed again.",
                    (
                        Query(
                            f"rate(vllm:num_preemptions_total{{{ENGINE}}}[$__rate_interval])",
                            "{{model_name}} {{instance}}",
                        ),
                    ),
                    steps={0.05: "red"},
                ),
                Panel(
                    "Prefix cache hits",
                    "percentunit",
                    "Share of the prompts' tokens that were found in the cache. Warm caches make first tokens early.",
                    (
                        Query(
                            f'job_model_name:vllm_prefix_cache_hits:ratio_rate5m{{{RELEASE},model_name=~"$model"}}',
                            "{{model_name}}",
                        ),
                    ),
                    most=1,
                ),
                Panel(
                    "Refused for want of room",
                    "reqps",
                    "Requests that engines turned away because their own queue was full.",
                    (
                        Query(
                            "sum by (model_name, reason) (rate(vllm:admission_rejections_total"
                            f'{{{RELEASE},model_name=~"$model",instance=~"$instance"}}[$__rate_interval]))',
                            "{{model_name}} {{reason}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Tokens",
            (
                Panel(
                    "Prompt tokens read a second",
                    "short",
                    "Prefill, cached tokens included.",
                    (
                        Query(
                            f"rate(vllm:prompt_tokens_total{{{ENGINE}}}[$__rate_interval])",
                            "{{model_name}} {{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Tokens made a second",
                    "short",
                    "Decode.",
                    (
                        Query(
                            f"rate(vllm:generation_tokens_total{{{ENGINE}}}[$__rate_interval])",
                            "{{model_name}} {{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Requests by ending",
                    "reqps",
                    "`stop` and `length` are whole answers, `abort` is a caller who left, `error` is the engine's own "
                    "failure.",
                    (
                        Query(
                            "sum by (finished_reason)"
                            f" (rate(vllm:request_success_total{{{ENGINE}}}[$__rate_interval]))",
                            "{{finished_reason}}",
                        ),
                    ),
                    is_stacked=True,
                ),
            ),
        ),
        Row(
            "Speed, by the engines' own clocks",
            (
                Panel(
                    "Time to first token",
                    "s",
                    "From arrival at the engine; the gateway's queue and the network come on top.",
                    (
                        Query(over_time("vllm:time_to_first_token_seconds_bucket", 0.5), "{{model_name}} median"),
                        Query(over_time("vllm:time_to_first_token_seconds_bucket", 0.95), "{{model_name}} p95"),
                    ),
                ),
                Panel(
                    "Between two tokens",
                    "s",
                    "Each gap counts; a long prompt beside it makes one long.",
                    (
                        Query(over_time("vllm:inter_token_latency_seconds_bucket", 0.5), "{{model_name}} median"),
                        Query(over_time("vllm:inter_token_latency_seconds_bucket", 0.99), "{{model_name}} p99"),
                    ),
                ),
                Panel(
                    "Waited inside the engine, p95",
                    "s",
                    "From arrival to the first batch.",
                    (Query(over_time("vllm:request_queue_time_seconds_bucket", 0.95), "{{model_name}}"),),
                ),
                Panel(
                    "Whole request",
                    "s",
                    "From arrival to the last token.",
                    (
                        Query(over_time("vllm:e2e_request_latency_seconds_bucket", 0.5), "{{model_name}} median"),
                        Query(over_time("vllm:e2e_request_latency_seconds_bucket", 0.95), "{{model_name}} p95"),
                    ),
                ),
                Panel(
                    "Tokens a step",
                    "short",
                    "Mean tokens that one step of the engine works on: prompts' and made ones.",
                    (
                        Query(
                            f"sum by (model_name) (rate(vllm:iteration_tokens_total_sum{{{ENGINE}}}[$__rate_interval]))"
                            " / sum by (model_name)"
                            f" (rate(vllm:iteration_tokens_total_count{{{ENGINE}}}[$__rate_interval]))",
                            "{{model_name}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)

DASHBOARDS = (GATEWAY, ENGINES)


def written(dashboard: Dashboard) -> str:
    """The file's content."""
    document = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["simsa"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [
            {"type": "dashboards", "title": "Simsa", "tags": ["simsa"], "asDropdown": False, "includeVars": False}
        ],
        "annotations": {"list": []},
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "panels": list(_panels(dashboard.rows)),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _datasource() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.series}, {variable.of})"
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # also where no series has the label at all
        "current": ALL,
        "hide": 0,
    }


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    """Rows from top to bottom, panels from left to right, on Grafana's grid."""
    number, top = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            "panels": [],
        }
        top, left, tallest = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            number += 1
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield _panel(panel, number, place)
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [_target(panel, place, query) for place, query in enumerate(panel.queries)],
        **({"transformations": _TABLE} if panel.kind == "table" else {}),
    }


def _defaults(panel: Panel) -> Json:
    steps: list[Json] = [{"color": panel.lowest, "value": None}]
    steps += [{"color": colour, "value": value} for value, colour in sorted(panel.steps.items())]
    defaults: Json = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind in {"stat", "state-timeline"}:
        defaults["color"] = {"mode": "thresholds"}
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 20 if panel.is_stacked else 5,
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
        }
    return defaults


def _target(panel: Panel, place: int, query: Query) -> Json:
    is_instant = panel.kind in {"stat", "table"}
    return {
        "refId": chr(ord("A") + place),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": is_instant,
        "range": not is_instant,
        "format": "table" if panel.kind == "table" else "time_series",
    }


_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True}
_OPTIONS: Mapping[str, Json] = {
    "timeseries": {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "value",
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
    "state-timeline": {"showValue": "never", "mergeValues": True, "legend": _LEGEND, "tooltip": {"mode": "single"}},
}
_TABLE = [{"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "value"}}}]


def main(directory: Path = OUT) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        (directory / f"{dashboard.uid}.json").write_text(written(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
