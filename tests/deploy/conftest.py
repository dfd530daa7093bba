"""What the tests of deploy/ share: tools of their own, which `make deploy-tools` fetches, and goldens written anew.

`make test-deploy` runs these tests, `make test` does not.
"""

from __future__ import annotations

import os
import sys

import pytest
from deploy_tools import BIN, LIBRARIES, MISSING


def pytest_configure() -> None:
    """The tools' own folders are looked in as well: programs first, libraries last."""
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    sys.path.append(str(LIBRARIES))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-goldens", action="store_true", help="write tests/deploy/goldens anew")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    missed = sorted({_reason(report) for report in skipped if MISSING in str(report.longrepr)})
    if missed:
        terminalreporter.section("NOT TESTED", sep="!", red=True, bold=True)
        for reason in missed:
            terminalreporter.line(reason)


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
