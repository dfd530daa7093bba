"""The words of the pages: each has a Korean form, none is left over, and placeholders are the same in both."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir

import gateway.web
from gateway.web import LANGUAGES, Web, language_of, read_words

ROOM = gateway.web.ROOM
PLACEHOLDER = re.compile(r"%\(\w+\)s")


def marked(path: Path) -> Iterator[str]:
    """Every text that code marks with `word`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "word":
            yield ast.literal_eval(node.args[0])


def said() -> set[str]:
    """Every text that pages can say."""
    found = extract_from_dir(ROOM / "templates", [("**.html", "jinja2")], keywords={"_": None})
    texts = {str(message) for _, _, message, _, _ in found}
    for pattern in ("api/review*.py", "api/chair*.py", "rounds/chair*.py", "rounds/planner*.py"):
        for path in ROOM.parent.glob(pattern):
            texts |= set(marked(path))
    return texts


def test_every_text_is_said_in_korean_and_none_is_left_over() -> None:
    assert set(read_words("ko")) == said()


def test_placeholders_are_the_same_in_both_languages() -> None:
    for english, korean in read_words("ko").items():
        assert sorted(PLACEHOLDER.findall(english)) == sorted(PLACEHOLDER.findall(korean))


def test_english_stands_where_there_is_no_translation() -> None:
    web = Web()
    assert {web.say("en", text) for text in said()} == said()
    assert web.say("ko", "Saved") == "저장됨"
    assert web.say("ko", "not in the list") == "not in the list"


@pytest.mark.parametrize(
    ("text", "language"), [(None, "ko"), ("", "ko"), ("ko-KR,en", "ko"), ("en-GB", "en"), ("fr", "ko")]
)
def test_language_is_korean_unless_english_is_asked_for_first(text: str | None, language: str) -> None:
    assert language_of(text) == language
    assert language in LANGUAGES
