"""The shipped prompt set is what it says, and a user's file is read strictly and complained about at once."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.prompts import (
    CORE_SET,
    DEFAULT_MAX_TOKENS,
    Prompt,
    PromptsInvalid,
    load_prompts,
    parse_prompts,
    read_prompts,
)

INDUSTRIES = {
    "public_administration",
    "finance",
    "manufacturing",
    "health",
    "education",
    "law",
    "customer_service",
    "software",
}
TASKS = {
    "question",
    "summary",
    "draft",
    "extraction",
    "calculation",
    "classification",
    "rewriting",
    "comparison",
    "planning",
    "safety",
}


def hangul_share(text: str) -> float:
    letters = [c for c in text if c.isalpha()]
    return sum("가" <= c <= "힣" for c in letters) / len(letters)


def shingles(text: str, size: int = 12) -> set[str]:
    flat = "".join(text.split())
    return {flat[i : i + size] for i in range(len(flat) - size + 1)}


def complaints(content: bytes) -> list[str]:
    with pytest.raises(PromptsInvalid) as caught:
        parse_prompts(content, name="mine.jsonl")
    return caught.value.problems


# --- the shipped set ----------------------------------------------------------------------------------------


def test_ids_are_unique() -> None:
    ids = [prompt.id for prompt in load_prompts()]
    assert len(ids) == len(set(ids))


def test_every_line_names_the_set_it_belongs_to() -> None:
    lines = files("gateway.prompts").joinpath("core.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["set"] for line in lines} == {CORE_SET}


def test_half_is_korean_and_half_english() -> None:
    assert Counter(prompt.language for prompt in load_prompts()) == {"ko": 40, "en": 40}


def test_each_industry_has_five_prompts_in_each_language() -> None:
    counts = Counter((prompt.industry, prompt.language) for prompt in load_prompts())
    assert counts == {(industry, language): 5 for industry in INDUSTRIES for language in ("ko", "en")}


def test_each_industry_has_every_task_once_so_no_prompt_can_translate_another() -> None:
    counts = Counter((prompt.industry, prompt.task) for prompt in load_prompts())
    assert counts == {(industry, task): 1 for industry in INDUSTRIES for task in TASKS}


def test_each_task_is_asked_equally_often_in_both_languages() -> None:
    counts = Counter((prompt.task, prompt.language) for prompt in load_prompts())
    assert set(counts.values()) == {4}


def test_korean_prompts_are_mostly_hangul_and_english_ones_have_none() -> None:
    assert min(hangul_share(p.text) for p in load_prompts(language="ko")) > 0.8
    assert max(hangul_share(p.text) for p in load_prompts(language="en")) == 0


def test_no_prompt_repeats_another() -> None:
    seen = [(prompt.id, shingles(prompt.text)) for prompt in load_prompts()]
    alike = [(a, b) for (a, x), (b, y) in itertools.combinations(seen, 2) if len(x & y) / min(len(x), len(y)) > 0.2]
    assert alike == []


def test_prompts_ask_for_a_bounded_answer() -> None:
    assert all(256 <= prompt.max_tokens <= 1024 for prompt in load_prompts())


def test_prompts_can_be_chosen_by_language_and_industry() -> None:
    chosen = load_prompts(language="ko", industry="law")
    assert [(p.language, p.industry) for p in chosen] == [("ko", "law")] * 5


@pytest.mark.parametrize("choice", [{"language": "fr"}, {"industry": "farming"}])
def test_a_choice_that_does_not_exist_names_those_that_do(choice: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"expected one of .*(en, ko|finance)"):
        load_prompts(**choice)


# --- a user's file ------------------------------------------------------------------------------------------


def test_a_line_needs_only_its_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('\n{"text": "안녕하세요?"}\r\n\n', encoding="utf-8-sig")
    assert read_prompts(path) == (Prompt("line-2", None, None, None, "안녕하세요?", DEFAULT_MAX_TOKENS),)


@given(
    st.lists(
        st.builds(
            Prompt,
            id=st.text("abc-가나 1", min_size=1, max_size=128).filter(str.strip),
            language=st.sampled_from([None, "ko", "en"]),
            industry=st.sampled_from([None, "법률", "mining"]),
            task=st.sampled_from([None, "summary"]),
            text=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
            max_tokens=st.integers(1, 10**6),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda prompt: prompt.id,
    ),
    st.booleans(),
)
def test_what_was_written_is_read_back(prompts: list[Prompt], ascii_only: bool) -> None:
    fields = Prompt.__slots__
    lines = (
        json.dumps({f: getattr(p, f) for f in fields}, ensure_ascii=ascii_only, separators=(",", ":")) for p in prompts
    )
    assert parse_prompts("\n".join(lines).encode(), name="x") == tuple(prompts)


@given(st.binary(max_size=200))
def test_any_bytes_give_prompts_or_complaints_about_lines(content: bytes) -> None:
    try:
        outcome: tuple[object, ...] = parse_prompts(content, name="x")
    except PromptsInvalid as invalid:
        outcome = tuple(problem for problem in invalid.problems if problem.startswith("x: "))
    assert outcome


def test_every_bad_line_is_reported_at_once_and_good_ones_are_not() -> None:
    problems = complaints(b'{"text": "a"}\nnot json\n{"text": "b"}\n[1]\n{"max_tokens": 0}\n')
    assert [p.split(": ")[1] for p in problems] == ["line 2", "line 4", "line 5"]


def test_a_line_with_two_faults_is_one_complaint_with_both() -> None:
    (problem,) = complaints(b'{"txt": "a", "max_tokens": true}')
    assert "did you mean 'text'?" in problem
    assert "max_tokens: expected a whole number from 1 to 1,000,000" in problem
    assert "text: missing" in problem


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "\xff"}', "is not UTF-8 at byte 11"),
        (b'{"text": "  "}', "text: expected a string that is not empty"),
        (b'{"text": "\\ud800"}', "text: expected"),
        (b'{"text": 5}', "text: expected"),
        (b'{"text": "a", "text": "b"}', "'text' stands twice"),
        (b'{"text": "a", "language": "ko-KR!"}', 'language: expected a language code such as "ko"'),
        (b'{"text": "a", "id": ""}', "id: expected a string of 1 to 128"),
        (b'{"text": "a", "id": null}', "id: expected"),
        (b'{"text": "a", "id": "a\\nb"}', "id: expected a string of 1 to 128 printable"),
        (b'{"text": "a", "max_tokens": 1.5}', "max_tokens: expected"),
        (b'{"text": "a", "industry": 3}', "industry: expected a word or null"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"text": "a"} {"text": "b"}', "is not JSON: Extra data at column 15"),
        (b'"text"', "expected an object"),
        (b'{"text": "a", "max_tokens": ' + b"9" * 5000 + b"}", "has a number of 5000 digits"),
    ],
)
def test_a_bad_line_says_what_would_be_right(line: bytes, words: str) -> None:
    (problem,) = complaints(line)
    assert problem.startswith("mine.jsonl: line 1: ")
    assert words in problem


def test_a_second_use_of_an_id_names_the_first() -> None:
    (problem,) = complaints(b'{"id": "q", "text": "a"}\n\n{"id": "q", "text": "b"}')
    assert problem.startswith("mine.jsonl: line 3: id: 'q' is already used in line 1")


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_prompts_is_refused(content: bytes) -> None:
    assert "has no prompts" in complaints(content)[0]


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(PromptsInvalid, match="No such file"):
        read_prompts(tmp_path / "absent.jsonl")
