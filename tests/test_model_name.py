from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.model_name import Renaming, renaming

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("model"), inner, max_size=3),
    max_leaves=8,
)
LAYOUTS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")])


@given(st.dictionaries(st.text().filter(lambda name: name != "model"), JSON, max_size=4), JSON, LAYOUTS, st.booleans())
def test_only_the_member_itself_is_renamed(before: dict[str, Any], after: Any, layout: Any, ascii_only: bool) -> None:
    body = {**before, "model": 'the"ir\\s', "after": after, "nested": {"model": 'the"ir\\s'}}
    raw = json.dumps(body, separators=layout, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    renamed = Renaming('the"ir\\s', "우리").at(("model",), raw)
    assert json.loads(renamed) == {**body, "model": "우리"}
    nested = Renaming('the"ir\\s', "우리").at(("nested", "model"), raw)
    assert json.loads(nested) == {**body, "nested": {"model": "우리"}}


@given(JSON, st.lists(st.text(), min_size=1, max_size=3))
def test_a_place_that_is_not_there_changes_nothing(body: Any, path: list[str]) -> None:
    raw = json.dumps(body).encode()
    assert Renaming("\0nobody's", "ours").at(path, raw) == raw


@given(st.binary(max_size=200))
def test_garbage_passes_as_it_is(raw: bytes) -> None:
    assert Renaming("\0nobody's", "ours").at(("model", "model"), b"{" + raw) == b"{" + raw


def test_another_models_name_stays() -> None:
    assert Renaming("theirs", "ours").at(("model",), b'{"model":"third"}') == b'{"model":"third"}'
    assert renaming("same", "same") is None


def test_escapes_in_a_name_are_kept() -> None:
    assert Renaming("a\\b", "c\\d").at(("model",), b'{"model": "a\\\\b"}') == b'{"model": "c\\\\d"}'
    assert Renaming("a\\b", "c\\d").first_field(b'{"model": "a\\\\b"}') == b'{"model": "c\\\\d"}'
