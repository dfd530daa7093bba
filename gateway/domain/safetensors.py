"""What stands at the head of a safetensors file: the name, number format, shape and place of every tensor.

Sans-I/O: the first eight bytes say how long the header is, the header says the rest; no tensor's data is ever needed.
The index that ties several files into one checkpoint is read here too. What the tensors mean for a model is summed up
in `tensor_sums`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

PREFIX_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
LARGEST = 2**56
"""Of any number in a header; no file is that long."""
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    dtype: str
    """As the format spells it, e.g. BF16."""
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """All tensors of one file, in the order of their data."""

    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str]
    file_bytes: int
    """How long the file must be: prefix, header and data."""


@dataclass(frozen=True, slots=True)
class Index:
    """Which file of a checkpoint has which tensor."""

    files: tuple[str, ...]
    file_of: Mapping[str, str]
    total_bytes: int | None
    """What the index says all tensors take; None where it does not say."""


def header_length(prefix: bytes, *, file: str) -> int:
    """Bytes of the header that follows the first eight. Raises ValueError for what is no safetensors file."""
    if len(prefix) < PREFIX_BYTES:
        raise ValueError(f"{file}: expected at least {PREFIX_BYTES} bytes of a safetensors file, got {len(prefix)}")
    if prefix.startswith(b"version "):
        raise ValueError(f"{file}: expected a safetensors file, got a Git LFS pointer: fetch the file itself")
    length = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        limits = f"a header of 2 to {MAX_HEADER_BYTES:,} bytes"
        raise ValueError(f"{file}: expected {limits}, but its first 8 bytes say {length:,}: no safetensors file")
    return length


def parse_header(data: bytes, *, file: str) -> Header:
    """The header in `data`, which begins where the file does; bytes beyond the header are not looked at.

    Raises ValueError that names the file, and the tensor where there is one, for anything that is not as the format
    demands.
    """
    length = header_length(data, file=file)
    text = data[PREFIX_BYTES : PREFIX_BYTES + length]
    if len(text) < length:
        raise ValueError(f"{file}: expected a header of {length:,} bytes, got {len(text):,}: the file is cut short")
    if text[:1] != b"{":
        raise ValueError(f"{file}: expected a header that begins with '{{', got {text[:1]!r}")
    fields = read_json_object(text, what=f"{file}: header")
    metadata = _metadata(fields.pop("__metadata__", {}), file)
    spans = [_span(name, described, file) for name, described in fields.items()]
    spans.sort(key=lambda span: (span[0], span[1]))
    end = 0
    for begin, stop, tensor in spans:
        if begin != end:
            what = "overlaps the one before" if begin < end else f"leaves {begin - end:,} bytes unused before it"
            raise ValueError(f"{file}: {_named(tensor.name)}: expected data from byte {end:,} on; it {what}")
        end = stop
    return Header(tuple(tensor for *_, tensor in spans), metadata, PREFIX_BYTES + length + end)


def parse_index(data: bytes, *, file: str) -> Index:
    """The index in `data`. Raises ValueError for a file outside of the index's own folder, and for any other fault."""
    fields = read_json_object(data, what=file)
    weight_map = fields.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{file}: weight_map: expected a mapping from tensors to files, got {_shown(weight_map)}")
    for name, where in weight_map.items():
        if not isinstance(where, str) or not _is_plain_name(where):
            expected = "the name of a .safetensors file in the same folder"
            raise ValueError(f"{file}: weight_map: {_named(name)}: expected {expected}, got {_shown(where)}")
    metadata = fields.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(total, float) and total.is_integer():
        total = int(total)
    if total is not None and not _is_size(total):
        raise ValueError(f"{file}: metadata.total_size: expected a number of bytes, got {_shown(total)}")
    return Index(tuple(sorted(set(weight_map.values()))), weight_map, total)


def read_json_object(data: bytes, *, what: str) -> dict[str, Any]:
    """A JSON object whose names are all different. Raises ValueError that begins with `what`."""

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError(f"{_named(first_double(pairs))} stands there twice")
        return found

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=refuse_duplicates)
    except UnicodeDecodeError as error:
        raise ValueError(f"{what}: expected JSON in UTF-8, got a byte that is none at {error.start:,}") from error
    except RecursionError as error:
        raise ValueError(f"{what}: expected JSON, got brackets nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{what}: expected JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected a JSON object, got {_shown(value)}")
    return value


def first_double(pairs: Iterable[tuple[str, Any]]) -> str:
    """The first name that was there before, found in one pass. Raises LookupError where every name differs."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    raise LookupError("every name stands there once")


def _span(name: str, described: Any, file: str) -> tuple[int, int, Tensor]:
    """Where a tensor's data begins and ends, counted from the end of the header, and the tensor."""
    at = f"{file}: {_named(name)}"
    if not isinstance(described, dict):
        raise ValueError(f"{at}: expected dtype, shape and data_offsets, got {_shown(described)}")
    dtype, shape, offsets = described.get("dtype"), described.get("shape"), described.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise ValueError(f"{at}: dtype: expected one of {', '.join(DTYPE_BITS)}, got {_shown(dtype)}")
    if not isinstance(shape, list) or not all(_is_size(size) for size in shape) or len(shape) > 64:
        raise ValueError(f"{at}: shape: expected a list of whole numbers, 0 or more, got {_shown(shape)}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
        raise ValueError(f"{at}: data_offsets: expected where its data begins and ends, got {_shown(offsets)}")
    begin, end = offsets
    size, odd_bits = divmod(prod(shape) * DTYPE_BITS[dtype], 8)
    if size > LARGEST:
        raise ValueError(f"{at}: shape: expected at most {LARGEST:,} bytes of {dtype}, got {_shown(shape)}")
    if odd_bits or end - begin != size:
        part = f"{odd_bits / 8:g}".removeprefix("0") if odd_bits else ""
        expected = f"expected {size:,}{part} bytes for {dtype} {_shown(shape)}"
        raise ValueError(f"{at}: data_offsets: {expected}, got {end - begin:,}")
    return begin, end, Tensor(name, dtype, tuple(shape), end - begin)


def _metadata(value: Any, file: str) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{file}: __metadata__: expected a mapping from text to text, got {_shown(value)}")
    return value


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _is_plain_name(name: str) -> bool:
    is_safe = all(sign.isalnum() or sign in "._- " for sign in name)
    return is_safe and name.isascii() and not name.startswith(".") and name.endswith(".safetensors")


def _named(name: str) -> str:
    return repr(name) if len(name) <= 120 else repr(name[:117] + "...")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
