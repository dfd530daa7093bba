"""Whether a bundle holds, found out offline from the bundle and what was published: every fault, by file and place.

Without the published root a bundle can only be consistent: whoever made it could have made all of it up. Nothing here
asks the gateway, the database or the clock.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
import scipy

from gateway import __version__
from gateway.domain.canonical_json import read_canonical
from gateway.domain.rounds import RoundKind
from gateway.rounds.archive import (
    MANIFEST,
    ArchiveUnreadable,
    bundle_root,
    manifest_entries,
    pack,
    read_manifest,
    unpack,
)
from gateway.rounds.bundle import (
    ANALYSIS,
    FINDINGS,
    LANGUAGES,
    LOCK,
    VOTES,
    Analyse,
    BundleKind,
    Report,
    analysis_of,
    report_name,
)
from gateway.rounds.bundle_view import MALFORMED, BundleView, Fault, difference, read_bundle, stray_faults
from gateway.rounds.closing import ACCESSES, ANSWERS, RECORDS
from gateway.rounds.sealed import ITEMS, MAPPING, PARTS
from gateway.rounds.verify_people import approval_faults, clearance_faults, conflict_faults, people_notes
from gateway.rounds.verify_records import (
    chain_faults,
    closing_faults,
    finding_faults,
    line_faults,
    opening_faults,
    receipt_faults,
    shown_faults,
    subject_faults,
    vote_faults,
)
from gateway.rounds.verify_seal import (
    OtherRules,
    about_faults,
    answer_faults,
    design_faults,
    item_faults,
    mapping_faults,
    redaction_faults,
    seal_faults,
)

_VOTES, _ANSWERS = f"{VOTES}.jsonl", f"{ANSWERS}.jsonl"
_RECORDS = tuple(f"{name}.jsonl" for name in RECORDS)


class State(StrEnum):
    HOLDS = "holds"
    BROKEN = "broken"
    NOT_CHECKED = "not checked"


class Verdict(StrEnum):
    BROKEN = "broken"
    CONSISTENT = "consistent, not authenticated"
    """It agrees with itself; nothing that was published says that it is the round."""
    PARTLY = "consistent, authenticated in part"
    AUTHENTICATED = "authenticated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the verifier has from elsewhere; None where they have it not."""

    root: str | None = None
    """Published at sealing."""
    head: str | None = None
    """Of the chain, published at closing."""
    closing: str | None = None
    """Published at closing."""
    bundle: str | None = None
    """Of this very bundle, told when it was exported."""
    receipt: Mapping[str, Any] | None = None

    def shows(self) -> dict[str, bool]:
        """What is authenticated by what was given, where everything holds."""
        whole = self.bundle is not None
        return {
            "what was sealed": whole or self.root is not None,
            "the votes": whole or self.head is not None or self.closing is not None,
            "the other records": whole or self.closing is not None,
        }


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: State
    faults: tuple[Fault, ...] = ()
    why: str | None = None
    """Why it was not checked."""


@dataclass(frozen=True, slots=True)
class Verification:
    """All that was found."""

    about: Mapping[str, Any]
    bundle: str | None
    """The bundle's root; None where there is no manifest."""
    checks: tuple[Check, ...]
    shows: Mapping[str, bool]
    notes: tuple[str, ...] = ()

    @property
    def faults(self) -> list[Fault]:
        return [fault for check in self.checks for fault in check.faults]

    @property
    def unchecked(self) -> list[Check]:
        """Nothing is authenticated as a whole while something in it was not looked at."""
        return [check for check in self.checks if check.state is State.NOT_CHECKED]

    @property
    def verdict(self) -> Verdict:
        if any(check.state is State.BROKEN for check in self.checks):
            return Verdict.BROKEN
        if all(self.shows.values()) and not self.unchecked:
            return Verdict.AUTHENTICATED
        return Verdict.PARTLY if any(self.shows.values()) else Verdict.CONSISTENT

    @property
    def holds(self) -> bool:
        return self.verdict is not Verdict.BROKEN

    def document(self) -> dict[str, Any]:
        names = ("id", "name", "bundle", "is_revealed", "provenance", "root", "head", "votes")
        return {
            "verdict": self.verdict.value,
            "round": {name: self.about.get(name) for name in names},
            "bundle_root": self.bundle,
            "authenticated": dict(self.shows) if self.holds else dict.fromkeys(self.shows, False),
            "checks": [
                {"name": one.name, "state": one.state.value, "faults": len(one.faults), "why": one.why}
                for one in self.checks
            ],
            "faults": [fault.document() for fault in self.faults],
            "notes": list(self.notes),
        }


