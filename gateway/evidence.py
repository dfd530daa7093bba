"""What is known about a candidate, gathered from the registry and from what its engines say.

The arithmetic stands in `domain.feasibility`; here its inputs are looked up and its result is put into values that can
be stored and sent. Nothing here asks an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from gateway.calibration_file import CalibrationBook
from gateway.domain.columns import Cell, compare_columns
from gateway.domain.engine_facts import LOAD_FIELDS, ObservedLoad
from gateway.domain.feasibility import Estimate, Verdict, estimate
from gateway.domain.memory import GIB, ByteRange
from gateway.domain.predicted_column import predict
from gateway.domain.records import Model, Provenance, Registry
from gateway.domain.serving_plan import ServingPlan
from gateway.domain.settled_fit import provenance_note, settle_fit
from gateway.replica_state import ReplicaState
from gateway.settings import LOOPBACK, Settings

THIS_MACHINE = "localhost"
OVERHEAD_BASES = {False: "guess", True: "measured"}


def estimate_on(
    model: Model,
    registry: Registry,
    *,
    gpu_id: str,
    context: int,
    concurrency: int = 1,
    calibration: CalibrationBook,
) -> Estimate | None:
    """Predict whether `model` serves so many requests of `context` tokens at once; None for an unknown GPU id.

    On one GPU with vLLM's defaults, and with the overhead that engines on this type of GPU showed, where any did.
    """
    gpu = registry.gpus.get(gpu_id)
    if gpu is None:
        return None
    plan = ServingPlan(overhead_bytes=calibration.calibrated_overhead(gpu_id))
    return estimate(model, gpu, context=context, concurrency=concurrency, plan=plan)


def side_feasibility(
    model: Model, registry: Registry, settings: Settings, state: ReplicaState | None, calibration: CalibrationBook
) -> dict[str, Any]:
    """The one-GPU verdict that stands beside an answer, on the GPU of the replica that gave it.

    Where that is not known the GPU of the settings is taken; the context is always the settings'.
    """
    gpu_id = (state.replica.gpu if state is not None else None) or settings.feasibility_gpu
    context = settings.feasibility_context
    found = estimate_on(model, registry, gpu_id=gpu_id, context=context, calibration=calibration)
    source = None if found is None else _overhead_source(found, calibration)
    return {**feasibility_summary(found, gpu_id=gpu_id, with_steps=False), "overhead_source": source}


def _overhead_source(found: Estimate, calibration: CalibrationBook) -> str | None:
    """Where an estimate's overhead is from; None where it has none."""
    if found.overhead_bytes is None:
        return None
    known = calibration.calibration(found.gpu)
    return known.words if known is not None and found.overhead_is_measured else "a guess: no engine showed it yet"


class OneGpuVerdicts:
    """The predicted verdict for each model and GPU that calls meet, worked out once per registry and calibration."""

    def __init__(self, settings: Settings, registry: Callable[[], Registry], calibration: CalibrationBook) -> None:
        self._settings = settings
        self._registry = registry
        self._calibration = calibration
        self._of = ("", 0)
        self._known: dict[tuple[str, str], str] = {}

    def verdict(self, model: Model, gpu_id: str | None) -> tuple[str, str]:
        """(verdict, GPU id) at the settings' context; on the settings' GPU where the replica's is not known."""
        registry = self._registry()
        if (registry.sha256, self._calibration.edition) != self._of:
            self._of = (registry.sha256, self._calibration.edition)
            self._known.clear()
        key = (model.id, gpu_id or self._settings.feasibility_gpu)
        verdict = self._known.get(key)
        if verdict is None:
            context, calibration = self._settings.feasibility_context, self._calibration
            found = estimate_on(model, registry, gpu_id=key[1], context=context, calibration=calibration)
            verdict = self._known[key] = (found.verdict if found is not None else Verdict.UNKNOWN).value
        return verdict, key[1]


def feasibility_summary(
    found: Estimate | None, *, gpu_id: str | None = None, with_steps: bool = True
) -> dict[str, Any]:
    """An estimate as JSON values: sizes in GiB, null where something is unknown (the reasons say why).

    With every step of the arithmetic, in its own unit, unless they are not wanted. `gpu_id` is only told where there
    is no estimate, because the registry does not know that GPU.
    """
    if found is None:
        named = f" '{gpu_id}'" if gpu_id else ""
        return {
            **dict.fromkeys(_FIELDS),
            "steps": [] if with_steps else None,
            "verdict": Verdict.UNKNOWN.value,
            "gpu": gpu_id,
            "reasons": [f"Unknown: the registry has no GPU{named}."],
        }
    return {
        "verdict": found.verdict.value,
        "gpu": found.gpu,
        "gpus": found.gpus,
        "context": found.context,
        "concurrency": found.concurrency,
        "headroom_gib": _range_in_gib(found.headroom_bytes),
        "weights_gib": _in_gib(found.weights_bytes),
        "kv_gib_per_request": _in_gib(found.kv_bytes_per_request),
        "overhead_gib": _range_in_gib(found.overhead_bytes),
        "overhead_basis": None if found.overhead_bytes is None else OVERHEAD_BASES[found.overhead_is_measured],
        "max_context_one_request": found.max_context_one_request,
        "max_context_at_concurrency": found.max_context_at_concurrency,
        "max_concurrency": found.max_concurrency,
        "kv_tokens": found.kv_tokens,
        "kv_cache_max_concurrency": found.kv_cache_max_concurrency,
        "num_gpu_blocks": found.num_gpu_blocks,
        "blocks_per_request": found.blocks_per_request,
        "min_gpus": found.min_gpus,
        "quantised_to": found.quantised_to,
        "confidence": found.confidence.value if found.confidence is not None else None,
        "reasons": list(found.reasons),
        "steps": [asdict(step) for step in found.steps] if with_steps else None,
    }


