"""A closed round as one file that anybody can verify: the audit bundle, and the public one without persons, with no
words but those that were cleared.

Both hold the same outlines, so the same roots; they differ in what is opened. Names of models are opened by the reveal
and not before. Whether a bundle holds belongs in `verify`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
import scipy

from gateway import __version__
from gateway.domain.canonical_json import canonical_json, read_canonical
from gateway.domain.personal_data import personal_data_in
from gateway.domain.rounds import AFTER_REVEAL, Round
from gateway.domain.withheld import Veiled, joined
from gateway.rounds.archive import pack, with_manifest
from gateway.rounds.chain import FREE_TEXT, veiled_entry
from gateway.rounds.closing import (
    ACCESSES,
    ANSWERS,
    EXCLUSIONS,
    KEEPABLE,
    MOMENTS,
    REVIEWERS,
    access_document,
    answer_documents,
    exclusion_document,
    moment,
    read_text,
    reviewer_document,
    veil,
)
from gateway.rounds.contents import RoundContent
from gateway.rounds.sealed import MAPPING, PARTS
from gateway.rounds.sheets import design_sheet, votes_sheet

FORMAT = "simsa-round-2"
VOTES = "votes"
ABOUT, LOCK, ANALYSIS, FINDINGS = "round.json", "analysis.lock", "analysis.json", "personal_data.json"
LANGUAGES = ("ko", "en")
BEFORE_REVEAL = ("shown",)
"""Fields of an answer that do not tell whose it is; the others may name a model, or give it away by its price, its
speed, or by how many tokens its own tokenizer makes of the same words."""
AFTER_CLOSING_FIELDS = ("trained_at", "revoked_at", "questionnaire")
"""Fields of a reviewer that may change after the closing; no published root covers what they became."""
Line = dict[str, Any]
"""outline, and opened where anything is; of votes sequence, payload, previous, hash, and opened."""
Analyse = Callable[
    [Mapping[str, Any], Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]],
     Sequence[Mapping[str, Any]]],
    dict[str, Any],
]  # fmt: skip
"""The analysis from the sealed parts, votes, exclusions, reviewers and answers, as JSON."""
Report = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any], str], str]
"""A page of HTML from round.json, the analysis, the parts that are opened, and a language."""


class BundleKind(StrEnum):
    AUDIT = "audit"
    """Everything but labels of reviewers."""
    PUBLIC = "public"
    """No questionnaires, conflicts or names of who ran the round; of reasons and comments those that were cleared."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a bundle is made with besides its content; without either, the bundle has no such file."""

    analyse: Analyse | None = None
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    data: bytes
    """The archive."""
    root: str
    findings: Sequence[Mapping[str, Any]]
    """Personal data that was found before publishing, masked, and what was done about it."""


@dataclass(slots=True)
class _Opening:
    """Which fields are opened, and what of them had to stay closed."""

    kind: BundleKind
    is_revealed: bool
    cleared: Collection[int] = ()
    """Numbers of entries whose free words may be published."""
    findings: list[dict[str, Any]] = field(default_factory=list)

    def names(self, record: str) -> tuple[str, ...]:
        if record == ANSWERS:
            return KEEPABLE[ANSWERS] if self.is_revealed else BEFORE_REVEAL
        if record == EXCLUSIONS and self.kind is BundleKind.AUDIT:
            return (*KEEPABLE[record], "at", "subject")
        return KEEPABLE[record] if self.kind is BundleKind.AUDIT else ()

    def line(self, record: str, number: int, veiled: Veiled) -> Line:
        opened = self.opened(f"{record}.jsonl", number, veiled, self.names(record))
        return {"outline": veiled.outline, **({"opened": opened} if opened else {})}

    def opened(self, file: str, number: int, veiled: Veiled, names: Collection[str]) -> dict[str, Any]:
        shown = veiled.shown(names)
        if self.kind is BundleKind.AUDIT:
            return shown
        return {name: one for name, one in shown.items() if not self._has_personal(file, number, name, one["value"])}  # type: ignore[index,call-overload]

    def _has_personal(self, file: str, number: int, name: str, value: Any) -> bool:
        found = list(_personal(value))
        self.findings += [
            {"file": file, "line": number, "field": name, "kind": kind, "masked": masked, "done": "withheld"}
            for kind, masked in found
        ]
        return bool(found)

    def note_parts(self, parts: Mapping[str, Any]) -> None:
        """Sealed parts cannot be shown in pieces: what is found in them is listed, and stays."""
        self.findings += part_findings(parts)


