"""What a gateway makes its bundles with, and a verifier makes them again with: the analysis and the report.

It stands apart so that bundles know neither. How a bundle is put together belongs in `bundle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.rounds.bundle import Tools
from gateway.rounds.report import report_page
from gateway.rounds.results import analyse_round, result_of_bundle


def bundle_report(
    about: Mapping[str, Any], analysis: Mapping[str, Any], parts: Mapping[str, Any], language: str
) -> str:
    """The report as a page of HTML, of nothing but what a bundle shows."""
    return report_page(result_of_bundle(about, analysis, parts), language="ko" if language == "ko" else "en")


TOOLS = Tools(analyse=analyse_round, report=bundle_report)
