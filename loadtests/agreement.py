"""Whether the repeats of a cell agree: how many there are, how far they lie apart, that all are of one provenance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadtests.cells import Check, Repeat
from loadtests.columns import Floats
from loadtests.validity import provenance_check

LEAST_REPEATS = 3
MOST_SPREAD = 0.25


def check_cell(repeats: Sequence[Repeat], *, wanted: int = LEAST_REPEATS) -> list[Check]:
    """What only several repeats show: how many there are, how far they lie apart, that all are of one provenance."""
    least = max(LEAST_REPEATS, wanted)
    enough = Check(
        name="repeats",
        passed=len(repeats) >= least,
        limit=f"at least {least} repeats",
        seen=f"{len(repeats)} repeat{'' if len(repeats) == 1 else 's'}",
    )
    if len(repeats) < 2:
        return [enough]
    return [enough, _spread(repeats), provenance_check([repeat.provenance for repeat in repeats])]


def _spread(repeats: Sequence[Repeat]) -> Check:
    """Repeats far apart say little, unless every one lies further from the limit than they from one another."""
    worst, words, undecided = 0.0, "", False
    for name, values, limits in _spread_of(repeats):
        middle = float(np.median(values))
        spread = float(values.max() - values.min())
        share = spread / middle if middle > 0 else 0.0
        clear = [bool((np.abs(values - limit) > spread).all()) for limit in limits]
        if share > MOST_SPREAD and not (clear and all(clear)):
            undecided = True
        if share >= worst:
            worst, words = share, f"{name} from {values.min():.4g} to {values.max():.4g}"
    return Check(
        name="spread",
        passed=not undecided,
        limit=f"repeats lie within {MOST_SPREAD:.0%} of their median, or all clearly on one side of the objective",
        seen=words or "nothing to compare",
    )


def _spread_of(repeats: Sequence[Repeat]) -> list[tuple[str, Floats, list[float]]]:
    """Name, the repeats' values, and the limits that they are held against."""
    found: list[tuple[str, Floats, list[float]]] = []
    for position, one in enumerate(repeats[0].objectives):
        seen = [repeat.objectives[position].value for repeat in repeats]
        if any(value is None for value in seen) or one.statistic == "attainment":
            continue
        found.append((f"{one.metric} {one.statistic}", np.array(seen, dtype=np.float64), [float(one.limit)]))
    tokens = [repeat.rates.output_tokens_per_s for repeat in repeats]
    if not found and None not in tokens:
        found.append(("output_tokens_per_s", np.array(tokens, dtype=np.float64), []))
    return found
