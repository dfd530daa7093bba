"""The report of a load run: it fetches and runs nothing, shows every figure, none of an invalid cell, and why not."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from browsers import running_browser
from load_runs import BUSY_CLIENT, Engine, Made, figure, hour_long_run, made_campaign, made_run, verdict
from page_inspector import RULES, RUN, axe_source
from playwright.async_api import Browser
from test_round_report import contrast

from gateway.domain.rounds import Text
from gateway.rounds.report.style import DARK as BASE_DARK
from gateway.rounds.report.style import LIGHT as BASE_LIGHT
from loadtests.cells import CellSeen, DoorShare, Run, SearchSeen
from loadtests.exports import read_run
from loadtests.readings import LATENCIES, figure_of
from loadtests.report import POLICY, Distribution, render_report, report_title, sentences, terms, words
from loadtests.report import columns as columns_module
from loadtests.report.conclusions import conclusions
from loadtests.report.figure_words import in_unit, number
from loadtests.report.formulas import FORMULAS
from loadtests.report.sentences import Topic
from loadtests.report.style import DARK, LIGHT
from loadtests.report.terms import LANGUAGES, WHY_NOT, Language, say

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples" / "loadtest"
SCREEN: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def axe() -> str:
    return axe_source()


ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "nav", "h1", "h2", "h3", "h4"),
    *("p", "a", "ul", "ol", "li", "div", "span", "small", "sup", "figure", "svg", "desc", "line", "circle", "path"),
    *("text", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "dl", "dt", "dd", "pre", "code"),
}


@cache
def small() -> tuple[Run, list[Distribution]]:
    return made_run(is_small=True)


@cache
def campaign() -> tuple[list[Run], list[Distribution]]:
    return made_campaign(is_small=True)


@cache
def small_page(language: Language) -> str:
    run, spreads = small()
    return render_report([run], language=language, distributions=spreads)


@cache
def campaign_page(language: Language) -> str:
    runs, spreads = campaign()
    return render_report(runs, language=language, distributions=spreads, other_page="other.html")


@cache
def short_page(language: Language) -> str:
    """Every section and every kind of cell, each once: a checker of pages takes a second for thousands of elements."""
    run, spreads = small()
    knee = f"knee-{run.searches[0].highest_met:g}"
    kept = [cell for cell in run.cells if cell.id in ("claim-ttft", "users-160", "both", knee)]
    cells = [changed(cell, repeats=cell.repeats[:1]) for cell in kept]
    return render_report([changed(run, cells=cells)], language=language, distributions=spreads)


class Seen(HTMLParser):
    """Tags and attributes of a page, its text, and its tables as rows of texts; that tags are closed in their order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._text: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    @property
    def text(self) -> str:
        return "".join(self._text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self._text.append(data)
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data


@cache
def seen_on(page: Any, language: Language) -> Seen:
    return Seen(page(language))


def changed(struct: Any, /, **more: Any) -> Any:
    return msgspec.structs.replace(struct, **more)


# --- the page as such ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("page", [small_page, campaign_page])
def test_the_page_fetches_and_runs_nothing(page: Any, language: Language) -> None:
    seen = seen_on(page, language)
    assert {tag for tag, _ in seen.tags} <= ALLOWED
    assert not [name for _, found in seen.tags for name in found if name in ("src", "srcset", "style", "xlink:href")]
    assert not [name for _, found in seen.tags for name in found if name.startswith("on")]
    assert not [value for _, found in seen.tags for value in found.values() if value and "://" in value]
    assert not re.search(r"url\(|@import|https?:", page(language))
    assert POLICY in [found.get("content") for tag, found in seen.tags if tag == "meta"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("page", [small_page, campaign_page])
def test_links_lead_to_headings_ids_are_unique_and_headings_go_down_by_one(page: Any, language: Language) -> None:
    seen = seen_on(page, language)
    ids = [found["id"] for _, found in seen.tags if "id" in found]
    assert len(ids) == len(set(ids))
    links = {found["href"] for tag, found in seen.tags if tag == "a"} - {"./other.html"}
    assert links <= {f"#{name}" for name in ids}
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_drawing_has_a_title_and_a_description_and_a_table_with_its_figures(language: Language) -> None:
    seen = seen_on(campaign_page, language)
    ids = {found["id"] for _, found in seen.tags if "id" in found}
    drawings = [found for tag, found in seen.tags if tag == "svg" and found.get("role") == "img"]
    assert len(drawings) > 50
    for found in drawings:
        assert set(str(found["aria-labelledby"]).split()) <= ids
    hidden = [found for tag, found in seen.tags if tag == "svg" and found.get("role") != "img"]
    assert all(found.get("aria-hidden") or found.get("class") in ("stretched", "at") for found in hidden)
    assert say(words.WORDS["as_table"], language) in seen.text


def test_the_same_runs_give_the_same_page() -> None:
    run, spreads = made_run(is_small=True)
    for language in LANGUAGES:
        assert render_report([run], language=language, distributions=spreads) == small_page(language)


def test_no_run_and_a_run_given_twice_are_refused() -> None:
    run, _ = small()
    for runs in ([], [run, run]):
        with pytest.raises(ValueError, match="each once"):
            render_report(runs, language="en")


def test_a_run_without_cells_gives_a_page() -> None:
    run = Made(Engine()).run([], [])
    page = render_report([run], language="en")
    assert "No cell was measured." in page
    assert "This run answers no claim." in page


def test_the_other_language_is_a_link_only_where_its_file_is_named() -> None:
    assert '<a href="./other.html" lang="en" hreflang="en">English</a>' in campaign_page("ko")
    assert "hreflang" not in small_page("ko")


def texts() -> Iterator[tuple[str, Text]]:
    for module in (columns_module, sentences, terms, words):
        for name, table in vars(module).items():
            if name.isupper() and isinstance(table, dict):
                for key, value in table.items():
                    yield from _texts(f"{name}.{key}", value)
    for one in FORMULAS:
        yield from _texts("FORMULAS", one)


def _texts(where: str, value: Any) -> Iterator[tuple[str, Text]]:
    if isinstance(value, Text):
        yield where, value
    elif isinstance(value, tuple):
        for part in value:
            yield from _texts(where, part)
    elif hasattr(value, "__dataclass_fields__"):
        for part in fields(value):
            yield from _texts(where, getattr(value, part.name))


def test_every_word_is_there_in_both_languages_with_the_same_places_to_fill() -> None:
    found = list(texts())
    assert len(found) > 250
    for where, text in found:
        assert text.ko.strip(), where
        assert text.en.strip(), where
        assert set(re.findall(r"\{\w+\}", text.ko)) == set(re.findall(r"\{\w+\}", text.en)), where
        assert not re.search(r"\((은|는|이|가|을|를|와|과)\)", text.ko), where


# --- what may be believed comes first -----------------------------------------------------------------------


def test_a_run_that_is_not_real_says_so_in_its_title_and_first_sentence() -> None:
    title = "민원 상담 40명 · 부하 시험 결과 — 실측 아님(모의 측정)"
    assert f"<title>{title}</title>" in small_page("ko")
    assert "not measured on real models (simulated)" in report_title([small()[0]], "en")
    first = conclusions([small()[0]], "ko")[0]
    assert first.is_caution
    assert first.text.startswith("이 보고서의 수치는 실측이 아닙니다(모의 측정).")


@pytest.mark.parametrize("provenance", ["stand_in", "unknown", "mixed", "of a kind that nobody knows"])
def test_everything_but_real_is_in_the_title(provenance: str) -> None:
    run = changed(small()[0], provenance=provenance)
    assert "실측 아님" in report_title([run], "ko")
    assert "실측 아님" not in report_title([changed(run, provenance="real")], "ko")


@pytest.mark.parametrize("language", LANGUAGES)
def test_validity_stands_before_every_figure(language: Language) -> None:
    page = small_page(language)
    heads = [page.index(f'<h2 id="{name}"') for name in ("conclusions", "validity", "verdicts", "latency", "results")]
    assert heads == sorted(heads)
    said = conclusions([small()[0]], language)
    assert [one.topic for one in said] == sorted((one.topic for one in said), key=list(Topic).index)
    assert any("users-160" in one.text and one.topic is Topic.STANDING for one in said)


def odd_cell() -> CellSeen:
    """An invalid cell all of whose figures are 7777 of something."""
    made = Made(Engine(), requests=40, seconds=10)
    cell = made.cell("odd", level=7777, failed=[BUSY_CLIENT])
    odd = figure([7777.25] * 600)  # type: ignore[arg-type]
    repeats = [
        changed(
            repeat,
            latencies=changed(repeat.latencies, tokens_per_event=7777.25, **dict.fromkeys(LATENCIES, odd)),
            rates=changed(repeat.rates, **dict.fromkeys(repeat.rates.__struct_fields__, 7777)),
            outcomes={"ok": 7777, "cut": 7777},
            objectives=[changed(one, value=7777.25, low=7777.25, high=7777.25, n=7777) for one in repeat.objectives],
            timeline=[changed(point, in_flight=7777, output_tokens=7777) for point in repeat.timeline],
            cost_per_mtok_out="7777.25",
            gpu_seconds=7777.25,
            errors={"7777 errors": 7777},
        )
        for repeat in cell.repeats
    ]
    return changed(cell, repeats=repeats, level=3.0, load="3 users at once")


def test_claims_made_of_several_candidates_stand_side_by_side_with_each_verdict() -> None:
    runs, spreads = campaign()
    alike = [
        [verdict("pace", "60 tokens a second", "plausible (simulated)", margin=0.2), verdict("room", "fits", "open")],
        [verdict("pace", "60 tokens a second", "refuted (arithmetic)", margin=-0.3)],
    ]
    named = [changed(run, verdicts=told) for run, told in zip(runs, alike, strict=False)]
    page = render_report(named, language="en", distributions=spreads)
    table = page[page.index("Side by side") :].split("</table>")[0]
    pace, room = table.split("<tr>")[2:4]
    assert re.findall("[✓✗] [a-z]+ \\([a-z]+\\)", pace) == ["✓ plausible (simulated)", "✗ refuted (arithmetic)"]
    assert ("+20.0%" in pace, "−30.0%" in pace) == (True, True)
    assert ("open" in room, "not claimed of this candidate" in page) == (True, True)
    assert "Side by side" not in render_report(named[:1], language="en", distributions=spreads)


def test_a_percentile_that_is_nowhere_drawn_is_in_no_key() -> None:
    runs = [read_run((EXAMPLES / f"{name}.run.json").read_bytes()) for name in ("midm", "solar", "exaone")]
    page = render_report(runs, language="en")
    latency = page[page.index('<h2 id="latency"') : page.index('<h2 id="frontier"')]
    keys = re.findall('<ul class="key">.*?</ul>', latency)
    assert keys
    assert not [key for key in keys if "p99" in key], "no cell of it has the 500 values that a p99 takes"


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_invalid_cell_shows_why_and_no_figure(language: Language) -> None:
    cell = odd_cell()
    made = Made(Engine(), requests=40, seconds=10)
    claim = verdict("odd", "a claim", "holds", ["odd"], margin=0.7777, reasons=["Measured: 7777 in every repeat."])
    search = SearchSeen(
        id="knee", door="gateway", over="users", tried=["odd"], highest_met=3.0, lowest_failed=None, ended="invalid"
    )
    run = made.run(
        [cell],
        [claim],
        searches=[search],
        doors=[DoorShare(**odd_door())],
    )
    spread = Distribution(run.id, "odd", "gateway", "ttft_s", 7777, tuple(7777.25 for _ in range(101)))
    page = render_report([run], language=language, distributions=[spread])
    assert not re.search(r"7,?777|7\.777|77\.8|78%", Seen(page).text)
    shown = [row for row in Seen(page).rows if row[0] == "odd" and "87 % in worker 0" in row[-1]]
    assert len(shown) >= 5
    assert not [found for tag, found in Seen(page).tags if tag == "svg" and found.get("role") == "img"]


def odd_door() -> dict[str, Any]:
    seconds = dict.fromkeys(("direct_p50_s", "gateway_p50_s", "added_s", "added_low_s", "added_high_s"), 7.777)
    return {"cell": "odd", "metric": "ttft_s", "pairs": 7777, **seconds}


# --- figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_figure_of_every_span_is_in_a_table(language: Language) -> None:
    flat = {cell for row in seen_on(small_page, language).rows for cell in row}
    run, _ = small()
    checked = 0
    for cell in (one for one in run.cells if one.is_valid):
        for repeat in cell.repeats:
            for metric in LATENCIES:
                found = figure_of(repeat, metric)
                for name in ("min", "mean", "p50", "p90", "p95", "max"):
                    value = getattr(found, name)
                    shown = number(in_unit(metric, value))
                    ends = [getattr(found, f"{name}_{end}", None) for end in ("low", "high")]
                    if None not in ends:
                        low, high = (number(in_unit(metric, end)) for end in ends if end is not None)
                        shown += f" [{low}, {high}]"
                    assert shown in flat, (cell.id, metric, name)
                    checked += 1
    assert checked > 1000


@pytest.mark.parametrize("language", LANGUAGES)
def test_rates_costs_outcomes_and_objectives_are_in_the_tables(language: Language) -> None:
    run, _ = small()
    flat = {cell for row in seen_on(small_page, language).rows for cell in row}
    for cell in (one for one in run.cells if one.is_valid):
        for repeat in cell.repeats:
            rates = repeat.rates
            assert f"{rates.offered:,}" in flat
            for value in (
                rates.requests_per_s,
                rates.output_tokens_per_s,
                rates.input_tokens_per_s,
                rates.goodput_per_s,
            ):
                assert value is not None
                assert number(value) in flat
            assert repeat.cost_per_mtok_out is not None
            assert f"{number(float(repeat.cost_per_mtok_out))} USD" in flat
            assert f"{repeat.outcomes['ok']:,}" in flat
            assert {str(repeat.seed), repeat.run_id, repeat.began_at} <= flat
            for one in repeat.objectives:
                assert one.value is not None
                assert any(number(in_unit(one.metric, one.value)) in text for text in flat)


@pytest.mark.parametrize("language", LANGUAGES)
def test_configuration_says_all_that_it_takes_to_do_it_again(language: Language) -> None:
    run, _ = small()
    text = seen_on(small_page, language).text
    for part in (run.id, run.plan, run.plan_sha256, run.workload_sha256, run.began_at, str(run.seed), run.model):
        assert part in text
    for name, value in {**run.versions, **run.gateway}.items():
        assert f"{name} {value}" in text
    for engine in run.engines:
        assert all(f"{name}={value}" in text for name, value in engine.resolved.items())
    assert "simsa loadtest run plan.yaml" in text
    assert f"simsa loadtest report {run.id}" in text
    for formula in FORMULAS:
        assert formula.formula in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_unknown_is_a_dash_with_its_reason_and_never_0(language: Language) -> None:
    made = Made(Engine(has_price=False, tells_metrics=False), requests=40, seconds=10, repeats=1)
    cell = made.cell("dark", level=3)
    unknown = ("output_tokens_per_s", "output_tokens_per_s_per_gpu", "input_tokens_per_s", "characters_per_s")
    nothing = dict.fromkeys((*unknown, "goodput_per_s", "attainment_percent", "cached_share"))
    repeat = changed(
        cell.repeats[0],
        rates=changed(cell.repeats[0].rates, **nothing),
        objectives=[
            changed(one, value=None, low=None, high=None, met=None, why="it is odd")
            for one in cell.repeats[0].objectives
        ],
        latencies=changed(cell.repeats[0].latencies, tokens_per_event=None, tpot_s=figure([])),  # type: ignore[arg-type]
    )
    run = made.run([changed(cell, repeats=[repeat])], [], gpu=None, gpus=None, calibration=None, ended_at=None)
    seen = Seen(render_report([run], language=language))
    throughput = next(
        row for row in seen.rows if row[0] == "dark" and len(row) == 11 and number(repeat.rates.offered_per_s) in row
    )
    assert [shown.startswith("–") for shown in throughput[4:]] == [False, False, False, True, True, True, True]
    for why in ("tokens_unknown", "characters_unknown", "no_objectives", "cache_unknown", "mtok_unknown"):
        assert say(WHY_NOT[why], language) in seen.text
    for why in ("no_values", "few_for_p99", "not_scraped", "not_ended", "gpu_time_unknown"):
        assert say(WHY_NOT[why], language) in seen.text
    assert "it is odd" in seen.text


def test_a_candidate_without_a_price_is_named_beside_the_costs_of_the_others() -> None:
    assert "Not drawn, because the cost is not known: sim-moe-200b." in seen_on(campaign_page, "en").text


def test_a_p99_of_few_values_is_a_dash() -> None:
    run, _ = small()
    assert all(repeat.latencies.ttft_s.n < 500 for cell in run.cells for repeat in cell.repeats)
    row = next(row for row in seen_on(small_page, "en").rows if row[0] == "claim-ttft" and row[4:5] == ["120"])
    assert row[7].startswith("–")


# --- conclusions --------------------------------------------------------------------------------------------


def told(runs: list[Run], language: Language, topic: Topic) -> list[str]:
    return [one.text for one in conclusions(runs, language) if one.topic is topic]


def test_verdicts_are_told_with_their_margin_and_those_of_invalid_cells_are_none() -> None:
    said = told([small()[0]], "ko", Topic.CLAIMS)
    assert said[0].startswith("시뮬레이션에서 가능함: “동시 사용자 40명에서")
    assert re.search(r"가장 불리한 반복에서도 주장한 값까지 \d+%의 여유가 있습니다\.$", said[0])
    assert "판정하지 않음: “동시 사용자 160명에서 25 tokens/s” — 근거가 된 셀이 모두 무효입니다." in said
    assert "31%" not in " ".join(said)


def test_the_knee_is_told_with_its_cost() -> None:
    run, _ = small()
    search = run.searches[0]
    (said,) = told([run], "en", Topic.KNEE)
    assert f"Highest load that met every objective: {search.highest_met:g} requests/s." in said
    assert f"Lowest load that did not: {search.lowest_failed:g} requests/s." in said
    cell = next(one for one in run.cells if one.level == search.highest_met and one.search == "knee")
    costs = sorted(float(repeat.cost_per_mtok_out or 0) for repeat in cell.repeats)
    assert f"{number(costs[1])} USD (middle of 3 repeats, {number(costs[0])} to {number(costs[2])})" in said


@pytest.mark.parametrize(
    ("ended", "bounds", "words"),
    [
        ("at_most", (8.0, None), "계획의 상한인 초당 8건까지"),
        ("below_begin", (None, 0.5), "시도한 가장 낮은 부하(초당 0.5건)에서도"),
        ("below_begin", (None, None), "시도한 가장 낮은 부하에서도"),
        ("invalid", (None, None), "무효인 셀이 있어 최대 부하를 정하지 못했습니다."),
        ("stopped", (None, None), "최대 부하를 찾다가 중단되었습니다."),
    ],
)
def test_every_end_of_a_search_has_its_sentence(ended: str, bounds: tuple[float | None, ...], words: str) -> None:
    run, _ = small()
    search = changed(run.searches[0], ended=ended, highest_met=bounds[0], lowest_failed=bounds[1])
    (said,) = told([changed(run, searches=[search])], "ko", Topic.KNEE)
    assert words in said


def test_candidates_are_told_apart_only_where_their_ranges_do_not_overlap() -> None:
    runs, _ = campaign()
    said = " ".join(told(runs, "en", Topic.KNEE))
    assert "sim-dense-32b takes more load than sim-dense-70b: their ranges do not overlap." in said
    alike = [runs[0], changed(runs[0], id="twin", model="twin")]
    assert "Whether sim-dense-32b or twin takes more load cannot be said" in " ".join(told(alike, "en", Topic.KNEE))


def test_candidates_on_different_work_are_not_compared() -> None:
    runs, spreads = campaign()
    other = [runs[0], changed(runs[1], workload_sha256="other")]
    said = conclusions(other, "ko")
    assert any("작업 부하가 서로 다릅니다" in one.text and one.is_caution for one in said)
    assert not any("겹" in one.text for one in said)
    assert 'id="frontier"' not in render_report(other, language="ko", distributions=spreads)
    assert 'id="frontier"' in campaign_page("ko")


def test_a_run_that_was_stopped_and_its_notes_say_so_first() -> None:
    run = changed(small()[0], state="stopped", notes=["half of the workers were lost"])
    said = [one.text for one in conclusions([run], "en") if one.is_caution]
    assert "The run was stopped early. This is what had been measured by then." in said
    assert "Note: half of the workers were lost" in said


def test_units_and_counts_are_singular_in_english_where_they_are() -> None:
    assert "1 user at once" in small_page("en")
    assert not re.search(r"\b1 (users|requests/s)", small_page("en"))
    assert "1 request/s" in small_page("en")


# --- hostile, large -----------------------------------------------------------------------------------------

HOSTILE = '</style><script>alert("1")</script><img src=x onerror=alert(1)>\x1b[31m\u202e'


def test_hostile_names_are_text() -> None:
    run, _ = made_run(is_small=True)
    cells = []
    for cell in run.cells:
        repeats = [
            changed(
                repeat,
                errors={HOSTILE: 3},
                run_id=HOSTILE,
                currency=HOSTILE,
                checks=[changed(check, seen=HOSTILE) for check in repeat.checks],
            )
            for repeat in cell.repeats
        ]
        cells.append(changed(cell, id=f"{cell.id}{HOSTILE}", load=HOSTILE, repeats=repeats))
    strings = dict.fromkeys(
        ("id", "name", "model", "gpu", "plan", "state", "provenance", "began_at", "ended_at"), HOSTILE
    )
    engines = [changed(one, replica=HOSTILE, version=HOSTILE, resolved={HOSTILE: HOSTILE}) for one in run.engines]
    verdicts = [verdict(HOSTILE, HOSTILE, HOSTILE, [HOSTILE], reasons=[HOSTILE, HOSTILE], left_open=[HOSTILE])]
    doors = [changed(one, cell=f"{one.cell}{HOSTILE}", metric=HOSTILE) for one in run.doors]
    hostile = changed(
        run, cells=cells, engines=engines, verdicts=verdicts, doors=doors, notes=[HOSTILE], versions={HOSTILE: HOSTILE},
        **strings,
    )  # fmt: skip
    for language in LANGUAGES:
        page = render_report([hostile], language=language)
        seen = Seen(page)
        assert {tag for tag, _ in seen.tags} <= ALLOWED
        assert not [name for _, found in seen.tags for name in found if name.startswith("on")]
        assert "\x1b" not in page


def test_an_hour_twelve_times_is_drawn_in_few_points_and_little_memory() -> None:
    run = hour_long_run()
    assert sum(len(repeat.timeline) for cell in run.cells for repeat in cell.repeats) == 12 * 3600
    tracemalloc.start()
    page = render_report([run], language="ko")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert len(page) < 3e6
    paths = [found["d"] or "" for tag, found in Seen(page).tags if tag == "path" and "line" in str(found.get("class"))]
    assert len(paths) >= 12 * 5
    assert max(len(re.findall("[ML]", path)) for path in paths) <= 240


# --- legible ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "base"), [(LIGHT, BASE_LIGHT), (DARK, BASE_DARK)], ids=["light", "dark"])
def test_every_colour_has_the_contrast_that_it_needs(own: dict[str, str], base: dict[str, str]) -> None:
    for name in ("limit", "good", "bad"):
        assert contrast(own[name], base["page"]) >= 4.5, name
    for name in ("s0", "s1", "s2", "s3", "s4", "s5"):
        assert contrast(own[name], base["page"]) >= 3, name


PAPER: dict[str, Any] = {"viewport": {"width": 695, "height": 1000}}
"""A4 less the margins of the style sheet, at 96 pixels an inch."""
WIDER = """() => [...document.querySelectorAll('body *')]
    .filter((e) => !e.closest('.wide > table') || matchMedia('print').matches)
    .filter((e) => !e.closest('svg') && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((e) => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40)).slice(0, 5)"""


async def problems(browser: Browser, page_text: str, axe: str, *, scheme: Any, device: dict[str, Any]) -> list[str]:
    context = await browser.new_context(color_scheme=scheme, **device)
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.set_content(page_text)
    await page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true })")
    found = [f"wider than the page: {one}" for one in await page.evaluate(WIDER)]
    await page.evaluate(axe)
    for violation in await page.evaluate(RUN, list(RULES)):
        targets = [node["target"] for node in violation["nodes"]][:3]
        found.append(f"{violation['id']}: {violation['help']} {targets}")
    await context.close()
    return [*found, *(f"asked for {one}" for one in asked)]


async def test_axe_finds_nothing_and_nothing_is_wider_than_the_page(axe: str) -> None:
    cases = [("ko", "light", SCREEN), ("en", "dark", SCREEN), ("ko", "dark", PHONE), ("en", "light", PHONE)]
    async with running_browser() as browser:
        for language, scheme, device in cases:
            found = await problems(browser, short_page(language), axe, scheme=scheme, device=device)
            assert found == [], (language, scheme, device)


async def test_on_paper_every_table_and_drawing_fits_the_page() -> None:
    async with running_browser() as browser:
        page = await browser.new_page(**PAPER)
        await page.set_content(render_report([made_run()[0]], language="ko"))
        await page.emulate_media(media="print")
        assert await page.evaluate(WIDER) == []
        assert (await page.pdf(prefer_css_page_size=True)).startswith(b"%PDF")