def build_bundle(content: RoundContent, kind: BundleKind, *, tools: Tools | None = None) -> Bundle:
    """The bundle of a closed round; the same content gives the same bytes. It may take seconds: run it in a thread."""
    tools = tools or Tools()
    opening = _Opening(kind, content.round.status in AFTER_REVEAL, {one.number for one in content.clearances})
    parts = {name: content.parts[name] for name in PARTS if name != MAPPING or opening.is_revealed}
    records = _records(content, opening)
    if kind is BundleKind.PUBLIC:
        opening.note_parts(parts)
    about = _about(content, kind, parts)
    files = {
        ABOUT: canonical_json(about),
        **{f"parts/{name}.json": canonical_json(part) for name, part in parts.items()},
        "design.csv": design_sheet(parts["design"]),
        **{f"{name}.jsonl": _lines(lines) for name, lines in records.items()},
        "votes.csv": votes_sheet(parts["items"], criteria_of(parts), whole_votes(records[VOTES])),
        LOCK: canonical_json(_lock(parts)),
        **_results(about, parts, records, tools),
    }
    if kind is BundleKind.PUBLIC:
        files[FINDINGS] = canonical_json(opening.findings)
    whole, root = with_manifest(files)
    return Bundle(pack(whole, stamp_of(content.round)), root, tuple(opening.findings))


