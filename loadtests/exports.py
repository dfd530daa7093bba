"""A run as JSON, whole and read back, and as tables for spreadsheets.

JSON holds everything. The tables hold no figures of invalid cells, since whoever averages a column would take them in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from gateway.spreadsheet import BOM, Cell, table_rows
from loadtests.cells import VERSION, CellSeen, Figure, Rates, Repeat, Run, TimelinePoint
from loadtests.readings import LATENCIES, failures, figure_of, rests_on_invalid
from loadtests.records import Outcome


class UnreadableRun(ValueError):
    """Bytes that are no run, or one of a version that is not known here. The message says which."""


class _Version(msgspec.Struct):
    v: int


def run_json(run: Run) -> bytes:
    """The whole run on one line; the same run gives the same bytes."""
    return msgspec.json.encode(run) + b"\n"


def read_run(content: bytes) -> Run:
    """A run as `run_json` wrote it. Raises UnreadableRun."""
    try:
        version = msgspec.json.decode(content, type=_Version).v
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableRun(f"this is no load run: {error}") from error
    if version != VERSION:
        raise UnreadableRun(f"this load run is of version {version}, and this Simsa reads version {VERSION} only")
    try:
        return msgspec.json.decode(content, type=Run)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableRun(f"this load run is damaged: {error}") from error


# --- tables -------------------------------------------------------------------------------------------------


def table_csv(run: Run, name: str) -> bytes:
    """A table of `TABLES`: UTF-8 with a byte order mark, plain numbers, the unit in a column's name."""
    return BOM + table_rows(TABLES[name](run))


Rows = Iterator[Sequence[Cell]]
_STATISTICS = Figure.__struct_fields__
_RATES = Rates.__struct_fields__
_CELL_HEAD = ("cell", "door", "load", "kind", "level", "is_steady", "claim", "search")
_VALIDITY_HEAD = ("is_valid", "why_invalid", "meets_objectives")
_REPEAT_HEAD = ("repeat", "run_id", "seed", "began_at", "provenance")
_POINT = TimelinePoint.__struct_fields__


def _cells(run: Run) -> Rows:
    yield (*_CELL_HEAD, *_VALIDITY_HEAD, "repeats")
    for cell in run.cells:
        yield (*_cell(cell), *_validity(cell), len(cell.repeats))


def _repeats(run: Run) -> Rows:
    outcomes = tuple(Outcome)
    yield (
        *(*_CELL_HEAD, *_VALIDITY_HEAD, *_REPEAT_HEAD),
        *(f"outcome_{outcome}" for outcome in outcomes),
        *_RATES,
        *(f"{metric}_{statistic}" for metric in LATENCIES for statistic in _STATISTICS),
        *("tokens_per_event", "cost_per_mtok_out", "currency", "gpu_seconds"),
    )
    for cell in run.cells:
        for repeat in cell.repeats:
            said = (*_cell(cell), *_validity(cell))
            of = (repeat.number, repeat.run_id, repeat.seed, repeat.began_at, repeat.provenance)
            shown = _figures(repeat, outcomes)
            yield (*said, *of, *(shown if cell.is_valid else [None] * len(shown)))


def _figures(repeat: Repeat, outcomes: Sequence[Outcome]) -> list[Cell]:
    return [
        *(repeat.outcomes.get(outcome, 0) for outcome in outcomes),
        *(getattr(repeat.rates, name) for name in _RATES),
        *(getattr(figure_of(repeat, metric), name) for metric in LATENCIES for name in _STATISTICS),
        repeat.latencies.tokens_per_event,
        *(repeat.cost_per_mtok_out, repeat.currency, repeat.gpu_seconds),
    ]


def _objectives(run: Run) -> Rows:
    names = ("metric", "statistic", "limit", "attainment_percent", "value", "low", "high", "n", "met", "why")
    yield ("cell", "door", "repeat", *names)
    for cell in filter(lambda cell: cell.is_valid, run.cells):
        for repeat in cell.repeats:
            for one in repeat.objectives:
                yield (cell.id, cell.door, repeat.number, *(_plain(getattr(one, name)) for name in names))


def _timeline(run: Run) -> Rows:
    yield ("cell", "door", "repeat", *_POINT)
    for cell in filter(lambda cell: cell.is_valid, run.cells):
        for repeat in cell.repeats:
            for point in repeat.timeline:
                yield (cell.id, cell.door, repeat.number, *(getattr(point, name) for name in _POINT))


def _claims(run: Run) -> Rows:
    yield ("model", "claim", "text", "verdict", "margin", "holds_for", "cells", "reasons", "left_open")
    for one in run.verdicts:
        is_none = rests_on_invalid(run, one)
        yield (
            *(run.model, one.claim, one.text),
            "invalid" if is_none else one.verdict,
            None if is_none else one.margin,
            one.holds_for,
            " ".join(one.cells),
            None if is_none else " ".join(one.reasons),
            " ".join(one.left_open),
        )


def _cell(cell: CellSeen) -> list[Cell]:
    return [
        *(cell.id, cell.door, cell.load, cell.kind, cell.level),
        *(_plain(cell.is_steady), cell.claim, cell.search),
    ]


def _validity(cell: CellSeen) -> list[Cell]:
    why = "; ".join(f"{one.check.name}: {one.check.seen}" for one in failures(cell))
    if not cell.is_valid and not why:
        why = "never measured"
    return [_plain(cell.is_valid), why or None, _plain(cell.meets_objectives)]


def _plain(value: bool | str | float | None) -> Cell:
    return str(value).lower() if isinstance(value, bool) else value


TABLES: Mapping[str, Callable[[Run], Rows]] = {
    "cells": _cells,
    "repeats": _repeats,
    "objectives": _objectives,
    "timeline": _timeline,
    "claims": _claims,
}
"""By name: what makes the rows, the head first."""
