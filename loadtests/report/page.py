"""The report itself: conclusions first, then each drawing with the table behind it, then how to check it all.

Runs in, text out; the same runs give the same page. It fetches nothing and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from gateway.markup import Element, Node, document, element
from loadtests.cells import Run
from loadtests.report.buckets import MOST_DRAWN
from loadtests.report.conclusions import labels, provenance_words, provenances
from loadtests.report.cost_figures import costs
from loadtests.report.doors import doors
from loadtests.report.latency_figures import latencies
from loadtests.report.over_time import timelines
from loadtests.report.overview import told, validity, verdicts
from loadtests.report.results import results
from loadtests.report.setup import (
    configuration,
    formulas,
    gpu_words,
    provenance_word,
    reproduce,
    state_words,
)
from loadtests.report.spread_figures import frontiers, spreads
from loadtests.report.spreads import Distribution
from loadtests.report.style import style_sheet
from loadtests.report.terms import Language, say
from loadtests.report.view import View, paragraph
from loadtests.report.words import SECTIONS, WORDS

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What the page may load: nothing."""
_MAKERS: Mapping[str, Callable[[View], Iterator[Node]]] = {
    "conclusions": told,
    "validity": validity,
    "verdicts": verdicts,
    "latency": latencies,
    "distributions": spreads,
    "frontier": frontiers,
    "cost": costs,
    "doors": doors,
    "results": results,
    "timelines": timelines,
    "formulas": formulas,
    "configuration": configuration,
    "reproduce": reproduce,
}
"""By name, in the order of the page."""
_LONG = frozenset({"validity", "results", "timelines"})
"""Sections with tables that stay off paper."""
_NO_FIGURES = frozenset({"formulas", "configuration", "reproduce"})
"""Sections that say nothing of what was measured."""
_OTHER: Mapping[Language, Language] = {"ko": "en", "en": "ko"}


def render_report(
    runs: Sequence[Run],
    *,
    language: Language,
    distributions: Sequence[Distribution] = (),
    other_page: str | None = None,
) -> str:
    """The whole page in one language: of one run, or of several candidates' beside each other.

    `distributions`: of which cells curves are drawn. `other_page`: the file beside this one that says the same in the
    other language; None = no link to one. Raises ValueError for no run, and for two runs with one id.
    """
    if not runs or len({run.id for run in runs}) < len(runs):
        raise ValueError("runs: expected at least one run, and each once")
    view = View(runs, distributions, language)
    head = (
        element("meta", {"charset": "utf-8"}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("title", {}, report_title(runs, language)),
        element("style", {}, style_sheet()),
    )
    shown = {name: content for name, make in _MAKERS.items() if (content := list(make(view)))}
    body = (
        _header(view, other_page),
        _contents(view, list(shown)),
        element("main", {}, *(_section(view, name, content) for name, content in shown.items())),
    )
    return document(language, head, body)


def report_title(runs: Sequence[Run], language: Language) -> str:
    """What the report is of; whether its answers are real."""
    if len(runs) == 1:
        title = say(WORDS["title"], language).format(name=runs[0].name)
    else:
        names = list(dict.fromkeys(run.name for run in runs))
        names = names if len(names) == 1 else list(labels(runs).values())
        title = say(WORDS["title_many"], language).format(n=len(runs), name=", ".join(names))
    if not provenances(runs):
        return title
    provenance = provenance_words(runs, language)
    return say(WORDS["title_not_real"], language).format(title=title, provenance=provenance)


def _header(view: View, other_page: str | None) -> Element:
    other = _OTHER[view.language]
    link = None
    if other_page is not None:
        link = element("a", {"href": f"./{other_page}", "lang": other, "hreflang": other}, view.word("other"))
    return element(
        "header",
        {},
        element("p", {"class": "kicker"}, view.word("kicker"), " · " if link is not None else None, link),
        element("h1", {}, report_title(view.runs, view.language)),
        *(paragraph(_facts(view, run), "facts") for run in view.runs),
    )


def _facts(view: View, run: Run) -> str:
    return view.word(
        "facts",
        model=run.model,
        gpu=gpu_words(view, run),
        provenance=provenance_word(view, run.provenance),
        state=state_words(view, run),
        cells=len(run.cells),
        began=run.began_at[:16].replace("T", " "),
        ended="–" if run.ended_at is None else run.ended_at[:16].replace("T", " "),
    )


def _contents(view: View, names: Sequence[str]) -> Element:
    links = (element("li", {}, element("a", {"href": f"#{name}"}, view.say(SECTIONS[name].heading))) for name in names)
    return element("nav", {"aria-label": view.word("contents")}, element("ul", {}, *links))


def _section(view: View, name: str, content: Sequence[Node]) -> Element:
    section = SECTIONS[name]
    stands = provenance_words(view.runs, view.language) if name not in _NO_FIGURES else ""
    lead = None if section.lead is None else view.say(section.lead).replace("{most}", str(MOST_DRAWN))
    return element(
        "section",
        {"aria-labelledby": name},
        element("h2", {"id": name}, view.say(section.heading), _stands(stands)),
        paragraph(lead, "note") if lead else None,
        paragraph(view.word("on_paper"), "note off-screen") if name in _LONG else None,
        *content,
    )


def _stands(provenance: str) -> Element | None:
    """What the figures came from where that is not a real model, so that no part of the page is read without it."""
    return element("span", {"class": "stands"}, f" ({provenance})") if provenance else None
