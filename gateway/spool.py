"""The spool: what must survive a killed process, appended to files one line a record.

A record is in the spool when `append` returns (kill -9 proof) and on the disk after the next `sync` (power-cut proof).
A segment is a header line with the schema's version, then lines of CRC-32, kind and JSON. It knows how many of its
records the database has not confirmed and disappears when there are none. When to sync, what to do with records
that the spool refused, and the database belong in `recorder`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import msgspec

from gateway.domain.records import Call, CallOpened
from gateway.errors import StartRefused
from gateway.file_lock import FileLock

VERSION = 1
_MAGIC = b"simsa-spool "
_HEADER = _MAGIC + b"%d\n" % VERSION
_SUFFIX = ".spool"
_REFUSED = "refused.lines"
NUL = b"\\u0000"
"""How a line shows a NUL, which PostgreSQL keeps in no text; see `legible`."""

R = TypeVar("R", bound=Call | CallOpened)
_encode = msgspec.json.Encoder().encode
_decode: dict[bytes, Callable[[bytes], Call | CallOpened]] = {
    b"O": msgspec.json.Decoder(CallOpened).decode,
    b"C": msgspec.json.Decoder(Call).decode,
}


class Segment:
    """One file of the spool that this process appends to."""

    __slots__ = ("fd", "is_new", "is_removed", "is_sealed", "outstanding", "path", "size")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = 0
        self.outstanding = 0
        """Records that the database has not confirmed."""
        self.is_sealed = False
        """Nothing more is appended."""
        self.is_new = True
        """Its name is not yet on the disk."""
        self.is_removed = False

    def append(self, line: bytes) -> None:
        written = os.write(self.fd, line)
        if written != len(line):
            with suppress(OSError):
                os.ftruncate(self.fd, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written

    @property
    def is_done(self) -> bool:
        return self.is_sealed and self.outstanding == 0

    def remove(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.path.unlink(missing_ok=True)
        self.is_removed = True

    def sync(self) -> None:
        """Put it on the disk; close it when it is sealed. Not on the event loop."""
        if self.fd < 0:
            return
        sealed = self.is_sealed
        try:
            os.fsync(self.fd)
            if self.is_new:
                _sync_directory(self.path.parent)
                self.is_new = False
        finally:
            if sealed:
                os.close(self.fd)
                self.fd = -1


@dataclass(frozen=True, slots=True)
class Contents:
    """What a segment of an earlier process holds. `torn` lines were cut short or damaged."""

    records: list[Call | CallOpened]
    torn: int
    is_damaged: bool
    """True when something other than the last line is unreadable, which no crash explains."""


class Spool:
    """The directory and its current segment. Everything but `sync` is called on the event loop."""

    def __init__(self, directory: Path, segment_bytes: int) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._number = 0
        self._lock: FileLock | None = None
        self._current: Segment | None = None
        self._touched: set[Segment] = set()
        self.size = 0
        """Bytes in all segments."""
        self.failing: str | None = None
        """Why the last record could not be appended or synced; None while all is well."""

    def open(self) -> list[Path]:
        """Take the directory for this process and list, oldest first, the segments an earlier one left.

        Raises StartRefused when another process has it or a segment was written by a newer version.
        """
        self._lock = FileLock(
            self._directory / "lock",
            refusal=f"{self._directory} is in use by another simsa process: "
            "stop the other one, or give this one its own SIMSA_DATA_DIR",
        )
        left = sorted(self._directory.glob(f"*{_SUFFIX}"))
        try:
            for path in left:
                _refuse_newer(path)
                self.size += path.stat().st_size
        except BaseException:
            self._lock.release()
            raise
        used = (int(path.stem) for path in self._directory.iterdir() if path.stem.isdecimal())
        self._number = max(used, default=0)
        return left

    def append(self, line: bytes) -> Segment | None:
        """Append a framed record. None when the file system refuses; `failing` then says why.

        The next record is tried on a fresh segment.
        """
        segment = self._current
        try:
            if segment is None:
                segment = self._begin_segment()
            segment.append(line)
        except OSError as error:
            self.fail(error)
            return None
        segment.outstanding += 1
        self.size += len(line)
        self._touched.add(segment)
        if self.failing is not None:
            self.failing = None
        if segment.size >= self._segment_bytes:
            self.seal()
        return segment

    def release(self, segments: Iterable[Segment]) -> None:
        """The database has one record of each of these."""
        for segment in segments:
            segment.outstanding -= 1
            if segment.is_done:
                self._touched.add(segment)

    def fail(self, error: OSError) -> None:
        self.failing = error.strerror or str(error)
        self.seal()

    def seal(self) -> None:
        """Append no more to the current segment."""
        if self._current is not None:
            self._current.is_sealed = True
            self._touched.add(self._current)
            self._current = None

    def touched(self) -> list[Segment]:
        """Segments that need `settle`, handed over once; `forget` them afterwards."""
        touched, self._touched = self._touched, set()
        return sorted(touched, key=lambda segment: segment.path)

    def touch_again(self, segments: Iterable[Segment]) -> None:
        """`settle` failed: those that still lie on the disk need it again."""
        self._touched.update(segment for segment in segments if not segment.is_removed)

    def forget(self, segments: Iterable[Segment]) -> None:
        """No longer count those that were removed."""
        for segment in segments:
            if segment.is_removed:
                self.size -= segment.size
                segment.size = 0

    def set_aside(self, line: bytes) -> None:
        """Keep a record that the database refuses for good where an operator can find it."""
        with (self._directory / _REFUSED).open("ab") as file:
            file.write(line)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _begin_segment(self) -> Segment:
        self._number += 1
        segment = Segment(self._directory / f"{self._number:012d}{_SUFFIX}")
        try:
            segment.append(_HEADER)
        except OSError:
            segment.remove()
            raise
        self.size += segment.size
        self._current = segment
        return segment


def settle(segments: Iterable[Segment], make_durable: Callable[[], None]) -> None:
    """Sync what was written, remove what is done. Not on the event loop.

    Removes only after `make_durable` has put what the database confirmed on the disk: a commit alone may still be in
    memory. Raises the first OSError after trying all.
    """
    failure: OSError | None = None
    done: list[Segment] = []
    unfinished: list[Segment] = []
    for segment in segments:
        (done if segment.is_done else unfinished).append(segment)
    for segment in unfinished:
        try:
            segment.sync()
        except OSError as error:
            failure = failure or error
    if done:
        make_durable()
    for segment in done:
        segment.remove()
    if failure is not None:
        raise failure


def frame(record: Call | CallOpened) -> bytes:
    """One line of the spool. Raises UnicodeEncodeError when a text holds half of a surrogate pair; see `legible`."""
    body = (b"C" if type(record) is Call else b"O") + _encode(record)
    return b"%08x%b\n" % (crc32(body), body)


def legible(record: R) -> R:
    """The record with a question mark for each NUL and each half of a surrogate pair, which no encoding carries."""
    return _legible(record)  # type: ignore[no-any-return]


def _legible(value: Any) -> Any:
    if type(value) is str:
        return value.encode("utf-8", "replace").decode().replace("\0", "?")
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _legible(getattr(value, f.name)) for f in fields(value)})
    return value


def read_segment(path: Path) -> Contents:
    """Everything legible in a segment of an earlier process. Not on the event loop."""
    header, _, body = path.read_bytes().partition(b"\n")
    if header + b"\n" != _HEADER:  # cut short before its first record, or never ours
        return Contents([], torn=1, is_damaged=not _HEADER.startswith(header))
    *lines, tail = body.split(b"\n")
    found = [_read_line(line) for line in lines]
    records = [record for record in found if record is not None]
    damaged = len(found) - len(records)
    return Contents(records, torn=damaged + (tail != b""), is_damaged=damaged > 0)


def newest(records: Iterable[Call | CallOpened]) -> list[Call | CallOpened]:
    """One record a call: its end where there is one."""
    found: dict[str, Call | CallOpened] = {}
    for record in records:
        if isinstance(record, Call):
            found[record.opened.id] = record
        else:
            found.setdefault(record.id, record)
    return list(found.values())


def retire(path: Path, *, keep: bool) -> int:
    """Remove a replayed segment, or put it aside for an operator; its size in bytes. Not on the event loop."""
    size = path.stat().st_size
    if keep:
        path.rename(path.with_suffix(".damaged"))
    else:
        path.unlink()
    return size


def _read_line(line: bytes) -> Call | CallOpened | None:
    body = line[8:]
    if line[:8] != b"%08x" % crc32(body):
        return None
    try:
        return _decode[body[:1]](body[1:])
    except (KeyError, msgspec.MsgspecError):
        return None


def _refuse_newer(path: Path) -> None:
    with path.open("rb") as file:
        header = file.readline(len(_HEADER) + 8)
    version = header.removeprefix(_MAGIC).strip()
    if header.startswith(_MAGIC) and version.isdigit() and int(version) > VERSION:
        raise StartRefused(
            f"{path} has spool schema {int(version)}, this version of simsa reads up to {VERSION}: "
            "start the newer version once, so that it stores these records"
        )


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
