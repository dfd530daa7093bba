"""What each section of a report shows: a drawing, the table behind it, and the few words that both need.

A section that has nothing to show yields nothing, and is left out. The page around them is `page`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from gateway.markup import Node, element
from gateway.rounds.conclusions import Json, conclusions, model_order, primary_estimate
from gateway.rounds.figure_words import MINUS, number_words, percent, rank_words, share_words
from gateway.rounds.report.charts import Axis, Cell, Mark, Row, dot_whiskers, heat_table, key, rank_ranges
from gateway.rounds.report.glossary import GLOSSARY
from gateway.rounds.report.view import View, paragraph, term

_HALF = 0.5


def told(view: View) -> Iterator[Node]:
    for topic, said in groupby(conclusions(view.result, language=view.language), key=lambda one: one.topic):
        yield element("h3", {"class": "topic"}, view.words.topics[topic])
        items = (element("li", {"class": "caution" if one.is_caution else None}, one.text) for one in said)
        yield element("ul", {"class": "said"}, *items)


def standing(view: View) -> Iterator[Node]:
    found = primary_estimate(view.analysis)
    if not found["is_comparable"]:
        yield paragraph(view.words.not_comparable)
        return
    line = found.get("line")
    rows = [view.row(one["model"], [(one["win_rate"], one["win_rate_interval"], False)]) for one in found["models"]]
    yield element(
        "figure",
        {},
        dot_whiskers(
            rows,
            _share_axis(_ends(rows)),
            label=view.words.sections["standing"].label,
            cut_after=line["keep"] if line is not None else None,
            cut=view.words.cut.format(keep=line["keep"]) if line is not None else "",
        ),
    )
    yield view.table("standing")


def ranks(view: View) -> Iterator[Node]:
    found = primary_estimate(view.analysis)
    if not found["is_comparable"] or found["degrees"] is None:
        return
    rows = [
        (
            view.name(one["model"]),
            one["best_rank"],
            one["worst_rank"],
            view.words.rank.format(rank=rank_words(one["best_rank"], one["worst_rank"])),
        )
        for one in found["models"]
    ]
    yield element("figure", {}, rank_ranges(rows, len(rows), label=view.words.sections["ranks"].label))


def line(view: View) -> Iterator[Node]:
    if primary_estimate(view.analysis).get("line") is None:
        return
    rows = list(_removals(view))
    if rows:
        steps = range(max(1, -int(-10 * max(_ends(rows)) // 1)) + 1)
        axis = Axis(0, steps[-1] / 10, tuple((step / 10, percent(step / 10)) for step in steps))
        yield view.figure("line", rows, axis)
    yield view.table("line")


def _removals(view: View) -> Iterator[Row]:
    """How much may be taken away before the line moves, of votes and of reviewers."""
    found = view.analysis["fragility"]
    everybody = {"votes": found["n"], "reviewers": view.analysis["overall"].get("reviewers", 0)} if found else {}
    for noun, n in everybody.items():
        removal = found[noun]
        if removal is not None:
            share = removal["share"]
            count = view.words.removed.format(count=f"{removal['at_most']:,}", n=f"{n:,}")
            left, entered = view.name(removal["left"]), view.name(removal["entered"])
            moved = view.words.moved.format(left=left, entered=entered)
            yield Row(view.words.fragility[noun], (Mark(share, (0.0, share)),), share_words(share), count, moved)


def pairs(view: View) -> Iterator[Node]:
    found = {(one["first"], one["second"]): one for one in view.analysis["pairs"]}
    if not found:
        return
    order = list(dict.fromkeys(code for pair in found for code in pair))
    rows = [(view.name(row), [_met(view, found, row, column) for column in order]) for row in order]
    caption = view.words.sections["pairs"].label
    yield element("figure", {}, heat_table([view.name(code) for code in order], rows, caption=caption))
    yield view.table("pairs")


def _met(view: View, pairs: Mapping[tuple[str, str], Json], row: str, column: str) -> Cell:
    one = pairs.get((row, column)) or pairs.get((column, row))
    if one is None or not one["n"]:
        return Cell(None, "" if row == column else "–")
    share = one["points_of_first"] / one["n"]
    share = share if one["first"] == row else 1 - share
    return Cell(share, percent(share), view.words.met.format(n=one["n"]))


def acceptability(view: View) -> Iterator[Node]:
    found = view.analysis["acceptability"]
    if not found["is_comparable"]:
        yield paragraph(view.words.not_comparable)
        return
    rows = [view.row(one["model"], [(one["acceptable"], one["acceptable_interval"], False)]) for one in found["models"]]
    yield view.figure("acceptability", rows, _share_axis(_ends(rows)))
    yield view.table("acceptability")


def style(view: View) -> Iterator[Node]:
    raw, found = view.analysis["overall"], view.analysis["style_controlled"]
    if not raw["is_comparable"] or not found["is_comparable"]:
        yield paragraph(view.words.not_comparable)
        return
    after = {one["model"]: one for one in found["models"]}
    rows = []
    for one in raw["models"]:
        other = after[one["model"]]
        marks = [(one["win_rate"], one["win_rate_interval"], False)]
        marks.append((other["win_rate"], other["win_rate_interval"], True))
        rows.append(view.row(one["model"], marks))
    yield key([(False, view.words.raw), (True, view.words.controlled)])
    yield view.figure("style", rows, _share_axis(_ends(rows)))
    if found["without_style"]:
        yield paragraph(view.words.style_without.format(n=f"{found['without_style']:,}"), "note")
    yield view.table("style")
    yield from _effects(view, found)


def _effects(view: View, found: Json) -> Iterator[Node]:
    rows = [
        Row(
            view.code(name),
            (Mark(effect["coefficient"], effect["interval"]),),
            number_words(effect["coefficient"]),
            view.span(effect["interval"]),
        )
        for name, effect in found["effects"].items()
    ]
    if rows:
        words = view.words.sections["effects"]
        yield element("h3", {}, words.heading)
        yield paragraph(words.lead, "note")
        yield view.figure("effects", rows, _number_axis(_ends(rows)))
        yield view.table("effects")


def position(view: View) -> Iterator[Node]:
    found = view.analysis["position"]
    if not found["is_comparable"]:
        return
    share, span = found["share_for_a"], found["share_interval"]
    row = Row("A", (Mark(share, span),), percent(share, 1), view.span(span, is_share=True))
    yield view.figure("position", [row], _share_axis(_ends([row])))
    yield paragraph(view.words.position_counts.format(change=f"{found['largest_change']:.2g}"), "note")
    yield view.table("position")


def criteria(view: View) -> Iterator[Node]:
    found = {name: one for name, one in view.analysis["criteria"].items() if one["is_comparable"]}
    order = model_order(view.analysis)
    panels, every = [], []
    for name, estimate in found.items():
        of = {one["model"]: one for one in estimate["models"]}
        rows = [view.row(code, [(of[code]["win_rate"], of[code]["win_rate_interval"], False)]) for code in order]
        panels.append((view.code(name), estimate["n"], rows))
        every.extend(rows)
    if not panels:
        return
    axis = _share_axis(_ends(every))
    drawn = (
        element(
            "div",
            {},
            element("h3", {}, f"{title} ", element("span", {"class": "note"}, view.words.met.format(n=f"{n:,}"))),
            dot_whiskers([_bare(row) for row in rows], axis, label=title),
        )
        for title, n, rows in panels
    )
    yield element("figure", {"class": "panels"}, *drawn)
    yield view.table("criteria")


def industries(view: View) -> Iterator[Node]:
    found = {name: one for name, one in view.analysis["industries"].items() if one["is_comparable"]}
    if not found:
        return
    order = model_order(view.analysis)
    cells = {name: {one["model"]: one for one in estimate["models"]} for name, estimate in found.items()}
    heads = [f"{name} ({view.words.met.format(n=estimate['n'])})" for name, estimate in found.items()]
    rows = [(view.name(code), [_slice(view, cells[name][code]) for name in found]) for code in order]
    caption = view.words.sections["industries"].label
    yield element("figure", {}, heat_table(heads, rows, caption=caption))
    yield view.table("industries")


def _slice(view: View, one: Json) -> Cell:
    return Cell(one["win_rate"], percent(one["win_rate"]), view.span(one["win_rate_interval"], is_share=True))


def agreement(view: View) -> Iterator[Node]:
    found = view.analysis["agreement"]
    figures = {
        "alpha": found["alpha"],
        **{f"alpha:{name}": figure for name, figure in found["alpha_by_criterion"].items()},
        "kappa": found["kappa"],
    }
    rows = [view.figure_row(view.code(name), figure) for name, figure in figures.items() if _is_known(figure)]
    if rows:
        axis = Axis(-0.2, 1, ((0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1, "1")), middle=0)
        yield view.figure("agreement", rows, axis)
        yield paragraph(view.words.agreement_bounds, "note")
    shares = {
        "consistent": found["consistent"],
        "reversed": found["reversed"],
        "attention": view.analysis["attention"],
    }
    rows = [
        view.figure_row(view.code(name), figure, is_share=True) for name, figure in shares.items() if _is_known(figure)
    ]
    if rows:
        yield element("h3", {}, view.words.sections["shares"].heading)
        ticks = tuple((tick / 4, percent(tick / 4)) for tick in range(5))
        yield view.figure("shares", rows, Axis(0, 1, ticks))
    yield view.table("agreement")


def blinding(view: View) -> Iterator[Node]:
    found = view.analysis["blinding"]
    james = found["james"]
    if james["value"] is None:
        yield paragraph(view.words.nobody)
        return
    ticks = tuple((tick / 4, f"{tick / 4:g}") for tick in range(5))
    whole = view.figure_row(view.words.james, james)
    yield view.figure("blinding", [whole], Axis(0, 1, ticks, middle=_HALF))
    yield paragraph(view.words.blinding_bounds, "note")
    known = [code for code in model_order(view.analysis) if _is_known(found["bang"][code])]
    rows = [view.figure_row(view.name(code), found["bang"][code]) for code in known]
    if rows:
        low = min([-0.25, *(end for end in _ends(rows))])
        high = max([0.5, *_ends(rows)])
        yield view.figure("blinding", rows, _number_axis((low, high)))
    yield view.table("blinding")


def reliability(view: View) -> Iterator[Node]:
    yield view.table("reliability", is_open=True)


def places(view: View) -> Iterator[Node]:
    yield view.table("places", is_open=True)
    words = view.words.sections["exclusions"]
    yield element("h3", {}, words.heading)
    yield paragraph(words.lead, "note")
    if view.analysis["ballots"]["excluded"]:
        yield view.table("exclusions", is_open=True)
    else:
        yield paragraph(view.words.nobody)


def design(view: View) -> Iterator[Node]:
    yield view.table("design", is_open=True)


def verify(view: View) -> Iterator[Node]:
    of = view.result["round"]
    command = f"simsa round verify BUNDLE.zip --root {of['root']} --head {of['head']}"
    first, second, third = view.words.verify
    yield element(
        "ol",
        {},
        element("li", {}, first),
        element("li", {}, second, element("pre", {}, element("code", {}, command))),
        element("li", {}, third),
    )
    terms = [
        *term(view.words.root, element("code", {}, of["root"] or view.words.none_yet)),
        *term(view.words.head, element("code", {}, of["head"] or view.words.none_yet)),
    ]
    yield element("dl", {}, *terms)
    yield from _notices(view)


def _notices(view: View) -> Iterator[Node]:
    """What licences demand to be said wherever a model is named."""
    names = view.result["names"] or {}
    found = {code: one["licence_notice"] for code, one in names.items() if one["licence_notice"]}
    if found:
        yield element("h3", {}, view.words.notices)
        yield element("dl", {}, *(part for code, said in found.items() for part in term(view.name(code), said)))


def glossary(view: View) -> Iterator[Node]:
    yield element("dl", {}, *(part for name, said in GLOSSARY[view.language] for part in term(name, said)))


# --- small parts -------------------------------------------------------------------------------------------


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


SECTIONS: Mapping[str, Callable[[View], Iterator[Node]]] = {
    "conclusions": told,
    "standing": standing,
    "ranks": ranks,
    "line": line,
    "pairs": pairs,
    "acceptability": acceptability,
    "style": style,
    "position": position,
    "criteria": criteria,
    "industries": industries,
    "agreement": agreement,
    "blinding": blinding,
    "reliability": reliability,
    "places": places,
    "design": design,
    "verify": verify,
    "glossary": glossary,
}
"""By name, in the order of the page."""
