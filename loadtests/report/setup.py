"""The last sections of a report: how figures are worked out, what was set up, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from gateway.markup import Element, Node, element
from loadtests.cells import Calibration, EngineSeen, Run, SearchSeen
from loadtests.report.columns import COLUMNS
from loadtests.report.figure_words import level_words, number, seconds, share
from loadtests.report.formulas import FORMULAS
from loadtests.report.tables import Foreign, Missing, Number, Row, Shown
from loadtests.report.terms import ENDINGS, PROVENANCE, STATES, WHY_NOT
from loadtests.report.view import View, paragraph, term
from loadtests.report.words import IDENTITY


def formulas(view: View) -> Iterator[Node]:
    terms = (
        part
        for one in FORMULAS
        for part in term(
            view.say(one.name), element("code", {"class": "formula", "lang": "en"}, one.formula), view.say(one.words)
        )
    )
    yield element("dl", {}, *terms)


# --- configuration ------------------------------------------------------------------------------------------


def configuration(view: View) -> Iterator[Node]:
    for run in view.runs:
        depth = "h3"
        if view.is_comparison:
            yield element("h3", {}, view.label(run))
            depth = "h4"
        yield element("dl", {}, *(part for name, node in _identity(view, run) for part in term(name, node)))
        yield element(depth, {}, view.word("engines"))
        yield from _engines(view, run)
        yield element(depth, {}, view.word("calibration"))
        yield paragraph(_calibrated(view, run.calibration))
        if run.searches:
            yield element(depth, {}, view.word("searches"))
            yield from _searches(view, run)


def _identity(view: View, run: Run) -> Iterator[tuple[str, Node]]:
    for name in ("id", "name", "model"):
        yield view.say(IDENTITY[name]), getattr(run, name)
    yield view.say(IDENTITY["gpu"]), gpu_words(view, run)
    yield view.say(IDENTITY["state"]), state_words(view, run)
    yield view.say(IDENTITY["provenance"]), provenance_word(view, run.provenance)
    yield view.say(IDENTITY["began_at"]), run.began_at
    yield view.say(IDENTITY["ended_at"]), run.ended_at or f"– ({view.say(WHY_NOT['not_ended'])})"
    yield view.say(IDENTITY["seed"]), str(run.seed)
    for name in ("workload_sha256", "plan_sha256"):
        yield view.say(IDENTITY[name]), element("code", {}, getattr(run, name))
    yield view.say(IDENTITY["versions"]), _pairs(run.versions) or "–"
    yield view.say(IDENTITY["gateway"]), _pairs(run.gateway) or view.word("no_gateway")


def _pairs(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items())


def gpu_words(view: View, run: Run) -> str:
    if run.gpu is None:
        return f"{view.word('unknown_gpu')}{'' if run.gpus is None else f' ×{run.gpus}'}"
    return run.gpu if run.gpus is None else f"{run.gpu} ×{run.gpus}"


def state_words(view: View, run: Run) -> str:
    return view.say(STATES[run.state]) if run.state in STATES else run.state


def provenance_word(view: View, provenance: str) -> str:
    return view.say(PROVENANCE[provenance]) if provenance in PROVENANCE else provenance


def _engines(view: View, run: Run) -> Iterator[Node]:
    if not run.engines:
        yield paragraph(view.word("no_engines"))
        return
    numbers = ("max_model_len", "restarts")
    heads = view.heads("replica", "gpu", "provenance", "version", *numbers, numbers=numbers)
    yield from view.table(
        heads, (_engine(view, one) for one in run.engines), f"{view.word('engines')}: {view.label(run)}"
    )
    for one in run.engines:
        yield _resolved(view, one)


def _engine(view: View, one: EngineSeen) -> Row:
    return [
        one.replica,
        Missing("gpu_unknown") if one.gpu is None else f"{one.gpu} ×{one.gpus}",
        provenance_word(view, one.provenance),
        Missing("not_said") if one.version is None else one.version,
        Missing("not_said") if one.max_model_len is None else Number(f"{one.max_model_len:,}"),
        Number(str(one.restarts)),
    ]


def _resolved(view: View, one: EngineSeen) -> Element:
    """What an engine says that it runs with: dozens of pairs, which no column has room for."""
    heading = f"{view.say(COLUMNS['resolved'])}: {one.replica}"
    if not one.resolved:
        return paragraph(f"{heading}: – ({view.say(WHY_NOT['not_said'])})", "note")
    pairs = "; ".join(f"{name}={value}" for name, value in one.resolved.items())
    return element("details", {}, element("summary", {}, heading), paragraph(pairs, "note", lang="en"))


def _calibrated(view: View, found: Calibration | None) -> str:
    if found is None:
        return view.word("not_calibrated")
    needed = found.needed_events_per_s
    unknown = f"– ({view.say(WHY_NOT['need_unknown'])})"
    said = view.word(
        "calibration_said",
        events=number(found.events_per_s),
        lag=seconds(found.lag_p99_s, view.language),
        error=seconds(found.ttft_error_p99_s, view.language),
        cpu=share(found.cpu_share, 0),
        needed=unknown if needed is None else view.word("per_second", n=number(needed)),
        passed=view.word("passed" if found.passed else "not_passed"),
    )
    return said if found.of_run is None else f"{said} {view.word('calibrated_by', run=found.of_run)}"


def _searches(view: View, run: Run) -> Iterator[Element]:
    names = ("search", "door", "highest_met", "lowest_failed", "ended_as", "why", "tried")
    yield from view.table(
        view.heads(*names), (_search(view, one) for one in run.searches), f"{view.word('searches')}: {view.label(run)}"
    )


def _search(view: View, one: SearchSeen) -> Row:
    return [
        one.id,
        view.door(one.door),
        _level(view, one, one.highest_met, "none_met"),
        _level(view, one, one.lowest_failed, "none_failed"),
        view.say(ENDINGS[one.ended]) if one.ended in ENDINGS else one.ended,
        Foreign(one.why or ""),
        ", ".join(one.tried),
    ]


def _level(view: View, one: SearchSeen, level: float | None, why: str) -> Shown:
    return Missing(why) if level is None else level_words(one.over, level, view.language)


# --- doing it again -----------------------------------------------------------------------------------------


def reproduce(view: View) -> Iterator[Node]:
    for run in view.runs:
        if view.is_comparison:
            yield element("h3", {}, view.label(run))
        identity = shlex.quote(run.id)
        commands = (
            "simsa loadtest run plan.yaml",
            f"simsa loadtest report {identity}",
            f"simsa loadtest diff {identity} NEW_RUN",
        )
        yield element("pre", {}, element("code", {}, "\n".join(commands)))
        yield paragraph(view.word("save_as", sha=run.plan_sha256), "facts")
        yield element("pre", {}, element("code", {}, run.plan))
