"""What a measured GPU says of the registry's accelerator table: the comparison, and the page about it. Pure.

Medians with their intervals from every repetition; a measurement above the table's ceiling says that the table is
wrong. Nothing here measures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.measure import median_interval
from gateway.domain.records import Gpu
from gateway.domain.roofline import EXPECTED

GIB = 2**30
SAME_MEMORY = 0.15
"""By which share two sizes of memory may differ and still be the same product."""
TABLE_WRONG = 1.02
"""Above this share of the table's value a measurement is no noise: no device does more than its ceiling."""
_NOT_A_MODEL = frozenset(
    {"NVIDIA", "AMD", "INSTINCT", "GEFORCE", "RTX", "SXM", "PCIE", "GB", "BLACKWELL", "EDITION", "SERVER"}
)
"""Words of a name that do not tell one product from another."""
_SIZES = {"16", "24", "32", "40", "48", "80", "94", "96", "141", "144", "180", "192"}


@dataclass(frozen=True, slots=True)
class Rate:
    """Something a second: bytes or operations."""

    kind: str
    """bandwidth, bf16_flops, fp8_flops or gather."""
    label: str
    n: int
    median: float | None
    low: float | None
    high: float | None
    """The 95 % interval of the median; the whole range with n below 6."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """The best measured rate of a kind beside the table's."""

    what: str
    table: float | None
    measured: float | None
    expected_share: float
    """Of the table's value, by the roofline's expectations."""

    @property
    def share(self) -> float | None:
        return self.measured / self.table if self.table and self.measured else None

    @property
    def verdict(self) -> str:
        if self.share is None:
            return "not comparable"
        if self.share > TABLE_WRONG:
            return "above the table: the table's value is too low"
        return "as expected or better" if self.share >= self.expected_share else "below the expectation"


@dataclass(frozen=True, slots=True)
class Engine:
    """One real engine on one shape: what it resolved, what was predicted."""

    model: str
    context: int
    predicted_kv_bytes: Sequence[int] | None
    """Low, likely, high."""
    predicted_blocks_per_request: int | None
    weights_bytes: int | None
    resolved: Mapping[str, str]
    """Labels of vllm:cache_config_info."""
    block_bytes: int | None
    requested_bytes: int | None
    """gpu_memory_utilization × memory."""
    reason: str | None = None

    @property
    def resolved_kv_bytes(self) -> int | None:
        blocks = self.resolved.get("num_gpu_blocks", "")
        return int(blocks) * self.block_bytes if blocks.isdigit() and self.block_bytes else None

    @property
    def overhead_bytes(self) -> int | None:
        """What was neither weights nor KV cache."""
        if self.resolved_kv_bytes is None or self.weights_bytes is None or self.requested_bytes is None:
            return None
        return self.requested_bytes - self.weights_bytes - self.resolved_kv_bytes

    @property
    def predicted_concurrency(self) -> float | None:
        blocks = self.resolved.get("num_gpu_blocks", "")
        if not blocks.isdigit() or not self.predicted_blocks_per_request:
            return None
        return int(blocks) / self.predicted_blocks_per_request


def rates_of(measured: Iterable[Mapping[str, Any]]) -> list[Rate]:
    """The probe's repetitions as rates."""
    found = []
    for one in measured:
        seconds = [value for value in one["seconds"] if value > 0]
        if not seconds:
            found.append(
                Rate(one["kind"], one["label"], 0, None, None, None, one.get("reason", "nothing was measured"))
            )
            continue
        middle, low, high = median_interval(seconds)
        amount = one["amount"]
        found.append(Rate(one["kind"], one["label"], len(seconds), amount / middle, amount / high, amount / low))
    return found


def match_gpu(name: str, memory_bytes: int, gpus: Iterable[Gpu]) -> Gpu | None:
    """The registry's entry for a device by the driver's name, the form factor and the size of its memory."""
    words = _words(name)
    same = [
        gpu
        for gpu in gpus
        if (_words(gpu.name) - _NOT_A_MODEL - _SIZES) <= words
        and abs(gpu.memory_bytes - memory_bytes) <= SAME_MEMORY * memory_bytes
    ]
    is_pcie = "PCIE" in words
    same.sort(key=lambda gpu: (("PCIE" in _words(gpu.name)) != is_pcie, abs(gpu.memory_bytes - memory_bytes)))
    return same[0] if same else None


def compare(gpu: Gpu, rates: Sequence[Rate]) -> list[Compared]:
    return [
        Compared("bandwidth", gpu.bandwidth_bytes_per_s, best(rates, "bandwidth"), EXPECTED.bandwidth),
        Compared("BF16", gpu.bf16_flops, best(rates, "bf16_flops"), EXPECTED.flops),
        Compared("FP8", gpu.fp8_flops, best(rates, "fp8_flops"), EXPECTED.flops),
    ]


def best(rates: Iterable[Rate], kind: str) -> float | None:
    return max((rate.median for rate in rates if rate.kind == kind and rate.median is not None), default=None)


def parse_cache_config(metrics: str) -> dict[str, str]:
    """The labels of `vllm:cache_config_info` in an engine's /metrics; empty where there is none."""
    line = next((line for line in metrics.splitlines() if line.startswith("vllm:cache_config_info{")), "")
    return dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line))


