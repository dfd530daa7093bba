"""What the simulated engine says: tokens that add up, sentences that read, JSON that fits its schema."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator.json_values import SchemaRefused, compose_json
from gateway.simulator.text import (
    END_TOKEN,
    Term,
    answer,
    choices,
    count_tokens,
    language_of,
    paragraphs,
    split_tokens,
    token_id,
    token_text,
    topics_of,
)

TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("가나다 abc 123\n")))


@given(TEXT)
def test_tokens_joined_are_the_text(text):
    assert "".join(split_tokens(text)) == text


@given(TEXT, st.data())
def test_a_text_cut_at_a_token_has_the_tokens_before_the_cut(text, data):
    tokens = split_tokens(text)
    cut = data.draw(st.integers(0, len(tokens)))
    assert split_tokens("".join(tokens[:cut])) == tokens[:cut]


@given(TEXT, st.integers(0, 20))
def test_counting_stops_one_past_the_bound(text, bound):
    assert count_tokens(text, up_to=bound) == min(len(split_tokens(text)), bound + 1)


@given(TEXT)
def test_token_ids_give_their_text_back(text):
    for piece in split_tokens(text):
        assert token_text(token_id(piece)) == piece
        assert END_TOKEN < token_id(piece) < 2**63


@given(st.integers(-(2**70), 2**70))
def test_a_number_is_the_id_of_one_piece_or_out_of_vocabulary(number):
    try:
        text = token_text(number)
    except ValueError:
        return
    assert number == END_TOKEN or token_id(text) == number


def test_a_number_that_is_no_token_is_named():
    with pytest.raises(ValueError, match="Token id 7 is out of vocabulary"):
        token_text(7)


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("전기요금은?", "ko"),
        ("GPU 서버를 고르는 법", "ko"),
        ("What does 김치 go well with?", "en"),
        ("", "en"),
        ("ㅋㅋ", "ko"),
    ],
)
def test_a_fifth_of_hangul_makes_a_question_korean(question, language):
    assert language_of(question) == language


def test_topics_are_words_of_the_question_without_their_particles():
    assert topics_of("전기요금이 오르면 소상공인은 어떻게 대응해야 하나요?") == ["전기요금", "소상공인"]
    assert topics_of("How should a hospital plan its staffing?") == ["hospital", "staffing", "plan"]
    assert topics_of("") == []


@pytest.mark.parametrize(
    ("word", "particles", "reads"),
    [
        ("요금", "을/를", "‘요금’을"),
        ("사과", "을/를", "‘사과’를"),
        ("2026", "이/가", "‘2026’이"),
        ("GPU", "은/는", "‘GPU’은(는)"),
        ("요금", "", "‘요금’"),
    ],
)
def test_particles_fit_the_last_syllable(word, particles, reads):
    assert format(Term(word, "‘’"), particles) == reads


@given(st.text(max_size=200), st.integers(0, 50))
def test_any_question_gets_a_readable_answer(question, seed):
    text = answer("model", question, choices("model", question, seed))
    assert 100 < len(text) < 3000
    assert not set("{}") & set(text) - set(question)
    assert text.strip() == text


def test_an_answer_goes_on_as_long_as_somebody_reads():
    texts = list(islice(paragraphs("model", "서울의 대중교통", choices(1)), 200))
    assert all(text.startswith("\n\n") for text in texts[1:])
    whole = "".join(texts)
    assert [token for text in texts for token in split_tokens(text)] == split_tokens(whole)


# --- JSON ---------------------------------------------------------------------------------------------------

LEAF = st.one_of(
    st.builds(lambda: {"type": "boolean"}),
    st.builds(lambda: {"type": "null"}),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-50, 50),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low, unit: {"type": "number", "exclusiveMinimum": low, "multipleOf": unit},
        st.integers(-9, 9),
        st.integers(1, 4),
    ),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 40),
        st.integers(0, 9),
    ),
    st.builds(
        lambda options: {"enum": options}, st.lists(st.integers() | st.text(st.characters(codec="utf-8")), min_size=1)
    ),
)
SCHEMA = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.builds(
            lambda item, low, more: {"type": "array", "items": item, "minItems": low, "maxItems": low + more},
            inner,
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        st.builds(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)},
            st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
        ),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """An independent reading of the keywords generated above."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "number":
            return value > schema["exclusiveMinimum"] and value % schema["multipleOf"] == 0
        case "string":
            return isinstance(value, str) and schema["minLength"] <= len(value) <= schema["maxLength"]
        case "array":
            inside = all(fits(item, schema["items"]) for item in value)
            return inside and schema["minItems"] <= len(value) <= schema["maxItems"]
    inside = all(fits(value[name], part) for name, part in schema["properties"].items() if name in value)
    return inside and set(schema["required"]) <= set(value)


@given(SCHEMA, st.integers())
def test_composed_json_fits_its_schema(schema, seed):
    assert fits(json.loads(compose_json(schema, ["요금", "plan"], choices(seed))), schema)


def test_a_recursive_schema_comes_to_an_end():
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["name", "children"],
            }
        },
    }
    assert json.loads(compose_json(tree, ["word"], choices(1)))["name"] == "word"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "pattern": "a+"}, "'pattern' is not supported"),
        ({"type": "spaceship"}, "unknown type 'spaceship'"),
        ({"$ref": "#/nowhere"}, "leads nowhere"),
        ({"$ref": "https://example.com/schema"}, "is not local"),
        ({"$ref": "#"}, "nests deeper"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number lies"),
        ({"enum": []}, "must be a list that is not empty"),
        ({"properties": 3}, "wrong type"),
        ({"type": "array", "minItems": "two"}, "wrong type"),
        (False, "expected a JSON schema object"),
    ],
)
def test_a_schema_that_is_not_understood_is_refused(schema, words):
    with pytest.raises(SchemaRefused, match=words):
        compose_json(schema, ["word"], choices(1))
