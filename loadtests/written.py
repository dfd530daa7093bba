"""A run's report on disk: one page a language, the run as JSON, and its tables as CSV.

What stands in them is `report`'s and `exports`' subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loadtests.exports import TABLES, run_json, table_csv
from loadtests.journal import Journal
from loadtests.report import distributions_of, render_report
from loadtests.report.terms import Language

PAGES: dict[Language, str] = {"ko": "report.ko.html", "en": "report.en.html"}


def write_report(directories: Sequence[Path], out: Path) -> list[Path]:
    """The files of one run's report, or of several runs' side by side. Raises OSError, RunUnreadable, ValueError."""
    journals = [Journal(directory) for directory in directories]
    runs = [journal.run() for journal in journals]
    drawn = [
        one for run, journal in zip(runs, journals, strict=True) for one in distributions_of(run, journal.spreads())
    ]
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for language, name in PAGES.items():
        other = PAGES["en" if language == "ko" else "ko"]
        page = render_report(runs, language=language, distributions=drawn, other_page=other)
        written.append(_written(out / name, page.encode()))
    for run in runs:
        mark = "" if len(runs) == 1 else f"{run.id}-"
        written.append(_written(out / f"{mark}run.json", run_json(run)))
        written += [_written(out / f"{mark}{table}.csv", table_csv(run, table)) for table in TABLES]
    return written


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
