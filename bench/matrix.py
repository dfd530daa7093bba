"""How long the matrix of 30 models × 15 GPUs × 5 number formats takes: `python -m bench.matrix`.

The models are those of the registry that have a shape, taken again under other names until there are 30, so that every
cell is worked out; the GPUs are the registry's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time

from gateway.domain.matrix import DEFAULT_QUANTISATIONS, Matrix, MatrixLoad, build_matrix
from gateway.domain.records import Gpu, Model, Registry
from gateway.matrix_page import feasibility_page
from gateway.registry import load_registry

MODELS, GPUS = 30, 15
LOAD = MatrixLoad(context=8192, concurrency=8)
REPEATS = 5
LIMIT_S = 2.0


def main() -> int:
    registry = load_registry(Path("model_registry.yaml"))
    models, gpus = _models(registry), _gpus(registry)

    def build() -> Matrix:
        return build_matrix(models, gpus, DEFAULT_QUANTISATIONS, LOAD)

    matrix = build()
    judged = sum(cell.unknown is None for cell in matrix)
    cpu_s, wall_s = _best(build)
    cells = f"{len(matrix.cells):,} cells ({judged:,} with a verdict)"
    print(f"{cells}: {wall_s:.2f} s, of CPU {cpu_s:.2f} s; best of {REPEATS}")  # noqa: T201
    is_fast = wall_s <= LIMIT_S
    cpu_s, wall_s = _best(lambda: feasibility_page(matrix, registry, language="ko", on=date(2026, 11, 28)))
    print(f"the page of them: {wall_s:.2f} s, of CPU {cpu_s:.2f} s")  # noqa: T201
    return 0 if is_fast else 1


def _models(registry: Registry) -> list[Model]:
    """Thirty models that all have a verdict."""
    gpu = next(iter(registry.gpus.values()))
    known = [m for m in registry.models.values() if _is_judged(m, gpu)]
    return [replace(model, id=f"{model.id}-{n}") for n, model in enumerate(islice(cycle(known), MODELS))]


def _is_judged(model: Model, gpu: Gpu) -> bool:
    return all(cell.unknown is None for cell in build_matrix([model], [gpu], DEFAULT_QUANTISATIONS, LOAD))


def _gpus(registry: Registry) -> list[Gpu]:
    found = islice(cycle(registry.gpus.values()), GPUS)
    return [replace(gpu, id=f"{gpu.id}-{n}") for n, gpu in enumerate(found)]


def _best(work: Callable[[], object]) -> tuple[float, float]:
    """Least CPU and wall seconds over the repeats: what the machine's other work adds is left out."""
    spent = []
    for _ in range(REPEATS):
        cpu, wall = process_time(), perf_counter()
        work()
        spent.append((process_time() - cpu, perf_counter() - wall))
    return min(cpu for cpu, _ in spent), min(wall for _, wall in spent)


if __name__ == "__main__":
    sys.exit(main())
