"""Whether those who ran and judged a round did what its rules say: who opened the names, whom conflicts kept from what,
and whose words may be read by everybody.

Each function gives the faults that it finds and never raises for a bundle's own contents, but what `verify` catches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from gateway.domain.accounts import Role
from gateway.domain.canonical_json import read_canonical
from gateway.domain.rounds import ItemKind
from gateway.domain.withheld import WITHHELD
from gateway.rounds.bundle import ABOUT, FINDINGS, VOTES, BundleKind, whole_record
from gateway.rounds.bundle_view import BundleView, Fault, listed
from gateway.rounds.clearing import CLEAR
from gateway.rounds.closing import ACCESSES, EXCLUSIONS, REVIEWERS
from gateway.rounds.conflicts import CONFLICT, consortia_of_codes, is_conflict
from gateway.rounds.life import APPROVE
from gateway.rounds.sealed import ITEMS, MAPPING

_PLACE = "approvals"
_REST_ON = (
    "approvals and clearances rest on lines of the access log from after the closing, which neither root, head nor "
    "closing covers, only this bundle's own root; and they tell keys apart, not persons"
)
_LOGGED_AS: Mapping[str, frozenset[str]] = {
    Role.CHAIR.value: frozenset({Role.CHAIR.value}),
    Role.OPERATOR.value: frozenset({Role.OPERATOR.value, Role.ADMIN.value}),
}
"""The two roles that a reveal takes, and how the access log may call whoever acted in them."""


def people_notes(view: BundleView) -> list[str]:
    """What the checks of approvals and clearances cannot show; nothing where the bundle has neither."""
    return [_REST_ON] if view.about.get(_PLACE) or view.about.get("clearances") else []


def approval_faults(view: BundleView) -> list[Fault]:
    """The names were opened by two people, a chair and an operator, after closing; the access log says so too.

    A public bundle names nobody, so that they are two people is the audit bundle's to show.
    """
    given = view.about["approvals"]
    if not view.is_revealed:
        return [Fault(ABOUT, _PLACE, "the names are not open: expected none")] if given else []
    roles = {one["role"] for one in given}
    faults = [
        Fault(ABOUT, _PLACE, f"expected one by the role {role}, found none") for role in _LOGGED_AS if role not in roles
    ]
    if not _is_public(view) and len({one["who"] for one in given}) != len(given):
        faults.append(Fault(ABOUT, _PLACE, "expected two people, found one of them twice"))
    closed, revealed = (datetime.fromisoformat(view.about["moments"][name]) for name in ("closed_at", "revealed_at"))
    for number, one in enumerate(given):
        if not closed <= datetime.fromisoformat(one["at"]) <= revealed:
            words = f"given at {one['at']}: expected a moment from closing ({closed}) to the reveal ({revealed})"
            faults.append(Fault(ABOUT, f"{_PLACE}[{number}]", words))
    return [*faults, *_unlogged(view, given)]


def _unlogged(view: BundleView, given: list[Mapping[str, Any]]) -> Iterator[Fault]:
    """Approvals that the access log does not know, after the closing and by the same person where they are named."""
    logged = _later(view, APPROVE)
    for number, one in enumerate(given):
        known = _LOGGED_AS.get(one["role"], ())
        if not any(entry["role"] in known and entry.get("who") == one.get("who") for entry in logged):
            words = f"the access log has no {APPROVE} of it after the closing"
            yield Fault(ABOUT, f"{_PLACE}[{number}]", words)


def conflict_faults(view: BundleView) -> list[Fault]:
    """What reviewers declared before beginning put aside exactly the items that the rule says, each once.

    It takes the conflicts, which an audit bundle opens, and the consortia, which the reveal opens.
    """
    due = dict(_due(view))
    file, faults, found = f"{EXCLUSIONS}.jsonl", [], Counter[str]()
    reviewers = {item["id"]: item["reviewer"] for item in view.parts[ITEMS]}
    for number, line in enumerate(view.records[EXCLUSIONS], start=1):
        one = whole_record(line)
        if one["rule"] != CONFLICT:
            continue
        item = one["subject"] if one["kind"] == "item" else None
        found[str(item)] += 1
        if item not in due:
            who = reviewers.get(item)
            words = f"{one['kind']} {one['subject']} is put aside for a conflict that {who} did not declare"
            faults.append(Fault(file, f"line {number}", words))
        elif found[item] > 1:
            faults.append(Fault(file, f"line {number}", f"item {item} is put aside twice"))
    faults += [
        Fault(file, "", f"item {item} is not put aside: {reviewer} declared a conflict with a side of it")
        for item, reviewer in due.items()
        if not found[item]
    ]
    return listed(faults)


def _due(view: BundleView) -> Iterator[tuple[str, str]]:
    """Items that the rule puts aside, with their reviewers. Who never consented declared nothing that counts."""
    people = [whole_record(line) for line in view.records[REVIEWERS]]
    declared = {one["id"]: one["conflicts"] for one in people if one["consented_at"] is not None}
    consortia = consortia_of_codes(view.parts[MAPPING])
    for item in view.parts[ITEMS]:
        sides = (item["left"], item["right"])
        if is_conflict(ItemKind(item["kind"]), sides, consortia, declared.get(item["reviewer"], ())):
            yield item["id"], item["reviewer"]


def clearance_faults(view: BundleView) -> list[Fault]:
    """Words were cleared after closing, as the access log says; a public bundle shows those and no others."""
    given = view.about["clearances"]
    closed = datetime.fromisoformat(view.about["moments"]["closed_at"])
    last = {line["payload"]["item"]: line["sequence"] for line in view.records[VOTES]}
    counting = set(last.values())
    lines = {line["sequence"]: line for line in view.records[VOTES] if line["sequence"] in counting}
    logged = {(one["subject"], one.get("who")) for one in _later(view, CLEAR)}
    faults = []
    for number, one in enumerate(given):
        place, entry = f"clearances[{number}]", one["entry"]
        if not _kept_back(lines.get(entry)):
            faults.append(Fault(ABOUT, place, f"entry {entry}: expected the last revision of an item, with free words"))
        if datetime.fromisoformat(one["at"]) < closed:
            faults.append(Fault(ABOUT, place, f"cleared at {one['at']}: expected a moment after closing ({closed})"))
        if (str(entry), one.get("by")) not in logged:
            faults.append(Fault(ABOUT, place, f"entry {entry}: the access log has no {CLEAR} of it after the closing"))
    numbers = [one["entry"] for one in given]
    if len(set(numbers)) != len(numbers):
        faults.append(Fault(ABOUT, "clearances", "expected each entry once"))
    return listed([*faults, *(_shown_faults(view, set(numbers)) if _is_public(view) else ())])


def _shown_faults(view: BundleView, cleared: set[int]) -> Iterator[Fault]:
    """What of reviewers' words a public bundle shows without a clearance, or keeps back in spite of one."""
    findings: Any = read_canonical(view.files[FINDINGS])
    file = f"{VOTES}.jsonl"
    withheld = {(one["line"], one["field"]) for one in findings if one["file"] == file and one["done"] == "withheld"}
    for line in view.records[VOTES]:
        entry, opened = line["sequence"], set(line.get("opened", {}))
        if opened and entry not in cleared:
            yield Fault(file, f"entry {entry}", f"{', '.join(sorted(opened))}: shown, and nobody cleared it")
        for name in sorted(_kept_back(line) - opened) if entry in cleared else ():
            if (entry, name) not in withheld:
                yield Fault(file, f"entry {entry}", f"{name}: it was cleared, and {FINDINGS} does not say why it lacks")


def _kept_back(line: Mapping[str, Any] | None) -> set[str]:
    """Fields of a vote that stand behind commitments."""
    return set() if line is None else set(line["payload"]["judgement"].get(WITHHELD, {}))


def _later(view: BundleView, action: str) -> list[dict[str, Any]]:
    """Entries of the access log from after the closing."""
    lines = [line for line in view.records[ACCESSES] if line.get("after_closing")]
    return [one for one in map(whole_record, lines) if one["action"] == action]


def _is_public(view: BundleView) -> bool:
    return bool(view.about["bundle"] == BundleKind.PUBLIC.value)
