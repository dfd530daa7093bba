"""Any rules against any request: what the API gets, what the caller is told, what is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.records import Adapter, Model, Serving, ServingKind, StreamUsage
from gateway.errors import InvalidRequest
from gateway.request_adapter import adapt
from gateway.request_body import RequestBody, read_request

NAMES = ["seed", "user", "logprobs", "temperature", "stop", "top_k", "최대", 'quo"te']
VALUES = st.sampled_from([None, False, True, 0, 1, 1.50, -3, "", "텍스트", [], [1], {}, {"a": {"b": 1}}])
FIELDS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
STYLES = st.sampled_from([(",", ":"), (", ", ": ")])


def model(adapter: Adapter | None) -> Model:
    return Model("ours", Serving(ServingKind.OPENAI_API, "theirs", adapter=adapter))


def request(fields: dict[str, Any], style: tuple[str, str] = (",", ":")) -> RequestBody:
    return read_request(json.dumps({"model": "ours", **fields}, ensure_ascii=False, separators=style).encode())


@given(FIELDS, st.frozensets(st.sampled_from(NAMES)), STYLES, st.booleans(), st.sampled_from(StreamUsage))
def test_what_is_dropped_is_told_and_all_else_arrives(
    fields: dict[str, Any], drop: frozenset[str], style: tuple[str, str], stream: bool, usage: StreamUsage
) -> None:
    body = {**fields, "stream": stream}
    adapted = adapt(request(body, style), model(Adapter(drop=drop, stream_usage=usage)))
    sent = {name: value for name, value in body.items() if name not in drop}
    if stream and usage is StreamUsage.ASKED:
        sent["stream_options"] = {"include_usage": True}
    assert json.loads(adapted.for_engine("theirs")) == {"model": "theirs", **sent}
    assert list(adapted.adaptation.told) == [name for name in fields if name in drop]


@given(FIELDS, STYLES)
def test_without_rules_the_request_is_the_very_same(fields: dict[str, Any], style: tuple[str, str]) -> None:
    body = request(fields, style)
    assert adapt(body, model(None)) is body


@given(st.sampled_from(NAMES), VALUES)
def test_a_refused_field_is_refused_unless_it_asks_for_nothing(name: str, value: Any) -> None:
    rules = model(Adapter(refuse={name: "It cannot."}))
    if value is True or value not in (None, False, 0, "", [], {}):
        with pytest.raises(InvalidRequest, match=r"'ours' does not take '.*': It cannot\.") as caught:
            adapt(request({name: value}), rules)
        assert caught.value.param == name
    else:
        adapted = adapt(request({name: value}), rules)
        assert json.loads(adapted.for_engine("ours")) == {"model": "ours"}
        assert adapted.adaptation.told == (name,)


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 10**6))
def test_a_number_passes_up_to_its_limit(value: float, most: int) -> None:
    rules = model(Adapter(limits={"seed": Decimal(most)}))
    if value > most:
        with pytest.raises(InvalidRequest, match="may be at most"):
            adapt(request({"seed": value}), rules)
    else:
        assert json.loads(adapt(request({"seed": value}), rules).for_engine("ours"))["seed"] == value


@pytest.mark.parametrize("raw", [b"1e999", b'"9"', b"true", b"[9]", b"null", b"NaN"])
def test_a_limit_says_nothing_about_what_is_no_number(raw: bytes) -> None:
    rules = model(Adapter(limits={"seed": Decimal(1)}))
    if raw == b"NaN":
        with pytest.raises(InvalidRequest):
            read_request(b'{"model":"ours","seed":' + raw + b"}")
    else:
        body = read_request(b'{"model":"ours","seed":' + raw + b"}")
        assert adapt(body, rules).for_engine("ours") == body.raw


def test_numbers_and_escapes_keep_their_spelling_when_members_go() -> None:
    raw = b'{ "model":"ours", "temperature":1.50, "x":"\\uc548\\/", "seed":12345678901234567890123 , "user":"u"}'
    adapted = adapt(read_request(raw), model(Adapter(drop=frozenset({"user"}))))
    assert adapted.for_engine("ours") == (
        b'{"model":"ours","temperature":1.50,"x":"\\uc548\\/","seed":12345678901234567890123}'
    )


def test_an_api_that_always_tells_usage_is_not_asked_and_the_caller_loses_nothing() -> None:
    rules = model(Adapter(stream_usage=StreamUsage.ALWAYS))
    adapted = adapt(request({"stream": True, "stream_options": {"include_usage": True}}), rules)
    assert json.loads(adapted.for_engine("ours")) == {"model": "ours", "stream": True}
    assert adapted.adaptation.told == ()
    assert adapted.wants_usage
