"""What a checkpoint says of itself: its configuration and the headers of its weights, from a folder or from a hub.

Tensor data is never read. What the facts are, `domain.checkpoint` decides; how a hub is asked belongs to `hub`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Protocol

from gateway.domain.checkpoint import checkpoint_model
from gateway.domain.records import Model
from gateway.domain.safetensors import (
    PREFIX_BYTES,
    Header,
    Index,
    Tensor,
    header_length,
    parse_header,
    parse_index,
    read_json_object,
)
from gateway.errors import CheckpointUnreadable
from gateway.hub import HubFolder
from gateway.settings import Settings
from gateway.upstream import Upstream

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_INDEX_BYTES = 64 * 1024 * 1024
MAX_FILES = 1000
MAX_HEADERS_BYTES = 256 * 1024 * 1024
"""Of all files of one checkpoint together."""
FILES_AT_ONCE = 8


class Folder(Protocol):
    """Where a checkpoint's files are."""

    async def read(self, name: str, *, limit: int) -> bytes | None: ...

    async def read_header(self, name: str, *, reserve: Callable[[int], None]) -> tuple[bytes, int | None] | None:
        """`reserve` is told the header's length before it is read, and may raise; it may be called from any thread."""
        ...


async def read_checkpoint(source: str, settings: Settings, *, model_id: str | None = None) -> Model:
    """The facts of the checkpoint at `source`: a folder, one of its files, or the URL of a folder on an allowed hub.

    `model_id` is the folder's name unless given. Raises CheckpointUnreadable with one sentence.
    """
    if source.startswith(("http://", "https://")):
        return await _read_hub(source, settings, model_id)
    try:
        place = _place(Path(source))
        name = model_id or _name_of(place.name)
        if place.config is not None:
            text = await place.folder.read(place.config, limit=MAX_CONFIG_BYTES)
            return checkpoint_model(name, source, config=read_json_object(text or b"", what=source), tensors=None)
        return await _read_folder(place.folder, name, source, place.weights)
    except ValueError as error:
        raise CheckpointUnreadable(str(error)) from error


async def _read_hub(url: str, settings: Settings, model_id: str | None) -> Model:
    upstream = Upstream(idle_connections=FILES_AT_ONCE, now=perf_counter)
    try:
        async with asyncio.timeout(settings.hub_timeout_s):
            folder = HubFolder(url, allowed=settings.hubs, upstream=upstream, within_s=settings.hub_timeout_s)
            name = model_id or _name_of(re.sub(r"/(resolve|raw)/.*$", "", folder.url).rpartition("/")[2])
            return await _read_folder(folder, name, folder.url, None)
    except TimeoutError as error:
        limit = f"{settings.hub_timeout_s:g} s (SIMSA_HUB_TIMEOUT_S)"
        raise CheckpointUnreadable(f"{url}: not read within {limit}") from error
    except ValueError as error:
        raise CheckpointUnreadable(str(error)) from error
    finally:
        upstream.close()


async def _read_folder(folder: Folder, model_id: str, source: str, files: Sequence[str] | None) -> Model:
    """`files`: the weights, None where the index or the one usual file has to be looked for."""
    text = await folder.read(CONFIG, limit=MAX_CONFIG_BYTES)
    config = None if text is None else read_json_object(text, what=f"{source}/{CONFIG}")
    index = None
    if files is None:
        index_text = await folder.read(INDEX, limit=MAX_INDEX_BYTES)
        index = None if index_text is None else parse_index(index_text, file=f"{source}/{INDEX}")
        files = index.files if index is not None else (SINGLE,)
    if len(files) > MAX_FILES:
        raise ValueError(f"{source}: expected at most {MAX_FILES:,} files of weights, got {len(files):,}")
    headers = await _read_headers(folder, files, source, is_sure=index is not None)
    if not headers and config is None:
        raise ValueError(f"{source}: expected a {CONFIG} or safetensors files, and there are neither")
    tensors = _tensors(headers, index, source) if headers else None
    return checkpoint_model(model_id, source, config=config, tensors=tensors)


