"""The records of one repeat as columns: JSON lines of all its workers in, numpy arrays out, a line at a time.

An hour's run has more gaps between events than Python could hold as objects, so they go into one array of
microseconds as they are read. What is made of the columns belongs to `figures` and `validity`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtests.records import FOOTER_MARK, VERSION, CellFooter, CellHeader, Outcome, RequestRecord

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Line = TypeVar("Line", CellHeader, CellFooter, RequestRecord)
OUTCOMES = tuple(Outcome)
MOST_ERRORS = 10
"""Different errors that are told; the most frequent ones."""
_MOMENTS = ("scheduled_s", "sent_s", "first_s", "first_output_s", "last_s", "ended_s")
_COUNTS = (
    *("asked_input_tokens", "asked_output_tokens", "prompt_tokens", "completion_tokens", "cached_tokens"),
    *("first_event_tokens", "characters"),
)
_NUMBERS = (*_MOMENTS, *_COUNTS)
_BY_ROW = (*_NUMBERS, "outcome", "is_engine_usage", "gap_counts")
PART_GAPS = 1_000_000
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Columns:
    """One row a request, in the order of reading. Seconds of the cell; NaN = it did not happen, or is not known."""

    scheduled_s: Floats
    sent_s: Floats
    first_s: Floats
    first_output_s: Floats
    last_s: Floats
    ended_s: Floats
    asked_input_tokens: Floats
    asked_output_tokens: Floats
    prompt_tokens: Floats
    completion_tokens: Floats
    cached_tokens: Floats
    first_event_tokens: Floats
    characters: Floats
    outcome: NDArray[np.int8]
    """Position in OUTCOMES."""
    is_engine_usage: Flags
    """Whether the counts are the engine's own."""
    gap_counts: NDArray[np.int64]
    gaps_us: NDArray[np.int32]
    """Of all requests, one after the other."""
    errors: dict[str, int]

    @property
    def n(self) -> int:
        return len(self.scheduled_s)

    @property
    def is_ok(self) -> Flags:
        result: Flags = self.outcome == OUTCOMES.index(Outcome.OK)
        return result

    def parts(self, most_gaps: int = PART_GAPS) -> Iterator[tuple[slice, Columns]]:
        """The rows in order, in parts of about so many gaps: what is made for each event then fits in memory."""
        ends = np.cumsum(self.gap_counts)
        begin = 0
        while begin < self.n:
            before = int(ends[begin - 1]) if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, before + most_gaps, side="right")))
            rows = slice(begin, end)
            of_rows = {name: getattr(self, name)[rows] for name in _BY_ROW}
            yield rows, Columns(**of_rows, gaps_us=self.gaps_us[before : int(ends[end - 1])], errors={})
            begin = end

    def event_times(self) -> Floats:
        """When each event after a request's first came, as `gaps_us` lies."""
        if self.gaps_us.size == 0:
            return np.zeros(0)
        since_all = np.cumsum(self.gaps_us, dtype=np.float64) / 1e6
        ends = np.cumsum(self.gap_counts)
        before = np.concatenate(([0.0], since_all))[ends - self.gap_counts]
        result: Floats = since_all + np.repeat(self.first_s - before, self.gap_counts)
        return result


@dataclass(frozen=True, slots=True)
class RepeatFiles:
    """What the workers of one repeat left behind."""

    headers: tuple[CellHeader, ...]
    footers: tuple[CellFooter, ...]
    """Fewer than headers where workers were lost."""
    columns: Columns
    torn_lines: int
    """Last lines that break off: a worker was killed, or its disk was full, while it wrote."""


def read_repeat(paths: Sequence[Path], *, side: str | None = None) -> RepeatFiles:
    """The files of all workers of one repeat; of comparisons only the records of `side`.

    Raises ValueError that names file and line for what is no record of this version.
    """
    headers: list[CellHeader] = []
    footers: list[CellFooter] = []
    rows = _Rows(side)
    torn = 0
    for path in paths:
        with path.open("rb") as file:
            torn += _read_worker(file, path.name, headers, footers, rows)
    return RepeatFiles(tuple(headers), tuple(footers), rows.columns(), torn)


def columns_of(records: Iterable[RequestRecord]) -> Columns:
    """Records as columns."""
    rows = _Rows(None)
    for record in records:
        rows.add(record)
    return rows.columns()


_RECORD = msgspec.json.Decoder(RequestRecord)
_HEADER = msgspec.json.Decoder(CellHeader)
_FOOTER = msgspec.json.Decoder(CellFooter)


def _read_worker(file: BinaryIO, name: str, headers: list[CellHeader], footers: list[CellFooter], rows: _Rows) -> int:
    """Reads one worker's file; returns 1 where its last line breaks off."""
    for number, line, is_whole in _lines(file):
        try:
            if number == 1:
                headers.append(_versioned(_HEADER.decode(line)))
            elif FOOTER_MARK in line:
                footers.append(_versioned(_FOOTER.decode(line)))
            else:
                rows.add(_versioned(_RECORD.decode(line)))
        except (msgspec.DecodeError, ValueError) as error:
            if not is_whole:
                return 1
            raise ValueError(f"{name}: line {number}: expected a record of version {VERSION}: {error}") from error
    return 0


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes, and whether the line ends."""
    for number, line in enumerate(file, start=1):
        yield number, line, line.endswith(b"\n")


def _versioned(line: Line) -> Line:
    if line.v != VERSION:
        raise ValueError(f"its version is {line.v}")
    return line


class _Rows:
    """Grows columns without an object a value."""

    def __init__(self, side: str | None) -> None:
        self._side = side
        self._numbers = {name: array("d") for name in _NUMBERS}
        self._outcome = array("b")
        self._engine_usage = array("b")
        self._gap_counts = array("q")
        self._gaps = array("i")
        self._errors: Counter[str] = Counter()

    def add(self, record: RequestRecord) -> None:
        if self._side is not None and record.side != self._side:
            return
        for name, column in self._numbers.items():
            value = getattr(record, name)
            column.append(_NAN if value is None else value)
        self._outcome.append(OUTCOMES.index(record.outcome))
        self._engine_usage.append(record.usage_source == "engine")
        self._gap_counts.append(len(record.gaps_us))
        self._gaps.extend(record.gaps_us)
        if record.error is not None:
            self._errors[record.error] += 1

    def columns(self) -> Columns:
        return Columns(
            **{name: np.frombuffer(column, dtype=np.float64) for name, column in self._numbers.items()},
            outcome=np.frombuffer(self._outcome, dtype=np.int8),
            is_engine_usage=np.frombuffer(self._engine_usage, dtype=np.bool_),
            gap_counts=np.frombuffer(self._gap_counts, dtype=np.int64),
            gaps_us=np.frombuffer(self._gaps, dtype=np.int32),
            errors=dict(self._errors.most_common(MOST_ERRORS)),
        )