def verify_bundle(
    data: bytes,
    published: Published | None = None,
    *,
    analyse: Analyse | None = None,
    report: Report | None = None,
) -> Verification:
    """Check everything that can be checked, whatever was found before.

    `analyse` recomputes the result, `report` its pages. Without them what a bundle says of its result stays unchecked,
    and it cannot be authenticated.
    """
    published = published or Published()
    try:
        archive = unpack(data)
    except ArchiveUnreadable as error:
        broken = Check("archive", State.BROKEN, (Fault("the archive", "", str(error)),))
        return Verification({}, None, (broken,), published.shows())
    view = read_bundle(archive.files)
    checks = [
        _checked("archive", lambda: _archive_faults(data, view, archive.stray)),
        _checked("manifest", lambda: _manifest_faults(archive.files, published.bundle)),
        _checked("files", lambda: [*view.faults, *stray_faults(view)]),
        *(_checked_on(view, name, parts, find) for name, parts, find in _plan(view, published)),
        _analysis_check(view, analyse),
        *_report_checks(view, report),
    ]
    root = bundle_root(manifest_entries(archive.files))
    return Verification(view.about, root, tuple(checks), published.shows(), (*people_notes(view), *_notes(view)))


def _plan(view: BundleView, published: Published) -> Sequence[tuple[str, Sequence[str], Callable[[], Sequence[Fault]]]]:
    """The checks: name, the parts and records that it takes, and how it finds faults."""
    plan: list[tuple[str, Sequence[str], Callable[[], Sequence[Fault]]]] = [
        ("seal", (), partial(seal_faults, view, published.root)),
        ("round", ("plan", "design", "answers"), partial(about_faults, view)),
        ("design", ("design", "reviewers"), partial(design_faults, view)),
        ("queues", (ITEMS, "design", "practice"), partial(item_faults, view)),
        ("answers", ("answers", _ANSWERS), partial(answer_faults, view)),
        ("chain", (_VOTES,), partial(chain_faults, view, published.head)),
        ("votes", (_VOTES, ITEMS, "plan"), partial(vote_faults, view)),
        ("shown", (_VOTES, ITEMS, "prompts", "practice", "answers"), partial(shown_faults, view)),
        ("closing", _RECORDS, partial(closing_faults, view, published.closing)),
        ("lines", (*_RECORDS, _VOTES), partial(line_faults, view)),
        ("openings", _RECORDS, partial(opening_faults, view)),
        ("subjects", (*_RECORDS, ITEMS, "prompts", "reviewers"), partial(subject_faults, view)),
        ("approvals", (f"{ACCESSES}.jsonl",), partial(approval_faults, view)),
        ("clearances", (f"{ACCESSES}.jsonl", _VOTES), partial(clearance_faults, view)),
    ]
    if MAPPING in view.parts:
        plan.append(("mapping", (MAPPING, "plan"), partial(mapping_faults, view)))
        if view.about.get("bundle") == BundleKind.AUDIT.value:
            plan.append(("conflicts", (MAPPING, ITEMS, *_RECORDS), partial(conflict_faults, view)))
    if view.about and view.is_revealed and view.about.get("kind") == RoundKind.ANSWERS.value:
        plan.append(("redaction", ("lexicon", "prompts", _ANSWERS), partial(redaction_faults, view)))
    if view.about.get("bundle") == BundleKind.PUBLIC.value and FINDINGS in view.files:
        plan.append(("personal data", ("plan", "prompts", "practice", _ANSWERS), partial(finding_faults, view)))
    if published.receipt is not None:
        plan.append(("receipt", (_VOTES,), partial(receipt_faults, view, published.receipt)))
    return plan


def _checked_on(view: BundleView, name: str, needs: Sequence[str], find: Callable[[], Sequence[Fault]]) -> Check:
    if not view.about or not view.has(*needs):
        return Check(name, State.NOT_CHECKED, why="a file that it takes cannot be read")
    return _checked(name, find)


