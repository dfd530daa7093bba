"""How one figure is spread over the requests of a cell: what a `Run` has no room for, and a report draws as a curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gateway.domain.stats import Values
from loadtests.cells import Run

STEPS = 101


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of a cell through one door, all repeats together: the quantiles at 0, 1, … 100 %, in the metric's own unit."""

    run: str
    """Id of the run."""
    cell: str
    door: str
    metric: str
    """A field of `cells.Latencies`: ttft_s, scheduled_ttft_s, tpot_s, itl_s, e2e_s."""
    n: int
    """Values behind the quantiles."""
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        where = f"distribution of {self.metric} of cell {self.cell}"
        if len(self.quantiles) != STEPS:
            raise ValueError(f"{where}: expected {STEPS} quantiles, got {len(self.quantiles)}")
        if not all(map(math.isfinite, self.quantiles)) or any(
            after < before for before, after in pairwise(self.quantiles)
        ):
            raise ValueError(f"{where}: expected finite quantiles in ascending order")
        if self.n < 1:
            raise ValueError(f"{where}: expected at least one value, got n = {self.n}")


def distribution_of(run: str, cell: str, door: str, metric: str, values: Values) -> Distribution:
    """The quantiles of raw values, by the definition of `stats.percentile`. Raises ValueError for no values."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError(f"distribution of {metric} of cell {cell}: expected at least one value, got none")
    quantiles = np.maximum.accumulate(np.percentile(array, np.arange(STEPS)))
    return Distribution(run, cell, door, metric, int(array.size), tuple(float(one) for one in quantiles))


def distributions_of(run: Run, spreads: Mapping[str, Mapping[str, tuple[float, ...]]]) -> list[Distribution]:
    """The curves of every valid cell. `spreads`: by "cell/door" and metric the quantiles 0 to 100 %."""
    found = []
    for cell in run.cells:
        for metric, quantiles in spreads.get(f"{cell.id}/{cell.door}", {}).items():
            n = sum(getattr(repeat.latencies, metric).n for repeat in cell.repeats)
            if cell.is_valid and quantiles and n:
                found.append(Distribution(run.id, cell.id, cell.door, metric, n, quantiles))
    return found
