"""What may be claimed, as data: each metric with its unit, its statistics, and why some cannot be tested here.

The one list for the registry, for an assessor's file and for the verdicts. Whether a claim is true belongs to claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.domain.kv_layers import KV_DTYPES


class MetricKind(StrEnum):
    """What a claim is answered with."""

    FIT = "fit"
    """Memory: arithmetic may refute it, a start with a saturating load settles it."""
    LATENCY = "latency"
    """Seconds: rooflines may refute it, a load run settles it."""
    RATE = "rate"
    """Tokens or requests a second: as latency."""
    PRICE = "price"
    """Money for a million tokens: a price list, or GPU prices over a rate."""
    FACT = "fact"
    """A property of the checkpoint: what an engine resolves settles it."""
    OTHER = "other"
    """Nothing here tests it."""


@dataclass(frozen=True, slots=True)
class Metric:
    kind: MetricKind
    words: str
    unit: str | None = None
    """The unit of its value; None = has no value, or a currency where the kind is price."""
    comparison: str = "at_most"
    """What holds where a claim does not say."""
    statistics: tuple[str, ...] = ()
    why_not: str | None = None
    """Why it is not testable here, and what Simsa can say instead."""


STATISTICS = ("p50", "p95", "p99", "mean", "attainment")
COMPARISONS = ("at_most", "at_least", "equals")
LEAST_N = {"p99": 500}
"""Requests without which a statistic is not printed, and settles nothing."""


def _other(words: str, why_not: str, unit: str | None = None) -> Metric:
    return Metric(MetricKind.OTHER, words, unit, comparison="at_least", why_not=why_not)


METRICS: dict[str, Metric] = {
    "fits_single_gpu": Metric(MetricKind.FIT, "runs on one GPU"),
    "fits_gpus": Metric(MetricKind.FIT, "runs on so many GPUs"),
    "ttft_s": Metric(MetricKind.LATENCY, "time to first token", "s", statistics=STATISTICS),
    "tpot_s": Metric(MetricKind.LATENCY, "time per output token", "s", statistics=STATISTICS),
    "itl_s": Metric(MetricKind.LATENCY, "gap between events", "s", statistics=STATISTICS),
    "e2e_s": Metric(MetricKind.LATENCY, "time to the last token", "s", statistics=STATISTICS),
    "output_tokens_per_s": Metric(
        MetricKind.RATE, "throughput of all requests together", "tokens/s", "at_least", ("mean",)
    ),
    "output_tokens_per_s_per_user": Metric(
        MetricKind.RATE, "pace of one stream", "tokens/s", "at_least", ("p50", "mean")
    ),
    "requests_per_s": Metric(MetricKind.RATE, "rate of answered requests", "requests/s", "at_least", ("mean",)),
    "price_per_mtok_in": Metric(MetricKind.PRICE, "price of a million input tokens"),
    "price_per_mtok_out": Metric(MetricKind.PRICE, "price of a million output tokens"),
    "params": Metric(MetricKind.FACT, "parameters", "parameters", "equals"),
    "context": Metric(MetricKind.FACT, "longest context", "tokens", "at_least"),
    "rank": _other(
        "rank on a public list",
        "A rank is the list's to show. Blind rounds rank the candidates among themselves.",
        "rank",
    ),
    "downloads": _other("downloads", "Downloads are counted by the hub, not here.", "downloads"),
    "benchmark": _other(
        "score in a benchmark",
        "Its benchmark is not run here. Blind rounds with prompts of the jury speak to quality.",
        "points",
    ),
    "quality": _other("quality, without a figure", "No figure is claimed. Blind rounds speak to quality."),
    "efficiency": _other(
        "efficiency, without a figure",
        "No figure is claimed. With a TTFT, a TPOT, a rate or a price, and the GPU, it could be tested.",
    ),
    "openness": _other(
        "weights that are public",
        "Whether and on which terms weights are public is a matter of record: see the licence in the registry.",
    ),
    "adoption": _other(
        "who uses it",
        "Use is not seen from here. Blind rounds by industry speak to how widely it can be applied.",
    ),
    "partners": _other("who takes part", "Who takes part is a matter of record, and no property of a model."),
    "gpu_supply": _other(
        "where its GPUs come from",
        "A supply of GPUs is not seen from here. What the candidate needs of them is in the feasibility matrix.",
    ),
    "approach": _other("how it is built or run", "A way of working is described, and no figure is claimed."),
}
FORMATS = ("fp32", "bf16", "fp16", "fp8", "int8", "int4", "awq", "nvfp4", "mxfp4")
"""Number formats that a claim may name for weights."""
KV_FORMATS = ("bf16", "fp16", *sorted(KV_DTYPES))
"""Formats that a claim may name for the KV cache: those of vLLM, and short names for its 16 bits."""
