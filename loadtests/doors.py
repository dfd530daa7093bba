"""What the gateway adds to latency: the same cell through both doors, repeat by repeat, so it cannot hide in TTFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import stdtrit

from loadtests.cells import CellSeen, DoorShare, Repeat

_FIGURES: dict[str, Callable[[Repeat], float | None]] = {
    "ttft_s": lambda one: one.latencies.ttft_s.p50,
    "tpot_s": lambda one: one.latencies.tpot_s.p50,
    "e2e_s": lambda one: one.latencies.e2e_s.p50,
}
"""Medians of a repeat."""


def door_shares(cells: Sequence[CellSeen]) -> list[DoorShare]:
    """Of every cell that is valid through both doors: the mean of the repeats' differences, with a t interval."""
    direct = {cell.id: cell for cell in cells if cell.door == "direct" and cell.is_valid}
    found = []
    for cell in cells:
        other = direct.get(cell.id)
        if cell.door == "gateway" and cell.is_valid and other is not None:
            found += [share for metric in _FIGURES if (share := _share(metric, other, cell)) is not None]
    return found


def _share(metric: str, direct: CellSeen, through: CellSeen) -> DoorShare | None:
    of = _FIGURES[metric]
    pairs = [
        (a, b)
        for one, other in zip(direct.repeats, through.repeats, strict=False)
        if (a := of(one)) is not None and (b := of(other)) is not None
    ]
    if not pairs:
        return None
    before, after = np.array(pairs).T
    added = after - before
    half = None
    if len(added) > 1:
        half = float(stdtrit(len(added) - 1, 0.975) * added.std(ddof=1) / np.sqrt(len(added)))
    mean = float(added.mean())
    return DoorShare(
        cell=through.id,
        metric=metric,
        direct_p50_s=float(np.median(before)),
        gateway_p50_s=float(np.median(after)),
        added_s=mean,
        added_low_s=None if half is None else mean - half,
        added_high_s=None if half is None else mean + half,
        pairs=len(pairs),
    )
