"""What a simulated engine reports under /metrics: vLLM's V1 names, labels and buckets, in a registry of its own.

Only the families that somebody watches. The one series that is not vLLM's carries our own prefix: it tells when
this machine was too slow to keep the simulated time.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from gateway.domain.engine_model import GPU_MEMORY_UTILIZATION, EngineLimits, Scheduler, max_concurrency
from gateway.domain.kv_cache import KvLayout

_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_BETWEEN_TOKENS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_STEP_TOKENS = tuple(float(2**power) for power in (0, *range(3, 15)))
_SETTINGS: dict[str, object] = {
    "_block_size_resolved": True,
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": None,
    "enable_mamba_shared_prefix_checkpoint": False,
    "enable_prefix_caching": False,
    "hash_block_size": None,
    "is_attention_free": False,
    "kv_cache_dtype_skip_layers": [],
    "kv_cache_layout": None,
    "kv_cache_memory_bytes": None,
    "kv_offloading_backend": "native",
    "kv_offloading_size": None,
    "kv_sharing_fast_prefill": False,
    "mamba_block_size": None,
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": None,
    "mamba_ssm_cache_dtype": "auto",
    "num_cpu_blocks": None,
    "num_gpu_blocks_override": None,
    "prefix_cache_retention_interval": 0,
    "prefix_caching_hash_algo": "sha256",
    "prefix_match_unit": None,
    "replayssm_buffer_len": 16,
    "skip_page_size_padded": None,
    "swa_bounded_replay": True,
    "use_kda_recoverssm": False,
    "use_replayssm": False,
    "user_specified_block_size": False,
}
"""The labels of vLLM 0.32's cache_config_info that are the same for every simulated engine. All but the absent prefix
cache are vLLM's defaults, and stand for what is not simulated at all."""
_FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")


class EngineMetrics:
    """The series of one engine. Gauges are read from the scheduler whenever somebody looks."""

    def __init__(self, model_name: str, scheduler: Scheduler) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._labels = {"model_name": model_name, "engine": "0"}
        self._watch(scheduler)
        self.preemptions = self._counter("num_preemptions", "Cumulative number of preemption from the engine.")
        self.prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self.generation_tokens = self._counter("generation_tokens", "Number of generation tokens processed.")
        self._counter("prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.")
        self._counter("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.")
        self._success = self._finished_counter()
        self.step_tokens = self._histogram(
            "iteration_tokens_total", "Histogram of number of tokens per engine_step.", _STEP_TOKENS
        )
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "Histogram of time to first token in seconds.", _FIRST_TOKEN
        )
        self.between_tokens = self._histogram(
            "inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _BETWEEN_TOKENS
        )
        self.per_token = self._histogram(
            "request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            _BETWEEN_TOKENS,
        )
        self.end_to_end = self._histogram(
            "e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", _REQUEST
        )
        self.queued = self._histogram(
            "request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", _REQUEST
        )
        self.late = self._late_counter()

    def describe_cache(self, limits: EngineLimits, layout: KvLayout) -> None:
        """Set `vllm:cache_config_info`: what the engine resolved at start."""
        concurrency = max_concurrency(limits, layout)
        facts = _SETTINGS | {
            "block_size": limits.block_size,
            "effective_attention_block_size": limits.block_size if layout.full_layers else None,
            "engine": "0",
            "gpu_memory_utilization": GPU_MEMORY_UTILIZATION,
            "kv_cache_max_concurrency": concurrency,
            "kv_cache_size_tokens": int(concurrency * limits.max_model_len),
            "num_gpu_blocks": limits.num_gpu_blocks,
            "sliding_window": layout.window if not layout.full_layers else None,
        }
        info = Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            list(facts),
            registry=self.registry,
        )
        info.labels(**{name: str(value) for name, value in facts.items()}).set(1)

    def finished(self, reason: str) -> None:
        self._success.labels(**self._labels, finished_reason=reason).inc()

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def _watch(self, scheduler: Scheduler) -> None:
        running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        running.set_function(lambda: scheduler.running)
        waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        waiting.set_function(lambda: scheduler.waiting)
        usage = self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        usage.set_function(lambda: scheduler.kv_usage)

    def _finished_counter(self) -> Counter:
        counter = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            [*self._labels, "finished_reason"],
            registry=self.registry,
        )
        for reason in _FINISH_REASONS:
            counter.labels(**self._labels, finished_reason=reason)
        return counter

    def _late_counter(self) -> Counter:
        return Counter(
            "simsa_engine_late_seconds",
            "Seconds by which this machine was too slow for the simulated time, and which were given up.",
            list(self._labels),
            registry=self.registry,
        ).labels(**self._labels)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, list(self._labels), registry=self.registry).labels(**self._labels)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, list(self._labels), registry=self.registry).labels(**self._labels)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"vllm:{name}", text, list(self._labels), registry=self.registry, buckets=buckets).labels(
            **self._labels
        )
