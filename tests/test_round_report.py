"""The report of a round: it fetches and runs nothing, is legible, the same for the same result; and its tables."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.rounds import RoundStatus
from gateway.rounds.conclusion_words import Language
from gateway.rounds.conclusions import conclusions
from gateway.rounds.report import POLICY, TABLES, report_page, result_table, table_csv
from gateway.rounds.report.charts import Axis, shade
from gateway.rounds.report.style import DARK, LIGHT
from gateway.rounds.report.words import WORDS
from scripts.round_example import LANGUAGES, OUT, made_round

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "round"
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "nav", "h1", "h2", "h3", "p", "a"),
    *("ul", "ol", "li", "div", "span", "small", "figure", "svg", "line", "circle", "rect", "text", "table", "thead"),
    *("tbody", "tr", "th", "td", "details", "summary", "dl", "dt", "dd", "pre", "code"),
}
INK_ON = [
    *((ink, "page") for ink in ("ink", "soft", "link", "other")),
    *(("ink", "band"), ("warn-ink", "warn")),
    *((f"{shade_}-ink", shade_) for shade_ in ("high2", "high1", "even", "low1", "low2")),
]


@cache
def result(status: RoundStatus = RoundStatus.REVEALED, **sizes: Any) -> dict[str, Any]:
    chosen = {"models": 4, "reviewers": 12, "prompts": 24, "votes_each": 18, "cut": 2, "seed": 5, **sizes}
    return made_round(status=status, **chosen).result()


class Seen(HTMLParser):
    """Tags, attributes and text of a page; that tags are closed in their order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text.append(data)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_fetches_and_runs_nothing(language: Language) -> None:
    page = report_page(result(), language=language)
    seen = Seen(page)
    assert {tag for tag, _ in seen.tags} <= ALLOWED
    links = [value for _, found in seen.tags for name, value in found.items() if name in ("href", "src", "action")]
    assert all(value is not None and value.startswith("#") for value in links)
    assert not [name for _, found in seen.tags for name in found if name.startswith("on")]
    assert "url(" not in page
    assert "@import" not in page
    assert "://" not in page
    assert POLICY in [found.get("content") for tag, found in seen.tags if tag == "meta"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_leads_to_a_heading_and_headings_go_down_by_one(language: Language) -> None:
    seen = Seen(report_page(result(), language=language))
    ids = [found["id"] for _, found in seen.tags if "id" in found]
    assert len(ids) == len(set(ids))
    assert {found["href"] for tag, found in seen.tags if tag == "a"} == {f"#{name}" for name in ids}
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_same_result_gives_the_same_page() -> None:
    again = made_round(models=4, reviewers=12, prompts=24, votes_each=18, cut=2, seed=5).result()
    for language in LANGUAGES:
        assert report_page(result(), language=language) == report_page(again, language=language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_conclusions_come_first_and_are_all_there(language: Language) -> None:
    text = Seen(report_page(result(), language=language)).text
    places = [text.index(one.text) for one in conclusions(result(), language=language)]
    assert places == sorted(places)
    assert places[-1] < text.index(WORDS[language].sections["standing"].heading, places[0])


def test_a_page_of_answers_that_are_not_real_says_so_in_its_title_and_first_sentence() -> None:
    page = report_page(result(), language="ko")
    assert "<title>예시 심사 · 블라인드 심사 연습 결과 — 순위 아님(모의 답변)</title>" in page
    assert page.index("이 결과는 순위가 아닙니다.") < page.index("구별")


def test_before_the_reveal_there_are_codes_and_no_names() -> None:
    page = report_page(result(RoundStatus.CLOSED), language="ko")
    assert "M01" in page
    assert not re.search("sim-|Sim 0|컨소시엄 0|Built with", page)
    assert WORDS["ko"].codes_until in page


def test_after_the_reveal_names_consortia_and_notices_are_there() -> None:
    page = report_page(result(), language="ko")
    assert "Sim 01" in page
    assert "모의 컨소시엄 01" in page
    assert "Built with an example" in page
    assert not re.search(r">M0\d<", page)


def test_days_are_those_of_korea() -> None:
    moments = {"sealed_at": "2026-11-01T14:59:59+00:00", "opened_at": "2026-11-01T15:00:00+00:00"}
    found = {**result(), "round": {**result()["round"], **moments, "revealed_at": None}}
    assert "봉인 2026-11-01 · 시작 2026-11-02" in report_page(found, language="ko")
    assert "names revealed not yet" in report_page(found, language="en")


def test_no_reviewer_is_named() -> None:
    assert not re.search(r"r-\d{3}", report_page(result(), language="en"))


def test_root_and_head_stand_in_the_command_that_checks_them() -> None:
    of = result()["round"]
    assert f"--root {of['root']} --head {of['head']}" in report_page(result(), language="en")


def test_hostile_names_are_text() -> None:
    found = result()
    hostile = {
        **found,
        "names": {code: {**one, "name": "<script>alert(1)</script>"} for code, one in found["names"].items()},
    }
    page = report_page(hostile, language="ko")
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("size", [{"models": 2, "cut": 1}, {"models": 3, "cut": None}, {"reviewers": 3}])
def test_small_rounds_have_a_page_too(size: dict[str, Any]) -> None:
    for language in LANGUAGES:
        text = " ".join(Seen(report_page(result(**size), language=language)).text)
        assert "nan" not in text.split()
        assert "None" not in text


def test_a_round_without_votes_has_a_page_that_says_so() -> None:
    made = made_round(models=3, reviewers=3, prompts=12, votes_each=6, cut=1, seed=5)
    page = report_page(replace(made, votes=[]).result(), language="ko")
    assert "집계할 표가 없어 후보를 비교할 수 없습니다." in page
    assert WORDS["ko"].sections["ranks"].heading not in Seen(page).text


def test_every_check_of_a_design_and_every_place_has_its_words() -> None:
    for language in LANGUAGES:
        words = WORDS[language]
        for name in ("design", "places", "agreement", "exclusions", "effects", "acceptability"):
            for row in result_table(result(), name).rows:
                code = str(row[0]).partition(":")[0]
                assert code in words.codes or code.startswith("M0"), code
        for name in TABLES:
            for column in result_table(result(), name).columns:
                assert f"{name}.{column.key}" in words.columns or column.key in words.columns


def test_both_languages_have_the_same_words() -> None:
    korean, english = WORDS["ko"], WORDS["en"]
    for field in ("sections", "columns", "codes", "topics", "fragility"):
        assert set(getattr(korean, field)) == set(getattr(english, field))


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), INK_ON)
def test_text_is_legible(colours: dict[str, str], ink: str, ground: str) -> None:
    assert contrast(colours[ink], colours[ground]) >= 4.5


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_what_is_drawn_stands_out(colours: dict[str, str]) -> None:
    assert min(contrast(colours[name], colours["page"]) for name in ("mark", "other", "middle", "warn-edge")) >= 3


