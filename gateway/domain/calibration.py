"""What started engines teach of the overhead: observations per GPU type, and the range that they span.

Overhead = what vLLM asked the GPU for - weights - the KV cache that it then made: all that is neither. Only real
weights on a GPU whose memory vLLM shared out itself teach anything. Pure arithmetic; the file is `calibration_file`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

from gateway.domain.engine_facts import ResolvedEngine
from gateway.domain.memory import ByteRange
from gateway.domain.predicted_column import CPU_BLOCK, Predicted, overhead_of
from gateway.domain.records import Gpu, Provenance


@dataclass(frozen=True, slots=True)
class OverheadObservation:
    """What one started engine showed of the overhead on one GPU."""

    gpu: str
    model: str
    overhead_bytes: int
    requested_bytes: int
    """gpu_memory_utilization × the GPU's memory."""
    weights_bytes: int
    """By the registry; engines do not say theirs."""
    kv_bytes: int
    predicted: ByteRange
    """The guess that stood there before."""
    provenance: Provenance
    engine_version: str | None
    on: date
    source: str
    """Id of the engine report that it was read from."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of one GPU type's overhead: the median of the engines seen, and the lowest and highest."""

    gpu: str
    overhead: ByteRange
    n: int
    versions: tuple[str, ...]
    first: date
    last: date

    @property
    def words(self) -> str:
        """Where the range is from, for whoever reads a figure that rests on it."""
        engines = "engine" if self.n == 1 else "engines"
        when = f"on {self.first}" if self.first == self.last else f"from {self.first} to {self.last}"
        said = f", vLLM {', '.join(self.versions)}" if self.versions else ""
        return f"calibration: {self.n} {engines} with real weights on {self.gpu}{said}, seen {when}"

    @property
    def spread_bytes(self) -> int:
        return self.overhead.high - self.overhead.low


def observe_overhead(
    model_id: str,
    gpu: Gpu | None,
    predicted: Predicted,
    resolved: ResolvedEngine,
    *,
    provenance: Provenance,
    gpus: int,
    on: date,
    source: str,
) -> OverheadObservation | str:
    """What this engine teaches, or why it teaches nothing, in a sentence."""
    if provenance is not Provenance.REAL:
        return f"An engine of provenance {provenance.value} teaches nothing of a GPU's overhead."
    if gpu is None:
        return "The registry does not say on which GPU it runs."
    if gpus != 1:
        return f"It runs on {gpus} GPUs: how weights and cache lie on each of them is not known well enough."
    if resolved.block_size == CPU_BLOCK and dict(resolved.labels).get("user_specified_block_size") == "False":
        return f"It has blocks of {CPU_BLOCK} tokens that nobody asked for, as vLLM has on a CPU."
    overhead = overhead_of(predicted, resolved)
    if isinstance(overhead, str):
        return overhead
    assert predicted.weights_bytes is not None
    assert predicted.requested_bytes is not None
    assert predicted.resolved_kv_bytes is not None
    if predicted.overhead is None:
        return "The overhead was not predicted, so there is nothing to compare with."
    if overhead <= 0:
        return "Weights and cache together take more than vLLM asked for: the registry's facts are not this engine's."
    return OverheadObservation(
        gpu=gpu.id,
        model=model_id,
        overhead_bytes=overhead,
        requested_bytes=predicted.requested_bytes,
        weights_bytes=predicted.weights_bytes,
        kv_bytes=predicted.resolved_kv_bytes,
        predicted=predicted.overhead,
        provenance=provenance,
        engine_version=resolved.version,
        on=on,
        source=source,
    )


def calibrate(observations: Iterable[OverheadObservation]) -> Mapping[str, Calibration]:
    """By GPU id. Observations of another provenance than real count for nothing, wherever they come from."""
    by_gpu: dict[str, list[OverheadObservation]] = {}
    for each in observations:
        if each.provenance is Provenance.REAL:
            by_gpu.setdefault(each.gpu, []).append(each)
    return {gpu: _calibration(gpu, found) for gpu, found in by_gpu.items()}


def with_observation(
    observations: Sequence[OverheadObservation], new: OverheadObservation
) -> tuple[OverheadObservation, ...]:
    """All of them, one a source and GPU: the same engine seen again says no more than once."""
    others = (each for each in observations if (each.gpu, each.source) != (new.gpu, new.source))
    return (*others, new)


def _calibration(gpu: str, found: Sequence[OverheadObservation]) -> Calibration:
    sizes = [each.overhead_bytes for each in found]
    days = [each.on for each in found]
    return Calibration(
        gpu=gpu,
        overhead=ByteRange(min(sizes), round(median(sizes)), max(sizes)),
        n=len(found),
        versions=tuple(sorted({each.engine_version for each in found if each.engine_version is not None})),
        first=min(days),
        last=max(days),
    )
