"""The feasibility page as a browser and a reader get it: sound markup, nothing to fetch, complete in both languages."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_feasibility import H100, L4, LLAMA_8B, candidate

from gateway.domain.feasibility import Verdict
from gateway.domain.matrix import DEFAULT_QUANTISATIONS, PUBLISHED, QUANTISATIONS, Gap, MatrixLoad, Units, build_matrix
from gateway.domain.records import Confidence, Consortium, Model, Registry, Sourced
from gateway.markup import VOID, Css, document, element, render
from gateway.matrix_cell_words import unknown_words
from gateway.matrix_figure import text_width, wrapped
from gateway.matrix_page import feasibility_page
from gateway.matrix_style import DARK, LIGHT
from gateway.matrix_words import WORDS
from gateway.matrix_words.english import ENGLISH
from gateway.matrix_words.fields import Language
from gateway.matrix_words.korean import KOREAN
from gateway.registry import load_registry

SHIPPED = load_registry(Path(__file__).parent.parent / "model_registry.yaml")
DAY = date(2026, 11, 28)
LOAD = MatrixLoad(8192)
LANGUAGES: tuple[Language, ...] = ("ko", "en")
FETCHING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href"}
NASTY = '<script>alert("1")</script>\x00&\'"><svg onload=x>\ud800'


class Outline(HTMLParser):
    """Tags that must nest, the texts, and every attribute."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend((tag, name, value) for name, value in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value or "" for _, name, value in self.attributes if name == attribute]


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


def page_of(models: list[Model], *, language: Language = "ko", registry: Registry = SHIPPED, **load: Any) -> str:
    matrix = build_matrix(models, [H100, L4], DEFAULT_QUANTISATIONS, replace(LOAD, **load))
    return feasibility_page(matrix, registry, language=language, on=DAY)


@pytest.fixture(scope="module", params=LANGUAGES)
def shipped(request: pytest.FixtureRequest) -> tuple[Language, Outline]:
    matrix = build_matrix(SHIPPED.models.values(), SHIPPED.gpus.values(), DEFAULT_QUANTISATIONS, LOAD)
    return request.param, outline(feasibility_page(matrix, SHIPPED, language=request.param, on=DAY))


# --- the page -----------------------------------------------------------------------------------------------


def test_page_says_in_its_title_that_it_predicts(shipped: tuple[Language, Outline]) -> None:
    language, page = shipped
    title = page.texts[1] if page.texts[0] == "\n" else page.texts[0]
    assert ("예측값(실측 아님)" if language == "ko" else "predicted (not measured)") in title
    assert page.values("lang")[0] == language
    assert page.tags.count("h1") == 1


def test_page_fetches_and_runs_nothing(shipped: tuple[Language, Outline]) -> None:
    _, page = shipped
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "image", "use", "base"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name in FETCHING or name.startswith("on")]
    assert all(value.startswith("#") for value in page.values("href"))
    style = "".join(page.texts)
    assert "url(http" not in style
    assert "@import" not in style
    assert any("default-src 'none'" in value for value in page.values("content"))


def test_ids_are_unique_and_every_link_within_the_page_arrives(shipped: tuple[Language, Outline]) -> None:
    _, page = shipped
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for value in page.values("href")} <= set(ids)
    assert set(" ".join(page.values("aria-labelledby")).split()) <= set(ids)


def test_every_model_every_gpu_and_every_consortium_is_named(shipped: tuple[Language, Outline]) -> None:
    _, page = shipped
    text = "\n".join(page.texts)
    assert all((model.name or model.id) in text for model in SHIPPED.models.values())
    assert all(gpu.name in text for gpu in SHIPPED.gpus.values())
    with_models = {model.consortium_id for model in SHIPPED.models.values()}
    for consortium in SHIPPED.consortia.values():
        assert consortium.id not in with_models or consortium.name_ko in text
    assert SHIPPED.sha256[:16] in text
    assert "2026-11-28" in text


def test_every_unknown_model_stands_in_the_list_with_its_reason(shipped: tuple[Language, Outline]) -> None:
    language, page = shipped
    matrix = build_matrix(SHIPPED.models.values(), [H100], [PUBLISHED], LOAD)
    text = "\n".join(page.texts)
    listed = text[text.rindex(WORDS[language].unknown_heading) :]
    for cell in matrix:
        if cell.unknown is not None:
            model = SHIPPED.models[cell.model_id]
            assert f"{model.name or model.id}\n{unknown_words(cell.unknown, WORDS[language])}" in listed


def test_no_cell_of_a_table_is_empty(shipped: tuple[Language, Outline]) -> None:
    _, page = shipped
    assert page.tags.count("caption") == len(DEFAULT_QUANTISATIONS)
    matrix = build_matrix([candidate(LLAMA_8B)], [H100, L4], [PUBLISHED], LOAD)
    markup = feasibility_page(matrix, SHIPPED, language="en", on=DAY)
    assert "<td></td>" not in markup
    assert 'class="n"></td>' not in markup


def test_figures_of_the_table_are_those_of_the_matrix() -> None:
    model = candidate(LLAMA_8B)
    matrix = build_matrix([model], [H100], [PUBLISHED], LOAD)
    (cell,) = matrix
    texts = outline(feasibility_page(matrix, SHIPPED, language="en", on=DAY)).texts
    assert f"{cell.estimate.max_concurrency:,}" in texts
    assert f"×{cell.estimate.max_concurrency:,}" in texts
    assert f"{cell.estimate.max_context_one_request:,}" in texts
    assert "no listed price" in texts


