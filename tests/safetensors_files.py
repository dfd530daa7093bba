"""Safetensors bytes as the format has them, for tests: headers of any tensors, and files whose data is zeros."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from gateway.domain.safetensors import DTYPE_BITS, Tensor

Shapes = Mapping[str, tuple[str, Sequence[int]]]
"""Number format and shape by name."""


def header_fields(shapes: Shapes) -> dict[str, Any]:
    """The header's JSON, tensors one behind the other."""
    fields, at = {}, 0
    for name, (dtype, shape) in shapes.items():
        size = prod(shape) * DTYPE_BITS[dtype] // 8
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return fields


def with_prefix(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def file_head(shapes: Shapes) -> bytes:
    """The file up to its data."""
    return with_prefix(json.dumps({"__metadata__": {"format": "pt"}, **header_fields(shapes)}).encode())


def data_bytes(shapes: Shapes) -> int:
    return sum(prod(shape) * DTYPE_BITS[dtype] // 8 for dtype, shape in shapes.values())


def whole_file(shapes: Shapes) -> bytes:
    return file_head(shapes) + bytes(data_bytes(shapes))


def tensors(shapes: Shapes) -> list[Tensor]:
    return [
        Tensor(name, dtype, tuple(shape), prod(shape) * DTYPE_BITS[dtype] // 8)
        for name, (dtype, shape) in shapes.items()
    ]