def part_findings(parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What looks like personal data in the parts that hold somebody's words."""
    return [
        {"file": f"parts/{name}.json", "line": 1, "field": None, "kind": kind, "masked": masked, "done": "kept"}
        for name in ("plan", "prompts", "practice")
        for kind, masked in _personal(parts[name])
    ]


def votes_table(content: RoundContent) -> bytes:
    """The votes as CSV, without anybody's words."""
    lines = [_vote_line(entry.number, entry, _Opening(BundleKind.PUBLIC, is_revealed=False)) for entry in content.votes]
    return votes_sheet(content.parts["items"], criteria_of(content.parts), whole_votes(lines))


def analysis_of(
    parts: Mapping[str, Any], records: Mapping[str, Sequence[Mapping[str, Any]]], analyse: Analyse
) -> dict[str, Any]:
    """The analysis of what a bundle shows, from its own lines. Raises ValueError for lines that do not fit."""
    answers = [
        {"model": one["model"], "prompt": one["prompt"], "shown": read_text(one.get("shown"))}
        for one in map(whole_record, records[ANSWERS])
    ]
    exclusions = [one for one in map(whole_record, records[EXCLUSIONS]) if "subject" in one]
    reviewers = [whole_record(line) for line in records[REVIEWERS]]
    return analyse(parts, whole_votes(records[VOTES]), exclusions, reviewers, answers)


def whole_record(line: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it was at the closing, with what the bundle opens of it.

    What changed afterwards stands beside it, under no published root: no result is made of that.
    """
    opened = {name: one["value"] for name, one in line.get("opened", {}).items()}
    return {**joined(line["outline"], {}), **opened}


def whole_votes(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries of the chain as documents, with the words that the bundle opens."""
    found = []
    for line in lines:
        opened = {name: one["value"] for name, one in line.get("opened", {}).items()}
        judgement = {**joined(line["payload"]["judgement"], {}), **opened}
        found.append({**line["payload"], "judgement": judgement})
    return found


def criteria_of(parts: Mapping[str, Any]) -> list[str]:
    return [criterion["id"] for criterion in parts["plan"]["rubric"]]


def lock_document(plan: Mapping[str, Any], design: Mapping[str, Any]) -> dict[str, Any]:
    """What fixes the analysis besides the versions of what computes it."""
    return {
        "seed": design["seed_hex"],
        "generator": design["generator"],
        "plan": {name: plan[name] for name in ("kind", "primary", "cut", "rubric")},
    }


def stamp_of(one: Round) -> datetime:
    """The moment that the bundle's files bear."""
    assert one.closed_at is not None, "a bundle is of a closed round"
    return one.revealed_at or one.closed_at


# --- parts of a bundle --------------------------------------------------------------------------------------


def _records(content: RoundContent, opening: _Opening) -> dict[str, list[Line]]:
    """Every kind of record in its lines, numbered from 1."""
    codes, salt = content.codes, content.closing.salt
    answers = answer_documents(content.answers, codes)
    exclusions = [exclusion_document(one) for one in content.exclusions]
    accesses = [access_document(entry) for entry in content.accesses]
    records = {
        name: [opening.line(name, number, one) for number, one in enumerate(veil(name, documents, salt), start=1)]
        for name, documents in ((ANSWERS, answers), (EXCLUSIONS, exclusions), (ACCESSES, accesses))
    }
    for line in records[ACCESSES][content.closing.accesses :]:
        line["after_closing"] = True
    records[REVIEWERS] = _reviewers(content, opening)
    records[VOTES] = [_vote_line(entry.number, entry, opening) for entry in content.votes]
    return records


def _reviewers(content: RoundContent, opening: _Opening) -> list[Line]:
    """Reviewers as they were at the closing, and beside that what became different since."""
    now = {one.id: reviewer_document(one) for one in content.reviewers}
    veiled = veil(REVIEWERS, list(content.closing.people), content.closing.salt)
    lines = []
    for number, (then, one) in enumerate(zip(content.closing.people, veiled, strict=True), start=1):
        line = opening.line(REVIEWERS, number, one)
        secret = () if opening.kind is BundleKind.AUDIT else KEEPABLE[REVIEWERS]
        became = now[then["id"]]
        later = {
            name: became[name] for name in AFTER_CLOSING_FIELDS if became[name] != then[name] and name not in secret
        }
        lines.append({**line, **({"later": later} if later else {})})
    return lines


def _vote_line(number: int, entry: Any, opening: _Opening) -> Line:
    veiled = veiled_entry(entry)
    may_open = opening.kind is BundleKind.AUDIT or number in opening.cleared
    opened = opening.opened("votes.jsonl", number, veiled, FREE_TEXT if may_open else ())
    line = {"sequence": number, "payload": veiled.outline, "previous": entry.previous, "hash": entry.hash}
    return {**line, **({"opened": opened} if opened else {})}


def _results(
    about: Mapping[str, Any], parts: Mapping[str, Any], records: Mapping[str, Sequence[Line]], tools: Tools
) -> dict[str, bytes]:
    """The analysis of what this bundle shows and the reports on it: nothing that its reader cannot make again.

    A public bundle shows no questionnaires, so its report says nothing of whether the blind held.
    """
    if tools.analyse is None:
        return {}
    analysis = analysis_of(parts, records, tools.analyse)
    files = {ANALYSIS: canonical_json(analysis)}
    if tools.report is not None:
        # In the order of fields that a reader finds.
        said, found, opened = (_read_back(one) for one in (about, analysis, parts))
        for language in LANGUAGES:
            files[report_name(language)] = tools.report(said, found, opened, language).encode()
    return files


def _read_back(document: Mapping[str, Any]) -> Any:
    return read_canonical(canonical_json(document))


def report_name(language: str) -> str:
    return f"report.{language}.html"


def _about(content: RoundContent, kind: BundleKind, parts: Mapping[str, Any]) -> dict[str, Any]:
    one = content.round
    return {
        "format": FORMAT,
        "bundle": kind.value,
        "id": one.id,
        "name": one.name,
        "title": one.plan.title.document(),
        "kind": one.plan.kind.value,
        "is_revealed": one.status in AFTER_REVEAL,
        "provenance": one.provenance,
        "moments": {name: moment(getattr(one, name)) for name in (*MOMENTS, "revealed_at")},
        "retention_until": one.plan.retention_until.isoformat() if one.plan.retention_until is not None else None,
        **_given(content, kind),
        "root": one.root,
        "head": one.head,
        "votes": one.votes,
        "commitments": dict(content.commitments),
        "salts": {name: content.salts[name] for name in parts},
        "closing": dict(content.closing.published),
    }


def _given(content: RoundContent, kind: BundleKind) -> dict[str, list[dict[str, Any]]]:
    """Who opened the names, once they are open, and who cleared which comments; in a public bundle without persons."""
    opened = content.approvals if content.round.status in AFTER_REVEAL else ()
    given: dict[str, list[dict[str, Any]]] = {
        "approvals": [{"who": one.who, "role": one.role, "at": moment(one.at)} for one in opened],
        "clearances": [{"by": one.by, "entry": one.number, "at": moment(one.at)} for one in content.clearances],
    }
    hidden = () if kind is BundleKind.AUDIT else ("who", "by")
    return {
        what: [{name: value for name, value in one.items() if name not in hidden} for one in some]
        for what, some in given.items()
    }


def _lock(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "versions": {
            "simsa": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        **lock_document(parts["plan"], parts["design"]),
    }


def _lines(lines: Sequence[Line]) -> bytes:
    return b"".join(canonical_json(line) + b"\n" for line in lines)


def _personal(value: Any) -> Sequence[tuple[str, str]]:
    """Kind and masked form of everything in the texts of a value that looks like personal data."""
    match value:
        case str():
            return [(found.kind.value, found.masked) for found in personal_data_in(value)]
        case Mapping():
            return [found for one in value.values() for found in _personal(one)]
        case list() | tuple():
            return [found for one in value for found in _personal(one)]
    return []
