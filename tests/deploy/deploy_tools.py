"""Where the programs and libraries of tests/deploy are, and what happens where they are not: a skip that says so at
the end of the run, or a failure where SIMSA_TEST_DEPLOY=required. scripts/deploy-tools.sh puts them there.
"""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".deploy-tools"
BIN = TOOLS / "bin"
LIBRARIES = TOOLS / "python"
CRD_PYTHON = TOOLS / "crds" / "bin" / "python"
MISSING = "is missing: run `make deploy-tools`"


def program(name: str) -> Path:
    """The program of that name from .deploy-tools/bin, else from the path."""
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        miss(name)
    return Path(found)


def library(name: str) -> ModuleType:
    """A module that only these tests need."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        miss(f"the Python library {name}")


def crd_python() -> Path:
    """The Python that has the models of custom resources."""
    if not CRD_PYTHON.exists():
        miss("the environment with the models of custom resources")
    return CRD_PYTHON


def miss(what: str) -> NoReturn:
    if os.environ.get("SIMSA_TEST_DEPLOY") == "required":
        pytest.fail(f"{what} {MISSING}", pytrace=False)
    pytest.skip(f"{what} {MISSING}", allow_module_level=True)
