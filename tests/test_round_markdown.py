"""An answer's Markdown on a reviewer's page: readable, whole, and unable to do or fetch anything."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rounds.markdown import (
    ATTRIBUTES,
    MAX_CHARACTERS,
    MAX_FORMULA_CHARACTERS_IN_ALL,
    MAX_FORMULAS,
    MAX_HTML_CHARACTERS,
    MAX_TABLE_CELLS,
    TAGS,
    render_markdown,
    render_plain,
)

PIECES = [
    *"<>&\"'`*_~#|[]()!$\\-+:. \n\t0a가",
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "[a](javascript:x)",
    "![그림](http://x.example/y.png)",
    "<http://x.example>",
    "[r]: http://x.example",
    "$$\n\\href{http://x}{y}\n$$",
    "$\\text{<b>}$",
    "$\\color{red}{x}$",
    "```\n",
    "|a|b|\n|:-|-:|\n|c|d|\n",
    "&lt;script&gt;",
    "\\begin{matrix}a&b\\end{matrix}",
    "\x00\ud800\u200b",
]


class Reader(HTMLParser):
    """Reads a fragment as a browser does: tags, attributes, text, and whether every element ends."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: dict[str, str] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name: value or "" for name, value in attrs}
        if tag not in ("br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=40).map("".join))
def test_whatever_a_model_writes_only_tags_and_attributes_of_the_list_come_out(text: str) -> None:
    found = read(render_markdown(text))
    assert found.tags <= TAGS
    assert set(found.attributes) <= ATTRIBUTES
    assert not any(":" in value or "//" in value for value in found.attributes.values())


@given(st.text(max_size=200))
def test_plain_text_shows_every_character_that_html_can_hold(text: str) -> None:
    found = read(render_plain(text))
    assert found.tags == {"pre"}
    assert len(found.text) == len(text.replace("\r\n", "\n"))


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("# 제목", "<h3>제목</h3>"),
        ("##### 깊은 제목", "<h3>깊은 제목</h3>"),
        ("# 가\n### 나\n### 다\n## 라\n# 마", "<h3>가</h3><h4>나</h4><h4>다</h4><h4>라</h4><h3>마</h3>"),
        ("**굵게** _기울임_ ~~지움~~", "<p><strong>굵게</strong> <em>기울임</em> <s>지움</s></p>"),
        ("`x<y`", "<p><code>x&lt;y</code></p>"),
        ("[출처](https://x.example/a)", "<p>출처</p>"),
        ("![도표](https://x.example/a.png)", "<p>[도표]</p>"),
        ("<https://x.example>", "<p>https://x.example</p>"),
        ("[1]: https://x.example", "<p>[1]: https://x.example</p>"),
        ("<b>x</b>", "<p>&lt;b&gt;x&lt;/b&gt;</p>"),
        ("3. 셋\n4. 넷", '<ol start="3"><li>셋</li><li>넷</li></ol>'),
        ("```py\nprint('<x>')\n```", "<pre><code>print(&#x27;&lt;x&gt;&#x27;)\n</code></pre>"),
        ("값은 5$ 와 6$", "<p>값은 5$ 와 6$</p>"),
        ("$a$", '<p><math display="inline"><mrow><mi>a</mi></mrow></math></p>'),
        ("$\\frac$", "<p><code>$\\frac$</code></p>"),
        ("|a|b|\n|-|-:|\n|1|2|", '<div class="wide" tabindex="0"><table><thead><tr><th>a</th><th class="right">b</th>'
         '</tr></thead><tbody><tr><td>1</td><td class="right">2</td></tr></tbody></table></div>'),
    ],
)  # fmt: skip
def test_markdown_comes_out_as(source: str, html: str) -> None:
    assert render_markdown(source) == html


@pytest.mark.parametrize(
    "source", ["> " * 100 + "끝", "".join("  " * n + "- 가\n" for n in range(60)), "가" * (MAX_CHARACTERS + 1)]
)
def test_what_is_too_deep_or_too_long_is_shown_as_it_was_written(source: str) -> None:
    assert render_markdown(source) == render_plain(source)


def test_formulas_beyond_the_limit_are_shown_as_they_were_written() -> None:
    html = render_markdown("$a$ " * (MAX_FORMULAS + 3))
    assert html.count("<math ") == MAX_FORMULAS
    assert html.count("<code>$a$</code>") == 3


@pytest.mark.parametrize(
    "source",
    [
        "|" + "a|" * 200 + "\n|" + "-|" * 200 + "\n" + "a\n" * 10,
        "> |" + "a|" * 200 + "\n> |" + "-|" * 200 + "\n" + "> a\n" * 10,
        "- a|b\n  -|-\n" + "  a\n" * 1000,
        "![a](" * 8_000,
        "[a](x)" * 501,
        "[" * 40_000,
    ],
    ids=["table", "quoted table", "listed table", "pictures", "links", "brackets"],
)
def test_what_costs_the_parser_too_much_is_shown_as_it_was_written(source: str) -> None:
    assert render_markdown(source) == render_plain(source)


def test_a_long_table_within_the_limit_and_prose_with_bars_and_dashes_are_set() -> None:
    table = "|a|b|c|\n|-|-|-|\n" + "|1|-2|-|\n" * (MAX_TABLE_CELLS // 3 - 2)
    assert "<table>" in render_markdown(table)
    assert "<table>" in render_markdown("\n\n".join(["|a|b|\n|-|-|\n|1|2|"] * 200))
    assert render_markdown("가 - 나 | 다\n\n---\n\n" * 900).startswith("<p>")


def test_html_that_grows_too_long_gives_way_to_the_text() -> None:
    source = ("$" + "x^{y^{z}}" * 55 + "$ ") * 20
    assert len(render_markdown(source)) <= MAX_HTML_CHARACTERS
    quotes = (">" * 18 + "a\n\n") * 1_900
    assert render_markdown(quotes) == render_plain(quotes)


def test_formulas_that_are_too_long_together_are_shown_as_they_were_written() -> None:
    formula = "a" * 1_000
    html = render_markdown(f"${formula}$ " * 20)
    assert html.count("<math ") == MAX_FORMULA_CHARACTERS_IN_ALL // 1_000
    assert html.count(f"<code>${formula}$</code>") == 20 - html.count("<math ")
