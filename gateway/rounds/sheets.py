"""A round's queues and votes as CSV that spreadsheets open as they are meant, each made of a bundle's own documents.

They say nothing that the JSON beside them does not; whoever verifies a bundle makes them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.spreadsheet import BOM, Cell, table_rows

_DESIGN = ("reviewer", "position", "kind", "prompt", "model_left", "model_right", "repeat_of", "shared", "put_aside")
_VOTE = ("number", "item", "reviewer", "position", "kind", "prompt", "left", "right", "revision", "counts", "at")


def design_sheet(design: Mapping[str, Any]) -> bytes:
    """Every queue of a sealed design, with what was put aside behind each. Models stand in it by code."""
    rows: list[Sequence[Cell]] = [_DESIGN]
    for queue in design["queues"]:
        for is_aside, items in ((False, queue["items"]), (True, queue["put_aside"])):
            rows += [
                [queue["reviewer"], *(_cell(item[name]) for name in _DESIGN[1:-1]), _flag(is_aside)] for item in items
            ]
    return BOM + table_rows(rows)


def votes_sheet(
    items: Iterable[Mapping[str, Any]], criteria: Sequence[str], votes: Sequence[Mapping[str, Any]]
) -> bytes:
    """Every entry of the chain, beside the item that it judges; `counts` marks the last revision of an item.

    `items`: the sealed part; `votes`: entries as documents, with the words that may be shown.
    """
    by_id = {item["id"]: item for item in items}
    last = {vote["item"]: vote["number"] for vote in votes}
    head = [*_VOTE, "choice", *(f"grade_{name}" for name in criteria), "recognised", "seconds", "reason", "comment"]
    rows: list[Sequence[Cell]] = [head]
    for vote in votes:
        judgement, item = vote["judgement"], by_id.get(vote["item"], {})
        grades = judgement.get("grades", {})
        facts = {**item, **vote, "counts": last[vote["item"]] == vote["number"]}
        rows.append(
            [
                *(_cell(facts.get(name)) for name in _VOTE),
                judgement.get("choice"),
                *(grades.get(name) for name in criteria),
                _flag(bool(judgement.get("recognised"))),
                *(_cell(judgement.get(name)) for name in ("seconds", "reason", "comment")),
            ]
        )
    return BOM + table_rows(rows)


def _cell(value: Any) -> Cell:
    if isinstance(value, bool):
        return _flag(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _flag(value: bool) -> str:
    return "yes" if value else ""
