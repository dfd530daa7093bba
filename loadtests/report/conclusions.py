"""What a report concludes, as sentences made of the numbers: validity first, then claims, knees with their cost, doors.

When a sentence may be said is decided here; its words are in `sentences`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

from loadtests.cells import CellSeen, DoorShare, Run, SearchSeen, Verdict
from loadtests.readings import cost, failures, is_beyond, knee_cell, objectives, rests_on_invalid
from loadtests.report.figure_words import about, level_words, metric_name, milliseconds, money
from loadtests.report.sentences import SENTENCES, Topic
from loadtests.report.terms import CHECKS, DOORS, PROVENANCE, VERDICTS, Language, say
from loadtests.report.words import WORDS

_NAMED = 5
"""Invalid cells that the conclusions name; the rest are counted."""
_FROM_SUMS = frozenset({"refuted (arithmetic)"})


@dataclass(frozen=True, slots=True)
class Said:
    topic: Topic
    text: str
    is_caution: bool = False


def conclusions(runs: Sequence[Run], language: Language) -> list[Said]:
    """Every sentence, in the order in which it is read."""
    return [*_standing(runs, language), *_claims(runs, language), *_knees(runs, language), *_doors(runs, language)]


def provenances(runs: Sequence[Run]) -> list[str]:
    """What the answers came from where they are not all real, each kind once."""
    return sorted({run.provenance for run in runs} - {"real"})


def provenance_words(runs: Sequence[Run], language: Language) -> str:
    return ", ".join(say(PROVENANCE.get(one, PROVENANCE["unknown"]), language) for one in provenances(runs))


def labels(runs: Sequence[Run]) -> dict[str, str]:
    """What each run is called, by its id: its model where that tells them apart, else name or id with it."""
    for name in (lambda run: run.model, lambda run: f"{run.model} · {run.name}"):
        found = {run.id: name(run) for run in runs}
        if len(set(found.values())) == len(runs):
            return found
    return {run.id: f"{run.model} · {run.id}" for run in runs}


def cell_words(cell: CellSeen, language: Language) -> str:
    return f"{cell.id} ({say(DOORS[cell.door], language)})" if cell.door in DOORS else f"{cell.id} ({cell.door})"


def why_invalid(cell: CellSeen, language: Language, *, most: int | None = None) -> str:
    """The checks that failed, in words with what was found and demanded."""
    found = failures(cell)
    if not found:
        return say(WORDS["never_measured"], language)
    alike: dict[tuple[str, str, str], list[int]] = {}
    for one in found:
        repeats = alike.setdefault((one.check.name, one.check.seen, one.check.limit), [])
        repeats += [] if one.repeat is None else [one.repeat]
    said = [_check_words(*check, repeats, language) for check, repeats in alike.items()]
    return "; ".join(said[:most]) + ("; …" if most is not None and len(said) > most else "")


def _check_words(name: str, seen: str, limit: str, repeats: Sequence[int], language: Language) -> str:
    form = say(WORDS["check_of" if repeats else "check"], language)
    named = ", ".join(map(str, repeats))
    return form.format(name=check_name(name, language), repeats=named, seen=seen, limit=limit)


def check_name(name: str, language: Language) -> str:
    return say(CHECKS[name], language) if name in CHECKS else name


# --- what may be said at all --------------------------------------------------------------------------------


def _standing(runs: Sequence[Run], language: Language) -> Iterator[Said]:
    if provenances(runs):
        yield _caution("not_real", language, provenance=provenance_words(runs, language))
    for state in ("running", "stopped", "failed"):
        if any(run.state == state for run in runs):
            yield _caution(state, language)
    yield from _validity(runs, language)
    if len({run.workload_sha256 for run in runs}) > 1:
        yield _caution("different_work", language)
    elif _objectives_differ(runs):
        yield _caution("different_objectives", language)
    for run in runs:
        for note in run.notes:
            yield _caution("note", language, text=f"{labels(runs)[run.id]}: {note}" if len(runs) > 1 else note)


def _validity(runs: Sequence[Run], language: Language) -> Iterator[Said]:
    cells = [(run, cell) for run in runs for cell in run.cells]
    invalid = [(run, cell) for run, cell in cells if not cell.is_valid]
    if not cells:
        yield _caution("no_cells", language)
    elif not invalid:
        name = "one_valid" if len(cells) == 1 else "all_valid"
        yield Said(Topic.STANDING, say(SENTENCES[name], language).format(cells=len(cells)))
    else:
        name = "one_invalid" if len(invalid) == 1 else "some_invalid"
        yield _caution(name, language, cells=len(cells), invalid=len(invalid))
    for run, cell in invalid[:_NAMED]:
        named = cell_words(cell, language)
        named = f"{labels(runs)[run.id]}, {named}" if len(runs) > 1 else named
        yield _caution("invalid_cell", language, cell=named, why=why_invalid(cell, language, most=2))
    if len(invalid) > _NAMED:
        yield _caution("more_invalid", language, n=len(invalid) - _NAMED)


def _caution(name: str, language: Language, **values: object) -> Said:
    return Said(Topic.STANDING, say(SENTENCES[name], language).format(**values), is_caution=True)


def _objectives_differ(runs: Sequence[Run]) -> bool:
    found = {
        frozenset((one.metric, one.statistic, one.limit, one.attainment_percent) for one in objectives(run))
        for run in runs
    }
    return len(found) > 1


# --- claims -------------------------------------------------------------------------------------------------


def _claims(runs: Sequence[Run], language: Language) -> Iterator[Said]:
    found = [(run, one) for run in runs for one in run.verdicts]
    if not found:
        yield Said(Topic.CLAIMS, say(SENTENCES["no_claims"], language))
    order = list(VERDICTS)
    found.sort(key=lambda pair: order.index(pair[1].verdict) if pair[1].verdict in order else len(order))
    for run, one in found:
        is_none = rests_on_invalid(run, one)
        sentence = say(SENTENCES["claim_invalid" if is_none else "claim"], language).format(
            who=f"{labels(runs)[run.id]} · " if len(runs) > 1 else "",
            verdict=verdict_words(one.verdict, language),
            text=one.text,
            margin=_margin(one, language),
        )
        yield Said(Topic.CLAIMS, sentence, is_caution=is_none)


def verdict_words(verdict: str, language: Language) -> str:
    return say(VERDICTS[verdict], language) if verdict in VERDICTS else verdict


def _margin(one: Verdict, language: Language) -> str:
    if one.margin is None:
        return ""
    kind = "margin_sum" if one.verdict in _FROM_SUMS else "margin"
    shown = about(abs(one.margin))
    if shown == about(0):
        return say(SENTENCES["margin_none"], language) if one.margin == 0 else ""
    return say(SENTENCES[f"{kind}_{'above' if one.margin > 0 else 'below'}"], language).format(share=shown)


# --- knees --------------------------------------------------------------------------------------------------


def _knees(runs: Sequence[Run], language: Language) -> Iterator[Said]:
    searches = [(run, search) for run in runs for search in run.searches]
    if not searches:
        yield Said(Topic.KNEE, say(SENTENCES["no_search"], language))
    for run, search in searches:
        is_known = search.ended in ("found", "at_most")
        told = (_knee(search, language), _cost_at_knee(run, search, language) if is_known else None)
        who = f"{search.id} ({say(DOORS[search.door], language) if search.door in DOORS else search.door})"
        who = f"{labels(runs)[run.id]}, {who}" if len(runs) > 1 else who
        yield Said(Topic.KNEE, f"{who}: {' '.join(filter(None, told))}", search.ended in ("invalid", "stopped"))
    if len({run.workload_sha256 for run in runs}) == 1 and not _objectives_differ(runs):
        yield from _compared(runs, language)


def _knee(search: SearchSeen, language: Language) -> str:
    name = "stopped_search" if search.ended == "stopped" else search.ended
    bounds = {"highest": search.highest_met, "lowest": search.lowest_failed}
    needed = {"found": ("highest", "lowest"), "at_most": ("highest",), "below_begin": ("lowest",)}.get(search.ended, ())
    if name == "below_begin" and search.lowest_failed is None:
        return say(SENTENCES["below_begin_unsaid"], language)
    if name not in SENTENCES or any(bounds[one] is None for one in needed):
        return search.why or search.ended
    shown = {
        key: level_words(search.over, value, language)
        for key, value in bounds.items()
        if key in needed and value is not None
    }
    return say(SENTENCES[name], language).format(**shown)


def _cost_at_knee(run: Run, search: SearchSeen, language: Language) -> str | None:
    cell = knee_cell(run, search)
    if cell is None:
        return None
    found = cost(cell)
    if found is None or found.low is None or found.high is None:
        return say(SENTENCES["no_cost"], language)
    shown = {"cost": money(found.value), "low": money(found.low), "high": money(found.high), "n": len(cell.repeats)}
    name = "cost" if len(cell.repeats) > 1 else "cost_once"
    return say(SENTENCES[name], language).format(**shown, currency=cell.repeats[0].currency or "")


def _compared(runs: Sequence[Run], language: Language) -> Iterator[Said]:
    """Which candidates' knees may be told apart: those whose ranges do not overlap."""
    named = labels(runs)
    for one, other in combinations(runs, 2):
        for first, second in _same_search(one, other):
            if is_beyond(first, second):
                yield _pair("beyond", named[one.id], named[other.id], language)
            elif is_beyond(second, first):
                yield _pair("beyond", named[other.id], named[one.id], language)
            elif first.ended in ("found", "at_most") and second.ended in ("found", "at_most"):
                yield _pair("not_beyond", named[one.id], named[other.id], language)


