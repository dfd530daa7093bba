"""Tables as CSV that spreadsheets open as they are meant: Korean stays Korean, and no text becomes a formula.

What stands in the cells is not known here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

BOM = b"\xef\xbb\xbf"
"""Without it Excel takes UTF-8 for a local code page, and Korean becomes unreadable."""
_FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
Cell = str | int | float | None


def table_rows(rows: Iterable[Sequence[Cell]]) -> bytes:
    """Rows of a table, without a head."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _safe(cell: Cell) -> Cell:
    """A text that a spreadsheet would compute gets an apostrophe in front, which shows it as text."""
    if isinstance(cell, str) and (cell.startswith(_FORMULA_STARTS) or cell.lstrip().startswith(_FORMULA_STARTS)):
        return "'" + cell
    return cell
