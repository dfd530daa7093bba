"""The report itself: conclusions first, then each drawing with the table behind it, then how to check it all.

A result in, text out; the same result gives the same page. What its sections show is `sections`' subject.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.markup import Element, Node, document, element
from gateway.rounds.conclusion_words import PRIMARY, Language
from gateway.rounds.conclusions import Json, result_title
from gateway.rounds.figure_words import day_words, percent
from gateway.rounds.report.sections import SECTIONS
from gateway.rounds.report.style import style_sheet
from gateway.rounds.report.view import View, paragraph

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What the page may load: nothing."""


def report_page(result: Json, *, language: Language) -> str:
    """The whole page in one language, of a result as `results.result_object` makes it."""
    view = View(result, language)
    head = (
        element("meta", {"charset": "utf-8"}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("title", {}, result_title(result, language=language)),
        element("style", {}, style_sheet()),
    )
    shown = {name: content for name, make in SECTIONS.items() if (content := list(make(view)))}
    body = (
        _header(view),
        _contents(view, list(shown)),
        element("main", {}, *(_section(view, name, content) for name, content in shown.items())),
    )
    return document(language, head, body)


def _header(view: View) -> Element:
    of, analysis = view.result["round"], view.analysis
    facts = view.words.facts.format(
        invited=analysis["reviewers"]["invited"],
        counted=analysis["reviewers"]["counted"],
        prompts=f"{view.result['prompts']:,}",
        entries=f"{analysis['ballots']['entries']:,}",
        votes=f"{analysis['votes']['counted']:,}",
        primary=view.text(PRIMARY[analysis["plan"]["primary"]].document()),
    )
    moments = {name: of[f"{name}_at"] for name in ("sealed", "opened", "closed", "revealed")}
    days = {name: day_words(at) if at else view.words.none_yet for name, at in moments.items()}
    return element(
        "header",
        {},
        element("p", {"class": "kicker"}, view.words.kicker),
        element("h1", {}, result_title(view.result, language=view.language)),
        paragraph(facts),
        paragraph(view.words.dates.format(**days), "facts"),
        paragraph(view.words.codes_until, "facts") if view.result["names"] is None else None,
    )


def _contents(view: View, names: Sequence[str]) -> Element:
    links = (element("li", {}, element("a", {"href": f"#{name}"}, view.words.sections[name].heading)) for name in names)
    return element("nav", {"aria-label": view.words.contents}, element("ul", {}, *links))


def _section(view: View, name: str, content: Sequence[Node]) -> Element:
    words = view.words.sections[name]
    lead = words.lead.format(confidence=percent(view.analysis["plan"]["confidence"]))
    return element(
        "section",
        {"aria-labelledby": name},
        element("h2", {"id": name}, words.heading),
        paragraph(lead, "note") if lead else None,
        *content,
    )