async def _read_headers(folder: Folder, files: Sequence[str], source: str, *, is_sure: bool) -> dict[str, Header]:
    """The headers by file. `is_sure`: whether the files must be there."""
    places, allowance = asyncio.Semaphore(FILES_AT_ONCE), _Allowance(source)
    found: dict[str, Header] = {}

    async def read_one(name: str) -> None:
        async with places:
            answer = await folder.read_header(name, reserve=allowance.take)
            if answer is None and is_sure:
                raise ValueError(f"{source}/{INDEX}: expected {name} beside it, and there is none")
            if answer is None:
                return
            data, length = answer
            header = found[name] = parse_header(data, file=f"{source}/{name}")
            if length is not None and length != header.file_bytes:
                expected = f"{header.file_bytes:,} bytes by its header"
                raise ValueError(f"{source}/{name}: expected {expected}, got {length:,}: it is not whole")

    try:
        async with asyncio.TaskGroup() as readers:
            for name in files:
                readers.create_task(read_one(name))
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
    return found


class _Allowance:
    """How many bytes of headers may still be read. Files are read in several threads."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = MAX_HEADERS_BYTES
        self._lock = Lock()

    def take(self, size: int) -> None:
        """Raises ValueError where so many are no longer left."""
        with self._lock:
            self._left -= size
            if self._left < 0:
                raise ValueError(f"{self._source}: expected at most {MAX_HEADERS_BYTES:,} bytes of headers in all")


def _tensors(headers: Mapping[str, Header], index: Index | None, source: str) -> list[Tensor]:
    """All tensors, each once. Raises ValueError where files and index do not agree."""
    found: dict[str, Tensor] = {}
    for file, header in headers.items():
        for tensor in header.tensors:
            if index is not None and index.file_of.get(tensor.name) != file:
                continue
            if tensor.name in found:
                raise ValueError(f"{source}/{file}: {tensor.name!r} is in another file too")
            found[tensor.name] = tensor
    if index is not None:
        missing = sorted(index.file_of.keys() - found.keys())
        if missing:
            name = missing[0]
            where = index.file_of[name]
            raise ValueError(f"{source}/{INDEX}: {name!r} is said to be in {where}, which does not have it")
    return list(found.values())


def _name_of(folder: str) -> str:
    """A folder's name as the registry takes it."""
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", folder).strip("-._+")
    return name[:128] or "checkpoint"


# --- a folder of this machine -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """What of a folder is meant."""

    folder: _LocalFolder
    name: str
    config: str | None = None
    """The configuration, where it alone is meant."""
    weights: tuple[str, ...] | None = None
    """The files of weights, where there is no index to be looked for."""


def _place(path: Path) -> _Place:
    """Raises ValueError for what is no checkpoint."""
    if path.is_dir():
        return _Place(_LocalFolder(path), path.resolve().name, weights=_weights_beside(path))
    folder, name = _LocalFolder(path.parent), path.resolve().parent.name
    if path.is_file() and path.suffix == ".safetensors":
        return _Place(folder, name, weights=(path.name,))
    if path.is_file() and path.name == INDEX:
        return _Place(folder, name)
    if path.is_file() and path.suffix == ".json":
        return _Place(folder, name, config=path.name)
    what = "a folder with a config.json, a config.json, or a .safetensors file"
    raise ValueError(f"{path}: expected {what}, and there is no such thing")


def _weights_beside(path: Path) -> tuple[str, ...] | None:
    """The one safetensors file of a folder without an index, whatever its name; None where there may be an index."""
    names = sorted(file.name for file in path.glob("*.safetensors") if not file.name.startswith("consolidated"))
    if (path / INDEX).exists() or SINGLE in names or not names:
        return None
    if len(names) > 1:
        raise ValueError(f"{path}: expected {INDEX} beside {len(names)} safetensors files, and there is none")
    return tuple(names)


class _LocalFolder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, name: str, *, limit: int) -> bytes | None:
        return await asyncio.to_thread(self._read, name, limit)

    async def read_header(self, name: str, *, reserve: Callable[[int], None]) -> tuple[bytes, int | None] | None:
        return await asyncio.to_thread(self._read_header, name, reserve)

    def _read(self, name: str, limit: int) -> bytes | None:
        path = self._path / name
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointUnreadable(f"{path}: cannot be read: {error.strerror}") from error
        if len(data) > limit:
            raise CheckpointUnreadable(f"{path}: expected at most {limit:,} bytes")
        return data

    def _read_header(self, name: str, reserve: Callable[[int], None]) -> tuple[bytes, int | None] | None:
        path = self._path / name
        try:
            with path.open("rb") as file:
                prefix = file.read(PREFIX_BYTES)
                length = header_length(prefix, file=str(path))
                reserve(length)
                return prefix + file.read(length), path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointUnreadable(f"{path}: cannot be read: {error.strerror}") from error
