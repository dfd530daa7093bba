from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.request_body import read_request

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(["messages", "temperature", "x", "최대", 'quo"te', "back\\slash", ""]), JSON_VALUES, max_size=5
)
STYLES = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")])


def written(pairs: list[tuple[str, Any]], style: tuple[str, str], *, ascii_only: bool) -> bytes:
    """A JSON object as some client writes it; names may repeat."""
    comma, colon = style
    members = (
        f"{json.dumps(k, ensure_ascii=ascii_only)}{colon}{json.dumps(v, ensure_ascii=ascii_only)}" for k, v in pairs
    )
    return ("{" + comma.join(members) + "}").encode()


@given(
    FIELDS,
    STYLES,
    st.booleans(),
    st.booleans(),
    st.none() | st.dictionaries(st.just("continuous_usage_stats"), st.booleans()),
)
def test_only_model_and_stream_options_change(
    fields: dict[str, Any], style: tuple[str, str], ascii_only: bool, stream: bool, options: dict[str, Any] | None
) -> None:
    body = {**fields, "model": "ours", "stream": stream, **({"stream_options": options} if options is not None else {})}
    request = read_request(written(list(body.items()), style, ascii_only=ascii_only))
    usage = {"stream_options": {**(options or {}), "include_usage": True}} if stream else {}
    assert json.loads(request.for_engine("theirs")) == {**body, "model": "theirs", **usage}
    assert (request.model, request.stream, request.choices) == ("ours", stream, 1)
    if not stream:
        assert request.for_engine("ours") == request.raw


@given(FIELDS, STYLES, st.booleans(), st.data())
def test_any_repeated_field_is_refused_by_name(
    fields: dict[str, Any], style: tuple[str, str], ascii_only: bool, data: st.DataObject
) -> None:
    pairs = [("model", "m"), *fields.items()]
    name, value = data.draw(st.sampled_from(pairs))
    pairs.insert(data.draw(st.integers(0, len(pairs))), (name, data.draw(JSON_VALUES | st.just(value))))
    with pytest.raises(InvalidRequest, match="more than once") as caught:
        read_request(written(pairs, style, ascii_only=ascii_only))
    assert caught.value.param == name


@given(st.binary(max_size=60))
def test_garbage_is_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_request(raw)


def test_numbers_keep_their_spelling() -> None:
    raw = b'{"model":"a","temperature":1.50,"seed":12345678901234567890123,"stream":true}'
    assert read_request(raw).for_engine("b") == (
        b'{"model":"b","temperature":1.50,"seed":12345678901234567890123,"stream":true,'
        b'"stream_options":{"include_usage":true}}'
    )