def _checked(name: str, find: Callable[[], Sequence[Fault]]) -> Check:
    """What a check finds. Documents of another shape than they should have are a fault like any other."""
    try:
        faults = tuple(find())
    except OtherRules as error:
        return Check(name, State.NOT_CHECKED, why=str(error))
    except MALFORMED as error:
        words = f"a document is not shaped as it should be: {type(error).__name__}: {error}"
        faults = (Fault(name, "", words),)
    return Check(name, State.BROKEN if faults else State.HOLDS, faults)


def _archive_faults(data: bytes, view: BundleView, stray: str | None) -> list[Fault]:
    if stray is not None:
        return [Fault("the archive", "", stray)]
    moments = view.about["moments"] if view.about else {}
    moment = moments.get("revealed_at") or moments.get("closed_at")
    if moment is None:
        return [Fault("the archive", "", "the moment that its entries should bear cannot be read")]
    if pack(view.files, datetime.fromisoformat(moment)) != data:
        return [Fault("the archive", "", f"its entries do not bear the moment {moment}")]
    return []


def _manifest_faults(files: Mapping[str, bytes], root: str | None) -> list[Fault]:
    """Each file by name, then the bundle's root."""
    if MANIFEST not in files:
        return [Fault(MANIFEST, "", "expected this file, found none")]
    try:
        manifest = read_manifest(files[MANIFEST])
    except MALFORMED as error:
        return [Fault(MANIFEST, "", f"it cannot be read: {error}")]
    found = manifest_entries(files)
    listed: Mapping[str, Any] = manifest["files"]
    faults = [Fault(name, "", "it is not in the manifest") for name in found if name not in listed]
    for name, entry in listed.items():
        if name not in found:
            faults.append(Fault(name, "", "the manifest lists it, the bundle has no such file"))
        elif found[name] != entry:
            words = f"its SHA-256 is {found[name]['sha256']}, the manifest says {entry['sha256']}"
            faults.append(Fault(name, "", words))
    if bundle_root(listed) != manifest["root"]:
        faults.append(Fault(MANIFEST, "root", f"its files make {bundle_root(listed)}, it says {manifest['root']}"))
    if root is not None and bundle_root(found) != root:
        faults.append(Fault(MANIFEST, "root", f"expected the bundle {root}, found {bundle_root(found)}"))
    return faults


def _analysis_check(view: BundleView, analyse: Analyse | None) -> Check:
    name = "analysis"
    if ANALYSIS not in view.files:
        return Check(name, State.NOT_CHECKED, why="the bundle has no analysis")
    if analyse is None:
        return Check(name, State.NOT_CHECKED, why="nothing here can recompute it")
    return _checked_on(
        view,
        name,
        (*_RECORDS, _VOTES, *(name for name in PARTS if name != MAPPING)),
        partial(_analysis_faults, view, analyse),
    )


def _analysis_faults(view: BundleView, analyse: Analyse) -> list[Fault]:
    made = analysis_of(view.parts, view.records, analyse)
    words = difference(made, read_canonical(view.files[ANALYSIS]))
    return [] if words is None else [Fault(ANALYSIS, "", f"recomputed, it is another: {words}")]


def _report_checks(view: BundleView, report: Report | None) -> list[Check]:
    """The pages made again from the analysis, which is checked by itself; none where none are due."""
    names = {language: report_name(language) for language in LANGUAGES}
    if report is None and not any(name in view.files for name in names.values()):
        return []
    if report is None or not all(name in view.files for name in names.values()) or ANALYSIS not in view.files:
        why = "nothing here can make it again" if report is None else "the bundle lacks a report, or its analysis"
        return [Check("reports", State.NOT_CHECKED, why=why)]
    parts = tuple(name for name in PARTS if name != MAPPING)
    return [_checked_on(view, "reports", parts, partial(_report_faults, view, report, names))]


def _report_faults(view: BundleView, report: Report, names: Mapping[str, str]) -> list[Fault]:
    analysis: Any = read_canonical(view.files[ANALYSIS])
    return [
        Fault(name, "", "made again from the analysis, it is another")
        for language, name in names.items()
        if report(view.about, analysis, view.parts, language).encode() != view.files[name]
    ]


def _notes(view: BundleView) -> list[str]:
    """What is no fault, and good to know."""
    try:
        lock: Any = read_canonical(view.files[LOCK])
        versions = lock["versions"]
        own = {
            "simsa": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        }
        return [
            f"{name}: the bundle was made with {versions[name]}, this is {own[name]}"
            for name in own
            if versions[name] != own[name]
        ]
    except MALFORMED:
        return [f"{LOCK} cannot be read"]
