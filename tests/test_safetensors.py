"""Safetensors headers and indices: read back as written, and one clear complaint for anything malformed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors_files import data_bytes, file_head, header_fields, with_prefix

from gateway.domain.safetensors import (
    DTYPE_BITS,
    MAX_HEADER_BYTES,
    first_double,
    header_length,
    parse_header,
    parse_index,
)

WHOLE_BYTES = sorted(name for name, bits in DTYPE_BITS.items() if bits % 8 == 0)
SHAPES = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(WHOLE_BYTES), st.lists(st.integers(0, 9), max_size=4)),
    max_size=8,
)
ONE = {"a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}


def refusal_of(header: object) -> str:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    with pytest.raises(ValueError) as refused:
        parse_header(with_prefix(data), file="f.safetensors")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def complaint_of(data: bytes) -> str:
    """What is said about the bytes; nothing where they are a header. Any other exception is a defect."""
    try:
        parse_header(data, file="x.safetensors")
    except ValueError as error:
        return str(error)
    return ""


@given(SHAPES)
def test_a_header_reads_back_as_it_was_written(shapes: Any) -> None:
    head = file_head(shapes)
    header = parse_header(head + b"data is not looked at", file="f")
    assert {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in header.tensors} == {
        name: (dtype, list(shape)) for name, (dtype, shape) in shapes.items()
    }
    assert header.file_bytes == len(head) + data_bytes(shapes)
    assert header_length(head, file="f") == len(head) - 8


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_header_or_one_clear_complaint(data: bytes) -> None:
    complaint = complaint_of(data)
    assert complaint == "" or complaint.startswith("x.safetensors: ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), JSON | st.fixed_dictionaries(
    {"dtype": st.sampled_from(["BF16", "U8", "Q9"]) | JSON, "shape": st.lists(st.integers(-1, 4), max_size=2) | JSON,
     "data_offsets": st.lists(st.integers(-1, 20), max_size=3) | JSON})))  # fmt: skip
def test_any_json_is_a_header_or_one_clear_complaint(fields: Any) -> None:
    complaint = complaint_of(with_prefix(json.dumps(fields).encode()))
    assert complaint == "" or complaint.startswith("x.safetensors: ")


@given(SHAPES, st.data())
def test_a_header_cut_short_is_refused(shapes: Any, data: st.DataObject) -> None:
    head = file_head(shapes)
    end = data.draw(st.integers(0, len(head) - 1))
    with pytest.raises(ValueError, match=r"cut short|at least 8 bytes"):
        parse_header(head[:end], file="f")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (b"[1]", "begins with '{'"),
        (b'{"a": 1}', "'a': expected dtype, shape and data_offsets, got 1"),
        (b'{"a" 1}', "expected JSON"),
        (b'{"\xff": 1}', "UTF-8"),
        (b'{"a":' * 100_000, "expected JSON"),
        (b'{"a": {}, "a": {}}', "'a' stands there twice"),
        ({"a": ONE["a"] | {"dtype": "F12"}}, "dtype: expected one of BOOL"),
        ({"a": ONE["a"] | {"shape": [2, -3]}}, "shape: expected a list of whole numbers"),
        ({"a": ONE["a"] | {"shape": [2.0, 3]}}, "shape: expected a list of whole numbers"),
        ({"a": ONE["a"] | {"shape": [True, 3]}}, "shape: expected a list of whole numbers"),
        ({"a": ONE["a"] | {"data_offsets": [0, 13]}}, "expected 12 bytes for BF16 [2, 3], got 13"),
        ({"a": ONE["a"] | {"data_offsets": [12, 0]}}, "expected 12 bytes"),
        ({"a": ONE["a"] | {"data_offsets": [1, 13]}}, "leaves 1 bytes unused"),
        ({**ONE, "b": ONE["a"]}, "'b': expected data from byte 12 on; it overlaps"),
        ({"__metadata__": {"n": 1}, **ONE}, "__metadata__: expected a mapping from text to text"),
        ({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, "expected 1.5 bytes"),
        ({"a": {"dtype": "F6_E2M3", "shape": [3], "data_offsets": [0, 1]}}, "expected 2.25 bytes"),
        ({"a": ONE["a"] | {"shape": [2**56] * 64}}, "'a': shape: expected at most 72,057,594,037,927,936 bytes"),
    ],
)
def test_what_is_malformed_is_named(header: object, complaint: str) -> None:
    message = refusal_of(header)
    assert message.startswith("f.safetensors: ")
    assert complaint in message


class Counted(str):
    """A name that counts how often names are compared with each other."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


def test_a_name_that_stands_there_twice_is_found_in_one_pass() -> None:
    names = [f"model.layers.{n}.weight" for n in range(200_000)]
    Counted.compared = 0
    assert first_double((Counted(name), {}) for name in [*names, names[-1]]) == names[-1]
    assert Counted.compared < 100, "a search of every name through every other compares 20,000,000,000 times"
    text = "{" + ", ".join(f'"{name}": {{}}' for name in [*names[:9], names[5]]) + "}"
    assert "'model.layers.5.weight' stands there twice" in refusal_of(text.encode())


def test_no_header_is_longer_than_the_format_allows() -> None:
    with pytest.raises(ValueError, match="100,000,000 bytes"):
        header_length((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), file="f")


def test_a_git_lfs_pointer_is_called_what_it_is() -> None:
    with pytest.raises(ValueError, match="Git LFS pointer"):
        parse_header(b"version https://git-lfs.github.com/spec/v1\n", file="f")


def test_sub_byte_formats_are_sized_by_their_bits() -> None:
    header = parse_header(file_head({"a": ("F4", [3, 2]), "b": ("F8_E8M0", [2])}), file="f")
    assert [tensor.size_bytes for tensor in header.tensors] == [3, 2]


def test_an_index_names_its_files() -> None:
    index = parse_index(
        b'{"metadata": {"total_size": 12}, "weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors"}}', file="i"
    )
    assert (index.files, index.total_bytes) == (("m-1.safetensors", "m-2.safetensors"), 12)


@pytest.mark.parametrize("name", ["../m.safetensors", "/m.safetensors", "a/m.safetensors", "m.bin", ".safetensors", 3])
def test_an_index_leads_to_no_other_folder(name: object) -> None:
    with pytest.raises(ValueError, match="same folder"):
        parse_index(json.dumps({"weight_map": {"a": name}}).encode(), file="i")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {}}'])
def test_an_index_without_a_map_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^i: "):
        parse_index(text, file="i")


def test_the_helper_writes_what_the_format_says() -> None:
    assert header_fields({"a": ("BF16", [2, 3])}) == ONE
