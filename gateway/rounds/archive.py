"""A bundle's outside: files in one ZIP archive that is the same, byte for byte, for the same files and moment.

Nothing is compressed: compressors differ, and every byte of the archive has to follow from the files. What the files
say belongs in `bundle`.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from gateway.domain.canonical_json import canonical_json, read_canonical
from gateway.domain.sealing import seal_root

MANIFEST = "manifest.json"
FORMAT = "simsa-bundle-1"
MOST_BYTES = 2 * 1024**3
_MODE = 0o100644 << 16
_UNIX = 3
_LOCAL_HEAD = 30
"""Bytes before a file's name; the last four are the lengths of the name and of what follows it."""


class ArchiveUnreadable(Exception):
    """What is wrong with the archive as an archive."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that was read. `stray`: whether there is a byte in it that its files do not account for."""

    files: Mapping[str, bytes]
    stray: str | None


def pack(files: Mapping[str, bytes], moment: datetime) -> bytes:
    """The archive of the files, in the order of their names, all of one moment."""
    at = moment.astimezone(UTC)
    stamp = (max(at.year, 1980), at.month, at.day, at.hour, at.minute, at.second // 2 * 2)
    return _packed(files, stamp)


def with_manifest(files: Mapping[str, bytes]) -> tuple[dict[str, bytes], str]:
    """The files with a manifest of them, and the bundle's root."""
    entries = manifest_entries(files)
    root = bundle_root(entries)
    manifest = canonical_json({"format": FORMAT, "files": entries, "root": root})
    return {**files, MANIFEST: manifest}, root


def manifest_entries(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {
        name: {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        for name, content in files.items()
        if name != MANIFEST
    }


def bundle_root(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The Merkle root over the files' digests, by name."""
    return seal_root({name: str(entry["sha256"]) for name, entry in entries.items()})


def read_manifest(content: bytes) -> Mapping[str, Any]:
    """Raises ValueError for what is no manifest."""
    manifest = read_canonical(content)
    if not isinstance(manifest, Mapping) or manifest.get("format") != FORMAT:
        raise ValueError(f"expected a manifest of the format {FORMAT}")
    return manifest


def unpack(data: bytes) -> Archive:
    """Raises ArchiveUnreadable for what is no archive of ours."""
    if len(data) > MOST_BYTES:
        raise ArchiveUnreadable(f"{len(data)} bytes are more than the {MOST_BYTES} that a bundle may have")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ArchiveUnreadable("it is compressed, which a bundle is not: it was packed anew")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise ArchiveUnreadable(f"it is no whole ZIP archive: {error}") from error
    files = _stored(data, entries)
    stamp = entries[0].date_time if entries else (1980, 1, 1, 0, 0, 0)
    return Archive(files, _stray(files, stamp, data))


def _stored(data: bytes, entries: Sequence[zipfile.ZipInfo]) -> dict[str, bytes]:
    """The files as they lie in the archive, whatever their checksums say: which one was changed is found later."""
    if sum(entry.file_size for entry in entries) > len(data):
        raise ArchiveUnreadable("its files would be larger than it is")
    files = {}
    for entry in entries:
        head = data[entry.header_offset : entry.header_offset + _LOCAL_HEAD]
        if len(head) < _LOCAL_HEAD:
            raise ArchiveUnreadable(f"{entry.filename} is said to lie outside of it")
        begin = entry.header_offset + _LOCAL_HEAD + sum(struct.unpack("<HH", head[-4:]))
        files[entry.filename] = data[begin : begin + entry.file_size]
    return files


def _stray(files: Mapping[str, bytes], stamp: tuple[int, ...], data: bytes) -> str | None:
    try:
        again = _packed(files, stamp)
    except (ValueError, OverflowError) as error:
        return f"its entries bear a moment that there is not: {error}"
    if again == data:
        return None
    at = next((place for place, (one, other) in enumerate(zip(again, data, strict=False)) if one != other), None)
    place = min(len(again), len(data)) if at is None else at
    return f"byte {place} of the archive is not what its files make it: it was changed outside of them"


def _packed(files: Mapping[str, bytes], stamp: tuple[int, ...]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            year, month, day, hour, minute, second = stamp
            entry = zipfile.ZipInfo(name, (year, month, day, hour, minute, second))
            entry.create_system, entry.external_attr = _UNIX, _MODE
            archive.writestr(entry, files[name])
    return packed.getvalue()
