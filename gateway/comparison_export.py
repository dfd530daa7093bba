"""Stored comparisons as files: one JSON object a line, or a CSV table with one row a side.

Objects in, bytes out, one comparison at a time. How a table becomes CSV is `spreadsheet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.spreadsheet import BOM, Cell, table_rows

Comparison = Mapping[str, Any]
Side = Mapping[str, Any]


def json_line(comparison: Comparison) -> bytes:
    return msgspec.json.encode(comparison) + b"\n"


def csv_head(*before: str) -> bytes:
    """What a CSV file begins with: the mark of UTF-8, and the names of the columns; `before` are further ones."""
    return BOM + table_rows([[*before, *_COLUMNS]])


def csv_rows(comparison: Comparison, *before: Cell) -> bytes:
    """One row a side, in the order asked; `before` are the cells of further columns."""
    return table_rows(
        [*before, *(column(comparison, position, side) for column in _COLUMNS.values())]
        for position, side in enumerate(comparison["sides"])
    )


def csv_row(values: Mapping[str, Cell], *before: Cell) -> bytes:
    """One row for what no comparison stands for: the columns named, all others empty."""
    return table_rows([[*before, *(values.get(name) for name in _COLUMNS)]])


Column = Callable[[Comparison, int, Side], Cell]


def _of_comparison(name: str) -> Column:
    return lambda comparison, _position, _side: comparison[name]


def _of_side(*path: str) -> Column:
    """The value at a path inside the side, empty where a step of it is null."""

    def cell(_comparison: Comparison, _position: int, side: Side) -> Cell:
        value: Any = side
        for name in path:
            value = value.get(name) if value is not None else None
        return value  # type: ignore[no-any-return]

    return cell


def _as_json(column: Column) -> Column:
    """Lists and objects as JSON in one cell."""

    def cell(comparison: Comparison, position: int, side: Side) -> Cell:
        value = column(comparison, position, side)
        return None if value is None else msgspec.json.encode(value).decode()

    return cell


_COLUMNS: Mapping[str, Column] = {
    "comparison_id": _of_comparison("id"),
    "created_at": _of_comparison("created_at"),
    "schedule": _of_comparison("schedule"),
    "params": _as_json(_of_comparison("params")),
    "messages": _as_json(_of_comparison("messages")),
    "side": lambda _comparison, position, _side: position,
    "model": _of_side("model"),
    "status": _of_side("status"),
    "provenance": _of_side("provenance"),
    "content": _of_side("output", "content"),
    "reasoning": _of_side("output", "reasoning"),
    "tool_calls": _as_json(_of_side("output", "tool_calls")),
    "finish_reason": _of_side("finish_reason"),
    "prompt_tokens": _of_side("usage", "prompt_tokens"),
    "completion_tokens": _of_side("usage", "completion_tokens"),
    "cached_tokens": _of_side("usage", "cached_tokens"),
    "reasoning_tokens": _of_side("usage", "reasoning_tokens"),
    "usage_source": _of_side("usage", "source"),
    "queue_s": _of_side("timing", "queue_s"),
    "ttft_s": _of_side("timing", "ttft_s"),
    "ttfot_s": _of_side("timing", "ttfot_s"),
    "tpot_s": _of_side("timing", "tpot_s"),
    "e2e_s": _of_side("timing", "e2e_s"),
    "overhead_s": _of_side("timing", "overhead_s"),
    "first_event_source": _of_side("timing", "first_event_source"),
    "cost_amount": _of_side("cost", "amount"),
    "cost_currency": _of_side("cost", "currency"),
    "cost_basis": _of_side("cost", "basis"),
    "cost_reason": _of_side("cost", "reason"),
    "feasibility_verdict": _of_side("feasibility", "verdict"),
    "feasibility_gpu": _of_side("feasibility", "gpu"),
    "feasibility_context": _of_side("feasibility", "context"),
    "feasibility_headroom_gib_likely": _of_side("feasibility", "headroom_gib", "likely"),
    "feasibility_confidence": _of_side("feasibility", "confidence"),
    "error_code": _of_side("error", "code"),
    "error_message": _of_side("error", "message"),
    "call_id": _of_side("call_id"),
    "timing_comparable": _of_comparison("timing_comparable"),
    "timing_reason": _of_comparison("timing_reason"),
    "batch_id": lambda comparison, _position, _side: (comparison["batch"] or {}).get("id"),
    "batch_item": lambda comparison, _position, _side: (comparison["batch"] or {}).get("item"),
}
