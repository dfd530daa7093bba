"""A round's result as a page to be read by a jury: one HTML file a language, with nothing to fetch and nothing to run.

`report_page` is the door. Tables hold what is shown in numbers, `charts` draws, `words` and `glossary` say it in two
languages. What may be said of a result is decided in `rounds.conclusions`.
"""

from gateway.rounds.report.page import POLICY, report_page
from gateway.rounds.report.tables import TABLES, result_table, table_csv

__all__ = ["POLICY", "TABLES", "report_page", "result_table", "table_csv"]
