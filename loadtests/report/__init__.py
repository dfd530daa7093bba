"""A load run's report: one HTML file a language, to be read by a jury, with nothing to fetch and nothing to run.

`render_report` is the door. What may be concluded from numbers is decided in `conclusions` and in `readings`; the
other modules say, table and draw it.
"""

from loadtests.report.page import POLICY, render_report, report_title
from loadtests.report.spreads import Distribution, distribution_of, distributions_of

__all__ = ["POLICY", "Distribution", "distribution_of", "distributions_of", "render_report", "report_title"]