def test_several_gpus_and_another_cache_are_told() -> None:
    text = "\n".join(outline(page_of([candidate(LLAMA_8B)], gpus=4, kv_dtype="fp8", concurrency=3)).texts)
    assert "GPU 4장" in text
    assert "동시 요청 3건" in text
    assert "KV 캐시는 fp8" in text
    assert "GPU 1장 구동" not in text


def test_what_no_engine_serves_is_judged_by_size_and_says_so() -> None:
    servable = candidate(LLAMA_8B)
    orphan = replace(servable, id="orphan", serving=replace(servable.serving, reason="removed"))
    assert ENGLISH.by_size in page_of([servable, orphan], language="en")
    assert ENGLISH.legend_by_size not in page_of([servable], language="en")


def test_a_page_without_any_verdict_is_sound() -> None:
    page = outline(page_of([candidate(None)]))
    assert "table" in page.tags, "the GPUs"
    assert "caption" not in page.tags
    outline(page_of([]))


# --- what comes from outside is text ------------------------------------------------------------------------


def hostile(text: str) -> tuple[list[Model], Registry]:
    consortium = Consortium("evil", text, text, "in")
    model = replace(candidate(LLAMA_8B), id=text, name=text, consortium_id="evil")
    bare = replace(candidate(None), id=text + "2", name=None, consortium_id="evil")
    return [model, bare], replace(SHIPPED, consortia={"evil": consortium}, sha256=text)


def test_names_are_escaped_wherever_they_stand() -> None:
    models, registry = hostile(NASTY)
    device = replace(H100, id=NASTY, name=NASTY, sourced=Sourced(NASTY, Confidence.LOW, NASTY))
    for language in LANGUAGES:
        matrix = build_matrix(models, [device], QUANTISATIONS, LOAD)
        page = feasibility_page(matrix, registry, language=language, on=DAY)
        found = outline(page)
        assert "script" not in found.tags
        assert not [name for _, name, _ in found.attributes if name.startswith("on")]
        assert "\x00" not in page
        page.encode()


@given(st.text(max_size=60))
def test_any_text_stays_text(text: str) -> None:
    found = outline(render(element("p", {"title": text}, text, element("b", {}, text))))
    assert found.tags == ["p", "b"]
    assert len(found.values("title")) == 1


def test_markup_refuses_names_that_are_none() -> None:
    for name in ("", "a b", "<p", 'x"', "1a"):
        with pytest.raises(ValueError, match="is no name"):
            element(name)
        with pytest.raises(ValueError, match="is no name"):
            element("p", {name: 1})
    with pytest.raises(ValueError, match="style sheet"):
        Css("</style><script>")


def test_markup_leaves_out_what_is_none_and_closes_what_it_opens() -> None:
    drawn = render(element("p", {"id": None, "hidden": True, "x": False, "n": 0.5}, None, element("br"), "a<b"))
    assert drawn == '<p hidden="" n="0.5"><br>a&lt;b</p>'
    assert document("ko", [], ["x"]).startswith('<!DOCTYPE html>\n<html lang="ko">')


@given(st.text(alphabet="가나다 abc-1", max_size=80), st.integers(1, 3))
def test_wrapped_lines_keep_within_their_width(text: str, most: int) -> None:
    lines = wrapped(text, 120, 12, most=most)
    assert 1 <= len(lines) <= most
    assert all(text_width(line, 12) <= 120 for line in lines)


# --- words and colours --------------------------------------------------------------------------------------


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def as_texts(value: Any) -> dict[Any, str]:
    if isinstance(value, str):
        return {"": value}
    return dict(value.items()) if hasattr(value, "items") else dict(enumerate(value))


@pytest.mark.parametrize("name", [field.name for field in fields(ENGLISH)])
def test_both_languages_say_the_same_things(name: str) -> None:
    english, korean = as_texts(getattr(ENGLISH, name)), as_texts(getattr(KOREAN, name))
    assert list(english) == list(korean)
    for key, text in english.items():
        assert placeholders(text) == placeholders(korean[key]), f"{name}: {key}"
        assert bool(text) == bool(korean[key])


def test_every_verdict_unit_gap_and_format_has_words() -> None:
    for words in WORDS.values():
        assert set(words.verdicts) == set(words.legend_of) == set(Verdict)
        assert set(words.units) == set(words.units_of) == set(Units)
        assert set(words.gaps) == set(Gap)
        assert set(words.quantisations) == set(QUANTISATIONS)
        assert set(words.confidence) == set(Confidence)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(colours: dict[str, str]) -> None:
    grounds = {"ink": ("page", "band", "hatch"), "soft": ("page", "band"), "link": ("page",)}
    pairs = [(ink, ground) for ink, on in grounds.items() for ground in on]
    pairs += [(f"{verdict}-ink", verdict) for verdict in ("fits", "quantised", "short", "no")]
    for ink, ground in pairs:
        assert contrast(colours[ink], colours[ground]) >= 4.5, f"{ink} on {ground}"
    assert contrast(colours["no-edge"], colours["page"]) >= 3


def test_verdicts_keep_their_order_in_a_grey_print() -> None:
    greys = [luminance(LIGHT[verdict]) for verdict in ("fits", "quantised", "short", "no")]
    assert greys == sorted(greys)
    assert all(contrast(LIGHT[a], LIGHT[b]) > 1.1 for a, b in (("fits", "quantised"), ("quantised", "short")))