# --- the page -----------------------------------------------------------------------------------------------


def render_page(
    found: Mapping[str, Any], gpu: Gpu | None, engines: Sequence[Engine], *, taken: str, origin: str
) -> str:
    """Markdown. `taken`: the day; `origin`: how it came about, e.g. `make gpu-check` or a recorded measurement."""
    rates = rates_of(found["measured"])
    parts = [
        "# What a GPU measured",
        f"Taken on {taken} by {origin}: {found['name']}, driver {found['driver'].get('driver_version', 'unknown')}, "
        f"torch {found['torch']}, CUDA {found['cuda']}. One GPU, nothing else said to run on it. Each rate is the "
        "median of n repetitions by the GPU's own clock, with the 95 % interval of the median.",
        _memory_lines(found, gpu),
        "## Against the accelerator table",
        _comparison(gpu, rates, str(found["name"])),
        "## Every measurement",
        _table(
            ("what", "of", "rate", "95 % interval", "n"),
            [(rate.kind, rate.label, _rate(rate, rate.median), _between(rate), str(rate.n)) for rate in rates],
        ),
        "## Clocks and power while it measured",
        _watched(found),
        "## Real engines on the registry's shapes",
        _engines(engines),
    ]
    return "\n\n".join(parts) + "\n"


def _memory_lines(found: Mapping[str, Any], gpu: Gpu | None) -> str:
    driver = found["driver"].get("memory.total")
    said = f"nvidia-smi says {driver} MiB; " if driver else ""
    line = (
        f"Memory: {said}the CUDA driver gives {found['memory_bytes']:,} bytes ({found['memory_bytes'] / GIB:.2f} GiB)"
    )
    if gpu is None:
        return line + "."
    difference = found["memory_bytes"] - gpu.memory_bytes
    return f"{line}; the table's {gpu.id} has {gpu.memory_bytes:,}, a difference of {difference:+,}."


def _comparison(gpu: Gpu | None, rates: Sequence[Rate], name: str) -> str:
    if gpu is None:
        return f"The accelerator table has no entry for {name}, so nothing is compared."
    rows = [
        (
            one.what,
            _amount(one.what, one.table),
            _amount(one.what, one.measured),
            "–" if one.share is None else f"{one.share:.2f}",
            f"{one.expected_share:g}",
            one.verdict,
        )
        for one in compare(gpu, rates)
    ]
    return f"Entry `{gpu.id}`. The best rate of each kind:\n\n" + _table(
        ("what", "table", "measured", "share", "expected share", ""), rows
    )


def _watched(found: Mapping[str, Any]) -> str:
    samples = found["watched"]
    if not samples:
        return "nvidia-smi told nothing."
    rows = []
    for field in samples[0]:
        values = [float(sample[field]) for sample in samples if re.fullmatch(r"[\d.]+", sample.get(field, ""))]
        if values:
            rows.append((field, f"{min(values):g}", f"{max(values):g}", str(len(values))))
    limits = ", ".join(f"{name} {value}" for name, value in found["driver"].items() if "max" in name or "limit" in name)
    return _table(("what", "least", "most", "n"), rows) + (f"\n\nLimits: {limits}." if limits else "")


def _engines(engines: Sequence[Engine]) -> str:
    if not engines:
        return "None was started: vLLM is not in that environment, or no time was left."
    rows = []
    for one in engines:
        if one.reason is not None:
            rows.append((one.model, f"{one.context:,}", "–", "–", "–", "–", one.reason))
            continue
        predicted = " / ".join(_gib(value) for value in one.predicted_kv_bytes or ()) or "–"
        concurrency = "–" if one.predicted_concurrency is None else f"{one.predicted_concurrency:.2f}×"
        label = one.resolved.get("kv_cache_max_concurrency", "–")
        rows.append(
            (
                *(one.model, f"{one.context:,}", predicted, _gib(one.resolved_kv_bytes), _gib(one.overhead_bytes)),
                f"{concurrency} / {label}",
                "",
            )
        )
    head = ("model", "context", "KV predicted (low / likely / high)", "KV resolved", "overhead that leaves",
            "concurrency: ours from its blocks / its own", "")  # fmt: skip
    made = (
        "Weights made up (`--load-format dummy`), sizes from the registry, without CUDA graphs (`--enforce-eager`): "
        "the overhead of an engine in use is higher by theirs."
    )
    return f"{made}\n\n{_table(head, rows)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _rate(rate: Rate, value: float | None) -> str:
    if value is None:
        return f"not measured: {rate.reason}"
    return _amount("bandwidth" if rate.kind in ("bandwidth", "gather") else "flops", value)


def _between(rate: Rate) -> str:
    return "–" if rate.low is None else f"{_rate(rate, rate.low)} to {_rate(rate, rate.high)}"


def _amount(what: str, value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value / 1e12:.3f} TB/s" if what == "bandwidth" else f"{value / 1e12:,.1f} TFLOPS"


def _gib(value: int | None) -> str:
    return "–" if value is None else f"{value / GIB:.2f} GiB"


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Z0-9]+", re.sub(r"(\d+)\s*GB", r" \1 GB ", name.upper())))
