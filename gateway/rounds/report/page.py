"""The report itself: conclusions first, then each drawing with the table behind it, then how to check it all.

A result in, text out; the same result gives the same page. Its numbers are `tables`', its drawings `charts`'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gateway.markup import Element, Node, document, element
from gateway.rounds.conclusion_words import PRIMARY, Language
from gateway.rounds.conclusions import (
    MINUS,
    Json,
    conclusions,
    label_of,
    model_order,
    number_words,
    percent,
    primary_estimate,
    rank_words,
    result_title,
    share_words,
)
from gateway.rounds.report.charts import Axis, Cell, Mark, Row, dot_whiskers, heat_table, key, rank_ranges
from gateway.rounds.report.glossary import GLOSSARY
from gateway.rounds.report.style import style_sheet
from gateway.rounds.report.tables import Column, Kind, result_table
from gateway.rounds.report.words import WORDS, Words

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What the page may load: nothing."""
_HALF = 0.5


def report_page(result: Json, *, language: Language) -> str:
    """The whole page in one language, of a result as `results.result_object` makes it."""
    page = _Page(result, language)
    head = (
        element("meta", {"charset": "utf-8"}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("title", {}, result_title(result, language=language)),
        element("style", {}, style_sheet()),
    )
    sections = [(name, content) for name, make in page.sections().items() if (content := list(make()))]
    body = (
        page.header(),
        page.contents([name for name, _ in sections]),
        element("main", {}, *(page.section(name, content) for name, content in sections)),
    )
    return document(language, head, body)


@dataclass(frozen=True, slots=True)
class _Page:
    """One result in one language."""

    result: Json
    language: Language

    @property
    def words(self) -> Words:
        return WORDS[self.language]

    @property
    def analysis(self) -> Json:
        found: Json = self.result["analysis"]
        return found

    def sections(self) -> Mapping[str, Callable[[], Iterator[Node]]]:
        """What makes each section, in their order; one that yields nothing is left out."""
        return {
            "conclusions": self.conclusions,
            "standing": self.standing,
            "ranks": self.ranks,
            "line": self.line,
            "pairs": self.pairs,
            "acceptability": self.acceptability,
            "style": self.style,
            "position": self.position,
            "criteria": self.criteria,
            "industries": self.industries,
            "agreement": self.agreement,
            "blinding": self.blinding,
            "reliability": self.reliability,
            "places": self.places,
            "design": self.design,
            "verify": self.verify,
            "glossary": self.glossary,
        }

    # --- the frame ------------------------------------------------------------------------------------------

    def header(self) -> Element:
        of, analysis = self.result["round"], self.analysis
        facts = self.words.facts.format(
            invited=analysis["reviewers"]["invited"],
            counted=analysis["reviewers"]["counted"],
            prompts=f"{self.result['prompts']:,}",
            entries=f"{analysis['ballots']['entries']:,}",
            votes=f"{analysis['votes']['counted']:,}",
            primary=self._text(PRIMARY[analysis["plan"]["primary"]].document()),
        )
        moments = {name: (of[f"{name}_at"] or self.words.none_yet)[:10] for name in ("sealed", "opened", "closed")}
        revealed = (of["revealed_at"] or self.words.none_yet)[:10]
        return element(
            "header",
            {},
            element("p", {"class": "kicker"}, self.words.kicker),
            element("h1", {}, result_title(self.result, language=self.language)),
            _paragraph(facts),
            _paragraph(self.words.dates.format(**moments, revealed=revealed), "facts"),
            _paragraph(self.words.codes_until, "facts") if self.result["names"] is None else None,
        )

    def contents(self, names: Sequence[str]) -> Element:
        links = (
            element("li", {}, element("a", {"href": f"#{name}"}, self.words.sections[name].heading)) for name in names
        )
        return element("nav", {"aria-label": self.words.contents}, element("ul", {}, *links))

    def section(self, name: str, content: Sequence[Node]) -> Element:
        words = self.words.sections[name]
        lead = words.lead.format(confidence=percent(self.analysis["plan"]["confidence"]))
        return element(
            "section",
            {"aria-labelledby": name},
            element("h2", {"id": name}, words.heading),
            _paragraph(lead, "note") if lead else None,
            *content,
        )

    # --- conclusions ----------------------------------------------------------------------------------------

    def conclusions(self) -> Iterator[Node]:
        for topic, said in groupby(conclusions(self.result, language=self.language), key=lambda one: one.topic):
            yield element("h3", {"class": "topic"}, self.words.topics[topic])
            items = (element("li", {"class": "caution" if one.is_caution else None}, one.text) for one in said)
            yield element("ul", {"class": "said"}, *items)

    # --- candidates -----------------------------------------------------------------------------------------

    def standing(self) -> Iterator[Node]:
        found = primary_estimate(self.analysis)
        if not found["is_comparable"]:
            yield _paragraph(self.words.not_comparable)
            return
        line = found.get("line")
        rows = [
            self._row(one["model"], [(one["win_rate"], one["win_rate_interval"], False)]) for one in found["models"]
        ]
        yield element(
            "figure",
            {},
            dot_whiskers(
                rows,
                _share_axis(_ends(rows)),
                label=self.words.sections["standing"].label,
                cut_after=line["keep"] if line is not None else None,
                cut=self.words.cut.format(keep=line["keep"]) if line is not None else "",
            ),
        )
        yield self.table("standing")

    def ranks(self) -> Iterator[Node]:
        found = primary_estimate(self.analysis)
        if not found["is_comparable"] or found["degrees"] is None:
            return
        rows = [
            (
                self._name(one["model"]),
                one["best_rank"],
                one["worst_rank"],
                self.words.rank.format(rank=rank_words(one["best_rank"], one["worst_rank"])),
            )
            for one in found["models"]
        ]
        yield element("figure", {}, rank_ranges(rows, len(rows), label=self.words.sections["ranks"].label))

    def line(self) -> Iterator[Node]:
        if primary_estimate(self.analysis).get("line") is None:
            return
        rows = list(self._removals())
        if rows:
            steps = range(max(1, -int(-10 * max(_ends(rows)) // 1)) + 1)
            axis = Axis(0, steps[-1] / 10, tuple((step / 10, percent(step / 10)) for step in steps))
            yield self._figure("line", rows, axis)
        yield self.table("line")

    def _removals(self) -> Iterator[Row]:
        """How much may be taken away before the line moves, of votes and of reviewers."""
        found = self.analysis["fragility"]
        everybody = {"votes": found["n"], "reviewers": self.analysis["overall"].get("reviewers", 0)} if found else {}
        for noun, n in everybody.items():
            removal = found[noun]
            if removal is not None:
                share = removal["share"]
                count = self.words.removed.format(count=f"{removal['at_most']:,}", n=f"{n:,}")
                left, entered = self._name(removal["left"]), self._name(removal["entered"])
                moved = self.words.moved.format(left=left, entered=entered)
                yield Row(self.words.fragility[noun], (Mark(share, (0.0, share)),), share_words(share), count, moved)

    def pairs(self) -> Iterator[Node]:
        found = {(one["first"], one["second"]): one for one in self.analysis["pairs"]}
        if not found:
            return
        order = list(dict.fromkeys(code for pair in found for code in pair))
        rows = [(self._name(row), [self._met(found, row, column) for column in order]) for row in order]
        caption = self.words.sections["pairs"].label
        yield element("figure", {}, heat_table([self._name(code) for code in order], rows, caption=caption))
        yield self.table("pairs")

    def _met(self, pairs: Mapping[tuple[str, str], Json], row: str, column: str) -> Cell:
        one = pairs.get((row, column)) or pairs.get((column, row))
        if one is None or not one["n"]:
            return Cell(None, "" if row == column else "–")
        share = one["points_of_first"] / one["n"]
        share = share if one["first"] == row else 1 - share
        return Cell(share, percent(share), self.words.met.format(n=one["n"]))

    # --- beside the result ----------------------------------------------------------------------------------

    def acceptability(self) -> Iterator[Node]:
        found = self.analysis["acceptability"]
        if not found["is_comparable"]:
            yield _paragraph(self.words.not_comparable)
            return
        rows = [
            self._row(one["model"], [(one["acceptable"], one["acceptable_interval"], False)]) for one in found["models"]
        ]
        yield self._figure("acceptability", rows, _share_axis(_ends(rows)))
        yield self.table("acceptability")

    def style(self) -> Iterator[Node]:
        raw, found = self.analysis["overall"], self.analysis["style_controlled"]
        if not raw["is_comparable"] or not found["is_comparable"]:
            yield _paragraph(self.words.not_comparable)
            return
        after = {one["model"]: one for one in found["models"]}
        rows = []
        for one in raw["models"]:
            other = after[one["model"]]
            marks = [(one["win_rate"], one["win_rate_interval"], False)]
            marks.append((other["win_rate"], other["win_rate_interval"], True))
            rows.append(self._row(one["model"], marks))
        yield key([(False, self.words.raw), (True, self.words.controlled)])
        yield self._figure("style", rows, _share_axis(_ends(rows)))
        if found["without_style"]:
            yield _paragraph(self.words.style_without.format(n=f"{found['without_style']:,}"), "note")
        yield self.table("style")
        yield from self._effects(found)

    def _effects(self, found: Json) -> Iterator[Node]:
        rows = [
            Row(
                self._code(name),
                (Mark(effect["coefficient"], effect["interval"]),),
                number_words(effect["coefficient"]),
                self._span(effect["interval"]),
            )
            for name, effect in found["effects"].items()
        ]
        if rows:
            words = self.words.sections["effects"]
            yield element("h3", {}, words.heading)
            yield _paragraph(words.lead, "note")
            yield self._figure("effects", rows, _number_axis(_ends(rows)))
            yield self.table("effects")

    def position(self) -> Iterator[Node]:
        found = self.analysis["position"]
        if not found["is_comparable"]:
            return
        share, span = found["share_for_a"], found["share_interval"]
        row = Row("A", (Mark(share, span),), percent(share, 1), self._span(span, is_share=True))
        yield self._figure("position", [row], _share_axis(_ends([row])))
        yield _paragraph(self.words.position_counts.format(change=f"{found['largest_change']:.2g}"), "note")
        yield self.table("position")

    def criteria(self) -> Iterator[Node]:
        found = {name: one for name, one in self.analysis["criteria"].items() if one["is_comparable"]}
        order = model_order(self.analysis)
        panels, every = [], []
        for name, estimate in found.items():
            of = {one["model"]: one for one in estimate["models"]}
            rows = [self._row(code, [(of[code]["win_rate"], of[code]["win_rate_interval"], False)]) for code in order]
            panels.append((self._code(name), estimate["n"], rows))
            every.extend(rows)
        if not panels:
            return
        axis = _share_axis(_ends(every))
        drawn = (
            element(
                "div",
                {},
                element("h3", {}, f"{title} ", element("span", {"class": "note"}, self.words.met.format(n=f"{n:,}"))),
                dot_whiskers([_bare(row) for row in rows], axis, label=title),
            )
            for title, n, rows in panels
        )
        yield element("figure", {"class": "panels"}, *drawn)
        yield self.table("criteria")

    def industries(self) -> Iterator[Node]:
        found = {name: one for name, one in self.analysis["industries"].items() if one["is_comparable"]}
        if not found:
            return
        order = model_order(self.analysis)
        cells = {name: {one["model"]: one for one in estimate["models"]} for name, estimate in found.items()}
        heads = [f"{name} ({self.words.met.format(n=estimate['n'])})" for name, estimate in found.items()]
        rows = [(self._name(code), [self._slice(cells[name][code]) for name in found]) for code in order]
        caption = self.words.sections["industries"].label
        yield element("figure", {}, heat_table(heads, rows, caption=caption))
        yield self.table("industries")

    def _slice(self, one: Json) -> Cell:
        return Cell(one["win_rate"], percent(one["win_rate"]), self._span(one["win_rate_interval"], is_share=True))

    # --- how it came about ----------------------------------------------------------------------------------

    def agreement(self) -> Iterator[Node]:
        found = self.analysis["agreement"]
        figures = {
            "alpha": found["alpha"],
            **{f"alpha:{name}": figure for name, figure in found["alpha_by_criterion"].items()},
            "kappa": found["kappa"],
        }
        rows = [self._figure_row(self._code(name), figure) for name, figure in figures.items() if _is_known(figure)]
        if rows:
            axis = Axis(-0.2, 1, ((0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1, "1")), middle=0)
            yield self._figure("agreement", rows, axis)
            yield _paragraph(self.words.agreement_bounds, "note")
        shares = {
            "consistent": found["consistent"],
            "reversed": found["reversed"],
            "attention": self.analysis["attention"],
        }
        rows = [
            self._figure_row(self._code(name), figure, is_share=True)
            for name, figure in shares.items()
            if _is_known(figure)
        ]
        if rows:
            yield element("h3", {}, self.words.sections["shares"].heading)
            ticks = tuple((tick / 4, percent(tick / 4)) for tick in range(5))
            yield self._figure("shares", rows, Axis(0, 1, ticks))
        yield self.table("agreement")

    def blinding(self) -> Iterator[Node]:
        found = self.analysis["blinding"]
        james = found["james"]
        if james["value"] is None:
            yield _paragraph(self.words.nobody)
            return
        ticks = tuple((tick / 4, f"{tick / 4:g}") for tick in range(5))
        whole = self._figure_row(self.words.james, james)
        yield self._figure("blinding", [whole], Axis(0, 1, ticks, middle=_HALF))
        yield _paragraph(self.words.blinding_bounds, "note")
        known = [code for code in model_order(self.analysis) if _is_known(found["bang"][code])]
        rows = [self._figure_row(self._name(code), found["bang"][code]) for code in known]
        if rows:
            low = min([-0.25, *(end for end in _ends(rows))])
            high = max([0.5, *_ends(rows)])
            yield self._figure("blinding", rows, _number_axis((low, high)))
        yield self.table("blinding")

    def reliability(self) -> Iterator[Node]:
        yield self.table("reliability", is_open=True)

    def places(self) -> Iterator[Node]:
        yield self.table("places", is_open=True)
        words = self.words.sections["exclusions"]
        yield element("h3", {}, words.heading)
        yield _paragraph(words.lead, "note")
        if self.analysis["ballots"]["excluded"]:
            yield self.table("exclusions", is_open=True)
        else:
            yield _paragraph(self.words.nobody)

    def design(self) -> Iterator[Node]:
        yield self.table("design", is_open=True)

    def verify(self) -> Iterator[Node]:
        of = self.result["round"]
        command = f"simsa round verify BUNDLE.zip --root {of['root']} --head {of['head']}"
        first, second, third = self.words.verify
        yield element(
            "ol",
            {},
            element("li", {}, first),
            element("li", {}, second, element("pre", {}, element("code", {}, command))),
            element("li", {}, third),
        )
        terms = [
            *_term(self.words.root, element("code", {}, of["root"] or self.words.none_yet)),
            *_term(self.words.head, element("code", {}, of["head"] or self.words.none_yet)),
        ]
        yield element("dl", {}, *terms)
        yield from self._notices()

    def _notices(self) -> Iterator[Node]:
        """What licences demand to be said wherever a model is named."""
        names = self.result["names"] or {}
        found = {code: one["licence_notice"] for code, one in names.items() if one["licence_notice"]}
        if found:
            yield element("h3", {}, self.words.notices)
            yield element("dl", {}, *(part for code, said in found.items() for part in _term(self._name(code), said)))

    def glossary(self) -> Iterator[Node]:
        yield element("dl", {}, *(part for term, said in GLOSSARY[self.language] for part in _term(term, said)))

    # --- tables ---------------------------------------------------------------------------------------------

    def table(self, name: str, *, is_open: bool = False) -> Element:
        """A table of `tables`, behind a switch unless it is what the section is about."""
        table = result_table(self.result, name)
        head = (
            element("th", {"scope": "col", "class": _class(column)}, self._head(name, column))
            for column in table.columns
        )
        body = (
            element(
                "tr",
                {},
                *(
                    self._cell(n, column, value)
                    for n, (column, value) in enumerate(zip(table.columns, row, strict=True))
                ),
            )
            for row in table.rows
        )
        caption = self.words.sections[name].heading if name in self.words.sections else ""
        shown = element(
            "div",
            {"class": "wide", "tabindex": "0", "role": "region", "aria-label": caption},
            element(
                "table",
                {},
                element("thead", {}, element("tr", {}, *head)),
                element("tbody", {}, *body),
            ),
        )
        if is_open:
            return shown
        return element("details", {}, element("summary", {}, self.words.numbers), shown)

    def _head(self, name: str, column: Column) -> str:
        return self.words.columns.get(f"{name}.{column.key}") or self.words.columns[column.key]

    def _cell(self, place: int, column: Column, value: Any) -> Element:
        text = self._formatted(column, value)
        if place == 0:
            return element("th", {"scope": "row"}, text)
        return element("td", {"class": _class(column)}, text)

    def _formatted(self, column: Column, value: Any) -> str:
        if value is None:
            return self.words.no_figure
        match column.kind:
            case Kind.MODEL:
                return self._name(value)
            case Kind.WORD:
                return self.words.codes.get(f"{column.key}.{value}") or self._code(value)
            case Kind.COUNT:
                return f"{value:,.0f}"
            case Kind.SHARE:
                return percent(value, 1)
            case Kind.NUMBER:
                return f"{value:,}" if isinstance(value, int) else _precise(value)
            case Kind.SHARE_SPAN:
                return _joined(*(percent(end, 1) for end in value))
            case Kind.NUMBER_SPAN:
                return _joined(*(f"{end:,.0f}" if abs(end) >= 100 else number_words(end) for end in value))
            case Kind.BOUND:
                return rank_words(*(f"{end:.3g}" for end in value))
            case Kind.RANKS:
                return rank_words(*value)
            case Kind.YES:
                return self.words.yes if value else self.words.no
        return str(value)

    # --- words ----------------------------------------------------------------------------------------------

    def _name(self, code: str) -> str:
        return label_of(self.result, code)

    def _code(self, code: str) -> str:
        """A code of our own in words; of `kind:name` the criterion behind it too."""
        kind, _, names = code.partition(":")
        titles = {one["id"]: self._text(one["title"]) for one in self.result["rubric"]}
        if names:
            of = " × ".join(titles.get(name, name) for name in names.split("+"))
            return f"{'α' if kind == 'alpha' else self.words.codes.get(kind, kind)}: {of}"
        return titles.get(code) or self.words.codes.get(code) or code

    def _text(self, text: Mapping[str, str]) -> str:
        return text[self.language]

    def _row(self, code: str, marks: Sequence[tuple[float, Sequence[float] | None, bool]]) -> Row:
        """A model's row of shares; the first mark's figure stands beside it."""
        value, span, _ = marks[0]
        named = (self.result["names"] or {}).get(code)
        under = "" if named is None else named[f"consortium_{self.language}"] or ""
        drawn = tuple(Mark(*mark) for mark in marks)
        return Row(self._name(code), drawn, percent(value), self._span(span, is_share=True), under)

    def _figure_row(self, name: str, figure: Json, *, is_share: bool = False) -> Row:
        value = share_words(figure["value"]) if is_share else number_words(figure["value"])
        marks = (Mark(figure["value"], figure["interval"]),)
        return Row(
            name, marks, value, self._span(figure["interval"], is_share=is_share), self.words.n.format(n=figure["n"])
        )

    def _figure(self, name: str, rows: Sequence[Row], axis: Axis) -> Element:
        return element(
            "figure",
            {},
            dot_whiskers(rows, axis, label=self.words.sections[name].label or self.words.sections[name].heading),
        )

    def _span(self, interval: Sequence[float] | None, *, is_share: bool = False) -> str:
        if interval is None:
            return ""
        if is_share:
            low, high = (percent(end) for end in interval)
            return f"{low.removesuffix('%')}–{high}"
        return _joined(*(number_words(end) for end in interval))


# --- small parts --------------------------------------------------------------------------------------------


def _is_known(figure: Json) -> bool:
    return figure["value"] is not None


def _bare(row: Row) -> Row:
    """Without what a narrow panel has no room for."""
    return Row(row.name, row.marks, row.value)


def _ends(rows: Sequence[Row]) -> tuple[float, ...]:
    """Everything that a drawing has to have room for."""
    values = [mark.value for row in rows for mark in row.marks if mark.value is not None]
    spans = [end for row in rows for mark in row.marks if mark.interval is not None for end in mark.interval]
    return (*values, *spans)


def _share_axis(values: Sequence[float]) -> Axis:
    """In tens of per cent around everything, the middle at a half."""
    low = min(4, *(int(10 * value) for value in values))
    high = max(6, *(-int(-10 * value // 1) for value in values))
    ticks = range(low, high + 1) if high - low <= 6 else range(low + low % 2, high + 1, 2)
    return Axis(low / 10, high / 10, tuple((tick / 10, percent(tick / 10)) for tick in ticks), middle=_HALF)


def _number_axis(values: Sequence[float]) -> Axis:
    """Round numbers around everything and 0, which is the middle."""
    span = max(values) - min(values)
    step = next(step for step in (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 1e9) if span <= 6 * step)
    low = int(min(0.0, *values) // step)
    high = -int(-max(0.0, *values) // step)
    ticks = tuple((n * step, f"{n * step:g}".replace("-", MINUS)) for n in range(low, high + 1))
    return Axis(low * step, high * step, ticks, middle=0.0)


def _precise(value: float) -> str:
    """Two decimals; three for what would be 0.00 and is not."""
    return "<0.001" if 0 < value < 0.001 else f"{value:.3f}" if 0 < value < 0.01 else number_words(value)


def _joined(low: str, high: str) -> str:
    return f"{low}–{high}" if MINUS not in low + high else f"{low} ~ {high}"


def _class(column: Column) -> str | None:
    return None if column.kind in (Kind.MODEL, Kind.TEXT, Kind.WORD, Kind.YES) else "n"


def _term(name: str, said: Node) -> tuple[Element, Element]:
    return element("dt", {}, name), element("dd", {}, said)


def _paragraph(text: str, name: str | None = None) -> Element:
    return element("p", {"class": name}, text)
