"""An answer's author cannot be read off the page either, whatever its Markdown makes of the source."""

from __future__ import annotations

import re
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redaction_set import Text, read_set

from gateway.domain.lexicon import build_lexicon, telling_owners, view_of
from gateway.domain.redaction import MARKER, redact
from gateway.registry import load_registry
from gateway.rounds.markdown import render_markdown, render_plain
from gateway.rounds.redacting import redact_answer

LEXICON = build_lexicon(load_registry(Path(__file__).parent.parent / "model_registry.yaml"))

PIECES = [
    *"EXAONE엑사원[]()!*_`$|\\\n &;#>-",
    "저는 ",
    "입니다.",
    "EXA",
    "ONE",
    "&#88;",
    "&zwj;",
    "&NewLine;",
    "\\mathrm{EX}",
    "](x)",
    "\n\n",
    "- ",
    "|a|b|\n|-|-|\n|",
    "<|im_end|>",
    "&lt;|im_end|&gt;",
    "안녕하세요! ",
    "네이버",
]


def page_of(text: str) -> str:
    """What both ways of showing an answer put before a reviewer."""
    shown = (re.sub("<[^>]*>", "", html) for html in (render_markdown(text), render_plain(text)))
    return "\n".join(map(unescape, shown))


@pytest.mark.parametrize(
    "text",
    [
        "저는 E&#88;AONE입니다.",
        "저는 &#69;&#88;&#65;&#79;&#78;&#69; 입니다.",
        "저는 [EXA](https://a)ONE입니다.",
        "저는 [EXA](<https://a. b>)ONE입니다.",
        "EXA[O](x)NE 4.0이 답합니다.",
        "$\\mathrm{EX}\\mathrm{AONE}$ 이 답합니다.",
        "$$\n\\mathrm{EX}\\mathrm{AONE}\n$$",
        "저는 &#xC5D1;&#xC0AC;&#xC6D0;입니다.",
        "I was built by S&#75; Telecom.",
        "저는 하이퍼클&zwj;로바입니다.",
        "저는 [업스](x)테이지에서 개발한 모델입니다.",
        "|모델|값|\n|-|-|\n|[EXA](x)ONE|3|",
    ],
)
def test_a_name_that_only_the_page_shows_is_taken_out(text: str) -> None:
    redacted = redact_answer(text, LEXICON)
    page = view_of(page_of(redacted.text))
    assert MARKER in redacted.text
    assert not re.search("exaone|엑사원|하이퍼클로바|sk telecom|업스테이지", page)


def test_only_the_block_that_tells_goes_and_its_place_in_the_structure_stays() -> None:
    text = "머리말\n\n- 가\n- [EXA](x)ONE이\n  답합니다\n- 다\n\n|a|b|\n|-|-|\n|[EXA](x)ONE|2|\n\n끝"
    redacted = redact_answer(text, LEXICON)
    assert redacted.text == f"머리말\n\n- 가\n- {MARKER}\n\n- 다\n\n|a|b|\n|-|-|\n| {MARKER} | {MARKER} |\n\n끝"
    assert [one.sentence for one in redacted.redactions] == ["- [EXA](x)ONE이\n  답합니다", "|[EXA](x)ONE|2|"]
    assert {one.rule for one in redacted.redactions} == {"mention"}


def test_what_the_source_told_is_logged_once_where_its_block_goes_too() -> None:
    redacted = redact_answer("저는 EXAONE입니다. [EXA](x)ONE은 모델입니다.", LEXICON, author="lg")
    assert redacted.text == MARKER
    assert [(one.start, one.names) for one in redacted.redactions] == [(0, ("EXAONE",))]


def test_a_candidate_that_the_prompt_names_may_stay_on_the_page() -> None:
    text = "[EXA](x)ONE은 모델입니다."
    assert redact_answer(text, LEXICON, prompt_text="EXAONE이 무엇인가요?").text == text


@pytest.mark.parametrize("text", read_set("ordinary"), ids=lambda text: text.id)
def test_an_ordinary_text_loses_nothing_to_its_rendering(text: Text) -> None:
    terms = {"author": text.author, "prompt_text": text.prompt}
    assert redact_answer(text.text, LEXICON, **terms) == redact(text.text, LEXICON, **terms)


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_whatever_is_written_no_block_of_the_page_names_a_candidate(text: str) -> None:
    redacted = redact_answer(text, LEXICON)
    for line in re.split("<(?:/?(?:p|li|h\\d|td|th|pre|tr|ul|ol|blockquote))[^>]*>", render_markdown(redacted.text)):
        assert not telling_owners(view_of(unescape(re.sub("<[^>]*>", "", line))), LEXICON)
    assert redact_answer(redacted.text, LEXICON).text == redacted.text
    assert all(text[one.start : one.end] == one.sentence for one in redacted.redactions)
    apart = [one for one in redacted.redactions if one.rule != "special-token"]
    assert all(one.end <= following.start for one, following in pairwise(apart))
