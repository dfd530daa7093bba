"""Do the votes hold all models together? Only then do strengths exist, however long a solver may run.

Strengths are finite exactly when no group of models took every point against the rest, which is to say when the graph
"scored against" is strongly connected (Ford, American Mathematical Monthly 64, 1957). Fitting belongs to others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from gateway.domain.ranking.reasons import Reason
from gateway.domain.ranking.votes import FloatArray


@dataclass(frozen=True, slots=True)
class NotComparable:
    """Why there are no strengths."""

    reason: Reason
    components: tuple[tuple[int, ...], ...] = ()
    """Codes of the models that can be compared with each other, for `NOT_CONNECTED`."""
    n: int = 0
    """Votes that counted."""


def components_of(points: FloatArray) -> tuple[tuple[int, ...], ...]:
    """Groups of models within which each scored, directly or through others, against each; by their first model.

    `points` is models × models: what the row's model took from the column's. A model without votes is alone.
    """
    labels = _labels(points > 0)
    groups = [tuple(np.flatnonzero(labels == label).tolist()) for label in range(int(labels.max(initial=-1)) + 1)]
    return tuple(sorted(groups))


def is_connected(points: FloatArray) -> bool:
    return len(points) > 0 and int(_labels(points > 0).max()) == 0


def _labels(scored: NDArray[np.bool_]) -> NDArray[np.int32]:
    if not len(scored):
        return np.zeros(0, dtype=np.int32)
    _, labels = connected_components(csr_array(scored), directed=True, connection="strong")
    found: NDArray[np.int32] = labels
    return found