def engine_columns(
    state: ReplicaState, registry: Registry, calibration: CalibrationBook, observed: ObservedLoad | None
) -> dict[str, Any]:
    """Predicted, resolved and observed of one running engine, as JSON values; each unknown with its reason."""
    gpu = registry.gpus.get(state.replica.gpu or "")
    predicted = predict(state.model, gpu, state.resolved, gpus=state.replica.gpus)
    rows = compare_columns(predicted, state.resolved, observed, provenance=state.provenance)
    fit = settle_fit(state.resolved, observed, provenance=state.provenance)
    notes = [] if gpu is not None else [_no_gpu(state)]
    return {
        "model": state.model.id,
        "replica": state.replica.id,
        "report": state.report_id,
        "engine_version": state.version,
        "gpu": state.replica.gpu,
        "gpus": state.replica.gpus,
        "provenance": state.provenance.value,
        "provenance_reason": state.provenance_reason,
        "notes": [provenance_note(state.provenance), *notes, *predicted.assumptions],
        "fits": {"settled": fit.fits, "reason": fit.reason},
        "rows": [
            {
                "figure": row.figure,
                "unit": row.unit,
                "predicted": _cell(row.predicted),
                "resolved": _cell(row.resolved),
                "observed": _cell(row.observed),
                "difference": row.difference,
                "reason": row.reason,
            }
            for row in rows
        ],
        "load": None if observed is None else {name: getattr(observed, name) for name in LOAD_FIELDS},
        "load_saturated": None if observed is None else observed.is_saturated,
        "load_reason": state.metrics_problem if observed is None else None,
        "calibration": _calibration(calibration, state.replica.gpu),
        "calibration_problem": calibration.problem,
    }


def _no_gpu(state: ReplicaState) -> str:
    if state.replica.gpu is None:
        return "The registry does not say on which GPU this replica runs, so nothing is predicted from its memory."
    return f"The registry has no GPU '{state.replica.gpu}', so nothing is predicted from its memory."


def _cell(cell: Cell) -> dict[str, Any]:
    return {"value": cell.value, "low": cell.low, "high": cell.high, "applies": cell.applies, "reason": cell.reason}


def _calibration(book: CalibrationBook, gpu_id: str | None) -> dict[str, Any] | None:
    found = book.calibration(gpu_id or "")
    if found is None:
        return None
    return {
        "gpu": found.gpu,
        "overhead_gib": _range_in_gib(found.overhead),
        "spread_gib": _in_gib(found.spread_bytes),
        "n": found.n,
        "engine_versions": list(found.versions),
        "first": found.first.isoformat(),
        "last": found.last.isoformat(),
    }


def hardware_of(state: ReplicaState) -> str:
    """What physically serves a replica: replicas with the same key share hardware, its GPUs included.

    The registry's `host`, else the host name of the url; every name of this machine is one key.
    """
    host = (state.replica.host or state.origin.host).lower()
    return THIS_MACHINE if host in LOOPBACK else host


def common_provenance(states: Sequence[ReplicaState]) -> Provenance:
    """What an answer from any of these replicas comes from; unknown where they differ or there is none."""
    kinds = {state.provenance for state in states}
    return kinds.pop() if len(kinds) == 1 else Provenance.UNKNOWN


_FIELDS = (
    "verdict",
    "gpu",
    "gpus",
    "context",
    "concurrency",
    "headroom_gib",
    "weights_gib",
    "kv_gib_per_request",
    "overhead_gib",
    "overhead_basis",
    "max_context_one_request",
    "max_context_at_concurrency",
    "max_concurrency",
    "kv_tokens",
    "kv_cache_max_concurrency",
    "num_gpu_blocks",
    "blocks_per_request",
    "min_gpus",
    "quantised_to",
    "confidence",
    "reasons",
)


def _in_gib(size: int | None) -> float | None:
    return None if size is None else round(size / GIB, 3)


def _range_in_gib(sizes: ByteRange | None) -> dict[str, float | None] | None:
    if sizes is None:
        return None
    return {"low": _in_gib(sizes.low), "likely": _in_gib(sizes.likely), "high": _in_gib(sizes.high)}
