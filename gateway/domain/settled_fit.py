"""Whether an engine settles that a model fits, and what its figures are worth: said of the engine, not of one figure.

No prediction settles it; `columns` sets the figures themselves side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.engine_facts import ObservedLoad, ResolvedEngine
from gateway.domain.predicted_column import Number
from gateway.domain.records import Provenance


@dataclass(frozen=True, slots=True)
class FitSettled:
    """Whether "fits" is settled for this engine: True, or None where it is open; never by a prediction."""

    fits: bool | None
    reason: str


def settle_fit(resolved: ResolvedEngine | None, observed: ObservedLoad | None, *, provenance: Provenance) -> FitSettled:
    """Only an engine that started on the real weights and then stood a saturating load settles that they fit."""
    if provenance is not Provenance.REAL:
        return FitSettled(None, f"Open: the engine is {kind_of(provenance)}, so nothing it does settles that it fits.")
    if resolved is None or not resolved.engines:
        return FitSettled(None, "Open: what the engine resolved at start could not be read.")
    if observed is None:
        return FitSettled(None, "Open: it started on the real weights, but no look at its metrics is known.")
    if not observed.is_saturated:
        return FitSettled(
            None,
            f"Open: it started on the real weights, but in {observed.looks:,} looks no load filled it: no request was "
            "preempted, its cache was never full, and no queue stood.",
        )
    if observed.restarts:
        return FitSettled(
            None, f"Open: a load filled it, but the engine began anew {observed.restarts} times meanwhile."
        )
    return FitSettled(
        True,
        f"Settled for this engine's settings and this load's lengths: it started on the real weights and stood a load "
        f"that filled it, with up to {_shown(observed.peak_running)} requests running and "
        f"{_shown(observed.preemptions)} preemptions in {observed.looks:,} looks.",
    )


def provenance_note(provenance: Provenance) -> str:
    """What all figures of an engine are worth, in a sentence."""
    match provenance:
        case Provenance.REAL:
            return "Real: the engine serves the registry's weights."
        case Provenance.STAND_IN:
            return (
                "Stand-in: the engine serves small random weights, so its figures are its own and not the model's; "
                "they show that the arithmetic is vLLM's and feed no calibration and no verdict."
            )
        case Provenance.SIMULATED:
            return (
                "Simulated: the engine computes what it resolves with the same arithmetic as the prediction, so that "
                "they agree proves nothing; its figures feed no calibration and no verdict."
            )
        case Provenance.UNKNOWN:
            return "Unknown: nothing proves what the engine serves; its figures feed no calibration and no verdict."


def kind_of(provenance: Provenance) -> str:
    return {
        Provenance.STAND_IN: "a stand-in",
        Provenance.SIMULATED: "simulated",
        Provenance.UNKNOWN: "of unknown provenance",
        Provenance.REAL: "real",
    }[provenance]


def _shown(value: Number | None) -> str:
    return "an unknown number of" if value is None else f"{value:,}"