def contrast(one: str, other: str) -> float:
    """Of WCAG 2, from 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_value_beyond_its_scale_stands_at_the_end() -> None:
    axis = Axis(0.0, 2.0, ())
    assert [axis.at(value) for value in (-1, 0, 0.5, 2, 9)] == ["0%", "0%", "25%", "100%", "100%"]


def test_shades_are_the_same_way_round_from_both_sides() -> None:
    order = ["low2", "low1", "even", "high1", "high2"]
    for share in (0.1, 0.34, 0.4, 0.5, 0.6, 0.66, 0.9):
        assert order.index(shade(share)) == 4 - order.index(shade(1 - share))


@pytest.mark.parametrize("name", TABLES)
def test_tables_open_in_a_spreadsheet_with_plain_numbers(name: str) -> None:
    content = table_csv(result(), name)
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert len({len(row) for row in rows}) == 1
    assert len(rows) - 1 == len(result_table(result(), name).rows)
    assert not [cell for row in rows for cell in row if "%" in cell or "[" in cell]


def test_a_table_has_the_code_beside_the_name_and_both_ends_of_an_interval() -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(result(), "standing").decode("utf-8-sig"), newline="")))
    first = result()["analysis"]["overall"]["models"][0]
    assert rows[0]["model"] == first["model"]
    assert rows[0]["model_name"].startswith("Sim ")
    assert float(rows[0]["win_rate_interval_low"]) == first["win_rate_interval"][0]
    assert (int(rows[0]["rank_best"]), int(rows[0]["rank_worst"])) == (first["best_rank"], first["worst_rank"])


def test_the_example_is_what_the_program_writes() -> None:
    assert OUT == EXAMPLE
    made = made_round().result()
    for language in LANGUAGES:
        kept = (EXAMPLE / f"report.{language}.html").read_text()
        assert kept == report_page(made, language=language), "run python -m scripts.round_example"
