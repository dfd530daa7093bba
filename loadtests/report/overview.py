"""The first sections of a report: conclusions, which cells may be believed, and the answer to each claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from gateway.markup import Node, element
from loadtests.cells import CellSeen, Check, Run, Verdict
from loadtests.readings import cells_in_words, rests_on_invalid
from loadtests.report.conclusions import check_name, conclusions, verdict_words
from loadtests.report.figure_words import share
from loadtests.report.sentences import TOPICS
from loadtests.report.tables import Foreign, Head, Invalid, Missing, Number, Row, Shown, Sign, Words
from loadtests.report.terms import VERDICTS, WHY_NOT
from loadtests.report.view import View, paragraph

_GOOD, _BAD = ("holds", "plausible (simulated)"), ("refuted (measured)", "refuted (arithmetic)", "not met (simulated)")


def told(view: View) -> Iterator[Node]:
    for topic, said in groupby(conclusions(view.runs, view.language), key=lambda one: one.topic):
        yield element("h3", {"class": "topic"}, view.say(TOPICS[topic]))
        items = (element("li", {"class": "caution" if one.is_caution else None}, one.text) for one in said)
        yield element("ul", {"class": "said"}, *items)


# --- validity -----------------------------------------------------------------------------------------------


def validity(view: View) -> Iterator[Node]:
    for run in view.runs:
        if view.is_comparison:
            yield element("h3", {}, view.label(run))
        if not run.cells:
            yield paragraph(view.word("nothing_to_draw"))
            continue
        heads = view.heads("cell", "door", "load", "validity", "why")
        yield from view.table(
            heads, (_validity_row(view, cell) for cell in run.cells), view.caption("validity", view.label(run))
        )
        heads = view.heads("cell", "door", "repeat", "check", "outcome", "limit", "seen")
        rows = (row for cell in run.cells for row in _check_rows(view, cell))
        yield view.behind(
            heads,
            rows,
            f"{view.word('every_check')}: {view.label(run)}",
            summary=view.word("every_check"),
            is_long=True,
        )


def _validity_row(view: View, cell: CellSeen) -> Row:
    sign = Sign(view.word("valid" if cell.is_valid else "invalid"), cell.is_valid)
    return [cell.id, view.door(cell.door), view.load(cell), sign, *_why(view, cell)]


def _why(view: View, cell: CellSeen) -> list[Shown]:
    """The checks that failed; of a valid cell those that could not be looked at."""
    if not cell.is_valid:
        return [Invalid(view.invalid(cell).text)]
    unseen = dict.fromkeys(check.name for check in _checks(cell) if check.passed is None)
    names = ", ".join(check_name(name, view.language) for name in unseen)
    return [f"{view.word('not_looked_at')}: {names}" if names else ""]


def _checks(cell: CellSeen) -> Iterator[Check]:
    yield from cell.checks
    for repeat in cell.repeats:
        yield from repeat.checks


def _check_rows(view: View, cell: CellSeen) -> Iterator[Row]:
    for check in cell.checks:
        yield _check_row(view, cell, view.word("all_repeats"), check)
    for repeat in cell.repeats:
        for check in repeat.checks:
            yield _check_row(view, cell, str(repeat.number), check)


def _check_row(view: View, cell: CellSeen, repeat: str, check: Check) -> Row:
    outcome: Shown = view.word("not_looked_at")
    if check.passed is not None:
        outcome = Sign(view.word("passed" if check.passed else "not_passed"), check.passed)
    name = check_name(check.name, view.language)
    return [cell.id, view.door(cell.door), repeat, name, outcome, Foreign(check.limit), Foreign(check.seen)]


# --- claims -------------------------------------------------------------------------------------------------


def verdicts(view: View) -> Iterator[Node]:
    yield from _side_by_side(view)
    names = ("claim", "verdict", "margin", "reasons", "left_open")
    for run in view.runs:
        if not run.verdicts:
            continue
        if view.is_comparison:
            yield element("h3", {}, view.label(run))
        rows = (_verdict_row(view, run, one) for one in run.verdicts)
        yield from view.table(view.heads(*names, numbers=["margin"]), rows, view.caption("verdicts", view.label(run)))


def _side_by_side(view: View) -> Iterator[Node]:
    """What is claimed of several candidates, a line a claim, with the verdict on each."""
    found = {(one.claim, run.id): (run, one) for run in view.runs for one in run.verdicts}
    claims = list(dict.fromkeys(claim for claim, _ in found))
    if len(claims) == len(found):
        return  # no claim is made of two
    heads = [*view.heads("claim"), *(Head(view.label(run)) for run in view.runs)]
    yield element("h3", {}, view.word("side_by_side"))
    yield from view.table(
        heads, (_claim_row(view, claim, found) for claim in claims), view.caption("verdicts", view.word("side_by_side"))
    )


def _claim_row(view: View, claim: str, found: Mapping[tuple[str, str], tuple[Run, Verdict]]) -> Row:
    texts = (one.text for (name, _), (_, one) in found.items() if name == claim)
    told = (found.get((claim, run.id)) for run in view.runs)
    return [
        Words([next(texts)], below=claim),
        *(Missing("not_claimed") if pair is None else _short_verdict(view, *pair) for pair in told),
    ]


def _short_verdict(view: View, run: Run, one: Verdict) -> Shown:
    if rests_on_invalid(run, one):
        return Sign(view.word("invalid"), is_good=False)
    words = verdict_words(one.verdict, view.language)
    if one.verdict not in (*_GOOD, *_BAD):
        return words if one.verdict in VERDICTS else Foreign(words)
    return Sign(words, one.verdict in _GOOD, below="" if one.margin is None else _margin(one.margin))


def _margin(margin: float) -> str:
    return f"{'+' if margin > 0 else ''}{share(margin)}"


def _verdict_row(view: View, run: Run, one: Verdict) -> Row:
    cells = cells_in_words(run, one)
    claim = Words([one.text], below=f"{one.claim}: {cells}" if cells else one.claim)
    if rests_on_invalid(run, one):
        return [claim, Invalid(view.word("invalid_why", why=_rests(view, run, one)))]
    margin: Shown = Missing("no_margin")
    if one.margin is not None:
        margin = Number(_margin(one.margin))
    return [
        claim,
        _verdict(view, one),
        margin,
        Words(_reasons(one), language="en"),
        Words(one.left_open, language="en"),
    ]


def _rests(view: View, run: Run, one: Verdict) -> str:
    return f"{view.say(WHY_NOT['rests_on_invalid'])} ({cells_in_words(run, one)})"


def _verdict(view: View, one: Verdict) -> Shown:
    words = verdict_words(one.verdict, view.language)
    if one.verdict in _GOOD:
        return Sign(words, is_good=True)
    if one.verdict in _BAD:
        return Sign(words, is_good=False)
    return words if one.verdict in VERDICTS else Foreign(words)


def _reasons(one: Verdict) -> list[str]:
    """Sentences of the arithmetic, which are English; and what exactly holds."""
    return [*one.reasons, *([f"Holds {one.holds_for}."] if one.holds_for else [])]
