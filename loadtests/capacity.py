"""How many GPUs a number of users takes: from what one replica was seen to hold, with every assumption said.

Replicas = what is wanted / what one holds, rounded up, and spares beside them. The interval is as wide as the search
left it: between the highest load that met the objectives and the lowest that did not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from loadtests.cells import CellSeen, Run

STEADY_USE = 0.8
"""Share of a replica's highest load that is planned with: arrivals come in waves, and a queue at 1 has no end."""


@dataclass(frozen=True, slots=True)
class Holds:
    """What one replica holds while it meets every objective."""

    over: str
    """rate | users."""
    highest_met: float
    lowest_failed: float | None
    """None: nothing higher was seen to fail, so a replica may hold more."""
    source: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """The answer. `gpus_low` and `gpus_high` are the interval of `gpus`."""

    wanted: float
    over: str
    replicas: int
    spares: int
    gpus: int
    gpus_low: int
    gpus_high: int
    gpus_per_replica: int
    gpu: str | None
    provenance: str
    holds: Holds
    assumptions: tuple[str, ...]


def what_holds(run: Run, over: str, *, door: str | None = None) -> Holds | None:
    """From the run's search over rate or users, or from its valid steady cells; None where none met its objectives."""
    for search in run.searches:
        if search.over == over and search.highest_met is not None and door in (None, search.door):
            source = f"search {search.id} of run {run.id}, which ended {search.ended}"
            return Holds(over, search.highest_met, search.lowest_failed, source)
    kind = "open" if over == "rate" else "closed"
    cells = [cell for cell in run.cells if cell.is_valid and _speaks(cell, kind, door)]
    met = [cell for cell in cells if cell.meets_objectives]
    failed = [cell for cell in cells if cell.meets_objectives is False]
    best = max(met, key=lambda cell: cell.level or 0, default=None)
    if best is None or best.level is None:
        return None
    above = [cell.level for cell in failed if cell.level is not None and cell.level > best.level]
    return Holds(over, best.level, min(above, default=None), f"cell {best.id} of run {run.id}")


def plan_capacity(run: Run, wanted: float, holds: Holds, *, spares: int = 1, use: float = STEADY_USE) -> Capacity:
    """GPUs for `wanted` users or requests a second at the run's objectives, `spares` replicas more than needed.

    `use`: share of the highest load that is planned with. Raises ValueError for numbers that cannot be.
    """
    if wanted <= 0 or not 0 < use <= 1 or spares < 0:
        raise ValueError("expected users or a rate above 0, a share above 0 up to 1, and 0 or more spares")
    if run.gpus is None or not run.replicas:
        raise ValueError(f"on how many GPUs the engines of {run.id} stood is not known: say `gpus` in the plan")
    each = run.gpus // run.replicas
    needed = _replicas(wanted, holds.highest_met / run.replicas * use)
    least = needed if holds.lowest_failed is None else _replicas(wanted, holds.lowest_failed / run.replicas * use)
    return Capacity(
        wanted=wanted,
        over=holds.over,
        replicas=needed,
        spares=spares,
        gpus=(needed + spares) * each,
        gpus_low=(min(least, needed) + spares) * each,
        gpus_high=(needed + spares) * each,
        gpus_per_replica=each,
        gpu=run.gpu,
        provenance=run.provenance,
        holds=holds,
        assumptions=_assumptions(run, holds, spares, use),
    )


def _replicas(wanted: float, each: float) -> int:
    return max(1, ceil(wanted / each - 1e-9))


def _speaks(cell: CellSeen, kind: str, door: str | None) -> bool:
    return cell.is_steady and cell.kind == kind and cell.level is not None and door in (None, cell.door)


def _assumptions(run: Run, holds: Holds, spares: int, use: float) -> tuple[str, ...]:
    unit = "users at once" if holds.over == "users" else "requests a second"
    said = [
        f"{run.replicas} replica{' holds' if run.replicas == 1 else 's hold'} {holds.highest_met:g} {unit} at the "
        f"objectives ({holds.source}).",
        f"It is planned with {use:.0%} of that, because real arrivals come in waves.",
        "Replicas do not slow each other down, and the gateway shares requests out evenly.",
        f"Requests are like those of the run (workload {run.workload_sha256[:12]}): lengths, language, prefixes.",
        f"{spares} replica{' is' if spares == 1 else 's are'} spare: as many may fail or be upgraded at a time.",
        "Peaks above the number that is asked for are not covered.",
    ]
    if holds.lowest_failed is None:
        said.append("Nothing higher was seen to fail: a replica may hold more, and fewer GPUs may do.")
    if run.provenance != "real":
        said.append(f"The run is {run.provenance}: a plan to try, no evidence.")
    return tuple(said)
