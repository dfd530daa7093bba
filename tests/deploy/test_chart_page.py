"""The chart's README is what its generator writes from values.yaml and its schema."""

from __future__ import annotations

import subprocess
import sys

from charts import CHART
from deploy_tools import ROOT


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/chart_page.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (CHART / "README.md").read_text(encoding="utf-8") == done.stdout, "run `make docs`"
