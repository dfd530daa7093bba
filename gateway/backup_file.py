"""A backup as a file: gzip, and in it lines of JSON that are the same whichever kind of database they came from.

The first line says which schema the rows have. A table begins with a line that names its columns; each row is an array.
The last line counts the rows and has the SHA-256 of all lines before it, so that a file that was cut short or changed
is found. Which rows these are, and where they go, belongs in `backup`.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import msgspec

from gateway.errors import StartRefused

KIND = "simsa.backup"
FORMAT = 1
ROWS_AT_ONCE = 500
_LEVEL = 3
"""Of compression: a third larger than the best, at a tenth of the time."""


class BackupRefused(StartRefused):
    """The file cannot be written, or is no whole backup; the message names it and says why."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    kind: str
    format: int
    revision: str
    """The last step of the schema that the rows have."""
    made_at: str
    made_by: str
    """The version of simsa."""
    database: str
    """The kind that they came from."""


class _TableBegins(msgspec.Struct, frozen=True):
    table: str
    columns: tuple[str, ...]


class _End(msgspec.Struct, frozen=True):
    rows: dict[str, int]
    """By table."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of one table."""

    table: str
    columns: tuple[str, ...]
    values: list[list[Any]]


# --- writing ------------------------------------------------------------------------------------------------


class BackupWriter:
    """Lines of one backup, in order: `begin` a table, `add` its rows, and `end` after the last table."""

    def __init__(self, file: IO[bytes], path: Path, header: Header) -> None:
        self._path = path
        self._zip = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_LEVEL, mtime=0)
        self._digest = sha256()
        self._table = ""
        self.rows: dict[str, int] = {}
        """Written so far, by table."""
        self._write(msgspec.json.encode(header) + b"\n")

    def begin(self, table: str, columns: Sequence[str]) -> None:
        self._table = table
        self.rows[table] = 0
        self._write(msgspec.json.encode(_TableBegins(table, tuple(columns))) + b"\n")

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Rows as a driver gives them."""
        self.rows[self._table] += len(rows)
        self._write(b"".join(msgspec.json.encode([_plain(value) for value in row]) + b"\n" for row in rows))

    def end(self) -> None:
        self._write(msgspec.json.encode(_End(self.rows, self._digest.hexdigest())) + b"\n")
        with _writing(self._path):
            self._zip.close()

    def _write(self, lines: bytes) -> None:
        self._digest.update(lines)
        with _writing(self._path):
            self._zip.write(lines)


@contextmanager
def new_backup(path: Path, header: Header) -> Iterator[BackupWriter]:
    """A backup under this name once the block has ended well, whole and on the disk; else no file.

    Only its owner may read it. Raises BackupRefused where there is a file of the name, or none can be written.
    """
    if path.exists():
        raise BackupRefused(f"{path} exists already: name another file, or remove it")
    beside = path.with_name(f".{path.name}.part")
    with _writing(path):
        file = os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    try:
        with file:
            writer = BackupWriter(file, path, header)
            yield writer
            writer.end()
            with _writing(path):
                file.flush()
                os.fsync(file.fileno())
        with _writing(path):
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupRefused(f"{path} cannot be written: {error.strerror or error}") from error


def _plain(value: Any) -> Any:
    """A driver's value as JSON has it: moments and numbers that must stay exact as the texts that SQLite keeps."""
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if kind is bool:
        return int(value)
    if kind is datetime:
        return value.astimezone(UTC).isoformat(" ", "microseconds")
    if kind is Decimal:
        return f"{value:f}"
    if kind is date:
        return value.isoformat()
    if kind is bytes:
        return {"bytes": b64encode(value).decode()}
    raise TypeError(f"no column of Simsa's holds a {kind.__name__}")


# --- reading ------------------------------------------------------------------------------------------------


class BackupReader:
    """A backup, from its first line to its last. `header` is read at once; iterate over the rest, once."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._path = path
        self._zip = gzip.GzipFile(fileobj=file, mode="rb")
        self._digest = sha256()
        self.header = self._read_header()
        self.rows: dict[str, int] = {}
        """Read so far, by table."""

    def __iter__(self) -> Iterator[Rows]:
        """All rows, some at a time. Raises BackupRefused, at the end too: only then is the whole file known."""
        line = self._line()
        while line.startswith(b'{"table"'):
            table = self._decode(line, _TableBegins)
            self.rows[table.table] = 0
            line = self._line()
            while line.startswith(b"["):
                some = []
                while line.startswith(b"[") and len(some) < ROWS_AT_ONCE:
                    some.append(self._row(line, table))
                    line = self._line()
                self.rows[table.table] += len(some)
                yield Rows(table.table, table.columns, some)
        self._check_end(line)

    def _read_header(self) -> Header:
        line = self._line()
        try:
            header = msgspec.json.decode(line, type=Header)
        except msgspec.MsgspecError as error:
            raise BackupRefused(f"{self._path} is no backup of Simsa's") from error
        if header.kind != KIND:
            raise BackupRefused(f"{self._path} is no backup of Simsa's")
        if header.format > FORMAT:
            raise BackupRefused(
                f"{self._path} was made by simsa {header.made_by}, in a form that this version does not know: "
                "restore it with that version"
            )
        return header

    def _row(self, line: bytes, table: _TableBegins) -> list[Any]:
        values = self._decode(line, list[Any])
        if len(values) != len(table.columns):
            raise self._damaged("a row does not fit its table")
        return [_driven(value) if type(value) is dict else value for value in values]

    def _check_end(self, line: bytes) -> None:
        if not line.startswith(b'{"rows"'):
            raise self._damaged("it is cut short")
        digest = self._digest.hexdigest()
        end = self._decode(line, _End)
        if end.rows != self.rows or end.sha256 != digest:
            raise self._damaged("its rows are not those that were written")
        if self._read() != b"":
            raise self._damaged("something stands behind its end")

    def _line(self) -> bytes:
        """The next line, which counts unless it is the last."""
        line = self._read()
        if not line.startswith(b'{"rows"'):
            self._digest.update(line)
        return line

    def _read(self) -> bytes:
        try:
            return self._zip.readline()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise self._damaged(str(error)) from error
        except OSError as error:
            raise BackupRefused(f"{self._path} cannot be read: {error.strerror or error}") from error

    def _decode(self, line: bytes, kind: Any) -> Any:
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.MsgspecError as error:
            raise self._damaged("a line of it is none of Simsa's") from error

    def _damaged(self, why: str) -> BackupRefused:
        return BackupRefused(f"{self._path} is no whole backup: {why}")


@contextmanager
def opened_backup(path: Path) -> Iterator[BackupReader]:
    """Raises BackupRefused where there is no backup under this name."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BackupRefused(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        yield BackupReader(file, path)


def _driven(value: Mapping[str, str]) -> Any:
    """What JSON has no word for, as drivers take it."""
    ((kind, text),) = value.items()
    return b64decode(text) if kind == "bytes" else float(text)
