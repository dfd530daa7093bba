"""Which engines of a model were seen, live or stored, as values that a claim can be held against.

What they say for a claim is `domain.engine_evidence`'s; here they are looked up. Nothing here asks an engine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress

from gateway.domain.engine_evidence import SeenEngine
from gateway.domain.engine_facts import ObservedLoad
from gateway.domain.memory import number_format
from gateway.domain.records import Model, Provenance, Registry
from gateway.engine_records import EngineRecords, EngineReport
from gateway.errors import Unavailable
from gateway.replica_state import ReplicaState

MOST_REPORTS = 100
"""Of each model; the last seen first."""


async def engines_by_model(
    models: Collection[str], registry: Registry, states: Iterable[ReplicaState], records: EngineRecords
) -> dict[str, list[SeenEngine]]:
    """Engines of these models by model id: all that are stored, and while the database is away, the live ones.

    What was observed of a real one is all that is stored; of one that is not stored yet, since it came into use.
    """
    known = {name: registry.models[name] for name in models if name in registry.models}
    found = {name: _live(model, states) for name, model in known.items()}
    with suppress(Unavailable):
        for name, model in known.items():
            for report, observed in await _reports_of(name, records):
                live = found[name].get(report.id)
                found[name][report.id] = _stored(model, report, observed or (live.observed if live else None))
    return {name: list(engines.values()) for name, engines in found.items()}


async def stored_engines(
    models: Collection[str], registry: Registry, records: EngineRecords
) -> dict[str, list[SeenEngine]]:
    """Engines of these models by model id, as far as they are stored. Raises Unavailable while the database is away."""
    known = {name: registry.models[name] for name in models if name in registry.models}
    return {
        name: [_stored(model, report, observed) for report, observed in await _reports_of(name, records)]
        for name, model in known.items()
    }


async def _reports_of(model_id: str, records: EngineRecords) -> list[tuple[EngineReport, ObservedLoad | None]]:
    """A model's reports, each real one with all that was observed of it."""
    found = []
    for report in await records.list_reports(model=model_id, limit=MOST_REPORTS):
        is_real = report.provenance is Provenance.REAL
        found.append((report, await records.observed(report.id) if is_real else None))
    return found


def _live(model: Model, states: Iterable[ReplicaState]) -> dict[str, SeenEngine]:
    """By report id."""
    return {
        state.report_id: SeenEngine(
            report=state.report_id,
            replica=state.replica.id,
            gpu=state.replica.gpu,
            gpus=state.replica.gpus,
            provenance=state.provenance,
            resolved=state.resolved,
            observed=state.observed,
            weights_format=number_format(model.weights.dtype),
        )
        for state in states
        if state.model.id == model.id and state.is_up and state.report_id is not None and state.resolved is not None
    }


def _stored(model: Model, report: EngineReport, observed: ObservedLoad | None) -> SeenEngine:
    return SeenEngine(
        report=report.id,
        replica=report.replica,
        gpu=report.gpu,
        gpus=report.gpus,
        provenance=report.provenance,
        resolved=report.resolved,
        observed=observed,
        weights_format=number_format(model.weights.dtype),
        is_of_todays_weights=report.resolved.root == model.weights.repo,
    )
