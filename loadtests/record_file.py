"""A worker's file of JSON lines: header, one line a request, footer. Whole lines only, whatever happens to the disk.

Lines wait in memory until `flush`, which its owner calls at least once a second. What lines mean stands in `records`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from loadtests.records import CellFooter, CellHeader, RequestRecord

FLUSH_S = 0.5
PIECE_BYTES = 256 * 1024
"""Of lines that are sent elsewhere; a longer line is a piece of its own."""
_ENCODER = msgspec.json.Encoder()


class RecordsNotKept(OSError):
    """What was measured could not be written; the message says why."""


class Lines(Protocol):
    """Where a worker's lines go: a file of its own, or a master on another host."""

    def append(self, lines: bytes) -> None:
        """Keep whole lines. Raises OSError."""

    def end(self) -> None:
        """Everything kept reaches the disk."""


class LineFile:
    """Whole lines in a file, begun anew."""

    def __init__(self, path: Path) -> None:
        """Raises RecordsNotKept."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecordsNotKept(_not_kept(error)) from error
        self._kept = 0

    def append(self, lines: bytes) -> None:
        """Raises OSError, and then keeps of `lines` those that are whole on the disk."""
        left = memoryview(lines)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            written = len(lines) - len(left)
            self._kept += lines.rfind(b"\n", 0, written) + 1
            with suppress(OSError):
                os.ftruncate(self._file, self._kept)
                os.lseek(self._file, self._kept, os.SEEK_SET)
            raise
        self._kept += len(lines)

    def end(self) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)


class RecordFile:
    """Header, records as they end, footer. `failure`: why nothing can be kept any more, once that is so."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._waiting: list[bytes] = []
        self.failure: str | None = None
        self.lost = 0
        """Records that could not be kept."""

    def begin(self, header: CellHeader) -> None:
        self._waiting.append(_line(header))
        self.flush()

    def add(self, records: Sequence[RequestRecord]) -> None:
        self._waiting += [_line(record) for record in records]

    def flush(self) -> None:
        """Give away what waits. A disk that is full is no exception here: `failure` says so from then on."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        if self.failure is not None:
            self.lost += len(waiting)
            return
        try:
            self._lines.append(b"".join(waiting))
        except OSError as error:
            self.failure = _not_kept(error)

    def end(self, footer: CellFooter) -> None:
        """Write the footer, also after a failure: the end of a file that was full often has room for one line."""
        self.flush()
        try:
            self._lines.append(_line(footer))
            self._lines.end()
        except OSError as error:
            self.failure = self.failure or _not_kept(error)


def pieces_of(lines: bytes) -> Iterator[bytes]:
    """Whole lines, so many at a time as `PIECE_BYTES` hold, at least one."""
    begin = 0
    while begin < len(lines):
        end = lines.rfind(b"\n", begin, begin + PIECE_BYTES) + 1 or lines.find(b"\n", begin) + 1 or len(lines)
        yield lines[begin:end]
        begin = end


def _not_kept(error: OSError) -> str:
    return f"the records cannot be written: {error.strerror or error}"


def _line(value: object) -> bytes:
    return _ENCODER.encode(value) + b"\n"