def _same_search(one: Run, other: Run) -> Iterator[tuple[SearchSeen, SearchSeen]]:
    for first in one.searches:
        for second in other.searches:
            if (first.id, first.door, first.over) == (second.id, second.door, second.over):
                yield first, second


def _pair(name: str, first: str, second: str, language: Language) -> Said:
    return Said(Topic.KNEE, say(SENTENCES[name], language).format(first=first, second=second))


# --- doors --------------------------------------------------------------------------------------------------


def door_is_valid(run: Run, cell_id: str) -> bool:
    """Whether the cell is valid through every door that it was sent through."""
    cells = [cell for cell in run.cells if cell.id == cell_id]
    return bool(cells) and all(cell.is_valid for cell in cells)


def _doors(runs: Sequence[Run], language: Language) -> Iterator[Said]:
    for run in runs:
        valid = [one for one in run.doors if door_is_valid(run, one.cell)]
        for (cell, pairs), shares in groupby(valid, key=lambda one: (one.cell, one.pairs)):
            figures = ", ".join(_added(one, language) for one in shares)
            text = say(SENTENCES["adds"], language).format(cell=cell, pairs=pairs, figures=figures)
            yield Said(Topic.DOORS, f"{labels(runs)[run.id]}: {text}" if len(runs) > 1 else text)


def _added(one: DoorShare, language: Language) -> str:
    shown = {"metric": metric_name(one.metric, language), "added": f"{milliseconds(one.added_s)} ms"}
    if one.added_low_s is None or one.added_high_s is None:
        return say(SENTENCES["adds_plain"], language).format(**shown)
    name = "adds_nothing" if one.added_low_s <= 0 <= one.added_high_s else "adds_bounded"
    ends = {"low": milliseconds(one.added_low_s), "high": milliseconds(one.added_high_s)}
    return say(SENTENCES[name], language).format(**shown, **ends)
